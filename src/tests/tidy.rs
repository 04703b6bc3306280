//! The rules that the compiler does not know, as tests: layers, purity, sizes, true documents.
//!
//! The tables are the rules; a new module or an exception is added to them on purpose. A guard is
//! a function from a source file to complaints, and has a canary: a snippet that it must reject.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use crate::telemetry::counters::Counters;

/// Each module of `src` may use the rows above its own and nothing else of ours: neighbours in a
/// row never meet.
const LAYERS: &[&[&str]] = &[
    &["limits", "table", "timers", "output", "message", "refusal"],
    &["ids", "telemetry"],
    &["upstream"],
    &["federation"],
    &["exchange", "frontend", "admission", "era", "session", "backend"],
    &["shard"],
    &["mesh"],
    &["driver", "config", "demo"],
    &["control"],
];

/// The same for the crate `wire`.
const WIRE_LAYERS: &[&[&str]] =
    &[&["http1", "sse", "lines", "json"], &["rpc", "ws"], &["envelope"], &["binary"]];

/// What a module must not know, although its layer would allow it. `*`: anything of ours.
const BLIND: &[(&str, &[&str])] = &[
    // It moves bytes and has no idea what they mean.
    ("driver", &["message", "refusal", "exchange", "frontend", "era", "session", "backend"]),
    // It is a server like others; the gateway must not treat it better.
    ("demo", &["*"]),
    ("control", &["demo", "exchange", "frontend", "era", "session", "backend"]),
    ("config", &["shard", "mesh", "session", "backend", "frontend"]),
];

/// Modules that decide and never meet the outside world: their time and their random numbers are
/// arguments. All rows of `LAYERS` down to `shard`.
const PURE_DOWN_TO: &str = "shard";

/// What is not pure, in words; those without punctuation must stand alone.
const IMPURE: &str = "std::fs std::env std::os std::process std::thread std::{ ::now() \
    TcpListener TcpStream UdpSocket UnixStream Mutex RwLock Condvar AtomicBool AtomicU32 \
    AtomicU64 AtomicUsize mpsc async await";

/// Which modules may use a library, for those that are not for everybody.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("atomic_waker", &["mesh"]),
    ("axum", &["control"]),
    ("clap", &["bin", "config"]),
    ("crossbeam_queue", &["mesh"]),
    ("getrandom", &["control"]),
    ("io_uring", &["driver"]),
    ("libc", &["control", "driver"]),
    ("mimalloc", &["bin"]),
    ("monoio", &["driver"]),
    ("rustix", &["control", "driver"]),
    ("rustls", &["backend", "control", "shard"]),
    // In `admission`, only what tools say of mirrored headers: nothing is passed on from a tree.
    ("serde_json", &["admission", "config", "control", "demo"]),
    ("socket2", &["driver"]),
    ("tokio", &["control", "driver", "mesh"]),
    ("toml", &["config"]),
    (
        "wire",
        &["admission", "backend", "era", "federation", "frontend", "refusal", "session", "shard"],
    ),
];

/// The files that may hold unsafe code. Each argues for every line of it.
const UNSAFE: &[&str] = &["src/control/sys.rs", "src/driver/socket.rs"];

/// Lines with code in a file.
const FILE_LINES_MAX: usize = 600;

/// Characters in a line.
const COLUMNS_MAX: usize = 100;

/// Characters in a row that nobody can break: data, such as an image in a string.
const WORD_DATA_MIN: usize = 60;

/// What the tests at the end of a file begin with.
const INLINE_TESTS: &str = "#[cfg(test)]\nmod tests {";

/// What is never checked in: in code or in comments, and in code only.
const LEFTOVERS: &[&str] = &["TODO", "FIXME", "XXX"];
/// See [`LEFTOVERS`].
const CODE_LEFTOVERS: &[&str] = &[
    "todo!",
    "unimplemented!",
    "dbg!",
    "#[ignore",
    "should_panic",
    // Functions of more than 70 lines are clippy's business; there are no exceptions.
    "too_many_lines",
];

#[test]
fn modules_use_only_the_layers_above_them() {
    check(layers);
}

#[test]
fn modules_do_not_know_what_is_not_their_business() {
    check(blindness);
}

#[test]
fn every_module_has_its_layer() {
    let ours = |text: &str| -> BTreeSet<String> { modules(text).into_iter().collect() };
    let placed = |layers: &[&[&str]]| -> BTreeSet<String> {
        layers.iter().flat_map(|row| row.iter()).map(|name| (*name).to_owned()).collect()
    };
    assert_eq!(ours(&read("src/lib.rs")), placed(LAYERS));
    assert_eq!(ours(&read("wire/src/lib.rs")), placed(WIRE_LAYERS));
}

