//! How bytes become keys and values, and what becomes of a record that cannot be decoded.

use crate::record::{Part, Record};
use millpond_bridge::Records;
use parking_lot::Mutex;
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::PyException,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyType},
};
use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
};

/// How bytes become keys and values; none leaves them as they are. An object of Python's own, so that its collector sees the deserializers once, however
/// many objects share them.
#[pyclass(frozen, module = "millpond._core")]
pub(crate) struct Decoding {
    key: Option<Py<PyAny>>,
    value: Option<Py<PyAny>>,
    pub(crate) policy: Policy,
    /// Records that were skipped because they could not be decoded.
    pub(crate) skipped: AtomicU64,
    /// Partitions and offsets of records that were stored as dead letters, and were not passed by since.
    pub(crate) letters: Mutex<HashSet<(u32, i64)>>,
}

/// What becomes of a record that cannot be decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
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
    pub(crate) fn pass(&self, records: &Records, index: usize) {
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
    pub(crate) fn undelivered(&self, py: Python<'_>, parts: &[Records]) -> PyResult<Vec<Py<PyAny>>> {
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
    pub(crate) fn pass_letters(&self, parts: &[Records]) {
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

pub(crate) fn place(records: &Records, index: usize) -> (u32, i64) {
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
