//! `postroad new-config`: a file to start from.

mod mailer_dsn;
mod second_names;
mod urls;

use std::io::Write;
use std::net::Ipv6Addr;

use super::{Common, Failure};
use crate::address::domain_ok;

/// Every key with its default and why one would change it.
const WHOLE: &str = include_str!("../../config/postroad.toml");

/// Each says that an ESP is used: by the names that the vendors' own libraries read, and those of frameworks.
const NAMED_BY: [&str; 15] = [
    SENDGRID_KEY,
    "POSTMARK_API_KEY",
    "POSTMARK_SERVER_TOKEN",
    "POSTMARK_API_TOKEN",
    "POSTMARK_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "SMTP_HOST",
    "MAIL_HOST",
    "EMAIL_HOST",
    "SMTP_ADDRESS",
    "SMTP_SERVER",
    "SMTP_URL",
    "MAIL_URL",
    "EMAIL_URL",
    mailer_dsn::NAME,
];
const SENDGRID_KEY: &str = "SENDGRID_API_KEY";
const POSTMARK: [&str; 4] =
    ["POSTMARK_API_KEY", "POSTMARK_SERVER_TOKEN", "POSTMARK_API_TOKEN", "POSTMARK_TOKEN"];
const TRUE: &[&str] = &["true", "1", "yes", "on"];

/// The names by which one family of programs knows its mail server.
struct SmtpNames {
    host: &'static str,
    port: &'static str,
    users: &'static [&'static str],
    passwords: &'static [&'static str],
    /// These variables, with these values, mean TLS from the first octet.
    implicit: Meaning,
    /// And these STARTTLS.
    starttls: Meaning,
}

type Meaning = &'static [(&'static str, &'static [&'static str])];

/// Those of most libraries, of Laravel, of Django, of Rails, and of Mastodon.
const SMTP_NAMES: [SmtpNames; 5] = [
    SmtpNames {
        host: "SMTP_HOST",
        port: "SMTP_PORT",
        users: &["SMTP_USERNAME", "SMTP_USER", "SMTP_USER_NAME", "SMTP_LOGIN"],
        passwords: &["SMTP_PASSWORD", "SMTP_PASS"],
        implicit: &[],
        starttls: &[("SMTP_TLS", TRUE), ("SMTP_STARTTLS", TRUE)],
    },
    SmtpNames {
        host: "MAIL_HOST",
        port: "MAIL_PORT",
        users: &["MAIL_USERNAME"],
        passwords: &["MAIL_PASSWORD"],
        implicit: &[("MAIL_ENCRYPTION", &["ssl"]), ("MAIL_SCHEME", &["smtps"])],
        starttls: &[("MAIL_ENCRYPTION", &["tls", "starttls"])],
    },
    SmtpNames {
        host: "EMAIL_HOST",
        port: "EMAIL_PORT",
        users: &["EMAIL_HOST_USER"],
        passwords: &["EMAIL_HOST_PASSWORD"],
        implicit: &[("EMAIL_USE_SSL", TRUE)],
        starttls: &[("EMAIL_USE_TLS", TRUE)],
    },
    SmtpNames {
        host: "SMTP_ADDRESS",
        port: "SMTP_PORT",
        users: &["SMTP_USER_NAME", "SMTP_USERNAME", "SMTP_USER", "SMTP_LOGIN"],
        passwords: &["SMTP_PASSWORD", "SMTP_PASS"],
        implicit: &[("SMTP_SSL", TRUE), ("SMTP_TLS", TRUE)],
        starttls: STARTTLS_OF_RUBY,
    },
    SmtpNames {
        host: "SMTP_SERVER",
        port: "SMTP_PORT",
        users: &["SMTP_LOGIN", "SMTP_USERNAME", "SMTP_USER", "SMTP_USER_NAME"],
        passwords: &["SMTP_PASSWORD", "SMTP_PASS"],
        implicit: &[("SMTP_SSL", TRUE), ("SMTP_TLS", TRUE)],
        starttls: STARTTLS_OF_RUBY,
    },
];
const STARTTLS_OF_RUBY: Meaning =
    &[("SMTP_ENABLE_STARTTLS", &["true", "1", "yes", "on", "always"]), ("SMTP_ENABLE_STARTTLS_AUTO", TRUE)];
