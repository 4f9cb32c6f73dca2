//! Modules at work on one batch: the chain that runs before the append.
//!
//! Each module gets the records that the one before it returned. What a module returns is held against the format and against the
//! batch before it is believed. A batch on which a module fails is not stored, and the next one is as if it had never come; where its
//! attachment says so, the records on which it fails are left out or become dead letters, and the others go on ([`isolate`]). Where that would
//! cost too much, the batch is refused: a record on which no module has failed is never left out for it.
//!
//! All of it blocks and runs on the plugin threads.

mod attachment;
mod breaker;
mod difference;
mod isolate;

pub(crate) use attachment::{Attachment, Deltas, Guest, Lasting, Share, Visit};
pub(crate) use breaker::{Breaker, is_of_amount, is_of_records};
pub(crate) use difference::Difference;
pub(crate) use isolate::{Failed, Isolated, Part, Ran, Search, isolate, part_from};

use crate::{
    check,
    dead_letters::Tally,
    error::{EngineError, FailedAt},
    topic::Runtime,
};
use bytes::Bytes;
use cpu_time::ThreadTime;
use millpond_plugin::{BatchInfo, PluginError};
use millpond_protocol::{
    batch::{Batch, BatchHeader, rebuild},
    record::{self, SectionSummary},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The records of a batch, unpacked, and what modules have made of them.
#[derive(Debug)]
pub(crate) struct Records {
    /// The records section, uncompressed and well formed.
    pub(crate) section: Bytes,
    pub(crate) summary: SectionSummary,
    /// The section is no longer the batch's own.
    pub(crate) changed: bool,
    /// The records were numbered anew: an offset delta no longer tells which record of the batch it was.
    pub(crate) renumbered: bool,
    /// They are stored already, so their offsets must stay.
    pub(crate) is_stored: bool,
    /// Records that modules left out, or failed on.
    pub(crate) dropped: u64,
    /// For other topics.
    pub(crate) dead_letters: Vec<DeadLetter>,
    /// Counts those.
    pub(crate) tally: Tally,
}

/// A record that a module failed on, and that goes to another topic.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    pub(crate) attachment: Arc<Attachment>,
    pub(crate) failed: Failed,
}

/// A batch as it will be appended.
#[derive(Debug)]
pub(crate) struct Transformed {
    /// None when every record was left out.
    pub(crate) batch: Option<Batch>,
    pub(crate) records_dropped: u32,
    pub(crate) dead_letters: Vec<DeadLetter>,
    /// Counts those.
    pub(crate) tally: Tally,
}

/// The limits on one batch, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    /// Of the uncompressed records.
    pub(crate) section_bytes_max: usize,
    /// Of the batch as it travels: as it came, or put together again.
    pub(crate) batch_bytes_max: u32,
}

/// Runs the topic's transforms on a batch for a known partition, and holds what comes out against the topic's rule for keys.
pub(crate) fn transform(
    topic: &Arc<str>,
    partition: u32,
    runtime: &Runtime,
    batch: &Batch,
    limits: BatchLimits,
) -> Result<Transformed, EngineError> {
    let mut records = Records::unpack(batch, limits.section_bytes_max)?;
    records.pass_through(topic, Some(partition), &runtime.transforms, batch.header())?;
    records.check_keys(topic, runtime)?;
    let batch = records.pack(topic, batch, limits.batch_bytes_max)?;
    Ok(Transformed { batch, records_dropped: records.dropped_u32(), dead_letters: records.dead_letters, tally: records.tally })
}

/// The batch of which every record was left out: its place in the sequence of its producer, and its offsets.
pub(crate) fn empty(original: &BatchHeader) -> Result<Batch, EngineError> {
    let summary = SectionSummary { record_count: 0, last_offset_delta: 0, max_timestamp_delta: 0, offsets_rise: true };
    Ok(Batch::parse(rebuild(original, &[], &summary)?)?)
}

impl Records {
    /// Unpacks and checks the records of a producer's batch.
    pub(crate) fn unpack(batch: &Batch, section_bytes_max: usize) -> Result<Records, EngineError> {
        let (section, summary) = batch.check_records(section_bytes_max)?;
        // As many as offsets, rising, none behind the last: they are 0, 1, 2 and so on.
        if !summary.offsets_rise {
            return Err(EngineError::BatchRefused { reason: "the offset deltas of its records do not rise" });
        }
        Ok(Records {
            section,
            summary,
            changed: false,
            renumbered: false,
            is_stored: false,
            dropped: 0,
            dead_letters: Vec::new(),
            tally: Tally::default(),
        })
    }

