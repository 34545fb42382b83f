//! The commands: what `postroad …` reads, prints and exits with.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValue;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::journal;
use crate::mail::MessageId;
use crate::secret::Secret;
use crate::store::Act;

mod backup;
mod check;
mod esp;
mod events;
mod explain;
mod failure;
mod new_config;
mod notify;
mod offline;
mod queue;
mod reach;
mod reload;
mod resolve;
mod send;
mod sendmail;
mod serve;
mod settings;
mod suppress;
mod text;
mod token;
mod trust;
mod webhook;

pub use offline::open_offline;

use failure::Failure;
use sendmail::{EX_DATAERR, EX_TEMPFAIL, EX_USAGE};

/// One local SMTP door to every email service provider.
#[derive(Debug, Parser)]
#[command(name = "postroad", version, about, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not found, 4 no relay answers.

Example: postroad queue list --json";

const SENDMAIL_HELP: &str = "It reads no configuration: mail goes to $POSTROAD_SUBMIT, else 127.0.0.1:2525. Exit codes are those of sysexits.h; 75: nobody answers, try again.
Example: postroad sendmail -t -i -f app@example.com";

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
struct Common {
    /// The configuration [default: $POSTROAD_CONFIG, ./postroad.toml, ./config/postroad.toml, /etc/postroad/postroad.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON object a line, for programs
    #[arg(long, global = true)]
    json: bool,
    /// A relay elsewhere, such as https://mail.example.com:8025; wants --token
    #[arg(long, global = true, value_name = "URL", env = "POSTROAD_URL")]
    url: Option<String>,
    /// PEM of the CA that signed the certificate of the relay at --url, or of that certificate; the relay on this machine
    /// needs none
    #[arg(long, global = true, value_name = "FILE", env = "POSTROAD_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// Its admin token
    #[arg(long, global = true, value_name = "TOKEN", env = "POSTROAD_TOKEN", allow_hyphen_values = true, hide_env_values = true, value_parser = secret)]
    token: Option<Secret>,
}

