//! Modules that write to several topics and keep state: what crosses arrives, what breaks the contract is refused, and what a failed batch has
//! changed can be undone.

use std::sync::Arc;

use millpond_plugin::{Derive, KeyValues, PluginError, SourceBatch, StateDraft, Target, Transform, World};

use crate::support::{Guest, assert_well, batch, host, limits, with_component_type};

/// Counts its batches in the state, under `k`, and returns the records to target 0 and the count, one byte, to target 1. A first byte of `!`
/// makes it trap, `?` refuse, `o` write to target 7, `f` put more than it may.
const COUNT: &str = r"
    (call $get (i32.const 2048) (i32.const 1) (i32.const 3072))
    (i32.store8 (i32.const 2056) (i32.const 1))
    (if (i32.load8_u (i32.const 3072))
      (then (i32.store8 (i32.const 2056) (i32.add (i32.load8_u (i32.load (i32.const 3076))) (i32.const 1)))))
    (call $put (i32.const 2048) (i32.const 1) (i32.const 2056) (i32.const 1) (i32.const 3072))
    (if (i32.load8_u (i32.const 3072)) (then unreachable))
    (if (i32.eq (i32.load8_u (local.get $records)) (i32.const 33)) (then unreachable))
    (if (i32.eq (i32.load8_u (local.get $records)) (i32.const 102)) (then
      (call $put (i32.const 2049) (i32.const 1) (i32.const 0) (i32.const 4096) (i32.const 3072))
      (if (i32.eqz (i32.load8_u (i32.const 3072))) (then unreachable))))
    (i32.store8 (i32.const 1024) (i32.eq (i32.load8_u (local.get $records)) (i32.const 63)))
    (i32.store (i32.const 1028) (i32.const 1100))
    (i32.store (i32.const 1032) (i32.const 2))
    (i32.store8 (i32.const 1036) (i32.const 0))
    (i32.store (i32.const 1100) (i32.mul (i32.eq (i32.load8_u (local.get $records)) (i32.const 111)) (i32.const 7)))
    (i32.store (i32.const 1104) (local.get $records))
    (i32.store (i32.const 1108) (local.get $length))
    (i32.store (i32.const 1112) (i32.const 1))
    (i32.store (i32.const 1116) (i32.const 2056))
    (i32.store (i32.const 1120) (i32.const 1))
    (i32.const 1024)";

const IMPORTS: &str = r#"
    (import "millpond:plugin/state@1.0.0" "get" (func $get (param i32 i32 i32)))
    (import "millpond:plugin/state@1.0.0" "put" (func $put (param i32 i32 i32 i32 i32)))"#;

const ITEMS: &str = r#"(data (i32.const 2048) "kl")"#;

/// `init` has the targets as well, so the whole module is written here.
fn module(init: &str, run: &str) -> Vec<u8> {
    let Guest { realloc, .. } = Guest::default();
    let text = format!(
        r#"(module $guest {IMPORTS}
            (memory (export "memory") 2)
            (global $heap (mut i32) (i32.const 4096))
            (func $realloc (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
                (local $address i32) {realloc})
            (func $init (export "init") (param i32 i32) (param $targets i32) (param $count i32) (result i32) {init})
            (func $derive (export "derive") (param $topic i32) (param $topic_length i32) (param $partition i32) (param $offset i64)
                (param $base i64) (param $record_count i32) (param $records i32) (param $length i32) (result i32) {run})
            {ITEMS})"#
    );
    let module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"));
    with_component_type(module, include_str!("../../../../plugins/wit/plugin.wit"), "stateful-derive")
}

fn targets() -> Vec<Target> {
    ["even", "odd"].into_iter().zip(3..).map(|(name, partition_count)| Target { name: name.to_owned(), partition_count }).collect()
}

fn source() -> SourceBatch<'static> {
    SourceBatch { info: batch(1), base_offset: 1 << 40 }
}

fn draft(limit_bytes: u64) -> StateDraft {
    StateDraft::new(Arc::new(KeyValues::default()), limit_bytes)
}

#[test]
fn records_go_to_targets_and_the_state_stays_from_batch_to_batch() {
    let host = host();
    let module = host.load(&module("(i32.const 1024)", COUNT)).expect("it loads");
    assert_eq!((module.world(), module.has_state()), (World::Derive, true));
    let derive = Derive::new(&host, &module, limits(), &[], &targets()).expect("it starts");
    let mut state = draft(1 << 10);
    for count in 1..4 {
        let output = derive.run(&source(), b"records", limits().time, Some(&mut state)).expect("it runs");
        assert_eq!(output, [(0, b"records".to_vec()), (1, vec![count])]);
    }
    assert_eq!(state.get(b"k"), Some(&[3][..]));
    assert_well(&host);
}

