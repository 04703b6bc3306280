//! The tasks extension, `io.modelcontextprotocol/tasks` (SEP-2663): calls that go
//! on after their request was answered. Modern era only.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::calls::Owner;
use super::{Origin, Server};
use crate::demo::legacy;
use crate::demo::message::{Fault, INTERNAL_ERROR, INVALID_PARAMS, encode_tagged};
use crate::demo::modern;
use crate::demo::step::{Call, Next, Question};

/// How long a task can be asked for, counted from its creation.
const TTL: Duration = Duration::from_secs(600);
/// What we ask clients to wait between two `tasks/get`.
const POLL_INTERVAL_MS: u64 = 200;
/// Tasks that can be asked for at one time.
const TASKS_MAX: usize = 1024;

/// What a client knows a task by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskId(String);

/// One task, running or over.
pub(super) struct Task {
    created_at: SystemTime,
    updated_at: SystemTime,
    status: Status,
}

enum Status {
    Working,
    /// Waits for answers to `pending`; those already given are in `call`.
    Parked {
        call: Box<Call>,
        pending: Vec<Question>,
    },
    Completed(Value),
    Failed(Fault),
    Cancelled,
}

impl Task {
    fn is_over(&self) -> bool {
        match self.status {
            Status::Working | Status::Parked { .. } => false,
            Status::Completed(_) | Status::Failed(_) | Status::Cancelled => true,
        }
    }

    /// The fields that every task has.
    fn summary(&self, id: &TaskId) -> Map<String, Value> {
        let status = match self.status {
            Status::Working => "working",
            Status::Parked { .. } => "input_required",
            Status::Completed(_) => "completed",
            Status::Failed(_) => "failed",
            Status::Cancelled => "cancelled",
        };
        Map::from_iter([
            ("taskId".to_owned(), json!(id.0)),
            ("status".to_owned(), json!(status)),
            ("createdAt".to_owned(), json!(timestamp(self.created_at))),
            ("lastUpdatedAt".to_owned(), json!(timestamp(self.updated_at))),
            ("ttlMs".to_owned(), json!(TTL.as_secs() * 1000)),
            ("pollIntervalMs".to_owned(), json!(POLL_INTERVAL_MS)),
        ])
    }

    /// Those and what the status brings with it.
    fn detail(&self, id: &TaskId) -> Map<String, Value> {
        let mut detail = self.summary(id);
        match &self.status {
            Status::Working | Status::Cancelled => {}
            Status::Parked { pending, .. } => {
                detail.insert("inputRequests".into(), modern::input_requests(pending));
            }
            Status::Completed(result) => {
                detail.insert("result".into(), result.clone());
            }
            Status::Failed(fault) => {
                let error = json!({ "code": fault.code, "message": fault.message });
                detail.insert("error".into(), error);
            }
        }
        detail
    }
}

impl Server {
    /// Makes a task of a call, answers its request, and lets it go on.
    pub(super) fn open_task(&mut self, origin: &Origin, call: Call, next: Next) {
        if let Next::Ask { questions, .. } = &next {
            let missing = call.undeclared(questions);
            if !missing.is_empty() {
                let why = "The task would need capabilities the client did not declare";
                let fault = modern::missing_capability(why.into(), Value::Object(missing));
                return self.settle(&Owner::Request(origin.clone()), Err(fault));
            }
        }
        let now = now();
        let expired = |task: &Task| now.duration_since(task.created_at).is_ok_and(|age| age > TTL);
        self.tasks.retain(|_, task| !(task.is_over() && expired(task)));
        if self.tasks.len() >= TASKS_MAX {
            let fault = Fault::new(INTERNAL_ERROR, "Too many tasks");
            return self.settle(&Owner::Request(origin.clone()), Err(fault));
        }
        // Nobody can guess the keys of two hashers, nor with them an id.
        let part = || RandomState::new().hash_one(self.tasks.len());
        let id = TaskId(format!("{:016x}{:016x}", part(), part()));
        let task = Task { created_at: now, updated_at: now, status: Status::Working };
        let mut created = task.summary(&id);
        created.insert("resultType".into(), "task".into());
        self.tasks.insert(id.clone(), task);
        self.reply(origin, Value::Object(created));
        self.conclude(&Owner::Task(id), Some(call), next);
    }

    /// Records how a task ended.
    pub(super) fn settle_task(&mut self, id: &TaskId, outcome: Result<Value, Fault>) {
        let status = match outcome {
            Ok(mut result) => {
                modern::stamp("tools/call", &mut result);
                Status::Completed(result)
            }
            Err(fault) => Status::Failed(fault),
        };
        self.move_task(id, status);
    }

    /// Lets a task wait for answers.
    pub(super) fn park_task(
        &mut self,
        id: &TaskId,
        mut call: Call,
        pending: Vec<Question>,
        state: Option<Value>,
    ) {
        call.answers = Map::new();
        call.state = state;
        self.move_task(id, Status::Parked { call: Box::new(call), pending });
    }

    /// Answers the methods of the extension.
    pub(super) fn answer_task(
        &mut self,
        method: &str,
        params: &Map<String, Value>,
        capabilities: &Value,
    ) -> Result<Value, Fault> {
        if !matches!(method, "tasks/get" | "tasks/update" | "tasks/cancel") {
            return Err(legacy::method_not_found(method));
        }
        if !modern::declares_tasks(capabilities) {
            let why = "The client did not declare the tasks extension".to_owned();
            return Err(modern::missing_capability(why, modern::tasks_capability()));
        }
        let id = TaskId(params.get("taskId").and_then(Value::as_str).unwrap_or_default().into());
        let Some(task) = self.tasks.get(&id) else {
            return Err(Fault::new(INVALID_PARAMS, "Unknown task"));
        };
        match method {
            "tasks/get" => return Ok(Value::Object(task.detail(&id))),
            "tasks/cancel" => {
                if !task.is_over() {
                    self.stop(|owner| matches!(owner, Owner::Task(task) if *task == id));
                    self.move_task(&id, Status::Cancelled);
                }
            }
            _ => match params.get("inputResponses") {
                Some(Value::Object(answers)) => self.update_task(&id, answers),
                _ => return Err(Fault::new(INVALID_PARAMS, "inputResponses must be an object")),
            },
        }
        Ok(json!({}))
    }

    /// Takes answers in; with the last one the task goes on.
    fn update_task(&mut self, id: &TaskId, answers: &Map<String, Value>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Status::Parked { call, pending } = &mut task.status else { return };
        // Answers to what was not asked are ignored, and so are unusable ones.
        for (key, answer) in answers {
            if pending.iter().any(|question| question.key == key) {
                call.answers.insert(key.clone(), answer.clone());
            }
        }
        pending.retain(|question| call.answer(question).is_none());
        if pending.is_empty() {
            let call = call.as_ref().clone();
            self.move_task(id, Status::Working);
            self.run(&Owner::Task(id.clone()), call);
        }
    }

    fn move_task(&mut self, id: &TaskId, status: Status) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.status = status;
        task.updated_at = now();
        let detail = task.detail(id);
        let listens = self.listens.iter().filter(|listen| listen.wants_task(&id.0));
        let lines: Vec<String> = listens
            .map(|listen| encode_tagged("notifications/tasks", &listen.id, &detail))
            .collect();
        for line in lines {
            self.send(line);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tasks are dated; the demo has no driver to ask")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// RFC 3339 in UTC, to the millisecond.
fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of a number of days since 1970-01-01, counting years from
/// March so that a leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_know_leap_days() {
        let at = |secs| timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(secs));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_785_196_799), "2026-07-27T23:59:59.000Z");
    }
}
