//! Servers that are child processes: one strict line of JSON-RPC per message, both ways.

use std::collections::VecDeque;
use std::time::Duration;

use wire::rpc::{self, Envelope, Kind};

use crate::ids::ProcessId;
use crate::tests::sim::check::{Check, Do, LIMITS, Tag};
use crate::tests::sim::job::{Job, Jobs, Place, Step, error, script, welcome};
use crate::tests::sim::net::{End, LinkId, Net, Task};
use crate::tests::sim::union::{NOBODY, capabilities, own_result, own_steps};

#[derive(Debug)]
pub(super) struct Process {
    pub(super) shard: usize,
    pub(super) id: ProcessId,
    pub(super) link: LinkId,
    pub(super) is_alive: bool,
    /// The shard was told of its end.
    pub(super) is_reaped: bool,
    /// Whether sessions share it.
    is_shared: bool,
    line: Vec<u8>,
    /// The only session of a process that is not shared.
    owner: Option<(usize, usize)>,
    initializes: u32,
    is_modern: bool,
    /// What it asked and was not told.
    questions: Vec<String>,
    /// It ignores the end of its input and has to be killed.
    is_stubborn: bool,
}

/// All child processes.
#[derive(Debug, Default)]
pub(super) struct Stdio {
    pub(super) list: Vec<Process>,
    /// What a server says to `server/discover`: it knows it, refuses it, or is silent.
    pub(super) modern: u64,
}

/// The parts of a world that a server works with.
pub(super) struct Tools<'a> {
    pub(super) net: &'a mut Net,
    pub(super) check: &'a mut Check,
    pub(super) jobs: &'a mut Jobs,
}

/// Ids of servers' questions: the same for all of them.
const QUESTIONS: [&str; 5] = ["1", "\"q\"", "0", "-7", "9007199254740993"];

impl Stdio {
    pub(super) fn start(
        &mut self,
        (shard, id): (usize, ProcessId),
        is_shared: bool,
        link: LinkId,
        tools: &mut Tools<'_>,
    ) {
        self.list.push(Process {
            shard,
            id,
            link,
            is_alive: true,
            is_reaped: false,
            is_shared,
            line: Vec::new(),
            owner: None,
            initializes: 0,
            is_modern: false,
            questions: Vec::new(),
            is_stubborn: tools.check.faults.hang && tools.net.random.chance(20),
        });
    }

    pub(super) fn find(&self, shard: usize, id: ProcessId) -> Option<usize> {
        self.list.iter().position(|process| process.shard == shard && process.id == id)
    }

