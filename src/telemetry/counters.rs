//! What one shard counts. Plain numbers; the control thread adds up the shards when asked.

/// Defines the counters with their exported names, so that the two lists cannot differ.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $kind:ident $field:ident = $name:literal;)+) => {
        /// The numbers of one shard.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $field: u64,)+
            /// From how many clients' views of all servers each server is missing, in the order of
            /// the catalog.
            pub missing: Vec<u64>,
        }

        impl Counters {
            /// Adds another shard's numbers.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)+
                let len = self.missing.len().max(other.missing.len());
                self.missing.resize(len, 0);
                for (sum, count) in self.missing.iter_mut().zip(&other.missing) {
                    *sum += count;
                }
            }

            /// Exported name, Prometheus type, help and value of each.
            pub fn list(&self) -> Vec<(&'static str, &'static str, &'static str, u64)> {
                vec![$(($name, stringify!($kind), concat!($($doc),+), self.$field),)+]
            }
        }
    };
}

counters! {
    /// Client connections accepted.
    counter accepted = "mcp_connections_accepted_total";
    /// Client connections refused because the table was full.
    counter accept_refused = "mcp_connections_refused_total";
    /// Client connections open.
    gauge clients = "mcp_connections_open";
    /// Client connections that became WebSockets.
    counter upgraded = "mcp_connections_upgraded_total";
    /// Client connections that moved to the shard of their session.
    counter moved = "mcp_connections_moved_total";
    /// Requests that went to another shard through the mesh.
    counter tunnelled = "mcp_requests_tunnelled_total";
    /// Links of clients (binary protocol, version 2) that went on with another connection.
    counter links_resumed = "mcp_links_resumed_total";
    /// Sessions opened.
    counter sessions_opened = "mcp_sessions_opened_total";
    /// Sessions open.
    gauge sessions = "mcp_sessions_open";
    /// JSON-RPC requests of clients that were forwarded.
    counter exchanges = "mcp_exchanges_total";
    /// JSON-RPC requests of clients in flight.
    gauge in_flight = "mcp_exchanges_in_flight";
    /// Exchanges that ended in a JSON-RPC error or an HTTP error of the server.
    counter failed = "mcp_exchanges_failed_total";
    /// Exchanges that ended because the client cancelled or went away.
    counter cancelled = "mcp_exchanges_cancelled_total";
    /// Exchanges that ran into their deadline.
    counter timed_out = "mcp_exchanges_timed_out_total";
    /// HTTP requests that the gateway itself refused.
    counter refused = "mcp_requests_refused_total";
    /// Notifications and responses forwarded, both directions.
    counter forwarded = "mcp_messages_forwarded_total";
    /// Messages of servers that nobody could receive, and answers that nobody asked for.
    counter dropped = "mcp_messages_dropped_total";
    /// Child processes started.
    counter processes_started = "mcp_processes_started_total";
    /// Child processes running.
    gauge processes = "mcp_processes_running";
    /// Connections to servers by URL opened.
    counter dialled = "mcp_server_connections_opened_total";
    /// Connections to servers by URL open.
    gauge server_conns = "mcp_server_connections_open";
    /// Sessions that were set up again at a server that had lost them.
    counter revived = "mcp_sessions_revived_total";
    /// Endpoints whose last attempt of a connection failed; each shard counts for itself.
    gauge endpoints_failing = "mcp_endpoints_failing";
    /// Requests, sessions and connections that went to another endpoint for that.
    counter failed_over = "mcp_endpoints_failed_over_total";
    /// Requests that were sent again because their server was lost.
    counter repeated = "mcp_requests_repeated_total";
    /// Bytes of messages being gathered, or kept until they are answered.
    gauge gathered = "mcp_gathered_bytes";
    /// Bytes kept for resumption.
    gauge replay = "mcp_replay_bytes";
    /// Bytes of the lists of servers that are kept for views of all servers.
    gauge listed = "mcp_listed_bytes";
    /// Bytes received from clients.
    counter received_bytes = "mcp_client_received_bytes_total";
    /// Bytes queued to clients.
    counter sent_bytes = "mcp_client_sent_bytes_total";
    /// Faults of the gateway's own: each cost one connection.
    counter panics = "mcp_faults_total";
    /// Log lines dropped because the writer was too slow.
    counter log_dropped = "mcp_log_lines_dropped_total";
}
