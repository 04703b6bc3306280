//! Every bound of the gateway, in one place, with the arithmetic that ties them together.
//!
//! What an operator may change is in the configuration; the defaults for it are here too. All
//! bounds are per shard unless they say otherwise.

use std::time::Duration;

/// Connections of any kind (clients, servers, child processes) one shard holds.
pub const CONNS_MAX: usize = 65_536;

/// Bytes a driver reads at once; also the most that one paused connection keeps unparsed.
pub const RECV_LEN: usize = 64 * 1024;

/// The largest message, in any direction, unless configured (`limits.message`).
pub const MESSAGE_LEN: usize = 16 * 1024 * 1024;

/// The largest value `limits.message` may take.
pub const MESSAGE_LEN_MAX: usize = GATHERED_LEN_MAX;

/// Bytes of messages that a shard gathers or keeps until they are answered, all together.
pub const GATHERED_LEN_MAX: usize = 512 * 1024 * 1024;

/// Nesting of JSON values in a message.
pub const DEPTH_MAX: u16 = 128;

/// Bytes of a request or response head, and of a request target.
pub const HEAD_LEN_MAX: usize = 32 * 1024;
/// See [`HEAD_LEN_MAX`].
pub const TARGET_LEN_MAX: usize = 8 * 1024;

/// Unsent bytes on a connection at which its producer is paused.
pub const OUTPUT_HIGH: usize = 256 * 1024;
/// Unsent bytes at which the producer goes on.
pub const OUTPUT_LOW: usize = 64 * 1024;
/// Unsent bytes beyond one whole message that close a connection whose producer cannot be paused,
/// because others share it.
pub const OUTPUT_SHARED_MAX: usize = 1024 * 1024;
/// Unsent bytes of all connections of a shard beyond which a large answer is refused.
pub const UNREAD_LEN_MAX: usize = 512 * 1024 * 1024;
/// Unsent bytes to a child process at which new requests for it are refused.
pub const STDIN_LEN_MAX: usize = 64 * 1024 * 1024;

/// Frames of one WebSocket message: empty ones cost their sender next to nothing.
pub const FRAMES_MAX: u32 = 65_536;
/// Bytes of a message that is compressed on a WebSocket: shorter ones gain little, and longer ones
/// would keep the others waiting.
pub const COMPRESS_LEN_MIN: usize = 1024;
/// See [`COMPRESS_LEN_MIN`].
pub const COMPRESS_LEN_MAX: usize = 1024 * 1024;

/// Links of clients of the binary protocol, version 2, that are kept although their connections
/// broke.
pub const LINKS_LOST_MAX: usize = 4096;
/// Bytes that these keep, all together: what was not acknowledged, what waits, and messages that
/// are not complete.
pub const LINKS_LOST_LEN_MAX: usize = 256 * 1024 * 1024;
/// Streams of one link. Each has a place among the connections.
pub const LINK_STREAMS_MAX: u32 = 16_384;
/// Bytes that may come on one stream before the first credit, and again while its messages are
/// dealt with.
pub const LINK_WINDOW: u32 = 256 * 1024;
/// Bytes of payload in one frame.
pub const LINK_FRAME_LEN_MAX: u32 = 32 * 1024;
/// Bytes of frames that a link keeps until they are acknowledged.
pub const LINK_REPLAY_LEN_MAX: u32 = 1024 * 1024;
/// Bytes of incomplete messages of a link at which only the oldest of them goes on.
pub const LINK_PARTIAL_LEN_MAX: usize = 1024 * 1024;
/// The same at which a stream is closed whose message is not the oldest: many have a whole window
/// in which they need not ask.
pub const LINK_PARTIALS_LEN_MAX: usize = 64 * 1024 * 1024;
/// Bytes that wait on all streams of a link for its peer at which no message waits any more: it is
/// refused, or its stream is closed.
pub const LINK_QUEUES_LEN_MAX: usize = 64 * 1024 * 1024;
/// Streams of all clients' links. Others need places among the connections as well.
pub const LINK_BRANCHES_MAX: usize = CONNS_MAX / 2;

/// Elements of a JSON-RPC batch (2025-03-26 only).
pub const BATCH_MAX: usize = 64;

/// Sessions of clients one shard holds.
pub const SESSIONS_MAX: usize = 65_536;
/// Sessions with members of views on behalf of these; for whom there is no more, members are
/// missing.
pub const MEMBER_SESSIONS_MAX: usize = 2 * SESSIONS_MAX;
/// Requests in flight in one session.
pub const SESSION_EXCHANGES_MAX: usize = 1024;
/// Requests of a server that one session still has to answer.
pub const SESSION_QUESTIONS_MAX: usize = 256;
/// Messages remembered to set up a restarted server (log level, subscriptions).
pub const SESSION_SETUP_MAX: usize = 64;
/// Bytes of each of them; a session with a longer one is not set up again.
pub const SESSION_SETUP_LEN_MAX: usize = 4096;
/// Bytes of `initialize`, which is remembered as well.
pub const SESSION_INITIALIZE_LEN_MAX: usize = 256 * 1024;
/// Bytes of a JSON-RPC id or a progress token.
pub const ID_LEN_MAX: usize = 1024;

