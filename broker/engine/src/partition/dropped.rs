//! What the broker's log says of records that were dropped to make room: the first segment at once, and from then on what has come
//! together, in one line a minute at most. Added up, the lines say all that went.

use super::Partition;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// What was dropped, and not said yet.
#[derive(Debug, Default)]
pub(super) struct Unsaid {
    sum: Sum,
    /// When something was said last, as long as that is so recent that nothing else is.
    said_at: Option<Instant>,
}

/// Segments that went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    segments: u64,
    records: u64,
    bytes: u64,
}

/// What is to be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    sum: Sum,
    /// The time in which it went; none for a single segment.
    within: Option<Duration>,
}

impl Unsaid {
    /// Adds a segment. What is to be said at once comes with a quiet time ahead, at whose end [`Unsaid::quiet_has_ended`] is to be asked.
    fn add(&mut self, records: u64, bytes: u64, now: Instant) -> Option<Line> {
        self.sum.segments += 1;
        self.sum.records += records;
        self.sum.bytes += bytes;
        if self.said_at.is_some() {
            return None;
        }
        self.said_at = Some(now);
        Some(Line { sum: std::mem::take(&mut self.sum), within: None })
    }

    /// What has come together. If there is anything, another quiet time begins.
    fn quiet_has_ended(&mut self, now: Instant) -> Option<Line> {
        let line = self.rest(now);
        self.said_at = line.map(|_| now);
        line
    }

    /// What has come together, whenever it is.
    fn rest(&mut self, now: Instant) -> Option<Line> {
        let sum = std::mem::take(&mut self.sum);
        let within = self.said_at.map(|said_at| now.saturating_duration_since(said_at));
        (sum.segments > 0).then_some(Line { sum, within })
    }
}

impl Partition {
    /// Notes that a segment was dropped, and says so, now or later.
    pub(super) fn note_dropped(self: &Arc<Self>, records: u64, bytes: u64) {
        self.space.count_dropped(records, bytes);
        let line = self.unsaid.lock().add(records, bytes, self.services.instant());
        if let Some(line) = line {
            self.say_dropped(line);
            self.say_dropped_later();
        }
    }

    /// Says what was not said yet: nobody will ask this partition any more.
    pub(super) fn say_rest_dropped(&self) {
        let line = self.unsaid.lock().rest(self.services.instant());
        if let Some(line) = line {
            self.say_dropped(line);
        }
    }

    fn say_dropped_later(self: &Arc<Self>) {
        let (partition, timers) = (Arc::downgrade(self), self.services.timers.clone());
        timers.spawn(async move {
            loop {
                tokio::time::sleep(SAID_EVERY).await;
                let Some(partition) = partition.upgrade() else { return };
                let line = partition.unsaid.lock().quiet_has_ended(Instant::now());
                let Some(line) = line else { return };
                partition.say_dropped(line);
            }
        });
    }

    fn say_dropped(&self, line: Line) {
        let Line { sum: Sum { segments, records, bytes }, within } = line;
        let (log_start, within_s) = (self.watermarks().log_start, within.map(|within| within.as_secs()));
        tracing::warn!(
            topic = %self.topic, partition = self.number, segments, records, bytes, within_s, log_start,
            "the oldest records were dropped to make room"
        );
    }
}

/// A partition does not say more often than this what was dropped.
const SAID_EVERY: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_what_comes_together_once_for_each_quiet_time() {
        let (mut unsaid, start) = (Unsaid::default(), Instant::now());
        let second = |number| start + Duration::from_secs(number);
        let line = |segments, records, bytes, within: Option<u64>| {
            Some(Line { sum: Sum { segments, records, bytes }, within: within.map(Duration::from_secs) })
        };
        assert_eq!(unsaid.add(10, 100, start), line(1, 10, 100, None));
        assert_eq!((unsaid.add(20, 200, second(1)), unsaid.add(30, 300, second(59))), (None, None));
        assert_eq!(unsaid.quiet_has_ended(second(60)), line(2, 50, 500, Some(60)));
        assert_eq!(unsaid.add(1, 2, second(61)), None, "it is quiet after that line too");
        assert_eq!(unsaid.rest(second(70)), line(1, 1, 2, Some(10)));
        assert_eq!((unsaid.rest(second(71)), unsaid.quiet_has_ended(second(120))), (None, None));
        assert_eq!(unsaid.add(3, 4, second(500)), line(1, 3, 4, None), "after a quiet time it is said at once");
    }
}
