//! Seeded loops around decoders of bytes from other processes, for a stable compiler. `fuzz/` has the
//! same targets for `cargo fuzz`.
//!
//! `FUZZ_SECONDS` sets the duration of a loop (default 1), `FUZZ_SEED` the seed. On a panic, the seed
//! and the bytes are printed.

use std::{
    env,
    time::{Duration, Instant},
};

/// xorshift64*: the same numbers for the same seed.
#[derive(Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Replaces a seed of zero, which would generate only zeroes.
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 0 to `end - 1`; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as usize % end.max(1)
    }

    /// Makes one to four changes to these bytes: to a bit, a byte, a word of 8 bytes or the length, or
    /// by replacing a part with a part of `other`.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let (at, len) = (self.below(bytes.len()), bytes.len());
            let word = at / 8 * 8;
            match self.below(10) {
                0 if len > 0 => bytes[at] ^= 1 << self.below(8),
                1 if len > 0 => bytes[at] = self.below(256) as u8,
                2 => bytes.truncate(at),
                3 => bytes.truncate(word),
                4 => bytes.extend(std::iter::repeat_n(self.below(3) as u8, self.below(40))),
                5 if word + 8 <= len => {
                    let from = self.below(len / 8) * 8;
                    bytes.copy_within(from..from + 8, word);
                }
                6 | 7 => {
                    let start = self.below(other.len());
                    let end = start + self.below(other.len() - start + 1);
                    let removed = at + self.below(len - at + 1);
                    bytes.splice(at..removed, other[start..end].iter().copied());
                }
                _ if word + 8 <= len => {
                    let number = self.number(len);
                    bytes[word..word + 8].copy_from_slice(&number.to_ne_bytes());
                }
                _ => {}
            }
        }
    }

    /// A boundary value, as decoders often mishandle.
    fn number(&mut self, len: usize) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => len as u64,
            3 => 8 * self.below(len / 8 + 2) as u64,
            4 => u64::MAX / (1 + self.below(30) as u64),
            _ => 1 << self.below(64),
        }
    }
}

/// Calls `decode` with the unchanged seeds, then with changed ones until the time is up.
///
/// # Panics
/// If `decode` panics, or there are no seeds.
pub fn torture(seeds: &[Vec<u8>], mut decode: impl FnMut(&[u8])) {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("FUZZ_SEED").unwrap_or(1);
    let time = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(1));
    seeds.iter().for_each(|bytes| decode(bytes));
    let (mut numbers, start, mut rounds) = (Numbers::new(seed), Instant::now(), 0_u64);
    while start.elapsed() < time {
        for _ in 0..100 {
            let mut bytes = seeds[numbers.below(seeds.len())].clone();
            let other = numbers.below(seeds.len());
            numbers.mutate(&mut bytes, &seeds[other]);
            let shown = Shown { seed, bytes: &bytes };
            decode(&bytes);
            std::mem::forget(shown);
            rounds += 1;
        }
    }
    eprintln!("seed {seed}: {rounds} rounds");
}

/// Prints the decoded bytes if the decoder panics.
struct Shown<'a> {
    seed: u64,
    bytes: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        eprintln!("seed {}: {:?}", self.seed, String::from_utf8_lossy(self.bytes));
        eprintln!("{:?}", self.bytes);
    }
}