    /// Its input brought bytes, or ended.
    pub(super) fn received(
        &mut self,
        process: usize,
        bytes: Result<Vec<u8>, End>,
        tools: &mut Tools<'_>,
    ) {
        let entry = &mut self.list[process];
        if !entry.is_alive {
            return;
        }
        let Ok(bytes) = bytes else {
            if !entry.is_stubborn {
                let delay = tools.net.random.millis(500);
                tools.net.after(delay, Task::Exit { process, how: "exit status 0" });
            }
            return;
        };
        entry.line.extend_from_slice(&bytes);
        let gathered = std::mem::take(&mut entry.line);
        let mut rest = &*gathered;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.line(process, &rest[..end], tools);
            rest = &rest[end + 1..];
        }
        self.list[process].line = rest.to_vec();
    }

    fn line(&mut self, process: usize, line: &[u8], tools: &mut Tools<'_>) {
        let text = || String::from_utf8_lossy(line).into_owned();
        tools.net.note(|| format!("process {process} reads {}", short(&text())));
        let envelope = match rpc::scan(line, LIMITS) {
            Ok(envelope) if !envelope.has_line_breaks => envelope,
            other => {
                return tools.check.violation(format!("a process read {}: {other:?}", text()));
            }
        };
        self.check_owner(process, line, tools);
        match envelope.kind {
            Kind::Request => self.request(process, line, &envelope, tools),
            Kind::Notification => self.notification(process, line, &envelope, tools),
            Kind::Response | Kind::ErrorResponse => {
                self.response(process, line, &envelope, tools);
            }
        }
    }

    /// A process of one session sees that session only.
    fn check_owner(&mut self, process: usize, line: &[u8], tools: &mut Tools<'_>) {
        let entry = &mut self.list[process];
        if entry.is_shared || entry.is_modern {
            return;
        }
        for tag in Tag::all(line) {
            let owner = *entry.owner.get_or_insert((tag.client, tag.session));
            if owner != (tag.client, tag.session) {
                tools.check.violation(format!("process {process} of {owner:?} saw {tag:?}"));
            }
        }
    }

    fn request(&mut self, process: usize, line: &[u8], envelope: &Envelope, tools: &mut Tools<'_>) {
        let id = raw(envelope.id, line);
        let method = envelope.method.map(|it| it.decode(line).into_owned()).unwrap_or_default();
        let entry = &mut self.list[process];
        match &*method {
            b"initialize" => {
                entry.initializes += 1;
                if 1 < entry.initializes {
                    tools.check.violation(format!("process {process} was initialized twice"));
                }
                let version = envelope.protocol_version.map(|it| it.decode(line).into_owned());
                let version = String::from_utf8(version.unwrap_or_default()).unwrap();
                let capabilities = capabilities(tools.check, !entry.is_shared);
                self.say(process, &welcome(&id, &version, capabilities), tools);
            }
            b"server/discover" => {
                entry.is_modern = true;
                match self.modern {
                    0 => {
                        let result = own_result(&method, None, tools.check);
                        let result = result.unwrap_or_else(|| "{}".to_owned());
                        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
                        self.say(process, &text, tools);
                    }
                    1 => self.say(process, &error(&id, "what?"), tools),
                    _ => {}
                }
            }
            b"logging/setLevel" => {
                self.say(
                    process,
                    &format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#),
                    tools,
                );
            }
            // The gateway's own, to learn which arguments are mirrored in headers.
            b"tools/list"
                if entry.is_modern && Tag::all(line).is_empty() && tools.check.view.is_none() =>
            {
                let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"tools":[]}}}}"#);
                self.say(process, &text, tools);
            }
            _ => {
                if entry.initializes == 0 && !entry.is_modern {
                    tools.check.violation(format!("process {process} was not initialized"));
                }
                let token = envelope.progress_token.map(|token| raw(Some(token), line));
                let Some(job) = job(line, envelope, Place::Process(process), tools) else { return };
                tools.jobs.begin(Job { token, ..job }, tools.net);
            }
        }
    }

    fn notification(
        &mut self,
        process: usize,
        line: &[u8],
        envelope: &Envelope,
        tools: &mut Tools<'_>,
    ) {
        if !envelope.method.is_some_and(|it| it.eq(line, "notifications/cancelled")) {
            return;
        }
        let id = raw(envelope.request_id, line);
        let is_there = |place: &Place| matches!(place, Place::Process(it) if *it == process);
        if let Some(job) = tools.jobs.find(&id, is_there) {
            tools.jobs.list[job].is_over = true;
            tools.check.withdrawn(tools.jobs.list[job].tag);
        }
    }

    fn response(
        &mut self,
        process: usize,
        line: &[u8],
        envelope: &Envelope,
        tools: &mut Tools<'_>,
    ) {
        let id = raw(envelope.id, line);
        let questions = &mut self.list[process].questions;
        let Some(index) = questions.iter().position(|question| *question == id) else {
            return tools.check.violation(format!("process {process} did not ask {id}"));
        };
        questions.swap_remove(index);
        let is_there = |place: &Place| matches!(place, Place::Process(it) if *it == process);
        let job = tools.jobs.asker(&id, is_there);
        answered(job, line, envelope, tools);
    }

    /// The next step of a job.
    pub(super) fn step(&mut self, process: usize, job: usize, step: Step, tools: &mut Tools<'_>) {
        if !self.list[process].is_alive {
            return;
        }
        let is_own = !self.list[process].is_shared && !self.list[process].is_modern;
        let is_modern = self.list[process].is_modern;
        let entry = &mut tools.jobs.list[job];
        let text = match step {
            Step::Progress(padding) => entry.progress(padding),
            Step::Log if is_modern => None,
            Step::Log => Some(entry.log(is_own)),
            Step::Changed => Some(entry.changed("notifications/tools/list_changed")),
            Step::Acknowledge => Some(entry.changed("notifications/subscriptions/acknowledged")),
            Step::Ask => {
                let questions = &mut self.list[process].questions;
                let free = QUESTIONS.iter().find(|id| !questions.iter().any(|it| it == *id));
                free.filter(|_| !is_modern).map(|free| {
                    questions.push((*free).to_owned());
                    entry.ask((*free).to_owned())
                })
            }
            Step::Garbage => Some("not { json, at all".to_owned()),
            Step::Answer(padding) => {
                entry.is_over = true;
                Some(entry.answer(padding))
            }
            Step::Die => return self.exit(process, "signal 11", tools),
            Step::Cut | Step::Forget => None,
        };
        if let Some(text) = text {
            self.say(process, &text, tools);
        }
    }

    fn say(&mut self, process: usize, text: &str, tools: &mut Tools<'_>) {
        tools.net.note(|| format!("process {process} writes {}", short(text)));
        let mut line = text.as_bytes().to_vec();
        line.push(b'\n');
        tools.net.write(self.list[process].link, &line);
    }

    /// The process ends; whatever it had begun is over.
    pub(super) fn exit(&mut self, process: usize, how: &'static str, tools: &mut Tools<'_>) {
        let entry = &mut self.list[process];
        if !std::mem::replace(&mut entry.is_alive, false) {
            return;
        }
        tools.net.hang_up(entry.link, End::Closed);
        for job in &mut tools.jobs.list {
            job.is_over |= matches!(job.place, Place::Process(it) if it == process);
        }
        let delay = tools.net.random.millis(200);
        tools.net.after(delay + Duration::from_millis(1), Task::Exit { process, how });
    }
}

