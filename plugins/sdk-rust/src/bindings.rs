//! The contract `plugins/wit/plugin.wit`, as wit-bindgen makes Rust of it.

pub use transform::millpond::plugin::types::{Batch, Failure, Params as WireParams, SourceBatch, Target};

/// The world `transform`.
#[expect(missing_docs, reason = "generated")]
#[allow(clippy::all, clippy::pedantic, reason = "generated, what it trips over changes with its version")]
pub mod transform {
    wit_bindgen::generate!({
        path: "../wit",
        world: "transform",
        // The other worlds take theirs from here.
        generate_unused_types: true,
        pub_export_macro: true,
        export_macro_name: "export_transform",
    });
}

/// The world `partitioner`. It shares its types with the other.
#[expect(missing_docs, reason = "generated")]
#[allow(clippy::all, clippy::pedantic, reason = "generated, what it trips over changes with its version")]
pub mod partitioner {
    wit_bindgen::generate!({
        path: "../wit",
        world: "partitioner",
        pub_export_macro: true,
        export_macro_name: "export_partitioner",
        with: {
            "millpond:plugin/log@1.0.0": crate::bindings::transform::millpond::plugin::log,
            "millpond:plugin/types@1.0.0": crate::bindings::transform::millpond::plugin::types,
        },
    });
}

/// The world `stateful-derive`. It shares its types with the others, and the state with transforms.
#[expect(missing_docs, reason = "generated")]
#[allow(clippy::all, clippy::pedantic, reason = "generated, what it trips over changes with its version")]
pub mod derive {
    wit_bindgen::generate!({
        path: "../wit",
        world: "stateful-derive",
        pub_export_macro: true,
        export_macro_name: "export_derive",
        with: {
            "millpond:plugin/log@1.0.0": crate::bindings::transform::millpond::plugin::log,
            "millpond:plugin/types@1.0.0": crate::bindings::transform::millpond::plugin::types,
        },
    });
}
