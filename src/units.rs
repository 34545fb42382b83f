//! A number and its unit, as an operator writes them in the configuration, in a command or in a request. Pure; nothing
//! here is zero by accident, negative, or wraps.

use std::time::Duration;

/// The longest duration that may be written: ten years.
const DURATION_DAYS_MAX: u64 = 3_650;

/// `"30s"`, `"5m"`, `"4h"`, `"5d"`, also `"250ms"`. Zero is taken; who needs more says so.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "is not a duration: write a number and a unit, such as 30s, 5m, 4h or 5d".to_string();
    let (number, unit) = number_and_unit(text).ok_or_else(bad)?;
    let millis_each: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    number
        .checked_mul(millis_each)
        .filter(|millis| *millis <= DURATION_DAYS_MAX * 86_400_000)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("is longer than {DURATION_DAYS_MAX}d"))
}

/// `"25 MB"` as 25 and `MB`.
pub fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((whole_number(number)?, unit.trim_start()))
}

/// Digits alone: `parse` would also take a plus sign.
pub fn whole_number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_duration_means_what_it_says() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration(" 5 m "), Ok(Duration::from_secs(300)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5d"), Ok(Duration::from_secs(432_000)));
        for bad in
            ["", "5", "m", "-5m", "+5m", "1.5h", "1h30m", "5 minutes", "5M", "٣s", "99999999999999999999s"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(duration("3651d").is_err() && duration("3650d").is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,30}|[0-9]{0,25}[a-zA-Z/*, ]{0,4}") {
            let _ = duration(&text);
        }

        #[test]
        fn what_is_written_is_what_is_meant(n in 1u64..3_650) {
            prop_assert_eq!(duration(&format!("{n}d")), Ok(Duration::from_secs(n * 86_400)));
        }
    }
}
