//! What `millpond topic describe` says of modules beside their numbers: limits, what becomes of failed records, how long batches took, how a
//! module failed, and why one does not run. Some of it `millpond transform describe` says as well.

use crate::output::{Row, counted, escaped, human_bytes, table, thousands};
use millpond_protocol::message::{AttachmentStatus, BatchTimes, DerivedPartition, DerivedStatus};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write};

/// A line for each module, and more for one that does not run.
pub(super) fn notes(attachments: &[AttachmentStatus]) -> String {
    let mut notes = String::from("\n");
    for attachment in attachments {
        // A module may be there several times, once for each view.
        let name = match &attachment.view {
            Some(view) => format!("{} as {view}", attachment.module),
            None => attachment.module.clone(),
        };
        // Writing to a string can't fail.
        let _ = writeln!(notes, "{name}: {}", settings(attachment));
        notes.extend(work(attachment).map(|work| format!("{name}: {work}\n")));
        notes.extend(failures(attachment).map(|failures| format!("{name} has failed: {failures}\n")));
        notes.extend(attachment.paused.as_ref().map(|reason| format!("{name} does not run: {}\n", escaped(reason))));
        notes.extend(attachment.derived.as_ref().map(|derived| self::derived(&name, derived)));
    }
    notes
}

/// What a module may use, what becomes of records on which it fails, and what it was told.
pub(super) fn settings(attachment: &AttachmentStatus) -> String {
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
    said.extend(attachment.params.iter().map(|(name, value)| format!("{name}={value}")));
    said.join(", ")
}

/// What keeps a module from its work, in a word or three. None where nothing does.
pub(super) fn trouble(attachment: &AttachmentStatus) -> Option<String> {
    let derived = attachment.derived.as_ref();
    let held_up = derived.map_or(0, |derived| derived.partitions.iter().filter(|partition| partition.error.is_some()).count());
    match (&attachment.paused, held_up) {
        (Some(_), _) => Some("does not run".to_owned()),
        (None, 0) if attachment.work.busy_ms > 0 => Some(format!("at a batch for {} s", attachment.work.busy_ms / 1_000)),
        (None, 0) => None,
        (None, held_up) => Some(format!("{held_up} of {} held up", derived.map_or(0, |derived| derived.partitions.len()))),
    }
}

/// What is wrong with a module on topics: how it failed on which, and why it does not run there. Nothing where all is well.
pub(super) fn troubles<'a>(places: impl IntoIterator<Item = (&'a str, &'a AttachmentStatus)>) -> String {
    let (mut troubles, mut paused) = (String::new(), BTreeMap::<_, Vec<_>>::new());
    for (topic, attachment) in places {
        troubles.extend(failures(attachment).map(|failures| format!("\non {topic} it has failed: {failures}")));
        if let Some(reason) = &attachment.paused {
            paused.entry(reason).or_default().push(topic);
        }
    }
    // One reason, as that its file is gone, may hold everywhere.
    for (reason, mut topics) in paused {
        topics.dedup();
        // Writing to a string can't fail.
        let _ = write!(troubles, "\non {} it does not run: {}", topics.join(", "), escaped(reason));
    }
    if !troubles.is_empty() {
        troubles.push('\n');
    }
    troubles
}

/// The time that so many percent of the batches have kept.
pub(super) fn within(times: Option<&BatchTimes>, percent: u64) -> String {
    let Some(times) = times.filter(|times| times.batches > 0) else { return "-".to_owned() };
    match (times.within_us(percent), times.buckets.last()) {
        (Some(us), _) => human_us(us),
        (None, last) => format!("over {}", human_us(last.map_or(0, |last| last.le_us))),
    }
}

/// Time and memory. None before the first batch, and of an older broker.
fn work(attachment: &AttachmentStatus) -> Option<String> {
    let work = &attachment.work;
    let times = work.batch_times.as_ref().filter(|times| times.batches > 0)?;
    Some(format!("{}, memory up to {}", time_words(times), human_bytes(work.memory_bytes_peak)))
}

