//! Mail of every shape, and what of it may change on its way through the relay.

/// One header field as it stands in the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub value: Vec<u8>,
    /// With its name and every CRLF.
    pub raw: Vec<u8>,
}

/// The header fields of a message.
pub fn fields(raw: &[u8]) -> Vec<Field> {
    let (head, _) = split(raw);
    let mut out: Vec<Field> = Vec::new();
    for line in head.split_inclusive(|b| *b == b'\n') {
        let folded = line.first().is_some_and(|b| *b == b' ' || *b == b'\t');
        match out.last_mut() {
            Some(field) if folded => {
                field.value.extend_from_slice(line);
                field.raw.extend_from_slice(line);
            }
            _ => {
                let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
                out.push(Field {
                    name: String::from_utf8_lossy(&line[..colon]).trim().to_owned(),
                    value: line.get(colon + 1..).unwrap_or_default().to_vec(),
                    raw: line.to_vec(),
                });
            }
        }
    }
    out
}

/// Header block with its last CRLF, and everything behind it (the empty line first).
pub fn split(raw: &[u8]) -> (&[u8], &[u8]) {
    if raw.starts_with(b"\r\n") {
        return (b"", raw);
    }
    match raw.windows(4).position(|w| w == b"\r\n\r\n") {
        Some(at) => raw.split_at(at + 2),
        None => (raw, b""),
    }
}

/// Fields that never pass.
const TAKEN_OUT: [&str; 3] = ["bcc", "resent-bcc", "return-path"];

/// Why `got` is not `sent` with `Received` on top, a missing `Date` or `Message-ID` added, and the fields taken out that
/// never pass; `None` when it is exactly that.
pub fn difference(sent: &[u8], got: &[u8]) -> Option<String> {
    let mut got_fields = fields(got);
    if got_fields.first().is_none_or(|f| !f.name.eq_ignore_ascii_case("received")) {
        return Some("no Received on top".into());
    }
    got_fields.remove(0);
    let sent_fields = fields(sent);
    for name in ["date", "message-id"] {
        if sent_fields.iter().any(|f| f.name.eq_ignore_ascii_case(name)) {
            continue;
        }
        match got_fields.iter().position(|f| f.name.eq_ignore_ascii_case(name)) {
            Some(at) => drop(got_fields.remove(at)),
            None => return Some(format!("the missing {name} was not added")),
        }
    }
    let may_stay = |f: &&Field| {
        let name = f.name.to_ascii_lowercase();
        !TAKEN_OUT.contains(&name.as_str()) && !name.starts_with("x-postroad-")
    };
    let wanted: Vec<u8> = sent_fields.iter().filter(may_stay).flat_map(|f| f.raw.clone()).collect();
    let found: Vec<u8> = got_fields.iter().flat_map(|f| f.raw.clone()).collect();
    if wanted != found {
        return Some(format!(
            "header\nwanted:\n{}\ngot:\n{}",
            String::from_utf8_lossy(&wanted),
            String::from_utf8_lossy(&found)
        ));
    }
    let (wanted, found) = (split(sent).1, split(got).1);
    // A message that does not end in CRLF cannot be sent as such.
    let closed = if wanted.is_empty() || wanted.ends_with(b"\r\n") {
        wanted.to_vec()
    } else {
        [wanted, b"\r\n"].concat()
    };
    if closed == found {
        return None;
    }
    let at = closed.iter().zip(found).position(|(a, b)| a != b).unwrap_or(closed.len().min(found.len()));
    let near = |b: &[u8]| b[at.saturating_sub(20)..b.len().min(at + 40)].escape_ascii().to_string();
    Some(format!(
        "body differs at {at} ({} octets sent, {} got): wanted …{}… got …{}…",
        closed.len(),
        found.len(),
        near(&closed),
        near(found)
    ))
}

#[track_caller]
pub fn assert_unchanged(sent: &[u8], got: &[u8]) {
    if let Some(what) = difference(sent, got) {
        panic!("{what}");
    }
}

