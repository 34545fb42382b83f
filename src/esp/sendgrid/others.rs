//! Ways in which an `X-SMTPAPI` of the app's own would have a copy mailed to somebody who is not in the envelope: such
//! mail is not for SendGrid, since who receives is the envelope alone.

use serde_json::{Map, Value};

/// Lists of recipients, in whatever case: nobody tells how its keys are compared.
const LISTS: [&str; 3] = ["to", "cc", "bcc"];
/// Filters that send a copy, or what the message says, to an address or a URL of their settings.
const FILTERS: [&str; 5] = ["bcc", "forwardspam", "forward_spam", "spamcheck", "eventnotify"];

/// The first of them, for people.
pub(super) fn way_to(said: &Map<String, Value>) -> Option<String> {
    let is_one_of =
        |key: &str, names: &[&str]| names.iter().any(|name| key.trim().eq_ignore_ascii_case(name));
    if let Some(list) = said.keys().find(|key| is_one_of(key, &LISTS)) {
        return Some(format!("a {list:?}"));
    }
    let filters = said.iter().filter(|(key, _)| is_one_of(key, &["filters"]));
    let mut filters = filters.filter_map(|(_, filters)| filters.as_object()).flatten();
    let found = filters.find(|(name, filter)| is_one_of(name, &FILTERS) && !is_off(filter));
    found.map(|(name, _)| format!("the filter {name:?}"))
}

/// Whether its settings say that it does nothing.
fn is_off(filter: &Value) -> bool {
    match filter.pointer("/settings/enable") {
        Some(Value::Bool(on)) => !on,
        Some(Value::Number(number)) => number.as_f64() == Some(0.0),
        Some(Value::String(text)) => text.trim() == "0",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(json: &str) -> Option<String> {
        way_to(serde_json::from_str::<Value>(json).unwrap().as_object().unwrap())
    }

    #[test]
    fn every_way_is_known_in_whatever_case() {
        for (json, told) in [
            (r#"{"to":["x@example.net"]}"#, "a \"to\""),
            (r#"{"TO":["x@example.net"]}"#, "a \"TO\""),
            (r#"{"\u0074o ":["x@example.net"]}"#, "a \"to \""),
            (r#"{"Bcc":"x@example.net"}"#, "a \"Bcc\""),
            (
                r#"{"filters":{"bcc":{"settings":{"enable":1,"email":"x@example.net"}}}}"#,
                "the filter \"bcc\"",
            ),
            (
                r#"{"Filters":{"BCC":{"settings":{"enable":"1","email":"x@example.net"}}}}"#,
                "the filter \"BCC\"",
            ),
            (r#"{"filters":{"bcc":{"settings":{"email":"x@example.net"}}}}"#, "the filter \"bcc\""),
            (
                r#"{"filters":{"spamcheck":{"settings":{"enable":1,"url":"https://x"}}}}"#,
                "the filter \"spamcheck\"",
            ),
        ] {
            assert_eq!(way(json).as_deref(), Some(told), "{json}");
        }
        for json in [
            r#"{"unique_args":{"to":"x@example.net"},"category":["to"],"sub":{"to":["x"]}}"#,
            r#"{"filters":{"clicktrack":{"settings":{"enable":1}},"footer":{"settings":{"text/plain":"a@b"}}}}"#,
            r#"{"filters":{"bcc":{"settings":{"enable":0,"email":"x@example.net"}}}}"#,
            r#"{"filters":{"bcc":{"settings":{"enable":"0"}}}}"#,
        ] {
            assert_eq!(way(json), None, "{json}");
        }
    }
}
