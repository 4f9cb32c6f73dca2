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
    PyTraverseError, PyVisit,
    exceptions::PyException,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyType},
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How bytes become keys and values; none leaves them as they are. An object of Python's own, so that its collector sees the deserializers once, however
/// many objects share them.
#[pyclass(frozen, module = "millpond._core")]
pub(crate) struct Decoding {
    key: Option<Py<PyAny>>,
    value: Option<Py<PyAny>>,
    policy: Policy,
    /// Records that were skipped because they could not be decoded.
    skipped: AtomicU64,
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

#[pymethods]
impl Decoding {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.key)?;
        visit.call(&self.value)
    }
}

impl Decoding {
    pub(crate) fn new(key: Option<Py<PyAny>>, value: Option<Py<PyAny>>, on_error: &str) -> Decoding {
        let policy = match on_error {
            "skip" => Policy::Skip,
            "raw" => Policy::Raw,
            "dead-letter" => Policy::Letter,
            _ => Policy::Raise,
        };
        Decoding { key, value, policy, skipped: AtomicU64::new(0) }
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
            (Err(failed), Policy::Raise | Policy::Letter) => Err(failed.exception(py, raw(Part::Raw, Part::Raw))),
            (Err(_), Policy::Raw) => Ok(Made::Record(raw(Part::Raw, Part::Raw))),
            (Err(_), Policy::Skip) => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                Ok(Made::Skipped)
            }
        }
    }
}

impl Decoding {
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
    cursor: Mutex<Option<Cursor>>,
    decoding: Py<Decoding>,
}

struct Cursor {
    records: Records,
    index: usize,
}

impl Consumer {
    pub(crate) fn new(py: Python<'_>, source: millpond_bridge::Consumer, decoding: Decoding) -> PyResult<Consumer> {
        Ok(Consumer { source, cursor: Mutex::default(), decoding: Py::new(py, decoding)? })
    }

    /// Before a command, so that it counts for the records that were not handed out yet.
    fn hand_back(&self) {
        if let Some(Cursor { mut records, index }) = self.cursor.lock().take() {
            drop(records.split_to(index));
            self.source.hand_back(records);
        }
    }

    /// What comes next of what is here, and its index.
    #[inline]
    fn step(&self) -> Result<Option<(Records, usize)>, Failure> {
        let mut cursor = self.cursor.lock();
        loop {
            if let Some(Cursor { records, index }) = cursor.as_mut()
                && *index < records.len()
            {
                *index += 1;
                return Ok(Some((records.clone(), *index - 1)));
            }
            *cursor = self.source.take(usize::MAX)?.map(|records| Cursor { records, index: 0 });
            if cursor.is_none() {
                return Ok(None);
            }
        }
    }