    /// Sends the records through some transforms, in order. A chain ends early when nothing is left.
    pub(crate) fn pass_through(
        &mut self,
        topic: &Arc<str>,
        partition: Option<u32>,
        chain: &[Arc<Attachment>],
        header: &BatchHeader,
    ) -> Result<(), EngineError> {
        for attachment in chain {
            if self.summary.record_count == 0 {
                break;
            }
            attachment.admit(topic)?;
            let info = BatchInfo { topic, partition, base_timestamp: header.base_timestamp, record_count: self.count() };
            let (is_stored, deltas) = (self.is_stored, self.deltas(header));
            let visit = Visit { topic, partition, records: info.record_count, header, is_stored, begun: Instant::now() };
            let result = attachment
                .transform(&info, &self.section, deltas, Share::WHOLE)
                .and_then(|output| self.take(output, header.last_offset_delta).map_err(|reason| output_error(attachment, topic, reason)));
            match result {
                Ok(difference) => attachment.passed(&visit, &difference),
                Err(error) if attachment.on_error.is_default() || !breaker::is_of_records(&error) => {
                    attachment.refused(&visit, &error);
                    return Err(error);
                }
                Err(error) => self.pass_without_failed(attachment, &info, &visit, &error)?,
            }
        }
        Ok(())
    }

    /// Sends all records through a module but those on which it fails.
    fn pass_without_failed(
        &mut self,
        attachment: &Arc<Attachment>,
        info: &BatchInfo<'_>,
        visit: &Visit<'_>,
        first: &EngineError,
    ) -> Result<(), EngineError> {
        let topic = visit.topic;
        let of = info.record_count as usize;
        let (mut allowance, deltas) = (Allowance::of(attachment), self.deltas(visit.header));
        let run = |part: Part<'_>| {
            let info = BatchInfo { record_count: u32::try_from(part.records).unwrap_or(u32::MAX), ..*info };
            let checked = attachment.transform(&info, part.section, deltas, part.share(of)).and_then(|output| {
                // Else one part would be blamed for what another one returned.
                let checked = difference::check(part.section, &output).map(|_| output);
                checked.map_err(|error| output_error(attachment, topic, error.to_string()))
            });
            match checked {
                Ok(output) => allowance.take(topic, output.len()).map_or_else(|no_room| no_room, |()| Ran::Passed(output)),
                Err(error) => Ran::Failed(error),
            }
        };
        let mut budget = Budget::of(attachment);
        let isolated = isolate(&self.section, first.clone(), Search::Once, || budget.is_left(), run);
        if let Some(error) = isolated.ended {
            attachment.refused(visit, &error);
            let (topic, module) = (Arc::clone(topic), Arc::clone(&attachment.module));
            let decided = isolated.passed + isolated.failed.len();
            let of_records = is_of_records(&error);
            let source = Box::new(error);
            return Err(if of_records { EngineError::SearchEnded { topic, module, decided, records: of, source } } else { *source });
        }
        let difference = match self.take(isolated.output, visit.header.last_offset_delta) {
            Ok(difference) => difference,
            // Each part was well formed, and together they are not.
            Err(reason) => {
                let error = output_error(attachment, topic, reason);
                attachment.refused(visit, &error);
                return Err(error);
            }
        };
        let failed = isolated.failed.len() as u64;
        let others = Difference { dropped: difference.dropped.saturating_sub(failed), ..difference };
        attachment.taken_apart(visit, first, failed, isolated.passed, &others);
        if attachment.on_error.dead_letter_topic().is_some() {
            let dead = isolated.failed.into_iter().map(|failed| DeadLetter { attachment: Arc::clone(attachment), failed });
            self.dead_letters.extend(dead);
            self.tally.add(attachment, failed);
        }
        Ok(())
    }

    /// Refuses records without a key where the topic is compacted. After the modules: one of them may give the keys, or take them.
    pub(crate) fn check_keys(&self, topic: &Arc<str>, runtime: &Runtime) -> Result<(), EngineError> {
        if runtime.config.cleanup.compacts() { check::keyed(topic, &self.section) } else { Ok(()) }
    }

    /// The batch to store: the one that came where nothing has changed, so that it keeps its very bytes; none without records.
    pub(crate) fn pack(&self, topic: &Arc<str>, original: &Batch, batch_bytes_max: u32) -> Result<Option<Batch>, EngineError> {
        if self.summary.record_count == 0 {
            return Ok(None);
        }
        if !self.changed {
            return Ok(Some(original.clone()));
        }
        let bytes = rebuild(original.header(), &self.section, &self.summary)?;
        if bytes.len() as u64 > u64::from(batch_bytes_max) {
            return Err(EngineError::BatchTooLarge { topic: Arc::clone(topic), bytes: bytes.len(), limit: batch_bytes_max });
        }
        Ok(Some(Batch::parse(bytes)?))
    }

    /// What their offset deltas stand for, in a batch with this header.
    pub(crate) fn deltas(&self, header: &BatchHeader) -> Deltas {
        match (self.is_stored, self.renumbered) {
            (true, _) => Deltas::Offsets(header.base_offset),
            (false, false) => Deltas::Records,
            (false, true) => Deltas::Nothing,
        }
    }

    pub(crate) fn count(&self) -> u32 {
        self.summary.record_count.cast_unsigned()
    }

    pub(crate) fn dropped_u32(&self) -> u32 {
        u32::try_from(self.dropped).unwrap_or(u32::MAX)
    }

    /// Puts a module's output in the place of the records, or says what is wrong with it.
    fn take(&mut self, output: Vec<u8>, original_last_offset_delta: i32) -> Result<Difference, String> {
        if output == self.section {
            return Ok(Difference { records_out: u64::from(self.count()), dropped: 0, changed: 0 });
        }
        let mut output = output;
        let (mut summary, difference) = difference::check(&self.section, &output).map_err(|error| error.to_string())?;
        let last_offset_delta_max = original_last_offset_delta.max(self.summary.last_offset_delta);
        let difference = if !summary.offsets_rise {
            if self.is_stored {
                return Err("it has several records for one, or in another order, and in a view each keeps its offset".to_owned());
            }
            output = record::renumber(&output).map_err(|error| error.to_string())?;
            summary.last_offset_delta = summary.record_count - 1;
            summary.offsets_rise = true;
            self.renumbered = true;
            let records_out = u64::from(summary.record_count.cast_unsigned());
            // Which record became which can't be told any more; all of them are at least in another place.
            Difference { records_out, dropped: u64::from(self.count()).saturating_sub(records_out), changed: records_out }
        } else if summary.last_offset_delta > last_offset_delta_max {
            return Err(format!(
                "it has a record with offset delta {} in a batch that ends at {last_offset_delta_max}",
                summary.last_offset_delta
            ));
        } else {
            difference
        };
        self.section = Bytes::from(output);
        self.summary = summary;
        self.changed = true;
        self.dropped += difference.dropped;
        Ok(difference)
    }
}

