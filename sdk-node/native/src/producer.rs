//! Records on their way to the core, and answers on their way back.
//!
//! ```text
//!   send()  ──────────────────>  into the open batches of the core, at once, for as long as there is room
//!      |                            |
//!      +──>  queue  ──> one task ──>+  what finds none, in order, and all that comes behind it until the queue is empty
//!                                   |
//!   answers()  <──  columns  <──────+  for each hand-over a task that waits for its answers
//! ```
//!
//! A record is encoded on the thread of the event loop, by one copy out of memory that this thread has just written: handing it to another thread
//! costs more than that. Everything else, compression, checksums and encryption among it, is done on the core's threads.
//!
//! What is in the queue is bounded by the TypeScript half: `sendMany` and `ready` wait for answers.

use crate::promise::{error, promise, text};
use bytes::{Buf as _, Bytes};
use millpond_bridge::{BorrowedRecord, Failure, Fate, ProducerOptions, Record, RecordPlace, Runs, producer::Outcome, runtime};
use napi::{
    Env,
    bindgen_prelude::{BigInt64Array, Float64Array, Int32Array, Object, Uint8Array},
};
use napi_derive::napi;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};

/// Numbers for each record in the table of a hand-over, as the TypeScript half's `packer` draws it.
const COLUMNS: usize = 6;

/// How long the answers to later records of a hand-over may be held back by an earlier one whose partition is slow.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Sends records to one topic.
#[napi]
#[derive(Debug)]
pub struct Producer {
    open: Mutex<Option<Open>>,
    answered: Arc<Answered>,
}

/// What there is until it is closed.
#[derive(Debug)]
struct Open {
    core: millpond_bridge::Producer,
    queue: mpsc::UnboundedSender<Command>,
    /// Commands in the queue, and the one that is carried out.
    queued: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Command {
    Send(Sent),
    Hurry,
}

/// What was handed over in one call.
#[derive(Debug)]
struct Sent {
    number: f64,
    /// Records of the hand-over that went before these.
    first: usize,
    bytes: Bytes,
    table: Vec<f64>,
}

/// Answers that nobody has taken yet.
#[derive(Debug, Default)]
struct Answered {
    rows: Mutex<(Rows, bool)>,
    some: Notify,
}

/// Answers, column by column. A row stands for records that follow each other in a hand-over and in a partition.
#[derive(Debug, Default)]
struct Rows {
    /// Records that these rows answer.
    answered: usize,
    sendings: Vec<f64>,
    indexes: Vec<i32>,
    counts: Vec<i32>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    fates: Vec<u8>,
    append_times_ms: Vec<f64>,
    failed: Vec<i32>,
    failures: Vec<String>,
    /// The last of `failures`, which the records of a batch share.
    last: Option<Failure>,
}

/// Answers to records, in columns: a row for each run of records that follow each other and went the same way.
#[napi(object, object_from_js = false)]
pub struct Answers {
    /// The number of the hand-over.
    pub sendings: Float64Array,
    /// Which of its records is the first of the run.
    pub indexes: Int32Array,
    /// How many records the run has.
    pub counts: Int32Array,
    /// The partition; -1 for none.
    pub partitions: Int32Array,
    /// The offset of the first; -1 for none. Those of records that are stored (0 and 2) follow it one by one, the others share it.
    pub offsets: BigInt64Array,
    /// 0 stored, 1 dropped, 2 stored unless dropped, 3 expanded.
    pub fates: Uint8Array,
    /// When it was stored; -1 where that is not known.
    pub append_times_ms: Float64Array,
    /// Which of the failures; -1 for none.
    pub failed: Int32Array,
    /// Failures as JSON.
    pub failures: Vec<String>,
}

/// What a producer has done so far.
#[napi(object, object_from_js = false)]
pub struct ProducerStats {
    /// Records that are stored.
    pub records: f64,
    /// Of these, records that a transform has left out.
    pub records_dropped: f64,
    /// Records that could not be sent.
    pub records_failed: f64,
    /// Records that were sent more than once.
    pub records_resent: f64,
    /// Bytes of their batches, as they travelled.
    pub bytes: f64,
    /// Batches that were acknowledged.
    pub batches: f64,
    /// Batches that were sent again.
    pub retries: f64,
    /// Bytes of records that wait for their answers.
    pub buffered_bytes: f64,
    /// Half of the batches were answered within so many milliseconds.
    pub ack_latency_p50_ms: f64,
    /// 99 of 100 were.
    pub ack_latency_p99_ms: f64,
}

impl Producer {
    pub(crate) fn new(client: &millpond_bridge::Client, topic: &str, options: ProducerOptions) -> Result<Producer, Failure> {
        let core = millpond_bridge::Producer::new(client, topic, options)?;
        let (queue, commands) = mpsc::unbounded_channel();
        let (queued, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(Answered::default()));
        runtime::handle()?.spawn(run(core.clone(), commands, Arc::clone(&queued), Arc::clone(&answered)));
        Ok(Producer { open: Mutex::new(Some(Open { core, queue, queued })), answered })
    }

