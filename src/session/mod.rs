//! Whose request is it? Sessions of the legacy era (`initialize` … `DELETE`).

pub mod id;
pub mod replay;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::ids::{ConnId, ExchangeId, ProcessId, UnionKey};
use crate::limits;
use crate::message::Revision;
use crate::session::id::SessionId;
use crate::session::replay::{From, Replay};
use crate::timers::Wish;
use crate::upstream::catalog::{EndpointId, ServerId};
use crate::upstream::restart::Restart;

/// A client's session with one server.
#[derive(Debug)]
pub struct Session {
    /// What the client calls it.
    pub id: SessionId,
    /// The server.
    pub server: ServerId,
    /// Whether `initialize` was answered.
    pub is_open: bool,
    /// The revision that was agreed on.
    pub revision: Revision,
    /// The client's `initialize` as it was sent to the server.
    pub initialize: Bytes,
    /// The client's `notifications/initialized`.
    pub initialized: Option<Bytes>,
    /// Whether the client has said it, even if it was too long to be kept.
    pub is_initialized: bool,
    /// Messages that a new server process or backend session needs: log level, subscriptions.
    pub setup: Vec<Setup>,
    /// Whether the server knows something of the session that `setup` cannot tell it again.
    pub is_irreplaceable: bool,
    /// The server's half.
    pub link: Link,
    /// The view and the place in it, if the session is one of a view with its member.
    pub parent: Option<(UnionKey, usize)>,
    /// The client's connection, if the session lives on one and has no streams.
    pub channel: Option<ConnId>,
    /// Whether its client has begun another in its place: it ends with its last answer.
    pub is_replaced: bool,
    /// Whether the client can neither be asked nor told anything.
    pub is_mute: bool,
    /// Event streams.
    pub replay: Replay,
    /// The pause before its process is started again.
    pub restart: Restart,
    /// Ids (raw JSON) of the server's requests that the client has not answered.
    pub questions: Vec<Bytes>,
    /// Exchanges in flight.
    pub exchanges: Vec<ExchangeId>,
    /// When it was last used.
    pub used_at: Instant,
    /// Timer state.
    pub wish: Wish,
}

/// The server's half of a session.
#[derive(Debug)]
pub enum Link {
    /// A child process, started when needed.
    Process(Option<ProcessId>),
    /// An HTTP server.
    Http {
        /// Where the server keeps it, once that is chosen.
        endpoint: Option<EndpointId>,
        /// The server's own session id, if it gave one.
        id: Option<Bytes>,
        /// The GET stream from the server.
        listen: Option<ExchangeId>,
        /// Last event id of a GET stream that the server ended.
        resume: Option<Bytes>,
        /// Where the client that waits for the GET stream goes on with it.
        from: From,
        /// What is left to do until the session is set up again at a server that had lost it.
        revival: Option<Revival>,
    },
    /// The members of a view.
    Union(UnionKey),
}

/// A session that is being set up again.
#[derive(Debug)]
pub struct Revival {
    /// Exchanges that wait for it.
    pub waiting: Vec<ExchangeId>,
    /// Messages to send first, one after the other.
    pub steps: VecDeque<Bytes>,
    /// Where the session was before, if it moves because that endpoint cannot be connected; and
    /// the id that it had there.
    pub from: Option<(EndpointId, Bytes)>,
}

/// A message to repeat when the server has to be set up again.
#[derive(Debug)]
pub struct Setup {
    /// What it sets, a later message with the same key replaces it: the URI of a resource, or
    /// nothing for the log level.
    pub key: Bytes,
    /// The message.
    pub message: Bytes,
}

impl Session {
    /// A session that was not answered yet, with the `initialize` that begins it.
    pub fn new(
        (id, server): (SessionId, ServerId),
        initialize: Bytes,
        link: Link,
        now: Instant,
    ) -> Self {
        Self {
            id,
            server,
            is_open: false,
            revision: Revision::NEWEST_LEGACY,
            initialize,
            initialized: None,
            is_initialized: false,
            setup: Vec::new(),
            is_irreplaceable: false,
            link,
            parent: None,
            channel: None,
            is_replaced: false,
            is_mute: false,
            replay: Replay::new(),
            restart: Restart::default(),
            questions: Vec::new(),
            exchanges: Vec::new(),
            used_at: now,
            wish: Wish::default(),
        }
    }

    /// Remembers what `method` changes at the server. `subject`: the resource it is about.
    pub fn remember(&mut self, method: &[u8], subject: &[u8], message: impl FnOnce() -> Bytes) {
        let key = match method {
            b"logging/setLevel" => Bytes::new(),
            b"resources/subscribe" | b"resources/unsubscribe" => Bytes::copy_from_slice(subject),
            _ => {
                self.is_irreplaceable |= method.starts_with(b"tasks/");
                return;
            }
        };
        self.setup.retain(|setup| setup.key != key);
        if method == b"resources/unsubscribe" {
            return;
        }
        let message = message();
        if limits::SESSION_SETUP_MAX <= self.setup.len()
            || limits::SESSION_SETUP_LEN_MAX < message.len()
        {
            self.is_irreplaceable = true;
            return;
        }
        self.setup.push(Setup { key, message });
    }

    /// Takes note of a request of the server, or refuses because there are too many.
    pub fn ask(&mut self, id: &[u8]) -> bool {
        let has_room = self.questions.len() < limits::SESSION_QUESTIONS_MAX && !self.is_mute;
        if has_room {
            self.questions.push(Bytes::copy_from_slice(id));
        }
        has_room
    }

    /// Whether the client may answer this; it may once.
    pub fn answer(&mut self, id: &[u8]) -> bool {
        let index = self.questions.iter().position(|question| question == id);
        index.map(|index| self.questions.swap_remove(index)).is_some()
    }
}
