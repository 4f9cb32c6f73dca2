//! The module in its host: started by the rules of a broker, and called for batch after batch.

use super::{
    TestArgs,
    derived::{Derived, SOURCE_PARTITION},
    fate::Passed,
    input::{Numbered, Prepared},
    report::Started,
};
use crate::{
    commands::transform::deploy::read_module,
    failure::{Failure, Outcome},
};
use millpond_engine::check_attachment;
use millpond_plugin::{
    BatchInfo, Derive, KeyValues, Module, NoCache, Partitioner, PluginError, PluginHost, SourceBatch, StateDraft, Transform, World,
};
use millpond_protocol::message::{AttachPoint, AttachTransform, ModuleRef};
use std::{path::Path, sync::Arc, time::Instant};

/// A module that was started, and what it works with.
pub(super) struct Guest {
    module: Running,
    /// Where it derives topics.
    derived: Option<Derived>,
    records_out: i64,
}

enum Running {
    Transform(Transform),
    Partitioner(Partitioner),
    Derive(Derive),
}

/// A batch on which a module failed.
pub(super) struct Failed {
    /// As the end of the test.
    pub(super) failure: Failure,
    /// In a line.
    pub(super) reason: String,
    /// The record at fault, if the module named it.
    pub(super) record: Option<usize>,
}

/// What a module has made of a batch.
enum Returned {
    Records(Vec<u8>),
    /// For each of some topics, with the state.
    Derived(Vec<(u32, Vec<u8>)>, Option<StateDraft>),
    Partitions(Vec<u32>),
}

impl Guest {
    pub(super) fn start(arguments: &TestArgs) -> Outcome<(Guest, Started)> {
        let wasm = read_module(&arguments.file)?;
        let refused = |error: &PluginError| failure(format!("{} can't be used as a module", arguments.file.display()), error);
        let begin = Instant::now();
        let host = PluginHost::new(Arc::new(NoCache)).map_err(|error| refused(&error))?;
        let module: Module = host.load(&wasm).map_err(|error| refused(&error))?.named(&name_of(&arguments.file));
        let compile = begin.elapsed();
        let derived = Derived::new(&arguments.derived, arguments.partitions);
        check(arguments, &module, derived.as_ref())?;
        let (limits, params) = (arguments.limits.plugin_limits(), &arguments.params);
        let begin = Instant::now();
        let running = match module.world() {
            World::Transform => Transform::new(&host, &module, limits, params).map(Running::Transform),
            World::Partitioner => Partitioner::new(&host, &module, limits, params).map(Running::Partitioner),
            World::Derive => {
                let targets = derived.as_ref().map_or(&[][..], Derived::targets);
                Derive::new(&host, &module, limits, params, targets).map(Running::Derive)
            }
        };
        let running = running.map_err(|error| failure(format!("{} can't be started", arguments.file.display()), &error))?;
        let started = Started { world: module.world(), size_bytes: wasm.len() as u64, compile, start: begin.elapsed() };
        Ok((Guest { module: running, derived, records_out: 0 }, started))
    }

    /// Passes one batch through the module.
    pub(super) fn pass(&mut self, arguments: &TestArgs, batch: &[Numbered]) -> Result<Passed, Failed> {
        let prepared = Prepared::new(batch).map_err(|failure| Failed { reason: failure.to_string(), failure, record: None })?;
        let info = BatchInfo {
            topic: &arguments.topic,
            partition: (!matches!(self.module, Running::Partitioner(_))).then_some(SOURCE_PARTITION),
            base_timestamp: prepared.base_timestamp,
            record_count: u32::try_from(batch.len()).unwrap_or(u32::MAX),
        };
        let begin = Instant::now();
        let returned = self.call(&info, &prepared, arguments.partitions);
        let time = begin.elapsed();
        let returned = returned.map_err(|error| failed_on(arguments, batch, &error))?;
        let passed = match (returned, &mut self.derived) {
            (Returned::Derived(sections, draft), Some(derived)) => derived.take(&prepared, &sections, draft),
            (Returned::Derived(..), None) => Err("it is for topics, of which none was named".to_owned()),
            (Returned::Records(section), _) => Passed::transformed(&prepared, &section, self.records_out),
            (Returned::Partitions(partitions), _) => Ok(Passed::placed(&prepared, partitions, self.records_out)),
        };
        let passed = passed.map_err(|reason| {
            let failure = Failure::new(format!("what the module returned for {} would be refused by a broker", lines_of(batch)))
                .cause(reason.clone())
                .hint("build the guest with the SDK for its language, it keeps to the contract");
            Failed { failure, reason: format!("what it returned would be refused by a broker: {reason}"), record: None }
        })?;
        self.records_out += i64::try_from(passed.output.len()).unwrap_or(i64::MAX);
        Ok(Passed { time, memory_bytes_peak: self.memory_bytes_peak() as u64, ..passed })
    }

