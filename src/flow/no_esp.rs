//! What is said of mail that no ESP could ever carry: each ESP's reason, no more of them than a reply has room for.

use crate::address::Address;
use crate::smtp::Reply;

/// Reasons told; of more than these only how many there are.
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

/// The reasons for all of a message's recipients: those of each, where they are not the same.
pub(super) fn of_all(recipients: &[Address], never: &[(usize, Vec<String>)]) -> Vec<String> {
    let Some((_, first)) = never.first() else { return Vec::new() };
    if never.iter().all(|(_, reasons)| reasons == first) {
        return first.clone();
    }
    let of = |(n, reasons): &(usize, Vec<String>)| {
        let to = recipients.get(*n).map_or("", Address::wire);
        format!("<{to}>: {}", reasons.join("; "))
    };
    never.iter().map(of).collect()
}

/// The same for one recipient of several, of whom others can be mailed.
pub(super) fn told_to_sender(reasons: &[String]) -> String {
    format!("no ESP of the relay could ever carry this message to this recipient ({})", in_a_line(reasons))
}

/// The same reasons where there is one line for all of them.
pub(super) fn in_a_line(reasons: &[String]) -> String {
    told(reasons).collect::<Vec<_>>().join("; ")
}

fn told(reasons: &[String]) -> impl Iterator<Item = String> {
    let more = match reasons.len().saturating_sub(REASONS_MAX) {
        0 => None,
        1 => Some("and one more, for a reason of its own".to_owned()),
        n => Some(format!("and {n} more, each for a reason of its own")),
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
    use crate::address::Grammar;

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
    fn where_each_recipient_has_reasons_of_its_own_they_are_told_by_recipient() {
        let to = |text| Address::parse(text, Grammar::Strict).unwrap();
        let recipients = [to("a@example.com"), to("b@example.com")];
        let (one, two) = (reasons(2, "too large"), reasons(1, "signed"));
        let alike = of_all(&recipients, &[(0, one.clone()), (1, one.clone())]);
        assert_eq!(alike, one);
        assert_eq!(
            of_all(&recipients, &[(0, one), (1, two)]),
            ["<a@example.com>: up1: too large; up2: too large", "<b@example.com>: up1: signed"]
        );
    }

    #[test]
    fn however_many_there_are_and_however_long_they_are_it_stays_short() {
        let wire = refusal(&reasons(100, &"\u{fc}\r\n".repeat(400))).wire();
        let lines: Vec<&str> = wire.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 1 + REASONS_MAX + 1);
        assert_eq!(*lines.last().unwrap(), "554 5.6.0 and 92 more, each for a reason of its own");
        assert!(lines.iter().all(|line| line.len() <= 510), "{wire}");
        assert!(lines[1].ends_with(CUT) && !lines[1].contains(['\r', '\n']), "{}", lines[1]);
        assert!(wire.is_ascii() && lines[1].contains(r"up1: \u{fc}"), "{}", lines[1]);
        let line = in_a_line(&reasons(9, "no"));
        assert!(
            line.starts_with("up1: no; up2: no; ")
                && line.ends_with("; and one more, for a reason of its own")
        );
    }
}
