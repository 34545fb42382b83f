//! The corpus of messages (`tests/support/corpus`, told by its `index.toml`), and messages nobody wrote.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mail_parser::MessageParser;
use proptest::prelude::*;
use toml::{Table, Value};

use super::*;
use crate::mail::transfer::quoted_printable;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/corpus")
}

/// Each message with what the index says of it.
fn messages() -> Vec<(String, Vec<u8>, Table)> {
    let index: Table = fs::read_to_string(corpus().join("index.toml")).unwrap().parse().unwrap();
    let message = |(name, told): (String, Value)| {
        let content = fs::read(corpus().join(format!("{name}.eml"))).unwrap();
        let Value::Table(told) = told else { panic!("{name} is no table") };
        (name, content, told)
    };
    index.into_iter().map(message).collect()
}

fn mailbox(mailbox: &Mailbox) -> Value {
    Value::from(match &mailbox.name {
        Some(name) => format!("{name} <{}>", mailbox.address),
        None => mailbox.address.to_string(),
    })
}

/// What was taken apart, as the index tells it.
fn told(parts: &Parts<'_>) -> Table {
    let mut out = Table::new();
    out.insert("sender".into(), mailbox(&parts.from));
    let list = |values: Vec<Value>| (!values.is_empty()).then_some(Value::Array(values));
    let people = |people: &[Mailbox]| list(people.iter().map(mailbox).collect());
    let text = |text: &Option<Cow<'_, str>>| text.as_deref().map(Value::from);
    let headers = parts.headers.iter().map(|h| Value::from(format!("{}: {}", h.name, h.value)));
    for (key, value) in [
        ("to", people(&parts.to)),
        ("cc", people(&parts.cc)),
        ("reply_to", people(&parts.reply_to)),
        ("subject", text(&parts.subject)),
        ("date", text(&parts.date)),
        ("message_id", text(&parts.message_id)),
        ("text", text(&parts.text)),
        ("html", text(&parts.html)),
        ("headers", list(headers.collect())),
        ("alternatives", list(parts.alternatives.iter().map(alternative).collect())),
        ("files", list(parts.files.iter().map(file).collect())),
    ] {
        if let Some(value) = value {
            out.insert(key.into(), value);
        }
    }
    out
}

fn alternative(form: &Alternative<'_>) -> Value {
    let mut out = Table::new();
    out.insert("type".into(), form.content_type.as_str().into());
    out.insert("content".into(), form.content.as_ref().into());
    out.insert("before_html".into(), form.before_html.into());
    Value::Table(out)
}

fn file(file: &File<'_>) -> Value {
    let mut out = Table::new();
    out.insert("name".into(), file.name.as_str().into());
    out.insert("type".into(), file.content_type.as_str().into());
    match std::str::from_utf8(&file.octets) {
        Ok(text) if text.chars().all(|c| !c.is_control() || c == '\r' || c == '\n') => {
            out.insert("octets".into(), text.into())
        }
        _ => {
            let hex: String = file.octets.iter().map(|b| format!("{b:02x}")).collect();
            out.insert("hex".into(), hex.into())
        }
    };
    out.insert("inline".into(), file.inline.into());
    if let Some(id) = &file.content_id {
        out.insert("id".into(), id.as_str().into());
    }
    Value::Table(out)
}