impl Common {
    /// For a command of which `why` says that it prints no objects.
    fn no_json(&self, why: &str) -> Result<(), Failure> {
        match self.json {
            false => Ok(()),
            true => Err(Failure::Usage(format!("{why}; leave out --json"))),
        }
    }
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay
    #[command(after_help = "Example: postroad serve --config postroad.toml --log-level warn")]
    Serve(ServeArguments),
    /// Read the configuration and say everything that is wrong with it
    #[command(after_help = "Example: postroad check --connect")]
    Check {
        /// Also connect and log in to each ESP, without a mail
        #[arg(long)]
        connect: bool,
    },
    /// Print a file to start from: every key, its default and why one would change it
    #[command(after_help = "Example: postroad new-config --from-env")]
    NewConfig {
        /// An [[esp]] for each of SENDGRID_API_KEY, POSTMARK_API_KEY, AWS_ACCESS_KEY_ID (with AWS_REGION and SES_SMTP_PASSWORD) and SMTP_HOST (with SMTP_PORT, SMTP_USERNAME, SMTP_PASSWORD) that is set, and for what MAILER_DSN names
        #[arg(long)]
        from_env: bool,
    },
    /// Print what a shell needs to complete these commands
    #[command(after_help = "Example: postroad completions bash")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The queue
    #[command(subcommand, after_help = "Example: postroad queue list --state waiting,unsure")]
    Queue(QueueCommand),
    /// A message's life: who sent it, each recipient, each attempt in the provider's own words
    #[command(after_help = "Example: postroad explain 06z3sp6dng800")]
    Explain {
        /// The message
        id: MessageId,
    },
    /// What happened, newest first: what providers told, what was suppressed, expired, alerted
    #[command(
        after_help = "With --follow it goes on until it is ended, and loses nothing while the relay restarts or a backup is \
            restored.\n\n\
            Example: postroad events --unmatched"
    )]
    Events {
        /// Only what providers told of no delivery that is known
        #[arg(long)]
        unmatched: bool,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Those that happen from now on, each as it happens
        #[arg(long, short, conflicts_with = "limit")]
        follow: bool,
    },
    /// Events out to the app: what the receivers of [[notify]] were told, and telling it once more
    #[command(subcommand, after_help = "Example: postroad notify list")]
    Notify(notify::NotifyCommand),
    /// The providers: how each stands, and which gets no mail
    #[command(subcommand, after_help = "Example: postroad esp list")]
    Esp(esp::EspCommand),
    /// The providers' webhooks, by which they tell what became of mail
    #[command(subcommand, after_help = "Example: postroad webhook test postmark")]
    Webhook(webhook::WebhookCommand),
    /// Stop all sending; mail is taken and waits, also over a restart
    #[command(after_help = "Example: postroad pause --reason \"moving the database\"")]
    Pause {
        /// Why: whoever asks later why mail waits is told so
        #[arg(long, value_name = "TEXT", value_parser = crate::http::esps::read_reason)]
        reason: String,
    },
    /// Let sending go on
    #[command(after_help = "Example: postroad unpause")]
    Unpause,
    /// Copy the database into a file of its own, while mail goes on; also of a relay that does not run
    #[command(
        after_help = "The file must not be there. A relay that is started on it begins with all sending paused.\n\n\
            Example: postroad backup postroad-2026-12-01.db"
    )]
    Backup {
        /// The file to be made, on the relay's machine
        file: PathBuf,
    },
    /// Read the configuration again and put it in place, whole or not at all; says what changed
    #[command(after_help = "As SIGHUP does.\n\nExample: postroad reload")]
    Reload,
    /// Who would carry a mail now, and why not the others; nothing is sent
    #[command(after_help = "Example: postroad resolve app@example.com you@example.net")]
    Resolve(resolve::Question),
    /// Send one mail; its text comes from stdin where neither --text nor --html is given
    #[command(
        after_help = "Example: postroad send --from app@example.com --to you@example.net --subject Hi --text Hello"
    )]
    Send(send::Letter),
    /// Who is mailed no more, and why; works without a relay too
    #[command(subcommand, after_help = "Example: postroad suppress list --address gone@example.net")]
    Suppress(suppress::SuppressCommand),
    /// Tokens of the HTTP API, each with what it may do
    #[command(subcommand, after_help = "Example: postroad token create --scope read --name grafana")]
    Token(token::TokenCommand),
    /// Take a message from standard input, as cron, PHP and mutt call sendmail; a link named sendmail does the same
    #[command(after_help = SENDMAIL_HELP)]
    Sendmail {
        /// -t -i -f FROM -F NAME -bs -bp -bv -q, and recipients; what else Postfix's sendmail takes changes nothing
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct ServeArguments {
    /// How log lines look; auto: text on a terminal, JSON elsewhere
    #[arg(long, value_enum, default_value_t)]
    log_format: journal::Format,
    /// How much is logged
    #[arg(long, value_enum, ignore_case = true, default_value_t, env = "POSTROAD_LOG")]
    log_level: journal::Level,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// What is in it, newest first
    #[command(after_help = "Example: postroad queue list --to you@example.net --json")]
    List(ListArguments),
    /// One message and its recipients
    #[command(after_help = "Example: postroad queue show 06z3sp6dng800 --raw")]
    Show {
        /// The message
        id: MessageId,
        /// Its content instead, as it is sent
        #[arg(long)]
        raw: bool,
    },
    /// Try now what waits: these messages, or all
    #[command(after_help = "Example: postroad queue flush 06z3sp6dng800")]
    Flush {
        /// The messages
        ids: Vec<MessageId>,
    },
    /// Stop these messages until they are released
    #[command(after_help = "Example: postroad queue pause 06z3sp6dng800")]
    Pause {
        /// The messages
        #[arg(required = true)]
        ids: Vec<MessageId>,
    },
    /// Let paused messages go on, one for later at its time; ends the hold of those whose answer was lost (they may arrive twice)
    #[command(after_help = "Example: postroad queue release 06z3sp6dng800")]
    Release {
        /// The messages
        #[arg(required = true)]
        ids: Vec<MessageId>,
    },
    /// Take these messages out of the queue
    #[command(alias = "remove", after_help = "Example: postroad queue rm 06z3sp6dng800")]
    Rm {
        /// The messages
        #[arg(required = true)]
        ids: Vec<MessageId>,
    },
    /// Send them again to the recipients that were not served: bounced, expired, removed; while their content is kept
    #[command(after_help = "Example: postroad queue requeue 06z3sp6dng800")]
    Requeue {
        /// The messages
        #[arg(required = true)]
        ids: Vec<MessageId>,
    },
}

/// Which deliveries `queue list` shows.
#[derive(Debug, Clone, Default, Args)]
struct ListArguments {
    /// Only these: waiting, out, unsure, paused, done [default: all but done]
    #[arg(long, value_delimiter = ',', value_parser = crate::http::shape::STATES)]
    state: Vec<String>,
    /// Only this stream
    #[arg(long)]
    stream: Option<String>,
    /// Only to this recipient
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// At most so many; 0: all
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

/// Runs the command that these arguments name (the first is the program) to its end.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let texts: Vec<String> = arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    if let Some((name, rest)) = sendmail::called(&texts) {
        return match sendmail::run(name, rest) {
            sendmail::Done::Exit(code) => ExitCode::from(code),
            sendmail::Done::Queue(words) => {
                sysexit(run(std::iter::once("postroad".to_owned()).chain(words).map(OsString::from)))
            }
        };
    }
    let json = arguments.iter().any(|argument| argument == "--json");
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        // Help and version come this way too, with exit code 0.
        Err(error) if error.exit_code() == 0 || !json => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
        Err(error) => return failed(&Failure::Usage(error.render().to_string()), json),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let done = run_to_its_end(arguments, &mut out);
    // Nothing more goes to a pipe that nobody reads, nor does dropping the buffer try.
    let _ = out.into_parts();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure, json),
    }
}

