//! What is written with a unit: sizes, rates, retry schedules; durations are the ground's. Pure; nothing here is zero
//! by accident, negative, or wraps.

use std::time::Duration;

use crate::mail::quota::Rate;
use crate::policy::streams::{RetrySchedule, RetryStep};
pub use crate::units::duration;
use crate::units::{number_and_unit, whole_number};

/// The largest size that may be written; SQLite counts in `i64`.
const SIZE_OCTETS_MAX: u64 = i64::MAX as u64;
/// Steps of a retry schedule.
const RETRY_STEPS_MAX: usize = 64;
/// How often one step of a retry schedule may be used.
const RETRY_TIMES_MAX: u64 = 1_000;
/// The most in one period of a rate.
const RATE_COUNT_MAX: u64 = 1_000_000_000;

/// `"25MB"` is 25,000,000 octets, `"25MiB"` 26,214,400. Zero is taken; who needs more says so.
pub fn size(text: &str) -> Result<u64, String> {
    let bad = || {
        "is not a size: write a number and a unit, such as 64KB, 25MB or 10GB (or KiB, MiB, GiB)".to_string()
    };
    let (number, unit) = number_and_unit(text).ok_or_else(bad)?;
    let octets_each: u64 = match unit {
        "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(bad()),
    };
    let octets = number.checked_mul(octets_each).filter(|octets| *octets <= SIZE_OCTETS_MAX);
    octets.ok_or_else(|| "is larger than any disk".to_string())
}

/// `"14/s"`, `"100/m"` (a minute), `"1000/h"`, `"50000/d"`.
pub fn rate(text: &str) -> Result<Rate, String> {
    let bad =
        || "is not a rate: write a number per period, such as 14/s, 100/m, 1000/h or 50000/d".to_string();
    let (count, period) = text.trim().split_once('/').ok_or_else(bad)?;
    let seconds = match period.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let count = whole_number(count.trim()).ok_or_else(bad)?;
    if !(1..=RATE_COUNT_MAX).contains(&count) {
        return Err(format!("must be from 1 to {RATE_COUNT_MAX} a period"));
    }
    Ok(Rate { recipients: u32::try_from(count).map_err(|_| bad())?, per: Duration::from_secs(seconds) })
}

/// `"1m, 5m*2, 30m, 1h*3, 4h"`: waits in order, `*` so often, the last until the delivery is given up.
pub fn retry_schedule(text: &str) -> Result<RetrySchedule, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.len() > RETRY_STEPS_MAX {
        return Err(format!("has more than {RETRY_STEPS_MAX} steps"));
    }
    let mut steps = Vec::with_capacity(parts.len());
    for (n, part) in parts.iter().enumerate() {
        steps.push(retry_step(part).map_err(|what| format!("step {} {what}", n + 1))?);
    }
    RetrySchedule::new(steps).ok_or_else(|| "has no step".to_string())
}

fn retry_step(part: &str) -> Result<RetryStep, String> {
    let (wait, times) = part.split_once('*').unwrap_or((part, "1"));
    let wait = duration(wait)?;
    if wait.is_zero() {
        return Err("is zero: the ESP would be asked without a pause".into());
    }
    let times = whole_number(times.trim()).filter(|times| (1..=RETRY_TIMES_MAX).contains(times));
    let times = times.and_then(|times| u32::try_from(times).ok());
    match times {
        Some(times) => Ok(RetryStep { wait, times }),
        None => Err(format!("must be used 1 to {RETRY_TIMES_MAX} times, such as 5m*2")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_unit_means_what_it_says() {
        assert_eq!(size("25MB"), Ok(25_000_000));
        assert_eq!(size("1MiB"), Ok(1_048_576));
        assert_eq!(size("0B"), Ok(0));
        assert_eq!(rate("100/m"), Ok(Rate { recipients: 100, per: Duration::from_secs(60) }));
        assert_eq!(retry_schedule("1m, 5m*2, 30m, 1h*3, 4h"), Ok(RetrySchedule::default()));
    }

    #[test]
    fn what_has_no_sense_is_refused() {
        for bad in [
            "",
            "25",
            "MB",
            "-1MB",
            "25mb",
            "25Mb",
            "1.5MB",
            "18446744073709551615TB",
            "9223372036854775808B",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
        for bad in ["", "14", "/s", "0/s", "-1/s", "14/w", "14/", "1.5/s", "2000000000/s"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        for bad in ["", ",", "1m,", "0s", "1m*0", "1m*-1", "1m*x", "1m*1001", "1m**2", "1m 5m"] {
            assert!(retry_schedule(bad).is_err(), "{bad}");
        }
        assert!(retry_schedule(&vec!["1m"; 65].join(",")).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,30}|[0-9]{0,25}[a-zA-Z/*, ]{0,4}") {
            let _ = (size(&text), rate(&text), retry_schedule(&text));
        }

        #[test]
        fn what_is_written_is_what_is_meant(n in 1u64..3_650) {
            prop_assert_eq!(size(&format!("{n}GiB")), Ok(n << 30));
            prop_assert_eq!(rate(&format!("{n}/h")).map(|r| u64::from(r.recipients)), Ok(n));
        }

        #[test]
        fn a_schedule_s_waits_come_in_order(steps in proptest::collection::vec((1u64..1000, 1u32..5), 1..10)) {
            let text: Vec<String> = steps.iter().map(|(wait, times)| format!("{wait}s*{times}")).collect();
            let schedule = retry_schedule(&text.join(", ")).unwrap();
            let waits = steps.iter().flat_map(|(wait, times)| std::iter::repeat_n(*wait, *times as usize));
            for (n, wait) in (1u32..).zip(waits) {
                prop_assert_eq!(schedule.nth(n), Duration::from_secs(wait));
            }
        }
    }
}
