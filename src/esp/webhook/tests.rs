//! What proves a POST, and what each ESP's events mean.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::mail::{AttemptId, Bounce, Event, Listed, MessageId, Planted, StreamKind, What};
use crate::secret::Secret;

const NOW: Timestamp = Timestamp::from_millis(1_767_323_100_000);
const TOPIC: &str = "arn:aws:sns:us-east-1:111111111111:ses";

fn fields(pairs: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

fn unproven(by: ProvenBy) -> WebhookSettings {
    WebhookSettings { proven: false, by }
}

fn events(settings: &WebhookSettings, body: &str) -> Vec<Event> {
    let post = Post { fields: &[], body: body.as_bytes(), at: NOW };
    match settings.hear(post, None) {
        Ok(Heard::Events(events)) => events,
        other => panic!("{other:?}"),
    }
}

fn ses() -> WebhookSettings {
    unproven(ProvenBy::Sns { topics: vec![TOPIC.into()], require_v2: false, endpoint: None })
}

fn postmark(proof: PostmarkProof) -> ProvenBy {
    ProvenBy::Postmark { proof, streams: PostmarkStreams::default() }
}

/// The folder of published vectors, or a loud word that it is missing.
fn vectors(name: &str) -> Option<Value> {
    let Ok(folder) = std::env::var("POSTROAD_VECTORS") else {
        eprintln!(
            "*** SKIPPED: {name}: POSTROAD_VECTORS names no folder with the published signature vectors"
        );
        return None;
    };
    let text = std::fs::read(std::path::Path::new(&folder).join(name)).unwrap();
    Some(serde_json::from_slice(&text).unwrap())
}

#[test]
fn sendgrids_published_signature_verifies_and_its_like_do_not() {
    let Some(all) = vectors("sendgrid_event_webhook.json") else { return };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let own = |case: &Value, name: &str, all: Value| text(case.get(name).unwrap_or(&all));
    let (signature_field, stamp_field) =
        ("x-twilio-email-event-webhook-signature", "x-twilio-email-event-webhook-timestamp");
    let sent = |name: &str| all["headers"][name].clone();
    for case in all["cases"].as_array().unwrap() {
        let key = own(case, "public_key_b64_der", all["public_key_b64_der"].clone());
        let body = STANDARD.decode(own(case, "body_b64", all["body_b64"].clone())).unwrap();
        let signature = own(case, "signature", sent("X-Twilio-Email-Event-Webhook-Signature"));
        let stamp = own(case, "timestamp", sent("X-Twilio-Email-Event-Webhook-Timestamp"));
        let fields = fields(&[(signature_field, &signature), (stamp_field, &stamp)]);
        let key = SendgridKey::parse(&key).unwrap();
        let settings = WebhookSettings { proven: true, by: ProvenBy::Sendgrid(Some(key)) };
        let post = Post { fields: &fields, body: &body, at: Timestamp::from_millis(1_600_112_502_000) };
        assert_eq!(settings.hear(post, None).is_ok(), case["expect"].as_bool().unwrap(), "{}", case["name"]);
    }
}

#[test]
fn the_published_sns_messages_verify_and_their_like_do_not() {
    let Some(all) = vectors("sns_synthetic.json") else { return };
    let pem = all["certificate_pem"].as_str().unwrap();
    let key = key_of_certificate(pem);
    for case in all["cases"].as_array().unwrap() {
        let message = &case["message"];
        let topics = vec![message["TopicArn"].as_str().unwrap().to_owned()];
        let by = ProvenBy::Sns { topics, require_v2: false, endpoint: None };
        let settings = WebhookSettings { proven: true, by };
        let body = message.to_string();
        let post = Post { fields: &[], body: body.as_bytes(), at: Timestamp::from_millis(1_767_323_046_000) };
        let heard = settings.hear(post, Some(&key));
        assert_eq!(heard.is_ok(), case["expect"].as_bool().unwrap(), "{}: {heard:?}", case["name"]);
    }
    for case in all["cert_url_cases"].as_array().unwrap() {
        let url = case["url"].as_str().unwrap();
        assert_eq!(ses::sns::is_certificate_url(url), case["expect"].as_bool().unwrap(), "{url}");
    }
}

#[test]
fn only_sns_own_names_are_those_of_its_certificates_and_hosts() {
    for name in [
        "sns.amazonaws.com",
        "SNS.amazonaws.com",
        "sns-us-gov-west-1.amazonaws.com",
        "sns-cn-north-1.amazonaws.com.cn",
        "sns-signing.af-south-1.amazonaws.com",
        "sns.af-south-1.amazonaws.com",
    ] {
        assert!(ses::sns::is_certificate_name(name), "{name}");
    }
    for name in [
        "",
        "amazonaws.com",
        "sns.example.com",
        "sns.amazonaws.com.example.com",
        "s3.amazonaws.com",
        "*.s3.amazonaws.com",
        "sns.s3-us-west-2.amazonaws.com",
        "sns.s3.amazonaws.com",
        "sns.a.us-east-1.amazonaws.com",
        "*.amazonaws.com",
        "notsns.amazonaws.com",
    ] {
        assert!(!ses::sns::is_certificate_name(name), "{name}");
    }
    // The bucket of that name at an old host of S3's.
    let bucket = "https://sns.s3-us-west-2.amazonaws.com/SimpleNotificationService-0a1b.pem";
    assert!(!ses::sns::is_certificate_url(bucket));
}

fn key_of_certificate(pem: &str) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    webpki::EndEntityCert::try_from(&der).unwrap().subject_public_key_info().to_vec()
}

