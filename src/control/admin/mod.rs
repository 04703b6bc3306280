//! Health and metrics over HTTP, for the operator: `/healthz`, `/readyz`, `/metrics`.
//!
//! Nothing here shows a secret, a URL or a name of a client. A page in a browser can not reach it
//! either: its requests carry the host name that the page came from, and only addresses,
//! `localhost` and configured names are answered (DNS rebinding).

mod limited;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::machine;
use crate::admission::origin::Policy;
use crate::ids::ShardId;
use crate::mesh::{Mesh, Parcel};
use crate::shard::settings::Settings;
use crate::telemetry::counters::Counters;
use crate::telemetry::prometheus::{self, Metric, Page};
use crate::upstream::catalog::{Endpoints, Target, Transport};

/// Time a shard has to report. One that takes longer is stuck.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// What the pages are made from.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    pub settings: Arc<Settings>,
    /// Which names in `Host` mean the admin server, besides those that are configured.
    pub hosts: Policy,
    pub mesh: Mesh,
    pub draining: Arc<AtomicBool>,
    pub started: SystemTime,
    pub engine: &'static str,
    pub files_max: Option<u64>,
}

impl Admin {
    /// Serves for ever.
    pub(super) async fn serve(self, listener: TcpListener) {
        let app = self.into_router();
        // It never returns, and its type says that it may.
        axum::serve(limited::Limited::new(listener), app).await.unwrap_or_default();
    }

    fn into_router(self) -> Router {
        let admin = Arc::new(self);
        Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .fallback(not_found)
            .layer(middleware::from_fn_with_state(Arc::clone(&admin), check_host))
            .with_state(admin)
    }

    fn admits_host(&self, host: &[u8]) -> bool {
        self.hosts.admits_host(host) || self.settings.origins.admits_host(host)
    }

    /// The numbers of all shards that answer in time, and how many do.
    async fn counters(&self) -> (Counters, u16) {
        let reports = (0..self.mesh.shards()).map(|shard| self.report(ShardId(shard)));
        let (mut sum, mut answered) = (Counters::default(), 0);
        for report in join_all(reports).await.iter().flatten() {
            sum.add(report);
            answered += 1;
        }
        (sum, answered)
    }

    async fn report(&self, shard: ShardId) -> Option<Counters> {
        let (reply, report) = oneshot::channel();
        self.mesh.post(shard, Parcel::Report { reply }).ok()?;
        tokio::time::timeout(REPORT_TIMEOUT, report).await.ok()?.ok()
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn not_found() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "There is nothing here; try /healthz, /readyz or /metrics.\n")
}

/// What `/readyz` says.
#[derive(Debug, Serialize)]
struct Readiness<'a> {
    ready: bool,
    draining: bool,
    shards: u16,
    shards_answering: u16,
    servers: Vec<ServerView<'a>>,
}

/// What `/readyz` says of a server.
#[derive(Debug, Serialize)]
struct ServerView<'a> {
    name: &'a str,
    kind: &'static str,
    /// How many, if it has a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoints: Option<usize>,
    /// From how many clients' views of all servers it is missing.
    missing: u64,
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let (sum, shards_answering) = admin.counters().await;
    let draining = admin.draining.load(Ordering::Relaxed);
    let shards = admin.mesh.shards();
    let servers = admin.settings.catalog.servers().map(|(id, server)| ServerView {
        name: &server.name,
        kind: kind(&server.target),
        endpoints: server.target.endpoints().map(Endpoints::count),
        missing: sum.missing.get(usize::from(id.0)).copied().unwrap_or(0),
    });
    let ready = !draining && shards_answering == shards;
    let view = Readiness { ready, draining, shards, shards_answering, servers: servers.collect() };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_vec(&view) {
        Ok(body) => (status, [(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What kind of server this is, in a word.
pub(super) fn kind(target: &Target) -> &'static str {
    match target {
        Target::Stdio(_) => "stdio",
        Target::Http(Transport::Http, _) => "http",
        Target::Http(Transport::Sse, _) => "sse",
        Target::Http(Transport::Auto, _) => "http or sse",
        Target::WebSocket(_) => "websocket",
        Target::Tcp(_) => "tcp",
        Target::View(_) => "view",
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let (sum, answering) = admin.counters().await;
    let mut page = Page::default();
    for (name, kind, help, value) in sum.list() {
        page.add(Metric { name, kind, help }, value);
    }
    let mut gauge = |name, help, value: Option<u64>| {
        if let Some(value) = value {
            page.add(Metric { name, kind: "gauge", help }, value);
        }
    };
    let help =
        "Servers that are missing from clients' views of all servers, summed over the clients.";
    gauge("mcp_federation_missing", help, Some(sum.missing.iter().sum()));
    gauge("mcp_shards", "Shards of this gateway.", Some(admin.mesh.shards().into()));
    gauge("mcp_shards_answering", "Shards whose numbers are in this page.", Some(answering.into()));
    let draining = admin.draining.load(Ordering::Relaxed);
    gauge("mcp_draining", "Whether the gateway is stopping.", Some(draining.into()));
    gauge("process_open_fds", "Open file descriptors.", machine::files_open());
    gauge("process_max_fds", "File descriptors that may be open.", admin.files_max);
    gauge("process_resident_memory_bytes", "Memory in use.", machine::memory_used());
    let started = admin.started.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
    gauge("process_start_time_seconds", "When it started, as seconds since 1970.", started);
    let help = "The version that runs and how it waits for input and output.";
    let build = Metric { name: "mcp_build_info", kind: "gauge", help };
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("engine", admin.engine)];
    page.add_labelled(build, &labels, 1);
    ([(CONTENT_TYPE, prometheus::CONTENT_TYPE)], page.into_text()).into_response()
}

/// Browsers always send `Host`; simple health checks may not.
async fn check_host(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes);
    if !hosts.all(|host| admin.admits_host(host)) {
        let words = "The Host header must be an IP address, localhost or a configured host.\n";
        return (StatusCode::FORBIDDEN, words).into_response();
    }
    let mut response = next.run(request).await;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
