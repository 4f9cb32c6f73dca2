//! What is remembered of the producers, as text. The layout is drawn in [`crate::producers`].

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;

use super::producer::{Appended, Producer, ProducerBatch};
use super::{PRODUCER_BATCHES_MAX, PRODUCERS_MAX};

/// The producers of a log at one of its offsets, as they are written down. Clones are cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// None where there are no producers.
    text: Option<Arc<str>>,
}

/// Producers that were read, the one that was used longest ago first.
pub(crate) type Listed = Vec<(i64, Producer)>;

impl Snapshot {
    /// Of these producers, the one that was used longest ago first.
    pub(super) fn of(producers: &[(&i64, &Producer)]) -> Snapshot {
        if producers.is_empty() {
            return Snapshot::default();
        }
        let mut text = String::with_capacity(producers.len() * LINE_BYTES_TYPICAL);
        // Writing to a string can't fail.
        let _ = write!(text, "{HEADING}{}", producers.len());
        for (producer_id, producer) in producers {
            let _ = write!(text, "\n{producer_id} {}", producer.epoch);
            for ProducerBatch { last_sequence, crc, appended } in producer.batches() {
                let Appended { base_offset, last_offset, append_time_ms, records_dropped } = appended;
                let _ = write!(text, " {last_sequence}:{base_offset}:{last_offset}:{crc:08x}:{append_time_ms}:{records_dropped}");
            }
        }
        Snapshot { text: Some(text.into()) }
    }

    /// The lines, without a line feed behind the last.
    pub(crate) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or(NONE)
    }
}

/// Reads the lines. None for anything that no log has ever written.
pub(crate) fn parse(text: &str) -> Option<Listed> {
    let mut lines = text.split('\n');
    let count: usize = lines.next()?.strip_prefix(HEADING)?.parse().ok()?;
    if count > PRODUCERS_MAX {
        return None;
    }
    let mut listed = Vec::with_capacity(count);
    let mut seen = HashSet::with_capacity(count);
    for line in lines {
        let (producer_id, producer) = parse_producer(line)?;
        if listed.len() == count || !seen.insert(producer_id) {
            return None;
        }
        listed.push((producer_id, producer));
    }
    (listed.len() == count).then_some(listed)
}

fn parse_producer(line: &str) -> Option<(i64, Producer)> {
    let mut fields = line.split(' ');
    let producer_id: i64 = fields.next()?.parse().ok()?;
    let epoch: i16 = fields.next()?.parse().ok()?;
    let mut producer = Producer::new(epoch);
    for field in fields {
        if producer.batches().len() == PRODUCER_BATCHES_MAX {
            return None;
        }
        producer.add(epoch, parse_batch(field)?);
    }
    (producer_id >= 0 && epoch >= 0 && !producer.batches().is_empty()).then_some((producer_id, producer))
}

