//! SendGrid's event webhook, set up by its API: which URL gets which events, and that they are signed.
//!
//! Facts: <https://www.twilio.com/docs/sendgrid/api-reference/webhooks>, seen in 2026-11.

use serde_json::{Map, Value, json};

use super::hook::PublicKey;
use crate::esp::setup::{Api, Arranged, State, Wanted, is_id, object, same_url};
use crate::esp::webhook::ProvenBy;
use crate::mail::{Errand, HttpErrand, HttpReply, Verb};

const SETTINGS: &str = "/v3/user/webhooks/event/settings";
const TEST: &str = "/v3/user/webhooks/event/test";
/// What is to be told; `account_status_change` is of no message.
const EVENTS: [&str; 11] = [
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
];

/// The account's webhooks, and how many there may be.
struct Known {
    hooks: Vec<Map<String, Value>>,
    most: Option<u64>,
}

impl Known {
    fn at(&self, url: &str) -> Option<&Map<String, Value>> {
        let of_url = |hook: &&Map<String, Value>| text(hook, "url").is_some_and(|known| same_url(known, url));
        self.hooks.iter().find(of_url)
    }
}

pub(super) async fn set_up(wanted: Wanted<'_>, apply: bool, api: &dyn Api) -> Arranged {
    let mut done = Arranged::default();
    match known(api).await {
        Err(why) => done.thing("event webhook", State::Failed, why),
        Ok(known) => {
            let hook = webhook(wanted, &known, apply, api, &mut done).await;
            signature(wanted, hook, apply, api, &mut done).await;
        }
    }
    done
}

/// Has SendGrid post its canned events to that URL.
pub(super) async fn ask_for_trial(wanted: Wanted<'_>, api: &dyn Api) -> Result<String, String> {
    let known = known(api).await?;
    let Some(id) = known.at(wanted.url).and_then(|hook| text(hook, "id")) else {
        return Err(format!(
            "SendGrid has no event webhook with the URL {}; postroad esp setup {} --apply makes it",
            wanted.url, wanted.esp
        ));
    };
    // Its signature is the webhook's where its id is named.
    let body = json!({ "id": id, "url": wanted.url });
    let reply = run(api, HttpErrand::with(Verb::Post, TEST, body.to_string())).await?;
    match reply.status {
        200..300 => Ok(format!("SendGrid took the test call for its webhook {id}")),
        _ => Err(said(&reply)),
    }
}

async fn known(api: &dyn Api) -> Result<Known, String> {
    let reply = run(api, HttpErrand::get(format!("{SETTINGS}/all"))).await?;
    let list = object(&reply).filter(|_| reply.status == 200);
    let Some(Value::Array(hooks)) = list.as_ref().and_then(|list| list.get("webhooks")).cloned() else {
        return Err(said(&reply));
    };
    let hooks = hooks.into_iter().filter_map(|hook| match hook {
        Value::Object(hook) => Some(hook),
        _ => None,
    });
    let most = list.as_ref().and_then(|list| list.get("max_allowed")).and_then(Value::as_u64);
    Ok(Known { hooks: hooks.collect(), most })
}

