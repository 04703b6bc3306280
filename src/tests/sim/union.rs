//! The view of several servers in some worlds: who is in it, what its clients ask for, what servers
//! say to the gateway's own questions, and what the lists that come of it may look like.

use std::collections::VecDeque;
use std::time::Duration;

use wire::json::{self, Text};

use crate::tests::sim::check::{Check, Do, Faults, Tag};
use crate::tests::sim::client;
use crate::tests::sim::job::Step;
use crate::tests::sim::net::Net;
use crate::tests::sim::random::Random;
use crate::tests::sim::request::SERVERS;
use crate::upstream::catalog::ServerId;
use crate::upstream::view::{Member, Rules, View};

/// The view's place in the catalog: behind the servers.
pub(super) const VIEW: usize = SERVERS.len();

/// What every server has, page by page.
const TOOLS: [&[&str]; 3] = [
    &["echo", "progress", "ask", "hang", "big"],
    &["flood", "trickle", "die", "garbage"],
    &["log", "error", "cut", "forget"],
];

/// What a call to the view asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// The tool.
    pub(super) name: String,
    /// Where a list goes on, and what the pages before had.
    pub(super) cursor: Option<String>,
    names: Vec<String>,
}

/// The view of a world, if it has one: chance of its own decides, so that others stay as they are.
pub(super) fn view(seed: u64, faults: Faults) -> Option<View> {
    let mut random = Random::new(seed ^ 0x0e64);
    if !random.chance(40) {
        return None;
    }
    let count = if faults.die { SERVERS.len() } else { SERVERS.len() - 1 };
    let mut members = Vec::new();
    for (index, name) in SERVERS.iter().enumerate().take(count) {
        if random.chance(75) || (index + 1 == count && members.is_empty()) {
            let name = (*name).to_owned();
            members.push(Member {
                server: ServerId(u16::try_from(index).unwrap()),
                prefix: random.chance(75).then(|| name.clone()),
                name,
                rules: Rules::default(),
            });
        }
    }
    // What a client reads slowly is sent slowly by its servers, in a calm world, too.
    let timeout = if faults.is_calm() { 120 } else { *random.pick(&[1, 4, 10]) };
    let timeout = Duration::from_secs(timeout);
    let page_len = *random.pick(&[2, 7, 100]);
    Some(View { members, separator: "__".to_owned(), timeout, page_len })
}

/// What a client of the view does next.
pub(super) fn pick(net: &mut Net, check: &Check) -> Do {
    match client::pick(net, check) {
        Do::List if net.random.chance(80) => Do::Union,
        Do::Log if net.random.chance(30) => Do::Union,
        Do::Error if net.random.chance(50) => Do::Task,
        other => other,
    }
}

/// What a call to the view asks for.
pub(super) fn asked(what: Do, net: &mut Net, check: &Check) -> Asked {
    let members = check.view.as_ref().map(|view| view.members.as_slice()).unwrap_or_default();
    let member = net.random.pick(members);
    let view = check.view.as_ref().unwrap();
    Asked { name: view.exposed(member, what.name()), ..Asked::default() }
}

/// What servers say they can do.
pub(super) fn capabilities(check: &Check, is_heard: bool) -> &'static str {
    match (&check.view, is_heard) {
        (None, _) => "{}",
        (Some(_), true) => r#"{"tools":{"listChanged":true},"logging":{},"tasks":{}}"#,
        (Some(_), false) => r#"{"tools":{}}"#,
    }
}

