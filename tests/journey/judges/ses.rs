//! What Amazon SES is handed: the queued message, octet for octet but for names beyond ASCII beside addresses, and the envelope that it has in truth.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_parser::{Address, MessageParser};
use serde_json::{Value, json};

use super::{Sent, keys, relay, request_of, sent};
use crate::support::corpus::{Letter, letters};
use crate::support::esps::{Ses, ses};
use crate::support::judges::{Judge, Tap};
use crate::support::mailgen::{Field, fields, split};
use crate::support::{http, skip};

#[test]
fn ministack_is_handed_the_queued_message_and_its_envelope() {
    let ministack = match Judge::ministack() {
        Ok(ministack) => ministack,
        Err(why) => return skip("ministack as judge", &why),
    };
    let at = ministack.address();
    let letters = letters();
    let mail = json!({ "Destination": { "ToAddresses": ["a@example.com"] }, "Content": { "Raw": {
        "Data": STANDARD.encode("From: shop@shop.example\r\n\r\nhi\r\n") } } });
    assert_eq!(asked(at, "/v2/email/outbound-emails", &mail), 400, "it judges senders");
    let domains: BTreeSet<&str> = letters.iter().filter_map(|l| l.from.rsplit('@').next()).collect();
    for domain in domains {
        assert_eq!(asked(at, "/v2/email/identities", &json!({ "EmailIdentity": domain })), 200);
    }
    let sent = handed_octet_for_octet(at, &letters);
    // What it made of that itself.
    let inbox = http::get(at, "/_ministack/ses/messages", None).unwrap().json();
    let records: Vec<&Value> =
        inbox["messages"].as_object().unwrap().values().filter_map(Value::as_array).flatten().collect();
    assert_eq!(records.len(), sent.len());
    for one in sent {
        let record = records.iter().find(|r| r["MessageId"] == one.remote_id.as_str());
        let record = record.unwrap_or_else(|| panic!("{} is not there", one.name));
        let to: Vec<String> =
            record["To"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned()).collect();
        assert_eq!(keys(&to), keys(&one.envelope), "{}", one.name);
    }
}

#[test]
fn ses_is_handed_the_queued_message_and_its_envelope() {
    let stand_in = Ses::start();
    let sent = handed_octet_for_octet(stand_in.address(), &letters());
    for one in sent {
        let taken = stand_in.accepted().into_iter().find(|t| t.id == one.remote_id);
        let taken = taken.unwrap_or_else(|| panic!("{} is not there", one.name));
        assert_eq!(keys(&taken.to), keys(&one.envelope), "{}", one.name);
        assert!(taken.mime.as_deref() == Some(one.raw.as_slice()), "{}: other octets", one.name);
    }
}

/// The status of a request that is not signed: ministack reads the region alone.
fn asked(at: SocketAddr, path: &str, body: &Value) -> u16 {
    let signed = format!(
        "AWS4-HMAC-SHA256 Credential={}/20261123/{}/ses/aws4_request, SignedHeaders=host, Signature=0",
        ses::ACCESS_KEY_ID,
        ses::REGION
    );
    let headers = [("Authorization", signed.as_str()), ("Content-Type", "application/json")];
    http::post_with(at, path, None, &headers, &body.to_string()).unwrap().status
}

/// Each call's id, and whom it was for.
fn calls(sent: &Sent<'_>) -> BTreeMap<String, Vec<String>> {
    let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for attempt in &sent.attempts {
        let n = attempt["n"].as_u64().unwrap() as usize;
        let call = attempt["attempt"].as_str().unwrap().to_owned();
        calls.entry(call).or_default().push(sent.envelope[n].clone());
    }
    calls
}

/// A message that SES took.
struct Whole {
    name: String,
    envelope: Vec<String>,
    raw: Vec<u8>,
    remote_id: String,
}

/// How many of the corpus SES takes at the least.
const SES_FIT_MIN: usize = 100;