/// The job that a call is, if it is one.
pub(super) fn job(
    bytes: &[u8],
    envelope: &Envelope,
    place: Place,
    tools: &mut Tools<'_>,
) -> Option<Job> {
    let method = envelope.method.map(|it| it.decode(bytes).into_owned()).unwrap_or_default();
    let what = match &*method {
        b"tools/list" | b"server/discover" => Do::List,
        b"subscriptions/listen" => Do::Listen,
        b"tasks/get" => Do::Task,
        b"tools/call" => {
            Do::parse(&envelope.name.map(|it| it.decode(bytes).into_owned()).unwrap_or_default())?
        }
        _ => {
            let method = String::from_utf8_lossy(&method);
            tools.check.violation(format!("a server was asked for {method}"));
            return None;
        }
    };
    let cursor = envelope.cursor.map(|it| it.decode(bytes).into_owned());
    let tag = Tag::all(bytes).first().copied();
    let own = tag.is_none().then(|| own_result(&method, cursor.as_deref(), tools.check)).flatten();
    let Some(tag) = tag.or(own.as_ref().map(|_| NOBODY)) else {
        tools.check.violation("a server got a call without a tag".to_owned());
        return None;
    };
    if own.is_none() {
        tools.check.delivered(tag, what == Do::List);
    }
    let steps = match own {
        Some(_) => own_steps(tools.net, tools.check.faults),
        None => script(what, tools.net),
    };
    Some(Job {
        tag,
        what,
        id: raw(envelope.id, bytes),
        token: envelope.progress_token.map(|token| raw(Some(token), bytes)),
        steps,
        progress: 0,
        question: None,
        // It does not know every task.
        was_refused: what == Do::Task && tools.net.random.chance(50),
        is_over: false,
        place,
        own,
    })
}

/// A client answered a question, or the gateway did in its place.
pub(super) fn answered(
    job: Option<usize>,
    bytes: &[u8],
    envelope: &Envelope,
    tools: &mut Tools<'_>,
) {
    let Some(job) = job else { return };
    let entry = &mut tools.jobs.list[job];
    let own = entry.tag;
    for tag in Tag::all(bytes) {
        if (tag.client, tag.session) != (own.client, own.session) {
            tools.check.violation(format!("the question of {own:?} was answered by {tag:?}"));
        }
    }
    entry.question = None;
    entry.was_refused = envelope.kind == Kind::ErrorResponse;
    tools.jobs.schedule(job, tools.net);
}

pub(super) fn raw(span: Option<wire::json::Span>, bytes: &[u8]) -> String {
    let bytes = span.map(|span| span.get(bytes)).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn short(text: &str) -> String {
    text.chars().take(240).collect()
}

/// The steps that are left of a job.
pub(super) fn take_step(job: usize, jobs: &mut Jobs) -> Option<Step> {
    let entry = &mut jobs.list[job];
    let steps: &mut VecDeque<(u64, Step)> = &mut entry.steps;
    if entry.is_over && steps.front().is_none_or(|(_, step)| *step != Step::Forget) {
        return None;
    }
    steps.pop_front().map(|(_, step)| step)
}
