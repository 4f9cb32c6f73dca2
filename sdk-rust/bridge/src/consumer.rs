//! Batches on their way to a language.
//!
//! ```text
//!   partitions ──> ready(...)          waits until there is something to take, and leaves it on the shelf
//!                     |
//!                  +-----------------------------+
//!                  | shelf: records, failures    |  what arrived and was not taken yet; what belongs to a paused partition stays
//!                  +-----------------------------+
//!                     |            ^
//!                  take(max)    hand_back(rest)
//!                     v            |
//!                  the language, record by record
//! ```
//!
//! Waiting and taking are two steps, so that whoever gives up waiting (a task that is cancelled, a signal) loses nothing. A command (a seek, a pause,
//! a close) interrupts who waits, is done, and lets it wait on.
//!
//! What is on the shelf is bounded by what was asked for, and by [`SHELF_BYTES_MAX`]. A consumer is made at once and opened when it is
//! first waited for.

use crate::{
    client::Client,
    failure::Failure,
    options::{ConsumerOptions, OnOutOfRange, Place},
    records::{Records, Unpack},
    runtime::{Kept, check_process},
};
use millpond::OutOfRange;
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{MutexGuard, Notify},
    time::{Instant, sleep_until},
};

/// Nothing more is waited for once the shelf has as many bytes.
pub const SHELF_BYTES_MAX: usize = 64 << 20;

/// Reads one topic; cheap to clone. See [`millpond::Consumer`].
#[derive(Clone, Debug)]
pub struct Consumer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    topic: Arc<str>,
    options: ConsumerOptions,
    /// Held by who waits for the broker. None until it is opened, and once it is closed.
    source: tokio::sync::Mutex<Option<Kept<millpond::Consumer>>>,
    shelf: Mutex<Shelf>,
    /// Commands that want the source.
    commands: AtomicUsize,
    interrupt: Notify,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Shelf {
    items: VecDeque<Item>,
    /// What arrived together and is not unpacked yet.
    packed: Option<Unpack>,
    paused: BTreeSet<u32>,
    /// Nothing more will come.
    ended: bool,
    /// The partitions that have failed, as the source said last.
    failed: BTreeSet<u32>,
    /// What happened last to a partition.
    last_failure: Option<Failure>,
    /// Every partition has failed: so does every further wait, with the last failure, until a seek.
    all_failed: bool,
}

#[derive(Debug)]
enum Item {
    Records(Records),
    Failed(Failure),
}

/// How a partition is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// Its number.
    pub partition: u32,
    /// The offset of the next record that is taken.
    pub position: i64,
    /// Whether it is paused.
    pub paused: bool,
    /// The first offset that is still there, as the broker said last.
    pub log_start: i64,
    /// One past the last offset that can be read, as the broker said last.
    pub high_watermark: i64,
    /// Whether it has failed: nothing comes of it until a seek takes it up again.
    pub failed: bool,
}

impl Consumer {
    /// A consumer, which is opened when it is first waited for, or by [`Consumer::open`].
    pub fn new(client: &Client, topic: &str, options: ConsumerOptions) -> Result<Consumer, Failure> {
        check_process()?;
        Ok(Consumer(Arc::new(Inner {
            client: client.clone(),
            topic: topic.into(),
            options,
            source: tokio::sync::Mutex::default(),
            shelf: Mutex::default(),
            commands: AtomicUsize::new(0),
            interrupt: Notify::new(),
            closed: AtomicBool::new(false),
        })))
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.0.topic
    }

    /// Opens the partitions, where that was not done yet. After an error it can be called again.
    pub async fn open(&self) -> Result<(), Failure> {
        self.0.command().await.map(|_| ())
    }

