//! Records, made when they are asked for, and batches of them.

use crate::{
    decoding::{Decoding, Made},
    encoding::datetime,
};
use millpond_bridge::Records;
use parking_lot::Mutex;
use pyo3::{
    PyTraverseError, PyVisit,
    prelude::*,
    types::{PyBytes, PyList, PyTuple, PyType},
};
use std::sync::Arc;

/// A record that was read. Its key, value and headers lie in the batch that it came in until they are asked for.
#[pyclass(frozen, generic, module = "millpond")]
pub(crate) struct Record {
    source: Source,
    key: Part,
    value: Part,
}

/// Where a record's parts are.
enum Source {
    /// In a batch.
    Batch { records: Records, index: usize },
    /// It was made in Python.
    Own { topic: String, partition: u32, offset: i64, timestamp_ms: i64, headers: Vec<(String, Option<Vec<u8>>)> },
}

/// A key or a value.
pub(crate) enum Part {
    /// As it lies in the batch.
    Raw,
    /// As a deserializer has made it.
    Decoded(Py<PyAny>),
}

impl Record {
    pub(crate) fn new(records: Records, index: usize, key: Part, value: Part) -> Record {
        Record { source: Source::Batch { records, index }, key, value }
    }

    fn part(&self, py: Python<'_>, part: &Part, raw: impl Fn(&Records, usize) -> Option<&[u8]>) -> Py<PyAny> {
        match (part, &self.source) {
            (Part::Decoded(decoded), _) => decoded.clone_ref(py),
            (Part::Raw, Source::Batch { records, index }) => {
                raw(records, *index).map_or_else(|| py.None(), |bytes| PyBytes::new(py, bytes).into_any().unbind())
            }
            (Part::Raw, Source::Own { .. }) => py.None(),
        }
    }
}

#[pymethods]
impl Record {
    /// A record with these parts, for tests of code that takes records.
    #[new]
    #[pyo3(signature = (topic, partition, offset, timestamp_ms, key, value, headers=Vec::new()))]
    fn from_parts(
        topic: String,
        partition: u32,
        offset: i64,
        timestamp_ms: i64,
        key: Py<PyAny>,
        value: Py<PyAny>,
        headers: Vec<(String, Option<Vec<u8>>)>,
    ) -> Record {
        let source = Source::Own { topic, partition, offset, timestamp_ms, headers };
        Record { source, key: Part::Decoded(key), value: Part::Decoded(value) }
    }

    /// The topic.
    #[getter]
    fn topic(&self) -> &str {
        match &self.source {
            Source::Batch { records, .. } => records.topic(),
            Source::Own { topic, .. } => topic,
        }
    }

    /// The partition.
    #[getter]
    fn partition(&self) -> u32 {
        match &self.source {
            Source::Batch { records, .. } => records.partition(),
            Source::Own { partition, .. } => *partition,
        }
    }

    /// The offset in the partition.
    #[getter]
    fn offset(&self) -> i64 {
        match &self.source {
            Source::Batch { records, index } => records.offsets()[*index],
            Source::Own { offset, .. } => *offset,
        }
    }

    /// Milliseconds since 1970-01-01 UTC.
    #[getter]
    fn timestamp_ms(&self) -> i64 {
        match &self.source {
            Source::Batch { records, index } => records.timestamps_ms()[*index],
            Source::Own { timestamp_ms, .. } => *timestamp_ms,
        }
    }

    /// When it happened, as its producer said: an aware datetime in UTC.
    #[getter]
    fn timestamp(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        datetime(py, self.timestamp_ms())
    }

    /// The key; None where it has none.
    #[getter]
    fn key(&self, py: Python<'_>) -> Py<PyAny> {
        self.part(py, &self.key, Records::key)
    }

    /// The value; None is a tombstone.
    #[getter]
    fn value(&self, py: Python<'_>) -> Py<PyAny> {
        self.part(py, &self.value, Records::value)
    }

