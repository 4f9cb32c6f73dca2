//! What the fuzzers do with arbitrary bytes. Nothing here may panic, whatever they are.
//!
//! | target | takes the bytes for | and promises |
//! |---|---|---|
//! | `batch` | a batch, a records section, a compressed stream | they are read within the limits or refused; what is read reads the same on each way |
//! | `message` | a frame's header, a message | they are decoded or refused; what is decoded and encoded again is the same message |
//! | `folder` | the files of a log | looking changes nothing; the log opens, serves nothing damaged, takes an append, and keeps it; a repair leaves no fault |
//! | `model` | operations on a log | it does as a plain list of batches would |
//!
//! `make fuzz TARGET=folder SECONDS=600` runs one. What fails lies in `artifacts/<target>` and is replayed by the command that is
//! printed. `corpus/<target>` holds what the fuzzers have found, minimised; the tests of the two crates replay it: they include these
//! modules by their path, since no build but `make fuzz` compiles this workspace.

//!
//! How long each was run so far, and what it found:
//!
//! | target | seconds | executions | found and mended |
//! |---|---|---|---|
//! | `batch` | 711 | 2.9 million | nothing |
//! | `message` | 190 | 17.0 million | nothing |
//! | `folder` | 1,160 | 446,000 | a batch that reaches into the next segment was served twice, or held a reader up for ever |
//! | `model` | 410 | 240,000 | nothing in the log; the plain list was wrong about a deletion |

mod batch;
mod folder;
#[path = "../../../broker/log/tests/log/harness.rs"]
#[expect(dead_code, reason = "written for the log's own tests")]
mod harness;
mod message;
#[path = "../../../broker/log/tests/log/model.rs"]
mod model;
#[path = "../../../broker/log/tests/log/numbers.rs"]
mod numbers;
mod operations;
#[path = "../../../broker/log/tests/log/time.rs"]
#[expect(dead_code, unused_imports, reason = "its tests are not built here")]
mod time;

/// The target `batch`.
pub fn batch(data: &[u8]) {
    batch::run(data);
}

/// The target `message`.
pub fn message(data: &[u8]) {
    message::run(data);
}

/// The target `folder`.
pub fn folder(data: &[u8]) {
    folder::run(data);
}

/// The target `model`.
pub fn model(data: &[u8]) {
    operations::run(data);
}