#[test]
fn pure_modules_stay_pure() {
    check(purity);
}

/// Then the compiler proves the rest.
#[test]
fn the_codecs_have_no_way_to_the_outside_world() {
    let text = read("wire/src/lib.rs");
    assert!(text.contains("#![no_std]") && text.contains("#![forbid(unsafe_code)]"));
    assert!(!text.replace("#[cfg(test)]\nextern crate std;", "").contains("extern crate std"));
}

/// A bound that nobody looks at bounds nothing.
#[test]
fn every_bound_is_enforced_somewhere() {
    let bounds = constants(&read("src/limits.rs"));
    let users: Vec<_> =
        sources().iter().filter(|source| source.module() != Some("limits")).collect();
    let is_idle = |bound: &String| !users.iter().any(|user| mentions(user.product(), bound));
    let idle: Vec<String> = bounds.into_iter().filter(is_idle).collect();
    assert!(idle.is_empty(), "no code looks at {idle:?}");
}

#[test]
fn libraries_stay_where_they_belong() {
    check(libraries);
}

#[test]
fn unsafe_code_is_only_where_it_is_expected() {
    check(safety);
    for path in UNSAFE {
        let source = Source::new(path, read(path));
        assert!(
            mentions(&source.code, "unsafe"),
            "{path} has no unsafe code: take it off the list"
        );
    }
}

#[test]
fn files_and_lines_are_short() {
    check(sizes);
}

#[test]
fn every_file_says_what_it_is() {
    check(header);
}

#[test]
fn nothing_is_left_over() {
    check(leftovers);
}

#[test]
fn the_architecture_names_every_module() {
    let mut names = modules(&read("src/lib.rs"));
    names.push("wire".to_owned());
    assert_eq!(missing(&names, &read("docs/architecture.md")), Vec::<String>::new());
}

