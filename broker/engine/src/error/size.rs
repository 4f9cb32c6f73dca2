//! Bytes for people, in powers of 1024.

use std::fmt;

/// To the byte, in the largest unit that goes: `512 KiB`, and `524287 B`. For what somebody has set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exact(pub(super) u64);

/// To a tenth of the unit: `9.9 KiB`. For what was counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    bytes: u64,
    is_up: bool,
}

impl About {
    /// Never more than it is.
    pub(super) fn down(bytes: u64) -> About {
        About { bytes, is_up: false }
    }

    /// Never less than it is. So of two numbers, the larger one rounded up and the smaller one down, no reader takes one for the other.
    pub(super) fn up(bytes: u64) -> About {
        About { bytes, is_up: true }
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = (1..UNITS.len()).rev().find(|unit| self.0 > 0 && self.0.is_multiple_of(factor(*unit))).unwrap_or(0);
        write!(f, "{} {}", self.0 / factor(unit), UNITS[unit])
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = (1..UNITS.len()).rev().find(|unit| self.bytes >= factor(*unit)).unwrap_or(0);
        if unit == 0 {
            return write!(f, "{} B", self.bytes);
        }
        let (tenths, factor) = (u128::from(self.bytes) * 10, u128::from(factor(unit)));
        let tenths = if self.is_up { tenths.div_ceil(factor) } else { tenths / factor };
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

const fn factor(unit: usize) -> u64 {
    1 << (10 * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_shown_as_it_was_set() {
        let shown = |bytes| Exact(bytes).to_string();
        assert_eq!([shown(0), shown(1), shown(1023), shown(1024)], ["0 B", "1 B", "1023 B", "1 KiB"]);
        assert_eq!([shown(524_287), shown(512 << 10), shown(1 << 60)], ["524287 B", "512 KiB", "1 EiB"]);
        assert_eq!(shown(u64::MAX), "18446744073709551615 B");
    }

    #[test]
    fn what_was_counted_is_rounded_apart() {
        let both = |bytes| (About::down(bytes).to_string(), About::up(bytes).to_string());
        assert_eq!(both(0), ("0 B".to_owned(), "0 B".to_owned()));
        assert_eq!(both(1023), ("1023 B".to_owned(), "1023 B".to_owned()));
        assert_eq!(both(10_138), ("9.9 KiB".to_owned(), "10.0 KiB".to_owned()));
        assert_eq!(both(3 << 20), ("3.0 MiB".to_owned(), "3.0 MiB".to_owned()));
        assert_eq!(About::up(u64::MAX).to_string(), "16.0 EiB");
        for (free, batch) in [(10_137, 10_138), (10_239, 10_240), ((1 << 20) - 1, 1 << 20), (1023, 1024)] {
            assert_ne!(About::down(free).to_string(), About::up(batch).to_string(), "{free}");
        }
    }
}
