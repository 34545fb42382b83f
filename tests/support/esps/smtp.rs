//! The SMTP doors of the ESPs: who may log in, what they read in a mail's own control fields, and what they reply.

use std::sync::Arc;

use mail_parser::{MessageParser, MimeHeaders as _};
use serde_json::{Map, Value, json};

use super::taken::{Door, Taken, header_of, unfolded};
use super::{Start, Vendor, address, postmark, sendgrid, ses, sigv4};
use crate::support::mailgen;
use crate::support::upstream::{Manner, Point, Received, Upstream};

/// The longest line of an `X-SMTPAPI` field, with its CRLF.
const SMTPAPI_LINE_MAX: usize = 1000;

/// The largest mail that SendGrid takes by SMTP.
const SENDGRID_MAX: usize = 20 * 1024 * 1024;

/// A row of a vendor's table of replies: a name to type, where it comes, and its words.
pub type Row = (&'static str, Point, &'static str);

/// What one ESP knows behind its SMTP door.
pub trait SmtpDesk: Send + Sync + 'static {
    /// User and password.
    fn login(&self) -> (String, String);

    /// What it is like: extensions, limits, words.
    fn manner(&self) -> Manner;

    /// The reply to a whole mail, which is in the books where the reply begins with 2.
    fn judge(&self, received: &Received) -> String;

    /// The vendor's own refusals.
    fn replies() -> Vec<Row>;
}

/// Opens the SMTP door of a desk.
pub fn open<V: Vendor>(vendor: &Arc<V>, start: &Start) -> Upstream {
    let (user, password) = vendor.login();
    // An upstream's words live as long as the program; this is once a stand-in.
    let auth =
        Some(("PLAIN LOGIN", &*Box::leak(user.into_boxed_str()), &*Box::leak(password.into_boxed_str())));
    let desk = vendor.clone();
    Upstream::with(Manner {
        auth,
        tls: start.smtp_tls,
        port: start.smtp_port,
        judge: Some(Arc::new(move |received| desk.judge(received))),
        ..vendor.manner()
    })
}

fn manner(greeting: &str, extensions: &[&str]) -> Manner {
    Manner {
        greeting: greeting.to_owned(),
        extensions: extensions.iter().map(|e| (*e).to_owned()).collect(),
        ..Manner::default()
    }
}

/// What every ESP reads out of a mail.
fn taken(received: &Received, id: String) -> Taken {
    let bare = |path: &String| path.trim_start_matches('<').trim_end_matches('>').to_owned();
    Taken {
        to: received.to.iter().map(bare).collect(),
        from: ses::author(&received.data),
        subject: header_of(&received.data, "Subject").unwrap_or_default(),
        mime: Some(received.data.clone()),
        id,
        at: received.at,
        ..Taken::new(Door::Smtp, received.connection)
    }
}

/// The envelope's sender, without parameters and brackets.
fn envelope_sender(received: &Received) -> &str {
    let path = received.mail.split(' ').next().unwrap_or_default();
    path.trim_start_matches('<').trim_end_matches('>')
}

impl SmtpDesk for sendgrid::Rules {
    fn login(&self) -> (String, String) {
        ("apikey".into(), self.key.clone())
    }

    fn manner(&self) -> Manner {
        Manner {
            auth_refused: "535 Authentication failed: Bad username / password",
            ..manner("220 SG ESMTP service ready at standin", &["8BITMIME", "PIPELINING", "SIZE 20971520"])
        }
    }

