//! The header blocks of a message's parts, wherever they lie: what each says that it is, and the names of files. No more of
//! the body is read than finds the next part.

use std::ops::Range;

use mail_parser::parsers::MessageStream;

use super::headers::{Fields, fields};
use super::mime::{DEPTH_MAX, PARTS_MAX, parts};

/// What a part says of itself.
pub(super) struct PartHead<'a> {
    /// The value of its first Content-Type.
    pub content_type: Option<&'a [u8]>,
    /// The value of its first Content-Disposition.
    pub disposition: Option<&'a [u8]>,
}

/// What `look` finds first in the parts of `content`, a message or as much of its beginning as is there, the whole one
/// first. A message that is attached (`message/rfc822`) is a file of its own, and is not looked into.
pub(super) fn find_part<T>(content: &[u8], mut look: impl FnMut(&PartHead<'_>) -> Option<T>) -> Option<T> {
    let mut walk = vec![(0..content.len(), 0)];
    let mut seen = 0;
    while let Some((span, depth)) = walk.pop() {
        let (head, body) = read(content, &span);
        if let Some(found) = look(&head) {
            return Some(found);
        }
        let Some(boundary) = head.content_type.and_then(boundary).filter(|_| depth < DEPTH_MAX) else {
            continue;
        };
        let found = parts(content, &body, &boundary);
        seen += found.len();
        // Past the bound the last one found is no part, see `parts`.
        if seen > PARTS_MAX {
            return None;
        }
        walk.extend(found.into_iter().rev().map(|part| (part, depth + 1)));
    }
    None
}

/// The first name of a file in `content` that is so.
pub fn file_named(content: &[u8], is: impl Fn(&str) -> bool) -> Option<String> {
    find_part(content, |head| {
        let of = |value: Option<&[u8]>, parameter| named(value?, parameter).filter(|name| is(name));
        of(head.disposition, "filename").or_else(|| of(head.content_type, "name"))
    })
}

/// What that parameter of a field says.
pub(super) fn named(value: &[u8], parameter: &str) -> Option<String> {
    let parsed = MessageStream::new(value).parse_content_type();
    parsed.as_content_type()?.attribute(parameter).map(|name| name.trim().to_owned())
}

/// What a header block says of its body, and where that is.
fn read<'a>(content: &'a [u8], span: &Range<usize>) -> (PartHead<'a>, Range<usize>) {
    let mut fields = match span.start {
        0 => fields(content),
        at => Fields::new(&content[..span.end], at),
    };
    let mut head = PartHead { content_type: None, disposition: None };
    for field in fields.by_ref() {
        if field.is("Content-Type") {
            head.content_type.get_or_insert(field.value());
        } else if field.is("Content-Disposition") {
            head.disposition.get_or_insert(field.value());
        }
    }
    (head, fields.end().body_at..span.end)
}

fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let parsed = MessageStream::new(content_type).parse_content_type();
    let parsed = parsed.as_content_type().filter(|parsed| parsed.ctype() == "multipart")?;
    parsed.attribute("boundary").filter(|b| !b.is_empty()).map(|b| b.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_its_name_wherever_it_lies_and_however_that_is_written() {
        let exe = |name: &str| name.ends_with(".exe");
        let mixed = "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\nhello\r\n--o\r\n";
        for (part, found) in [
            ("Content-Disposition: attachment; filename=a.exe\r\n\r\nx", Some("a.exe")),
            ("Content-Type: application/octet-stream;\r\n name=\"b.exe\"\r\n\r\nx", Some("b.exe")),
            ("Content-Disposition: attachment; filename*=utf-8''%c3%bc.exe\r\n\r\nx", Some("\u{fc}.exe")),
            ("Content-Disposition: attachment; filename=\"=?utf-8?Q?c=2Eexe?=\"\r\n\r\nx", Some("c.exe")),
            (
                "Content-Type: multipart/related; boundary=i\r\n\r\n--i\r\nContent-Type: x/y; name=d.exe\r\n\r\n--i--",
                Some("d.exe"),
            ),
            ("Content-Disposition: attachment; filename=a.txt\r\n\r\na.exe", None),
            ("\r\nContent-Disposition: attachment; filename=a.exe\r\n", None),
            (
                "Content-Type: message/rfc822\r\n\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nx",
                None,
            ),
        ] {
            let content = format!("{mixed}{part}\r\n--o--\r\n");
            assert_eq!(file_named(content.as_bytes(), exe).as_deref(), found, "{part}");
        }
        let alone = b"Content-Disposition: attachment; filename=a.exe\r\n\r\nx";
        assert_eq!(file_named(alone, exe).as_deref(), Some("a.exe"));
    }
}