/// A POST that SendGrid would have signed with a key of ours.
fn signed(body: &[u8], stamp: &str) -> (SendgridKey, Vec<(String, Vec<u8>)>) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let spki = pair.public_key().as_ref().to_vec();
    let prefix = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
    let prefix: Vec<u8> =
        (0..prefix.len()).step_by(2).map(|at| u8::from_str_radix(&prefix[at..at + 2], 16).unwrap()).collect();
    let key = SendgridKey::parse(&STANDARD.encode([prefix, spki].concat())).unwrap();
    let signature = pair.sign(&SystemRandom::new(), &[stamp.as_bytes(), body].concat()).unwrap();
    let fields = fields(&[
        ("x-twilio-email-event-webhook-signature", &STANDARD.encode(signature.as_ref())),
        ("x-twilio-email-event-webhook-timestamp", stamp),
    ]);
    (key, fields)
}

#[test]
fn each_flipped_bit_of_a_signed_post_is_refused() {
    let body = br#"[{"event":"delivered","email":"a@x.example","sg_event_id":"1","timestamp":1767323100}]"#;
    let stamp = "1767323100";
    let (key, sent) = signed(body, stamp);
    let settings = WebhookSettings { proven: true, by: ProvenBy::Sendgrid(Some(key)) };
    let hear =
        |fields: &[(String, Vec<u8>)], body: &[u8]| settings.hear(Post { fields, body, at: NOW }, None);
    assert!(hear(&sent, body).is_ok());
    for at in 0..body.len() * 8 {
        let mut other = body.to_vec();
        other[at / 8] ^= 1 << (at % 8);
        assert_eq!(hear(&sent, &other), Err(Refused::Unproven(Unproven::Wrong)), "bit {at} of the body");
    }
    for which in 0..sent.len() {
        for at in 0..sent[which].1.len() * 8 {
            let mut other = sent.clone();
            other[which].1[at / 8] ^= 1 << (at % 8);
            assert!(matches!(hear(&other, body), Err(Refused::Unproven(_))), "bit {at} of {}", sent[which].0);
        }
    }
}

/// A call that SNS would have signed (version 2), with the key that shows it.
fn by_sns() -> (Value, Vec<u8>) {
    let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let mut call = json!({
        "Type": "Notification", "MessageId": "m-1", "TopicArn": TOPIC, "SignatureVersion": "2", "Subject": "s",
        "Timestamp": "2026-01-02T03:05:00.000Z",
        "Message": r#"{"eventType":"Send","mail":{"destination":["a@x.example"]},"send":{}}"#,
        "SigningCertURL": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0a.pem",
    });
    let names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
    let text: String =
        names.iter().map(|name| format!("{name}\n{}\n", call[*name].as_str().unwrap())).collect();
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    call["Signature"] = json!(STANDARD.encode(signature));
    (call, spki.as_ref().to_vec())
}

#[test]
fn each_flipped_bit_of_what_sns_signed_is_refused() {
    let (call, key) = by_sns();
    let by = ProvenBy::Sns { topics: vec![TOPIC.into()], require_v2: false, endpoint: None };
    let settings = WebhookSettings { proven: true, by };
    let hear = |call: &Value, key: &[u8]| {
        let body = call.to_string();
        settings.hear(Post { fields: &[], body: body.as_bytes(), at: NOW }, Some(key))
    };
    assert!(hear(&call, &key).is_ok());
    let flipped =
        ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type", "Signature", "SignatureVersion"];
    for name in flipped {
        let value = call[name].as_str().unwrap().as_bytes();
        for at in 0..value.len() * 8 {
            let mut other = value.to_vec();
            other[at / 8] ^= 1 << (at % 8);
            let Ok(other) = String::from_utf8(other) else { continue };
            let mut other_call = call.clone();
            other_call[name] = json!(other);
            assert!(hear(&other_call, &key).is_err(), "bit {at} of {name}: {other:?}");
        }
        let mut without = call.clone();
        without.as_object_mut().unwrap().remove(name);
        assert!(hear(&without, &key).is_err(), "without {name}");
    }
    // Before its numbers stands what kind of key it is, which its CA signs.
    for at in 33 * 8..key.len() * 8 {
        let mut other = key.clone();
        other[at / 8] ^= 1 << (at % 8);
        assert!(hear(&call, &other).is_err(), "bit {at} of the certificate's key");
    }
}

