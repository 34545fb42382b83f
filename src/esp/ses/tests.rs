//! Amazon SES: what is asked of it, and what its answers mean.

use std::time::Duration;

use super::*;
use crate::address::{Address, Grammar};
use crate::esp::settings::{Access, LineSettings, SmtpProof};
use crate::mail::{
    Answer, AttemptId, Body, BodyFacts, BodyKind, Envelope, Fault, HttpReply, MessageId, Named, Phase,
    Protocol, SmtpReply, SmtpRequest, Source, StreamKind, StreamName, Throttle,
};
use crate::secret::Secret;

const NOW: Timestamp = Timestamp::from_millis(1_795_602_034_000);
const PLAIN: &str = "From: Shop <shop@example.org>\r\nTo: ok@example.com\r\nSubject: s\r\n\r\nhello\r\n";

fn settings(transport: Transport, keys: bool) -> SesSettings {
    SesSettings {
        access: Access {
            transport,
            endpoint: None,
            smtp_endpoint: None,
            ca_file: None,
            envelope_from: None,
            lines: LineSettings::default(),
        },
        region: "eu-west-1".into(),
        keys: keys
            .then(|| ("AKIAEXAMPLE".to_owned(), Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))),
        configuration_set: Some("events".into()),
    }
}

fn ses(transport: Transport) -> Ses {
    Ses::new(&settings(transport, true), false)
}

fn address(text: &str) -> Address {
    Address::parse(text, Grammar::Lenient).unwrap()
}

fn message(content: &str) -> Message {
    Message {
        id: MessageId::from_number(1),
        envelope: Envelope {
            sender: ReversePath::Mailbox(address("bounces@example.org")),
            recipients: Vec::new(),
            body: BodyKind::SevenBit,
            smtputf8: false,
            reports: None,
        },
        stream: StreamName::new(StreamName::TRANSACTIONAL),
        kind: StreamKind::Transactional,
        body: Body::whole(content.to_owned()),
        accepted_at: NOW,
        expires_at: NOW,
        tags: Vec::new(),
        metadata: Vec::new(),
        pin: None,
        source: Source {
            listener: "l".into(),
            peer: std::net::Ipv4Addr::LOCALHOST.into(),
            helo: "c".into(),
            credential: None,
            protocol: Protocol::Smtp,
        },
    }
}

/// Composed from all of it, as the caller does.
fn compose(ses: &Ses, message: &Message, recipients: &[Address]) -> Result<Request, String> {
    let whole = ses.wants_whole(message).then_some(&message.body.head);
    let parcel = Parcel { message, whole, recipients, attempt: AttemptId::from_number(7) };
    ses.compose(parcel, NOW).map_err(|unfit| unfit.0)
}

