//! Records on their way to an iterator.

use crate::{
    encoding::{PartitionNumber, Seconds},
    failure::{exception, raise},
    record::{Batch, Part, Record},
    wait::{Answer, Operation, block_on, start},
};
use millpond_bridge::{Failure, Place, Records, options::Options};
use parking_lot::Mutex;
use pyo3::{
    IntoPyObjectExt,
    exceptions::PyException,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyType},
};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How bytes become keys and values; none leaves them as they are.
pub(crate) struct Decoding {
    key: Option<Py<PyAny>>,
    value: Option<Py<PyAny>>,
    policy: Policy,
    /// Records that were skipped because they could not be decoded.
    skipped: AtomicU64,
    /// Partitions and offsets of records that were stored as dead letters, and were not passed by since.
    letters: Mutex<HashSet<(u32, i64)>>,
}

/// What becomes of a record that cannot be decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// The exception goes to who iterates.
    Raise,
    Skip,
    /// It is handed out with bytes.
    Raw,
    /// The exception goes to the package, which makes a dead letter of the record.
    Letter,
}

/// A record that was made, or not.
pub(crate) enum Made {
    Record(Record),
    Skipped,
}

impl Decoding {
    pub(crate) fn new(key: Option<Py<PyAny>>, value: Option<Py<PyAny>>, on_error: &str) -> Decoding {
        let policy = match on_error {
            "skip" => Policy::Skip,
            "raw" => Policy::Raw,
            "dead-letter" => Policy::Letter,
            _ => Policy::Raise,
        };
        Decoding { key, value, policy, skipped: AtomicU64::new(0), letters: Mutex::default() }
    }

    /// A record as who iterates gets it.
    #[inline]
    pub(crate) fn record(&self, py: Python<'_>, records: &Records, index: usize) -> PyResult<Made> {
        let raw = |key, value| Record::new(records.clone(), index, key, value);
        if self.key.is_none() && self.value.is_none() {
            return Ok(Made::Record(raw(Part::Raw, Part::Raw)));
        }
        let decoded = decode(py, self.key.as_ref(), records.key(index), "key")
            .and_then(|key| Ok((key, decode(py, self.value.as_ref(), records.value(index), "value")?)));
        match (decoded, self.policy) {
            (Ok((key, value)), _) => Ok(Made::Record(raw(key, value))),
            // Not a mistake in the data: the user wants to stop.
            (Err(failed), _) if !failed.error.is_instance_of::<PyException>(py) => Err(failed.error),
            (Err(_), Policy::Letter) if self.letters.lock().contains(&place(records, index)) => Ok(Made::Skipped),
            (Err(failed), Policy::Raise | Policy::Letter) => Err(failed.exception(py, raw(Part::Raw, Part::Raw))),
            (Err(_), Policy::Raw) => Ok(Made::Record(raw(Part::Raw, Part::Raw))),
            (Err(_), Policy::Skip) => Ok(Made::Skipped),
        }
    }

    /// A record was passed by.
    fn pass(&self, records: &Records, index: usize) {
        match self.policy {
            Policy::Skip => drop(self.skipped.fetch_add(1, Ordering::Relaxed)),
            Policy::Letter => drop(self.letters.lock().remove(&place(records, index))),
            Policy::Raise | Policy::Raw => {}
        }
    }

