//! Modules that make records of other topics: what an author writes, and how it is called for each record of a batch.

use crate::bindings::{Failure, SourceBatch, Target};
use crate::params::Params;
use crate::record::{Change, Record, Section};
use crate::run::malformed;

/// Makes records of other topics from those of one. Exported with [`crate::derive!`].
pub trait Derive: Sized {
    /// Called once for each instance, with the settings that the module was attached with, and the topics in the order in which they were
    /// named.
    ///
    /// # Errors
    ///
    /// The text refuses the attachment and is shown to whoever asked for it.
    fn new(params: &Params, targets: &[Target]) -> Result<Self, String>;

    /// Called before the records of each batch.
    fn begin(&mut self, _batch: &SourceBatch) {}

    /// Called for each record, in order: write any number of records to any of the topics.
    ///
    /// # Errors
    ///
    /// The batch fails at this record; what becomes of it then was said when the module was attached (`--on-error`).
    fn derive(&mut self, record: &Record<'_>, out: &mut Outputs) -> Result<(), String>;
}

/// Takes the records for the topics. The broker chooses the partition by the key.
#[derive(Debug)]
pub struct Outputs {
    sections: Vec<Vec<u8>>,
}

impl Outputs {
    /// Writes the record as it is to a topic, counted from 0 in the order in which they were named.
    ///
    /// # Panics
    ///
    /// If there is no such topic.
    pub fn keep(&mut self, target: usize, record: &Record<'_>) {
        self.emit(target, &record.change());
    }

    /// Writes a changed record to a topic.
    ///
    /// # Panics
    ///
    /// If there is no such topic.
    pub fn emit(&mut self, target: usize, change: &Change<'_>) {
        let targets = self.sections.len();
        let section = self.sections.get_mut(target).unwrap_or_else(|| panic!("there is no target {target}: {targets} were named"));
        change.encode(section);
    }
}

/// Calls a module for the records of one batch.
pub fn derive<D: Derive>(guest: &mut D, targets: usize, batch: &SourceBatch, section: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, Failure> {
    guest.begin(batch);
    let mut out = Outputs { sections: vec![Vec::new(); targets] };
    for (index, record) in (0..).zip(Section::new(section, batch.base_timestamp)) {
        let record = record.map_err(|_| malformed(index))?;
        guest.derive(&record, &mut out).map_err(|message| Failure { message, record_index: Some(index) })?;
    }
    Ok((0..).zip(out.sections).filter(|(_, section)| !section.is_empty()).collect())
}
