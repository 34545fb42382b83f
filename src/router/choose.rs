//! The choice of an ESP for a message, with a reason for each one passed over.

/// What is known of one ESP when the choice is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// Lower first.
    pub priority: u32,
    /// Among equal priorities the larger goes first more often.
    pub weight: u32,
    /// This round has tried it already.
    pub tried: bool,
}

/// The ESPs in the order in which they are to be tried, and why others are not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// Indices into the candidates.
    pub ranked: Vec<usize>,
    /// Index and reason.
    pub passed_over: Vec<(usize, String)>,
}

/// Ranks the candidates. `bound_to` and `pin` leave one only; `chance` (any number that differs from message to
/// message) shares equal priorities by weight.
pub fn choose(
    candidates: &[Candidate<'_>],
    bound_to: Option<&str>,
    pin: Option<&str>,
    chance: u64,
) -> Choice {
    let mut choice = Choice::default();
    for (i, c) in candidates.iter().enumerate() {
        match passed_over(c, bound_to, pin) {
            Some(why) => choice.passed_over.push((i, why)),
            None => choice.ranked.push(i),
        }
    }
    choice.ranked.sort_by_key(|i| candidates[*i].priority);
    lead_by_weight(candidates, &mut choice.ranked, chance);
    choice
}

fn passed_over(c: &Candidate<'_>, bound_to: Option<&str>, pin: Option<&str>) -> Option<String> {
    if let Some(esp) = bound_to.filter(|esp| *esp != c.name) {
        return Some(format!("an attempt at {esp} is still open"));
    }
    if let Some(esp) = pin.filter(|esp| *esp != c.name) {
        return Some(format!("the message is pinned to {esp}"));
    }
    if c.tried && bound_to.is_none() {
        return Some("tried in this round".into());
    }
    None
}

/// Among those of the lowest priority, puts the one in front whose share of the total weight holds `chance`.
fn lead_by_weight(candidates: &[Candidate<'_>], ranked: &mut [usize], chance: u64) {
    let Some(first) = ranked.first() else { return };
    let lowest = candidates[*first].priority;
    let peers = ranked.iter().take_while(|i| candidates[**i].priority == lowest).count();
    let total: u64 = ranked[..peers].iter().map(|i| u64::from(candidates[*i].weight)).sum();
    if peers < 2 || total == 0 {
        return;
    }
    let mut at = chance % total;
    for place in 0..peers {
        let weight = u64::from(candidates[ranked[place]].weight);
        if at < weight {
            ranked[..=place].rotate_right(1);
            return;
        }
        at -= weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, priority: u32, weight: u32) -> Candidate<'_> {
        Candidate { name, priority, weight, tried: false }
    }

    #[test]
    fn the_lowest_priority_goes_first_and_a_tried_one_not_again() {
        let mut all = [candidate("b", 2, 100), candidate("a", 1, 100)];
        assert_eq!(choose(&all, None, None, 7).ranked, [1, 0]);
        all[1].tried = true;
        let choice = choose(&all, None, None, 7);
        assert_eq!(choice.ranked, [0]);
        assert_eq!(choice.passed_over, [(1, "tried in this round".to_owned())]);
    }

    #[test]
    fn what_is_bound_or_pinned_goes_nowhere_else() {
        let all = [candidate("a", 1, 100), candidate("b", 2, 100)];
        assert_eq!(choose(&all, Some("b"), None, 0).ranked, [1]);
        assert_eq!(choose(&all, None, Some("b"), 0).ranked, [1]);
        assert_eq!(choose(&all, None, Some("gone"), 0).ranked, [] as [usize; 0]);
    }

    #[test]
    fn equal_priorities_share_by_weight() {
        let all = [candidate("a", 1, 30), candidate("b", 1, 70), candidate("c", 2, 1000)];
        let firsts: Vec<usize> = (0..100).map(|n| choose(&all, None, None, n).ranked[0]).collect();
        assert_eq!(firsts.iter().filter(|i| **i == 0).count(), 30);
        assert_eq!(firsts.iter().filter(|i| **i == 1).count(), 70);
    }
}
