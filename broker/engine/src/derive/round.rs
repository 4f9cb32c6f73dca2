//! One round: some batches of the source go through the module, and what comes of them is put together as a commit. Blocking, and nothing is
//! written here.
//!
//! A batch has its effect as a whole: its records, or those on which the module does not fail, and what the module has changed in its
//! state. Where it fails, the round ends before it, and what was done before is committed; the next round begins with it. So it is where the module
//! is interrupted, which is no failure of its own, and none of the records'.
//!
//! Nobody can make a batch smaller that is stored. So where there is only too much of it for the module, or looking for the records at fault
//! costs too much for one round, a part of it has its effect, and the next round begins with the record behind that:
//!
//! ```text
//!   position                                    the module has no time for eight, nor for the four behind the first two
//!   v
//!   a b c d e f g h      a b │ c d │ e f g h    the part from c on is the largest one of halves of halves that begins there
//!                              ^ the next round
//! ```
//!
//! One record at least has passed, or failed by itself, in each such round: a record that was not tried is never left out, and only one that is
//! too much alone is a failure.

use super::{
    frame::Commit,
    output::{self, Outputs, Sections},
    store::Store,
};
use crate::{
    dead_letters::{self, Letters, Origin, Tally, Topics},
    error::EngineError,
    topic::Topic,
    transform::{
        Allowance, Attachment, Budget, DeadLetter, Deltas, Difference, Guest, Isolated, Part, Ran, Records, Search, Share, Visit,
        is_of_amount, is_of_records, isolate, output_error, part_from,
    },
};
use bytes::Bytes;
use millpond_plugin::{BatchInfo, PluginError, SourceBatch, StateDraft};
use millpond_protocol::{
    batch::{Batch, BatchHeader},
    message::OnError,
    record,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What a round works with.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
    pub(crate) attachment: Arc<Attachment>,
    /// In the order of the attachment, and behind them the topic for dead letters, if there is one.
    pub(crate) targets: Vec<Arc<Topic>>,
    /// The place of the topic for dead letters among those of outputs.
    pub(crate) letters: Option<u32>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) producer_id: i64,
    /// Bytes of state; 0 is none.
    pub(crate) state_bytes_max: u64,
    pub(crate) section_bytes_max: usize,
    /// How often the module may still be tried on the first batch, before its failure counts.
    pub(crate) retries_left: u32,
}

/// What came of a round.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) commit: Commit,
    /// Why it has ended before the last of its batches.
    pub(crate) failure: Option<EngineError>,
    /// Of the dead letters in the commit.
    pub(crate) tally: Tally,
}

/// Runs the module on batches as they are stored, from the store's position on.
pub(crate) fn run(task: &Task, store: &Store, mut batches: Bytes) -> Result<Round, EngineError> {
    let draft = (task.state_bytes_max > 0).then(|| StateDraft::new(Arc::clone(store.state()), task.state_bytes_max));
    let mut work = Work {
        task,
        draft,
        outputs: Outputs::new(&task.targets, task.partition),
        position: store.position(),
        tally: Tally::default(),
        begun: Instant::now(),
        has_searched: false,
    };
    let mut failure = None;
    while failure.is_none() && !work.is_enough() && !task.attachment.is_interrupted() {
        let Some(batch) = Batch::take_front(&mut batches)? else { break };
        failure = work.take(&batch).err();
    }
    let Work { draft, outputs, position, tally, .. } = work;
    let changes = draft.map(StateDraft::into_changes).unwrap_or_default();
    Ok(Round { commit: Commit { position, changes, outputs: outputs.finish(task.producer_id, store)? }, failure, tally })
}

struct Work<'a> {
    task: &'a Task,
    draft: Option<StateDraft>,
    outputs: Outputs<'a>,
    position: i64,
    tally: Tally,
    begun: Instant,
    /// It has looked for records on which the module fails. Then it ends: what follows has all its retries where it is the first.
    has_searched: bool,
}

