//! Where a configuration comes from.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::file::{Field, Section, Value};
use super::problem::{COMMAND_LINE, Problem, Refused, Report};
use super::secret::Outside;
use super::{Config, LogChoice, build, file, mcp_json};

/// What names the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A configuration file.
    File(PathBuf),
    /// The `mcpServers` JSON of a client.
    McpJson(PathBuf),
    /// One server, by its URL.
    Url(String),
    /// One server, by its command.
    Command(Vec<String>),
    /// The demo server, which is this program.
    Demo {
        /// Where this program is.
        program: String,
    },
}

/// What the command line says about keys of the file; it counts more than the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `listen.http`, unless empty.
    pub listen: Vec<SocketAddr>,
    /// `listen.admin`; the inner none is `off`.
    pub admin: Option<Option<SocketAddr>>,
    /// `shards`.
    pub shards: Option<u16>,
    /// `log.format`.
    pub log: Option<LogChoice>,
    /// There is one client, in place of those that connect.
    pub one_client: Option<OneClient>,
}

/// A client on standard input and output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneClient {
    /// The server that it speaks with; none: the only one.
    pub server: Option<String>,
}

/// The name that a server gets that was given without one.
const NAME: &str = "default";

/// Loads a configuration. All that is wrong with it comes back at once.
pub fn load(
    source: Source,
    overrides: &Overrides,
    outside: &Outside<'_>,
) -> Result<Config, Refused> {
    match source {
        Source::File(path) => {
            let (name, text) = read(&path, outside)?;
            check(Report::new(&name, &text), overrides, outside, |report| {
                file::parse(&text, report)
            })
        }
        Source::McpJson(path) => {
            let (name, text) = read(&path, outside)?;
            check(Report::new(&name, &text), overrides, outside, |report| {
                mcp_json::parse(&text, report)
            })
        }
        Source::Url(url) => {
            let url = Field::made_up("url", "URL", Value::Text(url));
            check_one(NAME, url, overrides, outside)
        }
        Source::Command(words) => check_one(NAME, command(words), overrides, outside),
        Source::Demo { program } => {
            let words = vec![program, "demo-server".to_owned()];
            check_one("demo", command(words), overrides, outside)
        }
    }
}

fn read(path: &Path, outside: &Outside<'_>) -> Result<(String, String), Refused> {
    let name = path.display().to_string();
    match (outside.read)(path) {
        Ok(text) => Ok((name, text)),
        Err(err) => Err(Refused::from(Problem {
            source: name,
            position: None,
            key: String::new(),
            message: format!("cannot be read: {err}"),
        })),
    }
}

fn command(words: Vec<String>) -> Field {
    let word = |word| Field::made_up("", "COMMAND", Value::Text(word));
    Field::made_up("command", "COMMAND", Value::List(words.into_iter().map(word).collect()))
}

/// The configuration of one server that was not written into a file.
fn check_one(
    name: &str,
    field: Field,
    overrides: &Overrides,
    outside: &Outside<'_>,
) -> Result<Config, Refused> {
    let server = Field::made_up(name, name, Value::Table(vec![field]));
    let servers = Field::made_up("servers", "servers", Value::Table(vec![server]));
    let top = Section { path: String::new(), at: 0, fields: vec![servers] };
    check(Report::new(COMMAND_LINE, ""), overrides, outside, |_report| Some(top))
}

fn check(
    mut report: Report<'_>,
    overrides: &Overrides,
    outside: &Outside<'_>,
    parse: impl FnOnce(&mut Report<'_>) -> Option<Section>,
) -> Result<Config, Refused> {
    let config = parse(&mut report).map(|top| build::build(top, overrides, outside, &mut report));
    let found = report.finish();
    match config {
        Some(config) if found.problems.is_empty() => {
            Ok(Config { warnings: found.warnings, ..config })
        }
        _ => Err(found),
    }
}
