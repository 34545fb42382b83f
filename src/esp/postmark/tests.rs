//! Postmark's contract, from composed mail to what its answers mean.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::address::{Address, Grammar};
use crate::esp::settings::{Access, LineSettings};
use crate::esp::testing::{content, message};
use crate::mail::{Answer, AttemptId, Fault, HttpReply, Named, Phase, SmtpReply, Throttle};
use crate::secret::Secret;

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn postmark(transport: Transport) -> Postmark {
    let access = Access {
        transport,
        endpoint: None,
        smtp_endpoint: None,
        ca_file: None,
        envelope_from: None,
        lines: LineSettings::default(),
    };
    let settings = PostmarkSettings {
        access,
        server_token: Secret::new("token"),
        transactional: "outbound".into(),
        broadcast: "news".into(),
    };
    Postmark::new(&settings, false)
}

fn addresses(list: &[&str]) -> Vec<Address> {
    list.iter().map(|text| Address::parse(text, Grammar::Lenient).unwrap()).collect()
}

fn composed(transport: Transport, message: &Message, recipients: &[Address]) -> Result<Request, String> {
    let attempt = AttemptId::from_number(1);
    let whole = message.body.head.clone();
    let parcel = Parcel { message, whole: Some(&whole), recipients, attempt };
    postmark(transport).compose(parcel, NOW).map_err(|Unfit(why)| why)
}

fn json_of(message: &Message, recipients: &[&str]) -> Result<Value, String> {
    match composed(Transport::Api, message, &addresses(recipients))? {
        Request::Http(request) => Ok(serde_json::from_slice(&request.body).unwrap()),
        other => panic!("{other:?}"),
    }
}

const BOTH: &str = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: \
     multipart/alternative; boundary=a\r\n\r\n--a\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ngrün\r\n--a\r\n\
     Content-Type: text/html\r\n\r\n<b>hello</b>\r\n--a--\r\n--m\r\nContent-Type: application/pdf\r\n\
     Content-Disposition: attachment; filename=\"a.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--m--\r\n";

#[test]
fn a_message_becomes_its_fields_and_nobody_else_is_named() {
    let head = "From: \"Shop, Ltd\" <shop@example.com>\r\nTo: \"Doe, \\\"Jane\\\"\" <jane@example.org>\r\nCc: c@example.org\r\n\
                Reply-To: help@example.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@example.com>\r\n\
                References: <0@example.com>\r\nX-Order: 7\r\n";
    let mut message = message(&content(head, BOTH));
    message.tags = vec!["spring".into(), "vip".into()];
    message.metadata = vec![("order".into(), "7".into())];
    let json = json_of(&message, &["hidden@example.net", "jane@example.org", "c@example.org"]).unwrap();
    let wanted = json!({
        "From": "\"Shop, Ltd\" <shop@example.com>",
        "To": "\"Doe, \\\"Jane\\\"\" <jane@example.org>",
        "Cc": "c@example.org",
        "Bcc": "hidden@example.net",
        "ReplyTo": "help@example.com",
        "Subject": "Grüße",
        "TextBody": "grün",
        "HtmlBody": "<b>hello</b>",
        "MessageStream": "outbound",
        "Tag": "spring",
        "Metadata": {
            "postroad-attempt": "0000000000001-0000000000001",
            "postroad-tags": "spring, vip",
            "order": "7",
        },
        "Headers": [
            {"Name": "Message-ID", "Value": "<1@example.com>"},
            {"Name": "X-PM-KeepID", "Value": "true"},
            {"Name": "References", "Value": "<0@example.com>"},
            {"Name": "X-Order", "Value": "7"},
        ],
        "Attachments": [{"Name": "a.pdf", "ContentType": "application/pdf", "Content": "AAEC"}],
    });
    assert_eq!(json, wanted);
}