/// The result of a request that the gateway makes for itself, in a world with a view.
pub(super) fn own_result(method: &[u8], cursor: Option<&[u8]>, check: &Check) -> Option<String> {
    let capabilities = capabilities(check, false);
    match method {
        _ if check.view.is_none() => None,
        b"server/discover" => Some(format!(
            r#"{{"supportedVersions":["2026-07-28"],"capabilities":{capabilities},"resultType":"complete","ttlMs":2000}}"#
        )),
        b"tools/list" => {
            let page = std::str::from_utf8(cursor.unwrap_or(b"0")).ok()?.parse::<usize>().ok()?;
            let tool = |name: &&str| format!(r#"{{"name":"{name}","inputSchema":{{}}}}"#);
            let tools: Vec<String> = TOOLS.get(page)?.iter().map(tool).collect();
            let next = page + 1;
            let next = match next < TOOLS.len() {
                true => format!(r#","nextCursor":"{next}""#),
                false => String::new(),
            };
            Some(format!(r#"{{"tools":[{}]{next}}}"#, tools.join(",")))
        }
        _ => None,
    }
}

/// Whose a request of the gateway's own is: nobody's.
pub(super) const NOBODY: Tag = Tag { client: usize::MAX, session: usize::MAX, call: usize::MAX };

/// How a server goes about a request of the gateway's own.
pub(super) fn own_steps(net: &mut Net, faults: Faults) -> VecDeque<(u64, Step)> {
    let random = &mut net.random;
    let some = random.below(300);
    let steps = match random.below(100) {
        0..5 if faults.hang => Vec::new(),
        5..10 if faults.die => vec![(some, Step::Die)],
        10..15 if faults.garbage => vec![(some, Step::Garbage), (some, Step::Answer(0))],
        15..25 => vec![(some, Step::Cut), (some, Step::Answer(0))],
        25..30 => vec![(some, Step::Changed), (some, Step::Answer(0))],
        30..33 if faults.die => vec![(5000 + some * 30, Step::Answer(0))],
        _ => vec![(some, Step::Answer(0))],
    };
    steps.into()
}

impl Check {
    /// A page of the view's list. Returns what to ask the next one with.
    pub(super) fn listed(&mut self, call: usize, bytes: &[u8]) -> Option<Asked> {
        let view = self.view.clone()?;
        let asked = self.calls[call].union.clone()?;
        let mut names = asked.names;
        let result = find(bytes, "result")?;
        let tools = find(result, "tools")?;
        let page: Vec<&[u8]> =
            json::elements(tools, 16).map(|span| span.unwrap().get(tools)).collect();
        if view.page_len < page.len() {
            self.violation(format!("call {call}: a page of {} tools", page.len()));
        }
        for tool in page {
            let name = find(tool, "name").unwrap_or_default();
            let name = String::from_utf8_lossy(name).trim_matches('"').to_owned();
            if !possible(&view).contains(&name) {
                self.violation(format!("call {call}: there is no tool {name}"));
            }
            names.push(name);
        }
        if let Some(cursor) = find(result, "nextCursor") {
            let cursor = Some(String::from_utf8_lossy(cursor).trim_matches('"').to_owned());
            return Some(Asked { name: String::new(), cursor, names });
        }
        let is_legacy = self.calls[call].is_legacy;
        if self.faults.is_calm() && is_legacy && names != whole(&view) {
            self.violation(format!("call {call}: the list is not whole: {names:?}"));
        }
        None
    }
}

/// The value of a member of an object.
fn find<'a>(object: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let entries = json::entries(object, 16).ok()?;
    let found = entries.into_iter().find(|(name, _)| Text::eq(*name, object, key));
    found.map(|(_, value)| value.get(object))
}

/// All names that tools may have.
fn possible(view: &View) -> Vec<String> {
    let names =
        |member: &Member, tool: &str| [view.exposed(member, tool), view.prefixed(member, tool)];
    let tools = TOOLS.concat();
    view.members.iter().flat_map(|it| tools.iter().flat_map(|tool| names(it, tool))).collect()
}

/// The list of all members, when they are all there.
fn whole(view: &View) -> Vec<String> {
    let mut all = Vec::new();
    for member in &view.members {
        for tool in TOOLS.concat() {
            let name = view.exposed(member, tool);
            let name = if all.contains(&name) { view.prefixed(member, tool) } else { name };
            all.push(name);
        }
    }
    all
}
