//! Time and the network: tasks in the order of their time, and links that cut, delay and lose.
//!
//! A link is one byte stream in each direction between a shard ("up") and a peer ("down"). What
//! is on its way up waits in the link; what goes down waits in the shard's output until the
//! link's buffer has room, as with a socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::ids::{ConnId, ProcessId, ShardId, Socket, Ticket};
use crate::limits;
use crate::output::Output;
use crate::shard::event::Letter;
use crate::tests::sim::random::Random;

/// A link's place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkId(pub(super) usize);

/// Who is at the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Talker { talker: usize },
    Client { client: usize, conn: usize },
    Server { server: usize },
    Process { process: usize },
}

/// Who has the near end.
#[derive(Debug)]
pub(super) enum Near {
    /// The driver of this shard, without a name.
    Parked {
        shard: usize,
    },
    Dialling {
        shard: usize,
        conn: ConnId,
    },
    Open {
        shard: usize,
        conn: ConnId,
    },
    /// Between two shards.
    Moving,
    /// The driver, which sends the rest and closes.
    Lingering(Output),
    Gone,
}

/// How a direction of a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Broken,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: Peer,
    pub(super) near: Near,
    /// On its way to the shard.
    pub(super) up: Vec<u8>,
    pub(super) up_end: Option<End>,
    pub(super) up_told: bool,
    /// On its way to the peer.
    pub(super) down: Vec<u8>,
    pub(super) down_end: Option<End>,
    pub(super) down_told: bool,
    /// The peer will not read any more; what is sent to it is lost.
    pub(super) deaf: bool,
    /// Something was sent to a deaf peer: even who does not read learns that it is gone.
    is_reset: bool,
    pub(super) room: usize,
    pub(super) paused: bool,
    pub(super) blocked: bool,
    pub(super) pace: Pace,
    up_busy: bool,
    flush_busy: bool,
    read_busy: bool,
}

/// How bytes move on a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) up_len: usize,
    pub(super) down_len: usize,
    pub(super) send_len: usize,
    pub(super) delay_ms: u64,
    pub(super) read_ms: u64,
    /// The peer reads nothing until then.
    pub(super) sleeps_until: Duration,
}

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Task {
    Up(LinkId),
    Flush(LinkId),
    Read(LinkId),
    Linger(LinkId),
    Connect(LinkId),
    Wake {
        shard: usize,
        armed: u64,
    },
    Parcel {
        from: usize,
        to: usize,
        parcel: Parcel,
    },
    Resolved {
        shard: usize,
        ticket: Ticket,
        addrs: Vec<SocketAddr>,
    },
    Start {
        shard: usize,
        ticket: Ticket,
        server: usize,
        process: ProcessId,
    },
    Exit {
        process: usize,
        how: &'static str,
    },
    Accept {
        link: LinkId,
    },
    Act {
        client: usize,
    },
    Talk {
        talker: usize,
    },
    /// The rest of a request that waits for `100 Continue`.
    Body {
        client: usize,
        conn: usize,
    },
    Resume {
        client: usize,
        lost: usize,
    },
    Job {
        job: usize,
    },
    Close {
        link: LinkId,
    },
    Kill {
        link: LinkId,
    },
    /// A server is gone, with all that it knows, and comes back.
    Fall {
        server: usize,
    },
    Rise {
        server: usize,
    },
    Drain,
}

/// What one shard gives to another.
#[derive(Debug)]
pub(super) enum Parcel {
    Letter(Letter),
    Adopted { link: LinkId, peer: crate::ids::Peer, bytes: Vec<u8>, moves: u8 },
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) random: Random,
    base: Instant,
    /// Time since the world began.
    pub(super) now: Duration,
    queue: BTreeMap<(Duration, u64), Task>,
    count: u64,
    pub(super) links: Vec<Link>,
    /// Parcels between two shards stay in order.
    mail_at: BTreeMap<(usize, usize), Duration>,
    pub(super) hash: u64,
    pub(super) verbose: bool,
    /// Which links may be slow: 0 none.
    pub(super) slow_percent: u64,
    pub(super) tiny_percent: u64,
    pub(super) steps: u64,
}

impl Net {
    pub(super) fn new(seed: u64, base: Instant, verbose: bool) -> Self {
        Self {
            random: Random::new(seed),
            base,
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            count: 0,
            links: Vec::new(),
            mail_at: BTreeMap::new(),
            hash: 0xcbf2_9ce4_8422_2325,
            verbose,
            slow_percent: 0,
            tiny_percent: 20,
            steps: 0,
        }
    }

    pub(super) fn instant(&self) -> Instant {
        self.base + self.now
    }

