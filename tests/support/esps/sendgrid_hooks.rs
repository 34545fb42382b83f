//! SendGrid's event webhooks: `/v3/user/webhooks/event/…`, and the test call that posts canned events.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postroad::clock::{Clock as _, System};
use serde_json::{Map, Value, json};

use super::http::{Request, Response};
use super::sendgrid::{bad_request, error, forbidden};

const BASE: &str = "/v3/user/webhooks/event/";
/// What a P-256 key in SPKI begins with.
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Fields of a webhook that are switches.
const SWITCHES: [&str; 13] = [
    "enabled",
    "processed",
    "delivered",
    "deferred",
    "bounce",
    "dropped",
    "open",
    "click",
    "spam_report",
    "unsubscribe",
    "group_unsubscribe",
    "group_resubscribe",
    "account_status_change",
];
/// What the test call posts, all to one address.
const CANNED: [&str; 11] = [
    "processed",
    "deferred",
    "delivered",
    "open",
    "click",
    "bounce",
    "dropped",
    "spamreport",
    "unsubscribe",
    "group_unsubscribe",
    "group_resubscribe",
];
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The account's webhooks.
pub struct Hooks {
    pub hooks: Mutex<Vec<Map<String, Value>>>,
    pub most: Mutex<usize>,
    /// The key has the scopes that these routes want.
    pub allowed: AtomicBool,
    key: EcdsaKeyPair,
}

impl Default for Hooks {
    fn default() -> Self {
        Hooks {
            hooks: Mutex::default(),
            most: Mutex::new(1),
            allowed: AtomicBool::new(true),
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
        }
    }
}

impl Hooks {
    /// The key that signs, as SendGrid shows it.
    pub fn public_key(&self) -> String {
        STANDARD.encode([&SPKI[..], self.key.public_key().as_ref()].concat())
    }

    /// One that somebody else has made.
    pub fn add(&self, hook: &Value) {
        self.hooks.lock().unwrap().push(hook.as_object().unwrap().clone());
    }

    pub fn all(&self) -> Value {
        json!(*self.hooks.lock().unwrap())
    }

