//! Series of measurements, and the ratio of two that were taken in turns.

use std::fmt;

/// One figure, as often as it was taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// Each figure over the one of the other series that was taken in the same round.
    pub(crate) fn over(&self, other: &Series) -> Series {
        Series(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        }
    }

    pub(crate) fn smallest(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    pub(crate) fn largest(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }
}

/// The median, and in brackets the smallest and the largest, each with the precision that is asked for, and filled up on the right.
impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = f.precision().unwrap_or(2);
        let [median, smallest, largest] = [self.median(), self.smallest(), self.largest()];
        let text = format!("{median:.precision$} ({smallest:.precision$}..{largest:.precision$})");
        // Not `pad`, which takes the precision for a length to cut at.
        write!(f, "{text:<width$}", width = f.width().unwrap_or(0))
    }
}

/// Decimal megabytes a second.
pub(crate) fn megabytes_per_second(bytes: u64, elapsed: std::time::Duration) -> f64 {
    approximate(bytes) / 1e6 / elapsed.as_secs_f64()
}

/// What a count is in floating point; beyond 2^53 not to the last digit.
#[expect(clippy::cast_precision_loss, reason = "figures are printed with four digits")]
pub(crate) fn approximate(count: u64) -> f64 {
    count as f64
}
