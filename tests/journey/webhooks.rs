//! What came back: mail in, the ESP takes it and tells later what became of it, and the next mail goes by that.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::esps::{Fault, Postmark, Sendgrid, Ses, sendgrid, ses};
use crate::support::hooks::{Grid, Sns, TOPIC, now_secs};
use crate::support::http::post_with;
use crate::support::relay::{Setup, free_port};
use crate::support::{Relay, Upstream, http, wait_until};

const BOUND: Duration = Duration::from_secs(20);
const FAST: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"60s\"\n";

fn mail(subject: &str) -> Vec<u8> {
    format!("From: Shop <shop@example.org>\r\nTo: gone@example.com\r\nSubject: {subject}\r\n\r\nhello\r\n")
        .into_bytes()
}

fn life(relay: &Relay, id: &str) -> Value {
    relay.get(&format!("/v1/messages/{id}")).unwrap().json()
}

fn grid_relay(grid: &Sendgrid, hook: &Grid) -> Relay {
    grid_setup(grid, hook).start()
}

fn grid_setup(grid: &Sendgrid, hook: &Grid) -> Setup {
    let esp = format!(
        "[[esp]]\nname = \"grid\"\ntype = \"sendgrid\"\ntransport = \"api\"\napi_key = \"{}\"\nendpoint = \"{}\"\n\
         timeout = \"2s\"\nwebhook_public_key = \"{}\"\n",
        grid.key(),
        grid.url(),
        hook.public_key()
    );
    Relay::setup().tables(&esp).tables(FAST)
}

/// The next mail to whom it bounced for is refused at RCPT, and `explain` has the whole story.
fn refused_from_now_on(relay: &Relay, id: &str, words: &str) {
    let mut client = relay.client();
    client.say("MAIL FROM:<shop@example.org>").expect("250");
    let reply = client.say("RCPT TO:<gone@example.com>").expect("550");
    let told = reply.text();
    assert!(told.contains("5.1.1 <gone@example.com>: suppressed (hard bounce"), "{told}");
    client.say("RCPT TO:<other@example.com>").expect("250");
    let told = relay.cli(&["explain", id]).must(0).out;
    // The ESP's clock has whole seconds, and the event came after the attempt all the same.
    let story = [
        "attempt 1 by",
        "bounced (hard): ",
        words,
        "with the id that went with attempt 1",
        "so the address was suppressed (hard_bounce)",
    ];
    let places = story.map(|words| told.find(words));
    assert!(places.is_sorted() && places[0].is_some(), "{told}");
    let life = life(relay, id);
    assert_eq!(life["deliveries"][0]["known"], "bounced");
    let event = life["events"].as_array().unwrap().iter().find(|event| event["kind"] == "bounced").unwrap();
    assert_eq!((&event["class"], &event["joined_by"]), (&json!("hard"), &json!("attempt_id")), "{event}");
    let on_list = &event["suppressed"];
    assert_eq!((&on_list["reason"], &on_list["by_this_event"]), (&json!("hard_bounce"), &json!(true)));
}

#[test]
fn what_sendgrid_bounces_is_refused_the_next_time() {
    let (grid, hook) = (Sendgrid::start(), Grid::new());
    let relay = grid_relay(&grid, &hook);
    let id = relay.submit("shop@example.org", &["gone@example.com"], &mail("first"));
    let taken = grid.wait_for(1).remove(0);
    let bounce = json!([{
        "event": "bounce", "type": "bounce", "email": "gone@example.com", "status": "5.1.1", "timestamp": now_secs(),
        "reason": "550 5.1.1 no such user", "sg_event_id": "e-1", "sg_message_id": format!("{}.filter", taken.id),
        "postroad_attempt": taken.attempt,
    }]);
    let at = relay.http().unwrap();
    let answer = hook.post(at, "/webhooks/grid", &bounce);
    assert_eq!((answer.status, answer.json()), (200, json!({"taken": 1, "repeated": 0, "unmatched": 0})));
    let answer = hook.post(at, "/bounce-webhook", &bounce);
    assert_eq!((answer.status, answer.json()), (200, json!({"taken": 0, "repeated": 1, "unmatched": 0})));
    refused_from_now_on(&relay, &id, "550 5.1.1 no such user");
    assert_eq!(relay.metric("postroad_webhook_events_total{esp=\"grid\",kind=\"bounced\"}"), 1.0);
}

