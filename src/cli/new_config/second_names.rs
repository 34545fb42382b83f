//! Several variables may say the same thing by different names: where they disagree one is used, and that is told,
//! without their values.

use reqwest::Url;

/// Names that say the same; the first that is set is used.
const ALIKE: [&[&str]; 6] = [
    &super::POSTMARK,
    &["AWS_REGION", "AWS_DEFAULT_REGION"],
    &["SMTP_HOST", "MAIL_HOST", "EMAIL_HOST"],
    &["SMTP_PORT", "MAIL_PORT", "EMAIL_PORT"],
    &["SMTP_USERNAME", "SMTP_USER", "MAIL_USERNAME", "EMAIL_HOST_USER"],
    &["SMTP_PASSWORD", "SMTP_PASS", "MAIL_PASSWORD", "EMAIL_HOST_PASSWORD"],
];
const URL: &str = "SMTP_URL";

/// A sentence for each that is set to something else than the one that `text` uses.
pub(super) fn told(text: &str, set: &impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut told = Vec::new();
    for names in ALIKE {
        let there: Vec<(&str, String)> = names.iter().filter_map(|name| Some((*name, set(name)?))).collect();
        // A host, a port and a region stand there by their value, in the order of the names.
        let used = there.iter().find(|(name, _)| text.contains(&format!("\"env:{name}\"")));
        let Some((used, value)) = used.or(there.first()) else { continue };
        let others = there.iter().filter(|(_, other)| other != value);
        told.extend(others.map(|(other, _)| sentence(other, used)));
    }
    let host = ALIKE[2].iter().find_map(|name| Some((*name, set(name)?)));
    if let Some(((used, host), url)) = host.zip(set(URL)) {
        let leads_to = Url::parse(&url).ok().and_then(|url| url.host_str().map(str::to_owned));
        if leads_to.is_none_or(|other| !other.eq_ignore_ascii_case(&host)) {
            told.push(sentence(URL, used));
        }
    }
    told
}

fn sentence(other: &str, used: &str) -> String {
    format!("{other} says something else than {used}, and {used} is used; unset the one that is not meant")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let set = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        told(text, &set)
    }

    #[test]
    fn what_disagrees_is_named_without_its_value() {
        for (text, variables, pairs) in [
            ("", &[("POSTMARK_API_KEY", "a1"), ("POSTMARK_SERVER_TOKEN", "a1")][..], &[][..]),
            (
                "\"env:POSTMARK_API_KEY\"",
                &[("POSTMARK_API_KEY", "a1"), ("POSTMARK_SERVER_TOKEN", "b2"), ("POSTMARK_API_TOKEN", "c3")],
                &[("POSTMARK_SERVER_TOKEN", "POSTMARK_API_KEY"), ("POSTMARK_API_TOKEN", "POSTMARK_API_KEY")],
            ),
            (
                "",
                &[("AWS_DEFAULT_REGION", "a1"), ("AWS_REGION", "b2")],
                &[("AWS_DEFAULT_REGION", "AWS_REGION")],
            ),
            (
                "\"env:MAIL_PASSWORD\"",
                &[("MAIL_PASSWORD", "a1"), ("SMTP_PASS", "b2")],
                &[("SMTP_PASS", "MAIL_PASSWORD")],
            ),
            ("", &[("SMTP_HOST", "a1"), ("SMTP_URL", "smtp://A1:25")], &[]),
            ("", &[("MAIL_HOST", "a1"), ("SMTP_URL", "smtp://u:p@b2")], &[("SMTP_URL", "MAIL_HOST")]),
        ] {
            let told = found(text, variables);
            assert_eq!(told.len(), pairs.len(), "{told:?}");
            for (sentence, (other, used)) in told.iter().zip(pairs) {
                assert!(
                    sentence.starts_with(&format!("{other} says something else than {used}")),
                    "{sentence}"
                );
                assert!(variables.iter().all(|(_, value)| !sentence.contains(value)), "{sentence}");
            }
        }
    }
}
