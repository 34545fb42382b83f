//! Everything that another server once took for the end of a message, or might: none of it ends one here, wherever it
//! stands and however it is cut into segments, and none of it leaves as it came.

use std::time::Duration;

use super::{bare, in_parallel, settle, source};
use crate::support::{Client, Relay, Upstream};

/// What stands where the end of a message might be seen.
const SEQUENCES: [(&str, &[u8]); 15] = [
    ("LF.LF", b"\n.\n"),
    ("LF.CRLF", b"\n.\r\n"),
    ("CRLF.LF", b"\r\n.\n"),
    ("CR.CR", b"\r.\r"),
    ("CR.CRLF", b"\r.\r\n"),
    ("CRLF.CR", b"\r\n.\r"),
    ("CR.LF", b"\r.\n"),
    ("LF.CR", b"\n.\r"),
    ("CRLF-NUL.CRLF", b"\r\n\0.\r\n"),
    ("CRLF.NUL-CRLF", b"\r\n.\0\r\n"),
    ("CRLF.CR-CRLF", b"\r\n.\r\r\n"),
    ("LFLF.CRLF", b"\n\n.\r\n"),
    ("CR-NUL-LF.CRLF", b"\r\0\n.\r\n"),
    (".LF", b".\n"),
    (".CR", b".\r"),
];

/// The words behind it, which must never be heard as commands.
const SMUGGLED: &[u8] = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nX-Inner: smuggled\r\n\r\nin\r\n";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    FirstBytes,
    Header,
    Body,
    /// In the body, each octet in a segment of its own.
    Split,
    /// While a message that is too large is being discarded.
    Discarding,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Mode {
    Reject,
    Normalize,
}

#[test]
fn nothing_but_crlf_dot_crlf_ends_a_message() {
    let upstream = Upstream::start();
    let relay = Relay::setup()
        .listener("bare_newline = \"reject\"\nmax_message_size = \"100KB\"")
        .listener("bare_newline = \"normalize\"\nmax_message_size = \"100KB\"")
        .upstream(&upstream, "")
        .start();
    let places = [Place::FirstBytes, Place::Header, Place::Body, Place::Split, Place::Discarding];
    let mut cases = Vec::new();
    for mode in [Mode::Reject, Mode::Normalize] {
        for place in places {
            cases.extend(SEQUENCES.iter().map(|s| (mode, place, s)));
        }
    }
    let results = in_parallel(cases.len(), |i| {
        let (mode, place, (name, sequence)) = cases[i];
        let at = relay.listener(usize::from(mode == Mode::Normalize));
        let client = Client::try_connect(at, Some(source(1_000 + i))).unwrap();
        let mark = format!("{mode:?}-{place:?}-{name}");
        try_one(client, mode, place, sequence, &mark).map_err(|e| format!("{mark}: {e}"))
    });
    let mut wrong: Vec<String> = results.iter().filter_map(|r| r.as_ref().err().cloned()).collect();
    let accepted = results.iter().filter(|r| matches!(r, Ok(true))).count();
    settle(&relay, &upstream, "smuggling");
    let received = upstream.received();
    if received.len() != accepted + 1 {
        wrong.push(format!("{accepted} accepted, {} left", received.len() - 1));
    }
    for one in &received {
        wrong.extend(bare(one).map(|w| format!("something bare left: {w}")));
        if one.to.iter().any(|t| t.contains("victim")) || one.mail.contains("evil") {
            wrong.push(format!("smuggled: {one:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether the message was accepted; `Err` where the dialog went otherwise.
fn try_one(
    mut client: Client,
    mode: Mode,
    place: Place,
    sequence: &[u8],
    mark: &str,
) -> Result<bool, String> {
    let bound = Duration::from_secs(20);
    let hear = |client: &mut Client, wanted: &str| {
        let reply = client.reply_within(bound)?;
        if reply.raw.starts_with(wanted) { Ok(reply) } else { Err(format!("{wanted}? {:?}", reply.raw)) }
    };
    hear(&mut client, "220")?;
    for (say, wanted) in [
        ("EHLO c.example.com", "250"),
        ("MAIL FROM:<a@example.org>", "250"),
        ("RCPT TO:<ok@example.com>", "250"),
        ("DATA", "354"),
    ] {
        client.say(say);
        hear(&mut client, wanted)?;
    }
    let head = format!("X-Mark: {mark}\r\nSubject: x");
    let before: Vec<u8> = match place {
        Place::FirstBytes => Vec::new(),
        Place::Header => head.into_bytes(),
        Place::Body | Place::Split => format!("{head}\r\n\r\ntext").into_bytes(),
        Place::Discarding => format!("{head}\r\n\r\n{}text", "0123456789\r\n".repeat(12_000)).into_bytes(),
    };
    client.raw(&before);
    if place == Place::Split {
        for octet in sequence {
            client.raw(&[*octet]);
            std::thread::sleep(Duration::from_millis(3));
        }
        client.raw(SMUGGLED);
    } else {
        client.raw(&[sequence, SMUGGLED].concat());
    }
    client.raw(b".\r\n");
    let reply = client.reply_within(bound)?;
    let refusal = match reply.code {
        250 => false,
        550 | 552 | 554 => true,
        _ => return Err(format!("{:?}", reply.raw)),
    };
    if let Some(complaint) = reply.complaint() {
        return Err(complaint);
    }
    // A dot at the very start of a line of text is only stuffing: `.LF` in the middle of a line is a bare LF.
    if !refusal && (mode == Mode::Reject || place == Place::Discarding) {
        return Err(format!("accepted: {:?}", reply.raw));
    }
    // One message, one reply: the next one answers QUIT, and no command that hid in the content.
    client.say("QUIT");
    hear(&mut client, "221")?;
    Ok(!refusal)
}