fn time_words(times: &BatchTimes) -> String {
    let within = |percent| match within(Some(times), percent) {
        over if over.starts_with("over") => over,
        time => format!("up to {time}"),
    };
    let mean = human_us(times.sum_us / times.batches.max(1));
    format!("a batch took {mean} on average, half of them {}, 99% {}", within(50), within(99))
}

/// How it failed, and what became of the records. None where it has not, and of an older broker.
fn failures(attachment: &AttachmentStatus) -> Option<String> {
    let work = &attachment.work;
    let kinds = work.failures_by_kind.iter().filter(|(_, batches)| **batches > 0);
    let kinds: Vec<_> = kinds
        .map(|(kind, batches)| format!("{} on {} batch{}", escaped(kind), thousands(*batches), if *batches == 1 { "" } else { "es" }))
        .collect();
    if kinds.is_empty() {
        return None;
    }
    let skipped = attachment.records_failed.saturating_sub(work.records_dead_lettered);
    let fates =
        [(work.records_rejected, "refused with the batch"), (skipped, "skipped"), (work.records_dead_lettered, "sent on as dead letters")];
    let fates = fates.iter().filter(|(records, _)| *records > 0).map(|(records, fate)| format!("; {} {fate}", counted(*records, "record")));
    Some(format!("{}{}", kinds.join(", "), fates.collect::<String>()))
}

/// Microseconds, in the unit that a person would use.
fn human_us(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 if us.is_multiple_of(1_000) => format!("{} ms", us / 1_000),
        1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// Where a derived topic goes and how far it is, and what keeps a partition from going on; with the module, or the source, whichever the reader
/// has not named.
pub(super) fn derived(name: &str, derived: &DerivedStatus) -> String {
    let DerivedStatus { targets, partitions, .. } = derived;
    let mut notes = format!("{name} into {}: {}\n\n", targets.join(", "), derived_settings(derived));
    notes.push_str(&table(&partitions.iter().map(DerivedRow).collect::<Vec<_>>()));
    for partition in partitions {
        let number = partition.partition;
        if partition.skipped > 0 {
            // Writing to a string can't fail.
            let _ =
                writeln!(notes, "partition {number}: {} offsets were gone before the module came to them", thousands(partition.skipped));
        }
        if let (Some(undelivered), Some(_)) = (partition.undelivered, &partition.error) {
            let batches =
                if undelivered.batches == 1 { "1 batch".to_owned() } else { format!("{} batches", thousands(undelivered.batches)) };
            let before = thousands(undelivered.committed);
            let _ = writeln!(notes, "partition {number}: {batches} made of records before offset {before} are not in their targets yet");
        }
        if let Some(error) = &partition.error {
            let _ = writeln!(notes, "partition {number} does not go on: {}", escaped(error));
        }
    }
    notes
}

/// What a module that derives topics may keep, and how often it is tried.
pub(super) fn derived_settings(derived: &DerivedStatus) -> String {
    let DerivedStatus { state_bytes_max, retries, file_bytes_max, .. } = derived;
    let state =
        if *state_bytes_max == 0 { "no state".to_owned() } else { format!("state up to {} a partition", human_bytes(*state_bytes_max)) };
    let files = if *file_bytes_max == 0 { String::new() } else { format!(", files up to {}", human_bytes(*file_bytes_max)) };
    format!("{state}{files}, {retries} retries")
}

#[derive(Serialize)]
struct DerivedRow<'a>(&'a DerivedPartition);

