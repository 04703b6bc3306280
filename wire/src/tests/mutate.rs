//! Inputs made from inputs, and the loop that tries them.

use crate::json::generate::Chance;
use std::env;
use std::format;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::println;
use std::string::String;
use std::vec::Vec;

/// A property, and what its inputs are made of.
pub(super) struct Target {
    /// The name of the fuzz target that has the same property.
    pub(super) name: &'static str,
    pub(super) property: fn(&[u8]),
    /// Bytes at the front of an input that pick something and are no part of the format.
    pub(super) knobs: usize,
    /// Valid inputs.
    pub(super) vectors: Vec<Vec<u8>>,
    /// Pieces of the format.
    pub(super) words: &'static [&'static [u8]],
    /// How many inputs are tried: some two seconds' worth without optimisation.
    pub(super) rounds: usize,
}

/// No input is longer.
const LEN_MAX: usize = 4096;

/// Mutated inputs that are kept to be mutated again.
const KEPT_MAX: usize = 256;

/// Lengths and numbers at which something changes.
const NUMBERS: [u64; 20] = [
    0,
    1,
    2,
    7,
    8,
    15,
    16,
    125,
    126,
    127,
    128,
    255,
    256,
    4096,
    65_535,
    65_536,
    10_485_760,
    10_485_761,
    0xffff_ffff,
    u64::MAX,
];

impl Target {
    /// Tries the property. `FUZZ_SEED` is where chance begins, `FUZZ_FACTOR` how many times as many
    /// inputs there are.
    pub(super) fn run(&self) {
        let number = |name: &str, default| {
            env::var(name).map_or(default, |text| text.parse().expect("FUZZ_* are numbers"))
        };
        let seed: u64 = number("FUZZ_SEED", 1);
        let rounds = self.rounds * usize::try_from(number("FUZZ_FACTOR", 1)).unwrap();
        println!("{}: {rounds} inputs; FUZZ_SEED={seed} makes them again", self.name);
        let mut chance = Chance(seed);
        let mut pool = Vec::new();
        for input in &self.vectors {
            self.attempt(input, (seed, 0));
            pool.push(input.clone());
        }
        for round in 1..=rounds {
            // Mostly from what is valid: what is broken in many places breaks at the first.
            let is_near = chance.below(4) != 0;
            let choices = if is_near { self.vectors.len() } else { pool.len() };
            let mut input = pool[chance.below(choices)].clone();
            for _ in 0..=chance.below(6) / 2 {
                self.mutate(&mut chance, &mut input, &pool);
            }
            input.truncate(LEN_MAX);
            self.attempt(&input, (seed, round));
            if !is_near || chance.below(16) != 0 {
                continue;
            }
            if pool.len() < self.vectors.len() + KEPT_MAX {
                pool.push(input);
            } else {
                let at = self.vectors.len() + chance.below(KEPT_MAX);
                pool[at] = input;
            }
        }
    }

    fn attempt(&self, input: &[u8], (seed, round): (u64, usize)) {
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.property)(input)));
        assert!(
            outcome.is_ok(),
            "{}: FUZZ_SEED={seed}, input {round}: b\"{}\"",
            self.name,
            input.escape_ascii()
        );
    }

    /// Changes an input in one place, mostly so that it is still nearly what it was.
    fn mutate(&self, chance: &mut Chance, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        // Knobs are turned now and then; most changes are behind them.
        if self.knobs != 0 && chance.below(12) == 0 && self.knobs <= input.len() {
            let at = chance.below(self.knobs);
            input[at] = byte(chance);
            return;
        }
        let from = self.knobs.min(input.len());
        let at = from + chance.below(input.len() - from + 1);
        match chance.below(12) {
            0 if at < input.len() => input[at] ^= 1 << chance.below(8),
            1 if at < input.len() => input[at] = byte(chance),
            2 | 3 => {
                let word = self.words[chance.below(self.words.len())];
                input.splice(at..at, word.iter().copied());
            }
            4 => {
                let word = self.words[chance.below(self.words.len())];
                let end = (at + word.len()).min(input.len());
                input.splice(at..end, word.iter().copied());
            }
            5 => {
                let end = end(chance, at, input);
                input.drain(at..end);
            }
            6 => {
                let piece = input[at..end(chance, at, input)].to_vec();
                input.splice(at..at, piece);
            }
            7 => {
                // The front of this and the back of another.
                let other = &pool[chance.below(pool.len())];
                let cut = self.knobs + chance.below(other.len() + 1 - self.knobs);
                input.truncate(at);
                input.extend_from_slice(&other[cut..]);
            }
            8 => set_integer(chance, input, at),
            9 => set_digits(chance, input, at),
            10 => input.truncate(at),
            _ => {
                let mut rest = input.split_off(from);
                chance.damage(&mut rest);
                input.extend(rest);
            }
        }
    }
}

fn byte(chance: &mut Chance) -> u8 {
    u8::try_from(chance.below(256)).unwrap()
}

/// The end of a piece that begins at `at`, mostly of a short one.
fn end(chance: &mut Chance, at: usize, input: &[u8]) -> usize {
    let len_max = if chance.below(4) == 0 { input.len() } else { 8 };
    at + chance.below((input.len() - at).min(len_max) + 1)
}

/// Writes a big-endian integer over what is there: an edge, or what was there and a little.
fn set_integer(chance: &mut Chance, input: &mut [u8], at: usize) {
    let width = [1, 2, 4, 8][chance.below(4)];
    let Some(bytes) = input.get_mut(at..at + width) else { return };
    let before = bytes.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    let number = match chance.below(4) {
        0 => before.wrapping_add(1),
        1 => before.wrapping_sub(1),
        _ => NUMBERS[chance.below(NUMBERS.len())],
    };
    bytes.copy_from_slice(&number.to_be_bytes()[8 - width..]);
}

/// Puts another number in the place of the next one that is written in digits.
fn set_digits(chance: &mut Chance, input: &mut Vec<u8>, at: usize) {
    let digits = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = input[at..].iter().position(digits).map(|start| at + start) else { return };
    let len = input[start..].iter().take_while(|byte| digits(byte)).count();
    let number = NUMBERS[chance.below(NUMBERS.len())];
    let text: String = match chance.below(4) {
        0 => format!("{number:x}"),
        1 => format!("-{number}"),
        2 => format!("0{number}"),
        _ => format!("{number}"),
    };
    input.splice(start..start + len, text.into_bytes());
}

#[test]
fn what_breaks_a_property_is_found_and_named() {
    let target = Target {
        name: "canary",
        property: |bytes| assert!(!bytes.windows(2).any(|pair| pair == b"no"), "no"),
        knobs: 1,
        vectors: Vec::from([b"-yes".to_vec()]),
        words: &[b"n", b"o"],
        rounds: 10_000,
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| target.run()));
    let message = outcome.unwrap_err().downcast::<String>().unwrap();
    assert!(message.starts_with("canary: FUZZ_SEED="), "{message}");
    assert!(message.contains("no"), "{message}");
}
