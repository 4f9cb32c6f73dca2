//! Which records of a batch a module fails on, so that the others go on. Pure: the module is a function.
//!
//! ```text
//!   a b c d e f g h          it traps: nobody knows on which          the module named d:
//!   a b c d │ e f g h        halves                                   a b c │ d │ e f g h
//!   a b │ c d │ e f g h      and so on, until one record is left       once more without it
//!   a b   c   d*  e f g h    d has failed, and all others went through
//! ```
//!
//! The parts run in order, each as a batch of its own, so what comes out is in order too. A module that keeps something from one record of
//! a batch to the next one sees the parts, as it would see several batches.
//!
//! One bad record of a thousand takes some twenty runs over twice the batch. What that may cost is the caller's to say; when it is used up,
//! the records that are left have failed with the last error.

use crate::error::EngineError;
use millpond_plugin::PluginError;
use millpond_protocol::record;
use std::ops::Range;

/// A batch with the records on which the module fails taken out.
#[derive(Debug)]
pub(crate) struct Isolated {
    /// What it returned for the others.
    pub(crate) output: Vec<u8>,
    pub(crate) failed: Vec<Failed>,
    /// Records that went through.
    pub(crate) passed: usize,
}

/// A record that a module failed on.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    /// As the module was given it, encoded as in its section.
    pub(crate) encoded: Vec<u8>,
    pub(crate) error: EngineError,
}

/// Finds them. The module has failed on the whole section with `first` already. `run` gives it a part, with the number of its records;
/// `may_run` is asked before.
pub(crate) fn isolate(
    section: &[u8],
    first: EngineError,
    mut may_run: impl FnMut() -> bool,
    mut run: impl FnMut(&[u8], usize) -> Result<Vec<u8>, EngineError>,
) -> Isolated {
    let mut ends = vec![0];
    // The section is well formed: it was checked when the batch came, or when the module before returned it.
    for record in record::iterate(section).map_while(Result::ok) {
        ends.push(ends.last().copied().unwrap_or(0) + record.encoded.len());
    }
    let part = |range: &Range<usize>| &section[ends[range.start]..ends[range.end]];
    let mut isolated = Isolated { output: Vec::with_capacity(section.len()), failed: Vec::new(), passed: 0 };
    // What is left to do, the next one last; with the error of those that have failed as a whole.
    let mut left = vec![(0..ends.len() - 1, Some(first.clone()))];
    let mut last_error = first;
    let mut is_over = false;
    while let Some((range, error)) = left.pop() {
        let error = match error {
            Some(error) => error,
            None if is_over || !may_run() => {
                is_over = true;
                for record in range {
                    isolated.failed.push(Failed { encoded: part(&(record..record + 1)).to_vec(), error: last_error.clone() });
                }
                continue;
            }
            None => match run(part(&range), range.len()) {
                Ok(output) => {
                    isolated.output.extend_from_slice(&output);
                    isolated.passed += range.len();
                    continue;
                }
                Err(error) => error,
            },
        };
        last_error = error.clone();
        if range.len() == 1 {
            isolated.failed.push(Failed { encoded: part(&range).to_vec(), error });
        } else {
            split(range, error, &mut left);
        }
    }
    isolated
}

/// Puts the parts of a range that has failed on the stack.
fn split(range: Range<usize>, error: EngineError, left: &mut Vec<(Range<usize>, Option<EngineError>)>) {
    if let Some(index) = named(&error).filter(|index| *index < range.len()) {
        let at = range.start + index;
        let parts = [(at + 1..range.end, None), (at..at + 1, Some(error)), (range.start..at, None)];
        left.extend(parts.into_iter().filter(|(range, _)| !range.is_empty()));
    } else {
        let middle = range.start + range.len() / 2;
        left.push((middle..range.end, None));
        left.push((range.start..middle, None));
    }
}

/// The record that the module says is at fault.
fn named(error: &EngineError) -> Option<usize> {
    match error {
        EngineError::Guest { source, .. } => match &**source {
            PluginError::Guest { record_index, .. } => record_index.map(|index| index as usize),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::{batch::BatchBuilder, compression::Codec, record::NewRecord};
    use std::sync::Arc;

    fn section(values: &[u8]) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        for value in values {
            builder.push(&NewRecord { value: Some(&[*value]), ..NewRecord::default() }).expect("it fits");
        }
        let bytes = builder.finish(Codec::None).expect("it has records");
        bytes[millpond_protocol::batch::HEADER_BYTES..].to_vec()
    }

    fn values(section: &[u8]) -> Vec<u8> {
        record::iterate(section).map(|record| record.expect("well formed").value.expect("a value")[0]).collect()
    }

    fn error(record_index: Option<u32>) -> EngineError {
        let source = PluginError::Guest { message: "bad".to_owned(), record_index };
        EngineError::Guest { topic: Arc::from("t"), module: Arc::from("m"), source: Arc::new(source) }
    }

    /// Fails on records whose value is odd; says on which, or not.
    fn module(names: bool) -> impl Fn(&[u8], usize) -> Result<Vec<u8>, EngineError> {
        move |section, count| {
            let values = values(section);
            assert_eq!(values.len(), count);
            match values.iter().position(|value| value % 2 == 1) {
                Some(index) => Err(error(names.then(|| u32::try_from(index).expect("small")))),
                None => Ok(section.to_vec()),
            }
        }
    }

    #[test]
    fn the_bad_records_are_found_and_the_others_come_out_in_order() {
        let inputs: [&[u8]; 6] = [&[1], &[2, 3], &[1, 2, 4, 6, 8, 10, 12, 13], &[2, 4, 5, 7, 8, 10], &[1, 3, 5], &[0, 0, 0, 0, 0, 9, 0]];
        for input in inputs {
            let whole = section(input);
            for names in [false, true] {
                let mut run = module(names);
                let first = run(&whole, input.len()).expect_err("one is bad");
                let isolated = isolate(&whole, first, || true, &mut run);
                let (bad, good): (Vec<u8>, Vec<u8>) = input.iter().partition(|value| *value % 2 == 1);
                assert_eq!((values(&isolated.output), isolated.passed), (good.clone(), good.len()), "{input:?}");
                let failed: Vec<u8> = isolated.failed.iter().flat_map(|failed| values(&failed.encoded)).collect();
                assert_eq!(failed, bad, "{input:?}");
            }
        }
    }

    #[test]
    fn one_bad_record_of_many_takes_few_runs() {
        let mut input = vec![2; 1000];
        input[617] = 1;
        let whole = section(&input);
        for (names, runs_max) in [(false, 20), (true, 2)] {
            let (run, mut runs, mut records) = (module(names), 0, 0);
            let first = run(&whole, 1000).expect_err("one is bad");
            let isolated = isolate(
                &whole,
                first,
                || true,
                |section, count| {
                    runs += 1;
                    records += count;
                    run(section, count)
                },
            );
            assert_eq!((isolated.failed.len(), isolated.passed), (1, 999));
            assert!(runs <= runs_max && records <= 2000, "{runs} runs, {records} records");
        }
    }

    #[test]
    fn what_may_not_be_tried_any_more_has_failed_and_nothing_is_lost() {
        let whole = section(&[2, 1, 2, 1, 2, 2, 2, 2]);
        for runs_max in 0..8 {
            let mut runs = 0;
            let may_run = || {
                runs += 1;
                runs <= runs_max
            };
            let isolated = isolate(&whole, error(None), may_run, module(false));
            assert_eq!(isolated.failed.len() + isolated.passed, 8, "{runs_max}");
            assert_eq!(values(&isolated.output).len(), isolated.passed);
        }
    }
}
