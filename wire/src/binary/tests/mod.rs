//! Tests of the binary protocol.

mod bounds;
mod corpus;
mod document;
mod frames;
mod links;
mod loss;
mod pair;
