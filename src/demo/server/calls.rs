//! Calls of tools and prompts: what a [`Next`] means for the request or task
//! that it belongs to, and the workers behind the slow ones.

use std::sync::mpsc::{self, Sender};
use std::thread;

use serde_json::{Map, Value, json};

use super::tasks::TaskId;
use super::{Origin, Server};
use crate::demo::legacy;
use crate::demo::message::{
    Fault, INTERNAL_ERROR, INVALID_PARAMS, encode_fault, encode_notification, encode_request,
};
use crate::demo::step::{Call, Callee, Era, Next, Note, Question, Script, Step, error_result};
use crate::demo::worker::{JobId, Signal, Worker};
use crate::demo::{modern, prompts, tools};

/// Slow calls at one time; each has a thread.
const JOBS_MAX: usize = 64;
/// A worker only sleeps, sends and runs shallow code.
const WORKER_STACK_LEN: usize = 256 * 1024;

/// A call that a worker is busy with.
pub(super) struct Job {
    pub(super) owner: Owner,
    pub(super) signals: Sender<Signal>,
}

/// Who gets what a call comes to.
#[derive(Clone)]
pub(super) enum Owner {
    Request(Origin),
    Task(TaskId),
}

enum Work {
    Play(Script),
    Interview(Call, Next),
}

/// Runs one step of whatever is called.
pub(in crate::demo) fn step(call: &Call) -> Step {
    match call.callee {
        Callee::Tool => tools::step(call),
        Callee::Prompt => prompts::step(call),
    }
}

impl Server {
    /// Serves a `tools/call` or `prompts/get`.
    pub(super) fn call(
        &mut self,
        origin: Origin,
        callee: Callee,
        params: &Map<String, Value>,
        capabilities: Value,
    ) {
        match self.read_call(&origin, callee, params, capabilities) {
            Ok(call) => self.run(&Owner::Request(origin), call),
            Err(fault) => self.send(encode_fault(Some(&origin.id), &fault)),
        }
    }

    /// Runs one step of a call.
    pub(super) fn run(&mut self, owner: &Owner, call: Call) {
        let step = step(&call);
        for note in step.notes {
            self.note(owner, note);
        }
        self.conclude(owner, Some(call), step.next);
    }

    fn read_call(
        &self,
        origin: &Origin,
        callee: Callee,
        params: &Map<String, Value>,
        capabilities: Value,
    ) -> Result<Call, Fault> {
        let object = |name: &str| match params.get(name) {
            None => Ok(Map::new()),
            Some(Value::Object(object)) => Ok(object.clone()),
            Some(_) => Err(Fault::new(INVALID_PARAMS, format!("{name} must be an object"))),
        };
        let Some(name) = params.get("name").and_then(Value::as_str) else {
            return Err(Fault::new(INVALID_PARAMS, "name must be a string"));
        };
        let state = match (origin.era, params.get("requestState")) {
            (Era::Modern, Some(state)) => {
                Some(modern::open(name, state.as_str().unwrap_or_default())?)
            }
            _ => None,
        };
        let answers = match origin.era {
            Era::Modern => object("inputResponses")?,
            Era::Legacy => Map::new(),
        };
        Ok(Call {
            callee,
            name: name.to_owned(),
            arguments: object("arguments")?,
            capabilities,
            answers,
            state,
            log_level: self.log_level(origin),
            world: self.world,
        })
    }

    /// Does what a call came to; `call` is there as long as no worker has it.
    pub(super) fn conclude(&mut self, owner: &Owner, call: Option<Call>, next: Next) {
        match next {
            Next::Done(result) => self.settle(owner, Ok(result)),
            Next::Fail(fault) => self.settle(owner, Err(fault)),
            Next::Change(change) => {
                let result = self.change(change);
                self.settle(owner, Ok(result));
            }
            Next::Require(capabilities) => self.require(owner, capabilities),
            Next::Play(script) => self.start(owner, Work::Play(script)),
            Next::Ask { questions, state } => match call {
                Some(call) => self.inquire(owner, call, questions, state),
                None => {
                    let fault = Fault::new(INTERNAL_ERROR, "a worker left questions open");
                    self.settle(owner, Err(fault));
                }
            },
            Next::Task { required, next } => match (owner, call) {
                (Owner::Request(origin), Some(call))
                    if origin.era == Era::Modern && call.declares_tasks() =>
                {
                    self.open_task(origin, call, *next);
                }
                (Owner::Request(_), _) if required => {
                    self.require(owner, modern::tasks_capability());
                }
                // Already in a task, or for a client that has to wait.
                (_, call) => self.conclude(owner, call, *next),
            },
        }
    }

    /// Gives a call's outcome to its owner.
    pub(super) fn settle(&mut self, owner: &Owner, outcome: Result<Value, Fault>) {
        match (owner, outcome) {
            (Owner::Request(origin), Ok(result)) => self.reply(origin, result),
            (Owner::Request(origin), Err(fault)) => {
                self.send(encode_fault(Some(&origin.id), &fault));
            }
            (Owner::Task(task), outcome) => self.settle_task(task, outcome),
        }
    }

