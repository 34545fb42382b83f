//! A mutator for sessions: a fuzzer that knows octets alone hardly ever puts two commands in order.

use libfuzzer_sys::fuzzer_mutate;

const COMMANDS: [&str; 20] = [
    "EHLO x\r\n",
    "HELO x\r\n",
    "MAIL FROM:<a@b.c>\r\n",
    "MAIL FROM:<> SIZE=9 BODY=8BITMIME SMTPUTF8\r\n",
    "RCPT TO:<d@e.f>\r\n",
    "RCPT TO:<no@e.f>\r\n",
    "DATA\r\n",
    ".\r\n",
    "\n.\r\n",
    ".\r\r\n",
    ".\n",
    "\r\n",
    "RSET\r\n",
    "QUIT\r\n",
    "STARTTLS\r\n",
    "AUTH PLAIN AHVzZXIAeWVz\r\n",
    "AUTH LOGIN\r\n",
    "dXNlcg==\r\n",
    "bm8=\r\n",
    "BDAT 9\r\n",
];

/// Changes the front of `data`, `size` octets, into at most `max_size`; gives how many there are then. Every other time
/// it is a command that comes, goes or moves, else octets change.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut dice = Dice(seed);
    if dice.roll(2) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let mut lines: Vec<&[u8]> = data[..size].split_inclusive(|b| *b == b'\n').collect();
    let at = dice.roll(lines.len() + 1);
    let other = dice.roll(lines.len().max(1));
    match dice.roll(4) {
        0 if at < lines.len() => {
            lines.remove(at);
        }
        1 if at < lines.len() => lines.swap(at, other),
        2 if other < lines.len() => lines.insert(at, lines[other]),
        _ => lines.insert(at, COMMANDS[dice.roll(COMMANDS.len())].as_bytes()),
    }
    let mutated = lines.concat();
    let size = mutated.len().min(max_size);
    data[..size].copy_from_slice(&mutated[..size]);
    size
}

/// xorshift32.
struct Dice(u32);

impl Dice {
    /// Under `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.max(1);
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % sides
    }
}