/// Bytes of a bearer token.
pub const TOKEN_LEN_MAX: usize = 4096;
/// Event streams of the predecessor's kind that one token has.
pub const TOKEN_STREAMS_MAX: usize = 16;

/// Events one session keeps for resumption, and their bytes.
pub const REPLAY_EVENTS_MAX: usize = 512;
/// See [`REPLAY_EVENTS_MAX`]. One event of any allowed size is always kept.
pub const REPLAY_LEN_MAX: usize = 4 * 1024 * 1024;
/// Streams of one session that can be resumed.
pub const REPLAY_STREAMS_MAX: usize = 64;
/// Replay bytes of all sessions of a shard.
pub const REPLAY_TOTAL_MAX: usize = 256 * 1024 * 1024;

/// Entries of lists that are kept of all members of a view, for one client. What a server has
/// beyond that is left out.
pub const UNION_ENTRIES_MAX: usize = 16 * 1024;
/// Bytes of these lists for one client, and for all clients of a shard.
pub const UNION_LEN_MAX: usize = 8 * 1024 * 1024;
/// See [`UNION_LEN_MAX`].
pub const LISTED_LEN_MAX: usize = 256 * 1024 * 1024;
/// Bytes of what a member of a view says of itself; one that says more is left out.
pub const UNION_RESULT_LEN_MAX: usize = 256 * 1024;
/// Bytes of the metadata that callers of the stateless era have in common.
pub const CALLER_LEN_MAX: usize = 8 * 1024;
/// Bytes of a URI that is looked for among templates.
pub const TEMPLATED_LEN_MAX: usize = 8 * 1024;
/// Kinds of callers of the stateless era whose lists one shard keeps.
pub const CALLERS_MAX: usize = 1024;
/// Resources in one subscription of the stateless era to a view.
pub const SUBSCRIPTIONS_MAX: usize = 1024;
/// Notifications that wait until a member of a view is initialized; more are dropped.
pub const HELD_MAX: usize = 64;
/// Names that several servers of a view want, told each time that a list was read.
pub const COLLISIONS_TOLD: usize = 16;
/// Tasks of which a union knows which member has them; of others it is asked.
pub const TASKS_KNOWN_MAX: usize = 256;
/// The longest id of such a task.
pub const TASK_ID_LEN_MAX: usize = 128;
/// The longest answer in which the id of a new task is looked for.
pub const TASK_ANSWER_LEN_MAX: usize = 64 * 1024;
/// Entries on one page of a list of a view, unless configured.
pub const UNION_PAGE_LEN: usize = 256;
/// Bytes of the separator between a server's name and that of its tool.
pub const SEPARATOR_LEN_MAX: usize = 8;

/// Connections to one HTTP server, unless configured.
pub const SERVER_CONNS_MAX: usize = 2048;
/// Idle connections kept to one HTTP server.
pub const SERVER_IDLE_MAX: usize = 256;
/// Requests that a shared child process was not waited for and that it may still talk about.
pub const GIVEN_UP_MAX: usize = 1024;
/// How long it is expected to.
pub const GIVEN_UP_TIME: Duration = Duration::from_secs(5);
/// Child processes of one server, unless configured.
pub const PROCESSES_MAX: usize = 128;
/// Processes and threads of one child process, itself included, unless configured.
pub const TASKS_MAX: u32 = 512;

/// Requests of one source that name a session that is none: so many at once, over all shards. Who
/// exceeds it guesses, or has lost very many sessions.
pub const GUESSES_MAX: u32 = 512;
/// Time for each one more.
pub const GUESS_INTERVAL: Duration = Duration::from_millis(50);
/// Sources whose rates are kept apart.
pub const SOURCES_MAX: usize = 4096;

/// Bytes of log lines that wait for the writer; more are counted and dropped.
pub const LOG_LEN_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one value in a log line.
pub const LOG_VALUE_LEN_MAX: usize = 256;

/// Parcels in a shard's mailbox.
pub const MAILBOX_LEN: usize = 8192;

