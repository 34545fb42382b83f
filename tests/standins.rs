//! The ESPs' stand-ins judge and fail as they say: with requests written by hand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postroad::clock::{Clock as _, System, Timestamp, monotonic};
use serde_json::{Value, json};

use crate::support::esps::sigv4::{self, Credential};
use crate::support::esps::{
    Door, Fault, Postmark, Request, Response, Sendgrid, Ses, Standin, Vendor, faults, postmark, sendgrid, ses,
};
use crate::support::smtp::stuffed;
use crate::support::{Client, tls, wait_until};

/// How long an answer may take here.
const BOUND: Duration = Duration::from_secs(20);

/// An answer as it was heard.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Heard {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }
}

/// One connection, kept alive.
struct Line<S>(S);

fn connect(at: SocketAddr) -> Line<TcpStream> {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    Line(stream)
}

impl<S: Read + Write> Line<S> {
    fn ask(&mut self, request: &Request) -> Option<Heard> {
        self.0.write_all(&bytes(request)).ok()?;
        self.hear()
    }

    /// `None` where the line ends before the answer does.
    fn hear(&mut self) -> Option<Heard> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut octet = [0];
            self.0.read_exact(&mut octet).ok()?;
            head.push(octet[0]);
        }
        let head = String::from_utf8(head).ok()?;
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let pair = |l: &str| l.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned()));
        let mut heard = Heard { status, headers: lines.filter_map(pair).collect(), body: String::new() };
        let length = heard.header("Content-Length")?.parse().ok()?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).ok()?;
        heard.body = String::from_utf8(body).ok()?;
        Some(heard)
    }
}

fn bytes(request: &Request) -> Vec<u8> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.path);
    for (name, value) in &request.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", request.body.len());
    [head.as_bytes(), &request.body].concat()
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Request {
    let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let (method, path) = (method.to_owned(), path.to_owned());
    Request { method, path, query: String::new(), headers, body: body.to_vec(), connection: 0 }
}

/// What one ESP's client does: the requests of a stand-in that it takes.
trait Known: Vendor {
    const ROUTE: &'static str;

    /// A mail that it takes, to these.
    fn mail(to: &[&str]) -> Value;

    fn send(standin: &Standin<Self>, mail: &Value) -> Request;

    /// With a key that is not its own.
    fn send_wrongly(standin: &Standin<Self>, mail: &Value) -> Request;
}

impl Known for sendgrid::Rules {
    const ROUTE: &'static str = "/v3/mail/send";

    fn mail(to: &[&str]) -> Value {
        let to: Vec<Value> = to.iter().map(|a| json!({ "email": a, "name": "A" })).collect();
        json!({
            "personalizations": [{ "to": to, "custom_args": { "postroad_attempt": "a7" } }],
            "from": { "email": "shop@example.org", "name": "Shop" },
            "subject": "hello",
            "content": [{ "type": "text/plain", "value": "hi" }, { "type": "text/html", "value": "<p>hi</p>" }],
            "attachments": [{ "content": "AAEC", "filename": "a.bin", "type": "application/octet-stream",
                "disposition": "attachment" }],
            "headers": { "X-Shop": "1" },
            "categories": ["welcome"],
        })
    }

    fn send(standin: &Standin<Self>, mail: &Value) -> Request {
        sendgrid_request(standin.key(), mail)
    }

    fn send_wrongly(_: &Standin<Self>, mail: &Value) -> Request {
        sendgrid_request("SG.other", mail)
    }
}

fn sendgrid_request(key: &str, mail: &Value) -> Request {
    let key = format!("Bearer {key}");
    let headers = [("Host", "x"), ("Authorization", key.as_str()), ("Content-Type", "application/json")];
    request("POST", "/v3/mail/send", &headers, mail.to_string().as_bytes())
}

impl Known for postmark::Rules {
    const ROUTE: &'static str = "/email";

    fn mail(to: &[&str]) -> Value {
        json!({
            "From": "\"Shop, Inc.\" <shop@example.org>",
            "To": to.join(", "),
            "Subject": "hello",
            "TextBody": "hi",
            "HtmlBody": "<p>hi</p>",
            "Tag": "welcome",
            "Metadata": { "postroad-attempt": "a7" },
            "Headers": [{ "Name": "X-Shop", "Value": "1" }],
            "MessageStream": "outbound",
            "TrackOpens": false,
            "TrackLinks": "None",
            "Attachments": [{ "Name": "a.pdf", "Content": "AAEC", "ContentType": "application/pdf",
                "ContentID": "cid:a" }],
        })
    }

    fn send(standin: &Standin<Self>, mail: &Value) -> Request {
        postmark_request(standin.key(), mail)
    }

    fn send_wrongly(_: &Standin<Self>, mail: &Value) -> Request {
        postmark_request("another", mail)
    }
}

fn postmark_request(token: &str, mail: &Value) -> Request {
    let json = "application/json";
    let headers =
        [("Host", "x"), ("X-Postmark-Server-Token", token), ("Accept", json), ("Content-Type", json)];
    request("POST", "/email", &headers, mail.to_string().as_bytes())
}

const MIME: &str = "From: Shop <shop@example.org>\r\nTo: a@example.com\r\nSubject: hello\r\n\r\nhi\r\n";

impl Known for ses::Rules {
    const ROUTE: &'static str = "/v2/email/outbound-emails";

    fn mail(to: &[&str]) -> Value {
        raw_mail(to, MIME)
    }

    fn send(standin: &Standin<Self>, mail: &Value) -> Request {
        ses_request(standin.credential(), "POST", Self::ROUTE, mail.to_string().as_bytes())
    }

    fn send_wrongly(standin: &Standin<Self>, mail: &Value) -> Request {
        let other = Credential { secret: "another".into(), ..standin.credential().clone() };
        ses_request(&other, "POST", Self::ROUTE, mail.to_string().as_bytes())
    }
}

fn raw_mail(to: &[&str], mime: &str) -> Value {
    json!({
        "Destination": { "ToAddresses": to },
        "Content": { "Raw": { "Data": STANDARD.encode(mime) } },
        "EmailTags": [{ "Name": "postroad-attempt", "Value": "a7" }],
    })
}

fn ses_request(credential: &Credential, method: &str, path: &str, body: &[u8]) -> Request {
    ses_request_at(credential, method, path, body, System.now())
}

fn ses_request_at(credential: &Credential, method: &str, path: &str, body: &[u8], at: Timestamp) -> Request {
    let date = sigv4::amz_date(at);
    let headers =
        [("Host", "127.0.0.1"), ("X-Amz-Date", date.as_str()), ("Content-Type", "application/json")];
    let mut request = request(method, path, &headers, body);
    let signature = sigv4::sign(&request, credential, "ses");
    request.headers.push(("Authorization".into(), signature));
    request
}

#[track_caller]
fn ask<V: Known>(standin: &Standin<V>, mail: &Value) -> Heard {
    connect(standin.address()).ask(&V::send(standin, mail)).expect("an answer")
}

