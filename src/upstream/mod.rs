//! Which server a request is for.

pub mod catalog;
pub mod restart;
pub mod view;
