//! Failures become exceptions: `millpond.errors` decides the class by the kind.

use millpond_bridge::Failure;
use pyo3::{
    exceptions::PyException,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyDictMethods},
};

/// The exception for a failure.
pub(crate) fn exception(py: Python<'_>, failure: &Failure) -> PyErr {
    make(py, failure).unwrap_or_else(|error| error)
}

/// As [`exception`], for who has no GIL in hand.
#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
pub(crate) fn raise(failure: Failure) -> PyErr {
    Python::attach(|py| exception(py, &failure))
}

/// What an error in the user's code becomes. What is no mistake but the wish to stop (Ctrl-C, `sys.exit`) stays what it is.
pub(crate) fn unless_stopped(py: Python<'_>, error: PyErr, other: impl FnOnce(PyErr) -> PyErr) -> PyErr {
    if error.is_instance_of::<PyException>(py) { other(error) } else { error }
}

fn make(py: Python<'_>, failure: &Failure) -> PyResult<PyErr> {
    static FROM_FAILURE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let from_failure = FROM_FAILURE.get_or_try_init(py, || py.import("millpond.errors")?.getattr("_from_failure").map(Bound::unbind))?;
    let parts = PyDict::new(py);
    parts.set_item("code", failure.code)?;
    parts.set_item("hint", failure.hint.as_deref())?;
    parts.set_item("retryable", failure.retryable)?;
    parts.set_item("maybe_done", failure.maybe_done)?;
    parts.set_item("range", failure.range)?;
    parts.set_item("next_offset", failure.next_offset)?;
    parts.set_item("partition", failure.partition)?;
    parts.set_item("topic", failure.topic.as_deref())?;
    let exception = PyErr::from_value(from_failure.bind(py).call((failure.kind.name(), &failure.message), Some(&parts))?);
    if let Some(cause) = &failure.cause {
        exception.set_cause(py, Some(make(py, cause)?));
    }
    Ok(exception)
}
