//! The TCP binary protocol: version 1 in two dialects, and version 2. docs/protocol.md defines it.
//!
//! [`v1`] has frames only. For version 2, [`frame`] has the bytes of frames, and [`Link`] is a
//! state machine for either side of a link: streams, credit, what to send again when a connection
//! was lost. A server reads [`hello`], decides who it is, and makes a [`Link`] or gives the
//! connection to the one that is to be resumed. Nothing here knows a clock: timeouts are the
//! caller's.

pub mod v1;
pub mod frame;
mod error;
mod link;
#[cfg(test)]
mod tests;

pub use error::{FrameError, LinkError, NotResumable, Reason, Refused, SendError, code};
pub use frame::{Facts, Hello, Limits, LinkId, MessageKind, Open, StreamId};
pub use link::{Event, Link, Settings, fuzz_link, hello, write_error};

/// The version of the negotiation that leads here.
pub const VERSION: u32 = 2;
