//! Which server a request is for.

pub mod catalog;