#[test]
fn each_refuses_an_empty_request() {
    let (sendgrid, ses, postmark) = (Sendgrid::start(), Ses::start(), Postmark::start());
    let heard = ask(&sendgrid, &json!({}));
    assert_eq!(heard.status, 400, "{heard:?}");
    assert!(heard.json()["errors"].as_array().is_some_and(|e| e.len() >= 4), "{heard:?}");
    let heard = ask(&ses, &json!({}));
    assert_eq!(
        (heard.status, heard.header("x-amzn-ErrorType")),
        (400, Some("BadRequestException")),
        "{heard:?}"
    );
    let heard = ask(&postmark, &json!({}));
    assert_eq!((heard.status, &heard.json()["ErrorCode"]), (422, &json!(300)), "{heard:?}");
    assert_eq!((sendgrid.count(), ses.count(), postmark.count()), (0, 0, 0));
}

fn refuses_another_key<V: Known>(standin: &Standin<V>, status: u16) {
    let request = V::send_wrongly(standin, &V::mail(&["a@example.com"]));
    let heard = connect(standin.address()).ask(&request).unwrap();
    assert_eq!(heard.status, status, "{heard:?}");
    let bare = self::request("POST", V::ROUTE, &[("Host", "x"), ("Content-Type", "application/json")], b"{}");
    let heard = connect(standin.address()).ask(&bare).unwrap();
    assert_eq!(heard.status, status, "{heard:?}");
    assert_eq!(standin.count(), 0);
    assert_eq!(standin.requests().len(), 2);
}

#[test]
fn each_refuses_another_key_and_none() {
    refuses_another_key(&Sendgrid::start(), 401);
    refuses_another_key(&Ses::start(), 403);
    refuses_another_key(&Postmark::start(), 401);
}

#[track_caller]
fn takes<V: Known>(standin: &Standin<V>) -> Heard {
    let heard = ask(standin, &V::mail(&["a@example.com", "B@Example.com"]));
    let taken = standin.wait_for(1).remove(0);
    assert_eq!(taken.to, ["a@example.com", "B@Example.com"], "{heard:?}");
    assert_eq!((taken.from.as_str(), taken.subject.as_str()), ("shop@example.org", "hello"));
    assert_eq!(taken.attempt.as_deref(), Some("a7"));
    assert!(taken.answered && taken.json.is_some());
    heard
}

#[test]
fn each_takes_a_mail_and_answers_in_its_own_way() {
    let (sendgrid, ses, postmark) = (Sendgrid::start(), Ses::start(), Postmark::start());
    let heard = takes(&sendgrid);
    assert_eq!((heard.status, heard.body.as_str()), (202, ""));
    assert_eq!(heard.header("X-Message-Id"), Some(sendgrid.accepted()[0].id.as_str()));
    assert_eq!(sendgrid.accepted()[0].tags, ["welcome"]);
    let heard = takes(&ses);
    assert_eq!((heard.status, &heard.json()["MessageId"]), (200, &json!(ses.accepted()[0].id)));
    assert_eq!(ses.accepted()[0].mime.as_deref(), Some(MIME.as_bytes()));
    let heard = takes(&postmark);
    assert_eq!((heard.status, &heard.json()["MessageID"]), (200, &json!(postmark.accepted()[0].id)));
    assert_eq!((&heard.json()["ErrorCode"], &heard.json()["Message"]), (&json!(0), &json!("OK")));
    assert_eq!(postmark.accepted()[0].tags, ["welcome"]);
}

/// Sets what a pointer names, in an object or at the end of a list; `null` takes it out.
fn changed(mail: &Value, pointer: &str, value: Value) -> Value {
    let mut mail = mail.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match mail.pointer_mut(parent).unwrap() {
        Value::Object(fields) if value.is_null() => drop(fields.remove(name)),
        Value::Object(fields) => drop(fields.insert(name.to_owned(), value)),
        Value::Array(items) => items.push(value),
        other => panic!("{other} has no {name}"),
    }
    mail
}