#[test]
fn what_the_html_names_is_shown_whatever_its_disposition() {
    let head = "From: a@example.com\r\nTo: b@example.org\r\nSubject: s\r\n";
    for kind in ["mixed", "related"] {
        let rest = format!(
            "Content-Type: multipart/{kind}; boundary=m\r\n\r\n--m\r\nContent-Type: text/html\r\n\r\n\
             <img src=\"cid:logo@x\">\r\n--m\r\nContent-Type: image/png\r\nContent-ID: <logo@x>\r\n\
             Content-Disposition: attachment; filename=\"a.png\"\r\nContent-Transfer-Encoding: base64\r\n\r\n\
             AAEC\r\n--m--\r\n"
        );
        let json = json_of(&message(&content(head, &rest)), &["b@example.org"]).unwrap();
        let wanted = json!([{"Name": "a.png", "ContentType": "image/png", "ContentID": "cid:logo@x", "Content": "AAEC"}]);
        assert_eq!(json["Attachments"], wanted, "{kind}");
    }
}

#[test]
fn what_few_would_miss_is_lost_only_where_there_is_no_other_way() {
    let head = "From: a@example.com\r\nTo: b@example.org\r\nSubject: s\r\nContent-Language: de\r\n";
    let rest =
        "Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Language: de\r\n\r\nhi\r\n--m--\r\n";
    let mut message = message(&content(head, rest));
    let json = json_of(&message, &["b@example.org"]).unwrap();
    assert_eq!(json["Headers"], json!([{"Name": "Content-Language", "Value": "de"}]));
    let auto = composed(Transport::Auto, &message, &addresses(&["b@example.org"]));
    assert!(matches!(auto, Ok(Request::Smtp(_))), "{auto:?}");
    // Its SMTP endpoint cannot say this.
    message.tags = vec!["gr\u{fc}n".into()];
    let auto = composed(Transport::Auto, &message, &addresses(&["b@example.org"]));
    assert!(matches!(auto, Ok(Request::Http(_))), "{auto:?}");
}

#[test]
fn what_its_api_cannot_say_is_told() {
    let to = "From: a@example.com\r\nTo: b@example.org\r\nSubject: s\r\n";
    let plain = "\r\nhello\r\n";
    let typed = |kind: &str| format!("Content-Type: {kind}\r\n\r\nx\r\n");
    for (head, rest, why) in [
        ("From: a@example.com\r\nSubject: s\r\n", plain.to_owned(), "an address in To"),
        (
            "From: a@example.com\r\nTo: b@example.org, other@example.org\r\n",
            plain.to_owned(),
            "other@example.org",
        ),
        (to, "\r\n".to_owned(), "not empty"),
        (to, typed("text/calendar; method=REQUEST"), ""),
        (to, typed("multipart/signed; boundary=x"), ""),
        (to, format!("X-PM-TrackOpens: true\r\n{plain}"), "SMTP endpoint"),
        (to, format!("DKIM-Signature: v=1; d=example.com\r\n{plain}"), "DKIM"),
    ] {
        let told = json_of(&message(&content(head, &rest)), &["b@example.org"]).unwrap_err();
        assert!(told.contains(why), "{head}{rest}: {told}");
    }
    let told = json_of(&message(&content(to, plain)), &["\"b c\"@example.org"]).unwrap_err();
    assert!(told.contains("does not take such an address"), "{told}");
    let many: Vec<Address> = (0..51).map(|n| addresses(&[&format!("r{n}@example.org")]).remove(0)).collect();
    assert!(
        composed(Transport::Auto, &message(&content(to, plain)), &many)
            .unwrap_err()
            .contains("51 recipients")
    );
}

#[test]
fn what_does_not_fit_the_api_goes_by_smtp_with_the_fields_that_it_reads() {
    let head = "From: a@example.com\r\nSubject: s\r\n";
    let mut message = message(&content(head, "\r\nhello\r\n"));
    message.tags = vec!["spring".into()];
    message.metadata = vec![("order".into(), "7".into())];
    let Request::Smtp(request) = composed(Transport::Auto, &message, &addresses(&["b@example.org"])).unwrap()
    else {
        panic!("not by SMTP")
    };
    let text = String::from_utf8(request.body.head.to_vec()).unwrap();
    let fields = "X-PM-Message-Stream: outbound\r\nX-PM-KeepID: true\r\nX-PM-Tag: spring\r\n\
                  X-PM-Metadata-postroad-attempt: 0000000000001-0000000000001\r\nX-PM-Metadata-order: 7\r\n";
    assert_eq!(text, format!("{fields}{head}\r\nhello\r\n"));
    assert_eq!(request.body.facts.size_octets, text.len() as u64);
    let signed = super::super::testing::message(&content(
        head,
        "Content-Type: multipart/signed; boundary=x\r\n\r\nx\r\n",
    ));
    let told = composed(Transport::Auto, &signed, &addresses(&["b@example.org"])).unwrap_err();
    assert!(told.contains("by SMTP: Postmark re-assembles mail"), "{told}");
}

