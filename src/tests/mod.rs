//! Tests of the whole: the rules of the repository.

mod tidy;
mod websocket;
mod link;

mod sim;
