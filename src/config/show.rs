//! What was understood, as text for `mcp-gateway check`.
//!
//! Shows no value that may be a secret: no values of `env` and `headers`, no arguments, no query.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::{Config, LogChoice, Unix};
use crate::telemetry::log::Format;
use crate::upstream::catalog::{
    Balance, Command, Endpoint, Endpoints, Isolation, Secret, Server, Target, Transport, Upkeep,
};

impl Display for Config {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for addr in &self.listen {
            writeln!(f, "listen.http            {addr}")?;
        }
        if self.listen.is_empty() {
            writeln!(f, "listen.http            off")?;
        }
        for addr in &self.sse {
            writeln!(f, "listen.sse             {addr}")?;
        }
        for addr in &self.ws {
            writeln!(f, "listen.ws              {addr}")?;
        }
        for addr in &self.tcp {
            writeln!(f, "listen.tcp             {addr}")?;
        }
        for unix in &self.unix {
            show_unix(unix, self, f)?;
        }
        writeln!(f, "listen.ping_interval   {}", duration(self.ping_interval))?;
        match self.admin {
            Some(addr) => writeln!(f, "listen.admin           {addr}")?,
            None => writeln!(f, "listen.admin           off")?,
        }
        match self.shards {
            Some(count) => writeln!(f, "shards                 {count}")?,
            None => writeln!(f, "shards                 one for each core")?,
        }
        let log = match self.log {
            LogChoice::Auto => "auto",
            LogChoice::Off => "off",
            LogChoice::Format(Format::Text) => "text",
            LogChoice::Format(Format::Json) => "json",
        };
        writeln!(f, "limits.message         {}", size(self.message_len_max))?;
        writeln!(f, "sessions.idle_timeout  {}", duration(self.session_idle_timeout))?;
        writeln!(f, "shutdown.drain_timeout {}", duration(self.drain_timeout))?;
        writeln!(f, "log.format             {log}")?;
        for (_, server) in self.catalog.servers() {
            writeln!(f)?;
            show_server(server, f)?;
        }
        Ok(())
    }
}

fn show_unix(unix: &Unix, config: &Config, f: &mut Formatter<'_>) -> fmt::Result {
    let path = unix.path.display().to_string();
    write!(f, "listen.unix            {} (mode {:04o}", path.escape_debug(), unix.mode)?;
    if let Some(user) = unix.user {
        write!(f, "; user {user}")?;
    }
    if let Some(group) = unix.group {
        write!(f, "; group {group}")?;
    }
    if let Some(users) = &unix.users {
        let users: Vec<String> = users.iter().map(ToString::to_string).collect();
        write!(f, "; only for users {}", users.join(", "))?;
    }
    if let Some(server) = unix.server.and_then(|server| config.catalog.get(server)) {
        write!(f, "; server {}", server.name)?;
    }
    writeln!(f, ")")
}

fn show_server(server: &Server, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f, "/mcp/{}", server.name)?;
    match &server.target {
        Target::Stdio(command) => show_command(command, f)?,
        Target::Http(transport, endpoints) => {
            show_endpoints(("http", "https"), endpoints, f)?;
            show_transport(*transport, f)?;
        }
        Target::WebSocket(endpoints) => show_endpoints(("ws", "wss"), endpoints, f)?,
        Target::Tcp(endpoints) => {
            let endpoint = &endpoints.first;
            let scheme = if endpoint.tls { "tcps" } else { "tcp" };
            writeln!(
                f,
                "  url                  {scheme}://{}{}",
                endpoint.authority, endpoint.target
            )?;
        }
        Target::View(_) => {}
    }
    if let Some(upkeep) = server.target.upkeep() {
        show_upkeep(upkeep, f)?;
    }
    if let Target::Stdio(command) = &server.target {
        writeln!(f, "  stop_grace           {}", duration(command.upkeep.stop_grace))?;
    }
    match server.request_timeout {
        Some(timeout) => writeln!(f, "  request_timeout      {}", duration(timeout)),
        None => writeln!(f, "  request_timeout      off"),
    }
}

fn show_command(command: &Command, f: &mut Formatter<'_>) -> fmt::Result {
    let arguments = match command.args.len() {
        1 => "1 argument".to_owned(),
        count => format!("{count} arguments"),
    };
    // Behind a blank there are arguments that somebody put into the program's name.
    let program = command.program.split_whitespace().next().unwrap_or_default();
    writeln!(f, "  command              {} with {arguments}", program.escape_debug())?;
    if !command.env.is_empty() {
        writeln!(f, "  env                  {}", names(&command.env))?;
    }
    if let Some(cwd) = &command.cwd {
        writeln!(f, "  cwd                  {}", cwd.display().to_string().escape_debug())?;
    }
    writeln!(f, "  processes            {}", command.processes_max)?;
    writeln!(f, "  tasks                {}", command.tasks_max)
}

fn show_upkeep(upkeep: Upkeep, f: &mut Formatter<'_>) -> fmt::Result {
    let isolation = match upkeep.isolation {
        Isolation::Session => "session",
        Isolation::Shared => "shared",
    };
    writeln!(f, "  isolation            {isolation}")?;
    writeln!(f, "  start_timeout        {}", duration(upkeep.start_timeout))?;
    writeln!(f, "  idle_timeout         {}", duration(upkeep.idle_timeout))
}

fn show_endpoints(
    (plain, safe): (&str, &str),
    endpoints: &Endpoints,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    let is_one = endpoints.count() == 1;
    for (id, endpoint) in endpoints.iter() {
        let key = if is_one { "url      " } else { "endpoints" };
        let scheme = if endpoint.tls { safe } else { plain };
        // Paths and queries of hosted servers often hold a token.
        let path = if endpoint.target == "/mcp" { "/mcp" } else { "/…" };
        write!(f, "  {key}            {scheme}://{}{path}", endpoint.authority)?;
        if let Balance::Weighted(weights) = &endpoints.balance {
            let weight = weights.get(usize::from(id.0)).copied().unwrap_or(1);
            write!(f, " (weight {weight})")?;
        }
        writeln!(f)?;
    }
    let balance = match endpoints.balance {
        Balance::RoundRobin => "round_robin",
        Balance::LeastInFlight => "least_in_flight",
        Balance::Weighted(_) => "weighted",
        Balance::ConsistentHash => "consistent_hash",
    };
    if !is_one {
        writeln!(f, "  balance              {balance}")?;
    }
    let Endpoint { headers, conns_max, .. } = &endpoints.first;
    if !headers.is_empty() {
        writeln!(f, "  headers              {}", names(headers))?;
    }
    writeln!(f, "  connections          {conns_max}")
}

fn show_transport(transport: Transport, f: &mut Formatter<'_>) -> fmt::Result {
    let transport = match transport {
        Transport::Http => "http",
        Transport::Sse => "sse",
        Transport::Auto => "auto",
    };
    writeln!(f, "  transport            {transport}")
}

fn names(pairs: &[(String, Secret)]) -> String {
    let names: Vec<String> =
        pairs.iter().map(|(name, _)| name.escape_debug().to_string()).collect();
    names.join(", ")
}

/// A duration in its largest whole unit.
fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let unit = units.iter().find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{millis}ms"), |(name, unit)| format!("{}{name}", millis / unit))
}

/// A size in its largest whole unit.
fn size(len: usize) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.iter().find(|(_, unit)| len >= *unit && len.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{len}B"), |(name, unit)| format!("{}{name}", len / unit))
}
