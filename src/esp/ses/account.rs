//! `GetAccount`: whether the key is good, and how much the account may send.

use std::time::Duration;

use serde_json::Value;

use super::read::Told;
use crate::mail::HttpReply;
use crate::mail::quota::{self, Rate};

/// What SES says of the account, as far as it says it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Account {
    /// It is out of the sandbox.
    production: Option<bool>,
    /// It may send.
    sending: Option<bool>,
    /// In 24 hours; below nought: without limit.
    daily: Option<f64>,
    /// Of these.
    sent: Option<f64>,
    /// In a second.
    rate: Option<f64>,
}

impl Account {
    fn of(body: &Value) -> Self {
        let quota =
            |key: &str| body.get("SendQuota").and_then(|quota| quota.get(key)).and_then(Value::as_f64);
        let flag = |key: &str| body.get(key).and_then(Value::as_bool);
        Account {
            production: flag("ProductionAccessEnabled"),
            sending: flag("SendingEnabled"),
            daily: quota("Max24HourSend"),
            sent: quota("SentLast24Hours"),
            rate: quota("MaxSendRate"),
        }
    }
}

/// What an answer to `GetAccount` means for a person: what works, or what does not.
pub fn judge(reply: &HttpReply) -> Result<String, String> {
    let told = Told::of(reply);
    match (reply.status, told.name.as_str()) {
        (200..300, _) => judged(told.body()),
        // The signature was good: only this question is not allowed.
        (403, "AccessDeniedException" | "AccessDenied") => Ok(
            "the key is good; it may not ask about the account: allow ses:GetAccount to see quota and rate here"
                .to_owned(),
        ),
        (_, "TooManyRequestsException" | "ThrottlingException" | "Throttling") => {
            Ok("the key is good; SES is asked about the account too often to answer now".to_owned())
        }
        (_, "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidAccessKeyId") => {
            Err(format!("{}: SES does not know access_key_id; write that of a key of this account", told.said(reply)))
        }
        (_, "SignatureDoesNotMatch" | "InvalidSignatureException") => Err(format!(
            "{}: secret_access_key is not that of access_key_id, or this machine's clock is wrong",
            told.said(reply)
        )),
        (_, "ExpiredToken" | "ExpiredTokenException" | "RequestExpired") => {
            Err(format!("{}: the credentials have expired, or this machine's clock is wrong", told.said(reply)))
        }
        _ => Err(told.said(reply)),
    }
}

/// What it means for the relay: how fast, and how much in a day.
pub(super) fn told(reply: &HttpReply) -> Result<quota::Told, String> {
    let told = Told::of(reply);
    if !(200..300).contains(&reply.status) {
        return Err(told.said(reply));
    }
    let account = Account::of(told.body());
    let (Some(rate), Some(daily), Some(sent)) = (account.rate.and_then(rate), account.daily, account.sent)
    else {
        return Err(format!("no quota in SES's answer to GetAccount: {reply}"));
    };
    let daily = (daily >= 0.0).then_some(daily as u64);
    Ok(quota::Told { rate, daily, sent: sent.max(0.0) as u64 })
}

/// Whole recipients in a second, or one in several.
fn rate(per_second: f64) -> Option<Rate> {
    const SLOWEST: f64 = 1.0 / 86_400.0;
    match per_second {
        fast if fast >= 1.0 => Some(Rate { recipients: fast as u32, per: Duration::from_secs(1) }),
        slow if slow >= SLOWEST => Some(Rate { recipients: 1, per: Duration::from_secs_f64(1.0 / slow) }),
        _ => None,
    }
}

fn judged(body: &Value) -> Result<String, String> {
    let Account { production, sending, daily, sent, rate } = Account::of(body);
    let status = body.get("EnforcementStatus").and_then(Value::as_str).unwrap_or("unknown");
    if sending == Some(false) || status == "SHUTDOWN" {
        return Err(format!(
            "the key is good, but this account may not send in this region (enforcement status {status}): see its SES \
             console"
        ));
    }
    let Some(production) = production else {
        return Err("this is no answer of SES to GetAccount".to_owned());
    };
    let place = match production {
        true => "production",
        false => "sandbox: mail goes to verified addresses alone until AWS grants production access",
    };
    let number = |n: Option<f64>| n.map_or("?".to_owned(), |n| format!("{n}"));
    let daily = match daily {
        Some(limit) if limit < 0.0 => "no daily quota".to_owned(),
        limit => format!("{} of {} in 24 hours", number(sent), number(limit)),
    };
    let mut told = format!("the key is good; {place}; sent {daily}, {}/s", number(rate));
    if status != "HEALTHY" {
        told.push_str(&format!("; enforcement status {status}: see the account's SES console"));
    }
    Ok(told)
}
