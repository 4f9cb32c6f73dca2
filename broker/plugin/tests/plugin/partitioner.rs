//! A partitioner's answer has one partition for each record, and each exists.

use millpond_plugin::{BatchInfo, Partitioner, PluginError};

use crate::support::{Guest, assert_well, batch, host, limits};

/// Returns as many zeroes as there are records, from memory that nobody wrote to.
pub(crate) const ZEROES: &str = "(i32.store8 (i32.const 1024) (i32.const 0)) (i32.store (i32.const 1028) (i32.const 65536))
    (i32.store (i32.const 1032) (local.get $count)) (i32.const 1024)";

/// Asks a guest that does this before it returns, for three records and four partitions.
fn ask(before: &str) -> Result<Vec<u32>, PluginError> {
    let host = host();
    let guest = Guest { run: &format!("{before} {ZEROES}"), ..Guest::default() };
    let partitioner = Partitioner::new(&host, &host.load(&guest.partitioner())?, limits(), &[])?;
    let result = partitioner.run(&BatchInfo { partition: None, ..batch(3) }, b"records", 4);
    assert_well(&host);
    result
}

#[test]
fn every_record_gets_a_partition() {
    assert_eq!(ask(""), Ok(vec![0, 0, 0]));
    let last = "(i32.store (i32.const 65540) (i32.sub (local.get $partitions) (i32.const 1)))";
    assert_eq!(ask(last), Ok(vec![0, 3, 0]));
}

#[test]
fn the_guest_is_told_what_it_needs() {
    // It traps unless the partition is unknown, the topic is `sensors` and the base timestamp is that of the batch.
    let check = "(if (local.get $has_partition) (then unreachable))
        (if (i32.ne (local.get $topic_length) (i32.const 7)) (then unreachable))
        (if (i64.ne (i64.load (local.get $topic)) (i64.const 0x0073726f736e6573)) (then
            (if (i64.ne (i64.and (i64.load (local.get $topic)) (i64.const 0x00ffffffffffffff)) (i64.const 0x0073726f736e6573)) (then unreachable))))
        (if (i64.ne (local.get $base) (i64.const 1700000000000)) (then unreachable))
        (if (i32.ne (local.get $length) (i32.const 7)) (then unreachable))";
    assert_eq!(ask(check), Ok(vec![0, 0, 0]));
}

#[test]
fn a_partition_that_does_not_exist_is_refused() {
    for partition in ["(local.get $partitions)", "(i32.const -1)"] {
        let error = ask(&format!("(i32.store (i32.const 65544) {partition})")).expect_err("out of range");
        assert!(
            matches!(&error, PluginError::OutputInvalid { reason } if reason.starts_with("it placed record 2 in partition")),
            "{error}"
        );
    }
}

#[test]
fn too_few_and_too_many_partitions_are_refused() {
    for count in [0, 2, 4, 16_384] {
        let error = ask(&format!("(local.set $count (i32.const {count}))")).expect_err("another number");
        assert_eq!(error, PluginError::OutputInvalid { reason: format!("it placed {count} records of 3") });
    }
    let error = ask("(local.set $count (i32.const 1000000))").expect_err("outside the memory");
    assert!(matches!(error, PluginError::OutputInvalid { .. }), "{error}");
}
