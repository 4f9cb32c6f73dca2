//! A state filled to the brim, and worse: `plugins/hostile-state` at each limit of the state. What a draft does by itself is tested beside it.

use std::sync::Arc;
use std::time::Duration;

use millpond_plugin::{KeyValues, Limits, PluginError, PluginHost, STATE_ENTRY_OVERHEAD_BYTES, StateDraft, Transform};

use crate::guests::{load, params, section};
use crate::support::{assert_well, bare, batch, host, timed_out};

/// What is granted where nothing else is said, in bytes.
const GRANTED: u64 = 1 << 20;

/// An entry of `tiny`: a key of eight bytes and no value.
const TINY_BYTES: u64 = 8 + STATE_ENTRY_OVERHEAD_BYTES;

fn limits() -> Limits {
    Limits { time: Duration::from_millis(500), ..Limits::default() }
}

fn start(host: &PluginHost, mode: &str) -> Transform {
    Transform::new(host, &load(host, "hostile-state"), limits(), &params(&[("mode", mode)])).expect("it starts")
}

/// Gives it one batch, which it has to keep.
fn run(transform: &Transform, draft: &mut StateDraft) -> Result<(), PluginError> {
    let records = section(&["a", "b"]);
    let output = transform.run_with(&batch(2), &records, limits().time, Some(draft))?;
    assert_eq!(output, records);
    draft.keep();
    Ok(())
}

/// The state once the changes of a draft are committed.
fn committed(before: &Arc<KeyValues>, draft: StateDraft) -> Arc<KeyValues> {
    let mut state = KeyValues::clone(before);
    draft.into_changes().into_iter().for_each(|change| state.apply(change));
    Arc::new(state)
}

#[test]
fn a_state_is_filled_to_its_last_byte_and_no_further_whether_its_entries_are_large_or_tiny() {
    let host = host();
    let tiny = start(&host, "tiny");
    for (granted, entries) in [(100 * TINY_BYTES, 100), (100 * TINY_BYTES - 1, 99), (0, 0)] {
        let none = Arc::new(KeyValues::default());
        let mut draft = StateDraft::new(Arc::clone(&none), granted);
        run(&tiny, &mut draft).expect("a refusal is for the guest to bear");
        let state = committed(&none, draft);
        assert_eq!((state.len(), state.bytes()), (entries, entries as u64 * TINY_BYTES), "{granted} bytes");
    }
    for mode in ["fill", "tiny"] {
        let transform = start(&host, mode);
        let mut state = Arc::new(KeyValues::default());
        let mut full = 0;
        for round in 0..3 {
            let mut draft = StateDraft::new(Arc::clone(&state), GRANTED);
            run(&transform, &mut draft).expect("a refusal is for the guest to bear");
            state = committed(&state, draft);
            assert!(state.bytes() <= GRANTED && state.bytes() > GRANTED / 100 * 99, "{mode}: {}", state.bytes());
            assert!(round == 0 || state.len() == full, "{mode}: nothing is added to what is full");
            full = state.len();
        }
    }
    assert_well(&host);
}

#[test]
fn keys_and_values_that_are_too_large_are_refused_and_change_nothing() {
    let host = host();
    for mode in ["long-key", "large-value"] {
        let mut draft = StateDraft::new(Arc::default(), GRANTED);
        run(&start(&host, mode), &mut draft).expect("a refusal is for the guest to bear");
        assert!(draft.is_unchanged(), "{mode}");
    }
    let roomy = &mut StateDraft::new(Arc::default(), 16 << 20);
    run(&start(&host, "large-value"), roomy).expect("there is room for it");
    assert_eq!(roomy.get(b"large").map(<[u8]>::len), Some(7 << 20));
    // More than may cross at once ends the call, whatever is granted.
    let transform = start(&host, "huge-value");
    for _ in 0..2 {
        let mut draft = StateDraft::new(Arc::default(), u64::MAX);
        let error = run(&transform, &mut draft).expect_err("it is too large");
        assert_eq!(error, PluginError::OutputTooLarge { limit_bytes: limits().output_bytes });
        assert!(draft.is_unchanged());
    }
    assert_well(&host);
}

#[test]
fn what_is_put_and_deleted_for_ever_is_ended_and_taken_back() {
    let host = host();
    let transform = start(&host, "churn");
    for _ in 0..2 {
        let mut draft = StateDraft::new(Arc::default(), GRANTED);
        draft.put(b"before".to_vec(), b"x".to_vec()).expect("there is room");
        draft.keep();
        let mark = draft.mark();
        let error = run(&transform, &mut draft).expect_err("it does not end");
        assert!(error.backtrace().is_some_and(|backtrace| backtrace.contains("transform")), "{error:?}");
        assert_eq!(bare(error), timed_out(limits().time));
        draft.undo_to(mark);
        assert_eq!(draft.into_changes(), [(b"before".to_vec(), Some(b"x".to_vec()))]);
    }
    assert_well(&host);
}

#[test]
fn what_one_batch_replaces_has_a_bound_and_the_next_batch_may_replace_as_much() {
    let host = host();
    let transform = start(&host, "overwrite");
    let mut draft = StateDraft::new(Arc::default(), GRANTED);
    for _ in 0..3 {
        run(&transform, &mut draft).expect("it is refused in the end, and goes on");
        assert_eq!(draft.get(b"again").map(<[u8]>::len), Some(64 << 10));
    }
    assert_eq!(draft.into_changes().len(), 1);
}

#[test]
fn a_scan_without_end_is_ended_and_one_with_an_end_sees_all() {
    let host = host();
    let none = Arc::new(KeyValues::default());
    let mut draft = StateDraft::new(Arc::clone(&none), GRANTED);
    run(&start(&host, "tiny"), &mut draft).expect("it is filled");
    let full = committed(&none, draft);
    let mut draft = StateDraft::new(Arc::clone(&full), GRANTED);
    let error = run(&start(&host, "scan"), &mut draft).expect_err("it does not end");
    assert_eq!(bare(error), timed_out(limits().time));
    assert!(draft.is_unchanged());
    run(&start(&host, "sweep"), &mut draft).expect("it ends");
    assert!(committed(&full, draft).is_empty());
    assert_well(&host);
}
