//! What came out against what was expected.

use super::{fate::Output, input::Numbered, report};
use crate::{
    failure::{Failure, Outcome},
    output::{counted, print},
};
use millpond::Record;
use std::{fmt::Write, path::Path};

/// The most records of each side that are shown of a difference.
const SHOWN_MAX: usize = 10;

/// Prints the difference, if there is one, and fails then.
pub(super) fn compare(path: &Path, expected: &[Numbered], came: &[Output]) -> Outcome {
    let is_same = |(expected, came): &(&Numbered, &Output)| matches(expected, came);
    let same_before = expected.iter().zip(came).take_while(is_same).count();
    let (expected, came) = (&expected[same_before..], &came[same_before..]);
    let same_behind = expected.iter().rev().zip(came.iter().rev()).take_while(is_same).count();
    let (expected, came) = (&expected[..expected.len() - same_behind], &came[..came.len() - same_behind]);
    if expected.is_empty() && came.is_empty() {
        return print(&format!("all as in {}\n", path.display()));
    }
    let mut words = format!("{} as expected, then:\n", counted(same_before as u64, "record"));
    for Numbered { line, record, topic } in expected.iter().take(SHOWN_MAX) {
        // A transform chooses neither topic nor partition, so what is expected of them was not compared.
        let partition = record.partition.filter(|_| came.iter().any(|came| came.record.partition.is_some()));
        let topic = topic.as_deref().filter(|_| came.iter().any(|came| came.topic.is_some()));
        let _ = writeln!(words, "  - line {line}: {}", report::json(&Record { partition, ..record.clone() }, topic, None));
    }
    more(&mut words, '-', expected.len());
    for output in came.iter().take(SHOWN_MAX) {
        let _ = writeln!(words, "  + {}", report::shown(output));
    }
    more(&mut words, '+', came.len());
    print(&words)?;
    let (missing, others) = (counted(expected.len() as u64, "record"), counted(came.len() as u64, "record"));
    Err(Failure::new(format!("what came out is not what {} says", path.display()))
        .cause(format!("in place of {missing} (-) there came {others} (+)"))
        .hint("`-o jsonl` prints what comes out, for a file of what is expected"))
}

fn more(words: &mut String, side: char, number: usize) {
    if number > SHOWN_MAX {
        let _ = writeln!(words, "  {side} and {} more", number - SHOWN_MAX);
    }
}

/// Whether a record is the expected one, as far as the line says.
fn matches(Numbered { record: expected, topic, .. }: &Numbered, Output { record: came, topic: into, .. }: &Output) -> bool {
    expected.key == came.key
        && expected.value == came.value
        && expected.headers == came.headers
        && (expected.timestamp.is_none() || expected.timestamp == came.timestamp)
        && (expected.partition.is_none() || came.partition.is_none() || expected.partition == came.partition)
        && (topic.is_none() || into.is_none() || topic.as_deref() == into.as_deref())
}
