//! `limit` and `cursor`, as every list has them that comes in pages.

use super::error::FieldProblem;

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;

/// Which page is asked for.
#[derive(Debug)]
pub(super) struct Paging<C> {
    /// At most so many.
    pub(super) limit: usize,
    /// Where the page before ended; on the first what comes before all.
    pub(super) cursor: C,
    read: fn(&str) -> Option<C>,
    /// Parameters that the list has beside these two, each with a comma.
    others: &'static str,
}

impl<C> Paging<C> {
    /// The first page; `read`: what a `cursor` means, where it is one.
    pub(super) fn new(first: C, read: fn(&str) -> Option<C>, others: &'static str) -> Self {
        Paging { limit: PAGE_DEFAULT, cursor: first, read, others }
    }

    /// Takes a parameter that is none of the list's own; what is wrong with it, where something is.
    pub(super) fn take(&mut self, key: &str, value: &str) -> Option<FieldProblem> {
        let wrong = |message: String| Some(FieldProblem::new(key, message));
        match key {
            "limit" => match value.parse() {
                Ok(n) if (1..=PAGE_MAX).contains(&n) => self.limit = n,
                Ok(_) | Err(_) => return wrong(format!("not a number from 1 to {PAGE_MAX}")),
            },
            "cursor" => match (self.read)(value) {
                Some(cursor) => self.cursor = cursor,
                None => return wrong("not a cursor: take the next of the page before".to_owned()),
            },
            _ => return wrong(format!("no such parameter; there are {}limit and cursor", self.others)),
        }
        None
    }
}
