//! What is asked of an SMTP server, and what its replies mean: a table of them.

use std::time::Duration;

use super::read::{QUOTA_WAIT, remote_id, stands_in};
use super::*;
use crate::address::Grammar;
use crate::mail::Throttle;
use crate::mail::{
    Answer, AttemptId, Fault, MessageId, Named, Phase, SmtpReply, Source, Status, StreamKind, StreamName,
};

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn address(text: &str) -> Address {
    Address::parse(text, Grammar::Strict).unwrap()
}

fn message(smtputf8: bool, sender: ReversePath, content: &str) -> Message {
    Message {
        id: MessageId::from_number(1),
        envelope: Envelope {
            sender,
            recipients: Vec::new(),
            body: Default::default(),
            smtputf8,
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

fn answer(line: &str) -> Answer {
    let (code, rest) = line.split_at(3);
    let (code, rest) = (code.parse().unwrap(), rest.trim_start());
    let (enhanced, text) = match Status::of_reply(code, rest) {
        Some((status, text)) => (Some(status), text),
        None => (None, rest),
    };
    Answer { code, enhanced, text: text.into() }
}

fn read(reply: &Reply, recipients: usize) -> Vec<Outcome> {
    let message = message(false, ReversePath::Null, "x: y\r\n\r\n");
    let named = |n: usize| address(&format!("r{n}@example.com"));
    let recipients: Vec<Address> = (0..recipients).map(named).collect();
    let parcel = Parcel {
        message: &message,
        whole: None,
        recipients: &recipients,
        attempt: AttemptId::from_number(1),
    };
    Smtp::default().read(parcel, reply, NOW)
}

fn ended(phase: Phase, last: &str, recipients: &[&str]) -> Reply {
    let recipients: Vec<Answer> = recipients.iter().map(|r| answer(r)).collect();
    Reply::Smtp(SmtpReply { phase, last: answer(last), recipients, reports: false })
}

/// Word of the fault and whether it lasts; "accepted", "unfit" and "unsure" for the others.
fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused { fault: Fault::Throttled(Throttle::Window(_)), .. } => "window".into(),
        Outcome::Refused { fault, lasting: true, .. } => format!("{} lasting", fault.word()),
        Outcome::Refused { fault, .. } => fault.word().into(),
        other => other.word().into(),
    }
}

#[test]
fn a_token_endpoint_tells_how_long_to_wait() {
    for (said, seconds) in [
        ("429 from the token endpoint: too many (Retry-After: 120)", Some(120)),
        ("503 from the token endpoint: busy (Retry-After: Thu, 01 Jan 1970 00:01:01 GMT)", Some(60)),
        ("429 from the token endpoint: too many (Retry-After: soon)", None),
        ("429 from the token endpoint: too many", None),
    ] {
        let outcome = read(&ended(Phase::Token, said, &[]), 1).remove(0);
        let Outcome::Refused { wait, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(wait, seconds.map(Duration::from_secs), "{said}");
    }
    let said = "550 5.1.1 no such user (Retry-After: 120)";
    let outcome = read(&ended(Phase::Mail, said, &[]), 1).remove(0);
    assert!(matches!(outcome, Outcome::Refused { wait: None, .. }), "{outcome:?}");
}

#[test]
fn every_refusal_has_its_fault() {
    use Phase::{Auth, Banner, Body, Data, Dot, Ehlo, Mail, Rcpt, Tls, Token};
    let mut wrong = Vec::new();
    for (phase, last, expected) in [
        (Banner, "554 no SMTP service here", "path lasting"),
        (Banner, "421 4.3.2 shutting down", "path"),
        (Banner, "421 4.7.0 Too many concurrent connections", "throttled"),
        (Banner, "554 maximum number of connections exceeded", "throttled"),
        (Ehlo, "550 go away", "path lasting"),
        (Tls, "454 4.7.0 TLS not available", "path"),
        (Token, "400 from the token endpoint: invalid_grant: daily limit", "account lasting"),
        (Token, "401 from the token endpoint: invalid_client", "account lasting"),
        (Token, "403 from the token endpoint, which names no error", "account lasting"),
        (Token, "400 from the token endpoint: temporarily_unavailable", "path"),
        (Token, "408 from the token endpoint, which names no error", "path"),
        (Token, "429 from the token endpoint: too many", "throttled"),
        (Token, "500 from the token endpoint: server_error", "path"),
        (Token, "530 from the token endpoint, which names no error", "path"),
        (Auth, "535 5.7.8 bad credentials", "account lasting"),
        (Auth, "534 5.7.9 use an application password", "account lasting"),
        (Auth, "454 4.7.0 temporary authentication failure", "path"),
        (Mail, "530 5.7.0 Authentication required", "account lasting"),
        (Mail, "550 5.1.8 sender domain unknown", "sender lasting"),
        (Mail, "553 5.7.1 not owned by user", "sender lasting"),
        (Mail, "501 5.1.7 bad sender", "sender lasting"),
        (Mail, "550 5.7.1 evil.test not allowed", "sender lasting"),
        (Mail, "501 <a>: sender address must contain a domain", "sender lasting"),
        (Mail, "555 5.1.7 bad address syntax", "sender lasting"),
        (Mail, "500 5.5.2 command unrecognized", "path lasting"),
        (Mail, "501 5.5.4 syntax: MAIL FROM:<...>", "path lasting"),
        (Mail, "502 5.5.1 not implemented", "path lasting"),
        (Mail, "503 5.5.1 nested MAIL command", "path lasting"),
        (Mail, "504 5.5.4 parameter not implemented", "path lasting"),
        (Mail, "555 5.5.4 unsupported option: SIZE", "path lasting"),
        (Mail, "521 5.3.2 host does not accept mail", "path lasting"),
        (Mail, "521 this host takes no mail", "path lasting"),
        (Mail, "521 5.1.8 <a@x.test> is no sender of ours", "sender lasting"),
        (Mail, "554 5.3.5 system incorrectly configured", "path lasting"),
        (Mail, "550 5.3.0 mail system status: out of order", "path lasting"),
        (Mail, "553 5.3.0 <a@x.test> is refused here", "sender lasting"),
        (Mail, "550 5.3.0 sender refused", "sender lasting"),
        (Mail, "552 5.3.4 message too big", "unfit"),
        (Mail, "552 size limit exceeded", "unfit"),
        (Mail, "553 5.6.7 SMTPUTF8 needed", "unfit"),
        (Mail, "451 4.3.0 try later", "path"),
        (Mail, "451 4.3.0 internal operation failed, error generated", "path"),
        (Mail, "452 4.3.1 insufficient storage", "path"),
        (Mail, "421 4.7.0 try again later", "throttled"),
        (Mail, "450 4.7.1 sending rate exceeded", "throttled"),
        (Mail, "454 Throttling failure: Maximum sending rate exceeded.", "throttled"),
        (Mail, "454 Throttling failure: Daily message quota exceeded.", "window"),
        (Mail, "451 4.7.1 You are rate-limited, slow down", "throttled"),
        (Rcpt, "550 5.1.1 unknown", "recipient lasting"),
        (Rcpt, "554 5.7.1 policy", "recipient lasting"),
        (Rcpt, "450 4.2.1 greylisted", "recipient"),
        (Rcpt, "452 4.5.3 too many recipients", "recipient"),
        (Rcpt, "452 4.2.2 over quota", "recipient"),
        (Rcpt, "552 5.2.2 mailbox full", "recipient lasting"),
        (Rcpt, "552 too many recipients", "recipient"),
        (Rcpt, "552 5.3.4 message too big for system", "unfit"),
        (Rcpt, "550 5.3.4 message size exceeds fixed limit", "unfit"),
        (Rcpt, "553 5.6.7 SMTPUTF8 needed", "unfit"),
        (Rcpt, "554 5.6.3 conversion required", "unfit"),
        (Rcpt, "552 message size exceeds the maximum", "unfit"),
        (Rcpt, "552 5.2.3 message too large for this mailbox", "recipient lasting"),
        (Rcpt, "552 message too large for the recipient's mailbox", "recipient lasting"),
        (Rcpt, "552 over quota", "recipient lasting"),
        (Rcpt, "421 4.3.2 going down", "path"),
        (Rcpt, "421 4.7.0 too many", "throttled"),
        (Rcpt, "554 5.7.1 <a@example.com>: Relay access denied", "path lasting"),
        (Rcpt, "553 5.7.1 <b@x.test>: Sender address rejected: not owned by user", "sender lasting"),
        (Rcpt, "530 5.7.0 log in first", "account lasting"),
        (Rcpt, "550 5.4.5 Daily sending quota exceeded", "window"),
        (Rcpt, "550 5.4.5 Daily user sending limit exceeded", "window"),
        (Rcpt, "451 4.4.5 hourly sending limit exceeded", "window"),
        (Rcpt, "454 Throttling failure: Daily message quota exceeded.", "window"),
        (Rcpt, "550 mailbox over quota", "recipient lasting"),
        (Rcpt, "550 5.2.2 over the daily quota of this mailbox", "recipient lasting"),
        (Rcpt, "452 4.2.1 the user receives mail at a limit, hourly", "recipient"),
        (Rcpt, "450 this mailbox has reached its daily limit", "recipient"),
        (Rcpt, "550 this user is receiving too much mail, daily limit", "recipient lasting"),
        (Rcpt, "500 5.5.2 command unrecognized", "path lasting"),
        (Rcpt, "502 5.5.1 not implemented", "path lasting"),
        (Rcpt, "503 5.5.1 need MAIL command", "path lasting"),
        (Rcpt, "504 5.5.2 <c>: Helo command rejected: need fully-qualified hostname", "path lasting"),
        (
            Rcpt,
            "504 5.5.2 <u>: Recipient address rejected: need fully-qualified address",
            "recipient lasting",
        ),
        (Rcpt, "501 5.1.3 bad recipient address syntax", "recipient lasting"),
        (Rcpt, "501 5.5.4 syntax", "recipient lasting"),
        (Rcpt, "503 5.1.1 no such user", "recipient lasting"),
        (Data, "550 5.4.5 Daily sending quota exceeded", "window"),
        (Data, "500 5.5.2 command unrecognized", "path lasting"),
        (Data, "502 5.5.1 not implemented", "path lasting"),
        (Data, "503 5.5.1 need RCPT command", "path lasting"),
        (Data, "504 5.5.4 not implemented", "path lasting"),
        (Data, "554 5.5.1 no", "path lasting"),
        (Dot, "500 line too long", "message lasting"),
        (Dot, "550 5.4.5 Daily sending quota exceeded", "window"),
        (Data, "451 4.3.0 later", "path"),
        (Body, "552 5.3.4 too big", "unfit"),
        (Dot, "554 5.7.1 spam", "message lasting"),
        (Dot, "552 5.7.0 content blocked", "message lasting"),
        (Dot, "552 5.3.4 too big", "unfit"),
        (Dot, "550 5.4.5 Daily user sending limit exceeded", "window"),
        (Dot, "554 Message rejected: Email address is not verified.", "sender lasting"),
        (Dot, "451 4.6.0 content scanner busy", "message"),
        (Dot, "451 4.3.0 queue file write error", "path"),
        (Dot, "452 4.3.1 too many messages", "throttled"),
        (Dot, "421 4.4.2 timeout", "path"),
        (Mail, "550 5.7.1 Your account has been suspended", "account lasting"),
        (Mail, "550 account suspended", "account lasting"),
        (Mail, "550 5.7.0 Account is not active", "account lasting"),
        (Mail, "450 4.7.1 account disabled", "account"),
        (Mail, "450 4.7.1 account disabled until its sending rate falls", "throttled"),
        (Mail, "550 5.7.1 <a@x.test>: account disabled", "sender lasting"),
        (Mail, "550 5.1.8 account disabled", "sender lasting"),
        (Mail, "550 5.7.1 the sender's account is locked", "sender lasting"),
        (Mail, "550 5.7.1 Unable to relay", "path lasting"),
        (Mail, "550 relaying denied", "path lasting"),
        (Mail, "550 unrecognized command", "path lasting"),
        (Mail, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "sender lasting"),
        (Rcpt, "550 5.7.1 Your account is suspended", "account lasting"),
        (Rcpt, "550 5.2.1 sending is suspended for your account", "account lasting"),
        (Rcpt, "451 4.7.1 your account is temporarily blocked", "account"),
        (Rcpt, "550 account suspended", "path lasting"),
        (Rcpt, "554 Transaction failed : suspended", "path lasting"),
        (Rcpt, "554 5.7.1 [192.0.2.1] blacklisted", "path lasting"),
        (Rcpt, "550 5.7.1 2001:db8::1 is listed at a.test", "path lasting"),
        (Rcpt, "554 5.7.1 Please activate your account", "account lasting"),
        (Rcpt, "451 not enough credits", "account"),
        (Rcpt, "451 4.7.1 account quota exceeded", "account"),
        (Rcpt, "452 4.2.2 account quota exceeded", "recipient"),
        (Rcpt, "452 quota exceeded", "recipient"),
        (Rcpt, "550 user suspended", "recipient lasting"),
        (Rcpt, "550 5.2.1 suspended", "recipient lasting"),
        (Rcpt, "550 mailbox disabled", "recipient lasting"),
        (Mail, "451 4.3.0 your account has exceeded its quota", "account"),
        (Mail, "554 5.7.1 [192.0.2.1] blacklisted", "path lasting"),
        (Dot, "554 Transaction failed : suspended", "path lasting"),
        (Dot, "554 5.7.1 activate your account", "account lasting"),
        (Rcpt, "451 too many concurrent connections", "throttled"),
        (Rcpt, "554 user account suspended", "path lasting"),
        (Rcpt, "550 5.2.1 user account suspended", "recipient lasting"),
        (Rcpt, "550 5.2.1 recipient's account disabled", "recipient lasting"),
        (Rcpt, "550 5.2.1 The email account that you tried to reach is disabled", "recipient lasting"),
        (Rcpt, "550 5.1.1 account disabled", "recipient lasting"),
        (Rcpt, "550 this account has been disabled", "recipient lasting"),
        (Rcpt, "554 <a@example.com>: account disabled", "recipient lasting"),
        (Rcpt, "550 account closed, mailbox unavailable", "recipient lasting"),
        (Rcpt, "550 5.7.1 the sender's account is locked", "sender lasting"),
        (Rcpt, "550 5.7.1 Unable to relay", "path lasting"),
        (Rcpt, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", "path lasting"),
        (Rcpt, "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", "path lasting"),
        (Rcpt, "454 4.7.1 <a@example.com>: Relay access denied", "path"),
        (Rcpt, "550 relay not permitted", "path lasting"),
        (Rcpt, "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access denied", "path lasting"),
        (Rcpt, "550 5.5.1 Unknown command", "path lasting"),
        (Rcpt, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "sender lasting"),
        (Data, "550 account suspended", "account lasting"),
        (Data, "550 5.7.1 unable to relay", "path lasting"),
        (Data, "554 5.5.1 command unrecognized", "path lasting"),
        (Data, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "sender lasting"),
        (Dot, "550 account suspended", "account lasting"),
        (Dot, "554 5.7.1 Message rejected: the account is disabled.", "account lasting"),
        (Dot, "451 4.7.1 account temporarily suspended", "account"),
        (Dot, "550 5.4.5 account suspended: daily sending limit exceeded", "window"),
        (Dot, "550 5.7.1 account shop@x.test suspended", "path lasting"),
        (Dot, "550 5.2.1 account disabled", "recipient lasting"),
        (
            Dot,
            "554 delivery error: dd Sorry, your message to a@x.test cannot be delivered. This account has \
             been disabled or discontinued",
            "message lasting",
        ),
        (Dot, "554 5.7.1 Message blocked as spam; ask your account manager", "message lasting"),
        (Dot, "550 5.7.1 relay access denied", "path lasting"),
        (Dot, "502 5.5.2 Error: command not recognized", "path lasting"),
        (Dot, "500 unknown command", "path lasting"),
        (Dot, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "sender lasting"),
        (Dot, "554 5.2.252 SendAsDenied; a@x.test not allowed to send as b@x.test", "sender lasting"),
        (Auth, "454 4.7.0 account temporarily locked", "account"),
        // What a server holds against a sender, and says at RCPT.
        (Rcpt, "550 Verification failed for <a@x.test> Sender verify failed", "sender lasting"),
        (Rcpt, "550 5.1.7 bad address of the sender", "sender lasting"),
        (Rcpt, "550 5.1.8 Domain of sender address does not exist", "sender lasting"),
        (Rcpt, "550 5.7.23 SPF validation failed", "sender lasting"),
        (Rcpt, "550 5.7.26 Unauthenticated email from a.test is not accepted: DMARC", "sender lasting"),
        (Rcpt, "550 5.7.1 <a@x.test> is not verified", "sender lasting"),
        (Rcpt, "550 5.7.1 Sender domain not verified", "sender lasting"),
        (Rcpt, "554 5.1.0 Sender denied", "sender lasting"),
        (Rcpt, "553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)", "sender lasting"),
        (Rcpt, "451 4.1.8 sender verify failed", "recipient"),
        (Rcpt, "550 5.7.1 the recipient takes no mail of an unknown sender", "recipient lasting"),
        (Rcpt, "550 5.1.1 this address is not verified", "recipient lasting"),
        (Rcpt, "550 recipient address is not verified", "recipient lasting"),
        (Dot, "554 5.1.0 Sender denied", "sender lasting"),
        // And what it holds against who connects, or against whom the mail is from, and says after the dot.
        (Dot, "554 5.7.1 [192.0.2.1] blacklisted", "path lasting"),
        (
            Dot,
            "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service \
             provider since part of their network is on our block list (S3140). For security reasons",
            "path lasting",
        ),
        (Dot, "550 OU-002 Unfortunately, messages from 192.0.2.1 weren't sent (S3150)", "path lasting"),
        (Dot, "550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "path lasting"),
        (Dot, "550 5.7.511 Access denied, banned sender[192.0.2.1]", "path lasting"),
        (Dot, "550 5.7.25 the sending address has no PTR record", "path lasting"),
        (Dot, "550 5.7.1 Service unavailable; client [192.0.2.1] blocked using a.test", "path lasting"),
        (
            Dot,
            "550 5.7.509 Access denied, sending domain a.test does not pass DMARC verification",
            "sender lasting",
        ),
        (Dot, "550 5.7.515: Access denied, sending domain a.test doesn't meet the level", "sender lasting"),
        (
            Dot,
            "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
            "window",
        ),
        (
            Dot,
            "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed",
            "throttled",
        ),
        (
            Dot,
            "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; WASCL UserAction verdict is Suspend",
            "account lasting",
        ),
        (Dot, "553 Relaying disallowed. Invalid Domain - a.test", "path lasting"),
        (Dot, "550 5.4.6 Unusual sending activity detected. Please try after sometime", "account lasting"),
        (Dot, "550 5.7.1 Unconfigured Sending Domain <a.test>", "sender lasting"),
        (Dot, "550 5.7.1 Email rejected per DMARC policy for a.test", "sender lasting"),
        (Dot, "550 Rejected by header based DMARC policy", "sender lasting"),
        (Dot, "550 5.7.1 Free accounts can only send to verified addresses", "account lasting"),
        (Dot, "554 5.7.1 account over quota", "account lasting"),
        (Dot, "550 5.7.27 SPF check of a.test failed", "sender lasting"),
        (Dot, "550 5.7.705 Access denied, tenant has exceeded threshold", "account lasting"),
        (Dot, "554 5.7.1 message contains 192.0.2.1, which is listed at a.test", "message lasting"),
        (Dot, "554 5.7.1 URL http://192.0.2.1/ blacklisted", "message lasting"),
        // What puts the one recipient off, said after the dot.
        (Dot, "452 4.2.2 mailbox full", "recipient"),
        (Dot, "450 4.2.0 come back", "recipient"),
        (Dot, "450 4.7.1 greylisted", "recipient"),
        (Dot, "451 Greylisting in action, please come back later", "recipient"),
        (Dot, "452 4.2.2 sending quota exceeded", "throttled"),
        // What is no word about a mail, wherever it is said.
        (Dot, "554 Sending paused for this account. For more information, please check", "account lasting"),
        (Dot, "550 5.7.1 Maximum credits exceeded", "account lasting"),
        (Dot, "550 5.7.1 Sender domain not verified", "sender lasting"),
        (Dot, "550 5.7.1 sender not allowed", "sender lasting"),
        (Dot, "550 5.1.8 sender bad", "sender lasting"),
        (Dot, "550 5.7.26 Unauthenticated email from a.test is not accepted: DMARC", "sender lasting"),
        (Dot, "503 5.5.1 bad sequence", "path lasting"),
        (Dot, "502 5.5.2 no", "path lasting"),
        (Dot, "521 5.3.2 host does not accept mail", "path lasting"),
        (Dot, "554 5.3.0 system", "path lasting"),
        (Dot, "502 5.7.0 Your SMTP account is not yet activated", "account lasting"),
        (Dot, "525 5.7.1 Unauthorized IP address", "path lasting"),
        (Dot, "554 Throttling failure: Maximum sending rate exceeded", "throttled"),
        (Dot, "554 5.7.1 rate limit exceeded", "throttled"),
        (Dot, "550 Too many messages", "throttled"),
        (Dot, "552 5.2.2 sending quota exceeded", "throttled"),
        (Dot, "554 5.2.0 SubmissionQuotaExceededException; submission quota exceeded", "throttled"),
        (Dot, "550 Unauthenticated senders not allowed", "account lasting"),
        (Dot, "554 Access denied: User is not authorized to perform ses:SendRawEmail", "account lasting"),
        (Dot, "554 5.4.6 too many hops", "message lasting"),
        (Dot, "554 5.7.1 message contains a blacklisted URL", "message lasting"),
        (Dot, "552 5.3.4 message too big", "unfit"),
        (Rcpt, "550 5.7.1 Client was not authenticated", "account lasting"),
        (Rcpt, "550 Please turn on SMTP Authentication in your mail client", "account lasting"),
        (Rcpt, "550 5.7.1 Mail from your IP is blocked", "path lasting"),
        (Rcpt, "554 5.7.1 sending limit exceeded for your account", "throttled"),
        (Rcpt, "550 5.7.1 too many connections from your host", "throttled"),
        (Rcpt, "550 5.3.5 system incorrectly configured", "path lasting"),
        (Rcpt, "552 5.3.1 system full", "path lasting"),
        (Rcpt, "501 5.5.2 syntax error", "recipient lasting"),
        (Rcpt, "550 5.5.1 no", "path lasting"),
        (Rcpt, "552 5.2.2 over quota", "recipient lasting"),
        (Rcpt, "552 account over quota", "recipient lasting"),
        (Rcpt, "550 5.1.90 you've reached your daily limit for message recipients", "window"),
        (
            Rcpt,
            "550 5.7.1 Invalid credentials for relay [192.0.2.1]. The address you've registered",
            "path lasting",
        ),
        (
            Rcpt,
            "550 Domain a.test has exceeded the max emails per hour (150/150 (100%)) allowed",
            "throttled",
        ),
        (Rcpt, "550 Access denied - Invalid HELO name (See RFC2821 4.1.1.1)", "path lasting"),
        (Rcpt, "553 Relaying disallowed as app@a.test", "path lasting"),
        (Rcpt, "550 5.7.1 Your plan has been suspended for non-payment", "account lasting"),
        (Rcpt, "550 5.7.1 TLS required", "path lasting"),
        (Rcpt, "550 5.7.1 mail rejected per DMARC policy of a.test", "sender lasting"),
        (Rcpt, "550 SPF check failed for a.test", "sender lasting"),
        (
            Rcpt,
            "550 5.2.1 The user you are trying to contact is receiving mail at a rate",
            "recipient lasting",
        ),
    ] {
        let recipients: &[&str] = match phase {
            Rcpt => &[last],
            Data | Body | Dot => &["250 ok"],
            _ => &[],
        };
        let read = word(&read(&ended(phase, last, recipients), 1)[0]);
        if read != expected {
            wrong.push(format!("{} {last}: {read}, not {expected}", phase.word()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_refused_is_the_sender_that_the_esp_has_looked_at() {
    let unknown = "550 The from address does not match a verified Sender Identity";
    for (phase, last, named) in [
        (Phase::Mail, "550 5.7.1 evil.test not allowed", Named::Envelope),
        (Phase::Mail, "554 5.7.1 a@example.com is not verified", Named::Envelope),
        (Phase::Rcpt, "550 5.1.8 <a@x.test>: Sender address rejected: Domain not found", Named::Envelope),
        (Phase::Rcpt, "550 5.7.26 not accepted: DMARC", Named::Envelope),
        (Phase::Rcpt, "550 Sender verify failed", Named::Envelope),
        (Phase::Dot, "550 5.7.509 Access denied, sending domain a.test does not pass DMARC", Named::From),
        (Phase::Data, unknown, Named::From),
        (Phase::Dot, unknown, Named::From),
        (Phase::Dot, "554 Message rejected: Email address is not verified.", Named::From),
    ] {
        let recipients = match phase {
            Phase::Rcpt => &[last][..],
            Phase::Mail => &[],
            _ => &["250 ok"],
        };
        let outcome = &read(&ended(phase, last, recipients), 1)[0];
        assert!(
            matches!(outcome, Outcome::Refused { fault: Fault::Sender(which), .. } if *which == named),
            "{last}: {outcome:?}"
        );
    }
}

#[test]
fn a_recipient_that_the_last_answer_names_is_refused_alone() {
    let taken = ["250 ok"; 3];
    let words = |last: &str, n: usize| {
        read(&ended(Phase::Dot, last, &taken[..n]), n).iter().map(word).collect::<Vec<_>>()
    };
    let last = "550 5.1.1 <r1@example.com>: no such user";
    assert_eq!(words(last, 3), ["path", "recipient lasting", "path"]);
    assert_eq!(words(last, 1), ["recipient lasting"], "there is but one");
    assert_eq!(words("550 5.1.1 no such user", 1), ["recipient lasting"]);
    assert_eq!(words("550 5.1.1 no such user", 2), ["message lasting"; 2], "nobody knows which");
    assert_eq!(words("550 5.7.1 <r1@example.com>: spam", 3), ["message lasting"; 3]);
    assert_eq!(words("452 4.2.2 <r1@example.com>: full", 3), ["path", "recipient", "path"]);
    assert_eq!(words("450 4.7.1 greylisted", 2), ["path"; 2], "nobody knows which");
    for (text, stands) in [
        ("<a@x.test>: no", true),
        ("no a@x.test.", true),
        ("ba@x.test", false),
        ("b.a@x.test", false),
        ("a@x.test.example", false),
        ("a@x.tests", false),
    ] {
        assert_eq!(stands_in("a@x.test", text), stands, "{text}");
    }
}

#[test]
fn each_recipient_has_its_own_answer() {
    let words = |reply| read(&reply, 3).iter().map(word).collect::<Vec<_>>();
    let recipients = ["250 ok", "550 5.1.1 no", "450 4.2.0 later"];
    assert_eq!(
        words(ended(Phase::Dot, "250 ok", &recipients)),
        ["accepted", "recipient lasting", "recipient"]
    );
    assert_eq!(
        words(ended(Phase::Dot, "554 5.7.1 spam", &recipients)),
        ["message lasting", "recipient lasting", "recipient"]
    );
    let cut = ["250 ok", "550 5.1.1 no", "421 4.3.2 going"];
    assert_eq!(words(ended(Phase::Rcpt, "421 4.3.2 going", &cut)), ["path", "recipient lasting", "path"]);
    assert_eq!(words(ended(Phase::Mail, "550 no", &[])), ["sender lasting"; 3]);
}

#[test]
fn a_lost_line_is_refused_before_the_hand_over_and_unsure_after() {
    let lost = |handed_over| Reply::Lost {
        phase: Phase::Dot,
        handed_over,
        recipients: Vec::new(),
        said: "closed".into(),
    };
    assert_eq!(word(&read(&lost(false), 1)[0]), "path");
    assert_eq!(word(&read(&lost(true), 1)[0]), "unsure");
    assert_eq!(word(&read(&Reply::Unfit { why: "SIZE".into() }, 1)[0]), "unfit");
}

#[test]
fn a_spent_quota_is_asked_about_again_later_and_does_not_last() {
    let reply = ended(Phase::Dot, "550 5.4.5 Daily user sending limit exceeded", &["250 ok"]);
    let until = NOW.plus(QUOTA_WAIT);
    assert!(matches!(
        &read(&reply, 1)[0],
        Outcome::Refused { fault: Fault::Throttled(Throttle::Window(at)), lasting: false, wait: Some(QUOTA_WAIT), .. } if *at == until
    ));
}

#[test]
fn the_remote_id_is_found_in_many_words() {
    for (text, id) in [
        ("Ok: queued as 4Rs9Xy1zABz", Some("4Rs9Xy1zABz")),
        ("ok queued as <abc@x>.", Some("abc@x")),
        ("Ok 0100018c2b5d-1f2e-000000", Some("0100018c2b5d-1f2e-000000")),
        ("OK  1699999999 af79cd13be357-7789abc123si.4 - gsmtp", Some("af79cd13be357-7789abc123si.4")),
        ("OK id=1rABcd-0001Xy-2k", Some("1rABcd-0001Xy-2k")),
        ("Great success", None),
        ("ok", None),
        ("", None),
    ] {
        assert_eq!(remote_id(text).as_deref(), id, "{text}");
    }
}

fn composed(esp: &Smtp, message: &Message, recipient: &str) -> SmtpRequest {
    let recipients = [address(recipient)];
    let parcel = Parcel { message, whole: None, recipients: &recipients, attempt: AttemptId::from_number(1) };
    match esp.compose(parcel, NOW) {
        Ok(Request::Smtp(request)) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn smtputf8_is_asked_for_where_the_client_did_and_something_needs_it() {
    let (plain, utf8) = ("x: y\r\n\r\n\u{fc}\r\n", "x: \u{fc}\r\n\r\nbody\r\n");
    for (asked, content, recipient, needed) in [
        (true, plain, "a@example.com", false),
        (true, plain, "gr\u{fc}n@example.com", true),
        (true, utf8, "a@example.com", true),
        (false, utf8, "a@example.com", false),
        (true, plain, "a@b\u{fc}cher.example", false),
    ] {
        let message = message(asked, ReversePath::Null, content);
        assert_eq!(
            composed(&Smtp::default(), &message, recipient).smtputf8,
            needed,
            "{content:?} {recipient}"
        );
    }
}

#[test]
fn a_fixed_envelope_sender_replaces_every_other() {
    let esp = Smtp { envelope_from: Some(ReversePath::Mailbox(address("relay@example.net"))), reports: true };
    let own = ReversePath::Mailbox(address("a@example.org"));
    let sender = |own| composed(&esp, &message(false, own, "x: y\r\n\r\n"), "b@example.com").sender;
    assert_eq!(sender(own.clone()).wire(), "relay@example.net");
    assert_eq!(sender(ReversePath::Null).wire(), "relay@example.net");
    assert_eq!(composed(&Smtp::default(), &message(false, own.clone(), ""), "b@example.com").sender, own);
}
