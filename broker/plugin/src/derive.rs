//! An attached module that makes records of other topics from those of one.

use std::time::Duration;

use crate::contract::{self, World};
use crate::error::PluginError;
use crate::host::{Module, PluginHost};
use crate::limits::Limits;
use crate::pool::Pool;
use crate::state::StateDraft;
use crate::{BatchInfo, host};

/// A topic that such a module may write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The topic's name.
    pub name: String,
    /// How many partitions it has.
    pub partition_count: u32,
}

/// A batch that was read from a topic.
#[derive(Clone, Copy, Debug)]
pub struct SourceBatch<'a> {
    /// What every module is told.
    pub info: BatchInfo<'a>,
    /// A record's offset is this plus its offset delta.
    pub base_offset: i64,
}

/// A module of the world `derive` with its limits, its settings and its targets. Calls may come from many threads; each gets an instance
/// of its own.
#[derive(Debug)]
pub struct Derive(Pool<contract::Derive>);

impl Derive {
    /// Starts one instance, with these settings and targets.
    ///
    /// # Errors
    ///
    /// [`PluginError::WrongWorld`] for another kind of module, [`PluginError::Settings`] for limits or settings that are out of range, and
    /// all that a guest can do wrong while it starts, [`PluginError::Init`] first of all.
    pub fn new(
        host: &PluginHost,
        module: &Module,
        limits: Limits,
        params: &[(String, String)],
        targets: &[Target],
    ) -> Result<Derive, PluginError> {
        host::expect_world(module, World::Derive)?;
        let pool = Pool::with_targets(host, module, limits, params, targets, |instance, store| instance.get_typed_func(store, "derive"))?;
        Ok(Derive(pool))
    }

    /// Passes the records of one batch through the guest, for `time` at most: an uncompressed records section in, and out of it the index
    /// of a target with a records section, any number of times, with at most [`Limits::output_bytes`] together. That each target exists
    /// is checked, and not that what comes out are records.
    ///
    /// After an error `state` may hold what the guest has changed until then: it is for the caller to undo.
    ///
    /// # Errors
    ///
    /// [`PluginError::Guest`] if the guest refused the batch; else whatever limit it broke. The next call gets a fresh instance then.
    pub fn run(
        &self,
        batch: &SourceBatch<'_>,
        section: &[u8],
        time: Duration,
        state: Option<&mut StateDraft>,
    ) -> Result<Vec<(u32, Vec<u8>)>, PluginError> {
        let time = time.min(self.0.limits().time);
        let (result,) = self.0.call_with(&batch.info, time, state, |store, derive| derive.call(store, (batch.into(), section)))?;
        let output = result.map_err(|failure| failure.into_error(&batch.info))?;
        let (limit_bytes, targets) = (self.0.limits().output_bytes, self.0.targets().len());
        if output.iter().map(|(_, section)| section.len()).sum::<usize>() > limit_bytes {
            return Err(PluginError::OutputTooLarge { limit_bytes });
        }
        match output.iter().find(|(target, _)| *target as usize >= targets) {
            Some((target, _)) => {
                Err(PluginError::OutputInvalid { reason: format!("it wrote to target {target} of {targets}, counted from 0") })
            }
            None => Ok(output),
        }
    }

    /// What it may use.
    pub fn limits(&self) -> &Limits {
        self.0.limits()
    }

    /// How long the call in progress is that has begun first; none where there is none.
    pub fn busy_for(&self) -> Option<Duration> {
        self.0.busy_for()
    }

    /// The most memory that an instance had after a call, in bytes.
    pub fn memory_bytes_peak(&self) -> usize {
        self.0.memory_bytes_peak()
    }

    /// The module.
    pub fn module(&self) -> &Module {
        self.0.module()
    }
}
