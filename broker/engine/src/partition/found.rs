//! What the broker's log is told of an opening that has found something.

use millpond_log::RecoveryReport;

/// Says what is damaged, what was cut off and what was kept.
pub(super) fn report_recovery(topic: &str, partition: u32, report: &RecoveryReport) {
    for damaged in report.damaged.iter().take(DAMAGES_SAID_MAX) {
        let (path, reason) = (damaged.path.display(), &damaged.reason);
        let (position, hint) = (damaged.position, "`millpond log repair` says what can be done about it");
        tracing::error!(topic, partition, %path, position, %reason, hint, "a segment is damaged; reads of this place fail");
    }
    if let Some(more) = report.damaged.len().checked_sub(DAMAGES_SAID_MAX).filter(|more| *more > 0) {
        tracing::error!(topic, partition, more, "more places are damaged; `millpond log verify` names them");
    }
    for part in &report.set_aside {
        let (segment, position, bytes) = (part.segment.display(), part.position, part.bytes);
        let (from_offset, to_offset) = (part.offsets.start, part.offsets.end);
        if let Some(file) = &part.kept {
            let (file, hint) = (file.display(), "look at it with `millpond log dump FILE`; what is of use can be produced again");
            let said = "batches behind a write that the power cut has interrupted were cut off and kept";
            tracing::error!(topic, partition, %segment, position, bytes, from_offset, to_offset, %file, hint, "{said}");
        } else {
            let said = "batches behind a write that the power cut has interrupted were cut off, and the disk had no room to keep them";
            tracing::error!(topic, partition, %segment, position, bytes, from_offset, to_offset, "{said}");
        }
    }
    if let Some(cut) = &report.cut {
        let (bytes, next_offset, reason) = (report.truncated_bytes, cut.next_offset, &cut.reason);
        tracing::warn!(topic, partition, bytes, next_offset, %reason, "the end of a log was not whole and was cut off");
    }
}

/// Of the damage in one log that is found at a start.
const DAMAGES_SAID_MAX: usize = 16;
