//! TLS over memory: plain text in, records out, and back.

use std::io::{Read as _, Write as _};

use rustls::ClientConnection;

/// Takes plain text, and appends what has to be sent: records, or the handshake that comes first.
pub fn seal(tls: &mut ClientConnection, plain: &[u8], out: &mut Vec<u8>) {
    // Writing into memory without a limit does not fail.
    let _plain = tls.writer().write_all(plain);
    while tls.wants_write() {
        if tls.write_tls(out).is_err() {
            return;
        }
    }
}

/// Takes records, and returns the plain text in them, and whether the connection can go on.
pub fn open(tls: &mut ClientConnection, mut records: &[u8]) -> (Vec<u8>, bool) {
    let mut plain = Vec::new();
    while !records.is_empty() {
        let is_read = tls.read_tls(&mut records).is_ok_and(|len| len != 0);
        let is_fine = is_read && tls.process_new_packets().is_ok();
        // `WouldBlock` and the end of the stream both mean: no more for now.
        let _end = tls.reader().read_to_end(&mut plain);
        if !is_fine {
            return (plain, false);
        }
    }
    (plain, true)
}
