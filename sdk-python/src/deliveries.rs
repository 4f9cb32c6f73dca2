//! The coming answers to records, and what they say.

use crate::{
    encoding::{Seconds, datetime},
    failure::{exception, raise},
    wait::{Waiter, block_here, watch},
};
use millpond_bridge::{Durability, Failure, Fate, Outcome, Sending};
use parking_lot::Mutex;
use pyo3::{
    IntoPyObjectExt,
    exceptions::{PyIndexError, PyValueError},
    prelude::*,
    types::{PySlice, PyTuple, PyType},
};
use std::{
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::Poll,
};

/// The coming answer to one record: like a future of ``concurrent.futures``. It may be dropped: the record is sent all the same, and ``flush`` and
/// ``close`` of the producer raise what went wrong.
#[pyclass(frozen, module = "millpond", weakref)]
pub(crate) struct Delivery(Mutex<Sending>);

impl Delivery {
    pub(crate) fn new(sending: Sending) -> Delivery {
        Delivery(Mutex::new(sending))
    }
}

#[pymethods]
impl Delivery {
    /// Whether the answer is there, an error included.
    fn done(&self) -> bool {
        self.0.lock().is_answered()
    }

    /// Where the record was stored. Waits for the answer, at most `timeout` seconds, and raises what went wrong.
    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<Seconds>) -> PyResult<RecordPlace> {
        self.wait(py, timeout)?.map(RecordPlace).map_err(|failure| exception(py, &failure))
    }

    /// What went wrong, or None. Waits for the answer, at most `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn exception(&self, py: Python<'_>, timeout: Option<Seconds>) -> PyResult<Option<Py<PyAny>>> {
        match self.wait(py, timeout)? {
            Ok(_) => Ok(None),
            Err(failure) => Ok(Some(exception(py, &failure).into_value(py).into_any())),
        }
    }

    /// Calls a function with this once the answer is there, an error included: on a thread of the client's own, where it must not wait.
    fn add_done_callback(this: &Bound<'_, Self>, function: Bound<'_, PyAny>) -> PyResult<()> {
        let another = this.get().0.lock().another();
        let sending = another.ok_or_else(|| raise(Failure::invalid("the record still waits for its room")))?;
        watch(sending, Waiter::Callback { function: function.unbind(), argument: this.clone().into_any().unbind() })
    }

    fn __repr__(&self) -> &'static str {
        let mut sending = self.0.lock();
        if sending.is_answered() { "<millpond.Delivery, answered>" } else { "<millpond.Delivery, not answered>" }
    }

    /// The answer for a future of asyncio.
    fn watch(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let sending = self.take()?;
        watch(sending, Waiter::of_future(future)?)
    }
}

impl Delivery {
    fn wait(&self, py: Python<'_>, timeout: Option<Seconds>) -> PyResult<Outcome> {
        if let Some(outcome) = self.0.lock().try_get() {
            return Ok(outcome);
        }
        let answered = std::future::poll_fn(|context| Pin::new(&mut *self.0.lock()).poll(context));
        wait_within(py, "waiting for the answer to a record", timeout, answered)
    }

    /// Another one for the same answer.
    fn take(&self) -> PyResult<Sending> {
        let taken = {
            let mut sending = self.0.lock();
            sending.another().or_else(|| sending.take())
        };
        taken.ok_or_else(|| raise(Failure::invalid("this answer is awaited already: await it once, and keep what it gives")))
    }
}

/// Waits for answers. The future takes its lock anew whenever it looks at them, and holds none while it waits.
fn wait_within<T: Send>(py: Python<'_>, what: &str, timeout: Option<Seconds>, answered: impl Future<Output = T> + Send) -> PyResult<T> {
    let Some(Seconds(within)) = timeout else { return block_here(py, answered) };
    let in_time = block_here(py, async { tokio::time::timeout(within, answered).await })?;
    in_time.map_err(|_| exception(py, &Failure::timed_out(what, within)))
}

/// The coming answers to many records.
#[pyclass(frozen, module = "millpond")]
pub(crate) struct Deliveries(Mutex<Vec<Sending>>);

impl Deliveries {
    pub(crate) fn new(sendings: Vec<Sending>) -> Deliveries {
        Deliveries(Mutex::new(sendings))
    }

    /// Waits for all answers. Several threads may.
    fn wait(&self, py: Python<'_>, timeout: Option<Seconds>) -> PyResult<()> {
        let mut answered = 0;
        let all = std::future::poll_fn(|context| {
            let mut sendings = self.0.lock();
            while let Some(next) = sendings.get_mut(answered) {
                if next.poll_answered(context).is_pending() {
                    return Poll::Pending;
                }
                answered += 1;
            }
            Poll::Ready(())
        });
        wait_within(py, "waiting for the answers to records", timeout, all)
    }

    /// What became of each, once all are answered.
    fn all(&self) -> Vec<Outcome> {
        self.0.lock().iter_mut().filter_map(Sending::try_get).collect()
    }
}

#[pymethods]
impl Deliveries {
    fn __len__(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether all answers are there, errors included.
    fn done(&self) -> bool {
        self.0.lock().iter_mut().all(Sending::is_answered)
    }

    /// Where the records were stored, in their order. Waits for all answers, at most `timeout` seconds, and raises what went wrong first.
    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<Seconds>) -> PyResult<Places> {
        self.wait(py, timeout)?;
        first_failure(self.all()).map(Places).map_err(|failure| exception(py, &failure))
    }

