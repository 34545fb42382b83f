//! Lines over 998 octets: which part of a message has them, and how that part is written so that it has none.
//!
//! The structure is read by an own scanner of delimiter lines, not by `mail-parser`: that one takes `--boundary` for a
//! delimiter also within a line and wherever a longer boundary begins alike, which is good for reading and wrong for
//! cutting. Only what holds a long line is looked into. What a part decodes to never changes; what no change of
//! encoding can mend is named in [`Unrepairable`].

use std::borrow::Cow;
use std::ops::Range;

use mail_parser::parsers::MessageStream;
use memchr::{memchr_iter, memmem};

use super::headers::{BlockEnd, Fields, LINE_OCTETS_MAX, Separator};
use super::splice::{Replacement, Splice};
use super::transfer::is_base64_line;

/// How deep parts may lie in parts where a long line is mended (STANDARDS §1.6).
pub const DEPTH_MAX: usize = 100;
/// How many parts a message may have where one is looked into: those of each multipart that holds a long line.
pub const PARTS_MAX: usize = 1000;

/// `long_lines = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LongLines {
    /// An unsigned text part becomes quoted-printable; what is base64 or quoted-printable gets shorter lines.
    #[default]
    Reencode,
    /// Every message with such a line is refused.
    Refuse,
}

/// A line that is too long, and cannot be made shorter here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} has {octets} octets, 998 are allowed (RFC 5322 section 2.1.1); {why}")]
pub struct Unrepairable {
    /// Counted from 1 at the first line that the client sent.
    pub line: u64,
    /// Without its CRLF.
    pub octets: usize,
    /// What stands in the way.
    pub why: Why,
}

/// Why a long line stays long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// `long_lines = "refuse"`
    #[error(
        "this relay is set to refuse them: break the line, or send the part as quoted-printable or base64"
    )]
    Policy,
    /// A signature or encryption covers it.
    #[error(
        "the message is signed or encrypted, so nothing of it may be changed here: encode the part as \
             quoted-printable or base64 before it is signed"
    )]
    Sealed,
    /// It is in a header field.
    #[error("it is in the header field {0}: fold the field at a blank")]
    Header(String),
    /// It is in a part that is no text.
    #[error("it is in a part of type {0}, which is not re-encoded here: send that part as base64")]
    NotText(String),
    /// The encoding of its part is not known.
    #[error("its part has the unknown Content-Transfer-Encoding {0}: send it as quoted-printable or base64")]
    UnknownEncoding(String),
    /// Its part says base64 and is not.
    #[error("its part says it is base64, but the line has other characters")]
    NotBase64,
    /// It is before, between or after the parts of a multipart.
    #[error("it is in a multipart, but in none of its parts: check the boundary")]
    OutsideParts,
    /// The structure is past [`DEPTH_MAX`] or [`PARTS_MAX`].
    #[error("the message has too many parts to re-encode it: send the part as quoted-printable or base64")]
    TooManyParts,
}

/// How to write the message at `octets` without a line over 998 octets: splices in order, empty when no such line is
/// left. `fields_at` is where its first field begins; lines in `dropped`, which is in order, do not
/// count.
pub fn shorten(
    octets: &[u8],
    fields_at: usize,
    dropped: &[Range<usize>],
    policy: LongLines,
) -> Result<Vec<Splice>, Unrepairable> {
    let lines = long_lines(octets, dropped);
    let Some(first) = lines.first() else { return Ok(Vec::new()) };
    if policy == LongLines::Refuse {
        return Err(first.unrepairable(Why::Policy));
    }
    let mut work = Work { octets, lines: &lines, parts: 0, splices: Vec::new() };
    work.entity(Entity {
        span: fields_at..octets.len(),
        role: Role::Submission,
        depth: 0,
        default: Kind::Text,
    })?;
    Ok(work.splices)
}

/// A line over 998 octets.
struct LongLine {
    span: Range<usize>,
    number: u64,
}

impl LongLine {
    fn unrepairable(&self, why: Why) -> Unrepairable {
        Unrepairable { line: self.number, octets: self.span.len(), why }
    }
}

