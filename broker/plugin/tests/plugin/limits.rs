//! Each limit: kept to, and broken.

use std::time::{Duration, Instant};

use millpond_plugin::{Limits, PluginError, TABLE_ELEMENTS_MAX};
use millpond_protocol::error::ErrorCode;

use crate::support::{Guest, KEEP, bare, batch, host, limits, out_of_memory, table_full, timed_out};

#[test]
fn a_long_loop_ends_and_an_endless_one_is_ended() {
    let host = host();
    let count = |rounds: &str| {
        format!(
            "(local $n i32) (loop $l (local.set $n (i32.add (local.get $n) (i32.const 1)))
             (br_if $l (i32.ne (local.get $n) (i32.const {rounds})))) {KEEP}"
        )
    };
    assert_eq!(Guest { run: &count("1000000"), ..Guest::default() }.run(&host, &limits()), Ok(b"record".to_vec()));

    let tight = Limits { time: Duration::from_millis(50), ..limits() };
    let transform = Guest { run: "(loop $l (br $l)) (i32.const 0)", ..Guest::default() }.start(&host, &tight).expect("it starts");
    let begin = Instant::now();
    let error = transform.run(&batch(1), b"record").expect_err("endless");
    assert_eq!(error.code(), ErrorCode::GuestTimedOut);
    assert_eq!(bare(error), timed_out(tight.time));
    assert!(begin.elapsed() >= tight.time, "it had its time");
    assert!(begin.elapsed() < Duration::from_secs(10), "it had no more: {:?}", begin.elapsed());
}

#[test]
fn time_spent_waiting_for_a_processor_does_not_count() {
    let host = host();
    let run = format!(
        "(local $n i32) (loop $l (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $l (i32.lt_u (local.get $n) (i32.const 10000000)))) {KEEP}"
    );
    let guest = Guest { run: &run, ..Guest::default() };
    let alone = guest.start(&host, &Limits { time: Duration::from_mins(1), ..limits() }).expect("it starts");
    let begin = Instant::now();
    alone.run(&batch(1), b"record").expect("it runs");
    // Four times what it takes alone, while so many run that each waits for longer than that.
    let time = begin.elapsed() * 4;
    let crowd = std::thread::available_parallelism().map_or(16, |processors| 8 * processors.get()).min(24);
    let transform = guest.start(&host, &Limits { time, ..limits() }).expect("it starts");
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..crowd).map(|_| scope.spawn(|| transform.run(&batch(1), b"record"))).collect();
        for call in calls {
            assert_eq!(call.join().expect("no panic"), Ok(b"record".to_vec()));
        }
    });
}

#[test]
fn the_time_also_runs_while_the_input_is_placed() {
    let realloc = "(loop $l (br $l)) (i32.const 0)";
    let error = Guest { realloc, ..Guest::default() }.run(&host(), &limits()).expect_err("endless");
    assert_eq!(bare(error), timed_out(limits().time));
}

#[test]
fn a_deep_recursion_ends_and_an_endless_one_is_ended() {
    let host = host();
    let down = "(func $down (param $n i32) (result i32)
        (if (result i32) (local.get $n)
            (then (i32.add (call $down (i32.sub (local.get $n) (i32.const 1))) (i32.const 1)))
            (else (i32.const 0))))";
    let with = |depth: &str| {
        Guest { run: &format!("(drop (call $down (i32.const {depth}))) {KEEP}"), items: down, ..Guest::default() }.run(&host, &limits())
    };
    assert_eq!(with("2000"), Ok(b"record".to_vec()));
    let error = with("-1").expect_err("endless");
    assert!(matches!(&error, PluginError::Trapped { reason, .. } if reason.contains("call stack exhausted")), "{error}");
    assert!(error.backtrace().is_some_and(|backtrace| backtrace.contains("down") && backtrace.len() < 8192), "{error:?}");
}

/// Takes pages one by one until there are so many, or none is to be had, which is a trap.
fn grow_to(pages: u32) -> String {
    format!(
        "(loop $l
            (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
            (br_if $l (i32.lt_u (memory.size) (i32.const {pages})))) {KEEP}"
    )
}

#[test]
fn memory_grows_to_its_limit_and_no_further() {
    let host = host();
    let four = Limits { memory_bytes: 64 * 1024 * 64, ..limits() };
    assert_eq!(Guest { run: &grow_to(64), ..Guest::default() }.run(&host, &four), Ok(b"record".to_vec()));
    let error = Guest { run: &grow_to(65), ..Guest::default() }.run(&host, &four).expect_err("too much");
    assert_eq!(error.code(), ErrorCode::GuestOutOfMemory);
    assert_eq!(bare(error), out_of_memory(four.memory_bytes));
    let error = Guest { run: &grow_to(65_536), ..Guest::default() }.run(&host, &four).expect_err("too much");
    assert_eq!(bare(error), out_of_memory(four.memory_bytes));
}