    fn judge(&self, received: &Received) -> String {
        if received.data.len() > SENDGRID_MAX {
            return "552 5.3.4 message too large".into();
        }
        let api = match smtpapi(&received.data) {
            Ok(api) => api,
            // SendGrid itself says 250 and bounces to MAIL FROM later; here it is seen at once.
            Err(why) => return format!("550 Invalid SMTPAPI header: {why}"),
        };
        let mut taken = taken(received, format!("sg{:020}", self.books.next_number()));
        if !self.books.may_send(&taken.from) {
            return format!("550 {}", sendgrid::SENDER_NOT_VERIFIED);
        }
        if !self.pay(taken.to.len()) {
            return "451 Authentication failed: Maximum credits exceeded".into();
        }
        let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        taken.tags = categories(&api).iter().map(plain).collect();
        let arguments = api.get("unique_args").and_then(Value::as_object).into_iter().flatten();
        let taken =
            taken.with_metadata(arguments.map(|(name, value)| (name.clone(), plain(value))).collect());
        let reply = format!("250 Ok: queued as {}", taken.id);
        self.books.take(taken);
        reply
    }

    fn replies() -> Vec<Row> {
        vec![
            ("unauthorized", Point::Auth, "535 Authentication failed: Bad username / password"),
            ("credits-spent", Point::Auth, "451 Authentication failed: Maximum credits exceeded"),
            ("unauthenticated", Point::Mail, "550 Unauthenticated senders not allowed"),
            ("sender-not-allowed", Point::Mail, "403 You are not authorized to send from that email address"),
            (
                "sender-not-verified",
                Point::Dot,
                "550 The from address does not match a verified Sender Identity. Mail cannot be sent until this error is \
                 resolved.",
            ),
            ("closing", Point::Mail, "421 Service not available, closing transmission channel"),
            ("busy", Point::Dot, "450 Mailbox temporarily unavailable"),
            ("local-error", Point::Dot, "451 Requested action aborted: local error in processing"),
            ("too-many", Point::Rcpt(1), "452 Too many recipients received this hour"),
            ("too-large", Point::Dot, "552 message exceeds the size limit"),
            ("rejected", Point::Dot, "554 transaction failed"),
        ]
    }
}

fn categories(api: &Map<String, Value>) -> Vec<Value> {
    match api.get("category") {
        Some(Value::Array(all)) => all.clone(),
        Some(one) => vec![one.clone()],
        None => Vec::new(),
    }
}

/// The first `X-SMTPAPI` field, empty without one; or what is wrong with it.
fn smtpapi(mime: &[u8]) -> Result<Map<String, Value>, String> {
    let fields = mailgen::fields(mime);
    let Some(field) = fields.iter().find(|f| f.name.eq_ignore_ascii_case("X-SMTPAPI")) else {
        return Ok(Map::new());
    };
    if !field.raw.is_ascii() {
        return Err("not ASCII".into());
    }
    if field.raw.split_inclusive(|b| *b == b'\n').any(|line| line.len() > SMTPAPI_LINE_MAX) {
        return Err("a line is too long".into());
    }
    let parsed: Value = serde_json::from_str(&unfolded(&field.value)).map_err(|e| e.to_string())?;
    let Value::Object(api) = parsed else { return Err("not an object".into()) };
    const KEYS: [&str; 8] =
        ["unique_args", "category", "filters", "send_at", "asm_group_id", "ip_pool", "sub", "section"];
    if let Some(other) = api.keys().find(|k| !KEYS.contains(&k.as_str())) {
        // `to` as well: beside RCPT it doubles every copy.
        return Err(format!("{other} has no place here"));
    }
    let arguments = api.get("unique_args").cloned().unwrap_or_else(|| json!({}));
    if !arguments.is_object() || arguments.to_string().len() >= sendgrid::CUSTOM_ARGS_BYTES {
        return Err("unique_args is an object of less than 10000 bytes".into());
    }
    let categories = categories(&api);
    let fits = |c: &Value| c.as_str().is_some_and(|c| c.chars().count() <= sendgrid::CATEGORY_CHARS_MAX);
    if categories.len() > sendgrid::CATEGORIES_MAX || !categories.iter().all(fits) {
        return Err("category is a string or at most 10 of them, of at most 255 characters".into());
    }
    Ok(api)
}