/// Where no port is set: submission with STARTTLS, and with TLS from the first octet.
const SUBMISSION: u16 = 587;
const SUBMISSIONS: u16 = 465;
/// Where a relay listens by default.
const OWN_PORT: u16 = 2525;

const SENDGRID: &str =
    "[[esp]]\nname = \"sendgrid\"\ntype = \"sendgrid\"\napi_key = \"env:SENDGRID_API_KEY\"\n";
const SMARTHOST: &str = "[[esp]]\nname = \"smarthost\"";
/// Why the keys of Amazon's API alone are no ESP.
const SES_UNUSED: &str = "AWS_ACCESS_KEY_ID is set and AWS_REGION is not: Amazon SES has an address of its own in each \
    region; set AWS_REGION, such as eu-central-1, and ask again";

/// What the environment says of ESPs.
#[derive(Debug, Default)]
struct Found {
    /// A table for each that can be used.
    tables: Vec<String>,
    /// What is there and cannot be used, or is not, with what to do.
    unused: Vec<String>,
    /// What is wrong, with the variable.
    faults: Vec<String>,
}

/// Prints the whole file or, `from_env`, one with an `[[esp]]` for each key that `variable` finds in the environment;
/// what it cannot use of that is said on `err`, too.
pub(super) fn new_config(
    common: &Common,
    from_env: bool,
    variable: impl Fn(&str) -> Option<String>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), Failure> {
    common.no_json("new-config prints a file in TOML")?;
    if !from_env {
        return Ok(out.write_all(WHOLE.as_bytes())?);
    }
    // Laravel writes null for what is not set.
    let is_said = |value: &String| !value.is_empty() && value != "null";
    let set = |name: &str| variable(name).map(|v| v.trim().to_owned()).filter(is_said);
    let found = found(&set);
    if !found.faults.is_empty() {
        return Err(Failure::Usage(found.faults.join("; ")));
    }
    if found.tables.is_empty() {
        return Err(Failure::Usage(match found.unused.is_empty() {
            false => format!("no file was made: {}", found.unused.join("; ")),
            true => format!("none of these is set in the environment: {}", NAMED_BY.join(", ")),
        }));
    }
    writeln!(
        out,
        "# Made from the environment. `postroad check` reads it, `postroad new-config` prints every other key."
    )?;
    for table in &found.tables {
        write!(out, "\n{table}")?;
    }
    for unused in &found.unused {
        write!(out, "\n{}", comment(unused))?;
        // Who has closed standard error reads the file.
        let _ = writeln!(err, "postroad: {unused}");
    }
    Ok(())
}

fn found(set: &impl Fn(&str) -> Option<String>) -> Found {
    let mut found = Found::default();
    if set(SENDGRID_KEY).is_some() {
        found.tables.push(SENDGRID.to_owned());
    }
    if let Some(variable) = POSTMARK.into_iter().find(|name| set(name).is_some()) {
        found.tables.push(format!(
            "[[esp]]\nname = \"postmark\"\ntype = \"postmark\"\nserver_token = \"env:{variable}\"\n"
        ));
    }
    if set("AWS_ACCESS_KEY_ID").is_some() {
        ses(set, &mut found);
    }
    // Several families may name the same server: one table is enough.
    let by_name = SMTP_NAMES.iter().find_map(|names| Some((names, set(names.host)?)));
    match by_name {
        // Of several names the first counts, see `second_names`.
        Some((names, host)) => smarthost(names, &host, set, &mut found),
        None => urls::first(set, &mut found),
    }
    mailer_dsn::read(set, &mut found);
    found.unused.extend(second_names::told(&found.tables.concat(), set));
    found
}

fn region(set: &impl Fn(&str) -> Option<String>) -> Option<String> {
    set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION")).or_else(|| mailer_dsn::region(set))
}

