//! The configuration: from what is written (TOML, `.env`, environment twins) to what it means.
//!
//! Two steps. `written` is the file as typed, each value with its line; twins are put into it. Then each section is
//! read once into the settings of the module that it is for, and whatever is wrong on the way is gathered, so that
//! an operator sees all of it at once. Nobody below this floor knows that a file exists.

use std::path::{Path, PathBuf};

use crate::address::Address;
use crate::esp::settings::EspSettings;
use crate::flow::teller;
use crate::http::settings::HttpSettings;
use crate::mail::effect::SoftRule;
use crate::policy::streams::StreamSettings;
use crate::smtp::{Credential, ListenerSettings};
use crate::store;

mod clients;
mod dotenv;
mod environment;
mod esps;
mod house;
mod kinds;
mod later;
mod logins;
mod notify;
mod problem;
mod reader;
mod streams;
mod terms;
mod twins;
pub mod units;
mod vendors;
mod webhooks;
mod written;

#[cfg(test)]
mod tests;

pub use crate::mail::mime::LongLines;
pub use environment::Environment;
pub use problem::{Place, Problem, Problems};

use dotenv::Dotenv;
use environment::{Sources, read_config_file};
use reader::Reader;
use written::Table;

/// Names the configuration file where `--config` does not.
const CONFIG_VARIABLE: &str = "POSTROAD_CONFIG";
/// Looked for in the working directory, in this order.
const FILES: [&str; 2] = ["postroad.toml", "config/postroad.toml"];

/// A checked configuration: every value has its meaning, and they fit together.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[server]`.
    pub server: ServerSettings,
    /// Each `[[listener]]`, at least one.
    pub listeners: Vec<ListenerSettings>,
    /// Each `[[credential]]`.
    pub credentials: Vec<Credential>,
    /// Every stream: transactional and broadcast first, then the added ones.
    pub streams: Vec<StreamSettings>,
    /// Each `[[esp]]` in the file's order, at least one.
    pub esps: Vec<EspSettings>,
    /// Whether any is written; else the one is the sandbox.
    pub esps_written: bool,
    /// `[http]`.
    pub http: HttpSettings,
    /// `[limits] memory`: messages in flight, both sides, in octets.
    pub memory_octets: u64,
    /// `[limits]` and `[retention]`, with the data directory.
    pub store: store::Settings,
    /// `[suppression]`.
    pub soft: SoftRule,
    /// Each `[[notify]]`.
    pub receivers: Vec<teller::Settings>,
}

/// `[server]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// EHLO name, `Received`, message ids.
    pub hostname: String,
    /// The domain that completes bare names in the envelope and in From.
    pub origin: Option<String>,
    /// The folder with database, lock file and admin token.
    pub data_dir: PathBuf,
    /// `dsn`: reports go to senders.
    pub dsn: bool,
    /// From which address they come; `None`: `MAILER-DAEMON` at the host's name.
    pub dsn_from: Option<Address>,
    /// What becomes of lines over 998 octets.
    pub long_lines: LongLines,
    /// Header fields that speak to an ESP past the relay are left in mail.
    pub allow_vendor_headers: bool,
}

/// A configuration and how it was found.
#[derive(Debug)]
pub struct Loaded {
    /// What it means.
    pub config: Config,
    /// The file; `None`: built-in defaults.
    pub path: Option<PathBuf>,
    /// What is lawful but odd.
    pub warnings: Vec<Problem>,
}

/// What a command needs to find a relay: the rest of the file may be wrong, its variables unset.
#[derive(Debug)]
pub struct Location {
    /// `[server] data_dir`.
    pub data_dir: PathBuf,
    /// `[http]`.
    pub http: HttpSettings,
    /// The file; `None`: built-in defaults.
    pub path: Option<PathBuf>,
}

