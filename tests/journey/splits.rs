//! However a dialogue is cut into packets, the replies are the same: random commands in random pieces, seeded.

use std::time::Duration;

use crate::support::random::Random;
use crate::support::{Client, Relay, Upstream};

/// Dialogues that are tried.
const DIALOGUES: usize = 60;

/// What they are made of. Contents are whole, so that a dialogue goes on behind them.
const PIECES: [&[u8]; 22] = [
    b"EHLO c.example.com\r\n",
    b"HELO c\r\n",
    b"MAIL FROM:<a@example.org>\r\n",
    b"MAIL FROM:<a@example.org> SIZE=100 BODY=8BITMIME\r\n",
    b"MAIL FROM:<> SMTPUTF8\r\n",
    b"RCPT TO:<one@example.com>\r\n",
    b"RCPT TO:<two@example.com>\r\n",
    b"RCPT TO:<\"q q\"@example.com>\r\n",
    b"RCPT TO:<nobody@>\r\n",
    b"DATA\r\nSubject: a\r\n\r\nhello\r\n.\r\n",
    b"DATA\r\nSubject: b\r\n\r\n..dots\r\n.\r.\r\n.\n.\r\n.\r\n",
    b"DATA\r\n.\r\n",
    b"DATA\r\nSubject: c\r\n\r\nbare\nLF and \rCR\r\n.\r\n",
    b"DATA\r\nnul \0\r\n.\r\n",
    b"BDAT 12 LAST\r\nNOOP\r\nRSET\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"NOOP\nRSET\r\n",
    b"VRFY x\r\n",
    b"NONSENSE \xff\xfe\r\n",
    b"\r\n",
    b"AUTH PLAIN AHVzZXIAc2VjcmV0\r\n",
];

/// Everything that is answered to `bytes`, cut at `cuts`, up to the end of the connection.
fn answers(relay: &Relay, bytes: &[u8], cuts: &[usize]) -> String {
    let mut client = Client::connect(relay.smtp());
    let mut from = 0;
    for &cut in cuts {
        client.raw(&bytes[from..cut]);
        from = cut;
        std::thread::yield_now();
    }
    client.raw(&bytes[from..]);
    let mut out = String::new();
    while let Ok(reply) = client.reply_within(Duration::from_secs(20)) {
        // Each message has an id of its own.
        match reply.raw.find("queued as ") {
            Some(at) => out.push_str(&reply.raw[..at]),
            None => out.push_str(&reply.raw),
        }
        out.push('\n');
    }
    out
}

#[test]
fn replies_do_not_depend_on_packets() {
    let mut random = Random::seeded("splits");
    let upstream = Upstream::start();
    let relay = Relay::setup()
        .upstream(&upstream, "")
        .listener("auth = \"optional\"\nmax_errors = 1000")
        .credential("user", "secret")
        .start();
    for _ in 0..DIALOGUES {
        let mut bytes = b"EHLO c.example.com\r\n".to_vec();
        for _ in 0..random.between(3, 25) {
            bytes.extend_from_slice(PIECES[random.between(0, PIECES.len() as u64) as usize]);
        }
        bytes.extend_from_slice(b"QUIT\r\n");
        let whole = answers(&relay, &bytes, &[]);
        assert!(whole.contains("220 ") && whole.contains("221 "), "{whole}");
        for pieces in [3, 20, bytes.len()] {
            let mut cuts: Vec<usize> =
                (0..pieces).map(|_| random.between(0, bytes.len() as u64) as usize).collect();
            cuts.sort_unstable();
            let cut = answers(&relay, &bytes, &cuts);
            assert_eq!(whole, cut, "cut at {cuts:?}: {}", bytes.escape_ascii());
        }
    }
}
