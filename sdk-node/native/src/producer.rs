//! Records on their way to the core, and answers on their way back.
//!
//! ```text
//!   send()  ──>  queue  ──>  one task: record by record into the core, in order, waiting where its buffer is full
//!                               |
//!                               v      for each hand-over a task that waits for its answers
//!   answers()  <──  columns  <──+
//! ```
//!
//! What is in the queue is bounded by the TypeScript half: `sendMany` and `ready` wait for answers.

use crate::promise::{error, promise, text};
use bytes::{Buf as _, Bytes};
use millpond_bridge::{Failure, Fate, ProducerOptions, Record, RecordPlace, producer::Outcome, runtime};
use napi::{
    Env,
    bindgen_prelude::{BigInt64Array, Float64Array, Int32Array, Object, Uint8Array},
};
use napi_derive::napi;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
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
    queue: Mutex<Option<mpsc::UnboundedSender<Command>>>,
    answered: Arc<Answered>,
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

impl Producer {
    pub(crate) fn new(client: &millpond_bridge::Client, topic: &str, options: ProducerOptions) -> Result<Producer, Failure> {
        let producer = millpond_bridge::Producer::new(client, topic, options)?;
        let (queue, commands) = mpsc::unbounded_channel();
        let answered = Arc::new(Answered::default());
        runtime::handle()?.spawn(run(producer, commands, Arc::clone(&answered)));
        Ok(Producer { queue: Mutex::new(Some(queue)), answered })
    }

    fn command(&self, command: Command) -> napi::Result<()> {
        let sent = self.queue.lock().as_ref().is_some_and(|queue| queue.send(command).is_ok());
        if sent { Ok(()) } else { Err(error(&Failure::closed("producer"))) }
    }
}

#[napi]
impl Producer {
    /// Hands over records. Bytes and table are copied.
    #[napi]
    pub fn send(&self, number: f64, bytes: &[u8], table: &[f64]) -> napi::Result<()> {
        self.command(Command::Send(Sent { number, bytes: Bytes::copy_from_slice(bytes), table: table.to_vec() }))
    }

    /// What waits for company in the core goes at once.
    #[napi]
    pub fn hurry(&self) -> napi::Result<()> {
        self.command(Command::Hurry)
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
        *self.queue.lock() = None;
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
async fn run(producer: millpond_bridge::Producer, mut commands: mpsc::UnboundedReceiver<Command>, answered: Arc<Answered>) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Send(sent) => {
                let sendings = producer.send_many(records(&sent)).await;
                tokio::spawn(watch(sent.number, sendings, Arc::clone(&answered)));
            }
            Command::Hurry => {
                let producer = producer.clone();
                // What fails is told by the answers.
                tokio::spawn(async move { producer.flush(None).await });
            }
        }
    }
}

/// Hands on the answers to the records of one hand-over, as they come.
async fn watch(number: f64, sendings: Vec<Result<millpond_bridge::Sending, Failure>>, answered: Arc<Answered>) {
    let mut waiting = Vec::with_capacity(sendings.len());
    let mut known = Vec::new();
    for (index, sending) in sendings.into_iter().enumerate() {
        match sending {
            Ok(sending) => waiting.push((index, sending)),
            Err(failure) => known.push((index, Err(failure))),
        }
    }
    loop {
        waiting.retain_mut(|(index, sending)| match sending.try_get() {
            Some(outcome) => {
                known.push((*index, outcome));
                false
            }
            None => true,
        });
        answered.put(number, known.drain(..));
        let Some((_, first)) = waiting.first_mut() else { return };
        // Its answer is seen in the next turn, with those of the others that have come by then.
        let _ = timeout(LOOK_AGAIN, first).await;
    }
}

impl Answered {
    fn put(&self, number: f64, outcomes: impl ExactSizeIterator<Item = (usize, Outcome)>) {
        if outcomes.len() == 0 {
            return;
        }
        let mut guard = self.rows.lock();
        for (index, outcome) in outcomes {
            guard.0.push(number, index, outcome);
        }
        drop(guard);
        self.some.notify_one();
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
    let (key, value) = (part(row[0], rest)?, part(row[1], rest)?);
    let count = length(row[2]).unwrap_or_default();
    let mut headers = Vec::with_capacity(count.min(rest.len()));
    let mut section = part(row[3], rest)?.unwrap_or_default();
    for _ in 0..count {
        let name_length = section.try_get_u32_le().map_err(|_| torn())?;
        let value_length = section.try_get_i32_le().map_err(|_| torn())?;
        let name = part(f64::from(name_length), &mut section)?.unwrap_or_default();
        let name = String::from_utf8(name.to_vec()).map_err(|_| Failure::invalid("the name of a header is not UTF-8"))?;
        headers.push((name, part(f64::from(value_length), &mut section)?));
    }
    #[expect(clippy::cast_possible_truncation, reason = "it was a whole number that JavaScript has exactly")]
    let timestamp = (!row[5].is_nan()).then_some(row[5] as i64);
    let partition = length(row[4]).and_then(|partition| u32::try_from(partition).ok());
    Ok(Record { key, value, headers, timestamp, partition })
}

/// As many bytes, taken from the front; none for a length of -1.
fn part(bytes: f64, rest: &mut Bytes) -> Result<Option<Bytes>, Failure> {
    match length(bytes) {
        None => Ok(None),
        Some(length) if length <= rest.len() => Ok(Some(rest.split_to(length))),
        Some(_) => Err(torn()),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "lengths of buffers are whole and far below 2^53")]
fn length(number: f64) -> Option<usize> {
    (number >= 0.0).then_some(number as usize)
}

#[cold]
fn torn() -> Failure {
    Failure::invalid("the table of a hand-over does not fit to its bytes")
}
