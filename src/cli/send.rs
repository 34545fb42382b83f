//! `postroad send`: one mail from the command line, by the relay's `POST /v1/send`.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::Args;
use serde_json::json;

use super::reach;
use super::text::{json_line, shown};
use super::{Common, Failure};
use crate::http::letters::{Mail, MailFile};
use crate::http::send::Sent;

/// What a mail is made of.
#[derive(Debug, Args)]
pub(super) struct Letter {
    /// Who writes: a@b.example or "Name <a@b.example>"
    #[arg(long, value_name = "ADDRESS", env = "POSTROAD_FROM")]
    from: String,
    /// To whom; may be given several times
    #[arg(long, required = true, value_name = "ADDRESS")]
    to: Vec<String>,
    /// Named in Cc; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    cc: Vec<String>,
    /// Named nowhere; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    bcc: Vec<String>,
    /// One line
    #[arg(long, value_name = "TEXT")]
    subject: String,
    /// The text [default: what stdin has]
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// The HTML; alone, or beside --text
    #[arg(long, value_name = "HTML")]
    html: Option<String>,
    /// A file to go with it; may be given several times
    #[arg(long, value_name = "FILE")]
    attach: Vec<PathBuf>,
    /// As [[stream]] names it [default: transactional]
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// A header field, such as "X-Order: 7"; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Taken once: a repeat with the same key within 24 h is the same mail [default: a new one]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// `send`
pub(super) async fn send(common: &Common, letter: Letter, out: &mut impl Write) -> Result<(), Failure> {
    let key = match &letter.key {
        Some(key) => key.clone(),
        None => new_key()?,
    };
    let mail = mail(letter, std::io::stdin())?;
    let sent: Sent = reach::relay(common).await?.post_once("/v1/send", &mail, &key).await?;
    if common.json {
        return Ok(json_line(out, &json!(sent))?);
    }
    writeln!(out, "queued as {}", sent.id)?;
    for to in sent.recipients.iter().filter(|to| !to.taken) {
        writeln!(out, "not to {}: {} {}", shown(&to.address), to.code, shown(&to.said))?;
    }
    Ok(())
}

/// One that nobody had before.
fn new_key() -> Result<String, Failure> {
    let mut octets = [0; 16];
    aws_lc_rs::rand::fill(&mut octets)
        .map_err(|_| Failure::Failed("the system gives no random numbers; try again".into()))?;
    Ok(URL_SAFE_NO_PAD.encode(octets))
}

fn mail(letter: Letter, stdin: impl Read + IsTerminal) -> Result<Mail, Failure> {
    let text = match (&letter.text, &letter.html) {
        (None, None) => Some(read_text(stdin)?),
        (text, _) => text.clone(),
    };
    Ok(Mail {
        from: letter.from,
        to: letter.to,
        cc: letter.cc,
        bcc: letter.bcc,
        subject: Some(letter.subject),
        text,
        html: letter.html,
        headers: letter.headers.into_iter().collect(),
        attachments: letter.attach.iter().map(|path| file(path)).collect::<Result<_, _>>()?,
        stream: letter.stream,
        ..Mail::default()
    })
}

fn read_text(mut stdin: impl Read + IsTerminal) -> Result<String, Failure> {
    if stdin.is_terminal() {
        return Err(Failure::Usage("what shall it say? Give --text or --html, or pipe the text in".into()));
    }
    let mut text = String::new();
    let read = stdin.read_to_string(&mut text);
    read.map_err(|error| Failure::Failed(format!("stdin cannot be read as UTF-8 text: {error}")))?;
    Ok(text)
}

fn file(path: &Path) -> Result<MailFile, Failure> {
    let shown = path.display();
    let content = std::fs::read(path).map_err(|error| Failure::Failed(format!("{shown}: {error}")))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let filename = name.ok_or_else(|| Failure::Usage(format!("{shown} is no file")))?;
    Ok(MailFile { filename, content: STANDARD.encode(content), ..MailFile::default() })
}