impl Row for DerivedRow<'_> {
    const HEADINGS: &'static [&'static str] = &[">PARTITION", ">POSITION", ">LAG", ">STATE", ">ENTRIES", ">FILES"];

    fn cells(&self) -> Vec<String> {
        let partition = self.0;
        vec![
            partition.partition.to_string(),
            if partition.position == DerivedPartition::UNKNOWN { "-".to_owned() } else { thousands(partition.position) },
            thousands(partition.lag),
            human_bytes(partition.state_bytes),
            thousands(partition.state_entries),
            human_bytes(partition.file_bytes),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::message::{AttachLimits, AttachPoint, AttachmentWork, OnError, TimeBucket};
    use std::collections::BTreeMap;

    #[test]
    fn a_module_that_is_long_at_a_batch_does_not_look_as_if_all_were_well() {
        let busy = AttachmentWork { busy_ms: 41_900, ..AttachmentWork::default() };
        let status = AttachmentStatus { work: busy, ..AttachmentStatus::new("m", AttachPoint::Produce) };
        assert_eq!(trouble(&status).as_deref(), Some("at a batch for 41 s"));
        assert_eq!(trouble(&AttachmentStatus { paused: Some("why".to_owned()), ..status }).as_deref(), Some("does not run"));
    }

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

    #[test]
    fn time_memory_and_failures_are_told_and_nothing_of_them_where_there_was_no_batch() {
        let buckets = vec![TimeBucket { le_us: 1_000, batches: 60 }, TimeBucket { le_us: 2_500, batches: 98 }];
        let work = AttachmentWork {
            records_rejected: 7,
            records_dead_lettered: 1,
            failures_by_kind: [("guest_trapped", 3), ("guest_failed", 1), ("other", 0)]
                .map(|(kind, count)| (kind.to_owned(), count))
                .into(),
            memory_bytes_peak: 1_258_291,
            busy_ms: 0,
            batch_times: Some(BatchTimes { batches: 100, sum_us: 81_000, buckets }),
        };
        let attachment = AttachmentStatus { records_failed: 3, work, ..AttachmentStatus::new("m", AttachPoint::Produce) };
        let words = notes(std::slice::from_ref(&attachment));
        let expected = "\nm: on error reject\nm: a batch took 810 us on average, half of them up to 1 ms, 99% over 2.5 ms, memory up to 1.2 MiB\n\
                        m has failed: guest_failed on 1 batch, guest_trapped on 3 batches; 7 records refused with the batch; 2 records skipped; \
                        1 record sent on as dead letters\n";
        assert_eq!(words, expected);
        let idle = AttachmentWork { batch_times: Some(BatchTimes::default()), ..AttachmentWork::default() };
        assert_eq!(notes(&[AttachmentStatus { work: idle, ..attachment }]), "\nm: on error reject\n");
    }

    #[test]
    fn times_are_told_in_their_own_unit() {
        let told = [0, 50, 999, 1_000, 2_500, 250_000, 1_000_000, 61_250_000].map(human_us);
        assert_eq!(told, ["0 us", "50 us", "999 us", "1 ms", "2.5 ms", "250 ms", "1.0 s", "61.2 s"]);
    }

    #[test]
    fn how_far_a_derived_topic_is_and_what_is_in_its_way_is_told() {
        let partitions = vec![
            DerivedPartition {
                position: 1_234,
                lag: 5,
                state_bytes: 2_048,
                state_entries: 7,
                file_bytes: 3 << 20,
                ..DerivedPartition::default()
            },
            DerivedPartition { partition: 1, skipped: 3, error: Some("no room".to_owned()), ..DerivedPartition::default() },
        ];
        let derived = DerivedStatus {
            targets: vec!["a".to_owned(), "b".to_owned()],
            state_bytes_max: 1 << 20,
            retries: 2,
            file_bytes_max: 9 << 20,
            partitions,
        };
        let status = AttachmentStatus { derived: Some(derived), ..AttachmentStatus::new("m", AttachPoint::Derive) };
        let words = notes(&[AttachmentStatus { on_error: OnError::Stop, ..status }]);
        for line in [
            "m: on error stop",
            "m into a, b: state up to 1.0 MiB a partition, files up to 9.0 MiB, 2 retries",
            "partition 1: 3 offsets were gone before the module came to them",
            "partition 1 does not go on: no room",
        ] {
            assert!(words.lines().any(|found| found == line), "{words}");
        }
        assert!(words.contains("1,234") && words.contains("2.0 KiB") && words.contains("3.0 MiB"), "{words}");
    }
}