    /// Waits until there is something to [`Consumer::take`]: `records` of them, or as many as have come `wait` after the first one. False once
    /// nothing will come any more, as `until_end` is reached. Where every partition has failed it fails with the last failure, each time, until a seek.
    pub async fn ready(&self, records: usize, wait: Duration) -> Result<bool, Failure> {
        let inner = &self.0;
        let mut until = None;
        inner.check_open()?;
        if let Some(ready) = inner.shelf.lock().answer(records, wait, &mut until) {
            return ready;
        }
        let mut source = inner.source().await?;
        if let Some(core) = source.as_ref() {
            // A command that was given up half-way may have said nothing of what it has done.
            let mut kept = inner.shelf.lock();
            if !kept.paused.is_empty() {
                kept.set_paused(core.paused().collect());
            }
        }
        loop {
            let interrupted = inner.interrupt.notified();
            tokio::pin!(interrupted);
            interrupted.as_mut().enable();
            if inner.commands.load(Ordering::Acquire) > 0 {
                drop(source);
                // The lock is fair: commands that wait for it come first.
                tokio::task::yield_now().await;
                source = inner.source().await?;
                continue;
            }
            if let Some(ready) = inner.shelf.lock().answer(records, wait, &mut until) {
                return ready;
            }
            let core = source.as_mut().ok_or_else(|| Failure::closed("consumer"))?;
            tokio::select! {
                biased;
                () = interrupted => {}
                next = core.next_batch() => {
                    let (failed, all) = (core.failed().collect(), core.partitions().count());
                    inner.shelf.lock().put(next, failed, all, &inner.topic);
                }
                () = at(until) => {}
            }
        }
    }

    /// Takes what is there, at most `records_max` records of one partition; none if nothing is. Fails with what happened to a partition, once, in
    /// the order of the records; what lies behind it can be taken afterwards.
    pub fn take(&self, records_max: usize) -> Result<Option<Records>, Failure> {
        self.0.check_open()?;
        self.0.shelf.lock().take(records_max)
    }

    /// Puts records that were taken back to where they were: before a command, so that it counts for them as well.
    pub fn hand_back(&self, records: Records) {
        if !records.is_empty() {
            self.0.shelf.lock().items.push_front(Item::Records(records));
        }
    }

    /// Puts a failure that was taken back to where it was.
    pub fn hand_back_failure(&self, failure: Failure) {
        self.0.shelf.lock().items.push_front(Item::Failed(failure));
    }

    /// Goes on from another place, in this partition or (none) in all of them. After an error nothing has changed.
    pub async fn seek(&self, partition: Option<u32>, place: Place) -> Result<(), Failure> {
        let inner = &self.0;
        inner.check_open()?;
        let _counted = Commands::new(inner);
        let mut source = inner.source.lock().await;
        inner.check_open()?;
        match source.as_mut() {
            Some(core) => core.seek(partition, place.into()).await?,
            // It begins there: where it was to begin may not be there any more.
            None => *source = Some(Kept::new(inner.open_at(partition, place).await?)),
        }
        let mut kept = inner.shelf.lock();
        kept.forget(partition);
        kept.failed = source.as_deref().into_iter().flat_map(millpond::Consumer::failed).collect();
        Ok(())
    }

    /// Hands out no more records of this partition or (none) of all, until [`Consumer::resume`].
    pub async fn pause(&self, partition: Option<u32>) -> Result<(), Failure> {
        let mut source = self.0.command().await?;
        let core = source.core()?;
        core.pause(partition)?;
        self.0.shelf.lock().set_paused(core.paused().collect());
        Ok(())
    }

    /// Goes on with this partition or (none) with all that are paused, from their positions.
    pub async fn resume(&self, partition: Option<u32>) -> Result<(), Failure> {
        let mut source = self.0.command().await?;
        let core = source.core()?;
        let resumed = core.resume(partition).await;
        let mut kept = self.0.shelf.lock();
        kept.set_paused(core.paused().collect());
        kept.failed = core.failed().collect();
        // One that had failed when it was paused may go on.
        (kept.ended, kept.all_failed) = (false, false);
        drop(kept);
        Ok(resumed?)
    }

    /// How the partitions are doing, in order.
    pub async fn partitions(&self) -> Result<Vec<PartitionState>, Failure> {
        let mut source = self.0.command().await?;
        let core = source.core()?;
        let kept = self.0.shelf.lock();
        let state = |partition| {
            let watermarks = core.watermarks(partition).unwrap_or_default();
            PartitionState {
                partition,
                position: kept.position(partition).or_else(|| core.position(partition)).unwrap_or_default(),
                paused: kept.paused.contains(&partition),
                log_start: watermarks.log_start,
                high_watermark: watermarks.high_watermark,
                failed: kept.failed.contains(&partition),
            }
        };
        Ok(core.partitions().map(state).collect())
    }