#[test]
fn the_reading_order_names_every_document() {
    let found = fs::read_dir(root().join("docs")).unwrap();
    let names: Vec<String> = found
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md" && !name.starts_with('.'))
        .collect();
    let index = read("docs/README.md");
    for name in names {
        assert!(index.contains(&format!("({name})")), "docs/README.md does not name {name}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let paths = docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().display()));
    for path in paths.chain(["README.md".to_owned()]).filter(|path| path.ends_with(".md")) {
        let base = root().join(&path);
        for link in links(&read(&path)) {
            let target = base.parent().unwrap().join(&link);
            assert!(target.exists(), "{path} links to {link}, which does not exist");
        }
    }
}

#[test]
fn the_tests_of_threats_exist() {
    let document = read("docs/security.md");
    for (file, test) in document.split('`').filter_map(|name| name.split_once("::")) {
        let (file, code) = (format!("/{file}"), format!("fn {test}()"));
        let exists = sources().iter().any(|it| it.path.contains(&file) && it.code.contains(&code));
        assert!(exists, "docs/security.md names {test}, which is no test of {file}");
    }
}

#[test]
fn every_metric_is_in_its_table() {
    let counters = Counters::default();
    let rows = counters.list().into_iter().map(|(name, kind, ..)| (name.to_owned(), kind));
    let own = quoted(&read("src/control/admin/mod.rs"));
    let own = own.into_iter().filter(|name| is_metric(name)).map(|name| (name, "gauge"));
    let known: BTreeSet<String> =
        rows.chain(own).map(|(name, kind)| format!("| `{name}` | {kind} |")).collect();
    let document = read("docs/operations.md");
    let is_row = |line: &&str| line.contains("` | counter |") || line.contains("` | gauge |");
    let written: BTreeSet<String> = document
        .lines()
        .filter(is_row)
        .map(|line| line.split_inclusive('|').take(3).collect())
        .collect();
    assert_eq!(known, written);
}

#[test]
fn every_log_event_is_in_its_table() {
    let mut known = BTreeSet::new();
    for source in sources() {
        if ["shard", "driver", "control"].map(Some).contains(&source.module()) && !source.is_test()
        {
            known.extend(events(source.text.split(INLINE_TESTS).next().unwrap_or_default()));
        }
    }
    let document = read("docs/operations.md");
    let written: BTreeSet<String> = document
        .lines()
        .skip_while(|line| !line.starts_with("| Event"))
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(known, written);
}

/// The machines that check a change run what people run.
#[test]
fn the_test_command_is_one_and_the_same() {
    let command = ".ci/test";
    for path in ["README.md", "Makefile", ".ci/run"] {
        assert!(read(path).contains(command), "{path} does not call {command}");
    }
}

// The guards.

/// One source file, with its text taken apart.
struct Source {
    path: String,
    text: String,
    /// Without comments and without the inside of literals, on the same lines.
    code: String,
    /// Only the comments.
    comments: String,
}

impl Source {
    fn new(path: &str, text: String) -> Self {
        let (code, comments) = take_apart(&text);
        Self { path: path.to_owned(), text, code, comments }
    }

    /// The top-level module of the root package that the file belongs to; `bin` for programs.
    fn module(&self) -> Option<&str> {
        let (name, _) = self.path.strip_prefix("src/")?.split_once(['/', '.'])?;
        (name != "lib" && name != "tests").then_some(name)
    }

    /// How many times `super` leads from this file to the root of its crate.
    fn depth(&self) -> usize {
        let (_, inside) = self.path.split_once("src/").unwrap_or_default();
        inside.matches('/').count() + usize::from(!inside.ends_with("/mod.rs"))
    }

    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The code that is in the program: nothing in test files, and what stands before the tests
    /// in others.
    fn product(&self) -> &str {
        if self.is_test() {
            return "";
        }
        self.code.split(INLINE_TESTS).next().unwrap_or_default()
    }
}

/// What is wrong with a file, in words.
type Guard = fn(&Source) -> Vec<String>;

fn layers(source: &Source) -> Vec<String> {
    let wire = source.path.strip_prefix("wire/src/").and_then(|path| path.split(['/', '.']).next());
    match (source.module(), wire) {
        (Some("bin"), _) => Vec::new(),
        (Some(user), _) => layers_in(LAYERS, source, user),
        (None, Some(user)) => layers_in(WIRE_LAYERS, source, user),
        (None, None) => Vec::new(),
    }
}

fn layers_in(layers: &[&[&str]], source: &Source, user: &str) -> Vec<String> {
    let layer = |name: &str| layers.iter().position(|row| row.contains(&name));
    let Some(own) = layer(user) else { return Vec::new() };
    let is_wrong =
        |used: &String| used != user && layer(used).is_some_and(|layer_used| own <= layer_used);
    let used = uses(&source.code, source.depth());
    used.into_iter().filter(is_wrong).map(|used| format!("{user} may not use {used}")).collect()
}

fn blindness(source: &Source) -> Vec<String> {
    let user = source.module().unwrap_or_default();
    let Some((_, hidden)) = BLIND.iter().find(|(name, _)| *name == user) else {
        return Vec::new();
    };
    let is_ours = |name: &str| LAYERS.iter().any(|row| row.contains(&name));
    let is_hidden = |used: &String| {
        used != user && (hidden.contains(&used.as_str()) || hidden.contains(&"*") && is_ours(used))
    };
    let used = uses(source.product(), source.depth());
    used.into_iter().filter(is_hidden).map(|used| format!("{user} must not know {used}")).collect()
}

fn purity(source: &Source) -> Vec<String> {
    let layer = |name: &str| LAYERS.iter().position(|row| row.contains(&name));
    let is_pure = source.module().is_some_and(|user| {
        layer(user).is_some_and(|layer_of_user| Some(layer_of_user) <= layer(PURE_DOWN_TO))
    });
    let code = if is_pure { source.product() } else { "" };
    let found = IMPURE.split_whitespace().filter(|word| {
        if word.chars().all(is_word) { mentions(code, word) } else { code.contains(*word) }
    });
    found.map(|word| format!("{word} in a pure module")).collect()
}

fn libraries(source: &Source) -> Vec<String> {
    let Some(user) = source.module() else { return Vec::new() };
    let is_wrong = |(library, users): &&(&str, &[&str])| {
        !users.contains(&user) && is_path_root(source.product(), library)
    };
    let wrong = LIBRARIES.iter().filter(is_wrong);
    wrong.map(|(library, _)| format!("{user} may not use the library {library}")).collect()
}

fn safety(source: &Source) -> Vec<String> {
    let is_expected = UNSAFE.contains(&source.path.as_str());
    let is_opened =
        source.code.contains("expect(unsafe_code") || source.code.contains("allow(unsafe_code");
    let is_wrong = !is_expected && (mentions(&source.code, "unsafe") || is_opened);
    is_wrong
        .then(|| "unsafe code in a file that is not on the list".to_owned())
        .into_iter()
        .collect()
}

fn sizes(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let count = source.code.lines().filter(|line| !line.trim().is_empty()).count();
    if FILE_LINES_MAX < count {
        wrong.push(format!("{count} lines of code; {FILE_LINES_MAX} are allowed"));
    }
    for (number, line) in (1..).zip(source.text.lines()) {
        let columns = line.chars().count();
        let is_data = line.split_whitespace().any(|word| WORD_DATA_MIN < word.chars().count());
        if COLUMNS_MAX < columns && !is_data {
            wrong.push(format!("line {number} has {columns} columns; {COLUMNS_MAX} are allowed"));
        }
    }
    wrong
}

fn header(source: &Source) -> Vec<String> {
    let has_header = source.text.starts_with("//! ");
    (!has_header).then(|| "does not begin with `//! `".to_owned()).into_iter().collect()
}

fn leftovers(source: &Source) -> Vec<String> {
    let in_words = |word: &&&str| mentions(&source.code, word) || mentions(&source.comments, word);
    let words = LEFTOVERS.iter().filter(in_words);
    let code = CODE_LEFTOVERS.iter().filter(|word| source.code.contains(**word));
    words.chain(code).map(|word| format!("{word} is left over")).collect()
}

/// The names of `modules` that a document does not have in code style.
fn missing(modules: &[String], document: &str) -> Vec<String> {
    let is_missing = |name: &&String| !document.contains(&format!("`{name}`"));
    modules.iter().filter(is_missing).cloned().collect()
}

// Their tools.

/// Runs a guard over all files, and reports everything that it found.
fn check(guard: Guard) {
    let all = sources();
    assert!(100 < all.len(), "only {} files were found", all.len());
    let mut report = String::new();
    for source in all {
        for complaint in guard(source) {
            report.push_str(&format!("\n{}: {complaint}", source.path));
        }
    }
    assert!(report.is_empty(), "{report}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Rust files of the repository, read once.
fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(read_sources)
}

fn read_sources() -> Vec<Source> {
    let mut waiting: Vec<String> =
        ["benches", "fuzz/fuzz_targets", "loadtest", "src", "wire/src"].map(str::to_owned).into();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        let Ok(entries) = fs::read_dir(root().join(&path)) else { continue };
        for entry in entries.map(Result::unwrap) {
            let path = format!("{path}/{}", entry.file_name().display());
            if entry.file_type().unwrap().is_dir() {
                waiting.push(path);
            } else if path.ends_with(".rs") {
                let text = read(&path);
                found.push(Source::new(&path, text));
            }
        }
    }
    found
}

/// The modules that a crate root declares, those of tests left out.
fn modules(text: &str) -> Vec<String> {
    let declared = text.lines().filter_map(|line| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
    });
    declared.filter(|name| name != "tests").collect()
}

/// The public constants of a file.
fn constants(text: &str) -> Vec<String> {
    let declared = text.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'));
    declared.map(|(name, _)| name.to_owned()).collect()
}

/// The names that stand directly behind the root of the crate in paths, by whatever way they get
/// there: `crate::a`, `crate::{a, b::c}`, or enough `super::`s.
fn uses(code: &str, depth: usize) -> Vec<String> {
    let dense: String = code.split_whitespace().collect();
    let mut found = Vec::new();
    for (at, root) in dense.match_indices("crate::") {
        found.extend(names(dense.split_at(at + root.len()).1));
    }
    let mut rest = dense.as_str();
    while let Some((_, behind)) = rest.split_once("super::") {
        rest = behind;
        let mut climbed = 1;
        while let Some(behind) = rest.strip_prefix("super::") {
            rest = behind;
            climbed += 1;
        }
        if depth <= climbed {
            found.extend(names(rest));
        }
    }
    found
}

/// The first names of a path, or of all paths in a group.
fn names(path: &str) -> Vec<String> {
    let name = |path: &str| path.chars().take_while(|c| is_word(*c)).collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut found = Vec::new();
    let (mut depth, mut is_start) = (0_usize, true);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ if depth == 0 && is_start => found.push(name(group.split_at(at).1)),
            _ => {}
        }
        is_start = character == ',';
    }
    found
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether a word stands somewhere, alone.
fn mentions(text: &str, word: &str) -> bool {
    text.split(|c| !is_word(c)).any(|part| part == word)
}

