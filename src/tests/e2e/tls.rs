//! Servers behind `https`: who they are is checked, and what passes is what was sent.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::spawn;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::{Gateway, gateway};

/// A server that answers every POST with what it got as the result's `text`.
struct Echo {
    addr: SocketAddr,
    /// The certificate, as a CA file.
    pem: String,
    /// Requests that it understood.
    requests: Arc<AtomicUsize>,
}

impl Echo {
    /// A server that says it is `name`.
    fn start(name: &str) -> Self {
        let certified = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let (config, count) = (Arc::new(config), Arc::clone(&requests));
        spawn(move || {
            for socket in listener.incoming() {
                let (config, count) = (Arc::clone(&config), Arc::clone(&count));
                spawn(move || serve(socket.unwrap(), config, &count));
            }
        });
        Self { addr, pem: certified.cert.pem(), requests }
    }

    /// A gateway in front of it that trusts this CA file.
    fn gateway(&self, ca: &Path) -> Gateway {
        let url = format!("https://localhost:{}/mcp", self.addr.port());
        Gateway::start(gateway("run").arg(url).env("SSL_CERT_FILE", ca))
    }
}

/// Serves one connection until the client has enough.
fn serve(socket: TcpStream, config: Arc<ServerConfig>, requests: &AtomicUsize) {
    let tls = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    let mut stream = BufReader::new(tls);
    loop {
        let mut len = 0;
        loop {
            let mut line = String::new();
            match stream.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line == "\r\n" => break,
                Ok(_) => {}
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                len = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; len];
        stream.read_exact(&mut body).unwrap();
        requests.fetch_add(1, Ordering::SeqCst);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n"
        );
        let tls = stream.get_mut();
        tls.write_all(head.as_bytes()).unwrap();
        tls.write_all(&body).unwrap();
        tls.flush().unwrap();
    }
}

/// Sends one request of 2026-07-28 and returns the status and the body.
fn ask(gateway: &Gateway, body: &str) -> (u16, Vec<u8>) {
    let url = gateway.url();
    let addr = url.trim_start_matches("http://").split('/').next().unwrap();
    let mut socket = TcpStream::connect(addr).unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {addr}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\nMcp-Name: echo\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(body.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let at = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer.split_off(at))
}

/// A call whose argument has this many bytes.
fn call(len: usize) -> String {
    let text = "x".repeat(len);
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"echo\",\
         \"arguments\":{{\"text\":\"{text}\"}},\"_meta\":{{\
         \"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\
         \"io.modelcontextprotocol/clientCapabilities\":{{}}}}}}}}"
    )
}

#[test]
fn messages_of_any_size_pass_through_tls() {
    let server = Echo::start("localhost");
    let ca = std::env::temp_dir().join(format!("mcp-ca-{}.pem", server.addr.port()));
    std::fs::write(&ca, &server.pem).unwrap();
    let gateway = server.gateway(&ca);
    for len in [0, 1, 200, 16_384, 70_000, 8 * 1024 * 1024] {
        let body = call(len);
        let (status, answer) = ask(&gateway, &body);
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        assert!(answer == body.as_bytes(), "{len} bytes came back changed");
    }
    std::fs::remove_file(ca).unwrap();
}

#[test]
fn a_server_that_is_not_who_it_should_be_gets_nothing() {
    let stranger = Echo::start("elsewhere.example");
    let other = Echo::start("localhost");
    for (server, ca, why) in [
        (&stranger, &stranger.pem, "the name is wrong"),
        (&other, &stranger.pem, "nobody vouches for the certificate"),
    ] {
        let file = std::env::temp_dir().join(format!("mcp-ca-{}.pem", server.addr.port()));
        std::fs::write(&file, ca).unwrap();
        let gateway = server.gateway(&file);
        let (status, answer) = ask(&gateway, &call(5));
        assert_eq!(status, 502, "{why}: {}", String::from_utf8_lossy(&answer));
        assert_eq!(server.requests.load(Ordering::SeqCst), 0, "{why}");
        std::fs::remove_file(file).unwrap();
    }
}

/// It cannot be connected, so that its share goes to those who are who they should be.
#[test]
fn an_endpoint_that_is_not_who_it_should_be_gets_nothing_and_others_do() {
    let stranger = Echo::start("elsewhere.example");
    let server = Echo::start("localhost");
    // It accepts connections, and shakes no hands.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = silent.local_addr().unwrap();
    spawn(move || silent.incoming().for_each(drop));
    let urls: Vec<String> = [stranger.addr, deaf, server.addr]
        .map(|addr| format!("\"https://localhost:{}/mcp\"", addr.port()))
        .to_vec();
    let dir = std::env::temp_dir();
    let ca = dir.join(format!("mcp-ca-{}.pem", server.addr.port()));
    std::fs::write(&ca, format!("{}{}", server.pem, stranger.pem)).unwrap();
    let config = dir.join(format!("mcp-tls-{}.toml", server.addr.port()));
    std::fs::write(&config, format!("servers.a.endpoints = [{}]\n", urls.join(", "))).unwrap();
    let mut command = gateway("run");
    let gateway = Gateway::start(command.arg("--config").arg(&config).env("SSL_CERT_FILE", &ca));
    for number in 0..12 {
        let body = call(number);
        let (status, answer) = ask(&gateway, &body);
        assert_eq!((status, answer), (200, body.into_bytes()));
    }
    assert_eq!(stranger.requests.load(Ordering::SeqCst), 0);
    assert_eq!(server.requests.load(Ordering::SeqCst), 12);
    std::fs::remove_file(ca).unwrap();
    std::fs::remove_file(config).unwrap();
}
