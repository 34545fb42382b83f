//! Postmark's webhooks: `/webhooks`, each of one message stream.

use std::sync::Mutex;

use serde_json::{Map, Value, json};

use super::http::{Request, Response};
use super::postmark::{error, stream_not_found};

const TRIGGERS: [&str; 6] = ["Open", "Click", "Delivery", "Bounce", "SpamComplaint", "SubscriptionChange"];

/// The server's webhooks.
#[derive(Default)]
pub struct Hooks(pub Mutex<Vec<Map<String, Value>>>);

impl Hooks {
    /// One that somebody else has made.
    pub fn add(&self, hook: &Value) {
        self.0.lock().unwrap().push(hook.as_object().unwrap().clone());
    }

    pub fn all(&self) -> Vec<Value> {
        self.0.lock().unwrap().iter().cloned().map(Value::Object).collect()
    }

    /// `None`: the request is for another desk.
    pub fn answer(&self, request: &Request, streams: &[String]) -> Option<Response> {
        let rest = request.path.strip_prefix("/webhooks")?;
        let id = rest.strip_prefix('/').and_then(|id| id.parse::<u64>().ok());
        Some(match (request.method.as_str(), rest, id) {
            ("GET", "", _) => self.list(request, streams),
            ("POST", "", _) => self.make(request, streams),
            ("PUT", _, Some(id)) => self.change(id, request),
            _ => Response::empty(404),
        })
    }

    fn list(&self, request: &Request, streams: &[String]) -> Response {
        let wanted = request.query.strip_prefix("MessageStream=");
        if let Some(unknown) = wanted.filter(|wanted| !streams.iter().any(|known| known == wanted)) {
            return stream_not_found(unknown);
        }
        let hooks = self.all();
        let of_stream = |hook: &&Value| wanted.is_none_or(|wanted| hook["MessageStream"] == wanted);
        Response::json(200, &json!({ "Webhooks": hooks.iter().filter(of_stream).collect::<Vec<_>>() }))
    }

    fn make(&self, request: &Request, streams: &[String]) -> Response {
        let mut hook = match judged(request) {
            Ok(hook) => hook,
            Err(refusal) => return refusal,
        };
        let stream = hook.entry("MessageStream").or_insert_with(|| json!("outbound")).clone();
        if !streams.iter().any(|known| stream == **known) {
            return stream_not_found(stream.as_str().unwrap_or_default());
        }
        let mut hooks = self.0.lock().unwrap();
        hook.insert("ID".into(), json!(1_234_567 + hooks.len()));
        hooks.push(hook.clone());
        Response::json(200, &Value::Object(hook))
    }

    fn change(&self, id: u64, request: &Request) -> Response {
        let settings = match judged(request) {
            Ok(settings) => settings,
            Err(refusal) => return refusal,
        };
        if settings.contains_key("MessageStream") {
            return error(403, "Incompatible JSON: the stream of a webhook cannot be changed.");
        }
        let mut hooks = self.0.lock().unwrap();
        let Some(hook) = hooks.iter_mut().find(|hook| hook["ID"] == id) else { return Response::empty(404) };
        hook.extend(settings);
        Response::json(200, &Value::Object(hook.clone()))
    }
}

/// The settings in a request, or what Postmark holds against them.
fn judged(request: &Request) -> Result<Map<String, Value>, Response> {
    let Ok(Value::Object(hook)) = serde_json::from_slice(&request.body) else {
        return Err(error(402, "Received invalid JSON input."));
    };
    let text = |value: &Value, name: &str| value[name].as_str().is_some_and(|text| !text.is_empty());
    let url = hook.get("Url").and_then(Value::as_str).unwrap_or_default();
    let fits = |(name, value): (&String, &Value)| match name.as_str() {
        "Url" | "MessageStream" => value.is_string(),
        "HttpAuth" => text(value, "Username") && text(value, "Password"),
        "HttpHeaders" => {
            value.as_array().is_some_and(|all| all.iter().all(|one| text(one, "Name") && text(one, "Value")))
        }
        "Triggers" => value.as_object().is_some_and(|all| {
            all.iter().all(|(name, one)| TRIGGERS.contains(&name.as_str()) && one["Enabled"].is_boolean())
        }),
        _ => false,
    };
    match hook.iter().all(fits) {
        _ if !url.starts_with("https://") && !url.starts_with("http://127.0.0.1:") => {
            Err(error(1301, "The 'Url' is not valid."))
        }
        true => Ok(hook),
        false => Err(error(403, "Incompatible JSON: a field is not known or of the wrong type.")),
    }
}
