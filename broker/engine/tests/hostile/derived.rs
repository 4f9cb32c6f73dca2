//! A module that derives a topic, and does its worst to its state.

use crate::{
    RECORDS,
    attacks::Attack,
    scene::{Heard, LARGE_BATCHES, Scene, open, params},
};
use millpond_engine::Engine;
use millpond_protocol::{
    error::ErrorCode,
    message::{AttachLimits, AttachPoint, AttachTransform, AttachmentStatus, DeriveInto, DerivedPartition, ModuleRef},
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// What is derived.
pub(crate) const TARGET: &str = "derived";

/// What the module is granted, in bytes.
const STATE_BYTES: u64 = 4 << 20;

/// What the state may take in memory, in bytes: entries of many tiny keys take three times what they count; as much in what a round has
/// changed, and in the frame that is written; and what a batch may have replaced, with the largest value that may cross.
pub(crate) const GROWTH_BYTES_MAX: u64 = 9 * STATE_BYTES + 2 * millpond_plugin::STATE_UNDO_BYTES_MAX;

/// A round may fill the state; what does so runs for longer than a batch on produce.
const TIME_MS: u64 = 200;

/// The attack.
pub(crate) fn request(attack: &Attack) -> AttachTransform {
    let derive = DeriveInto { state_bytes: STATE_BYTES, retries: Some(0), ..DeriveInto::new([TARGET]) };
    AttachTransform {
        params: params(&[("mode", attack.mode), ("only", "poison")]),
        limits: AttachLimits { time_ms: Some(TIME_MS), ..AttachLimits::default() },
        on_error: attack.on_error.parse().expect("it is one"),
        derive: Some(derive),
        ..AttachTransform::new("attacked", ModuleRef::current(attack.module()), AttachPoint::Derive)
    }
}

/// Tells what has come of batches as they are counted.
pub(crate) async fn watch(engine: Arc<Engine>, stop: Arc<AtomicBool>, heard: Heard) {
    let (mut failed, mut passed) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let status = status(&engine);
        // They are not counted in one step.
        let now = (status.failures, status.batches.saturating_sub(status.failures));
        let code = failure(&status);
        (failed..now.0).for_each(|_| heard.send(code).expect("somebody counts"));
        (passed..now.1).for_each(|_| heard.send(None).expect("somebody counts"));
        (failed, passed) = (now.0, now.1.max(passed));
        tokio::task::yield_now().await;
    }
}

fn status(engine: &Engine) -> AttachmentStatus {
    engine.topic("attacked").expect("it is there").attachments.remove(0)
}

fn partition(engine: &Engine) -> DerivedPartition {
    status(engine).derived.expect("it derives a topic").partitions.remove(0)
}

/// The kind of failure that there was, beside those for want of time.
fn failure(status: &AttachmentStatus) -> Option<ErrorCode> {
    let kinds: Vec<_> = status.work.failures_by_kind.iter().filter(|(_, batches)| **batches > 0).map(|(kind, _)| kind.as_str()).collect();
    match kinds[..] {
        [] => None,
        ["guest_timed_out"] => Some(ErrorCode::GuestTimedOut),
        ["guest_output_invalid"] | ["guest_output_invalid", "guest_timed_out"] => Some(ErrorCode::GuestOutputInvalid),
        _ => panic!("{kinds:?}"),
    }
}

/// Its files are no larger than they may be, its state is no more than was granted, and both are there after a restart as they were.
pub(crate) async fn is_bounded_and_stays(scene: Scene, attack: &Attack) {
    let Scene { engine, config, dir } = scene;
    if attack.expected.is_none() {
        while partition(&engine).lag > 0 {
            tokio::task::yield_now().await;
        }
        let stored = engine.topic(TARGET).expect("it is there").partitions[0].log_end;
        assert_eq!(usize::try_from(stored).expect("not negative"), LARGE_BATCHES * RECORDS, "{attack}: every record was kept");
    }
    engine.shutdown().await;
    let (before, limit) = (partition(&engine), status(&engine).derived.expect("it derives a topic").file_bytes_max);
    let on_disk = bytes_in(&dir.path().join("derived"));
    assert!(
        before.file_bytes == on_disk && on_disk <= limit,
        "{attack}: {on_disk} bytes on the disk, {} told, {limit} allowed",
        before.file_bytes
    );
    assert!(before.state_bytes <= STATE_BYTES, "{attack}: {before:?}");
    let is_full = matches!(attack.mode, "fill" | "tiny");
    assert_eq!(before.state_bytes > STATE_BYTES / 100 * 99, is_full, "{attack}: {before:?}");
    drop(engine);

    let engine = open(config).await;
    while partition(&engine).position < before.position {
        tokio::task::yield_now().await;
    }
    let after = partition(&engine);
    assert_eq!((after.state_bytes, after.state_entries), (before.state_bytes, before.state_entries), "{attack}");
    engine.shutdown().await;
}

/// Of all files, those in folders included.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let bytes = entries.map(|entry| {
        let entry = entry.expect("it is there");
        if entry.file_type().expect("it has one").is_dir() { bytes_in(&entry.path()) } else { entry.metadata().expect("it is there").len() }
    });
    bytes.sum()
}