/// What SES is handed is the queued message and its envelope, for all of the corpus that fits; the rest is told so.
fn handed_octet_for_octet(ses: SocketAddr, letters: &[Letter]) -> Vec<Whole> {
    let tap = Tap::before(ses);
    let keys_of = format!(
        "region = \"{}\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"",
        ses::REGION,
        ses::ACCESS_KEY_ID,
        ses::SECRET
    );
    let relay = relay("ses", &keys_of, &tap.url());
    let (all, _) = sent(&relay, letters.iter().map(|letter| (letter, letter.envelope())));
    // Whom a message names and whom it is for is not the same: SES is told the envelope alone.
    let split = letters.iter().filter_map(|letter| Some((letter, letter.envelope_of_the_others()?)));
    let (split, _) = sent(&relay, split.take(20));
    let all: Vec<Sent> = all.into_iter().chain(split).collect();
    let passed = tap.passed();
    let (mut whole, mut refused) = (Vec::new(), Vec::new());
    for sent in all {
        let name = &sent.letter.name;
        if !sent.is("accepted") {
            match sent.is("unfit") {
                true => println!("{name} is unfit for ses: {}", sent.attempts[0]["said"]),
                false => refused.push(format!("{name}: {}", sent.attempts[0])),
            }
            continue;
        }
        let queued = relay.show_raw(&sent.id);
        // As many calls as its recipients need.
        for (call, envelope) in calls(&sent) {
            let request = request_of(&call, &passed);
            let json: Value = serde_json::from_slice(&request.body).unwrap();
            let handed = STANDARD.decode(json["Content"]["Raw"]["Data"].as_str().unwrap()).unwrap();
            let same = handed == queued || with_names_in_ascii(&queued, &handed);
            assert!(same, "{name}: {} octets queued, {} handed over", queued.len(), handed.len());
            let lists =
                json["Destination"].as_object().unwrap().values().filter_map(Value::as_array).flatten();
            let named: Vec<String> = lists.map(|to| to.as_str().unwrap().to_owned()).collect();
            assert_eq!(keys(&named), keys(&envelope), "{name}");
            assert_eq!(named.len(), envelope.len(), "{name}: {named:?}");
            let answer: Value = serde_json::from_str(&request.answer).unwrap();
            let remote_id = answer["MessageId"].as_str().unwrap().to_owned();
            whole.push(Whole { name: name.clone(), envelope, raw: handed, remote_id });
        }
    }
    assert!(refused.is_empty(), "refused instead of unfit:\n{}", refused.join("\n"));
    println!("ses took {} of {} messages", whole.len(), letters.len() + 20);
    assert!(whole.len() >= SES_FIT_MIN, "{} alone were taken", whole.len());
    assert_eq!(passed.len(), whole.len(), "one request a message");
    whole
}

/// SES takes fields with addresses in ASCII alone: whether that is the one difference, and the names read the same.
fn with_names_in_ascii(queued: &[u8], handed: &[u8]) -> bool {
    let of_addresses = |field: &Field| {
        ["from", "sender", "reply-to", "to", "cc"].contains(&field.name.to_lowercase().as_str())
    };
    let others = |raw: &[u8]| {
        let fields: Vec<_> = fields(raw).into_iter().filter(|field| !of_addresses(field)).collect();
        (fields, split(raw).1.to_vec())
    };
    let names = |raw: &[u8]| {
        let read = MessageParser::default().parse(raw).unwrap();
        let of = |address: Option<&Address<'_>>| -> Vec<Option<String>> {
            address.into_iter().flat_map(|a| a.iter()).map(|one| one.name().map(str::to_owned)).collect()
        };
        [read.from(), read.sender(), read.reply_to(), read.to(), read.cc()].map(of)
    };
    let ascii = fields(handed).iter().filter(|field| of_addresses(field)).all(|field| field.value.is_ascii());
    ascii && others(queued) == others(handed) && names(queued) == names(handed)
}
