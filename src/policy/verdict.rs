//! The verdict on one recipient: what a client hears of the suppression that stands against it.

use crate::mail::Status;
use crate::mail::effect::{HARD_BOUNCE, SOFT_BOUNCES};
use crate::store::Suppression;

/// What intake does with a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be mailed.
    Send,
    /// It may not; with the reply codes of STANDARDS §1.7 and words for a client that may know the reason.
    Suppressed {
        /// The reply code.
        code: u16,
        /// The enhanced code.
        enhanced: (u8, u16, u16),
        /// `complaint 2026-03-01`, for people.
        why: String,
    },
}

/// Judges a recipient by the suppression that blocks it, where one does.
pub fn judge(suppression: Option<&Suppression>) -> Verdict {
    let Some(s) = suppression else { return Verdict::Send };
    let (code, enhanced) = match s.reason.as_str() {
        HARD_BOUNCE => dead(s.evidence.as_deref().unwrap_or_default()),
        // For a time: the mailbox may have room again.
        SOFT_BOUNCES => (451, (4, 7, 1)),
        _ => (550, (5, 7, 1)),
    };
    let day: String = s.since.to_string().chars().take(10).collect();
    Verdict::Suppressed { code, enhanced, why: format!("{} {day}", s.reason.replace('_', " ")) }
}

/// What is wrong with a dead address, by its host's words.
fn dead(words: &str) -> (u16, (u8, u16, u16)) {
    match Status::within(words).map(Status::parts) {
        Some([5, 2, 1]) => (550, (5, 2, 1)),
        Some([5, 1, 3]) => (553, (5, 1, 3)),
        Some([5, 1, 10]) => (556, (5, 1, 10)),
        _ => (550, (5, 1, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_client_hears_what_is_wrong_with_the_address() {
        for (reason, evidence, code, enhanced) in [
            ("hard_bounce", Some("550 5.1.1 no such user"), 550, (5, 1, 1)),
            ("hard_bounce", Some("smtp; 550 5.2.1 mailbox disabled"), 550, (5, 2, 1)),
            ("hard_bounce", Some("550-5.1.10 null MX"), 556, (5, 1, 10)),
            ("hard_bounce", Some("5.1.3 bad address"), 553, (5, 1, 3)),
            ("hard_bounce", Some("who is that"), 550, (5, 1, 1)),
            ("hard_bounce", None, 550, (5, 1, 1)),
            ("soft_bounces", Some("552 5.2.2 full"), 451, (4, 7, 1)),
            ("complaint", Some("5.1.1"), 550, (5, 7, 1)),
            ("unsubscribe", None, 550, (5, 7, 1)),
            ("manual", None, 550, (5, 7, 1)),
            ("deactivated", Some("550 5.1.1 no such user"), 550, (5, 7, 1)),
        ] {
            let suppression = Suppression {
                reason: reason.into(),
                scope: String::new(),
                since: Timestamp::from_millis(1_772_323_200_000),
                evidence: evidence.map(Into::into),
            };
            let why = format!("{} 2026-03-01", reason.replace('_', " "));
            assert_eq!(judge(Some(&suppression)), Verdict::Suppressed { code, enhanced, why }, "{reason}");
        }
        assert_eq!(judge(None), Verdict::Send);
    }
}
