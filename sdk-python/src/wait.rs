//! Waiting.
//!
//! ```text
//!  a thread         waits without the GIL, and looks for signals every 50 ms: a handler may use whatever is waited for
//!
//!  asyncio          Operation  ──spawned──>  runtime  ──done──>  queue  ──>  notifier thread
//!                   (a future of the loop)                                   takes the GIL once for all that is there, and calls
//!                                                                            loop.call_soon_threadsafe once for each loop
//! ```
//!
//! Only the notifier takes the GIL: no thread that does I/O ever waits for Python.

use crate::{
    client::Client,
    deliveries::{Places, RecordPlace, outcomes_list},
    failure::{exception, raise},
};
use millpond_bridge::{
    Collector, Failure, Outcome, Sending,
    runtime::{self, Kept},
};
use parking_lot::Mutex;
use pyo3::{IntoPyObjectExt, prelude::*, sync::PyOnceLock, types::PyList};
use std::{
    panic::resume_unwind,
    pin::pin,
    sync::{
        OnceLock,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{task::AbortHandle, time::timeout};

/// How long a thread waits before it looks for signals.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// Completions that are handed over together at most.
const HANDED_OVER_MAX: usize = 4_096;

/// Waits on this thread, without the GIL. A signal whose handler raises ends the wait, and drops the future.
///
/// A handler may want what the future holds: a close waits for the consumer that is being read. So a future that is not ready soon goes on as a task
/// of the runtime, before the first handler runs on this thread.
pub(crate) fn block<F>(py: Python<'_>, future: F) -> PyResult<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let handle = runtime::handle().map_err(|failure| exception(py, &failure))?;
    let mut future = Box::pin(future);
    if let Ok(output) = py.detach(|| handle.block_on(async { timeout(SIGNALS_EVERY, future.as_mut()).await })) {
        return Ok(output);
    }
    let mut task = handle.spawn(future);
    loop {
        if let Err(interrupted) = signals(py) {
            task.abort();
            // Dropped when this returns. A forked child has nobody who would do it.
            if !runtime::is_forked() {
                drop(py.detach(|| handle.block_on(task)));
            }
            return Err(interrupted);
        }
        if let Ok(done) = py.detach(|| handle.block_on(async { timeout(SIGNALS_EVERY, &mut task).await })) {
            // Nobody else ends it: it can only have panicked.
            return Ok(done.unwrap_or_else(|error| resume_unwind(error.into_panic())));
        }
    }
}

/// As [`block`], for what can fail.
pub(crate) fn block_on<T: Send + 'static>(
    py: Python<'_>,
    future: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> PyResult<T> {
    block(py, future)?.map_err(|failure| exception(py, &failure))
}

/// As [`block`], for a future that holds nothing while it waits: it may stand still while a handler runs.
pub(crate) fn block_here<F>(py: Python<'_>, future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let handle = runtime::handle().map_err(|failure| exception(py, &failure))?;
    let mut future = pin!(future);
    loop {
        let slice = async { timeout(SIGNALS_EVERY, future.as_mut()).await };
        if let Ok(output) = py.detach(|| handle.block_on(slice)) {
            return Ok(output);
        }
        signals(py)?;
    }
}

/// Runs the handlers of the signals that have come. One may have forked: the child has nothing to wait for.
fn signals(py: Python<'_>) -> PyResult<()> {
    py.check_signals()?;
    runtime::check_process().map_err(|failure| exception(py, &failure))
}

/// What an operation gives, on its way to Python.
pub(crate) enum Answer {
    Nothing,
    Bool(bool),
    Int(i64),
    Text(String),
    Client(millpond_bridge::Client),
    Place(millpond_bridge::RecordPlace),
    Places(Vec<millpond_bridge::RecordPlace>),
    Outcomes(Vec<Outcome>),
}

impl Answer {
    fn into_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self {
            Answer::Nothing => Ok(py.None()),
            Answer::Bool(value) => value.into_py_any(py),
            Answer::Int(value) => value.into_py_any(py),
            Answer::Text(value) => value.into_py_any(py),
            Answer::Client(client) => Client::new(client).into_py_any(py),
            Answer::Place(place) => RecordPlace(place).into_py_any(py),
            Answer::Places(places) => Places(places).into_py_any(py),
            Answer::Outcomes(outcomes) => outcomes_list(py, outcomes)?.into_py_any(py),
        }
    }
}

/// Who gets an answer.
pub(crate) enum Waiter {
    /// A future of asyncio, and its loop.
    Future { event_loop: Py<PyAny>, future: Py<PyAny> },
    /// A function, and what it is called with.
    Callback { function: Py<PyAny>, argument: Py<PyAny> },
}

impl Waiter {
    pub(crate) fn of_future(future: &Bound<'_, PyAny>) -> PyResult<Waiter> {
        let event_loop = future.call_method0("get_loop")?.unbind();
        Ok(Waiter::Future { event_loop, future: future.clone().unbind() })
    }
}

/// Something that was started for asyncio.
#[pyclass(frozen, module = "millpond._core")]
pub(crate) struct Operation(Kept<AbortHandle>);

#[pymethods]
impl Operation {
    /// Ends it, if it is not done.
    fn cancel(&self) {
        if !runtime::is_forked() {
            self.0.abort();
        }
    }
}

/// Starts something whose answer goes to a future of asyncio.
pub(crate) fn start<T, F>(future: &Bound<'_, PyAny>, work: F, answer: impl FnOnce(T) -> Answer + Send + 'static) -> PyResult<Operation>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let waiter = Waiter::of_future(future)?;
    let notifier = Notifier::get().map_err(raise)?;
    let task = runtime::handle().map_err(raise)?.spawn(async move {
        let result = work.await.map(answer);
        notifier.tell(waiter, result);
    });
    Ok(Operation(Kept::new(task.abort_handle())))
}