#[test]
fn what_was_signed_long_ago_or_for_later_is_refused() {
    for (seconds, good) in [
        (1_767_323_100, true),
        (1_767_323_100 - 24 * 3600, true),
        (1_767_323_100 - 26 * 3600, false),
        (1_767_323_100 + 300, true),
        (1_767_323_100 + 3600, false),
        (i64::MAX, false),
        (0, false),
    ] {
        let (key, sent) = signed(b"[]", &seconds.to_string());
        let settings = WebhookSettings { proven: true, by: ProvenBy::Sendgrid(Some(key)) };
        let heard = settings.hear(Post { fields: &sent, body: b"[]", at: NOW }, None);
        assert_eq!(heard.is_ok(), good, "{seconds}: {heard:?}");
    }
}

#[test]
fn postmark_has_to_send_all_that_it_was_told_to() {
    let proof = PostmarkProof {
        login: Some(("user".into(), Secret::new("pass"))),
        fields: vec![("x-proof".into(), Secret::new("shibboleth"))],
    };
    let settings = WebhookSettings { proven: true, by: postmark(proof) };
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let body = br#"{"RecordType":"Delivery"}"#;
    for (sent, wanted) in [
        (vec![("authorization", basic("user:pass")), ("x-proof", "shibboleth".into())], None),
        (
            vec![
                ("authorization", basic("user:pass").replace("Basic", "basic")),
                ("x-proof", "shibboleth".into()),
            ],
            None,
        ),
        (
            vec![
                ("authorization", basic("user:pass").replace("Basic", "Bearer")),
                ("x-proof", "shibboleth".into()),
            ],
            Some(Unproven::Wrong),
        ),
        (vec![("authorization", basic("user:pass"))], Some(Unproven::Missing)),
        (vec![("x-proof", "shibboleth".into())], Some(Unproven::Missing)),
        (
            vec![("authorization", basic("user:past")), ("x-proof", "shibboleth".into())],
            Some(Unproven::Wrong),
        ),
        (vec![("authorization", basic("user:pass")), ("x-proof", "sibboleth".into())], Some(Unproven::Wrong)),
        (
            vec![
                ("authorization", basic("user:pass")),
                ("x-proof", "shibboleth".into()),
                ("x-proof", "x".into()),
            ],
            Some(Unproven::Missing),
        ),
        (vec![], Some(Unproven::Missing)),
    ] {
        let sent: Vec<_> = sent.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let fields = fields(&sent);
        let heard = settings.hear(Post { fields: &fields, body, at: NOW }, None);
        assert_eq!(heard.err(), wanted.map(Refused::Unproven), "{sent:?}");
    }
    let keyless = WebhookSettings { proven: true, by: postmark(PostmarkProof::default()) };
    let heard = keyless.hear(Post { fields: &[], body, at: NOW }, None);
    assert_eq!(heard, Err(Refused::Unproven(Unproven::NoKey)));
    assert!(keyless.is_keyless() && !settings.is_keyless());
}

#[test]
fn sendgrids_events_mean_what_they_say() {
    let settings = unproven(ProvenBy::Sendgrid(None));
    for (event, what) in [
        (json!({"event": "processed"}), What::Sent),
        (json!({"event": "deferred", "response": "400 try again"}), What::Deferred),
        (json!({"event": "delivered", "response": "250 OK"}), What::Delivered),
        (json!({"event": "bounce", "type": "bounce", "status": "5.1.1"}), What::Bounced(Bounce::Hard)),
        (
            json!({"event": "bounce", "type": "bounce", "status": "5.0.0", "reason": "550"}),
            What::Bounced(Bounce::Hard),
        ),
        (
            json!({"event": "bounce", "type": "bounce", "status": "5.5.0",
                "reason": "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302)"}),
            What::Bounced(Bounce::Hard),
        ),
        (
            json!({"event": "bounce", "type": "bounce", "status": "5.3.0", "reason": "550 5.3.0 No such user here"}),
            What::Bounced(Bounce::Hard),
        ),
        (
            json!({"event": "bounce", "type": "blocked", "status": "5.5.0", "reason": "550 5.5.0 mailbox unavailable"}),
            What::Bounced(Bounce::Policy),
        ),
        (
            json!({"event": "bounce", "type": "bounce", "status": "5.3.4", "reason": "552 5.3.4 Message too big"}),
            What::Bounced(Bounce::Policy),
        ),
        (json!({"event": "bounce", "type": "blocked", "status": "5.7.1"}), What::Bounced(Bounce::Policy)),
        (json!({"event": "bounce", "type": "blocked", "status": "5.1.1"}), What::Bounced(Bounce::Policy)),
        (json!({"event": "bounce", "type": "blocked", "status": "4.4.1"}), What::Bounced(Bounce::Soft)),
        (json!({"event": "bounce", "type": "bounce", "status": "5.2.2"}), What::Bounced(Bounce::Soft)),
        (
            json!({"event": "bounce", "type": "bounce", "status": "5.1.1", "bounce_classification": "Reputation"}),
            What::Bounced(Bounce::Policy),
        ),
        (
            json!({"event": "dropped", "reason": "Bounced Address"}),
            What::Bounced(Bounce::Listed(Listed::Bounced)),
        ),
        (
            json!({"event": "dropped", "reason": "Spam Reporting Address"}),
            What::Bounced(Bounce::Listed(Listed::Complained)),
        ),
        (
            json!({"event": "dropped", "reason": "Unsubscribed Address"}),
            What::Bounced(Bounce::Listed(Listed::Unsubscribed)),
        ),
        (json!({"event": "dropped", "reason": "Spam Content"}), What::Bounced(Bounce::LetBe)),
        (json!({"event": "open", "sg_machine_open": true}), What::Opened { machine: true }),
        (json!({"event": "open", "useragent": "Mozilla/5.0 (X11)"}), What::Opened { machine: false }),
        (json!({"event": "click", "url": "https://example.org/"}), What::Clicked { machine: false }),
        (json!({"event": "spamreport"}), What::Complained),
        (json!({"event": "unsubscribe"}), What::Unsubscribed),
        (json!({"event": "group_unsubscribe", "asm_group_id": 10}), What::Unsubscribed),
        (json!({"event": "group_resubscribe"}), What::Other),
        (json!({"event": "account_status_change"}), What::Other),
        (json!({"event": 7}), What::Other),
        (json!("not an object"), What::Other),
        (json!(null), What::Other),
    ] {
        let body = json!([event]).to_string();
        assert_eq!(events(&settings, &body)[0].what, what, "{event}");
    }
}