/// Amazon SES: with keys that do not end, else by AWS's default chain; at its SMTP endpoint alone where a password was
/// made for that and no secret key is there.
fn ses(set: &impl Fn(&str) -> Option<String>, found: &mut Found) {
    let Some(region) = region(set) else {
        return found.unused.push(SES_UNUSED.to_owned());
    };
    let host = format!("email-smtp.{region}.amazonaws.com");
    if region.contains('.') || !domain_ok(&host) {
        return found
            .faults
            .push(format!("AWS_REGION is {region:?}, which is no region; write it as us-east-1"));
    }
    let keys =
        "access_key_id = \"env:AWS_ACCESS_KEY_ID\"\nsecret_access_key = \"env:AWS_SECRET_ACCESS_KEY\"\n";
    let is_set = |name: &str| set(name).is_some();
    found.tables.push(match (is_set("AWS_SECRET_ACCESS_KEY"), is_set("SES_SMTP_PASSWORD")) {
        (false, true) => format!(
            "[[esp]]\nname = \"ses\"\ntype = \"smtp\"\naddress = \"{host}:587\"\n\
             username = \"env:AWS_ACCESS_KEY_ID\"\npassword = \"env:SES_SMTP_PASSWORD\"\n"
        ),
        (true, _) if !is_set("AWS_SESSION_TOKEN") => {
            format!("[[esp]]\nname = \"ses\"\ntype = \"ses\"\nregion = \"{region}\"\n{keys}")
        }
        _ => format!(
            "# Keys that end with a session come by AWS's default chain, as its own tools find them.\n\
             [[esp]]\nname = \"ses\"\ntype = \"ses\"\nregion = \"{region}\"\n"
        ),
    });
}

/// Host, port and login of any server.
fn smarthost(names: &SmtpNames, host: &str, set: &impl Fn(&str) -> Option<String>, found: &mut Found) {
    let is = |(variable, values): &(&str, &[&str])| {
        set(variable).is_some_and(|value| values.contains(&value.to_ascii_lowercase().as_str()))
    };
    let tls = match (names.implicit.iter().any(is), names.starttls.iter().any(is)) {
        (true, _) => Tls::Implicit,
        (false, true) => Tls::Upgraded,
        (false, false) => Tls::Unasked,
    };
    let port = port(names.port, tls, set).map_err(|fault| found.faults.push(fault));
    let login = login(names, set).map_err(|fault| found.faults.push(fault));
    let host = bracketed(host).map_err(|_| {
        found.faults.push(format!(
            "{} is {host:?}, which is no host name or IP address; its port goes in {}",
            names.host, names.port
        ));
    });
    if let (Ok(host), Ok(port), Ok(login)) = (host, port, login) {
        server(names.host, &Server { host, port, tls, login }, found);
    }
}

/// What is asked for on the line to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    Unasked,
    Upgraded,
    Implicit,
}

impl Tls {
    /// Where none is set.
    fn port(self) -> u16 {
        match self {
            Tls::Implicit => SUBMISSIONS,
            Tls::Unasked | Tls::Upgraded => SUBMISSION,
        }
    }
}

/// A server that takes mail for others.
struct Server {
    host: String,
    port: u16,
    tls: Tls,
    /// The lines of its login.
    login: String,
}

fn server(variable: &str, server: &Server, found: &mut Found) {
    let Server { host, port, tls, login } = server;
    let is_here = matches!(host.to_ascii_lowercase().as_str(), "localhost" | "127.0.0.1" | "[::1]");
    if *port == OWN_PORT && is_here {
        return found.unused.push(format!(
            "{variable} leads to port {OWN_PORT} of this machine, where a relay listens: it would mail itself"
        ));
    }
    let tls = match tls {
        _ if *port == SUBMISSIONS => "tls = \"implicit\"\n",
        Tls::Implicit => "tls = \"implicit\"\n",
        // A server for development speaks none, and nobody listens on this line.
        Tls::Unasked if is_here => "tls = \"off\"\n",
        Tls::Upgraded | Tls::Unasked => "",
    };
    found.tables.push(format!(
        "# 587 is usual with STARTTLS, 465 with tls = \"implicit\"; tls = \"off\" for a server without TLS.\n\
         {SMARTHOST}\ntype = \"smtp\"\naddress = \"{host}:{port}\"\n{tls}{login}"
    ));
}

