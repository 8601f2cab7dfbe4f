//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::ops::Range;

/// Whether a problem stops the agent from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration can't be used.
    Error,
    /// It can be used, but somebody should know.
    Warning,
}

/// One problem with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether it stops the agent.
    pub severity: Severity,
    /// Line, counting from 1; 0 when it belongs to no place.
    pub line: usize,
    /// Column in characters, counting from 1; 0 when it belongs to no place.
    pub column: usize,
    /// One sentence: what is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        write!(f, "{word}: {}", self.message)
    }
}

/// Collects problems while a file is read.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<(Severity, Option<Range<usize>>, String)>,
    broken_syntax: bool,
}

impl Problems {
    /// Starts with nothing wrong.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes an error at `span` (byte offsets into the file).
    pub fn error(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.found.push((Severity::Error, Some(span), message.into()));
    }

    /// Notes a warning at `span`.
    pub fn warning(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.found.push((Severity::Warning, Some(span), message.into()));
    }

    /// Notes an error of the file as a whole.
    pub fn error_overall(&mut self, message: impl Into<String>) {
        self.found.push((Severity::Error, None, message.into()));
    }

    /// Notes that the file is not valid TOML; keys that seem missing are then not reported,
    /// because they may stand in the part that could not be read.
    pub fn syntax(&mut self, span: Option<Range<usize>>, message: impl Into<String>) {
        self.broken_syntax = true;
        self.found.push((Severity::Error, span, message.into()));
    }

    /// Notes a required key that is not there.
    pub fn missing(&mut self, span: Range<usize>, message: impl Into<String>) {
        if !self.broken_syntax {
            self.error(span, message);
        }
    }

    /// Tells whether anything stops the agent.
    pub fn has_errors(&self) -> bool {
        self.found.iter().any(|(severity, ..)| *severity == Severity::Error)
    }

    /// Turns offsets into lines and columns of `source`, in the order of the file.
    pub fn located(mut self, source: &str) -> Vec<Problem> {
        self.found.sort_by_key(|(_, span, _)| span.as_ref().map_or(0, |s| s.start));
        let place = |span: Option<Range<usize>>| match span {
            None => (0, 0),
            Some(span) => {
                let before = source.get(..span.start.min(source.len())).unwrap_or(source);
                let start_of_line = before.rfind('\n').map_or(0, |at| at + 1);
                let column = before.get(start_of_line..).map_or(0, |line| line.chars().count());
                (before.matches('\n').count() + 1, column + 1)
            }
        };
        let problem = |(severity, span, message)| {
            let (line, column) = place(span);
            Problem { severity, line, column, message }
        };
        self.found.into_iter().map(problem).collect()
    }
}
