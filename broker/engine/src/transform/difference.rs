//! What a module returned, held against what it was given: in one walk, because it happens to every record that passes a module.

use millpond_protocol::{
    batch::BatchError,
    record::{self, RecordFront, SectionSummary},
};

/// What a module did to the records that it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) records_out: u64,
    /// Records that went in and have no counterpart among those that came out.
    pub(crate) dropped: u64,
    /// Records that came out with other bytes than went in.
    pub(crate) changed: u64,
}

/// Checks every record of `after`, which may be any bytes, and compares it with `before`, which is well formed and whose offset deltas
/// rise: the same delta is the same record. Where those of `after` do not rise, nothing can be said of the difference.
///
/// A record with the very bytes of one that is well formed is well formed, so it is not taken apart; every other is, to the last of its
/// headers.
pub(super) fn check(before: &[u8], after: &[u8]) -> Result<(SectionSummary, Difference), BatchError> {
    let (mut summary, mut difference) = (SectionSummary::EMPTY, Difference::default());
    let mut originals = Originals { rest: before };
    let mut next_original = originals.next();
    let mut rest = after;
    while !rest.is_empty() {
        let mut kept = next_original.filter(|original| rest.starts_with(original.encoded));
        if kept.is_none() {
            // Another record, or a changed one; what it says of itself is checked below.
            let claimed = record::read_front(rest).map_or(i32::MIN, |front| front.offset_delta);
            while next_original.is_some_and(|original| original.offset_delta < claimed) {
                difference.dropped += 1;
                next_original = originals.next();
            }
            kept = next_original.filter(|original| rest.starts_with(original.encoded));
        }
        let record = match kept {
            Some(record) => record,
            None => read_whole(rest, summary.record_count.cast_unsigned())?,
        };
        difference.changed += u64::from(kept.is_none());
        if next_original.is_some_and(|original| original.offset_delta == record.offset_delta) {
            next_original = originals.next();
        }
        summary.add(record.offset_delta, record.timestamp_delta);
        rest = &rest[record.encoded.len()..];
    }
    difference.records_out = u64::from(summary.record_count.cast_unsigned());
    difference.dropped += u64::from(next_original.is_some()) + originals.count() as u64;
    Ok((summary, difference))
}

/// The first record of a section, all of it checked; `index` is its place for the error.
fn read_whole(section: &[u8], index: u32) -> Result<RecordFront<'_>, BatchError> {
    match record::iterate(section).next() {
        Some(Ok(record)) => {
            let (offset_delta, timestamp_delta) = (record.offset_delta, record.timestamp_delta);
            Ok(RecordFront { offset_delta, timestamp_delta, encoded: record.encoded })
        }
        Some(Err(BatchError::InvalidRecord { fault, .. })) => Err(BatchError::InvalidRecord { index, fault }),
        Some(Err(error)) => Err(error),
        None => unreachable!("a section that is not empty yields a record or an error"),
    }
}

/// The records of a section that was checked.
struct Originals<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Originals<'a> {
    type Item = RecordFront<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordFront<'a>> {
        let front = record::read_front(self.rest)?;
        self.rest = &self.rest[front.encoded.len()..];
        Some(front)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_log::sim::Random;
    use millpond_protocol::{
        batch::{Batch, BatchBuilder},
        compression::Codec,
        record::{NewRecord, check_section, iterate},
    };
    use std::cmp::Ordering;

    /// The records of a batch, each as it is encoded.
    fn records(random: &mut Random, count: u64) -> Vec<Vec<u8>> {
        let mut builder = BatchBuilder::new();
        for _ in 0..count {
            let value = vec![random.next_u64().to_le_bytes()[0]; usize::try_from(random.below(90)).expect("small")];
            let headers = [("name", Some(&value[..]))];
            let headers = if random.percent(20) { &headers[..] } else { &[] };
            let timestamp = random.below(1_000).cast_signed();
            builder.push(&NewRecord { timestamp, key: None, value: Some(&value), headers }).expect("it fits");
        }
        let batch = Batch::parse(builder.finish(Codec::None).expect("it has records")).expect("it is a batch");
        let section = batch.records_section(1 << 20).expect("it unpacks");
        iterate(&section).map(|record| record.expect("it reads").encoded.to_vec()).collect()
    }

    /// The same by two walks, one for each question.
    fn naive(before: &[u8], after: &[u8]) -> Result<(SectionSummary, Difference), BatchError> {
        let summary = check_section(after)?;
        let mut difference = Difference::default();
        let mut originals = iterate(before).map_while(Result::ok).peekable();
        for record in iterate(after).map_while(Result::ok) {
            difference.records_out += 1;
            let mut is_kept = false;
            while let Some(original) = originals.peek() {
                match original.offset_delta.cmp(&record.offset_delta) {
                    Ordering::Less => difference.dropped += 1,
                    Ordering::Equal => is_kept = original.encoded == record.encoded,
                    Ordering::Greater => break,
                }
                originals.next();
            }
            difference.changed += u64::from(!is_kept);
        }
        difference.dropped += originals.count() as u64;
        Ok((summary, difference))
    }

    fn compare(before: &[u8], after: &[u8], context: &str) {
        let (found, expected) = (check(before, after), naive(before, after));
        match (&found, &expected) {
            // Only the summary counts then.
            (Ok((found, _)), Ok((expected, _))) if !expected.offsets_rise => assert_eq!(found, expected, "{context}"),
            _ => assert_eq!(found, expected, "{context}"),
        }
    }

    #[test]
    fn one_walk_says_what_two_would_have_said_whatever_a_module_returns() {
        let mut random = Random::new(8);
        for round in 0..3_000 {
            let count = 1 + random.below(12);
            let given = records(&mut random, count);
            let other = records(&mut random, 14);
            let mut returned: Vec<Vec<u8>> = Vec::new();
            for (at, record) in given.iter().enumerate() {
                match random.below(8) {
                    0..4 => returned.push(record.clone()),
                    4 => returned.push(other[at].clone()),
                    5 if random.percent(30) => returned.extend([record.clone(), record.clone()]),
                    6 if random.percent(30) => returned.push(other[13].clone()),
                    _ => {}
                }
            }
            let mut after = returned.concat();
            if random.percent(40) && !after.is_empty() {
                let at = usize::try_from(random.below(after.len() as u64)).expect("small");
                if random.percent(70) { after[at] ^= 1 << random.below(8) } else { after.truncate(at) }
            }
            compare(&given.concat(), &after, &format!("round {round}"));
        }
    }

    #[test]
    fn every_byte_of_a_changed_record_is_checked() {
        let given = records(&mut Random::new(9), 6);
        let section = given.concat();
        for at in 0..section.len() {
            for bit in 0..8 {
                let mut after = section.clone();
                after[at] ^= 1 << bit;
                compare(&section, &after, &format!("bit {bit} of byte {at}"));
            }
        }
    }
}
