//! Sending, and the answers.

use crate::{
    failure::{exception, raise},
    wait::{Answer, Operation, Waiter, block, block_on, start, watch},
};
use bytes::Bytes;
use millpond_bridge::{Failure, FailureKind, Fate, Outcome, Record, Sending};
use parking_lot::Mutex;
use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{PyByteArray, PyBytes, PyDict, PyMemoryView, PyString, PyType},
};
use std::{pin::Pin, time::Duration};

/// Sends records to one topic.
#[pyclass(frozen, module = "millpond._core")]
pub(crate) struct Producer {
    producer: millpond_bridge::Producer,
    encoding: Encoding,
}

/// While many records are sent and nothing is waited for: a few milliseconds.
const SIGNALS_EVERY_RECORDS: usize = 4_096;

/// How keys and values become bytes; none takes bytes and text.
pub(crate) struct Encoding {
    pub(crate) key: Option<Py<PyAny>>,
    pub(crate) value: Option<Py<PyAny>>,
}

impl Producer {
    pub(crate) fn new(producer: millpond_bridge::Producer, encoding: Encoding) -> Producer {
        Producer { producer, encoding }
    }

    /// A record from its parts.
    fn record(&self, parts: &Parts<'_, '_>) -> PyResult<Record> {
        Ok(Record {
            key: encoded(parts.key, self.encoding.key.as_ref(), "key")?,
            value: encoded(parts.value, self.encoding.value.as_ref(), "value")?,
            headers: parts.headers.map_or(Ok(Vec::new()), headers)?,
            timestamp: parts.timestamp.map(timestamp_ms).transpose()?,
            partition: parts.partition,
        })
    }

    /// A record from an item of `send_many`: a `NewRecord`, or a value.
    fn item(&self, item: &Bound<'_, PyAny>, key_of: Option<&Bound<'_, PyAny>>) -> PyResult<Record> {
        if !item.is_instance(new_record(item.py())?)? {
            let key = key_of.map(|key_of| key_of.call1((item,))).transpose()?;
            return self.record(&Parts { key: key.as_ref(), value: Some(item), headers: None, timestamp: None, partition: None });
        }
        let part = |name: &str| item.getattr(name).map(|part| Some(part).filter(|part| !part.is_none()));
        let (key, value, headers, timestamp) = (part("key")?, part("value")?, part("headers")?, part("timestamp")?);
        self.record(&Parts {
            key: key.as_ref(),
            value: value.as_ref(),
            headers: headers.as_ref(),
            timestamp: timestamp.as_ref(),
            partition: item.getattr("partition")?.extract()?,
        })
    }
}

/// What a record is made of.
struct Parts<'a, 'py> {
    key: Option<&'a Bound<'py, PyAny>>,
    value: Option<&'a Bound<'py, PyAny>>,
    headers: Option<&'a Bound<'py, PyAny>>,
    timestamp: Option<&'a Bound<'py, PyAny>>,
    partition: Option<u32>,
}

#[pymethods]
impl Producer {
    /// Asks the broker for the topic.
    fn open(&self, py: Python<'_>) -> PyResult<()> {
        block_on(py, self.producer.open())
    }

    /// The same for a future of asyncio.
    fn open_async(&self, future: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let producer = self.producer.clone();
        start(future, async move { producer.open().await }, |()| Answer::Nothing)
    }

    /// Sends a record; waits on this thread while the buffer is full.
    fn send(
        &self,
        py: Python<'_>,
        value: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
        timestamp: Option<&Bound<'_, PyAny>>,
        partition: Option<u32>,
    ) -> PyResult<Delivery> {
        let parts = Parts { key, value, headers, timestamp, partition };
        let record = self.record(&parts)?;
        Ok(Delivery(Mutex::new(self.send_waiting(py, record)?)))
    }

    /// Sends a record and never waits.
    fn post(
        &self,
        py: Python<'_>,
        value: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
        timestamp: Option<&Bound<'_, PyAny>>,
        partition: Option<u32>,
    ) -> PyResult<Delivery> {
        let parts = Parts { key, value, headers, timestamp, partition };
        let sending = self.producer.post(self.record(&parts)?).map_err(|failure| exception(py, &failure))?;
        Ok(Delivery(Mutex::new(sending)))
    }