    /// Passes over records on which the module has failed.
    pub(super) fn leave_out(&mut self, records: &[Numbered]) {
        if let Some(derived) = &mut self.derived {
            derived.pass_over(records.len());
        }
    }

    /// What is kept for the next batch, and how many bytes it may have; none where none may be.
    pub(super) fn state(&self) -> Option<(&KeyValues, u64)> {
        self.derived.as_ref().and_then(Derived::state)
    }

    fn call(&self, info: &BatchInfo<'_>, prepared: &Prepared, partitions: u32) -> Result<Returned, PluginError> {
        let section = &prepared.section;
        let mut draft = self.derived.as_ref().and_then(Derived::draft);
        match (&self.module, &self.derived) {
            (Running::Transform(transform), None) => transform.run(info, section).map(Returned::Records),
            (Running::Transform(transform), Some(_)) => {
                let output = transform.run_with(info, section, transform.limits().time, draft.as_mut())?;
                Ok(Returned::Derived(vec![(0, output)], draft))
            }
            (Running::Derive(derive), derived) => {
                let base_offset = derived.as_ref().map_or(0, Derived::source_offset);
                let source = SourceBatch { info: *info, base_offset };
                let sections = derive.run(&source, section, derive.limits().time, draft.as_mut())?;
                Ok(Returned::Derived(sections, draft))
            }
            (Running::Partitioner(partitioner), _) => partitioner.run(info, section, partitions).map(Returned::Partitions),
        }
    }

    fn memory_bytes_peak(&self) -> usize {
        match &self.module {
            Running::Transform(transform) => transform.memory_bytes_peak(),
            Running::Partitioner(partitioner) => partitioner.memory_bytes_peak(),
            Running::Derive(derive) => derive.memory_bytes_peak(),
        }
    }
}

/// Asks what a broker asks before it attaches the module.
fn check(arguments: &TestArgs, module: &Module, derived: Option<&Derived>) -> Outcome {
    let on = match (derived, module.world()) {
        (Some(_), _) | (None, World::Derive) => AttachPoint::Derive,
        (None, World::Transform) => AttachPoint::Produce,
        (None, World::Partitioner) => AttachPoint::Partition,
    };
    let attach = AttachTransform::new(&*arguments.topic, ModuleRef::current(module.name()), on);
    let request = AttachTransform { derive: derived.map(Derived::request), ..attach };
    check_attachment(module, &request).map_err(|error| {
        let wire = error.to_wire();
        let failure = Failure::usage(format!("a broker would not attach {} so", arguments.file.display())).cause(wire.message);
        match wire.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

fn failed_on(arguments: &TestArgs, batch: &[Numbered], error: &PluginError) -> Failed {
    let record = match error {
        PluginError::Guest { record_index: Some(index), .. } => Some(*index as usize),
        _ => None,
    };
    let at_fault = record.and_then(|index| batch.get(index));
    let place = at_fault.map_or(lines_of(batch), |record| lines_of(std::slice::from_ref(record)));
    let failure = failure(format!("the module failed on {place} of {}", arguments.input.display()), error);
    Failed { failure, reason: error.to_string(), record }
}

/// Where a batch comes from.
fn lines_of(batch: &[Numbered]) -> String {
    match batch {
        [one] => format!("line {}", one.line),
        [first, .., last] => format!("lines {} to {}", first.line, last.line),
        [] => "no line".to_owned(),
    }
}

/// What the host said, as a person reads it here: there is no broker whose log could be looked into.
fn failure(what: String, error: &PluginError) -> Failure {
    let failure = Failure::new(what).cause(error.to_string());
    match (error.backtrace(), error.hint()) {
        (Some(backtrace), _) => {
            failure.cause(backtrace.to_owned()).hint("what the module logged stands above; the innermost function is the first")
        }
        (None, Some(hint)) => failure.hint(hint),
        (None, None) => failure,
    }
}

fn name_of(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