    pub(super) fn offset(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.base)
    }

    /// Makes a note of what happens: it goes into the hash, and to the reader of a replay.
    pub(super) fn trace(&mut self, what: &str, a: u64, b: u64) {
        let numbers = [u64::try_from(self.now.as_micros()).unwrap(), a, b];
        let bytes = numbers.into_iter().flat_map(u64::to_le_bytes).chain(what.bytes());
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.verbose {
            println!("{:>10.3} {what} {a} {b}", self.now.as_secs_f64());
        }
    }

    /// The same for text that only a reader wants.
    pub(super) fn note(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>10.3}   {}", self.now.as_secs_f64(), text());
        }
    }

    pub(super) fn at(&mut self, at: Duration, task: Task) {
        self.count += 1;
        self.queue.insert((at.max(self.now), self.count), task);
    }

    pub(super) fn after(&mut self, delay: Duration, task: Task) {
        self.at(self.now + delay, task);
    }

    /// The next task not later than `until`; time moves to it.
    pub(super) fn next(&mut self, until: Duration) -> Option<Task> {
        let (at, _) = *self.queue.first_key_value()?.0;
        if until < at {
            return None;
        }
        self.now = at;
        self.steps += 1;
        self.queue.pop_first().map(|(_, task)| task)
    }

    pub(super) fn post(&mut self, from: usize, to: usize, parcel: Parcel) {
        let delay = if self.random.chance(80) { 0 } else { self.random.below(20) };
        let earliest = self.mail_at.get(&(from, to)).copied().unwrap_or_default();
        let at = (self.now + Duration::from_millis(delay)).max(earliest);
        self.mail_at.insert((from, to), at);
        self.at(at, Task::Parcel { from, to, parcel });
    }

    pub(super) fn open(&mut self, peer: Peer, near: Near) -> LinkId {
        let pace = self.pace(peer);
        let rooms = [1024, 16 * 1024, 200 * 1024, 4 * 1024 * 1024];
        let room =
            if self.random.chance(10) && pace.read_ms == 0 { 7 } else { *self.random.pick(&rooms) };
        self.links.push(Link {
            peer,
            near,
            up: Vec::new(),
            up_end: None,
            up_told: false,
            down: Vec::new(),
            down_end: None,
            down_told: false,
            deaf: false,
            is_reset: false,
            room,
            paused: false,
            blocked: false,
            pace,
            up_busy: false,
            flush_busy: false,
            read_busy: false,
        });
        LinkId(self.links.len() - 1)
    }

    fn pace(&mut self, peer: Peer) -> Pace {
        let sizes = [100, 1500, limits::RECV_LEN, limits::RECV_LEN];
        let random = &mut self.random;
        let size = |random: &mut Random| *random.pick(&sizes);
        let mut pace = Pace {
            up_len: size(random),
            down_len: size(random),
            send_len: size(random) * 8,
            delay_ms: *random.pick(&[0, 0, 0, 1, 5, 50]),
            read_ms: 0,
            sleeps_until: Duration::ZERO,
        };
        if random.chance(self.tiny_percent) {
            pace.up_len = random.between(1, 3);
        }
        if random.chance(self.tiny_percent) {
            pace.down_len = random.between(1, 3);
        }
        if matches!(peer, Peer::Client { .. } | Peer::Talker { .. })
            && random.chance(self.slow_percent)
        {
            pace.read_ms = 1 + random.below(200);
            pace.down_len = 16 * 1024;
            pace.sleeps_until = self.now + Duration::from_millis(random.below(50_000));
        }
        pace
    }

    pub(super) fn link(&mut self, link: LinkId) -> &mut Link {
        &mut self.links[link.0]
    }

    /// The peer writes.
    pub(super) fn write(&mut self, link: LinkId, bytes: &[u8]) {
        let entry = &mut self.links[link.0];
        if entry.up_end.is_none() {
            entry.up.extend_from_slice(bytes);
            self.schedule_up(link);
        }
    }

    /// The peer closes, at once or behind what it wrote; it reads nothing more.
    pub(super) fn hang_up(&mut self, link: LinkId, end: End) {
        let entry = &mut self.links[link.0];
        entry.deaf = true;
        entry.down.clear();
        if entry.up_end.is_none() {
            entry.up_end = Some(end);
            if end == End::Broken {
                entry.up.clear();
            }
        }
        self.schedule_up(link);
        self.schedule_flush(link);
    }

    pub(super) fn schedule_up(&mut self, link: LinkId) {
        let entry = &self.links[link.0];
        let has_work = !entry.up.is_empty() || (entry.up_end.is_some() && !entry.up_told);
        let is_reading =
            matches!(entry.near, Near::Open { .. }) && (!entry.paused || entry.is_reset);
        if !has_work || !is_reading || entry.up_busy {
            return;
        }
        let most = entry.pace.delay_ms;
        let delay = self.random.millis(most);
        self.links[link.0].up_busy = true;
        self.after(delay, Task::Up(link));
    }

    pub(super) fn schedule_flush(&mut self, link: LinkId) {
        if std::mem::replace(&mut self.links[link.0].flush_busy, true) {
            return;
        }
        let delay = if self.random.chance(70) { Duration::ZERO } else { self.random.millis(3) };
        self.after(delay, Task::Flush(link));
    }

    pub(super) fn schedule_read(&mut self, link: LinkId) {
        let entry = &self.links[link.0];
        let has_work = !entry.down.is_empty() || (entry.down_end.is_some() && !entry.down_told);
        if !has_work || entry.deaf || entry.read_busy {
            return;
        }
        let at =
            (self.now + Duration::from_millis(entry.pace.read_ms)).max(entry.pace.sleeps_until);
        self.links[link.0].read_busy = true;
        self.at(at, Task::Read(link));
    }

    /// What the shard receives next.
    pub(super) fn take_up(&mut self, link: LinkId) -> Option<Result<Vec<u8>, End>> {
        let entry = &mut self.links[link.0];
        entry.up_busy = false;
        let is_reading = !entry.paused || entry.is_reset;
        if !is_reading || !matches!(entry.near, Near::Open { .. }) {
            return None;
        }
        if entry.up.is_empty() {
            let end = entry.up_end.filter(|_| !entry.up_told)?;
            entry.up_told = true;
            return Some(Err(end));
        }
        let most = entry.pace.up_len.min(entry.up.len());
        let len = if entry.pace.up_len < 64 { most } else { self.random.between(1, most) };
        // Tiny steps for the first bytes are enough: a megabyte of them teaches nothing.
        let entry = &mut self.links[link.0];
        entry.pace.up_len = entry.pace.up_len.saturating_add(entry.pace.up_len / 16 + 1);
        entry.pace.up_len = entry.pace.up_len.min(limits::RECV_LEN);
        let rest = entry.up.split_off(len);
        Some(Ok(std::mem::replace(&mut entry.up, rest)))
    }

    /// What the peer reads next.
    pub(super) fn take_down(&mut self, link: LinkId) -> Option<Result<Vec<u8>, End>> {
        let entry = &mut self.links[link.0];
        entry.read_busy = false;
        if entry.deaf {
            return None;
        }
        if entry.down.is_empty() {
            let end = entry.down_end.filter(|_| !entry.down_told)?;
            entry.down_told = true;
            return Some(Err(end));
        }
        let len = entry.pace.down_len.min(entry.down.len());
        entry.pace.down_len = (entry.pace.down_len + entry.pace.down_len / 16 + 1).min(65536);
        let rest = entry.down.split_off(len);
        Some(Ok(std::mem::replace(&mut entry.down, rest)))
    }

    /// Moves bytes of an output into a link, as far as there is room. Returns how many.
    pub(super) fn send(&mut self, link: LinkId, output: &mut Output) -> usize {
        let entry = &mut self.links[link.0];
        if entry.deaf {
            let len = output.len();
            output.consume(len);
            if len != 0 && !entry.up_told && !std::mem::replace(&mut entry.is_reset, true) {
                entry.up.clear();
                entry.up_end = Some(End::Broken);
                self.schedule_up(link);
            }
            return len;
        }
        let room = entry.room.saturating_sub(entry.down.len()).min(entry.pace.send_len);
        let mut slices = [std::io::IoSlice::new(&[]); 4];
        let count = output.slices(&mut slices);
        let mut sent = 0;
        for slice in &slices[..count] {
            let len = slice.len().min(room - sent);
            entry.down.extend_from_slice(&slice[..len]);
            sent += len;
        }
        output.consume(sent);
        sent
    }

    pub(super) fn end_flush(&mut self, link: LinkId) {
        self.links[link.0].flush_busy = false;
    }
}

/// A shard as it is called inside.
pub(super) fn shard_id(shard: usize) -> ShardId {
    ShardId(u16::try_from(shard).unwrap())
}

/// The name of a link while it has none at the shard.
pub(super) fn socket(link: LinkId) -> Socket {
    Socket(u32::try_from(link.0).unwrap())
}

/// The link of a socket.
pub(super) fn link_of(socket: Socket) -> LinkId {
    LinkId(usize::try_from(socket.0).unwrap())
}