#[test]
fn what_sendgrid_makes_up_for_a_test_says_nothing_of_an_address() {
    let settings = unproven(ProvenBy::Sendgrid(None));
    let planted =
        Planted { message: MessageId::from_number(1), attempt: AttemptId::from_number(2) }.to_string();
    for (email, attempt, test) in [
        ("example@test.com", "", true),
        ("Example@Test.com", "not ours", true),
        ("example@test.com", planted.as_str(), false),
        ("example@test.com.example", "", false),
        ("other@test.com", "", false),
    ] {
        let body = json!([{
            "event": "bounce", "type": "bounce", "status": "5.0.0", "reason": "500 unknown recipient", "email": email,
            "postroad_attempt": attempt, "sg_event_id": "e",
        }]);
        let event = events(&settings, &body.to_string()).remove(0);
        assert_eq!((crate::esp::hook::is_test(&event), event.what == What::Other), (test, test), "{event:?}");
        assert!(event.said.contains("500 unknown recipient"), "{event:?}");
    }
}

#[test]
fn another_systems_events_of_the_same_account_spoil_nothing() {
    let settings = unproven(ProvenBy::Sendgrid(None));
    let body = json!([
        {"email": "reader@w.example", "event": "delivered", "category": ["newsletter", "spring"],
         "marketing_campaign_id": 12345, "sg_event_id": "f1", "sg_message_id": "m1.filter", "timestamp": 1_700_000_000},
        {"email": "reader@w.example", "event": "click", "category": "newsletter", "marketing_campaign_id": "12345",
         "sg_event_id": "f2", "sg_message_id": "m1.filter", "timestamp": "1700000000"},
        {"email": ["odd"], "event": {"deep": [1]}, "timestamp": {}},
    ]);
    let told = events(&settings, &body.to_string());
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|event| event.planted.is_none()));
    assert_eq!((told[0].key.as_str(), told[0].remote_id.as_deref()), ("f1", Some("m1")));
    assert_eq!(told[1].at, Timestamp::from_millis(1_700_000_000_000));
    assert_eq!(told[2].what, What::Other);
}

fn sns(message: &Value) -> String {
    json!({
        "Type": "Notification", "MessageId": "00000000-0000-4000-8000-000000000000", "TopicArn": TOPIC,
        "Message": message.to_string(), "Timestamp": "2026-01-02T03:04:06.000Z",
    })
    .to_string()
}

fn ses_mail() -> Value {
    json!({
        "messageId": "0100-m", "destination": ["a@w.example"],
        "tags": {"postroad-attempt": ["01jd3k5v9m2xq-01jd3k5v9m2xr"]},
    })
}

