//! Which ESP, and what next: pure judgement over facts handed in.

pub mod choose;
pub mod gate;
pub mod guard;
pub mod pace;
pub mod quota;
pub mod rules;
#[cfg(test)]
mod search;
pub mod steadiness;
pub mod step;

pub use choose::{Candidate, Choice, Ends, PassedOver, Ties, choose};
pub use gate::{Admits, Gate, Sign};
pub use guard::Guard;
pub use pace::Pace;
pub use quota::{Lack, Quota};
pub use rules::{Carries, Rules};
pub use steadiness::Steadiness;
pub use step::{Situation, next_step, would_leave};
