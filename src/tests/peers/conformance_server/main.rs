//! The server that the official conformance suite expects, on the official SDK.
//!
//! It proves the gateway by comparison: the suite scores this server directly
//! and then through the gateway, and the gateway may lose no check. It speaks
//! both eras (a session for `initialize`, stateless for 2026-07-28) on one
//! endpoint or on stdio. What it offers as data is in `catalog.json`.
//!
//! ```text
//! conformance_server --http 127.0.0.1:0    # prints http://127.0.0.1:PORT/mcp
//! conformance_server --stdio
//! ```
#![expect(deprecated, reason = "the suite still tests what 2026-07-28 deprecates")]

mod catalog;
mod changes;
mod dialogue;
mod handler;
mod tasks;
mod tools;

use std::env::args;
use std::error::Error;
use std::io::{Write as _, stdout};
use std::sync::Arc;

use axum::Router;
use rmcp::ServiceExt as _;
use rmcp::service::ServerInitializeError;
use rmcp::transport::stdio;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;

use handler::{Session, Shared};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let shared = Arc::new(Shared::default());
    let words: Vec<String> = args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--http", address] => serve_http(address, shared).await,
        ["--stdio"] => serve_stdio(shared).await,
        _ => Err("usage: conformance_server --http ADDRESS | --stdio".into()),
    }
}

async fn serve_stdio(shared: Arc<Shared>) -> Result<(), Box<dyn Error>> {
    match Session::new(shared).serve(stdio()).await {
        Ok(service) => drop(service.waiting().await?),
        // A client that leaves without a word is no error.
        Err(ServerInitializeError::ConnectionClosed(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

async fn serve_http(address: &str, shared: Arc<Shared>) -> Result<(), Box<dyn Error>> {
    let config = StreamableHttpServerConfig::default()
        .with_allowed_origins(["http://127.0.0.1:*", "http://localhost:*"]);
    let service = StreamableHttpService::new(
        move || Ok(Session::new(Arc::clone(&shared))),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    let listener = TcpListener::bind(address).await?;
    writeln!(stdout(), "http://{}/mcp", listener.local_addr()?)?;
    axum::serve(listener, Router::new().nest_service("/mcp", service)).await?;
    Ok(())
}
