//! What can be uploaded, and what the refusals say.

use millpond_plugin::{Limits, MEMORY_BYTES_MAX, MODULE_BYTES_MAX, PARAMS_BYTES_MAX, Partitioner, PluginError, Transform, World};
use millpond_protocol::error::ErrorCode;

use crate::support::{Guest, assert_well, batch, component, host, limits, with_component_type};

#[test]
fn a_core_module_and_a_component_are_taken() {
    let host = host();
    let core = Guest::default().transform();
    for upload in [component(&core), core] {
        let module = host.load(&upload).expect("it loads");
        assert_eq!((module.world(), module.size_bytes(), module.sha256().len()), (World::Transform, upload.len(), 64));
        let transform = Transform::new(&host, &module, limits(), &[]).expect("it starts");
        assert_eq!(transform.run(&batch(1), b"a record").expect("it runs"), b"a record");
    }
    let module = host.load(&Guest { run: super::partitioner::ZEROES, ..Guest::default() }.partitioner()).expect("it loads");
    assert_eq!(module.world().to_string(), "partitioner");
}

#[test]
fn what_is_not_webassembly_is_named() {
    let host = host();
    let elf = std::fs::read(std::env::current_exe().expect("a path")).expect("this test");
    for (upload, words) in [
        (&b""[..], "it is empty"),
        (b"\0as", "it starts with 00 61 73"),
        (b"(module)", "text"),
        (b"\n  (component)", "text"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "compressed"),
        (b"PK\x03\x04aaaaaa", "compressed"),
        (b"AGFzbQEAAAA=", "base64"),
        (b"\0asm\x02\0\0\0", "version"),
        (b"<!DOCTYPE html>", "3c 21 44"),
        (&elf, "program"),
    ] {
        let error = host.load(upload).expect_err("not WebAssembly");
        assert!(matches!(&error, PluginError::NotWasm { found } if found.contains(words)), "{words}: {error}");
        assert_eq!(error.code(), ErrorCode::ModuleInvalid);
        assert!(error.hint().is_some_and(|hint| hint.contains(".wasm")));
    }
    assert_eq!(host.compilations(), 0);
    assert_well(&host);
}

#[test]
fn a_core_module_without_its_component_type_is_refused() {
    let host = host();
    let error = host.load(&wat::parse_str("(module)").expect("a module")).expect_err("no component type");
    assert!(matches!(&error, PluginError::WrongWorld { found } if found.contains("component-type")), "{error}");
    assert_well(&host);
}

