//! An ESP is told where its events are to come, and a trial is followed from the public URL to the database.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::esps::{Postmark, Sendgrid, Ses, ses};
use crate::support::hooks::{Grid, Sns, TOPIC};
use crate::support::relay::free_port;
use crate::support::tls::pki;
use crate::support::{Relay, wait_until};

const BOUND: Duration = Duration::from_secs(20);
const PASSWORD: &str = "quite-secret-0815";

/// A relay whose webhooks are at a port of their own, which is its public URL.
fn start(esp: &str) -> (Relay, String) {
    let public = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let http = format!("public_address = \"{public}\"\npublic_url = \"http://{public}/\"");
    let relay = Relay::setup().http(&http).tables(esp).start();
    wait_until("its public port listens", BOUND, || TcpStream::connect(public).is_ok());
    (relay, format!("http://{public}"))
}

fn grid_esp(grid: &Sendgrid, more: &str) -> String {
    format!(
        "[[esp]]\nname = \"grid\"\ntype = \"sendgrid\"\napi_key = \"{}\"\nendpoint = \"{}\"\nsmtp_endpoint = \"smtp://{}\"\n{more}\n",
        grid.key(),
        grid.url(),
        grid.smtp().address()
    )
}

fn mark_esp(mark: &Postmark) -> String {
    format!(
        "[[esp]]\nname = \"mark\"\ntype = \"postmark\"\ntransport = \"api\"\nserver_token = \"{}\"\nendpoint = \"{}\"\n\
         webhook_user = \"hook\"\nwebhook_password = \"{PASSWORD}\"\nwebhook_headers = {{ X-Proof = \"shibboleth\" }}\n",
        mark.key(),
        mark.url()
    )
}

fn states(line: &Value) -> Vec<&str> {
    line["things"].as_array().unwrap().iter().map(|thing| thing["state"].as_str().unwrap()).collect()
}

/// Each step of a trial with whether it went well.
fn steps(line: &Value) -> Vec<(&str, bool)> {
    let all = line["steps"].as_array().unwrap();
    all.iter().map(|step| (step["step"].as_str().unwrap(), step["ok"].as_bool().unwrap())).collect()
}

fn changes(seen: &[crate::support::esps::Seen]) -> usize {
    seen.iter().filter(|one| one.request.method != "GET").count()
}

#[test]
fn sendgrid_is_set_up_once_and_the_key_that_it_tells_is_printed() {
    let grid = Sendgrid::start();
    let (relay, base) = start(&grid_esp(&grid, "transport = \"smtp\""));
    let looked = relay.cli(&["esp", "setup", "grid", "--json"]).must(0).json().remove(0);
    assert_eq!((states(&looked), &looked["applied"]), (vec!["missing", "missing"], &json!(false)));
    assert_eq!(looked["url"], format!("{base}/webhooks/grid"));
    assert_eq!(changes(&grid.requests()), 0, "it was only looked");

    let told = relay.cli(&["esp", "setup", "grid", "--apply"]).must(0).out;
    let key = format!("\nwebhook_public_key = \"{}\"\n", grid.hooks().public_key());
    assert!(told.contains(&key) && told.contains("grid: the provider was changed as said above"), "{told}");
    let made = grid.hooks().all();
    assert_eq!((made[0]["url"].as_str(), &made[0]["spam_report"]), (looked["url"].as_str(), &json!(true)));

    let before = changes(&grid.requests());
    let again = relay.cli(&["esp", "setup", "grid", "--apply"]).must(0).out;
    assert!(again.contains("grid: nothing was changed at the provider") && again.contains(&key), "{again}");
    assert_eq!((grid.hooks().all(), changes(&grid.requests())), (made, before));
    assert_eq!(grid.count(), 0);
}