fn parse_batch(field: &str) -> Option<ProducerBatch> {
    let mut parts = field.split(':');
    let last_sequence: i32 = parts.next()?.parse().ok()?;
    let (base_offset, last_offset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let crc = u32::from_str_radix(parts.next()?, 16).ok()?;
    let (append_time_ms, records_dropped) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let is_sane = parts.next().is_none() && last_sequence >= 0 && base_offset >= -1 && last_offset >= base_offset;
    let is_stored_or_not = (base_offset == -1) == (last_offset == -1);
    let appended = Appended { base_offset, last_offset, append_time_ms, records_dropped };
    (is_sane && is_stored_or_not).then_some(ProducerBatch { last_sequence, crc, appended })
}

/// Begins the first line; the number of producers follows.
const HEADING: &str = "producers ";

/// What is written where there are none.
const NONE: &str = "producers 0";

/// What is written where nobody knows: the headers of the batches are to be asked.
pub(crate) const UNKNOWN: &str = "producers unknown";

/// A producer with two batches, give or take.
const LINE_BYTES_TYPICAL: usize = 96;

/// Six numbers of 10, 19, 19, 8, 20 and 10 characters, what is between them, and a space.
const BATCH_BYTES_MAX: usize = 10 + 19 + 19 + 8 + 20 + 10 + 5 + 1;

/// An id of 19 digits, an epoch of five, the space between them, and a line feed.
const LINE_BYTES_MAX: usize = 19 + 1 + 5 + PRODUCER_BATCHES_MAX * BATCH_BYTES_MAX + 1;

/// The longest text that is written: some 480 KB.
pub(crate) const SNAPSHOT_BYTES_MAX: usize = UNKNOWN.len() + PRODUCERS_MAX * LINE_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producers::{ProducerPool, Producers};

    const GOLDEN: &str = "producers 2\n\
        815 3 2:120:122:0badcafe:1763700000000:0 9:-1:-1:1a2b3c4d:1763700000500:7\n\
        4711 0 9:100:109:3c0ffee5:-1:0 19:110:119:00c0ffee:-1:0 20:131:131:5ca1ab1e:-1:0";

    fn rewritten(text: &str) -> Option<String> {
        let mut producers = Producers::bounded(ProducerPool::default(), PRODUCERS_MAX, 1);
        producers.restore(parse(text)?);
        Some(producers.snapshot().text().to_owned())
    }

    #[test]
    fn the_text_is_read_back_with_its_order() {
        assert_eq!(rewritten(GOLDEN).as_deref(), Some(GOLDEN));
        assert_eq!(rewritten(NONE).as_deref(), Some(NONE));
        let listed = parse(GOLDEN).expect("it is whole");
        let (producer_id, producer) = &listed[0];
        let appended = Appended { base_offset: 120, last_offset: 122, append_time_ms: 1_763_700_000_000, records_dropped: 0 };
        assert_eq!((*producer_id, producer.epoch), (815, 3));
        assert_eq!(producer.batches()[0], ProducerBatch { last_sequence: 2, crc: 0x0bad_cafe, appended });
        assert_eq!(producer.batches()[1].appended.records_dropped, 7);
        assert_eq!(listed[1].1.last_sequence(), Some(20));
    }

    #[test]
    fn whatever_else_the_text_says_is_not_believed() {
        assert!(parse(UNKNOWN).is_none());
        let changes = [
            ("producers 2", "producers 1"),
            ("producers 2", "producers 3"),
            ("producers 2", "producers 18446744073709551615"),
            ("producers 2", "producers 1001"),
            ("815 3", "815"),
            ("815 3", "-1 3"),
            ("815 3", "815 -3"),
            ("815 3", "4711 3"),
            ("815 3", "815 40000"),
            ("815 3 2:120:122:0badcafe:1763700000000:0 9:-1:-1:1a2b3c4d:1763700000500:7", "815 3"),
            ("2:120:122:", "-2:120:122:"),
            ("2:120:122:", "2:123:122:"),
            ("2:120:122:", "2:-1:122:"),
            ("2:120:122:", "2:-2:-2:"),
            ("0badcafe", "x"),
            ("0badcafe", "10badcafe"),
            (":7", ":7:7"),
            (":7", ""),
            (":7", ":-7"),
            (" 20:131:131:5ca1ab1e:-1:0", "\n"),
            (" 20:131:131:5ca1ab1e:-1:0", " "),
            (" 20:131:131:5ca1ab1e:-1:0", &" 20:131:131:5ca1ab1e:-1:0".repeat(4)),
        ];
        for (from, to) in changes {
            assert!(GOLDEN.contains(from) && parse(&GOLDEN.replacen(from, to, 1)).is_none(), "{to}");
        }
        for length in 0..GOLDEN.len() {
            // Without its last batches it may pass for another; the checksum of the file is there for that.
            let is_between_batches = length > GOLDEN.len() - 58 && GOLDEN[length..].starts_with(' ');
            assert_eq!(parse(&GOLDEN[..length]).is_some(), is_between_batches, "{length}");
        }
    }

    #[test]
    fn the_bound_is_what_the_longest_text_takes() {
        let appended = Appended { base_offset: i64::MAX, last_offset: i64::MAX, append_time_ms: i64::MIN, records_dropped: u32::MAX };
        let mut producer = Producer::new(i16::MAX);
        for _ in 0..PRODUCER_BATCHES_MAX {
            producer.add(i16::MAX, ProducerBatch { last_sequence: i32::MAX, crc: u32::MAX, appended });
        }
        let ids: Vec<i64> = (0..i64::MAX).rev().take(PRODUCERS_MAX).collect();
        let producers: Vec<_> = ids.iter().map(|id| (id, &producer)).collect();
        let text = Snapshot::of(&producers).text().to_owned();
        assert!((SNAPSHOT_BYTES_MAX - UNKNOWN.len()..=SNAPSHOT_BYTES_MAX).contains(&text.len()), "{} bytes", text.len());
        assert_eq!(rewritten(&text).as_deref(), Some(&text[..]), "all of it is read back");
    }
}
