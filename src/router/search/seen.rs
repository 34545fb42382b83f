//! The states that a search has seen, each once, and the move that led to each first.

use std::hash::{Hash, Hasher};

use super::moves::Move;
use super::world::World;

/// Shifts and multiplies: the states are no attacker's.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u8(*b));
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u64(n as u64);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

const FREE: u32 = u32::MAX;

#[derive(Default)]
pub struct Seen {
    states: Vec<World>,
    came_by: Vec<Option<(u32, Move)>>,
    /// Places in `states`, by hash, with open addressing.
    table: Vec<u32>,
}

impl Seen {
    pub fn len(&self) -> usize {
        self.states.len()
    }

    pub fn state(&self, at: usize) -> &World {
        &self.states[at]
    }

    /// Its place; a new one is remembered with how it was come by.
    pub fn enter(&mut self, w: World, by: Option<(u32, Move)>) -> usize {
        if self.table.len() < self.states.len() * 2 + 2 {
            self.grow();
        }
        let free = match self.find(&w) {
            Ok(at) => return at,
            Err(free) => free,
        };
        self.table[free] = u32::try_from(self.states.len()).unwrap();
        self.states.push(w);
        self.came_by.push(by);
        self.states.len() - 1
    }

    /// Its place in `states`, or the free one in the table.
    fn find(&self, w: &World) -> Result<usize, usize> {
        let mut mix = Mix::default();
        w.hash(&mut mix);
        let mask = self.table.len() - 1;
        let mut slot = mix.finish() as usize & mask;
        loop {
            match self.table[slot] {
                FREE => return Err(slot),
                at if self.states[at as usize] == *w => return Ok(at as usize),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    fn grow(&mut self) {
        self.table = vec![FREE; (self.table.len() * 4).max(1 << 12)];
        for at in 0..self.states.len() {
            if let Err(free) = self.find(&self.states[at]) {
                self.table[free] = at as u32;
            }
        }
    }

    /// The first from which these moves lead to no end.
    pub fn first_without_way(&self, moves: &[(u32, u32)], is_end: impl Fn(&World) -> bool) -> Option<usize> {
        // The moves by where they lead: those to `at` begin at `first[at]`.
        let mut first = vec![0_u32; self.len() + 2];
        moves.iter().for_each(|(_, to)| first[*to as usize + 2] += 1);
        for at in 2..first.len() {
            first[at] += first[at - 1];
        }
        let mut sources = vec![0_u32; moves.len()];
        for (from, to) in moves {
            let place = &mut first[*to as usize + 1];
            sources[*place as usize] = *from;
            *place += 1;
        }
        let mut has_way: Vec<bool> = self.states.iter().map(is_end).collect();
        let mut ends: Vec<u32> = (0..self.len() as u32).filter(|at| has_way[*at as usize]).collect();
        while let Some(at) = ends.pop() {
            let range = first[at as usize] as usize..first[at as usize + 1] as usize;
            for from in &sources[range] {
                if !has_way[*from as usize] {
                    has_way[*from as usize] = true;
                    ends.push(*from);
                }
            }
        }
        has_way.iter().position(|way| !way)
    }

    /// What is broken in that state, and the way to it.
    pub fn told(&self, at: usize, broken: &str) -> String {
        let way: Vec<String> = self.way(at).iter().map(|mv| format!("{mv:?}")).collect();
        let rows = self.states[at].rows;
        format!("{broken}\n  after {}\n  with {rows:?}", way.join(", "))
    }

    /// The same, where the last move need not be the first way to its state.
    pub fn told_with(&self, at: usize, mv: Move, after: &World, broken: &str) -> String {
        let way: Vec<String> = self.way(at).iter().chain([&mv]).map(|mv| format!("{mv:?}")).collect();
        format!("{broken}\n  after {}\n  with {:?}", way.join(", "), after.rows)
    }

    fn way(&self, mut at: usize) -> Vec<Move> {
        let mut way = Vec::new();
        while let Some((from, mv)) = self.came_by[at] {
            way.push(mv);
            at = from as usize;
        }
        way.reverse();
        way
    }
}