    fn with_open<T>(&self, then: impl FnOnce(&Open) -> Result<T, Failure>) -> napi::Result<T> {
        let open = self.open.lock();
        open.as_ref().ok_or_else(|| Failure::closed("producer")).and_then(then).map_err(|failure| error(&failure))
    }
}

impl Open {
    fn command(&self, command: Command) -> Result<(), Failure> {
        self.queued.fetch_add(1, Ordering::AcqRel);
        self.queue.send(command).map_err(|_| Failure::closed("client"))
    }

    /// Sends what finds room at this moment, and says how many records and bytes of the hand-over that were.
    fn send_now(&self, bytes: &[u8], table: &[f64], runs: &mut Runs) -> (usize, usize) {
        let (mut rest, mut sent) = (bytes, 0);
        // Only this thread adds to the queue: where it is empty, it stays so meanwhile. Where nothing can be sent, the queue has the error.
        if self.queued.load(Ordering::Acquire) == 0
            && let Ok(Some(now)) = self.core.now()
        {
            for row in table.chunks_exact(COLUMNS) {
                let mut behind = rest;
                match with_record(row, &mut behind, |record| now.send(record)).flatten() {
                    Ok(None) => break,
                    Ok(Some(sending)) => runs.push(sent, Ok(sending)),
                    Err(failure) => runs.push(sent, Err(failure)),
                }
                rest = behind;
                sent += 1;
            }
        }
        (sent, bytes.len() - rest.len())
    }
}

#[napi]
impl Producer {
    /// Hands over records. Bytes and table are copied.
    #[napi]
    pub fn send(&self, number: f64, bytes: &[u8], table: &[f64]) -> napi::Result<()> {
        self.with_open(|open| {
            let mut runs = Runs::default();
            let (first, at) = open.send_now(bytes, table, &mut runs);
            if !runs.is_empty() {
                runtime::handle()?.spawn(watch(number, runs, Arc::clone(&self.answered)));
            }
            let table = &table[first * COLUMNS..];
            if table.is_empty() {
                return Ok(());
            }
            open.command(Command::Send(Sent { number, first, bytes: Bytes::copy_from_slice(&bytes[at..]), table: table.to_vec() }))
        })
    }

    /// What it has done so far.
    #[napi]
    pub fn stats(&self) -> napi::Result<ProducerStats> {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let count = |number: u64| number as f64;
        self.with_open(|open| {
            let stats = open.core.stats();
            Ok(ProducerStats {
                records: count(stats.records),
                records_dropped: count(stats.records_dropped),
                records_failed: count(stats.records_failed),
                records_resent: count(stats.records_resent),
                bytes: count(stats.bytes),
                batches: count(stats.batches),
                retries: count(stats.retries),
                buffered_bytes: count(stats.buffered_bytes),
                ack_latency_p50_ms: stats.ack_latency.p50.as_secs_f64() * 1_000.0,
                ack_latency_p99_ms: stats.ack_latency.p99.as_secs_f64() * 1_000.0,
            })
        })
    }

    /// What waits for company in the core goes at once.
    #[napi]
    pub fn hurry(&self) -> napi::Result<()> {
        self.with_open(|open| open.command(Command::Hurry))
    }

