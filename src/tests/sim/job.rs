//! What servers do with a call, one step after the other, and the messages they say it with.

use std::collections::VecDeque;
use std::time::Duration;

use crate::tests::sim::check::{Do, Tag};
use crate::tests::sim::net::{LinkId, Net, Task};

/// One thing that a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Progress(usize),
    Log,
    Changed,
    Ask,
    Garbage,
    /// With so many bytes of padding.
    Answer(usize),
    Die,
    Cut,
    Forget,
    Acknowledge,
}

/// Where a job's messages go.
#[derive(Debug)]
pub(super) enum Place {
    Process(usize),
    Http(Stream),
}

/// The answer to a POST.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) server: usize,
    /// The server's session.
    pub(super) session: Option<String>,
    /// Who listens now.
    pub(super) link: Option<LinkId>,
    pub(super) is_events: bool,
    pub(super) is_modern: bool,
    /// Whether its events have ids and it can be resumed.
    pub(super) has_ids: bool,
    pub(super) events: Vec<String>,
}

/// One call at a server.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) tag: Tag,
    pub(super) what: Do,
    /// Raw JSON.
    pub(super) id: String,
    pub(super) token: Option<String>,
    pub(super) steps: VecDeque<(u64, Step)>,
    pub(super) progress: u32,
    /// The question that it waits for.
    pub(super) question: Option<String>,
    pub(super) was_refused: bool,
    pub(super) is_over: bool,
    pub(super) place: Place,
    /// The result of a request of the gateway's own.
    pub(super) own: Option<String>,
}

/// All jobs of all servers.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub(super) list: Vec<Job>,
}

impl Jobs {
    /// Begins a job; its first step is scheduled.
    pub(super) fn begin(&mut self, job: Job, net: &mut Net) -> usize {
        self.list.push(job);
        let index = self.list.len() - 1;
        self.schedule(index, net);
        index
    }

    /// Lets the next step of a job happen after its delay.
    pub(super) fn schedule(&mut self, job: usize, net: &mut Net) {
        if let Some((delay, _)) = self.list[job].steps.front() {
            net.after(Duration::from_millis(*delay), Task::Job { job });
        }
    }

    /// The unfinished job of that place with that id.
    pub(super) fn find(&self, id: &str, is_there: impl Fn(&Place) -> bool) -> Option<usize> {
        self.list.iter().rposition(|job| !job.is_over && job.id == id && is_there(&job.place))
    }

    /// The job that asked this.
    pub(super) fn asker(&self, id: &str, is_there: impl Fn(&Place) -> bool) -> Option<usize> {
        let is_it = |job: &Job| job.question.as_deref() == Some(id) && is_there(&job.place);
        self.list.iter().rposition(is_it)
    }
}

/// The steps of a call.
pub(super) fn script(what: Do, net: &mut Net) -> VecDeque<(u64, Step)> {
    let random = &mut net.random;
    let some = random.below(400);
    let padding = if random.chance(20) { random.between(0, 3000) } else { 0 };
    let steps = match what {
        Do::Init | Do::List | Do::Echo | Do::Error | Do::Union | Do::Discover | Do::Task => {
            vec![(some, Step::Answer(padding))]
        }
        Do::Progress => vec![
            (some, Step::Progress(0)),
            (some * 3, Step::Progress(padding)),
            (random.below(12_000), Step::Answer(padding)),
        ],
        Do::Ask => vec![(some, Step::Ask), (some, Step::Answer(0))],
        Do::Hang => Vec::new(),
        Do::Big => vec![(some, Step::Answer(random.between(60_000, 700_000)))],
        Do::Flood => {
            let size = random.between(100_000, 400_000);
            vec![(some, Step::Progress(size)), (0, Step::Progress(10)), (0, Step::Answer(size))]
        }
        Do::Trickle => {
            let mut steps = vec![(40, Step::Progress(random.between(20_000, 60_000))); 12];
            steps.push((40, Step::Answer(0)));
            steps
        }
        Do::Die => vec![(some, Step::Die)],
        Do::Garbage => vec![(some, Step::Garbage), (some, Step::Answer(0))],
        Do::Log => vec![(some, Step::Log), (some, Step::Changed), (some, Step::Answer(0))],
        Do::Cut => vec![
            (some, Step::Progress(0)),
            (some, Step::Cut),
            (some * 2, Step::Progress(0)),
            (some, Step::Cut),
            (some * 20, Step::Answer(padding)),
        ],
        Do::Forget => vec![(some, Step::Answer(0)), (some, Step::Forget)],
        Do::Listen => {
            vec![(some, Step::Acknowledge), (20_000, Step::Changed), (20_000, Step::Changed)]
        }
    };
    steps.into()
}

impl Job {
    pub(super) fn answer(&self, padding: usize) -> String {
        let (id, tag) = (&self.id, self.tag.text());
        match self.what {
            _ if self.own.is_some() => {
                let result = self.own.as_deref().unwrap_or_default();
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
            }
            _ if self.was_refused => error(id, &format!("could not ask {tag}")),
            Do::Error => error(id, &tag),
            Do::List => {
                format!(r#"{{"result":{{"tools":[],"x":"{tag}"}},"jsonrpc":"2.0","id":{id}}}"#)
            }
            _ => format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","content":[{{"type":"text","text":"{tag}{}"}}]}}}}"#,
                "x".repeat(padding)
            ),
        }
    }

    pub(super) fn progress(&mut self, padding: usize) -> Option<String> {
        self.progress += 1;
        let (count, tag) = (self.progress, self.tag.text());
        let token = self.token.as_deref()?;
        Some(format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progress":{count},"message":"{tag}{}","progressToken":{token}}}}}"#,
            "p".repeat(padding)
        ))
    }

    /// A question for the client, under an id that others use too.
    pub(super) fn ask(&mut self, question: String) -> String {
        let tag = self.tag.text();
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{question},"method":"elicitation/create","params":{{"message":"{tag}","requestedSchema":{{}}}}}}"#
        );
        self.question = Some(question);
        text
    }

    pub(super) fn log(&self, with_tag: bool) -> String {
        let tag = if with_tag { self.tag.text() } else { String::new() };
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","data":"{tag}"}}}}"#
        )
    }

    /// A list has changed, or whatever a subscription brings.
    pub(super) fn changed(&self, method: &str) -> String {
        if self.what == Do::Listen {
            return format!(
                r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{}}},"x":"{}"}}}}"#,
                self.id,
                self.tag.text()
            );
        }
        format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#)
    }
}

pub(super) fn error(id: &str, text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32001,"message":"{text}"}}}}"#)
}

/// The answer to `initialize`, in the revision that was asked for.
pub(super) fn welcome(id: &str, version: &str, capabilities: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"{version}","capabilities":{capabilities},"serverInfo":{{"name":"sim","version":"1"}}}}}}"#
    )
}
