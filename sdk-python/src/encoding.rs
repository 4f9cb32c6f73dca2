//! Objects of Python on their way to a record: keys and values through serializers, headers, times.

use crate::failure::{exception, raise, unless_stopped};
use bytes::Bytes;
use millpond_bridge::{Failure, FailureKind, Record};
use pyo3::{
    PyTraverseError, PyVisit, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBool, PyByteArray, PyBytes, PyDelta, PyDict, PyInt, PyMemoryView, PyString, PyType},
};
#[cfg(feature = "signatures")]
use pyo3::{PyTypeInfo, inspect::PyStaticExpr, type_hint_union, types::PyFloat};
use std::time::Duration;

/// How keys and values become bytes; none takes bytes and text. An object of Python's own, so that its collector sees the serializers once, however many
/// objects share them.
#[pyclass(frozen, module = "millpond._core")]
pub(crate) struct Encoding {
    pub(crate) key: Option<Py<PyAny>>,
    pub(crate) value: Option<Py<PyAny>>,
}

/// What a record is made of.
pub(crate) struct Parts<'a, 'py> {
    pub(crate) key: Option<&'a Bound<'py, PyAny>>,
    pub(crate) value: Option<&'a Bound<'py, PyAny>>,
    pub(crate) headers: Option<&'a Bound<'py, PyAny>>,
    pub(crate) timestamp: Option<&'a Bound<'py, PyAny>>,
    pub(crate) partition: Option<PartitionNumber>,
}

#[pymethods]
impl Encoding {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.key)?;
        visit.call(&self.value)
    }
}

impl Encoding {
    /// A record from its parts.
    pub(crate) fn record(&self, parts: &Parts<'_, '_>) -> PyResult<Record> {
        Ok(Record {
            key: encoded(parts.key, self.key.as_ref(), "key")?,
            value: encoded(parts.value, self.value.as_ref(), "value")?,
            headers: parts.headers.map_or(Ok(Vec::new()), headers)?,
            timestamp: parts.timestamp.map(timestamp_ms).transpose()?,
            partition: parts.partition.map(|PartitionNumber(partition)| partition),
        })
    }

    /// A record from an item of `send_many`: a `NewRecord`, or a value.
    pub(crate) fn item(&self, item: &Bound<'_, PyAny>, key_of: Option<&Bound<'_, PyAny>>) -> PyResult<Record> {
        if !item.is_instance(new_record(item.py())?)? {
            let key = key_of.map(|key_of| key_of.call1((item,))).transpose().map_err(|error| serializer_failed(item.py(), error, "key"))?;
            return self.record(&Parts { key: key.as_ref(), value: Some(item), headers: None, timestamp: None, partition: None });
        }
        let py = item.py();
        let (key, value) = (some(item, intern!(py, "key"))?, some(item, intern!(py, "value"))?);
        let (headers, timestamp) = (some(item, intern!(py, "headers"))?, some(item, intern!(py, "timestamp"))?);
        self.record(&Parts {
            key: key.as_ref(),
            value: value.as_ref(),
            headers: headers.as_ref(),
            timestamp: timestamp.as_ref(),
            partition: item.getattr(intern!(py, "partition"))?.extract()?,
        })
    }
}

/// An attribute that is not None.
fn some<'py>(item: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
    Ok(Some(item.getattr(name)?).filter(|part| !part.is_none()))
}

/// Bytes of a key or a value.
fn encoded(part: Option<&Bound<'_, PyAny>>, serializer: Option<&Py<PyAny>>, what: &str) -> PyResult<Option<Bytes>> {
    match (part, serializer) {
        (None, _) => Ok(None),
        (Some(part), _) if part.is_none() => Ok(None),
        (Some(part), None) => bytes(part, what).map(Some),
        (Some(part), Some(serializer)) => {
            let made = serializer
                .bind(part.py())
                .call1((part,))
                .map_err(|error| unless_stopped(part.py(), error, |error| serializer_failed(part.py(), error, what)))?;
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
        return Ok(Bytes::copy_from_slice(text_bytes(text, what)?));
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

/// Text as UTF-8; half of a surrogate pair can't be that.
fn text_bytes<'a>(text: &'a Bound<'_, PyString>, what: &str) -> PyResult<&'a [u8]> {
    text.to_str().map(str::as_bytes).map_err(|error| {
        let failed = Failure::new(FailureKind::Invalid, "encode_failed", format!("the {what} is no text that UTF-8 can say: {error}"));
        let wrapped = exception(text.py(), &failed);
        wrapped.set_cause(text.py(), Some(error));
        wrapped
    })
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
        Ok(name) => Ok(String::from_utf8_lossy(text_bytes(name, "name of a header")?).into_owned()),
        Err(_) => Err(wrong_type(name, "name of a header")),
    };
    if let Ok(dict) = headers.cast::<PyDict>() {
        return dict.iter().map(|(key, part)| Ok((name(&key)?, value(&part)?))).collect();
    }
    let pairs = headers.try_iter().map_err(|error| unless_stopped(headers.py(), error, |_| wrong_headers()))?;
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

/// An aware datetime in UTC, of milliseconds since 1970.
pub(crate) fn datetime(py: Python<'_>, ms: i64) -> PyResult<Py<PyAny>> {
    static FROM_MS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let from_ms = FROM_MS.get_or_try_init(py, || py.import("millpond._times")?.getattr("from_ms").map(Bound::unbind))?;
    from_ms.call1(py, (ms,))
}

/// The number of a partition, as an argument.
#[derive(Clone, Copy)]
pub(crate) struct PartitionNumber(pub(crate) u32);

impl<'py> FromPyObject<'_, 'py> for PartitionNumber {
    type Error = PyErr;
    #[cfg(feature = "signatures")]
    const INPUT_TYPE: PyStaticExpr = PyInt::TYPE_HINT;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<PartitionNumber> {
        let is_bool = given.is_instance_of::<PyBool>();
        if let Ok(number) = given.extract()
            && !is_bool
        {
            return Ok(PartitionNumber(number));
        }
        let message = format!("a partition cannot be {}: it is a number from 0 on", given.repr()?);
        let code = if given.is_instance_of::<PyInt>() && !is_bool { "partition_out_of_range" } else { "wrong_type" };
        Err(raise(Failure::new(FailureKind::Invalid, code, message)))
    }
}

/// A length of time, as an argument: seconds, or a timedelta.
#[derive(Clone, Copy)]
pub(crate) struct Seconds(pub(crate) Duration);

impl<'py> FromPyObject<'_, 'py> for Seconds {
    type Error = PyErr;
    #[cfg(feature = "signatures")]
    const INPUT_TYPE: PyStaticExpr = type_hint_union!(PyFloat::TYPE_HINT, PyDelta::TYPE_HINT);

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Seconds> {
        let seconds =
            if given.is_instance_of::<PyDelta>() { given.call_method0("total_seconds")?.extract() } else { given.extract::<f64>() };
        let Some(seconds) = seconds.ok().filter(|_| !given.is_instance_of::<PyBool>()) else {
            let message = format!("a timeout is seconds or a timedelta, not {}", given.get_type().name()?);
            return Err(raise(Failure::new(FailureKind::Invalid, "wrong_type", message)));
        };
        let wrong = |_| raise(Failure::invalid(format!("the timeout cannot be {seconds}: it is seconds from 0 on, or None")));
        Duration::try_from_secs_f64(seconds).map(Seconds).map_err(wrong)
    }
}