#[test]
fn what_postmark_bounces_is_refused_the_next_time() {
    let mark = Postmark::start();
    let esp = format!(
        "[[esp]]\nname = \"mark\"\ntype = \"postmark\"\ntransport = \"api\"\nserver_token = \"{}\"\nendpoint = \"{}\"\n\
         webhook_user = \"hook\"\nwebhook_password = \"quite-secret\"\nwebhook_headers = {{ X-Proof = \"shibboleth\" }}\n",
        mark.key(),
        mark.url()
    );
    let relay = Relay::setup().tables(&esp).tables(FAST).start();
    let id = relay.submit("shop@example.org", &["gone@example.com"], &mail("first"));
    let taken = mark.wait_for(1).remove(0);
    let bounce = json!({
        "RecordType": "Bounce", "ID": 7, "Type": "HardBounce", "Email": "gone@example.com", "MessageID": taken.id,
        "Details": "smtp;550 5.1.1 nobody here", "BouncedAt": "2026-11-01T00:00:00Z", "Inactive": true,
        "Metadata": {"postroad-attempt": taken.attempt},
    })
    .to_string();
    let at = relay.http().unwrap();
    let login = format!("Basic {}", STANDARD.encode("hook:quite-secret"));
    let post = |fields: &[(&str, &str)]| post_with(at, "/webhooks/mark", None, fields, &bounce).unwrap();
    for wrong in [&[][..], &[("Authorization", login.as_str())], &[("X-Proof", "shibboleth")]] {
        assert_eq!(post(wrong).status, 401, "{wrong:?}");
    }
    relay.client().say("MAIL FROM:<shop@example.org>").expect("250");
    assert_eq!(post(&[("Authorization", &login), ("X-Proof", "shibboleth")]).status, 200);
    refused_from_now_on(&relay, &id, "550 5.1.1 nobody here");
}

fn amazon_relay(amazon: &Ses, sns: &Sns, folder: &Path) -> Relay {
    let ca_file = folder.join("sns-ca.pem");
    std::fs::write(&ca_file, &sns.ca_pem).unwrap();
    let esp = format!(
        "[[esp]]\nname = \"amazon\"\ntype = \"ses\"\ntransport = \"api\"\nregion = \"{}\"\naccess_key_id = \"{}\"\n\
         secret_access_key = \"{}\"\nendpoint = \"{}\"\nsns_endpoint = \"https://{}\"\nca_file = \"{}\"\n\
         webhook_topics = [\"{TOPIC}\"]\n",
        ses::REGION,
        ses::ACCESS_KEY_ID,
        ses::SECRET,
        amazon.url(),
        sns.at,
        ca_file.display()
    );
    Relay::setup().tables(&esp).tables(FAST).start()
}