    /// Names and values of the headers, in order; a name may occur more than once.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        let push = |name: &str, value: Option<&[u8]>| list.append((name, value.map(|value| PyBytes::new(py, value))));
        match &self.source {
            Source::Batch { records, index } => records.headers(*index).try_for_each(|(name, value)| push(name, value))?,
            Source::Own { headers, .. } => headers.iter().try_for_each(|(name, value)| push(name, value.as_deref()))?,
        }
        Ok(list)
    }

    /// The value of the last header with this name, or the default where there is none.
    #[pyo3(signature = (name, default=None))]
    fn header(&self, py: Python<'_>, name: &str, default: Option<Py<PyAny>>) -> Option<Py<PyAny>> {
        let found = match &self.source {
            Source::Batch { records, index } => records.headers(*index).filter(|(found, _)| *found == name).last().map(|found| found.1),
            Source::Own { headers, .. } => headers.iter().rfind(|(found, _)| found == name).map(|(_, value)| value.as_deref()),
        };
        match found {
            Some(value) => value.map(|value| PyBytes::new(py, value).into_any().unbind()),
            None => default,
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let shown = |part: Py<PyAny>| -> PyResult<String> {
            let text = part.bind(py).repr()?.to_string();
            let cut = text.char_indices().nth(SHOWN_CHARS_MAX).map(|(end, _)| end);
            Ok(cut.map_or(text.clone(), |end| format!("{}... ({} characters)", &text[..end], text.chars().count())))
        };
        let (topic, partition, offset) = (self.topic(), self.partition(), self.offset());
        let timestamp = self.timestamp(py)?.call_method0(py, "isoformat")?;
        let (key, value, headers) = (shown(self.key(py))?, shown(self.value(py))?, self.headers(py)?);
        let headers = if headers.is_empty() { String::new() } else { format!(", headers={}", shown(headers.into_any().unbind())?) };
        Ok(format!(
            "Record(topic='{topic}', partition={partition}, offset={offset}, timestamp={timestamp}, key={key}, value={value}{headers})"
        ))
    }

    fn __eq__(&self, py: Python<'_>, other: &Record) -> PyResult<bool> {
        let place = |record: &Record| (record.topic().to_owned(), record.partition(), record.offset(), record.timestamp_ms());
        Ok(place(self) == place(other)
            && self.key(py).bind(py).eq(other.key(py))?
            && self.value(py).bind(py).eq(other.value(py))?
            && self.headers(py)?.eq(other.headers(py)?)?)
    }

    fn __hash__(&self) -> u64 {
        u64::from(self.partition()).rotate_left(32) ^ self.offset().cast_unsigned()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyType>, Bound<'py, PyTuple>)> {
        let place = (self.topic(), self.partition(), self.offset(), self.timestamp_ms(), self.key(py), self.value(py), self.headers(py)?);
        Ok((py.get_type::<Record>(), place.into_pyobject(py)?))
    }
}

/// Of a key, a value or the headers, in `repr`.
const SHOWN_CHARS_MAX: usize = 200;

/// Records that were waited for together, in one crossing from the native module. It has the Arrow `PyCapsule` interface: whatever library knows that takes
/// it without a copy of its own.
///
/// Its length and its columns (`offsets`, `raw_values`, `to_arrow` and so on) have all records that came. Iteration decodes them, and leaves out those that
/// cannot be decoded, where ``on_decode_error`` is ``"skip"`` or ``"dead-letter"``; those that are skipped are counted as they are passed for the first time.
#[pyclass(frozen, generic, module = "millpond")]
pub(crate) struct Batch {
    pub(crate) parts: Vec<Records>,
    decoding: Py<Decoding>,
    /// How far records that are left out were counted: which part, and which record of it.
    counted: Arc<Mutex<(usize, usize)>>,
}

impl Batch {
    pub(crate) fn new(parts: Vec<Records>, decoding: Py<Decoding>) -> Batch {
        Batch { parts, decoding, counted: Arc::default() }
    }