/// The exit code of a command of the queue for who called it as sendmail, and knows the codes of sysexits.h.
fn sysexit(code: ExitCode) -> ExitCode {
    let codes = [(1, EX_TEMPFAIL), (2, EX_USAGE), (3, EX_DATAERR), (4, EX_TEMPFAIL)];
    let known = codes.into_iter().find(|(ours, _)| code == ExitCode::from(*ours));
    known.map_or(code, |(_, theirs)| ExitCode::from(theirs))
}

fn failed(failure: &Failure, json: bool) -> ExitCode {
    let _ = failure.tell(json, &mut io::stderr());
    ExitCode::from(failure.exit_code())
}

/// What a command has told before it failed is told, too.
fn run_to_its_end(arguments: Arguments, out: &mut impl Write) -> Result<(), Failure> {
    let done = dispatch(arguments, out);
    let flushed = out.flush().map_err(Failure::from);
    done.and(flushed)
}

fn dispatch(arguments: Arguments, out: &mut impl Write) -> Result<(), Failure> {
    let Arguments { common, command } = arguments;
    match command {
        Command::Serve(options) => serve::serve(&common, &options),
        Command::Check { connect } => {
            let loaded = check::check(&common, out)?;
            if connect { brief(check::connect(&common, &loaded.config, out)) } else { Ok(()) }
        }
        Command::NewConfig { from_env } => {
            let variable = |name: &str| std::env::var(name).ok();
            new_config::new_config(&common, from_env, variable, out, &mut io::stderr())
        }
        Command::Completions { shell } => {
            common.no_json("completions prints a script")?;
            // It panics where what it writes to fails: a buffer does not.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "postroad", &mut script);
            Ok(out.write_all(&script)?)
        }
        Command::Explain { id } => brief(explain::explain(&common, id, out)),
        Command::Events { unmatched, follow: true, .. } => brief(events::follow(&common, unmatched, out)),
        Command::Events { unmatched, limit, .. } => brief(events::list(&common, unmatched, limit, out)),
        Command::Notify(command) => brief(notify::run(&common, command, out)),
        Command::Queue(command) => brief(queue_command(&common, command, out)),
        Command::Esp(command) => brief(esp::run(&common, command, out)),
        Command::Webhook(command) => brief(webhook::run(&common, command, out)),
        Command::Send(letter) => brief(send::send(&common, letter, out)),
        Command::Suppress(command) => brief(suppress::run(&common, command, out)),
        Command::Token(command) => brief(token::run(&common, command, out)),
        Command::Pause { reason } => brief(esp::pause_all(&common, &reason, out)),
        Command::Backup { file } => brief(backup::back_up(&common, &file, out)),
        Command::Reload => brief(reload::reload(&common, out)),
        Command::Unpause => brief(esp::unpause_all(&common, out)),
        Command::Resolve(question) => brief(resolve::resolve(&common, &question, out)),
        // It was seen before clap read it.
        Command::Sendmail { arguments } => match sendmail::run("sendmail", &arguments) {
            sendmail::Done::Exit(0) => Ok(()),
            sendmail::Done::Exit(code) => Err(Failure::Sysexit(code)),
            sendmail::Done::Queue(words) => {
                let words = std::iter::once("postroad".to_owned()).chain(words);
                let arguments =
                    Arguments::try_parse_from(words).map_err(|e| Failure::Usage(e.render().to_string()))?;
                dispatch(Arguments { common, ..arguments }, out)
            }
        },
    }
}

