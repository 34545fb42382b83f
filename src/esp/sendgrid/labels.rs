//! What travels beside a message and comes back in events: custom arguments and categories, the same by either door.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::{Map, Value};

use super::{Parcel, Unfit, others};
use crate::mail::headers::fields;

/// The argument that says which attempt an event is about.
pub(super) const ATTEMPT: &str = "postroad_attempt";
/// SendGrid's own header field.
pub(super) const FIELD: &str = "X-SMTPAPI";
/// "Total custom_args size may not exceed 10,000 bytes"; the limitations page: less than that.
const ARGUMENTS_OCTETS_MAX: usize = 9_999;
/// "There is a limit of 10 categories for each email."
const CATEGORIES_MAX: usize = 10;
/// "Each category must not be longer than 255 characters."
const CATEGORY_OCTETS_MAX: usize = 255;
/// One argument's name or value as it is written: it has to fit a line of the header field.
const WRITTEN_OCTETS_MAX: usize = 900;

/// Names that events have of their own, where an argument of the same name is lost.
const RESERVED: [&str; 42] = [
    "account",
    "asm_group_id",
    "attempt",
    "bounce_classification",
    "category",
    "cert_err",
    "cert_error",
    "email",
    "event",
    "ip",
    "marketing_campaign_id",
    "marketing_campaign_name",
    "marketing_campaign_split_id",
    "marketing_campaign_version",
    "mc_auto_id",
    "mc_auto_name",
    "mc_pod_id",
    "mc_stats",
    "newsletter",
    "nlvx_campaign_id",
    "pool",
    "post_type",
    "reason",
    "response",
    "send_at",
    "sg_content_type",
    "sg_event_id",
    "sg_machine_open",
    "sg_message_id",
    "sg_template_id",
    "sg_template_name",
    "sg_user_id",
    "singlesend_id",
    "smtp-id",
    "status",
    "template_id",
    "timestamp",
    "tls",
    "type",
    "url",
    "url_offset",
    "useragent",
];

/// An `X-SMTPAPI` of the app's own, which reaches an ESP only under `allow_vendor_headers`.
#[derive(Debug)]
pub(super) struct Control {
    /// Where it lies in the header block.
    pub span: Range<usize>,
    /// What it says.
    pub said: Map<String, Value>,
}

impl Control {
    /// Reads it. What SendGrid would bounce, or would mail to others than the envelope's recipients, is not for it.
    pub fn read(head: &[u8]) -> Result<Option<Control>, Unfit> {
        let mut found = fields(head).filter(|field| field.is(FIELD));
        let Some(field) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            return Err(Unfit(format!("two {FIELD} fields: SendGrid would pass over the second")));
        }
        // A line may end within a text of the JSON.
        let unfolded: Vec<u8> =
            field.value().iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
        let Ok(Value::Object(said)) = serde_json::from_slice(&unfolded) else {
            return Err(Unfit(format!(
                "the app's {FIELD} is no JSON object: SendGrid would bounce the message"
            )));
        };
        if let Some(way) = others::way_to(&said) {
            return Err(Unfit(format!(
                "the app's {FIELD} has {way}: SendGrid would mail others than the envelope's recipients"
            )));
        }
        for (key, fits) in [
            ("filters", said.get("filters").is_none_or(Value::is_object)),
            ("unique_args", said.get("unique_args").is_none_or(Value::is_object)),
            ("category", said.get("category").is_none_or(is_text_or_texts)),
        ] {
            if !fits {
                return Err(Unfit(format!("{key} in the app's {FIELD} is not what SendGrid takes")));
            }
        }
        Ok(Some(Control { span: field.span(), said }))
    }

    pub fn arguments(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.said.get("unique_args").and_then(Value::as_object).into_iter().flatten()
    }

    fn categories(&self) -> impl Iterator<Item = &str> {
        let one = self.said.get("category").and_then(Value::as_str);
        let many = self.said.get("category").and_then(Value::as_array);
        one.into_iter().chain(many.into_iter().flatten().filter_map(Value::as_str))
    }
}

fn is_text_or_texts(value: &Value) -> bool {
    value.is_string() || value.as_array().is_some_and(|all| all.iter().all(Value::is_string))
}