#[test]
fn amazons_events_mean_what_they_say_in_both_spellings() {
    let bounce = |kind: &str, sub: &str, more: Value| {
        let mut who = json!({"emailAddress": "a@w.example"});
        who.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (
            "Bounce",
            "bounce",
            json!({"bounceType": kind, "bounceSubType": sub, "bouncedRecipients": [who], "feedbackId": "f"}),
        )
    };
    let complaint = |more: Value| {
        let mut told = json!({"complainedRecipients": [{"emailAddress": "a@w.example"}], "feedbackId": "f"});
        told.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ("Complaint", "complaint", told)
    };
    let gone = json!({"status": "5.1.1", "diagnosticCode": "smtp; 550 5.1.1 user unknown"});
    for ((kind, part, told), what) in [
        (bounce("Permanent", "General", gone), What::Bounced(Bounce::Hard)),
        (bounce("Permanent", "NoEmail", json!({})), What::Bounced(Bounce::Hard)),
        (
            bounce(
                "Permanent",
                "General",
                json!({"status": "5.7.26", "diagnosticCode": "smtp; 550 5.7.26 DMARC"}),
            ),
            What::Bounced(Bounce::Policy),
        ),
        (
            bounce(
                "Permanent",
                "General",
                json!({"status": "5.2.2", "diagnosticCode": "smtp; 552 5.2.2 full"}),
            ),
            What::Bounced(Bounce::Soft),
        ),
        (
            bounce("Permanent", "General", json!({"diagnosticCode": "smtp; 552 Mailbox is full"})),
            What::Bounced(Bounce::Soft),
        ),
        (
            bounce(
                "Permanent",
                "General",
                json!({"status": "5.1.1", "diagnosticCode": "smtp; 550 5.1.1 [192.0.2.1] is on a blacklist"}),
            ),
            What::Bounced(Bounce::Policy),
        ),
        (
            bounce(
                "Permanent",
                "NoEmail",
                json!({"status": "5.2.2", "diagnosticCode": "smtp; 550 on our blocklist"}),
            ),
            What::Bounced(Bounce::Hard),
        ),
        (
            bounce("Permanent", "General", json!({"status": "5.4.4", "diagnosticCode": "no such domain"})),
            What::Bounced(Bounce::Hard),
        ),
        (bounce("Permanent", "General", json!({"status": "5.0.0"})), What::Bounced(Bounce::Hard)),
        (
            bounce(
                "Permanent",
                "General",
                json!({"status": "5.5.0",
                    "diagnosticCode": "smtp; 550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302)"}),
            ),
            What::Bounced(Bounce::Hard),
        ),
        (
            bounce(
                "Permanent",
                "General",
                json!({"status": "5.5.1", "diagnosticCode": "smtp; 550 5.5.1 Recipient does not exist"}),
            ),
            What::Bounced(Bounce::Hard),
        ),
        (
            bounce(
                "Permanent",
                "General",
                json!({"status": "5.3.4", "diagnosticCode": "smtp; 552 5.3.4 Message too big for system"}),
            ),
            What::Bounced(Bounce::Policy),
        ),
        (
            bounce(
                "Transient",
                "General",
                json!({"status": "5.5.0", "diagnosticCode": "550 5.5.0 no such user"}),
            ),
            What::Bounced(Bounce::Soft),
        ),
        (
            bounce("Permanent", "OnAccountSuppressionList", json!({})),
            What::Bounced(Bounce::Listed(Listed::Bounced)),
        ),
        (bounce("Transient", "General", json!({})), What::AutoReplied),
        (bounce("Transient", "General", json!({"status": "4.4.7"})), What::Bounced(Bounce::Soft)),
        (bounce("Transient", "MailboxFull", json!({})), What::Bounced(Bounce::Soft)),
        (bounce("Transient", "ContentRejected", json!({})), What::Bounced(Bounce::Policy)),
        (bounce("Undetermined", "Undetermined", json!({})), What::Bounced(Bounce::Soft)),
        (complaint(json!({"complaintFeedbackType": "abuse"})), What::Complained),
        (complaint(json!({})), What::Complained),
        (complaint(json!({"complaintFeedbackType": "brand-new"})), What::Complained),
        (complaint(json!({"complaintFeedbackType": "not-spam"})), What::NotSpam),
        (
            complaint(json!({"complaintSubType": "OnAccountSuppressionList"})),
            What::Bounced(Bounce::Listed(Listed::Complained)),
        ),
        (
            ("Delivery", "delivery", json!({"recipients": ["a@w.example"], "smtpResponse": "250 ok"})),
            What::Delivered,
        ),
        (
            (
                "DeliveryDelay",
                "deliveryDelay",
                json!({"delayedRecipients": [{"emailAddress": "a@w.example"}]}),
            ),
            What::Deferred,
        ),
        (("Send", "send", json!({})), What::Sent),
        (("Reject", "reject", json!({"reason": "Bad content"})), What::Bounced(Bounce::Refused)),
        (("Rendering Failure", "failure", json!({"errorMessage": "x"})), What::Bounced(Bounce::Refused)),
        (("Open", "open", json!({"userAgent": "x"})), What::Opened { machine: false }),
        (("Click", "click", json!({"link": "https://example.org"})), What::Clicked { machine: false }),
        (
            ("Subscription", "subscription", json!({"newTopicPreferences": {"unsubscribeAll": true}})),
            What::Unsubscribed,
        ),
        (("BrandNew", "brandNew", json!({})), What::Other),
    ] {
        for spelling in ["eventType", "notificationType"] {
            let message = json!({spelling: kind, "mail": ses_mail(), part: told});
            let heard = events(&ses(), &sns(&message));
            assert_eq!(heard.len(), 1, "{message}");
            assert_eq!(heard[0].what, what, "{message}");
            assert_eq!(heard[0].recipient.as_ref().unwrap().wire(), "a@w.example");
            assert_eq!(heard[0].planted.unwrap().to_string(), "01jd3k5v9m2xq-01jd3k5v9m2xr");
            assert_eq!(heard[0].remote_id.as_deref(), Some("0100-m"));
        }
    }
}

