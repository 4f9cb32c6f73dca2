//! What a transform returns: kept records are copied as they lie, many at once.

use std::ops::Range;

use crate::record::{Change, Record};

/// Takes the records to be stored. A record that is neither kept nor emitted is dropped, and its offset stays unused.
#[derive(Debug)]
pub struct Output<'a> {
    section: &'a [u8],
    /// A run of kept records that is not copied yet.
    run: Range<usize>,
    bytes: Vec<u8>,
}

/// How the output of a whole batch came out.
pub(crate) enum Finished {
    /// A stretch of the input, and nothing is copied.
    Run(Range<usize>),
    /// New bytes.
    Bytes(Vec<u8>),
}

impl<'a> Output<'a> {
    pub(crate) fn new(section: &'a [u8]) -> Output<'a> {
        Output { section, run: 0..0, bytes: Vec::new() }
    }

    /// Stores the record as it came. This is the fast way: neighbours are copied together, and a batch that is kept as a
    /// whole is not copied at all.
    pub fn keep(&mut self, record: &Record<'_>) {
        let span = record.span();
        if span.start != self.run.end {
            self.end_run();
            self.run.start = span.start;
        }
        self.run.end = span.end;
    }

    /// Stores the record with another value, or as it came if there is none.
    pub fn keep_with(&mut self, record: &Record<'_>, value: Option<&[u8]>) {
        match value {
            Some(value) => self.emit(&record.with_value(value)),
            None => self.keep(record),
        }
    }

    /// Stores a changed record. Several may be made of one: then the broker numbers the records of the batch anew.
    pub fn emit(&mut self, change: &Change<'_>) {
        self.end_run();
        change.encode(&mut self.bytes);
    }

    pub(crate) fn finish(mut self) -> Finished {
        if self.bytes.is_empty() {
            return Finished::Run(self.run);
        }
        self.end_run();
        Finished::Bytes(self.bytes)
    }

    fn end_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        if run.is_empty() {
            return;
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(self.section.len());
        }
        self.bytes.extend_from_slice(&self.section[run]);
    }
}
