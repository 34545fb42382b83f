//! Who may be mailed: pure judgement over facts handed in.

pub mod bucket;
pub mod reports;
pub mod senders;
pub mod streams;
pub mod verdict;

pub use verdict::{Verdict, judge};
