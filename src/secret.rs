//! A secret that does not print: passwords, keys and tokens from configuration to the wire.

mod pieces;
mod plain;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use pieces::{PIECE_OCTETS_MIN, Pieces};
use plain::{EqualsSign, Plain};

/// Text that must not be seen: `Debug` prints stars, there is no `Display`, memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the text in.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(SecretString::from(text.into()))
    }

    /// The text itself, for the one line that puts it on the wire.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether `other` is the same text, in a time that depends on the lengths alone.
    pub fn matches(&self, other: &[u8]) -> bool {
        bool::from(self.expose().as_bytes().ct_eq(other))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Two secrets are equal when their texts are; compared in constant time. For finding what a reload changed.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.expose().as_bytes())
    }
}

/// Blots secrets out of what a stranger says: an upstream may echo what it was sent, and its words are kept and shown.
#[derive(Clone, Default)]
pub struct Blot {
    /// As they are.
    plain: Vec<Secret>,
    /// Encoded, or long and random: so much of its beginning is no chance either.
    encoded: Vec<Secret>,
    /// The long ones of all these in the form of [`Plain`], and in hexadecimal digits; made when first needed.
    forms: OnceLock<Vec<Secret>>,
    /// Pieces of these tell of it, too: the long ones, and what stands for them in base64 and in hexadecimal digits.
    piecemeal: Vec<Secret>,
    /// Made when first needed.
    pieces: OnceLock<Arc<Pieces>>,
}

impl Blot {
    /// Fewer octets of a secret than these are not known for it: they are in any text.
    const OCTETS_MIN: usize = 4;
    /// Of one whose end was cut off with the text's.
    const CUT_OCTETS_MIN: usize = 8;
    /// A text that is as long was probably cut: an upstream's words end at 1,024 octets.
    const CUT_TEXT_OCTETS_MIN: usize = 1_000;

    /// Blots out the password, every form in which AUTH PLAIN and LOGIN send it, and it inside of anything in base64.
    pub fn of_login(username: &str, password: &Secret) -> Self {
        let mut blot = Blot::of_all([password]);
        // People choose it: "upstream" at the end of a text is no part of "upstream-secret" yet.
        blot.encoded.retain(|form| form != password);
        if password.expose().len() >= Self::CUT_OCTETS_MIN {
            blot.plain.push(password.clone());
        }
        let plain = format!("\0{username}\0{}", password.expose());
        let encoded = [STANDARD.encode(&plain), STANDARD.encode(password.expose())];
        let long_enough = |secret: &Secret| secret.expose().len() >= Self::OCTETS_MIN;
        blot.encoded.extend(encoded.into_iter().map(Secret::new).filter(long_enough));
        blot.longest_first();
        blot
    }

