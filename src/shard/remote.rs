//! Servers that are no child processes and are served like some, because a conversation with them
//! is held in one place: a stream of HTTP+SSE, a connection by WebSocket, or a stream of a link.
//! Which server has what, and how that begins and ends.

use std::time::Instant;

use wire::lines::LineReader;

use crate::backend::stdio::Carrier;
use crate::backend::websocket::WebSocket;
use crate::ids::{ProcessId, SessionKey};
use crate::session::Link;
use crate::shard::Shard;
use crate::upstream::catalog::{ServerId, Target, Transport, Upkeep};

impl Shard {
    fn target(&self, server: ServerId) -> Option<&Target> {
        self.settings.catalog.get(server).map(|server| &server.target)
    }

    /// How the processes of a server are kept; none if it has no such thing.
    pub(super) fn upkeep(&self, server: ServerId) -> Option<Upkeep> {
        self.target(server)?.upkeep()
    }

    /// Whether messages for a server go to a process, as far as that is known.
    pub(super) fn is_process(&self, server: ServerId) -> bool {
        match self.target(server) {
            Some(
                Target::Stdio(_)
                | Target::WebSocket(_)
                | Target::Tcp(_)
                | Target::Http(Transport::Sse, _),
            ) => true,
            Some(Target::Http(Transport::Auto, _)) => {
                self.pools.get(usize::from(server.0)).is_some_and(|pool| pool.is_sse)
            }
            Some(Target::Http(Transport::Http, _) | Target::View(_)) | None => false,
        }
    }

    /// The same for a message: what a session has begun with, it goes on with.
    pub(super) fn goes_to_process(&self, server: ServerId, session: Option<SessionKey>) -> bool {
        match session.and_then(|key| self.sessions.get(key)) {
            Some(session) => matches!(session.link, Link::Process(_)),
            None => self.is_process(server),
        }
    }

    /// What carries the messages of a new process of this server.
    pub(super) fn carrier(&self, server: ServerId, now: Instant) -> Carrier {
        match self.target(server) {
            Some(Target::Http(..)) => Carrier::Events(Box::default()),
            Some(Target::WebSocket(_)) => Carrier::WebSocket(Box::new(WebSocket::new(now))),
            Some(Target::Tcp(_)) => Carrier::Stream,
            Some(Target::Stdio(_) | Target::View(_)) | None => Carrier::Pipes(LineReader::new()),
        }
    }

    /// The process is over: what carried its messages is, too.
    pub(super) fn remote_ended(&mut self, id: ProcessId, now: Instant) {
        match self.processes.get(&id).map(|process| &process.carrier) {
            Some(Carrier::Events(_)) => self.remote_sse_ended(id, now),
            Some(Carrier::WebSocket(_)) => self.remote_ws_ended(id),
            Some(Carrier::Stream) => self.uplink_forgets(id),
            Some(Carrier::Pipes(_)) | None => {}
        }
    }
}
