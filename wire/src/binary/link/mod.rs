//! One link, for either side: a state machine without I/O.
//!
//! A link outlives its connections. For each, the caller passes what it receives to
//! [`Link::receive`], then writes what [`Link::output`] lends it and says how much with
//! [`Link::wrote`], and calls [`Link::lost`] at its end. A client then connects again, negotiates
//! version 2 and calls [`Link::reconnect`]; a server reads [`hello`] and calls [`Link::resume`].
//!
//! ```text
//!              connect                 WELCOME               ERROR, or ours
//!   (client) ─────────► Greeting ────────────────► Attached ───────────────► Ended
//!                          ▲  │ lost                │  ▲  accept (server)
//!                reconnect │  ▼                lost ▼  │ resume (server)
//!                        Detached ◄────────────── Detached
//! ```

mod log;
mod stream;
mod send;
mod receive;
mod fuzz;

pub use fuzz::fuzz_link;
pub use receive::{Event, hello};

use super::frame::{self, Frame, Hello, Limits, LinkId, Open, StreamId, Welcome};
use super::{LinkError, NotResumable, Reason, SendError};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use log::Log;
use stream::{Outgoing, Stream};

/// What one side wants. The limits must be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the peer is told.
    pub limits: Limits,
    /// How long a server keeps a link without a connection; a client is told. The caller measures
    /// it.
    pub keep_ms: u32,
    /// Bytes of messages in a stream's queue at which no further message is taken.
    pub queue_len_max: usize,
    /// The same for the queues of all streams together.
    pub queues_len_max: usize,
    /// Bytes of incomplete messages of all streams at which only the oldest gets credit.
    pub partial_len_max: usize,
    /// Bytes of incomplete messages at which a stream is closed if its own is not the oldest.
    pub partials_len_max: usize,
}

/// One link. Its memory is bounded by its settings: the log by twice `replay_len_max`; the queues
/// by `queues_len_max`, each of them by `queue_len_max`, and one message more; what is received by
/// twice the window of each stream; incomplete messages by `partials_len_max` and one message.
/// Messages that the caller holds are its own.
pub struct Link {
    role: Role,
    state: State,
    id: LinkId,
    owner: Box<[u8]>,
    ours: Settings,
    theirs: Limits,
    /// The highest stream that was opened.
    highest: u32,
    /// No later streams are accepted, and the peer is told so: the last stream, the deadline.
    draining: Option<(u32, u32)>,
    streams: BTreeMap<StreamId, Stream>,
    events: VecDeque<Event<'static>>,

    // Sending.
    log: Log,
    /// Streams that have something to send, in the order in which they may send one frame.
    turn: BTreeMap<u64, StreamId>,
    /// The place of the next in this order.
    next_place: u64,
    /// Bytes of messages in the queues of all streams.
    queued_len: usize,
    notices: Notices,
    /// Frames without a number, and how much of them was written.
    control: Vec<u8>,
    control_sent: usize,

    // Receiving.
    /// The last sequence that was received.
    received: u64,
    /// Bytes of numbered frames since the last ACK.
    unacknowledged: usize,
    /// The streams with incomplete messages whose user keeps up, by the age of these messages.
    partials: BTreeMap<u64, StreamId>,
    /// The age of the next incomplete message.
    next_age: u64,
    /// Bytes of all incomplete messages.
    partials_len: usize,
    /// Streams that get no credit because these are too many.
    starved: BTreeSet<StreamId>,
    /// The front of a frame, when it did not come at once.
    input: Vec<u8>,
    /// The input is a whole frame, which the last event has lent.
    is_lent: bool,
    /// The names of the message that the last event has lent.
    facts: (String, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is no connection.
    Detached,
    /// The client waits for WELCOME.
    Greeting,
    /// Frames go in both directions.
    Attached,
    /// Nothing comes any more, and nothing is sent but a last ERROR.
    Ended,
}

/// Frames without a number that are to be sent. Each is due at most once, whatever the peer does.
#[derive(Default)]
struct Notices {
    ping: Option<[u8; 8]>,
    pong: Option<[u8; 8]>,
    /// Send what `draining` says.
    is_draining: bool,
    /// Streams whose credit has grown.
    credit: BTreeSet<StreamId>,
    error: Option<(u16, String)>,
}

/// Neither tokens nor messages are printed.
impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, state, streams, .. } = self;
        write!(f, "Link {{ {role:?}, {state:?}, streams: {}, .. }}", streams.len())
    }
}

/// Appends the ERROR frame with which a server refuses a connection that has no link.
pub fn write_error(out: &mut Vec<u8>, code: u16, text: &str) {
    Frame::Error { code, text: frame::short_text(text) }.encode(out);
}

impl Link {
    /// A client's new link on a connection where version 2 was negotiated.
    pub fn connect(settings: Settings, token: &str, agent: &str) -> Result<Self, SendError> {
        let mut link = Self::new(Role::Client, settings);
        link.reconnect(token, agent)?;
        Ok(link)
    }

