//! Where SES publishes its events: the event destination of the configuration set, by its API; and what Amazon SNS has to
//! be told, which the relay has no way to, as commands.
//!
//! Facts: <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_CreateConfigurationSetEventDestination.html> and
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html>, seen in 2026-11.

use serde_json::{Value, json};

use super::read::Told;
use crate::esp::setup::{Api, Arranged, State, Wanted, object, quoted};
use crate::esp::webhook::ProvenBy;
use crate::mail::{Errand, HttpReply, SesDestination, SesErrand};

/// All that there is.
const EVENTS: [&str; 10] = [
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
/// Whom a test mail goes to: SES tells a delivery, and nobody reads it.
pub(super) const SIMULATOR: &str = "success@simulator.amazonses.com";
/// SNS gives up after 23 s by itself. It tries again for an hour at most: so often, after so many seconds each.
const RETRIES: u32 = 100;
const RETRY_SECONDS: u32 = 35;
const _: () = assert!(RETRIES * RETRY_SECONDS <= 3600);
/// What it gave up on is kept for 14 days, which is the most.
const KEPT_SECONDS: &str = "1209600";

pub(super) async fn set_up(
    wanted: Wanted<'_>,
    (region, set): (&str, Option<&str>),
    apply: bool,
    api: &dyn Api,
) -> Arranged {
    let mut done = Arranged::default();
    let topics: &[String] = match &wanted.webhook.by {
        ProvenBy::Sns { topics, .. } => topics,
        ProvenBy::Sendgrid(_) | ProvenBy::Postmark { .. } => &[],
    };
    match (set, topics) {
        (Some(set), [first, ..]) => {
            let (state, said) = match destination(wanted, set, topics, first, apply, api).await {
                Ok(found) => found,
                Err(why) => (State::Failed, why),
            };
            done.thing(format!("event destination of the configuration set {set}"), state, said);
        }
        (None, _) => {
            done.thing(
                "configuration set",
                State::Missing,
                "configuration_set is not written at this [[esp]]",
            );
            let make = format!(
                "aws sesv2 create-configuration-set --region {region} --configuration-set-name postroad"
            );
            done.by_hand(
                "make a configuration set, write configuration_set = \"postroad\" at this [[esp]], reload",
                vec![make],
            );
        }
        (Some(_), []) => {}
    }
    if topics.is_empty() {
        done.thing("topic", State::Missing, "webhook_topics is not written at this [[esp]]");
        let make = format!("aws sns create-topic --region {region} --name postroad-{}", wanted.esp);
        done.by_hand(
            "make a standard topic (no FIFO topic), write the ARN that this prints into webhook_topics at this [[esp]], \
             reload, and ask again",
            vec![make],
        );
    }
    topics.iter().for_each(|topic| by_hand(wanted, topic, &mut done));
    done
}

async fn destination(
    wanted: Wanted<'_>,
    set: &str,
    topics: &[String],
    first: &str,
    apply: bool,
    api: &dyn Api,
) -> Result<(State, String), String> {
    let reply = api.run(Errand::Ses(SesErrand::Destinations { set: set.to_owned() })).await?;
    let list = object(&reply).filter(|_| reply.status == 200);
    let list = list.ok_or_else(|| said(&reply, set))?;
    let all = list.get("EventDestinations").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let topic = |one: &Value| one["SnsDestination"]["TopicArn"].as_str().map(str::to_owned);
    let of_ours = |one: &&Value| topic(one).is_some_and(|arn| topics.contains(&arn));
    let (destination, new) = match all.iter().find(of_ours) {
        None if !apply => {
            return Ok((State::Missing, format!("none of {} publishes to webhook_topics", all.len())));
        }
        None => (of(&format!("postroad-{}", wanted.esp), first, &[]), true),
        Some(one) => {
            let kinds: Vec<&str> = one["MatchingEventTypes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let off = (one["Enabled"] != json!(true)).then_some("enabled");
            let lacks: Vec<&str> =
                off.into_iter().chain(EVENTS.into_iter().filter(|event| !kinds.contains(event))).collect();
            let name = one["Name"].as_str().unwrap_or_default();
            if lacks.is_empty() {
                return Ok((State::There, format!("{name}, enabled, with all events")));
            }
            if !apply {
                return Ok((State::Differs, format!("{name} lacks {}", lacks.join(", "))));
            }
            (of(name, &topic(one).unwrap_or_default(), &kinds), false)
        }
    };
    let name = destination.name.clone();
    let publish = SesErrand::Publish { set: set.to_owned(), destination, new };
    let reply = api.run(Errand::Ses(publish)).await?;
    match reply.status {
        200..300 => {
            Ok((if new { State::Made } else { State::Changed }, format!("{name}, enabled, with all events")))
        }
        _ => Err(said(&reply, set)),
    }
}

/// With all events, and whatever else it had.
fn of(name: &str, topic: &str, had: &[&str]) -> SesDestination {
    let more = had.iter().filter(|kind| !EVENTS.contains(kind));
    let kinds = EVENTS.iter().chain(more).map(|kind| (*kind).to_owned()).collect();
    SesDestination { name: name.to_owned(), topic: topic.to_owned(), kinds }
}

/// What SNS is told, of one topic.
fn by_hand(wanted: Wanted<'_>, topic: &str, done: &mut Arranged) {
    let mut parts = topic.split(':');
    let (Some(_), Some(partition), Some(_), Some(region), Some(account), Some(name)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return;
    };
    let sns = |rest: String| format!("aws sns {rest} --region {}", quoted(region));
    let arn = quoted(topic);
    let attribute = |name: &str, value: &str| {
        sns(format!(
            "set-topic-attributes --topic-arn {arn} --attribute-name {name} --attribute-value {}",
            quoted(value)
        ))
    };
    done.by_hand(
        format!("let SES publish to {topic}, with signatures by SHA-256; this replaces the topic's policy: where it has \
                 other statements, add the second one to them instead"),
        vec![attribute("SignatureVersion", "2"), attribute("Policy", &policy(topic, account).to_string())],
    );
    let dead = format!("{name}-undelivered");
    let queue = format!("arn:{partition}:sqs:{region}:{account}:{dead}");
    let may_put = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": { "Service": "sns.amazonaws.com" }, "Action": "sqs:SendMessage",
        "Resource": queue, "Condition": { "ArnEquals": { "aws:SourceArn": topic } },
    }] });
    let attributes = json!({ "MessageRetentionPeriod": KEPT_SECONDS, "Policy": may_put.to_string() });
    done.by_hand(
        "keep what could not be delivered here within the hour that SNS tries, in a queue; without one it is lost",
        vec![format!(
            "aws sqs create-queue --queue-name {} --region {} --attributes {}",
            quoted(&dead),
            quoted(region),
            quoted(&attributes.to_string())
        )],
    );
    let subscription = json!({
        "RawMessageDelivery": "false",
        "DeliveryPolicy": json!({ "healthyRetryPolicy": {
            "numRetries": RETRIES, "minDelayTarget": RETRY_SECONDS, "maxDelayTarget": RETRY_SECONDS,
        } }).to_string(),
        "RedrivePolicy": json!({ "deadLetterTargetArn": queue }).to_string(),
    });
    let protocol = if wanted.url.starts_with("https:") { "https" } else { "http" };
    done.by_hand(
        "subscribe the relay, which confirms it by itself; raw delivery stays off, since it has no signature",
        vec![sns(format!(
            "subscribe --topic-arn {arn} --protocol {protocol} --notification-endpoint {} --attributes {}",
            quoted(wanted.url),
            quoted(&subscription.to_string())
        ))],
    );
}

