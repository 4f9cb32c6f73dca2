//! The component types that the SDK for C carries, as bytes, so that a guest in C needs no tool but a compiler.

use std::fmt::Write;
use std::path::Path;

use wit_component::{StringEncoding, metadata};
use wit_parser::Resolve;

/// The worlds, and what must be defined for each when the SDK is compiled.
const WORLDS: [(&str, &str); 5] = [
    ("transform", "defined MILLPOND_TRANSFORM && !defined MILLPOND_STATE"),
    ("partitioner", "defined MILLPOND_PARTITIONER"),
    ("derive", "defined MILLPOND_DERIVE && !defined MILLPOND_STATE"),
    ("stateful-transform", "defined MILLPOND_TRANSFORM && defined MILLPOND_STATE"),
    ("stateful-derive", "defined MILLPOND_DERIVE && defined MILLPOND_STATE"),
];

const START: &str = "\
// The component types of plugin.wit's worlds: the custom section from which a broker makes a component of the module. Generated:
// UPDATE_SNAPSHOTS=1 cargo test --release -p millpond-plugin c_sdk
";

#[test]
fn the_sdk_for_c_carries_the_component_types_of_the_contract() {
    let mut text = START.to_owned();
    for (world, defined) in WORLDS {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("plugin.wit", include_str!("../../../../plugins/wit/plugin.wit")).expect("the contract parses");
        let id = resolve.select_world(&[package], Some(world)).expect("the contract has it");
        let bytes = metadata::encode(&resolve, id, StringEncoding::UTF8, None).expect("it can be encoded");
        let section = format!(".section \\\".custom_section.component-type:{world}\\\",\\\"\\\",@\\n");
        let _ = write!(text, "#if {defined}\n__asm__(\n    \"{section}\"\n");
        for line in bytes.chunks(24) {
            let line: Vec<_> = line.iter().map(|byte| format!("{byte:#04x}")).collect();
            let _ = writeln!(text, "    \".byte {}\\n\"", line.join(","));
        }
        text.push_str(");\n#endif\n");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/sdk-c/component_type.h");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &text).expect("it can be written");
    }
    let found = std::fs::read_to_string(&path).expect("the SDK for C is there");
    assert!(found == text, "plugins/sdk-c/component_type.h is not made of plugin.wit: see its first lines");
}