/// Whether a path begins with this name.
fn is_path_root(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code.split_at(at).0;
        !before.ends_with(|c| is_word(c) || c == ':')
    })
}

/// Takes Rust apart into code and comments; literals keep their quotes and lose what is inside.
fn take_apart(text: &str) -> (String, String) {
    let (mut code, mut comments) = (String::new(), String::new());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (len, kind) = token(rest, first);
        let (token, behind) = rest.split_at(len);
        let blank = "\n".repeat(token.matches('\n').count());
        match kind {
            Kind::Code => code.push_str(token),
            Kind::Literal => code.push_str(&format!("\"\"{blank}")),
            Kind::Comment => {
                comments.push_str(token);
                comments.push('\n');
                code.push_str(&blank);
            }
        }
        rest = behind;
    }
    (code, comments)
}

/// What a piece of source text is.
#[derive(Clone, Copy)]
enum Kind {
    Code,
    Literal,
    Comment,
}

/// The length and kind of the piece that `text` begins with.
fn token(text: &str, first: char) -> (usize, Kind) {
    let until = |end: &str, from: usize| {
        let found = text.get(from..).and_then(|rest| rest.find(end));
        found.map_or(text.len(), |at| from + at + end.len())
    };
    if text.starts_with("//") {
        return (text.find('\n').unwrap_or(text.len()), Kind::Comment);
    }
    if text.starts_with("/*") {
        return (until("*/", 2), Kind::Comment);
    }
    if is_word(first) {
        let len = text.find(|c| !is_word(c)).unwrap_or(text.len());
        let (word, behind) = text.split_at(len);
        let hashes = behind.len() - behind.trim_start_matches('#').len();
        let is_raw =
            ["r", "br", "cr"].contains(&word) && behind.trim_start_matches('#').starts_with('"');
        if is_raw {
            let end = format!("\"{}", "#".repeat(hashes));
            return (until(&end, len + hashes + 1), Kind::Literal);
        }
        return (len, Kind::Code);
    }
    if first == '"' {
        return (quoted_len(text, '"'), Kind::Literal);
    }
    let mut ahead = text.chars().skip(1);
    let (second, third) = (ahead.next(), ahead.next());
    if first == '\'' && (second == Some('\\') || third == Some('\'')) {
        return (quoted_len(text, '\''), Kind::Literal);
    }
    (first.len_utf8(), Kind::Code)
}

