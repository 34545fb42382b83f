//! Content read once more, the slow way: whole, line by line, from the words of the standards.

use postroad::mail::body::SPILL_OCTETS;
use postroad::smtp::data::RECEIVED_FIELDS_MAX;
use postroad::smtp::reply::{self, Reply};
use postroad::smtp::{BareNewline, ListenerSettings};

use crate::{lines, marks};

/// Content that came to its end.
pub struct Read {
    /// Octets of the content and its end.
    pub taken: usize,
    /// The content, or the reply that refuses it.
    pub result: Result<Vec<u8>, Reply>,
    /// Dots that were stuffed.
    pub unstuffed: usize,
}

/// What may not be there.
#[derive(Default)]
struct Stray {
    nul: bool,
    lf: bool,
    cr: bool,
}

/// Reads up to the first line that is one dot; `None` where there is none.
pub fn read(wire: &[u8], settings: &ListenerSettings) -> Option<Read> {
    let (mut content, mut stray, mut unstuffed) = (Vec::new(), Stray::default(), 0);
    for (line, taken) in lines(wire) {
        if line == b"." {
            let result = refusal(&content, &stray, settings).map_or(Ok(content), Err);
            return Some(Read { taken, result, unstuffed });
        }
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        stray.cr |= text.len() < line.len();
        for at in marks(text) {
            match text[at] {
                0 => stray.nul = true,
                b'\n' => stray.lf = true,
                _ => stray.cr = true,
            }
        }
        unstuffed += usize::from(line.starts_with(b"."));
        take_line(text, &mut content, settings.bare_newline);
    }
    None
}

/// A line without its CRLF; CR CR LF is one line end. What is bare in it ends a line too, behind which a dot was
/// stuffed as anywhere, or is gone.
fn take_line(line: &[u8], content: &mut Vec<u8>, bare_newline: BareNewline) {
    let normalize = bare_newline == BareNewline::Normalize;
    let bare = |octet: &u8| matches!(octet, b'\r' | b'\n');
    for part in line.split(|octet| normalize && bare(octet)) {
        let text = match part {
            b"." if normalize => part,
            _ => part.strip_prefix(b".").unwrap_or(part),
        };
        content.extend(text.iter().filter(|octet| **octet != 0 && !bare(octet)));
        content.extend_from_slice(b"\r\n");
    }
}

fn refusal(content: &[u8], stray: &Stray, settings: &ListenerSettings) -> Option<Reply> {
    let reject = settings.bare_newline == BareNewline::Reject;
    if content.len() as u64 > settings.max_message_size_octets {
        Some(reply::TOO_LARGE)
    } else if stray.nul {
        Some(reply::CONTENT_NUL)
    } else if stray.lf && reject {
        Some(reply::CONTENT_BARE_LF)
    } else if stray.cr && reject {
        Some(reply::CONTENT_BARE_CR)
    } else {
        header_refusal(content)
    }
}

fn header_refusal(content: &[u8]) -> Option<Reply> {
    let (mut received, mut complete) = (0, false);
    for (line, _) in lines(&content[..content.len().min(SPILL_OCTETS)]) {
        if line.is_empty() {
            complete = true;
            break;
        }
        received += usize::from(is_received(line));
    }
    if !complete && content.len() >= SPILL_OCTETS {
        return Some(reply::HEADERS_TOO_LARGE);
    }
    (received > RECEIVED_FIELDS_MAX).then_some(reply::LOOP)
}

fn is_received(line: &[u8]) -> bool {
    let Some((name, _)) = line.iter().position(|b| *b == b':').map(|at| line.split_at(at)) else {
        return false;
    };
    name.trim_ascii_end().eq_ignore_ascii_case(b"received")
}
