//! One round: some batches of the source go through the module, and what comes of them is put together as a commit. Blocking, and nothing is
//! written here.
//!
//! A batch has its effect as a whole: its records, or those on which the module does not fail, and what the module has changed in its
//! state. Where it fails, the round ends before it, and what was done before is committed; the next round begins with it. So it is where the module
//! is interrupted, which is no failure of its own, and none of the records'.

use super::{
    frame::Commit,
    output::{self, Outputs, Sections},
    store::Store,
};
use crate::{
    dead_letters::{self, Letters, Origin, Topics},
    error::EngineError,
    topic::Topic,
    transform::{
        Allowance, Attachment, Budget, DeadLetter, Difference, Guest, Records, Share, Visit, is_of_records, isolate, output_error,
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
}

/// Runs the module on batches as they are stored, from the store's position on.
pub(crate) fn run(task: &Task, store: &Store, mut batches: Bytes) -> Result<Round, EngineError> {
    let draft = (task.state_bytes_max > 0).then(|| StateDraft::new(Arc::clone(store.state()), task.state_bytes_max));
    let mut work =
        Work { task, draft, outputs: Outputs::new(&task.targets, task.partition), position: store.position(), retries: task.retries_left };
    let (begun, mut failure) = (Instant::now(), None);
    while !task.attachment.is_interrupted()
        && let Some(batch) = Batch::take_front(&mut batches)?
    {
        if let Err(error) = work.take(&batch) {
            failure = Some(error);
            break;
        }
        if work.outputs.bytes() >= OUTPUT_BYTES_ENOUGH || begun.elapsed() >= TIME_ENOUGH {
            break;
        }
    }
    let Work { draft, outputs, position, .. } = work;
    let changes = draft.map(StateDraft::into_changes).unwrap_or_default();
    Ok(Round { commit: Commit { position, changes, outputs: outputs.finish(task.producer_id, store)? }, failure })
}

struct Work<'a> {
    task: &'a Task,
    draft: Option<StateDraft>,
    outputs: Outputs<'a>,
    position: i64,
    retries: u32,
}

