//! A fixed set of named threads for work that blocks: file I/O, flushes, modules.
//!
//! The async workers run none of it. Jobs run in the order in which they come, but for those that come by a [`Lane`]: lanes take turns,
//! and one of them never holds the last thread against the others, see [`crate::lanes`]. The queue of a pool has no limit of its own
//! because whoever spawns has one: a partition has at most one turn and one flush under way, a stream at most one read or one batch in
//! a module, a request one job at a time.
//!
//! A job that panics is logged and costs nothing but itself: the thread goes on, and whoever waits for the result of [`Pool::run`]
//! gets [`EngineError::JobLost`].

use crate::{
    error::EngineError,
    lanes::{LaneId, Lanes},
};
use parking_lot::{Condvar, Mutex};
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that take jobs from one queue, or from several in turn.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

/// A queue of its own on the threads of a pool, for jobs that shall not hold up those of others. Dropping it drops no job.
#[derive(Debug)]
pub(crate) struct Lane {
    shared: Arc<Shared>,
    id: LaneId,
}

struct Shared {
    name: &'static str,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    lanes: Lanes<Job>,
    /// The pool is gone: the threads end when nothing is queued.
    closed: bool,
}

impl Pool {
    /// Starts `threads` threads, at least one, called `NAME-0`, `NAME-1` and so on.
    pub(crate) fn new(name: &'static str, threads: usize) -> io::Result<Pool> {
        let threads = threads.max(1);
        let state = Mutex::new(State { lanes: Lanes::new(threads), closed: false });
        let pool = Pool { shared: Arc::new(Shared { name, state, wake: Condvar::new() }) };
        for number in 0..threads {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new().name(format!("{name}-{number}")).stack_size(STACK_BYTES).spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Queues a job.
    pub(crate) fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.push(Lanes::<Job>::COMMON, Box::new(job));
    }

    /// Queues a job now, before the future is polled, and gives its result. A dropped future does not stop the job.
    pub(crate) fn run<T, F>(&self, job: F) -> impl Future<Output = Result<T, EngineError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.shared.run(Lanes::<Job>::COMMON, job)
    }

    /// A new lane.
    pub(crate) fn lane(&self) -> Lane {
        let id = self.shared.state.lock().lanes.open();
        Lane { shared: Arc::clone(&self.shared), id }
    }
}

impl Lane {
    /// As [`Pool::run`], in this lane.
    pub(crate) fn run<T, F>(&self, job: F) -> impl Future<Output = Result<T, EngineError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.shared.run(self.id, job)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if self.shared.state.lock().lanes.close(self.id) {
            self.shared.wake.notify_all();
        }
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
    fn push(&self, lane: LaneId, job: Job) {
        let mut state = self.state.lock();
        if state.closed {
            // The threads may have ended. Dropping the job tells whoever waits for it, and is not done under the lock.
            drop(state);
            drop(job);
            return;
        }
        let is_ready = state.lanes.push(lane, job);
        drop(state);
        if is_ready {
            self.wake.notify_one();
        }
    }

    fn run<T, F>(&self, lane: LaneId, job: F) -> impl Future<Output = Result<T, EngineError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job = move || {
            // No receiver: the one who asked has gone.
            let _ = sender.send(job());
        };
        self.push(lane, Box::new(job));
        let name = self.name;
        async move { receiver.await.map_err(|_| EngineError::JobLost { pool: name }) }
    }

    fn work(&self) {
        let mut finished = None;
        while let Some((lane, job)) = self.next_job(finished) {
            finished = Some(lane);
            // The default hook has printed where; a job leaves no shared state half-changed but its partition's, which guards itself.
            if let Err(cause) = catch_unwind(AssertUnwindSafe(job)) {
                tracing::error!(pool = self.name, cause = panic_text(cause.as_ref()), "a job panicked; this is a bug, please report it");
            }
        }
    }

    /// The next job with its lane, for a thread that is through with one of the lane `finished`.
    fn next_job(&self, finished: Option<LaneId>) -> Option<(LaneId, Job)> {
        let mut state = self.state.lock();
        if finished.is_some_and(|lane| state.lanes.finish(lane)) {
            self.wake.notify_all();
        }
        loop {
            if let Some(next) = state.lanes.take() {
                return Some(next);
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
    use std::sync::mpsc;

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
        let lane = pool.lane();
        let (last, last_of_lane) = (pool.run(|| 1), lane.run(|| 2));
        drop(pool);
        assert_eq!(last.await.expect("it still ran"), 1);
        assert_eq!(last_of_lane.await.expect("it still ran"), 2);
        let refused = lane.run(|| 3).await;
        assert!(matches!(refused, Err(EngineError::JobLost { pool: "test" })), "nobody waits for ever: {refused:?}");
    }

    /// Holds the thread that it runs on until the sender sends or is dropped.
    fn blocked() -> (mpsc::Sender<()>, impl FnOnce() + Send) {
        let (open, gate) = mpsc::channel();
        (open, move || {
            let _ = gate.recv();
        })
    }

    #[tokio::test]
    async fn a_lane_that_is_stuck_does_not_hold_up_another() {
        for threads in [2, 3] {
            let pool = Pool::new("test", threads).expect("threads start");
            let (stuck, other) = (pool.lane(), pool.lane());
            for lane in [&stuck, &other] {
                lane.run(|| ()).await.expect("no panic");
            }
            let (gates, jobs): (Vec<_>, Vec<_>) = (0..24)
                .map(|_| {
                    let (gate, job) = blocked();
                    (gate, stuck.run(job))
                })
                .unzip();
            for number in 0..100 {
                assert_eq!(other.run(move || number).await.expect("no panic"), number);
            }
            drop(gates);
            for job in jobs {
                job.await.expect("no panic");
            }
        }
    }

    #[tokio::test]
    async fn on_one_thread_lanes_take_turns() {
        let pool = Pool::new("test", 1).expect("threads start");
        let lanes = [pool.lane(), pool.lane(), pool.lane()];
        let (gate, job) = blocked();
        let first = pool.run(job);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut jobs = Vec::new();
        for (lane, count) in lanes.iter().zip([3, 1, 2]) {
            for number in 0..count {
                let (seen, place) = (Arc::clone(&seen), (jobs.len(), number));
                jobs.push(lane.run(move || seen.lock().push(place)));
            }
        }
        drop(gate);
        first.await.expect("no panic");
        for job in jobs {
            job.await.expect("no panic");
        }
        // Which job of all, and which of its lane.
        assert_eq!(*seen.lock(), [(0, 0), (3, 0), (4, 0), (1, 1), (5, 1), (2, 2)]);
    }

    #[tokio::test]
    async fn a_job_that_panics_gives_its_lane_the_thread_back() {
        let pool = Pool::new("test", 2).expect("threads start");
        let lanes = [pool.lane(), pool.lane()];
        for lane in &lanes {
            for _ in 0..3 {
                let lost = lane.run(|| panic!("as the test wants")).await;
                assert!(matches!(lost, Err::<(), _>(EngineError::JobLost { pool: "test" })), "{lost:?}");
            }
            assert_eq!(lane.run(|| 7).await.expect("the thread is still there"), 7);
        }
    }
}