    /// `None`: the request is for another desk.
    pub fn answer(&self, request: &Request) -> Option<Response> {
        let rest = request.path.strip_prefix(BASE)?;
        if !self.allowed.load(Ordering::SeqCst) {
            return Some(forbidden());
        }
        let parts: Vec<&str> = rest.split('/').collect();
        Some(match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["settings", "all"]) => {
                let body = json!({ "max_allowed": *self.most.lock().unwrap(), "webhooks": self.all() });
                Response::json(200, &body)
            }
            ("POST", ["settings"]) => self.make(request),
            ("GET", ["settings", "signed", id]) => self.tell_key(id),
            ("PATCH", ["settings", "signed", id]) => self.sign(id, request),
            ("PATCH", ["settings", id]) => self.change(id, request),
            ("POST", ["test"]) => self.test(request),
            _ => error(404, "not found", None),
        })
    }

    fn make(&self, request: &Request) -> Response {
        let settings = match judged(request) {
            Ok(settings) => settings,
            Err(refusal) => return refusal,
        };
        let mut hooks = self.hooks.lock().unwrap();
        if hooks.len() >= *self.most.lock().unwrap() {
            return error(400, "maximum number of webhooks reached", None);
        }
        let mut hook: Map<String, Value> =
            SWITCHES.iter().map(|name| ((*name).to_owned(), json!(false))).collect();
        hook.extend(settings);
        hook.insert("id".into(), json!(format!("h-{}", hooks.len() + 1)));
        hooks.push(hook.clone());
        Response::json(201, &Value::Object(hook))
    }

    fn change(&self, id: &str, request: &Request) -> Response {
        match judged(request) {
            Ok(settings) => self.with(id, |hook| {
                hook.extend(settings.clone());
                let shown = hook.iter().filter(|(name, _)| *name != "public_key");
                let shown = shown.map(|(name, value)| (name.clone(), value.clone()));
                Response::json(200, &Value::Object(shown.collect()))
            }),
            Err(refusal) => refusal,
        }
    }

    fn tell_key(&self, id: &str) -> Response {
        let key = |hook: &Map<String, Value>| hook.get("public_key").cloned().unwrap_or_else(|| json!(""));
        self.with(id, |hook| Response::json(200, &json!({ "id": id, "public_key": key(hook) })))
    }

    fn sign(&self, id: &str, request: &Request) -> Response {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let Some(enabled) = body["enabled"].as_bool() else { return bad_request() };
        let key = if enabled { self.public_key() } else { String::new() };
        self.with(id, |hook| {
            hook.insert("public_key".into(), json!(key));
            Response::json(200, &json!({ "id": id, "public_key": key }))
        })
    }

    fn with(&self, id: &str, act: impl FnOnce(&mut Map<String, Value>) -> Response) -> Response {
        let mut hooks = self.hooks.lock().unwrap();
        match hooks.iter_mut().find(|hook| hook["id"] == id) {
            Some(hook) => act(hook),
            None => error(404, "webhook not found", None),
        }
    }

    /// 204 whatever the URL answers: what is posted is on its way then.
    fn test(&self, request: &Request) -> Response {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let Some(url) = body["url"].as_str().filter(|url| is_url(url)) else {
            return error(400, "url is required", Some("url"));
        };
        let of_id = |hook: &Map<String, Value>| Some(&hook["id"]) == body.get("id");
        let hooks = self.hooks.lock().unwrap();
        let signed =
            hooks.iter().any(|hook| of_id(hook) && hook.get("public_key").is_some_and(|key| key != ""));
        self.post(url, signed);
        Response::empty(204)
    }

    fn post(&self, url: &str, signed: bool) {
        let now = System.now().millis() / 1000;
        let event = |name: &&str| {
            json!({ "email": "example@test.com", "timestamp": now, "event": name, "sg_event_id": format!("canned-{name}"),
                "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0", "status": "5.0.0",
                "reason": "500 unknown recipient", "response": "400 try again later", "category": ["cat facts"] })
        };
        let body = format!("{}\r\n", json!(CANNED.iter().map(event).collect::<Vec<_>>()));
        let stamp = now.to_string();
        let signature = self.key.sign(&SystemRandom::new(), format!("{stamp}{body}").as_bytes()).unwrap();
        let proof = match signed {
            true => format!(
                "X-Twilio-Email-Event-Webhook-Signature: {}\r\nX-Twilio-Email-Event-Webhook-Timestamp: {stamp}\r\n",
                STANDARD.encode(signature.as_ref())
            ),
            false => String::new(),
        };
        let url = url.strip_prefix("http://").unwrap_or_default().to_owned();
        std::thread::spawn(move || {
            let (host, path) = url.split_once('/').unwrap_or((&url, ""));
            let Ok(mut line) = TcpStream::connect(host) else { return };
            let _ = line.set_read_timeout(Some(ANSWER_MAX));
            let _ = write!(
                line,
                "POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n{proof}\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = line.read_to_end(&mut Vec::new());
        });
    }
}

/// TLS, or loopback for the tests' sake.
fn is_url(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://127.0.0.1:")
}

/// The settings in a request, or what SendGrid holds against them.
fn judged(request: &Request) -> Result<Map<String, Value>, Response> {
    let Ok(Value::Object(settings)) = serde_json::from_slice(&request.body) else {
        return Err(bad_request());
    };
    if !settings.get("url").and_then(Value::as_str).is_some_and(is_url) {
        return Err(error(400, "url is not a valid URL", Some("url")));
    }
    for (name, value) in &settings {
        let fits = match name.as_str() {
            "url" | "friendly_name" => value.is_string(),
            name => SWITCHES.contains(&name) && value.is_boolean(),
        };
        if !fits {
            return Err(error(400, "invalid value", Some(name)));
        }
    }
    Ok(settings)
}
