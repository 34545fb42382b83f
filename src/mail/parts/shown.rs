//! What the HTML shows: a file whose Content-ID it names is part of the picture (RFC 2392), also where its disposition
//! calls it an attachment and where it does not lie in multipart/related. All readers of mail show it there.

use std::collections::HashMap;

use memchr::memchr_iter;

use super::File;
use super::typed::percent_decoded;

/// What stands before a Content-ID in a URL.
const SCHEME: &[u8] = b"cid";

/// Marks the files that the HTML names as shown.
pub(super) fn mark(html: Option<&str>, files: &mut [File<'_>]) {
    let Some(html) = html else { return };
    let mut attached: HashMap<String, Vec<usize>> = HashMap::new();
    for (n, file) in files.iter().enumerate().filter(|(_, file)| !file.inline) {
        if let Some(id) = &file.content_id {
            attached.entry(id.clone()).or_default().push(n);
        }
    }
    if attached.is_empty() {
        return;
    }
    for named in named(html) {
        for spelling in spellings(named) {
            for n in attached.remove(&spelling).unwrap_or_default() {
                files[n].inline = true;
            }
        }
    }
}

/// What stands behind each `cid:`, up to what ends a URL in an attribute or in CSS.
fn named(html: &str) -> impl Iterator<Item = &str> {
    memchr_iter(b':', html.as_bytes()).filter_map(move |colon| {
        let before = &html.as_bytes()[..colon];
        let (before, scheme) = before.split_at_checked(before.len().checked_sub(SCHEME.len())?)?;
        let is_word = before.last().is_some_and(u8::is_ascii_alphanumeric);
        if is_word || !scheme.eq_ignore_ascii_case(SCHEME) {
            return None;
        }
        let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '(' | ')');
        html[colon + 1..].split(ends).next().filter(|named| !named.is_empty())
    })
}

/// What may be meant: as it stands there, without the escapes of HTML and of URLs, without what follows in escapes.
fn spellings(named: &str) -> Vec<String> {
    let mut all = vec![named.to_owned()];
    if let Some((before, _)) = named.split_once('&') {
        all.extend([named.replace("&amp;", "&"), before.to_owned()]);
    }
    let decoded = |text: &String| percent_decoded(text).and_then(|octets| String::from_utf8(octets).ok());
    let decoded: Vec<String> = all.iter().filter(|text| text.contains('%')).filter_map(decoded).collect();
    all.extend(decoded);
    all
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn shown(html: &str, id: &str) -> bool {
        let file = |id: &str| File {
            name: "a.png".into(),
            content_type: "image/png".into(),
            octets: Cow::Borrowed(b"x"),
            inline: false,
            content_id: Some(id.to_owned()),
        };
        let mut files = [file("another@x"), file(id)];
        mark(Some(html), &mut files);
        assert!(!files[0].inline);
        files[1].inline
    }

    #[test]
    fn what_is_named_in_any_spelling_is_shown() {
        for (html, id) in [
            ("<img src=\"cid:logo@shop.example\">", "logo@shop.example"),
            ("<IMG SRC='CID:logo@shop.example'/>", "logo@shop.example"),
            ("<img src=cid:logo@shop.example>", "logo@shop.example"),
            ("<td style=\"background:url(cid:logo@shop.example)\">", "logo@shop.example"),
            ("<td style=\"background:url(&quot;cid:logo&quot;)\">", "logo"),
            ("<img src=\"cid:a%2Bb%25c@x\">", "a+b%c@x"),
            ("<img src=\"cid:100%@x\">", "100%@x"),
            ("<img src=\"cid:a&amp;b@x\">", "a&b@x"),
            ("<img srcset=\"cid:one@x 1x, cid:two@x 2x\">", "two@x"),
        ] {
            assert!(shown(html, id), "{html}");
        }
        for html in ["", "cid:", "<img src=\"cid:logos\">", "acid:logo", "<img src=\"https://x/logo\">", ":"]
        {
            assert!(!shown(html, "logo"), "{html}");
        }
    }
}
