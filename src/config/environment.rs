//! What a configuration is read in: environment variables, working directory, host name; handed in, so that tests
//! bring their own. And what `env:`, `file:` and `literal:` stand for in it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::dotenv::Dotenv;
use super::problem::{Place, Problem, ask, nearest_of_many};
use super::twins;

/// A file that `file:` names.
const SECRET_FILE_OCTETS_MAX: u64 = 64 * 1024;
/// A configuration file or a `.env`.
const CONFIG_FILE_OCTETS_MAX: u64 = 4 * 1024 * 1024;

/// The world around a configuration file.
#[derive(Clone)]
pub struct Environment {
    /// Environment variables.
    pub variables: BTreeMap<String, OsString>,
    /// What relative paths start from.
    pub working_dir: PathBuf,
    /// The host's name, empty where it has none.
    pub host_name: String,
    /// Read when no other file is found.
    pub system_file: PathBuf,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
        Environment {
            variables: std::env::vars_os().filter_map(named).collect(),
            working_dir: PathBuf::new(),
            host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            system_file: PathBuf::from("/etc/postroad/postroad.toml"),
        }
    }

    /// No variables, no system file: what a test starts from.
    pub fn empty(working_dir: impl Into<PathBuf>) -> Self {
        Environment {
            variables: BTreeMap::new(),
            working_dir: working_dir.into(),
            host_name: "relay.test".into(),
            system_file: PathBuf::new(),
        }
    }
}

/// Where the values of a configuration come from, beside the file itself. Errors never hold a value.
pub(super) struct Sources<'a> {
    pub(super) environment: &'a Environment,
    pub(super) dotenv: Dotenv,
    pub(super) dotenv_file: String,
    /// The variables that were asked for.
    asked: RefCell<BTreeSet<String>>,
}

/// A string as it is meant.
pub(super) struct Resolved {
    pub(super) text: String,
    /// Where it came from when it was not typed in the file, such as `env:NAME`. Then it may be a secret in the
    /// wrong place, and is not shown.
    pub(super) from: Option<String>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(environment: &'a Environment, dotenv_file: String, dotenv: Dotenv) -> Self {
        Sources { environment, dotenv, dotenv_file, asked: RefCell::default() }
    }

    /// What a string of the configuration stands for.
    pub(super) fn resolve(&self, typed: &str) -> Result<Resolved, String> {
        let text = if let Some(name) = typed.strip_prefix("env:") {
            self.asked.borrow_mut().insert(name.to_string());
            self.variable(name)
        } else if let Some(path) = typed.strip_prefix("file:") {
            self.file(path)
        } else {
            let text = typed.strip_prefix("literal:").unwrap_or(typed);
            return Ok(Resolved { text: text.to_string(), from: None });
        };
        Ok(Resolved { text: text?, from: Some(typed.to_string()) })
    }

    /// A variable of the process, else of the `.env`.
    pub(super) fn variable(&self, name: &str) -> Result<String, String> {
        if name.is_empty() {
            return Err("env: names no variable".into());
        }
        if let Some(value) = self.environment.variables.get(name) {
            let text = value.to_str().map(str::to_string);
            return text.ok_or_else(|| format!("the environment variable {name} is not UTF-8"));
        }
        match self.dotenv.get(name) {
            Some(Ok(value)) => Ok(value.to_string()),
            Some(Err((line, why))) => Err(format!("{name} at {}:{line} {why}", self.dotenv_file)),
            None => Err(self.unset(name)),
        }
    }

    fn unset(&self, name: &str) -> String {
        let file = &self.dotenv_file;
        if let Some(why) = &self.dotenv.unread {
            return format!("the environment variable {name} is not set in the process, and {file} {why}");
        }
        let hint = match self.dotenv.without_value(name) {
            Some(line) => format!("; {file}:{line} names it and gives no value: write {name}=VALUE"),
            None => ask(nearest_of_many(name, self.names())),
        };
        format!("the environment variable {name} is not set, in the process or in {file}{hint}")
    }

