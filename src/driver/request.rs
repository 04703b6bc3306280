//! What a shard's thread asks of the control thread, and the bounded way there.
//!
//! Answers come back as parcels in the shard's mailbox.

use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::ids::{ProcessId, ShardId, Ticket};
use crate::shard::event::Question;

/// One request.
#[derive(Debug)]
pub enum Request {
    /// Find something out; answered by `Parcel::Answered`, always.
    Ask {
        /// Who asks.
        shard: ShardId,
        /// Goes back with the answer.
        ticket: Ticket,
        /// What.
        question: Question,
    },
    /// Stop a child process; answered by `Parcel::Exited`, unless there is none of this name.
    Stop {
        /// Who asks.
        shard: ShardId,
        /// Which of its processes.
        process: ProcessId,
        /// How long each step may take.
        grace: Duration,
    },
    /// Whole log lines to write.
    Log(Vec<u8>),
    /// The shard's thread has ended; after this it asks nothing more.
    Ended(ShardId),
}

/// The way to the control thread. Never waits.
#[derive(Clone, Debug)]
pub struct ControlSender {
    requests: Sender<Request>,
}

/// Why a request did not leave.
#[derive(Debug)]
pub(super) enum Unsent {
    /// There is no room now.
    Full(Request),
    /// There is no control thread any more.
    Closed(Request),
}

impl ControlSender {
    /// A way into this queue.
    pub fn new(requests: Sender<Request>) -> Self {
        Self { requests }
    }

    pub(super) fn post(&self, request: Request) -> Result<(), Unsent> {
        self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(request) => Unsent::Full(request),
            TrySendError::Closed(request) => Unsent::Closed(request),
        })
    }

    /// The last request of a thread, which may wait: nothing else runs on it any more.
    pub(super) fn post_last(&self, request: Request) {
        // Without a control thread nobody has to know.
        self.requests.blocking_send(request).unwrap_or_default();
    }
}
