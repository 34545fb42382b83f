//! Postmark's webhooks, one a message stream, set up by its API: URL, events, and what each call is to prove itself by.
//!
//! Facts: <https://postmarkapp.com/developer/api/webhooks-api>, seen in 2026-11.

use serde_json::{Map, Value, json};

use super::hook::Proof;
use crate::clock::Timestamp;
use crate::esp::setup::{Api, Arranged, State, Wanted, is_id, object, same_url};
use crate::esp::webhook::ProvenBy;
use crate::mail::{HttpErrand, HttpReply, Verb};
use crate::secret::{Secret, form_encoded};

const WEBHOOKS: &str = "/webhooks";
const EVENTS: [&str; 6] = ["Open", "Click", "Delivery", "Bounce", "SpamComplaint", "SubscriptionChange"];
/// Whom the relay's own test event is about: nobody (RFC 2606).
const NOBODY: &str = "webhook-test@example.com";

pub(super) async fn set_up(wanted: Wanted<'_>, streams: &[&str], apply: bool, api: &dyn Api) -> Arranged {
    let mut done = Arranged::default();
    let none = Proof::default();
    let proof = proof(wanted).unwrap_or(&none);
    if wanted.webhook.proven && wanted.webhook.is_keyless() {
        let why = "Postmark signs nothing: it has to be told what to send along. Write webhook_user and webhook_password, or \
                   webhook_headers, at this [[esp]], reload, and ask again";
        done.thing("proof", State::Missing, why);
        return done;
    }
    for stream in streams {
        let (state, said) = match one(wanted, proof, stream, apply, api).await {
            Ok(found) => found,
            Err(why) => (State::Failed, why),
        };
        done.thing(format!("webhook of the stream {stream}"), state, said);
    }
    done
}

/// What Postmark would post: it has no call that posts a test.
pub(super) fn trial(wanted: Wanted<'_>, chance: &str, now: Timestamp) -> (Vec<(String, Secret)>, String) {
    let body = json!({
        "RecordType": "Delivery", "MessageID": chance, "Recipient": NOBODY, "DeliveredAt": now.to_string(),
        "Details": "postroad webhook test", "Tag": "postroad-webhook-test", "MessageStream": "outbound", "ServerID": 0,
        "Metadata": {},
    });
    let fields = proof(wanted).map(Proof::sent).unwrap_or_default();
    (fields, body.to_string())
}

fn proof<'w>(wanted: Wanted<'w>) -> Option<&'w Proof> {
    match &wanted.webhook.by {
        ProvenBy::Postmark { proof, .. } => Some(proof),
        ProvenBy::Sns { .. } | ProvenBy::Sendgrid(_) => None,
    }
}

async fn one(
    wanted: Wanted<'_>,
    proof: &Proof,
    stream: &str,
    apply: bool,
    api: &dyn Api,
) -> Result<(State, String), String> {
    let reply =
        api.run(HttpErrand::get(format!("{WEBHOOKS}?MessageStream={}", form_encoded(stream)))).await?;
    let list = object(&reply).filter(|_| reply.status == 200);
    let Some(Value::Array(hooks)) = list.as_ref().and_then(|list| list.get("Webhooks")) else {
        return Err(said(&reply));
    };
    let url = |hook: &Map<String, Value>| hook.get("Url").and_then(Value::as_str).map(str::to_owned);
    let of_url = |hook: &&Map<String, Value>| url(hook).is_some_and(|known| same_url(&known, wanted.url));
    let found = hooks.iter().filter_map(Value::as_object).find(of_url);
    let Some(hook) = found else {
        if !apply {
            return Ok((State::Missing, format!("none has the URL {}; {} other", wanted.url, hooks.len())));
        }
        let mut body = settings(wanted, proof, &Map::new());
        body["MessageStream"] = json!(stream);
        return told(api.run(HttpErrand::with(Verb::Post, WEBHOOKS, body.to_string())).await?, State::Made);
    };
    let lacks = lacking(proof, hook);
    if lacks.is_empty() {
        return Ok((State::There, format!("{}, with all events and its proof", wanted.url)));
    }
    if !apply {
        return Ok((State::Differs, format!("{} lacks {}", wanted.url, lacks.join(", "))));
    }
    let id = hook.get("ID").map(Value::to_string).filter(|id| is_id(id));
    let id = id.ok_or("Postmark named no id of it")?;
    let body = settings(wanted, proof, hook);
    let reply = api.run(HttpErrand::with(Verb::Put, format!("{WEBHOOKS}/{id}"), body.to_string())).await?;
    told(reply, State::Changed)
}