/// What travels with a message.
#[derive(Debug)]
pub(super) struct Labels<'a> {
    /// Arguments beside those of the app's own field; the attempt is the first.
    pub arguments: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// All categories.
    pub categories: Vec<&'a str>,
}

impl<'a> Labels<'a> {
    /// Those of a parcel, all of them.
    pub fn of(parcel: Parcel<'a>, control: Option<&'a Control>) -> Result<Self, Unfit> {
        let mut room = Room::default();
        let mut arguments = Vec::with_capacity(1 + parcel.message.metadata.len());
        let attempt = parcel.planted().to_string();
        room.take(ATTEMPT, &attempt);
        arguments.push((Cow::Borrowed(ATTEMPT), Cow::Owned(attempt)));
        for (name, value) in control.into_iter().flat_map(Control::arguments) {
            if !room.take(name, &value.to_string()) {
                return Err(Unfit(format!(
                    "the arguments of the app's {FIELD} have more octets than SendGrid takes"
                )));
            }
        }
        for (key, value) in &parcel.message.metadata {
            let name = match room.is_taken(key) {
                false => Cow::Borrowed(key.as_str()),
                true => Cow::Owned(format!("metadata_{key}")),
            };
            if room.is_taken(&name) {
                return Err(Unfit(format!(
                    "SendGrid: two values of its metadata would have the name {name}, with its {key}"
                )));
            }
            if !room.take(&name, value) {
                return Err(Unfit(format!(
                    "SendGrid takes arguments of {ARGUMENTS_OCTETS_MAX} octets in all and {WRITTEN_OCTETS_MAX} each, as \
                     JSON writes them in ASCII: its metadata {key} is over that"
                )));
            }
            arguments.push((name, Cow::Borrowed(value.as_str())));
        }
        Ok(Labels { arguments, categories: categories(&parcel.message.tags, control)? })
    }
}

/// Non-ASCII ones are refused: "Categories can not contain non-ASCII characters."
fn categories<'a>(tags: &'a [String], control: Option<&'a Control>) -> Result<Vec<&'a str>, Unfit> {
    let own = control.into_iter().flat_map(Control::categories);
    let mut all: Vec<&str> = Vec::new();
    for name in own.chain(tags.iter().map(String::as_str)) {
        if name.is_empty() || name.len() > CATEGORY_OCTETS_MAX || !name.is_ascii() {
            return Err(Unfit(format!(
                "SendGrid takes categories in ASCII, of 1 to {CATEGORY_OCTETS_MAX} characters, and \"{}\" is none",
                name.escape_default()
            )));
        }
        if !all.contains(&name) {
            all.push(name);
        }
    }
    match all.len() <= CATEGORIES_MAX {
        true => Ok(all),
        false => Err(Unfit(format!("SendGrid takes {CATEGORIES_MAX} categories, and it has {}", all.len()))),
    }
}

/// What is left of the room for arguments, and the names that are given away.
#[derive(Default)]
struct Room {
    octets: usize,
    names: Vec<String>,
}

impl Room {
    fn is_taken(&self, name: &str) -> bool {
        let lower = name.to_ascii_lowercase();
        RESERVED.contains(&lower.as_str()) || self.names.contains(&lower)
    }

    /// Counts as the header field writes it, which is longer than the JSON of the API.
    fn take(&mut self, name: &str, value: &str) -> bool {
        let (name_octets, value_octets) = (escaped_octets(name), escaped_octets(value));
        let octets = self.octets + name_octets + value_octets + ", : ".len();
        let fits = name_octets.max(value_octets) <= WRITTEN_OCTETS_MAX
            && octets + "{}".len() <= ARGUMENTS_OCTETS_MAX;
        if fits {
            self.octets = octets;
            self.names.push(name.to_ascii_lowercase());
        }
        fits
    }
}

fn escaped_octets(text: &str) -> usize {
    let octets = |c: char| match c {
        '"' | '\\' => 2,
        ' '..='~' => 1,
        _ => 6 * c.len_utf16(),
    };
    text.chars().map(octets).sum::<usize>() + "\"\"".len()
}