impl Work<'_> {
    fn is_enough(&self) -> bool {
        self.has_searched || self.outputs.bytes() >= OUTPUT_BYTES_ENOUGH || self.begun.elapsed() >= TIME_ENOUGH
    }

    /// Sends a batch through the module, or what there is of it from the position on. After an error everything is as it was before the part
    /// that has failed.
    fn take(&mut self, batch: &Batch) -> Result<(), EngineError> {
        let header = *batch.header();
        let end = header.base_offset.saturating_add(i64::from(header.last_offset_delta)).saturating_add(1);
        let records = Records::unpack(batch, self.task.section_bytes_max)?;
        let count = records.count() as usize;
        let (mut index, mut section) = self.behind_position(&header, &records.section)?;
        while index < count {
            let part = part_from(index, count).len();
            // Of a whole batch no record is looked at.
            let bytes = if part == count { section.len() } else { bytes_of(&section, part)? };
            let before = self.draft.as_ref().map(StateDraft::mark);
            let decided = match self.take_records(&header, &section.slice(..bytes), part) {
                Ok(decided) => decided,
                Err(error) => {
                    self.undo_to(before);
                    return Err(error);
                }
            };
            if let Some(draft) = &mut self.draft {
                draft.keep();
            }
            let bytes = if decided == part { bytes } else { bytes_of(&section, decided)? };
            (index, section) = (index + decided, section.slice(bytes..));
            if index < count {
                let next = record::iterate(&section).next().transpose()?.map_or(0, |record| record.offset_delta);
                self.position = self.position.max(header.base_offset.saturating_add(i64::from(next)));
                if self.is_enough() {
                    return Ok(());
                }
            }
        }
        self.position = self.position.max(end);
        Ok(())
    }

    /// The records from the position on, and how many there are before: it may lie within the first batch.
    fn behind_position(&self, header: &BatchHeader, section: &Bytes) -> Result<(usize, Bytes), EngineError> {
        let (mut index, mut before) = (0, 0);
        if let Some(first) = self.position.checked_sub(header.base_offset).filter(|first| *first > 0) {
            for record in record::iterate(section) {
                let record = record?;
                if i64::from(record.offset_delta) >= first {
                    break;
                }
                (index, before) = (index + 1, before + record.encoded.len());
            }
        }
        Ok((index, section.slice(before..)))
    }

    /// Sends records through the module, and says with how many of them it is done: all, or where there are too many, or too many on which it
    /// fails, the first ones, and one at least.
    fn take_records(&mut self, header: &BatchHeader, section: &Bytes, count: usize) -> Result<usize, EngineError> {
        let Task { topic, partition, attachment, retries_left, .. } = self.task;
        let records = u32::try_from(count).unwrap_or(u32::MAX);
        attachment.admit(topic)?;
        let visit = Visit { topic, partition: Some(*partition), records, header, is_stored: true, begun: Instant::now() };
        let before = self.draft.as_ref().map(StateDraft::mark);
        match self.call(header, section, count, Share::WHOLE) {
            Ok((sections, records_out)) => {
                let dropped = u64::from(records).saturating_sub(records_out);
                attachment.passed(&visit, &Difference { records_out, dropped, changed: 0 });
                self.add(header, &sections).map(|()| count)
            }
            Err(error) => {
                self.undo_to(before);
                if attachment.is_interrupted() {
                    return Err(error);
                }
                let is_to_be_borne = matches!(attachment.on_error, OnError::Skip | OnError::DeadLetter(_));
                let is_final = *retries_left == 0 || !may_pass(&error);
                if is_to_be_borne && is_final && is_of_records(&error) {
                    return self.search(Search::Resumed, visit, section, &error);
                }
                if is_of_amount(&error) && count > 1 {
                    return self.search(Search::OfAmount, visit, section, &error);
                }
                attachment.refused(&visit, &error);
                Err(error)
            }
        }
    }

    /// Sends records through the module but those on which it fails, as far as one round goes. Says with how many it is done.
    fn search(&mut self, search: Search, visit: Visit<'_>, section: &Bytes, first: &EngineError) -> Result<usize, EngineError> {
        let (attachment, header, of) = (&self.task.attachment, visit.header, visit.records as usize);
        let (mut kept, mut records_out, mut budget) = (Sections::new(), 0, Budget::of(attachment));
        let mut allowance = Allowance::of(attachment);
        let run = |part: Part<'_>| {
            let before = self.draft.as_ref().map(StateDraft::mark);
            let bytes = |sections: &Sections| sections.iter().map(|(_, section)| section.len()).sum::<usize>();
            let ran = match self.call(header, part.section, part.records, part.share(of)) {
                Ok((sections, out)) => match allowance.take(&self.task.topic, bytes(&sections)) {
                    Ok(()) => {
                        kept.extend(sections);
                        records_out += out;
                        return Ran::Passed(Vec::new());
                    }
                    Err(no_room) => no_room,
                },
                Err(error) => Ran::Failed(error),
            };
            self.undo_to(before);
            ran
        };
        let isolated = isolate(section, first.clone(), search, || !attachment.is_interrupted() && budget.is_left(), run);
        let decided = isolated.decided();
        let Isolated { failed, passed, ended, .. } = isolated;
        if decided == 0 {
            let error = ended.unwrap_or_else(|| first.clone());
            if attachment.is_interrupted() {
                return Err(error);
            }
            attachment.refused(&visit, &error);
            return Err(error);
        }
        let dropped = (passed as u64).saturating_sub(records_out);
        let others = Difference { records_out, dropped, changed: 0 };
        let visit = Visit { records: u32::try_from(decided).unwrap_or(u32::MAX), ..visit };
        attachment.taken_apart(&visit, first, failed.len() as u64, passed, &others);
        self.has_searched = true;
        let letters = if attachment.on_error.dead_letter_topic().is_some() { failed } else { Vec::new() };
        let letters: Vec<_> = letters.into_iter().map(|failed| DeadLetter { attachment: Arc::clone(attachment), failed }).collect();
        // What can't be addressed is an error, and then nothing of this is an output.
        let addressed = self.address(header, &letters)?;
        self.add(header, &kept)?;
        for Letters { partition, batch, .. } in &addressed {
            // Where there are letters, there is a topic for them.
            let Some(place) = self.task.letters else { continue };
            self.outputs.add_batch((place, *partition), batch)?;
        }
        self.tally.add(attachment, letters.len() as u64);
        Ok(decided)
    }

    fn add(&mut self, header: &BatchHeader, sections: &Sections) -> Result<(), EngineError> {
        self.outputs.add(header.base_timestamp, header.attributes.codec()?, sections)
    }

    /// Dead letters are outputs as the others are.
    fn address(&self, header: &BatchHeader, letters: &[DeadLetter]) -> Result<Vec<Letters>, EngineError> {
        let Task { topic, partition, topics, .. } = self.task;
        let origin =
            Origin { topic, partition: Some(*partition), base_offset: Some(header.base_offset), base_timestamp: header.base_timestamp };
        dead_letters::address(topics, origin, letters)
    }

    /// Gives the module records, and checks what it returns. The state may have changed after an error.
    fn call(&mut self, header: &BatchHeader, section: &[u8], records: usize, share: Share) -> Result<(Sections, u64), EngineError> {
        let Task { topic, partition, attachment, targets, .. } = self.task;
        let record_count = u32::try_from(records).unwrap_or(u32::MAX);
        let info = BatchInfo { topic, partition: Some(*partition), base_timestamp: header.base_timestamp, record_count };
        let result = match &attachment.guest {
            Guest::Derive(derive) => {
                let batch = SourceBatch { info, base_offset: header.base_offset };
                derive.run(&batch, section, share.of(derive.limits().time), self.draft.as_mut())
            }
            Guest::Transform(transform) => {
                let output = transform.run_with(&info, section, share.of(transform.limits().time), self.draft.as_mut());
                output.map(|output| vec![(0, output)])
            }
            other => return Err(attachment.unavailable(topic, other)),
        };
        let place = |error: &PluginError| Deltas::Offsets(header.base_offset).place(Some(*partition), section, error);
        let sections = result.map_err(|source| attachment.guest_error(topic, place(&source), source))?;
        let records = output::check(targets, header.base_timestamp, &sections);
        let records = records.map_err(|reason| output_error(attachment, topic, reason))?;
        Ok((sections, records))
    }

    fn undo_to(&mut self, mark: Option<millpond_plugin::StateMark>) {
        if let (Some(draft), Some(mark)) = (&mut self.draft, mark) {
            draft.undo_to(mark);
        }
    }
}