/// What an existing webhook has not, in words that hold no secret.
fn lacking(proof: &Proof, hook: &Map<String, Value>) -> Vec<String> {
    let on = |event: &&str| hook.get("Triggers").is_some_and(|all| all[*event]["Enabled"] == json!(true));
    let mut lacks: Vec<String> =
        EVENTS.iter().filter(|event| !on(event)).map(|event| (*event).to_owned()).collect();
    let auth = hook.get("HttpAuth").unwrap_or(&Value::Null);
    let has = |name: &str, wanted: &str| auth[name].as_str() == Some(wanted);
    if let Some((user, password)) = &proof.login
        && !(has("Username", user) && has("Password", password.expose()))
    {
        lacks.push("webhook_user and webhook_password".to_owned());
    }
    let known = known_fields(hook);
    let sent = |name: &str, value: &Secret| {
        known.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && v == value.expose())
    };
    lacks.extend(
        proof
            .fields
            .iter()
            .filter(|(name, value)| !sent(name, value))
            .map(|(name, _)| format!("the header {name}")),
    );
    lacks
}

fn known_fields(hook: &Map<String, Value>) -> Vec<(String, String)> {
    let text = |field: &Value, name: &str| field[name].as_str().map(str::to_owned);
    let fields = hook.get("HttpHeaders").and_then(Value::as_array);
    fields.into_iter().flatten().filter_map(|field| text(field, "Name").zip(text(field, "Value"))).collect()
}

/// What Postmark is told: all events and our proof, and whatever else the webhook had.
fn settings(wanted: Wanted<'_>, proof: &Proof, hook: &Map<String, Value>) -> Value {
    let mut triggers =
        hook.get("Triggers").filter(|all| all.is_object()).cloned().unwrap_or_else(|| json!({}));
    for event in EVENTS {
        if !triggers[event].is_object() {
            triggers[event] = match event {
                "Open" => json!({ "PostFirstOpenOnly": false }),
                "Bounce" | "SpamComplaint" => json!({ "IncludeContent": false }),
                _ => json!({}),
            };
        }
        triggers[event]["Enabled"] = json!(true);
    }
    let ours = |name: &str| proof.fields.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    let others = known_fields(hook).into_iter().filter(|(name, _)| !ours(name));
    let own = proof.fields.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
    let field = |(name, value): (String, String)| json!({ "Name": name, "Value": value });
    let mut all = json!({
        "Url": wanted.url, "Triggers": triggers, "HttpHeaders": others.chain(own).map(field).collect::<Vec<_>>(),
    });
    match (&proof.login, hook.get("HttpAuth").filter(|auth| auth.is_object())) {
        (Some((user, password)), _) => {
            all["HttpAuth"] = json!({ "Username": user, "Password": password.expose() })
        }
        (None, Some(auth)) => all["HttpAuth"] = auth.clone(),
        (None, None) => {}
    }
    all
}

fn told(reply: HttpReply, state: State) -> Result<(State, String), String> {
    let id =
        object(&reply).filter(|_| reply.status == 200).and_then(|hook| hook.get("ID").map(Value::to_string));
    match id {
        Some(id) => Ok((state, format!("its id is {id}; with all events and its proof"))),
        None => Err(said(&reply)),
    }
}

