//! A broker that was stopped in order, with much in one topic: how long it takes until it answers again.

use super::{
    BenchError,
    broker::Broker,
    disk,
    modules::Modules,
    payload::Values,
    plan::Case,
    samples::{Latencies, Sample},
};
use millpond::{Durability, Record};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// Bytes of a record of the topic: what matters is how much there is, and large ones are quickly there.
const RECORD_BYTES: usize = 64 << 10;

/// What else a run writes to the disk.
const HEADROOM_BYTES: u64 = 2 << 30;

/// A broker of its own, between two starts.
#[derive(Debug)]
pub(super) struct Restart {
    folder: PathBuf,
    records: u64,
}

impl Restart {
    /// Fills a topic of one partition in a folder under `parent` with so many bytes, and stops the broker. None where they have no room.
    pub(super) async fn prepare(parent: &Path, values: &Values, bytes: u64) -> Result<Option<Restart>, BenchError> {
        if disk::room_bytes(parent).is_some_and(|room| room < bytes + HEADROOM_BYTES) {
            return Ok(None);
        }
        let folder = parent.join("restart");
        fs::create_dir(&folder).map_err(|source| BenchError::File { action: "create", path: folder.clone(), source })?;
        let broker = Broker::start(folder.clone(), Modules::default()).await?;
        broker.create_topic(Case::Restart, Durability::Os, 1).await?;
        let producer = broker.client.producer(Case::Restart.name()).build().await?;
        let records = bytes.div_ceil(RECORD_BYTES as u64);
        for index in 0..usize::try_from(records).unwrap_or(usize::MAX) {
            // `close` says whether all went well.
            drop(producer.enqueue(Record::new(values.piece(index, RECORD_BYTES))).await?);
        }
        producer.close().await?;
        broker.stop().await?;
        Ok(Some(Restart { folder, records }))
    }

    /// From the start of the process, with nothing of its files in the page cache, to the answer that tells how many records there are.
    /// It is stopped again afterwards.
    pub(super) async fn measure(&self) -> Result<Sample, BenchError> {
        let folder = self.folder.clone();
        disk::blocking(move || disk::drop_from_cache(&folder)).await?;
        let begun = Instant::now();
        let broker = Broker::start(self.folder.clone(), Modules::default()).await?;
        let actual = broker.records(Case::Restart).await?;
        let elapsed = begun.elapsed();
        broker.stop().await?;
        if actual != self.records {
            return Err(BenchError::Miscounted { case: Case::Restart.name(), expected: self.records, actual });
        }
        Ok(Sample { p99_us: None, ..Sample::from(Latencies::from_iter([elapsed])) })
    }
}