#[test]
fn a_label_that_postmark_cannot_carry_does_not_fit() {
    let text = |tag: &str| tag.to_owned();
    let tags = |all: &[&str]| all.iter().map(|tag| text(tag)).collect::<Vec<_>>();
    let pair = |key: &str, value: &str| vec![(text(key), text(value))];
    let eleven: Vec<_> = (0..10).map(|n| (format!("k{n}"), text("v"))).collect();
    for (tags, metadata, why) in [
        (tags(&["a", &"b".repeat(80)]), vec![], "its 2 tags do not"),
        (tags(&["a,b", "c"]), vec![], "its 2 tags do not"),
        (vec![], pair("order", &"x".repeat(81)), "its order has more"),
        (vec![], pair(&"k".repeat(21), "x"), "kkk has more"),
        (vec![], pair("Postroad-Attempt", "forged"), "the relay's own"),
        (vec![], eleven, "10 values of metadata"),
    ] {
        let mut message =
            message(&content("From: a@example.com\r\nTo: b@example.org\r\nSubject: s\r\n", "\r\nhello\r\n"));
        (message.tags, message.metadata) = (tags, metadata);
        for transport in [Transport::Api, Transport::Smtp, Transport::Auto] {
            let told = composed(transport, &message, &addresses(&["b@example.org"])).unwrap_err();
            assert!(told.contains(why), "{told}");
            let told = postmark(transport).could_carry(&message, Content::Beginning).unwrap_err().0;
            assert!(told.contains(why), "{told}");
        }
    }
}

#[test]
fn a_tag_that_is_there_twice_is_one() {
    let head = "From: a@example.com\r\nTo: b@example.org\r\nSubject: s\r\n";
    let mut message = message(&content(head, "\r\nhello\r\n"));
    for (tags, all) in
        [(&["a", "a"][..], Value::Null), (&["a,b", "a,b"], Value::Null), (&["a", "b", "a"], "a, b".into())]
    {
        message.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let json = json_of(&message, &["b@example.org"]).unwrap();
        assert_eq!((&json["Tag"], &json["Metadata"]["postroad-tags"]), (&Value::from(tags[0]), &all));
    }
}

#[test]
fn an_empty_file_goes_by_smtp() {
    let head = "From: a@example.com\r\nTo: b@example.org\r\nSubject: s\r\n";
    let rest = "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\nhi\r\n--o\r\nContent-Type: \
                application/pdf; name=a.pdf\r\n\r\n\r\n--o--\r\n";
    let message = message(&content(head, rest));
    let to = addresses(&["b@example.org"]);
    let told = composed(Transport::Api, &message, &to).unwrap_err();
    assert!(told.contains("\"a.pdf\" is empty"), "{told}");
    assert!(matches!(composed(Transport::Auto, &message, &to), Ok(Request::Smtp(_))));
}