    /// The offset of the next record that is taken.
    pub async fn position(&self, partition: u32) -> Result<i64, Failure> {
        let found = self.partitions().await?.into_iter().find(|state| state.partition == partition);
        found.map(|state| state.position).ok_or_else(|| not_read(partition))
    }

    /// Ends it: who waits gets a failure with the code `closed`, and so does every further call but this one.
    pub async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        if check_process().is_err() {
            return;
        }
        let commands = Commands::new(&self.0);
        let source = self.0.source.lock().await.take();
        drop((commands, source));
        *self.0.shelf.lock() = Shelf::default();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }
}

fn not_read(partition: u32) -> Failure {
    Failure::invalid(format!("partition {partition} is not one of those that this consumer reads"))
}

/// Waits until then; for ever where there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Counts a command, and interrupts who holds the source.
struct Commands<'a>(&'a Inner);

impl<'a> Commands<'a> {
    fn new(inner: &'a Inner) -> Commands<'a> {
        inner.commands.fetch_add(1, Ordering::AcqRel);
        inner.interrupt.notify_waiters();
        Commands(inner)
    }
}

impl Drop for Commands<'_> {
    fn drop(&mut self) {
        self.0.commands.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The source, held by a command.
struct Held<'a>(MutexGuard<'a, Option<Kept<millpond::Consumer>>>);

impl Held<'_> {
    fn core(&mut self) -> Result<&mut millpond::Consumer, Failure> {
        self.0.as_deref_mut().ok_or_else(|| Failure::closed("consumer"))
    }
}

impl Inner {
    fn check_open(&self) -> Result<(), Failure> {
        check_process()?;
        if self.closed.load(Ordering::Acquire) { Err(Failure::closed("consumer")) } else { Ok(()) }
    }

    /// The source for a command.
    async fn command(&self) -> Result<Held<'_>, Failure> {
        self.check_open()?;
        let _counted = Commands::new(self);
        self.source().await.map(Held)
    }

    /// The source, opened.
    async fn source(&self) -> Result<MutexGuard<'_, Option<Kept<millpond::Consumer>>>, Failure> {
        let mut source = self.source.lock().await;
        self.check_open()?;
        if source.is_none() {
            *source = Some(Kept::new(self.builder()?.build().await?));
        }
        Ok(source)
    }

    async fn open_at(&self, partition: Option<u32>, place: Place) -> Result<millpond::Consumer, Failure> {
        let builder = self.builder()?;
        let Some(number) = partition else { return Ok(builder.start(place.into()).offsets([]).build().await?) };
        let consumer = builder.start_in(number, place.into()).build().await?;
        if consumer.partitions().any(|read| read == number) { Ok(consumer) } else { Err(not_read(number)) }
    }

    fn builder(&self) -> Result<millpond::ConsumerBuilder, Failure> {
        let options = &self.options;
        let mut builder =
            self.client.core()?.consumer(Arc::clone(&self.topic)).until_end(options.until_end).offsets(options.offsets.clone());
        if let Some(place) = options.start {
            builder = builder.start(place.into());
        }
        if let Some(partitions) = &options.partitions {
            builder = builder.partitions(partitions.iter().copied());
        }
        if let Some(view) = &options.view {
            builder = builder.view(view.as_str());
        }
        let policy = options.on_out_of_range.unwrap_or(OnOutOfRange::Error);
        Ok(builder.on_out_of_range(OutOfRange::from(policy)))
    }
}