#[test]
fn the_webhooks_of_others_are_left_alone_and_what_the_key_may_not_do_is_told() {
    let grid = Sendgrid::start();
    let (relay, _) = start(&grid_esp(&grid, ""));
    let others = json!({ "id": "theirs", "url": "https://other.example/hook", "enabled": true });
    grid.hooks().add(&others);
    let apply = ["esp", "setup", "grid", "--apply"];
    let ran = relay.cli(&apply).must(1);
    assert!(ran.out.contains("SendGrid allows this account 1 webhooks"), "{}", ran.out);
    assert!(ran.err.contains("grid is not set up"), "{}", ran.err);
    assert_eq!(grid.hooks().all(), json!([others]));

    *grid.hooks().most.lock().unwrap() = 2;
    grid.hooks().allowed.store(false, Ordering::SeqCst);
    let ran = relay.cli(&apply).must(1);
    assert!(ran.out.contains("the key may not do this: HTTP 403"), "{}", ran.out);
    grid.hooks().allowed.store(true, Ordering::SeqCst);
    relay.cli(&apply).must(0);
    assert_eq!(grid.hooks().all()[0], others);

    let stranger = Sendgrid::start_with("SG.another-key", &Default::default()).unwrap();
    let esp = grid_esp(&grid, "").replace(&grid.url(), &stranger.url());
    let (relay, _) = start(&esp);
    let ran = relay.cli(&["esp", "setup", "grid", "--json"]).must(1);
    let line = ran.json().remove(0);
    assert_eq!(states(&line), ["failed"]);
    assert!(
        line["things"][0]["said"].as_str().unwrap().starts_with("SendGrid does not know this key"),
        "{line}"
    );
}

#[test]
fn a_trial_of_sendgrid_ends_in_the_database_and_nobody_is_suppressed() {
    let grid = Sendgrid::start();
    let key = format!("webhook_public_key = \"{}\"", grid.hooks().public_key());
    let (relay, base) = start(&grid_esp(&grid, &key));
    let trial = ["webhook", "test", "grid", "--json"];
    let ran = relay.cli(&trial).must(1);
    assert!(
        ran.json()[0]["said"].as_str().unwrap().contains("postroad esp setup grid --apply makes it"),
        "{}",
        ran.out
    );

    relay.cli(&["esp", "setup", "grid", "--apply"]).must(0);
    // SendGrid's events have the same keys each time: the second time they are repeats.
    for _ in 0..2 {
        let line = relay.cli(&trial).must(0).json().remove(0);
        assert_eq!(steps(&line), [("public_url", true), ("trial", true), ("event", true)], "{line}");
    }
    let told = relay.cli(&["events", "--unmatched", "--json"]).must(0).json();
    assert_eq!(told.len(), 11);
    for event in &told {
        assert_eq!(
            (&event["kind"], &event["address"]),
            (&json!("other"), &json!("example@test.com")),
            "{event}"
        );
        assert!(event["detail"].as_str().unwrap().starts_with("test event of the ESP's own: "), "{event}");
    }
    assert!(relay.cli(&["suppress", "list", "--json"]).must(0).json().is_empty());
    let told = relay.cli(&["webhook", "test", "grid"]).must(0).out;
    assert!(told.contains(&format!("{base}/webhooks/grid answers")), "{told}");
    assert!(told.ends_with("grid: its events come here and are taken\n"), "{told}");
}

#[test]
fn a_trial_says_why_a_call_was_refused_and_where_none_came() {
    let grid = Sendgrid::start();
    let another = Grid::new();
    let key = format!("webhook_public_key = \"{}\"", another.public_key());
    let (relay, _) = start(&grid_esp(&grid, &key));
    relay.cli(&["esp", "setup", "grid", "--apply"]).must(0);
    let line = relay.cli(&["webhook", "test", "grid", "--json"]).must(1).json().remove(0);
    assert_eq!(steps(&line), [("public_url", true), ("trial", true), ("event", false)], "{line}");
    let said = line["said"].as_str().unwrap();
    assert!(
        said.starts_with("a call came and was refused (wrong)") && said.contains("postroad esp setup grid"),
        "{said}"
    );

    let nowhere = format!("public_url = \"http://127.0.0.1:{}\"", free_port());
    let relay = Relay::setup().http(&nowhere).tables(&grid_esp(&grid, &key)).start();
    *grid.hooks().most.lock().unwrap() = 2;
    relay.cli(&["esp", "setup", "grid", "--apply"]).must(0);
    let trial = ["webhook", "test", "grid", "--timeout", "1s", "--json"];
    let line = relay.cli(&trial).must(1).json().remove(0);
    assert_eq!(steps(&line), [("public_url", false), ("trial", true), ("event", false)], "{line}");
    assert!(
        line["steps"][0]["said"].as_str().unwrap().contains("cannot be reached from this machine"),
        "{line}"
    );
    assert!(line["said"].as_str().unwrap().starts_with("nothing came within 1 s"), "{line}");
}