    /// A server's new link. `id` was made of chance for it; `owner` is the identity that was
    /// proved, and nobody else can resume it.
    pub fn accept(id: LinkId, owner: &[u8], settings: Settings, hello: &Hello<'_>) -> Self {
        let mut link = Self::new(Role::Server, settings);
        link.id = id;
        link.owner = owner.into();
        link.theirs = hello.limits;
        link.welcome(false);
        link
    }

    fn new(role: Role, settings: Settings) -> Self {
        debug_assert!(settings.limits.are_valid(), "{settings:?}");
        Self {
            role,
            state: State::Detached,
            id: LinkId::NONE,
            owner: Box::default(),
            ours: settings,
            theirs: settings.limits,
            highest: 0,
            draining: None,
            streams: BTreeMap::new(),
            events: VecDeque::new(),
            log: Log::new(),
            turn: BTreeMap::new(),
            next_place: 0,
            queued_len: 0,
            notices: Notices::default(),
            control: Vec::new(),
            control_sent: 0,
            received: 0,
            unacknowledged: 0,
            partials: BTreeMap::new(),
            next_age: 0,
            partials_len: 0,
            starved: BTreeSet::new(),
            input: Vec::new(),
            is_lent: false,
            facts: (String::new(), String::new()),
        }
    }

    /// The connection is gone. Streams and queues stay, until the link is resumed or dropped.
    pub fn lost(&mut self) {
        if self.state != State::Ended {
            self.state = State::Detached;
        }
        self.control = Vec::new();
        self.control_sent = 0;
        self.notices.ping = None;
        self.notices.pong = None;
        self.input = Vec::new();
        self.is_lent = false;
        self.log.rewind();
    }

    /// A client's next connection, on which version 2 was negotiated.
    pub fn reconnect(&mut self, token: &str, agent: &str) -> Result<(), SendError> {
        if self.state == State::Ended {
            return Err(SendError::Ended);
        }
        if frame::NAMES_LEN_MAX < frame::names_len(&[token, agent]) {
            return Err(SendError::NamesTooLong);
        }
        self.lost();
        self.state = State::Greeting;
        let (link, received, limits) = (self.id, self.received, self.ours.limits);
        Frame::Hello(Hello { token, agent, link, received, limits }).encode(&mut self.control);
        Ok(())
    }

    /// A server's next connection, which began with this `hello` of this `owner`. Otherwise the
    /// link stays as it was; the caller answers with a new one and drops this one only if it is the
    /// owner's.
    pub fn resume(&mut self, hello: &Hello<'_>, owner: &[u8]) -> Result<(), NotResumable> {
        if hello.link != self.id || self.role == Role::Client {
            return Err(NotResumable::OtherLink);
        }
        if *owner != *self.owner {
            return Err(NotResumable::OtherOwner);
        }
        if self.state == State::Ended {
            return Err(NotResumable::Ended);
        }
        if !self.log.resume(hello.received) {
            return Err(NotResumable::BadSequence);
        }
        self.lost();
        self.welcome(true);
        Ok(())
    }

    fn welcome(&mut self, resumed: bool) {
        let (link, received, limits) = (self.id, self.received, self.ours.limits);
        let keep_ms = self.ours.keep_ms;
        let welcome = Welcome { resumed, link, received, limits, keep_ms };
        Frame::Welcome(welcome).encode(&mut self.control);
        self.attach();
    }

    /// From here on frames go in both directions; tells again what may have got lost.
    fn attach(&mut self) {
        self.state = State::Attached;
        self.unacknowledged = 0;
        self.notices.is_draining = self.draining.is_some() && self.role == Role::Server;
        let window = u64::from(self.ours.limits.window);
        let has_grown = |(_, stream): &(&StreamId, &Stream)| window < stream.granted;
        self.notices.credit = self.streams.iter().filter(has_grown).map(|(id, _)| *id).collect();
    }

    /// Opens a stream (clients only). Its messages may follow at once.
    pub fn open(&mut self, open: Open<'_>) -> Result<StreamId, SendError> {
        let Open { server, session, revision } = open;
        self.may_open()?;
        if frame::NAMES_LEN_MAX < frame::names_len(&[server, session, revision]) {
            return Err(SendError::NamesTooLong);
        }
        let number = self.highest.checked_add(1).and_then(StreamId::new);
        let id = number.ok_or(SendError::NoMoreStreams)?;
        self.highest = id.get();
        let mut stream = Stream::new(self.ours.limits.window, self.theirs.window);
        stream.push(Outgoing::Open {
            server: server.into(),
            session: session.into(),
            revision: revision.into(),
        });
        self.streams.insert(id, stream);
        self.take_turn(id);
        Ok(id)
    }

    fn may_open(&self) -> Result<(), SendError> {
        if self.state == State::Ended {
            return Err(SendError::Ended);
        }
        if self.role == Role::Server {
            return Err(SendError::NotAClient);
        }
        if self.id == LinkId::NONE {
            return Err(SendError::NotReady);
        }
        if self.draining.is_some() {
            return Err(SendError::Draining);
        }
        if self.theirs.streams_max as usize <= self.streams.len() {
            return Err(SendError::NoMoreStreams);
        }
        Ok(())
    }