    /// Takes questions to the client: in the reply, as requests of our own, or
    /// by parking the task.
    fn inquire(
        &mut self,
        owner: &Owner,
        call: Call,
        questions: Vec<Question>,
        state: Option<Value>,
    ) {
        let missing = call.undeclared(&questions);
        if !missing.is_empty() {
            return self.require(owner, Value::Object(missing));
        }
        match owner {
            Owner::Task(task) => self.park_task(task, call, questions, state),
            Owner::Request(origin) if origin.era == Era::Legacy => {
                self.start(owner, Work::Interview(call, Next::Ask { questions, state }));
            }
            Owner::Request(origin) => {
                let requests = modern::input_requests(&questions);
                let mut result =
                    json!({ "resultType": "input_required", "inputRequests": requests });
                if let (Some(result), Some(state)) = (result.as_object_mut(), state) {
                    result.insert("requestState".into(), modern::seal(&call.name, &state).into());
                }
                self.reply(origin, result);
            }
        }
    }

    /// Refuses a call whose client lacks `capabilities`.
    fn require(&mut self, owner: &Owner, capabilities: Value) {
        let why = format!("The client did not declare these capabilities: {capabilities}");
        let legacy_tool = |origin: &Origin| origin.method == "tools/call";
        let outcome = match owner {
            Owner::Request(origin) if origin.era == Era::Legacy && legacy_tool(origin) => {
                Ok(error_result(why))
            }
            Owner::Request(origin) if origin.era == Era::Legacy => {
                Err(Fault::new(INTERNAL_ERROR, why))
            }
            Owner::Request(_) | Owner::Task(_) => {
                Err(modern::missing_capability(why, capabilities))
            }
        };
        self.settle(owner, outcome);
    }

    fn start(&mut self, owner: &Owner, work: Work) {
        if self.jobs.len() >= JOBS_MAX {
            let limit = json!({ "callsMax": JOBS_MAX });
            let fault = Fault::with(INTERNAL_ERROR, "Too many slow calls at one time", limit);
            return self.settle(owner, Err(fault));
        }
        self.jobs_started += 1;
        let job = JobId(self.jobs_started);
        let (signals, inbox) = mpsc::channel();
        let worker = Worker { job, events: self.events.clone(), signals: inbox };
        let thread = thread::Builder::new().name("demo-call".into()).stack_size(WORKER_STACK_LEN);
        let started = thread.spawn(move || match work {
            Work::Play(script) => worker.play(script),
            Work::Interview(call, next) => worker.interview(call, next),
        });
        match started {
            Ok(_) => {
                self.jobs.insert(job, Job { owner: owner.clone(), signals });
            }
            Err(error) => {
                let why = format!("No thread for the call: {error}");
                self.settle(owner, Err(Fault::new(INTERNAL_ERROR, why)));
            }
        }
    }

    /// Puts a worker's question to the client.
    pub(super) fn ask(&mut self, job: JobId, question: &Question) {
        if self.jobs.contains_key(&job) {
            self.asks_sent += 1;
            self.asks.insert(self.asks_sent, job);
            self.send(encode_request(self.asks_sent, question.method, &question.params));
        }
    }

    /// Takes the client's answer to where it is waited for.
    pub(super) fn answered(&mut self, ask: u64, outcome: Result<Value, Value>) {
        if let Some(job) = self.asks.remove(&ask).and_then(|job| self.jobs.get(&job)) {
            // A worker that has just given up does not listen any more.
            drop(job.signals.send(Signal::Answered(outcome)));
        }
    }

    /// Stops the first job whose owner is `wanted`; it gets no reply.
    pub(super) fn stop(&mut self, wanted: impl Fn(&Owner) -> bool) {
        let job = self.jobs.iter().find(|(_, job)| wanted(&job.owner));
        if let Some((job, running)) = job.map(|(id, job)| (*id, job)) {
            drop(running.signals.send(Signal::Cancelled));
            self.forget(job);
        }
    }

    /// Strikes a job off, and takes back what it has asked the client.
    pub(super) fn forget(&mut self, job: JobId) -> Option<Owner> {
        let open: Vec<u64> =
            self.asks.iter().filter(|(_, asker)| **asker == job).map(|(ask, _)| *ask).collect();
        for ask in open {
            self.asks.remove(&ask);
            let params = json!({ "requestId": ask, "reason": "no longer needed" });
            self.send(encode_notification("notifications/cancelled", &params));
        }
        self.jobs.remove(&job).map(|job| job.owner)
    }

    /// Passes a note on, if the client wants to have it.
    pub(super) fn note(&mut self, owner: &Owner, note: Note) {
        // A task's request is over: there is nothing left to tie a note to.
        let Owner::Request(origin) = owner else { return };
        match note {
            Note::Progress { progress, total, message } => {
                if let Some(token) = &origin.progress_token {
                    let params = json!({
                        "progressToken": token,
                        "progress": progress,
                        "total": total,
                        "message": message,
                    });
                    self.send(encode_notification("notifications/progress", &params));
                }
            }
            Note::Log { level, text } => {
                if self.log_level(origin).is_some_and(|threshold| level >= threshold) {
                    let logger = legacy::NAME;
                    let params = json!({ "level": level.name(), "logger": logger, "data": text });
                    self.send(encode_notification("notifications/message", &params));
                }
            }
        }
    }
}