impl Shelf {
    /// Whether there is enough, or will be no more; none to wait on. `until` is when the wait ends, which begins with the first record.
    fn answer(&mut self, records: usize, wait: Duration, until: &mut Option<Instant>) -> Option<Result<bool, Failure>> {
        loop {
            let (mut count, mut bytes, mut failed) = (0, 0, false);
            for item in &self.items {
                match item {
                    Item::Failed(_) => failed = true,
                    Item::Records(found) if !self.paused.contains(&found.partition()) => {
                        count += found.len();
                        bytes += found.bytes().len();
                    }
                    Item::Records(_) => {}
                }
            }
            if failed || count >= records.max(1) || bytes >= SHELF_BYTES_MAX {
                return Some(Ok(true));
            }
            if self.unpack_next() {
                continue;
            }
            if count == 0 {
                return self.ended.then(|| self.end());
            }
            let now = Instant::now();
            // A wait that is longer than the clock goes has no end.
            let end = *until.get_or_insert_with(|| now.checked_add(wait).unwrap_or(now + Duration::from_hours(24)));
            return (self.ended || end <= now).then_some(Ok(true));
        }
    }

    /// What whoever waits is told once nothing more will come.
    fn end(&self) -> Result<bool, Failure> {
        match &self.last_failure {
            Some(failure) if self.all_failed => Err(failure.clone()),
            _ => Ok(false),
        }
    }

    /// Unpacks some more of what arrived; false if nothing is packed any more.
    fn unpack_next(&mut self) -> bool {
        let Some(unpacked) = self.packed.as_mut().and_then(Iterator::next) else {
            self.packed = None;
            return false;
        };
        self.items.push_back(unpacked.map_or_else(Item::Failed, Item::Records));
        true
    }

    /// What came next from a source of so many partitions, of which these have failed.
    fn put(
        &mut self,
        next: Option<Result<millpond::ConsumedBatch, millpond::Error>>,
        failed: BTreeSet<u32>,
        partitions: usize,
        topic: &Arc<str>,
    ) {
        match next {
            Some(Ok(batch)) => {
                while self.unpack_next() {}
                self.packed = Some(Unpack::new(batch));
            }
            Some(Err(error)) => {
                while self.unpack_next() {}
                let mut failure = Failure::from(error);
                failure.partition = failure.partition.or_else(|| failed.difference(&self.failed).next().copied());
                failure.topic = failure.partition.map(|_| Arc::clone(topic));
                self.last_failure = Some(failure.clone());
                self.items.push_back(Item::Failed(failure));
            }
            None => {
                self.ended = true;
                self.all_failed = failed.len() == partitions;
            }
        }
        self.failed = failed;
    }

    fn take(&mut self, records_max: usize) -> Result<Option<Records>, Failure> {
        loop {
            let paused = &self.paused;
            let wanted = |item: &Item| !matches!(item, Item::Records(records) if paused.contains(&records.partition()));
            let Some(at) = self.items.iter().position(wanted) else {
                if self.unpack_next() {
                    continue;
                }
                return Ok(None);
            };
            if let Some(Item::Records(records)) = self.items.get_mut(at)
                && records.len() > records_max
            {
                return Ok(Some(records.split_to(records_max)));
            }
            return match self.items.remove(at) {
                Some(Item::Records(records)) => Ok(Some(records)),
                Some(Item::Failed(failure)) => Err(failure),
                None => Ok(None),
            };
        }
    }

    /// After a seek: what was there is not wanted any more.
    fn forget(&mut self, partition: Option<u32>) {
        let is_meant = |found: u32| partition.is_none_or(|partition| partition == found);
        self.items.retain(|item| match item {
            Item::Records(records) => !is_meant(records.partition()),
            Item::Failed(failure) => !failure.partition.is_some_and(is_meant),
        });
        if self.packed.as_ref().is_some_and(|packed| is_meant(packed.partition())) {
            self.packed = None;
        }
        self.ended = false;
        self.all_failed = false;
    }

    fn set_paused(&mut self, paused: BTreeSet<u32>) {
        // What is packed has a place among the others then, and can wait there.
        while self.unpack_next() {}
        self.paused = paused;
    }

    /// Where a partition is, if anything of it is here.
    fn position(&self, partition: u32) -> Option<i64> {
        let first = |item: &Item| match item {
            Item::Records(records) if records.partition() == partition => records.offsets().first().copied(),
            _ => None,
        };
        let packed = || self.packed.as_ref().filter(|packed| packed.partition() == partition).and_then(Unpack::position);
        self.items.iter().find_map(first).or_else(packed)
    }
}

#[cfg(test)]
mod tests;
