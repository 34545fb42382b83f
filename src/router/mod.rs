//! Which ESP, and what next: pure judgement over facts handed in.

pub mod choose;
pub mod step;

pub use choose::{Candidate, Choice, choose};
pub use step::{Situation, next_step};
