//! A fixed set of named threads for work that blocks: file I/O, flushes, modules.
//!
//! The async workers run none of it. Jobs run in the order in which they come, but for those that come by a [`Lane`]: lanes take turns,
//! and one of them never holds the last thread against the others, see [`crate::lanes`]. The queue of a pool has no limit of its own
//! because whoever spawns has one: a partition has at most one turn and one flush under way, a stream at most one read or one batch in
//! a module, a request one job at a time.
//!
//! The pool of the modules has more threads while it needs them ([`Pool::elastic`]): where each one has been in one job for longer than a slice
//! and others wait, one more is started, up to a bound; it ends when those come back. So lanes that may hold a thread for a minute, of whatever
//! number up to that bound, leave one to the others.
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
    time::{Duration, Instant},
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
    /// Threads while none is held for long, and at most.
    threads: (usize, usize),
    /// Wakes who looks whether one more is needed.
    watch: Condvar,
}

struct State {
    lanes: Lanes<Job>,
    /// A place for each thread, taken or free.
    places: Vec<Place>,
    /// Who looks whether one more thread is needed is told when a job waits.
    is_watcher_asleep: bool,
    /// The pool is gone: the threads end when nothing is queued.
    closed: bool,
}

/// Whether a job is to run when nobody waits for its result any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Always,
    WhileAwaited,
}

/// What the thread of a place does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// There is none.
    Free,
    Idle,
    /// It is in a job that began then.
    Busy(Instant),
}

impl Pool {
    /// Starts `threads` threads, at least one, called `NAME-0`, `NAME-1` and so on.
    pub(crate) fn new(name: &'static str, threads: usize) -> io::Result<Pool> {
        Pool::start(name, threads.max(1), 0)
    }

    /// As [`Pool::new`], with up to [`EXTRA_MAX`] more threads while all are held for longer than [`SLICE`], and one that looks after it.
    pub(crate) fn elastic(name: &'static str, threads: usize) -> io::Result<Pool> {
        let pool = Pool::start(name, threads.max(1), EXTRA_MAX)?;
        let shared = Arc::clone(&pool.shared);
        thread::Builder::new().name(format!("{name}-watch")).spawn(move || shared.watch())?;
        Ok(pool)
    }

    fn start(name: &'static str, threads: usize, extra: usize) -> io::Result<Pool> {
        let state = State { lanes: Lanes::new(threads), places: Vec::new(), is_watcher_asleep: false, closed: false };
        let (wake, watch) = (Condvar::new(), Condvar::new());
        let pool = Pool { shared: Arc::new(Shared { name, state: Mutex::new(state), wake, threads: (threads, threads + extra), watch }) };
        let mut state = pool.shared.state.lock();
        for _ in 0..threads {
            if let Err(error) = pool.shared.start_thread(&mut state) {
                drop(state);
                return Err(error);
            }
        }
        drop(state);
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
        self.shared.run(Lanes::<Job>::COMMON, Wanted::Always, job)
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
        self.shared.run(self.id, Wanted::Always, job)
    }

