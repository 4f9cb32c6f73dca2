//! Looks at an upload before anything is compiled: what is it, what does it import, and how does it become a component.
//!
//! ```text
//!  00 61 73 6d  01 00  00 00     core module: made a component if it carries a custom section `component-type`
//!  00 61 73 6d  0d 00  01 00     component
//!  7f 45 4c 46  ...              compiled ahead of time, or a program: refused
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};

use wasmparser::{ComponentTypeRef, Parser, Payload, Validator};
use wasmtime::Engine;
use wit_component::ComponentEncoder;

use crate::cost;
use crate::error::{MESSAGE_BYTES_MAX, PluginError, cut};
use crate::limits::{CORE_IMPORTS_MAX, MODULE_BYTES_MAX};

/// The kinds of upload that can become a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A core module, hopefully with its component type.
    Core,
    /// A component.
    Component,
}

/// What the first bytes say. Anything but WebAssembly is refused here.
pub(crate) fn recognise(upload: &[u8]) -> Result<Kind, PluginError> {
    if upload.len() > MODULE_BYTES_MAX {
        return Err(PluginError::TooLarge { size_bytes: upload.len(), limit_bytes: MODULE_BYTES_MAX });
    }
    match upload.first_chunk::<8>() {
        Some(b"\0asm\x01\0\0\0") => Ok(Kind::Core),
        Some(b"\0asm\x0d\0\x01\0") => Ok(Kind::Component),
        _ => Err(PluginError::NotWasm { found: describe(upload) }),
    }
}

/// The upload as a component whose imports are all granted. Nothing is compiled yet, so a module that can't run is refused early.
pub(crate) fn component(upload: &[u8], kind: Kind, granted: impl Fn(&str) -> bool) -> Result<Vec<u8>, PluginError> {
    let component = match kind {
        Kind::Component => upload.to_vec(),
        Kind::Core => encode(upload, &granted)?,
    };
    if component.len() > MODULE_BYTES_MAX {
        return Err(PluginError::TooLarge { size_bytes: component.len(), limit_bytes: MODULE_BYTES_MAX });
    }
    match first_import(&component, |name| !granted(name))? {
        Some(name) => Err(PluginError::ImportDenied { name: cut(name, MESSAGE_BYTES_MAX) }),
        None => cost::check(&component).map(|()| component),
    }
}

fn describe(upload: &[u8]) -> String {
    let start = upload.get(..16).unwrap_or(upload);
    let text = start.trim_ascii_start();
    let found = if upload.is_empty() {
        "it is empty"
    } else if Engine::detect_precompiled(upload).is_some() {
        "it is compiled ahead of time (.cwasm), which a broker accepts from itself only"
    } else if upload.starts_with(b"\0asm") {
        "its version of the WebAssembly format is unknown"
    } else if upload.starts_with(b"\x7fELF") || upload.starts_with(b"MZ") || upload.starts_with(b"\xcf\xfa\xed\xfe") {
        "it is a program or a library for this or another processor"
    } else if upload.starts_with(b"\x1f\x8b") || upload.starts_with(b"PK\x03\x04") || upload.starts_with(b"\x28\xb5\x2f\xfd") {
        "it is compressed"
    } else if text.starts_with(b"(") {
        "it is WebAssembly text"
    } else if upload.starts_with(b"AGFzb") {
        "it is encoded in base64"
    } else {
        return format!("it starts with {}", start.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "));
    };
    found.to_owned()
}

/// A component made of a core module, after the component type that the guest's build put into it.
fn encode(module: &[u8], granted: impl Fn(&str) -> bool) -> Result<Vec<u8>, PluginError> {
    Validator::new().validate_all(module).map_err(|error| compile(&error))?;
    let mut has_component_type = false;
    let mut imports_seen = 0_u64;
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(|error| compile(&error))? {
            Payload::CustomSection(section) => has_component_type |= section.name().starts_with("component-type"),
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.map_err(|error| compile(&error))?;
                    imports_seen += 1;
                    // `$root` and names in brackets are the component model's own; interfaces are looked at once more when encoded.
                    if !granted(import.module) && !import.module.starts_with(['$', '[']) {
                        return Err(PluginError::ImportDenied { name: cut(import.module.to_owned(), MESSAGE_BYTES_MAX) });
                    }
                    if imports_seen > CORE_IMPORTS_MAX {
                        return Err(PluginError::CodeTooComplex { what: "imports", actual: imports_seen, limit: CORE_IMPORTS_MAX });
                    }
                }
            }
            _ => {}
        }
    }
    if !has_component_type {
        return Err(PluginError::WrongWorld {
            found: "it is a core module without the section `component-type`, which the guest SDK adds".to_owned(),
        });
    }
    // The module is valid WebAssembly, but its component type is whatever somebody wrote there.
    let encoded = catch_unwind(AssertUnwindSafe(|| ComponentEncoder::default().module(module)?.encode()));
    match encoded {
        Ok(Ok(component)) => Ok(component),
        Ok(Err(error)) => Err(compile(&format!("{error:#}"))),
        Err(_) => Err(compile(&"its component type makes no sense")),
    }
}

/// The first import of a component that `wanted` says yes to.
fn first_import(component: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Option<String>, PluginError> {
    let mut depth = 0_u32; // of components and modules inside the component
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| compile(&error))? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    let import = import.map_err(|error| compile(&error))?;
                    // A type is a name for something that comes from another import, and gives nothing.
                    if !matches!(import.ty, ComponentTypeRef::Type(_)) && wanted(import.name.name) {
                        return Ok(Some(import.name.name.to_owned()));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

/// A refusal with the words of whoever read the module.
pub(crate) fn compile(reason: &impl ToString) -> PluginError {
    PluginError::Compile { reason: cut(reason.to_string(), MESSAGE_BYTES_MAX) }
}
