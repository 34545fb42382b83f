//! A small seeded generator (SplitMix64): the same seed, the same test.

use std::time::Duration;

use postroad::clock::{Clock, System};

pub struct Random(u64);

impl Random {
    /// From `POSTROAD_SEED`, else from the time; prints the seed, which the harness shows when the test fails.
    pub fn seeded(test: &str) -> Self {
        let seed = std::env::var("POSTROAD_SEED")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| Clock::now(&System).millis() as u64);
        println!("{test}: POSTROAD_SEED={seed}");
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `low` up to and without `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }
}
