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
//! A part may be too much for the module: it takes too long, too much memory, or returns too much ([`is_of_amount`]). Its parts are eighths,
//! which come to a size that it can bear, and to one record that it can't, in a third of the steps; and each has all the time that a whole
//! batch has, where other parts have their share of it. No record has failed for being too much before it has had all the time alone.
//!
//! One bad record of a thousand takes some twenty runs over twice the batch. What that may cost is the caller's to say. When it is used up
//! the search ends, and says with which error and before which record: the records behind that have neither passed nor failed. It is for
//! the caller to go on there another time, or to refuse the batch.

use super::{
    attachment::Share,
    breaker::{is_of_amount, is_of_records},
};
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
    /// Why the search has ended before the last record: the last error before that.
    pub(crate) ended: Option<EngineError>,
}

impl Isolated {
    /// Records that have passed or failed: the first ones.
    pub(crate) fn decided(&self) -> usize {
        self.passed + self.failed.len()
    }
}

/// A record that a module failed on.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    /// As the module was given it, encoded as in its section.
    pub(crate) encoded: Vec<u8>,
    pub(crate) error: EngineError,
}

/// How records are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// Once: where it ends early, all of it was in vain.
    Once,
    /// It goes on another time where it ends, and so decides about one record at least, whatever that costs.
    Resumed,
    /// The same, and it ends at a failure that is not one of the amount: no record is to be left out.
    OfAmount,
}

/// What a part has come to.
#[derive(Debug)]
pub(crate) enum Ran {
    Passed(Vec<u8>),
    Failed(EngineError),
    /// It went through, but there is no room for what it returned beside what parts before it did.
    NoRoom(EngineError),
}

/// A part that is given to the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) section: &'a [u8],
    pub(crate) records: usize,
    /// It has the time of a whole batch, rather than its share of that.
    pub(crate) has_full_time: bool,
}

impl Part<'_> {
    /// Of the time that the module has for a batch of so many records.
    pub(crate) fn share(&self, of: usize) -> Share {
        if self.has_full_time { Share::WHOLE } else { Share { records: self.records, of } }
    }
}

/// What is left to do.
#[derive(Debug)]
struct Todo {
    range: Range<usize>,
    /// Of a part that has failed as a whole.
    error: Option<EngineError>,
    has_full_time: bool,
}