    /// The answers that have come since the last call, at least one; none once the producer is closed.
    #[napi(ts_return_type = "Promise<Answers>")]
    pub fn answers<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let answered = Arc::clone(&self.answered);
        promise(env, None, async move { Ok(Answers::from(answered.take().await)) })
    }

    /// Takes no more records. What was handed over is sent for as long as the client is open, and nobody is told.
    #[napi]
    pub fn close(&self) {
        *self.open.lock() = None;
        self.answered.rows.lock().1 = true;
        self.answered.some.notify_one();
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Sends what comes, in order, until the queue is closed.
async fn run(
    producer: millpond_bridge::Producer,
    mut commands: mpsc::UnboundedReceiver<Command>,
    queued: Arc<AtomicUsize>,
    answered: Arc<Answered>,
) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Send(sent) => {
                let runs = producer.send_many(sent.first, records(&sent)).await;
                tokio::spawn(watch(sent.number, runs, Arc::clone(&answered)));
            }
            Command::Hurry => {
                let producer = producer.clone();
                // What fails is told by the answers.
                tokio::spawn(async move { producer.flush(None).await });
            }
        }
        queued.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Hands on the answers to the records of one hand-over, as they come.
async fn watch(number: f64, mut runs: Runs, answered: Arc<Answered>) {
    loop {
        answered.put(number, &mut runs);
        if runs.is_empty() {
            return;
        }
        // Its answer is seen in the next turn, with those of the others that have come by then.
        let _ = timeout(LOOK_AGAIN, runs.answered()).await;
    }
}

impl Answered {
    fn put(&self, number: f64, runs: &mut Runs) {
        let mut guard = self.rows.lock();
        let before = guard.0.answered;
        runs.take_answered(|index, outcome| guard.0.push(number, index, outcome));
        let is_more = guard.0.answered > before;
        drop(guard);
        if is_more {
            self.some.notify_one();
        }
    }

    async fn take(&self) -> Rows {
        loop {
            {
                let mut guard = self.rows.lock();
                if guard.1 || !guard.0.sendings.is_empty() {
                    return std::mem::take(&mut guard.0);
                }
            }
            self.some.notified().await;
        }
    }
}

impl Rows {
    fn push(&mut self, number: f64, index: usize, outcome: Outcome) {
        self.answered += 1;
        let index = i32::try_from(index).unwrap_or(-1);
        let (place, failed) = match outcome {
            Ok(place) => (Some(place), -1),
            Err(failure) => (None, self.failure(failure)),
        };
        let partition = place.map_or(-1, |place| i32::try_from(place.partition).unwrap_or(-1));
        let (offset, fate) = (place.map_or(-1, |place| place.offset), place.as_ref().map_or(0, fate));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact for 285,000 years")]
        let append_time = place.and_then(|place| place.append_time_ms).map_or(-1.0, |ms| ms as f64);
        if let Some(count) = self.counts.last_mut() {
            let row = self.sendings.len() - 1;
            let step = if failed < 0 && STORED.contains(&fate) { i64::from(*count) } else { 0 };
            let follows = (self.sendings[row].to_bits(), self.indexes[row] + *count) == (number.to_bits(), index)
                && (self.partitions[row], self.offsets[row] + step, self.fates[row]) == (partition, offset, fate)
                && (self.append_times_ms[row].to_bits(), self.failed[row]) == (append_time.to_bits(), failed);
            if follows {
                *count += 1;
                return;
            }
        }
        self.sendings.push(number);
        self.indexes.push(index);
        self.counts.push(1);
        self.failed.push(failed);
        self.partitions.push(partition);
        self.offsets.push(offset);
        self.fates.push(fate);
        self.append_times_ms.push(append_time);
    }