#[test]
fn what_amazon_bounces_is_refused_the_next_time() {
    let (amazon, sns) = (Ses::start(), Sns::start());
    let folder = tempfile::tempdir().unwrap();
    let relay = amazon_relay(&amazon, &sns, folder.path());
    let at = relay.http().unwrap();
    let confirm = json!({
        "Token": "t", "Message": "You have chosen to subscribe",
        "SubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&Token=t",
    });
    assert_eq!(
        sns.post(at, "/webhooks/amazon", &sns.signed("SubscriptionConfirmation", &confirm)).status,
        200
    );
    let asked = sns.asked();
    assert!(
        asked.iter().any(|line| line.starts_with("GET /?Action=ConfirmSubscription&Token=t ")),
        "{asked:?}"
    );
    let id = relay.submit("shop@example.org", &["gone@example.com"], &mail("first"));
    let taken = amazon.wait_for(1).remove(0);
    let message = json!({
        "eventType": "Bounce", "mail": {
            "messageId": taken.id, "destination": ["gone@example.com"], "tags": {"postroad-attempt": [taken.attempt]},
        },
        "bounce": {
            "bounceType": "Permanent", "bounceSubType": "General", "feedbackId": "f-1", "bouncedRecipients": [
                {"emailAddress": "gone@example.com", "status": "5.1.1", "diagnosticCode": "smtp; 550 5.1.1 user unknown"},
            ],
        },
    });
    let call = sns.signed("Notification", &json!({"Message": message.to_string()}));
    let mut forged = call.clone();
    forged["Message"] = json!(message.to_string().replace("gone@", "victim@"));
    for (name, value) in [("TopicArn", "arn:aws:sns:us-east-1:222222222222:other"), ("SignatureVersion", "1")]
    {
        let mut other = call.clone();
        other[name] = json!(value);
        assert_eq!(sns.post(at, "/webhooks/amazon", &other).status, 401, "{name}");
    }
    assert_eq!(sns.post(at, "/webhooks/amazon", &forged).status, 401);
    let mut nowhere = call.clone();
    nowhere["SigningCertURL"] =
        json!("https://sns.us-east-1.amazonaws.com/SimpleNotificationService-ffff.pem");
    assert_eq!(sns.post(at, "/webhooks/amazon", &nowhere).status, 401, "anybody can name what is not there");
    assert_eq!(sns.post(at, "/bounce-webhook?esp=amazon", &call).status, 200);
    assert_eq!(sns.asked().iter().filter(|line| line.contains("-0a1b.pem ")).count(), 1, "it is kept");
    refused_from_now_on(&relay, &id, "550 5.1.1 user unknown");
}

/// A message that SES took, while the answer was lost; and SES's id of it.
fn held_at(relay: &Relay, amazon: &Ses) -> (String, String) {
    amazon.fail(Fault::TakeThenCut, 1);
    let id = relay.submit("shop@example.org", &["gone@example.com"], &mail("unsure"));
    let taken = amazon.wait_for(1).remove(0);
    wait_until("it is held", BOUND, || life(relay, &id)["deliveries"][0]["state"] == "unsure");
    (id, taken.id)
}

/// As SES tells an identity's owner of that mail: nothing of what went with the call comes back.
fn notify(relay: &Relay, sns: &Sns, id: &str, kind: &str, part: &str, what: &Value) {
    let taken_at = jiff::Timestamp::from_second(now_secs() as i64).unwrap().to_string();
    let mail = json!({
        "messageId": id, "timestamp": taken_at, "source": "shop@example.org", "destination": ["gone@example.com"],
    });
    let message = json!({ "notificationType": kind, "mail": mail, part: what }).to_string();
    let call = sns.signed("Notification", &json!({ "Message": message }));
    assert_eq!(sns.post(relay.http().unwrap(), "/webhooks/amazon", &call).status, 200);
}

#[test]
fn what_was_paused_while_it_was_unsure_is_found_and_goes_no_more_when_it_is_released() {
    let (amazon, sns) = (Ses::start(), Sns::start());
    let folder = tempfile::tempdir().unwrap();
    let relay = amazon_relay(&amazon, &sns, folder.path());
    let (id, taken) = held_at(&relay, &amazon);
    let state = || life(&relay, &id)["deliveries"][0]["state"].clone();
    relay.cli(&["queue", "pause", &id]).must(0);
    assert_eq!(state(), "paused");
    let arrived = json!({ "recipients": ["gone@example.com"], "smtpResponse": "250 ok" });
    notify(&relay, &sns, &taken, "Delivery", "delivery", &arrived);
    assert_eq!(state(), "done");
    relay.cli(&["queue", "release", &id]);
    // What is sent after it has been sent once that is there.
    relay.submit("shop@example.org", &["other@example.com"], &mail("later"));
    amazon.wait_for(2);
    assert_eq!(life(&relay, &id)["attempts"].as_array().unwrap().len(), 1);
}

