//! What becomes of one batch: decided from its bytes, the map of keys and the time alone.
//!
//! | record | is kept if |
//! |---|---|
//! | without a key | always: from before the topic was compacted |
//! | at or behind the end of the map | always: it was not looked at yet |
//! | with a key and a value | the map knows no later record of the key |
//! | with a key, without a value (a tombstone) | likewise, and its delete horizon has not passed |
//!
//! # Delete horizon (KIP-534)
//!
//! A batch with tombstones that is compacted for the first time is told when they may go: `delete_retention_ms` from now. Its attributes
//! say so, the base timestamp becomes the horizon, and the timestamp deltas are written anew, so that each record keeps its timestamp. By
//! then every earlier record of their keys is gone from the log. Without a wall clock that can be believed no horizon is set, and none
//! has passed; nor where an earlier part of the log could not be read, because a value may be left there that the tombstone removes.

use bytes::Bytes;
use millpond_protocol::batch::{Batch, BatchError, BatchHeader, TimestampType, rebuild};
use millpond_protocol::record::{RecordRef, SectionSummary, append_shifted, iterate};

use crate::compact::key_map::KeyMap;
use crate::inspect::RECORDS_BYTES_MAX;

/// By what it is decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// The latest records of the keys of the dirty part, up to `map_end`.
    pub(super) map: &'a KeyMap,
    pub(super) map_end: i64,
    pub(super) tombstones: Tombstones,
}

/// Whether tombstones may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tombstones {
    /// Not now, whatever their horizon.
    Stay,
    /// Those whose horizon lies before `now_ms`; the others get one. In milliseconds since 1970.
    Expire { now_ms: i64, delete_retention_ms: u64 },
}

/// What is left of a batch.
#[derive(Debug)]
pub(super) enum Sifted {
    /// All of it, byte for byte.
    Whole,
    /// Some of its records, or all with a delete horizon.
    Rebuilt { bytes: Bytes, removed: u32 },
    /// Its offsets.
    Nothing { removed: u32 },
}

