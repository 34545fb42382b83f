//! The verdict on one recipient: may this stream mail it?

use crate::mail::{StreamKind, StreamName};
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

/// Judges a recipient by the suppression that stands against it, for mail of this stream. A suppression with an empty
/// scope blocks every stream; else it blocks the stream, or the kind of stream, that it names.
pub fn judge(suppression: Option<&Suppression>, stream: &StreamName, kind: StreamKind) -> Verdict {
    let Some(s) = suppression else { return Verdict::Send };
    let kind_word = match kind {
        StreamKind::Transactional => StreamName::TRANSACTIONAL,
        StreamKind::Broadcast => StreamName::BROADCAST,
    };
    if !(s.scope.is_empty() || s.scope == stream.as_str() || s.scope == kind_word) {
        return Verdict::Send;
    }
    let enhanced = match s.reason.as_str() {
        "hard_bounce" => (5, 1, 1),
        "disabled" => (5, 2, 1),
        _ => (5, 7, 1),
    };
    let day: String = s.since.to_string().chars().take(10).collect();
    Verdict::Suppressed { code: 550, enhanced, why: format!("{} {day}", s.reason.replace('_', " ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn suppression(reason: &str, scope: &str) -> Suppression {
        Suppression {
            key: "a@x".into(),
            reason: reason.into(),
            scope: scope.into(),
            since: Timestamp::from_millis(1_772_323_200_000),
        }
    }

    #[test]
    fn an_unsubscribe_blocks_broadcast_and_a_bounce_blocks_all() {
        let news = StreamName::new("newsletter");
        let reset = StreamName::new(StreamName::TRANSACTIONAL);
        let unsubscribed = suppression("unsubscribe", "broadcast");
        assert_eq!(judge(Some(&unsubscribed), &reset, StreamKind::Transactional), Verdict::Send);
        assert!(matches!(
            judge(Some(&unsubscribed), &news, StreamKind::Broadcast),
            Verdict::Suppressed { .. }
        ));
        let bounced = suppression("hard_bounce", "");
        assert_eq!(
            judge(Some(&bounced), &reset, StreamKind::Transactional),
            Verdict::Suppressed { code: 550, enhanced: (5, 1, 1), why: "hard bounce 2026-03-01".into() }
        );
        assert_eq!(judge(None, &news, StreamKind::Broadcast), Verdict::Send);
    }
}