/// What may be spent on looking for the records of one batch on which a module fails.
pub(crate) struct Budget {
    runs_left: u32,
    until: Duration,
}

impl Budget {
    pub(crate) fn of(attachment: &Attachment) -> Budget {
        let time = attachment.time().unwrap_or_default() * TIMES_PER_BATCH;
        Budget { runs_left: RUNS_PER_BATCH_MAX, until: ThreadTime::now().as_duration() + time }
    }

    /// Whether one more part may be tried.
    pub(crate) fn is_left(&mut self) -> bool {
        self.runs_left = self.runs_left.saturating_sub(1);
        self.runs_left > 0 && ThreadTime::now().as_duration() < self.until
    }
}

/// What a module may still return for the parts of one batch, in bytes: together no more than for the whole, or it would be as much for each
/// record of a batch on which it fails.
pub(crate) struct Allowance<'a> {
    attachment: &'a Attachment,
    left: usize,
}

impl Allowance<'_> {
    pub(crate) fn of(attachment: &Attachment) -> Allowance<'_> {
        Allowance { attachment, left: attachment.output_bytes() }
    }

    /// Takes what came of one part from it. Where that is more than is left the part has no room, and where it is more than a whole batch may
    /// come to, it has failed.
    pub(crate) fn take(&mut self, topic: &Arc<str>, bytes: usize) -> Result<(), Ran> {
        if let Some(left) = self.left.checked_sub(bytes) {
            self.left = left;
            return Ok(());
        }
        let limit_bytes = self.attachment.output_bytes();
        let error = self.attachment.guest_error(topic, FailedAt::Somewhere, PluginError::OutputTooLarge { limit_bytes });
        Err(if bytes > limit_bytes { Ran::Failed(error) } else { Ran::NoRoom(error) })
    }
}

pub(crate) fn output_error(attachment: &Attachment, topic: &Arc<str>, reason: String) -> EngineError {
    EngineError::GuestOutput { topic: Arc::clone(topic), module: Arc::clone(&attachment.module), reason }
}

/// Looking for bad records takes at most so many times what a module may take for a batch, and a part more. By eighths, a record that goes on
/// for ever is found among a million in seven times.
const TIMES_PER_BATCH: u32 = 8;