/// Tells the answer of a record when it is there.
pub(crate) fn watch(sending: Sending, waiter: Waiter) -> PyResult<()> {
    static COLLECTOR: OnceLock<Result<Collector<Waiter>, Failure>> = OnceLock::new();
    let notifier = Notifier::get().map_err(raise)?;
    let sink = move |answered: Vec<(Waiter, Outcome)>| {
        for (waiter, outcome) in answered {
            notifier.tell(waiter, outcome.map(Answer::Place));
        }
    };
    let collector = COLLECTOR.get_or_init(|| Collector::new(sink)).as_ref().map_err(|failure| raise(failure.clone()))?;
    collector.watch(sending, waiter);
    Ok(())
}

type Told = (Waiter, Result<Answer, Failure>);

/// The thread that takes the GIL for all others.
struct Notifier {
    queue: Mutex<Option<Sender<Told>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

static NOTIFIER: OnceLock<Notifier> = OnceLock::new();

impl Notifier {
    /// Fails in a forked child, which has no such thread.
    fn get() -> Result<&'static Notifier, Failure> {
        runtime::handle()?;
        Ok(NOTIFIER.get_or_init(|| {
            let (queue, told) = channel();
            let thread = thread::Builder::new().name("millpond-notify".to_owned()).spawn(move || notify(&told)).ok();
            Notifier { queue: Mutex::new(Some(queue)), thread: Mutex::new(thread) }
        }))
    }

    fn tell(&self, waiter: Waiter, result: Result<Answer, Failure>) {
        if let Some(queue) = &*self.queue.lock() {
            // The thread ends after this queue.
            let _ = queue.send((waiter, result));
        }
    }
}

fn notify(told: &Receiver<Told>) {
    while let Ok(first) = told.recv() {
        let mut all = vec![first];
        all.extend(told.try_iter().take(HANDED_OVER_MAX));
        // None once the interpreter is ending: nobody waits any more.
        if Python::try_attach(|py| hand_over(py, all)).is_none() {
            return;
        }
    }
}

/// Hands over what is done: one call for each loop.
fn hand_over(py: Python<'_>, all: Vec<Told>) {
    let mut loops: Vec<(Py<PyAny>, Bound<'_, PyList>)> = Vec::new();
    for (waiter, result) in all {
        let (value, error) = match result.map_err(|failure| exception(py, &failure)).and_then(|answer| answer.into_python(py)) {
            Ok(value) => (value, py.None()),
            Err(error) => (py.None(), error.into_value(py).into_any()),
        };
        let (event_loop, future) = match waiter {
            Waiter::Future { event_loop, future } => (event_loop, future),
            Waiter::Callback { function, argument } => {
                if let Err(error) = function.call1(py, (argument,)) {
                    error.write_unraisable(py, Some(function.bind(py)));
                }
                continue;
            }
        };
        let at = loops.iter().position(|(known, _)| known.is(&event_loop)).unwrap_or_else(|| {
            loops.push((event_loop, PyList::empty(py)));
            loops.len() - 1
        });
        // Fails only for want of memory.
        let _ = loops[at].1.append((future, value, error));
    }
    for (event_loop, answers) in loops {
        // Fails where the loop is closed: nobody waits there any more.
        let _ = resolver(py).and_then(|resolver| event_loop.call_method1(py, "call_soon_threadsafe", (resolver, answers)));
    }
}

fn resolver(py: Python<'_>) -> PyResult<&Py<PyAny>> {
    static RESOLVER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    RESOLVER.get_or_try_init(py, || py.import("millpond._waiting")?.getattr("resolve").map(Bound::unbind))
}

/// Ends the notifier, before the interpreter does: from `atexit`.
#[pyfunction]
pub(crate) fn shut_down(py: Python<'_>) {
    if runtime::is_forked() {
        return;
    }
    if let Some(notifier) = NOTIFIER.get() {
        let queue = notifier.queue.lock().take();
        drop(queue);
        let thread = notifier.thread.lock().take();
        // It may be waiting for the GIL.
        py.detach(|| thread.map(JoinHandle::join));
    }
}

/// Every fork of Python's is told to the child with `forked`, from now on.
#[pyfunction]
pub(crate) fn forks_are_told() {
    runtime::forks_are_told();
}

/// This is a child that was forked a moment ago.
#[pyfunction]
pub(crate) fn forked() {
    runtime::forked();
}

/// Tasks of the runtime that are not done; for tests.
#[pyfunction]
pub(crate) fn task_count(py: Python<'_>) -> PyResult<usize> {
    let handle = runtime::handle().map_err(|failure| exception(py, &failure))?;
    Ok(handle.metrics().num_alive_tasks())
}
