//! What an upstream offers, from its reply to EHLO. Keywords are case-insensitive (RFC 5321 section 2.4).

use super::reply::texts;

/// What is offered, as far as it matters here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Offered {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 6152.
    pub eight_bit: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 1870: `SIZE=` may be sent.
    pub size: bool,
    /// The size above which it refuses, in octets; `None`: none told.
    pub size_octets_max: Option<u64>,
    /// RFC 9422: the recipients it takes in one transaction.
    pub recipients_max: Option<usize>,
    /// And the transactions of one connection.
    pub messages_max: Option<u32>,
    /// RFC 4954: AUTH at all, and the mechanisms that we speak.
    pub auth: bool,
    /// AUTH PLAIN.
    pub plain: bool,
    /// AUTH LOGIN.
    pub login: bool,
    /// AUTH CRAM-MD5.
    pub cram_md5: bool,
    /// AUTH OAUTHBEARER.
    pub oauthbearer: bool,
    /// AUTH XOAUTH2.
    pub xoauth2: bool,
}

impl Offered {
    /// Reads a whole reply to EHLO; its first line is a greeting.
    pub fn read(reply: &[u8]) -> Self {
        let mut offered = Offered::default();
        for line in texts(reply).skip(1) {
            offered.take(&String::from_utf8_lossy(line));
        }
        offered
    }

    fn take(&mut self, line: &str) {
        // `AUTH=PLAIN` is how servers spoke before RFC 2554; some still do beside the lawful line.
        let mut words = line.split([' ', '\t', '=']).filter(|w| !w.is_empty());
        match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "PIPELINING" => self.pipelining = true,
            "8BITMIME" => self.eight_bit = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            "SIZE" => {
                self.size = true;
                self.size_octets_max = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
            }
            "LIMITS" => self.take_limits(line),
            "AUTH" => {
                self.auth = true;
                words.for_each(|mechanism| self.take_mechanism(mechanism));
            }
            _ => {}
        }
    }

    fn take_limits(&mut self, line: &str) {
        let pairs = line.split_ascii_whitespace().skip(1).filter_map(|pair| pair.split_once('='));
        for (name, value) in pairs {
            if name.eq_ignore_ascii_case("RCPTMAX") {
                self.recipients_max = value.parse().ok().filter(|n| *n > 0);
            } else if name.eq_ignore_ascii_case("MAILMAX") {
                self.messages_max = value.parse().ok().filter(|n| *n > 0);
            }
        }
    }

    fn take_mechanism(&mut self, mechanism: &str) {
        match mechanism.to_ascii_uppercase().as_str() {
            "PLAIN" => self.plain = true,
            "LOGIN" => self.login = true,
            "CRAM-MD5" => self.cram_md5 = true,
            "OAUTHBEARER" => self.oauthbearer = true,
            "XOAUTH2" => self.xoauth2 = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_count_in_any_case_and_on_any_line() {
        let offered = Offered::read(
            b"250-mx.example PIPELINING\r\n250-size 1000\r\n250-limits rcptmax=7 MAILMAX=9\r\n250-Auth login Cram-md5\r\n250-AUTH=PLAIN\r\n250 8bitmime\r\n",
        );
        let expected = Offered {
            size: true,
            size_octets_max: Some(1000),
            recipients_max: Some(7),
            messages_max: Some(9),
            eight_bit: true,
            auth: true,
            login: true,
            plain: true,
            cram_md5: true,
            ..Offered::default()
        };
        assert_eq!(offered, expected, "and the greeting's words are no keywords");
    }

    #[test]
    fn a_size_without_a_number_or_of_zero_is_no_limit() {
        for line in ["SIZE", "SIZE 0", "SIZE=", "SIZE lots"] {
            let offered = Offered::read(format!("250-x\r\n250 {line}\r\n").as_bytes());
            assert_eq!((offered.size, offered.size_octets_max), (true, None), "{line}");
        }
    }
}
