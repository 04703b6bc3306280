//! Tests of the binary protocol.

mod corpus;
mod document;
mod frames;
mod links;
mod loss;
mod pair;
