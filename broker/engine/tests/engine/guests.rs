//! Guests written by hand, so that these tests need no compiler for WebAssembly.

use bytes::Bytes;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A transform that does what the first letter of its one parameter says:
///
/// | letter | result |
/// |---|---|
/// | `i` | the records as they are |
/// | `o` | without the second, the fourth and so on, counted in each batch |
/// | `e` | without those whose value ends in an even byte, as the digits 0, 2, 4, 6, 8 are |
/// | `c` | the last byte of each value in the other case |
/// | `x` | everything twice |
/// | `a` | nothing |
/// | `g` | bytes that are no records |
/// | `r` | `init` refuses |
/// | `w` | `init` goes on for ever |
///
/// It traps where the last value of a batch ends in `!`, returns an error where it ends in `?`, and goes on for ever where it ends in `~`.
pub(crate) fn transform() -> Bytes {
    module("transform", &format!("{MEMORY}{INIT}{TRANSFORM}"))
}

/// The same, but another file.
pub(crate) fn transform_again() -> Bytes {
    module("transform", &format!("{MEMORY}{INIT}{TRANSFORM} (func (export \"unused\"))"))
}

/// A transform that traps as soon as it is started.
pub(crate) fn that_does_not_start() -> Bytes {
    module("transform", &format!("{MEMORY}{INIT}{TRANSFORM} (func $trap (unreachable)) (start $trap)"))
}

/// A partitioner that deals the records out, one partition after the other.
pub(crate) fn partitioner() -> Bytes {
    module("partitioner", &format!("{MEMORY}{INIT}{PARTITION}"))
}

/// The guest of `plugins/hostile`, which logs, traps and loops as it is told to; `plugins/build.sh` builds it.
pub(crate) fn hostile() -> Bytes {
    built("hostile")
}

/// One of the guests that `plugins/build.sh` builds.
pub(crate) fn built(name: &str) -> Bytes {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist").join(name).with_extension("wasm");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; plugins/build.sh makes it", path.display())).into()
}

/// A core module with the component type of a world of the contract.
pub(crate) fn module(world: &str, body: &str) -> Bytes {
    let mut wasm = wat::parse_str(format!("(module {body})")).expect("it is well formed");
    let mut resolve = Resolve::default();
    let package = resolve.push_str("plugin.wit", include_str!("../../../../plugins/wit/plugin.wit")).expect("the contract parses");
    let world = resolve.select_world(&[package], Some(world)).expect("the contract has it");
    embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8).expect("it can be embedded");
    wasm.into()
}

/// Results are at 1024, the message at 2048, what is allocated from 65536 on. All of it is free again after a call.
pub(crate) const MEMORY: &str = r#"
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  (global $mode (mut i32) (i32.const 105))
  (data (i32.const 2048) "refused")
  (func $alloc (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
    (local $at i32) (local $missing i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get $size)))
    (local.set $missing (i32.sub (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
    (if (i32.gt_s (local.get $missing) (i32.const 0))
      (then (drop (memory.grow (i32.add (i32.div_u (local.get $missing) (i32.const 65536)) (i32.const 1))))))
    (local.get $at))
  (func $ok (param $at i32) (param $len i32) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1028) (local.get $at))
    (i32.store (i32.const 1032) (local.get $len))
    (i32.const 1024))
  (func $refused (result i32)
    (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store (i32.const 1028) (i32.const 2048))
    (i32.store (i32.const 1032) (i32.const 7))
    (i32.const 1024))
"#;

const INIT: &str = r#"
  (func (export "init") (param $params i32) (param $count i32) (result i32)
    (if (local.get $count)
      (then (global.set $mode (i32.load8_u (i32.load offset=8 (local.get $params))))))
    (global.set $next (i32.const 65536))
    (if (i32.eq (global.get $mode) (i32.const 119)) (then (loop $for_ever (br $for_ever))))
    (if (result i32) (i32.eq (global.get $mode) (i32.const 114)) (then (call $refused)) (else (call $ok (i32.const 0) (i32.const 0)))))
"#;