fn long_lines(octets: &[u8], dropped: &[Range<usize>]) -> Vec<LongLine> {
    let (mut found, mut at, mut number) = (Vec::new(), 0, 0);
    for next in memchr_iter(b'\n', octets).map(|i| i + 1).chain([octets.len()]) {
        let end = next - usize::from(octets[at..next].ends_with(b"\r\n")) * 2;
        number += 1;
        if end - at > LINE_OCTETS_MAX && !is_dropped(at, dropped) {
            found.push(LongLine { span: at..end, number });
        }
        at = next;
    }
    found
}

fn is_dropped(at: usize, dropped: &[Range<usize>]) -> bool {
    let next = dropped.partition_point(|d| d.end <= at);
    dropped.get(next).is_some_and(|d| d.contains(&at))
}

/// What an entity is to the one around it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The message itself; the empty line that its header block may lack is put in with the header edits.
    Submission,
    /// A message within a `message/rfc822` part.
    Attached,
    /// A part of a multipart.
    Part,
}

/// A header block and a body: a message or a part.
struct Entity {
    span: Range<usize>,
    role: Role,
    depth: usize,
    /// What it is without a `Content-Type` (RFC 2046 section 5.1.5).
    default: Kind,
}

/// As far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Kind {
    Text,
    Multipart {
        boundary: Option<Vec<u8>>,
        digest: bool,
    },
    Message,
    Sealed,
    /// Its type, for the refusal.
    Other(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    /// 7bit, 8bit, binary, or nothing said.
    Identity,
    QuotedPrintable,
    Base64,
    Unknown(String),
}

/// What a header block says of its body.
struct Described {
    kind: Option<Kind>,
    encoding: Encoding,
    encoding_spans: Vec<Range<usize>>,
    has_mime_version: bool,
    dkim_signed: bool,
    end: BlockEnd,
}

impl Described {
    fn read(octets: &[u8], span: &Range<usize>) -> Described {
        let mut fields = Fields::new(&octets[..span.end], span.start);
        let mut said = Described {
            kind: None,
            encoding: Encoding::Identity,
            encoding_spans: Vec::new(),
            has_mime_version: false,
            dkim_signed: false,
            end: fields.end(),
        };
        for field in fields.by_ref() {
            if field.is("Content-Type") {
                said.kind.get_or_insert_with(|| kind(field.value()));
            } else if field.is("Content-Transfer-Encoding") {
                if said.encoding_spans.is_empty() {
                    said.encoding = encoding(field.value());
                }
                said.encoding_spans.push(field.span());
            } else if field.is("MIME-Version") {
                said.has_mime_version = true;
            } else if field.is("DKIM-Signature") {
                said.dkim_signed = true;
            }
        }
        said.end = fields.end();
        said
    }
}

fn kind(value: &[u8]) -> Kind {
    let parsed = MessageStream::new(value).parse_content_type();
    // A type that cannot be read is text (RFC 2045 section 5.2).
    let Some(parsed) = parsed.as_content_type() else { return Kind::Text };
    let (main, sub) = (parsed.ctype(), parsed.subtype().unwrap_or_default());
    match (main, sub) {
        ("multipart", "signed" | "encrypted") => Kind::Sealed,
        ("multipart", _) => Kind::Multipart {
            boundary: parsed.attribute("boundary").map(|b| b.as_bytes().to_vec()).filter(|b| !b.is_empty()),
            digest: sub == "digest",
        },
        ("message", "rfc822" | "global") => Kind::Message,
        ("application", "pkcs7-mime" | "x-pkcs7-mime") => Kind::Sealed,
        ("text", _) | (_, "") => Kind::Text,
        _ => Kind::Other(brief(format!("{main}/{sub}").as_bytes())),
    }
}

pub(super) fn encoding(value: &[u8]) -> Encoding {
    // Comments are legal here and unseen; what stands before one decides.
    let word = value.split(|b| *b == b'(' || *b == b';').next().unwrap_or_default().trim_ascii();
    match word.to_ascii_lowercase().as_slice() {
        b"" | b"7bit" | b"8bit" | b"binary" => Encoding::Identity,
        b"quoted-printable" => Encoding::QuotedPrintable,
        b"base64" => Encoding::Base64,
        _ => Encoding::Unknown(brief(word)),
    }
}

