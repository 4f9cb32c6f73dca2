//! Modules made by hand, in WebAssembly text, so that they can do what no compiler would let them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millpond_plugin::{ArtifactCache, BatchInfo, Limits, Module, PluginError, PluginHost, TABLE_ELEMENTS_MAX, Transform};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A cache in memory.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<HashMap<String, Vec<u8>>>);

impl Cache {
    /// Changes every artifact.
    pub(crate) fn damage(&self, damage: impl Fn(&mut Vec<u8>)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values_mut().for_each(damage);
    }

    pub(crate) fn entries(&self) -> Vec<(String, Vec<u8>)> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|(key, artifact)| (key.clone(), artifact.clone())).collect()
    }
}

impl ArtifactCache for Cache {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn store(&self, key: &str, artifact: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), artifact.to_vec());
    }
}

pub(crate) fn host() -> PluginHost {
    PluginHost::new(Arc::new(Cache::default())).expect("a host")
}

/// Limits that a test does not have to wait for.
pub(crate) fn limits() -> Limits {
    Limits {
        memory_bytes: 4 * 1024 * 1024,
        time: Duration::from_millis(200),
        output_bytes: 1024 * 1024,
        log_bytes_per_call: 4096,
        ..Limits::default()
    }
}

pub(crate) fn batch(record_count: u32) -> BatchInfo<'static> {
    BatchInfo { topic: "sensors", partition: Some(3), base_timestamp: 1_700_000_000_000, record_count }
}

/// A handmade guest: what differs from one that returns its input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest<'a> {
    /// Imports beside the log.
    pub imports: &'a str,
    /// Functions, tables, globals.
    pub items: &'a str,
    /// The body of `init`; leaves the address of its result.
    pub init: &'a str,
    /// The body of `transform`, with `$records` and `$length`; leaves the address of its result.
    pub run: &'a str,
    /// The body of `cabi_realloc`, with `$align` and `$size`; leaves an address.
    pub realloc: &'a str,
    /// Pages of 64 KiB that the memory has at the start.
    pub pages: u32,
}

impl Default for Guest<'_> {
    fn default() -> Self {
        Guest { imports: "", items: "", init: "(i32.const 1024)", run: KEEP, realloc: BUMP, pages: 2 }
    }
}

impl Guest<'_> {
    /// The guest as a core module without its component type.
    pub(crate) fn bare(&self, signature: &str) -> Vec<u8> {
        let Guest { imports, items, init, run, realloc, pages } = self;
        let text = format!(
            r#"(module $guest
                (import "millpond:plugin/log@1.0.0" "log" (func $log (param i32 i32 i32)))
                {imports}
                (memory (export "memory") {pages})
                (global $heap (mut i32) (i32.const 4096))
                (func $realloc (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
                    (local $address i32) {realloc})
                (func $init (export "init") (param i32 i32) (result i32) {init})
                {signature} {run})
                {items})"#
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The guest as a transform.
    pub(crate) fn transform(&self) -> Vec<u8> {
        with_component_type(self.bare(TRANSFORM), include_str!("../../../../plugins/wit/plugin.wit"), "transform")
    }

    /// The guest as a partitioner.
    pub(crate) fn partitioner(&self) -> Vec<u8> {
        with_component_type(self.bare(PARTITION), include_str!("../../../../plugins/wit/plugin.wit"), "partitioner")
    }

    /// Loads the guest and starts it as a transform.
    pub(crate) fn start(&self, host: &PluginHost, limits: &Limits) -> Result<Transform, PluginError> {
        Transform::new(host, &host.load(&self.transform())?, limits.clone(), &[])
    }

    /// Passes one batch through the guest, and sees to it that the host is well afterwards.
    pub(crate) fn run(&self, host: &PluginHost, limits: &Limits) -> Result<Vec<u8>, PluginError> {
        let result = self.start(host, limits).and_then(|transform| transform.run(&batch(1), b"record"));
        assert_well(host);
        result
    }
}

/// A core module with the component type of a world.
pub(crate) fn with_component_type(mut module: Vec<u8>, wit: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("test.wit", wit).expect("WIT");
    let world = resolve.select_world(&[package], Some(world)).expect("a world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("a component type");
    module
}

/// The component that a core module becomes.
pub(crate) fn component(module: &[u8]) -> Vec<u8> {
    ComponentEncoder::default().module(module).and_then(|mut encoder| encoder.encode()).expect("a component")
}

/// An error without the guest's functions, so that it can be compared. Where it was, is what `backtraces.rs` asks.
pub(crate) fn bare(mut error: PluginError) -> PluginError {
    match &mut error {
        PluginError::TimedOut { backtrace, .. } | PluginError::OutOfMemory { backtrace, .. } | PluginError::TableFull { backtrace, .. } => {
            backtrace.clear();
        }
        _ => {}
    }
    error
}

pub(crate) fn timed_out(limit: Duration) -> PluginError {
    PluginError::TimedOut { limit, backtrace: String::new() }
}

pub(crate) fn out_of_memory(limit_bytes: usize) -> PluginError {
    PluginError::OutOfMemory { limit_bytes, backtrace: String::new() }
}

pub(crate) fn table_full() -> PluginError {
    PluginError::TableFull { limit_elements: TABLE_ELEMENTS_MAX, backtrace: String::new() }
}

/// A good module still loads, starts and runs.
pub(crate) fn assert_well(host: &PluginHost) {
    let good: Module = host.load(&Guest::default().transform()).expect("a good module loads");
    let transform = Transform::new(host, &good, limits(), &[]).expect("a good module starts");
    assert_eq!(transform.run(&batch(1), b"still here").expect("a good module runs"), b"still here");
}

/// Returns the input: the result is at 1024, its case 0, its address and its length behind.
pub(crate) const KEEP: &str = "(i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1028) (local.get $records))
    (i32.store (i32.const 1032) (local.get $length))
    (i32.const 1024)";

/// Gives out memory from 4096 on and starts again there when it comes to the end of the second page.
const BUMP: &str = "(if (i32.gt_u (i32.add (global.get $heap) (local.get $size)) (i32.const 65536))
        (then (global.set $heap (i32.const 4096))))
    (local.set $address (global.get $heap))
    (global.set $heap (i32.and (i32.add (i32.add (global.get $heap) (local.get $size)) (i32.const 15)) (i32.const -16)))
    (local.get $address)";

const TRANSFORM: &str = r#"(func $transform (export "transform")
    (param $topic i32) (param $topic_length i32) (param $has_partition i32) (param $partition i32) (param $base i64) (param $count i32)
    (param $records i32) (param $length i32) (result i32)"#;

const PARTITION: &str = r#"(func $partition (export "partition")
    (param $topic i32) (param $topic_length i32) (param $has_partition i32) (param $partition i32) (param $base i64) (param $count i32)
    (param $records i32) (param $length i32) (param $partitions i32) (result i32)"#;
