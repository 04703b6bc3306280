//! Which server a request is for.

pub mod balance;
pub mod catalog;
pub mod restart;
pub mod view;