#[test]
fn an_import_that_is_not_granted_is_named() {
    let host = host();
    let preview1 = r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#;
    let core = Guest { imports: preview1, ..Guest::default() }.transform();
    let clock = wat::parse_str(r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#).expect("a component");
    let future = wat::parse_str(r#"(component (import "millpond:plugin/log@2.0.0" (instance)))"#).expect("a component");
    let function = wat::parse_str(r#"(component (import "now" (func (result u64))))"#).expect("a component");
    for (upload, import, hint) in [
        (core, "wasi_snapshot_preview1", "wasm32-unknown-unknown"),
        (clock, "wasi:clocks/wall-clock@0.2.0", "wasm32-unknown-unknown"),
        (future, "millpond:plugin/log@2.0.0", "1.0.0"),
        (function, "now", "nothing else"),
    ] {
        let error = host.load(&upload).expect_err("not granted");
        assert_eq!(error, PluginError::ImportDenied { name: import.to_owned() });
        assert_eq!(error.code(), ErrorCode::ModuleImportDenied);
        assert!(error.hint().is_some_and(|text| text.contains(hint)), "{error:?}");
    }
    assert_eq!(host.compilations(), 0);
}

#[test]
fn more_than_there_is_of_a_granted_import_is_refused() {
    let host = host();
    let upload =
        wat::parse_str(r#"(component (import "millpond:plugin/log@1.0.0" (instance (export "clear" (func)))))"#).expect("a component");
    let error = host.load(&upload).expect_err("no such function");
    assert!(matches!(error, PluginError::WrongWorld { .. } | PluginError::Compile { .. }), "{error}");
}

#[test]
fn a_component_of_another_world_is_told_what_it_lacks() {
    let host = host();
    let nothing = wat::parse_str("(component)").expect("a component");
    let error = host.load(&nothing).expect_err("no exports");
    assert!(matches!(&error, PluginError::WrongWorld { found } if found.contains("exports nothing")), "{error}");
    assert_eq!(error.code(), ErrorCode::ModuleWrongWorld);

    let other = wat::parse_str(
        r#"(component
            (core module $m (func (export "run")))
            (core instance $i (instantiate $m))
            (func (export "run") (canon lift (core func $i "run"))))"#,
    );
    let error = host.load(&other.expect("a component")).expect_err("another world");
    assert!(matches!(&error, PluginError::WrongWorld { found } if found.contains("`run`") && found.contains("`init`")), "{error}");
    assert_well(&host);
}

#[test]
fn a_wrong_signature_is_shown_beside_the_right_one() {
    let host = host();
    let wit = "package test:wrong;
        world wrong {
            export init: func(params: list<tuple<string, string>>) -> result<_, string>;
            export transform: func(records: list<u8>) -> list<u8>;
        }";
    let text = r#"(module
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
        (func (export "init") (param i32 i32) (result i32) (i32.const 0))
        (func (export "transform") (param i32 i32) (result i32) (i32.const 0)))"#;
    let error = host.load(&with_component_type(wat::parse_str(text).expect("a module"), wit, "wrong")).expect_err("a wrong signature");
    let PluginError::WrongWorld { found } = &error else { panic!("{error}") };
    assert!(found.contains("`transform` is func(records: list<u8>) -> list<u8>; expected is func(batch: record {"), "{found}");
    assert!(error.hint().is_some_and(|hint| hint.contains("plugin.wit")));
}

#[test]
fn a_module_runs_in_its_own_world_only() {
    let host = host();
    let transform = host.load(&Guest::default().transform()).expect("it loads");
    let error = Partitioner::new(&host, &transform, limits(), &[]).expect_err("a transform");
    assert_eq!(error.to_string(), "the module is neither a transform nor a partitioner: it is a transform where a partitioner is needed");
}

#[test]
fn a_module_that_was_compiled_elsewhere_is_refused() {
    let cache = std::sync::Arc::new(crate::support::Cache::default());
    let host = millpond_plugin::PluginHost::new(cache.clone()).expect("a host");
    host.load(&Guest::default().transform()).expect("it loads");
    let (_, artifact) = cache.entries().pop().expect("an artifact");
    for upload in [&artifact[..], &artifact[40..]] {
        let error = host.load(upload).expect_err("compiled");
        assert!(matches!(error, PluginError::NotWasm { .. }), "{error}");
    }
    assert!(host.load(&artifact[40..]).expect_err("compiled").to_string().contains("ahead of time"));
}

#[test]
fn a_module_that_is_cut_anywhere_is_refused() {
    let host = host();
    let core = Guest::default().transform();
    for whole in [component(&core), core] {
        for end in 0..whole.len() {
            let loaded = host.load(&whole[..end]);
            // The names of functions come last, and a module is whole without them.
            if let Ok(module) = loaded {
                assert!(end * 2 > whole.len() && module.world() == World::Transform, "cut at {end} of {}", whole.len());
            }
        }
    }
    assert_well(&host);
}

#[test]
fn a_module_with_any_bit_wrong_does_no_harm() {
    let host = host();
    let core = Guest::default().transform();
    let tight = Limits { time: std::time::Duration::from_millis(20), ..limits() };
    for whole in [component(&core), core] {
        for place in 0..whole.len() {
            let mut broken = whole.clone();
            broken[place] ^= 1 << (place % 8);
            let Ok(module) = host.load(&broken) else { continue };
            let Ok(transform) = Transform::new(&host, &module, tight.clone(), &[]) else { continue };
            let _either = transform.run(&batch(1), b"record");
        }
    }
    assert_well(&host);
}

#[test]
fn sizes_and_limits_are_checked() {
    let host = host();
    let mut large = b"\0asm\x01\0\0\0".to_vec();
    large.resize(MODULE_BYTES_MAX + 1, 0);
    let error = host.load(&large).expect_err("too large");
    assert_eq!(error, PluginError::TooLarge { size_bytes: MODULE_BYTES_MAX + 1, limit_bytes: MODULE_BYTES_MAX });
    assert_eq!(error.code(), ErrorCode::ModuleTooLarge);
    large.truncate(MODULE_BYTES_MAX);
    assert!(matches!(host.load(&large), Err(PluginError::Compile { .. })), "zeroes are no section");

    let module = host.load(&Guest { pages: 2, ..Guest::default() }.transform()).expect("it loads");
    let with = |memory_bytes| Transform::new(&host, &module, Limits { memory_bytes, ..limits() }, &[]);
    assert!(with(MEMORY_BYTES_MAX).is_ok());
    assert_eq!(with(MEMORY_BYTES_MAX + 1).expect_err("too much").code(), ErrorCode::InvalidConfig);
    let with = |bytes| Transform::new(&host, &module, limits(), &[("name".to_owned(), "x".repeat(bytes - 4))]);
    assert!(with(PARAMS_BYTES_MAX / 2).is_ok());
    assert_eq!(with(PARAMS_BYTES_MAX + 1).expect_err("too much").code(), ErrorCode::InvalidConfig);
}