/// Time for a whole request head, from its first byte (or from accept).
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a request body to make progress.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which a client of the binary protocol is asked for a sign of life.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(60);
/// How long its session is said to live; the connection is what counts.
pub const BINARY_SESSION_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Time a link without a connection is kept for its client.
pub const LINK_KEEP_TIME: Duration = Duration::from_secs(60);
/// Time a connection of a link has to last, if nothing comes on it, before the pauses between
/// attempts to connect begin anew.
pub const LINK_SETTLED_TIME: Duration = Duration::from_secs(5);
/// The longest pause between attempts to bring a lost link back.
pub const LINK_REDIAL_MAX: Duration = Duration::from_secs(5);
/// Time for the answers to a client that has said that it will send no more.
pub const LAST_ANSWERS_TIME: Duration = Duration::from_secs(5);
/// Time a client connection may stay open between requests.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);
/// Silence on a WebSocket after which the client is pinged, unless configured. Who has not said
/// anything after twice this time is gone.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Time a peer may leave our bytes unread before its connection is closed.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Silence on an event stream after which a comment is sent.
pub const COMMENT_INTERVAL: Duration = Duration::from_secs(15);
/// Time a client waits for a plain JSON answer before the gateway opens an event stream, so that
/// nothing between the two gives up on a silent connection.
pub const QUIET_TIME: Duration = Duration::from_secs(10);
/// The same where the stream can be resumed if the connection is lost (2025-11-25).
pub const RESUMABLE_QUIET_TIME: Duration = Duration::from_millis(50);
/// How soon a client that lost a stream may ask for the rest of it.
pub const RECONNECT_PAUSE_MS: u64 = 1000;
/// Time a server has to answer the end of a session, for which nobody waits.
pub const DELETE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to connect to a server.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time a server may take to answer, unless configured. Progress starts it again.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Time an idle connection to a server is kept.
pub const SERVER_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time a session lives without a request or an open stream, unless configured.
pub const SESSION_IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Time the members of a view are waited for, unless configured.
pub const UNION_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a list is kept because its server says so.
pub const UNION_TTL_MAX: Duration = Duration::from_secs(60 * 60);
/// Time that what is known of a view's members is kept for callers that do not come.
pub const UNION_IDLE: Duration = Duration::from_secs(10 * 60);
/// Time a child process has to answer `initialize`, unless configured.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Time to read what a child process wrote before it exited.
pub const LAST_WORDS_TIME: Duration = Duration::from_millis(500);
/// Time a shared child process may be idle before it is stopped, unless configured.
pub const PROCESS_IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Time a child process has to exit after its input was closed, and again after SIGTERM.
pub const STOP_GRACE: Duration = Duration::from_secs(3);
/// First pause before a child process that died is started again; doubles up to the next.
pub const RESTART_MIN: Duration = Duration::from_millis(100);
/// See [`RESTART_MIN`].
pub const RESTART_MAX: Duration = Duration::from_secs(30);
/// Time for requests that are on their way when the gateway begins to stop.
pub const DRAIN_IDLE_TIME: Duration = Duration::from_millis(100);
/// Time requests in flight have to finish when the gateway stops, unless configured.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

const _: () = assert!(OUTPUT_LOW < OUTPUT_HIGH, "a paused producer must be able to go on");
const _: () = assert!(MESSAGE_LEN <= MESSAGE_LEN_MAX && MESSAGE_LEN_MAX < u32::MAX as usize);
const _: () = assert!(MESSAGE_LEN <= STDIN_LEN_MAX, "one message of any size fits a child's queue");
const _: () = assert!(MESSAGE_LEN <= GATHERED_LEN_MAX);
const _: () = assert!(MESSAGE_LEN_MAX <= 1 << 30, "docs/protocol.md: the most that a link can say");
const _: () = assert!(LINK_FRAME_LEN_MAX <= LINK_REPLAY_LEN_MAX / 4, "see wire::binary::Link");
const _: () = assert!(TARGET_LEN_MAX < HEAD_LEN_MAX && HEAD_LEN_MAX < RECV_LEN);

/// Exchanges one shard has in flight.
pub const EXCHANGES_MAX: usize = 131_072;
/// Exchanges that wait for a connection to one HTTP server.
pub const SERVER_WAITING_MAX: usize = 4096;
/// How often a broken-off stream is asked for again without a new event.
pub const RESUMES_MAX: u8 = 5;
/// Pause before that, unless the server names one.
pub const RESUME_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of an HTTP server's error body that are looked at.
pub const ERROR_BODY_LEN_MAX: usize = 64 * 1024;
/// Endpoints of one server.
pub const ENDPOINTS_MAX: usize = 64;
/// First pause before an endpoint is tried again that could not be connected; doubles up to
/// [`RESTART_MAX`].
pub const ENDPOINT_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a request that is sent again if the process dies that has it.
pub const REPEAT_LEN_MAX: usize = 64 * 1024;
/// Interim responses (1xx) of an HTTP server in front of one answer.
pub const INTERIMS_MAX: u16 = 1024;
/// Pages of a server's tools that are read for the arguments mirrored in headers.
pub const LEARN_PAGES_MAX: u32 = 64;
/// Tools of one server whose mirrored arguments are remembered; further ones are not checked.
pub const LEARN_TOOLS_MAX: usize = 4096;
/// Time the addresses of a server are used before they are looked up again.
pub const RESOLVE_TTL: Duration = Duration::from_secs(30);
/// The same after a look-up that failed.
pub const RESOLVE_RETRY: Duration = Duration::from_secs(5);
/// Time a server process that knows only `initialize` is remembered for that.
pub const PROBE_TTL: Duration = Duration::from_secs(60);
