//! Tests of the whole: the rules of the repository.

pub(crate) mod settings;
mod servers;

mod tidy;
mod binary;
mod websocket;
mod link;
mod endpoints;
mod views;

mod sim;