impl Work<'_> {
    /// Sends a batch through the module. After an error everything is as it was before.
    fn take(&mut self, batch: &Batch) -> Result<(), EngineError> {
        let header = *batch.header();
        let end = header.base_offset.saturating_add(i64::from(header.last_offset_delta)).saturating_add(1);
        let records = Records::unpack(batch, self.task.section_bytes_max)?;
        let section = self.behind_position(&header, records.section)?;
        if !section.is_empty() {
            let before = self.draft.as_ref().map(StateDraft::mark);
            if let Err(error) = self.take_records(&header, &section) {
                self.undo_to(before);
                return Err(error);
            }
            if let Some(draft) = &mut self.draft {
                draft.keep();
            }
        }
        self.position = self.position.max(end);
        // The others come when it is their turn to be the first.
        self.retries = 0;
        Ok(())
    }

    /// The records from the position on: it may lie within the first batch.
    fn behind_position(&self, header: &BatchHeader, section: Bytes) -> Result<Bytes, EngineError> {
        let Some(first) = self.position.checked_sub(header.base_offset).filter(|first| *first > 0) else { return Ok(section) };
        let mut before = 0;
        for record in record::iterate(&section) {
            let record = record?;
            if i64::from(record.offset_delta) >= first {
                break;
            }
            before += record.encoded.len();
        }
        Ok(section.slice(before..))
    }

    fn take_records(&mut self, header: &BatchHeader, section: &Bytes) -> Result<(), EngineError> {
        let Task { topic, partition, attachment, .. } = self.task;
        let count = record::iterate(section).count();
        let record_count = u32::try_from(count).unwrap_or(u32::MAX);
        attachment.admit(topic)?;
        let (partition, begun) = (Some(*partition), Instant::now());
        let visit = Visit { topic, partition, records: record_count, header, is_stored: true, begun };
        let before = self.draft.as_ref().map(StateDraft::mark);
        match self.call(header, section, Share { records: count, of: count }) {
            Ok((sections, records_out)) => {
                let dropped = u64::from(record_count).saturating_sub(records_out);
                attachment.passed(&visit, &Difference { records_out, dropped, changed: 0 });
                self.add(header, &sections)
            }
            Err(error) => {
                self.undo_to(before);
                if attachment.is_interrupted() {
                    return Err(error);
                }
                let is_to_be_borne = matches!(attachment.on_error, OnError::Skip | OnError::DeadLetter(_));
                let is_final = self.retries == 0 || !may_pass(&error);
                if is_to_be_borne && is_final && is_of_records(&error) {
                    return self.take_without_failed(&visit, section, &error);
                }
                attachment.refused(&visit, &error);
                Err(error)
            }
        }
    }

    /// Sends all records through the module but those on which it fails.
    fn take_without_failed(&mut self, visit: &Visit<'_>, section: &Bytes, first: &EngineError) -> Result<(), EngineError> {
        let (attachment, header, of) = (&self.task.attachment, visit.header, visit.records as usize);
        let (mut kept, mut records_out, mut budget) = (Sections::new(), 0, Budget::of(attachment));
        let mut allowance = Allowance::of(attachment);
        let run = |part: &[u8], records: usize| {
            let before = self.draft.as_ref().map(StateDraft::mark);
            let called = self.call(header, part, Share { records, of });
            let bytes = |sections: &Sections| sections.iter().map(|(_, section)| section.len()).sum::<usize>();
            let called = called.and_then(|(sections, out)| allowance.take(&self.task.topic, bytes(&sections)).map(|()| (sections, out)));
            match called {
                Ok((sections, out)) => {
                    kept.extend(sections);
                    records_out += out;
                    Ok(Vec::new())
                }
                Err(error) => {
                    self.undo_to(before);
                    Err(error)
                }
            }
        };
        let isolated = isolate(section, first.clone(), || !attachment.is_interrupted() && budget.is_left(), run);
        if attachment.is_interrupted() {
            // Parts of it were not tried.
            return Err(first.clone());
        }
        let dropped = (isolated.passed as u64).saturating_sub(records_out);
        let others = Difference { records_out, dropped, changed: 0 };
        attachment.taken_apart(visit, first, isolated.failed.len() as u64, isolated.passed, &others);
        self.add(header, &kept)?;
        if attachment.on_error.dead_letter_topic().is_some() {
            let letters = isolated.failed.into_iter().map(|failed| DeadLetter { attachment: Arc::clone(attachment), failed });
            self.post(header, &letters.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn add(&mut self, header: &BatchHeader, sections: &Sections) -> Result<(), EngineError> {
        self.outputs.add(header.base_timestamp, header.attributes.codec()?, sections)
    }

    /// Dead letters are outputs as the others are.
    fn post(&mut self, header: &BatchHeader, letters: &[DeadLetter]) -> Result<(), EngineError> {
        let Task { topic, partition, targets, topics, .. } = self.task;
        let target = u32::try_from(targets.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let origin =
            Origin { topic, partition: Some(*partition), base_offset: Some(header.base_offset), base_timestamp: header.base_timestamp };
        for Letters { partition, batch, .. } in dead_letters::address(topics, origin, letters)? {
            self.outputs.add_batch((target, partition), &batch)?;
        }
        Ok(())
    }

    /// Gives the module records, and checks what it returns. The state may have changed after an error.
    fn call(&mut self, header: &BatchHeader, section: &[u8], share: Share) -> Result<(Sections, u64), EngineError> {
        let Task { topic, partition, attachment, targets, .. } = self.task;
        let record_count = u32::try_from(share.records).unwrap_or(u32::MAX);
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
        let sections = result.map_err(|source| attachment.guest_error(topic, source))?;
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