    /// Sends many records; waits on this thread while the buffer is full.
    fn send_many(&self, py: Python<'_>, records: &Bound<'_, PyAny>, key_of: Option<&Bound<'_, PyAny>>) -> PyResult<Deliveries> {
        let mut sendings = Vec::with_capacity(records.len().unwrap_or_default());
        for item in records.try_iter()? {
            let record = self.item(&item?, key_of)?;
            sendings.push(self.send_waiting(py, record)?);
            if sendings.len().is_multiple_of(SIGNALS_EVERY_RECORDS) {
                py.check_signals()?;
            }
        }
        Ok(Deliveries(Mutex::new(sendings)))
    }

    /// Sends many records and never waits; a future of asyncio gets the places once all are answered.
    fn post_many(&self, future: &Bound<'_, PyAny>, records: &Bound<'_, PyAny>, key_of: Option<&Bound<'_, PyAny>>) -> PyResult<Operation> {
        let mut sendings = Vec::with_capacity(records.len().unwrap_or_default());
        for item in records.try_iter()? {
            let record = self.item(&item?, key_of)?;
            sendings.push(self.producer.post(record).map_err(raise)?);
        }
        start(future, async move { all(&mut sendings).await }, Answer::Places)
    }

    /// Waits until all is answered.
    fn flush(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        block_on(py, self.producer.flush(seconds(timeout)?))
    }

    /// The same for a future of asyncio.
    fn flush_async(&self, future: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<Operation> {
        let (producer, within) = (self.producer.clone(), seconds(timeout)?);
        start(future, async move { producer.flush(within).await }, |()| Answer::Nothing)
    }

    /// Takes no more records and flushes.
    fn close(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        block_on(py, self.producer.close(seconds(timeout)?))
    }

    /// The same for a future of asyncio.
    fn close_async(&self, future: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<Operation> {
        let (producer, within) = (self.producer.clone(), seconds(timeout)?);
        start(future, async move { producer.close(within).await }, |()| Answer::Nothing)
    }

    /// Whether it was closed.
    #[getter]
    fn is_closed(&self) -> bool {
        self.producer.is_closed()
    }

    /// What it has done so far.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.producer.stats();
        let dict = PyDict::new(py);
        for (name, value) in [
            ("records", stats.records),
            ("records_dropped", stats.records_dropped),
            ("records_failed", stats.records_failed),
            ("records_resent", stats.records_resent),
            ("bytes", stats.bytes),
            ("batches", stats.batches),
            ("retries", stats.retries),
            ("buffered_bytes", stats.buffered_bytes),
        ] {
            dict.set_item(name, value)?;
        }
        dict.set_item("ack_latency_p50", stats.ack_latency.p50.as_secs_f64())?;
        dict.set_item("ack_latency_p99", stats.ack_latency.p99.as_secs_f64())?;
        Ok(dict)
    }
}

impl Producer {
    fn send_waiting(&self, py: Python<'_>, record: Record) -> PyResult<Sending> {
        match self.producer.try_send(&record) {
            Ok(Some(sending)) => Ok(sending),
            Ok(None) => block_on(py, self.producer.send(record)),
            Err(failure) => Err(exception(py, &failure)),
        }
    }
}

/// The coming answer to one record.
#[pyclass(frozen, module = "millpond", weakref)]
pub(crate) struct Delivery(Mutex<Sending>);

#[pymethods]
impl Delivery {
    /// Whether the answer is there, an error included.
    fn done(&self) -> bool {
        self.0.lock().try_get().is_some()
    }

    /// Where the record was stored. Waits for the answer, at most `timeout` seconds, and raises what went wrong.
    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<RecordPlace> {
        self.wait(py, timeout)?.map(RecordPlace).map_err(|failure| exception(py, &failure))
    }

    /// What went wrong, or None. Waits for the answer, at most `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn exception(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        match self.wait(py, timeout)? {
            Ok(_) => Ok(None),
            Err(failure) => Ok(Some(exception(py, &failure).into_value(py).into_any())),
        }
    }

    /// Calls a function with this once the answer is there: on a thread of the client's own, which must not wait.
    fn add_done_callback(this: &Bound<'_, Self>, function: Bound<'_, PyAny>) -> PyResult<()> {
        let another = this.get().0.lock().another();
        let sending = another.ok_or_else(|| raise(Failure::invalid("the record still waits for its room")))?;
        watch(sending, Waiter::Callback { function: function.unbind(), argument: this.clone().into_any().unbind() })
    }

    /// The answer for a future of asyncio.
    fn watch(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let sending = self.take()?;
        watch(sending, Waiter::of_future(future)?)
    }
}