fn by_api(ses: &Ses, message: &Message, to: &str) -> SesRequest {
    match compose(ses, message, &[address(to)]) {
        Ok(Request::Ses(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn by_smtp(ses: &Ses, message: &Message) -> SmtpRequest {
    match compose(ses, message, &[address("ok@example.com")]) {
        Ok(Request::Smtp(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn unfit(content: &str, to: &str) -> String {
    compose(&ses(Transport::Auto), &message(content), &[address(to)]).unwrap_err()
}

#[test]
fn the_message_goes_as_it_is_to_exactly_these_recipients() {
    let request = by_api(&ses(Transport::Auto), &message(PLAIN), "hidden@b\u{fc}cher.example");
    assert_eq!(request.data, PLAIN.as_bytes());
    assert_eq!(request.recipients[0].ascii_wire().unwrap(), "hidden@xn--bcher-kva.example");
    assert_eq!(request.configuration_set.as_deref(), Some("events"));
    assert_eq!(request.tags, [("postroad-attempt".to_owned(), "0000000000001-0000000000007".to_owned())]);
}

#[test]
fn labels_and_pairs_become_tags_and_none_takes_anothers_place() {
    let content = format!("X-SES-MESSAGE-TAGS: campaign=spring, kind=receipt;\r\n{PLAIN}");
    let mut message = message(&content);
    message.tags = ["welcome", "b"].map(str::to_owned).to_vec();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    message.metadata = vec![pair("campaign", "summer"), pair("order", "4711")];
    let tags = by_api(&ses(Transport::Api), &message, "ok@example.com").tags;
    assert_eq!(
        tags,
        [
            pair("postroad-attempt", "0000000000001-0000000000007"),
            pair("postroad-tag", "welcome"),
            pair("postroad-tag-2", "b"),
            pair("campaign", "summer"),
            pair("order", "4711"),
            pair("kind", "receipt"),
        ]
    );
}

#[test]
fn a_label_or_a_pair_that_ses_cannot_say_does_not_fit_by_either_door() {
    for (tag, key, value, why) in [
        ("two words", "order", "7", "its tag \"two words\" is none"),
        ("gr\u{fc}n", "order", "7", r#"its tag "gr\u{fc}n" is none"#),
        ("a", "name", "J. R", "its metadata name is none"),
        ("a", "name", &"x".repeat(257), "its metadata name is none"),
        ("a", "postroad-attempt", "0000000000008", "the relay's own"),
        ("a", "Postroad-Tag-2", "c", "the relay's own"),
    ] {
        let mut message = message(PLAIN);
        message.tags = vec![tag.to_owned()];
        message.metadata = vec![(key.to_owned(), value.to_owned())];
        for transport in [Transport::Api, Transport::Smtp, Transport::Auto] {
            let ses = ses(transport);
            let told = compose(&ses, &message, &[address("ok@example.com")]).unwrap_err();
            assert!(told.contains(why), "{transport:?}: {told}");
            assert_eq!(ses.could_carry(&message, Content::Beginning).unwrap_err().0, told);
        }
    }
}

#[test]
fn what_an_app_says_to_ses_goes_by_the_api_s_own_parameters() {
    let own = "X-SES-CONFIGURATION-SET: theirs\r\nX-Ses-Message-Tags: kind=receipt\r\n";
    let raw = format!("{own}X-SES-SOURCE-ARN: arn:aws:x\r\n{PLAIN}");
    for (configured, used) in [(Some("events"), "events"), (None, "theirs")] {
        let mut settings = settings(Transport::Api, true);
        settings.configuration_set = configured.map(str::to_owned);
        let ses = Ses::new(&settings, false);
        let request = compose(&ses, &message(&raw), &[address("ok@example.com")]).unwrap();
        let Request::Ses(request) = request else { panic!("{request:?}") };
        assert_eq!(request.configuration_set.as_deref(), Some(used));
        assert!(request.tags.contains(&("kind".into(), "receipt".into())), "{:?}", request.tags);
        assert_eq!(request.data, format!("X-SES-SOURCE-ARN: arn:aws:x\r\n{PLAIN}"));
    }
    let bad = message(&format!("X-SES-CONFIGURATION-SET: two words\r\n{PLAIN}"));
    let told = compose(&ses(Transport::Auto), &bad, &[address("ok@example.com")]).unwrap_err();
    assert!(told.contains("names no configuration set"), "{told}");
}

#[test]
fn a_set_that_is_not_there_is_the_mistake_of_who_named_it() {
    let recipients = [address("ok@example.com")];
    let message = message(&format!("X-SES-CONFIGURATION-SET: theirs\r\n{PLAIN}"));
    let parcel = Parcel {
        message: &message,
        whole: None,
        recipients: &recipients,
        attempt: AttemptId::from_number(7),
    };
    let by_http = Reply::Http(reply(
        404,
        "NotFoundException",
        r#"{"message":"Configuration set <x> does not exist."}"#,
    ));
    let text = "Transaction failed: Configuration set does not exist: x";
    let last = Answer { code: 554, enhanced: None, text: text.into() };
    let ok = Answer { code: 250, enhanced: None, text: "Ok".into() };
    let by_smtp = Reply::Smtp(SmtpReply { phase: Phase::Dot, last, recipients: vec![ok], reports: false });
    for (configured, expected) in [(Some("events"), "account lasting"), (None, "message lasting")] {
        let mut settings = settings(Transport::Auto, true);
        settings.configuration_set = configured.map(str::to_owned);
        for reply in [&by_http, &by_smtp] {
            assert_eq!(word(&Ses::new(&settings, false).read(parcel, reply, NOW)[0]), expected);
        }
    }
}

#[test]
fn by_smtp_the_same_stands_on_top_and_nothing_stands_there_twice() {
    let content = format!("X-SES-MESSAGE-TAGS: kind=receipt\r\nX-Ses-Configuration-Set: theirs\r\n{PLAIN}");
    let request = by_smtp(&ses(Transport::Smtp), &message(&content));
    let expected = format!(
        "X-SES-MESSAGE-TAGS: postroad-attempt=0000000000001-0000000000007, kind=receipt\r\nX-SES-CONFIGURATION-SET: events\r\n{PLAIN}"
    );
    assert_eq!(String::from_utf8_lossy(&request.body.head), expected);
    assert_eq!(request.body.facts, BodyFacts::of(expected.as_bytes()));
    assert_eq!(request.sender.wire(), "bounces@example.org");
}

#[test]
fn many_tags_are_folded_into_lines() {
    let pairs: Vec<_> = (0..20).map(|n| (format!("k{n}"), "v".repeat(255))).collect();
    let field = tags::field(TAGS_FIELD, &pairs);
    assert!(field.lines().all(|line| line.len() <= 998) && field.lines().skip(1).all(|l| l.starts_with(' ')));
    let unfolded = field.replace("\r\n ", " ");
    assert_eq!(unfolded.matches('=').count(), 20);
}

#[test]
fn what_ses_cannot_carry_is_named_before_anything_is_sent() {
    let twice = format!("DKIM-Signature: a\r\nDKIM-Signature: b\r\n{PLAIN}");
    assert!(unfit(&twice, "ok@example.com").contains("one DKIM-Signature field"));
    assert!(
        unfit(&format!("content-TYPE: a/b\r\nContent-Type: a/b\r\n{PLAIN}"), "ok@example.com")
            .contains("Content-Type")
    );
    assert!(unfit(PLAIN, "gr\u{fc}n@example.com").contains("not ASCII"));
    assert!(unfit("To: ok@example.com\r\n\r\nhello\r\n", "ok@example.com").contains("without a From"));
    assert!(
        unfit(&format!("X-Gr\u{f6}\u{df}e: 1\r\n{PLAIN}"), "ok@example.com")
            .contains("X-Gr\u{f6}\u{df}e is none")
    );
    for head in [
        "DKIM-Signature: v=1; d=example.org\r\nFrom: J\u{fc}rgen <a@example.org>\r\n",
        "From: j\u{fc}rgen@example.org\r\n",
        "From: J\u{fc}rgen <a@example.org> (J\u{fc}rgen)\r\n",
    ] {
        let told = unfit(&format!("{head}\r\n"), "ok@example.com");
        assert!(told.contains("From has other octets"), "{told}");
    }
    assert!(unfit(&format!("{PLAIN}{}\r\n", "x".repeat(999)), "ok@example.com").contains("999 octets"));
    let crowd: Vec<Address> = (0..51).map(|n| address(&format!("r{n}@example.com"))).collect();
    let ses = ses(Transport::Auto);
    assert!(compose(&ses, &message(PLAIN), &crowd).unwrap_err().contains("50 recipients"));
    assert!(compose(&ses, &message(PLAIN), &crowd[..50]).is_ok());
    let mut report = message(PLAIN);
    report.source.protocol = Protocol::Report;
    assert!(compose(&ses, &report, &crowd[..1]).unwrap_err().contains("dsn_from"));
    assert!(compose(&Ses::new(&settings(Transport::Auto, true), true), &report, &crowd[..1]).is_ok());
    assert!(
        compose(
            &ses,
            &message("Received: a\r\nReceived: b\r\nFrom: a@example.org\r\nTo: a\r\nTo: b\r\n\r\n"),
            &crowd[..1]
        )
        .is_ok()
    );
}

#[test]
fn what_the_api_cannot_carry_goes_by_smtp_where_that_is_open() {
    let mut large = message(PLAIN);
    large.body.rest = Some(crate::mail::body::Spilled { message: large.id, chunks: 200, octets: 30_000_000 });
    let to = [address("ok@example.com")];
    assert!(!ses(Transport::Auto).wants_whole(&large) && ses(Transport::Auto).wants_whole(&message(PLAIN)));
    assert!(!ses(Transport::Smtp).wants_whole(&message(PLAIN)));
    assert!(matches!(compose(&ses(Transport::Auto), &large, &to), Ok(Request::Smtp(_))));
    let why = compose(&ses(Transport::Api), &large, &to).unwrap_err();
    assert!(why.contains("in base64") && why.contains("40000000"), "{why}");
    // With the default chain's credentials there is no SMTP password.
    let chain = Ses::new(&settings(Transport::Auto, false), false);
    assert!(compose(&chain, &large, &to).is_err() && Ses::smtp(&settings(Transport::Auto, false)).is_none());
}

#[test]
fn mail_without_a_sender_goes_by_the_api_alone() {
    let mut message = message(PLAIN);
    message.envelope.sender = ReversePath::Null;
    let to = [address("ok@example.com")];
    assert!(matches!(compose(&ses(Transport::Auto), &message, &to), Ok(Request::Ses(_))));
    assert!(compose(&ses(Transport::Smtp), &message, &to).unwrap_err().contains("envelope_from"));
}

#[test]
fn its_smtp_endpoint_has_the_password_of_its_region() {
    let smtp = Ses::smtp(&settings(Transport::Auto, true)).unwrap();
    assert_eq!((smtp.host.as_str(), smtp.port), ("email-smtp.eu-west-1.amazonaws.com", 587));
    let login = smtp.login.unwrap();
    let password = SmtpProof::Password(Secret::new("BMW5RDrXmmVs0lV7GpI4oLkHXpZ4stDsk6q91z1g38Pk"));
    assert_eq!((login.username.as_str(), login.proof), ("AKIAEXAMPLE", password));
}

fn reply(status: u16, name: &str, body: &str) -> HttpReply {
    let headers = match name {
        "" => Vec::new(),
        name => vec![("x-amzn-errortype".to_owned(), name.to_owned())],
    };
    HttpReply { status, headers, body: body.to_owned().into(), cut: false }
}

fn read(reply: &Reply) -> Outcome {
    let recipients = [address("ok@example.com")];
    let message = message(PLAIN);
    let parcel = Parcel {
        message: &message,
        whole: None,
        recipients: &recipients,
        attempt: AttemptId::from_number(7),
    };
    ses(Transport::Auto).read(parcel, reply, NOW).remove(0)
}

fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused {
            fault: Fault::Throttled(Throttle::Window(until)), lasting: false, wait, ..
        } => {
            assert_eq!(*until, NOW.plus(wait.unwrap()));
            "window".into()
        }
        Outcome::Refused { fault: Fault::Sender(Named::From), lasting: true, .. } => "from lasting".into(),
        Outcome::Refused { fault, lasting: true, .. } => format!("{} lasting", fault.word()),
        Outcome::Refused { fault, .. } => fault.word().into(),
        other => other.word().into(),
    }
}

#[test]
fn every_answer_has_its_fault() {
    let failed = |who: &str| {
        format!(
            "Email address is not verified. The following identities failed the check in region EU-WEST-1: {who}"
        )
    };
    for (status, name, said, expected) in [
        (429, "TooManyRequestsException", "Maximum sending rate exceeded.", "throttled"),
        (400, "ThrottlingException", "Rate exceeded", "throttled"),
        (400, "Throttling", "Maximum sending rate exceeded.", "throttled"),
        (429, "TooManyRequestsException", "Daily message quota exceeded.", "window"),
        (400, "Throttling", "Daily message quota exceeded.", "window"),
        (400, "LimitExceededException", "too many", "window"),
        (400, "MessageRejected", &failed("shop@example.org"), "from lasting"),
        (400, "MessageRejected", &failed("shop@example.org, ok@example.com"), "from lasting"),
        (400, "MessageRejected", &failed("OK@example.com"), "account lasting"),
        (400, "MessageRejected", &failed("example.com"), "account lasting"),
        (400, "MessageRejected", "Email address is not verified.", "from lasting"),
        (400, "MessageRejected", "Duplicate header 'DKIM-Signature'.", "unfit"),
        (400, "MessageRejected", "Transaction failed: File contains a virus", "message lasting"),
        (400, "MessageRejected", "Illegal address", "message lasting"),
        (400, "MailFromDomainNotVerifiedException", "bounce.example.org", "from lasting"),
        (400, "AccountSuspendedException", "suspended", "account lasting"),
        (400, "SendingPausedException", "paused", "account lasting"),
        (400, "AccountSendingPausedException", "paused", "account lasting"),
        (400, "ConfigurationSetSendingPausedException", "paused", "account lasting"),
        (404, "NotFoundException", "Configuration set <events> does not exist.", "account lasting"),
        (400, "ConfigurationSetDoesNotExist", "no", "account lasting"),
        (400, "BadRequestException", "Missing final '@domain'", "message lasting"),
        (400, "BadRequestException", "Message length is more than 41943040 bytes long", "unfit"),
        (403, "AccessDeniedException", "User is not authorized to perform ses:SendEmail", "account lasting"),
        (403, "UnrecognizedClientException", "The security token included is invalid.", "account lasting"),
        (403, "InvalidClientTokenId", "no", "account lasting"),
        (403, "SignatureDoesNotMatch", "no", "account lasting"),
        (403, "InvalidSignatureException", "no", "account lasting"),
        (403, "ExpiredTokenException", "no", "account lasting"),
        (403, "RequestExpired", "no", "account lasting"),
        (403, "", "who knows", "account lasting"),
        (500, "InternalServerErrorException", "no", "unsure"),
        (500, "InternalFailure", "no", "unsure"),
        (500, "", "no", "unsure"),
        (502, "", "no", "unsure"),
        (504, "", "no", "unsure"),
        (501, "NotImplemented", "no", "unsure"),
        (505, "", "no", "unsure"),
        (520, "", "no", "unsure"),
        (522, "", "no", "unsure"),
        (524, "", "no", "unsure"),
        (529, "", "no", "unsure"),
        (599, "", "no", "unsure"),
        (502, "BadRequestException", "no", "unsure"),
        (500, "AccessDeniedException", "no", "unsure"),
        (500, "ServiceUnavailable", "no", "unsure"),
        (503, "ServiceUnavailable", "no", "path"),
        (503, "InternalFailure", "no", "path"),
        (413, "", "no", "unfit"),
        (400, "SerializationException", "no", "unfit"),
    ] {
        let body = serde_json::json!({ "message": said }).to_string();
        let outcome = read(&Reply::Http(reply(status, name, &body)));
        assert_eq!(word(&outcome), expected, "{status} {name} {said}");
        assert!(outcome.said().starts_with(&format!("HTTP {status} {name}")), "{}", outcome.said());
    }
}

#[test]
fn how_long_it_asks_to_wait_is_read_where_it_asks() {
    let said = ["Maximum sending rate exceeded.", "Daily message quota exceeded."];
    for (said, retry_after, seconds) in [
        (said[0], Some("7"), Some(7)),
        (said[0], None, None),
        (said[1], Some("120"), Some(120)),
        (said[1], None, Some(3_600)),
    ] {
        let body = format!(r#"{{"message":"{said}"}}"#);
        let mut reply = reply(429, "TooManyRequestsException", &body);
        reply.headers.extend(retry_after.map(|value| ("retry-after".to_owned(), value.to_owned())));
        let outcome = read(&Reply::Http(reply));
        let Outcome::Refused { fault, wait, .. } = &outcome else { panic!("{outcome:?}") };
        assert_eq!(*wait, seconds.map(Duration::from_secs), "{said} {retry_after:?}");
        if let Fault::Throttled(Throttle::Window(until)) = fault {
            assert_eq!(Some(until.since(NOW)), *wait);
        }
    }
}

#[test]
fn a_recipient_that_it_names_is_refused_alone() {
    let message = message(PLAIN);
    let to = [address("ok@example.com"), address("B@example.com"), address("c@example.net")];
    let words = |said: &str, to: &[Address]| {
        let parcel =
            Parcel { message: &message, whole: None, recipients: to, attempt: AttemptId::from_number(1) };
        let body = format!("{{\"message\":\"{said}\"}}");
        let outcomes =
            ses(Transport::Api).read(parcel, &Reply::Http(reply(400, "BadRequestException", &body)), NOW);
        outcomes.iter().map(word).collect::<Vec<_>>()
    };
    let (bad, again) = ("recipient lasting", "recipient");
    assert_eq!(words("Illegal address b@example.com", &to), [again, bad, again]);
    assert_eq!(words("Invalid address: <c@example.net>.", &to), [again, again, bad]);
    assert_eq!(words("Illegal address b@example.com", &to[1..2]), [bad]);
    assert_eq!(words("Illegal address x@example.org", &to), ["message lasting"; 3], "none of theirs");
    assert_eq!(words("Illegal address", &to), ["message lasting"; 3], "nobody knows which");
    assert_eq!(words("a virus for b@example.com", &to), ["message lasting"; 3]);
}

#[test]
fn the_name_is_found_wherever_it_stands() {
    for (name, body) in [
        ("MessageRejected:http://internal.amazon.com/coral/", r#"{"message":"Illegal address"}"#),
        ("", r#"{"__type":"com.amazonaws.ses.v2#MessageRejected","Message":"Illegal address"}"#),
        ("", r#"{"__type":"MessageRejected","message":"Illegal address"}"#),
    ] {
        let outcome = read(&Reply::Http(reply(400, name, body)));
        assert_eq!(outcome.said(), "HTTP 400 MessageRejected: Illegal address");
        assert_eq!(word(&outcome), "message lasting");
    }
}

#[test]
fn taken_is_what_has_an_id_and_a_cut_answer_is_neither_yes_nor_no() {
    let taken = reply(200, "", r#"{"MessageId":"0100018c2b5d-1f2e-000000"}"#);
    let outcome = read(&Reply::Http(taken.clone()));
    assert!(
        matches!(&outcome, Outcome::Accepted { remote_id: Some(id), .. } if id == "0100018c2b5d-1f2e-000000")
    );
    for strange in [
        HttpReply { cut: true, ..taken },
        reply(200, "", r#"{"MessageId""#),
        reply(200, "", "<html>welcome</html>"),
        reply(200, "", r#"{"MessageId":""}"#),
    ] {
        assert_eq!(word(&read(&Reply::Http(strange))), "unsure");
    }
    let lost = |handed_over| Reply::Lost {
        phase: Phase::Answer,
        handed_over,
        recipients: Vec::new(),
        said: "closed".into(),
    };
    assert_eq!((word(&read(&lost(true))), word(&read(&lost(false)))), ("unsure".into(), "path".into()));
}

#[test]
fn its_own_rows_by_smtp_come_before_those_for_all() {
    use Phase::{Banner, Data, Dot, Mail, Rcpt};
    let failed = |who: &str| {
        format!(
            "Message rejected: Email address is not verified. The following identities failed the check in region \
             EU-WEST-1: {who}"
        )
    };
    for (phase, code, said, expected) in [
        (Banner, 421, "Too many concurrent SMTP connections", "throttled"),
        (Mail, 454, "Throttling failure: Maximum sending rate exceeded.", "throttled"),
        (Dot, 454, "Throttling failure: Daily message quota exceeded.", "window"),
        (Dot, 454, "Temporary service failure", "path"),
        (Data, 451, "Timeout waiting for data from client.", "path"),
        (Dot, 451, "Temporary service failure", "path"),
        (Mail, 530, "Authentication required", "account lasting"),
        (Phase::Auth, 535, "Authentication Credentials Invalid", "account lasting"),
        (Phase::Auth, 454, "Temporary authentication failure", "path"),
        (Dot, 552, "Message is too long.", "unfit"),
        (Mail, 553, "<a@> Invalid email address", "message lasting"),
        (Rcpt, 553, "<nobody@example.com> address unknown", "recipient lasting"),
        (Dot, 554, "Access denied: User `arn:aws:iam::1:user/x' is not authorized", "account lasting"),
        (Dot, 554, &failed("shop@example.org"), "from lasting"),
        (Dot, 554, &failed("ok@example.com"), "account lasting"),
        (Dot, 554, "Transaction failed: Duplicate header 'DKIM-Signature'.", "unfit"),
        (Dot, 554, "Transaction failed: Configuration set does not exist: events", "account lasting"),
        (Dot, 554, "Transaction failed: Expected disposition, got null", "message lasting"),
    ] {
        let last = Answer { code, enhanced: None, text: said.to_owned() };
        let ok = Answer { code: 250, enhanced: None, text: "Ok".into() };
        let recipients = match phase {
            Rcpt => vec![last.clone()],
            Data | Dot => vec![ok],
            _ => Vec::new(),
        };
        let reply = Reply::Smtp(SmtpReply { phase, last, recipients, reports: false });
        assert_eq!(word(&read(&reply)), expected, "{} {code} {said}", phase.word());
    }
}

#[test]
fn a_check_tells_what_the_account_may_do() {
    let account = |production: bool, sending: bool, status: &str| {
        format!(
            r#"{{"ProductionAccessEnabled":{production},"SendingEnabled":{sending},"EnforcementStatus":"{status}",
                "SendQuota":{{"Max24HourSend":50000.0,"MaxSendRate":14.0,"SentLast24Hours":1234.0}}}}"#
        )
    };
    let ok = judge_account(&reply(200, "", &account(true, true, "HEALTHY"))).unwrap();
    assert_eq!(ok, "the key is good; production; sent 1234 of 50000 in 24 hours, 14/s");
    let sandbox = judge_account(&reply(200, "", &account(false, true, "PROBATION"))).unwrap();
    assert!(sandbox.contains("sandbox") && sandbox.contains("PROBATION"), "{sandbox}");
    assert!(
        judge_account(&reply(200, "", &account(true, false, "SHUTDOWN")))
            .unwrap_err()
            .contains("may not send")
    );
    assert!(judge_account(&reply(200, "", "{}")).is_err());
    let said = r#"{"message":"no"}"#;
    assert!(judge_account(&reply(403, "AccessDeniedException", said)).unwrap().contains("ses:GetAccount"));
    assert!(judge_account(&reply(429, "TooManyRequestsException", said)).is_ok());
    for (name, advice) in [
        ("UnrecognizedClientException", "access_key_id"),
        ("SignatureDoesNotMatch", "secret_access_key"),
        ("ExpiredTokenException", "expired"),
        ("SomethingElse", "HTTP 403 SomethingElse: no"),
    ] {
        assert!(judge_account(&reply(403, name, said)).unwrap_err().contains(advice), "{name}");
    }
}

#[test]
fn the_account_tells_rate_and_quota() {
    let account = |quota: &str| reply(200, "", &format!(r#"{{"SendQuota":{quota}}}"#));
    let told = |quota: &str| ses(Transport::Auto).told(&account(quota));
    let full = told(r#"{"Max24HourSend":50000.0,"MaxSendRate":14.5,"SentLast24Hours":1234.0}"#).unwrap();
    assert_eq!((full.rate.recipients, full.rate.per.as_secs()), (14, 1));
    assert_eq!((full.daily, full.sent), (Some(50_000), 1_234));
    let slow = told(r#"{"Max24HourSend":-1.0,"MaxSendRate":0.25,"SentLast24Hours":0.0}"#).unwrap();
    assert_eq!((slow.rate.recipients, slow.rate.per.as_secs(), slow.daily), (1, 4, None));
    assert!(told(r#"{"Max24HourSend":200.0,"MaxSendRate":0.0,"SentLast24Hours":0.0}"#).is_err());
    assert!(told("{}").is_err());
    let refused = reply(403, "AccessDeniedException", r#"{"message":"no"}"#);
    assert!(ses(Transport::Auto).told(&refused).unwrap_err().contains("AccessDenied"));
}

#[test]
fn names_beyond_ascii_go_as_encoded_words_by_either_door() {
    let mail = "From: J\u{fc}rgen <a@example.org>\r\nTo: \"Gr\u{fc}n, Li\" <b@example.com>,\r\n Shop <c@example.com>\r\n\
                Subject: gr\u{fc}n\r\n\r\ngr\u{fc}n\r\n";
    let wanted = "From: =?utf-8?B?SsO8cmdlbg==?= <a@example.org>\r\nTo: =?utf-8?B?R3LDvG4sIExp?= <b@example.com>,\r\n \
                  \"Shop\" <c@example.com>\r\nSubject: gr\u{fc}n\r\n\r\ngr\u{fc}n\r\n";
    let message = message(mail);
    assert_eq!(by_api(&ses(Transport::Api), &message, "b@example.com").data, wanted.as_bytes());
    let request = by_smtp(&ses(Transport::Smtp), &message);
    let text = String::from_utf8(request.body.head.to_vec()).unwrap();
    assert!(text.ends_with(wanted), "{text}");
    assert_eq!(request.body.facts.size_octets, text.len() as u64);
}