    /// The same for each of these that the account has.
    pub fn of_logins<'s>(username: &str, passwords: impl IntoIterator<Item = &'s Secret>) -> Self {
        let each = passwords.into_iter().map(|password| Blot::of_login(username, password));
        each.reduce(Blot::and).unwrap_or_default()
    }

    /// Blots out this one's secrets as well.
    #[must_use]
    pub fn and(mut self, other: Blot) -> Self {
        self.plain.extend(other.plain);
        self.encoded.extend(other.encoded);
        self.piecemeal.extend(other.piecemeal);
        self.longest_first();
        Blot { forms: OnceLock::new(), pieces: OnceLock::new(), ..self }
    }

    /// What is a part of another goes after it.
    fn longest_first(&mut self) {
        self.encoded.sort_by_key(|form| std::cmp::Reverse(form.expose().len()));
    }

    /// Blots out secrets that are sent as they are, and inside of anything in base64.
    pub fn of_all<'s>(secrets: impl IntoIterator<Item = &'s Secret>) -> Self {
        let mut blot = Blot::default();
        for secret in secrets {
            let text = secret.expose();
            if text.len() >= Self::CUT_OCTETS_MIN {
                blot.encoded.push(secret.clone());
            } else if text.len() >= Self::OCTETS_MIN {
                blot.plain.push(secret.clone());
            }
            let inside = inside_base64(text).filter(|form| form.len() >= Self::CUT_OCTETS_MIN);
            let inside: Vec<Secret> = inside.map(Secret::new).collect();
            if text.len() >= PIECE_OCTETS_MIN {
                let written = [secret.clone(), Secret::new(digits(text.as_bytes()))];
                blot.piecemeal.extend(written.into_iter().chain(inside.iter().cloned()));
            }
            blot.encoded.extend(inside);
        }
        blot.longest_first();
        blot
    }

    /// Blots out a URL that is a secret: whole, and pieces of what follows its host, which is none.
    pub fn of_url(url: &Secret) -> Self {
        let (_, rest) = url.expose().split_once("://").unwrap_or_default();
        let path = rest.find(['/', '?']).map(|at| Secret::new(&rest[at..]));
        let piecemeal = Blot::of_all(path.as_ref()).piecemeal;
        Blot { piecemeal, ..Blot::of_all([url]) }
    }

    /// The text with stars for each secret, however the text spells it: as it is, in the escapes of JSON, in those of a
    /// URL or a form, or some letters so and others so; where it is long also in those of HTML or quoted-printable, in
    /// escapes of escapes, in hexadecimal digits, or broken over lines. Whoever reads the text may undo these. Of a long
    /// one a piece will do, in capitals or small letters.
    pub fn out<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let clean = self.out_of_letters(text);
        match self.hidden(&clean) {
            parts if parts.is_empty() => clean,
            parts => Cow::Owned(with_stars(&clean, parts)),
        }
    }

    /// Where a long secret stands once the text's escapes are undone.
    fn hidden(&self, text: &str) -> Vec<Range<usize>> {
        let forms = self.forms.get_or_init(|| self.all_forms());
        // No way of writing it is shorter than it is.
        let shortest = forms.iter().map(|form| form.expose().len()).min();
        if shortest.is_none_or(|shortest| text.len() < shortest.min(PIECE_OCTETS_MIN)) {
            return Vec::new();
        }
        let pieces = self.pieces.get_or_init(|| Arc::new(Pieces::of(&self.piecemeal)));
        let mut parts = Vec::new();
        for equals in [EqualsSign::Stands, EqualsSign::Escapes] {
            if equals == EqualsSign::Escapes && !text.contains('=') {
                continue;
            }
            let mut plain = Plain::of(text.as_bytes(), equals);
            find(&plain, forms, &mut parts);
            // Digits are written in either case.
            plain.octets.make_ascii_lowercase();
            find(&plain, forms, &mut parts);
            pieces.find(&plain, &mut parts);
        }
        parts
    }

    fn all_forms(&self) -> Vec<Secret> {
        let mut forms = Vec::new();
        for secret in self.plain.iter().chain(&self.encoded) {
            let octets = secret.expose().as_bytes();
            let plain = Plain::of(octets, EqualsSign::Stands).octets;
            let plain = String::from_utf8(plain).ok();
            let long = |form: &String| form.len() >= Self::CUT_OCTETS_MIN;
            forms.extend(plain.into_iter().chain([digits(octets)]).filter(long).map(Secret::new));
        }
        forms
    }

    fn out_of_letters<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let is_cut = text.len() >= Self::CUT_TEXT_OCTETS_MIN;
        let plain_at_end = if is_cut { Self::CUT_OCTETS_MIN } else { usize::MAX };
        let plain = self.plain.iter().map(|secret| (secret, plain_at_end));
        let encoded = self.encoded.iter().map(|secret| (secret, Self::CUT_OCTETS_MIN));
        let mut clean = Cow::Borrowed(text);
        for (secret, least_at_end) in plain.chain(encoded) {
            if let Some(changed) = without(&clean, secret.expose(), least_at_end) {
                clean = Cow::Owned(changed);
            }
        }
        clean
    }
}