    /// What became of each record, in their order: its place, or the exception that it failed with. Waits for all answers, at most `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn outcomes(&self, py: Python<'_>, timeout: Option<Seconds>) -> PyResult<Vec<Py<PyAny>>> {
        self.wait(py, timeout)?;
        outcomes_list(py, self.all())
    }

    fn __repr__(&self) -> String {
        let mut sendings = self.0.lock();
        let answered = sendings.iter_mut().filter_map(|sending| sending.is_answered().then_some(())).count();
        format!("<millpond.Deliveries {answered} of {} answered>", sendings.len())
    }
}

/// Waits for all answers: whoever is told has heard of all.
pub(crate) async fn all(sendings: &mut [Sending]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(sendings.len());
    for sending in sendings {
        outcomes.push(sending.await);
    }
    outcomes
}

/// For each record its place, or the exception that it failed with.
pub(crate) fn outcomes_list(py: Python<'_>, outcomes: Vec<Outcome>) -> PyResult<Vec<Py<PyAny>>> {
    let outcome = |outcome: Outcome| match outcome {
        Ok(place) => RecordPlace(place).into_py_any(py),
        Err(failure) => Ok(exception(py, &failure).into_value(py).into_any()),
    };
    outcomes.into_iter().map(outcome).collect()
}

pub(crate) fn first_failure(outcomes: Vec<Outcome>) -> Result<Vec<millpond_bridge::RecordPlace>, Failure> {
    outcomes.into_iter().collect()
}

/// Where many records were stored, in their order. Each place is made when it is asked for.
#[pyclass(frozen, module = "millpond")]
pub(crate) struct Places(pub(crate) Vec<millpond_bridge::RecordPlace>);

#[pymethods]
impl Places {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __getitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        if let Ok(slice) = index.cast::<PySlice>() {
            let indices = slice.indices(self.0.len().cast_signed())?;
            let mut at = indices.start;
            let mut places = Vec::with_capacity(indices.slicelength);
            for _ in 0..indices.slicelength {
                places.push(RecordPlace(self.0[at.cast_unsigned()]));
                at += indices.step;
            }
            return places.into_py_any(py);
        }
        let index: isize = index.extract()?;
        let at = if index < 0 { index + self.0.len().cast_signed() } else { index };
        let place = usize::try_from(at).ok().and_then(|at| self.0.get(at));
        let missing = || PyIndexError::new_err(format!("there are {} places, and none has the number {index}", self.0.len()));
        RecordPlace(*place.ok_or_else(missing)?).into_py_any(py)
    }

    fn __iter__(this: Py<Self>) -> PlacesIterator {
        PlacesIterator { places: this, next: AtomicUsize::new(0) }
    }

    fn __repr__(&self) -> String {
        format!("<millpond.Places of {} records>", self.0.len())
    }
}

/// Places, one after the other.
#[pyclass(frozen, module = "millpond._core")]
pub(crate) struct PlacesIterator {
    places: Py<Places>,
    next: AtomicUsize,
}

#[pymethods]
impl PlacesIterator {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self) -> Option<RecordPlace> {
        let place = self.places.get().0.get(self.next.fetch_add(1, Ordering::Relaxed));
        place.copied().map(RecordPlace)
    }
}

/// Where a record was stored.
#[pyclass(frozen, eq, module = "millpond")]
#[derive(PartialEq, Eq)]
pub(crate) struct RecordPlace(pub(crate) millpond_bridge::RecordPlace);

const FATES: [(Fate, &str); 4] = [
    (Fate::Stored, "stored"),
    (Fate::Dropped, "dropped"),
    (Fate::StoredUnlessDropped, "stored-unless-dropped"),
    (Fate::Expanded, "expanded"),
];

#[pymethods]
impl RecordPlace {
    /// A place with these parts, for tests of code that takes places.
    #[new]
    #[pyo3(signature = (partition, offset, append_time_ms=None, fate="stored", durability="sync"))]
    fn from_parts(partition: i64, offset: i64, append_time_ms: Option<i64>, fate: &str, durability: &str) -> PyResult<RecordPlace> {
        let wrong = |what: String| PyValueError::new_err(what);
        let partition = match partition {
            -1 => u32::MAX,
            number => u32::try_from(number).map_err(|_| wrong(format!("{number} is no partition")))?,
        };
        let found = FATES.iter().find(|(_, name)| *name == fate);
        let (fate, _) = found.ok_or_else(|| wrong(format!("fate cannot be {fate:?}: it is {}", FATES.map(|(_, name)| name).join(", "))))?;
        let durability = durability.parse::<Durability>().map_err(|error| wrong(error.to_string()))?;
        Ok(RecordPlace(millpond_bridge::RecordPlace { fate: *fate, partition, offset, append_time_ms, durability }))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyType>, Bound<'py, PyTuple>)> {
        let parts = (self.partition(), self.0.offset, self.0.append_time_ms, self.fate(), self.durability());
        Ok((py.get_type::<RecordPlace>(), parts.into_pyobject(py)?))
    }

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

    /// When it was appended, as an aware datetime in UTC; None where the broker no longer knows.
    #[getter]
    fn append_time(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.0.append_time_ms.map(|ms| datetime(py, ms)).transpose()
    }

    /// What became of it: "stored", "dropped" (a module left it out), "stored-unless-dropped" or "expanded".
    #[getter]
    fn fate(&self) -> &'static str {
        FATES.iter().find(|(fate, _)| *fate == self.0.fate).map_or("unknown", |(_, name)| name)
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
