//! What a certificate says for people: whom it names, and until when it holds (RFC 5280 section 4.1). Read from its DER
//! by hand, since no more is wanted of it; whether it may be trusted is judged elsewhere, before this.

use std::net::{Ipv4Addr, Ipv6Addr};

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The explicit tags of a version and of the extensions.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// subjectAltName, 2.5.29.17, and its names for hosts and addresses (section 4.2.1.6).
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// Certificates of large providers bear hundreds.
const NAMES_SHOWN_MAX: usize = 5;

/// `for smtp.example.net, *.example.net, until 2027-01-31T12:00:00Z`; as much of it as can be read.
pub(super) fn describe(der: &[u8]) -> String {
    let names = names(der).unwrap_or_default();
    let more = names.len().saturating_sub(NAMES_SHOWN_MAX);
    let mut told = match names.len() {
        0 => "without a name".to_owned(),
        _ => format!("for {}", names[..names.len() - more].join(", ")),
    };
    if more > 0 {
        told.push_str(&format!(" and {more} more"));
    }
    if let Some(until) = until(der) {
        told.push_str(&format!(", until {until}"));
    }
    told
}

/// One value: its tag and its content.
type Value<'a> = (u8, &'a [u8]);

/// The first value, and what stands behind it.
fn value(der: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (&[tag, length], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x80 | 0x85.. => return None,
        _ => {
            let (octets, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (octets.iter().fold(0, |n, octet| n << 8 | usize::from(*octet)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some(((tag, content), rest))
}

/// The values one behind the other, as far as they can be read.
fn values(mut der: &[u8]) -> impl Iterator<Item = Value<'_>> {
    std::iter::from_fn(move || {
        let (value, rest) = value(der)?;
        der = rest;
        Some(value)
    })
}

/// The content of the only value, of that tag.
fn inside(der: &[u8], tag: u8) -> Option<&[u8]> {
    value(der).and_then(|((of, content), _)| (of == tag).then_some(content))
}

/// The fields of the part that is signed, without a version.
fn fields(der: &[u8]) -> Option<impl Iterator<Item = Value<'_>>> {
    let signed = inside(inside(der, SEQUENCE)?, SEQUENCE)?;
    Some(values(signed).filter(|(tag, _)| *tag != VERSION))
}

/// Behind serial number, algorithm and issuer.
fn until(der: &[u8]) -> Option<String> {
    let (_, validity) = fields(der)?.nth(3)?;
    let (tag, time) = values(validity).nth(1)?;
    let digits = std::str::from_utf8(time).ok()?.strip_suffix('Z')?;
    let whole = match tag {
        // Two digits of a year, from 1950 on (section 4.1.2.5.1).
        UTC_TIME if digits < "5" => format!("20{digits}"),
        UTC_TIME => format!("19{digits}"),
        GENERALIZED_TIME => digits.to_owned(),
        _ => return None,
    };
    if whole.len() != 14 || !whole.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let [year, month, day, hour, minute, second] =
        [(0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14)].map(|(from, to)| &whole[from..to]);
    Some(format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
}

fn names(der: &[u8]) -> Option<Vec<String>> {
    let (_, extensions) = fields(der)?.find(|(tag, _)| *tag == EXTENSIONS)?;
    let named = values(inside(extensions, SEQUENCE)?).find_map(|(_, extension)| {
        let id = inside(extension, OBJECT_IDENTIFIER)?;
        let content = values(extension).find(|(tag, _)| *tag == OCTET_STRING)?.1;
        (id == SUBJECT_ALT_NAME).then_some(content)
    })?;
    Some(values(inside(named, SEQUENCE)?).filter_map(name).collect())
}

fn name((tag, content): Value<'_>) -> Option<String> {
    match (tag, content.len()) {
        (DNS_NAME, _) => Some(String::from_utf8_lossy(content).into_owned()),
        (IP_ADDRESS, 4) => Some(Ipv4Addr::from(<[u8; 4]>::try_from(content).ok()?).to_string()),
        (IP_ADDRESS, 16) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(content).ok()?).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str], year: i32) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut made = rcgen::CertificateParams::new(names).unwrap();
        made.not_before = rcgen::date_time_ymd(2020, 1, 1);
        made.not_after = rcgen::date_time_ymd(year, 3, 4);
        made.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_the_end_are_told() {
        let der = made(&["smtp.example.net", "192.0.2.1", "2001:db8::1"], 2031);
        assert_eq!(
            describe(&der),
            "for smtp.example.net, 192.0.2.1, 2001:db8::1, until 2031-03-04T00:00:00Z"
        );
        // From 2050 on the form is another.
        assert_eq!(describe(&made(&["a"], 2055)), "for a, until 2055-03-04T00:00:00Z");
        assert_eq!(describe(&made(&[], 2031)), "without a name, until 2031-03-04T00:00:00Z");
        let many: Vec<String> = (0..300).map(|n| format!("n{n}.example.net")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(describe(&made(&many, 2031)).contains("n4.example.net and 295 more, until"));
    }

    #[test]
    fn what_is_no_certificate_is_told_as_far_as_it_can_be_read() {
        let der = made(&["smtp.example.net"], 2031);
        for cut in 0..der.len() {
            describe(&der[..cut]);
            let mut broken = der.clone();
            broken[cut] = broken[cut].wrapping_add(1);
            describe(&broken);
        }
        assert_eq!(describe(b""), "without a name");
        assert_eq!(describe(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), "without a name");
    }
}
