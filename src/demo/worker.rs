//! The thread behind one slow call. It knows its own call and nothing else.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use serde_json::{Map, Value};

use super::message::{Fault, INTERNAL_ERROR};
use super::server;
use super::step::{Call, Callee, Next, Note, Question, Script};

/// How long a client may think about one question.
const ANSWER_WAIT: Duration = Duration::from_secs(300);
/// How often one call may go back to the client.
const ROUNDS_MAX: usize = 8;

/// One running call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobId(pub(super) u64);

/// What happened; the only way to reach the server.
#[derive(Debug)]
pub(super) enum Event {
    Received {
        line: Vec<u8>,
    },
    /// A line longer than we take; its bytes are gone.
    Overrun,
    /// Standard input has ended.
    Closed,
    Noted {
        job: JobId,
        note: Note,
    },
    Asked {
        job: JobId,
        question: Question,
    },
    Finished {
        job: JobId,
        next: Next,
    },
}

/// What the server tells a worker.
#[derive(Debug)]
pub(super) enum Signal {
    Cancelled,
    Answered(Result<Value, Value>),
}

/// The worker's two ends, and whose work it does.
pub(super) struct Worker {
    pub(super) job: JobId,
    pub(super) events: SyncSender<Event>,
    pub(super) signals: Receiver<Signal>,
}

/// The call was cancelled or the server is gone: say nothing more.
struct Abandoned;

impl Worker {
    /// Plays `script` to its end.
    pub(super) fn play(&self, script: Script) {
        for beat in script.beats {
            if let Some(note) = beat
                && self.send(Event::Noted { job: self.job, note }).is_err()
            {
                return;
            }
            match self.signals.recv_timeout(script.pause) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        self.finish(script.outcome.map_or_else(Next::Fail, Next::Done));
    }

    /// Puts questions to a legacy client until the call needs no more answers.
    pub(super) fn interview(&self, mut call: Call, mut next: Next) {
        for _ in 0..ROUNDS_MAX {
            // A legacy client has no tasks: it waits for the call itself.
            if let Next::Task { next: inner, .. } = next {
                next = *inner;
            }
            let Next::Ask { questions, state } = next else {
                return self.finish(next);
            };
            match self.collect(&questions) {
                Ok(Ok(answers)) => call.answers = answers,
                Ok(Err(refused)) => return self.finish(refused_by_client(&call, refused)),
                Err(Abandoned) => return,
            }
            call.state = state;
            let step = server::step(&call);
            for note in step.notes {
                if self.send(Event::Noted { job: self.job, note }).is_err() {
                    return;
                }
            }
            next = step.next;
        }
        self.finish(refused_by_client(&call, "gave no usable answer".into()));
    }

    /// All answers of one round, or why the client gave none.
    fn collect(
        &self,
        questions: &[Question],
    ) -> Result<Result<Map<String, Value>, String>, Abandoned> {
        let mut answers = Map::new();
        for question in questions {
            self.send(Event::Asked { job: self.job, question: question.clone() })?;
            match self.signals.recv_timeout(ANSWER_WAIT) {
                Ok(Signal::Answered(Ok(answer))) => {
                    answers.insert(question.key.into(), answer);
                }
                Ok(Signal::Answered(Err(error))) => {
                    let why = error.get("message").and_then(Value::as_str).unwrap_or("no reason");
                    return Ok(Err(format!("refused {}: {why}", question.method)));
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Ok(Err(format!("did not answer {} in time", question.method)));
                }
                Ok(Signal::Cancelled) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(Abandoned);
                }
            }
        }
        Ok(Ok(answers))
    }

    fn finish(&self, next: Next) {
        // A server that is gone needs no result.
        drop(self.send(Event::Finished { job: self.job, next }));
    }

    fn send(&self, event: Event) -> Result<(), Abandoned> {
        self.events.send(event).map_err(|_| Abandoned)
    }
}

fn refused_by_client(call: &Call, why: String) -> Next {
    match call.callee {
        Callee::Tool => Next::error(format!("The client {why}")),
        Callee::Prompt => Next::Fail(Fault::new(INTERNAL_ERROR, format!("the client {why}"))),
    }
}
