//! What servers offer, list by list: read page by page, put together, and given out in pages again.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use wire::json::{self, Span, Text};

use crate::federation::value::{find, text_of, token};
use crate::limits;
use crate::upstream::view::{View, matches};

/// One kind of list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListKind {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    Templates,
    /// `tasks/list` (2025-11-25).
    Tasks,
}

impl ListKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Tools, Self::Prompts, Self::Resources, Self::Templates, Self::Tasks];

    /// Those that say whose a resource is.
    pub const OF_RESOURCES: &'static [Self] = &[Self::Resources, Self::Templates];

    /// It alone.
    pub fn alone(self) -> &'static [Self] {
        match self {
            Self::Tools => &[Self::Tools],
            Self::Prompts => &[Self::Prompts],
            Self::Resources => &[Self::Resources],
            Self::Templates => &[Self::Templates],
            Self::Tasks => &[Self::Tasks],
        }
    }

    /// The list that a method asks for.
    pub fn of_method(method: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.method().as_bytes() == method)
    }

    /// The method that asks for it.
    pub fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
            Self::Tasks => "tasks/list",
        }
    }

    /// The member of the result that holds it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
            Self::Tasks => "tasks",
        }
    }

    /// The member of an entry that names it.
    pub fn name_key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
            Self::Tasks => "taskId",
        }
    }

    /// Where the capabilities of a server say that it has such a list.
    pub fn capability(self) -> &'static [&'static str] {
        match self {
            Self::Tools => &["tools"],
            Self::Prompts => &["prompts"],
            Self::Resources | Self::Templates => &["resources"],
            Self::Tasks => &["tasks", "list"],
        }
    }

    /// The notification that says that it has changed, if there is one.
    pub fn changed(self) -> Option<&'static str> {
        match self {
            Self::Tools => Some("notifications/tools/list_changed"),
            Self::Prompts => Some("notifications/prompts/list_changed"),
            Self::Resources | Self::Templates => Some("notifications/resources/list_changed"),
            Self::Tasks => None,
        }
    }

    /// Its place in an array of all.
    pub fn index(self) -> usize {
        match self {
            Self::Tools => 0,
            Self::Prompts => 1,
            Self::Resources => 2,
            Self::Templates => 3,
            Self::Tasks => 4,
        }
    }
}

/// An entry of a server's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the server calls it.
    pub name: String,
    /// The entry as the server wrote it.
    json: Bytes,
    /// Its name in `json`, quotes included.
    name_at: Span,
}

/// How long an answer may be kept (2026-07-28).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// For so long.
    pub ttl: Duration,
    /// Whether it is the same for everybody.
    pub is_public: bool,
}

impl Freshness {
    /// What is not changed by being combined with others.
    pub const BEST: Self = Self { ttl: Duration::MAX, is_public: true };
    /// Of an answer that says nothing.
    pub const NONE: Self = Self { ttl: Duration::ZERO, is_public: false };

    /// What a result says of itself.
    pub fn read(result: &[u8]) -> Self {
        let ttl = find(result, "ttlMs").and_then(|span| number(span.get(result)));
        let scope = find(result, "cacheScope").map(|span| span.get(result));
        Self {
            ttl: Duration::from_millis(ttl.unwrap_or(0)),
            is_public: scope == Some(&b"\"public\""[..]),
        }
    }

