//! A fixed set of named threads for work that blocks: file I/O, flushes, modules.
//!
//! The async workers run none of it. The queue of a pool has no limit of its own because whoever spawns has one: a partition has at
//! most one turn and one flush under way, a stream at most one read or one batch in a module, a request one job at a time.
//!
//! A job that panics is logged and costs nothing but itself: the thread goes on, and whoever waits for the result of [`Pool::run`]
//! gets [`EngineError::JobLost`].

use crate::error::EngineError;
use parking_lot::{Condvar, Mutex};
use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that take jobs from one queue, in order.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    /// The pool is gone: the threads end when the queue is empty.
    closed: bool,
}

impl Pool {
    /// Starts `threads` threads, at least one, called `NAME-0`, `NAME-1` and so on.
    pub(crate) fn new(name: &'static str, threads: usize) -> io::Result<Pool> {
        let state = Mutex::new(State { jobs: VecDeque::new(), closed: false });
        let pool = Pool { shared: Arc::new(Shared { name, state, wake: Condvar::new() }) };
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new().name(format!("{name}-{number}")).stack_size(STACK_BYTES).spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Queues a job.
    pub(crate) fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.state.lock().jobs.push_back(Box::new(job));
        self.shared.wake.notify_one();
    }

    /// Queues a job now, before the future is polled, and gives its result. A dropped future does not stop the job.
    pub(crate) fn run<T, F>(&self, job: F) -> impl Future<Output = Result<T, EngineError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.spawn(move || {
            // No receiver: the one who asked has gone.
            let _ = sender.send(job());
        });
        let name = self.shared.name;
        async move { receiver.await.map_err(|_| EngineError::JobLost { pool: name }) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Not joined: the last owner may be a job of this very pool.
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        while let Some(job) = self.next_job() {
            // The default hook has printed where; a job leaves no shared state half-changed but its partition's, which guards itself.
            if let Err(cause) = catch_unwind(AssertUnwindSafe(job)) {
                tracing::error!(pool = self.name, cause = panic_text(cause.as_ref()), "a job panicked; this is a bug, please report it");
            }
        }
    }

    fn next_job(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            self.wake.wait(&mut state);
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whatever `RUST_MIN_STACK` says: a guest needs what the plugin crate asks for, a compiler more than most.
const STACK_BYTES: usize = 2 << 20;

const _: () = assert!(STACK_BYTES >= millpond_plugin::THREAD_STACK_BYTES_MIN, "a guest's stack fits on a thread of a pool");

fn panic_text(cause: &(dyn std::any::Any + Send)) -> &str {
    cause.downcast_ref::<&'static str>().copied().or_else(|| cause.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_is_an_error_for_its_caller_and_the_pool_goes_on() {
        let pool = Pool::new("test", 1).expect("threads start");
        let lost = pool.run(|| panic!("as the test wants")).await;
        assert!(matches!(lost, Err::<(), _>(EngineError::JobLost { pool: "test" })), "{lost:?}");
        assert_eq!(pool.run(|| 7).await.expect("the thread is still there"), 7);
    }

    #[tokio::test]
    async fn jobs_of_one_thread_run_in_order_and_start_before_they_are_awaited() {
        let pool = Pool::new("test", 1).expect("threads start");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let jobs: Vec<_> = (0..100)
            .map(|number| {
                let seen = Arc::clone(&seen);
                pool.run(move || seen.lock().push(number))
            })
            .collect();
        // The last is awaited first: the others have run by then.
        for job in jobs.into_iter().rev() {
            job.await.expect("no job panics");
        }
        assert_eq!(*seen.lock(), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_dropped_pool_finishes_what_is_queued() {
        let pool = Pool::new("test", 1).expect("threads start");
        let last = pool.run(|| 1);
        drop(pool);
        assert_eq!(last.await.expect("it still ran"), 1);
    }
}
