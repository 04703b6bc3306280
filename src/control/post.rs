//! Parcels to shards that must arrive even if the mailbox is full at the moment.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::ShardId;
use crate::mesh::{Mesh, Parcel};

/// A mailbox is emptied at each turn of its shard's loop, so it is full only for a moment.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// The mesh, and what did not fit into a mailbox yet, in order.
///
/// What waits is bounded by what shards asked for: one parcel for each question or process.
#[derive(Debug)]
pub(super) struct Post {
    mesh: Mesh,
    /// By shard; none for those that are gone.
    waiting: Vec<Option<VecDeque<Parcel>>>,
}

impl Post {
    /// Nothing waits.
    pub(super) fn new(mesh: Mesh) -> Self {
        let waiting = (0..mesh.shards()).map(|_| Some(VecDeque::new())).collect();
        Self { mesh, waiting }
    }

    /// Sends a parcel, now or as soon as there is room; never before an earlier one.
    pub(super) fn send(&mut self, to: ShardId, parcel: Parcel) {
        let Some(Some(waiting)) = self.waiting.get_mut(usize::from(to.0)) else { return };
        waiting.push_back(parcel);
        self.retry_one(to);
    }

    /// Sends what fits now.
    pub(super) fn retry(&mut self) {
        (0..self.mesh.shards()).map(ShardId).for_each(|shard| self.retry_one(shard));
    }

    /// The shard is gone: throws its parcels away, also those to come.
    pub(super) fn forget(&mut self, shard: ShardId) {
        if let Some(waiting) = self.waiting.get_mut(usize::from(shard.0)) {
            *waiting = None;
        }
    }

    /// Waits until it is time for [`Post::retry`]; for ever if nothing waits.
    pub(super) async fn due(&self) {
        if self.waiting.iter().flatten().all(VecDeque::is_empty) {
            return std::future::pending().await;
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }

    fn retry_one(&mut self, to: ShardId) {
        let Some(Some(waiting)) = self.waiting.get_mut(usize::from(to.0)) else { return };
        while let Some(parcel) = waiting.pop_front() {
            if let Err(parcel) = self.mesh.post(to, parcel) {
                return waiting.push_front(parcel);
            }
        }
    }
}
