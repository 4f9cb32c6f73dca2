//! What a person sees while a command works: a line on stderr that keeps changing. There is none unless stderr is a terminal.

use crate::output::{human_bytes, thousands};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

/// Records that go by.
#[derive(Debug)]
pub(crate) struct RecordProgress {
    bar: ProgressBar,
    /// How many bytes there will be, where that is known.
    bytes_total: Option<u64>,
    started: Instant,
    shown: Option<Instant>,
}

/// Bytes of which it is known how many there are.
#[derive(Debug)]
pub(crate) struct ByteProgress {
    bar: ProgressBar,
    bytes: u64,
    started: Instant,
    shown: Option<Instant>,
}

/// Something that takes a moment.
#[derive(Debug)]
pub(crate) struct Spinner(ProgressBar);

impl RecordProgress {
    /// `wanted` is false where the line would run into other output on the same terminal.
    pub(crate) fn start(wanted: bool, bytes_total: Option<u64>) -> RecordProgress {
        let visible = wanted && io::stderr().is_terminal();
        let bar = match bytes_total {
            _ if !visible => ProgressBar::hidden(),
            Some(total) => ProgressBar::new(total).with_style(style("{spinner} {bar:16} {percent:>3} %  {wide_msg}")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {wide_msg}")),
        };
        RecordProgress { bar, bytes_total, started: Instant::now(), shown: None }
    }

    /// Shows how far it is: records, their bytes, and bytes of input where the total is known. Cheap to call often.
    pub(crate) fn update(&mut self, records: u64, bytes: u64, input_bytes: u64) {
        let now = Instant::now();
        if self.bar.is_hidden() || self.shown.is_some_and(|shown| now - shown < REDRAW_INTERVAL) {
            return;
        }
        self.shown = Some(now);
        let rate = per_second(records, self.started.elapsed());
        self.bar.set_message(format!("{} records  {}  {} records/s", thousands(records), human_bytes(bytes), thousands(rate)));
        if self.bytes_total.is_some() {
            self.bar.set_position(input_bytes);
        }
        self.bar.tick();
    }

    /// Takes the line away until there is more, so that something else can be printed.
    pub(crate) fn hide(&mut self) {
        // The bar's own way to do so takes a closure around what is printed.
        self.bar.suspend(|| {});
        self.shown = Some(Instant::now());
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl ByteProgress {
    /// There will be so many bytes.
    pub(crate) fn start(bytes_total: u64) -> ByteProgress {
        if !io::stderr().is_terminal() {
            return ByteProgress { bar: ProgressBar::hidden(), bytes: 0, started: Instant::now(), shown: None };
        }
        let bar = ProgressBar::new(bytes_total).with_style(style("{spinner} {bar:30} {percent:>3} %  {msg}"));
        ByteProgress { bar, bytes: 0, started: Instant::now(), shown: None }
    }

    /// So many more are done. Cheap to call often.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        let now = Instant::now();
        if self.bar.is_hidden() || self.shown.is_some_and(|shown| now - shown < REDRAW_INTERVAL) {
            return;
        }
        self.shown = Some(now);
        let rate = per_second(self.bytes, self.started.elapsed()) / 1_000_000;
        self.bar.set_message(format!("{}  {} MB/s", human_bytes(self.bytes), thousands(rate)));
        self.bar.set_position(self.bytes);
        self.bar.tick();
    }

    /// Takes the line away until more is done, so that something else can be printed.
    pub(crate) fn hide(&mut self) {
        // The bar's own way to do so takes a closure around what is printed.
        self.bar.suspend(|| {});
        self.shown = Some(Instant::now());
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Spinner {
    /// Shows `words` until it is dropped.
    pub(crate) fn start(words: String) -> Spinner {
        if !io::stderr().is_terminal() {
            return Spinner(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg}  {elapsed}")).with_message(words);
        bar.enable_steady_tick(REDRAW_INTERVAL);
        Spinner(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// How many a second, rounded.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let nanos = elapsed.as_nanos().max(1);
    u64::try_from(u128::from(count) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// Often enough to look alive.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|error| unreachable!("the template is a constant: {error}"));
    style.progress_chars("━╸─")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_whole_number_even_for_no_time_at_all() {
        assert_eq!(per_second(100_000, Duration::from_millis(210)), 476_190);
        assert_eq!(per_second(0, Duration::ZERO), 0);
        assert_eq!(per_second(u64::MAX, Duration::ZERO), u64::MAX);
    }
}
