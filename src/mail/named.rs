//! An address with the name beside it, as a header field writes it in ASCII.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The name where there is one, quoted, or encoded where it is not ASCII.
pub fn mailbox(address: &str, full_name: Option<&str>) -> String {
    let name: String = full_name.unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    match name.trim() {
        "" => address.to_owned(),
        name if !name.is_ascii() => format!("{} <{address}>", encoded_words(name)),
        name => format!("\"{}\" <{address}>", name.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// RFC 2047: words of at most 75 characters, none of which parts a letter, a line each.
fn encoded_words(text: &str) -> String {
    const OCTETS_MAX: usize = 45;
    let mut words = vec![String::new()];
    for letter in text.chars() {
        match words.last_mut() {
            Some(word) if word.len() + letter.len_utf8() <= OCTETS_MAX => word.push(letter),
            _ => words.push(letter.to_string()),
        }
    }
    let words: Vec<String> =
        words.iter().map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word))).collect();
    words.join("\r\n ")
}

#[cfg(test)]
mod tests {
    use mail_parser::MessageParser;

    use super::*;

    #[test]
    fn a_name_that_is_not_ascii_is_written_as_encoded_words() {
        assert_eq!(mailbox("a@x.example", Some("Jürgen")), "=?utf-8?B?SsO8cmdlbg==?= <a@x.example>");
        let long = mailbox("a@x.example", Some(&"ü".repeat(100)));
        assert!(long.is_ascii() && long.split("\r\n ").all(|line| line.len() <= 75 + 14), "{long}");
        let message = format!("From: {long}\r\n\r\n");
        let read = MessageParser::default().parse(message.as_bytes()).unwrap();
        let from = read.from().and_then(|from| from.first()).unwrap();
        assert_eq!((from.name(), from.address()), (Some(&*"ü".repeat(100)), Some("a@x.example")));
    }

    #[test]
    fn a_name_cannot_end_the_field_it_stands_in() {
        assert_eq!(mailbox("w@h", Some("A \"b\" \\c\r\nBcc: x")), "\"A \\\"b\\\" \\\\cBcc: x\" <w@h>");
        assert_eq!(mailbox("w@h", Some(" ")), "w@h");
    }
}