impl SmtpDesk for ses::Rules {
    fn login(&self) -> (String, String) {
        let credential = &self.credential;
        (credential.access_key_id.clone(), sigv4::smtp_password(&credential.secret, &credential.region))
    }

    fn manner(&self) -> Manner {
        Manner {
            auth_refused: "535 Authentication Credentials Invalid",
            recipients_max: ses::RECIPIENTS_MAX,
            ..manner("220 email-smtp.amazonaws.com ESMTP SimpleEmailService-d-STANDIN standin", &["8BITMIME"])
        }
    }

    fn judge(&self, received: &Received) -> String {
        if received.data.len().div_ceil(3) * 4 > ses::DATA_MAX {
            return "552 Message is too long.".into();
        }
        let tags = match ses::judge_mime(&received.data).and_then(|()| ses::header_tags(&received.data)) {
            Ok(tags) => tags,
            Err(why) => return format!("554 Transaction failed: {why}"),
        };
        let set = header_of(&received.data, "X-SES-CONFIGURATION-SET");
        if let Some(set) = set.filter(|set| !self.has_configuration_set(set)) {
            return format!("554 Transaction failed: Configuration set <{set}> does not exist.");
        }
        let mut taken = taken(received, self.next_id());
        let region = &self.credential.region;
        for sender in [taken.from.as_str(), envelope_sender(received)] {
            if !self.books.may_send(sender) {
                return format!("554 Message rejected: {}", ses::not_verified_text(sender, region));
            }
        }
        if let Some(bad) = taken.to.iter().find(|a| !a.is_ascii() || !address::is_mailbox(a)) {
            return format!("554 Transaction failed: Illegal address: {}", bad.escape_default());
        }
        if self.pay(taken.to.len()).is_err() {
            return "454 Throttling failure: Daily message quota exceeded.".into();
        }
        taken.tags = tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let reply = format!("250 Ok {}", taken.id);
        self.books.take(taken.with_metadata(tags));
        reply
    }

    fn replies() -> Vec<Row> {
        vec![
            ("too-many-connections", Point::Banner, "421 Too many concurrent SMTP connections"),
            ("temporary", Point::Dot, "451 Temporary service failure"),
            ("idle", Point::Mail, "451 Timeout waiting for data from client."),
            ("throttled", Point::Dot, "454 Throttling failure: Maximum sending rate exceeded."),
            ("daily-quota", Point::Dot, "454 Throttling failure: Daily message quota exceeded."),
            ("temporary-auth", Point::Auth, "454 Temporary authentication failure"),
            ("temporary-454", Point::Dot, "454 Temporary service failure"),
            ("unauthenticated", Point::Mail, "530 Authentication required"),
            ("unauthorized", Point::Auth, "535 Authentication Credentials Invalid"),
            ("not-subscribed", Point::Auth, "535 Account not subscribed to SES"),
            ("too-large", Point::Dot, "552 Message is too long."),
            ("bad-sender", Point::Mail, "553 <nobody> Invalid email address"),
            ("unknown-address", Point::Rcpt(1), "553 <nobody@example.com> address unknown"),
            (
                "access-denied",
                Point::Dot,
                "554 Access denied: User `arn:aws:iam::111122223333:user/mailer' is not authorized to perform \
                 `ses:SendRawEmail'",
            ),
            (
                "sender-not-verified",
                Point::Dot,
                "554 Message rejected: Email address is not verified. The following identities failed the check in region \
                 EU-WEST-1: nobody@example.org",
            ),
            ("duplicate-header", Point::Dot, "554 Transaction failed: Duplicate header 'DKIM-Signature'."),
        ]
    }
}

impl SmtpDesk for postmark::Rules {
    fn login(&self) -> (String, String) {
        (self.token.clone(), self.token.clone())
    }

