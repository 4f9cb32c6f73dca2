//! Guests written by hand that derive topics and keep state.

use crate::guests::{MEMORY, module};
use bytes::Bytes;

/// A module that derives topics and keeps state. It counts the records of each key, from `first` on, and makes of each a record with the same key
/// and the count, four bytes with the lowest first. Of two targets it goes to the one that the last bit of the value names.
///
/// It traps at a value that ends in `!`, and returns an error at one that ends in `?`. A key has 50 bytes at most.
pub(crate) fn counter(first: u32) -> Bytes {
    module("stateful-derive", &format!("{STATE}{MEMORY}{}", COUNTER.replace("FIRST", &first.to_string())))
}

/// The same, but it bears every value.
pub(crate) fn tolerant_counter() -> Bytes {
    let body = COUNTER.replace("FIRST", "1").replace("(i32.const 33)", "(i32.const 300)").replace("(i32.const 63)", "(i32.const 300)");
    module("stateful-derive", &format!("{STATE}{MEMORY}{body}"))
}

/// A transform that puts something into its state, and returns the records as they are.
pub(crate) fn stateful_transform() -> Bytes {
    let body = r#"
      (func (export "init") (param i32 i32) (result i32) (call $ok (i32.const 0) (i32.const 0)))
      (func (export "cabi_post_transform") (param i32) (global.set $next (i32.const 65536)))
      (func (export "transform") (param i32 i32 i32 i32 i64 i32) (param $at i32) (param $len i32) (result i32)
        (call $put (i32.const 2048) (i32.const 7) (i32.const 2048) (i32.const 7) (i32.const 3072))
        (call $ok (local.get $at) (local.get $len)))"#;
    module("stateful-transform", &format!("{STATE}{MEMORY}{body}"))
}

const STATE: &str = r#"
  (import "millpond:plugin/state@1.0.0" "get" (func $get (param i32 i32 i32)))
  (import "millpond:plugin/state@1.0.0" "put" (func $put (param i32 i32 i32 i32 i32)))
"#;

/// The count is at 3080, what the state returns at 3072, the two sections of the result at 1100.
const COUNTER: &str = r#"
  (global $at (mut i32) (i32.const 0))
  (global $targets (mut i32) (i32.const 0))
  (func (export "init") (param i32 i32 i32) (param $count i32) (result i32)
    (global.set $targets (local.get $count))
    (global.set $next (i32.const 65536))
    (call $ok (i32.const 0) (i32.const 0)))
  (func (export "cabi_post_derive") (param i32) (global.set $next (i32.const 65536)))
  (func $varint (result i32)
    (local $value i32) (local $shift i32) (local $byte i32)
    (loop $next_byte
      (local.set $byte (i32.load8_u (global.get $at)))
      (global.set $at (i32.add (global.get $at) (i32.const 1)))
      (local.set $value (i32.or (local.get $value) (i32.shl (i32.and (local.get $byte) (i32.const 127)) (local.get $shift))))
      (local.set $shift (i32.add (local.get $shift) (i32.const 7)))
      (br_if $next_byte (i32.and (local.get $byte) (i32.const 128))))
    (i32.xor (i32.shr_u (local.get $value) (i32.const 1)) (i32.sub (i32.const 0) (i32.and (local.get $value) (i32.const 1)))))
  (func $count (param $key i32) (param $key_len i32)
    (i32.store (i32.const 3080) (i32.const FIRST))
    (call $get (local.get $key) (local.get $key_len) (i32.const 3072))
    (if (i32.load8_u (i32.const 3072))
      (then (i32.store (i32.const 3080) (i32.add (i32.load (i32.load (i32.const 3076))) (i32.const 1)))))
    (call $put (local.get $key) (local.get $key_len) (i32.const 3080) (i32.const 4) (i32.const 3088))
    (if (i32.load8_u (i32.const 3088)) (then unreachable)))
  (func $emit (param $write i32) (param $key i32) (param $key_len i32) (result i32)
    (i32.store8 (local.get $write) (i32.mul (i32.add (local.get $key_len) (i32.const 10)) (i32.const 2)))
    (i32.store offset=1 align=1 (local.get $write) (i32.const 0))
    (i32.store8 offset=4 (local.get $write) (i32.mul (local.get $key_len) (i32.const 2)))
    (memory.copy (i32.add (local.get $write) (i32.const 5)) (local.get $key) (local.get $key_len))
    (local.set $write (i32.add (i32.add (local.get $write) (i32.const 5)) (local.get $key_len)))
    (i32.store8 (local.get $write) (i32.const 8))
    (i32.store offset=1 align=1 (local.get $write) (i32.load (i32.const 3080)))
    (i32.store8 offset=5 (local.get $write) (i32.const 0))
    (i32.add (local.get $write) (i32.const 6)))
  (func (export "derive") (param i32 i32 i32 i64 i64) (param $count i32) (param $records i32) (param $len i32) (result i32)
    (local $first i32) (local $second i32) (local $write_first i32) (local $write_second i32)
    (local $next_record i32) (local $key i32) (local $key_len i32) (local $value_len i32) (local $last i32) (local $index i32)
    (local.set $first (call $alloc (i32.const 0) (i32.const 0) (i32.const 1) (i32.mul (local.get $count) (i32.const 64))))
    (local.set $second (call $alloc (i32.const 0) (i32.const 0) (i32.const 1) (i32.mul (local.get $count) (i32.const 64))))
    (local.set $write_first (local.get $first))
    (local.set $write_second (local.get $second))
    (local.set $next_record (local.get $records))
    (block $done (loop $records_left
      (br_if $done (i32.ge_u (local.get $next_record) (i32.add (local.get $records) (local.get $len))))
      (global.set $at (local.get $next_record))
      (local.set $next_record (call $varint))
      (local.set $next_record (i32.add (global.get $at) (local.get $next_record)))
      (global.set $at (i32.add (global.get $at) (i32.const 1)))
      (drop (call $varint))
      (drop (call $varint))
      (local.set $key_len (call $varint))
      (if (i32.lt_s (local.get $key_len) (i32.const 0)) (then (local.set $key_len (i32.const 0))))
      (local.set $key (global.get $at))
      (global.set $at (i32.add (global.get $at) (local.get $key_len)))
      (local.set $value_len (call $varint))
      (local.set $last (i32.load8_u (i32.sub (i32.add (global.get $at) (local.get $value_len)) (i32.const 1))))
      (if (i32.eq (local.get $last) (i32.const 33)) (then unreachable))
      (if (i32.eq (local.get $last) (i32.const 63)) (then
        (i32.store8 (i32.const 1036) (i32.const 1))
        (i32.store (i32.const 1040) (local.get $index))
        (return (call $refused))))
      (call $count (local.get $key) (local.get $key_len))
      (if (i32.and (i32.gt_u (global.get $targets) (i32.const 1)) (i32.and (local.get $last) (i32.const 1)))
        (then (local.set $write_second (call $emit (local.get $write_second) (local.get $key) (local.get $key_len))))
        (else (local.set $write_first (call $emit (local.get $write_first) (local.get $key) (local.get $key_len)))))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br $records_left)))
    (i32.store (i32.const 1100) (i32.const 0))
    (i32.store (i32.const 1104) (local.get $first))
    (i32.store (i32.const 1108) (i32.sub (local.get $write_first) (local.get $first)))
    (i32.store (i32.const 1112) (i32.const 1))
    (i32.store (i32.const 1116) (local.get $second))
    (i32.store (i32.const 1120) (i32.sub (local.get $write_second) (local.get $second)))
    (call $ok (i32.const 1100) (global.get $targets)))
"#;
