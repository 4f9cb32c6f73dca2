//! Uploads that would cost the compiler more than they look.

use std::fmt::Write as _;

use millpond_plugin::PluginError;
use millpond_protocol::error::ErrorCode;

use crate::support::{Guest, assert_well, component, host, limits};

/// `branches` times a change of some local behind a condition, in a function of `locals` locals.
fn changes(locals: usize, branches: usize) -> String {
    let mut items = format!("(func (local {})", "i32 ".repeat(locals));
    for number in 0..branches {
        let [condition, from, to] = [7, 11, 13].map(|step| number * step % locals);
        write!(items, " local.get {condition} if local.get {from} local.set {to} end").expect("memory");
    }
    items + ")"
}

#[test]
fn a_small_upload_that_needs_gigabytes_to_compile_is_refused_before() {
    let host = host();
    for (locals, branches) in [(40_000, 8_000), (8_000, 8_000), (1_000, 16_000)] {
        let items = changes(locals, branches);
        let core = Guest { items: &items, ..Guest::default() }.transform();
        for upload in [component(&core), core] {
            let error = host.load(&upload).expect_err("it costs too much");
            let PluginError::FunctionTooComplex { function: 4, actual, limit, .. } = error else { panic!("{error:?}") };
            assert!(actual > limit, "{error}");
            assert_eq!(error.code(), ErrorCode::ModuleTooLarge);
            assert!(error.hint().is_some_and(|hint| hint.contains("split the function")));
        }
    }
    assert_eq!(host.compilations(), 0);
    assert_well(&host);
}

#[test]
fn a_large_module_like_those_that_compilers_make_is_taken() {
    // An interpreter's loop, and 2000 functions of ordinary size.
    let mut items = format!("{} {}", changes(400, 2_000), changes(60, 10_000));
    for _ in 0..2_000 {
        items += &changes(12, 20);
    }
    let host = host();
    let output = Guest { items: &items, ..Guest::default() }.run(&host, &limits()).expect("it runs");
    assert_eq!(output, b"record");
}