/// The length of a literal with escapes, its quotes included.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if character == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    text.len()
}

/// The texts between quotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn is_metric(name: &str) -> bool {
    let (start, _) = name.split_once('_').unwrap_or_default();
    ["mcp", "process"].contains(&start) && name.chars().all(is_word)
}

/// The events of the log lines that code writes.
fn events(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for call in [".event(", ".record(", ".say("] {
        for (at, _) in text.match_indices(call) {
            let behind = text.split_at(at + call.len()).1.trim_start();
            let name = behind.strip_prefix('"').and_then(|name| name.split_once('"'));
            found.extend(name.map(|(name, _)| name.to_owned()));
        }
    }
    for (at, call) in text.match_indices("Line::new(") {
        let statement = text.split_at(at + call.len()).1.split(';').next().unwrap_or_default();
        found.extend(quoted(statement).into_iter().next());
    }
    found
}

/// The files that a document links to.
fn links(document: &str) -> Vec<String> {
    let targets = document.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|link| !link.is_empty() && !link.contains("://")).map(str::to_owned).collect()
}

// The canaries.

/// A guard must complain of each of these, and of nothing else.
#[test]
fn every_guard_bites() {
    let long = format!("//! A file.\n// {}", "word ".repeat(20));
    let large = format!("//! A file.\n{}", "fn f() {}\n".repeat(FILE_LINES_MAX + 1));
    let cases: &[(Guard, &str, &str)] = &[
        (layers, "src/frontend/http.rs", "use crate::session::Session;"),
        (layers, "src/frontend/http.rs", "use super::super::shard::Shard;"),
        (layers, "src/limits.rs", "use super::shard::Shard;"),
        (layers, "src/ids.rs", "use crate::{table::{self, Key}, shard};"),
        (layers, "src/era/mod.rs", "fn f() { crate::telemetry::log::f(); crate::backend::f() }"),
        (layers, "wire/src/json/mod.rs", "use crate::rpc::Id;"),
        (blindness, "src/driver/conn.rs", "use crate::session::Session;"),
        (blindness, "src/demo/mod.rs", "use crate::limits;"),
        (purity, "src/shard/clock.rs", "let now = Instant::now();"),
        (purity, "src/shard/clock.rs", "use std::{fs, thread};"),
        (purity, "src/upstream/mod.rs", "pub async fn pick() {}"),
        (purity, "src/table.rs", "static TABLE: Mutex<u8> = Mutex::new(0);"),
        (libraries, "src/shard/mod.rs", "use tokio::sync::Notify;"),
        (libraries, "src/driver/conn.rs", "let head = wire::http1::request(bytes);"),
        (safety, "src/shard/mod.rs", "unsafe { f() }"),
        (safety, "src/shard/mod.rs", "#![expect(unsafe_code, reason = \"speed\")]"),
        (sizes, "src/shard/mod.rs", &long),
        (sizes, "src/shard/mod.rs", &large),
        (header, "src/shard/mod.rs", "use std::io;"),
        (leftovers, "src/shard/mod.rs", concat!("// TO", "DO: later")),
        (leftovers, "src/shard/mod.rs", "fn f() { todo!() }"),
        (leftovers, "src/shard/mod.rs", "#[expect(clippy::too_many_lines, reason = \"\")]"),
        (leftovers, "src/shard/mod.rs", "#[test]\n#[ignore]\nfn f() {}"),
    ];
    for (guard, path, text) in cases {
        let complaints = guard(&Source::new(path, (*text).to_owned()));
        assert_eq!(complaints.len(), 1, "{path}: {text}: {complaints:?}");
    }
}