impl Delivery {
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Outcome> {
        if let Some(outcome) = self.0.lock().try_get() {
            return Ok(outcome);
        }
        let answered = std::future::poll_fn(|context| Pin::new(&mut *self.0.lock()).poll(context));
        match seconds(timeout)? {
            None => block(py, answered),
            Some(within) => {
                let late = |_| Failure::timed_out("waiting for the answer to a record", within);
                block_on(py, async { tokio::time::timeout(within, answered).await.map_err(late) })
            }
        }
    }

    /// Another one for the same answer.
    fn take(&self) -> PyResult<Sending> {
        let mut sending = self.0.lock();
        sending
            .another()
            .or_else(|| sending.take())
            .ok_or_else(|| raise(Failure::invalid("this answer is awaited already: await it once, and keep what it gives")))
    }
}

/// The coming answers to many records.
#[pyclass(frozen, module = "millpond")]
pub(crate) struct Deliveries(Mutex<Vec<Sending>>);

#[pymethods]
impl Deliveries {
    fn __len__(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether all answers are there, errors included.
    fn done(&self) -> bool {
        self.0.lock().iter_mut().all(|sending| sending.try_get().is_some())
    }

    /// Where the records were stored, in their order. Waits for the answers, at most `timeout` seconds, and raises what went wrong
    /// first.
    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Vec<RecordPlace>> {
        let mut sendings = std::mem::take(&mut *self.0.lock());
        let within = seconds(timeout)?;
        let answers = async {
            match within {
                None => all(&mut sendings).await,
                Some(within) => tokio::time::timeout(within, all(&mut sendings))
                    .await
                    .unwrap_or_else(|_| Err(Failure::timed_out("waiting for the answers to records", within))),
            }
        };
        let places = block_on(py, answers);
        *self.0.lock() = sendings;
        Ok(places?.into_iter().map(RecordPlace).collect())
    }
}

async fn all(sendings: &mut [Sending]) -> Result<Vec<millpond_bridge::RecordPlace>, Failure> {
    let mut places = Vec::with_capacity(sendings.len());
    for sending in sendings {
        places.push(sending.await?);
    }
    Ok(places)
}

/// Where a record was stored.
#[pyclass(frozen, eq, module = "millpond")]
#[derive(PartialEq, Eq)]
pub(crate) struct RecordPlace(pub(crate) millpond_bridge::RecordPlace);

#[pymethods]
impl RecordPlace {
    /// The partition; -1 for a record that was dropped before it had one.
    #[getter]
    fn partition(&self) -> i64 {
        if self.0.partition == u32::MAX { -1 } else { i64::from(self.0.partition) }
    }

    /// The offset in the partition; -1 for a record that was dropped.
    #[getter]
    fn offset(&self) -> i64 {
        self.0.offset
    }

    /// When it was appended, in milliseconds since 1970-01-01 UTC by the broker's clock; None where the broker no longer knows.
    #[getter]
    fn append_time_ms(&self) -> Option<i64> {
        self.0.append_time_ms
    }

    /// What became of it: "stored", "dropped" (a module left it out), "stored-unless-dropped" or "expanded".
    #[getter]
    fn fate(&self) -> &'static str {
        match self.0.fate {
            Fate::Stored => "stored",
            Fate::Dropped => "dropped",
            Fate::StoredUnlessDropped => "stored-unless-dropped",
            Fate::Expanded => "expanded",
            _ => "unknown",
        }
    }

    /// What the answer means: "sync", "interval:200ms" or "os".
    #[getter]
    fn durability(&self) -> String {
        self.0.durability.to_string()
    }

    fn __repr__(&self) -> String {
        format!("RecordPlace(partition={}, offset={}, fate='{}')", self.partition(), self.0.offset, self.fate())
    }

    fn __hash__(&self) -> u64 {
        u64::from(self.0.partition).rotate_left(32) ^ self.0.offset.cast_unsigned()
    }
}