#[test]
fn strangers_that_name_other_certificates_do_not_push_out_the_one_that_signs() {
    let (amazon, sns) = (Ses::start(), Sns::start());
    let folder = tempfile::tempdir().unwrap();
    let relay = amazon_relay(&amazon, &sns, folder.path());
    let at = relay.http().unwrap();
    let message =
        json!({ "eventType": "Send", "mail": { "messageId": "m", "destination": ["a@example.com"] } });
    let call = sns.signed("Notification", &json!({ "Message": message.to_string() }));
    assert_eq!(sns.post(at, "/webhooks/amazon", &call).status, 200);
    for n in 0..40 {
        let mut other = call.clone();
        let name = format!("SimpleNotificationService-{n}x.pem");
        other["SigningCertURL"] = json!(format!("https://sns.us-east-1.amazonaws.com/{name}"));
        assert!(matches!(sns.post(at, "/webhooks/amazon", &other).status, 401 | 429), "{n}");
        assert!(sns.asked().last().unwrap().contains(&name), "{n}: it is asked for");
    }
    assert_eq!(sns.post(at, "/webhooks/amazon", &call).status, 200);
    assert_eq!(sns.asked().iter().filter(|line| line.contains("-0a1b.pem ")).count(), 1, "it is kept");
}

#[test]
fn an_identitys_notification_settles_a_call_whose_answer_was_lost() {
    let (amazon, sns) = (Ses::start(), Sns::start());
    let folder = tempfile::tempdir().unwrap();
    let relay = amazon_relay(&amazon, &sns, folder.path());
    let (id, taken) = held_at(&relay, &amazon);
    let tell = |kind: &str, part: &str, what: Value| notify(&relay, &sns, &taken, kind, part, &what);
    tell("Delivery", "delivery", json!({ "recipients": ["gone@example.com"], "smtpResponse": "250 ok" }));
    let told = life(&relay, &id);
    assert_eq!(
        (&told["deliveries"][0]["state"], &told["deliveries"][0]["known"]),
        (&json!("done"), &json!("delivered"))
    );
    assert_eq!(told["attempts"][0]["remote_id"], taken, "the answer would have told it");
    // What comes later has that to go by.
    let complained = json!([{ "emailAddress": "gone@example.com" }]);
    tell("Complaint", "complaint", json!({ "complainedRecipients": complained, "feedbackId": "f-1" }));
    let told = life(&relay, &id);
    let events = told["events"].as_array().unwrap();
    let joined = |kind: &str| {
        let event = events.iter().find(|event| event["kind"] == kind).unwrap();
        (event["joined_by"].clone(), event["confidence"].clone())
    };
    assert_eq!(joined("delivered"), (json!("recipient_and_time"), json!(0.5)));
    assert_eq!(joined("complained"), (json!("provider_id"), json!(0.9)));
    let words = relay.cli(&["explain", &id]).must(0).out;
    assert!(words.contains("attempt 1 alone fits by recipient and time (confidence 0.5)"), "{words}");
    assert_eq!(amazon.count(), 1);
}

#[test]
fn what_is_unsure_is_settled_by_its_event_and_not_sent_again() {
    let (grid, hook) = (Sendgrid::start(), Grid::new());
    let relay = grid_relay(&grid, &hook);
    grid.fail(Fault::TakeThenCut, 1);
    let id = relay.submit("shop@example.org", &["gone@example.com"], &mail("unsure"));
    let taken = grid.wait_for(1).remove(0);
    wait_until("it is held", BOUND, || life(&relay, &id)["deliveries"][0]["state"] == "unsure");
    let delivered = json!([{
        "event": "delivered", "email": "gone@example.com", "response": "250 ok", "sg_event_id": "e-2",
        "timestamp": now_secs(), "postroad_attempt": taken.attempt,
    }]);
    assert_eq!(hook.post(relay.http().unwrap(), "/webhooks/grid", &delivered).status, 200);
    let life = life(&relay, &id);
    assert_eq!(
        (&life["deliveries"][0]["state"], &life["deliveries"][0]["known"]),
        (&json!("done"), &json!("delivered"))
    );
    assert_eq!(grid.count(), 1);
}