/// An IPv6 address stands in brackets before a port.
fn bracketed(host: &str) -> Result<String, ()> {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match inner.parse::<Ipv6Addr>() {
        Ok(_) => Ok(format!("[{inner}]")),
        Err(_) if domain_ok(host) && !host.starts_with('[') => Ok(host.to_owned()),
        Err(_) => Err(()),
    }
}

fn port(variable: &str, tls: Tls, set: &impl Fn(&str) -> Option<String>) -> Result<u16, String> {
    let Some(text) = set(variable) else { return Ok(tls.port()) };
    let port = text.parse::<u16>().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("{variable} is {text:?}, which is no port; write a number from 1 to 65535"))
}

/// The lines of a login; none where neither part is set.
fn login(names: &SmtpNames, set: &impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let first = |names: &[&'static str]| names.iter().copied().find(|name| set(name).is_some());
    match (first(names.users), first(names.passwords)) {
        (None, None) => Ok(String::new()),
        (Some(user), Some(password)) => {
            Ok(format!("username = \"env:{user}\"\npassword = \"env:{password}\"\n"))
        }
        (Some(user), None) => {
            let wanted = names.passwords.first().copied().unwrap_or_default();
            Err(format!("{user} is set and no password; set {wanted}, or unset {user}"))
        }
        (None, Some(password)) => {
            let wanted = names.users.first().copied().unwrap_or_default();
            Err(format!("{password} is set and no user; set {wanted}, or unset {password}"))
        }
    }
}

/// The text as comment lines.
fn comment(text: &str) -> String {
    let (mut out, mut line) = (String::new(), String::from("#"));
    for word in text.split(' ') {
        if line.len() + word.len() > 110 {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    format!("{out}{line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    fn made(variables: &[(&str, &str)]) -> Result<String, Failure> {
        told(variables).map(|(out, _)| out)
    }

    /// The file, and what is said beside it.
    fn told(variables: &[(&str, &str)]) -> Result<(String, String), Failure> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let done = new_config(&Common::default(), true, variable, &mut out, &mut err);
        assert!(done.is_ok() || out.is_empty(), "a part of a file is no file");
        done.map(|()| (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap()))
    }

    /// The names of the ESPs of a file, read with these variables.
    fn esps(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("postroad.toml");
        std::fs::write(&file, text).unwrap();
        let environment = Environment {
            variables: variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect(),
            working_dir: folder.path().to_owned(),
            ..Environment::of_process()
        };
        let loaded = Config::load(Some(&file), &environment);
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        loaded.config.esps.iter().map(|esp| esp.name.clone()).collect()
    }

    #[test]
    fn what_is_made_from_the_environment_is_a_configuration_that_works() {
        let variables = [
            ("SENDGRID_API_KEY", "SG.k3y"),
            ("POSTMARK_API_KEY", "t0ken"),
            ("AWS_ACCESS_KEY_ID", "AKIA"),
            ("SMTP_HOST", "mail.example.net"),
            ("SMTP_PORT", "465"),
            ("SMTP_USER", "u"),
            ("SMTP_PASS", "s3cret"),
        ];
        let (text, said) = told(&variables).unwrap();
        assert_eq!(esps(&text, &variables), ["sendgrid", "postmark", "smarthost"]);
        for words in [&text.replace("\n# ", " "), &said] {
            assert!(words.contains("AWS_REGION is not"), "{words}");
        }
        for secret in ["SG.k3y", "t0ken", "s3cret"] {
            assert!(!text.contains(secret), "keys stay in the environment: {text}");
        }
        assert!(text.contains("\"mail.example.net:465\"\ntls = \"implicit\"\n"), "{text}");
        let variables = [("SMTP_HOST", "mail.example.net")];
        assert_eq!(esps(&made(&variables).unwrap(), &variables), ["smarthost"]);
    }

    #[test]
    fn second_names_that_say_something_else_are_told_in_the_file_and_beside_it() {
        let variables = [("POSTMARK_API_KEY", "t0ken"), ("POSTMARK_SERVER_TOKEN", "an0ther")];
        let (text, said) = told(&variables).unwrap();
        assert_eq!(esps(&text, &variables), ["postmark"]);
        for words in [&text.replace("\n# ", " "), &said] {
            assert!(
                words.contains("POSTMARK_SERVER_TOKEN says something else than POSTMARK_API_KEY"),
                "{words}"
            );
            assert!(!words.contains("t0ken") && !words.contains("an0ther"), "{words}");
        }
    }

    #[test]
    fn where_the_environment_names_none_that_is_told() {
        let failure = made(&[("SENDGRID_API_KEY", " ")]).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.message().unwrap().contains("SENDGRID_API_KEY, POSTMARK_API_KEY"));
    }

    #[test]
    fn keys_that_cannot_be_used_make_no_file() {
        let failure = made(&[("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "k")]).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.message().unwrap().contains("set AWS_REGION"), "{failure:?}");
        let variables =
            [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_REGION", "eu-west-1"), ("SES_SMTP_PASSWORD", "s3cret")];
        let (text, said) = told(&variables).unwrap();
        assert_eq!((esps(&text, &variables), said.as_str()), (vec!["ses".to_owned()], ""));
        assert!(
            text.contains("email-smtp.eu-west-1.amazonaws.com:587") && !text.contains("s3cret"),
            "{text}"
        );
    }

    #[test]
    fn amazon_goes_by_its_api_with_keys_that_last_or_by_its_chain() {
        let lasting =
            [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "s3cret"), ("AWS_REGION", "eu-west-1")];
        let text = made(&lasting).unwrap();
        assert_eq!(esps(&text, &lasting), ["ses"]);
        assert!(text.contains("type = \"ses\"\nregion = \"eu-west-1\"\naccess_key_id"), "{text}");
        let session = [&lasting[..], &[("AWS_SESSION_TOKEN", "t0ken")]].concat();
        let text = made(&session).unwrap();
        assert_eq!(esps(&text, &session), ["ses"]);
        assert!(!text.contains("access_key_id") && !text.contains("t0ken"), "{text}");
    }

    #[test]
    fn the_names_of_frameworks_are_known() {
        for (variables, esp, lines) in [
            (&[("POSTMARK_API_TOKEN", "t0ken")][..], "postmark", &["env:POSTMARK_API_TOKEN"][..]),
            (
                &[
                    ("MAIL_HOST", "mail.example.net"),
                    ("MAIL_PORT", "587"),
                    ("MAIL_USERNAME", "u"),
                    ("MAIL_PASSWORD", "s3cret"),
                    ("MAIL_ENCRYPTION", "tls"),
                ],
                "smarthost",
                &["\"mail.example.net:587\"", "env:MAIL_USERNAME", "env:MAIL_PASSWORD"],
            ),
            (
                &[("MAIL_HOST", "mail.example.net"), ("MAIL_USERNAME", "null"), ("MAIL_ENCRYPTION", "ssl")],
                "smarthost",
                &["\"mail.example.net:465\"", "implicit"],
            ),
            (
                &[
                    ("EMAIL_HOST", "mail.example.net"),
                    ("EMAIL_HOST_USER", "u"),
                    ("EMAIL_HOST_PASSWORD", "s3cret"),
                    ("EMAIL_USE_SSL", "True"),
                ],
                "smarthost",
                &["\"mail.example.net:465\"", "implicit", "env:EMAIL_HOST_USER", "env:EMAIL_HOST_PASSWORD"],
            ),
            (
                &[
                    ("SMTP_HOST", "a.example.net"),
                    ("EMAIL_HOST", "b.example.net"),
                    ("SMTP_URL", "smtp://c.example.net"),
                ],
                "smarthost",
                &["\"a.example.net:587\""],
            ),
            (
                &[("SMTP_URL", "smtps://mail.example.net")],
                "smarthost",
                &["\"mail.example.net:465\"", "implicit"],
            ),
            (
                &[
                    ("SMTP_URL", "smtp://a+b%40example.org:s3cret@mail.example.net:25"),
                    ("SMTP_PASSWORD", "s3cret"),
                ],
                "smarthost",
                &["\"mail.example.net:25\"", "username = \"a+b@example.org\"", "env:SMTP_PASSWORD"],
            ),
        ] {
            let text = made(variables).unwrap();
            assert_eq!(esps(&text, variables), [esp], "{text}");
            assert!(lines.iter().all(|line| text.contains(line)) && !text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn more_names_of_frameworks_are_known() {
        let rails =
            [("SMTP_ADDRESS", "mail.example.net"), ("SMTP_USER_NAME", "u"), ("SMTP_PASSWORD", "s3cret")];
        let mastodon = [
            ("SMTP_SERVER", "mail.example.net"),
            ("SMTP_PORT", "25"),
            ("SMTP_LOGIN", "u"),
            ("SMTP_PASSWORD", "s3cret"),
        ];
        let by_url = |name, url| vec![(name, url), ("SMTP_PASSWORD", "s3cret")];
        for (variables, esp, line) in [
            (vec![("POSTMARK_TOKEN", "s3cret")], "postmark", "\"env:POSTMARK_TOKEN\""),
            (rails.to_vec(), "smarthost", "net:587\"\nusername = \"env:SMTP_USER_NAME\""),
            (mastodon.to_vec(), "smarthost", "net:25\"\nusername = \"env:SMTP_LOGIN\""),
            ([&mastodon[..], &[("SMTP_TLS", "true")]].concat(), "smarthost", "net:25\"\ntls = \"implicit\""),
            (
                by_url("MAIL_URL", "smtp://u:s3cret@a.example.net:2587"),
                "smarthost",
                "net:2587\"\nusername = \"u\"",
            ),
            (
                by_url("MAIL_URL", "smtps://u:s3cret@a.example.net"),
                "smarthost",
                "net:465\"\ntls = \"implicit\"",
            ),
            (
                by_url("EMAIL_URL", "smtp+tls://u:s3cret@a.example.net:587"),
                "smarthost",
                "net:587\"\nusername",
            ),
            (
                by_url("EMAIL_URL", "smtp+ssl://u:s3cret@a.example.net"),
                "smarthost",
                "net:465\"\ntls = \"implicit\"",
            ),
            (by_url("EMAIL_URL", "smtps://u:s3cret@a.example.net:587"), "smarthost", "net:587\"\nusername"),
        ] {
            let (text, said) = told(&variables).unwrap();
            assert_eq!(esps(&text, &variables), [esp], "{text}");
            assert!(text.contains(line) && !text.contains("s3cret"), "{line}: {text}");
            assert_eq!(said, "");
        }
    }

    #[test]
    fn a_url_that_is_about_something_else_stops_no_file() {
        for (name, url) in
            [("EMAIL_URL", "consolemail://"), ("MAIL_URL", "https://u:s3cret@mail.example.net/")]
        {
            let variables = [("SENDGRID_API_KEY", "k"), (name, url)];
            let (text, said) = told(&variables).unwrap();
            assert_eq!(esps(&text, &variables), ["sendgrid"]);
            assert!(said.contains(&format!("{name} leads to no server of SMTP")), "{said}");
            assert!(!text.contains("s3cret") && !said.contains("s3cret"), "{text}{said}");
        }
    }

    #[test]
    fn a_server_of_this_machine_is_spoken_to_without_tls_unless_that_is_asked_for() {
        const OFF: &str = "tls = \"off\"\n";
        for (variables, line) in [
            (&[("MAILER_DSN", "smtp://localhost:1025")][..], OFF),
            (&[("MAILER_DSN", "smtps://localhost:1465")], "tls = \"implicit\"\n"),
            (&[("MAILER_DSN", "smtp://localhost:1025?require_tls=true")], ""),
            (&[("MAILER_DSN", "smtp://mail.example.net:1025")], ""),
            (&[("SMTP_URL", "smtp://[::1]:1025")], OFF),
            (&[("EMAIL_URL", "smtp+tls://localhost:1025")], ""),
            (&[("SMTP_HOST", "::1"), ("SMTP_PORT", "1025")], OFF),
            (&[("SMTP_SERVER", "localhost"), ("SMTP_PORT", "25"), ("SMTP_ENABLE_STARTTLS", "always")], ""),
            (&[("MAIL_HOST", "127.0.0.1"), ("MAIL_PORT", "1025"), ("MAIL_ENCRYPTION", "null")], OFF),
            (&[("MAIL_HOST", "127.0.0.1"), ("MAIL_PORT", "1025"), ("MAIL_ENCRYPTION", "")], OFF),
            (&[("MAIL_HOST", "127.0.0.1"), ("MAIL_PORT", "1025"), ("MAIL_ENCRYPTION", "tls")], ""),
            (&[("MAIL_HOST", "mailpit"), ("MAIL_PORT", "1025"), ("MAIL_ENCRYPTION", "null")], ""),
            (&[("EMAIL_HOST", "localhost"), ("EMAIL_PORT", "1025"), ("EMAIL_USE_TLS", "False")], OFF),
            (&[("EMAIL_HOST", "localhost"), ("EMAIL_PORT", "1025")], OFF),
            (&[("EMAIL_HOST", "localhost"), ("EMAIL_PORT", "1025"), ("EMAIL_USE_TLS", "True")], ""),
            (&[("EMAIL_HOST", "localhost"), ("EMAIL_USE_SSL", "True")], "tls = \"implicit\"\n"),
        ] {
            let text = made(variables).unwrap();
            assert_eq!(esps(&text, variables), ["smarthost"]);
            let (_, tail) = text.split_once("address = ").unwrap();
            let (_, tail) = tail.split_once('\n').unwrap();
            assert_eq!(tail, line, "{variables:?}: {text}");
        }
    }

    #[test]
    fn a_url_with_a_password_and_a_server_that_is_this_one_make_no_file() {
        for (variables, told) in [
            (&[("SMTP_URL", "smtp://u:s3cret@mail.example.net")][..], "set SMTP_PASSWORD"),
            (&[("MAIL_HOST", "127.0.0.1"), ("MAIL_PORT", "2525")], "it would mail itself"),
            (&[("SMTP_URL", "smtp://localhost:2525")], "it would mail itself"),
        ] {
            let failure = made(variables).unwrap_err();
            let message = failure.message().unwrap();
            assert!(message.contains(told) && !message.contains("s3cret"), "{message}");
            assert_eq!(failure.exit_code(), 2);
        }
        let failure = made(&[("SMTP_URL", "http://u:s3cret@x")]).unwrap_err();
        assert!(failure.exit_code() == 2 && !failure.message().unwrap().contains("s3cret"), "{failure:?}");
    }

    #[test]
    fn an_ipv6_host_stands_in_brackets() {
        for host in ["::1", "[::1]"] {
            let variables = [("SMTP_HOST", host)];
            let text = made(&variables).unwrap();
            assert!(text.contains("address = \"[::1]:587\""), "{text}");
            assert_eq!(esps(&text, &variables), ["smarthost"]);
        }
    }

    #[test]
    fn what_is_wrong_is_told_at_once_and_makes_no_file() {
        let host = ("SMTP_HOST", "mail.example.net");
        for (variables, told) in [
            (&[host, ("SMTP_PORT", "smtp"), ("SMTP_USER", "u")][..], &["SMTP_PORT", "SMTP_USER is set"][..]),
            (&[host, ("SMTP_PORT", "0")], &["SMTP_PORT"]),
            (&[host, ("SMTP_PASSWORD", "s3cret")], &["SMTP_PASSWORD is set"]),
            (&[("SMTP_HOST", "mail.example.net:25")], &["SMTP_PORT"]),
            (&[("SMTP_HOST", "a\"b"), ("SENDGRID_API_KEY", "k")], &["SMTP_HOST"]),
        ] {
            let failure = made(variables).unwrap_err();
            let message = failure.message().unwrap();
            assert_eq!(failure.exit_code(), 2, "{message}");
            assert!(
                told.iter().all(|word| message.contains(word)) && !message.contains("s3cret"),
                "{message}"
            );
        }
    }
}