/// Finds them. The module has failed on the whole section with `first` already, with all the time. `run` gives it a part; `may_run` is asked
/// before.
pub(crate) fn isolate(
    section: &[u8],
    first: EngineError,
    search: Search,
    mut may_run: impl FnMut() -> bool,
    mut run: impl FnMut(Part<'_>) -> Ran,
) -> Isolated {
    let ends = ends(section);
    let part = |range: &Range<usize>| &section[ends[range.start]..ends[range.end]];
    let mut isolated = Isolated { output: Vec::with_capacity(section.len()), failed: Vec::new(), passed: 0, ended: None };
    let mut last_error = first.clone();
    // The next one last.
    let mut left = vec![Todo { range: 0..ends.len() - 1, error: Some(first), has_full_time: true }];
    while let Some(Todo { mut range, error, has_full_time }) = left.pop() {
        let error = if let Some(error) = error {
            error
        } else {
            if !may_run() {
                if search == Search::Once || isolated.decided() > 0 {
                    isolated.ended = Some(last_error);
                    break;
                }
                if range.len() > 1 {
                    left.push(Todo { range: range.start + 1..range.end, error: None, has_full_time });
                    range.end = range.start + 1;
                }
            }
            match run(Part { section: part(&range), records: range.len(), has_full_time }) {
                Ran::Passed(output) => {
                    isolated.output.extend_from_slice(&output);
                    isolated.passed += range.len();
                    continue;
                }
                Ran::Failed(error) if is_of_records(&error) => error,
                // Neither says anything of these records.
                Ran::Failed(error) | Ran::NoRoom(error) => {
                    isolated.ended = Some(error);
                    break;
                }
            }
        };
        last_error = error.clone();
        if is_of_amount(&error) && (range.len() > 1 || !has_full_time) {
            left.extend(eighths(range).into_iter().rev().map(|range| Todo { range, error: None, has_full_time: true }));
        } else if search == Search::OfAmount {
            isolated.ended = Some(error);
            break;
        } else if range.len() == 1 {
            isolated.failed.push(Failed { encoded: part(&range).to_vec(), error });
        } else {
            split(range, error, has_full_time, &mut left);
        }
    }
    isolated
}

/// Where each record ends, behind the 0 of where the first one begins.
fn ends(section: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    // The section is well formed: it was checked when the batch came, or when the module before returned it.
    for record in record::iterate(section).map_while(Result::ok) {
        ends.push(ends.last().copied().unwrap_or(0) + record.encoded.len());
    }
    ends
}

/// Puts the parts of a range that has failed on the stack.
fn split(range: Range<usize>, error: EngineError, has_full_time: bool, left: &mut Vec<Todo>) {
    let todo = |range, error| Todo { range, error, has_full_time };
    if let Some(index) = named(&error).filter(|index| *index < range.len()) {
        let at = range.start + index;
        let parts = [todo(at + 1..range.end, None), todo(at..at + 1, Some(error)), todo(range.start..at, None)];
        left.extend(parts.into_iter().filter(|part| !part.range.is_empty()));
    } else {
        let [first, second] = halves(range);
        left.extend([todo(second, None), todo(first, None)]);
    }
}

fn halves(range: Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start + range.len() / 2;
    [range.start..middle, middle..range.end]
}

/// The halves of the halves of the halves, in order; fewer of fewer than eight records.
fn eighths(range: Range<usize>) -> Vec<Range<usize>> {
    let mut parts = vec![range];
    for _ in 0..3 {
        parts = parts.into_iter().flat_map(halves).filter(|part| !part.is_empty()).collect();
    }
    parts
}

/// The part to begin with where a search of a batch of so many records goes on with this one: the largest one of halves of halves that begins
/// there. So parts are about as large where a search goes on as where it has ended, and nobody has to remember how large those were.
pub(crate) fn part_from(index: usize, records: usize) -> Range<usize> {
    let mut range = 0..records;
    while range.start < index && range.len() > 1 {
        let [first, second] = halves(range);
        range = if index < second.start { first } else { second };
    }
    range
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
    use crate::error::FailedAt;
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
        guest(PluginError::Guest { message: "bad".to_owned(), record_index })
    }

    fn timed_out() -> EngineError {
        guest(PluginError::TimedOut { limit: std::time::Duration::from_millis(1), backtrace: String::new() })
    }

    fn guest(source: PluginError) -> EngineError {
        EngineError::Guest { topic: Arc::from("t"), module: Arc::from("m"), at: FailedAt::Somewhere, source: Arc::new(source) }
    }

    /// Fails on records whose value is odd; says on which, or not.
    fn module(names: bool) -> impl Fn(Part<'_>) -> Ran {
        move |part| {
            let values = values(part.section);
            assert_eq!(values.len(), part.records);
            match values.iter().position(|value| value % 2 == 1) {
                Some(index) => Ran::Failed(error(names.then(|| u32::try_from(index).expect("small")))),
                None => Ran::Passed(part.section.to_vec()),
            }
        }
    }

    /// It fails on the whole of it.
    fn first(section: &[u8], records: usize, run: &impl Fn(Part<'_>) -> Ran) -> EngineError {
        match run(Part { section, records, has_full_time: true }) {
            Ran::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_bad_records_are_found_and_the_others_come_out_in_order() {
        let inputs: [&[u8]; 6] = [&[1], &[2, 3], &[1, 2, 4, 6, 8, 10, 12, 13], &[2, 4, 5, 7, 8, 10], &[1, 3, 5], &[0, 0, 0, 0, 0, 9, 0]];
        for input in inputs {
            let whole = section(input);
            for names in [false, true] {
                let run = module(names);
                let isolated = isolate(&whole, first(&whole, input.len(), &run), Search::Once, || true, &run);
                assert!(isolated.ended.is_none());
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
            let count = |part: Part<'_>| {
                runs += 1;
                records += part.records;
                run(part)
            };
            let isolated = isolate(&whole, first(&whole, 1000, &run), Search::Once, || true, count);
            assert_eq!((isolated.failed.len(), isolated.passed), (1, 999));
            assert!(runs <= runs_max && records <= 2000, "{runs} runs, {records} records");
        }
    }

    #[test]
    fn what_may_not_be_tried_any_more_has_neither_passed_nor_failed() {
        let input = [2, 1, 4, 3, 6, 8, 10, 12];
        let whole = section(&input);
        for search in [Search::Once, Search::Resumed] {
            for runs_max in 0..12 {
                let mut runs = 0;
                let may_run = || {
                    runs += 1;
                    runs <= runs_max
                };
                let isolated = isolate(&whole, error(None), search, may_run, module(false));
                let decided = isolated.decided();
                assert_eq!(isolated.ended.is_some(), decided < 8, "{runs_max}");
                assert!(search == Search::Once || decided > 0, "it goes on");
                let (bad, good): (Vec<u8>, Vec<u8>) = input[..decided].iter().partition(|value| *value % 2 == 1);
                assert_eq!(values(&isolated.output), good, "{runs_max}: each good one up to there");
                assert_eq!(isolated.failed.iter().flat_map(|failed| values(&failed.encoded)).collect::<Vec<_>>(), bad, "{runs_max}");
            }
        }
    }

    /// However little may be tried each time, all good records come out, each once and in order, and no other is left out.
    #[test]
    fn a_search_that_goes_on_where_it_has_ended_comes_to_the_end() {
        let input: Vec<u8> = (0..200).map(|number: u8| if number.is_multiple_of(7) { 1 } else { 2 * (number % 100) }).collect();
        for runs_max in [0, 1, 5, 30] {
            let (mut at, mut good, mut bad, mut rounds) = (0, Vec::new(), 0, 0);
            while at < input.len() {
                let range = part_from(at, input.len());
                assert_eq!(range.start, at);
                let (records, part) = (range.len(), section(&input[range]));
                if let Ran::Passed(output) = module(false)(Part { section: &part, records, has_full_time: true }) {
                    good.extend(values(&output));
                    (at, rounds) = (at + records, rounds + 1);
                    continue;
                }
                let mut runs = 0;
                let may_run = || {
                    runs += 1;
                    runs <= runs_max
                };
                let isolated = isolate(&part, error(None), Search::Resumed, may_run, module(false));
                assert!(isolated.failed.iter().all(|failed| values(&failed.encoded) == [1]));
                good.extend(values(&isolated.output));
                (at, bad, rounds) = (at + isolated.decided(), bad + isolated.failed.len(), rounds + 1);
            }
            assert_eq!((good, bad), (input.iter().copied().filter(|value| value % 2 == 0).collect(), 29), "{runs_max}");
            assert!(rounds <= input.len());
        }
    }

    #[test]
    fn what_is_only_too_much_is_made_small_enough_and_nothing_has_failed() {
        let input = vec![2; 1000];
        let whole = section(&input);
        for search in [Search::Once, Search::Resumed, Search::OfAmount] {
            let mut runs = 0;
            let isolated = isolate(
                &whole,
                timed_out(),
                search,
                || true,
                |part| {
                    assert!(part.has_full_time, "a share is even less");
                    runs += 1;
                    if part.records > 40 { Ran::Failed(timed_out()) } else { Ran::Passed(part.section.to_vec()) }
                },
            );
            assert_eq!((isolated.passed, isolated.failed.len(), isolated.ended.is_none()), (1000, 0, true));
            assert_eq!((isolated.output == whole, runs), (true, 72), "eight that are too large, and their eighths");
        }
    }

    #[test]
    fn a_record_is_given_all_the_time_before_it_has_failed() {
        let whole = section(&[1, 2, 4, 6]);
        // A share is too little for the 4, and all the time is for the 1.
        let run = |part: Part<'_>| match values(part.section) {
            values if values.contains(&1) => Ran::Failed(error(None)),
            values if values.contains(&4) && !part.has_full_time => Ran::Failed(timed_out()),
            _ => Ran::Passed(part.section.to_vec()),
        };
        let isolated = isolate(&whole, error(None), Search::Once, || true, run);
        assert_eq!((values(&isolated.output), isolated.failed.len()), (vec![2, 4, 6], 1));
    }

    #[test]
    fn where_nothing_is_left_out_it_ends_at_what_is_not_of_the_amount_and_at_what_has_no_room() {
        let whole = section(&[2, 2, 2, 1, 2, 2, 2, 2]);
        let isolated = isolate(&whole, timed_out(), Search::OfAmount, || true, module(true));
        assert_eq!((isolated.passed, isolated.failed.len()), (3, 0));
        assert!(isolated.ended.is_some_and(|error| named(&error) == Some(0)));
        let isolated = isolate(&whole, error(Some(3)), Search::OfAmount, || true, module(true));
        assert!(isolated.decided() == 0 && isolated.ended.is_some());
        let mut runs = 0;
        let run = |part: Part<'_>| {
            runs += 1;
            if runs > 2 { Ran::NoRoom(timed_out()) } else { Ran::Passed(part.section.to_vec()) }
        };
        let isolated = isolate(&whole, timed_out(), Search::Resumed, || true, run);
        assert_eq!((isolated.passed, isolated.failed.len(), isolated.ended.is_some()), (2, 0, true));
    }
}
