//! How HTTP servers put their answers on the wire: lengths, chunks, or everything until the end.

use crate::tests::sim::net::{End, LinkId, Task};
use crate::tests::sim::server_http::Http;
use crate::tests::sim::server_stdio::Tools;

impl Http {
    pub(super) fn hang_up(&mut self, server: usize, link: LinkId, tools: &mut Tools<'_>) {
        self.servers.get_mut(&server).unwrap().conns.remove(&link);
        let end = *tools.net.random.pick(&[End::Closed, End::Broken]);
        tools.net.hang_up(link, end);
    }

    pub(super) fn stream_head(&mut self, server: usize, link: LinkId, tools: &mut Tools<'_>) {
        let entry = self.servers.get_mut(&server).unwrap();
        let Some(conn) = entry.conns.get_mut(&link) else { return };
        conn.is_chunked = tools.net.random.chance(80);
        let framing = match (conn.is_chunked, conn.closes) {
            (true, false) => "transfer-encoding: chunked\r\n",
            (true, true) => "transfer-encoding: chunked\r\nconnection: close\r\n",
            (false, _) => "",
        };
        conn.closes |= !conn.is_chunked;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{framing}\r\n");
        tools.net.write(link, head.as_bytes());
    }

    pub(super) fn piece(
        &mut self,
        server: usize,
        link: LinkId,
        bytes: &[u8],
        tools: &mut Tools<'_>,
    ) {
        let Some(conn) = self.servers.get_mut(&server).unwrap().conns.get_mut(&link) else {
            return;
        };
        if !conn.is_chunked {
            return tools.net.write(link, bytes);
        }
        let cut = tools.net.random.between(0, bytes.len());
        for part in [&bytes[..cut], &bytes[cut..]] {
            if !part.is_empty() {
                tools.net.write(link, format!("{:x}\r\n", part.len()).as_bytes());
                tools.net.write(link, part);
                tools.net.write(link, b"\r\n");
            }
        }
    }

    pub(super) fn end(&mut self, server: usize, link: LinkId, tools: &mut Tools<'_>) {
        let Some(conn) = self.servers.get_mut(&server).unwrap().conns.get_mut(&link) else {
            return;
        };
        if conn.is_chunked {
            tools.net.write(link, b"0\r\n\r\n");
        }
        self.is_free(server, link, tools);
    }

    /// A response is complete.
    fn is_free(&mut self, server: usize, link: LinkId, tools: &mut Tools<'_>) {
        let Some(conn) = self.servers.get_mut(&server).unwrap().conns.get_mut(&link) else {
            return;
        };
        conn.is_busy = false;
        if conn.closes {
            self.servers.get_mut(&server).unwrap().conns.remove(&link);
            tools.net.hang_up(link, End::Closed);
        } else if tools.check.faults.race && tools.net.random.chance(40) {
            let delay = tools.net.random.millis(3000);
            tools.net.after(delay, Task::Close { link });
        }
    }

    /// Closes a connection that nothing happens on.
    pub(super) fn close_idle(&mut self, server: usize, link: LinkId, tools: &mut Tools<'_>) {
        let conns = &mut self.servers.get_mut(&server).unwrap().conns;
        if conns.get(&link).is_some_and(|conn| !conn.is_busy) {
            self.hang_up(server, link, tools);
        }
    }

    /// A whole response at once.
    pub(super) fn respond(
        &mut self,
        server: usize,
        link: LinkId,
        (status, content_type, lines): (u16, &str, &str),
        body: &str,
        tools: &mut Tools<'_>,
    ) {
        let Some(conn) = self.servers.get_mut(&server).unwrap().conns.get_mut(&link) else {
            return;
        };
        let mut head = format!("HTTP/1.1 {status} X\r\n{lines}");
        if !content_type.is_empty() {
            head += &format!("content-type: {content_type}\r\n");
        }
        let framing = if body.is_empty() { 0 } else { tools.net.random.below(4) };
        conn.is_chunked = framing == 1;
        conn.closes |= framing == 2;
        match framing {
            1 => head += "transfer-encoding: chunked\r\n",
            2 => {}
            _ => head += &format!("content-length: {}\r\n", body.len()),
        }
        if conn.closes {
            head += "connection: close\r\n";
        }
        head += "\r\n";
        let bytes = if tools.net.random.chance(10) {
            format!("HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n{head}")
        } else {
            head
        };
        tools.net.write(link, bytes.as_bytes());
        if !body.is_empty() {
            self.piece(server, link, body.as_bytes(), tools);
        }
        self.end(server, link, tools);
    }
}
