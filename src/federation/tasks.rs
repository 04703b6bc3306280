//! Which member of a view has a task: as far as it was seen.
//!
//! Only the server that runs a task knows its id, and nothing in the id says which that is.

use std::collections::VecDeque;

use crate::federation::value::{find_path, text_of};
use crate::limits;

/// The members of some tasks, those seen last.
#[derive(Debug, Default)]
pub struct KnownTasks {
    /// The last seen last.
    all: VecDeque<(String, usize)>,
}

impl KnownTasks {
    /// The member that has a task, if that is known.
    pub fn find(&self, id: &str) -> Option<usize> {
        self.all.iter().rev().find(|(known, _)| known == id).map(|(_, member)| *member)
    }

    /// A member has this task. The one that was not seen for longest is forgotten for it.
    pub fn learn(&mut self, id: String, member: usize) {
        if limits::TASK_ID_LEN_MAX < id.len() {
            return;
        }
        self.all.retain(|(known, _)| *known != id);
        if limits::TASKS_KNOWN_MAX <= self.all.len() {
            self.all.pop_front();
        }
        self.all.push_back((id, member));
    }
}

/// Whether an answer in these parts may be about a task, and is worth a look.
pub fn may_have_task(parts: &[&[u8]]) -> bool {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let has = |part: &&[u8]| memchr::memmem::find(part, b"\"taskId\"").is_some();
    len <= limits::TASK_ANSWER_LEN_MAX && parts.iter().any(has)
}

/// The task that an answer begins, or tells of: that of the result (2026-07-28, and `tasks/get` of
/// both eras), or the one in it (2025-11-25).
pub fn task_of(answer: &[u8]) -> Option<String> {
    let paths: [&[&str]; 2] = [&["result", "taskId"], &["result", "task", "taskId"]];
    let at = paths.into_iter().find_map(|path| find_path(answer, path))?;
    text_of(at.get(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_found_in_answers_that_begin_them() {
        let legacy = br#"{"id":1,"result":{"task":{"taskId":"\u0061","status":"working"}}}"#;
        let modern = br#"{"id":1,"result":{"resultType":"task","taskId":"b"}}"#;
        let other = br#"{"id":1,"result":{"content":[{"taskId":"c"}],"taskId":7}}"#;
        assert_eq!(task_of(legacy).as_deref(), Some("a"));
        assert_eq!(task_of(modern).as_deref(), Some("b"));
        assert_eq!(task_of(other), None);
        assert!(may_have_task(&[br#"{"id":"#, b"1", &modern[7..]]));
        assert!(!may_have_task(&[br#"{"id":1,"result":{}}"#]));
        assert!(!may_have_task(&[modern, &vec![b' '; limits::TASK_ANSWER_LEN_MAX]]));
    }

    #[test]
    fn those_seen_last_are_known() {
        let mut known = KnownTasks::default();
        for number in 0..limits::TASKS_KNOWN_MAX {
            known.learn(number.to_string(), number);
        }
        known.learn("0".to_owned(), 5);
        known.learn("new".to_owned(), 6);
        known.learn("x".repeat(limits::TASK_ID_LEN_MAX + 1), 7);
        let found = ["0", "1", "2", "new"].map(|id| known.find(id));
        assert_eq!(found, [Some(5), None, Some(2), Some(6)]);
        assert_eq!(known.all.len(), limits::TASKS_KNOWN_MAX);
    }
}
