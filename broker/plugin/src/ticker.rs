//! The clock that ends guests: a thread that counts wasmtime's epoch up once in a millisecond, while a guest is being called.
//!
//! ```text
//!  calls in progress:  0 ──► 1 ... n ──► 0 ............. 0
//!  thread:             parked │ tick tick tick tick tick │ parked
//!                             └ woken                    └ after IDLE_TICKS_MAX without a call
//! ```
//!
//! Between calls the thread sleeps without a timer, so that an idle node does not wake up a thousand times in a second. It goes to
//! sleep only after a pause, so that a busy node does not pay for a wake-up with each batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use wasmtime::Engine;

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    gate: Arc<Gate>,
    thread: Option<JoinHandle<()>>,
}

/// A call in progress: the clock runs at least as long as this lives.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a Gate);

impl Ticker {
    /// Starts the thread, parked.
    pub(crate) fn start(engine: Engine) -> std::io::Result<Ticker> {
        let gate = Arc::new(Gate::default());
        let thread = std::thread::Builder::new().name("guest-ticker".to_owned()).spawn({
            let gate = Arc::clone(&gate);
            move || gate.tick(|| engine.increment_epoch())
        })?;
        Ok(Ticker { gate, thread: Some(thread) })
    }

    /// Says that a guest is about to be called.
    pub(crate) fn run(&self) -> Running<'_> {
        // The order matters, see `Gate::park`: count first, then look whether the thread sleeps.
        self.gate.calls.fetch_add(1, Ordering::SeqCst);
        if self.gate.parked.load(Ordering::SeqCst) {
            self.gate.wake();
        }
        Running(&self.gate)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.gate.stop.store(true, Ordering::SeqCst);
        self.gate.wake();
        if let Some(thread) = self.thread.take() {
            // The thread runs no code that panics; were it otherwise, there is nothing left to save here.
            drop(thread.join());
        }
    }
}

/// How many ticks a limit of time is; never none. One is added because the first may be due at once.
pub(crate) fn ticks(limit: Duration) -> u64 {
    let ticks = limit.as_nanos().div_ceil(TICK.as_nanos()).max(1);
    u64::try_from(ticks).unwrap_or(u64::MAX / 2).min(u64::MAX / 2) + 1
}

#[derive(Debug, Default)]
struct Gate {
    calls: AtomicUsize,
    parked: AtomicBool,
    stop: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Gate {
    fn tick(&self, advance: impl Fn()) {
        let mut idle_ticks = 0;
        while !self.stop.load(Ordering::SeqCst) {
            if self.calls.load(Ordering::SeqCst) > 0 {
                idle_ticks = 0;
            } else if idle_ticks == IDLE_TICKS_MAX {
                self.park();
                idle_ticks = 0;
                continue;
            } else {
                idle_ticks += 1;
            }
            std::thread::sleep(TICK);
            advance();
        }
    }

    /// Sleeps until there is a call. A call that comes meanwhile either sees `parked` and takes the lock, which is free only once this
    /// thread waits, or has been counted before `calls` is looked at here.
    fn park(&self) {
        let mut lock = self.lock.lock();
        self.parked.store(true, Ordering::SeqCst);
        while self.calls.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst) {
            self.wake.wait(&mut lock);
        }
        self.parked.store(false, Ordering::SeqCst);
    }

    fn wake(&self) {
        let _lock = self.lock.lock();
        self.wake.notify_all();
    }
}

const TICK: Duration = Duration::from_millis(1);

/// How long the thread goes on ticking without a call.
const IDLE_TICKS_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::{Gate, ticks};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_limit_is_never_cut_short() {
        assert_eq!(ticks(Duration::ZERO), 2);
        assert_eq!(ticks(Duration::from_micros(1)), 2);
        assert_eq!(ticks(Duration::from_micros(1001)), 3);
        assert_eq!(ticks(Duration::from_millis(100)), 101);
        assert!(ticks(Duration::MAX) > 1 << 60);
    }

    #[test]
    fn the_thread_sleeps_without_calls_and_wakes_for_one() {
        let gate = Arc::new(Gate::default());
        let (sender, receiver) = mpsc::channel();
        let ticked = Arc::new(AtomicU64::new(0));
        let thread = std::thread::spawn({
            let (gate, ticked) = (Arc::clone(&gate), Arc::clone(&ticked));
            move || {
                gate.tick(|| {
                    ticked.fetch_add(1, Ordering::SeqCst);
                    let _ = sender.send(()); // nobody listens any more at the end of the test
                });
            }
        });
        while !gate.parked.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        while receiver.try_recv().is_ok() {}
        let before = ticked.load(Ordering::SeqCst);

        gate.calls.fetch_add(1, Ordering::SeqCst);
        gate.wake();
        receiver.recv_timeout(Duration::from_secs(10)).expect("a tick after the call");
        assert!(ticked.load(Ordering::SeqCst) > before);

        gate.stop.store(true, Ordering::SeqCst);
        gate.wake();
        thread.join().expect("the thread ends");
    }
}