/// In hexadecimal digits.
fn digits(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Adds where one of these stands.
fn find(plain: &Plain, forms: &[Secret], parts: &mut Vec<Range<usize>>) {
    let may_stand = |form: &&[u8]| form.len() <= plain.octets.len();
    for form in forms.iter().map(|form| form.expose().as_bytes()).filter(may_stand) {
        for at in memmem::find_iter(&plain.octets, form) {
            parts.extend(plain.part(at..at + form.len()));
        }
    }
}

/// The text with stars in place of these parts, which may lie in one another.
fn with_stars(text: &str, mut parts: Vec<Range<usize>>) -> String {
    parts.sort_by_key(|part| (part.start, part.end));
    let (mut out, mut kept) = (String::with_capacity(text.len()), 0);
    for part in parts {
        if part.end <= kept {
            continue;
        }
        let start = text.floor_char_boundary(part.start);
        if start >= kept {
            out.push_str(&text[kept..start]);
            out.push_str("***");
        }
        kept = text.ceil_char_boundary(part.end);
    }
    out.push_str(&text[kept..]);
    out
}

/// The text with stars for each place where the secret stands; at the end of the text so many of its first letters will
/// do. `None`: it stands nowhere.
fn without(text: &str, secret: &str, least_at_end: usize) -> Option<String> {
    let first = secret.chars().next()?;
    let octets = text.as_bytes();
    let first_octet = *first.encode_utf8(&mut [0; 4]).as_bytes().first()?;
    // Another octet begins no spelling of the first letter.
    let may_begin = |b: u8| b == first_octet || b == b'\\' || b == b'%' || (b == b'+' && first == ' ');
    let (mut out, mut kept, mut at) = (String::new(), 0, octets.iter().position(|b| may_begin(*b))?);
    // Most texts have no place where it could begin.
    let secret: Vec<char> = secret.chars().collect();
    while let Some(found) = octets[at..].iter().position(|b| may_begin(*b)) {
        at += found;
        let end = match spelled(octets, at, &secret) {
            Spelled::Whole { end } => end,
            Spelled::Cut { letters } if letters >= least_at_end => octets.len(),
            Spelled::Cut { .. } | Spelled::Not => {
                at += 1;
                continue;
            }
        };
        out.push_str(&text[kept..at]);
        out.push_str("***");
        (kept, at) = (end, end);
    }
    (kept > 0).then(|| out + &text[kept..])
}

/// A secret of so many letters is looked for at a place in so many steps: each letter has one way nearly always.
const TRIES_PER_LETTER: usize = 8;

/// Whether a secret stands at a place of a text.
enum Spelled {
    /// Up to there.
    Whole {
        end: usize,
    },
    /// The text ends after so many of its letters.
    Cut {
        letters: usize,
    },
    Not,
}

/// Where a letter may be read in several ways (`%25` is a percent sign, or one and two digits) all of them are tried.
fn spelled(text: &[u8], at: usize, secret: &[char]) -> Spelled {
    let (mut open, mut longest) = (vec![(at, 0)], None);
    for _ in 0..secret.len() * TRIES_PER_LETTER {
        let Some((at, letters)) = open.pop() else { break };
        let Some(wanted) = secret.get(letters..).filter(|wanted| !wanted.is_empty()) else {
            return Spelled::Whole { end: at };
        };
        let rest = &text[at..];
        // The text may end in the middle of an escape.
        if rest.is_empty() || is_begun_escape(rest) {
            longest = longest.max(Some(letters));
        }
        let behind_slashes = letters > 0 && secret[letters - 1] == '\\';
        let ways = letter(rest, wanted, behind_slashes);
        open.extend(
            ways.into_iter().rev().flatten().map(|(octets, of_secret)| (at + octets, letters + of_secret)),
        );
    }
    longest.map_or(Spelled::Not, |letters| Spelled::Cut { letters })
}

/// How many octets of the text may spell how many of the secret's next letters: one, or all of a run of backslashes.
fn letter(text: &[u8], secret: &[char], behind_slashes: bool) -> [Option<(usize, usize)>; 3] {
    let Some(next) = secret.first().copied() else { return [None; 3] };
    let slashes = slashes(text);
    let rest = &text[slashes..];
    let escaped = if slashes > 0 || behind_slashes { unicode_escape(rest, next) } else { None };
    let mut buffer = [0; 4];
    let plain = next.encode_utf8(&mut buffer).as_bytes();
    let percent = plain.iter().enumerate().all(|(n, octet)| {
        let written = rest.get(n * 3..n * 3 + 3);
        written.is_some_and(|w| w[0] == b'%' && hex(&w[1..]) == Some(u32::from(*octet)))
    });
    let as_it_is = match next {
        // Escaped each of them is two, or four where JSON stands in JSON; the last may belong to the next letter.
        '\\' => {
            let run = secret.iter().take_while(|c| **c == '\\').count();
            (slashes >= run).then_some((slashes, run))
        }
        ' ' if rest.first() == Some(&b'+') => Some((slashes + 1, 1)),
        _ => rest.starts_with(plain).then_some((slashes + plain.len(), 1)),
    };
    [escaped.map(|octets| (slashes + octets, 1)), percent.then_some((slashes + plain.len() * 3, 1)), as_it_is]
}

/// A longer run of backslashes is no escape of a letter: each level of JSON in JSON doubles them.
const SLASHES_MAX: usize = 32;

fn slashes(text: &[u8]) -> usize {
    text.iter().take(SLASHES_MAX).take_while(|b| **b == b'\\').count()
}

/// The octets of `uXXXX`, or of `uXXXX\uXXXX`, where that is the letter; the first backslash stands before.
fn unicode_escape(text: &[u8], letter: char) -> Option<usize> {
    const UNIT_OCTETS: usize = "uXXXX".len();
    let is = |text: &[u8], unit: u16| {
        text.first() == Some(&b'u') && text.get(1..UNIT_OCTETS).and_then(hex) == Some(u32::from(unit))
    };
    let mut units = [0; 2];
    match *letter.encode_utf16(&mut units) {
        [one] => is(text, one).then_some(UNIT_OCTETS),
        [high, low] if is(text, high) => {
            let rest = &text[UNIT_OCTETS..];
            let slashes = slashes(rest);
            (slashes > 0 && is(&rest[slashes..], low)).then_some(2 * UNIT_OCTETS + slashes)
        }
        _ => None,
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
}

/// Whether all of it may be the beginning of an escape.
fn is_begun_escape(text: &[u8]) -> bool {
    let rest = match text.first() {
        Some(b'%') => return text.len() < "%XX".len(),
        Some(b'\\') => &text[slashes(text)..],
        _ => return false,
    };
    match rest.split_first() {
        None => true,
        Some((b'u', digits)) => digits.len() < "XXXX".len() && digits.iter().all(u8::is_ascii_hexdigit),
        Some(_) => false,
    }
}

/// As `application/x-www-form-urlencoded` writes it.
pub fn form_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                out.push(char::from(octet))
            }
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{octet:02X}")),
        }
    }
    out
}

