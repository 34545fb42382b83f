//! What is said of mail that no ESP could ever carry: each ESP's reason, no more of them than a reply has room for.

use crate::smtp::Reply;

/// Reasons told; of more ESPs than these only how many there are.
const REASONS_MAX: usize = 8;
/// So much of a reason is told.
const REASON_OCTETS_MAX: usize = 200;
/// In place of the rest.
const CUT: &str = "...";

/// The reply to the final dot: a line an ESP.
pub(super) fn refusal(reasons: &[String]) -> Reply {
    let mut lines =
        vec!["no ESP of the relay could ever carry this message; see its configuration".to_owned()];
    lines.extend(told(reasons));
    Reply::told(554, (5, 6, 0), lines.join("\n"))
}

/// The same reasons where there is one line for all of them.
pub(super) fn in_a_line(reasons: &[String]) -> String {
    told(reasons).collect::<Vec<_>>().join("; ")
}

fn told(reasons: &[String]) -> impl Iterator<Item = String> {
    let more = match reasons.len().saturating_sub(REASONS_MAX) {
        0 => None,
        1 => Some("and one more ESP, for a reason of its own".to_owned()),
        n => Some(format!("and {n} more ESPs, each for a reason of its own")),
    };
    reasons.iter().take(REASONS_MAX).map(|reason| bounded(reason)).chain(more)
}

/// One line, not too long, and in ASCII: whoever asked for no SMTPUTF8 gets it too, and a reason may quote the message.
fn bounded(reason: &str) -> String {
    let mut line = String::new();
    for c in reason.chars() {
        let before = line.len();
        match c {
            _ if c.is_control() => line.push('?'),
            _ if c.is_ascii() => line.push(c),
            _ => line.extend(c.escape_default()),
        }
        if line.len() > REASON_OCTETS_MAX - CUT.len() {
            line.truncate(before);
            line.push_str(CUT);
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(count: usize, text: &str) -> Vec<String> {
        (1..=count).map(|n| format!("up{n}: {text}")).collect()
    }

    #[test]
    fn each_esp_has_a_line_of_its_own() {
        let wire = refusal(&reasons(2, "the stream goes through up3 only")).wire();
        assert_eq!(
            wire.lines().collect::<Vec<_>>(),
            [
                "554-5.6.0 no ESP of the relay could ever carry this message; see its configuration",
                "554-5.6.0 up1: the stream goes through up3 only",
                "554 5.6.0 up2: the stream goes through up3 only",
            ]
        );
    }

    #[test]
    fn however_many_there_are_and_however_long_they_are_it_stays_short() {
        let wire = refusal(&reasons(100, &"\u{fc}\r\n".repeat(400))).wire();
        let lines: Vec<&str> = wire.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 1 + REASONS_MAX + 1);
        assert_eq!(*lines.last().unwrap(), "554 5.6.0 and 92 more ESPs, each for a reason of its own");
        assert!(lines.iter().all(|line| line.len() <= 510), "{wire}");
        assert!(lines[1].ends_with(CUT) && !lines[1].contains(['\r', '\n']), "{}", lines[1]);
        assert!(wire.is_ascii() && lines[1].contains(r"up1: \u{fc}"), "{}", lines[1]);
        let line = in_a_line(&reasons(9, "no"));
        assert!(
            line.starts_with("up1: no; up2: no; ")
                && line.ends_with("; and one more ESP, for a reason of its own")
        );
    }
}
