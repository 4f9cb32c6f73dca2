//! Attacks that take their time, or that are large: each as far as it is allowed, and one step further. What ends within one batch is in
//! `hostile.rs`, `limits.rs` and `log.rs`.

use std::fmt::Write as _;

use millpond_plugin::{Limits, MEMORY_BYTES_MAX, MODULE_BYTES_MAX, Partitioner, PluginError, TABLE_ELEMENTS_MAX, Transform};
use millpond_protocol::error::ErrorCode;

use crate::guests::{load, params, section};
use crate::support::{Guest, KEEP, assert_well, bare, batch, component, host, limits, out_of_memory, table_full, timed_out};

/// How many batches an instance survives, three instances in a row; the error that ends the last. All others have to go through.
fn batches_until_it_ends(transform: &Transform, batches_max: usize) -> (Vec<usize>, PluginError) {
    let records = section(&["a", "b"]);
    let mut survived = Vec::new();
    loop {
        let mut error = None;
        let batches = (0..batches_max).take_while(|_| match transform.run(&batch(2), &records) {
            Ok(output) => {
                assert_eq!(output, records);
                true
            }
            Err(found) => {
                error = Some(found);
                false
            }
        });
        survived.push(batches.count());
        let error = error.unwrap_or_else(|| panic!("{batches_max} batches went through"));
        assert!(error.hint().is_some_and(|hint| hint.len() > 20), "{error}");
        if survived.len() == 3 {
            return (survived, error);
        }
    }
}

#[test]
fn a_slow_leak_ends_at_the_memory_limit_and_a_fresh_instance_goes_on() {
    let host = host();
    let module = load(&host, "hostile");
    let leaking = |memory_bytes| {
        let limits = Limits { memory_bytes, ..limits() };
        Transform::new(&host, &module, limits, &params(&[("mode", "leak")])).expect("it starts")
    };
    // A leak that the limit has room for does no harm: 256 KiB of each of 40 batches.
    let roomy = leaking(16 * 1024 * 1024);
    for _ in 0..40 {
        roomy.run(&batch(1), &section(&["a"])).expect("there is room");
    }
    assert!((10 * 1024 * 1024..=16 * 1024 * 1024).contains(&roomy.memory_bytes_peak()), "{}", roomy.memory_bytes_peak());

    let tight = leaking(4 * 1024 * 1024);
    let (survived, error) = batches_until_it_ends(&tight, 17);
    assert_eq!(bare(error.clone()), out_of_memory(4 * 1024 * 1024));
    assert_eq!(error.to_string(), "the module needs more memory than its 4194304 bytes");
    assert!(survived[0] >= 8 && survived.iter().all(|batches| *batches == survived[0]), "each instance begins anew: {survived:?}");
    assert!(tight.memory_bytes_peak() <= 4 * 1024 * 1024, "{}", tight.memory_bytes_peak());
    assert_well(&host);
}

#[test]
fn a_table_that_grows_with_each_batch_ends_at_its_limit_and_a_fresh_instance_goes_on() {
    let host = host();
    let step = TABLE_ELEMENTS_MAX / 32;
    let run = format!("(if (i32.eq (table.grow (ref.null func) (i32.const {step})) (i32.const -1)) (then unreachable)) {KEEP}");
    let guest = Guest { run: &run, items: "(table $table 0 funcref)", ..Guest::default() };
    let transform = guest.start(&host, &limits()).expect("it starts");
    let (survived, error) = batches_until_it_ends(&transform, 33);
    assert_eq!(survived, [32; 3]);
    assert_eq!(bare(error.clone()), table_full());
    assert_eq!(error.to_string(), "the module needs a table of more than 32768 elements");
    assert_eq!(error.code(), ErrorCode::GuestOutOfMemory);
    assert_well(&host);
}

#[test]
fn many_tables_and_memories_count_together_and_too_many_are_refused() {
    let host = host();
    let with = |items: &str| Guest { items, ..Guest::default() }.start(&host, &limits()).map(|_| ());
    assert_eq!(with("(table 32768 funcref) (table 32768 funcref) (memory 1)"), Ok(()));
    let tables = "(table 1 funcref) ".repeat(5);
    let memories = "(memory 1) ".repeat(3);
    for items in [&tables, &memories, "(table 32769 funcref)"] {
        let error = with(items).expect_err(items);
        assert!(matches!(error, PluginError::Compile { .. } | PluginError::TableFull { .. }), "{items}: {error}");
        assert!(error.to_string().bytes().any(|byte| byte.is_ascii_digit()), "it names the limit: {error}");
    }
    let pages = limits().memory_bytes / (64 * 1024) - 1;
    let error = with(&format!("(memory {pages})")).expect_err("both together");
    assert_eq!(bare(error), out_of_memory(limits().memory_bytes));
    assert_well(&host);
}