/// Notes the keys of a batch from offset `from` on. Gives the offset of the first record for which the map has no room; None if it
/// has taken all.
///
/// # Errors
///
/// If the records can't be decoded, or take more than 64 MiB.
pub(super) fn note_keys(batch: &Batch, from: i64, map: &mut KeyMap) -> Result<Option<i64>, BatchError> {
    let header = batch.header();
    if header.attributes.is_control() {
        return Ok(None);
    }
    let (section, _) = batch.check_records(RECORDS_BYTES_MAX)?;
    for record in iterate(&section) {
        let record = record?;
        let offset = header.base_offset + i64::from(record.offset_delta);
        if let Some(key) = record.key
            && offset >= from
            && !map.insert(key, offset)
        {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}

/// Decides about a batch. `kept` is scratch memory.
///
/// # Errors
///
/// If the records can't be decoded, or take more than 64 MiB. Such a batch stays as it is.
pub(super) fn sift(batch: &Batch, rules: &Rules<'_>, kept: &mut Vec<bool>) -> Result<Sifted, BatchError> {
    let header = batch.header();
    if header.attributes.is_control() {
        return Ok(Sifted::Whole);
    }
    if header.record_count == 0 {
        // One that says whose it was is left as it is.
        return Ok(if header.producer_id < 0 { Sifted::Nothing { removed: 0 } } else { Sifted::Whole });
    }
    let (section, _) = batch.check_records(RECORDS_BYTES_MAX)?;
    kept.clear();
    let mut has_tombstone = false;
    for record in iterate(&section) {
        let record = record?;
        let keeps = is_kept(header, &record, rules);
        has_tombstone |= keeps && record.key.is_some() && record.value.is_none();
        kept.push(keeps);
    }
    let removed = u32::try_from(kept.iter().filter(|kept| !**kept).count()).unwrap_or(u32::MAX);
    if removed as usize == kept.len() {
        return Ok(Sifted::Nothing { removed });
    }
    // Of a batch that was compacted to its end: a tombstone behind that is to stay as long as any other.
    let dated = if has_tombstone && header.last_offset() < rules.map_end { with_horizon(header, rules.tombstones) } else { None };
    if removed == 0 && dated.is_none() {
        return Ok(Sifted::Whole);
    }
    // Where a delta can't be said any more, the batch goes without a horizon, and its tombstones stay.
    let dated = dated.and_then(|dated| Some((dated, retained(&section, kept, shift_of(header, &dated)?)?)));
    let (header, (section, summary)) = match dated {
        Some(dated) => dated,
        None if removed == 0 => return Ok(Sifted::Whole),
        None => (*header, retained(&section, kept, 0).unwrap_or_else(|| unreachable!("no delta is changed, and the records were checked"))),
    };
    Ok(Sifted::Rebuilt { bytes: rebuild(&header, &section, &summary)?, removed })
}

fn is_kept(header: &BatchHeader, record: &RecordRef<'_>, rules: &Rules<'_>) -> bool {
    let offset = header.base_offset + i64::from(record.offset_delta);
    let Some(key) = record.key.filter(|_| offset < rules.map_end) else { return true };
    if rules.map.get(key).is_some_and(|latest| latest > offset) {
        return false;
    }
    let horizon_ms = header.attributes.has_delete_horizon().then_some(header.base_timestamp);
    match (rules.tombstones, horizon_ms) {
        (Tombstones::Expire { now_ms, .. }, Some(horizon_ms)) => record.value.is_some() || now_ms < horizon_ms,
        _ => true,
    }
}

/// The header with a delete horizon. None if it has one, or none is to be set.
fn with_horizon(header: &BatchHeader, tombstones: Tombstones) -> Option<BatchHeader> {
    let Tombstones::Expire { now_ms, delete_retention_ms } = tombstones else { return None };
    if header.attributes.has_delete_horizon() {
        return None;
    }
    let base_timestamp = now_ms.saturating_add_unsigned(delete_retention_ms);
    Some(BatchHeader { base_timestamp, attributes: header.attributes.with_delete_horizon(), ..*header })
}

/// How much less the timestamp deltas are with the other header.
fn shift_of(header: &BatchHeader, dated: &BatchHeader) -> Option<i64> {
    match header.attributes.timestamp_type() {
        TimestampType::CreateTime => dated.base_timestamp.checked_sub(header.base_timestamp),
        // They say nothing: all records have the timestamp of the batch.
        TimestampType::LogAppendTime => Some(0),
    }
}

/// The records that are kept, their timestamp deltas less by `shift_ms`. None if one can't be written so.
fn retained(section: &[u8], kept: &[bool], shift_ms: i64) -> Option<(Vec<u8>, SectionSummary)> {
    let mut out = Vec::with_capacity(section.len());
    let mut summary = SectionSummary::EMPTY;
    for (record, _) in iterate(section).zip(kept).filter(|(_, kept)| **kept) {
        let record = record.ok()?;
        if shift_ms == 0 {
            out.extend_from_slice(record.encoded);
        } else if !append_shifted(&mut out, record.encoded, shift_ms) {
            return None;
        }
        summary.add(record.offset_delta, record.timestamp_delta.checked_sub(shift_ms)?);
    }
    Some((out, summary))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::batch::{Attributes, BatchBuilder};
    use millpond_protocol::compression::Codec;
    use millpond_protocol::record::{NewRecord, check_section};

    const NOW_MS: i64 = 1_790_000_000_000;

    /// A batch at offset 0 of these keys, the first one a tombstone.
    fn batch(keys: &[&str], timestamp: i64, attributes: i16) -> Batch {
        let mut builder = BatchBuilder::new();
        for (number, key) in keys.iter().enumerate() {
            let value = (number > 0).then_some(&b"value"[..]);
            builder.push(&NewRecord { timestamp, key: Some(key.as_bytes()), value, headers: &[] }).expect("it fits");
        }
        let built = Batch::parse(builder.finish(Codec::None).expect("it has records")).expect("it is a batch");
        let section = built.records_section(1 << 20).expect("it is not compressed");
        let header = BatchHeader { attributes: Attributes(attributes), ..*built.header() };
        let summary = check_section(&section).expect("the records are well formed");
        Batch::parse(rebuild(&header, &section, &summary).expect("it is small")).expect("it is a batch")
    }

    fn sifted(batch: &Batch, later: &[&str], map_end: i64) -> Sifted {
        let mut map = KeyMap::new(1 << 10, 10);
        assert!(later.iter().all(|key| map.insert(key.as_bytes(), 1_000)));
        let tombstones = Tombstones::Expire { now_ms: NOW_MS, delete_retention_ms: 1_000 };
        sift(batch, &Rules { map: &map, map_end, tombstones }, &mut Vec::new()).expect("it can be decoded")
    }

    fn rebuilt(sifted: Sifted) -> Batch {
        let Sifted::Rebuilt { bytes, .. } = sifted else { panic!("{sifted:?}") };
        let batch = Batch::parse(bytes).expect("it is a batch");
        batch.verify_crc().expect("it is sealed");
        batch
    }

    fn timestamps(batch: &Batch) -> Vec<i64> {
        batch.records(1 << 20).expect("it unpacks").map(|record| record.expect("it reads").timestamp).collect()
    }

    #[test]
    fn a_horizon_changes_no_timestamp_whoever_gave_it() {
        for attributes in [0, 1 << 3] {
            let original = batch(&["a", "b", "c"], 77, attributes);
            let dated = rebuilt(sifted(&original, &["b"], 2_000));
            let header = dated.header();
            assert_eq!((header.base_timestamp, header.max_timestamp, header.record_count), (NOW_MS + 1_000, 77, 2));
            assert!(header.attributes.has_delete_horizon() && timestamps(&dated) == [77, 77]);
            assert!(matches!(sifted(&dated, &[], 2_000), Sifted::Whole), "it is set once");
        }
    }

    #[test]
    fn a_timestamp_that_is_too_far_from_any_horizon_leaves_the_batch_without_one() {
        let original = batch(&["a", "b"], i64::MIN + 5, 0);
        assert!(matches!(sifted(&original, &[], 2_000), Sifted::Whole));
        let left = rebuilt(sifted(&original, &["b"], 2_000));
        assert!(!left.header().attributes.has_delete_horizon() && timestamps(&left) == [i64::MIN + 5]);
    }

    #[test]
    fn a_batch_that_reaches_behind_the_end_of_the_map_gets_no_horizon_and_loses_nothing_there() {
        let original = batch(&["a", "b", "c"], 77, 0);
        assert!(matches!(sifted(&original, &[], 2), Sifted::Whole));
        let left = rebuilt(sifted(&original, &["b", "c"], 2));
        assert!(!left.header().attributes.has_delete_horizon() && left.header().record_count == 2);
    }

    #[test]
    fn marks_and_empty_batches_with_a_producer_stay_and_what_can_not_be_decoded_is_told() {
        let control = batch(&["a"], 77, 1 << 5);
        assert!(matches!(sifted(&control, &["a"], 2_000), Sifted::Whole));
        assert_eq!(note_keys(&control, 0, &mut KeyMap::new(0, 0)), Ok(None));
        let original = batch(&["a"], 77, 0);
        let emptied = |producer_id| {
            let header = BatchHeader { producer_id, ..*original.header() };
            Batch::parse(rebuild(&header, &[], &SectionSummary::EMPTY).expect("it is small")).expect("it is a batch")
        };
        assert!(matches!(sifted(&emptied(-1), &[], 2_000), Sifted::Nothing { removed: 0 }));
        assert!(matches!(sifted(&emptied(9), &[], 2_000), Sifted::Whole));
        let mut garbage = original.bytes().to_vec();
        garbage[61..].fill(0xff);
        let garbage = Batch::parse(garbage.into()).expect("its header is well formed");
        let mut map = KeyMap::new(1 << 10, 10);
        assert!(note_keys(&garbage, 0, &mut map).is_err());
        let rules = Rules { map: &map, map_end: 2_000, tombstones: Tombstones::Stay };
        assert!(sift(&garbage, &rules, &mut Vec::new()).is_err());
    }
}