    /// A record of a batch was passed by, for the first time.
    pub(crate) fn pass_in_batch(&self) {
        if self.policy == Policy::Skip {
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The exceptions for the records that have to become dead letters before these are handed out.
    fn undelivered(&self, py: Python<'_>, parts: &[Records]) -> PyResult<Vec<Py<PyAny>>> {
        let mut failures = Vec::new();
        if self.policy == Policy::Letter {
            for records in parts {
                for index in 0..records.len() {
                    failures.extend(self.failure(py, records, index)?.map(|failure| failure.into_value(py).into_any()));
                }
            }
        }
        Ok(failures)
    }

    /// A batch is handed out: its dead letters need not be known any more.
    fn pass_letters(&self, parts: &[Records]) {
        let mut letters = self.letters.lock();
        if !letters.is_empty() {
            let inside = |part: &Records, &(partition, offset): &(u32, i64)| {
                part.partition() == partition && part.offsets().binary_search(&offset).is_ok()
            };
            letters.retain(|letter| !parts.iter().any(|part| inside(part, letter)));
        }
    }

    /// A record of a batch that is handed out. What could not be decoded was made a dead letter before, where that is the policy.
    pub(crate) fn record_of_batch(&self, py: Python<'_>, records: &Records, index: usize) -> PyResult<Made> {
        match self.record(py, records, index) {
            Err(error) if self.policy == Policy::Letter && is_decode_error(py, &error)? => Ok(Made::Skipped),
            made => made,
        }
    }

    /// The exception for a record that can't be decoded.
    pub(crate) fn failure(&self, py: Python<'_>, records: &Records, index: usize) -> PyResult<Option<PyErr>> {
        match self.record(py, records, index) {
            Ok(_) => Ok(None),
            Err(error) if is_decode_error(py, &error)? => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }
}

fn place(records: &Records, index: usize) -> (u32, i64) {
    (records.partition(), records.offsets().get(index).copied().unwrap_or_default())
}

fn is_decode_error(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    static DECODE_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    Ok(error.matches(py, DECODE_ERROR.import(py, "millpond.errors", "DecodeError")?)?)
}

/// A deserializer that has failed.
struct DecodeFailed {
    what: &'static str,
    error: PyErr,
}

impl DecodeFailed {
    #[cold]
    fn exception(self, py: Python<'_>, record: Record) -> PyErr {
        static DECODE_ERROR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let make = || -> PyResult<PyErr> {
            let class = DECODE_ERROR.get_or_try_init(py, || py.import("millpond.errors")?.getattr("_decode_error").map(Bound::unbind))?;
            let exception = PyErr::from_value(class.bind(py).call1((self.what, self.error.value(py), record))?);
            exception.set_cause(py, Some(self.error.clone_ref(py)));
            Ok(exception)
        };
        make().unwrap_or_else(|error| error)
    }
}

fn decode(py: Python<'_>, deserializer: Option<&Py<PyAny>>, bytes: Option<&[u8]>, what: &'static str) -> Result<Part, DecodeFailed> {
    match (deserializer, bytes) {
        (None, _) => Ok(Part::Raw),
        (Some(_), None) => Ok(Part::Decoded(py.None())),
        (Some(deserializer), Some(bytes)) => {
            deserializer.call1(py, (PyBytes::new(py, bytes),)).map(Part::Decoded).map_err(|error| DecodeFailed { what, error })
        }
    }
}

/// Reads one topic.
#[pyclass(frozen, module = "millpond._core")]
pub(crate) struct Consumer {
    source: millpond_bridge::Consumer,
    /// What is being handed out record by record.
    cursor: Arc<Mutex<Option<Cursor>>>,
    decoding: Arc<Decoding>,
}

struct Cursor {
    records: Records,
    index: usize,
}

impl Consumer {
    pub(crate) fn new(source: millpond_bridge::Consumer, decoding: Decoding) -> Consumer {
        Consumer { source, cursor: Arc::default(), decoding: Arc::new(decoding) }
    }

    /// Before a command, so that it counts for the records that were not handed out yet.
    fn hand_back(&self) {
        if let Some(Cursor { mut records, index }) = self.cursor.lock().take() {
            drop(records.split_to(index));
            self.source.hand_back(records);
        }
    }

    /// The next record that is here, without waiting. No lock is held while Python objects are made.
    #[inline]
    fn next_here(&self, py: Python<'_>) -> PyResult<Option<Record>> {
        loop {
            let here = {
                let mut cursor = self.cursor.lock();
                match cursor.as_mut() {
                    Some(Cursor { records, index }) if *index < records.len() => {
                        *index += 1;
                        Some((records.clone(), *index - 1))
                    }
                    _ => {
                        let taken = self.source.take(usize::MAX).map_err(raise)?;
                        let Some(records) = taken else {
                            *cursor = None;
                            return Ok(None);
                        };
                        *cursor = Some(Cursor { records, index: 0 });
                        None
                    }
                }
            };
            let Some((records, index)) = here else { continue };
            match self.decoding.record(py, &records, index) {
                Ok(Made::Record(record)) => return Ok(Some(record)),
                Ok(Made::Skipped) => self.decoding.pass(&records, index),
                Err(error) => {
                    // What has to become a dead letter is the next one until it has.
                    if self.decoding.policy == Policy::Letter || !error.is_instance_of::<PyException>(py) {
                        self.step_back(&records, index);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// A record whose deserializer was interrupted, as by Ctrl-C, is the next one again; it comes alone where another thread is behind it already.
    fn step_back(&self, interrupted: &Records, at: usize) {
        if let Some(Cursor { records, index }) = self.cursor.lock().as_mut()
            && *index > at
            && place(records, at) == place(interrupted, at)
        {
            if *index == at + 1 {
                *index = at;
            } else {
                let mut alone = interrupted.clone();
                drop(alone.split_to(at));
                self.source.hand_back(alone.split_to(1));
            }
        }
    }

    fn hand_back_all(&self, parts: Vec<Records>) {
        for records in parts.into_iter().rev() {
            self.source.hand_back(records);
        }
    }
}

#[pymethods]
impl Consumer {
    /// Opens the partitions.
    fn open(&self, py: Python<'_>) -> PyResult<()> {
        block_on(py, self.source.open())
    }

    /// The same for a future of asyncio.
    fn open_async(&self, future: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let consumer = self.source.clone();
        start(future, async move { consumer.open().await }, |()| Answer::Nothing)
    }

    fn __iter__(this: Py<Self>) -> RecordIterator {
        RecordIterator(this)
    }

    /// The next record that is here; None if none is.
    fn take_next(&self, py: Python<'_>) -> PyResult<Option<Record>> {
        self.next_here(py)
    }

    /// Waits until there is something to take: so many records, or what has come so long after the first. False at the end, and None where
    /// `within` is over.
    #[pyo3(signature = (records, wait, within=None))]
    fn ready(&self, py: Python<'_>, records: usize, wait: Seconds, within: Option<Seconds>) -> PyResult<Option<bool>> {
        self.hand_back();
        block_on(py, ready(&self.source, records, wait, within))
    }

    /// The same for a future of asyncio.
    #[pyo3(signature = (future, records, wait, within=None))]
    fn ready_async(&self, future: &Bound<'_, PyAny>, records: usize, wait: Seconds, within: Option<Seconds>) -> PyResult<Operation> {
        self.hand_back();
        let consumer = self.source.clone();
        start(future, async move { ready(&consumer, records, wait, within).await }, |ready| ready.map_or(Answer::Nothing, Answer::Bool))
    }

    /// What is here, at most so many records; None if nothing is. Where records of it have to become dead letters before, their exceptions:
    /// then nothing was taken.
    fn take_batch(&self, py: Python<'_>, records_max: usize) -> PyResult<Py<PyAny>> {
        self.hand_back();
        let (mut parts, mut left) = (Vec::new(), records_max);
        while left > 0 {
            match self.source.take(left) {
                Ok(Some(records)) => {
                    left -= records.len();
                    parts.push(records);
                }
                Ok(None) => break,
                Err(failure) if parts.is_empty() => return Err(exception(py, &failure)),
                Err(failure) => {
                    // It comes behind what was read before it.
                    self.source.hand_back_failure(failure);
                    break;
                }
            }
        }
        if parts.is_empty() {
            return Ok(py.None());
        }
        match self.decoding.undelivered(py, &parts) {
            Ok(letters) if letters.is_empty() => {
                self.decoding.pass_letters(&parts);
                Batch::new(parts, Arc::clone(&self.decoding)).into_py_any(py)
            }
            waits => {
                self.hand_back_all(parts);
                waits?.into_py_any(py)
            }
        }
    }

    /// A record that could not be decoded is stored as a dead letter: reading goes on behind it.
    fn letter_stored(&self, partition: u32, offset: i64) {
        self.decoding.letters.lock().insert((partition, offset));
    }

    /// Goes on from another place (JSON).
    fn seek(&self, py: Python<'_>, partition: Option<PartitionNumber>, place: &str) -> PyResult<()> {
        let place = parse_place(place)?;
        self.hand_back();
        block_on(py, self.source.seek(number(partition), place))
    }

    /// The same for a future of asyncio.
    fn seek_async(&self, future: &Bound<'_, PyAny>, partition: Option<PartitionNumber>, place: &str) -> PyResult<Operation> {
        let place = parse_place(place)?;
        self.hand_back();
        let (consumer, partition) = (self.source.clone(), number(partition));
        start(future, async move { consumer.seek(partition, place).await }, |()| Answer::Nothing)
    }

    /// Hands out no more records of a partition, or of all.
    fn pause(&self, py: Python<'_>, partition: Option<PartitionNumber>) -> PyResult<()> {
        self.hand_back();
        block_on(py, self.source.pause(number(partition)))
    }

    /// The same for a future of asyncio.
    fn pause_async(&self, future: &Bound<'_, PyAny>, partition: Option<PartitionNumber>) -> PyResult<Operation> {
        self.hand_back();
        let (consumer, partition) = (self.source.clone(), number(partition));
        start(future, async move { consumer.pause(partition).await }, |()| Answer::Nothing)
    }

    /// Goes on with a partition, or with all.
    fn resume(&self, py: Python<'_>, partition: Option<PartitionNumber>) -> PyResult<()> {
        block_on(py, self.source.resume(number(partition)))
    }

    /// The same for a future of asyncio.
    fn resume_async(&self, future: &Bound<'_, PyAny>, partition: Option<PartitionNumber>) -> PyResult<Operation> {
        let (consumer, partition) = (self.source.clone(), number(partition));
        start(future, async move { consumer.resume(partition).await }, |()| Answer::Nothing)
    }

    /// The offset of the next record of a partition.
    fn position(&self, py: Python<'_>, partition: PartitionNumber) -> PyResult<i64> {
        self.hand_back();
        block_on(py, self.source.position(partition.0))
    }

    /// The same for a future of asyncio.
    fn position_async(&self, future: &Bound<'_, PyAny>, partition: PartitionNumber) -> PyResult<Operation> {
        self.hand_back();
        let (consumer, PartitionNumber(partition)) = (self.source.clone(), partition);
        start(future, async move { consumer.position(partition).await }, Answer::Int)
    }

    /// How the partitions are doing, as JSON.
    fn partitions(&self, py: Python<'_>) -> PyResult<String> {
        self.hand_back();
        block_on(py, states(&self.source))
    }

    /// The same for a future of asyncio.
    fn partitions_async(&self, future: &Bound<'_, PyAny>) -> PyResult<Operation> {
        self.hand_back();
        let consumer = self.source.clone();
        start(future, async move { states(&consumer).await }, Answer::Text)
    }

    /// Ends it.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.cursor.lock().take();
        block_on(py, closed(&self.source))
    }

    /// The same for a future of asyncio.
    fn close_async(&self, future: &Bound<'_, PyAny>) -> PyResult<Operation> {
        self.cursor.lock().take();
        let consumer = self.source.clone();
        start(future, async move { closed(&consumer).await }, |()| Answer::Nothing)
    }

    /// Whether it was closed.
    #[getter]
    fn is_closed(&self) -> bool {
        self.source.is_closed()
    }

    /// Records that were skipped because they could not be decoded.
    #[getter]
    fn skipped(&self) -> u64 {
        self.decoding.skipped.load(Ordering::Relaxed)
    }
}

fn number(partition: Option<PartitionNumber>) -> Option<u32> {
    partition.map(|PartitionNumber(number)| number)
}

/// A place from JSON.
fn parse_place(place: &str) -> PyResult<Place> {
    let options = millpond_bridge::ConsumerOptions::from_json(&format!("{{\"start\": {place}}}")).map_err(raise)?;
    options.start.ok_or_else(|| raise(Failure::invalid("there is no place to seek to")))
}

async fn ready(
    consumer: &millpond_bridge::Consumer,
    records: usize,
    Seconds(wait): Seconds,
    within: Option<Seconds>,
) -> Result<Option<bool>, Failure> {
    let ready = consumer.ready(records, wait);
    match within {
        None => ready.await.map(Some),
        Some(Seconds(within)) => tokio::time::timeout(within, ready).await.map_or(Ok(None), |ready| ready.map(Some)),
    }
}

async fn closed(consumer: &millpond_bridge::Consumer) -> Result<(), Failure> {
    consumer.close().await;
    Ok(())
}

async fn states(consumer: &millpond_bridge::Consumer) -> Result<String, Failure> {
    let states = consumer.partitions().await?;
    let state = |state: &millpond_bridge::PartitionState| {
        format!(
            "{{\"partition\":{},\"position\":{},\"paused\":{},\"log_start\":{},\"high_watermark\":{},\"failed\":{}}}",
            state.partition, state.position, state.paused, state.log_start, state.high_watermark, state.failed
        )
    };
    Ok(format!("[{}]", states.iter().map(state).collect::<Vec<_>>().join(",")))
}

/// The records of a consumer, one after the other; waits on this thread.
#[pyclass(frozen, module = "millpond._core")]
pub(crate) struct RecordIterator(Py<Consumer>);

#[pymethods]
impl RecordIterator {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Record>> {
        let consumer = self.0.get();
        loop {
            if let Some(record) = consumer.next_here(py)? {
                return Ok(Some(record));
            }
            if !block_on(py, consumer.source.ready(1, Duration::ZERO))? {
                return Ok(None);
            }
        }
    }
}