    /// Closes a stream; there will be no further event of it. With [`Reason::DONE`] and
    /// [`Reason::DRAINING`] what is queued is sent first, however long it takes; otherwise it is
    /// dropped, and the message that is under way with it. A stream that is being closed can be
    /// closed so once more.
    pub fn close(&mut self, id: StreamId, reason: Reason, text: &str) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let is_done = matches!(reason, Reason::DONE | Reason::DRAINING);
        if stream.is_closing && is_done {
            return;
        }
        stream.is_closing = true;
        stream.wants_room = false;
        if !is_done {
            if matches!(stream.queue.front(), Some(Outgoing::Open { .. })) {
                // The peer has never heard of it.
                self.forget(id);
                return;
            }
            stream.queue.clear();
            self.queued_len -= core::mem::take(&mut stream.queued_len);
        }
        stream.push(Outgoing::Close { reason, text: frame::short_text(text).into() });
        self.drop_partial(id);
        self.take_turn(id);
    }

    /// Gives credit back for messages of `len` bytes together that came on this stream and are
    /// dealt with.
    pub fn release(&mut self, id: StreamId, messages: usize, len: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.held = stream.held.saturating_sub(len + messages * stream::MESSAGE_COST);
        if let Some(partial) = &stream.partial
            && stream.keeps_up(self.ours.limits.window)
        {
            self.partials.insert(partial.age, id);
        }
        self.grant(id);
    }

    /// Sends PING. The caller waits for the event `Pong` before the next.
    pub const fn ping(&mut self, token: [u8; 8]) {
        self.notices.ping = Some(token);
    }

    /// A server tells that it will stop, and refuses streams from here on. Without a connection
    /// it does so with the next.
    pub fn drain(&mut self, deadline_ms: u32) {
        if self.role == Role::Server {
            let last_stream = self.draining.map_or(self.highest, |(last_stream, _)| last_stream);
            self.draining = Some((last_stream, deadline_ms));
            self.notices.is_draining = true;
        }
    }

    /// Ends the link with an ERROR frame; see [`super::code`]. The caller closes the connection
    /// when there is no more output.
    pub fn end(&mut self, code: u16, text: &str) {
        if self.state == State::Ended {
            return;
        }
        self.clear();
        self.state = State::Ended;
        self.notices.error = Some((code, frame::short_text(text).into()));
    }

    fn fail(&mut self, error: LinkError) {
        self.end(error.code(), &alloc::format!("{error}"));
        self.events.push_back(Event::Failed { error });
    }

    /// Forgets all streams and what is due to be sent. The log stays: it may be in a frame.
    fn clear(&mut self) {
        self.streams.clear();
        self.turn.clear();
        self.queued_len = 0;
        self.partials.clear();
        self.partials_len = 0;
        self.starved.clear();
        self.notices = Notices::default();
        self.events.clear();
    }

    /// Removes a stream and every trace of it.
    fn forget(&mut self, id: StreamId) -> Option<Stream> {
        self.drop_partial(id);
        let stream = self.streams.remove(&id)?;
        if let Some(place) = stream.place {
            self.turn.remove(&place);
        }
        self.queued_len -= stream.queued_len;
        self.notices.credit.remove(&id);
        Some(stream)
    }

    /// The link's id. Who knows it and proves to be its owner can resume the link.
    pub const fn id(&self) -> LinkId {
        self.id
    }

    /// How long the server keeps the link without a connection; for a client, since `Welcomed`.
    pub const fn keep_ms(&self) -> u32 {
        self.ours.keep_ms
    }

    /// Whether the link has ended: nothing but its last output is left of it.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Streams that are open, or being closed.
    pub fn streams_count(&self) -> usize {
        self.streams.len()
    }

    /// Whether the peer takes a message of so many bytes.
    pub const fn fits(&self, len: usize) -> bool {
        len <= self.theirs.message_len_max as usize
    }

    /// Bytes that wait on a stream until they can be sent.
    pub fn waiting_len(&self, id: StreamId) -> usize {
        self.streams.get(&id).map_or(0, |stream| stream.queued_len)
    }

    /// Bytes that were sent on a stream so far: its peer has asked for them.
    pub fn taken_len(&self, id: StreamId) -> u64 {
        self.streams.get(&id).map_or(0, |stream| stream.spent)
    }

    /// Bytes of messages and of a frame that have not come to their ends.
    pub fn gathered_len(&self) -> usize {
        self.partials_len + self.input.len()
    }

    /// Bytes that wait to be sent or acknowledged, for the caller's accounts.
    pub const fn queued_len(&self) -> usize {
        self.log.len() + self.queued_len
    }
}

#[cfg(test)]
impl Link {
    /// Bytes of messages that are not complete.
    pub(in crate::binary) fn partials_len(&self) -> usize {
        self.partials_len
    }

    /// Bytes of memory that the front of a frame takes.
    pub(in crate::binary) fn input_capacity(&self) -> usize {
        self.input.capacity()
    }
}
