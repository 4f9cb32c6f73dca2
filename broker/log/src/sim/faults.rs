//! What is to go wrong, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use rustix::io::Errno;

use super::random::Random;

/// A kind of operation, for counting and failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Opening, reading, measuring, listing: what changes nothing.
    Read,
    /// Writing to a file.
    Write,
    /// Cutting or extending a file, also by opening it with [`crate::OpenMode::Replace`].
    SetLen,
    /// Making a file's bytes durable.
    Sync,
    /// Making a folder's names durable.
    SyncDir,
    /// Creating a file or folders.
    Create,
    /// Renaming.
    Rename,
    /// Removing a file or a folder.
    Remove,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device has an error (EIO).
    Device,
    /// The device is full (ENOSPC).
    NoSpace,
    /// The process has too many files open (EMFILE). For what opens a file: creating one, and syncing a folder. Nothing is done then.
    TooManyOpenFiles,
}

impl Fault {
    pub(super) fn error(self) -> io::Error {
        match self {
            Fault::Device => Errno::IO.into(),
            Fault::NoSpace => Errno::NOSPC.into(),
            Fault::TooManyOpenFiles => Errno::MFILE.into(),
        }
    }
}

pub(super) enum Verdict {
    Go,
    Fail(io::Error),
}

/// The faults that are set, and the counts.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Operations that are to fail, each with how many of its kind come before it.
    planned: Vec<(Operation, u64, Fault)>,
    pub(super) capacity: Option<u64>,
    pub(super) names_max: Option<u64>,
    pub(super) short_writes: Option<Random>,
    pub(super) changes_left: Option<u64>,
    /// Whether the power is off.
    cut: bool,
    counts: BTreeMap<Operation, u64>,
    /// The kinds of which the last one was made to fail.
    just_failed: BTreeSet<Operation>,
}

impl Faults {
    pub(super) fn fail(&mut self, operation: Operation, nth: u64, fault: Fault) {
        self.planned.push((operation, nth.saturating_sub(1), fault));
    }

    pub(super) fn forget_planned(&mut self, operation: Operation) {
        self.planned.retain(|(planned, ..)| *planned != operation);
    }

    pub(super) fn has_just_failed(&self, operation: Operation) -> bool {
        self.just_failed.contains(&operation)
    }

    /// After a crash nothing is set any more.
    pub(super) fn forget(&mut self) {
        *self = Faults { counts: std::mem::take(&mut self.counts), ..Faults::default() };
    }

    pub(super) fn count(&self, operation: Operation) -> u64 {
        self.counts.get(&operation).copied().unwrap_or(0)
    }

    /// Whether the power is on.
    pub(super) fn powered(&self) -> bool {
        !self.cut
    }

    /// Counts an operation, and says whether it works.
    pub(super) fn judge(&mut self, operation: Operation) -> Verdict {
        *self.counts.entry(operation).or_default() += 1;
        if operation != Operation::Read {
            self.cut |= self.changes_left == Some(0);
            self.changes_left = self.changes_left.map(|left| left.saturating_sub(1));
        }
        if self.cut {
            return Verdict::Fail(io::Error::other("the power is cut"));
        }
        let mut verdict = Verdict::Go;
        self.planned.retain_mut(|(planned, before, fault)| {
            if *planned != operation {
                return true;
            }
            if *before == 0 {
                verdict = Verdict::Fail(fault.error());
                return false;
            }
            *before -= 1;
            true
        });
        match verdict {
            Verdict::Go => self.just_failed.remove(&operation),
            Verdict::Fail(_) => self.just_failed.insert(operation),
        };
        verdict
    }

    /// How many of these bytes a write writes.
    pub(super) fn shorten(&mut self, bytes: usize) -> usize {
        let Some(random) = &mut self.short_writes else { return bytes };
        if bytes < 2 || !random.percent(SHORT_WRITES_PERCENT) {
            return bytes;
        }
        1 + usize::try_from(random.below(bytes as u64 - 1)).unwrap_or(0)
    }
}

/// How many of the writes come back short where that is asked for.
const SHORT_WRITES_PERCENT: u64 = 60;