#[test]
fn an_event_of_ses_whose_recipient_cannot_be_read_is_kept_and_a_name_is_read_over() {
    let bounce = |recipients: Value| {
        let told =
            json!({"bounceType": "Permanent", "bounceSubType": "NoEmail", "bouncedRecipients": recipients});
        events(
            &ses(),
            &sns(&json!({"notificationType": "Bounce", "mail": {"messageId": "m"}, "bounce": told})),
        )
    };
    for unread in
        [json!([]), json!(null), json!("a@w.example"), json!([{"emailAddress": "nobody"}]), json!([7])]
    {
        let heard = bounce(unread.clone());
        let told =
            heard.iter().map(|event| (event.what, event.recipient.is_none(), event.unlabelled.is_some()));
        assert_eq!(told.collect::<Vec<_>>(), [(What::Other, true, true)], "{unread}");
        assert!(heard[0].raw.contains("bouncedRecipients"));
    }
    let named = bounce(json!([{"emailAddress": "Joe <joe@w.example>"}]));
    let whom = named[0].recipient.as_ref().map(|to| to.wire());
    assert_eq!((named[0].what, whom), (What::Bounced(Bounce::Hard), Some("joe@w.example")));
}

#[test]
fn what_an_identitys_notification_says_of_its_mail_is_read() {
    let about = |more: Value| {
        let mut mail = json!({"messageId": "0100-m", "destination": ["B@W.example", "a@w.example"]});
        mail.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let told = json!({"recipients": ["a@w.example"]});
        let heard =
            events(&ses(), &sns(&json!({"notificationType": "Delivery", "mail": mail, "delivery": told})));
        heard.into_iter().next().unwrap().unlabelled
    };
    let whole = about(json!({"source": "s@w.example", "timestamp": "2026-01-02T03:04:06.000Z"})).unwrap();
    assert_eq!(whole.taken_at.map(Timestamp::millis), Some(1_767_323_046_000));
    assert_eq!(Vec::from_iter(whole.recipients), ["a@w.example", "b@w.example"]);
    for (source, sender) in [
        ("S@W.example", Some("s@w.example")),
        ("Shop <s@w.example>", Some("s@w.example")),
        ("s@w.example (Shop)", Some("s@w.example")),
        ("=?utf-8?q?Sh=C3=B6p?= <s@w.example>", Some("s@w.example")),
        ("s@b\u{fc}cher.example", Some("s@xn--bcher-kva.example")),
        ("", None),
        ("nobody", None),
    ] {
        assert_eq!(about(json!({"source": source})).unwrap().sender.as_deref(), sender, "{source}");
    }
    let listed = json!([{"name": "message-id", "value": " <1@w.example>"}]);
    for (more, id) in [
        (json!({"headers": listed, "commonHeaders": {"messageId": "<2@w.example>"}}), Some("1@w.example")),
        (json!({"commonHeaders": {"messageId": "<2@w.example>"}}), Some("2@w.example")),
        // What SES writes in its place is no id of ours.
        (json!({"commonHeaders": {"messageId": "<0100-m@email.amazonses.com>"}}), None),
        (json!({"headers": [7, {"name": "Message-ID"}], "commonHeaders": []}), None),
    ] {
        assert_eq!(about(more.clone()).unwrap().message_id.as_deref(), id, "{more}");
    }
    assert_eq!(about(json!({"tags": {}, "source": "s@w.example"})), None, "its form has a place for our ids");
}

#[test]
fn one_bounce_in_both_feeds_is_one_event_and_each_of_several_recipients_has_its_own() {
    let told = json!({
        "bounceType": "Permanent", "bounceSubType": "General", "feedbackId": "f", "timestamp": "2026-01-02T03:04:06.000Z",
        "bouncedRecipients": [{"emailAddress": "a@w.example"}, {"emailAddress": "b@w.example"}, {"no": "address"}],
    });
    let of = |spelling: &str| {
        let message = json!({spelling: "Bounce", "mail": {"messageId": "m"}, "bounce": told});
        events(&ses(), &sns(&message)).into_iter().map(|event| event.key).collect::<Vec<_>>()
    };
    let keys = of("eventType");
    assert_eq!(keys, of("notificationType"));
    assert!(keys.len() == 2 && keys[0] != keys[1]);
}

#[test]
fn what_is_no_event_of_amazons_is_told_apart() {
    let heard = |body: &str| ses().hear(Post { fields: &[], body: body.as_bytes(), at: NOW }, None);
    let validated = json!("Successfully validated SNS topic for Amazon SES event publishing.");
    let body = json!({"Type": "Notification", "TopicArn": TOPIC, "Message": validated}).to_string();
    assert_eq!(heard(&body), Ok(Heard::Events(Vec::new())));
    let url = "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=x&Token=y";
    let confirm = |topic: &str, url: &str| {
        json!({"Type": "SubscriptionConfirmation", "TopicArn": topic, "SubscribeURL": url}).to_string()
    };
    assert!(matches!(heard(&confirm(TOPIC, url)), Ok(Heard::Confirm { url: u, .. }) if u == url));
    for (topic, url) in [
        ("arn:aws:sns:us-east-1:222222222222:other", url),
        (TOPIC, "https://sns.us-east-1.amazonaws.com.evil.example/?Action=ConfirmSubscription"),
        (TOPIC, "https://evil.example/?Action=ConfirmSubscription"),
        (TOPIC, "http://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription"),
        (TOPIC, "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe"),
        (TOPIC, ""),
    ] {
        assert!(matches!(heard(&confirm(topic, url)), Err(Refused::Unproven(_))), "{topic} {url}");
    }
    for broken in ["", "{", "[]", "7", "{}", "{\"Type\":\"Notification\"}", &"[".repeat(100_000)] {
        assert!(matches!(heard(broken), Err(Refused::Malformed(_))), "{:.40}", broken);
    }
}