/// A word of the client's, short enough for a reply.
fn brief(word: &[u8]) -> String {
    word.iter().take(60).map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '?' }).collect()
}

/// One message being looked through.
struct Work<'a> {
    octets: &'a [u8],
    lines: &'a [LongLine],
    /// Of all multiparts so far.
    parts: usize,
    splices: Vec<Splice>,
}

impl<'a> Work<'a> {
    fn entity(&mut self, entity: Entity) -> Result<(), Unrepairable> {
        let Some(first) = self.first_long(&entity.span) else { return Ok(()) };
        if entity.depth > DEPTH_MAX {
            return Err(first.unrepairable(Why::TooManyParts));
        }
        let said = Described::read(self.octets, &entity.span);
        let kind = said.kind.clone().unwrap_or_else(|| entity.default.clone());
        if said.dkim_signed || kind == Kind::Sealed {
            return Err(first.unrepairable(Why::Sealed));
        }
        if let Some(long) = self.first_long(&(entity.span.start..said.end.body_at)) {
            return Err(long.unrepairable(Why::Header(self.field_at(&entity.span, long.span.start))));
        }
        let body = said.end.body_at..entity.span.end;
        match kind {
            Kind::Multipart { boundary, digest } => {
                let default = if digest { Kind::Message } else { Kind::Text };
                self.multipart(body, &boundary.unwrap_or_default(), &default, entity.depth)
            }
            Kind::Message if said.encoding == Encoding::Identity => {
                let depth = entity.depth + 1;
                self.entity(Entity { span: body, role: Role::Attached, depth, default: Kind::Text })
            }
            kind => self.leaf(&entity, &said, &kind, body),
        }
    }

    fn multipart(
        &mut self,
        body: Range<usize>,
        boundary: &[u8],
        default: &Kind,
        depth: usize,
    ) -> Result<(), Unrepairable> {
        let mut gap_at = body.start;
        let parts = if boundary.is_empty() { Vec::new() } else { parts(self.octets, &body, boundary) };
        // Past the bound the last one found is no part: it holds all the others (see `parts`). So nothing of it is
        // touched, wherever the long line is.
        self.parts += parts.len();
        if self.parts > PARTS_MAX {
            return self.first_long(&body).map_or(Ok(()), |long| Err(long.unrepairable(Why::TooManyParts)));
        }
        for part in parts {
            self.gap(gap_at..part.start)?;
            gap_at = part.end;
            self.entity(Entity { span: part, role: Role::Part, depth: depth + 1, default: default.clone() })?;
        }
        self.gap(gap_at..body.end)
    }

    /// Nothing here is shown to anyone, so nothing here is re-encoded.
    fn gap(&self, span: Range<usize>) -> Result<(), Unrepairable> {
        self.first_long(&span).map_or(Ok(()), |long| Err(long.unrepairable(Why::OutsideParts)))
    }

    fn leaf(
        &mut self,
        entity: &Entity,
        said: &Described,
        kind: &Kind,
        body: Range<usize>,
    ) -> Result<(), Unrepairable> {
        let Some(first) = self.first_long(&body) else { return Ok(()) };
        match (&said.encoding, kind) {
            (Encoding::Identity, Kind::Text) => self.reencode(entity, said, body),
            (Encoding::Identity, Kind::Other(name)) => {
                return Err(first.unrepairable(Why::NotText(name.clone())));
            }
            (_, Kind::Message | Kind::Multipart { .. } | Kind::Sealed) => {
                return Err(first.unrepairable(Why::NotText("message".to_owned())));
            }
            (Encoding::Unknown(name), _) => {
                return Err(first.unrepairable(Why::UnknownEncoding(name.clone())));
            }
            (Encoding::QuotedPrintable, _) => {
                self.splices.push(Splice { span: body, with: Replacement::QuotedPrintableBroken });
            }
            (Encoding::Base64, _) => {
                if let Some(bad) = self.long_in(&body).find(|l| !is_base64_line(&self.octets[l.span.clone()]))
                {
                    return Err(bad.unrepairable(Why::NotBase64));
                }
                self.splices.push(Splice { span: body, with: Replacement::Base64Broken });
            }
        }
        Ok(())
    }