/// And it must let these pass.
#[test]
fn no_guard_bites_the_wrong_one() {
    let data = format!("//! A file.\nconst IMAGE: &str = \"{}\";", "A".repeat(200));
    let cases: &[(Guard, &str, &str)] = &[
        (layers, "src/shard/mod.rs", "use crate::{ids, session::Session};"),
        (layers, "src/shard/mod.rs", "use crate::shard::event::Event; // Not crate::driver."),
        (layers, "src/session/id.rs", "use super::backend; fn f() { super::super::limits::f() }"),
        (layers, "src/bin/mcp-gateway.rs", "use mcp_bridge::control;"),
        (blindness, "src/driver/conn.rs", "use crate::shard::event::Event;"),
        (purity, "src/driver/drive.rs", "let now = Instant::now();"),
        (purity, "src/timers.rs", "#[cfg(test)]\nmod tests {\n let now = Instant::now();\n}"),
        (purity, "src/shard/mod.rs", "let text = \"Instant::now()\"; // std::fs"),
        (libraries, "src/driver/conn.rs", "use monoio::net::TcpStream;"),
        (safety, "src/control/sys.rs", "unsafe { f() }"),
        (safety, "wire/src/lib.rs", "#![forbid(unsafe_code)] fn is_unsafe() {}"),
        (sizes, "src/demo/samples.rs", &data),
        (header, "src/shard/mod.rs", "//! One core."),
        (leftovers, "src/shard/mod.rs", "let method = \"todo!\";"),
    ];
    for (guard, path, text) in cases {
        let complaints = guard(&Source::new(path, (*text).to_owned()));
        assert!(complaints.is_empty(), "{path}: {text}: {complaints:?}");
    }
}

#[test]
fn rust_comes_apart_at_its_seams() {
    let text = r##"let a = 'x'; // one "two"
let b = r#"three // "four""#; /* five
six */ let c = "\"//"; fn f<'a>(x: &'a str) -> char { '\'' }"##;
    let (code, comments) = take_apart(text);
    let want =
        "let a = \"\"; \nlet b = \"\"; \n let c = \"\"; fn f<'a>(x: &'a str) -> char { \"\" }";
    assert_eq!(code, want);
    assert_eq!(comments, "// one \"two\"\n/* five\nsix */\n");
}

#[test]
fn documents_are_held_to_the_code() {
    let modules = modules("pub mod limits;\nmod shard;\n#[cfg(test)]\nmod tests;\n");
    assert_eq!(modules, ["limits", "shard"]);
    assert_eq!(missing(&modules, "`limits` is near limits and shard."), ["shard"]);
    assert_eq!(constants("pub const A: u8 = 1;\nconst B: u8 = A;\n"), ["A"]);
    assert_eq!(links("[a](b.md#c) [d](https://e) [f](#g) [h](i/j.md)"), ["b.md", "i/j.md"]);
    let code =
        "log.event(\"a\", f); self.record(\n    \"b\", now); Line::new(out, format, now, \"c\")";
    assert_eq!(events(code), ["a", "b", "c"]);
    assert!(is_metric("mcp_shards") && !is_metric("mcp-gateway") && !is_metric("mcp shards_x"));
}
