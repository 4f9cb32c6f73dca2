//! An attached partitioner.

use std::time::Duration;

use crate::BatchInfo;
use crate::contract::{self, World};
use crate::error::PluginError;
use crate::host::{self, Module, PluginHost};
use crate::limits::Limits;
use crate::pool::Pool;

/// A partitioner with its limits and settings. Calls may come from many threads; each gets an instance of its own.
#[derive(Debug)]
pub struct Partitioner(Pool<contract::Partition>);

impl Partitioner {
    /// Starts one instance, with these settings.
    ///
    /// # Errors
    ///
    /// [`PluginError::WrongWorld`] for a transform, [`PluginError::Settings`] for limits or settings that are out of range, and all that a
    /// guest can do wrong while it starts, [`PluginError::Init`] first of all.
    pub fn new(host: &PluginHost, module: &Module, limits: Limits, params: &[(String, String)]) -> Result<Partitioner, PluginError> {
        host::expect_world(module, World::Partitioner)?;
        let pool = Pool::new(host, module, limits, params, |instance, store| instance.get_typed_func(store, "partition"))?;
        Ok(Partitioner(pool))
    }

    /// Asks for the partition of each record of one batch, an uncompressed records section. The answer has one partition for each of
    /// [`BatchInfo::record_count`] records, each less than `partition_count`.
    ///
    /// # Errors
    ///
    /// [`PluginError::Guest`] if the guest refused the batch, [`PluginError::OutputInvalid`] for an answer of another length or with a
    /// partition that doesn't exist; else whatever limit it broke. The next call gets a fresh instance then.
    pub fn run(&self, batch: &BatchInfo<'_>, section: &[u8], partition_count: u32) -> Result<Vec<u32>, PluginError> {
        let (result,) =
            self.0.call(batch, self.0.limits().time, |store, partition| partition.call(store, (batch.into(), section, partition_count)))?;
        let partitions = result.map_err(|failure| failure.into_error(batch))?;
        if partitions.len() != batch.record_count as usize {
            let reason = format!("it placed {} records of {}", partitions.len(), batch.record_count);
            return Err(PluginError::OutputInvalid { reason });
        }
        if let Some(record) = partitions.iter().position(|partition| *partition >= partition_count) {
            let reason = format!("it placed record {record} in partition {} of {partition_count}", partitions[record]);
            return Err(PluginError::OutputInvalid { reason });
        }
        Ok(partitions)
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