#[test]
fn a_module_that_works_ten_thousand_times_and_then_traps_is_replaced() {
    let host = host();
    let transform = Transform::new(&host, &load(&host, "hostile"), Limits::default(), &params(&[("mode", "later")])).expect("it starts");
    let (survived, error) = batches_until_it_ends(&transform, 10_001);
    assert_eq!(survived, [10_000; 3]);
    let PluginError::Trapped { reason, backtrace } = &error else { panic!("{error}") };
    assert!(reason.contains("told to panic after 10000 batches") && backtrace.contains("transform"), "{reason}\n{backtrace}");
    assert_well(&host);
}

#[test]
fn a_recursion_without_end_names_the_stack_that_it_had() {
    let host = host();
    let transform = Transform::new(&host, &load(&host, "hostile"), Limits::default(), &params(&[("mode", "recurse")])).expect("it starts");
    let error = transform.run(&batch(1), &section(&["a"])).expect_err("endless");
    assert!(error.to_string().contains("call stack exhausted, a module has 524288 bytes of it"), "{error}");
    assert!(error.backtrace().is_some_and(|backtrace| backtrace.contains("deeper") && backtrace.len() < 8192));
}

#[test]
fn a_start_function_that_ends_is_allowed_and_one_that_loops_is_ended() {
    let host = host();
    let begins = |rounds: u32| {
        let items = format!(
            "(func $start (local $n i32) (loop $l (local.set $n (i32.add (local.get $n) (i32.const 1)))
                 (br_if $l (i32.ne (local.get $n) (i32.const {rounds})))))
             (start $start)"
        );
        Guest { items: &items, ..Guest::default() }.run(&host, &limits())
    };
    assert_eq!(begins(100_000), Ok(b"record".to_vec()));
    // Counts through all numbers again and again: it is never 0 behind an addition of 2.
    let endless = "(func $start (local $n i32) (local.set $n (i32.const 1))
        (loop $l (local.set $n (i32.add (local.get $n) (i32.const 2))) (br_if $l (local.get $n)))) (start $start)";
    let error = Guest { items: endless, ..Guest::default() }.run(&host, &limits()).expect_err("endless");
    assert_eq!((error.to_string().as_str(), error.code()), ("the module ran longer than 200ms", ErrorCode::GuestTimedOut));
    assert_eq!(bare(error), timed_out(limits().time));
}

/// A component with a custom section behind it, so that it has this size.
fn padded(component: &[u8], size_bytes: usize) -> Vec<u8> {
    const HEAD_BYTES: usize = 8;
    let content = size_bytes - component.len() - HEAD_BYTES + 2;
    let mut padded = Vec::with_capacity(size_bytes);
    padded.extend_from_slice(component);
    // The section's id, its length in five bytes, the length of its name, its name.
    padded.push(0);
    for shift in [0, 7, 14, 21] {
        padded.push(u8::try_from(content >> shift & 0x7f).expect("seven bits") | 0x80);
    }
    padded.push(u8::try_from(content >> 28).expect("it is below 4 GiB"));
    padded.extend_from_slice(b"\x01x");
    padded.resize(size_bytes, 0);
    padded
}

#[test]
fn a_component_as_large_as_the_limit_is_taken_and_one_of_100_mb_is_refused_at_once() {
    let host = host();
    let small = component(&Guest::default().transform());
    let error = host.load(&padded(&small, 100_000_000)).expect_err("too large");
    assert_eq!(error, PluginError::TooLarge { size_bytes: 100_000_000, limit_bytes: MODULE_BYTES_MAX });
    assert_eq!(error.to_string(), "the module has 100000000 bytes, the limit is 67108864");
    assert!(error.hint().is_some_and(|hint| hint.contains("debug information")));
    assert!(host.load(&padded(&small, MODULE_BYTES_MAX + 1)).is_err());
    assert_eq!(host.compilations(), 0);

    let module = host.load(&padded(&small, MODULE_BYTES_MAX)).expect("it has the size that it may have");
    let transform = Transform::new(&host, &module, limits(), &[]).expect("it starts");
    assert_eq!(transform.run(&batch(1), b"record"), Ok(b"record".to_vec()));
}

#[test]
fn one_memory_as_large_as_the_limit_is_taken() {
    let host = host();
    let pages = u32::try_from(MEMORY_BYTES_MAX / (64 * 1024)).expect("few");
    let limits = Limits { memory_bytes: MEMORY_BYTES_MAX, ..limits() };
    assert_eq!(Guest { pages, ..Guest::default() }.run(&host, &limits), Ok(b"record".to_vec()));
    let error = Guest { pages: pages + 1, ..Guest::default() }.run(&host, &limits).expect_err("a page too much");
    assert!(matches!(error, PluginError::Compile { .. } | PluginError::OutOfMemory { .. }), "{error}");
}

/// So many times the one function that may be imported.
fn granted_imports(count: usize) -> String {
    r#"(import "millpond:plugin/log@1.0.0" "log" (func (param i32 i32 i32)))"#.repeat(count)
}

