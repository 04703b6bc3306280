//! Sends every message back: the WebSocket codec alone, for the Autobahn testsuite to judge.
//!
//! A thread per connection and a socket that blocks. Not the gateway, whose messages are JSON-RPC.
//!
//! `ws_echo [ADDRESS]` is a server, and prints the address that it listens on. `ws_echo --client
//! ADDRESS` is a client of the suite's server, case after case.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for tests")]

use std::collections::hash_map::RandomState;
use std::env::args;
use std::hash::BuildHasher as _;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use wire::Decoded;
use wire::http1::{self, HEAD_END, HeaderSlots};
use wire::ws::{
    DeflateParams, Deflater, Item, Limits, MessageKind, Receiver, Role, accept_request,
    accept_response, write_close, write_message, write_pong, write_request_fields,
};

/// What the gateway asks for.
const DEFLATE: DeflateParams = DeflateParams::WITHOUT_CONTEXT;

/// The longest message of the suite has 16 MiB; some come in frames of 64 bytes.
const LIMITS: Limits = Limits { message_len_max: 17 << 20, frames_max: 1 << 20 };

const HEAD_LIMITS: http1::Limits = http1::Limits { head_len_max: 32_768, target_len_max: 8192 };

/// Messages from this length on are compressed.
const COMPRESS_LEN_MIN: usize = 16;

/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the suite calls us in its reports.
const AGENT: &str = "wire";

fn main() -> io::Result<()> {
    let addr = args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    if addr == "--client" {
        return play_all(&args().nth(2).unwrap_or_default());
    }
    let listener = TcpListener::bind(addr)?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        // What goes wrong with a client is for the suite to find.
        thread::spawn(move || serve(stream).unwrap_or_default());
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buf = Vec::new();
    let deflate = loop {
        receive(&mut stream, &mut buf)?;
        let mut slots = HeaderSlots::new();
        let head = http1::request(&buf, &mut slots, HEAD_LIMITS).map_err(io::Error::other)?;
        let Decoded::Item { item, used } = head else { continue };
        let accepted = accept_request(&item, &[], Some(DEFLATE)).map_err(io::Error::other)?;
        let mut out = Vec::new();
        accepted.write_head(&mut out);
        out.extend_from_slice(HEAD_END);
        stream.write_all(&out)?;
        let deflate = accepted.deflate;
        buf.drain(..used);
        break deflate;
    };
    echo(&mut stream, (Role::Server, deflate), &mut buf).map(drop)
}

/// Lets the suite's server have all its cases with us.
fn play_all(addr: &str) -> io::Result<()> {
    let count = play(addr, "/getCaseCount")?;
    let count: usize = String::from_utf8_lossy(&count).parse().map_err(io::Error::other)?;
    for case in 1..=count {
        // What goes wrong in a case is for the suite to find.
        drop(play(addr, &format!("/runCase?case={case}&agent={AGENT}")));
    }
    play(addr, &format!("/updateReports?agent={AGENT}")).map(drop)
}

/// One connection of a client. Returns the last message.
fn play(addr: &str, target: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let nonce = u128::from(random()) << 64 | u128::from(random());
    let nonce = nonce.to_be_bytes();
    let mut out = format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\n").into_bytes();
    write_request_fields(&mut out, &nonce, &[], Some(DEFLATE));
    out.extend_from_slice(HEAD_END);
    stream.write_all(&out)?;
    let mut buf = Vec::new();
    let deflate = loop {
        receive(&mut stream, &mut buf)?;
        let mut slots = HeaderSlots::new();
        let head = http1::response(&buf, &mut slots, HEAD_LIMITS, false);
        let Decoded::Item { item, used } = head.map_err(io::Error::other)? else { continue };
        let connected = accept_response(&item, &nonce, &[], Some(DEFLATE));
        let deflate = connected.map_err(io::Error::other)?.deflate;
        buf.drain(..used);
        break deflate;
    };
    echo(&mut stream, (Role::Client, deflate), &mut buf)
}

/// Sends everything back until the connection is over. Returns the last message.
fn echo(
    stream: &mut TcpStream,
    (role, deflate): (Role, Option<DeflateParams>),
    buf: &mut Vec<u8>,
) -> io::Result<Vec<u8>> {
    let mut receiver = Receiver::new(role, LIMITS, deflate);
    let deflater = deflate.map(|params| Deflater::new(role, params, COMPRESS_LEN_MIN));
    let mut answers = Answers { role, deflater, last: Vec::new() };
    loop {
        let mut out = Vec::new();
        let is_over = answers.write(&mut receiver, buf, &mut out);
        buf.clear();
        stream.write_all(&out)?;
        if is_over {
            stream.shutdown(Shutdown::Write)?;
            while receive(stream, buf).is_ok() {
                buf.clear();
            }
            return Ok(answers.last);
        }
        receive(stream, buf)?;
    }
}

/// The sending half.
struct Answers {
    role: Role,
    deflater: Option<Deflater>,
    last: Vec<u8>,
}

impl Answers {
    /// Answers everything in `buf`; true if that was all.
    fn write(&mut self, receiver: &mut Receiver, buf: &mut [u8], out: &mut Vec<u8>) -> bool {
        let mut input = buf;
        loop {
            let key = (self.role == Role::Client).then(key);
            match receiver.next(&mut input) {
                Ok(None) => return false,
                Ok(Some(Item::Text(text))) => {
                    write_message(out, self.deflater.as_mut(), MessageKind::Text, &text, key);
                    self.last = text.into_owned();
                }
                Ok(Some(Item::Binary(bytes))) => {
                    write_message(out, self.deflater.as_mut(), MessageKind::Binary, &bytes, key);
                }
                Ok(Some(Item::Ping(payload))) => write_pong(out, &payload, key),
                Ok(Some(Item::Pong(_))) => {}
                Ok(Some(Item::Close(close))) => {
                    write_close(out, close.map(|close| close.code), "", key);
                    return true;
                }
                Err(error) => {
                    write_close(out, Some(error.close_code()), &error.to_string(), key);
                    return true;
                }
            }
        }
    }
}

/// The mask of a frame.
fn key() -> [u8; 4] {
    let [a, b, c, d, ..] = random().to_be_bytes();
    [a, b, c, d]
}

/// A hasher begins with random keys.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Appends what comes next.
fn receive(stream: &mut TcpStream, buf: &mut Vec<u8>) -> io::Result<()> {
    let mut part = vec![0; 64 * 1024];
    match stream.read(&mut part)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        len => {
            buf.extend_from_slice(part.get(..len).unwrap_or_default());
            Ok(())
        }
    }
}
