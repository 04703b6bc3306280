//! Test data: random documents, random damage, the same for the same seed.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A deterministic source of chance (SplitMix64).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(crate) fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// Blanks that may stand between tokens; mostly none.
    pub(crate) fn blanks(&mut self) -> &'static str {
        self.pick(&["", "", "", "", " ", "\n", "\r\n  ", "\t", "          "])
    }

    /// A string literal.
    pub(crate) fn literal(&mut self) -> String {
        const PIECES: [&str; 14] = [
            "a",
            "plain text",
            " ",
            "\\n",
            "\\\"",
            "\\\\",
            "\\/",
            "\\u0041",
            "\\u00E9",
            "\\ud83d\\ude00",
            "é",
            "漢字",
            "😀",
            "\u{7f}",
        ];
        let count = self.below(6);
        let body: Vec<_> = (0..count).map(|_| self.pick(&PIECES)).collect();
        format!("\"{}\"", body.concat())
    }

    /// A number, as written.
    pub(crate) fn number(&mut self) -> String {
        let sign = self.pick(&["", "-"]);
        let whole = self.pick(&["0", "7", "10", "123456789", "9007199254740993"]);
        let fraction = self.pick(&["", "", "", ".0", ".25", ".000001"]);
        let exponent = self.pick(&["", "", "", "e2", "E+3", "e-7", "E01"]);
        format!("{sign}{whole}{fraction}{exponent}")
    }

    /// A document, nested at most `depth` deep.
    pub(crate) fn document(&mut self, depth: usize) -> String {
        let mut out = String::new();
        self.value(&mut out, depth);
        out
    }

    fn value(&mut self, out: &mut String, depth: usize) {
        out.push_str(self.blanks());
        match self.below(if depth == 0 { 5 } else { 9 }) {
            0 => out.push_str(&self.literal()),
            1 => out.push_str(&self.number()),
            2 => out.push_str("true"),
            3 => out.push_str("false"),
            4 => out.push_str("null"),
            5 | 6 => self.container(out, depth, ['[', ']']),
            _ => self.container(out, depth, ['{', '}']),
        }
        out.push_str(self.blanks());
    }

    fn container(&mut self, out: &mut String, depth: usize, [open, close]: [char; 2]) {
        out.push(open);
        for index in 0..self.below(5) {
            if index != 0 {
                out.push(',');
            }
            if open == '{' {
                out.push_str(self.blanks());
                out.push_str(&self.literal());
                out.push_str(self.blanks());
                out.push(':');
            }
            self.value(out, depth - 1);
        }
        out.push_str(self.blanks());
        out.push(close);
    }

    /// Damages `bytes` in one place.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        const BYTES: &[u8] = b"\"\\{}[]:,+-.eE0123456789tfnu aA/\n\r\t\x00\x1f\x7f\x80\xc3\xed\xff";
        let at = self.below(bytes.len() + 1);
        let byte = BYTES[self.below(BYTES.len())];
        match self.below(4) {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => bytes[at] = byte,
            2 if at < bytes.len() => drop(bytes.remove(at)),
            _ => {
                // Swapping stretches keeps the tokens and breaks their order.
                let from = self.below(bytes.len() + 1);
                let (low, high) = (at.min(from), at.max(from));
                bytes[low..high].rotate_left((high - low) / 2);
            }
        }
    }
}
