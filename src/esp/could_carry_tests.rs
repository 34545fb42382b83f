//! What is refused at the dot is what no call could carry: over the whole corpus, at each ESP and by each door.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mail_parser::MessageParser;

use super::postmark::Postmark;
use super::sendgrid::Sendgrid;
use super::ses::Ses;
use super::settings::{
    Access, LineSettings, PostmarkSettings, SendgridRegion, SendgridSettings, SesSettings, Transport,
};
use super::testing::message;
use super::{Content, Esp, Parcel, Unfit};
use crate::address::{Address, Grammar};
use crate::clock::Timestamp;
use crate::mail::{AttemptId, Message, ReversePath};
use crate::secret::Secret;

const TRANSPORTS: [Transport; 3] = [Transport::Api, Transport::Smtp, Transport::Auto];

fn esps(transport: Transport) -> [(&'static str, Box<dyn Esp>); 3] {
    let access = || Access {
        transport,
        endpoint: None,
        smtp_endpoint: None,
        ca_file: None,
        envelope_from: None,
        lines: LineSettings::default(),
    };
    let sendgrid =
        SendgridSettings { access: access(), api_key: Secret::new("SG.x"), region: SendgridRegion::Global };
    let postmark = PostmarkSettings {
        access: access(),
        server_token: Secret::new("token"),
        transactional: "outbound".into(),
        broadcast: "news".into(),
    };
    let ses = SesSettings {
        access: access(),
        region: "eu-west-1".into(),
        keys: Some(("AKIA".into(), Secret::new("secret"))),
        configuration_set: None,
    };
    [
        ("sendgrid", Box::new(Sendgrid::new(&sendgrid, false))),
        ("postmark", Box::new(Postmark::new(&postmark, false))),
        ("ses", Box::new(Ses::new(&ses, false))),
    ]
}

/// Each message, to everybody it names.
fn letters() -> Vec<(String, Message)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/corpus");
    let mut letters = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "eml") {
            continue;
        }
        let raw = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        let parsed = MessageParser::default().parse(raw.as_bytes()).unwrap();
        let named = [parsed.to(), parsed.cc()].into_iter().flatten().flat_map(|list| list.iter());
        let mut message = message(&raw);
        message.envelope.sender =
            ReversePath::Mailbox(Address::parse("b@shop.example", Grammar::Strict).unwrap());
        let mut named: BTreeMap<String, Address> = named
            .filter_map(|one| Address::parse(one.address()?, Grammar::Lenient).ok())
            .map(|address| (address.key(), address))
            .collect();
        let hidden = Address::parse("hidden@elsewhere.example", Grammar::Strict).unwrap();
        named.insert(hidden.key(), hidden);
        message.envelope.recipients = named.into_values().collect();
        letters.push((path.file_stem().unwrap().to_string_lossy().into_owned(), message));
    }
    assert!(letters.len() >= 60);
    letters
}

fn composed(esp: &dyn Esp, message: &Message, recipients: &[Address]) -> Result<(), Unfit> {
    let parcel =
        Parcel { message, whole: Some(&message.body.head), recipients, attempt: AttemptId::from_number(1) };
    esp.compose(parcel, Timestamp::from_millis(1_000)).map(drop)
}

#[test]
fn what_could_never_be_carried_fits_no_call_and_what_fits_could() {
    let (mut refused, mut carried) = (0, 0);
    for (name, message) in letters() {
        for transport in TRANSPORTS {
            for (esp, line) in esps(transport) {
                let all = &message.envelope.recipients;
                let whole = line.could_carry(&message, Content::Whole(&message.body.head));
                let beginning = line.could_carry(&message, Content::Beginning);
                let at = format!("{name} at {esp} by {transport:?}");
                match &whole {
                    Ok(()) => assert!(beginning.is_ok(), "{at}: {beginning:?}"),
                    Err(Unfit(why)) => {
                        refused += 1;
                        assert!(why.len() > 10, "{at}: {why}");
                        for one in std::iter::once(&all[..]).chain(all.chunks(1)) {
                            assert!(
                                composed(&*line, &message, one).is_err(),
                                "{at}: {why}, and it fits {one:?}"
                            );
                        }
                    }
                }
                let fits = composed(&*line, &message, all);
                carried += usize::from(fits.is_ok());
                if let (Ok(()), Err(Unfit(why))) = (&whole, &fits) {
                    // That is about the recipients of a call, not about what is said to them.
                    let of_recipients =
                        ["recipient", "such an address", "knows no address", "To names nobody"];
                    assert!(of_recipients.iter().any(|words| why.contains(words)), "{at}: {why}");
                }
            }
        }
    }
    assert!(refused > 50 && carried > 300, "{refused} refused, {carried} carried");
}

#[test]
fn a_message_for_more_than_a_call_takes_is_not_for_an_api_that_shows_whom_it_mails() {
    let mut letter = message("From: b@shop.example\r\nTo: p0@example.com\r\nSubject: s\r\n\r\nhello\r\n");
    letter.envelope.sender = ReversePath::Mailbox(Address::parse("b@shop.example", Grammar::Strict).unwrap());
    let person = |n| Address::parse(&format!("p{n}@example.com"), Grammar::Strict).unwrap();
    for transport in TRANSPORTS {
        for (esp, line) in esps(transport) {
            let most = line.recipients_max();
            for crowd in [most, most + 1] {
                letter.envelope.recipients = (0..crowd).map(person).collect();
                let could = line.could_carry(&letter, Content::Whole(&letter.body.head));
                let at = format!("{crowd} at {esp} by {transport:?}");
                let parts = esp == "ses" || transport != Transport::Api;
                assert_eq!(could.is_ok(), parts || crowd == most, "{at}: {could:?}");
                if let Err(Unfit(why)) = could {
                    assert!(
                        why.contains(&format!("all {crowd} recipients, and a call takes {most}")),
                        "{why}"
                    );
                }
            }
        }
    }
}