#[test]
fn postmarks_events_mean_what_they_say() {
    let settings = unproven(postmark(PostmarkProof::default()));
    for (event, what) in [
        (json!({"RecordType": "Delivery", "Recipient": "a@w.example"}), What::Delivered),
        (
            json!({"RecordType": "Bounce", "Type": "HardBounce", "Email": "a@w.example"}),
            What::Bounced(Bounce::Hard),
        ),
        (json!({"RecordType": "Bounce", "Type": "Transient"}), What::Deferred),
        (
            json!({"RecordType": "Bounce", "Type": "SoftBounce", "Details": "452 4.2.2 full"}),
            What::Bounced(Bounce::Soft),
        ),
        (
            json!({"RecordType": "Bounce", "Type": "SoftBounce", "Details": "550 5.7.1 no"}),
            What::Bounced(Bounce::Policy),
        ),
        (
            json!({"RecordType": "Bounce", "Type": "HardBounce", "Inactive": true, "Details": "smtp;550 5.1.1 no user"}),
            What::Bounced(Bounce::Hard),
        ),
        (
            json!({"RecordType": "Bounce", "Type": "BadEmailAddress", "Inactive": true}),
            What::Bounced(Bounce::Hard),
        ),
        (json!({"RecordType": "Bounce", "Type": "Blocked"}), What::Bounced(Bounce::Policy)),
        (json!({"RecordType": "Bounce", "Type": "SMTPApiError"}), What::Bounced(Bounce::Refused)),
        (json!({"RecordType": "Bounce", "Type": "AutoResponder"}), What::AutoReplied),
        (json!({"RecordType": "Bounce", "Type": "AddressChange", "Inactive": false}), What::AutoReplied),
        (json!({"RecordType": "Bounce", "Type": "SpamNotification"}), What::Bounced(Bounce::Policy)),
        (
            json!({"RecordType": "Bounce", "Type": "ManuallyDeactivated", "Inactive": true}),
            What::Bounced(Bounce::Listed(Listed::Deactivated)),
        ),
        (json!({"RecordType": "Bounce", "Type": "Unsubscribe", "Inactive": true}), What::Unsubscribed),
        (json!({"RecordType": "SpamComplaint", "Type": "SpamComplaint", "Inactive": true}), What::Complained),
        (json!({"RecordType": "Bounce", "Type": "Novelty"}), What::Bounced(Bounce::Soft)),
        (json!({"RecordType": "Bounce", "Type": "Unknown"}), What::Bounced(Bounce::Soft)),
        (json!({"RecordType": "SpamComplaint", "Type": "SpamComplaint"}), What::Complained),
        (json!({"RecordType": "Open"}), What::Opened { machine: false }),
        (json!({"RecordType": "Click"}), What::Clicked { machine: false }),
        (
            json!({"RecordType": "SubscriptionChange", "SuppressSending": true, "SuppressionReason": "HardBounce"}),
            What::Bounced(Bounce::Listed(Listed::Bounced)),
        ),
        (
            json!({"RecordType": "SubscriptionChange", "SuppressSending": true, "SuppressionReason": "ManualSuppression"}),
            What::Unsubscribed,
        ),
        (json!({"RecordType": "SubscriptionChange", "SuppressSending": false}), What::Other),
        (
            json!({"RecordType": "SubscriptionChange", "SuppressSending": false, "MessageStream": "others"}),
            What::Other,
        ),
        (
            json!({"RecordType": "SubscriptionChange", "SuppressSending": false, "MessageStream": "broadcast"}),
            What::Resubscribed,
        ),
        (json!({"RecordType": "SubscriptionChange"}), What::Other),
        (json!({"RecordType": "Inbound"}), What::Other),
    ] {
        assert_eq!(events(&settings, &event.to_string())[0].what, what, "{event}");
    }
    for (stream, scope) in [
        ("outbound", Some(StreamKind::Transactional)),
        ("broadcast", Some(StreamKind::Broadcast)),
        ("x", None),
    ] {
        let change =
            json!({"RecordType": "SubscriptionChange", "SuppressSending": true, "MessageStream": stream});
        let event = events(&settings, &change.to_string()).remove(0);
        assert_eq!((event.what, event.scope), (What::Unsubscribed, scope), "{stream}");
    }
    let whole = json!({
        "RecordType": "Bounce", "ID": 42, "Type": "HardBounce", "Email": "a@w.example", "MessageID": "m-1",
        "Metadata": {"postroad-attempt": "01jd3k5v9m2xq-01jd3k5v9m2xr"}, "BouncedAt": "2026-01-02T03:04:06.1234567Z",
    });
    let event = events(&settings, &whole.to_string()).remove(0);
    assert_eq!((event.key.as_str(), event.remote_id.as_deref()), ("Bounce:42", Some("m-1")));
    assert_eq!(event.at, Timestamp::from_millis(1_767_323_046_123));
    assert!(event.planted.is_some());
}

