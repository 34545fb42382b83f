//! Variables that hold a server of SMTP, and perhaps who logs in to it, as a URL: those of most libraries, and Django's.

use reqwest::Url;

use super::{Found, SMTP_NAMES, SUBMISSIONS, Server, Tls, bracketed, server};

/// The first that is set is used.
pub(super) const NAMES: [&str; 3] = ["SMTP_URL", "MAIL_URL", "EMAIL_URL"];

/// Only `SMTP_URL` says by its name that it leads to a server of SMTP: the others may be about something else.
pub(super) fn first(set: &impl Fn(&str) -> Option<String>, found: &mut Found) {
    for variable in NAMES {
        match set(variable) {
            None => {}
            Some(url) if variable == NAMES[0] || leads_to(&url).is_some() => {
                return by_url(variable, &url, set, found);
            }
            Some(_) => found.unused.push(format!(
                "{variable} leads to no server of SMTP; write it as smtp://user@mail.example.net:587"
            )),
        }
    }
}

/// The host of a URL of SMTP, and the URL. `smtp+tls` and `smtp+ssl` are Django's.
pub(super) fn leads_to(url: &str) -> Option<(String, Url)> {
    let is_ours = |url: &Url| matches!(url.scheme(), "smtp" | "smtps" | "smtp+tls" | "smtp+ssl");
    let url = Url::parse(url).ok().filter(is_ours)?;
    Some((bracketed(url.host_str()?).ok()?, url))
}

/// What such a URL asks for. Django's `smtps` means STARTTLS, which tells at another port than the usual.
fn tls(variable: &str, url: &Url) -> Tls {
    let says =
        |wanted: &[(&str, &str)]| url.query_pairs().any(|(key, value)| wanted.contains(&(&*key, &*value)));
    let of_django = variable == "EMAIL_URL" && url.port().is_some_and(|port| port != SUBMISSIONS);
    match url.scheme() {
        "smtps" if of_django => Tls::Upgraded,
        "smtps" | "smtp+ssl" => Tls::Implicit,
        "smtp+tls" => Tls::Upgraded,
        _ if says(&[("encryption", "ssl"), ("ssl", "True"), ("ssl", "true")]) => Tls::Implicit,
        _ if says(&[
            ("encryption", "tls"),
            ("require_tls", "true"),
            ("require_tls", "1"),
            ("tls", "True"),
            ("tls", "true"),
        ]) =>
        {
            Tls::Upgraded
        }
        _ => Tls::Unasked,
    }
}

/// `smtp://user:password@host:port`, or `smtps`. A file names a password by a variable, and none has this one alone.
pub(super) fn by_url(variable: &str, url: &str, set: &impl Fn(&str) -> Option<String>, found: &mut Found) {
    let Some((host, parsed)) = leads_to(url) else {
        return found.faults.push(format!("{variable} is no URL such as smtp://user@mail.example.net:587"));
    };
    let tls = tls(variable, &parsed);
    let port = parsed.port().unwrap_or(tls.port());
    let password = SMTP_NAMES[0].passwords.iter().find(|name| set(name).is_some());
    let login = match (unescaped(parsed.username()), password) {
        (user, _) if user.is_empty() => String::new(),
        (user, Some(password)) => {
            format!("username = {}\npassword = \"env:{password}\"\n", toml::Value::from(user))
        }
        (_, None) => {
            return found.unused.push(format!(
                "{variable} names a user, and a file takes the password from a variable of its own, not out of a URL; set \
                 SMTP_PASSWORD to it as well, and ask again"
            ));
        }
    };
    server(variable, &Server { host, port, tls, login }, found);
}

/// A part of a URL as it is meant.
fn unescaped(text: &str) -> String {
    let query = format!("q:?q={}", text.replace('+', "%2B"));
    let read = Url::parse(&query).ok().and_then(|url| Some(url.query_pairs().next()?.1.into_owned()));
    read.unwrap_or_default()
}
