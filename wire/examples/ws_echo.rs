//! Sends every message back: the WebSocket codec alone, for the Autobahn testsuite to judge.
//!
//! A thread per connection and a socket that blocks. Not the gateway, whose messages are JSON-RPC.
//!
//! `ws_echo [ADDRESS]` prints the address that it listens on.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for tests")]

use std::env::args;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use wire::Decoded;
use wire::http1::{self, HEAD_END, HeaderSlots};
use wire::ws::{
    DeflateParams, Deflater, Item, Limits, MessageKind, Receiver, Role, accept_request,
    write_close, write_message, write_pong,
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

fn main() -> io::Result<()> {
    let addr = args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
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
    let mut receiver = Receiver::new(Role::Server, LIMITS, deflate);
    let mut deflater = deflate.map(|params| Deflater::new(Role::Server, params, COMPRESS_LEN_MIN));
    loop {
        let mut out = Vec::new();
        let is_over = answer(&mut receiver, &mut deflater, &mut buf, &mut out);
        buf.clear();
        stream.write_all(&out)?;
        if is_over {
            stream.shutdown(Shutdown::Write)?;
            while receive(&mut stream, &mut buf).is_ok() {
                buf.clear();
            }
            return Ok(());
        }
        receive(&mut stream, &mut buf)?;
    }
}

/// Answers everything in `buf`; true if that was all.
fn answer(
    receiver: &mut Receiver,
    deflater: &mut Option<Deflater>,
    buf: &mut [u8],
    out: &mut Vec<u8>,
) -> bool {
    let mut input = buf;
    loop {
        match receiver.next(&mut input) {
            Ok(None) => return false,
            Ok(Some(Item::Text(text))) => {
                write_message(out, deflater.as_mut(), MessageKind::Text, &text, None);
            }
            Ok(Some(Item::Binary(bytes))) => {
                write_message(out, deflater.as_mut(), MessageKind::Binary, &bytes, None);
            }
            Ok(Some(Item::Ping(payload))) => write_pong(out, &payload, None),
            Ok(Some(Item::Pong(_))) => {}
            Ok(Some(Item::Close(close))) => {
                write_close(out, close.map(|close| close.code), "", None);
                return true;
            }
            Err(error) => {
                write_close(out, Some(error.close_code()), &error.to_string(), None);
                return true;
            }
        }
    }
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