#[test]
fn sendgrid_refuses_what_it_must() {
    let sendgrid = Sendgrid::start();
    let good = <sendgrid::Rules as Known>::mail(&["a@example.com"]);
    let first = "/personalizations/0";
    let many: Vec<Value> = (0..1000).map(|n| json!({ "email": format!("p{n}@example.com") })).collect();
    let personalizations: Vec<Value> =
        (0..1001).map(|n| json!({ "to": [{ "email": format!("p{n}@example.com") }] })).collect();
    let attachment = |name: &str, value: Value| changed(&good["attachments"][0], &format!("/{name}"), value);
    let cases = [
        ("/personalizations", json!(null), "personalizations"),
        ("/personalizations", json!([]), "personalizations"),
        ("/personalizations", json!(personalizations), "personalizations"),
        ("/personalizations/0/to", json!(null), "personalizations.0.to"),
        ("/personalizations/0/to", json!([]), "personalizations.0.to"),
        ("/personalizations/0/cc", json!([]), "personalizations.0.cc"),
        ("/personalizations/0/cc", json!(many), "personalizations"),
        ("/personalizations/0/bcc", json!([{ "email": "A@EXAMPLE.com" }]), "personalizations.0"),
        ("/personalizations/-", json!({ "to": [{ "email": "a@example.COM" }] }), "personalizations.1"),
        ("/personalizations/0/to/-", json!({ "email": "nobody" }), "personalizations.0.to.1.email"),
        (
            "/personalizations/0/to/-",
            json!({ "email": "gr\u{fc}n@example.com" }),
            "personalizations.0.to.1.email",
        ),
        (
            "/personalizations/0/to/-",
            json!({ "email": "b@example.com", "name": "B; C" }),
            "personalizations.0.to.1.name",
        ),
        (
            "/personalizations/0/to/-",
            json!({ "email": "b@example.com", "name": "C, B" }),
            "personalizations.0.to.1.name",
        ),
        ("/personalizations/0/from", json!({ "email": "x@other.example" }), "personalizations.0.from"),
        (
            "/personalizations/0/headers",
            json!({ "Reply-To": "x@example.com" }),
            "personalizations.0.headers.Reply-To",
        ),
        (
            "/personalizations/0/custom_args",
            json!({ "a": "x".repeat(10_000) }),
            "personalizations.0.custom_args",
        ),
        ("/personalizations/0/custom_args", json!({ "a": 1 }), "personalizations.0.custom_args"),
        ("/from", json!(null), "from.email"),
        ("/from/email", json!("shop"), "from.email"),
        ("/from/name", json!("Gr\u{fc}n"), "from.name"),
        ("/subject", json!(null), "subject"),
        ("/subject", json!(""), "subject"),
        ("/content", json!(null), "content"),
        ("/content", json!([]), "content"),
        ("/content", json!([good["content"][1], good["content"][0]]), "content"),
        ("/content", json!([{ "type": "text/plain", "value": "" }]), "content.0.value"),
        ("/content/-", json!({ "type": "text/html", "value": "twice" }), "content"),
        ("/attachments/-", attachment("content", json!("not base64")), "attachments.1.content"),
        ("/attachments/-", attachment("filename", json!(null)), "attachments.1.filename"),
        ("/attachments/-", attachment("disposition", json!("beside")), "attachments.1.disposition"),
        ("/headers/x-sg-id", json!("1"), "headers.x-sg-id"),
        ("/headers/X-SG-EID", json!("1"), "headers.X-SG-EID"),
        ("/headers/Received", json!("1"), "headers.Received"),
        ("/headers/DKIM-Signature", json!("1"), "headers.DKIM-Signature"),
        ("/headers/content-type", json!("1"), "headers.content-type"),
        ("/headers/Content-Transfer-Encoding", json!("1"), "headers.Content-Transfer-Encoding"),
        ("/headers/To", json!("1"), "headers.To"),
        ("/headers/From", json!("1"), "headers.From"),
        ("/headers/Subject", json!("1"), "headers.Subject"),
        ("/headers/Reply-To", json!("1"), "headers.Reply-To"),
        ("/headers/CC", json!("1"), "headers.CC"),
        ("/headers/Bcc", json!("1"), "headers.Bcc"),
        ("/headers/X-Number", json!(1), "headers.X-Number"),
        ("/categories", json!((0..11).map(|n| n.to_string()).collect::<Vec<_>>()), "categories"),
        ("/categories", json!(["x".repeat(256)]), "categories.0"),
        ("/categories/-", json!("welcome"), "categories.1"),
        ("/reply_to_list", json!([]), "reply_to_list"),
        ("/send_at", json!(System.now().millis() / 1000 + 73 * 3600), "send_at"),
        ("/ip_pool_name", json!("x"), "ip_pool_name"),
        ("/sender", json!("x"), "sender"),
    ];
    let mut line = connect(sendgrid.address());
    for (pointer, value, field) in cases {
        let heard = line.ask(&sendgrid_request(sendgrid.key(), &changed(&good, pointer, value))).unwrap();
        assert_eq!(heard.status, 400, "{pointer} {field}: {heard:?}");
        let errors = heard.json()["errors"].as_array().cloned().unwrap_or_default();
        assert!(errors.iter().any(|e| e["field"] == field), "{pointer}: no {field} in {heard:?}");
    }
    let both = changed(&good, "/reply_to", json!({ "email": "r@example.com" }));
    let both = changed(&both, "/reply_to_list", json!([{ "email": "s@example.com" }]));
    assert_eq!(ask(&sendgrid, &both).status, 400);
    assert_eq!(sendgrid.count(), 0);
    for fine in [
        changed(&good, &format!("{first}/cc"), json!([{ "email": "c@example.com" }])),
        changed(
            &good,
            "/categories",
            json!((0..10).map(|_| "x").enumerate().map(|(n, x)| x.repeat(246 + n)).collect::<Vec<_>>()),
        ),
        changed(&good, &format!("{first}/custom_args"), json!({ "a": "x".repeat(9_990) })),
        changed(&good, "/reply_to", json!({ "email": "r@example.com" })),
        changed(&good, &format!("{first}/cc"), json!(many[..999])),
    ] {
        assert_eq!(ask(&sendgrid, &fine).status, 202, "{fine}");
    }
    assert_eq!(sendgrid.wait_for(5)[4].to.len(), 1000);
}

#[test]
fn sendgrid_judges_more_than_the_fields() {
    let sendgrid = Sendgrid::start();
    let good = <sendgrid::Rules as Known>::mail(&["a@example.com"]);
    let request = |path: &str, kind: &str, body: &[u8]| {
        let key = format!("Bearer {}", sendgrid.key());
        let headers = [("Host", "x"), ("Authorization", key.as_str()), ("Content-Type", kind)];
        connect(sendgrid.address()).ask(&self::request("POST", path, &headers, body)).unwrap()
    };
    assert_eq!(request("/v3/mail/send", "text/plain", b"{}").status, 415);
    assert_eq!(request("/v3/mail/send", "application/json", b"{").status, 400);
    assert_eq!(request("/v3/scopes", "application/json", b"{}").status, 405);
    assert_eq!(request("/v3/other", "application/json", b"{}").status, 404);
    let large =
        changed(&good, "/content", json!([{ "type": "text/plain", "value": "x".repeat(31 * 1024 * 1024) }]));
    assert_eq!(ask(&sendgrid, &large).status, 413);
    let sandbox = changed(&good, "/mail_settings", json!({ "sandbox_mode": { "enable": true } }));
    assert_eq!(ask(&sendgrid, &sandbox).status, 200);
    assert_eq!(sendgrid.count(), 0, "a sandbox sends nothing");

    sendgrid.only_senders(&["example.net"]);
    let heard = ask(&sendgrid, &good);
    assert_eq!((heard.status, &heard.json()["errors"][0]["field"]), (403, &json!("from")));
    sendgrid.only_senders(&["example.org"]);
    sendgrid.set_credits(Some(1));
    assert_eq!(ask(&sendgrid, &good).status, 202);
    let heard = ask(&sendgrid, &good);
    assert_eq!(
        (heard.status, &heard.json()["errors"][0]["message"]),
        (401, &json!("Maximum credits exceeded"))
    );
}

#[test]
fn sendgrid_takes_a_message_a_personalization() {
    let sendgrid = Sendgrid::start();
    sendgrid.suppress("B@example.com");
    let mail = <sendgrid::Rules as Known>::mail(&["a@example.com", "b@example.com"]);
    let more = json!({ "to": [{ "email": "c@example.com" }], "bcc": [{ "email": "d@example.com" }],
        "subject": "own", "custom_args": { "postroad_attempt": "a8" } });
    assert_eq!(ask(&sendgrid, &changed(&mail, "/personalizations/-", more)).status, 202);
    let taken = sendgrid.wait_for(2);
    assert_eq!(
        (taken[0].to.clone(), taken[0].dropped.clone()),
        (vec!["a@example.com".to_owned()], vec!["b@example.com".to_owned()])
    );
    assert_eq!(taken[1].to, ["c@example.com", "d@example.com"]);
    assert_eq!((taken[1].subject.as_str(), taken[1].attempt.as_deref()), ("own", Some("a8")));
    assert_eq!(taken[0].id, taken[1].id);
    assert_eq!(sendgrid.copies(), ["a@example.com", "c@example.com", "d@example.com"]);
}

