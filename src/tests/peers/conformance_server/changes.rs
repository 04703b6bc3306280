//! Who is told when something changes: subscriptions of both eras.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rmcp::model::ResourceUpdatedNotificationParam;
use rmcp::service::{Peer, RoleServer, SubscriptionContext, SubscriptionSink};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Milliseconds in which a stream begins that was granted.
const SETTLE_ROUNDS: usize = 100;

/// The resources that a session subscribed to.
pub(crate) type Watched = Arc<Mutex<HashSet<String>>>;

pub(crate) enum Change {
    Tools,
    Prompts,
    Resource(String),
}

#[derive(Default)]
pub(crate) struct Audience {
    sessions: Mutex<Vec<(Peer<RoleServer>, Watched)>>,
    streams: Mutex<BTreeMap<u64, SubscriptionSink>>,
    next: AtomicU64,
    /// Streams that were granted, and those of them that began.
    granted: AtomicU64,
    begun: AtomicU64,
}

impl Audience {
    /// A session of the legacy era hears of every list and of what it watches.
    pub(crate) async fn join(&self, peer: Peer<RoleServer>, watched: Watched) {
        self.sessions.lock().await.push((peer, watched));
    }

    /// The SDK tells a client that it is listening, and only then calls [`Self::listen`].
    pub(crate) fn grant(&self) {
        self.granted.fetch_add(1, Ordering::Relaxed);
    }

    /// A stream of the modern era hears of what its filter names.
    pub(crate) async fn listen(&self, cx: SubscriptionContext) {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.streams.lock().await.insert(key, cx.sink().clone());
        self.begun.fetch_add(1, Ordering::Relaxed);
        cx.cancelled().await;
        self.streams.lock().await.remove(&key);
    }

    /// Waits for streams whose clients believe that they are listening.
    async fn settle(&self) {
        let granted = self.granted.load(Ordering::Relaxed);
        for _ in 0..SETTLE_ROUNDS {
            if granted <= self.begun.load(Ordering::Relaxed) {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
        // One of them went away before it began.
        self.begun.store(granted, Ordering::Relaxed);
    }

    pub(crate) async fn announce(&self, change: Change) {
        self.settle().await;
        let streams = self.streams.lock().await.clone();
        for sink in streams.values() {
            // A filter refuses what its client did not ask for: that is its job.
            drop(match &change {
                Change::Tools => sink.notify_tool_list_changed().await,
                Change::Prompts => sink.notify_prompt_list_changed().await,
                Change::Resource(uri) => sink.notify_resource_updated(uri).await,
            });
        }
        let sessions = {
            let mut sessions = self.sessions.lock().await;
            sessions.retain(|(peer, _)| !peer.is_transport_closed());
            sessions.clone()
        };
        for (peer, watched) in sessions {
            // A session that ended meanwhile hears nothing.
            drop(match &change {
                Change::Tools => peer.notify_tool_list_changed().await,
                Change::Prompts => peer.notify_prompt_list_changed().await,
                Change::Resource(uri) if watched.lock().await.contains(uri) => {
                    peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await
                }
                Change::Resource(_) => Ok(()),
            });
        }
    }
}