    fn manner(&self) -> Manner {
        Manner {
            auth_refused: "535 5.7.8 Error: authentication failed",
            ..manner("220 Postmark ESMTP standin", &["PIPELINING", "SIZE 10485760", "8BITMIME"])
        }
    }

    fn judge(&self, received: &Received) -> String {
        if received.data.len() > postmark::MESSAGE_MAX {
            return "552 5.3.4 Message size exceeds fixed limit".into();
        }
        let id = format!("b7bc2f4a-e38e-4336-af7d-{:012x}", self.books.next_number());
        let mut taken = taken(received, id);
        if !self.books.may_send(&taken.from) {
            return format!(
                "550 5.7.1 The 'From' address {} is not a Sender Signature on your account",
                taken.from
            );
        }
        let metadata = metadata(&received.data);
        if let Some(why) = self.control_fields(received, &metadata) {
            return format!("550 5.6.0 {why}");
        }
        taken.tags = header_of(&received.data, "X-PM-Tag").into_iter().collect();
        // Who is inactive is dropped without a word; and the id is not told.
        self.books.take(taken.with_metadata(metadata));
        "250 2.0.0 Ok: queued".into()
    }

    fn replies() -> Vec<Row> {
        vec![
            ("unauthorized", Point::Auth, "535 5.7.8 Error: authentication failed"),
            ("closing", Point::Banner, "421 4.3.2 Service not available"),
            ("temporary", Point::Dot, "451 4.3.0 Temporary failure, try again later"),
            ("too-large", Point::Dot, "552 5.3.4 Message size exceeds fixed limit"),
            ("rejected", Point::Dot, "554 5.6.0 Message rejected"),
        ]
    }
}

impl postmark::Rules {
    /// What is wrong with a mail's control fields, attachments and addresses.
    fn control_fields(&self, received: &Received, metadata: &[(String, String)]) -> Option<String> {
        let mime = &received.data;
        let stream = header_of(mime, "X-PM-Message-Stream");
        if let Some(stream) = stream.filter(|stream| !self.has_stream(stream)) {
            return Some(format!("The message stream '{stream}' was not found on this server"));
        }
        if header_of(mime, "X-PM-Tag").is_some_and(|tag| tag.chars().count() > postmark::TAG_CHARS_MAX) {
            return Some("The tag is longer than 1000 characters".into());
        }
        let fields: Map<String, Value> =
            metadata.iter().map(|(n, v)| (n.clone(), Value::from(v.clone()))).collect();
        if postmark::judge_metadata(&json!({ "Metadata": fields })).is_err() {
            return Some("Invalid metadata content".into());
        }
        let bare = |path: &String| path.trim_start_matches('<').trim_end_matches('>').to_owned();
        if let Some(bad) = received.to.iter().map(bare).find(|a| !postmark::is_acceptable(a)) {
            return Some(format!("Invalid address: {}", bad.escape_default()));
        }
        forbidden_attachment(mime).map(|name| format!("Forbidden attachment type: '{name}'"))
    }
}

/// `X-PM-Metadata-NAME: value`.
fn metadata(mime: &[u8]) -> Vec<(String, String)> {
    const PREFIX: &str = "x-pm-metadata-";
    let named = |f: &mailgen::Field| {
        let name = f.name.to_ascii_lowercase().strip_prefix(PREFIX).map(str::to_owned)?;
        Some((name, unfolded(&f.value)))
    };
    mailgen::fields(mime).iter().filter_map(named).collect()
}

fn forbidden_attachment(mime: &[u8]) -> Option<String> {
    let parsed = MessageParser::default().parse(mime)?;
    let names = parsed.parts.iter().filter_map(|p| p.attachment_name().map(str::to_owned));
    let forbidden = |name: &String| {
        let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase()).unwrap_or_default();
        postmark::FORBIDDEN_EXTENSIONS.contains(&extension.as_str())
    };
    let mut names = names.filter(forbidden);
    names.next()
}
