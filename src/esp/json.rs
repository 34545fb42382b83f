//! JSON written once, into one buffer of known size: no attachment is copied on its way into base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// A document in the making. What is written in an object comes by [`Json::key`] and its value, in turn.
#[derive(Debug)]
pub(super) struct Json {
    out: Vec<u8>,
    /// A comma is due before what comes next.
    comma: bool,
}

impl Json {
    /// An empty document; so many octets are taken at once.
    pub fn with_capacity(octets: usize) -> Self {
        Json { out: Vec::with_capacity(octets), comma: false }
    }

    /// `{…}`
    pub fn object(&mut self, members: impl FnOnce(&mut Json)) {
        self.within(b'{', b'}', members);
    }

    /// `[…]`
    pub fn array(&mut self, items: impl FnOnce(&mut Json)) {
        self.within(b'[', b']', items);
    }

    /// The name of the member whose value comes next.
    pub fn key(&mut self, name: &str) -> &mut Json {
        self.text(name);
        self.out.push(b':');
        self.comma = false;
        self
    }

    /// A string.
    pub fn text(&mut self, text: &str) {
        self.next();
        // A Vec takes everything.
        let _ = serde_json::to_writer(&mut self.out, text);
    }

    /// These octets as a string in base64 (RFC 4648 section 4).
    pub fn base64(&mut self, octets: &[u8]) {
        self.next();
        self.out.push(b'"');
        let at = self.out.len();
        let longest = base64::encoded_len(octets.len(), true).unwrap_or(0);
        self.out.resize(at + longest, b'=');
        let written = STANDARD.encode_slice(octets, &mut self.out[at..]).unwrap_or(0);
        self.out.truncate(at + written);
        self.out.push(b'"');
    }

    /// All of it.
    pub fn finish(self) -> Bytes {
        self.out.into()
    }

    fn within(&mut self, open: u8, close: u8, inside: impl FnOnce(&mut Json)) {
        self.next();
        self.out.push(open);
        self.comma = false;
        inside(self);
        self.out.push(close);
        self.comma = true;
    }

    fn next(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn read(write: impl FnOnce(&mut Json)) -> Value {
        let mut json = Json::with_capacity(0);
        write(&mut json);
        serde_json::from_slice(&json.finish()).unwrap()
    }

    #[test]
    fn it_reads_as_it_was_written() {
        let read = read(|j| {
            j.object(|j| {
                j.key("a").array(|j| {
                    j.object(|j| j.key("x").text("1"));
                    j.object(|_| {});
                    j.text("\u{1}\"\\\r\n\u{2028}ü");
                    j.array(|_| {});
                });
                j.key("b").base64(b"any carnal pleas");
                j.key("c").base64(b"");
            });
        });
        let wanted = json!({
            "a": [{"x": "1"}, {}, "\u{1}\"\\\r\n\u{2028}ü", []],
            "b": "YW55IGNhcm5hbCBwbGVhcw==", "c": "",
        });
        assert_eq!(read, wanted);
    }

    proptest! {
        #[test]
        fn any_text_and_any_octets_come_through(text in any::<String>(), octets: Vec<u8>) {
            let read = read(|j| j.array(|j| { j.text(&text); j.base64(&octets); }));
            prop_assert_eq!(read[0].as_str(), Some(&*text));
            prop_assert_eq!(STANDARD.decode(read[1].as_str().unwrap()).unwrap(), octets);
        }
    }
}