/// The webhook as it stands then; `None`: there is none.
async fn webhook(
    wanted: Wanted<'_>,
    known: &Known,
    apply: bool,
    api: &dyn Api,
    done: &mut Arranged,
) -> Option<Map<String, Value>> {
    let what = "event webhook";
    let Some(hook) = known.at(wanted.url) else {
        let full = known.most.is_some_and(|most| known.hooks.len() as u64 >= most);
        let others = known.hooks.len();
        if full {
            let why = format!(
                "SendGrid allows this account {others} webhooks and it has as many, none with the URL {}; take one away \
                 under Settings, Mail Settings, Event Webhooks, or give one this URL there",
                wanted.url
            );
            done.thing(what, if apply { State::Failed } else { State::Missing }, why);
            return None;
        }
        if !apply {
            done.thing(what, State::Missing, format!("none has the URL {}; {others} other", wanted.url));
            return None;
        }
        return change(Verb::Post, SETTINGS.into(), &settings(wanted, None), (what, State::Made), api, done)
            .await;
    };
    let off = lacking(hook);
    if off.is_empty() {
        done.thing(what, State::There, format!("{}, enabled, with all events", wanted.url));
        return Some(hook.clone());
    }
    if !apply {
        done.thing(what, State::Differs, format!("{} lacks {}", wanted.url, off.join(", ")));
        return Some(hook.clone());
    }
    let Some(id) = text(hook, "id").filter(|id| is_id(id)) else {
        done.thing(what, State::Failed, "SendGrid named no id of it");
        return Some(hook.clone());
    };
    let path = format!("{SETTINGS}/{id}");
    let body = settings(wanted, Some(hook));
    let changed = change(Verb::Patch, path, &body, (what, State::Changed), api, done).await;
    // Its key is not in every answer.
    let told = |changed: Map<String, Value>| changed.into_iter().filter(|(_, value)| !value.is_null());
    changed.map(|changed| hook.clone().into_iter().chain(told(changed)).collect())
}

/// What an existing webhook has not: the switch of all, and those of events.
fn lacking(hook: &Map<String, Value>) -> Vec<&'static str> {
    let on = |name: &&str| hook.get(*name) == Some(&Value::Bool(true));
    ["enabled"].into_iter().chain(EVENTS).filter(|name| !on(name)).collect()
}

/// What SendGrid is told: all of our events, and whatever else the webhook had.
fn settings(wanted: Wanted<'_>, hook: Option<&Map<String, Value>>) -> Value {
    let mut all = json!({ "enabled": true, "url": wanted.url });
    let of_hook = |name: &str| hook.and_then(|hook| hook.get(name)).filter(|value| !value.is_null()).cloned();
    all["friendly_name"] =
        of_hook("friendly_name").unwrap_or_else(|| json!(format!("Postroad: {}", wanted.esp)));
    all["account_status_change"] = of_hook("account_status_change").unwrap_or(json!(false));
    EVENTS.iter().for_each(|event| all[*event] = json!(true));
    all
}

async fn change(
    verb: Verb,
    path: String,
    body: &Value,
    (what, state): (&str, State),
    api: &dyn Api,
    done: &mut Arranged,
) -> Option<Map<String, Value>> {
    let told = match run(api, HttpErrand::with(verb, path, body.to_string())).await {
        Ok(reply) if (200..300).contains(&reply.status) => object(&reply).ok_or_else(|| said(&reply)),
        Ok(reply) => Err(said(&reply)),
        Err(why) => Err(why),
    };
    match told {
        Ok(hook) => {
            let id = text(&hook, "id").unwrap_or("without an id");
            done.thing(what, state, format!("its id is {id}; enabled, with all events"));
            Some(hook)
        }
        Err(why) => {
            done.thing(what, State::Failed, why);
            None
        }
    }
}

/// Signed at SendGrid, and the key in the configuration.
async fn signature(
    wanted: Wanted<'_>,
    hook: Option<Map<String, Value>>,
    apply: bool,
    api: &dyn Api,
    done: &mut Arranged,
) {
    let what = "signature";
    if !wanted.webhook.proven {
        return;
    }
    let Some(hook) = hook else {
        return done.thing(what, State::Missing, "there is no webhook yet that could be signed");
    };
    let Some(id) = text(&hook, "id").filter(|id| is_id(id)) else {
        return done.thing(what, State::Failed, "SendGrid named no id of the webhook");
    };
    let path = format!("{SETTINGS}/signed/{id}");
    let shown = match text(&hook, "public_key") {
        Some(key) => Ok(Some(key.to_owned())),
        None => key_of(run(api, HttpErrand::get(path.as_str())).await),
    };
    let (state, key) = match shown {
        Ok(Some(key)) => (State::There, key),
        Ok(None) if !apply => return done.thing(what, State::Missing, "the webhook's calls are not signed"),
        Ok(None) => {
            let on = HttpErrand::with(Verb::Patch, path, json!({ "enabled": true }).to_string());
            match key_of(run(api, on).await) {
                Ok(Some(key)) => (State::Made, key),
                Ok(None) => return done.thing(what, State::Failed, "SendGrid told no public key of it"),
                Err(why) => return done.thing(what, State::Failed, why),
            }
        }
        Err(why) => return done.thing(what, State::Failed, why),
    };
    let ours = match &wanted.webhook.by {
        ProvenBy::Sendgrid(ours) => ours.as_ref(),
        ProvenBy::Sns { .. } | ProvenBy::Postmark { .. } => None,
    };
    let same = ours.is_some() && PublicKey::parse(&key).ok().as_ref() == ours;
    let said = match (same, ours) {
        (true, _) => "signed, and webhook_public_key is its key",
        (false, None) => "signed; webhook_public_key is still to be written into the configuration",
        (false, Some(_)) => "signed, by another key than webhook_public_key",
    };
    done.thing(what, state, said);
    if !same {
        done.keys.push(("webhook_public_key", Value::String(key).to_string()));
    }
}