#[test]
fn a_label_beyond_ascii_is_for_the_api_alone() {
    for (to, fits) in [("To: b@example.org\r\n", true), ("", false)] {
        let head = format!("From: a@example.com\r\n{to}Subject: s\r\n");
        let mut message = message(&content(&head, "\r\nhello\r\n"));
        message.tags = vec!["grün".into()];
        let auto = composed(Transport::Auto, &message, &addresses(&["b@example.org"]));
        assert_eq!(matches!(auto, Ok(Request::Http(_))), fits, "{auto:?}");
        let told = composed(Transport::Smtp, &message, &addresses(&["b@example.org"])).unwrap_err();
        assert!(told.contains(r#"its tag "gr\u{fc}n" has letters beyond ASCII"#), "{told}");
        message.envelope.recipients = addresses(&["b@example.org"]);
        let could = |transport| postmark(transport).could_carry(&message, Content::Beginning).is_ok();
        assert_eq!([Transport::Smtp, Transport::Auto].map(could), [false, fits]);
    }
}

#[test]
fn by_smtp_what_the_relay_says_is_said_once_and_by_it_alone() {
    let head = "From: a@example.com\r\nSubject: s\r\n";
    let own = "x-pm-keepid: false\r\nX-PM-Metadata-Postroad-Attempt: forged\r\nX-PM-Message-Stream: another\r\n stream\r\n";
    let kept = "X-PM-TrackOpens: true\r\nX-PM-Tag: its own\r\nX-PM-Metadata-color: red\r\n";
    let mut message = message(&content(&format!("{own}{head}{kept}"), "\r\nhello\r\n"));
    for tags in [vec![], vec!["spring".to_owned()]] {
        message.tags = tags;
        let composed = composed(Transport::Auto, &message, &addresses(&["b@example.org"]));
        let Ok(Request::Smtp(request)) = composed else { panic!("not by SMTP") };
        let text = String::from_utf8(request.body.head.to_vec()).unwrap();
        let (tag, kept) = match message.tags.is_empty() {
            true => ("", kept.to_owned()),
            false => ("X-PM-Tag: spring\r\n", kept.replace("X-PM-Tag: its own\r\n", "")),
        };
        let fields = format!(
            "X-PM-Message-Stream: outbound\r\nX-PM-KeepID: true\r\n{tag}X-PM-Metadata-postroad-attempt: 0000000000001-0000000000001\r\n"
        );
        assert_eq!(text, format!("{fields}{head}{kept}\r\nhello\r\n"));
        assert_eq!(request.body.facts.size_octets, text.len() as u64);
    }
}

#[test]
fn a_file_that_postmark_refuses_goes_by_neither_door() {
    let head = "From: a@example.com\r\nTo: b@example.org\r\nSubject: s\r\n";
    let to = &addresses(&["b@example.org"]);
    for (file, fits) in [
        ("Content-Disposition: attachment; filename=a.exe", false),
        ("Content-Type: application/octet-stream; name=\"A.VBS\"", false),
        ("Content-Type: application/octet-stream; name=a.exe.txt", true),
    ] {
        let rest = format!(
            "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\nhi\r\n--o\r\n{file}\r\n\r\nx\r\n--o--\r\n"
        );
        let mut mixed = message(&content(head, &rest));
        mixed.envelope.recipients = to.clone();
        for transport in [Transport::Auto, Transport::Api, Transport::Smtp] {
            let composed = composed(transport, &mixed, to);
            assert_eq!(composed.is_ok(), fits, "{transport:?} {file} {composed:?}");
            let esp = postmark(transport);
            assert!(esp.wants_whole(&mixed), "it may lie at the end");
            let could = esp.could_carry(&mixed, Content::Whole(&mixed.body.head));
            assert_eq!(could.is_ok(), fits, "{transport:?} {file} {could:?}");
            if let Err(Unfit(why)) = could {
                assert!(why.contains("Postmark refuses attachments such as"), "{why}");
            }
        }
    }
}

#[test]
fn what_is_sealed_within_other_parts_goes_by_neither_door() {
    let head = "From: a@example.com\r\nTo: b@example.org\r\nSubject: s\r\n";
    for part in
        ["multipart/signed; boundary=i\r\n\r\n--i\r\n\r\nx\r\n--i--", "application/pkcs7-mime\r\n\r\nMIIB"]
    {
        let rest = format!(
            "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\nhi\r\n--o\r\nContent-Type: {part}\r\n--o--\r\n"
        );
        let mixed = message(&content(head, &rest));
        for transport in [Transport::Auto, Transport::Api, Transport::Smtp] {
            assert!(
                composed(transport, &mixed, &addresses(&["b@example.org"])).is_err(),
                "{transport:?} {part}"
            );
        }
    }
}

fn read(status: u16, body: &str, recipients: &[&str]) -> Vec<Outcome> {
    let message = message(&content("From: a@example.com\r\n", "\r\nx\r\n"));
    let recipients = addresses(recipients);
    let parcel = Parcel {
        message: &message,
        whole: None,
        recipients: &recipients,
        attempt: AttemptId::from_number(1),
    };
    let reply = HttpReply { status, headers: Vec::new(), body: body.to_owned().into(), cut: false };
    postmark(Transport::Api).read(parcel, &Reply::Http(reply), NOW)
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused { fault, lasting, .. } => format!("{fault:?} {lasting}"),
        other => other.word().to_owned(),
    }
}

#[test]
fn each_answer_has_its_row() {
    let sender = format!("{:?} true", Fault::Sender(Named::From));
    let rate = format!("{:?} false", Fault::Throttled(Throttle::Rate));
    let code = |code: i64, message: &str| json!({"ErrorCode": code, "Message": message}).to_string();
    for (status, body, meant) in [
        (200, json!({"ErrorCode": 0, "Message": "OK", "MessageID": "m-1"}).to_string(), "accepted"),
        (
            200,
            json!({"Message": "OK, but delivery may be delayed", "MessageID": "m-1"}).to_string(),
            "accepted",
        ),
        (200, "{".to_owned(), "unsure"),
        (200, "{}".to_owned(), "unsure"),
        (401, code(10, "No Account or Server API tokens were supplied"), "Account true"),
        (422, code(100, "maintenance"), "Path false"),
        (422, code(300, "Invalid 'To' address: 'b@example.org'."), "Recipient true"),
        (422, code(300, "Invalid 'From' address: 'a@example.com'."), &sender),
        (422, code(300, "You may only send to 50 recipients"), "unfit"),
        (422, code(300, "Zero recipients specified"), "Message true"),
        (422, code(400, "signature not found"), &sender),
        (422, code(401, "signature not confirmed"), &sender),
        (422, code(402, "invalid JSON"), "unfit"),
        (422, code(403, "invalid field"), "unfit"),
        (422, code(409, "JSON required"), "unfit"),
        (422, code(410, "too many in a batch"), "unfit"),
        (422, code(405, "out of credits"), "Account true"),
        (
            422,
            code(406, "Found inactive addresses: b@example.org.\nInactive recipients are ones"),
            "Recipient true",
        ),
        (422, code(411, "forbidden attachment type"), "unfit"),
        (422, code(412, "pending approval"), "Account true"),
        (422, code(413, "may not send"), "Account true"),
        (422, code(1235, "stream not found"), "Account true"),
        (
            422,
            json!({"ErrorCode": 11, "Message": "several", "Errors": [
                {"ErrorCode": 300, "Message": "Invalid 'To' address: 'b@example.org'."},
                {"ErrorCode": 400, "Message": "signature not found"},
            ]})
            .to_string(),
            &sender,
        ),
        (413, String::new(), "unfit"),
        (415, String::new(), "unfit"),
        (429, String::new(), &rate),
        (500, String::new(), "unsure"),
        (502, "<html>".to_owned(), "unsure"),
        (503, String::new(), "Path false"),
        (504, String::new(), "unsure"),
        (501, String::new(), "unsure"),
        (505, String::new(), "unsure"),
        (520, "<html>error code: 520</html>".to_owned(), "unsure"),
        (522, String::new(), "unsure"),
        (524, String::new(), "unsure"),
        (529, code(300, "Invalid email request"), "unsure"),
        (599, String::new(), "unsure"),
        (404, String::new(), "Account true"),
    ] {
        let read = read(status, &body, &["b@example.org"]);
        assert_eq!(read.iter().map(brief).collect::<Vec<_>>(), [meant], "{status} {body}");
    }
}

#[test]
fn an_answer_that_tells_nothing_is_unsure_and_what_it_lacks_is_said() {
    for (body, cut, why) in [
        ("{}", false, "(it has neither an ErrorCode nor a MessageID)"),
        ("[]", false, "(it has neither an ErrorCode nor a MessageID)"),
        ("<html>", false, "(it is no JSON)"),
        ("", false, "(it is no JSON)"),
        ("{\"ErrorCode\":0,", true, "(its end is missing)"),
    ] {
        let recipients = addresses(&["b@example.org"]);
        let message = message("");
        let parcel = Parcel {
            message: &message,
            whole: None,
            recipients: &recipients,
            attempt: AttemptId::from_number(1),
        };
        let reply = HttpReply { status: 200, headers: Vec::new(), body: body.to_owned().into(), cut };
        let read = postmark(Transport::Api).read(parcel, &Reply::Http(reply), NOW).remove(0);
        assert!(matches!(&read, Outcome::Unsure { said } if said.ends_with(why)), "{body}: {read:?}");
    }
}

#[test]
fn what_is_wrong_with_the_request_itself_is_known() {
    let code = |code: i64| json!({"ErrorCode": code, "Message": "no"}).to_string();
    let several = json!({"ErrorCode": 11, "Message": "several", "Errors": [
        {"ErrorCode": 300, "Message": "Zero recipients"},
        {"ErrorCode": 403, "Message": "a field is not known"},
    ]});
    for (status, body, blames) in [
        (422, code(402), true),
        (422, code(403), true),
        (422, code(409), true),
        (422, code(410), true),
        (422, several.to_string(), true),
        (415, code(409), true),
        (415, String::new(), true),
        (422, code(300), false),
        (422, code(406), false),
        (422, code(411), false),
        (401, code(10), false),
        (500, String::new(), false),
        (200, code(0), false),
    ] {
        let reply = HttpReply { status, headers: Vec::new(), body: body.clone().into(), cut: false };
        let told = postmark(Transport::Api).blames_request(&Reply::Http(reply));
        assert_eq!(told, blames, "{status} {body}");
    }
}

#[test]
fn each_recipient_has_an_answer_of_its_own() {
    let partial = "OK, but will not deliver to these inactive addresses: b@example.org, x@example.net. Inactive \
                   recipients are ones that have generated a hard bounce";
    let body = json!({"ErrorCode": 0, "Message": partial, "MessageID": "m-1"}).to_string();
    let outcomes = read(200, &body, &["a@example.org", "B@example.org", "c@example.org"]);
    assert_eq!(outcomes.iter().map(brief).collect::<Vec<_>>(), ["accepted", "Recipient true", "accepted"]);
    assert!(matches!(&outcomes[0], Outcome::Accepted { remote_id: Some(id), .. } if id == "m-1"));
    let body =
        json!({"ErrorCode": 300, "Message": "Error parsing 'Cc': Illegal email address 'b@example.org'."});
    let outcomes = read(422, &body.to_string(), &["a@example.org", "b@example.org"]);
    assert_eq!(outcomes.iter().map(brief).collect::<Vec<_>>(), ["Recipient false", "Recipient true"]);
}

#[test]
fn nobody_is_refused_for_words_that_name_nobody() {
    let of_406 = |message: &str, recipients: &[&str]| {
        let body = json!({"ErrorCode": 406, "Message": message}).to_string();
        read(422, &body, recipients).iter().map(brief).collect::<Vec<_>>()
    };
    let two = ["a@example.org", "b@example.org"];
    let other = "Found inactive addresses: x@example.net.\nInactive recipients are ones";
    assert_eq!(of_406("inactive recipient", &two), ["unfit", "unfit"]);
    assert_eq!(of_406(other, &two), ["unfit", "unfit"]);
    assert_eq!(of_406(other, &two[..1]), ["unfit"]);
    assert_eq!(of_406("inactive recipient", &two[..1]), ["Recipient true"], "who else");
    let one = "Found inactive addresses: B@example.org.";
    assert_eq!(of_406(one, &two), ["Recipient false", "Recipient true"]);
}

#[test]
fn a_cut_answer_says_less_than_a_whole_one() {
    let message = message(&content("From: a@example.com\r\n", "\r\nx\r\n"));
    let recipients = addresses(&["b@example.org"]);
    let parcel = Parcel {
        message: &message,
        whole: None,
        recipients: &recipients,
        attempt: AttemptId::from_number(1),
    };
    for (status, word) in [(200, "unsure"), (422, "unfit"), (401, "refused")] {
        let body = json!({"ErrorCode": 0, "Message": "OK"}).to_string();
        let reply = HttpReply { status, headers: Vec::new(), body: body.into(), cut: true };
        assert_eq!(
            postmark(Transport::Api).read(parcel, &Reply::Http(reply), NOW)[0].word(),
            word,
            "{status}"
        );
    }
}

#[test]
fn smtp_replies_have_rows_of_their_own() {
    let message = message(&content("From: a@example.com\r\n", "\r\nx\r\n"));
    let recipients = addresses(&["b@example.org"]);
    let parcel = Parcel {
        message: &message,
        whole: None,
        recipients: &recipients,
        attempt: AttemptId::from_number(1),
    };
    for (text, meant) in [
        ("The 'From' address is not a Sender Signature on your account", Fault::Sender(Named::From)),
        ("You are not allowed to send from this server", Fault::Account),
        ("Message content rejected", Fault::Message),
    ] {
        let last = Answer { code: 554, enhanced: None, text: text.into() };
        let reply = SmtpReply { phase: Phase::Dot, last, recipients: Vec::new(), reports: false };
        let read = postmark(Transport::Smtp).read(parcel, &Reply::Smtp(reply), NOW);
        assert!(matches!(&read[0], Outcome::Refused { fault, .. } if *fault == meant), "{text}: {read:?}");
    }
}

/// The addresses in a string of them, as another reader takes them.
fn listed(json: &Value, key: &str) -> Vec<String> {
    let text = json.get(key).and_then(Value::as_str).unwrap_or_default();
    if text.is_empty() {
        return Vec::new();
    }
    let list: lettre::message::Mailboxes = text.parse().unwrap();
    list.iter().map(|mailbox| mailbox.email.to_string().to_ascii_lowercase()).collect()
}

proptest! {
    #[test]
    fn those_who_are_mailed_are_the_recipients_each_once(
        to in prop::collection::vec(0_u8..6, 1..5),
        cc in prop::collection::vec(0_u8..6, 0..4),
        hidden in prop::collection::vec(0_u8..8, 0..4),
        left_out in prop::option::of(0_u8..6),
        name in "[ -~]{0,12}",
    ) {
        let address = |n: &u8| format!("r{n}@example.org");
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        let field = |list: &[u8]| list.iter().map(|n| format!("\"{quoted}\" <{}>", address(n))).collect::<Vec<_>>().join(",\r\n ");
        let mut head = format!("From: a@example.com\r\nTo: {}\r\n", field(&to));
        if !cc.is_empty() {
            head.push_str(&format!("Cc: {}\r\n", field(&cc)));
        }
        let mut envelope: Vec<u8> = to.iter().chain(&cc).chain(&hidden).copied().collect();
        envelope.sort_unstable();
        envelope.dedup();
        envelope.retain(|n| Some(*n) != left_out);
        let wanted: Vec<String> = envelope.iter().map(address).collect();
        let recipients: Vec<&str> = wanted.iter().map(String::as_str).collect();
        prop_assume!(!recipients.is_empty());
        let shown = left_out.is_some_and(|n| to.contains(&n) || cc.contains(&n));
        match json_of(&message(&content(&head, "\r\nx\r\n")), &recipients) {
            Ok(json) => {
                prop_assert!(!shown);
                let mut mailed: Vec<String> = ["To", "Cc", "Bcc"].iter().flat_map(|key| listed(&json, key)).collect();
                mailed.sort_unstable();
                prop_assert_eq!(mailed, wanted);
            }
            Err(_) => prop_assert!(shown),
        }
    }
}

#[test]
fn a_200_of_somebody_else_is_no_answer_of_postmarks() {
    let reply = |body: &'static str| HttpReply { status: 200, body: body.into(), ..HttpReply::default() };
    let good = read::judge_probe(&reply(r#"{"ID":1,"Name":"Shop"}"#)).unwrap();
    assert!(good.contains("\"Shop\""), "{good}");
    for body in ["<html>Log in to the guest network</html>", "{}", ""] {
        let why = read::judge_probe(&reply(body)).unwrap_err();
        assert!(why.starts_with("this is no answer of Postmark's") && why.contains(body), "{why}");
    }
}