#[test]
fn strangers_learn_nothing_and_broken_bodies_are_theirs_to_mend() {
    let (grid, hook) = (Sendgrid::start(), Grid::new());
    let relay = grid_relay(&grid, &hook);
    let at = relay.http().unwrap();
    let deep = format!("[{}", "[".repeat(500_000));
    let stranger = Grid::new();
    let unknown = hook.post(at, "/webhooks/nobody", &json!([]));
    let forged = stranger.post(at, "/webhooks/grid", &json!([]));
    assert_eq!((unknown.status, forged.status), (401, 401));
    assert_eq!(unknown.body, forged.body, "whether there is such an ESP is nobody's business");
    for (body, status) in [("", 401), ("{", 401), (deep.as_str(), 401)] {
        let answer = post_with(at, "/webhooks/grid", None, &[], body).unwrap();
        assert_eq!(answer.status, status, "{:.20}", body);
    }
    let mut caller = TcpStream::connect(at).unwrap();
    caller.set_read_timeout(Some(BOUND)).unwrap();
    write!(caller, "POST /webhooks/grid HTTP/1.1\r\nHost: {at}\r\nContent-Length: 30000000\r\n\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(caller).read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 413 "), "{line}");
    for (events, status) in [(json!({"not": "a list"}), 400), (json!([null, 7, {"event": []}]), 200)] {
        assert_eq!(hook.post(at, "/webhooks/grid", &events).status, status, "{events}");
    }
}

#[test]
fn a_call_that_has_to_be_read_to_be_proven_is_a_strangers_until_then() {
    let (amazon, sns) = (Ses::start(), Sns::start());
    let folder = tempfile::tempdir().unwrap();
    let relay = amazon_relay(&amazon, &sns, folder.path());
    let at = relay.http().unwrap();
    let unknown = post_with(at, "/webhooks/nobody", None, &[], "{}").unwrap();
    assert_eq!(unknown.status, 401);
    let deep = format!("[{}", "[".repeat(500_000));
    for body in ["", "{}", "[]", "{\"Type\":", "{\"Type\":\"Notification\"}", "\u{0}", deep.as_str()] {
        let answer = post_with(at, "/webhooks/amazon", None, &[], body).unwrap();
        assert_eq!((answer.status, &answer.body), (401, &unknown.body), "{body:.20}");
    }
    let told = relay.log();
    assert!(told.contains("the body is not an SNS message"), "the log says what is wrong: {told}");
    // More than a bucket of theirs holds, and than fills it meanwhile.
    let mut statuses = (0..1_000).map(|_| post_with(at, "/webhooks/amazon", None, &[], "{").unwrap().status);
    assert!(statuses.any(|status| status == 429), "they count as every stranger's");
    let message = json!({"eventType": "Send", "mail": {"destination": ["a@example.com"]}, "send": {}});
    let call = sns.signed("Notification", &json!({"Message": message.to_string()}));
    assert_eq!(sns.post(at, "/webhooks/amazon", &call).status, 200, "what is proven is heard all the same");
    let odd = sns.signed("Notification", &json!({"Message": "none of SES's"}));
    assert_eq!(sns.post(at, "/webhooks/amazon", &odd).status, 400, "and told what is wrong with it");
}

#[test]
fn a_provider_that_a_reload_takes_out_is_a_stranger_at_once() {
    let (grid, hook) = (Sendgrid::start(), Grid::new());
    let relay = grid_relay(&grid, &hook);
    let at = relay.http().unwrap();
    let bounce = |n: u32| {
        json!([{
            "event": "bounce", "type": "bounce", "email": "gone@example.com", "status": "5.1.1", "timestamp": now_secs(),
            "sg_event_id": format!("b-{n}"), "reason": "550 5.1.1 no",
        }])
    };
    let file = relay.folder().join("postroad.toml");
    let with = std::fs::read_to_string(&file).unwrap();
    let (begin, end) = (with.find("[[esp]]").unwrap(), with.find("[[stream]]").unwrap());
    assert!(begin < end, "{with}");
    let without = format!("{}[[esp]]\nname = \"box\"\ntype = \"sandbox\"\n{}", &with[..begin], &with[end..]);
    let reload = |text: &str| {
        std::fs::write(&file, text).unwrap();
        relay.cli(&["reload", "--json"]).must(0).json().remove(0)["warnings"].clone()
    };
    let warnings = reload(&without);
    assert_eq!(warnings[0]["key"], "esp.grid", "{warnings}");
    assert!(warnings[0]["message"].as_str().unwrap().contains("answered 401 from now on"), "{warnings}");
    for path in ["/webhooks/grid", "/bounce-webhook", "/bounce-webhook?esp=grid", "/engagement-webhook"] {
        assert_eq!(hook.post(at, path, &bounce(1)).status, 401, "{path}");
    }
    assert_eq!(relay.cli(&["suppress", "list", "--json"]).must(0).json(), Vec::<Value>::new());
    assert_eq!(reload(&with), json!([]));
    assert_eq!(hook.post(at, "/webhooks/grid", &bounce(2)).status, 200);
    // Without mail of its own it is heard.
    relay.cli(&["esp", "suspend", "grid", "--reason", "leaves"]).must(0);
    assert_eq!(hook.post(at, "/bounce-webhook", &bounce(3)).status, 200);
}

