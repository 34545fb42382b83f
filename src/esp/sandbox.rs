//! The sandbox: takes all mail and delivers nowhere. What runs without any `[[esp]]`.

use super::{Esp, Parcel, Unfit};
use crate::clock::Timestamp;
use crate::mail::{Fault, Outcome, Reply, Request};

/// The ESP of `type = "sandbox"`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sandbox;

impl Esp for Sandbox {
    fn compose(&self, _parcel: Parcel<'_>, _now: Timestamp) -> Result<Request, Unfit> {
        Ok(Request::Keep)
    }

    fn read(&self, parcel: Parcel<'_>, reply: &Reply, _now: Timestamp) -> Vec<Outcome> {
        vec![outcome(reply); parcel.recipients.len()]
    }
}

fn outcome(reply: &Reply) -> Outcome {
    match reply {
        Reply::Kept => Outcome::Accepted { remote_id: None, said: "kept in the sandbox".into() },
        Reply::Unfit { why } => Outcome::Unfit { why: why.clone() },
        Reply::Lost { said, .. } => refused(said),
        Reply::Smtp(smtp) => refused(&smtp.last.to_string()),
        Reply::Http(http) => refused(&http.to_string()),
    }
}

fn refused(said: &str) -> Outcome {
    Outcome::Refused { fault: Fault::Path, lasting: false, wait: None, said: said.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_was_accepted_and_nothing_else() {
        for (reply, word) in [
            (Reply::Kept, "accepted"),
            (Reply::Unfit { why: "x".into() }, "unfit"),
            (
                Reply::Lost {
                    phase: crate::mail::Phase::Connect,
                    handed_over: false,
                    recipients: Vec::new(),
                    said: "x".into(),
                },
                "refused",
            ),
        ] {
            assert_eq!(outcome(&reply).word(), word);
        }
    }
}