/// A time in seconds.
pub(crate) fn seconds(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    let wrong = |timeout| raise(Failure::invalid(format!("the timeout cannot be {timeout}: it is seconds from 0 on, or None")));
    timeout.map(|timeout| Duration::try_from_secs_f64(timeout).map_err(|_| wrong(timeout))).transpose()
}

/// Bytes of a key or a value.
fn encoded(part: Option<&Bound<'_, PyAny>>, serializer: Option<&Py<PyAny>>, what: &str) -> PyResult<Option<Bytes>> {
    match (part, serializer) {
        (None, _) => Ok(None),
        (Some(part), _) if part.is_none() => Ok(None),
        (Some(part), None) => bytes(part, what).map(Some),
        (Some(part), Some(serializer)) => {
            let made = serializer.bind(part.py()).call1((part,)).map_err(|error| serializer_failed(part.py(), error, what))?;
            bytes(&made, what).map(Some)
        }
    }
}

#[cold]
fn serializer_failed(py: Python<'_>, error: PyErr, what: &str) -> PyErr {
    let failed = Failure::new(FailureKind::Invalid, "encode_failed", format!("the serializer of the {what} failed: {error}"));
    let wrapped = exception(py, &failed);
    wrapped.set_cause(py, Some(error));
    wrapped
}

/// Bytes of what is bytes, or text.
fn bytes(part: &Bound<'_, PyAny>, what: &str) -> PyResult<Bytes> {
    if let Ok(bytes) = part.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    if let Ok(text) = part.cast::<PyString>() {
        return Ok(Bytes::copy_from_slice(text.to_str()?.as_bytes()));
    }
    if let Ok(bytes) = part.cast::<PyByteArray>() {
        return Ok(Bytes::from(bytes.to_vec()));
    }
    if part.is_instance_of::<PyMemoryView>() {
        let copied = part.py().get_type::<PyBytes>().call1((part,))?;
        return Ok(Bytes::copy_from_slice(copied.cast::<PyBytes>()?.as_bytes()));
    }
    Err(wrong_type(part, what))
}

#[cold]
fn wrong_type(part: &Bound<'_, PyAny>, what: &str) -> PyErr {
    let name = part.get_type().name().map_or_else(|_| "that".to_owned(), |name| name.to_string());
    let message = format!("the {what} is of type {name}: it is bytes, str or None");
    let hint = "give the producer a serializer: key= or value=, as in value=millpond.json or value=millpond.model(Reading)";
    raise(Failure::new(FailureKind::Invalid, "wrong_type", message).with_hint(hint))
}

/// Headers from a dict, or from pairs.
fn headers(headers: &Bound<'_, PyAny>) -> PyResult<Vec<(String, Option<Bytes>)>> {
    let value = |value: &Bound<'_, PyAny>| if value.is_none() { Ok(None) } else { bytes(value, "value of a header").map(Some) };
    let name = |name: &Bound<'_, PyAny>| match name.cast::<PyString>() {
        Ok(name) => Ok(name.to_str()?.to_owned()),
        Err(_) => Err(wrong_type(name, "name of a header")),
    };
    if let Ok(dict) = headers.cast::<PyDict>() {
        return dict.iter().map(|(key, part)| Ok((name(&key)?, value(&part)?))).collect();
    }
    let pairs = headers.try_iter().map_err(|_| wrong_headers())?;
    pairs
        .map(|pair| {
            let (key, part): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract().map_err(|_| wrong_headers())?;
            Ok((name(&key)?, value(&part)?))
        })
        .collect()
}

#[cold]
fn wrong_headers() -> PyErr {
    let hint = "as in headers={\"unit\": \"C\"} or headers=[(\"unit\", b\"C\")]";
    raise(Failure::new(FailureKind::Invalid, "wrong_type", "headers are a dict, or pairs of a name and a value").with_hint(hint))
}

fn timestamp_ms(timestamp: &Bound<'_, PyAny>) -> PyResult<i64> {
    static TO_MS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = timestamp.py();
    let to_ms = TO_MS.get_or_try_init(py, || py.import("millpond._times")?.getattr("to_ms").map(Bound::unbind))?;
    to_ms.bind(py).call1((timestamp,))?.extract()
}

fn new_record(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static NEW_RECORD: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    NEW_RECORD.import(py, "millpond._records", "NewRecord")
}