#[test]
fn the_public_port_has_the_webhooks_and_nothing_else() {
    let (grid, hook) = (Sendgrid::start(), Grid::new());
    let public = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let relay = grid_setup(&grid, &hook).http(&format!("public_address = \"{public}\"")).start();
    wait_until("it listens", BOUND, || TcpStream::connect(public).is_ok());
    assert_eq!(
        hook.post(public, "/webhooks/grid", &json!([{"event": "open", "sg_event_id": "o"}])).status,
        200
    );
    let token = std::fs::read_to_string(relay.data_dir().join("admin.token")).unwrap();
    for path in ["/", "/metrics", "/healthz", "/readyz", "/openapi.json", "/v1/messages", "/esp-status"] {
        assert_eq!(http::get(public, path, Some(token.trim())).unwrap().status, 404, "{path}");
    }
}

#[test]
fn a_kind_without_a_name_here_is_known_by_the_providers_own() {
    let (grid, hook) = (Sendgrid::start(), Grid::new());
    let relay = grid_relay(&grid, &hook);
    let event = json!([{"event": "account_status_change", "sg_event_id": "a-1", "timestamp": now_secs()}]);
    assert_eq!(hook.post(relay.http().unwrap(), "/webhooks/grid", &event).status, 200);
    let listed = relay.cli(&["events", "--json", "--limit", "1"]).must(0).json().remove(0);
    assert_eq!((&listed["kind"], &listed["told_as"]), (&json!("other"), &json!("account_status_change")));
    assert_eq!(listed.get("joined_by"), None, "it is of no mail");
    let table = relay.cli(&["events"]).must(0).out;
    assert!(table.contains("other (account_status_change)"), "{table}");
}

#[test]
fn what_is_told_of_nobodys_mail_stays_visible() {
    let (grid, hook) = (Sendgrid::start(), Grid::new());
    let mut relay = grid_relay(&grid, &hook);
    let foreign = json!([
        {"event": "delivered", "email": "reader@example.net", "category": ["spring"], "sg_event_id": "f-1",
         "sg_message_id": "other.filter", "timestamp": now_secs(), "response": "250 ok"},
        {"event": "bounce", "type": "bounce", "email": "dead@example.net", "status": "5.1.1", "sg_event_id": "f-2",
         "timestamp": now_secs(), "reason": "550 5.1.1 nobody"},
    ]);
    let answer = hook.post(relay.http().unwrap(), "/webhooks/grid", &foreign);
    assert_eq!(answer.json(), json!({"taken": 2, "repeated": 0, "unmatched": 2}));
    let listed = relay.cli(&["events", "--unmatched", "--json"]).must(0).json();
    let told = |n: usize| (listed[n]["kind"].as_str().unwrap(), listed[n]["address"].as_str().unwrap());
    assert_eq!(
        (listed.len(), told(0), told(1)),
        (2, ("bounced", "dead@example.net"), ("delivered", "reader@example.net"))
    );
    let suppressed = relay.cli(&["suppress", "list", "--json"]).must(0).json();
    assert_eq!(
        (suppressed.len(), &suppressed[0]["address"]),
        (1, &json!("dead@example.net")),
        "whoever mailed it"
    );
    relay.stop();
    assert_eq!(relay.cli(&["events", "--unmatched", "--json"]).must(0).json(), listed, "without a relay too");
    relay.cli(&["suppress", "rm", "dead@example.net"]).must(0);
    relay.cli(&["suppress", "rm", "dead@example.net"]).must(3);
    relay.cli(&["suppress", "add", "me@example.net", "--evidence", "asked"]).must(0);
    relay.spawn();
    wait_until("it is ready", BOUND, || relay.is_ready());
    let mut client = relay.client();
    client.say("MAIL FROM:<shop@example.org>").expect("250");
    client.say("RCPT TO:<dead@example.net>").expect("250");
    assert!(client.say("RCPT TO:<me@example.net>").expect("550").text().contains("5.7.1"));
}

