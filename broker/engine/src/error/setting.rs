//! What a setting is, and what it may be, in words.

use super::{EngineError, size::Exact};
use std::ops::RangeInclusive;

/// Refuses a value that is out of its range.
pub(crate) fn within(setting: &'static str, value: u64, range: &RangeInclusive<u64>) -> Result<(), EngineError> {
    if range.contains(&value) {
        return Ok(());
    }
    let rule = format!("{} to {} are allowed", value_of(setting, *range.start()), value_of(setting, *range.end()));
    Err(EngineError::InvalidConfig { setting, value, rule })
}

/// The value of a setting, by the unit that its name ends with.
pub(crate) fn value_of(setting: &str, value: u64) -> String {
    match setting.rsplit_once('_') {
        Some((_, "bytes")) => Exact(value).to_string(),
        Some((_, "second")) => format!("{} each second", Exact(value)),
        Some((_, "ms")) if value > 0 && value.is_multiple_of(1_000) => format!("{} s", value / 1_000),
        Some((_, unit)) => format!("{value} {unit}"),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_told_in_the_unit_of_its_setting_with_what_it_may_be() {
        for (setting, value, range, told) in [
            ("memory_bytes", 100, 65_536..=1 << 30, "`memory_bytes` is 100 B: 64 KiB to 1 GiB are allowed"),
            ("time_ms", 0, 1..=60_000, "`time_ms` is 0 ms: 1 ms to 60 s are allowed"),
            (
                "log_bytes_per_second",
                1 << 21,
                0..=1 << 20,
                "`log_bytes_per_second` is 2 MiB each second: 0 B each second to 1 MiB each second are allowed",
            ),
            ("retries", 7, 0..=5, "`retries` is 7: 0 to 5 are allowed"),
        ] {
            assert_eq!(within(setting, value, &range).expect_err("it is out of range").to_string(), told);
            assert!(within(setting, *range.end(), &range).is_ok() && within(setting, *range.start(), &range).is_ok());
        }
    }
}