#[test]
fn a_thousand_imports_are_refused_by_the_first_that_is_not_granted() {
    let host = host();
    let mut imports = granted_imports(500);
    for number in 0..500 {
        write!(imports, r#"(import "wasi:sockets/tcp@0.2.{number}" "f{number}" (func (param i32)))"#).expect("memory");
    }
    let error = host.load(&Guest { imports: &imports, ..Guest::default() }.transform()).expect_err("not granted");
    assert_eq!(error, PluginError::ImportDenied { name: "wasi:sockets/tcp@0.2.0".to_owned() });
    assert!(error.hint().is_some_and(|hint| hint.contains("no files, clock, network")));

    // As a component has them, each with another version of what is granted, and with a function that there is not.
    let mut instances = String::new();
    for number in 0..1000 {
        write!(instances, r#"(import "millpond:plugin/log@1.{number}.0" (instance (export "wipe" (func))))"#).expect("memory");
    }
    let component = wat::parse_str(format!("(component {instances})")).expect("a component");
    let error = host.load(&component).expect_err("it has no world");
    assert!(matches!(error, PluginError::WrongWorld { .. } | PluginError::Compile { .. }), "{error}");
    assert!(error.to_string().len() < 2000, "what is wrong with all of them is not told");
    assert_well(&host);
}

#[test]
fn as_many_imports_as_there_may_be_are_taken_and_more_are_refused_before_they_are_compiled() {
    let host = host();
    // The guest has one itself.
    let with = |count: usize| Guest { imports: &granted_imports(count - 1), ..Guest::default() }.transform();
    let core = with(1024);
    for upload in [component(&core), core] {
        let transform = Transform::new(&host, &host.load(&upload).expect("it loads"), limits(), &[]).expect("it starts");
        assert_eq!(transform.run(&batch(1), b"record"), Ok(b"record".to_vec()));
    }
    let compilations = host.compilations();
    for count in [1025, 60_000] {
        let error = host.load(&with(count)).expect_err("too many");
        assert_eq!(error, PluginError::CodeTooComplex { what: "imports", actual: 1025, limit: 1024 });
        assert_eq!(error.to_string(), "the module has 1025 imports or more, the limit is 1024");
        assert_eq!(error.code(), ErrorCode::ModuleTooLarge);
    }
    // A component made by hand: its core module takes what one instance exports, again and again.
    let many = r#"(import "i" "f" (func)) "#.repeat(50_000);
    let text = format!(
        r#"(component (core module $e (func (export "f"))) (core instance $i (instantiate $e))
            (core module $m {many}) (core instance (instantiate $m (with "i" (instance $i)))))"#
    );
    let error = host.load(&wat::parse_str(text).expect("a component")).expect_err("too many");
    assert!(matches!(error, PluginError::CodeTooComplex { what, actual: 49_153, limit: 49_152 } if what.contains("imports")), "{error}");
    assert_eq!(host.compilations(), compilations);
    assert_well(&host);
}

#[test]
fn placements_and_messages_outside_the_memory_are_refused() {
    let host = host();
    let result = |case: u32, address: &str, length: &str| {
        format!(
            "(i32.store8 (i32.const 1024) (i32.const {case})) (i32.store (i32.const 1028) (i32.const {address}))
             (i32.store (i32.const 1032) (i32.const {length})) (i32.const 1024)"
        )
    };
    // Four bytes for each placement, so these lengths go round the end of an address.
    for (address, length) in [("131072", "1"), ("131068", "2"), ("0", "1073741824"), ("4", "-1"), ("-4", "1"), ("65536", "1073741825")] {
        let guest = Guest { run: &result(0, address, length), ..Guest::default() };
        let module = host.load(&guest.partitioner()).expect("it loads");
        let partitioner = Partitioner::new(&host, &module, limits(), &[]).expect("it starts");
        let error = partitioner.run(&batch(1), b"record", 4).expect_err("outside");
        assert!(matches!(&error, PluginError::OutputInvalid { reason } if reason.contains("out of bounds")), "{address}+{length}: {error}");
        assert_eq!(error.code(), ErrorCode::GuestOutputInvalid);
    }
    for (address, length) in [("131072", "1"), ("131000", "73"), ("-1", "2"), ("0", "-1")] {
        let error = Guest { run: &result(1, address, length), ..Guest::default() }.run(&host, &limits()).expect_err("outside");
        assert!(matches!(&error, PluginError::OutputInvalid { reason } if reason.contains("out of bounds")), "{address}+{length}: {error}");
        let error = Guest { init: &result(1, address, length), ..Guest::default() }.run(&host, &limits()).expect_err("outside");
        let named = |reason: &str| reason.starts_with("in init: ") && reason.contains("out of bounds");
        assert!(matches!(&error, PluginError::OutputInvalid { reason } if named(reason)), "{address}+{length}: {error}");
    }
    // What lies at the very end of the memory is inside of it.
    let inside = Guest { run: &result(0, "131000", "72"), ..Guest::default() }.run(&host, &limits());
    assert_eq!(inside.map(|output| output.len()), Ok(72));
}