const TRANSFORM: &str = r#"
  (func $is (param $letter i32) (result i32) (i32.eq (global.get $mode) (local.get $letter)))
  (func (export "cabi_post_transform") (param i32) (global.set $next (i32.const 65536)))
  (func (export "transform") (param i32 i32 i32 i32 i64) (param $count i32) (param $at i32) (param $len i32) (result i32)
    (local $out i32) (local $end i32) (local $write i32) (local $start i32) (local $size i32) (local $shift i32) (local $byte i32)
    (local $index i32)
    (local.set $end (i32.add (local.get $at) (local.get $len)))
    ;; The last byte is the number of headers, 0; before it is the end of the value.
    (local.set $byte (i32.load8_u (i32.sub (local.get $end) (i32.const 2))))
    (if (i32.eq (local.get $byte) (i32.const 33)) (then unreachable))
    (if (i32.eq (local.get $byte) (i32.const 126)) (then (loop $for_ever (br $for_ever))))
    (if (i32.eq (local.get $byte) (i32.const 63)) (then
      (i32.store8 (i32.const 1036) (i32.const 1))
      (i32.store (i32.const 1040) (i32.sub (local.get $count) (i32.const 1)))
      (return (call $refused))))
    (if (call $is (i32.const 105)) (then (return (call $ok (local.get $at) (local.get $len)))))
    (if (call $is (i32.const 97)) (then (return (call $ok (local.get $at) (i32.const 0)))))
    (local.set $out (call $alloc (i32.const 0) (i32.const 0) (i32.const 1) (i32.mul (local.get $len) (i32.const 2))))
    (if (call $is (i32.const 103)) (then
      (memory.fill (local.get $out) (i32.const 255) (local.get $len))
      (return (call $ok (local.get $out) (local.get $len)))))
    (if (call $is (i32.const 120)) (then
      (memory.copy (local.get $out) (local.get $at) (local.get $len))
      (memory.copy (i32.add (local.get $out) (local.get $len)) (local.get $at) (local.get $len))
      (return (call $ok (local.get $out) (i32.mul (local.get $len) (i32.const 2))))))
    (local.set $write (local.get $out))
    (block $done (loop $next_record
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (local.set $start (local.get $at))
      (local.set $size (i32.const 0))
      (local.set $shift (i32.const 0))
      (loop $next_byte
        (local.set $byte (i32.load8_u (local.get $at)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (local.set $size (i32.or (local.get $size) (i32.shl (i32.and (local.get $byte) (i32.const 127)) (local.get $shift))))
        (local.set $shift (i32.add (local.get $shift) (i32.const 7)))
        (br_if $next_byte (i32.and (local.get $byte) (i32.const 128))))
      (local.set $at (i32.add (local.get $at) (i32.shr_u (local.get $size) (i32.const 1))))
      (if (call $is (i32.const 99)) (then
        (i32.store8 (i32.sub (local.get $at) (i32.const 2))
          (i32.xor (i32.load8_u (i32.sub (local.get $at) (i32.const 2))) (i32.const 32)))))
      (if (i32.eqz (i32.or
          (i32.and (call $is (i32.const 111)) (local.get $index))
          (i32.and (call $is (i32.const 101)) (i32.eqz (i32.and (i32.load8_u (i32.sub (local.get $at) (i32.const 2))) (i32.const 1))))))
        (then
        (local.set $size (i32.sub (local.get $at) (local.get $start)))
        (memory.copy (local.get $write) (local.get $start) (local.get $size))
        (local.set $write (i32.add (local.get $write) (local.get $size)))))
      (local.set $index (i32.xor (local.get $index) (i32.const 1)))
      (br $next_record)))
    (call $ok (local.get $out) (i32.sub (local.get $write) (local.get $out))))
"#;

const PARTITION: &str = r#"
  (func (export "cabi_post_partition") (param i32) (global.set $next (i32.const 65536)))
  (func (export "partition") (param i32 i32 i32 i32 i64) (param $count i32) (param i32 i32) (param $partitions i32) (result i32)
    (local $out i32) (local $index i32)
    (local.set $out (call $alloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $count) (i32.const 4))))
    (block $done (loop $next_record
      (br_if $done (i32.ge_u (local.get $index) (local.get $count)))
      (i32.store (i32.add (local.get $out) (i32.mul (local.get $index) (i32.const 4)))
        (i32.rem_u (local.get $index) (local.get $partitions)))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br $next_record)))
    (call $ok (local.get $out) (local.get $count)))
"#;