async fn queue_command(common: &Common, command: QueueCommand, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        QueueCommand::List(options) => queue::list(common, &options, out).await,
        QueueCommand::Show { raw: true, .. } if common.json => {
            Err(Failure::Usage(queue::RAW_IS_NO_JSON.into()))
        }
        QueueCommand::Show { id, raw: true } => queue::raw(common, id, out).await,
        QueueCommand::Show { id, raw: false } => queue::show(common, id, out).await,
        QueueCommand::Flush { ids } => queue::act(common, Act::Flush, &ids, out).await,
        QueueCommand::Pause { ids } => queue::act(common, Act::Pause, &ids, out).await,
        QueueCommand::Release { ids } => queue::act(common, Act::Release, &ids, out).await,
        QueueCommand::Requeue { ids } => queue::requeue(common, &ids, out).await,
        QueueCommand::Rm { ids } => queue::act(common, Act::Remove, &ids, out).await,
    }
}

/// Runs a short command on this thread alone.
fn brief(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Failure::Failed(format!("cannot start: {e}")))?.block_on(command)
}

impl ValueEnum for journal::Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[journal::Format::Auto, journal::Format::Text, journal::Format::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            journal::Format::Auto => "auto",
            journal::Format::Text => "text",
            journal::Format::Json => "json",
        }))
    }
}

impl ValueEnum for journal::Level {
    fn value_variants<'a>() -> &'a [Self] {
        use journal::Level::{Debug, Error, Info, Trace, Warn};
        &[Error, Warn, Info, Debug, Trace]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            journal::Level::Error => "error",
            journal::Level::Warn => "warn",
            journal::Level::Info => "info",
            journal::Level::Debug => "debug",
            journal::Level::Trace => "trace",
        }))
    }
}

