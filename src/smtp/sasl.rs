//! The dialogues of AUTH PLAIN (RFC 4616) and AUTH LOGIN (no standard; two prompts that every client knows).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::reply::{self, Reply};
use crate::secret::Secret;

const PLAIN: &str = "PLAIN";
const LOGIN: &str = "LOGIN";
/// `Username:` in base64.
const ASK_NAME: &str = "VXNlcm5hbWU6";
/// `Password:` in base64.
const ASK_PASSWORD: &str = "UGFzc3dvcmQ6";

/// A login as the operator is told of it: no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// As the client named it.
    pub mechanism: String,
    /// As it was given, where it came so far.
    pub username: Option<String>,
}

/// What a client wants to be known by.
#[derive(Debug)]
pub struct Login {
    /// How it was said.
    pub mechanism: &'static str,
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

/// What is waited for.
#[derive(Debug)]
pub enum Dialogue {
    /// The one response of PLAIN.
    Plain,
    /// The name of LOGIN.
    Name,
    /// The password of LOGIN.
    Password {
        /// The name that came first.
        username: String,
    },
}

/// What comes of a response.
#[derive(Debug)]
pub enum Next {
    /// 334 with this challenge.
    Challenge(&'static str, Dialogue),
    /// All is there.
    Login(Login),
    /// The dialogue is over.
    Refuse(Reply, Attempt),
}

impl Login {
    /// Without the password.
    pub fn attempt(&self) -> Attempt {
        Attempt { mechanism: self.mechanism.to_owned(), username: Some(self.username.clone()) }
    }
}

impl Dialogue {
    /// `AUTH mechanism [initial response]`
    pub fn begin(mechanism: &str, initial: Option<&str>) -> Result<Next, Reply> {
        let (dialogue, challenge) = if mechanism.eq_ignore_ascii_case(PLAIN) {
            (Dialogue::Plain, "")
        } else if mechanism.eq_ignore_ascii_case(LOGIN) {
            (Dialogue::Name, ASK_NAME)
        } else {
            return Err(reply::NO_MECHANISM);
        };
        Ok(match initial {
            None => Next::Challenge(challenge, dialogue),
            // RFC 4954 section 4: an initial response of no octets.
            Some("=") => dialogue.decoded(Vec::new()),
            Some(text) => dialogue.response(text.as_bytes()),
        })
    }

    /// A line in answer to a challenge.
    pub fn response(self, line: &[u8]) -> Next {
        if line == b"*" {
            return Next::Refuse(reply::LOGIN_CANCELLED, self.attempt());
        }
        match STANDARD.decode(line.trim_ascii()) {
            Ok(octets) => self.decoded(octets),
            Err(_) => Next::Refuse(reply::BAD_BASE64, self.attempt()),
        }
    }

    fn attempt(&self) -> Attempt {
        match self {
            Dialogue::Plain => Attempt { mechanism: PLAIN.to_owned(), username: None },
            Dialogue::Name => Attempt { mechanism: LOGIN.to_owned(), username: None },
            Dialogue::Password { username } => named(LOGIN, username.clone()),
        }
    }

    fn decoded(self, octets: Vec<u8>) -> Next {
        match self {
            Dialogue::Plain => plain(&octets),
            Dialogue::Name => Next::Challenge(ASK_PASSWORD, Dialogue::Password { username: text(&octets) }),
            Dialogue::Password { username } => {
                Next::Login(Login { mechanism: LOGIN, username, password: Secret::new(text(&octets)) })
            }
        }
    }
}

/// `[authzid] NUL authcid NUL passwd`. Nobody acts for somebody else here: an authzid that is another name is refused
/// (RFC 4616 section 2).
fn plain(octets: &[u8]) -> Next {
    let mut parts = octets.split(|b| *b == 0);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(other), Some(name), Some(_), None) if !other.is_empty() && other != name => {
            Next::Refuse(reply::LOGIN_FOR_ANOTHER, named(PLAIN, text(name)))
        }
        (Some(_), Some(name), Some(password), None) if !name.is_empty() => {
            let (username, password) = (text(name), Secret::new(text(password)));
            Next::Login(Login { mechanism: PLAIN, username, password })
        }
        _ => Next::Refuse(reply::BAD_PLAIN, Dialogue::Plain.attempt()),
    }
}

fn named(mechanism: &str, username: String) -> Attempt {
    Attempt { mechanism: mechanism.to_owned(), username: Some(username) }
}

/// Octets that are not UTF-8 match no credential; they become text that matches none either.
fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(next: Next) -> String {
        match next {
            Next::Challenge(c, _) => format!("334 {c}"),
            Next::Login(l) => format!("{}:{}", l.username, l.password.expose()),
            Next::Refuse(r, _) => r.code.to_string(),
        }
    }

    #[test]
    fn plain_takes_its_response_inline_or_not() {
        let begin = |initial| shown(Dialogue::begin("plain", initial).unwrap());
        assert_eq!(begin(Some("AHVzZXIAc2VjcmV0")), "user:secret");
        assert_eq!(begin(None), "334 ");
        assert_eq!(begin(Some("=")), "501");
        assert_eq!(begin(Some("AHVzZXIAc2Vj!!!")), "501");
        assert_eq!(begin(Some("YQ==")), "501");
        assert_eq!(shown(Dialogue::Plain.response(b"AHVzZXIAc2VjcmV0")), "user:secret");
        assert_eq!(shown(Dialogue::Plain.response(b"*")), "501");
    }

    #[test]
    fn login_asks_for_name_and_password() {
        let Ok(Next::Challenge(ASK_NAME, name)) = Dialogue::begin("LOGIN", None) else { panic!() };
        let Next::Challenge(ASK_PASSWORD, password) = name.response(b"dXNlcg==") else { panic!() };
        assert_eq!(shown(password.response(b"c2VjcmV0")), "user:secret");
        let inline = Dialogue::begin("LOGIN", Some("dXNlcg==")).unwrap();
        assert_eq!(shown(inline), "334 UGFzc3dvcmQ6");
        assert_eq!(shown(Dialogue::begin("LOGIN", Some("=")).unwrap()), "334 UGFzc3dvcmQ6");
    }

    #[test]
    fn others_are_not_offered() {
        assert_eq!(Dialogue::begin("CRAM-MD5", None).unwrap_err().code, 504);
    }
}