#[test]
fn postmark_is_set_up_stream_by_stream_and_tried_without_its_help() {
    let mark = Postmark::start();
    let others =
        json!({ "ID": 7, "Url": "https://other.example/", "MessageStream": "outbound", "Triggers": {} });
    mark.hooks().add(&others);
    let (relay, base) = start(&mark_esp(&mark));
    let mut told = relay.cli(&["esp", "setup", "mark"]).must(0).out;
    assert!(told.contains("webhook of the stream broadcast  missing"), "{told}");
    assert_eq!(mark.hooks().all(), std::slice::from_ref(&others));
    let apply = ["esp", "setup", "mark", "--apply"];
    told += &relay.cli(&apply).must(0).out;
    let made = mark.hooks().all();
    let streams: Vec<&str> = made.iter().map(|hook| hook["MessageStream"].as_str().unwrap()).collect();
    assert_eq!((streams, &made[0]), (vec!["outbound", "outbound", "broadcast"], &others));
    for hook in &made[1..] {
        assert_eq!(hook["Url"], format!("{base}/webhooks/mark"));
        assert_eq!(hook["HttpAuth"], json!({ "Username": "hook", "Password": PASSWORD }));
        assert_eq!(hook["HttpHeaders"], json!([{ "Name": "x-proof", "Value": "shibboleth" }]));
        assert!(hook["Triggers"].as_object().unwrap().values().all(|on| on["Enabled"] == true), "{hook}");
    }
    let before = changes(&mark.requests());
    told += &relay.cli(&apply).must(0).out;
    assert!(told.ends_with("mark: nothing was changed at the provider\n"), "{told}");
    assert_eq!((mark.hooks().all(), changes(&mark.requests())), (made, before));

    for _ in 0..2 {
        let line = relay.cli(&["webhook", "test", "mark", "--json"]).must(0).json().remove(0);
        assert_eq!(steps(&line), [("public_url", true), ("event", true)], "{line}");
        told += &line.to_string();
    }
    let events = relay.cli(&["events", "--unmatched", "--json"]).must(0).json();
    let whom: Vec<_> =
        events.iter().map(|e| (e["kind"].as_str().unwrap(), e["address"].as_str().unwrap())).collect();
    assert_eq!(whom, [("delivered", "webhook-test@example.com"); 2]);
    assert!(relay.cli(&["suppress", "list", "--json"]).must(0).json().is_empty());
    assert!(!format!("{told}{}", relay.log()).contains(PASSWORD), "the password is nobody's to see");
}

#[test]
fn a_trial_tells_when_another_server_answers_at_the_public_url() {
    let (mark, other) = (Postmark::start(), Postmark::start());
    let http = format!("public_url = \"{}\"", other.url());
    let relay = Relay::setup().http(&http).tables(&mark_esp(&mark)).start();
    let line = relay.cli(&["webhook", "test", "mark", "--json"]).must(1).json().remove(0);
    assert_eq!(steps(&line), [("public_url", false), ("event", false)], "{line}");
    let said = line["steps"][0]["said"].as_str().unwrap();
    assert!(said.contains("answers 401, but the call did not come to this relay"), "{said}");
}

#[test]
fn a_trial_at_a_private_ca_says_what_to_do_and_does_it_where_that_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, ..) = pki().write(folder.path());
    for known in [false, true] {
        let mark = Postmark::start();
        let public = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let http = format!("public_address = \"{public}\"\npublic_url = \"https://{public}\"");
        let mut setup = Relay::setup().https().http(&http).tables(&mark_esp(&mark));
        if known {
            setup = setup.env("SSL_CERT_FILE", ca.to_str().unwrap());
        }
        let relay = setup.start();
        wait_until("its public port listens", BOUND, || TcpStream::connect(public).is_ok());
        let ran = relay.cli(&["webhook", "test", "mark", "--json"]).must(i32::from(!known));
        let line = ran.json().remove(0);
        assert_eq!(steps(&line), [("public_url", known), ("event", known)], "{line}");
        let said = line["steps"][0]["said"].as_str().unwrap();
        assert_eq!(said.contains("SSL_CERT_FILE"), !known, "{said}");
        assert!(!said.contains("ca_file"), "no key of that name is about public_url: {said}");
    }
}

