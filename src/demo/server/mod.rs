//! The one owner of all state: events in, lines out, workers for what takes time.

mod calls;
mod tasks;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::SyncSender;

use serde_json::{Map, Value, json};

use super::legacy::{self, Session, Topic};
use super::message::{
    Fault, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, Incoming, RequestId, encode_fault,
    encode_notification, encode_reply, encode_tagged,
};
use super::modern::{self, Listen};
use super::step::{Callee, Change, Era, Level, World, text_result};
use super::worker::{Event, JobId};
use super::{prompts, resources, tools};
use calls::{Job, Owner};
use tasks::{Task, TaskId};

pub(super) use calls::step;

/// Open subscriptions at one time.
const LISTENS_MAX: usize = 64;

/// The server; feed it every [`Event`] until it breaks off.
pub(super) struct Server {
    lines: SyncSender<String>,
    /// Handed to workers.
    events: SyncSender<Event>,
    /// Nobody reads our lines any more.
    deaf: bool,
    world: World,
    session: Option<Session>,
    listens: Vec<Listen>,
    jobs: BTreeMap<JobId, Job>,
    jobs_started: u64,
    /// Our requests the client has not answered, and the job that waits.
    asks: BTreeMap<u64, JobId>,
    asks_sent: u64,
    tasks: BTreeMap<TaskId, Task>,
}

/// The request a reply belongs to.
#[derive(Clone)]
struct Origin {
    id: RequestId,
    method: String,
    era: Era,
    progress_token: Option<Value>,
    /// What a modern request allows; a session has its own level.
    log_level: Option<Level>,
}

impl Server {
    pub(super) fn new(lines: SyncSender<String>, events: SyncSender<Event>) -> Self {
        Self {
            lines,
            events,
            deaf: false,
            world: World::default(),
            session: None,
            listens: Vec::new(),
            jobs: BTreeMap::new(),
            jobs_started: 0,
            asks: BTreeMap::new(),
            asks_sent: 0,
            tasks: BTreeMap::new(),
        }
    }

