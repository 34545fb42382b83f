//! Why a command ends without having done its work: its exit code, and how that is told, to people and to programs.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::text::{json_line, shown};
use crate::config::{Place, Problem, Problems};
use crate::http::FieldProblem;
use crate::http::error::ErrorDetail;

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Exit code 1.
    Failed(String),
    /// Exit code 2: wrong usage.
    Usage(String),
    /// Exit code 2: a faulty configuration.
    Configuration(Problems),
    /// Exit code 2: a configuration that the relay does not take, as it told.
    Refused(ErrorDetail),
    /// Exit code 2: a faulty configuration, told already.
    Told,
    /// Exit code 3.
    NotFound(String),
    /// Exit code 4.
    NoRelay(String),
    /// A code of sysexits.h, told already.
    Sysexit(u8),
    /// Whoever read our output has gone; that is no failure.
    NobodyReads,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::NobodyReads,
            _ => Failure::Failed(format!("the output cannot be written: {error}")),
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Failure::Configuration(problems)
    }
}

impl Failure {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Failure::NobodyReads => 0,
            Failure::Sysexit(code) => *code,
            Failure::Failed(_) => 1,
            Failure::Usage(_) | Failure::Configuration(_) | Failure::Refused(_) | Failure::Told => 2,
            Failure::NotFound(_) => 3,
            Failure::NoRelay(_) => 4,
        }
    }

    /// One word for programs.
    fn code(&self) -> &'static str {
        match self {
            Failure::Failed(_) | Failure::Sysexit(_) | Failure::NobodyReads => "failed",
            Failure::Usage(_) => "usage",
            Failure::Configuration(_) | Failure::Refused(_) | Failure::Told => "configuration",
            Failure::NotFound(_) => "not_found",
            Failure::NoRelay(_) => "no_relay",
        }
    }

    /// A sentence for people; `None`: nothing is left to say.
    pub(super) fn message(&self) -> Option<String> {
        match self {
            Failure::Failed(m) | Failure::Usage(m) | Failure::NotFound(m) | Failure::NoRelay(m) => {
                Some(m.clone())
            }
            Failure::Configuration(problems) => Some(problems.to_string()),
            Failure::Refused(error) => Some(error.whole()),
            Failure::Told | Failure::Sysexit(_) | Failure::NobodyReads => None,
        }
    }

    /// Says it: in words, or with `--json` as the HTTP side does, `{"error":{"code","message"}}`, and `problems` where
    /// the configuration has some.
    pub(super) fn tell(&self, json: bool, err: &mut impl Write) -> io::Result<()> {
        let Some(message) = self.message() else { return Ok(()) };
        if !json {
            // What an ESP or a client said may be in it.
            let lines: Vec<String> = message.lines().map(shown).collect();
            return writeln!(err, "postroad: {}", lines.join("\n"));
        }
        let mut error = json!({ "code": self.code(), "message": message });
        if let Failure::Configuration(problems) = self {
            error["problems"] = problems.iter().map(problem_json).collect();
        }
        if let Failure::Refused(refused) = self {
            error["message"] = json!(refused.message);
            error["problems"] = refused.fields.iter().map(field_json).collect();
        }
        json_line(err, &json!({ "error": error }))
    }
}

/// A problem or a warning for programs: `key` and `message`, `file` and `line` or `variable` where it is written, and
/// `hint`, the name that was probably meant.
pub(super) fn problem_json(problem: &Problem) -> Value {
    let mut told = json!({ "key": problem.key, "message": problem.what });
    match &problem.place {
        Place::File(file) => told["file"] = json!(**file),
        Place::Line { file, line } => {
            told["file"] = json!(**file);
            told["line"] = json!(line);
        }
        Place::Variable(name) => told["variable"] = json!(**name),
        Place::BuiltIn => {}
    }
    if let Some(hint) = problem.hint() {
        told["hint"] = json!(hint);
    }
    told
}

/// The same of one that a relay told, which has its place in its message too.
pub(super) fn field_json(field: &FieldProblem) -> Value {
    let places = [
        field.file.as_ref().zip(field.line).map(|(file, line)| format!("{file}:{line}: ")),
        field.file.as_ref().map(|file| format!("{file}: ")),
        field.variable.as_ref().map(|name| format!("${name}: ")),
    ];
    let message = places.iter().flatten().find_map(|place| field.message.strip_prefix(place.as_str()));
    let mut told = json!({ "key": field.field, "message": message.unwrap_or(&field.message) });
    let more = [
        ("file", field.file.clone().map(Value::from)),
        ("line", field.line.map(Value::from)),
        ("variable", field.variable.clone().map(Value::from)),
        ("hint", field.hint.clone().map(Value::from)),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            told[name] = value;
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(failure: &Failure, json: bool) -> String {
        let mut err = Vec::new();
        failure.tell(json, &mut err).unwrap();
        String::from_utf8(err).unwrap()
    }

    #[test]
    fn a_failure_is_words_for_people_and_an_object_for_programs() {
        let failure = Failure::NotFound("no message \u{1b}x".into());
        assert_eq!(told(&failure, false), "postroad: no message \\u{1b}x\n");
        assert_eq!(
            told(&Failure::Failed("two\n  lines\u{202e}".into()), false),
            "postroad: two\n  lines\\u{202e}\n"
        );
        let line: Value = serde_json::from_str(&told(&failure, true)).unwrap();
        assert_eq!(line, json!({ "error": { "code": "not_found", "message": "no message \u{1b}x" } }));
        assert_eq!(told(&Failure::NobodyReads, true), "");
    }
}