/// And so many calls. It bounds the failed records of a batch that are held, too.
const RUNS_PER_BATCH_MAX: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::{batch::BatchBuilder, compression::Codec, record::NewRecord};

    fn batch(values: &[&str], codec: Codec) -> Batch {
        let mut builder = BatchBuilder::new();
        for value in values {
            builder.push(&NewRecord { value: Some(value.as_bytes()), ..NewRecord::default() }).expect("it fits");
        }
        Batch::parse(builder.finish(codec).expect("it has records")).expect("it is a batch")
    }

    fn encoded(records: &Records) -> Vec<Vec<u8>> {
        record::iterate(&records.section).map(|record| record.expect("checked").encoded.to_vec()).collect()
    }

    fn values(batch: &Batch) -> Vec<(i64, String)> {
        let text = |record: record::Record| String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned();
        batch
            .records(1 << 20)
            .expect("it unpacks")
            .map(|record| record.expect("it reads"))
            .map(|record| (record.offset, text(record)))
            .collect()
    }

    fn pack(records: &Records, original: &Batch) -> Option<Batch> {
        records.pack(&Arc::from("t"), original, 1 << 20).expect("it packs")
    }

    #[test]
    fn what_is_given_back_as_it_was_stays_the_very_same_batch() {
        let original = batch(&["a", "b"], Codec::Zstd);
        let mut records = Records::unpack(&original, 1000).expect("it unpacks");
        let output = records.section.to_vec();
        assert_eq!(records.take(output, 1), Ok(Difference { records_out: 2, dropped: 0, changed: 0 }));
        assert_eq!(pack(&records, &original), Some(original));
    }

    #[test]
    fn a_dropped_record_leaves_its_offset_unused_and_the_codec_stays() {
        for codec in Codec::ALL {
            let original = batch(&["a", "b", "c", "d"], codec);
            let mut records = Records::unpack(&original, 1000).expect("it unpacks");
            let output = [&encoded(&records)[1][..], &encoded(&records)[2]].concat();
            assert_eq!(records.take(output, 3), Ok(Difference { records_out: 2, dropped: 2, changed: 0 }));
            let stored = pack(&records, &original).expect("two are left");
            stored.verify_crc().expect("it is sealed");
            assert_eq!(values(&stored), [(1, "b".to_owned()), (2, "c".to_owned())]);
            assert_eq!((stored.header().last_offset_delta, stored.header().record_count), (3, 2));
            assert_eq!(stored.header().attributes.codec(), Ok(codec));
        }
    }

    #[test]
    fn changed_records_are_counted_once_each() {
        let original = batch(&["a", "b", "c"], Codec::None);
        let other = Records::unpack(&batch(&["a", "B", "c"], Codec::None), 1000).expect("it unpacks");
        let mut records = Records::unpack(&original, 1000).expect("it unpacks");
        let output = other.section[..].to_vec();
        assert_eq!(records.take(output, 2), Ok(Difference { records_out: 3, dropped: 0, changed: 1 }));
        assert_eq!(values(&pack(&records, &original).expect("all are left"))[1], (1, "B".to_owned()));
    }

    #[test]
    fn one_record_that_becomes_three_is_numbered_anew() {
        let original = batch(&["a", "b"], Codec::Lz4);
        let mut records = Records::unpack(&original, 1000).expect("it unpacks");
        let one = encoded(&records)[0].clone();
        let output = [&one[..], &one, &one].concat();
        assert_eq!(records.take(output, 1), Ok(Difference { records_out: 3, dropped: 0, changed: 3 }));
        assert!(records.renumbered);
        let stored = pack(&records, &original).expect("three are left");
        assert_eq!(values(&stored).iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(stored.header().last_offset_delta, 2);
    }

    #[test]
    fn when_all_are_dropped_there_is_no_batch() {
        let original = batch(&["a", "b"], Codec::Gzip);
        let mut records = Records::unpack(&original, 1000).expect("it unpacks");
        assert_eq!(records.take(Vec::new(), 1), Ok(Difference { records_out: 0, dropped: 2, changed: 0 }));
        assert_eq!(pack(&records, &original), None);
        assert_eq!(records.dropped_u32(), 2);
    }

    #[test]
    fn garbage_and_offsets_behind_the_batch_are_refused() {
        let longer = Records::unpack(&batch(&["a", "b", "c"], Codec::None), 1000).expect("it unpacks");
        let mut records = Records::unpack(&batch(&["a", "b"], Codec::None), 1000).expect("it unpacks");
        let before = records.section.clone();
        for output in [longer.section.to_vec(), vec![0xff; 40], before[..before.len() - 1].to_vec()] {
            records.take(output, 1).expect_err("it can't be stored");
            assert_eq!(records.section, before, "the records stay as they were");
        }
    }

    #[test]
    fn records_that_unpack_to_more_than_the_limit_are_refused() {
        let zeros = "0".repeat(100_000);
        let error = Records::unpack(&batch(&[&zeros], Codec::Zstd), 50_000).expect_err("it is a small bomb");
        assert_eq!(error.code(), millpond_protocol::error::ErrorCode::BatchTooLarge);
    }
}
