//! Other people's software around the gateway: the official suite, SDK clients, official servers.

mod conformance;
