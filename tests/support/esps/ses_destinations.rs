//! SES's event destinations: `/v2/email/configuration-sets/{set}/event-destinations`.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::http::{Request, Response};
use super::ses::error;

const KINDS: [&str; 10] = [
    "SEND",
    "REJECT",
    "BOUNCE",
    "COMPLAINT",
    "DELIVERY",
    "OPEN",
    "CLICK",
    "RENDERING_FAILURE",
    "DELIVERY_DELAY",
    "SUBSCRIPTION",
];

/// By set and name.
#[derive(Default)]
pub struct Destinations(Mutex<BTreeMap<(String, String), Value>>);

impl Destinations {
    /// One that somebody else has made.
    pub fn add(&self, set: &str, name: &str, destination: &Value) {
        self.0.lock().unwrap().insert((set.to_owned(), name.to_owned()), destination.clone());
    }

    /// Those of a set, by name.
    pub fn of(&self, set: &str) -> Vec<(String, Value)> {
        let all = self.0.lock().unwrap();
        let of_set = all.iter().filter(|((of, _), _)| of == set);
        of_set.map(|((_, name), one)| (name.clone(), one.clone())).collect()
    }

    /// What a request about that set is answered; `rest`: behind `event-destinations`.
    pub fn answer(&self, set: &str, rest: Option<&str>, request: &Request) -> Response {
        match (request.method.as_str(), rest) {
            ("GET", None) => {
                let named = |(name, one): (String, Value)| {
                    let mut one = one;
                    one["Name"] = json!(name);
                    one
                };
                let all: Vec<Value> = self.of(set).into_iter().map(named).collect();
                Response::json(200, &json!({ "EventDestinations": all }))
            }
            ("POST", None) => self.write(set, None, request),
            ("PUT", Some(name)) => self.write(set, Some(name), request),
            _ => error(404, "UnknownOperationException", "No such operation."),
        }
    }

    fn write(&self, set: &str, known: Option<&str>, request: &Request) -> Response {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let bad = |text: &str| error(400, "BadRequestException", text);
        let name = known.or(body["EventDestinationName"].as_str()).unwrap_or_default().to_owned();
        let charset = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !(1..=64).contains(&name.len()) || !name.bytes().all(charset) {
            return bad("Invalid event destination name.");
        }
        let destination = &body["EventDestination"];
        let kinds = destination["MatchingEventTypes"].as_array().cloned().unwrap_or_default();
        if kinds.is_empty() || !kinds.iter().all(|kind| KINDS.iter().any(|known| kind == known)) {
            return bad("Invalid event types.");
        }
        if !destination["SnsDestination"]["TopicArn"]
            .as_str()
            .is_some_and(|arn| arn.starts_with("arn:aws:sns:"))
        {
            return bad("Invalid SNS topic.");
        }
        let mut all = self.0.lock().unwrap();
        let at = (set.to_owned(), name);
        match (known.is_some(), all.contains_key(&at)) {
            (false, true) => error(400, "AlreadyExistsException", "The event destination exists already."),
            (true, false) => error(404, "NotFoundException", "The event destination does not exist."),
            _ => {
                all.insert(at, destination.clone());
                Response::json(200, &json!({}))
            }
        }
    }
}