    /// The body as quoted-printable, and the one field that says so in the place of what was said.
    fn reencode(&mut self, entity: &Entity, said: &Described, body: Range<usize>) {
        const FIELD: &str = "Content-Transfer-Encoding: quoted-printable\r\n";
        let fields_end = said.end.fields_end;
        let mut spans = said.encoding_spans.iter().cloned();
        let field_span = spans.next().unwrap_or(fields_end..fields_end);
        self.splices.push(Splice { span: field_span, with: Replacement::text(FIELD) });
        self.splices.extend(spans.map(|span| Splice { span, with: Replacement::NOTHING }));
        if entity.role != Role::Part && !said.has_mime_version {
            self.put(fields_end, Replacement::text("MIME-Version: 1.0\r\n"));
        }
        if entity.role != Role::Submission && said.end.separator == Separator::Missing {
            self.put(fields_end, Replacement::EMPTY_LINE);
        }
        self.splices.push(Splice { span: body, with: Replacement::QuotedPrintable });
    }

    fn put(&mut self, at: usize, with: Replacement) {
        self.splices.push(Splice { span: at..at, with });
    }

    /// The name of the field that holds `at`.
    fn field_at(&self, span: &Range<usize>, at: usize) -> String {
        let holds = |f: &super::headers::Field<'_>| f.span().contains(&at);
        Fields::new(&self.octets[..span.end], span.start)
            .find(holds)
            .map_or(Cow::Borrowed("?"), |f| Cow::Owned(brief(f.name)))
            .into_owned()
    }

    fn long_in(&self, span: &Range<usize>) -> impl Iterator<Item = &'a LongLine> + use<'a> {
        let (lines, end) = (self.lines, span.end);
        let from = lines.partition_point(|l| l.span.start < span.start);
        lines[from..].iter().take_while(move |l| l.span.start < end)
    }

    fn first_long(&self, span: &Range<usize>) -> Option<&'a LongLine> {
        self.long_in(span).next()
    }
}

/// The parts of a multipart: what lies between its delimiter lines (RFC 2046 section 5.1.1). The CRLF before a
/// delimiter belongs to it; what is not closed ends with the body. More than [`PARTS_MAX`] of them are too many: not all
/// are there then, and the last one runs to the end of the body.
pub(super) fn parts(octets: &[u8], body: &Range<usize>, boundary: &[u8]) -> Vec<Range<usize>> {
    let delimiter = [b"--", boundary].concat();
    let (mut found, mut part_at) = (Vec::new(), None);
    for at in memmem::find_iter(&octets[body.clone()], &delimiter).map(|i| body.start + i) {
        let Some(Delimiter { after, closes }) = delimiter_line(octets, body, at, delimiter.len()) else {
            continue;
        };
        if let Some(start) = part_at {
            found.push(start..at.saturating_sub(2).max(start));
        }
        part_at = (!closes).then_some(after);
        if closes || found.len() > PARTS_MAX {
            break;
        }
    }
    found.extend(part_at.map(|start| start..body.end));
    found
}

struct Delimiter {
    /// After its line end.
    after: usize,
    closes: bool,
}

/// The delimiter at `at`, where one begins its line and nothing but blanks follow it.
fn delimiter_line(
    octets: &[u8],
    body: &Range<usize>,
    at: usize,
    delimiter_octets: usize,
) -> Option<Delimiter> {
    if at > body.start && octets[at - 1] != b'\n' {
        return None;
    }
    let rest = &octets[at + delimiter_octets..body.end];
    let (closes, rest) = rest.strip_prefix(b"--").map_or((false, rest), |rest| (true, rest));
    let blanks = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let after = at + delimiter_octets + usize::from(closes) * 2 + blanks;
    match &rest[blanks..] {
        [] => Some(Delimiter { after, closes }),
        [b'\r', b'\n', ..] => Some(Delimiter { after: after + 2, closes }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
