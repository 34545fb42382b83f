//! `[[notify]]`: what it means, and what is odd about it.

use super::*;
use crate::mail::notification::USUAL;

fn warnings(toml: &str) -> String {
    let loaded =
        Folder::with(&[("postroad.toml", toml)]).load().unwrap_or_else(|problems| panic!("{problems}"));
    loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_receiver_needs_a_url_and_a_secret_and_has_its_host_for_a_name() {
    let config = read(
        "[[notify]]\nurl = \"https://app.example.com/mail-events?key=1\"\nsecret = \"a secret of some length\"\n\
         [[notify]]\nname = \"pager\"\nurl = \"http://[::1]:9000\"\nevents = [\"alert\", \"handed\"]\n\
         secret = [\"whsec_AAECAwQFBgcICQoLDA0ODw==\", \"a secret of some length\"]\ntimeout = \"3s\"\n\
         max_connections = 1\n",
    );
    let [app, pager] = config.receivers.as_slice() else { panic!("{:?}", config.receivers) };
    assert_eq!((app.name.as_str(), app.events.as_slice()), ("app.example.com", &USUAL[..]));
    assert_eq!((app.line.timeout, app.line.max_connections), (Duration::from_secs(15), 4));
    assert_eq!((pager.name.as_str(), pager.events.as_slice()), ("pager", &["alert", "handed"][..]));
    assert_eq!((pager.line.timeout, pager.line.max_connections), (Duration::from_secs(3), 1));
    assert_eq!(pager.line.secrets.len(), 2);
    let shown = format!("{config:?}");
    assert!(!shown.contains("a secret") && !shown.contains("key=1"), "{shown}");
    assert_eq!(read("").receivers, []);
}

#[test]
fn a_receiver_may_come_from_the_environment() {
    let folder = Folder::with(&[])
        .set("POSTROAD__NOTIFY__0__URL", "https://app.example.com/")
        .set("POSTROAD__NOTIFY__0__SECRET", "a secret of some length")
        .set("POSTROAD__NOTIFY__0__EVENTS", "bounced, alert");
    assert_eq!(folder.config().receivers[0].events, ["bounced", "alert"]);
}

#[test]
fn a_secret_that_is_short_or_that_a_library_would_read_otherwise_is_odd() {
    let with = |secret: &str| {
        warnings(&format!("[[notify]]\nurl = \"https://app.example.com\"\nsecret = \"{secret}\"\n"))
    };
    assert_eq!(with("a secret of some length"), "");
    assert_eq!(with("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"), "");
    assert!(with("hunter2").contains("short enough to be guessed"));
    assert!(with("whsec_AAEC").contains("short enough to be guessed"));
    let told = with("AAECAwQFBgcICQoLDA0ODxAREhMUFRYX");
    assert!(told.contains("write whsec_ before it") && !told.contains("AAEC"), "{told}");
}
