//! The settings of a consumer.

use super::{Consumer, OutOfRange, Start, reader::Source};
use crate::{admin::Admin, client::Core, error::Error};
use std::{collections::BTreeMap, sync::Arc};

/// Where to read, and from where. From [`crate::Client::consumer`].
#[derive(Clone, Debug)]
pub struct ConsumerBuilder {
    core: Arc<Core>,
    topic: Arc<str>,
    start: Start,
    starts: BTreeMap<u32, Start>,
    partitions: Option<Vec<u32>>,
    until_end: bool,
    view: Option<Arc<str>>,
    out_of_range: OutOfRange,
}

impl ConsumerBuilder {
    pub(crate) fn new(core: Arc<Core>, topic: Arc<str>) -> ConsumerBuilder {
        let (start, starts, out_of_range) = (Start::End, BTreeMap::new(), OutOfRange::Error);
        ConsumerBuilder { core, topic, start, starts, partitions: None, until_end: false, view: None, out_of_range }
    }

    /// Where to begin in each partition; at the end, with what comes from now on, when not set.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Where to begin in single partitions, as a program has kept it: the offset of the next record of each. The others begin at
    /// [`ConsumerBuilder::start`]. Offsets of partitions that are not read are not used.
    #[must_use]
    pub fn offsets(mut self, offsets: impl IntoIterator<Item = (u32, i64)>) -> Self {
        self.starts = offsets.into_iter().map(|(partition, offset)| (partition, Start::Offset(offset))).collect();
        self
    }

    /// Where to begin in this partition, whatever the others do.
    #[must_use]
    pub fn start_in(mut self, partition: u32, start: Start) -> Self {
        self.starts.insert(partition, start);
        self
    }

    /// Reads these partitions; all of the topic when not set.
    #[must_use]
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = u32>) -> Self {
        let mut partitions: Vec<u32> = partitions.into_iter().collect();
        partitions.sort_unstable();
        partitions.dedup();
        self.partitions = Some(partitions);
        self
    }

    /// Reads this partition alone.
    #[must_use]
    pub fn partition(self, partition: u32) -> Self {
        self.partitions([partition])
    }

    /// Whether the consumer ends once it has read what could be read when it was made; no when not set.
    #[must_use]
    pub fn until_end(mut self, until_end: bool) -> Self {
        self.until_end = until_end;
        self
    }

    /// Reads the records as this view of the topic has them; as they are stored when not set. Their offsets are the same.
    #[must_use]
    pub fn view(mut self, view: impl Into<Arc<str>>) -> Self {
        self.view = Some(view.into());
        self
    }

    /// What happens where a partition does not reach to the offset from which it is to be read; an error when not set.
    #[must_use]
    pub fn on_out_of_range(mut self, policy: OutOfRange) -> Self {
        self.out_of_range = policy;
        self
    }

    /// Opens the partitions. Fails with the code `topic_not_found` if there is no such topic, `view_not_found` if it has no such view, `partition_out_of_range` if it has no such
    /// partition, and `offset_out_of_range`, with the range, if a partition does not reach from or to the offset that was asked for.
    pub async fn build(self) -> Result<Consumer, Error> {
        let topic = Admin::new(Arc::clone(&self.core)).topic(&self.topic).await?;
        let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let partitions = self.partitions.unwrap_or_else(|| (0..count).collect());
        if let Some(&partition) = partitions.iter().chain(self.starts.keys()).find(|partition| **partition >= count) {
            return Err(Error::PartitionOutOfRange { topic: self.topic, partition, partitions: count, reading: true });
        }
        let what = Source { topic: self.topic, view: self.view, out_of_range: self.out_of_range };
        let place = |partition| self.starts.get(&partition).copied().unwrap_or(self.start);
        let places: Vec<_> = partitions.into_iter().map(|partition| (partition, place(partition))).collect();
        Consumer::open(self.core, what, &places, self.until_end).await
    }
}
