//! A range of offsets as it is typed: `A..B`, `A..`, `..B`, or one offset.

use std::{ops::Range, str::FromStr};

/// From the first offset up to, not including, the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offsets(Range<i64>);

impl Offsets {
    /// Every offset that there can be.
    pub(super) const ALL: Offsets = Offsets(0..i64::MAX);

    pub(super) fn contains(&self, offset: i64) -> bool {
        self.0.contains(&offset)
    }

    /// Whether one of these offsets is wanted, the end not included.
    pub(super) fn overlaps(&self, start: i64, end: i64) -> bool {
        start < self.0.end && end > self.0.start
    }
}

impl FromStr for Offsets {
    type Err = String;

    fn from_str(text: &str) -> Result<Offsets, String> {
        let offset = |digits: &str| {
            let parsed: Option<i64> = digits.parse().ok().filter(|offset| *offset >= 0);
            parsed.ok_or_else(|| format!("`{digits}` is not an offset: it is a number from 0"))
        };
        let (start, end) = match text.split_once("..") {
            Some(("", "")) => return Err("write A..B, A.. or ..B".to_owned()),
            Some((start, "")) => (offset(start)?, i64::MAX),
            Some(("", end)) => (0, offset(end)?),
            Some((start, end)) => (offset(start)?, offset(end)?),
            None => offset(text).map(|offset| (offset, offset.saturating_add(1)))?,
        };
        if start < end { Ok(Offsets(start..end)) } else { Err("there is no offset in it: the end is not included".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_offsets_is_typed_in_four_ways() {
        for (text, range) in [("5..9", 5..9), ("5..", 5..i64::MAX), ("..9", 0..9), ("7", 7..8)] {
            assert_eq!(text.parse(), Ok(Offsets(range)), "{text}");
        }
        for text in ["", "..", "5..5", "9..5", "-1..3", "a..b", "1...5", "1..2..3", "9223372036854775808"] {
            assert!(text.parse::<Offsets>().is_err(), "{text}");
        }
        assert!(Offsets(5..9).overlaps(0, 6) && !Offsets(5..9).overlaps(0, 5) && !Offsets(5..9).overlaps(9, 10));
    }
}
