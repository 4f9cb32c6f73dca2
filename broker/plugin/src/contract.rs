//! The contract of `plugins/wit/plugin.wit`, from the host's side: the types that cross, the worlds, what a guest may import.

use std::fmt::Write;

use wasmtime::Engine;
use wasmtime::component::types::{Component, ComponentFunc, ComponentItem, Type};
use wasmtime::component::{ComponentType, Lift, Lower, TypedFunc};

use crate::BatchInfo;
use crate::derive::{SourceBatch, Target};
use crate::error::{MESSAGE_BYTES_MAX, PluginError, cut};
use crate::guest_log::one_line;

/// What a module does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum World {
    /// Changes records before they are stored.
    Transform,
    /// Chooses the partition of each record.
    Partitioner,
    /// Makes records of other topics.
    Derive,
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            World::Transform => "transform",
            World::Partitioner => "partitioner",
            World::Derive => "derive",
        })
    }
}

/// `record batch`.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct GuestBatch<'a> {
    topic: &'a str,
    partition: Option<u32>,
    #[component(name = "base-timestamp")]
    base_timestamp: i64,
    #[component(name = "record-count")]
    record_count: u32,
}

impl<'a> From<&BatchInfo<'a>> for GuestBatch<'a> {
    fn from(batch: &BatchInfo<'a>) -> GuestBatch<'a> {
        GuestBatch {
            topic: batch.topic,
            partition: batch.partition,
            base_timestamp: batch.base_timestamp,
            record_count: batch.record_count,
        }
    }
}

/// `record source-batch`.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct GuestSourceBatch<'a> {
    topic: &'a str,
    partition: u32,
    #[component(name = "base-offset")]
    base_offset: i64,
    #[component(name = "base-timestamp")]
    base_timestamp: i64,
    #[component(name = "record-count")]
    record_count: u32,
}

impl<'a> From<&SourceBatch<'a>> for GuestSourceBatch<'a> {
    fn from(batch: &SourceBatch<'a>) -> GuestSourceBatch<'a> {
        let SourceBatch { info, base_offset } = *batch;
        GuestSourceBatch {
            topic: info.topic,
            partition: info.partition.unwrap_or(0),
            base_offset,
            base_timestamp: info.base_timestamp,
            record_count: info.record_count,
        }
    }
}

/// `record target`.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct GuestTarget<'a> {
    name: &'a str,
    #[component(name = "partition-count")]
    partition_count: u32,
}

impl<'a> From<&'a Target> for GuestTarget<'a> {
    fn from(target: &'a Target) -> GuestTarget<'a> {
        GuestTarget { name: &target.name, partition_count: target.partition_count }
    }
}

/// `record failure`.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Failure {
    message: String,
    #[component(name = "record-index")]
    record_index: Option<u32>,
}

impl Failure {
    /// As an error. An index that the batch doesn't have says nothing and is left out.
    pub(crate) fn into_error(self, batch: &BatchInfo<'_>) -> PluginError {
        PluginError::Guest {
            message: one_line(&self.message, MESSAGE_BYTES_MAX),
            record_index: self.record_index.filter(|index| *index < batch.record_count),
        }
    }
}

