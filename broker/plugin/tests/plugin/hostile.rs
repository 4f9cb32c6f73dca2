//! Guests that break out, break down or break the contract. Each gets its error, and the host goes on.

use millpond_plugin::{PluginError, Transform};
use millpond_protocol::error::ErrorCode;

use crate::support::{Guest, KEEP, bare, batch, host, limits, timed_out};

/// The error of a guest with this `transform`.
fn run(body: &str) -> PluginError {
    Guest { run: body, ..Guest::default() }.run(&host(), &limits()).expect_err("an error")
}

#[test]
fn an_unreachable_instruction_is_a_trap_with_a_backtrace() {
    let items = "(func $deep unreachable) (func $middle (call $deep))";
    let guest = Guest { run: "(call $middle) (i32.const 0)", items, ..Guest::default() };
    let error = guest.run(&host(), &limits()).expect_err("a trap");
    assert_eq!(error.code(), ErrorCode::GuestTrapped);
    assert!(error.to_string().contains("unreachable"), "{error}");
    let backtrace = error.backtrace().expect("a backtrace");
    let place = |name| backtrace.find(name).unwrap_or_else(|| panic!("{name} is not in\n{backtrace}"));
    assert!(place("deep") < place("middle") && place("middle") < place("transform"), "{backtrace}");
}

#[test]
fn an_access_outside_the_memory_is_a_trap() {
    for body in [
        "(i32.load (i32.const 131069))",
        "(i32.load (i32.const -1))",
        "(i32.load offset=4294967295 (i32.const -1))",
        "(i32.store (i32.const 131072) (i32.const 1)) (i32.const 0)",
        "(memory.fill (i32.const 131000) (i32.const 0) (i32.const 100)) (i32.const 0)",
    ] {
        let error = run(body);
        assert!(matches!(&error, PluginError::Trapped { reason, .. } if reason.contains("out of bounds")), "{body}: {error}");
    }
}

#[test]
fn an_impossible_division_or_call_is_a_trap() {
    let table = "(table $table 2 funcref)";
    for (body, words) in [
        ("(i32.div_u (i32.const 1) (i32.const 0))", "divide by zero"),
        ("(i32.trunc_f64_s (f64.const nan))", "conversion"),
        ("(call_indirect (result i32) (i32.const 0))", "uninitialized"),
        ("(call_indirect (result i32) (i32.const 9))", "out of bounds"),
    ] {
        let error = Guest { run: body, items: table, ..Guest::default() }.run(&host(), &limits()).expect_err("a trap");
        assert!(matches!(&error, PluginError::Trapped { reason, .. } if reason.contains(words)), "{body}: {error}");
    }
}

#[test]
fn a_result_outside_the_memory_is_refused() {
    let host = host();
    for (address, length) in [("131072", "1"), ("131000", "100"), ("0", "131073"), ("-1", "1"), ("1", "-1"), ("-1", "-1")] {
        let body = format!(
            "(i32.store8 (i32.const 1024) (i32.const 0)) (i32.store (i32.const 1028) (i32.const {address}))
             (i32.store (i32.const 1032) (i32.const {length})) (i32.const 1024)"
        );
        let error = Guest { run: &body, ..Guest::default() }.run(&host, &limits()).expect_err("outside");
        assert!(matches!(&error, PluginError::OutputInvalid { reason } if reason.contains("out of bounds")), "{address}+{length}: {error}");
        assert_eq!(error.code(), ErrorCode::GuestOutputInvalid);
    }
}

#[test]
fn a_result_that_is_none_is_refused() {
    for (body, words) in [
        ("(i32.const 1025)", "aligned"),
        ("(i32.const 131072)", "out of bounds"),
        ("(i32.const -4)", "out of bounds"),
        ("(i32.store8 (i32.const 1024) (i32.const 2)) (i32.const 1024)", "discriminant"),
        // An error whose message is not UTF-8.
        (
            "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 2048))
             (i32.store (i32.const 1032) (i32.const 1)) (i32.store8 (i32.const 2048) (i32.const 255)) (i32.const 1024)",
            "utf-8",
        ),
    ] {
        let error = run(body);
        assert!(matches!(&error, PluginError::OutputInvalid { reason } if reason.contains(words)), "{words}: {error}");
    }
}