#[test]
fn amazon_publishes_to_the_topic_the_rest_is_told_as_commands_and_a_mail_to_the_simulator_is_followed() {
    let (amazon, sns) = (Ses::start(), Sns::start());
    amazon.only_configuration_sets(&["cs"]);
    let others = json!({ "Enabled": true, "MatchingEventTypes": ["BOUNCE"], "CloudWatchDestination": {} });
    amazon.destinations().add("cs", "theirs", &others);
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("sns-ca.pem");
    std::fs::write(&ca_file, &sns.ca_pem).unwrap();
    let (relay, base) = start(&format!(
        "[[esp]]\nname = \"amazon\"\ntype = \"ses\"\ntransport = \"api\"\nregion = \"{}\"\naccess_key_id = \"{}\"\n\
         secret_access_key = \"{}\"\nendpoint = \"{}\"\nsns_endpoint = \"https://{}\"\nca_file = \"{}\"\n\
         webhook_topics = [\"{TOPIC}\"]\nconfiguration_set = \"cs\"\n",
        ses::REGION,
        ses::ACCESS_KEY_ID,
        ses::SECRET,
        amazon.url(),
        sns.at,
        ca_file.display()
    ));
    let told = relay.cli(&["esp", "setup", "amazon"]).must(0).out;
    assert!(
        told.contains("missing") && told.contains("\n  aws sns subscribe --topic-arn 'arn:aws:sns:"),
        "{told}"
    );
    assert!(
        told.contains(&format!("--protocol http --notification-endpoint '{base}/webhooks/amazon'")),
        "{told}"
    );
    relay.cli(&["esp", "setup", "amazon", "--apply"]).must(0);
    let made = amazon.destinations().of("cs");
    assert_eq!((made.len(), &made[1].1), (2, &others));
    assert_eq!(
        (made[0].0.as_str(), &made[0].1["SnsDestination"]["TopicArn"]),
        ("postroad-amazon", &json!(TOPIC))
    );
    let again = relay.cli(&["esp", "setup", "amazon", "--apply"]).must(0).out;
    assert!(again.ends_with("amazon: nothing was changed at the provider\n"), "{again}");
    assert_eq!(amazon.destinations().of("cs"), made);

    let ran = relay.cli(&["webhook", "test", "amazon"]).must(1);
    assert!(ran.out.contains("--from ADDRESS"), "{}", ran.out);
    let at = relay.http().unwrap();
    let line = std::thread::scope(|threads| {
        let trial = threads.spawn(|| {
            relay
                .cli(&["webhook", "test", "amazon", "--from", "app@example.org", "--json"])
                .must(0)
                .json()
                .remove(0)
        });
        let taken = amazon.wait_for(1).remove(0);
        assert_eq!(taken.to, ["success@simulator.amazonses.com"]);
        let message = json!({
            "eventType": "Delivery", "mail": {
                "messageId": taken.id, "destination": taken.to, "tags": {"postroad-attempt": [taken.attempt]},
            },
            "delivery": { "recipients": taken.to, "smtpResponse": "250 2.6.0 Message received" },
        });
        let call = sns.signed("Notification", &json!({ "Message": message.to_string() }));
        assert_eq!(sns.post(at, "/webhooks/amazon", &call).status, 200);
        trial.join().unwrap()
    });
    assert_eq!(steps(&line), [("public_url", true), ("trial", true), ("event", true)], "{line}");
}

#[test]
fn what_has_no_webhook_says_so_and_without_a_public_url_the_key_is_named() {
    let grid = Sendgrid::start();
    let tables = format!(
        "{}[[esp]]\nname = \"box\"\ntype = \"sandbox\"\n[[esp]]\nname = \"host\"\ntype = \"smtp\"\naddress = \"127.0.0.1:{}\"\ntls = \"off\"\n",
        grid_esp(&grid, ""),
        free_port()
    );
    let relay = Relay::setup().tables(&tables).start();
    for name in ["box", "host"] {
        let told = relay.cli(&["esp", "setup", name, "--apply"]).must(0).out;
        assert_eq!(
            told,
            format!("{name}: nothing to set up, an ESP of this type tells nothing by webhook\n")
        );
        assert!(relay.cli(&["webhook", "test", name]).must(1).out.contains("tells nothing by webhook"));
    }
    for arguments in [&["esp", "setup", "grid"][..], &["webhook", "test", "grid"][..]] {
        let ran = relay.cli(arguments).must(2);
        assert!(ran.err.contains("[http] public_url is not set"), "{}", ran.err);
    }
    relay.cli(&["esp", "setup", "nobody"]).must(3);
    relay.cli(&["webhook", "test", "no/body"]).must(3);
    relay.cli(&["webhook", "test", "grid", "--timeout", "1h"]).must(2);
    assert!(grid.requests().is_empty(), "nothing is asked of an ESP for no URL");
}