    /// The number of a failure; one that follows its like has the same.
    fn failure(&mut self, failure: Failure) -> i32 {
        if self.last.as_ref() != Some(&failure) {
            self.failures.push(text(&failure));
            self.last = Some(failure);
        }
        i32::try_from(self.failures.len()).unwrap_or(1) - 1
    }
}

/// Fates of records that have an offset of their own, see [`fate`].
const STORED: [u8; 2] = [0, 2];

fn fate(place: &RecordPlace) -> u8 {
    match place.fate {
        Fate::Dropped => 1,
        Fate::StoredUnlessDropped => 2,
        Fate::Expanded => 3,
        // `Stored`, and what a newer core may know.
        _ => 0,
    }
}

impl From<Rows> for Answers {
    fn from(rows: Rows) -> Answers {
        Answers {
            sendings: Float64Array::new(rows.sendings),
            indexes: Int32Array::new(rows.indexes),
            counts: Int32Array::new(rows.counts),
            partitions: Int32Array::new(rows.partitions),
            offsets: BigInt64Array::new(rows.offsets),
            fates: Uint8Array::new(rows.fates),
            append_times_ms: Float64Array::new(rows.append_times_ms),
            failed: Int32Array::new(rows.failed),
            failures: rows.failures,
        }
    }
}

/// The records of a hand-over: parts of its bytes.
fn records(sent: &Sent) -> impl Iterator<Item = Result<Record, Failure>> {
    let mut rest = sent.bytes.clone();
    sent.table.chunks_exact(COLUMNS).map(move |row| record(row, &mut rest))
}

fn record(row: &[f64], rest: &mut Bytes) -> Result<Record, Failure> {
    let whole = rest.clone();
    let mut behind = &whole[..];
    let record = with_record(row, &mut behind, |record| {
        let owned = |part: Option<&[u8]>| part.map(|part| whole.slice_ref(part));
        Record {
            key: owned(record.key),
            value: owned(record.value),
            headers: record.headers.iter().map(|(name, value)| ((*name).to_owned(), owned(*value))).collect(),
            timestamp: record.timestamp,
            partition: record.partition,
        }
    })?;
    rest.advance(whole.len() - behind.len());
    Ok(record)
}

/// Headers of a record that are lent without taking memory for that.
const HEADERS_ON_STACK_MAX: usize = 8;

/// Lends the record of this row, whose bytes are taken from the front.
fn with_record<T>(row: &[f64], rest: &mut &[u8], then: impl FnOnce(&BorrowedRecord<'_>) -> T) -> Result<T, Failure> {
    let (key, value) = (part(row[0], rest)?, part(row[1], rest)?);
    let mut section = part(row[3], rest)?.unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "it was a whole number that JavaScript has exactly")]
    let timestamp = (!row[5].is_nan()).then_some(row[5] as i64);
    let partition = length(row[4]).and_then(|partition| u32::try_from(partition).ok());
    let borrowed = BorrowedRecord { key, value, headers: &[], timestamp, partition };
    let count = length(row[2]).unwrap_or_default();
    if count == 0 {
        return Ok(then(&borrowed));
    }
    if count > HEADERS_ON_STACK_MAX {
        let headers = (0..count).map(|_| header(&mut section)).collect::<Result<Vec<_>, _>>()?;
        return Ok(then(&BorrowedRecord { headers: &headers, ..borrowed }));
    }
    let mut headers = [("", None); HEADERS_ON_STACK_MAX];
    for place in &mut headers[..count] {
        *place = header(&mut section)?;
    }
    Ok(then(&BorrowedRecord { headers: &headers[..count], ..borrowed }))
}

fn header<'a>(section: &mut &'a [u8]) -> Result<(&'a str, Option<&'a [u8]>), Failure> {
    let name_length = section.try_get_u32_le().map_err(|_| torn())?;
    let value_length = section.try_get_i32_le().map_err(|_| torn())?;
    let name = part(f64::from(name_length), section)?.unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_| Failure::invalid("the name of a header is not UTF-8"))?;
    Ok((name, part(f64::from(value_length), section)?))
}

/// As many bytes, taken from the front; none for a length of -1.
fn part<'a>(bytes: f64, rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Failure> {
    let Some(length) = length(bytes) else { return Ok(None) };
    let (part, behind) = rest.split_at_checked(length).ok_or_else(torn)?;
    *rest = behind;
    Ok(Some(part))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "lengths of buffers are whole and far below 2^53")]
fn length(number: f64) -> Option<usize> {
    (number >= 0.0).then_some(number as usize)
}

#[cold]
fn torn() -> Failure {
    Failure::invalid("the table of a hand-over does not fit to its bytes")
}
