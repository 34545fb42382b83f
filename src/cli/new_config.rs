//! `postroad new-config`: a file to start from.

use std::io::Write;
use std::net::Ipv6Addr;

use super::{Common, Failure};
use crate::address::domain_ok;

/// Every key with its default and why one would change it.
const WHOLE: &str = include_str!("../../config/postroad.toml");

/// Each says that an ESP is used: by the names that the vendors' own libraries read.
const NAMED_BY: [&str; 5] =
    ["SENDGRID_API_KEY", "POSTMARK_API_KEY", "POSTMARK_SERVER_TOKEN", "AWS_ACCESS_KEY_ID", "SMTP_HOST"];

const SENDGRID: &str =
    "[[esp]]\nname = \"sendgrid\"\ntype = \"sendgrid\"\napi_key = \"env:SENDGRID_API_KEY\"\n";
/// Why the keys of Amazon's API alone are no ESP.
const SES_UNUSED: &str = "AWS_ACCESS_KEY_ID is set and AWS_REGION is not: Amazon SES has an address of its own in each \
    region; set AWS_REGION, such as eu-central-1, and ask again";

/// What the environment says of ESPs.
#[derive(Debug, Default)]
struct Found {
    /// A table for each that can be used.
    tables: Vec<String>,
    /// What is there and cannot be used, with what to do.
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
    let set = |name: &str| variable(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
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
    for variable in NAMED_BY {
        let Some(value) = set(variable) else { continue };
        match variable {
            "SENDGRID_API_KEY" => found.tables.push(SENDGRID.to_owned()),
            "POSTMARK_SERVER_TOKEN" if set("POSTMARK_API_KEY").is_some() => {}
            "POSTMARK_API_KEY" | "POSTMARK_SERVER_TOKEN" => found.tables.push(format!(
                "[[esp]]\nname = \"postmark\"\ntype = \"postmark\"\nserver_token = \"env:{variable}\"\n"
            )),
            "AWS_ACCESS_KEY_ID" => ses(set, &mut found),
            _ => smarthost(&value, set, &mut found),
        }
    }
    found
}

/// Amazon SES: with keys that do not end, else by AWS's default chain; at its SMTP endpoint alone where a password was
/// made for that and no secret key is there.
fn ses(set: &impl Fn(&str) -> Option<String>, found: &mut Found) {
    let Some(region) = set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION")) else {
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

/// Host, port and login of any server, by the names that most libraries read.
fn smarthost(host: &str, set: &impl Fn(&str) -> Option<String>, found: &mut Found) {
    let port = port(set).map_err(|fault| found.faults.push(fault));
    let login = login(set).map_err(|fault| found.faults.push(fault));
    let host = bracketed(host).map_err(|fault| found.faults.push(fault));
    if let (Ok(host), Ok(port), Ok(login)) = (host, port, login) {
        let implicit = if port == 465 { "tls = \"implicit\"\n" } else { "" };
        found.tables.push(format!(
            "# 587 is usual with STARTTLS, 465 with tls = \"implicit\"; tls = \"off\" for a server without TLS.\n\
             [[esp]]\nname = \"smarthost\"\ntype = \"smtp\"\naddress = \"{host}:{port}\"\n{implicit}{login}"
        ));
    }
}

/// An IPv6 address stands in brackets before a port.
fn bracketed(host: &str) -> Result<String, String> {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match inner.parse::<Ipv6Addr>() {
        Ok(_) => Ok(format!("[{inner}]")),
        Err(_) if domain_ok(host) && !host.starts_with('[') => Ok(host.to_owned()),
        Err(_) => Err(format!(
            "SMTP_HOST is {host:?}, which is no host name or IP address; its port goes in SMTP_PORT"
        )),
    }
}

fn port(set: &impl Fn(&str) -> Option<String>) -> Result<u16, String> {
    let Some(text) = set("SMTP_PORT") else { return Ok(587) };
    let port = text.parse::<u16>().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("SMTP_PORT is {text:?}, which is no port; write a number from 1 to 65535"))
}

/// The lines of a login; none where neither part is set.
fn login(set: &impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let first = |names: [&'static str; 2]| names.into_iter().find(|name| set(name).is_some());
    match (first(["SMTP_USERNAME", "SMTP_USER"]), first(["SMTP_PASSWORD", "SMTP_PASS"])) {
        (None, None) => Ok(String::new()),
        (Some(user), Some(password)) => {
            Ok(format!("username = \"env:{user}\"\npassword = \"env:{password}\"\n"))
        }
        (Some(user), None) => {
            Err(format!("{user} is set and no password; set SMTP_PASSWORD, or unset {user}"))
        }
        (None, Some(password)) => {
            Err(format!("{password} is set and no user; set SMTP_USERNAME, or unset {password}"))
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