#[test]
fn every_message_of_the_corpus_is_taken_apart_as_its_index_says_or_not_at_all() {
    let mut wrong = Vec::new();
    for (name, content, wanted) in messages() {
        match (take_apart(&content), wanted.get("loss").and_then(Value::as_str)) {
            (Ok(parts), None) if told(&parts) == wanted => {}
            (Err(lossy), Some(words)) if lossy.0.contains(words) => {}
            (Ok(parts), _) => wrong.push(format!("{name}: {:#?}\nwanted {wanted:#?}", told(&parts))),
            (Err(lossy), _) => wrong.push(format!("{name}: {lossy}\nwanted {wanted:#?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn the_index_names_every_message() {
    let named: BTreeSet<String> = messages().into_iter().map(|(name, ..)| name).collect();
    let there: BTreeSet<String> = fs::read_dir(corpus())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".eml").map(str::to_owned))
        .collect();
    assert_eq!(named, there);
    assert!(named.len() >= 60);
}

/// What is taken apart is what a reader sees that shares nothing with us.
#[test]
fn another_reader_sees_the_same_in_what_fits() {
    for (name, content, _) in messages() {
        let Ok(parts) = take_apart(&content) else { continue };
        let other = MessageParser::default().parse(&content).unwrap();
        let addresses = |address: Option<&mail_parser::Address<'_>>| -> Vec<String> {
            let all = address.into_iter().flat_map(|a| a.iter());
            all.filter_map(|a| a.address()).map(key).collect()
        };
        let ours = |people: &[Mailbox]| people.iter().map(|m| m.address.key()).collect::<Vec<_>>();
        assert_eq!(addresses(other.from()), ours(std::slice::from_ref(&parts.from)), "{name}");
        // Of a field that stands twice it shows the last, and of a quoted local part nothing.
        if !["to-twice-cc-twice", "to-quoted-local"].contains(&name.as_str()) {
            assert_eq!(addresses(other.to()), ours(&parts.to), "{name}");
            assert_eq!(addresses(other.cc()), ours(&parts.cc), "{name}");
        }
        let attached: Vec<&[u8]> = other.attachments().map(|part| part.contents()).collect();
        for file in &parts.files {
            let is_whole_message = file.content_type == "message/rfc822";
            // It hands text on as UTF-8.
            let is_text = file.content_type.starts_with("text/");
            assert!(
                is_whole_message || is_text || attached.contains(&&*file.octets),
                "{name}: {}",
                file.name
            );
        }
    }
}

fn key(address: &str) -> String {
    Address::parse(address, Grammar::Lenient).map_or_else(|_| address.to_owned(), |a| a.key())
}

/// The small messages of the corpus, cut or with one octet changed, are read or refused, and no address appears that
/// did not stand there.
#[test]
fn no_damage_invents_an_address() {
    for (name, content, _) in messages().into_iter().filter(|(_, content, _)| content.len() < 1500) {
        for at in (content.len() % 5..content.len()).step_by(5) {
            let _ = take_apart(&content[..at]);
            for octet in [b',', b'"', b' '] {
                let mut damaged = content.clone();
                damaged[at] = octet;
                if let Ok(parts) = take_apart(&damaged) {
                    stands_there(&parts, &damaged, &name);
                }
            }
        }
    }
}

/// That the text has every address, as it is or with its domain in Unicode.
fn stands_there(parts: &Parts<'_>, content: &[u8], name: &str) {
    let content = String::from_utf8_lossy(content).to_lowercase();
    let people = parts.to.iter().chain(&parts.cc).chain(&parts.reply_to).chain([&parts.from]);
    for mailbox in people {
        let domain = mailbox.address.domain().unwrap();
        let unicode = idna::domain_to_unicode(domain).0;
        let local = mailbox.address.local();
        let forms = [format!("{local}@{domain}"), format!("{local}@{unicode}")];
        let found = forms.iter().any(|form| content.contains(&form.to_lowercase()));
        assert!(found, "{name}: {} was invented", mailbox.address);
    }
}

#[test]
fn a_deep_or_wide_structure_ends_soon() {
    let mut deep = String::from("From: a@x.example\r\n");
    for n in 0..50_000 {
        deep.push_str(&format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"));
    }
    assert!(take_apart(deep.as_bytes()).unwrap_err().0.contains("deep"));
    let wide = "From: a@x.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".to_owned()
        + &"--b\r\nContent-Type: a/b\r\n\r\n\r\n".repeat(200_000);
    assert!(take_apart(wide.as_bytes()).unwrap_err().0.contains("more than"));
}

/// A leaf that is generated, as it is written and as it must come out.
#[derive(Debug, Clone)]
struct Leaf {
    written: Vec<u8>,
    octets: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Written {
    AsIs,
    QuotedPrintable,
    Base64,
}

fn leaf(head: &str, octets: &[u8], how: Written) -> Leaf {
    use base64::Engine;
    let mut written = head.as_bytes().to_vec();
    match how {
        Written::AsIs => {
            written.extend_from_slice(b"Content-Transfer-Encoding: binary\r\n\r\n");
            written.extend_from_slice(octets);
        }
        Written::QuotedPrintable => {
            written.extend_from_slice(b"Content-Transfer-Encoding: quoted-printable\r\n\r\n");
            quoted_printable(octets, &mut written);
        }
        Written::Base64 => {
            written.extend_from_slice(b"Content-Transfer-Encoding: base64\r\n\r\n");
            let letters = base64::engine::general_purpose::STANDARD.encode(octets);
            for line in letters.as_bytes().chunks(76) {
                written.extend_from_slice(line);
                written.extend_from_slice(b"\r\n");
            }
        }
    }
    Leaf { written, octets: octets.to_vec() }
}

/// Parts in a multipart, as one part.
fn multipart(kind: &str, number: usize, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("Content-Type: multipart/{kind}; boundary=\"=_{number}\"\r\n\r\n").into_bytes();
    for part in parts {
        out.extend_from_slice(format!("\r\n--=_{number}\r\n").as_bytes());
        out.extend_from_slice(part);
    }
    out.extend_from_slice(format!("\r\n--=_{number}--\r\n").as_bytes());
    out
}

fn how() -> impl Strategy<Value = Written> {
    prop_oneof![Just(Written::AsIs), Just(Written::QuotedPrintable), Just(Written::Base64)]
}

/// Text with at least one character that shows.
fn prose() -> impl Strategy<Value = String> {
    "([a-zA-Z=.-]|[ \\t]|\\r\\n|\u{fc}|\u{4f60}){0,60}!"
}

fn octets() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

proptest! {
    #[test]
    fn what_was_put_in_comes_out(
        text in prop::option::of((prose(), how())),
        html in prop::option::of((prose(), how())),
        images in prop::collection::vec((octets(), how()), 0..3),
        files in prop::collection::vec((octets(), how()), 0..4),
        related_inside in any::<bool>(),
    ) {
        let text = text.map(|(text, how)| leaf("Content-Type: text/plain; charset=utf-8\r\n", text.as_bytes(), how));
        let html = html.map(|(html, how)| leaf("Content-Type: text/html; charset=utf-8\r\n", html.as_bytes(), how));
        let images: Vec<Leaf> = images.iter().enumerate().map(|(n, (octets, how))| {
            leaf(&format!("Content-Type: image/png\r\nContent-ID: <i{n}@x.example>\r\n"), octets, *how)
        }).collect();
        let files: Vec<Leaf> = files.iter().enumerate().map(|(n, (octets, how))| {
            leaf(&format!("Content-Type: a/b\r\nContent-Disposition: attachment; filename=f{n}\r\n"), octets, *how)
        }).collect();
        let written = |leaf: &Leaf| leaf.written.clone();
        let related = |root: Vec<u8>| {
            let parts: Vec<Vec<u8>> = [root].into_iter().chain(images.iter().map(written)).collect();
            multipart("related", 1, &parts)
        };
        let body = match (&text, &html) {
            (Some(text), Some(html)) if related_inside => {
                Some(multipart("alternative", 2, &[written(text), related(written(html))]))
            }
            (Some(text), Some(html)) => Some(related(multipart("alternative", 2, &[written(text), written(html)]))),
            (None, Some(html)) => Some(related(written(html))),
            (Some(text), None) => Some(written(text)),
            (None, None) => None,
        };
        let all: Vec<Vec<u8>> = body.into_iter().chain(files.iter().map(written)).collect();
        prop_assume!(!all.is_empty());
        let content = [&b"From: a@x.example\r\nTo: b@x.example\r\n"[..], &multipart("mixed", 3, &all)].concat();

        let parts = take_apart(&content).unwrap();
        prop_assert_eq!(parts.text.as_deref().map(str::as_bytes), text.as_ref().map(|leaf| &leaf.octets[..]));
        prop_assert_eq!(parts.html.as_deref().map(str::as_bytes), html.as_ref().map(|leaf| &leaf.octets[..]));
        let shown = if html.is_some() { &images[..] } else { &[] };
        let wanted: Vec<&[u8]> = shown.iter().chain(&files).map(|leaf| &leaf.octets[..]).collect();
        let found: Vec<&[u8]> = parts.files.iter().map(|file| &*file.octets).collect();
        prop_assert_eq!(found, wanted);
        prop_assert_eq!(parts.files.iter().filter(|file| file.inline).count(), shown.len());
        prop_assert_eq!(parts.to.len(), 1);
    }

    #[test]
    fn no_octets_are_too_odd(octets in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = take_apart(&octets);
        let headed = [&b"From: a@x.example\r\n"[..], &octets].concat();
        if let Ok(parts) = take_apart(&headed) {
            stands_there(&parts, &headed, "random");
        }
    }

    #[test]
    fn no_header_is_too_odd(
        lines in prop::collection::vec(
            ("(From|To|Cc|Reply-To|Sender|Subject|Content-Type|Content-Transfer-Encoding|X-A)",
             "([a-c]|@x\\.example|[,;:<>()\" ]|=\\?utf-8\\?Q\\?|=0D=0A|\\?=|\\r\\n |text/|multipart/mixed; boundary=b){0,12}"),
            0..6,
        ),
    ) {
        let mut content = String::from("From: a@x.example\r\n");
        for (name, value) in &lines {
            content.push_str(&format!("{name}: {value}\r\n"));
        }
        content.push_str("\r\n--b\r\n\r\nx\r\n--b--\r\n");
        if let Ok(parts) = take_apart(content.as_bytes()) {
            stands_there(&parts, content.as_bytes(), "random");
            for text in parts.headers.iter().map(|h| &h.value).chain(&parts.subject) {
                prop_assert!(!text.contains(['\r', '\n']));
            }
        }
    }
}
