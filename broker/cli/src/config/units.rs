//! Sizes, times and addresses as people write them: `16MiB`, `200ms`, `127.0.0.1:9440`. What is printed reads back as it was meant.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IntoDeserializer},
};
use std::{fmt, marker::PhantomData, net::SocketAddr, ops::RangeInclusive, str::FromStr, time::Duration};

/// A number of bytes, written with a unit.
///
/// Powers of 1024 are `KiB`, `MiB`, `GiB`, `TiB`; powers of 1000 are `kB`, `MB`, `GB`, `TB`; `B` or nothing means bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub(crate) u64);

/// A length of time, written with a unit: `us`, `ms`, `s`, `m`, `h` or `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

/// A value, or the word `unlimited` where there is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limited<T> {
    /// There is no limit.
    Unlimited,
    /// This is it.
    To(T),
}

/// Why a text is neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    /// Not a size.
    #[error("`{0}` is not a size: write a whole number with a unit, such as 512KiB, 16MiB or 1GiB")]
    Size(String),
    /// Not a time.
    #[error("`{0}` is not a time: write a whole number with a unit, such as 200ms, 30s or 5m")]
    Time(String),
}

/// From the largest down, those of 1024 before those of 1000, so that the first that divides a size is the one to print it in.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
    ("", 1),
];

/// Written where there is no limit.
pub(crate) const UNLIMITED: &str = "unlimited";

/// In microseconds, from the largest down.
const TIME_UNITS: &[(&str, u64)] =
    &[("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

impl ByteSize {
    /// As a count of bytes in memory; a size beyond the address space becomes the largest count.
    pub(crate) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The same if it lies in the range, else words that say that it does not.
    pub(crate) fn within(self, range: &RangeInclusive<u64>) -> Result<ByteSize, String> {
        let (start, end) = (ByteSize(*range.start()), ByteSize(*range.end()));
        if range.contains(&self.0) { Ok(self) } else { Err(format!("{self} is outside {start} to {end}")) }
    }
}

impl<T: Copy> Limited<T> {
    /// The value, where there is one.
    pub(crate) fn value(self) -> Option<T> {
        match self {
            Limited::Unlimited => None,
            Limited::To(value) => Some(value),
        }
    }
}

impl<T> From<Option<T>> for Limited<T> {
    fn from(value: Option<T>) -> Limited<T> {
        value.map_or(Limited::Unlimited, Limited::To)
    }
}

impl Span {
    /// As a count of milliseconds.
    pub(crate) fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// The same if it lies in the range, else words that say that it does not.
    pub(crate) fn within(self, range: &RangeInclusive<Duration>) -> Result<Span, String> {
        let (start, end) = (Span(*range.start()), Span(*range.end()));
        if range.contains(&self.0) { Ok(self) } else { Err(format!("{self} is outside {start} to {end}")) }
    }
}

/// A socket address, with an example where it is none.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong =
        |_| de::Error::custom(format!("`{text}` is not an address: write an IP address and a port, such as 127.0.0.1:9440 or [::]:9440"));
    text.parse().map_err(wrong)
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<ByteSize, UnitError> {
        let wrong = || UnitError::Size(text.to_owned());
        let (number, unit) = split_number(text);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
        number.checked_mul(*factor).map(ByteSize).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |factor: u64| self.0 >= factor && self.0.is_multiple_of(factor);
        match SIZE_UNITS.iter().find(|(_, factor)| fits(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "0B"),
        }
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Span, UnitError> {
        let wrong = || UnitError::Time(text.to_owned());
        let (number, unit) = split_number(text);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        number.checked_mul(*factor).map(|micros| Span(Duration::from_micros(micros))).ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        let fits = |factor: u64| micros >= factor && micros.is_multiple_of(factor);
        match TIME_UNITS.iter().find(|(_, factor)| fits(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", micros / factor),
            // Beside other times it needs a unit that most are written in.
            None => f.write_str("0s"),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<T: fmt::Display> Serialize for Limited<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Limited::Unlimited => serializer.serialize_str(UNLIMITED),
            Limited::To(value) => serializer.collect_str(value),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Limited<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limited<T>, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = Limited<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its unit, or \"unlimited\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Limited<T>, E> {
                if text == UNLIMITED {
                    return Ok(Limited::Unlimited);
                }
                let value = T::deserialize(text.into_deserializer()).map_err(|error: E| E::custom(format!("{error}, or `{UNLIMITED}`")));
                value.map(Limited::To)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Limited<T>, E> {
                T::deserialize(number.into_deserializer()).map(Limited::To)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Limited<T>, E> {
                T::deserialize(number.into_deserializer()).map(Limited::To)
            }
        }
        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A size in a file may also be a bare number of bytes.
impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"16MiB\", or a number of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom(UnitError::Size(bytes.to_string())))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time with its unit, such as \"200ms\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_reads_back_in_its_largest_whole_unit() {
        for (text, bytes, shown) in [
            ("16MiB", 16 << 20, "16MiB"),
            ("1 GiB", 1 << 30, "1GiB"),
            ("64kib", 65_536, "64KiB"),
            ("1MB", 1_000_000, "1MB"),
            ("300000B", 300_000, "300kB"),
            ("2147483647", 2_147_483_647, "2147483647B"),
            ("0", 0, "0B"),
        ] {
            let size: ByteSize = text.parse().expect("a size");
            assert_eq!((size.0, size.to_string()), (bytes, shown.to_owned()));
            assert_eq!(size.to_string().parse(), Ok(size));
        }
    }

    #[test]
    fn a_time_reads_back_in_its_largest_whole_unit() {
        for (text, ms, shown) in [("200ms", 200, "200ms"), ("60s", 60_000, "1m"), ("90s", 90_000, "90s"), ("0s", 0, "0s")] {
            let span: Span = text.parse().expect("a time");
            assert_eq!((span.0, span.to_string()), (Duration::from_millis(ms), shown.to_owned()));
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_the_range() {
        assert_eq!(ByteSize(1 << 16).within(&(1 << 10..=1 << 20)), Ok(ByteSize(1 << 16)));
        assert_eq!(ByteSize(1).within(&(1 << 10..=1 << 20)), Err("1B is outside 1KiB to 1MiB".to_owned()));
        let range = Duration::ZERO..=Duration::from_mins(1);
        assert_eq!(Span(Duration::from_secs(90)).within(&range), Err("90s is outside 0s to 1m".to_owned()));
    }

    #[test]
    fn what_has_no_unit_or_another_or_overflows_is_refused() {
        for text in ["", "MiB", "1.5MiB", "-1", "16M", "99999999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        for text in ["", "10", "ms", "1w", "-1s", "99999999999999999h"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