/// `enum level`.
#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "the derived code makes the variants of their numbers")]
pub(crate) enum Level {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

/// `init`.
pub(crate) type Init = TypedFunc<(&'static [(String, String)],), (Result<(), String>,)>;

/// `transform`.
pub(crate) type Transform = TypedFunc<(GuestBatch<'static>, &'static [u8]), (Result<Vec<u8>, Failure>,)>;

/// `partition`.
pub(crate) type Partition = TypedFunc<(GuestBatch<'static>, &'static [u8], u32), (Result<Vec<u32>, Failure>,)>;

/// `init` of the world `derive`.
pub(crate) type InitDerive = TypedFunc<(&'static [(String, String)], &'static [GuestTarget<'static>]), (Result<(), String>,)>;

/// `derive`.
pub(crate) type Derive = TypedFunc<(GuestSourceBatch<'static>, &'static [u8]), (Result<Vec<(u32, Vec<u8>)>, Failure>,)>;

/// The interfaces that guests may import and that the host implements.
pub(crate) const LOG: &str = "millpond:plugin/log@1.0.0";
pub(crate) const STATE: &str = "millpond:plugin/state@1.0.0";

/// Whether an import is granted. A later 1.x is: what it adds is either type-checked when the module is linked or not used.
pub(crate) fn granted(import: &str) -> bool {
    let Some((interface, version)) = import.split_once('@') else { return false };
    matches!(interface, "millpond:plugin/log" | "millpond:plugin/state" | "millpond:plugin/types") && version.starts_with("1.")
}

/// Whether a component imports the state, which it is given only where it runs on derived topics.
pub(crate) fn imports_state(engine: &Engine, component: &Component) -> bool {
    component.imports(engine).any(|(name, _)| name.split_once('@').is_some_and(|(interface, _)| interface == "millpond:plugin/state"))
}

/// The world of a component, by the names and the signatures of its exports. It may export more than the world has.
pub(crate) fn world(engine: &Engine, component: &Component) -> Result<World, PluginError> {
    let wrong = |found: String| Err(PluginError::WrongWorld { found });
    let has = |name| component.get_export(engine, name).is_some();
    let world = match (has("transform"), has("partition"), has("derive")) {
        (true, false, false) => World::Transform,
        (false, true, false) => World::Partitioner,
        (false, false, true) => World::Derive,
        (false, false, false) => {
            let names: Vec<_> = component.exports(engine).map(|(name, _)| format!("`{name}`")).collect();
            let exports = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            let exports = cut(exports, MESSAGE_BYTES_MAX);
            return wrong(format!("it exports {exports}; expected are `init`, and `transform`, `partition` or `derive`"));
        }
        several => {
            let names = [(several.0, "`transform`"), (several.1, "`partition`"), (several.2, "`derive`")];
            let names: Vec<_> = names.into_iter().filter_map(|(has, name)| has.then_some(name)).collect();
            return wrong(format!("it exports {}, a module does one thing", names.join(" and ")));
        }
    };
    let expected = match world {
        World::Transform => [("init", INIT), ("transform", TRANSFORM)],
        World::Partitioner => [("init", INIT), ("partition", PARTITION)],
        World::Derive => [("init", INIT_DERIVE), ("derive", DERIVE)],
    };
    for (name, signature) in expected {
        match component.get_export(engine, name).map(|export| export.ty) {
            Some(ComponentItem::ComponentFunc(function)) => {
                let found = describe(&function);
                if found != signature {
                    return wrong(format!("`{name}` is {found}; expected is {signature}"));
                }
            }
            Some(_) => return wrong(format!("`{name}` is not a function")),
            None => return wrong(format!("it exports `{}` but not `{name}`", expected[1].0)),
        }
    }
    Ok(world)
}

/// A function's signature as WIT would have it, but with each type spelt out, and cut where it gets too long to read.
fn describe(function: &ComponentFunc) -> String {
    let mut text = String::from(if function.async_() { "async func(" } else { "func(" });
    for (index, (name, ty)) in function.params().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        text.push_str(comma);
        text.push_str(name);
        text.push_str(": ");
        describe_type(&ty, &mut text);
    }
    text.push(')');
    for ty in function.results() {
        text.push_str(" -> ");
        describe_type(&ty, &mut text);
    }
    cut(text, MESSAGE_BYTES_MAX)
}

fn describe_type(ty: &Type, text: &mut String) {
    if text.len() > MESSAGE_BYTES_MAX {
        return; // types can nest so that they double in length with each level
    }
    match ty {
        Type::List(list) => generic("list", [Some(list.ty())], text),
        Type::Option(option) => generic("option", [Some(option.ty())], text),
        Type::Tuple(tuple) => generic("tuple", tuple.types().map(Some), text),
        Type::Result(result) => match (result.ok(), result.err()) {
            (ok, None) => generic("result", ok.map(Some), text),
            (ok, err) => generic("result", [ok, err], text),
        },
        Type::Record(record) => {
            text.push_str("record");
            for (index, field) in record.fields().enumerate() {
                text.push_str(if index == 0 { " { " } else { ", " });
                text.push_str(field.name);
                text.push_str(": ");
                describe_type(&field.ty, text);
            }
            text.push_str(" }");
        }
        other => {
            // The rest is either a simple type, whose name this is, or one that no signature here has.
            let name = match other {
                Type::Bool => "bool",
                Type::U8 => "u8",
                Type::U16 => "u16",
                Type::U32 => "u32",
                Type::U64 => "u64",
                Type::S8 => "s8",
                Type::S16 => "s16",
                Type::S32 => "s32",
                Type::S64 => "s64",
                Type::Float32 => "f32",
                Type::Float64 => "f64",
                Type::Char => "char",
                Type::String => "string",
                Type::Variant(_) => "variant",
                Type::Enum(_) => "enum",
                Type::Flags(_) => "flags",
                _ => "another type",
            };
            text.push_str(name);
        }
    }
}

fn generic(name: &str, types: impl IntoIterator<Item = Option<Type>>, text: &mut String) {
    text.push_str(name);
    let mut open = '<';
    for ty in types {
        // Writing to a string can't fail.
        let _ = write!(text, "{}{}", open, if open == '<' { "" } else { " " });
        open = ',';
        match ty {
            Some(ty) => describe_type(&ty, text),
            None => text.push('_'),
        }
    }
    if open == ',' {
        text.push('>');
    }
}

const INIT: &str = "func(params: list<tuple<string, string>>) -> result<_, string>";

const TRANSFORM: &str = "func(batch: record { topic: string, partition: option<u32>, base-timestamp: s64, record-count: u32 }, \
    records: list<u8>) -> result<list<u8>, record { message: string, record-index: option<u32> }>";

const PARTITION: &str = "func(batch: record { topic: string, partition: option<u32>, base-timestamp: s64, record-count: u32 }, \
    records: list<u8>, partition-count: u32) -> result<list<u32>, record { message: string, record-index: option<u32> }>";

const INIT_DERIVE: &str = "func(params: list<tuple<string, string>>, targets: list<record { name: string, partition-count: u32 }>) \
    -> result<_, string>";

const DERIVE: &str = "func(batch: record { topic: string, partition: u32, base-offset: s64, base-timestamp: s64, record-count: u32 }, \
    records: list<u8>) -> result<list<tuple<u32, list<u8>>>, record { message: string, record-index: option<u32> }>";

#[cfg(test)]
mod tests {
    use super::granted;

    #[test]
    fn the_log_the_state_and_the_types_of_version_one_are_granted_and_nothing_else() {
        let granted_ones =
            ["millpond:plugin/log@1.0.0", "millpond:plugin/types@1.0.0", "millpond:plugin/log@1.2.3", "millpond:plugin/state@1.0.0"];
        for import in granted_ones {
            assert!(granted(import), "{import}");
        }
        for import in [
            "",
            "millpond:plugin/log",
            "millpond:plugin/log@2.0.0",
            "millpond:plugin/log@10.0.0",
            "millpond:plugin/states@1.0.0",
            "millpond:plugin/logs@1.0.0",
            "wasi:cli/environment@0.2.0",
            "wasi_snapshot_preview1",
        ] {
            assert!(!granted(import), "{import}");
        }
    }
}