impl Config {
    /// Finds, reads and checks the configuration. `path` is `--config`.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Loaded, Problems> {
        Config::of(Document::find(path.map(|path| (path, BY_OPTION)), environment)?, environment)
    }

    /// The same of the file that a start found.
    pub fn load_again(path: &Path, environment: &Environment) -> Result<Loaded, Problems> {
        Config::of(Document::find(Some((path, BY_START)), environment)?, environment)
    }

    fn of(document: Document<'_>, environment: &Environment) -> Result<Loaded, Problems> {
        let sources = document.sources;
        let mut reader = Reader::new(&document.root, &sources);
        reader.problems = document.problems;
        reader.warnings = document.warnings;
        reader.check_sections();
        let config = Config::read(&mut reader, &environment.host_name);
        reader.note_near_twins();
        reader.problems.extend(sources.unused_faults());
        let path = document.path;
        match Problems::of(reader.problems, reader.warnings.clone()) {
            Some(problems) => Err(problems),
            None => Ok(Loaded { config, path, warnings: reader.warnings }),
        }
    }

    /// Finds the configuration and reads `[server] data_dir` and `[http]` alone.
    pub fn load_location(path: Option<&Path>, environment: &Environment) -> Result<Location, Problems> {
        let document = Document::find(path.map(|path| (path, BY_OPTION)), environment)?;
        let mut reader = Reader::new(&document.root, &document.sources);
        let data_dir = house::data_dir(&mut reader.one("server"));
        let http = house::http(&mut reader);
        match Problems::of(reader.problems, reader.warnings) {
            Some(problems) => Err(problems),
            None => Ok(Location { data_dir, http, path: document.path }),
        }
    }

    /// Every path in it, with its key, absolute: for `check`.
    pub fn paths(&self) -> Vec<(String, PathBuf)> {
        let mut paths = vec![("server.data_dir".to_string(), &self.server.data_dir)];
        for (n, listener) in self.listeners.iter().enumerate() {
            if let Some(files) = &listener.certificate {
                paths.push((format!("listener[{n}].cert"), &files.chain));
                paths.push((format!("listener[{n}].key"), &files.key));
            }
        }
        for (n, esp) in self.esps.iter().enumerate() {
            if let Some(ca_file) = esp.kind.ca_file() {
                paths.push((format!("esp[{n}].ca_file"), ca_file));
            }
        }
        for (n, receiver) in self.receivers.iter().enumerate() {
            if let Some(ca_file) = &receiver.line.ca_file {
                paths.push((format!("notify[{n}].ca_file"), ca_file));
            }
        }
        if let Some(files) = &self.http.certificate {
            paths.push(("http.tls_cert".to_string(), &files.chain));
            paths.push(("http.tls_key".to_string(), &files.key));
        }
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        paths.into_iter().map(|(key, path)| (key, absolute(path))).collect()
    }

    /// The order matters: streams are named by credentials and listeners, listeners by ESPs.
    fn read(reader: &mut Reader<'_>, host_name: &str) -> Self {
        let server = house::server(reader, host_name);
        let streams = streams::read(reader);
        let credentials = clients::credentials(reader, &streams);
        let listeners = clients::listeners(reader, &streams);
        let esps_written = !reader.tables("esp").is_empty();
        let esps = esps::read(reader, &listeners);
        clients::warn_of_bounces(reader, &listeners, &credentials, &esps);
        esps::warn_of_holds(reader, &esps, &streams);
        let http = house::http(reader);
        house::check_http(reader, &http);
        clients::check_side_port(reader, &listeners, http.address);
        let (memory_octets, store) = house::limits(reader, &server, &listeners, &esps);
        let soft = house::suppression(reader);
        let receivers = notify::read(reader);
        later::check(reader);
        Config {
            server,
            listeners,
            credentials,
            streams,
            esps,
            esps_written,
            http,
            memory_octets,
            store,
            soft,
            receivers,
        }
    }
}

/// A configuration as written, with all that it may refer to.
struct Document<'a> {
    path: Option<PathBuf>,
    root: Table,
    sources: Sources<'a>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Document<'a> {
    fn find(path: Option<(&Path, &str)>, environment: &'a Environment) -> Result<Self, Problems> {
        let path = find_file(path, environment)?;
        let mut root = Table::empty(Place::BuiltIn);
        let mut dotenv = (String::from(".env"), Dotenv::default());
        let mut warnings = Vec::new();
        if let Some(path) = &path {
            let file = path.display().to_string();
            let octets = read_config_file(&environment.working_dir.join(path));
            let octets = octets.map_err(|why| Problems::of_file(&file, why))?;
            root = written::parse(&file, &octets).map_err(|problems| {
                Problems::of(problems, Vec::new()).unwrap_or_else(|| Problems::of_file(&file, "is not TOML"))
            })?;
            dotenv = read_dotenv(&path.with_file_name(".env"), environment, &mut warnings);
        }
        let (dotenv_file, dotenv) = dotenv;
        let sources = Sources::new(environment, dotenv_file, dotenv);
        let problems = twins::merge(&mut root, sources.names().into_iter(), |name| sources.variable(name));
        Ok(Document { path, root, sources, problems, warnings })
    }
}

/// Who names the file: whoever runs the command, or the start of the relay that reads it again.
const BY_OPTION: &str = "it was named by --config";
const BY_VARIABLE: &str = "it was named by $POSTROAD_CONFIG";
const BY_START: &str = "the relay was started with it";

/// The file to read, as it is named, and by whom; an explicit one must be there.
fn find_file(path: Option<(&Path, &str)>, environment: &Environment) -> Result<Option<PathBuf>, Problems> {
    let exists = |path: &Path| environment.working_dir.join(path).is_file();
    let by_variable = environment.variables.get(CONFIG_VARIABLE).filter(|value| !value.is_empty());
    let explicit = path.map(|(path, by)| (path.to_path_buf(), by));
    let explicit = explicit.or_else(|| by_variable.map(|value| (value.into(), BY_VARIABLE)));
    if let Some((path, by)) = explicit {
        if environment.working_dir.join(&path).exists() {
            return Ok(Some(path));
        }
        let what = format!("there is no such file; {by}");
        return Err(Problems::of_file(&path.display().to_string(), what));
    }
    let mut places = FILES.map(PathBuf::from).to_vec();
    places.push(environment.system_file.clone());
    Ok(places.into_iter().find(|path| exists(path)))
}

fn of_line(file: &str, (line, what): &(usize, String)) -> Problem {
    let place = Place::Line { file: file.into(), line: *line };
    Problem { place, key: String::new(), what: what.clone() }
}

/// The `.env` at `path` and its name; none is as good as an empty one.
fn read_dotenv(path: &Path, environment: &Environment, warnings: &mut Vec<Problem>) -> (String, Dotenv) {
    let file = path.display().to_string();
    let full = environment.working_dir.join(path);
    // Not `exists`: a link that leads nowhere was meant.
    if full.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return (file, Dotenv::default());
    }
    let text = read_config_file(&full)
        .and_then(|octets| String::from_utf8(octets).map_err(|_| "is not UTF-8".to_string()));
    match text {
        Ok(text) => {
            let dotenv = Dotenv::parse(&text);
            warnings.extend(dotenv.oddities.iter().map(|oddity| of_line(&file, oddity)));
            (file, dotenv)
        }
        Err(what) => {
            let place = Place::File(file.as_str().into());
            warnings.push(Problem { place, key: String::new(), what: format!("{what}; it was passed over") });
            (file, Dotenv::unreadable(what))
        }
    }
}