    fn column<'py>(&self, py: Python<'py>, part: impl Fn(&Records, usize) -> Option<&[u8]>) -> PyResult<Bound<'py, PyList>> {
        let all = self.parts.iter().flat_map(|records| (0..records.len()).map(move |index| (records, index)));
        let items: Vec<_> = all.map(|(records, index)| part(records, index).map(|bytes| PyBytes::new(py, bytes))).collect();
        PyList::new(py, items)
    }
}

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.parts.iter().map(Records::len).sum()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.decoding)
    }

    fn __iter__(&self, py: Python<'_>) -> BatchIterator {
        let (parts, decoding, counted) = (self.parts.clone(), self.decoding.clone_ref(py), Arc::clone(&self.counted));
        BatchIterator { place: Mutex::new((0, 0)), parts, decoding, counted }
    }

    /// The topic.
    #[getter]
    fn topic(&self) -> String {
        self.parts.first().map(|records| records.topic().to_string()).unwrap_or_default()
    }

    /// For each partition in it the offset from which reading goes on behind this batch.
    #[getter]
    fn next_offsets(&self) -> std::collections::BTreeMap<u32, i64> {
        self.parts.iter().map(|records| (records.partition(), records.next_offset())).collect()
    }

    /// The exceptions for the records that the consumer's deserializers fail on.
    fn undecodable(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let mut failures = Vec::new();
        for records in &self.parts {
            for index in 0..records.len() {
                failures.extend(self.decoding.get().failure(py, records, index)?.map(|failure| failure.into_value(py).into_any()));
            }
        }
        Ok(failures)
    }

    /// The keys as bytes, whatever the consumer's deserializer.
    fn raw_keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.column(py, Records::key)
    }

    /// The values as bytes, whatever the consumer's deserializer.
    fn raw_values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.column(py, Records::value)
    }

    /// The partitions, one for each record.
    fn partitions(&self) -> Vec<u32> {
        self.parts.iter().flat_map(|records| std::iter::repeat_n(records.partition(), records.len())).collect()
    }

    /// The offsets.
    fn offsets(&self) -> Vec<i64> {
        self.parts.iter().flat_map(|records| records.offsets().iter().copied()).collect()
    }

    /// The timestamps, in milliseconds since 1970-01-01 UTC.
    fn timestamps_ms(&self) -> Vec<i64> {
        self.parts.iter().flat_map(|records| records.timestamps_ms().iter().copied()).collect()
    }

    /// The batch through the Arrow C data interface: partition, offset, timestamp, key, value, headers.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__(&self, py: Python<'_>, requested_schema: Option<Py<PyAny>>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
        // The interface allows to give the data as it is, whatever was asked for.
        drop(requested_schema);
        crate::arrow::export(py, &self.parts)
    }

    /// The batch as a `pyarrow.RecordBatch`; needs pyarrow.
    fn to_arrow<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.py().import("millpond._arrow")?.call_method1("to_arrow", (this,))
    }

    /// The batch as a `pandas.DataFrame`; needs pandas and pyarrow.
    fn to_pandas<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.py().import("millpond._arrow")?.call_method1("to_pandas", (this,))
    }

    fn __repr__(&self) -> String {
        format!("Batch(topic='{}', {} records)", self.topic(), self.__len__())
    }
}

/// The records of a batch, one after the other.
#[pyclass(frozen, module = "millpond._core")]
pub(crate) struct BatchIterator {
    /// Which part, and which record of it.
    place: Mutex<(usize, usize)>,
    parts: Vec<Records>,
    decoding: Py<Decoding>,
    /// As in its batch.
    counted: Arc<Mutex<(usize, usize)>>,
}

#[pymethods]
impl BatchIterator {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.decoding)
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Record>> {
        loop {
            let (part, index) = {
                let mut place = self.place.lock();
                while self.parts.get(place.0).is_some_and(|records| place.1 >= records.len()) {
                    *place = (place.0 + 1, 0);
                }
                let now = *place;
                place.1 += 1;
                now
            };
            let Some(records) = self.parts.get(part) else { return Ok(None) };
            if let Made::Record(record) = self.decoding.get().record_of_batch(py, records, index)? {
                return Ok(Some(record));
            }
            // Once, however often the batch is iterated over.
            let mut counted = self.counted.lock();
            if *counted <= (part, index) {
                *counted = (part, index + 1);
                self.decoding.get().pass_in_batch();
            }
        }
    }
}
