//! Instances: used again, never by two at once, and never so many that there is no room for another module.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use millpond_plugin::{INSTANCES_MAX, PluginError, Transform};
use millpond_protocol::error::ErrorCode;
use tracing::subscriber::with_default;

use crate::support::{Guest, KEEP, assert_well, batch, host, limits};

#[test]
fn an_instance_serves_many_batches_and_starts_once() {
    let host = host();
    // Counts starts in the second byte and calls in the first.
    let items = "(global $starts (mut i32) (i32.const 0)) (global $calls (mut i32) (i32.const 0))";
    let init = "(global.set $starts (i32.add (global.get $starts) (i32.const 1))) (i32.const 1024)";
    let run = format!(
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (i32.store8 (local.get $records) (global.get $calls)) (i32.store8 offset=1 (local.get $records) (global.get $starts)) {KEEP}"
    );
    let transform = Guest { run: &run, init, items, ..Guest::default() }.start(&host, &limits()).expect("it starts");
    for call in 1..=50 {
        assert_eq!(transform.run(&batch(1), b"xx").expect("it runs"), [call, 1]);
    }
}

#[test]
fn many_threads_get_their_own_records_back() {
    let host = host();
    // Reads the input, waits a while, and returns what the memory holds by then: two calls in one instance would mix.
    let run = format!(
        "(local $n i32) (loop $l (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $l (i32.lt_u (local.get $n) (i32.const 20000)))) {KEEP}"
    );
    let transform = Arc::new(Guest { run: &run, ..Guest::default() }.start(&host, &limits()).expect("it starts"));
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let transform = Arc::clone(&transform);
            scope.spawn(move || {
                for length in 1..100 {
                    let records = vec![thread; length];
                    assert_eq!(transform.run(&batch(1), &records).expect("it runs"), records);
                }
            });
        }
    });
}

#[test]
fn idle_instances_make_room_for_other_modules() {
    let host = host();
    let module = host.load(&Guest::default().transform()).expect("it loads");
    let attached: Vec<Transform> = (0..INSTANCES_MAX + 10)
        .map(|number| Transform::new(&host, &module, limits(), &[]).unwrap_or_else(|error| panic!("{number}: {error}")))
        .collect();
    for transform in &attached {
        assert_eq!(transform.run(&batch(1), b"x").expect("it runs"), b"x");
    }
}

/// A log in which each line waits until the gate is open: it holds guests in the middle of a call.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<Waiting>, Condvar)>);

#[derive(Default)]
struct Waiting {
    lines: u32,
    open: bool,
}

impl Gate {
    fn wait_for(&self, lines: u32) {
        let waiting = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_while(waiting, |waiting| waiting.lines < lines).unwrap_or_else(PoisonError::into_inner));
    }

    fn open(&self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).open = true;
        self.0.1.notify_all();
    }
}

impl Write for Gate {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let mut waiting = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.lines += 1;
        self.0.1.notify_all();
        drop(self.0.1.wait_while(waiting, |waiting| !waiting.open).unwrap_or_else(PoisonError::into_inner));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn when_all_instances_are_in_calls_another_is_refused_until_one_is_free() {
    let host = host();
    let run = format!("(call $log (i32.const 1) (i32.const 2048) (i32.const 4)) {KEEP}");
    let transform = Guest { run: &run, ..Guest::default() }.start(&host, &limits()).expect("it starts");
    let gate = Gate::default();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..INSTANCES_MAX)
            .map(|_| {
                let writer = gate.clone();
                let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
                scope.spawn(|| with_default(subscriber, || transform.run(&batch(1), b"record")))
            })
            .collect();
        gate.wait_for(INSTANCES_MAX);
        let refused = transform.run(&batch(1), b"record").expect_err("no instance is left");
        gate.open();
        assert_eq!(refused, PluginError::Busy { limit: INSTANCES_MAX });
        assert_eq!((refused.code(), refused.code().retryable()), (ErrorCode::Overloaded, true));
        for call in calls {
            assert_eq!(call.join().expect("no panic"), Ok(b"record".to_vec()));
        }
    });
    assert_eq!(transform.run(&batch(1), b"record"), Ok(b"record".to_vec()));
    assert_well(&host);
}

#[test]
fn a_module_stays_with_its_host() {
    let (one, other) = (host(), host());
    let module = one.load(&Guest::default().transform()).expect("it loads");
    assert!(matches!(Transform::new(&other, &module, limits(), &[]), Err(PluginError::Settings { .. })));
    assert_well(&other);
}
