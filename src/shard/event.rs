//! What can happen to a shard and what it can ask for: both lists are closed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::ids::{ConnId, Peer, ProcessId, ShardId, Socket, Ticket};
use crate::upstream::catalog::ServerId;

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A client connected.
    Accepted {
        /// Its socket.
        socket: Socket,
        /// Where it comes from.
        peer: Peer,
    },
    /// A client connection arrived from another shard, at the start of a request.
    Adopted {
        /// Its socket.
        socket: Socket,
        /// Where it comes from.
        peer: Peer,
        /// What was received and not used yet.
        bytes: Vec<u8>,
        /// How often it has moved, this time included.
        moves: u8,
    },
    /// A dialled connection is established.
    Connected {
        /// The connection named in [`Action::Dial`].
        conn: ConnId,
    },
    /// Bytes arrived. They are the shard's only until it returns, and may be written to: frames
    /// are unmasked where they are. At most `limits::RECV_LEN`.
    Received {
        /// Where.
        conn: ConnId,
        /// What.
        bytes: &'a mut [u8],
    },
    /// The peer will send no more.
    Ended {
        /// Where.
        conn: ConnId,
    },
    /// The connection failed, or could not be established. Nothing more will come or go.
    Broken {
        /// Where.
        conn: ConnId,
    },
    /// Bytes of the connection's output were sent after they could not be sent at once, or more
    /// than `limits::OUTPUT_LOW` of them had been waiting.
    Sent {
        /// Where.
        conn: ConnId,
    },
    /// The time of the last [`Action::Arm`] has come.
    Woke,
    /// Another shard wrote.
    Mail {
        /// Who.
        from: ShardId,
        /// What.
        letter: Letter,
    },
    /// The control thread answered.
    Answered {
        /// Which question.
        ticket: Ticket,
        /// The answer.
        answer: Answer,
    },
    /// A child process has ended and its group was cleaned up.
    Exited {
        /// Which.
        process: ProcessId,
        /// How, in words for the log: `exit status 1`, `signal 9`.
        how: String,
    },
    /// Stop: accept nothing new, finish what is in flight until `deadline`.
    Drain {
        /// When to close what is still open.
        deadline: Instant,
    },
}

/// Something the driver must do. Actions are carried out in order.
#[derive(Debug)]
pub enum Action {
    /// Give the socket this name and receive from it. It is not paused.
    Receive {
        /// Its name from now on.
        conn: ConnId,
        /// What [`Event::Accepted`], [`Event::Adopted`] or [`Answer::Started`] brought.
        socket: Socket,
    },
    /// Close a socket that gets no connection.
    Discard {
        /// Which.
        socket: Socket,
    },
    /// Connect to one of these addresses, trying them in order. Answered by [`Event::Connected`],
    /// from when on it is received from, or [`Event::Broken`].
    Dial {
        /// Its name.
        conn: ConnId,
        /// Where to. Never empty.
        addrs: Vec<SocketAddr>,
    },
    /// There are bytes in `shard.output(conn)`: send them. If not all can be sent at once, send
    /// the rest when possible and say [`Event::Sent`] after each step.
    Send {
        /// Where.
        conn: ConnId,
    },
    /// Stop receiving from this connection.
    Pause {
        /// Which.
        conn: ConnId,
    },
    /// Receive from it again.
    Resume {
        /// Which.
        conn: ConnId,
    },
    /// Close it and forget its name. Its unsent output is in the action.
    Close {
        /// Which.
        conn: ConnId,
        /// Bytes to send first, in the background and for at most `limits::SEND_TIMEOUT`; the
        /// peer's further bytes are discarded. Empty: close now.
        rest: std::collections::VecDeque<Bytes>,
    },
    /// Give the socket to another shard, which is told by [`Event::Adopted`]; forget its name.
    /// Nothing is unsent.
    Move {
        /// Which.
        conn: ConnId,
        /// Where to.
        to: ShardId,
        /// Where the client comes from.
        peer: Peer,
        /// What was received and not used.
        bytes: Vec<u8>,
        /// For [`Event::Adopted`].
        moves: u8,
    },
    /// Say [`Event::Woke`] at this time; forget any earlier wish.
    Arm {
        /// When.
        deadline: Instant,
    },
    /// Deliver a letter.
    Mail {
        /// To whom.
        to: ShardId,
        /// What.
        letter: Letter,
    },
    /// Ask the control thread. It always answers.
    Ask {
        /// Comes back with the answer.
        ticket: Ticket,
        /// What.
        question: Question,
    },
    /// Stop a child process: after its input was closed, wait `grace`, then SIGTERM to its group,
    /// wait again, then SIGKILL. Answered by [`Event::Exited`]. Unknown processes are ignored.
    Stop {
        /// Which.
        process: ProcessId,
        /// How long each step may take.
        grace: Duration,
    },
    /// The shard is drained: nothing is left to do here. Its thread may end once all shards say
    /// so and nothing is on its way between them.
    Rest,
    /// Something came from another shard after all.
    Rouse,
    /// The time for the drain is over: the thread ends now.
    Quit,
}

/// What only the outside world knows.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    /// The addresses of a host.
    Resolve {
        /// Name or address literal.
        host: String,
        /// Port to put into the answer.
        port: u16,
    },
    /// Start a child process of this server.
    Start {
        /// Which server's command.
        server: ServerId,
        /// What the process is called from now on.
        process: ProcessId,
    },
}

/// What the outside world said.
#[derive(Debug)]
pub enum Answer {
    /// Addresses, at least one.
    Resolved(Vec<SocketAddr>),
    /// The process runs; this is our end of its standard input and output.
    Started {
        /// To be named by [`Action::Receive`].
        socket: Socket,
    },
    /// It could not be done; the reason is for the log.
    Failed(String),
    /// It cannot be done for now, because of a bound; the reason is for the log.
    Full(String),
}

/// What shards write to each other: a connection that mixes sessions of several owners is served
/// through a tunnel to each of them.
#[derive(Debug)]
pub enum Letter {
    /// Bytes of a client's requests, for the tunnel's far end. The first letter opens the tunnel.
    Forward {
        /// The client's connection, at the sender.
        near: ConnId,
        /// Where the client comes from.
        peer: Peer,
        /// What it sent.
        bytes: Bytes,
    },
    /// Bytes for the client.
    Back {
        /// The client's connection, at the receiver.
        near: ConnId,
        /// What to send.
        bytes: Bytes,
    },
    /// The response is complete: the near end may go on with the next request, if `keep_alive`.
    Done {
        /// The client's connection, at the receiver.
        near: ConnId,
        /// Whether the connection may be used again.
        keep_alive: bool,
    },
    /// The near end has passed on this many bytes of the answer.
    Taken {
        /// The client's connection, at the sender.
        near: ConnId,
        /// How many.
        len: usize,
    },
    /// The client is gone.
    Gone {
        /// The client's connection, at the sender.
        near: ConnId,
    },
}
