//! `MAILER_DSN`, by which Symfony's programs know their mailer: `smtp://…`, `sendgrid+api://KEY@default`, or several in
//! `failover(…)` and `roundrobin(…)`. A file names keys and passwords by variables of their own, and never out of a URL.

use reqwest::Url;

use super::{Found, POSTMARK, SENDGRID_KEY};

pub(super) const NAME: &str = "MAILER_DSN";

/// Adds what it names and no other variable has named yet.
pub(super) fn read(set: &impl Fn(&str) -> Option<String>, found: &mut Found) {
    let text = set(NAME).unwrap_or_default();
    for dsn in each(&text) {
        one(dsn, set, found);
    }
}

/// The region that a mailer of Amazon's has in it.
pub(super) fn region(set: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let text = set(NAME)?;
    let of_amazon = each(&text).find(|dsn| vendor(dsn) == Some("ses"))?;
    let url = Url::parse(of_amazon).ok()?;
    url.query_pairs().find(|(key, _)| key == "region").map(|(_, region)| region.into_owned())
}

fn each(text: &str) -> impl Iterator<Item = &str> {
    let several = ["failover(", "roundrobin("].iter().find_map(|word| text.strip_prefix(word));
    let inner = several.and_then(|rest| rest.rsplit_once(')')).map(|(inner, _)| inner);
    inner.unwrap_or(text).split_whitespace()
}

/// `sendgrid` of `sendgrid+api://…`.
fn vendor(dsn: &str) -> Option<&str> {
    let (scheme, _) = dsn.split_once("://")?;
    let is_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    scheme.bytes().all(is_scheme).then(|| scheme.split('+').next().unwrap_or(scheme))
}

fn one(dsn: &str, set: &impl Fn(&str) -> Option<String>, found: &mut Found) {
    let mut wants_key = |whose: &str, keys: &[&str], wanted: &str| {
        if keys.iter().all(|key| set(key).is_none()) {
            found.unused.push(format!(
                "{NAME} names {whose}, and a file takes the key from a variable of its own, not out of a URL; set \
                 {wanted} to it as well, and ask again"
            ));
        }
    };
    match vendor(dsn) {
        Some("sendgrid") => wants_key("SendGrid", &[SENDGRID_KEY], SENDGRID_KEY),
        Some("postmark") => wants_key("Postmark", &POSTMARK, POSTMARK[0]),
        Some("ses") => {
            wants_key("Amazon SES", &["AWS_ACCESS_KEY_ID"], "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
        }
        Some("smtp" | "smtps") => server(dsn, set, found),
        Some("null") => found.unused.push(format!("{NAME} is null://…, which sends nothing")),
        Some("sendmail" | "native") => found.unused.push(format!(
            "{NAME} leads to this machine's own sendmail, which is no [[esp]]; see what that hands its mail to"
        )),
        Some(other) => found.unused.push(format!(
            "{NAME} names {other}, which is no type of [[esp]]; its SMTP server is one of type = \"smtp\""
        )),
        None => found.faults.push(format!("{NAME} is no DSN such as smtp://user@mail.example.net:587")),
    }
}

/// A server of SMTP, where the variables before it have named none.
fn server(dsn: &str, set: &impl Fn(&str) -> Option<String>, found: &mut Found) {
    let known = found.tables.iter().find(|table| table.contains(super::SMARTHOST));
    let Some(known) = known else { return super::urls::by_url(NAME, dsn, set, found) };
    let url = Url::parse(dsn).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    if !known.contains(&format!("address = \"{host}:")) {
        found.unused.push(format!(
            "{NAME} leads to another server than the one that is used; unset what is not meant"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::found;

    /// The tables that it makes, and what is told of the rest.
    fn read_from(variables: &[(&str, &str)]) -> (String, String) {
        let set = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let found = found(&set);
        (found.tables.concat(), [found.unused, found.faults].concat().join("; "))
    }

    #[test]
    fn every_mailer_of_symfonys_is_used_or_told_without_its_secret() {
        for (dsn, beside, table, told) in [
            ("smtp://mail.example.net:25", None, "\"mail.example.net:25\"", ""),
            ("smtps://mail.example.net", None, "\"mail.example.net:465\"\ntls = \"implicit\"", ""),
            ("smtp://u:s3cret@mail.example.net", None, "", "set SMTP_PASSWORD"),
            ("smtp://u:s3cret@mail.example.net", Some("SMTP_PASSWORD"), "env:SMTP_PASSWORD", ""),
            ("sendgrid+api://s3cret@default", None, "", "names SendGrid"),
            ("sendgrid+api://s3cret@default", Some("SENDGRID_API_KEY"), "type = \"sendgrid\"", ""),
            ("postmark+smtp://s3cret@default", None, "", "set POSTMARK_API_KEY"),
            ("postmark://s3cret@default", Some("POSTMARK_API_TOKEN"), "env:POSTMARK_API_TOKEN", ""),
            ("ses+api://AKIA:s3cret@default?region=eu-west-3", None, "", "set AWS_ACCESS_KEY_ID"),
            (
                "ses+https://AKIA:s3cret@default?region=eu-west-3",
                Some("AWS_ACCESS_KEY_ID"),
                "region = \"eu-west-3\"",
                "",
            ),
            (
                "failover(smtp://a.example.net sendgrid+api://s3cret@default)",
                None,
                "a.example.net:587",
                "SendGrid",
            ),
            (
                "roundrobin(smtp://a.example.net smtp://b.example.net)",
                None,
                "a.example.net:587",
                "another server",
            ),
            ("mailgun+api://s3cret:example.com@default", None, "", "names mailgun"),
            ("null://null", None, "", "sends nothing"),
            ("native://default", None, "", "own sendmail"),
            ("s3cret", None, "", "is no DSN"),
        ] {
            let variables = [("MAILER_DSN", dsn), (beside.unwrap_or("X"), "s3cret")];
            let (tables, words) = read_from(&variables);
            assert!(tables.contains(table) && tables.is_empty() == table.is_empty(), "{dsn}: {tables}");
            assert!(words.contains(told) && words.is_empty() == told.is_empty(), "{dsn}: {words}");
            assert!(!tables.contains("s3cret") && !words.contains("s3cret"), "{dsn}: {tables} {words}");
        }
    }
}