#[test]
fn memory_from_the_start_counts_too() {
    let host = host();
    let limits = Limits { memory_bytes: 64 * 1024 * 3, ..limits() };
    assert!(Guest { pages: 3, ..Guest::default() }.run(&host, &Limits { memory_bytes: 64 * 1024 * 3, ..limits.clone() }).is_ok());
    let error = Guest { pages: 4, ..Guest::default() }.run(&host, &limits).expect_err("too much");
    assert_eq!(bare(error), out_of_memory(limits.memory_bytes));
    let error = Guest { pages: 65_536, ..Guest::default() }.run(&host, &limits).expect_err("far too much");
    assert!(matches!(error, PluginError::Compile { .. } | PluginError::OutOfMemory { .. }), "{error}");
}

#[test]
fn a_guest_that_does_without_more_memory_is_not_punished() {
    let run = format!("(drop (memory.grow (i32.const 60000))) {KEEP}");
    assert_eq!(Guest { run: &run, ..Guest::default() }.run(&host(), &limits()), Ok(b"record".to_vec()));
}

#[test]
fn a_table_grows_to_its_limit_and_no_further() {
    let host = host();
    let grow = |elements: usize| {
        let run = format!("(if (i32.eq (table.grow (ref.null func) (i32.const {elements})) (i32.const -1)) (then unreachable)) {KEEP}");
        Guest { run: &run, items: "(table $table 0 funcref)", ..Guest::default() }.run(&host, &limits())
    };
    assert_eq!(grow(TABLE_ELEMENTS_MAX), Ok(b"record".to_vec()));
    assert_eq!(grow(TABLE_ELEMENTS_MAX + 1).map_err(bare), Err(table_full()));
}

#[test]
fn a_component_may_consist_of_as_much_as_the_largest_guests_and_no_more() {
    let host = host();
    // What is small enough is compiled, and refused for exporting nothing.
    for (module, max, what) in [
        ("(core module $m)", 48, "core module instances"),
        ("(core module $m (memory 1))", 3, "Wasm linear memories"),
        ("(core module $m (table 1 funcref))", 4, "tables"),
    ] {
        let load = |count: usize| {
            let text = format!("(component {module} {})", "(core instance (instantiate $m))".repeat(count));
            host.load(&wat::parse_str(&text).expect("a component")).expect_err("it exports nothing")
        };
        assert!(matches!(load(max), PluginError::WrongWorld { .. }), "{max} {what}");
        let refused = load(max + 1);
        assert!(matches!(&refused, PluginError::Compile { reason } if reason.contains(what)), "{refused}");
    }
}

#[test]
fn output_fits_exactly_or_not_at_all() {
    let host = host();
    for (output_bytes, memory_pages) in [(100, 2), (100_000, 4), (1024 * 1024, 32)] {
        let limits = Limits { output_bytes, ..limits() };
        let returned = |bytes: usize| {
            let run = format!(
                "(i32.store8 (i32.const 1024) (i32.const 0)) (i32.store (i32.const 1028) (i32.const 8))
                 (i32.store (i32.const 1032) (i32.const {bytes})) (i32.const 1024)"
            );
            Guest { run: &run, pages: memory_pages, ..Guest::default() }.run(&host, &limits)
        };
        assert_eq!(returned(output_bytes).map(|output| output.len()), Ok(output_bytes));
        let error = returned(output_bytes + 1).expect_err("too much");
        assert_eq!(error, PluginError::OutputTooLarge { limit_bytes: output_bytes });
        assert_eq!(error.code(), ErrorCode::GuestOutputInvalid);
    }
}

#[test]
fn a_feature_that_is_off_does_not_load() {
    let host = host();
    for items in ["(memory i64 1)", "(func (drop (i32x4.relaxed_trunc_f32x4_s (v128.const i32x4 0 0 0 0))))", "(memory 1 2 shared)"] {
        let error = Guest { items, ..Guest::default() }.start(&host, &limits()).expect_err("off");
        assert!(matches!(error, PluginError::Compile { .. }), "{items}: {error}");
    }
}

#[test]
fn every_nan_looks_the_same() {
    // The sum of two NaNs with different payloads keeps one of them, a different one on different processors.
    let run = format!(
        "(f32.store (local.get $records) (f32.add (f32.load (local.get $records)) (f32.load offset=4 (local.get $records)))) {KEEP}"
    );
    let transform = Guest { run: &run, ..Guest::default() }.start(&host(), &limits()).expect("it starts");
    let mut input = 0x7fc0_1234_u32.to_le_bytes().to_vec();
    input.extend_from_slice(&0xffc0_4321_u32.to_le_bytes());
    let output = transform.run(&batch(1), &input).expect("it runs");
    assert_eq!(output[..4], 0x7fc0_0000_u32.to_le_bytes());
}
