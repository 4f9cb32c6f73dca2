//! An attached transform.

use std::time::Duration;

use crate::contract::{self, World};
use crate::error::PluginError;
use crate::host::{Module, PluginHost};
use crate::limits::Limits;
use crate::pool::Pool;
use crate::state::StateDraft;
use crate::{BatchInfo, host};

/// A transform with its limits and settings. Calls may come from many threads; each gets an instance of its own.
#[derive(Debug)]
pub struct Transform(Pool<contract::Transform>);

impl Transform {
    /// Starts one instance, with these settings.
    ///
    /// # Errors
    ///
    /// [`PluginError::WrongWorld`] for a partitioner, [`PluginError::Settings`] for limits or settings that are out of range, and all that
    /// a guest can do wrong while it starts, [`PluginError::Init`] first of all.
    pub fn new(host: &PluginHost, module: &Module, limits: Limits, params: &[(String, String)]) -> Result<Transform, PluginError> {
        host::expect_world(module, World::Transform)?;
        let pool = Pool::new(host, module, limits, params, |instance, store| instance.get_typed_func(store, "transform"))?;
        Ok(Transform(pool))
    }

    /// Passes the records of one batch through the guest: an uncompressed records section in, and one out of at most
    /// [`Limits::output_bytes`]. What comes out is not checked to be records.
    ///
    /// # Errors
    ///
    /// [`PluginError::Guest`] if the guest refused the batch; else whatever limit it broke. The next call gets a fresh instance then.
    pub fn run(&self, batch: &BatchInfo<'_>, section: &[u8]) -> Result<Vec<u8>, PluginError> {
        self.run_within(batch, section, self.0.limits().time)
    }

    /// As [`Transform::run`], with less processor time than [`Limits::time`]: for a part of a batch.
    ///
    /// # Errors
    ///
    /// Those of [`Transform::run`].
    pub fn run_within(&self, batch: &BatchInfo<'_>, section: &[u8], time: Duration) -> Result<Vec<u8>, PluginError> {
        self.run_with(batch, section, time, None)
    }

    /// As [`Transform::run_within`], for a module that keeps state. After an error `state` may hold what the guest has changed until then:
    /// it is for the caller to undo.
    ///
    /// # Errors
    ///
    /// Those of [`Transform::run`].
    pub fn run_with(
        &self,
        batch: &BatchInfo<'_>,
        section: &[u8],
        time: Duration,
        state: Option<&mut StateDraft>,
    ) -> Result<Vec<u8>, PluginError> {
        let time = time.min(self.0.limits().time);
        let (result,) = self.0.call_with(batch, time, state, |store, transform| transform.call(store, (batch.into(), section)))?;
        let output = result.map_err(|failure| failure.into_error(batch))?;
        let limit_bytes = self.0.limits().output_bytes;
        if output.len() > limit_bytes {
            return Err(PluginError::OutputTooLarge { limit_bytes });
        }
        Ok(output)
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
