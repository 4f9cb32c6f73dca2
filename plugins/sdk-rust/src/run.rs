//! What an author writes, and how it is called for each record of a batch.

use std::cell::RefCell;

use crate::bindings::{Batch, Failure, WireParams};
use crate::log;
use crate::output::{Finished, Output};
use crate::params::Params;
use crate::record::{Record, Section};

/// Changes records before they are stored. Exported with [`crate::transform!`].
pub trait Transform: Sized {
    /// Called once for each instance, with the settings that the module was attached with.
    ///
    /// # Errors
    ///
    /// The text refuses the attachment and is shown to whoever asked for it.
    fn new(params: &Params) -> Result<Self, String>;

    /// Called before the records of each batch.
    fn begin(&mut self, _batch: &Batch) {}

    /// Called for each record, in order: [keep](Output::keep) it, [emit](Output::emit) something else, or do nothing to drop it.
    ///
    /// # Errors
    ///
    /// The batch fails at this record, and the text is shown to whoever sent it.
    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String>;
}

/// Chooses the partition of each record. Exported with [`crate::partitioner!`].
pub trait Partition: Sized {
    /// Called once for each instance, with the settings that the module was attached with.
    ///
    /// # Errors
    ///
    /// The text refuses the attachment and is shown to whoever asked for it.
    fn new(params: &Params) -> Result<Self, String>;

    /// Called before the records of each batch.
    fn begin(&mut self, _batch: &Batch) {}

    /// The partition of a record, less than `partition_count`, which is never 0.
    fn partition(&mut self, record: &Record<'_>, partition_count: u32) -> u32;
}

/// Calls a transform for the records of one batch.
pub fn transform<T: Transform>(guest: &mut T, batch: &Batch, mut section: Vec<u8>) -> Result<Vec<u8>, Failure> {
    guest.begin(batch);
    let mut out = Output::new(&section);
    for (index, record) in (0..).zip(Section::new(&section, batch.base_timestamp)) {
        let record = record.map_err(|_| malformed(index))?;
        guest.transform(&record, &mut out).map_err(|message| Failure { message, record_index: Some(index) })?;
    }
    Ok(match out.finish() {
        Finished::Bytes(bytes) => bytes,
        Finished::Run(run) => {
            section.truncate(run.end);
            section.drain(..run.start);
            section
        }
    })
}

/// Calls a partitioner for the records of one batch.
pub fn partition<P: Partition>(guest: &mut P, batch: &Batch, section: &[u8], partition_count: u32) -> Result<Vec<u32>, Failure> {
    guest.begin(batch);
    let mut partitions = Vec::with_capacity((batch.record_count as usize).min(section.len()));
    for (index, record) in (0..).zip(Section::new(section, batch.base_timestamp)) {
        let record = record.map_err(|_| malformed(index))?;
        partitions.push(guest.partition(&record, partition_count));
    }
    Ok(partitions)
}

/// Where the exported functions keep the one guest of an instance.
#[derive(Debug)]
pub struct Slot<T>(RefCell<Option<T>>);

impl<T> Slot<T> {
    /// An empty slot.
    #[expect(clippy::new_without_default, reason = "a static needs a const")]
    pub const fn new() -> Slot<T> {
        Slot(RefCell::new(None))
    }

    /// Makes the guest, and sees to it that its panics are logged.
    pub fn start(&self, params: WireParams, new: impl FnOnce(&Params) -> Result<T, String>) -> Result<(), String> {
        std::panic::set_hook(Box::new(|panic| log::error(&panic.to_string())));
        *self.0.borrow_mut() = Some(new(&Params::new(params))?);
        Ok(())
    }

    /// Calls the guest.
    pub fn call<R>(&self, call: impl FnOnce(&mut T) -> Result<R, Failure>) -> Result<R, Failure> {
        match &mut *self.0.borrow_mut() {
            Some(guest) => call(guest),
            None => Err(Failure { message: "`init` was not called".to_owned(), record_index: None }),
        }
    }
}

#[cold]
pub(crate) fn malformed(index: u32) -> Failure {
    Failure { message: format!("the bytes at record {index} are not a record"), record_index: None }
}