    /// That of a whole of two parts.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { ttl: self.ttl.min(other.ttl), is_public: self.is_public && other.is_public }
    }

    /// Appends it to an object that has members already, and that the message is complete.
    pub fn write(self, out: &mut Vec<u8>) {
        let ttl = self.ttl.min(limits::UNION_TTL_MAX).as_millis();
        let scope = if self.is_public { "public" } else { "private" };
        let text =
            format!(",\"resultType\":\"complete\",\"ttlMs\":{ttl},\"cacheScope\":\"{scope}\"");
        out.extend_from_slice(text.as_bytes());
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A page of a server's list.
#[derive(Debug)]
pub struct Page {
    /// Its entries; those without a name are left out.
    pub entries: Vec<Entry>,
    /// Bytes of them.
    pub len: usize,
    /// What to ask for the next page with.
    pub next: Option<String>,
    /// How long it may be kept.
    pub freshness: Freshness,
}

/// Reads a page from the `result` of a list request. None: it is none.
pub fn read_page(kind: ListKind, result: &[u8]) -> Option<Page> {
    let list = find(result, kind.key())?;
    let bytes = Bytes::copy_from_slice(list.get(result));
    let mut entries = Vec::new();
    for span in json::elements(&bytes, limits::DEPTH_MAX) {
        let span = span.ok()?;
        let json = bytes.slice(span.start as usize..span.end as usize);
        let Some(name_at) = find(&json, kind.name_key()) else { continue };
        let Some(name) = text_of(name_at.get(&json)) else { continue };
        entries.push(Entry { name, json, name_at });
    }
    let next = find(result, "nextCursor").and_then(|span| text_of(span.get(result)));
    Some(Page { entries, len: bytes.len(), next, freshness: Freshness::read(result) })
}

/// One list of all members of a view, each entry under the name by which clients know it.
#[derive(Debug, Default)]
pub struct Merged {
    /// The entries.
    pub entries: Vec<MergedEntry>,
    by_name: HashMap<String, usize>,
    /// Of templates: the members, and patterns of the URIs that are theirs.
    patterns: Vec<(usize, String)>,
    /// Names of members' entries that somebody else has: the member, and the name that was wanted.
    pub collisions: Vec<(usize, String)>,
}

/// One entry of it.
#[derive(Debug)]
pub struct MergedEntry {
    /// Whose it is.
    pub member: usize,
    /// What clients call it.
    pub name: String,
    entry: Entry,
}

impl Merged {
    /// Puts the lists of all members together: members in their order, entries in theirs. If a name
    /// is taken, the entry gets its server's name before it; what has no other name (a resource is
    /// its URI, a task its id) is left to the first that has it.
    pub fn new<'a>(
        kind: ListKind,
        view: &View,
        lists: impl Iterator<Item = (usize, &'a [Entry])>,
    ) -> Self {
        let mut merged = Self::default();
        for (index, entries) in lists {
            let Some(member) = view.members.get(index) else { continue };
            for entry in entries {
                let is_tool = kind == ListKind::Tools;
                if is_tool && !member.rules.admits(&entry.name) {
                    continue;
                }
                let plain = if is_tool { member.rules.renamed(&entry.name) } else { &entry.name };
                let mut name = match kind {
                    ListKind::Tools | ListKind::Prompts => view.exposed(member, plain),
                    ListKind::Resources | ListKind::Templates | ListKind::Tasks => {
                        entry.name.clone()
                    }
                };
                if merged.by_name.contains_key(&name) {
                    merged.collisions.push((index, name.clone()));
                    name = view.prefixed(member, plain);
                    let has_names = matches!(kind, ListKind::Tools | ListKind::Prompts);
                    if !has_names || merged.by_name.contains_key(&name) {
                        continue;
                    }
                }
                merged.by_name.insert(name.clone(), merged.entries.len());
                if kind == ListKind::Templates && name.len() <= limits::TEMPLATED_LEN_MAX {
                    merged.patterns.push((index, pattern_of(&name)));
                }
                merged.entries.push(MergedEntry { member: index, name, entry: entry.clone() });
            }
        }
        merged
    }

    /// The member that has what clients know by this name, and its own name for it.
    pub fn find(&self, name: &str) -> Option<(usize, &str)> {
        let found = self.entries.get(*self.by_name.get(name)?)?;
        Some((found.member, &found.entry.name))
    }

    /// The same for a URI and the templates that it may come from: the one with the most characters
    /// that are no placeholder.
    pub fn find_template(&self, uri: &str) -> Option<usize> {
        if limits::TEMPLATED_LEN_MAX < uri.len() {
            return None;
        }
        let fits = self.patterns.iter().filter(|(_, pattern)| matches(pattern, uri));
        let best = fits.max_by_key(|(member, pattern)| {
            (pattern.bytes().filter(|byte| *byte != b'*').count(), std::cmp::Reverse(*member))
        });
        best.map(|(member, _)| *member)
    }

    /// Appends the members of a result with the page that begins with entry `from`.
    pub fn write_page(&self, out: &mut Vec<u8>, kind: ListKind, view: &View, from: usize) {
        out.push(b'"');
        out.extend_from_slice(kind.key().as_bytes());
        out.extend_from_slice(b"\":[");
        let to = from.saturating_add(view.page_len).min(self.entries.len());
        for (index, entry) in self.entries.get(from..to).unwrap_or_default().iter().enumerate() {
            if index != 0 {
                out.push(b',');
            }
            entry.write(out, kind, view);
        }
        out.push(b']');
        if to < self.entries.len() {
            out.extend_from_slice(b",\"nextCursor\":");
            json::write_string(out, &self.cursor(to));
        }
    }

    /// The cursor of the page that begins with this entry. It names the entry before, so that a
    /// list that has changed in the meantime is gone on with where the client was.
    fn cursor(&self, from: usize) -> String {
        let before = from.checked_sub(1).and_then(|at| self.entries.get(at));
        before.map(|entry| format!("{:x}.{}", from, hash(&entry.name))).unwrap_or_default()
    }

    /// The entry that the page of a cursor begins with. None: it is none of ours.
    pub fn position(&self, cursor: &str) -> Option<usize> {
        let (from, mark) = cursor.split_once('.')?;
        let from = usize::from_str_radix(from, 16).ok()?;
        let is_before = |at: usize| {
            let entry = at.checked_sub(1).and_then(|at| self.entries.get(at));
            entry.is_some_and(|entry| hash(&entry.name) == mark)
        };
        if is_before(from) {
            return Some(from);
        }
        (1..=self.entries.len()).find(|at| is_before(*at))
    }
}

impl MergedEntry {
    /// Appends the entry under the name that clients know.
    fn write(&self, out: &mut Vec<u8>, kind: ListKind, view: &View) {
        let Entry { name, json, name_at } = &self.entry;
        let rules = view.members.get(self.member).map(|member| &member.rules);
        let description = rules
            .filter(|_| kind == ListKind::Tools)
            .and_then(|rules| rules.description(name))
            .map(token);
        let mut edits: Vec<(Span, Vec<u8>)> = Vec::new();
        if *name != self.name {
            edits.push((*name_at, token(&self.name)));
        }
        if let Some(text) = description {
            match find(json, "description") {
                Some(at) => edits.push((at, text)),
                None => {
                    // Behind the name: an object that has one is not empty.
                    let at = Span { start: name_at.end, end: name_at.end };
                    let mut member = b",\"description\":".to_vec();
                    member.extend_from_slice(&text);
                    edits.push((at, member));
                }
            }
        }
        let edits: Vec<(Span, &[u8])> = edits.iter().map(|(at, new)| (*at, &**new)).collect();
        wire::rpc::splice(out, json, &edits);
    }
}

/// A number that tells names apart, in letters.
fn hash(name: &str) -> String {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// A pattern of the URIs that a template (RFC 6570) may become: every placeholder is anything.
fn pattern_of(template: &str) -> String {
    let mut pattern = String::with_capacity(template.len());
    let mut is_inside = false;
    for char in template.chars() {
        match char {
            '{' => {
                is_inside = true;
                pattern.push('*');
            }
            '}' => is_inside = false,
            // In a URI they stand for themselves, and in a pattern they do not.
            '*' | '?' if !is_inside => pattern.push('?'),
            other if !is_inside => pattern.push(other),
            _ => {}
        }
    }
    pattern
}

/// The name that a request is about: what is to be replaced in it, and what it says.
pub fn named(bytes: &[u8], text: Option<Text>) -> Option<(Span, String)> {
    let text = text?;
    let name = String::from_utf8(text.decode(bytes).into_owned()).ok()?;
    Some((text.token(), name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::catalog::ServerId;
    use crate::upstream::view::{Member, Rules};

    fn member(index: u16, name: &str, is_prefixed: bool) -> Member {
        let prefix = is_prefixed.then(|| name.to_owned());
        let rules = Rules::default();
        Member { server: ServerId(index), prefix, name: name.to_owned(), rules }
    }

    fn view(members: Vec<Member>) -> View {
        let (separator, timeout) = ("__".to_owned(), Duration::from_secs(1));
        View { members, separator, timeout, page_len: 2 }
    }

    fn page(kind: ListKind, result: &str) -> Vec<Entry> {
        read_page(kind, result.as_bytes()).unwrap().entries
    }

    fn merge(kind: ListKind, view: &View, lists: &[&str]) -> Merged {
        let pages: Vec<Vec<Entry>> = lists.iter().map(|text| page(kind, text)).collect();
        Merged::new(kind, view, pages.iter().map(Vec::as_slice).enumerate())
    }

    fn text(merged: &Merged, kind: ListKind, view: &View, from: usize) -> String {
        let mut out = Vec::new();
        merged.write_page(&mut out, kind, view, from);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn pages_are_read() {
        let result = br#"{"tools":[{"name":"a"},{"x":1},{"name":2},{"n\u0061me":"\u0062"}],
            "nextCursor":"c","ttlMs":5,"cacheScope":"public"}"#;
        let page = read_page(ListKind::Tools, result).unwrap();
        let names: Vec<&str> = page.entries.iter().map(|entry| &*entry.name).collect();
        assert_eq!((names, page.next.as_deref()), (vec!["a", "b"], Some("c")));
        let expected = Freshness { ttl: Duration::from_millis(5), is_public: true };
        assert_eq!(page.freshness, expected);
        assert!(read_page(ListKind::Prompts, result).is_none());
        assert!(read_page(ListKind::Tools, br#"{"tools":{}}"#).is_none());
    }

    #[test]
    fn entries_keep_their_bytes() {
        let view = view(vec![member(0, "a", true), member(1, "b", false)]);
        let lists = [
            r#"{"tools":[{"description": "d" , "name":"x","n":1.0e+3,"u":"\u00e9"}]}"#,
            r#"{"tools":[{"name":"y"}]}"#,
        ];
        let merged = merge(ListKind::Tools, &view, &lists);
        let wanted = concat!(
            r#""tools":[{"description": "d" , "name":"a__x","n":1.0e+3,"u":"\u00e9"},"#,
            r#"{"name":"y"}]"#,
        );
        assert_eq!(text(&merged, ListKind::Tools, &view, 0), wanted);
        assert_eq!(merged.find("a__x"), Some((0, "x")));
        assert_eq!(merged.find("y"), Some((1, "y")));
        assert_eq!(merged.find("x"), None);
    }

    #[test]
    fn rules_hide_rename_and_describe() {
        let mut one = member(0, "a", true);
        one.rules.deny = vec!["h*".to_owned()];
        one.rules.rename = vec![("old".to_owned(), "new".to_owned())];
        one.rules.descriptions =
            vec![("old".to_owned(), "say \"hi\"".to_owned()), ("bare".to_owned(), "b".to_owned())];
        let view = view(vec![one]);
        let list = r#"{"tools":[{"name":"old","description":"x"},{"name":"bare"},{"name":"hid"}]}"#;
        let merged = merge(ListKind::Tools, &view, &[list]);
        let wanted = concat!(
            r#""tools":[{"name":"a__new","description":"say \"hi\""},"#,
            r#"{"name":"a__bare","description":"b"}]"#,
        );
        assert_eq!(text(&merged, ListKind::Tools, &view, 0), wanted);
    }

    #[test]
    fn a_name_that_is_taken_gets_a_prefix() {
        let view = view(vec![member(0, "a", false), member(1, "b", false)]);
        let lists = [r#"{"prompts":[{"name":"x"}]}"#, r#"{"prompts":[{"name":"x"},{"name":"y"}]}"#];
        let merged = merge(ListKind::Prompts, &view, &lists);
        assert_eq!(merged.find("x"), Some((0, "x")));
        assert_eq!(merged.find("b__x"), Some((1, "x")));
        assert_eq!(merged.find("y"), Some((1, "y")));
        assert_eq!(merged.collisions, [(1, "x".to_owned())]);
    }

    #[test]
    fn a_resource_has_one_owner() {
        let view = view(vec![member(0, "a", true), member(1, "b", true)]);
        let lists = [r#"{"resources":[{"uri":"m:1"}]}"#, r#"{"resources":[{"uri":"m:1"}]}"#];
        let merged = merge(ListKind::Resources, &view, &lists);
        assert_eq!(merged.entries.len(), 1);
        assert_eq!(merged.collisions, [(1, "m:1".to_owned())]);
    }

    #[test]
    fn the_closest_template_is_meant() {
        let view = view(vec![member(0, "a", true), member(1, "b", true)]);
        let lists = [
            r#"{"resourceTemplates":[{"uriTemplate":"file://{+path}"}]}"#,
            r#"{"resourceTemplates":[{"uriTemplate":"file:///tmp/{name}?{q}"}]}"#,
        ];
        let merged = merge(ListKind::Templates, &view, &lists);
        assert_eq!(merged.find_template("file:///tmp/x?y"), Some(1));
        assert_eq!(merged.find_template("file:///etc/x"), Some(0));
        assert_eq!(merged.find_template("http://x"), None);
    }

    #[test]
    fn lists_are_paged() {
        let view = view(vec![member(0, "a", true)]);
        let list =
            r#"{"tools":[{"name":"1"},{"name":"2"},{"name":"3"},{"name":"4"},{"name":"5"}]}"#;
        let merged = merge(ListKind::Tools, &view, &[list]);
        let (mut from, mut pages) = (0, Vec::new());
        loop {
            let page = format!("{{{}}}", text(&merged, ListKind::Tools, &view, from));
            let read = read_page(ListKind::Tools, page.as_bytes()).unwrap();
            pages.push(read.entries.len());
            let Some(cursor) = read.next else { break };
            from = merged.position(&cursor).unwrap();
        }
        assert_eq!(pages, [2, 2, 1]);
        for wrong in ["", "x", "2.", "2.x", "ffffffffffffffffff.0", "0.0"] {
            assert_eq!(merged.position(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_cursor_outlives_a_change() {
        let view = view(vec![member(0, "a", true)]);
        let before = merge(
            ListKind::Tools,
            &view,
            &[r#"{"tools":[{"name":"1"},{"name":"2"},{"name":"3"}]}"#],
        );
        let after = merge(ListKind::Tools, &view, &[r#"{"tools":[{"name":"2"},{"name":"3"}]}"#]);
        assert_eq!(after.position(&before.cursor(2)), Some(1));
    }
}