    /// As [`Lane::run`], for a job that is not begun once the future was dropped.
    pub(crate) fn run_if_awaited<T, F>(&self, job: F) -> impl Future<Output = Result<T, EngineError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.shared.run(self.id, Wanted::WhileAwaited, job)
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
        self.shared.watch.notify_all();
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
        self.wake_watcher(&state);
        drop(state);
        if is_ready {
            self.wake.notify_one();
        }
    }

    /// To be called whenever a job or a thread may have been the last one without the other: so wherever a job waits for a thread that is in
    /// another one, the watcher knows.
    fn wake_watcher(&self, state: &State) {
        if state.is_watcher_asleep && state.lanes.is_any_ready() && !state.places.contains(&Place::Idle) {
            self.watch.notify_one();
        }
    }

    fn start_thread(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let number = state.places.iter().position(|place| *place == Place::Free).unwrap_or(state.places.len());
        let (shared, name) = (Arc::clone(self), format!("{}-{number}", self.name));
        thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || shared.work(number))?;
        // The thread looks here once the lock is free.
        match state.places.get_mut(number) {
            Some(place) => *place = Place::Idle,
            None => state.places.push(Place::Idle),
        }
        Ok(())
    }

    /// Starts one more thread wherever a job waits and no thread comes back.
    fn watch(self: &Arc<Self>) {
        let mut state = self.state.lock();
        while !state.closed {
            if !state.lanes.is_any_ready() {
                state.is_watcher_asleep = true;
                self.watch.wait(&mut state);
                state.is_watcher_asleep = false;
                continue;
            }
            let (alive, held) = state.count(Instant::now());
            let mut pause = SLICE;
            if held == alive
                && alive < self.threads.1
                && let Err(error) = self.start_thread(&mut state)
            {
                tracing::warn!(pool = self.name, %error, "no more threads can be started; jobs wait for those that are there");
                pause = NO_THREAD_PAUSE;
            }
            self.watch.wait_for(&mut state, pause);
        }
    }

    fn run<T, F>(&self, lane: LaneId, wanted: Wanted, job: F) -> impl Future<Output = Result<T, EngineError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job = move || {
            // No receiver: the one who asked has gone.
            if wanted == Wanted::Always || !sender.is_closed() {
                let _ = sender.send(job());
            }
        };
        self.push(lane, Box::new(job));
        let name = self.name;
        async move { receiver.await.map_err(|_| EngineError::JobLost { pool: name }) }
    }

    fn work(&self, number: usize) {
        let mut finished = None;
        while let Some((lane, job)) = self.next_job(number, finished) {
            finished = Some(lane);
            // The default hook has printed where; a job leaves no shared state half-changed but its partition's, which guards itself.
            if let Err(cause) = catch_unwind(AssertUnwindSafe(job)) {
                tracing::error!(pool = self.name, cause = panic_text(cause.as_ref()), "a job panicked; this is a bug, please report it");
            }
        }
    }

    /// The next job with its lane, for the thread of this number, which is through with one of the lane `finished`. None if it is to end.
    fn next_job(&self, number: usize, finished: Option<LaneId>) -> Option<(LaneId, Job)> {
        let mut state = self.state.lock();
        state.places[number] = Place::Idle;
        if finished.is_some_and(|lane| state.lanes.finish(lane)) {
            self.wake.notify_all();
        }
        let is_elastic = self.threads.1 > self.threads.0;
        loop {
            if is_elastic && self.is_one_too_many(&state) {
                state.places[number] = Place::Free;
                // What it would have looked for is for another one.
                self.wake.notify_one();
                self.wake_watcher(&state);
                return None;
            }
            if let Some(next) = state.lanes.take() {
                if is_elastic {
                    state.places[number] = Place::Busy(Instant::now());
                    self.wake_watcher(&state);
                }
                return Some(next);
            }
            if state.closed {
                return None;
            }
            self.wake.wait(&mut state);
        }
    }

    /// Whether there are as many threads without this one as are always there, and one among them that is not held.
    fn is_one_too_many(&self, state: &State) -> bool {
        if state.places.len() <= self.threads.0 {
            return false;
        }
        let (alive, held) = state.count(Instant::now());
        alive > self.threads.0 && alive - 1 > held
    }
}

impl State {
    /// Threads that there are, and those of them that are in one job for longer than a slice.
    fn count(&self, now: Instant) -> (usize, usize) {
        let is_held = |place: &&Place| matches!(place, Place::Busy(since) if now.saturating_duration_since(*since) >= SLICE);
        (self.places.iter().filter(|place| **place != Place::Free).count(), self.places.iter().filter(is_held).count())
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A thread that is in one job for longer does not count for the others. Several times what a module has for a batch if nobody says otherwise.
pub(crate) const SLICE: Duration = Duration::from_millis(500);

/// Threads beyond those that are always there. Each may have a guest's memory.
pub(crate) const EXTRA_MAX: usize = 4;

/// Where the system has no more threads, it is asked so often.
const NO_THREAD_PAUSE: Duration = Duration::from_secs(10);

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
    async fn a_job_that_nobody_awaits_any_more_is_not_begun_where_it_need_not_be() {
        let pool = Pool::new("test", 1).expect("threads start");
        let lane = pool.lane();
        let (gate, job) = blocked();
        let first = pool.run(job);
        let (begun, seen) = mpsc::channel();
        let also_begun = begun.clone();
        drop(lane.run_if_awaited(move || begun.send("for nobody")));
        drop(lane.run(move || also_begun.send("to the end")));
        drop(gate);
        first.await.expect("no panic");
        lane.run_if_awaited(|| ()).await.expect("no panic");
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["to the end"]);
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
    async fn lanes_that_hold_all_threads_leave_the_others_one_more_and_it_ends_with_them() {
        let pool = Pool::elastic("test", 2).expect("threads start");
        let stuck: Vec<_> = (0..=EXTRA_MAX).map(|_| pool.lane()).collect();
        let other = pool.lane();
        let (gates, jobs): (Vec<_>, Vec<_>) = stuck
            .iter()
            .map(|lane| {
                let (gate, job) = blocked();
                (gate, lane.run(job))
            })
            .unzip();
        for number in 0..100 {
            assert_eq!(other.run(move || number).await.expect("no panic"), number);
        }
        assert_eq!(pool.shared.state.lock().count(Instant::now()).0, 2 + EXTRA_MAX, "one for each that is stuck, and one for the other");
        drop(gates);
        for job in jobs {
            job.await.expect("no panic");
        }
        while pool.shared.state.lock().count(Instant::now()).0 > 2 {
            // Threads look when they come back.
            other.run(|| ()).await.expect("no panic");
        }
        let (gate, job) = blocked();
        let job = other.run(job);
        stuck[0].run(|| ()).await.expect("the other of the two is there");
        drop(gate);
        job.await.expect("no panic");
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
