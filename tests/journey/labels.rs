//! Tags and metadata reach the ESP or are told: one that cannot carry them all is passed over, and where none of the
//! stream's can the mail is refused at the dot, with each one's reason.

use std::time::Duration;

use crate::support::esps::{Postmark, Sendgrid, Ses, ses};
use crate::support::relay::Setup;
use crate::support::{Relay, Upstream, wait_until};

const BOUND: Duration = Duration::from_secs(20);

/// Amazon SES first, then SendGrid, then Postmark.
struct Three {
    amazon: Ses,
    grid: Sendgrid,
    mark: Postmark,
}

impl Three {
    fn start() -> Three {
        Three { amazon: Ses::start(), grid: Sendgrid::start(), mark: Postmark::start() }
    }

    fn setup(&self) -> Setup {
        let (url, region, id, secret) = (self.amazon.url(), ses::REGION, ses::ACCESS_KEY_ID, ses::SECRET);
        Relay::setup().tables(&format!(
            "[[esp]]\nname = \"amazon\"\ntype = \"ses\"\npriority = 1\nregion = \"{region}\"\naccess_key_id = \"{id}\"\n\
             secret_access_key = \"{secret}\"\nendpoint = \"{url}\"\ntransport = \"api\"\n\
             [[esp]]\nname = \"grid\"\ntype = \"sendgrid\"\npriority = 2\napi_key = \"{}\"\nendpoint = \"{}\"\n\
             transport = \"api\"\n\
             [[esp]]\nname = \"mark\"\ntype = \"postmark\"\npriority = 3\nserver_token = \"{}\"\nendpoint = \"{}\"\n\
             transport = \"api\"\n",
            self.grid.key(),
            self.grid.url(),
            self.mark.key(),
            self.mark.url(),
        ))
    }

    fn counts(&self) -> [usize; 3] {
        [self.amazon.count(), self.grid.count(), self.mark.count()]
    }
}

fn mail(fields: &str) -> Vec<u8> {
    format!("From: app@example.org\r\nTo: ok@example.com\r\nSubject: labels\r\n{fields}\r\nhello\r\n")
        .into_bytes()
}

/// What the dot is answered.
fn refused(relay: &Relay, fields: &str) -> String {
    let mut client = relay.client();
    client.begin("app@example.org", &["ok@example.com"]);
    client.raw(&[&mail(fields)[..], b".\r\n"].concat());
    client.expect("554").text()
}

#[test]
fn an_esp_that_cannot_carry_a_label_is_passed_over_with_its_reason() {
    let three = Three::start();
    let relay = three.setup().start();
    for (fields, carried_by) in [
        ("X-Postroad-Tag: spring\r\nX-Postroad-Metadata-Order: 7\r\n", [1, 0, 0]),
        ("X-Postroad-Metadata-Name: J. R\r\n", [1, 1, 0]),
        ("X-Postroad-Tag: gr\u{fc}n\r\n", [1, 1, 1]),
    ] {
        let id = relay.submit("app@example.org", &["ok@example.com"], &mail(fields));
        wait_until(&format!("{fields:?} arrives"), BOUND, || three.counts() == carried_by);
        let told = relay.cli(&["explain", &id]).must(0).out;
        let passed = if carried_by == [1, 0, 0] { None } else { Some("SES takes tags of 1 to 256 letters") };
        assert!(passed.is_none_or(|why| told.contains(why)), "{told}");
    }
    assert!(three.grid.accepted()[0].metadata.contains(&("name".into(), "J. R".into())));
    assert_eq!(three.mark.accepted()[0].tags, ["gr\u{fc}n"]);
}

#[test]
fn what_none_can_carry_is_refused_at_the_dot_with_each_ones_reason() {
    let three = Three::start();
    let relay = three
        .setup()
        .tables("[[stream]]\nname = \"news\"\nkind = \"broadcast\"\nesps = [\"amazon\"]\n")
        .start();
    let said = refused(
        &relay,
        &format!("X-Postroad-Tag: gr\u{fc}n\r\nX-Postroad-Metadata-Long: {}\r\n", "x".repeat(81)),
    );
    assert!(said.contains("5.6.0") && said.is_ascii(), "{said}");
    for why in ["amazon: SES takes tags", "grid: SendGrid takes categories", "mark: Postmark takes metadata"]
    {
        assert!(said.contains(why), "{why} is not in {said}");
    }
    // By stream, by pin, and by HTTP.
    let said = refused(&relay, "X-Postroad-Stream: news\r\nX-Postroad-Metadata-Name: J. R\r\n");
    assert!(said.contains("amazon: SES takes tags"), "{said}");
    let said = refused(&relay, "X-Postroad-Esp: amazon\r\nX-Postroad-Metadata-Name: J. R\r\n");
    assert!(said.contains("amazon: SES takes tags"), "{said}");
    let json = serde_json::json!({
        "from": "app@example.org", "to": ["ok@example.com"], "subject": "s", "text": "t", "esp": "amazon",
        "metadata": {"name": "J. R"},
    });
    let answer = relay.post("/v1/send", &json.to_string()).unwrap();
    assert!(answer.status == 422 && answer.body.contains("SES takes tags"), "{answer:?}");
    assert_eq!(three.counts(), [0, 0, 0]);
}

#[test]
fn a_server_without_a_place_for_labels_leaves_them_to_the_relay() {
    let (three, other) = (Three::start(), Upstream::start());
    let relay = three.setup().upstream(&other, "priority = 9").start();
    let fields = format!("X-Postroad-Tag: gr\u{fc}n\r\nX-Postroad-Metadata-Long: {}\r\n", "x".repeat(81));
    let id = relay.submit("app@example.org", &["ok@example.com"], &mail(&fields));
    other.wait_for(1);
    let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
    assert_eq!(life["tags"], serde_json::json!(["gr\u{fc}n"]), "{life}");
    assert_eq!(three.counts(), [0, 0, 0]);
}
