//! What `millpond topic describe` says of modules beside their numbers: limits, what becomes of failed records, and why one does not run.

use crate::output::human_bytes;
use millpond_protocol::message::AttachmentStatus;

/// A line for each module, and more for one that does not run.
pub(super) fn notes(attachments: &[AttachmentStatus]) -> String {
    let mut notes = String::from("\n");
    for attachment in attachments {
        let limits = &attachment.limits;
        let limits = [
            limits.memory_bytes.map(|bytes| format!("memory {}", human_bytes(bytes))),
            limits.time_ms.map(|ms| format!("{ms} ms a batch")),
            limits.output_bytes.map(|bytes| format!("output {}", human_bytes(bytes))),
            limits.log_bytes_per_second.map(|bytes| format!("log {}/s", human_bytes(bytes))),
        ];
        let mut said = vec![format!("on error {}", attachment.on_error)];
        said.extend(limits.into_iter().flatten());
        if attachment.pinned {
            said.push("stays this version".to_owned());
        }
        let params = attachment.params.iter().map(|(name, value)| format!("{name}={value}"));
        said.extend(params);
        notes.push_str(&attachment.module);
        notes.push_str(": ");
        notes.push_str(&said.join(", "));
        notes.push('\n');
        if let Some(reason) = &attachment.paused {
            notes.push_str(&attachment.module);
            notes.push_str(" does not run: ");
            notes.push_str(reason);
            notes.push('\n');
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::message::{AttachLimits, AttachPoint, OnError};
    use std::collections::BTreeMap;

    #[test]
    fn limits_and_why_a_module_does_not_run_are_told() {
        let limits =
            AttachLimits { memory_bytes: Some(1 << 24), time_ms: Some(100), output_bytes: Some(1 << 23), log_bytes_per_second: Some(8192) };
        let attachment = AttachmentStatus {
            limits,
            pinned: true,
            on_error: OnError::DeadLetter("dead".to_owned()),
            params: BTreeMap::from([("field".to_owned(), "device".to_owned())]),
            paused: Some("it trapped".to_owned()),
            ..AttachmentStatus::new("m", AttachPoint::Produce)
        };
        let words = notes(&[attachment, AttachmentStatus::new("old", AttachPoint::Partition)]);
        let expected = "\nm: on error dead-letter:dead, memory 16.0 MiB, 100 ms a batch, output 8.0 MiB, log 8.0 KiB/s, stays this version, \
                        field=device\nm does not run: it trapped\nold: on error reject\n";
        assert_eq!(words, expected);
    }
}