#[test]
fn what_a_batch_has_changed_before_it_failed_can_be_undone() {
    let host = host();
    let module = host.load(&module("(i32.const 1024)", COUNT)).expect("it loads");
    let derive = Derive::new(&host, &module, limits(), &[], &targets()).expect("it starts");
    let mut state = draft(1 << 10);
    derive.run(&source(), b"records", limits().time, Some(&mut state)).expect("it runs");
    for (records, is_expected) in [
        (&b"!"[..], (|error| matches!(error, PluginError::Trapped { .. })) as fn(&PluginError) -> bool),
        (b"?", |error| matches!(error, PluginError::Guest { .. })),
        (b"o", |error| matches!(error, PluginError::OutputInvalid { reason } if reason.contains("target 7 of 2"))),
    ] {
        let mark = state.mark();
        let error = derive.run(&source(), records, limits().time, Some(&mut state)).expect_err("it fails");
        assert!(is_expected(&error), "{error:?}");
        assert_eq!(state.get(b"k"), Some(&[2][..]), "the state came back from the instance");
        state.undo_to(mark);
        assert_eq!(state.get(b"k"), Some(&[1][..]));
    }
    let output = derive.run(&source(), b"full", limits().time, Some(&mut state)).expect("a refusal is for the guest to bear");
    assert_eq!(output[1], (1, vec![2]));
    assert_well(&host);
}

#[test]
fn there_is_no_state_before_a_batch_nor_where_none_is_lent() {
    let host = host();
    let early = "(call $get (i32.const 2048) (i32.const 1) (i32.const 3072)) (i32.const 1024)";
    let loaded = host.load(&module(early, COUNT)).expect("it loads");
    let error = Derive::new(&host, &loaded, limits(), &[], &targets()).expect_err("it asks too early");
    assert!(error.to_string().contains("while a batch is processed"), "{error}");

    let loaded = host.load(&module("(i32.const 1024)", COUNT)).expect("it loads");
    let derive = Derive::new(&host, &loaded, limits(), &[], &targets()).expect("it starts");
    derive.run(&source(), b"records", limits().time, None).expect_err("nothing was lent");
    assert_well(&host);
}

#[test]
fn init_is_told_the_targets() {
    // It traps unless there are two, the first of a name of four bytes with three partitions.
    let check = "(if (i32.ne (local.get $count) (i32.const 2)) (then unreachable))
        (if (i32.ne (i32.load offset=4 (local.get $targets)) (i32.const 4)) (then unreachable))
        (if (i32.ne (i32.load offset=8 (local.get $targets)) (i32.const 3)) (then unreachable))
        (i32.const 1024)";
    let host = host();
    let loaded = host.load(&module(check, COUNT)).expect("it loads");
    Derive::new(&host, &loaded, limits(), &[], &targets()).expect("it starts");
    Derive::new(&host, &loaded, limits(), &[], &targets()[..1]).expect_err("there is one");
    Transform::new(&host, &loaded, limits(), &[]).expect_err("it is no transform");
}

#[test]
fn a_transform_that_imports_the_state_says_so() {
    let host = host();
    let guest = Guest { imports: IMPORTS, items: ITEMS, ..Guest::default() };
    let signature = r#"(func $transform (export "transform")
        (param $topic i32) (param $topic_length i32) (param $has_partition i32) (param $partition i32) (param $base i64) (param $count i32)
        (param $records i32) (param $length i32) (result i32)
        (call $put (i32.const 2048) (i32.const 1) (i32.const 2049) (i32.const 1) (i32.const 3072))"#;
    let wit = include_str!("../../../../plugins/wit/plugin.wit");
    let module = host.load(&with_component_type(guest.bare(signature), wit, "stateful-transform")).expect("it loads");
    assert_eq!((module.world(), module.has_state()), (World::Transform, true));
    assert!(!host.load(&Guest::default().transform()).expect("it loads").has_state());
    let transform = Transform::new(&host, &module, limits(), &[]).expect("it starts");
    let mut state = draft(1 << 10);
    assert_eq!(transform.run_with(&batch(1), b"record", limits().time, Some(&mut state)).expect("it runs"), b"record");
    assert_eq!(state.get(b"k"), Some(&b"l"[..]));
    let error = transform.run(&batch(1), b"record").expect_err("no state was lent");
    assert!(matches!(error, PluginError::OutputInvalid { .. }), "{error}");
}