/// What the first records of a section take.
fn bytes_of(section: &[u8], records: usize) -> Result<usize, EngineError> {
    Ok(record::iterate(section).take(records).try_fold(0, |bytes, record| record.map(|record| bytes + record.encoded.len()))?)
}

/// How often the module has failed on what is at a position.
#[derive(Debug, Default)]
pub(super) struct Tries {
    position: i64,
    failures: u32,
}

impl Tries {
    /// How many more it has at this position.
    pub(super) fn left(&mut self, position: i64, retries: u32) -> u32 {
        if self.position != position {
            *self = Tries { position, failures: 0 };
        }
        retries.saturating_sub(self.failures)
    }

    /// It takes one. A pause of the module, or no free instance, takes none: they say nothing of the records.
    pub(super) fn failed(&mut self, error: &EngineError) {
        self.failures += u32::from(is_of_records(error));
    }
}

/// Whether it may work the next time: what a module says in words is its answer.
fn may_pass(error: &EngineError) -> bool {
    !matches!(error, EngineError::Guest { source, .. } if matches!(**source, PluginError::Guest { .. }))
}

/// Whether a failure is one that stops a derived topic, after its retries.
pub(crate) fn stops(attachment: &Attachment, error: &EngineError, retries_left: u32) -> bool {
    let is_borne = matches!(attachment.on_error, OnError::Skip | OnError::DeadLetter(_));
    !is_borne && is_of_records(error) && (retries_left == 0 || !may_pass(error))
}