#[test]
fn who_complains_while_mail_waits_is_not_mailed_again() {
    let (grid, hook) = (Sendgrid::start(), Grid::new());
    let relay = grid_relay(&grid, &hook);
    grid.fail_always(Fault::Answer(sendgrid::unavailable()));
    let id = relay.submit("shop@example.org", &["gone@example.com"], &mail("waits"));
    wait_until("it failed once", BOUND, || life(&relay, &id)["attempts"][0]["outcome"] == "refused");
    let complaint = json!([{
        "event": "spamreport", "email": "gone@example.com", "sg_event_id": "c-1", "timestamp": now_secs(),
    }]);
    assert_eq!(hook.post(relay.http().unwrap(), "/webhooks/grid", &complaint).status, 200);
    grid.heal();
    wait_until("it has an end", BOUND, || life(&relay, &id)["deliveries"][0]["state"] == "done");
    let life = life(&relay, &id);
    assert_eq!((life["deliveries"][0]["reason"].as_str(), grid.count()), (Some("suppressed"), 0), "{life}");
    let told = relay.cli(&["explain", &id]).must(0).out;
    assert!(told.contains("suppressed") && told.contains("complaint"), "{told}");
}

#[test]
fn who_is_suppressed_for_one_kind_of_mail_is_judged_once_its_stream_is_known() {
    let up = Upstream::start();
    let relay = Relay::to(&up);
    relay.cli(&["suppress", "add", "gone@example.com", "--scope", "transactional"]).must(0);
    let submit = |stream: &str| {
        let mut client = relay.client();
        client.begin("shop@example.org", &["gone@example.com"]);
        let fields =
            if stream.is_empty() { String::new() } else { format!("X-Postroad-Stream: {stream}\r\n") };
        client.raw(&[fields.as_bytes(), &mail("x"), b".\r\n"].concat());
        client
    };
    submit("broadcast").expect("250");
    for stream in ["", "transactional"] {
        let told = submit(stream).expect("550").text().to_owned();
        assert!(told.contains("<gone@example.com> is suppressed (manual"), "{told}");
    }
    for (stream, status) in
        [("", 422), (r#""stream":"transactional","#, 422), (r#""stream":"broadcast","#, 202)]
    {
        let body = format!(r#"{{{stream}"from":"shop@example.org","to":["gone@example.com"],"text":"x"}}"#);
        let answer = relay.post("/v1/send", &body).unwrap();
        assert_eq!(answer.status, status, "{stream}: {}", answer.body);
        let told = answer.body.contains("<gone@example.com>: suppressed (manual");
        assert_eq!(told, status == 422, "{stream}: {}", answer.body);
    }
    let both = r#"{"from":"shop@example.org","to":["gone@example.com","here@example.com"],"text":"x"}"#;
    let answer = relay.post("/v1/send", both).unwrap().json();
    let taken =
        |n: usize| (answer["recipients"][n]["taken"].as_bool(), answer["recipients"][n]["code"].as_u64());
    assert_eq!((taken(0), taken(1)), ((Some(false), Some(550)), (Some(true), Some(250))), "{answer}");
    let bound = Relay::setup().upstream(&up, "").listener("stream = \"transactional\"").start();
    bound.cli(&["suppress", "add", "gone@example.com", "--scope", "transactional"]).must(0);
    let mut client = bound.client();
    client.say("MAIL FROM:<shop@example.org>").expect("250");
    client.say("RCPT TO:<gone@example.com>").expect("550");
}
