//! How often may be asked: a bucket for each token, and one for each address that shows none or a wrong one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Requests a second that a token may keep up; also the refill of its bucket.
const TOKEN_RATE_PER_SEC: f64 = 500.0;
/// And at once.
const TOKEN_BURST: f64 = 2_000.0;
/// Refused requests a second that an address may keep up: nobody types a token that often.
const STRANGER_RATE_PER_SEC: f64 = 5.0;
/// And at once.
const STRANGER_BURST: f64 = 50.0;
/// Buckets at a time; full ones go first, since they say nothing.
const BUCKETS_MAX: usize = 4_096;

/// Whose bucket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// A token's, by its number; `None`: the admin token's.
    Token(Option<i64>),
    /// An address that was refused; of IPv6 its /64, which one host has whole.
    Stranger(IpAddr),
}

impl Whose {
    /// The bucket of an address.
    pub(super) fn stranger(address: IpAddr) -> Self {
        Whose::Stranger(match address {
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
            ip @ IpAddr::V4(_) => ip,
        })
    }

    fn limits(self) -> (f64, f64) {
        match self {
            Whose::Token(_) => (TOKEN_RATE_PER_SEC, TOKEN_BURST),
            Whose::Stranger(_) => (STRANGER_RATE_PER_SEC, STRANGER_BURST),
        }
    }
}

/// What is left, as of a moment.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn left_at(&self, whose: Whose, now: Instant) -> f64 {
        let (rate, burst) = whose.limits();
        (self.left + now.saturating_duration_since(self.at).as_secs_f64() * rate).min(burst)
    }
}

/// Every bucket that is not full.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<Whose, Bucket>>);

impl Rates {
    /// Takes one request out of a bucket. `Err`: it is empty, for so long.
    pub(super) fn take(&self, whose: Whose, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (rate, burst) = whose.limits();
        let left = buckets.get(&whose).map_or(burst, |bucket| bucket.left_at(whose, now));
        if left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - left) / rate));
        }
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&whose) {
            make_room(&mut buckets, now);
        }
        buckets.insert(whose, Bucket { left: left - 1.0, at: now });
        Ok(())
    }
}

/// Those that have filled up say nothing any more; where all say something, the oldest half goes.
fn make_room(buckets: &mut HashMap<Whose, Bucket>, now: Instant) {
    buckets.retain(|whose, bucket| bucket.left_at(*whose, now) < whose.limits().1);
    if buckets.len() >= BUCKETS_MAX {
        let mut times: Vec<Instant> = buckets.values().map(|bucket| bucket.at).collect();
        times.sort_unstable();
        let middle = times[times.len() / 2];
        buckets.retain(|_, bucket| bucket.at > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;

    #[test]
    fn a_bucket_empties_says_for_how_long_and_fills_again() {
        let (rates, now) = (Rates::default(), monotonic());
        let stranger = Whose::stranger("192.0.2.1".parse().unwrap());
        assert!((0..50).all(|_| rates.take(stranger, now).is_ok()));
        let wait = rates.take(stranger, now).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(200), "{wait:?}");
        let other = Whose::stranger("192.0.2.2".parse().unwrap());
        assert!(rates.take(other, now).is_ok() && rates.take(Whose::Token(None), now).is_ok());
        assert!(rates.take(stranger, now + wait).is_ok() && rates.take(stranger, now + wait).is_err());
    }

    #[test]
    fn one_host_s_many_ipv6_addresses_share_and_the_table_is_bounded() {
        let (rates, now) = (Rates::default(), monotonic());
        let v6 = |text: &str| Whose::stranger(text.parse().unwrap());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::ffff:1"));
        assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
        for n in 0..20_000_u32 {
            let address = std::net::Ipv4Addr::from(n);
            assert!(
                rates.take(Whose::stranger(address.into()), now + Duration::from_micros(n.into())).is_ok()
            );
            assert!(rates.0.lock().unwrap().len() <= BUCKETS_MAX);
        }
    }
}
