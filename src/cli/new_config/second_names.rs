//! Several variables may say the same thing by different names: where they disagree one is used, and that is told,
//! without their values.

/// Names that say the same; the first that is set is used.
const ALIKE: [&[&str]; 6] = [
    &super::POSTMARK,
    &["AWS_REGION", "AWS_DEFAULT_REGION"],
    &["SMTP_HOST", "MAIL_HOST", "EMAIL_HOST", "SMTP_ADDRESS", "SMTP_SERVER"],
    &["SMTP_PORT", "MAIL_PORT", "EMAIL_PORT"],
    &["SMTP_USERNAME", "SMTP_USER", "MAIL_USERNAME", "EMAIL_HOST_USER", "SMTP_USER_NAME", "SMTP_LOGIN"],
    &["SMTP_PASSWORD", "SMTP_PASS", "MAIL_PASSWORD", "EMAIL_HOST_PASSWORD"],
];

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
    let by_name = ALIKE[2].iter().find_map(|name| Some((*name, set(name)?)));
    let urls: Vec<(&str, String)> =
        super::urls::NAMES.into_iter().filter_map(|name| Some((name, host(name, set)?))).collect();
    if let Some((used, host)) = by_name.as_ref().or(urls.first()) {
        let others = urls.iter().filter(|(_, other)| !other.eq_ignore_ascii_case(host));
        told.extend(others.map(|(other, _)| sentence(other, used)));
    }
    told
}

/// Where a URL leads, if it is one of SMTP.
fn host(name: &str, set: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let url = set(name)?;
    let host = super::urls::leads_to(&url).map(|(_, url)| url.host_str().unwrap_or_default().to_owned());
    // What SMTP_URL says is meant for a server, whatever it says.
    host.or_else(|| (name == super::urls::NAMES[0]).then(String::new))
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
            ("", &[("MAIL_URL", "smtp://b2"), ("EMAIL_URL", "smtp://c3")], &[("EMAIL_URL", "MAIL_URL")]),
            ("", &[("SMTP_URL", "smtp://b2"), ("MAIL_URL", "https://c3/")], &[]),
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