/// The owner's rights as SNS gives them to a new topic, and that of SES.
fn policy(topic: &str, account: &str) -> Value {
    json!({ "Version": "2012-10-17", "Statement": [
        {
            "Sid": "owner", "Effect": "Allow", "Principal": { "AWS": "*" }, "Resource": topic,
            "Action": [
                "SNS:GetTopicAttributes", "SNS:SetTopicAttributes", "SNS:AddPermission", "SNS:RemovePermission",
                "SNS:DeleteTopic", "SNS:Subscribe", "SNS:ListSubscriptionsByTopic", "SNS:Publish",
            ],
            "Condition": { "StringEquals": { "aws:SourceOwner": account } },
        },
        {
            "Sid": "ses", "Effect": "Allow", "Principal": { "Service": "ses.amazonaws.com" }, "Resource": topic,
            "Action": "SNS:Publish", "Condition": { "StringEquals": { "aws:SourceAccount": account } },
        },
    ] })
}

fn said(reply: &HttpReply, set: &str) -> String {
    let told = Told::of(reply);
    let words = told.said(reply);
    match (reply.status, told.name.as_str()) {
        (403, "AccessDeniedException" | "AccessDenied") => format!(
            "{words}; allow this key ses:GetConfigurationSetEventDestinations, \
             ses:CreateConfigurationSetEventDestination and ses:UpdateConfigurationSetEventDestination"
        ),
        (404, _) => format!(
            "{words}; make it: aws sesv2 create-configuration-set --configuration-set-name {}",
            quoted(set)
        ),
        _ => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::esp::setup::testing::{Script, states};
    use crate::esp::webhook::WebhookSettings;

    const URL: &str = "https://mail.example.com/webhooks/ses-main";
    const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:ses-events";

    fn webhook(topics: &[&str]) -> WebhookSettings {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        WebhookSettings { proven: true, by: ProvenBy::Sns { topics, require_v2: false, endpoint: None } }
    }

    fn list(destination: &Value) -> Value {
        json!({ "EventDestinations": [{ "Name": "cloudwatch", "Enabled": true }, destination] })
    }

    fn known(enabled: bool, kinds: &[&str], topic: &str) -> Value {
        json!({ "Name": "mine", "Enabled": enabled, "MatchingEventTypes": kinds, "SnsDestination": { "TopicArn": topic } })
    }

    async fn ask(
        answers: &[(u16, Value)],
        set: Option<&str>,
        topics: &[&str],
        apply: bool,
    ) -> (Arranged, Script) {
        let (script, webhook) = (Script::new(answers), webhook(topics));
        let wanted = Wanted { esp: "ses-main", url: URL, webhook: &webhook };
        let done = set_up(wanted, ("eu-central-1", set), apply, &script).await;
        (done, script)
    }

    #[tokio::test]
    async fn a_destination_is_there_made_or_completed_and_anothers_is_left_alone() {
        let whole = (200, list(&known(true, &EVENTS, TOPIC)));
        let (done, script) = ask(&[whole], Some("cs"), &[TOPIC], true).await;
        assert_eq!((states(&done), script.lines().len()), (vec!["there"], 1));

        let part = (200, list(&known(false, &["BOUNCE", "NEWER"], TOPIC)));
        let (done, _) = ask(std::slice::from_ref(&part), Some("cs"), &[TOPIC], false).await;
        assert!(done.things[0].said.starts_with("mine lacks enabled, SEND, REJECT, COMPLAINT"), "{done:?}");
        let (done, script) = ask(&[part, (200, json!({}))], Some("cs"), &[TOPIC], true).await;
        assert_eq!(states(&done), ["changed"]);
        let Errand::Ses(SesErrand::Publish { destination, new: false, .. }) =
            script.asked.lock().unwrap()[1].clone()
        else {
            panic!("{:?}", script.lines())
        };
        assert_eq!((destination.name.as_str(), destination.kinds.len()), ("mine", 11));
        assert!(destination.kinds.contains(&"NEWER".to_owned()));

        let others = (200, list(&known(true, &EVENTS, "arn:aws:sns:eu-central-1:123456789012:others")));
        let (done, script) = ask(&[others, (200, json!({}))], Some("cs"), &[TOPIC], true).await;
        assert_eq!(states(&done), ["made"]);
        let made = of("postroad-ses-main", TOPIC, &[]);
        let publish = SesErrand::Publish { set: "cs".into(), destination: made, new: true };
        assert_eq!(script.asked.lock().unwrap()[1], Errand::Ses(publish));
    }

    #[tokio::test]
    async fn what_sns_needs_is_told_as_commands_with_the_names_filled_in() {
        let (done, _) = ask(&[(200, list(&known(true, &EVENTS, TOPIC)))], Some("cs"), &[TOPIC], false).await;
        let commands: Vec<&String> = done.by_hand.iter().flat_map(|by_hand| &by_hand.commands).collect();
        let whole = commands.iter().map(|c| c.as_str()).collect::<Vec<_>>().join("\n");
        for part in [
            "--attribute-name SignatureVersion --attribute-value '2'",
            "\"Service\":\"ses.amazonaws.com\"",
            "\"aws:SourceAccount\":\"123456789012\"",
            "aws sqs create-queue --queue-name 'ses-events-undelivered' --region 'eu-central-1'",
            "--protocol https --notification-endpoint 'https://mail.example.com/webhooks/ses-main'",
            r#"\"numRetries\":100"#,
            r#""RawMessageDelivery":"false""#,
            r#"{\"deadLetterTargetArn\":\"arn:aws:sqs:eu-central-1:123456789012:ses-events-undelivered\"}"#,
        ] {
            assert!(whole.contains(part), "{part}\n{whole}");
        }
    }

    #[tokio::test]
    async fn what_is_not_written_comes_first() {
        let (done, script) = ask(&[], None, &[], true).await;
        assert_eq!((states(&done), script.lines().len()), (vec!["missing", "missing"], 0));
        let commands: Vec<&str> = done.by_hand.iter().map(|by_hand| by_hand.commands[0].as_str()).collect();
        assert_eq!(
            commands,
            [
                "aws sesv2 create-configuration-set --region eu-central-1 --configuration-set-name postroad",
                "aws sns create-topic --region eu-central-1 --name postroad-ses-main",
            ]
        );
        let (done, _) = ask(&[(404, json!({ "message": "no such set" }))], Some("cs"), &[TOPIC], true).await;
        assert_eq!(states(&done), ["failed"]);
        assert!(done.things[0].said.contains("create-configuration-set"), "{done:?}");
    }
}