/// What stands for `text` in the base64 of anything that it is a part of: it begins at one of three places in a group of
/// octets. Characters that tell of its neighbours too are left out.
fn inside_base64(text: &str) -> impl Iterator<Item = String> + '_ {
    let at = |place: usize| {
        let octets = [&[0; 2][..place], text.as_bytes()].concat();
        let whole = octets.len() * 4 / 3;
        let inner = move |encoded: String| encoded[(place * 4).div_ceil(3).min(whole)..whole].to_owned();
        [inner(STANDARD_NO_PAD.encode(&octets)), inner(URL_SAFE_NO_PAD.encode(&octets))]
    };
    let mut forms: Vec<String> = (0..3).flat_map(at).collect();
    forms.dedup();
    forms.into_iter()
}

impl std::fmt::Debug for Blot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Blot")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_an_upstream_echoes_is_blotted_out_in_every_form() {
        let blot = Blot::of_login("shop", &Secret::new("hunter2!"));
        for (said, shown) in [
            ("bad login: hunter2!", "bad login: ***"),
            ("AUTH PLAIN AHNob3AAaHVudGVyMiE= refused", "AUTH PLAIN *** refused"),
            ("got aHVudGVyMiE=", "got ***"),
            ("AUTH PLAIN AHNob3AAaHVu", "AUTH PLAIN ***"),
            ("bad login for shop", "bad login for shop"),
            ("send me to the hunter", "send me to the hunter"),
        ] {
            assert_eq!(blot.out(said), shown);
        }
        assert_eq!(Blot::of_login("a", &Secret::new("b")).out("a b"), "a b", "too short to be known");
        assert!(!format!("{blot:?}").contains("hunter"));
        let key = "SG.k3yAbCdEfGhIjKlMnOpQrS.tUvWxYz0123456789-abcdefghijkl-012345678";
        let blot = Blot::of_login("apikey", &Secret::new(key));
        for letters in [key.len(), 57, 20, 8] {
            let lines = "x".repeat(1_024 - letters);
            let told = blot.out(&format!("{lines}{}", &key[..letters])).into_owned();
            assert_eq!(told, format!("{lines}***"), "{letters}");
        }
        for said in [format!("apikey:{key}"), format!("Bearer {key}"), format!("x{key}y"), format!("xy{key}")]
        {
            let told = blot.out(&STANDARD.encode(said)).into_owned();
            assert!(told.contains("***") && told.len() < 24, "{told}");
        }
    }

    #[test]
    fn a_token_is_blotted_out_of_whatever_it_was_part_of() {
        let token = "ya29.a0Af/H6SMBx-long_and~random+0123456789";
        let blot = Blot::of_all([&Secret::new(token), &Secret::new("s h/h")]);
        for user in ["a@example.org", "ab@example.org", "abc@example.org"] {
            let response = STANDARD.encode(format!("user={user}\x01auth=Bearer {token}\x01\x01"));
            let shown = blot.out(&response).into_owned();
            assert!(shown.contains("***") && shown.len() < 60, "{shown}");
            for cut in 60..response.len() {
                let shown = blot.out(&response[..cut]).into_owned();
                assert!(shown.len() < 60, "{shown}");
            }
        }
        for (said, shown) in [
            (token.to_owned(), "***"),
            (format!("bad token {}", &token[..20]), "bad token ***"),
            ("client_secret=s+h%2Fh&x=1".into(), "client_secret=***&x=1"),
            ("the s h/h".into(), "the ***"),
            (form_encoded(token), "***"),
            ("ya29".into(), "ya29"),
        ] {
            assert_eq!(blot.out(&said), shown);
        }
    }

    #[test]
    fn escapes_hide_no_secret() {
        let blot = Blot::of_all([&Secret::new("SG.a/b+c d\\e-\u{fc}\u{1f600}0123"), &Secret::new("t0k/n")]);
        for (said, shown) in [
            ("{\"m\":\"SG.a\\/b+c d\\\\e-\u{fc}\u{1f600}0123 is bad\"}", r#"{"m":"*** is bad"}"#),
            (r#"{"m":"\u0053G.a\u002fb+c d\\e-\u00FC\ud83d\ude000123"}"#, r#"{"m":"***"}"#),
            (
                r#"{"in":"{\"m\":\"SG.a\\/b+c\\u0020d\\\\e-\\u00fc\\ud83d\\ude000123\"}"}"#,
                r#"{"in":"{\"m\":\"***\"}"}"#,
            ),
            ("?key=SG.a%2Fb%2bc+d%5Ce-%C3%BC%F0%9F%98%800123&x", "?key=***&x"),
            ("SG%2Ea/b%2Bc%20d%5ce-\u{fc}\\ud83d\\ude000123", "***"),
            (r"SG.a\/b+c d\\e-\u00", "***"),
            (r"SG.a\/b+c%2", "***"),
            (r"SG.a\/b and more", r"SG.a\/b and more"),
            (r"t0k\/n, \u00740k%2Fn", "***, ***"),
            (r"t0k\/", r"t0k\/"),
        ] {
            assert_eq!(blot.out(said), shown);
        }
    }

    #[test]
    fn no_other_way_of_writing_hides_a_long_one() {
        let key = "SG.aB3/dE+f=gH_iJ-0123456789";
        let blot = Blot::of_all([&Secret::new(key)]);
        let each = |write: fn(u8) -> String| key.bytes().map(write).collect::<String>();
        let base64 = STANDARD.encode(format!("user:{key}"));
        for (said, shown) in [
            (format!("<p>{}</p>", each(|b| format!("&#x{b:X};"))), "<p>***</p>"),
            (format!("<p>{}</p>", each(|b| format!("&#{b};"))), "<p>***</p>"),
            ("<p>SG.aB3&sol;dE&plus;f&equals;gH_iJ-0123456789</p>".into(), "<p>***</p>"),
            ("?k=SG.aB3%252FdE%252Bf%253DgH_iJ-0123456789&x".into(), "?k=***&x"),
            (format!("?k={}&x", each(|b| format!("%25{b:02x}"))), "?k=***&x"),
            (format!("hex {}.", each(|b| format!("{b:02x}"))), "hex ***."),
            (format!("hex {}.", each(|b| format!("{b:02X}"))), "hex ***."),
            (format!("hex {}.", each(|b| format!(" {b:02x}"))), "hex  ***."),
            (format!("hex {}.", each(|b| format!("\\x{b:02x}"))), "hex ***."),
            ("qp SG.aB3=2FdE+f=3DgH_iJ-=\r\n0123456789.".into(), "qp ***."),
            (format!("qp {}.", each(|b| format!("={b:02X}"))), "qp ***."),
            ("key SG.aB3/dE\r\n +f=gH_iJ-\n0123456789.".into(), "key ***."),
            ("{\"m\":\"SG.aB3/dE\\r\\n+f=gH_iJ-0123456789\"}".into(), "{\"m\":\"***\"}"),
            ("key SG.aB3/dE +f=gH_iJ -0123456789.".into(), "key ***."),
            ("SG.aB3&amp;sol;dE%2526plus;f\\u003dgH_iJ-0123456789!".into(), "***!"),
        ] {
            assert_eq!(blot.out(&said), shown, "{said}");
        }
        for at in 1..base64.len() {
            let broken = format!("{}\r\n {}", &base64[..at], &base64[at..]);
            assert!(blot.out(&broken).contains("***"), "{broken}");
        }
        for said in
            ["", "SG.aB3", "a page of HTML &amp; such, 100%25, k=3D", "SG.aB3/dE+f=g and iJ-01234 56788"]
        {
            assert_eq!(blot.out(said), said);
        }
    }

    #[test]
    fn a_long_answer_takes_no_long_time() {
        let blot = Blot::of_all([&Secret::new("SG.aB3/dE+f=gH_iJ-0123456789")]);
        for piece in ["&#x53;", "%25", "\\\\", "=5", "&", "SG.aB3/", "53", "\u{fc}="] {
            // A time that grows with the square of it would be minutes.
            let text = piece.repeat(64 * 1024 / piece.len());
            assert!(!blot.out(&text).is_empty(), "{piece}");
        }
    }

    /// A letter of a secret as JSON, JSON in JSON, a URL or nobody writes it.
    fn written(letter: char, how: u8) -> String {
        let mut buffer = [0; 4];
        let octets = letter.encode_utf8(&mut buffer).as_bytes();
        let units = |slashes: &str| {
            let one = |unit: &u16| format!("{slashes}u{unit:04x}");
            letter.encode_utf16(&mut [0; 2]).iter().map(one).collect::<String>()
        };
        match how {
            // A backslash beside one that is written otherwise is not told apart.
            _ if letter == '\\' => "\\\\".to_owned(),
            0 => units("\\"),
            1 => units("\\").to_uppercase().replace('U', "u"),
            2 => units("\\\\"),
            3 => octets.iter().map(|octet| format!("%{octet:02x}")).collect(),
            4 => octets.iter().map(|octet| format!("%{octet:02X}")).collect(),
            5 if letter.is_ascii_punctuation() => format!("\\{letter}"),
            _ => letter.to_string(),
        }
    }

    fn a_letter() -> impl Strategy<Value = char> {
        prop_oneof![
            prop::sample::select(vec!['/', '\\', '"', '+', ' ', '%']),
            any::<char>(),
            prop::char::range('!', '~')
        ]
    }

    proptest! {
        #[test]
        fn however_each_letter_is_written_the_secret_is_blotted_out(
            letters in prop::collection::vec((a_letter(), 0..8u8), 8..40),
            before in "[a-z :\"{]{0,12}",
            after in "[ ,}]{0,3}",
        ) {
            let secret: String = letters.iter().map(|(letter, _)| letter).collect();
            let echoed: String = letters.iter().map(|(letter, how)| written(*letter, *how)).collect();
            let blot = Blot::of_all([&Secret::new(secret)]);
            let shown = blot.out(&format!("{before}{echoed}{after}")).into_owned();
            prop_assert!(shown.contains("***") && !shown.contains(&echoed), "{}", shown);
        }

        #[test]
        fn what_json_makes_of_a_secret_is_blotted_out_of_it_and_it_stays_json(
            secret in "\\PC{8,40}",
            before in "\\PC{0,10}",
        ) {
            let said = serde_json::json!({ "message": format!("{before}{secret}") }).to_string();
            let shown = Blot::of_all([&Secret::new(secret.clone())]).out(&said).into_owned();
            let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
            prop_assert!(!read["message"].as_str().unwrap().contains(&secret), "{}", shown);
        }

        #[test]
        fn what_holds_no_secret_stays_as_it_is(text in "[a-z0-9\\\\%/+ ]{0,60}") {
            let blot = Blot::of_all([&Secret::new("SG.1234567890")]);
            prop_assert_eq!(&*blot.out(&text), &*text);
        }
    }

    #[test]
    fn a_form_of_the_web_keeps_what_is_plain() {
        assert_eq!(
            form_encoded("https://a.example/.default offline"),
            "https%3A%2F%2Fa.example%2F.default+offline"
        );
        assert_eq!(form_encoded("~\u{fc}*-._"), "%7E%C3%BC*-._");
    }

    #[test]
    fn debug_shows_stars() {
        let s = Secret::new("hunter2");
        assert_eq!(format!("{s:?}"), "***");
        assert!(s.matches(b"hunter2"));
        assert!(!s.matches(b"hunter"));
    }
}