/// The key in an answer about signing; `Ok(None)`: it is off.
fn key_of(reply: Result<HttpReply, String>) -> Result<Option<String>, String> {
    let reply = reply?;
    match reply.status {
        200..300 => Ok(object(&reply).and_then(|told| text(&told, "public_key").map(str::to_owned))),
        404 => Ok(None),
        _ => Err(said(&reply)),
    }
}

fn text<'h>(hook: &'h Map<String, Value>, name: &str) -> Option<&'h str> {
    hook.get(name)?.as_str().filter(|text| !text.is_empty())
}

async fn run(api: &dyn Api, errand: Errand) -> Result<HttpReply, String> {
    api.run(errand).await
}

fn said(reply: &HttpReply) -> String {
    match reply.status {
        401 => format!("SendGrid does not know this key, or it was revoked: {reply}"),
        403 => format!(
            "the key may not do this: {reply}; give it \"Event Notification\" under Mail Settings (the scopes \
             user.webhooks.event.settings and user.webhooks.event.test)"
        ),
        200..300 => format!("this is no answer of SendGrid's: {reply}"),
        _ => reply.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::esp::setup::testing::{Script, states};
    use crate::esp::webhook::WebhookSettings;

    const URL: &str = "https://mail.example.com/webhooks/grid";
    const KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEHJSB4XhaNNHPp0d8KKkMhcaN+Gpk992oR+sT+ISoKrFJaL+dt8UvVKK3o0rPC6FDMYQso+XLFCqPNFQUV8EGsA==";

    fn webhook(key: Option<&str>) -> WebhookSettings {
        let key = key.map(|key| PublicKey::parse(key).unwrap());
        WebhookSettings { proven: true, by: ProvenBy::Sendgrid(key) }
    }

    fn hook(url: &str, key: Option<&str>) -> Value {
        let mut hook = json!({ "id": "h-1", "url": url, "enabled": true, "public_key": key, "account_status_change": true });
        EVENTS.iter().for_each(|event| hook[*event] = json!(true));
        hook
    }

    async fn ask(
        answers: &[(u16, Value)],
        key: Option<&str>,
        apply: bool,
    ) -> (Vec<&'static str>, Arranged, Script) {
        let (script, webhook) = (Script::new(answers), webhook(key));
        let wanted = Wanted { esp: "grid", url: URL, webhook: &webhook };
        let done = set_up(wanted, apply, &script).await;
        (states(&done), done, script)
    }

    #[tokio::test]
    async fn what_is_as_it_should_be_is_only_looked_at() {
        let all = json!({ "max_allowed": 1, "webhooks": [hook(&format!("{URL}/"), Some(KEY))] });
        for apply in [false, true] {
            let (states, done, script) = ask(&[(200, all.clone())], Some(KEY), apply).await;
            assert_eq!((states, done.keys.len()), (vec!["there", "there"], 0));
            assert_eq!(script.lines(), ["Get /v3/user/webhooks/event/settings/all"]);
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_made_and_signed_and_its_key_is_told() {
        let none = (200, json!({ "max_allowed": 2, "webhooks": [hook("https://other.example/", None)] }));
        let (seen, ..) = ask(std::slice::from_ref(&none), None, false).await;
        assert_eq!(seen, ["missing", "missing"]);
        let mut made = hook(URL, None);
        made["id"] = json!("h-2");
        let answers = [
            none,
            (201, made),
            (200, json!({ "public_key": "" })),
            (200, json!({ "id": "h-2", "public_key": KEY })),
        ];
        let (seen, done, script) = ask(&answers, None, true).await;
        assert_eq!(seen, ["made", "made"]);
        assert_eq!(done.keys, [("webhook_public_key", format!("\"{KEY}\""))]);
        assert_eq!(
            script.lines(),
            [
                "Get /v3/user/webhooks/event/settings/all",
                "Post /v3/user/webhooks/event/settings",
                "Get /v3/user/webhooks/event/settings/signed/h-2",
                "Patch /v3/user/webhooks/event/settings/signed/h-2",
            ]
        );
        let body = script.body(1);
        assert_eq!(
            (&body["url"], &body["enabled"], &body["spam_report"]),
            (&json!(URL), &json!(true), &json!(true))
        );
        assert_eq!(body["account_status_change"], json!(false));
    }

    #[tokio::test]
    async fn what_differs_is_changed_and_keeps_what_else_it_had() {
        let mut off = hook(URL, Some(KEY));
        (off["bounce"], off["enabled"]) = (json!(false), json!(false));
        off["friendly_name"] = json!("ours");
        let all = (200, json!({ "max_allowed": 1, "webhooks": [off] }));
        let (seen, done, _) = ask(std::slice::from_ref(&all), Some(KEY), false).await;
        assert_eq!(
            (seen, done.things[0].said.as_str()),
            (vec!["differs", "there"], "https://mail.example.com/webhooks/grid lacks enabled, bounce")
        );
        let (seen, _, script) = ask(&[all, (200, hook(URL, None))], Some(KEY), true).await;
        assert_eq!(seen, ["changed", "there"]);
        let body = script.body(1);
        assert_eq!((&body["friendly_name"], &body["account_status_change"]), (&json!("ours"), &json!(true)));
        assert_eq!(script.lines()[1], "Patch /v3/user/webhooks/event/settings/h-1");
    }

    #[tokio::test]
    async fn anothers_is_left_alone_where_there_is_no_place_and_nothing_is_believed_of_a_refusal() {
        let full = (200, json!({ "max_allowed": 1, "webhooks": [hook("https://other.example/", None)] }));
        let (seen, done, script) = ask(&[full], None, true).await;
        assert_eq!((seen[0], script.lines().len()), ("failed", 1));
        assert!(done.things[0].said.contains("allows this account 1 webhooks"), "{done:?}");
        for (status, words) in
            [(401, "does not know this key"), (403, "the key may not do this"), (500, "HTTP 500")]
        {
            let (seen, done, script) = ask(&[(status, json!({ "errors": [] }))], None, true).await;
            assert_eq!((seen, script.lines().len()), (vec!["failed"], 1));
            assert!(done.things[0].said.contains(words), "{done:?}");
        }
        let (seen, ..) = ask(&[], None, true).await;
        assert_eq!(seen, ["failed"]);
    }

    #[tokio::test]
    async fn a_key_of_another_webhook_is_told() {
        let other = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEDr2LjtURuePQzplybdC+u4CwrqDqBaWjcMMsTbhdbcwHBcepxo7yAQGhHPTnlvFYPAZFceEu/1FwCM/QmGUhA==";
        let all = (200, json!({ "max_allowed": 1, "webhooks": [hook(URL, Some(KEY))] }));
        let (seen, done, _) = ask(&[all], Some(other), true).await;
        assert_eq!((seen, done.keys.len()), (vec!["there", "there"], 1));
        assert!(done.things[1].said.contains("another key"), "{done:?}");
    }
}
