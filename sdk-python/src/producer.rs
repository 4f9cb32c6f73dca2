//! Sending.

use crate::{
    deliveries::{Deliveries, Delivery, all, first_failure},
    encoding::{Encoding, PartitionNumber, Parts, Seconds},
    failure::{exception, raise},
    wait::{Answer, Operation, block_on, start},
};
use millpond_bridge::{Failure, Record, Sending};
use parking_lot::Mutex;
use pyo3::{
    PyTraverseError, PyVisit,
    prelude::*,
    types::{PyDict, PyIterator},
};
use std::{sync::Arc, time::Duration};

/// Sends records to one topic.
#[pyclass(frozen, module = "millpond._core")]
pub(crate) struct Producer {
    producer: millpond_bridge::Producer,
    encoding: Py<Encoding>,
}

/// While many records are sent and nothing is waited for: a few milliseconds.
const SIGNALS_EVERY_RECORDS: usize = 4_096;

impl Producer {
    pub(crate) fn new(py: Python<'_>, producer: millpond_bridge::Producer, encoding: Encoding) -> PyResult<Producer> {
        Ok(Producer { producer, encoding: Py::new(py, encoding)? })
    }
}

#[pymethods]
impl Producer {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.encoding)
    }

    /// The same producer without its serializers, for who keeps it only to close it: serializers may hold whoever uses the producer.
    fn without_serializers(&self, py: Python<'_>) -> PyResult<Producer> {
        Producer::new(py, self.producer.clone(), Encoding { key: None, value: None })
    }

    /// Asks the broker for the topic.
    fn open(&self, py: Python<'_>) -> PyResult<()> {
        let producer = self.producer.clone();
        block_on(py, async move { producer.open().await })
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
        partition: Option<PartitionNumber>,
    ) -> PyResult<Delivery> {
        let parts = Parts { key, value, headers, timestamp, partition };
        let record = self.encoding.get().record(&parts)?;
        Ok(Delivery::new(self.send_waiting(py, record)?))
    }

    /// Sends a record and never waits.
    fn post(
        &self,
        py: Python<'_>,
        value: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
        timestamp: Option<&Bound<'_, PyAny>>,
        partition: Option<PartitionNumber>,
    ) -> PyResult<Delivery> {
        let parts = Parts { key, value, headers, timestamp, partition };
        let sending = self.producer.post(self.encoding.get().record(&parts)?).map_err(|failure| exception(py, &failure))?;
        Ok(Delivery::new(sending))
    }

    /// Sends many records; waits on this thread while the buffer is full.
    fn send_many(&self, py: Python<'_>, records: &Bound<'_, PyAny>, key_of: Option<&Bound<'_, PyAny>>) -> PyResult<Deliveries> {
        let mut sendings = Vec::with_capacity(records.len().unwrap_or_default());
        for item in records.try_iter()? {
            let record = self.encoding.get().item(&item?, key_of)?;
            sendings.push(self.send_waiting(py, record)?);
            if sendings.len().is_multiple_of(SIGNALS_EVERY_RECORDS) {
                py.check_signals()?;
            }
        }
        Ok(Deliveries::new(sendings))
    }

    /// Many records, to be sent piece by piece without waiting.
    fn sends(&self, py: Python<'_>, records: &Bound<'_, PyAny>, key_of: Option<Py<PyAny>>) -> PyResult<Sends> {
        Ok(Sends {
            producer: self.producer.clone(),
            encoding: self.encoding.clone_ref(py),
            records: records.try_iter()?.unbind(),
            key_of,
            held: None,
            sendings: Arc::default(),
        })
    }

    /// Waits until all is answered.
    fn flush(&self, py: Python<'_>, timeout: Option<Seconds>) -> PyResult<()> {
        let (producer, within) = (self.producer.clone(), within(timeout));
        block_on(py, async move { producer.flush(within).await })
    }

    /// The same for a future of asyncio.
    fn flush_async(&self, future: &Bound<'_, PyAny>, timeout: Option<Seconds>) -> PyResult<Operation> {
        let (producer, within) = (self.producer.clone(), within(timeout));
        start(future, async move { producer.flush(within).await }, |()| Answer::Nothing)
    }

    /// Takes no more records and flushes.
    fn close(&self, py: Python<'_>, timeout: Option<Seconds>) -> PyResult<()> {
        let (producer, within) = (self.producer.clone(), within(timeout));
        block_on(py, async move { producer.close(within).await })
    }

    /// The same for a future of asyncio.
    fn close_async(&self, future: &Bound<'_, PyAny>, timeout: Option<Seconds>) -> PyResult<Operation> {
        let (producer, within) = (self.producer.clone(), within(timeout));
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
            Ok(None) => {
                let producer = self.producer.clone();
                block_on(py, async move { producer.send(record).await })
            }
            Err(failure) => Err(exception(py, &failure)),
        }
    }
}

/// Records of one `send_many` of asyncio, on their way: taken from an iterable as there is room, so that no more than the buffer is in memory.
#[pyclass(module = "millpond._core")]
pub(crate) struct Sends {
    producer: millpond_bridge::Producer,
    encoding: Py<Encoding>,
    records: Py<PyIterator>,
    key_of: Option<Py<PyAny>>,
    /// Found no room.
    held: Option<Record>,
    sendings: Arc<Mutex<Vec<Sending>>>,
}

#[pymethods]
impl Sends {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.encoding)?;
        visit.call(&self.records)?;
        visit.call(&self.key_of)
    }

    /// Sends so many records at most. Whether there are more: true, false, or None where the next one waits for room.
    fn advance(&mut self, py: Python<'_>, records_max: usize) -> PyResult<Option<bool>> {
        let key_of = self.key_of.as_ref().map(|key_of| key_of.bind(py));
        let mut records = self.records.bind(py).clone();
        for _ in 0..records_max {
            let Some(item) = records.next() else { return Ok(Some(false)) };
            let record = self.encoding.get().item(&item?, key_of)?;
            let Some(sending) = self.producer.try_send(&record).map_err(|failure| exception(py, &failure))? else {
                self.held = Some(record);
                return Ok(None);
            };
            self.sendings.lock().push(sending);
        }
        Ok(Some(true))
    }

    /// Sends the record that waits for room, once there is some.
    fn room_async(&mut self, future: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let record = self.held.take().ok_or_else(|| raise(Failure::invalid("no record waits for room")))?;
        let (producer, sendings) = (self.producer.clone(), Arc::clone(&self.sendings));
        let sent = async move {
            let sending = producer.send(record).await?;
            sendings.lock().push(sending);
            Ok(())
        };
        start(future, sent, |()| Answer::Nothing)
    }

    /// The places of all that were sent, once they are answered.
    fn places_async(&mut self, future: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let mut sendings = std::mem::take(&mut *self.sendings.lock());
        start(future, async move { first_failure(all(&mut sendings).await) }, Answer::Places)
    }

    /// What became of each of them.
    fn outcomes_async(&mut self, future: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let mut sendings = std::mem::take(&mut *self.sendings.lock());
        start(future, async move { Ok(all(&mut sendings).await) }, Answer::Outcomes)
    }
}

fn within(timeout: Option<Seconds>) -> Option<Duration> {
    timeout.map(|Seconds(within)| within)
}