    /// The next record that is here, without waiting. No lock is held while Python runs, as it does where an exception is made: another thread may get
    /// the GIL then, and would wait for the lock with it.
    #[inline]
    fn next_here(&self, py: Python<'_>) -> PyResult<Option<Record>> {
        loop {
            let here = self.step().map_err(|failure| exception(py, &failure))?;
            let Some((records, index)) = here else { return Ok(None) };
            match self.decoding.get().record(py, &records, index) {
                Ok(Made::Record(record)) => return Ok(Some(record)),
                Ok(Made::Skipped) => {}
                Err(error) => {
                    if !error.is_instance_of::<PyException>(py) {
                        self.step_back(&records, index);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// A record whose deserializer was interrupted, as by Ctrl-C, is the next one again, unless another thread is behind it already.
    fn step_back(&self, interrupted: &Records, at: usize) {
        if let Some(Cursor { records, index }) = self.cursor.lock().as_mut()
            && *index == at + 1
            && records.partition() == interrupted.partition()
            && records.offsets().get(at) == interrupted.offsets().get(at)
        {
            *index = at;
        }
    }
}

#[pymethods]
impl Consumer {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.decoding)
    }

    /// Opens the partitions.
    fn open(&self, py: Python<'_>) -> PyResult<()> {
        let consumer = self.source.clone();
        block_on(py, async move { consumer.open().await })
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
        let consumer = self.source.clone();
        block_on(py, async move { ready(&consumer, records, wait, within).await })
    }

    /// The same for a future of asyncio.
    #[pyo3(signature = (future, records, wait, within=None))]
    fn ready_async(&self, future: &Bound<'_, PyAny>, records: usize, wait: Seconds, within: Option<Seconds>) -> PyResult<Operation> {
        self.hand_back();
        let consumer = self.source.clone();
        start(future, async move { ready(&consumer, records, wait, within).await }, |ready| ready.map_or(Answer::Nothing, Answer::Bool))
    }

    /// What is here, at most so many records; None if nothing is.
    fn take_batch(&self, py: Python<'_>, records_max: usize) -> PyResult<Option<Batch>> {
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
        Ok(if parts.is_empty() { None } else { Some(Batch::new(parts, self.decoding.clone_ref(py))) })
    }

    /// Goes on from another place (JSON).
    fn seek(&self, py: Python<'_>, partition: Option<PartitionNumber>, place: &str) -> PyResult<()> {
        let place = parse_place(place)?;
        self.hand_back();
        let (consumer, partition) = (self.source.clone(), number(partition));
        block_on(py, async move { consumer.seek(partition, place).await })
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
        let (consumer, partition) = (self.source.clone(), number(partition));
        block_on(py, async move { consumer.pause(partition).await })
    }

    /// The same for a future of asyncio.
    fn pause_async(&self, future: &Bound<'_, PyAny>, partition: Option<PartitionNumber>) -> PyResult<Operation> {
        self.hand_back();
        let (consumer, partition) = (self.source.clone(), number(partition));
        start(future, async move { consumer.pause(partition).await }, |()| Answer::Nothing)
    }

    /// Goes on with a partition, or with all.
    fn resume(&self, py: Python<'_>, partition: Option<PartitionNumber>) -> PyResult<()> {
        let (consumer, partition) = (self.source.clone(), number(partition));
        block_on(py, async move { consumer.resume(partition).await })
    }

    /// The same for a future of asyncio.
    fn resume_async(&self, future: &Bound<'_, PyAny>, partition: Option<PartitionNumber>) -> PyResult<Operation> {
        let (consumer, partition) = (self.source.clone(), number(partition));
        start(future, async move { consumer.resume(partition).await }, |()| Answer::Nothing)
    }

    /// The offset of the next record of a partition.
    fn position(&self, py: Python<'_>, partition: PartitionNumber) -> PyResult<i64> {
        self.hand_back();
        let (consumer, PartitionNumber(partition)) = (self.source.clone(), partition);
        block_on(py, async move { consumer.position(partition).await })
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
        let consumer = self.source.clone();
        block_on(py, async move { states(&consumer).await })
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
        let consumer = self.source.clone();
        block_on(py, async move { closed(&consumer).await })
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
        self.decoding.get().skipped.load(Ordering::Relaxed)
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
            "{{\"partition\":{},\"position\":{},\"paused\":{},\"log_start\":{},\"high_watermark\":{}}}",
            state.partition, state.position, state.paused, state.log_start, state.high_watermark
        )
    };
    Ok(format!("[{}]", states.iter().map(state).collect::<Vec<_>>().join(",")))
}

/// The records of a consumer, one after the other; waits on this thread.
#[pyclass(frozen, module = "millpond._core")]
pub(crate) struct RecordIterator(Py<Consumer>);

#[pymethods]
impl RecordIterator {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Record>> {
        let consumer = self.0.get();
        loop {
            if let Some(record) = consumer.next_here(py)? {
                return Ok(Some(record));
            }
            let source = consumer.source.clone();
            if !block_on(py, async move { source.ready(1, Duration::ZERO).await })? {
                return Ok(None);
            }
        }
    }
}
