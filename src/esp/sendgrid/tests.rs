use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::address::{Address, Grammar};
use crate::esp::settings::{Access, LineSettings};
use crate::mail::body::Spilled;
use crate::mail::headers::fields;
use crate::mail::{
    Answer, AttemptId, Body, BodyKind, Envelope, Fault, MessageId, Named, Phase, SmtpReply, Source,
    StreamKind, StreamName, Throttle,
};
use crate::secret::Secret;

const NOW: Timestamp = Timestamp::from_millis(1_795_602_034_000);
const HEAD: &str = "From: Shop <shop@example.org>\r\nSubject: s\r\nMessage-ID: <1@example.org>\r\n";

fn settings(transport: Transport, region: SendgridRegion) -> SendgridSettings {
    let access = Access {
        transport,
        endpoint: None,
        smtp_endpoint: None,
        ca_file: None,
        envelope_from: None,
        lines: LineSettings::default(),
    };
    SendgridSettings { access, api_key: Secret::new("SG.quite-secret"), region }
}

fn esp(transport: Transport) -> Sendgrid {
    Sendgrid::new(&settings(transport, SendgridRegion::Global), false)
}

fn address(text: &str) -> Address {
    Address::parse(text, Grammar::Lenient).unwrap()
}

/// A message, whom a call of it is for, and what the app put beside it.
struct Mail {
    message: Message,
    recipients: Vec<Address>,
}

impl Mail {
    fn new(content: &str, recipients: &[&str]) -> Mail {
        Mail::of(content.as_bytes(), recipients)
    }

    fn of(content: &[u8], recipients: &[&str]) -> Mail {
        let recipients: Vec<Address> = recipients.iter().map(|text| address(text)).collect();
        let source = Source {
            listener: "l".into(),
            peer: Ipv4Addr::LOCALHOST.into(),
            helo: "c".into(),
            credential: None,
            protocol: Protocol::Smtp,
        };
        let message = Message {
            id: MessageId::from_number(1),
            envelope: Envelope {
                sender: ReversePath::Mailbox(address("bounces@example.org")),
                recipients: recipients.clone(),
                body: BodyKind::EightBit,
                smtputf8: false,
                reports: None,
            },
            stream: StreamName::new(StreamName::TRANSACTIONAL),
            kind: StreamKind::Transactional,
            body: Body::whole(content.to_vec()),
            accepted_at: NOW,
            expires_at: NOW,
            tags: Vec::new(),
            metadata: Vec::new(),
            pin: None,
            source,
        };
        Mail { message, recipients }
    }

    /// With this header below the usual one, and one line of text.
    fn headed(head: &str, recipients: &[&str]) -> Mail {
        Mail::new(&format!("{HEAD}{head}\r\nhi\r\n"), recipients)
    }

    fn with(mut self, tags: &[&str], metadata: &[(&str, &str)]) -> Mail {
        self.message.tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        self.message.metadata = metadata.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        self
    }