    /// The names of all variables.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.environment.variables.keys().map(String::as_str).chain(self.dotenv.names()).collect()
    }

    /// Whether a string of the configuration has asked for this variable.
    pub(super) fn asked_for(&self, name: &str) -> bool {
        self.asked.borrow().contains(name)
    }

    /// The values of the `.env` that cannot be read and that nothing has asked for: what asks tells it itself.
    pub(super) fn unused_faults(&self) -> impl Iterator<Item = Problem> {
        let told = |name: &str| {
            let read_here = !self.environment.variables.contains_key(name);
            read_here && (self.asked_for(name) || twins::is_twin(name))
        };
        self.dotenv.faults().filter(move |(name, ..)| !told(name)).map(|(name, line, why)| Problem {
            place: Place::Line { file: self.dotenv_file.as_str().into(), line },
            key: String::new(),
            what: format!("{name} {why}"),
        })
    }

    fn file(&self, path: &str) -> Result<String, String> {
        if path.is_empty() {
            return Err("file: names no file".into());
        }
        let octets = read_bounded(&self.environment.working_dir.join(path), SECRET_FILE_OCTETS_MAX);
        let octets = octets.map_err(|why| format!("the file {path} {why}"))?;
        let text = String::from_utf8(octets).map_err(|_| format!("the file {path} is not UTF-8"))?;
        let without_lf = text.strip_suffix('\n');
        let without_end = without_lf.map(|text| text.strip_suffix('\r').unwrap_or(text));
        Ok(without_end.unwrap_or(&text).to_string())
    }
}

/// The whole of a configuration file or a `.env`.
pub(super) fn read_config_file(path: &Path) -> Result<Vec<u8>, String> {
    read_bounded(path, CONFIG_FILE_OCTETS_MAX)
}

fn read_bounded(path: &Path, octets_max: u64) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(octets_max + 1).read_to_end(&mut octets));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err("does not exist".into()),
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(_) if octets.len() as u64 > octets_max => Err(format!("is larger than {octets_max} octets")),
        Ok(_) => Ok(octets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources<'a>(environment: &'a Environment, dotenv: &str) -> Sources<'a> {
        Sources::new(environment, ".env".into(), Dotenv::parse(dotenv))
    }

    #[test]
    fn the_process_wins_over_dotenv_and_literal_is_literal() {
        let mut environment = Environment::empty("");
        environment.variables.insert("A".into(), "process".into());
        let sources = sources(&environment, "A=dotenv\nB='env:A'");
        let text = |typed: &str| sources.resolve(typed).map(|r| r.text);
        assert_eq!(text("env:A"), Ok("process".into()));
        assert_eq!(text("env:B"), Ok("env:A".into()), "what a variable holds is not looked up again");
        assert_eq!(text("literal:env:A"), Ok("env:A".into()));
        assert_eq!(text("plain"), Ok("plain".into()));
        assert!(text("env:C").is_err_and(|e| e.contains("C is not set") && e.contains(".env")));
        assert!(sources.asked_for("C") && !sources.asked_for("D"));
    }

    #[test]
    fn an_unset_variable_s_error_says_what_was_probably_meant_and_no_more() {
        let mut environment = Environment::empty("");
        environment.variables.insert("SHOP_PASWORD".into(), "x".into());
        let sources = sources(&environment, "ESP_KEY=x\n\nNEWS_PASSWORD hunter2\nhunter2hunter2");
        let why = |name: &str| sources.resolve(&format!("env:{name}")).map(|r| r.text).unwrap_err();
        assert!(why("SHOP_PASSWORD").ends_with("; did you mean SHOP_PASWORD?"), "{}", why("SHOP_PASSWORD"));
        assert!(why("ESP_KYE").ends_with("; did you mean ESP_KEY?"), "{}", why("ESP_KYE"));
        let no_value = "; .env:3 names it and gives no value: write NEWS_PASSWORD=VALUE";
        assert!(why("NEWS_PASSWORD").ends_with(no_value), "{}", why("NEWS_PASSWORD"));
        assert!(why("hunter2hunter3").ends_with("or in .env"), "{}", why("hunter2hunter3"));
    }

    #[test]
    fn one_line_end_of_a_secret_s_file_is_not_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let environment = Environment::empty(dir.path());
        let sources = sources(&environment, "");
        for (content, value) in [("s", "s"), ("s\n", "s"), ("s\r\n", "s"), ("s\n\n", "s\n"), ("s\r", "s\r")] {
            std::fs::write(dir.path().join("key"), content).unwrap();
            assert_eq!(sources.resolve("file:key").map(|r| r.text), Ok(value.into()), "{content:?}");
        }
        std::fs::write(dir.path().join("key"), vec![b'x'; 70_000]).unwrap();
        assert!(sources.resolve("file:key").is_err_and(|e| e.contains("larger")));
        std::fs::write(dir.path().join("key"), [0xff, 0xfe]).unwrap();
        assert!(sources.resolve("file:key").is_err_and(|e| e.contains("UTF-8")));
        assert!(sources.resolve("file:none").is_err_and(|e| e.contains("does not exist")));
    }
}