#[cfg(test)]
mod esp_tests;
#[cfg(test)]
mod queue_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent_and_name_every_command() {
        Arguments::command().debug_assert();
        for line in [
            "serve --log-format json --log-level warn --config x.toml",
            "check",
            "check --connect",
            "new-config --from-env",
            "completions zsh",
            "queue list --state waiting,unsure --to a@b --limit 0 --json",
            "queue show 01jd3k5v9m2xq --raw",
            "queue flush",
            "queue flush 01jd3k5v9m2xq",
            "queue pause 01jd3k5v9m2xq 01jd3k5v9m2xr",
            "queue rm 01jd3k5v9m2xq --url http://x --token y",
            "queue requeue 01jd3k5v9m2xq",
            "explain 01jd3k5v9m2xq",
            "esp list --json",
            "esp suspend ses-main --reason invoice --for 2h",
            "esp suspend ses-main --reason=invoice",
            "esp resume ses-main",
            "esp test ses-main --send a@b.example --from c@d.example",
            "pause --reason=moving",
            "unpause",
            "backup /var/backups/postroad.db --json",
            "reload --json",
            "resolve app@example.com you@example.net --stream newsletter",
            "token create --scope send --scope read --name shop",
            "token list",
            "notify list --failed --receiver app --limit 5",
            "notify replay evt_0123456789abcdef",
            "notify replay --since 2h --receiver app",
            "send --from a@b.example --to c@d.example --to e@f.example --subject x --text y --header X-N:1 --attach z",
            "token revoke 3",
            "resolve <> you@example.net",
            "resolve example.com <you@example.net>",
        ] {
            let parsed = Arguments::try_parse_from(["postroad"].into_iter().chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
    }

    /// The paths of all commands below this one, with their help.
    fn below(command: &clap::Command, path: &str, out: &mut Vec<(String, String)>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        out.push((path.to_owned(), help));
        for sub in command.get_subcommands() {
            below(sub, &format!("{path} {}", sub.get_name()), out);
        }
    }

    #[test]
    fn every_command_shows_an_example_of_itself_that_is_right() {
        let mut commands = Vec::new();
        below(&Arguments::command(), "postroad", &mut commands);
        assert!(commands.iter().any(|(path, _)| path == "postroad queue list"));
        for (path, help) in commands {
            let example = help.lines().find_map(|line| line.strip_prefix("Example: "));
            let example = example.unwrap_or_else(|| panic!("{path} --help has no Example: {help}"));
            assert!(example.starts_with(&path), "{path}: {example}");
            // What stands in quotes is one word.
            let words = example.split('"').enumerate().flat_map(|(n, piece)| match n % 2 {
                0 => piece.split_whitespace().collect::<Vec<_>>(),
                _ => vec![piece],
            });
            let parsed = Arguments::try_parse_from(words);
            assert!(parsed.is_ok(), "{example}: {parsed:?}");
        }
    }

    #[test]
    fn wrong_usage_is_exit_code_2_and_help_is_0() {
        for line in [
            "",
            "queue",
            "queue pause",
            "queue show x",
            "queue list --state lost",
            "explain",
            "sevre",
            "esp",
            "esp suspend a",
            "esp suspend a --reason=",
            "esp suspend a --reason x --for soon",
            "esp suspend a --reason x --for 0s",
            "esp resume",
            "token create",
            "send --from a@b.example --subject x",
            "send --from a@b.example --to c@d.example --subject x --header y",
            "token create --scope write",
            "token revoke x",
            "notify replay",
            "notify replay evt_1 --failed",
            "notify list --state lost",
            "resolve a@b.example",
            "resolve a@b@c d@e.example",
            "resolve a@b.example d",
        ] {
            let words = line.split(' ').filter(|w| !w.is_empty());
            let error = Arguments::try_parse_from(["postroad"].into_iter().chain(words)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert_eq!(Arguments::try_parse_from(["postroad", "--help"]).unwrap_err().exit_code(), 0);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let arguments = Arguments::try_parse_from(["postroad", "check"]).unwrap();
        let failure = dispatch(arguments, &mut Closed).unwrap_err();
        assert_eq!(failure, Failure::NobodyReads);
        assert_eq!(failure.exit_code(), 0);
    }
}