    fn parcel(&self) -> Parcel<'_> {
        Parcel {
            message: &self.message,
            whole: Some(&self.message.body.head),
            recipients: &self.recipients,
            attempt: AttemptId::from_number(77),
        }
    }

    fn composed(&self, transport: Transport) -> Result<Request, String> {
        esp(transport).compose(self.parcel(), NOW).map_err(|Unfit(why)| why)
    }

    #[track_caller]
    fn json(&self) -> Value {
        match self.composed(Transport::Api) {
            Ok(Request::Http(request)) => serde_json::from_slice(&request.body).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// What leaves by SMTP.
    #[track_caller]
    fn smtp(&self) -> String {
        match self.composed(Transport::Smtp) {
            Ok(Request::Smtp(request)) => {
                assert_eq!(request.body.facts.size_octets, request.body.head.len() as u64);
                String::from_utf8(request.body.head.to_vec()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    /// The JSON in its `X-SMTPAPI`.
    #[track_caller]
    fn smtpapi(&self) -> Value {
        let all = self.smtp();
        let mut found = fields(all.as_bytes()).filter(|field| field.is("X-SMTPAPI"));
        let field = found.next().unwrap();
        assert!(found.next().is_none() && field.raw.is_ascii());
        assert!(std::str::from_utf8(field.raw).unwrap().lines().all(|line| line.len() <= 998));
        serde_json::from_slice(
            &field.value().iter().copied().filter(|b| !b"\r\n".contains(b)).collect::<Vec<_>>(),
        )
        .unwrap()
    }

    fn read(&self, reply: Reply) -> Vec<Outcome> {
        esp(Transport::Auto).read(self.parcel(), &reply, NOW)
    }
}

#[test]
fn a_message_becomes_one_personalization() {
    let mail = Mail::new(
        "From: \"The Shop\" <shop@example.org>\r\nTo: Ann <ann@example.com>\r\nCc: cy@example.com\r\n\
         Reply-To: help@example.org\r\nSubject: =?utf-8?Q?gr=C3=BCn?=\r\nMessage-ID: <1@example.org>\r\n\
         Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nX-Order: 12\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
         --a\r\n\r\nplain\r\n--a\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<b>gr\u{fc}n</b>\r\n--a--\r\n\
         --m\r\nContent-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment\r\n\r\naGVsbG8=\r\n--m--\r\n",
        &["bo@example.com", "CY@example.com", "ann@example.com"],
    )
    .with(&["spring", "spring"], &[("order", "12"), ("Email", "x")]);
    let attempt = format!("{}-{}", MessageId::from_number(1), AttemptId::from_number(77));
    assert_eq!(
        mail.json(),
        json!({
            "personalizations": [{
                "to": [{"email": "ann@example.com", "name": "Ann"}],
                "cc": [{"email": "CY@example.com"}],
                "bcc": [{"email": "bo@example.com"}],
                "custom_args": {"postroad_attempt": attempt, "order": "12", "metadata_Email": "x"},
            }],
            "from": {"email": "shop@example.org", "name": "The Shop"},
            "reply_to": {"email": "help@example.org"},
            "subject": "gr\u{fc}n",
            "content": [
                {"type": "text/plain", "value": "plain"},
                {"type": "text/html", "value": "<b>gr\u{fc}n</b>"},
            ],
            "attachments": [{
                "content": "aGVsbG8=", "filename": "a.pdf", "type": "application/pdf", "disposition": "attachment",
            }],
            "headers": {
                "Message-ID": "<1@example.org>", "Date": "Mon, 23 Nov 2026 10:00:00 +0000", "X-Order": "12",
            },
            "categories": ["spring"],
        })
    );
}

#[test]
fn what_the_html_names_is_shown_whatever_its_disposition() {
    for kind in ["mixed", "related"] {
        let mail = Mail::headed(
            &format!(
                "To: ann@example.com\r\nMIME-Version: 1.0\r\nContent-Type: multipart/{kind}; boundary=m\r\n\r\n--m\r\n\
                 Content-Type: text/html\r\n\r\n<img src=\"cid:logo@x\">\r\n--m\r\nContent-Type: image/png\r\n\
                 Content-ID: <logo@x>\r\nContent-Disposition: attachment; filename=\"a.png\"\r\n\
                 Content-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--m--\r\n"
            ),
            &["ann@example.com"],
        );
        let wanted = json!([{
            "content": "AAEC", "filename": "a.png", "type": "image/png", "disposition": "inline", "content_id": "logo@x",
        }]);
        assert_eq!(mail.json()["attachments"], wanted, "{kind}");
    }
}

#[test]
fn what_few_would_miss_is_lost_only_where_there_is_no_other_way() {
    let mail = |fields: &str, to: &[&str]| {
        Mail::headed(
            &format!(
                "To: ann@example.com\r\nContent-Language: de\r\nMIME-Version: 1.0\r\n\
                 Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n\r\nhi\r\n--m\r\n\
                 Content-Disposition: attachment; filename=a.xml\r\n{fields}\r\n<a>gr\u{fc}n</a>\r\n--m--\r\n"
            ),
            to,
        )
    };
    for (fields, small) in [
        ("Content-Type: application/xml\r\n", false),
        ("Content-Type: application/xml; charset=iso-8859-1\r\n", true),
        ("Content-Type: application/xml\r\nContent-Language: de\r\n", true),
        ("Content-Type: application/xml\r\nContent-Description: a list\r\n", true),
    ] {
        let mail = mail(fields, &["ann@example.com"]);
        let json = mail.json();
        assert_eq!(json["attachments"][0]["type"], "application/xml", "{fields}");
        assert_eq!(json["headers"]["Content-Language"], "de", "that of the whole message is kept");
        let by_smtp = matches!(mail.composed(Transport::Auto), Ok(Request::Smtp(_)));
        assert_eq!(by_smtp, small, "{fields}");
    }
}

#[test]
fn an_empty_text_is_left_out() {
    let mail = Mail::headed(
        "To: ann@example.com\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/plain\r\n\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<b>hello</b>\r\n--b--\r\n",
        &["ann@example.com"],
    );
    assert_eq!(mail.json()["content"], json!([{"type": "text/html", "value": "<b>hello</b>"}]));
}

#[test]
fn an_invitation_keeps_its_method_by_smtp() {
    let invitation = |kind: &str| {
        Mail::headed(
            &format!(
                "To: ann@example.com\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n\
                 --b\r\n\r\ncome\r\n--b\r\nContent-Type: {kind}\r\n\r\nBEGIN:VCALENDAR\r\n--b--\r\n"
            ),
            &["ann@example.com"],
        )
    };
    let json = invitation("text/calendar; charset=\"UTF-8\"").json();
    assert_eq!(json["content"][1]["type"], "text/calendar");
    for kind in ["text/calendar; charset=\"UTF-8\"; method=\"REQUEST\"", "text/calendar; method=REQUEST"] {
        let why = invitation(kind).composed(Transport::Api).unwrap_err();
        assert!(why.contains("the form text/calendar of the body would lose method=REQUEST"), "{why}");
        assert!(matches!(invitation(kind).composed(Transport::Auto), Ok(Request::Smtp(_))), "{kind}");
    }
    let alone = Mail::headed(
        "To: ann@example.com\r\nMIME-Version: 1.0\r\nContent-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\n",
        &["ann@example.com"],
    );
    assert!(alone.composed(Transport::Api).is_err());
    assert!(alone.smtp().contains("text/calendar; method=REQUEST"));
}

#[test]
fn what_the_api_cannot_say_goes_by_smtp_with_its_reason() {
    let file = |typed: &str, content: &str| {
        format!(
            "To: ann@example.com\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n\
             --b\r\nContent-Disposition: attachment\r\nContent-Type: {typed}\r\n\r\n{content}\r\n--b--\r\n"
        )
    };
    let to = "To: ann@example.com\r\n";
    for (head, recipients, why) in [
        (to.to_owned(), &["bo@example.com"][..], "ann@example.com"),
        ("To: ann@example.com, bo@example.com\r\n".into(), &["ann@example.com"], "bo@example.com"),
        (String::new(), &["ann@example.com", "bo@example.com"], "To names nobody"),
        ("Cc: ann@example.com\r\n".into(), &["ann@example.com"], "To names nobody"),
        ("To: \"Doe, Ann\" <ann@example.com>\r\n".into(), &["ann@example.com"], "comma"),
        ("To: \"a b\"@example.com\r\n".into(), &["\"a b\"@example.com"], "of a form"),
        (to.into(), &["ann@example.com", "gr\u{fc}n@example.com"], "gr\u{fc}n"),
        (format!("{to}DKIM-Signature: v=1\r\n"), &["ann@example.com"], "DKIM-Signature"),
        (format!("{to}X-A: 1\r\nx-a: 2\r\n"), &["ann@example.com"], "x-a stands there more than once"),
        (format!("{to}X-A: gr\u{fc}n\r\n"), &["ann@example.com"], "X-A"),
        (format!("{to}X-A: {}\r\n", "a".repeat(950)), &["ann@example.com"], "too long"),
        (file("text/csv; name=a.csv; charset=utf-8", "gr\u{fc}n"), &["ann@example.com"], "charset"),
        (
            file("text/calendar; name=a.ics; method=REQUEST", "x"),
            &["ann@example.com"],
            "would lose method=REQUEST",
        ),
        (file("application/pdf; name=\"a,b.pdf\"", "x"), &["ann@example.com"], "comma"),
        (file("application/pdf; name=a.pdf", ""), &["ann@example.com"], "is empty"),
    ] {
        let mail = Mail::headed(&head, recipients);
        let told = mail.composed(Transport::Api).unwrap_err();
        assert!(told.contains(why), "{head}: {told}");
        assert!(matches!(mail.composed(Transport::Auto), Ok(Request::Smtp(_))), "{head}");
    }
    for (content, why) in [
        ("From: a@example.org\r\nTo: ann@example.com\r\n\r\nhi\r\n", "Subject"),
        ("From: a@example.org\r\nTo: ann@example.com\r\nSubject: s\r\n\r\n \r\n", "text or HTML"),
        (
            "From: =?utf-8?Q?gr=C3=BCn?= <a@example.org>\r\nTo: ann@example.com\r\nSubject: s\r\n\r\nhi\r\n",
            "From",
        ),
    ] {
        let told = Mail::new(content, &["ann@example.com"]).composed(Transport::Api).unwrap_err();
        assert!(told.contains(why), "{told}");
    }
    let fine = file("text/csv; name=a.csv; charset=utf-8; x-unix-mode=0644", "a");
    assert_eq!(Mail::headed(&fine, &["ann@example.com"]).json()["attachments"][0]["type"], "text/csv");
}

#[test]
fn one_alone_whom_no_field_names_is_shown_his_own_address() {
    for head in ["", "To: undisclosed-recipients:;\r\n"] {
        let json = Mail::headed(head, &["ann@example.com"]).json();
        assert_eq!(json["personalizations"][0]["to"], json!([{"email": "ann@example.com"}]));
        assert!(json["personalizations"][0].get("bcc").is_none());
    }
}

#[test]
fn what_is_sealed_goes_by_no_door() {
    for kind in ["multipart/signed; boundary=b", "\r\n Multipart/Encrypted; boundary=b"] {
        let mail =
            Mail::headed(&format!("To: ann@example.com\r\nContent-Type: {kind}\r\n"), &["ann@example.com"]);
        for transport in [Transport::Auto, Transport::Api, Transport::Smtp] {
            assert!(mail.composed(transport).unwrap_err().contains("anew"), "{kind}");
        }
    }
}

#[test]
fn what_is_sealed_within_other_parts_goes_by_no_door_either() {
    for part in [
        "multipart/signed; boundary=i\r\n\r\n--i\r\n\r\nx\r\n--i--",
        "application/pkcs7-mime; name=smime.p7m\r\nContent-Transfer-Encoding: base64\r\n\r\nMIIB",
    ] {
        let mixed = format!(
            "To: ann@example.com\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: {part}\r\n--o--\r\n"
        );
        let mail = Mail::headed(&mixed, &["ann@example.com"]);
        for transport in [Transport::Auto, Transport::Api, Transport::Smtp] {
            assert!(mail.composed(transport).unwrap_err().contains("anew"), "{part}");
        }
    }
}

#[test]
fn what_was_not_loaded_goes_by_smtp_and_smtp_alone_loads_nothing() {
    let mail = Mail::headed("To: ann@example.com\r\n", &["ann@example.com"]);
    let parcel = Parcel { whole: None, ..mail.parcel() };
    assert!(matches!(esp(Transport::Auto).compose(parcel, NOW), Ok(Request::Smtp(_))));
    assert!(esp(Transport::Api).compose(parcel, NOW).is_err());
    assert!(
        esp(Transport::Auto).wants_whole(&mail.message) && !esp(Transport::Smtp).wants_whole(&mail.message)
    );
}

#[test]
fn reports_to_senders_need_an_address_of_the_relay() {
    let mut mail = Mail::headed("To: ann@example.com\r\n", &["ann@example.com"]);
    mail.message.source.protocol = Protocol::Report;
    assert!(mail.composed(Transport::Auto).unwrap_err().contains("dsn_from"));
    let takes = Sendgrid::new(&settings(Transport::Auto, SendgridRegion::Global), true);
    assert!(takes.compose(mail.parcel(), NOW).is_ok());
}

#[test]
fn by_smtp_the_same_travels_in_one_field() {
    let mail = Mail::headed("To: ann@example.com\r\n", &["ann@example.com"])
        .with(&["spring", "sale"], &[("order", "gr\u{fc}n \"\u{1f600}\" \\"), ("status", "new")]);
    let attempt = format!("{}-{}", MessageId::from_number(1), AttemptId::from_number(77));
    assert_eq!(
        mail.smtpapi(),
        json!({
            "unique_args": {
                "postroad_attempt": attempt, "order": "gr\u{fc}n \"\u{1f600}\" \\", "metadata_status": "new",
            },
            "category": ["spring", "sale"],
        })
    );
    let sent = mail.smtp();
    assert!(
        sent.starts_with("X-SMTPAPI: {")
            && sent.ends_with(&format!("{HEAD}To: ann@example.com\r\n\r\nhi\r\n"))
    );
}

#[test]
fn an_apps_own_field_is_joined_with_ours() {
    let own = "X-SMTPAPI: {\"unique_args\":{\"theirs\":\"1\",\"n\":2},\r\n \"category\":\"app\",\"filters\":{\"opentrack\":{\"settings\":{\"enable\":0}}}}\r\n";
    let mail = Mail::headed(&format!("{own}To: ann@example.com\r\n"), &["ann@example.com"])
        .with(&["tag"], &[("theirs", "ours")]);
    let said = mail.smtpapi();
    assert_eq!(said["category"], json!(["app", "tag"]));
    assert_eq!(said["filters"]["opentrack"]["settings"]["enable"], 0);
    assert_eq!((&said["unique_args"]["theirs"], &said["unique_args"]["n"]), (&json!("1"), &json!(2)));
    assert_eq!(said["unique_args"]["metadata_theirs"], "ours");
    assert!(mail.composed(Transport::Api).unwrap_err().contains("filters"));
    assert!(matches!(mail.composed(Transport::Auto), Ok(Request::Smtp(_))));

    let plain =
        "X-SMTPAPI: {\"unique_args\":{\"theirs\":\"1\"},\"category\":[\"app\"]}\r\nTo: ann@example.com\r\n";
    let json = Mail::headed(plain, &["ann@example.com"]).json();
    assert_eq!(json["personalizations"][0]["custom_args"]["theirs"], "1");
    assert_eq!((&json["categories"], json["headers"].get("X-SMTPAPI")), (&json!(["app"]), None));

    for (bad, why) in [
        ("X-SMTPAPI: {\"to\":[\"x@example.com\"]}\r\n", "\"to\""),
        ("X-SMTPAPI: {oops\r\n", "no JSON"),
        ("X-SMTPAPI: []\r\n", "no JSON"),
        ("X-SMTPAPI: {\"category\":7}\r\n", "category"),
        ("X-SMTPAPI: {}\r\nX-SMTPAPI: {}\r\n", "two"),
    ] {
        let mail = Mail::headed(&format!("{bad}To: ann@example.com\r\n"), &["ann@example.com"]);
        let told = mail.composed(Transport::Auto).unwrap_err();
        assert!(told.contains(why), "{bad}: {told}");
    }
}

#[test]
fn labels_beyond_the_limits_do_not_fit_by_either_door() {
    let long = "\u{1f600}".repeat(200);
    let pairs: Vec<(String, String)> = (0..13).map(|n| (format!("k{n}"), "v".repeat(800))).collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let tags: Vec<String> = (0..11).map(|n| format!("t{n}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    for (tags, pairs, why) in [
        (&tags[..], &[][..], "10 categories, and it has 11"),
        (&["gr\u{fc}n"], &[], r#""gr\u{fc}n" is none"#),
        (&[], &[("long", long.as_str())], "its metadata long is over that"),
        (&[], &pairs, "its metadata k12 is over that"),
    ] {
        let mail = Mail::headed("To: ann@example.com\r\n", &["ann@example.com"]).with(tags, pairs);
        for transport in [Transport::Api, Transport::Smtp, Transport::Auto] {
            let told = mail.composed(transport).unwrap_err();
            assert!(told.contains(why), "{transport:?}: {told}");
        }
        let esp = Sendgrid::new(&settings(Transport::Auto, SendgridRegion::Global), true);
        let told = esp.could_carry(&mail.message, Content::Whole(&mail.message.body.head)).unwrap_err().0;
        assert!(told.contains(why), "{told}");
    }
    let mail = Mail::headed("To: ann@example.com\r\n", &["ann@example.com"]).with(&tags[..10], &pairs[..11]);
    let (json, smtpapi) = (mail.json(), mail.smtpapi());
    let args = &json["personalizations"][0]["custom_args"];
    assert_eq!((args, &json["categories"]), (&smtpapi["unique_args"], &smtpapi["category"]));
    assert_eq!((args.as_object().unwrap().len(), json["categories"].as_array().unwrap().len()), (12, 10));
}

fn http(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
    let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    Reply::Http(HttpReply { status, headers, body: Bytes::from(body.to_owned()), cut: false })
}

fn error(message: &str, field: &str) -> String {
    json!({"errors": [{"message": message, "field": field, "help": null}]}).to_string()
}

fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused { fault: Fault::Throttled(Throttle::Window(_)), .. } => "window".into(),
        Outcome::Refused { fault, lasting, .. } => {
            format!("{}{}", fault.word(), if *lasting { " lasting" } else { "" })
        }
        other => other.word().into(),
    }
}

#[test]
fn answers_mean_what_the_table_says() {
    let mail = Mail::headed("To: ann@example.com\r\n", &["ann@example.com"]);
    let identity = "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved.";
    let duplicate =
        "Each email address in the personalization block should be unique between to, cc, and bcc.";
    for (status, body, meant) in [
        (202, String::new(), "accepted"),
        (200, String::new(), "account lasting"),
        (201, String::new(), "unsure"),
        (301, String::new(), "path"),
        (400, error("Bad Request", ""), "message lasting"),
        (400, String::new(), "unfit"),
        (400, " \r\n".into(), "unfit"),
        (400, "{\"errors\":[{\"mess".into(), "unfit"),
        (400, "<html>400</html>".into(), "unfit"),
        (
            400,
            error("The content value must be a string at least one character in length.", "content.0.value"),
            "message lasting",
        ),
        (400, error("Does not contain a valid address.", "from.email"), "message lasting"),
        (
            400,
            error(
                "There is a limit of 1000 total recipients (to + cc + bcc) per request.",
                "personalizations",
            ),
            "unfit",
        ),
        (400, error(duplicate, "personalizations.0"), "unfit"),
        (
            400,
            error("The attachment type cannot contain ';', or CRLF characters.", "attachments.0.type"),
            "unfit",
        ),
        (
            400,
            error("Does not contain a valid address.", "personalizations.0.to.0.email"),
            "recipient lasting",
        ),
        (400, error("Does not contain a valid address.", "personalizations.0.to.7.email"), "message lasting"),
        (401, error("authorization required", ""), "account lasting"),
        (
            401,
            error("The provided authorization grant is invalid, expired, or revoked", ""),
            "account lasting",
        ),
        (401, error("Maximum credits exceeded", ""), "window"),
        (403, error("Maximum credits exceeded", ""), "window"),
        (429, error("Maximum credits exceeded", ""), "window"),
        (403, error(identity, "from"), "sender lasting"),
        (403, error("access forbidden", ""), "account lasting"),
        (404, error("not found", ""), "account lasting"),
        (405, String::new(), "account lasting"),
        (413, error("content too large", ""), "unfit"),
        (415, String::new(), "account lasting"),
        (429, error("too many requests", ""), "throttled"),
        (500, error("internal server error", ""), "unsure"),
        (500, error("The message was not accepted", ""), "path"),
        (502, "<html>".into(), "unsure"),
        (503, error("service unavailable", ""), "path"),
        (504, String::new(), "unsure"),
        (501, error("not implemented", ""), "unsure"),
        (505, String::new(), "unsure"),
        (520, "<html>error code: 520</html>".into(), "unsure"),
        (522, String::new(), "unsure"),
        (524, String::new(), "unsure"),
        (524, error("The message was not accepted", ""), "path"),
        (529, "{}".into(), "unsure"),
        (599, String::new(), "unsure"),
    ] {
        assert_eq!(word(&mail.read(http(status, &[], &body))[0]), meant, "{status} {body}");
    }
    let queued = mail.read(http(200, &[("x-message-id", "a")], ""));
    assert_eq!(word(&queued[0]), "unsure");
}

#[test]
fn the_id_comes_with_the_header_even_where_the_answer_is_cut() {
    let mail = Mail::headed("To: ann@example.com\r\n", &["ann@example.com"]);
    let reply = HttpReply {
        status: 202,
        headers: vec![("x-message-id".into(), "abc".into())],
        cut: true,
        ..HttpReply::default()
    };
    assert!(
        matches!(&mail.read(Reply::Http(reply))[0], Outcome::Accepted { remote_id: Some(id), .. } if id == "abc")
    );
}

#[test]
fn a_throttle_waits_for_its_reset() {
    let mail = Mail::headed("To: ann@example.com\r\n", &["ann@example.com"]);
    let now = NOW.millis() / 1000;
    let millis = NOW.millis() + 60_000;
    let text = |reset: i64| reset.to_string();
    for (reset, seconds) in [
        (text(now + 60), 60),
        (text(now - 60), 0),
        (text(now + 10_000_000), 86_400),
        (text(millis), 60),
        ("9".repeat(40), 86_400),
    ] {
        let outcome = &mail.read(http(429, &[("x-ratelimit-reset", &reset)], ""))[0];
        let Outcome::Refused { wait, fault: Fault::Throttled(Throttle::Rate), .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(*wait, Some(Duration::from_secs(seconds)));
    }
}

#[test]
fn an_identity_that_is_not_set_up_is_the_one_in_from() {
    let mail = Mail::headed("To: ann@example.com\r\n", &["ann@example.com"]);
    let outcome = &mail.read(http(
        403,
        &[],
        &error("The from address does not match a verified Sender Identity.", "from"),
    ))[0];
    assert!(matches!(outcome, Outcome::Refused { fault: Fault::Sender(Named::From), .. }), "{outcome:?}");
}

#[test]
fn one_bad_recipient_is_refused_and_the_others_go_again() {
    let mail = Mail::headed(
        "To: ann@example.com, bo@example.com\r\nCc: cy@example.com\r\n",
        &["cy@example.com", "BO@example.com", "dee@example.com", "ann@example.com"],
    );
    let words = |field: &str| {
        mail.read(http(400, &[], &error("Does not contain a valid address.", field)))
            .iter()
            .map(word)
            .collect::<Vec<_>>()
    };
    let (bad, again) = ("recipient lasting", "recipient");
    assert_eq!(words("personalizations.0.to.1.email"), [again, bad, again, again]);
    assert_eq!(words("personalizations.0.cc.0.email"), [bad, again, again, again]);
    assert_eq!(words("personalizations.0.bcc.0.email"), [again, again, bad, again]);
    assert_eq!(words("personalizations.0.to.1.name"), ["unfit"; 4]);
}

#[test]
fn an_answer_that_comes_when_the_message_is_at_hand_no_more_refuses_nobody_for_a_place_in_it() {
    let mail =
        Mail::headed("To: ann@example.com, bo@example.com\r\n", &["ann@example.com", "bo@example.com"]);
    let reply = http(400, &[], &error("Does not contain a valid address.", "personalizations.0.to.1.email"));
    let read = |message: &Message| {
        let parcel = Parcel { message, whole: None, ..mail.parcel() };
        let outcomes = esp(Transport::Api).read(parcel, &reply, NOW);
        outcomes.iter().map(word).collect::<Vec<_>>()
    };
    assert_eq!(read(&mail.message), ["recipient", "recipient lasting"], "small ones stay in memory");
    let mut large = mail.message.clone();
    large.body.rest = Some(Spilled { message: large.id, chunks: 1, octets: 1 });
    assert_eq!(read(&large), ["recipient"; 2]);
}

#[test]
fn replies_by_smtp_have_rows_of_their_own() {
    let mail = Mail::headed("To: ann@example.com\r\n", &["ann@example.com"]);
    for (phase, code, text, meant) in [
        (Phase::Auth, 451, "Authentication failed: Maximum credits exceeded", "window"),
        (Phase::Auth, 535, "Authentication failed: Bad username / password", "account lasting"),
        (Phase::Mail, 550, "Unauthenticated senders not allowed", "account lasting"),
        (Phase::Dot, 550, "The from address does not match a verified Sender Identity.", "sender lasting"),
        (Phase::Dot, 403, "You are not authorized to send from that email address", "sender"),
        (Phase::Dot, 552, "5.7.0 too large", "unfit"),
        (Phase::Dot, 554, "no", "message lasting"),
        (Phase::Dot, 452, "later", "path"),
        (Phase::Dot, 250, "Ok: queued as abcDEF-12", "accepted"),
    ] {
        let last = Answer { code, enhanced: None, text: text.into() };
        let ok = Answer { code: 250, enhanced: None, text: "ok".into() };
        let recipients = if phase == Phase::Dot { vec![ok] } else { Vec::new() };
        let reply = Reply::Smtp(SmtpReply { phase, last, recipients, reports: false });
        assert_eq!(word(&mail.read(reply)[0]), meant, "{code} {text}");
    }
}

#[test]
fn the_probe_says_whether_the_key_may_send() {
    let judged = |status, body: &str| match http(status, &[], body) {
        Reply::Http(reply) => judge_probe(&reply),
        _ => unreachable!(),
    };
    assert!(judged(200, "{\"scopes\":[\"mail.send\",\"x\"]}").unwrap().contains("may send"));
    assert!(judged(200, "{\"scopes\":[\"x\"]}").unwrap_err().contains("mail.send"));
    assert!(judged(200, "<html>").is_err());
    assert!(judged(401, "").unwrap_err().contains("key"));
    assert!(judged(403, "").is_err() && judged(500, "").is_err());
}

#[test]
fn each_region_has_its_hosts_and_no_key_is_shown() {
    for (region, api, smtp) in [
        (SendgridRegion::Global, "https://api.sendgrid.com", "smtp.sendgrid.net"),
        (SendgridRegion::Eu, "https://api.eu.sendgrid.com", "smtp.eu.sendgrid.net"),
    ] {
        let settings = settings(Transport::Auto, region);
        let (door, endpoint) = (Sendgrid::api(&settings), Sendgrid::smtp(&settings));
        assert_eq!((door.base.as_str(), endpoint.host.as_str(), endpoint.port), (api, smtp, 587));
        assert_eq!(
            (endpoint.login.as_ref().map(|login| login.username.as_str()), endpoint.tls),
            (Some("apikey"), SmtpTls::StartTls)
        );
        let shown = format!("{settings:?} {door:?} {endpoint:?} {:?}", Sendgrid::new(&settings, false));
        assert!(!shown.contains("quite-secret"), "{shown}");
    }
}

/// Composes every message of the corpus for whom its header names. Where `POSTROAD_SENDGRID_DUMP` names a folder the
/// requests are left there, for a judge of another make.
#[test]
fn the_corpus_is_composed_or_told_why_not() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/corpus");
    let dump = std::env::var_os("POSTROAD_SENDGRID_DUMP");
    let (mut composed, mut left) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "eml") {
            continue;
        }
        let content = std::fs::read(&path).unwrap();
        let parts = crate::mail::parts::take_apart(&content);
        let named = parts.iter().flat_map(|p| p.to.iter().chain(&p.cc)).map(|m| m.address.wire().to_owned());
        let named: BTreeSet<String> = named.collect();
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        let mail = Mail::of(&content, if named.is_empty() { &["ann@example.com"] } else { &named });
        match mail.composed(Transport::Api) {
            Ok(Request::Http(request)) => {
                composed += 1;
                assert!(serde_json::from_slice::<Value>(&request.body).is_ok(), "{}", path.display());
                if let (Some(folder), Some(name)) = (&dump, path.file_stem()) {
                    std::fs::write(Path::new(folder).join(name).with_extension("json"), &request.body)
                        .unwrap();
                }
            }
            Ok(other) => panic!("{other:?}"),
            Err(why) => {
                left += 1;
                assert!(why.starts_with("SendGrid"), "{}: {why}", path.display());
            }
        }
    }
    assert!(composed > 30 && left > 10, "{composed} composed, {left} left");
}

proptest! {
    #[test]
    fn whom_it_names_are_the_recipients_each_once(
        to in prop::collection::vec("[a-dA-D]", 0..4),
        cc in prop::collection::vec("[a-dA-D]", 0..4),
        call in prop::collection::vec("[a-dA-D]", 1..5),
    ) {
        let list = |names: &[String]| names.iter().map(|n| format!("{n}@x.example")).collect::<Vec<_>>();
        let recipients = list(&call);
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let head = format!("To: {}\r\nCc: {}\r\n", list(&to).join(", "), list(&cc).join(", "));
        let mail = Mail::headed(&head, &recipients);
        match mail.composed(Transport::Auto) {
            Ok(Request::Http(request)) => {
                let json: Value = serde_json::from_slice(&request.body).unwrap();
                prop_assert_eq!(json["personalizations"].as_array().map(Vec::len), Some(1));
                let one = &json["personalizations"][0];
                let all = ["to", "cc", "bcc"].into_iter().flat_map(|key| one[key].as_array().cloned().unwrap_or_default());
                let mut named: Vec<String> = all.map(|p| p["email"].as_str().unwrap().to_lowercase()).collect();
                named.sort();
                let wanted: BTreeSet<String> = recipients.iter().map(|r| r.to_lowercase()).collect();
                prop_assert_eq!(named, wanted.into_iter().collect::<Vec<_>>());
            }
            Ok(Request::Smtp(request)) => prop_assert_eq!(request.recipients, mail.recipients),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn any_labels_come_through_both_doors_alike(
        pairs in prop::collection::btree_map("[a-z_-]{1,12}|\\PC{1,8}", "\\PC{0,60}", 0..8),
        tags in prop::collection::vec("[ -~]{1,20}", 0..10),
    ) {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let mail = Mail::headed("To: ann@example.com\r\n", &["ann@example.com"]).with(&tags, &pairs);
        let (json, smtpapi) = (mail.json(), mail.smtpapi());
        prop_assert_eq!(&json["personalizations"][0]["custom_args"], &smtpapi["unique_args"]);
        prop_assert_eq!(json.get("categories"), smtpapi.get("category"));
    }

    #[test]
    fn no_answer_is_too_odd(status in 100u16..600, body in "\\PC{0,80}|\\{\"errors\":\\[\\{\"field\":\"personalizations.[0-9].(to|cc|x).[0-9]{1,30}.email\"\\}\\]\\}") {
        let mail = Mail::headed("To: ann@example.com\r\n", &["ann@example.com", "bo@example.com"]);
        prop_assert_eq!(mail.read(http(status, &[("x-ratelimit-reset", &body)], &body)).len(), 2);
    }
}