#[test]
fn postmark_refuses_what_it_must() {
    let postmark = Postmark::start();
    let good = <postmark::Rules as Known>::mail(&["a@example.com"]);
    let people = |n: usize| (0..n).map(|i| format!("p{i}@example.com")).collect::<Vec<_>>().join(",");
    let metadata =
        |n: usize| json!((0..n).map(|i| (i.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>());
    let attachment = |name: &str, value: Value| changed(&good["Attachments"][0], &format!("/{name}"), value);
    let header = |name: &str| json!({ "Name": name, "Value": "x" });
    let cases = [
        ("/From", json!(null), 300, "Invalid 'From'"),
        ("/From", json!("shop"), 300, "Invalid 'From'"),
        ("/From", json!("Shop, Inc. <shop@example.org>"), 300, "Invalid 'From'"),
        ("/To", json!(null), 300, "Zero recipients"),
        ("/To", json!("nobody"), 300, "Error parsing 'To'"),
        ("/To", json!("A (b) <a@example.com>"), 300, "Error parsing 'To'"),
        ("/Cc", json!("gr\u{fc}n@example.com"), 300, "Invalid 'Cc'"),
        ("/Bcc", json!("a?b@example.com"), 300, "Invalid 'Bcc'"),
        ("/To", json!("a@b\u{fc}cher.example"), 300, "Invalid 'To'"),
        ("/Bcc", json!(people(50)), 300, "Too many recipients"),
        ("/TextBody", json!(5), 403, "TextBody"),
        ("/Nonsense", json!("x"), 403, "Nonsense"),
        ("/Tag", json!("x".repeat(1001)), 300, "Tag"),
        ("/TrackLinks", json!("All"), 300, "TrackLinks"),
        ("/Metadata", metadata(11), 300, "metadata"),
        ("/Metadata", json!({ "x".repeat(21): "x" }), 300, "metadata"),
        ("/Metadata", json!({ "x": "x".repeat(81) }), 300, "metadata"),
        ("/Metadata", json!({ "x": 1 }), 300, "metadata"),
        ("/Metadata", json!({ "x": "1", "X": "2" }), 300, "metadata"),
        ("/Headers/-", header("From"), 300, "From"),
        ("/Headers/-", header("to"), 300, "to"),
        ("/Headers/-", header("Cc"), 300, "Cc"),
        ("/Headers/-", header("BCC"), 300, "BCC"),
        ("/Headers/-", header("Subject"), 300, "Subject"),
        ("/Headers/-", header("Content-Type"), 300, "Content-Type"),
        ("/Headers/-", header("Sender"), 300, "Sender"),
        ("/Headers/-", header("Reply-To"), 300, "Reply-To"),
        ("/Headers/-", json!({ "Name": "X" }), 403, "Value"),
        ("/Attachments/-", attachment("Name", json!("Setup.EXE")), 411, "Setup.EXE"),
        ("/Attachments/-", attachment("Content", json!("not base64")), 300, "base64"),
        ("/Attachments/-", attachment("ContentType", json!(null)), 300, "ContentType"),
        ("/MessageStream", json!("nowhere"), 1235, "nowhere"),
    ];
    let mut line = connect(postmark.address());
    for (pointer, value, code, words) in cases {
        let heard = line.ask(&postmark_request(postmark.key(), &changed(&good, pointer, value))).unwrap();
        assert_eq!((heard.status, &heard.json()["ErrorCode"]), (422, &json!(code)), "{pointer}: {heard:?}");
        let message = heard.json()["Message"].to_string();
        assert!(message.contains(words), "{pointer}: no {words} in {message}");
    }
    let bare = changed(&changed(&good, "/TextBody", json!(null)), "/HtmlBody", json!(""));
    assert_eq!(ask(&postmark, &bare).json()["ErrorCode"], 300);
    let large = changed(&good, "/TextBody", json!("x".repeat(5 * 1024 * 1024 + 1)));
    assert_eq!(ask(&postmark, &large).status, 413);
    let large = STANDARD.encode(vec![0; 8 * 1024 * 1024]);
    assert_eq!(
        ask(&postmark, &changed(&good, "/Attachments/-", attachment("Content", json!(large)))).status,
        413
    );
    assert_eq!(postmark.count(), 0);
    for fine in [
        changed(&good, "/Bcc", json!(people(49))),
        changed(&good, "/Cc", json!("\"B, C\" <b@example.com>, Plain Name <c@example.com>")),
        changed(&good, "/Metadata", metadata(10)),
        changed(&good, "/Tag", json!("x".repeat(1000))),
        changed(&good, "/HtmlBody", json!(null)),
    ] {
        assert_eq!(ask(&postmark, &fine).status, 200, "{fine}");
    }
    assert_eq!(postmark.wait_for(5)[1].to, ["a@example.com", "b@example.com", "c@example.com"]);
}

#[test]
fn postmark_wants_its_header_fields() {
    let postmark = Postmark::start();
    let mail = <postmark::Rules as Known>::mail(&["a@example.com"]);
    let without = |name: &str| {
        let mut request = postmark_request(postmark.key(), &mail);
        request.headers.retain(|(n, _)| n != name);
        connect(postmark.address()).ask(&request).unwrap()
    };
    let heard = without("X-Postmark-Server-Token");
    assert_eq!((heard.status, &heard.json()["ErrorCode"]), (401, &json!(10)));
    assert_eq!(without("Content-Type").status, 415);
    let heard = without("Accept");
    assert_eq!((heard.status, &heard.json()["ErrorCode"]), (422, &json!(409)));
    let mut garbage = postmark_request(postmark.key(), &mail);
    garbage.body.pop();
    let heard = connect(postmark.address()).ask(&garbage).unwrap();
    assert_eq!((heard.status, &heard.json()["ErrorCode"]), (422, &json!(402)));
    let test = postmark_request(postmark::TEST_TOKEN, &mail);
    assert_eq!(connect(postmark.address()).ask(&test).unwrap().status, 200);
    assert_eq!(postmark.count(), 0, "the test token sends nothing");
    postmark.only_senders(&["example.net"]);
    assert_eq!(ask(&postmark, &mail).json()["ErrorCode"], 400);
}

#[test]
fn postmark_tells_of_inactive_recipients() {
    let postmark = Postmark::start();
    postmark.suppress("b@example.com");
    let heard = ask(&postmark, &<postmark::Rules as Known>::mail(&["a@example.com", "B@Example.com"]));
    assert_eq!((heard.status, &heard.json()["ErrorCode"]), (200, &json!(0)));
    let message = heard.json()["Message"].as_str().unwrap_or_default().to_owned();
    assert!(
        message.starts_with("Message OK, but will not deliver to these inactive addresses: b@example.com."),
        "{message}"
    );
    let taken = postmark.wait_for(1).remove(0);
    assert_eq!(
        (taken.to, taken.dropped),
        (vec!["a@example.com".to_owned()], vec!["B@Example.com".to_owned()])
    );

    let heard = ask(&postmark, &<postmark::Rules as Known>::mail(&["b@example.com"]));
    assert_eq!((heard.status, &heard.json()["ErrorCode"]), (422, &json!(406)));
    assert_eq!(postmark.count(), 1);
    postmark.unsuppress("b@example.com");
    assert_eq!(ask(&postmark, &<postmark::Rules as Known>::mail(&["b@example.com"])).status, 200);
}

#[test]
fn postmark_answers_a_batch_one_by_one() {
    let postmark = Postmark::start();
    let good = <postmark::Rules as Known>::mail(&["a@example.com"]);
    let mut request = postmark_request(postmark.key(), &json!([good, {}, good]));
    request.path = "/email/batch".into();
    let heard = connect(postmark.address()).ask(&request).unwrap();
    let codes: Vec<Value> = heard.json().as_array().unwrap().iter().map(|r| r["ErrorCode"].clone()).collect();
    assert_eq!((heard.status, codes), (200, vec![json!(0), json!(300), json!(0)]));
    assert_eq!(postmark.wait_for(2).len(), 2);
}

#[test]
fn ses_refuses_what_it_must() {
    let ses = Ses::start();
    let to = ["a@example.com"];
    let good = raw_mail(&to, MIME);
    let people: Vec<String> = (0..51).map(|n| format!("p{n}@example.com")).collect();
    let tag = |name: &str, value: &str| json!([{ "Name": name, "Value": value }]);
    let cases = [
        ("/Content", json!(null), "BadRequestException"),
        ("/Content", json!({}), "BadRequestException"),
        ("/Content/Simple", json!({ "Subject": {} }), "BadRequestException"),
        ("/Content/Raw", json!({ "Data": "not base64" }), "SerializationException"),
        ("/Content/Raw", json!({ "Data": "" }), "BadRequestException"),
        ("/Content/Raw", json!({ "Data": "A".repeat(40 * 1024 * 1024 + 4) }), "BadRequestException"),
        ("/Destination", json!({}), "BadRequestException"),
        ("/Destination", json!({ "ToAddresses": people }), "MessageRejected"),
        ("/Destination", json!({ "BccAddresses": ["nobody"] }), "BadRequestException"),
        ("/Destination", json!({ "CcAddresses": ["gr\u{fc}n@example.com"] }), "BadRequestException"),
        ("/Destination", json!({ "ToAddresses": ["a@b\u{fc}cher.example"] }), "BadRequestException"),
        ("/EmailTags", tag("a b", "x"), "BadRequestException"),
        ("/EmailTags", tag("a", "x.y"), "BadRequestException"),
        ("/EmailTags", tag("a", ""), "BadRequestException"),
        ("/EmailTags", tag("a", &"x".repeat(257)), "BadRequestException"),
        ("/EmailTags/-", good["EmailTags"][0].clone(), "BadRequestException"),
        ("/Nonsense", json!("x"), "SerializationException"),
        ("/FromEmailAddress", json!("nobody"), "BadRequestException"),
    ];
    let mut line = connect(ses.address());
    for (pointer, value, name) in cases {
        let heard = line.ask(&ses::Rules::send(&ses, &changed(&good, pointer, value))).unwrap();
        assert_eq!(
            (heard.status, heard.header("x-amzn-ErrorType")),
            (400, Some(name)),
            "{pointer}: {heard:?}"
        );
        assert!(heard.json()["message"].is_string(), "{pointer}: {heard:?}");
    }
    for name in ses::SINGLE_HEADERS {
        let twice = format!("{name}: 1\r\n{}: 2\r\n{MIME}", name.to_lowercase());
        let heard = ask(&ses, &raw_mail(&to, &twice));
        assert_eq!(heard.header("x-amzn-ErrorType"), Some("MessageRejected"), "{name}: {heard:?}");
        assert!(heard.body.contains("Duplicate header '"), "{name}: {heard:?}");
    }
    let part =
        "Content-Type: text/plain; name=setup.exe\r\nContent-Disposition: attachment; filename=setup.exe\r\n";
    let from = "From: shop@example.org\r\n";
    for (mime, words) in [
        (format!("To: a@example.com\r\n\r\n{}", "hi"), "Missing required header 'From'"),
        (format!("{from}nonsense\r\n\r\nhi"), "Invalid header"),
        (format!("{from}a b: c\r\n\r\nhi"), "Invalid header"),
        (format!("{from}\r\n{}\r\n", "x".repeat(999)), "Line too long"),
        (format!("{from}{part}\r\nhi"), "Illegal filename 'setup.exe'"),
    ] {
        let heard = ask(&ses, &raw_mail(&to, &mime));
        assert_eq!(heard.header("x-amzn-ErrorType"), Some("MessageRejected"), "{mime}: {heard:?}");
        assert!(heard.body.contains(words), "{words}: {heard:?}");
    }
    assert_eq!(ses.count(), 0);
    let line_of_998 = format!("{from}Received: a\r\nReceived: b\r\n\r\n{}\r\n", "x".repeat(998));
    assert_eq!(ask(&ses, &raw_mail(&to, &line_of_998)).status, 200);
    let fifty = changed(&good, "/Destination", json!({ "ToAddresses": people[..50] }));
    assert_eq!(ask(&ses, &fifty).status, 200);
}

#[test]
fn ses_takes_recipients_and_tags_from_the_header_where_the_request_has_none() {
    let ses = Ses::start();
    let mime =
        format!("Cc: \"C, D\" <c@example.com>\r\nX-SES-MESSAGE-TAGS: postroad-attempt=h1, x=y\r\n{MIME}");
    let mail = raw_mail(&["z@example.com"], &mime);
    assert_eq!(ask(&ses, &mail).status, 200);
    let mail = changed(&changed(&mail, "/Destination", json!(null)), "/EmailTags", json!(null));
    assert_eq!(ask(&ses, &mail).status, 200);
    let taken = ses.wait_for(2);
    assert_eq!(
        (taken[0].to.clone(), taken[0].attempt.as_deref()),
        (vec!["z@example.com".to_owned()], Some("a7"))
    );
    assert_eq!(taken[1].to, ["a@example.com", "c@example.com"]);
    assert_eq!((taken[1].attempt.as_deref(), taken[1].tags.len()), (Some("h1"), 2));
}

#[test]
fn ses_verifies_signatures() {
    let ses = Ses::start();
    let right = ses.credential().clone();
    let mail = raw_mail(&["a@example.com"], MIME).to_string();
    let route = ses::Rules::ROUTE;
    let signed = |credential: &Credential| ses_request(credential, "POST", route, mail.as_bytes());
    let late = |off: i64| {
        let at = Timestamp::from_millis(System.now().millis() + off);
        ses_request_at(&right, "POST", route, mail.as_bytes(), at)
    };
    let changed = |change: fn(&mut Request)| {
        let mut request = signed(&right);
        change(&mut request);
        request
    };
    let other = |change: fn(&mut Credential)| {
        let mut credential = right.clone();
        change(&mut credential);
        signed(&credential)
    };
    let cases = [
        ("secret", other(|c| c.secret += "x"), "SignatureDoesNotMatch"),
        ("key id", other(|c| c.access_key_id += "x"), "UnrecognizedClientException"),
        ("region", other(|c| c.region = "us-east-1".into()), "SignatureDoesNotMatch"),
        ("body", changed(|r| r.body.push(b' ')), "SignatureDoesNotMatch"),
        ("date", changed(|r| r.headers.retain(|(n, _)| n != "X-Amz-Date")), "IncompleteSignatureException"),
        (
            "unsigned",
            changed(|r| r.headers.push(("X-Amz-Other".into(), "1".into()))),
            "IncompleteSignatureException",
        ),
        ("basic", changed(|r| r.headers[3].1 = "Basic QQ==".into()), "IncompleteSignatureException"),
        ("none", changed(|r| drop(r.headers.pop())), "MissingAuthenticationTokenException"),
        ("early", late(-360_000), "RequestExpired"),
        ("late", late(360_000), "RequestExpired"),
    ];
    for (what, request, name) in cases {
        let heard = connect(ses.address()).ask(&request).unwrap();
        assert_eq!((heard.status, heard.header("x-amzn-ErrorType")), (403, Some(name)), "{what}: {heard:?}");
    }
    assert_eq!(ses.count(), 0);
    assert_eq!(connect(ses.address()).ask(&late(-120_000)).unwrap().status, 200);
}

/// The first case of AWS's own test suite for signatures, `get-vanilla`.
#[test]
fn signatures_are_those_that_aws_publishes() {
    let credential = Credential {
        access_key_id: "AKIDEXAMPLE".into(),
        secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
        region: "us-east-1".into(),
    };
    let headers = [("Host", "example.amazonaws.com"), ("X-Amz-Date", "20150830T123600Z")];
    let signed = sigv4::sign(&request("GET", "/", &headers, b""), &credential, "service");
    let right = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    assert!(signed.ends_with(&format!("SignedHeaders=host;x-amz-date, Signature={right}")), "{signed}");
}

#[test]
fn ses_keeps_to_its_quota_its_senders_and_its_configuration_sets() {
    let ses = Ses::start();
    let mail = raw_mail(&["a@example.com", "b@example.com"], MIME);
    ses.only_senders(&["example.net"]);
    let heard = ask(&ses, &mail);
    assert_eq!((heard.status, heard.header("x-amzn-ErrorType")), (400, Some("MessageRejected")));
    assert!(
        heard
            .body
            .contains("The following identities failed the check in region EU-WEST-1: shop@example.org")
    );
    ses.only_senders(&["shop@example.org"]);
    ses.only_configuration_sets(&["main"]);
    let set = |name: &str| changed(&mail, "/ConfigurationSetName", json!(name));
    assert_eq!(ask(&ses, &set("other")).status, 404);
    assert_eq!(ask(&ses, &set("main")).status, 200);
    ses.set_quota(ses::Quota { max_24_hours: 3.0, ..ses.quota() });
    let heard = ask(&ses, &mail);
    assert_eq!((heard.status, heard.header("x-amzn-ErrorType")), (429, Some("TooManyRequestsException")));
    assert!(heard.body.contains("Daily message quota exceeded"));
    let account = ses_request(ses.credential(), "GET", "/v2/email/account", b"");
    let quota = connect(ses.address()).ask(&account).unwrap().json()["SendQuota"].clone();
    assert_eq!(quota, json!({ "Max24HourSend": 3.0, "MaxSendRate": 14.0, "SentLast24Hours": 2.0 }));
    ses.set_quota(ses::Quota { sending_enabled: false, ..ses.quota() });
    assert_eq!(ask(&ses, &mail).header("x-amzn-ErrorType"), Some("SendingPausedException"));
}

#[test]
fn ses_and_sendgrid_take_mail_for_the_suppressed_and_drop_it() {
    let ses = Ses::start();
    ses.suppress("a@example.com");
    assert_eq!(ask(&ses, &raw_mail(&["A@example.com", "b@example.com"], MIME)).status, 200);
    let taken = ses.wait_for(1).remove(0);
    assert_eq!(
        (taken.to, taken.dropped),
        (vec!["b@example.com".to_owned()], vec!["A@example.com".to_owned()])
    );
}

#[test]
fn keys_and_credits_can_be_asked_for() {
    let (sendgrid, postmark) = (Sendgrid::start(), Postmark::start());
    let ask = |at: SocketAddr, path: &str, name: &str, value: &str| {
        connect(at).ask(&request("GET", path, &[("Host", "x"), (name, value)], b"")).unwrap()
    };
    let key = format!("Bearer {}", sendgrid.key());
    let heard = ask(sendgrid.address(), "/v3/scopes", "Authorization", &key);
    assert_eq!((heard.status, &heard.json()["scopes"][0]), (200, &json!("mail.send")));
    assert_eq!(ask(sendgrid.address(), "/v3/scopes", "Authorization", "Bearer no").status, 401);
    sendgrid.set_credits(Some(12));
    let heard = ask(sendgrid.address(), "/v3/user/credits", "Authorization", &key);
    assert_eq!(heard.json()["remain"], 12);
    let heard = ask(postmark.address(), "/server", "X-Postmark-Server-Token", postmark.key());
    assert_eq!((heard.status, &heard.json()["DeliveryType"]), (200, &json!("Live")));
    assert_eq!(ask(postmark.address(), "/server", "X-Postmark-Server-Token", "no").status, 401);
    sendgrid.fail_reads(Fault::Answer(sendgrid::forbidden()), 1);
    assert_eq!(ask(sendgrid.address(), "/v3/scopes", "Authorization", &key).status, 403);
    assert_eq!(ask(sendgrid.address(), "/v3/scopes", "Authorization", &key).status, 200);
}

fn answers_with_each_of_its_errors<V: Known>(standin: &Standin<V>) {
    let mut line = connect(standin.address());
    let mail = V::mail(&["a@example.com"]);
    for (name, response) in V::errors() {
        standin.fail(faults::parse(name, &V::errors()).unwrap(), 1);
        let heard = line.ask(&V::send(standin, &mail)).unwrap();
        let said =
            Response { status: heard.status, body: heard.body.clone().into_bytes(), ..response.clone() };
        assert_eq!(said, response, "{name}");
        for (field, value) in &response.headers {
            assert_eq!(heard.header(field), Some(value.as_str()), "{name}");
        }
        if response.headers.iter().any(|(_, v)| v == "application/json") {
            assert!(heard.json().is_object(), "{name}");
        }
    }
    assert_eq!(standin.count(), 0);
    assert_eq!(V::send(standin, &mail).body, line_body(standin));
}

/// The body of the last request that a stand-in has seen.
fn line_body<V: Known>(standin: &Standin<V>) -> Vec<u8> {
    standin.requests().last().unwrap().request.body.clone()
}

#[test]
fn each_gives_every_row_of_its_error_table() {
    answers_with_each_of_its_errors(&Sendgrid::start());
    answers_with_each_of_its_errors(&Ses::start());
    answers_with_each_of_its_errors(&Postmark::start());
}

/// A fault, whether the mail was taken, and whether an answer came.
fn honours<V: Known>(standin: &Standin<V>, fault: Fault, taken: bool, answered: Option<u16>) {
    let (before, what) = (standin.count(), format!("{fault:?}"));
    standin.fail(fault, 1);
    let mut line = connect(standin.address());
    let mail = V::mail(&["a@example.com"]);
    let heard = line.ask(&V::send(standin, &mail));
    assert_eq!(heard.map(|h| h.status), answered, "{what}");
    assert_eq!(standin.count() - before, usize::from(taken), "{what}");
    if taken {
        assert_eq!(standin.accepted()[before].answered, answered.is_some(), "{what}");
    }
    let heard = ask(standin, &mail);
    assert!(heard.status == 202, "{what} lasts: {heard:?}");
}

#[test]
fn each_fault_is_what_it_says() {
    let sendgrid = Sendgrid::start();
    honours(&sendgrid, Fault::Answer(sendgrid::throttled()), false, Some(429));
    honours(&sendgrid, Fault::RefuseBeforeBody(sendgrid::too_large()), false, Some(413));
    honours(&sendgrid, Fault::CutBeforeBody, false, None);
    honours(&sendgrid, Fault::CutInBody(20), false, None);
    honours(&sendgrid, Fault::CutAfterBody, false, None);
    honours(&sendgrid, Fault::ResetAfterBody, false, None);
    honours(&sendgrid, Fault::Garbage, false, None);
    honours(&sendgrid, Fault::TakeThenCut, true, None);
    honours(&sendgrid, Fault::TakeThenReset, true, None);
    honours(&sendgrid, Fault::CutInAnswer(12), true, None);
    honours(&sendgrid, Fault::TakeThenAnswer(sendgrid::gateway(502)), true, Some(502));
    honours(&sendgrid, Fault::CloseBehind, true, Some(202));
    let began = monotonic();
    honours(&sendgrid, Fault::Slow(Duration::from_millis(300)), true, Some(202));
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn who_hangs_says_nothing_and_keeps_or_takes_nothing() {
    let sendgrid = Sendgrid::start();
    let mail = <sendgrid::Rules as Known>::mail(&["a@example.com"]);
    for (fault, taken) in [
        (Fault::HangBeforeBody, 0),
        (Fault::HangAfterBody, 0),
        (Fault::HangInAnswer(15), 1),
        (Fault::TakeThenHang, 2),
    ] {
        sendgrid.fail(fault.clone(), 1);
        let mut line = connect(sendgrid.address());
        line.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert_eq!(line.ask(&sendgrid_request(sendgrid.key(), &mail)), None, "{fault:?}");
        wait_until("the hanging request", BOUND, || sendgrid.count() == taken);
    }
    assert!(sendgrid.accepted().iter().all(|t| !t.answered));
}

#[test]
fn a_fault_lasts_as_long_as_it_was_told() {
    let sendgrid = Sendgrid::start();
    let mail = <sendgrid::Rules as Known>::mail(&["a@example.com"]);
    sendgrid.fail(Fault::Answer(sendgrid::unavailable()), 2).fail(Fault::Answer(sendgrid::throttled()), 1);
    let said: Vec<u16> = (0..4).map(|_| ask(&sendgrid, &mail).status).collect();
    assert_eq!(said, [503, 503, 429, 202]);
    sendgrid.fail_always(Fault::Answer(sendgrid::unavailable()));
    assert_eq!((ask(&sendgrid, &mail).status, ask(&sendgrid, &mail).status), (503, 503));
    sendgrid.heal();
    assert_eq!(ask(&sendgrid, &mail).status, 202);
}

#[test]
fn connections_are_kept_and_idle_ones_ended_as_told() {
    let sendgrid = Sendgrid::start();
    let request = sendgrid_request(sendgrid.key(), &<sendgrid::Rules as Known>::mail(&["a@example.com"]));
    let mut line = connect(sendgrid.address());
    for _ in 0..3 {
        assert_eq!(line.ask(&request).unwrap().status, 202);
    }
    assert_eq!(sendgrid.server().connections(), 1);
    sendgrid.server().set_idle(Duration::ZERO);
    // A new one: whether the first still saw the change is a matter of time.
    let mut line = connect(sendgrid.address());
    assert_eq!(line.ask(&request).unwrap().status, 202);
    let mut rest = Vec::new();
    assert_eq!(line.0.read_to_end(&mut rest).unwrap(), 0, "the line ends behind the answer");
    assert_eq!(sendgrid.wait_for(4).len(), 4);
}

#[test]
fn bodies_come_in_chunks_too() {
    let sendgrid = Sendgrid::start();
    let mut request = sendgrid_request(sendgrid.key(), &<sendgrid::Rules as Known>::mail(&["a@example.com"]));
    let body = std::mem::take(&mut request.body);
    request.headers.push(("Transfer-Encoding".into(), "chunked".into()));
    let head = String::from_utf8(bytes(&request)).unwrap().replace("Content-Length: 0\r\n", "");
    let mut line = connect(sendgrid.address());
    for _ in 0..2 {
        line.0.write_all(head.as_bytes()).unwrap();
        for chunk in body.chunks(100) {
            line.0.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).unwrap();
            line.0.write_all(&[chunk, b"\r\n"].concat()).unwrap();
        }
        line.0.write_all(b"0\r\n\r\n").unwrap();
        assert_eq!(line.hear().unwrap().status, 202);
    }
    assert_eq!(line_body(&sendgrid), body);
}

#[test]
fn a_hundred_connections_are_served_at_once() {
    let sendgrid = Sendgrid::start();
    let request = sendgrid_request(sendgrid.key(), &<sendgrid::Rules as Known>::mail(&["a@example.com"]));
    let mut lines: Vec<_> = (0..100).map(|_| connect(sendgrid.address())).collect();
    for line in &mut lines {
        line.0.write_all(&bytes(&request)).unwrap();
    }
    for line in &mut lines {
        assert_eq!(line.hear().unwrap().status, 202);
    }
    assert_eq!((sendgrid.count(), sendgrid.server().most_connections()), (100, 100));
}

#[test]
fn the_door_speaks_tls_and_can_be_shut() {
    let mut postmark = Postmark::start_tls();
    assert!(postmark.url().starts_with("https://127.0.0.1:"));
    let name = "localhost".try_into().unwrap();
    let client = rustls::ClientConnection::new(tls::pki().client(), name).unwrap();
    let mut line = Line(rustls::StreamOwned::new(client, TcpStream::connect(postmark.address()).unwrap()));
    let mail = <postmark::Rules as Known>::mail(&["a@example.com"]);
    let request = postmark_request(postmark.key(), &mail);
    assert_eq!(line.ask(&request).unwrap().status, 200);
    postmark.shut();
    assert_eq!(line.ask(&request), None);
    assert!(TcpStream::connect(postmark.address()).is_err());
    postmark.reopen();
    assert!(TcpStream::connect(postmark.address()).is_ok());
}

/// Hands a mail to the SMTP door; gives the reply to the final dot.
#[track_caller]
fn submit<V: Vendor>(standin: &Standin<V>, mime: &str) -> String {
    let mut client = Client::hello(standin.smtp().address());
    let (user, password) = standin.smtp_login();
    assert_eq!(client.auth_plain(&user, &password).code, 235);
    client.begin("shop@example.org", &["a@example.com", "b@example.com"]);
    client.raw(&stuffed(mime.as_bytes()));
    client.reply().raw.trim_end().to_owned()
}

#[test]
fn sendgrid_reads_its_field_in_a_mail() {
    let sendgrid = Sendgrid::start();
    let with = |api: &str| submit(&sendgrid, &format!("X-SMTPAPI: {api}\r\n{MIME}"));
    let reply = with(r#"{"unique_args": {"postroad_attempt": "a7"},\r\n "category": ["welcome"]}"#.replace("\\r\\n", "\r\n").as_str());
    let taken = sendgrid.wait_for(1).remove(0);
    assert_eq!(reply, format!("250 Ok: queued as {}", taken.id));
    assert_eq!((taken.door, taken.to.len()), (Door::Smtp, 2));
    assert_eq!((taken.attempt.as_deref(), taken.tags), (Some("a7"), vec!["welcome".to_owned()]));
    for bad in [
        "{",
        "[]",
        r#"{"to": ["c@example.com"]}"#,
        r#"{"unique_args": "x"}"#,
        r#"{"category": 5}"#,
        "{\"category\": \"gr\u{fc}n\"}",
    ] {
        let reply = with(bad);
        assert!(reply.starts_with("550 Invalid SMTPAPI header"), "{bad}: {reply}");
    }
    let long = format!(r#"{{"category": "{}"}}"#, "x".repeat(1000));
    assert!(with(&long).starts_with("550 "), "a line of more than 1000");
    sendgrid.only_senders(&["example.net"]);
    assert!(
        submit(&sendgrid, MIME).starts_with("550 The from address does not match a verified Sender Identity")
    );
    assert_eq!(sendgrid.count(), 1);
}

#[test]
fn ses_reads_its_fields_in_a_mail() {
    let ses = Ses::start();
    ses.suppress("b@example.com");
    let reply = submit(&ses, &format!("X-SES-MESSAGE-TAGS: postroad-attempt=a7, x=y\r\n{MIME}"));
    let taken = ses.wait_for(1).remove(0);
    assert_eq!(reply, format!("250 Ok {}", taken.id));
    assert_eq!(
        (taken.to, taken.dropped),
        (vec!["a@example.com".to_owned()], vec!["b@example.com".to_owned()])
    );
    assert_eq!((taken.attempt.as_deref(), taken.tags.len()), (Some("a7"), 2));
    let reply = submit(&ses, &format!("subject: again\r\n{MIME}"));
    assert!(reply.starts_with("554 Transaction failed: Duplicate header '"), "{reply}");
    assert!(submit(&ses, &format!("X-SES-MESSAGE-TAGS: a=b c\r\n{MIME}")).starts_with("554 "));
    ses.only_configuration_sets(&[]);
    assert!(submit(&ses, &format!("X-SES-CONFIGURATION-SET: x\r\n{MIME}")).starts_with("554 "));
    ses.only_senders(&["example.net"]);
    assert!(submit(&ses, MIME).starts_with("554 Message rejected: Email address is not verified."));
    assert_eq!(ses.count(), 1);
}

#[test]
fn postmark_reads_its_fields_in_a_mail() {
    let postmark = Postmark::start();
    let fields = "X-PM-Tag: welcome\r\nX-PM-Metadata-attempt: a7\r\nX-PM-Message-Stream: outbound\r\n";
    assert!(submit(&postmark, &format!("{fields}{MIME}")).starts_with("250 "));
    let taken = postmark.wait_for(1).remove(0);
    assert_eq!((taken.attempt.as_deref(), taken.tags), (Some("a7"), vec!["welcome".to_owned()]));
    for bad in [
        "X-PM-Message-Stream: nowhere".to_owned(),
        format!("X-PM-Metadata-a: {}", "x".repeat(81)),
        "Content-Disposition: attachment; filename=setup.exe".to_owned(),
    ] {
        let reply = submit(&postmark, &format!("{bad}\r\n{MIME}"));
        assert!(reply.starts_with("550 5.6.0 "), "{bad}: {reply}");
    }
    assert_eq!(postmark.count(), 1);
}

fn refuses_another_login<V: Vendor>(standin: &Standin<V>) {
    let mut client = Client::hello(standin.smtp().address());
    let (user, password) = standin.smtp_login();
    assert_eq!(client.auth_plain(&user, "another").code, 535);
    assert_eq!(client.auth_plain("another", &password).code, 535);
    client.say("MAIL FROM:<shop@example.org>").expect("530");
}

fn replies_with_each_of_its_refusals<V: Vendor>(standin: &Standin<V>) {
    for (name, _, reply) in V::replies() {
        standin.fail_smtp(name, 1);
        let mut client = Client::connect(standin.smtp().address());
        let (user, password) = standin.smtp_login();
        let mut said = client.reply().raw;
        if said.starts_with("220") {
            client.say("EHLO client.example.com").expect("250");
            said += &client.auth_plain(&user, &password).raw;
            for line in ["MAIL FROM:<shop@example.org>", "RCPT TO:<a@example.com>", "DATA"] {
                // As a client does, it goes on only where it was not refused.
                if !said.contains(reply) {
                    client.say(line);
                    said += &client.reply().raw;
                }
            }
            if !said.contains(reply) {
                client.raw(&stuffed(MIME.as_bytes()));
                said += &client.reply().raw;
            }
        }
        assert!(said.contains(reply), "{name}: {reply:?} is not in {said:?}");
    }
    assert_eq!(standin.count(), 0);
    standin.heal();
    assert!(submit(standin, MIME).starts_with("250 "));
}

#[test]
fn each_smtp_door_refuses_another_login_and_gives_every_row_of_its_table() {
    let (sendgrid, ses, postmark) = (Sendgrid::start(), Ses::start(), Postmark::start());
    refuses_another_login(&sendgrid);
    refuses_another_login(&ses);
    refuses_another_login(&postmark);
    replies_with_each_of_its_refusals(&sendgrid);
    replies_with_each_of_its_refusals(&ses);
    replies_with_each_of_its_refusals(&postmark);
    assert_eq!(sendgrid.smtp_login().0, "apikey");
}

#[test]
fn passwords_of_ses_are_derived_as_aws_says() {
    for (region, password) in [
        ("us-east-1", "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"),
        ("eu-west-1", "BMW5RDrXmmVs0lV7GpI4oLkHXpZ4stDsk6q91z1g38Pk"),
        ("us-west-2", "BF2PynzbSCAjX08zhZZnP/kW+T9P5zs/1Er0pi5vTEmd"),
    ] {
        assert_eq!(sigv4::smtp_password(ses::SECRET, region), password);
    }
}
