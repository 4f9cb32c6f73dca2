//! Where a guest was when it was ended, whoever ended it: its functions by their names, innermost first.

use millpond_plugin::{Limits, PluginError, Transform};
use millpond_protocol::error::ErrorCode;

use crate::guests::{load, params, section};
use crate::support::{Guest, KEEP, batch, host, limits};

/// The names are there, each inside of the next.
fn is_in_order(error: &PluginError, names: &[&str]) {
    let backtrace = error.backtrace().unwrap_or_else(|| panic!("{error:?} has no backtrace"));
    let places: Vec<_> = names.iter().map(|name| backtrace.find(name).unwrap_or_else(|| panic!("{name} is not in\n{backtrace}"))).collect();
    assert!(places.is_sorted(), "{names:?}:\n{backtrace}");
    assert!(!backtrace.contains("error while executing") && backtrace.len() < 8192, "{backtrace}");
}

#[test]
fn one_that_took_too_long_says_where_it_was() {
    let host = host();
    let spin = "(func $spin (loop $l (br $l))) (func $middle (call $spin))";
    let run = Guest { run: "(call $middle) (i32.const 0)", items: spin, ..Guest::default() };
    let error = run.run(&host, &limits()).expect_err("endless");
    assert_eq!(error.code(), ErrorCode::GuestTimedOut);
    is_in_order(&error, &["spin", "middle", "transform"]);
    let init = Guest { init: "(call $middle) (i32.const 0)", items: spin, ..Guest::default() };
    is_in_order(&init.run(&host, &limits()).expect_err("endless"), &["spin", "middle", "init"]);
    let begin = "(func $spin (loop $l (br $l))) (func $begin (call $spin)) (start $begin)";
    is_in_order(&Guest { items: begin, ..Guest::default() }.run(&host, &limits()).expect_err("endless"), &["spin", "begin"]);
    // While the host places the input, too.
    let place = Guest { realloc: "(call $spin) (i32.const 0)", items: spin, ..Guest::default() };
    is_in_order(&place.run(&host, &limits()).expect_err("endless"), &["spin", "realloc"]);
}

#[test]
fn one_whose_stack_came_to_its_end_names_what_called_itself() {
    let items = "(func $deeper (param i32) (result i32) (i32.add (call $deeper (local.get 0)) (i32.const 1)))";
    let error =
        Guest { run: "(call $deeper (i32.const 1))", items, ..Guest::default() }.run(&host(), &limits()).expect_err("no end of calls");
    assert_eq!(error.code(), ErrorCode::GuestTrapped);
    is_in_order(&error, &["deeper"]);
    let frames = error.backtrace().map_or(0, |backtrace| backtrace.matches("deeper").count());
    assert!((2..=32).contains(&frames), "the innermost are told, and no more: {frames}");
}

#[test]
fn one_that_got_no_more_memory_or_no_larger_table_says_where_it_gave_up() {
    let host = host();
    let items = "(table $table 0 funcref) (func $give_up unreachable)
        (func $hoard (loop $l (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then (call $give_up))) (br $l)))
        (func $fill (loop $l (if (i32.eq (table.grow (ref.null func) (i32.const 4096)) (i32.const -1)) (then (call $give_up))) (br $l)))";
    for (call, middle) in [("(call $hoard)", "hoard"), ("(call $fill)", "fill")] {
        let error = Guest { run: &format!("{call} {KEEP}"), items, ..Guest::default() }.run(&host, &limits()).expect_err("too much");
        assert_eq!(error.code(), ErrorCode::GuestOutOfMemory);
        is_in_order(&error, &["give_up", middle, "transform"]);
    }
}

#[test]
fn a_guest_in_rust_has_the_names_of_its_functions_in_it() {
    let host = host();
    let module = load(&host, "hostile");
    for (mode, names) in [("loop", &["hostile", "transform"][..]), ("recurse", &["deeper"]), ("grow", &["alloc", "transform"])] {
        let transform = Transform::new(&host, &module, limits(), &params(&[("mode", mode)])).expect("it starts");
        is_in_order(&transform.run(&batch(1), &section(&["a"])).expect_err(mode), names);
    }
}

#[test]
fn one_that_returned_has_no_backtrace() {
    let host = host();
    let module = load(&host, "hostile");
    for mode in ["fail", "huge-output"] {
        let transform = Transform::new(&host, &module, Limits::default(), &params(&[("mode", mode)])).expect("it starts");
        let error = transform.run(&batch(1), &section(&["a"])).expect_err(mode);
        assert_eq!(error.backtrace(), None, "{mode}: {error}");
    }
}
