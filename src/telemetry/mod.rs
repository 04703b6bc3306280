//! Counters as plain numbers, and how they and the log lines are written as text.

pub mod counters;
pub mod log;
pub mod prometheus;
