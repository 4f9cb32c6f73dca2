//! A guest that nobody wants any more is ended wherever it is, and is not blamed for it.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use millpond_plugin::{GuestLine, Interrupt, Limits, LogSink, PluginError, Transform};

use crate::support::{Guest, batch, host, limits};

/// Says that the guest has logged.
#[derive(Debug)]
struct Told(mpsc::Sender<()>);

impl LogSink for Told {
    fn write(&self, _: GuestLine<'_>) {
        // Nobody listens any more at the end of the test.
        let _ = self.0.send(());
    }
}

#[test]
fn a_guest_ends_soon_after_it_was_interrupted_and_is_not_called_again() {
    let host = host();
    let run = "(call $log (i32.const 3) (i32.const 0) (i32.const 1)) (loop $l (br $l)) (i32.const 0)";
    let (begun, has_begun) = mpsc::channel();
    let module = host.load(&Guest { run, ..Guest::default() }.transform()).expect("it loads").logging_to(Arc::new(Told(begun)));
    // Nobody waits for that.
    let long = Limits { time: Duration::from_mins(10), ..limits() };
    let interrupt = Interrupt::default();
    let start = |interrupt: &Interrupt| {
        let module = module.clone().ended_by(interrupt.clone());
        Transform::new(&host, &module, long.clone(), &[]).expect("it starts")
    };
    let (transform, other) = (start(&interrupt), start(&interrupt));
    thread::scope(|scope| {
        let calls = [&transform, &other].map(|transform| scope.spawn(|| transform.run(&batch(1), b"record")));
        (0..calls.len()).for_each(|_| has_begun.recv().expect("it begins"));
        assert!(transform.busy_for().is_some());
        interrupt.raise();
        for call in calls {
            assert_eq!(call.join().expect("no panic"), Err(PluginError::Interrupted));
        }
    });
    assert_eq!((transform.run(&batch(1), b"record"), transform.busy_for()), (Err(PluginError::Interrupted), None));
    assert!(has_begun.try_recv().is_err(), "it was not called again");
}

#[test]
fn an_interrupt_holds_for_those_that_were_given_it_and_no_others() {
    let host = host();
    let interrupt = Interrupt::default();
    let module = host.load(&Guest::default().transform()).expect("it loads");
    let start = |interrupt| Transform::new(&host, &module.clone().ended_by(interrupt), limits(), &[]).expect("it starts");
    let (ended, other) = (start(interrupt.clone()), start(Interrupt::default()));
    assert_eq!(ended.run(&batch(1), b"record"), Ok(b"record".to_vec()));
    interrupt.raise();
    assert_eq!(ended.run(&batch(1), b"record"), Err(PluginError::Interrupted));
    assert_eq!(other.run(&batch(1), b"record"), Ok(b"record".to_vec()));
}

#[test]
fn a_guest_that_does_not_come_to_the_end_of_its_start_is_ended_too() {
    let host = host();
    let init = "(call $log (i32.const 3) (i32.const 0) (i32.const 1)) (loop $l (br $l)) (i32.const 0)";
    let (begun, has_begun) = mpsc::channel();
    let interrupt = Interrupt::default();
    let module = host.load(&Guest { init, ..Guest::default() }.transform()).expect("it loads");
    let module = module.logging_to(Arc::new(Told(begun))).ended_by(interrupt.child());
    let long = Limits { time: Duration::from_mins(10), ..limits() };
    thread::scope(|scope| {
        let start = scope.spawn(|| Transform::new(&host, &module, long.clone(), &[]).map(|_| ()));
        has_begun.recv().expect("it begins");
        interrupt.raise();
        assert_eq!(start.join().expect("no panic"), Err(PluginError::Interrupted));
    });
}

#[test]
fn a_child_is_raised_with_its_parent_and_not_the_other_way_round() {
    let parent = Interrupt::default();
    let (child, other) = (parent.child(), parent.child().child());
    child.raise();
    assert!(child.is_raised() && !parent.is_raised() && !other.is_raised());
    parent.raise();
    assert!(other.is_raised() && other.clone().is_raised());
}