/// The header of a complete message with this subject.
pub fn head(subject: &str) -> String {
    format!(
        "From: Shop <shop@example.org>\r\nTo: ok@example.com\r\nSubject: {subject}\r\n\
         Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{subject}@example.org>\r\n"
    )
}

/// A complete plain message.
pub fn plain(subject: &str) -> Vec<u8> {
    format!("{}\r\nhello\r\n", head(subject)).into_bytes()
}

/// A complete message of about `octets`.
pub fn sized(subject: &str, octets: usize) -> Vec<u8> {
    let mut out = format!("{}\r\n", head(subject)).into_bytes();
    let line = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,\r\n";
    while out.len() < octets {
        out.extend_from_slice(line);
    }
    out
}

/// A complete message of about `octets` with an attachment: on disk it takes three quarters of that, where
/// [`sized`] takes next to nothing. The same subject gives the same message.
pub fn attached(subject: &str, octets: usize) -> Vec<u8> {
    const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = subject.bytes().fold(1_u64, |seed, b| seed.rotate_left(8) ^ u64::from(b)).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        BASE64[(state >> 40) as usize % 64]
    };
    let mut out = format!("{}\r\n", head(subject)).into_bytes();
    while out.len() < octets {
        out.extend((0..76).map(|_| next()));
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Every shape that must pass unchanged, each with a name of its own as its subject.
pub fn shapes() -> Vec<(&'static str, Vec<u8>)> {
    let with = |name: &str, more: &str, body: &str| format!("{}{more}\r\n{body}", head(name)).into_bytes();
    let line = "x".repeat(998);
    let mut binary_body =
        with("latin1", "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n", "");
    binary_body.extend_from_slice(b"Dobr\xfd den\r\n");
    vec![
        ("plain", plain("plain")),
        ("no-body", head("no-body").into_bytes()),
        ("empty-body", with("empty-body", "", "")),
        ("dots", with("dots", "", ".\r\n..\r\n...\r\n.x\r\n x.\r\n.\r\n.\r\n")),
        ("blank-ends", with("blank-ends", "", "\r\n\r\ntext\r\n\r\n\r\n\r\n")),
        ("trailing-blanks", with("trailing-blanks", "", "a  \r\n\t\r\n b \t\r\n")),
        ("line-of-998", with("line-of-998", "", &format!("{line}\r\n"))),
        ("tabs-and-controls", with("tabs-and-controls", "", "a\x0bb\x0cc\x1bd\x7f\r\n")),
        ("utf8", with("utf8", "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n", "gr\u{fc}\u{df}e \u{1f4ee}\r\n")),
        ("latin1", binary_body),
        ("folded", with("folded", "X-Long: one\r\n two\r\n\tthree\r\nx-LOWER:no blank\r\nX-Empty:\r\n", "b\r\n")),
        ("twice", with("twice", "X-Two: 1\r\nX-Two: 2\r\nComments: a\r\nComments: b\r\n", "b\r\n")),
        (
            "mixed",
            with(
                "mixed",
                "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_b\"\r\n",
                "preamble\r\n--=_b\r\nContent-Type: text/html\r\n\r\n<p>.</p>\r\n--=_b\r\nContent-Type: application/octet-stream\r\n\
                 Content-Transfer-Encoding: base64\r\n\r\nAAECAwQFBgcICQ==\r\n--=_b--\r\nepilogue\r\n",
            ),
        ),
        (
            "signed",
            with(
                "signed",
                "MIME-Version: 1.0\r\nContent-Type: multipart/signed; protocol=\"application/pgp-signature\"; micalg=pgp-sha256; boundary=s\r\n",
                "--s\r\nContent-Type: text/plain\r\n\r\nFrom here on \r\n-- \r\nme\r\n--s\r\nContent-Type: application/pgp-signature\r\n\r\nabc\r\n--s--\r\n",
            ),
        ),
        (
            "dkim",
            [
                b"DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=example.org; s=s1;\r\n h=from:to; bh=AAAA; b=BBBB\r\n".to_vec(),
                with("dkim", "", "body  \r\n\r\n"),
            ]
            .concat(),
        ),
    ]
}
