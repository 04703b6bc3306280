//! What is wrong with a configuration, and where.

use std::fmt;

/// The source that is no file.
pub(super) const COMMAND_LINE: &str = "command line";

/// One thing that is wrong, or that may not be what was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named; or `command line`.
    pub source: String,
    /// Line and column in the file, both from 1.
    pub position: Option<(usize, usize)>,
    /// The key, with the tables it is in; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and what would be right. Quotes no value.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_plain(f, &self.source)?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            f.write_str(": ")?;
            write_plain(f, &self.key)?;
        }
        f.write_str(": ")?;
        write_plain(f, &self.message)
    }
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Everything that is wrong. Not empty.
    pub problems: Vec<Problem>,
    /// What may not be what was meant; it may explain a problem.
    pub warnings: Vec<Problem>,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem], warnings: Vec::new() }
    }
}

/// Writes text so that it cannot break out of its line or steer a terminal.
fn write_plain(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for char in text.chars() {
        if char.is_control() {
            write!(f, "{}", char.escape_default())?;
        } else {
            write!(f, "{char}")?;
        }
    }
    Ok(())
}

/// Gathers the problems of one source.
pub(super) struct Report<'a> {
    source: &'a str,
    text: &'a str,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Report<'a> {
    /// A report about a source of that name, with that text.
    pub(super) fn new(source: &'a str, text: &'a str) -> Self {
        Self { source, text, problems: Vec::new(), warnings: Vec::new() }
    }

    /// Something is wrong at that byte; or on the command line.
    pub(super) fn problem(
        &mut self,
        at: impl Into<Option<usize>>,
        key: &str,
        message: impl Into<String>,
    ) {
        let problem = self.at(at.into(), key, message.into());
        self.problems.push(problem);
    }

    /// Something is wrong at that line and column.
    pub(super) fn problem_on(&mut self, position: (usize, usize), message: String) {
        let source = self.source.to_owned();
        let problem = Problem { source, position: Some(position), key: String::new(), message };
        self.problems.push(problem);
    }

    /// Something may not be what was meant.
    pub(super) fn warning(
        &mut self,
        at: impl Into<Option<usize>>,
        key: &str,
        message: impl Into<String>,
    ) {
        let warning = self.at(at.into(), key, message.into());
        self.warnings.push(warning);
    }

    /// The problems and the warnings, each in the order of the file.
    pub(super) fn finish(mut self) -> Refused {
        self.problems.sort_by_key(|problem| problem.position);
        self.warnings.sort_by_key(|warning| warning.position);
        Refused { problems: self.problems, warnings: self.warnings }
    }

    fn at(&self, at: Option<usize>, key: &str, message: String) -> Problem {
        let source = if at.is_some() { self.source } else { COMMAND_LINE };
        let position = at.filter(|_| self.source != COMMAND_LINE).map(|at| {
            let before = self.text.get(..at).unwrap_or(self.text);
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
            let column = before.get(line_start..).map_or(0, |line| line.chars().count()) + 1;
            (line, column)
        });
        Problem { source: source.to_owned(), position, key: key.to_owned(), message }
    }
}