/// What the batches that a round writes may come to, in bytes, where its module may return so many for one batch. A record may take more in
/// a batch than in what was returned, but not twice as much.
pub(super) const fn outputs_bytes_max(output_bytes: u64) -> u64 {
    OUTPUT_BYTES_ENOUGH as u64 + 2 * output_bytes + dead_letters::BYTES_PER_BATCH_MAX as u64
}

/// A round that has written so many bytes ends.
const OUTPUT_BYTES_ENOUGH: usize = 1 << 20;

/// A round that has taken so long ends, for others wait for the thread.
const TIME_ENOUGH: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailedAt;

    #[test]
    fn only_what_may_be_the_records_takes_one_of_their_tries() {
        let (topic, module): (Arc<str>, Arc<str>) = (Arc::from("t"), Arc::from("m"));
        let guest = |source| EngineError::Guest {
            topic: Arc::clone(&topic),
            module: Arc::clone(&module),
            at: FailedAt::Somewhere,
            source: Arc::new(source),
        };
        let pause = || EngineError::ModulePaused {
            topic: Arc::clone(&topic),
            module: Arc::clone(&module),
            failures: 10,
            seconds: 1,
            reason: String::new(),
        };
        let trap = || guest(PluginError::Trapped { reason: String::new(), backtrace: String::new() });
        let mut tries = Tries::default();
        for (error, left) in [
            (pause(), 3),
            (trap(), 2),
            (guest(PluginError::Busy { limit: 1 }), 2),
            (pause(), 2),
            (EngineError::ShuttingDown, 2),
            (trap(), 1),
            (trap(), 0),
            (trap(), 0),
        ] {
            tries.failed(&error);
            assert_eq!(tries.left(0, 3), left, "{error}");
        }
        assert_eq!((tries.left(1, 3), tries.left(0, 3)), (3, 3), "another place has all of them");
    }
}