/// Postmark's words. An answer of success may hold the password, and is not shown.
fn said(reply: &HttpReply) -> String {
    let words =
        object(reply).and_then(|body| Some(body.get("Message")?.as_str()?.to_owned())).unwrap_or_default();
    match reply.status {
        401 => format!("HTTP 401 {words}; see server_token: it is the server's, not the account's"),
        200..300 => format!("HTTP {}: this is no answer of Postmark's about webhooks", reply.status),
        status => format!("HTTP {status} {words}").trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::esp::postmark::hook::Streams;
    use crate::esp::setup::testing::{Script, states};
    use crate::esp::webhook::WebhookSettings;

    const URL: &str = "https://mail.example.com/webhooks/mark";

    fn webhook(login: bool, fields: &[(&str, &str)]) -> WebhookSettings {
        let login = login.then(|| ("hook".to_owned(), Secret::new("quite-secret")));
        let fields = fields.iter().map(|(n, v)| ((*n).to_owned(), Secret::new(*v))).collect();
        let (proof, streams) = (Proof { login, fields }, Streams::default());
        WebhookSettings { proven: true, by: ProvenBy::Postmark { proof, streams } }
    }

    fn hook(password: &str) -> Value {
        let on = json!({ "Enabled": true });
        let mut hook = json!({
            "ID": 7, "Url": URL, "HttpAuth": { "Username": "hook", "Password": password },
            "HttpHeaders": [{ "Name": "X-Other", "Value": "kept" }], "Triggers": {},
        });
        EVENTS.iter().for_each(|event| hook["Triggers"][*event] = on.clone());
        hook
    }

    async fn ask(answers: &[(u16, Value)], webhook: &WebhookSettings, apply: bool) -> (Arranged, Script) {
        let script = Script::new(answers);
        let wanted = Wanted { esp: "mark", url: URL, webhook };
        let done = set_up(wanted, &["outbound", "news letters"], apply, &script).await;
        (done, script)
    }

    #[tokio::test]
    async fn each_stream_has_its_own_and_what_is_there_is_only_looked_at() {
        let list = (200, json!({ "Webhooks": [hook("quite-secret")] }));
        let (done, script) = ask(&[list.clone(), list], &webhook(true, &[]), true).await;
        assert_eq!(states(&done), ["there", "there"]);
        assert_eq!(
            script.lines(),
            ["Get /webhooks?MessageStream=outbound", "Get /webhooks?MessageStream=news+letters"]
        );
    }

    #[tokio::test]
    async fn what_is_missing_is_made_with_all_events_and_the_proof() {
        let none = (200, json!({ "Webhooks": [{ "ID": 1, "Url": "https://other.example/" }] }));
        let made = (200, hook("quite-secret"));
        let answers =
            [none.clone(), made, none, (422, json!({ "ErrorCode": 1226, "Message": "no such stream" }))];
        let (done, script) = ask(&answers, &webhook(true, &[("x-proof", "shibboleth")]), true).await;
        assert_eq!(states(&done), ["made", "failed"]);
        assert_eq!(
            (done.things[0].said.as_str(), done.things[1].said.as_str()),
            ("its id is 7; with all events and its proof", "HTTP 422 no such stream")
        );
        let body = script.body(1);
        assert_eq!(body["MessageStream"], "outbound");
        assert_eq!(body["HttpAuth"], json!({ "Username": "hook", "Password": "quite-secret" }));
        assert_eq!(body["HttpHeaders"], json!([{ "Name": "x-proof", "Value": "shibboleth" }]));
        assert_eq!(body["Triggers"]["Bounce"], json!({ "Enabled": true, "IncludeContent": false }));
        assert!(!format!("{done:?} {:?}", script.asked).contains("quite-secret"), "no password is printed");
    }

    #[tokio::test]
    async fn what_differs_is_changed_and_keeps_what_else_it_had() {
        let mut other = hook("of before");
        other["Triggers"]["Open"] = json!({ "Enabled": false, "PostFirstOpenOnly": true });
        let list = (200, json!({ "Webhooks": [other] }));
        let lines = webhook(true, &[]);
        let (done, _) = ask(&[list.clone(), list.clone()], &lines, false).await;
        assert_eq!(states(&done), ["differs", "differs"]);
        assert_eq!(done.things[0].said, format!("{URL} lacks Open, webhook_user and webhook_password"));
        let (done, script) =
            ask(&[list.clone(), (200, hook("quite-secret")), list, (200, json!({}))], &lines, true).await;
        assert_eq!(states(&done), ["changed", "failed"], "an answer without an id is none");
        assert_eq!(script.lines()[1], "Put /webhooks/7");
        let body = script.body(1);
        assert_eq!(body["Triggers"]["Open"], json!({ "Enabled": true, "PostFirstOpenOnly": true }));
        assert_eq!(body["HttpHeaders"], json!([{ "Name": "X-Other", "Value": "kept" }]));
        assert_eq!(body["HttpAuth"]["Password"], "quite-secret");
    }

    #[tokio::test]
    async fn without_a_proof_nothing_is_made_that_would_be_answered_401() {
        let (done, script) = ask(&[], &webhook(false, &[]), true).await;
        assert_eq!((states(&done), script.lines().len()), (vec!["missing"], 0));
        let open = WebhookSettings { proven: false, ..webhook(false, &[]) };
        let (done, _) = ask(&[(401, json!({ "Message": "no" })), (500, json!(null))], &open, false).await;
        assert_eq!(states(&done), ["failed", "failed"]);
        assert!(done.things[0].said.contains("see server_token"), "{done:?}");
    }
}