    /// Takes one event in; breaks when there is no more to do.
    pub(super) fn handle(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Received { line } => match Incoming::decode(&line) {
                Incoming::Request { id, method, params } => self.request(id, method, &params),
                Incoming::Notification { method, subject } => {
                    if let ("notifications/cancelled", Some(id)) = (method.as_str(), subject) {
                        self.cancel(&id);
                    }
                }
                Incoming::Response { ask, outcome } => self.answered(ask, outcome),
                Incoming::Malformed { id, fault } => self.send(encode_fault(id.as_ref(), &fault)),
            },
            Event::Overrun => {
                self.send(encode_fault(None, &Fault::new(INVALID_REQUEST, "line too long")));
            }
            Event::Closed => {
                self.close();
                return ControlFlow::Break(());
            }
            Event::Noted { job, note } => {
                if let Some(owner) = self.jobs.get(&job).map(|job| job.owner.clone()) {
                    self.note(&owner, note);
                }
            }
            Event::Asked { job, question } => self.ask(job, &question),
            Event::Finished { job, next } => {
                // A cancelled job is no longer there: it gets no reply.
                if let Some(owner) = self.forget(job) {
                    self.conclude(&owner, None, next);
                }
            }
        }
        if self.deaf { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn request(&mut self, id: RequestId, method: String, params: &Map<String, Value>) {
        let (era, capabilities, log_level) = match self.classify(&method, params) {
            Ok(classified) => classified,
            Err(fault) => return self.send(encode_fault(Some(&id), &fault)),
        };
        let token = params.get("_meta").and_then(|meta| meta.get("progressToken"));
        let progress_token = token.filter(|token| token.is_string() || token.is_number()).cloned();
        let origin = Origin { id, method, era, progress_token, log_level };
        match (era, origin.method.as_str()) {
            (_, "tools/call") => self.call(origin, Callee::Tool, params, capabilities),
            (_, "prompts/get") => self.call(origin, Callee::Prompt, params, capabilities),
            (Era::Modern, "subscriptions/listen") => self.listen(origin.id, params),
            _ => match self.answer(era, &origin.method, params, &capabilities) {
                Ok(result) => self.reply(&origin, result),
                Err(fault) => self.send(encode_fault(Some(&origin.id), &fault)),
            },
        }
    }

    /// The era of a request, and what its client can do and wants to hear.
    fn classify(
        &self,
        method: &str,
        params: &Map<String, Value>,
    ) -> Result<(Era, Value, Option<Level>), Fault> {
        let only_modern = matches!(method, "server/discover" | "subscriptions/listen");
        if modern::is_modern(params) || only_modern {
            let meta = modern::check(params)?;
            return Ok((Era::Modern, meta.capabilities, meta.log_level));
        }
        match &self.session {
            Some(session) => Ok((Era::Legacy, session.capabilities.clone(), None)),
            None if matches!(method, "initialize" | "ping") => Ok((Era::Legacy, json!({}), None)),
            // Outside a session only modern requests are served, and this one is malformed.
            None => modern::check(params).and(Err(legacy::method_not_found(method))),
        }
    }

    /// Answers what needs neither a worker nor the client.
    fn answer(
        &mut self,
        era: Era,
        method: &str,
        params: &Map<String, Value>,
        capabilities: &Value,
    ) -> Result<Value, Fault> {
        let unknown_cursor = || Fault::new(INVALID_PARAMS, "unknown cursor");
        // Of these we list everything on one page, so no cursor is one of ours.
        let cursor = params.get("cursor");
        Ok(match (era, method) {
            (_, "tools/list" | "prompts/list" | "resources/templates/list") if cursor.is_some() => {
                return Err(unknown_cursor());
            }
            (_, "tools/list") => json!({ "tools": tools::list(&self.world) }),
            (_, "prompts/list") => json!({ "prompts": prompts::list(&self.world) }),
            (_, "resources/list") => resources::page(cursor).ok_or_else(unknown_cursor)?,
            (_, "resources/templates/list") => {
                json!({ "resourceTemplates": resources::templates() })
            }
            (_, "resources/read") => {
                let uri = legacy::uri(params)?;
                let code = match era {
                    Era::Legacy => legacy::RESOURCE_NOT_FOUND,
                    Era::Modern => INVALID_PARAMS,
                };
                let contents = resources::read(uri, &self.world);
                let contents = contents.ok_or_else(|| legacy::resource_not_found(code, uri))?;
                json!({ "contents": contents })
            }
            (_, "completion/complete") => {
                let part = |name: &str| params.get(name).cloned().unwrap_or_default();
                prompts::complete(&part("ref"), &part("argument"), &self.world)?
            }
            (Era::Modern, "server/discover") => modern::discover(),
            (Era::Legacy, "ping") => json!({}),
            (Era::Legacy, "initialize") => {
                let session = Session::open(params)?;
                let greeting = session.greeting();
                self.session = Some(session);
                greeting
            }
            (Era::Legacy, _) => match &mut self.session {
                Some(session) => session.answer(method, params, &self.world)?,
                None => return Err(legacy::method_not_found(method)),
            },
            (Era::Modern, _) => self.answer_task(method, params, capabilities)?,
        })
    }

    fn change(&mut self, change: Change) -> Value {
        let (topic, text) = match change {
            Change::Bump => {
                self.world.counter = self.world.counter.wrapping_add(1);
                (Topic::Resource(resources::COUNTER), format!("{}", self.world.counter))
            }
            Change::ToggleTool => {
                self.world.extra_tool = !self.world.extra_tool;
                (Topic::Tools, format!("Extra tool listed: {}", self.world.extra_tool))
            }
            Change::TogglePrompt => {
                self.world.extra_prompt = !self.world.extra_prompt;
                (Topic::Prompts, format!("Extra prompt listed: {}", self.world.extra_prompt))
            }
        };
        self.publish(topic);
        text_result(text)
    }

    /// Tells everybody who wants to know that `topic` has changed.
    fn publish(&mut self, topic: Topic) {
        let params = topic.params();
        let mut lines = Vec::new();
        if self.session.as_ref().is_some_and(|session| session.wants(topic)) {
            let params = Value::Object(params.clone());
            lines.push(encode_notification(topic.method(), &params));
        }
        let listens = self.listens.iter().filter(|listen| listen.wants(topic));
        lines.extend(listens.map(|listen| encode_tagged(topic.method(), &listen.id, &params)));
        for line in lines {
            self.send(line);
        }
    }

    fn listen(&mut self, id: RequestId, params: &Map<String, Value>) {
        let opened = if self.listens.len() < LISTENS_MAX {
            Listen::open(id.clone(), params, &self.world)
        } else {
            Err(Fault::new(INTERNAL_ERROR, "too many subscriptions"))
        };
        match opened {
            Ok(listen) => {
                let method = "notifications/subscriptions/acknowledged";
                self.send(encode_tagged(method, &id, &listen.acknowledgement()));
                self.listens.push(listen);
            }
            Err(fault) => self.send(encode_fault(Some(&id), &fault)),
        }
    }

    /// Stops the request of that id, whatever it is; it gets no reply.
    fn cancel(&mut self, id: &RequestId) {
        self.listens.retain(|listen| listen.id != *id);
        self.stop(|owner| matches!(owner, Owner::Request(origin) if origin.id == *id));
    }

    /// Ends what is open. Running calls are abandoned with their channels.
    fn close(&mut self) {
        for listen in std::mem::take(&mut self.listens) {
            self.send(listen.farewell());
        }
        self.jobs.clear();
    }

    fn reply(&mut self, origin: &Origin, mut result: Value) {
        if origin.era == Era::Modern {
            modern::stamp(&origin.method, &mut result);
        }
        self.send(encode_reply(&origin.id, &result));
    }

    fn send(&mut self, line: String) {
        self.deaf |= self.lines.send(line).is_err();
    }

    /// The mildest log message the client of a request wants.
    fn log_level(&self, origin: &Origin) -> Option<Level> {
        match origin.era {
            Era::Legacy => self.session.as_ref().map(|session| session.log_level),
            Era::Modern => origin.log_level,
        }
    }
}