#[test]
fn whom_postmark_mails_no_more_is_on_its_list_whatever_the_bounce_was() {
    let settings = unproven(postmark(PostmarkProof::default()));
    for kind in [
        "AutoResponder",
        "AddressChange",
        "ChallengeVerification",
        "SpamNotification",
        "VirusNotification",
        "DMARCPolicy",
        "OpenRelayTest",
        "InboundError",
        "TemplateRenderingFailed",
        "Unconfirmed",
        "Subscribe",
        "SoftBounce",
        "Blocked",
        "Transient",
        "Unknown",
        "DnsError",
        "SMTPApiError",
        "Novelty",
    ] {
        let bounce = |inactive: bool| {
            let told = json!({"RecordType": "Bounce", "Type": kind, "Inactive": inactive});
            events(&settings, &told.to_string()).remove(0).what
        };
        assert_eq!(bounce(true), What::Bounced(Bounce::Listed(Listed::Deactivated)), "{kind}");
        assert_ne!(bounce(false), bounce(true), "{kind}");
    }
}

#[test]
fn a_hard_bounce_of_postmarks_that_was_refused_for_who_sends_is_no_dead_mailbox() {
    let settings = unproven(postmark(PostmarkProof::default()));
    for details in [
        "smtp;550 5.7.26 unauthenticated",
        "smtp;550 5.7.515 Access denied, sending domain does not meet the level",
        "smtp;550 5.1.1 [192.0.2.1] is on the Spamhaus blocklist",
        "smtp;550 5.3.0 Message rejected as spam",
    ] {
        let bounce = |kind: &str, inactive: bool| {
            let told =
                json!({"RecordType": "Bounce", "Type": kind, "Inactive": inactive, "Details": details});
            events(&settings, &told.to_string()).remove(0).what
        };
        assert_eq!(bounce("HardBounce", false), What::Bounced(Bounce::Policy), "{details}");
        let listed = What::Bounced(Bounce::Listed(Listed::Deactivated));
        assert_eq!(bounce("HardBounce", true), listed, "{details}");
        assert_eq!(bounce("BadEmailAddress", true), What::Bounced(Bounce::Hard), "{details}");
    }
}

#[test]
fn a_time_that_cannot_be_is_the_one_when_it_was_told() {
    let settings = unproven(ProvenBy::Sendgrid(None));
    for (timestamp, at) in [
        (json!(1_767_323_000), 1_767_323_000_000),
        (json!(1_700_000_000), 1_700_000_000_000),
        (json!(1_767_323_100 + 300), NOW.millis() + 300_000),
        (json!(1_767_323_100 + 301), NOW.millis()),
        (json!(1_767_323_100 + 365 * 86_400), NOW.millis()),
        (json!(1_767_323_000_000_i64), NOW.millis()),
        (json!(i64::MAX), NOW.millis()),
        (json!(-99), NOW.millis()),
        (json!(null), NOW.millis()),
    ] {
        let body = json!([{"event": "bounce", "timestamp": timestamp}]).to_string();
        assert_eq!(events(&settings, &body)[0].at.millis(), at, "{timestamp}");
    }
    let mark =
        json!({"RecordType": "Delivery", "Recipient": "a@w.example", "DeliveredAt": "2027-01-02T03:05:00Z"});
    let amazon = json!({
        "eventType": "Delivery", "mail": ses_mail(),
        "delivery": {"recipients": ["a@w.example"], "timestamp": "2027-01-02T03:05:00.000Z"},
    });
    let mark = events(&unproven(postmark(PostmarkProof::default())), &mark.to_string()).remove(0);
    for event in [mark, events(&ses(), &sns(&amazon)).remove(0)] {
        assert_eq!((event.what, event.at), (What::Delivered, NOW));
        assert!(event.raw.contains("2027-01-02T03:05:00"), "what was said is kept: {}", event.raw);
    }
}

#[test]
fn an_event_keeps_its_own_name_and_that_of_what_is_unknown_here_above_all() {
    let told_as = |settings: &WebhookSettings, body: &str| {
        let event = events(settings, body).remove(0);
        (event.what, event.told_as)
    };
    let other = |name: &str| (What::Other, name.to_owned());
    let grid = unproven(ProvenBy::Sendgrid(None));
    assert_eq!(told_as(&grid, r#"[{"event":"account_status_change"}]"#), other("account_status_change"));
    assert_eq!(told_as(&grid, "[7]"), other(""));
    let mark = unproven(postmark(PostmarkProof::default()));
    let bounce = r#"{"RecordType":"Bounce","Type":"Subscribe","Email":"a@x.example"}"#;
    assert_eq!(told_as(&mark, bounce), other("Bounce Subscribe"));
    assert_eq!(told_as(&mark, r#"{"RecordType":"Inbound"}"#), other("Inbound"));
    assert_eq!(told_as(&ses(), &sns(&json!({"eventType": "Novelty", "mail": ses_mail()}))), other("Novelty"));
    let long = json!([{ "event": "x".repeat(1000) }]).to_string();
    assert_eq!(told_as(&grid, &long).1.len(), 100);
}
