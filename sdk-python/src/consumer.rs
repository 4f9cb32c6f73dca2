//! Records on their way to an iterator.

use crate::{
    decoding::{Decoding, Made, Policy, place},
    encoding::{PartitionNumber, Seconds},
    failure::{exception, raise},
    record::{Batch, Record},
    wait::{Answer, Operation, block_on, start},
};
use millpond_bridge::{Failure, Place, Records, options::Options};
use parking_lot::Mutex;
use pyo3::{IntoPyObjectExt, PyTraverseError, PyVisit, exceptions::PyException, prelude::*};
use std::{sync::atomic::Ordering, time::Duration};

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
                Ok(Made::Skipped) => self.decoding.get().pass(&records, index),
                Err(error) => {
                    // What has to become a dead letter is the next one until it has.
                    if self.decoding.get().policy == Policy::Letter || !error.is_instance_of::<PyException>(py) {
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
        match self.decoding.get().undelivered(py, &parts) {
            Ok(letters) if letters.is_empty() => {
                self.decoding.get().pass_letters(&parts);
                Batch::new(parts, self.decoding.clone_ref(py)).into_py_any(py)
            }
            waits => {
                self.hand_back_all(parts);
                waits?.into_py_any(py)
            }
        }
    }

    /// A record that could not be decoded is stored as a dead letter: reading goes on behind it.
    fn letter_stored(&self, partition: u32, offset: i64) {
        self.decoding.get().letters.lock().insert((partition, offset));
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