#[test]
fn an_allocator_that_lies_is_refused() {
    for (realloc, words) in [
        ("(i32.const -16)", "beyond end"),
        ("(i32.const 131072)", "beyond end"),
        ("(i32.const 131068)", "beyond end"),
        ("unreachable", "unreachable"),
    ] {
        let guest = Guest { realloc, ..Guest::default() };
        let error = guest.run(&host(), &limits()).expect_err("a lie");
        assert!(error.to_string().contains(words), "{realloc}: {error}");
    }
    // Settings need an address that divides by four, and `init` is the first to be called.
    let host = host();
    let module = host.load(&Guest { realloc: "(i32.const 4097)", ..Guest::default() }.transform()).expect("it loads");
    let error = Transform::new(&host, &module, limits(), &[("a".to_owned(), "b".to_owned())]).expect_err("a lie");
    assert!(matches!(&error, PluginError::OutputInvalid { reason } if reason.contains("not aligned")), "{error}");
}

#[test]
fn an_allocator_that_logs_is_a_trap() {
    let realloc = "(call $log (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 4096)";
    let error = Guest { realloc, ..Guest::default() }.run(&host(), &limits()).expect_err("not allowed");
    assert!(matches!(error, PluginError::Trapped { .. }), "{error}");
}

#[test]
fn a_guest_can_refuse_to_start() {
    let items = r#"(data (i32.const 2048) "no such setting")"#;
    let init = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 2048))
        (i32.store (i32.const 1032) (i32.const 15)) (i32.const 1024)";
    let error = Guest { items, init, ..Guest::default() }.run(&host(), &limits()).expect_err("refused");
    assert_eq!(error, PluginError::Init("no such setting".to_owned()));
    assert_eq!(error.code(), ErrorCode::GuestFailed);
}

#[test]
fn whatever_goes_wrong_in_a_start_says_so() {
    let trap = Guest { init: "unreachable", ..Guest::default() }.run(&host(), &limits()).expect_err("a trap");
    assert!(matches!(&trap, PluginError::Trapped { reason, .. } if reason.starts_with("in init: ")), "{trap}");
    let endless = Guest { init: "(loop $l (br $l)) (i32.const 0)", ..Guest::default() }.run(&host(), &limits()).expect_err("a loop");
    assert_eq!(bare(endless), timed_out(limits().time));
    let begins = "(func $start (loop $l (br $l))) (start $start)";
    let endless = Guest { items: begins, ..Guest::default() }.run(&host(), &limits()).expect_err("a loop");
    assert_eq!(bare(endless), timed_out(limits().time));
}

#[test]
fn the_error_of_a_guest_names_its_record_if_there_is_such_a_record() {
    let host = host();
    let items = r#"(data (i32.const 2048) "no temperature")"#;
    // The index of the record is the number of records in the batch, less one that the first byte of the records says.
    let run = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 2048))
        (i32.store (i32.const 1032) (i32.const 14)) (i32.store8 (i32.const 1036) (i32.const 1))
        (i32.store (i32.const 1040) (i32.sub (local.get $count) (i32.load8_u (local.get $records)))) (i32.const 1024)";
    let transform = Guest { items, run, ..Guest::default() }.start(&host, &limits()).expect("it starts");
    let error = |less: u8| transform.run(&batch(5), &[less]).expect_err("its error");
    let expected = |record_index| PluginError::Guest { message: "no temperature".to_owned(), record_index };
    assert_eq!(error(1), expected(Some(4)));
    assert_eq!(error(5), expected(Some(0)));
    assert_eq!(error(0), expected(None), "there is no sixth record of five");
    assert_eq!(error(6), expected(None));
}

#[test]
fn a_long_message_is_cut() {
    let run = "(memory.fill (i32.const 8192) (i32.const 120) (i32.const 50000))
        (i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 8192))
        (i32.store (i32.const 1032) (i32.const 50000)) (i32.const 1024)";
    let error = Guest { run, ..Guest::default() }.run(&host(), &limits()).expect_err("its error");
    assert!(matches!(&error, PluginError::Guest { message, .. } if message.len() < 2000 && message.ends_with("x…")), "{error}");
}

#[test]
fn a_broken_instance_is_never_used_again() {
    let host = host();
    // Counts its calls, traps in the third, and says the count in the first byte of its output.
    let items = "(global $calls (mut i32) (i32.const 0))";
    let run = format!(
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (if (i32.eq (global.get $calls) (i32.const 3)) (then unreachable))
         (i32.store8 (local.get $records) (global.get $calls)) {KEEP}"
    );
    let transform = Guest { run: &run, items, ..Guest::default() }.start(&host, &limits()).expect("it starts");
    let calls: Vec<Option<u8>> = (0..7).map(|_| transform.run(&batch(1), b"x").ok().map(|output| output[0])).collect();
    assert_eq!(calls, [Some(1), Some(2), None, Some(1), Some(2), None, Some(1)]);
}
