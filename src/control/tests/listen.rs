//! Addresses and Unix sockets: bound, refused with a remedy, and removed.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use super::*;
use crate::admission::entrance::{Entrance, Protocol};
use crate::config::Unix;
use crate::control::listen::bind_all;

fn unix(path: &str) -> Unix {
    Unix { path: path.into(), mode: 0o620, user: None, group: None, users: None, server: None }
}

#[track_caller]
fn refused(unix: &Unix, words: &str) {
    let Err(said) = bind_all(Vec::new(), std::slice::from_ref(unix), 1) else { panic!("bound") };
    assert!(said.contains(words) && said.contains("(`listen.unix`)"), "{said}");
    assert!(said.contains(unix.path.to_str().unwrap()), "{said}");
}

#[test]
fn errors_of_listening_name_address_and_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let Err(words) = bind_all(http(addr), &[], 1) else { panic!("bound twice") };
    assert!(words.contains(&addr.to_string()) && words.contains("another program"), "{words}");
    let Err(words) = bind_all(http("192.0.2.1:80".parse().unwrap()), &[], 1) else {
        panic!("bound")
    };
    assert!(words.contains("no such address"), "{words}");
}

#[test]
fn a_socket_has_its_permissions_and_goes_with_the_gateway() {
    let scratch = Scratch::new();
    let path = scratch.file("s");
    let any = "127.0.0.1:0".parse().unwrap();
    let bound = bind_all(http(any), &[unix(&path)], 3).unwrap();
    let counts: Vec<usize> = bound.listeners.iter().map(Vec::len).collect();
    assert_eq!(counts, [2, 1, 1], "the first shard gives clients away");
    assert_eq!(bound.listeners[0][1].0, EntranceId(1), "behind that of HTTP");
    assert!(bound.entrances[0].0.port() != 0);
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.mode() & 0o7777, 0o620);
    assert!(UnixStream::connect(&path).is_ok());
    refused(&unix(&path), "another program listens there; stop that one");
    assert!(UnixStream::connect(&path).is_ok(), "it was left alone");
    drop(bound);
    assert!(!Path::new(&path).exists());
}

#[test]
fn a_socket_of_nobody_is_replaced_and_another_one_is_not_removed() {
    let scratch = Scratch::new();
    let path = scratch.file("s");
    // As after `kill -9`.
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let mut first = bind_all(Vec::new(), &[unix(&path)], 1).unwrap();
    assert!(UnixStream::connect(&path).is_ok());
    // While it drains, it listens no more; the next one takes over.
    first.listeners.clear();
    let second = bind_all(Vec::new(), &[unix(&path)], 1).unwrap();
    drop(first);
    assert!(UnixStream::connect(&path).is_ok());
    drop(second);
    assert!(!Path::new(&path).exists());
}

#[test]
fn what_is_no_stale_socket_stays() {
    let scratch = Scratch::new();
    let path = scratch.file("s");
    fs::write(&path, "precious").unwrap();
    refused(&unix(&path), "no socket; remove it");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let link = scratch.file("link");
    drop(UnixListener::bind(scratch.file("stale")).unwrap());
    symlink(scratch.file("stale"), &link).unwrap();
    refused(&unix(&link), "no socket");
    let other = scratch.file("datagrams");
    let _datagrams = UnixDatagram::bind(&other).unwrap();
    refused(&unix(&other), "another program listens there");
    refused(&unix(&scratch.file("no/s")), "make its directory");
    // If one of several fails, nothing is left of the others.
    let good = scratch.file("good");
    assert!(bind_all(Vec::new(), &[unix(&good), unix(&path)], 1).is_err());
    assert!(!Path::new(&good).exists());
}

#[test]
fn an_owner_that_can_not_be_set_is_an_error_and_leaves_no_file() {
    let scratch = Scratch::new();
    let path = scratch.file("s");
    let ours = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let own = Unix { user: Some(ours.0), group: Some(ours.1), ..unix(&path) };
    let bound = bind_all(Vec::new(), &[own], 1).unwrap();
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), ours);
    drop(bound);
    let other = Unix { user: Some(54_321), ..unix(&path) };
    if ours.0 == 0 {
        let bound = bind_all(Vec::new(), &[other], 1).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), 54_321);
        drop(bound);
    } else {
        refused(&other, "its `owner` can not be set");
    }
    assert!(!Path::new(&path).exists());
}

fn http(addr: SocketAddr) -> Vec<(SocketAddr, Entrance)> {
    vec![(addr, Entrance::of(Protocol::Http))]
}
