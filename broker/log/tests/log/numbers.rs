//! Batches with numbers, and what a log should remember of their producers.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use millpond_log::{Appended, Log, PRODUCER_BATCHES_MAX, ProducerBatch, ProducerState};
use millpond_protocol::batch::{Batch, BatchHeader, CHECKSUMMED_FROM, HEADER_BYTES, checksum};

use crate::harness::Stored;

/// The batch as this producer sends it.
pub(crate) fn numbered(batch: &Batch, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Batch {
    let mut bytes = batch.bytes().to_vec();
    let header = BatchHeader { producer_id, producer_epoch, base_sequence, ..*batch.header() };
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    let crc = checksum(&bytes[CHECKSUMMED_FROM..]);
    bytes[..HEADER_BYTES].copy_from_slice(&BatchHeader { crc, ..header }.encode());
    Batch::parse(bytes.into()).expect("as whole as it was")
}

/// What should be remembered after these batches, from the first of the log on, without the times.
pub(crate) fn replayed(stored: &[Stored]) -> Vec<ProducerState> {
    let mut states = BTreeMap::<i64, ProducerState>::new();
    for stored in stored {
        let header = BatchHeader::parse(&stored.bytes).expect("a batch");
        if header.producer_id < 0 {
            continue;
        }
        let (producer_id, epoch) = (header.producer_id, header.producer_epoch);
        let fresh = ProducerState { producer_id, epoch, batches: Vec::new() };
        let state = states.entry(producer_id).or_insert_with(|| fresh.clone());
        match epoch.cmp(&state.epoch) {
            Ordering::Less => continue,
            Ordering::Equal => {}
            Ordering::Greater => *state = fresh,
        }
        let records_dropped = (header.last_offset_delta + 1 - header.record_count).unsigned_abs();
        let appended = Appended { base_offset: stored.base, last_offset: stored.next - 1, append_time_ms: -1, records_dropped };
        let last_sequence = (i64::from(header.base_sequence) + i64::from(header.last_offset_delta)) % (1 << 31);
        let last_sequence = i32::try_from(last_sequence).expect("31 bits");
        state.batches.push(ProducerBatch { last_sequence, crc: header.crc, appended });
        let count = state.batches.len();
        state.batches.drain(..count.saturating_sub(PRODUCER_BATCHES_MAX));
    }
    states.into_values().collect()
}

/// What is remembered, without the times, which a recovery does not know.
pub(crate) fn remembered(log: &Log) -> Vec<ProducerState> {
    let mut states = log.producers();
    for state in &mut states {
        for batch in &mut state.batches {
            batch.appended.append_time_ms = -1;
        }
    }
    states
}
