//! Tests of the whole: the rules of the repository.

mod tidy;
mod binary;
mod websocket;

mod sim;
