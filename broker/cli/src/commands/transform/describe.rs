//! One module with its versions, and how it is doing where it is attached.

use super::super::attachments;
use crate::{
    connection::ClientArgs,
    failure::Outcome,
    names,
    output::{OutputArgs, Row, human_bytes, pairs, short_sha256, table, thousands},
};
use clap::Args;
use jiff::Timestamp;
use millpond_protocol::message::{AttachedModule, AttachmentStatus, ModuleInfo, ModuleVersion};
use serde::Serialize;

/// Arguments of `millpond transform describe`.
#[derive(Args, Debug)]
pub(crate) struct DescribeArgs {
    /// The module
    #[arg(value_parser = names::parse)]
    module: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs `millpond transform describe`.
pub(super) async fn describe(arguments: DescribeArgs) -> Outcome {
    let DescribeArgs { module, output, client } = arguments;
    let module = client.with(async |client| Ok(client.admin().module(&module).await?)).await?;
    output.one(&module, words)
}

fn words(module: &ModuleInfo) -> String {
    let attached: Vec<_> = module.versions.iter().flat_map(|version| version.attached.iter().map(|at| place(at, version))).collect();
    let mut words = pairs(&[
        ("module", module.name.clone()),
        ("current", format!("version {}, sha256 {}", module.version, module.sha256)),
        ("attached", if attached.is_empty() { "nowhere".to_owned() } else { attached.join(", ") }),
    ]);
    words.push('\n');
    words.push_str(&table(&module.versions.iter().map(|version| VersionRow { version, current: module.version }).collect::<Vec<_>>()));
    let all = module.versions.iter().flat_map(|version| &version.attached);
    let rows: Vec<_> = all.filter_map(|at| Some(AttachedRow { topic: &at.topic, status: at.status.as_ref()? })).collect();
    if !rows.is_empty() {
        words.push('\n');
        words.push_str(&table(&rows));
        words.push_str(&attachments::troubles(rows.iter().map(|row| (row.topic, row.status))));
    }
    for row in &rows {
        words.extend(row.status.derived.as_ref().map(|derived| format!("\n{}", attachments::derived(row.topic, derived))));
    }
    let unavailable = |version: &ModuleVersion| {
        let reason = version.unavailable.as_ref()?;
        Some(format!("\nversion {} does not run: {reason}\n", version.version))
    };
    words.extend(module.versions.iter().filter_map(unavailable));
    words
}

fn place(at: &AttachedModule, version: &ModuleVersion) -> String {
    let pinned = if at.pinned { format!(", stays version {}", version.version) } else { String::new() };
    let view = at.view.as_ref().map(|view| format!(" as {view}")).unwrap_or_default();
    let derived = at.status.as_ref().and_then(|status| status.derived.as_ref());
    let into = derived.map(|derived| format!(" into {}", derived.targets.join(", "))).unwrap_or_default();
    format!("{} (on {}{view}{into}{pinned})", at.topic, at.on)
}

#[derive(Serialize)]
struct VersionRow<'a> {
    version: &'a ModuleVersion,
    current: u32,
}

impl Row for VersionRow<'_> {
    const HEADINGS: &'static [&'static str] = &[">VERSION", "WORLD", ">SIZE", "DEPLOYED", "SHA-256", "RUNS ON"];

    fn cells(&self) -> Vec<String> {
        let version = self.version;
        let mut topics: Vec<_> = version.attached.iter().map(|at| at.topic.as_str()).collect();
        topics.dedup();
        vec![
            if version.version == self.current { format!("* {}", version.version) } else { version.version.to_string() },
            super::world_name(&version.world, version.stateful),
            human_bytes(version.size_bytes),
            deployed(version.deployed_at_ms),
            short_sha256(&version.sha256),
            if topics.is_empty() { "-".to_owned() } else { topics.join(", ") },
        ]
    }
}

/// Where a module is attached, and how it is doing there.
#[derive(Serialize)]
struct AttachedRow<'a> {
    topic: &'a str,
    status: &'a AttachmentStatus,
}

impl Row for AttachedRow<'_> {
    const HEADINGS: &'static [&'static str] =
        &["TOPIC", "ON", ">VERSION", "STATE", ">BATCHES", ">FAILURES", ">RECORDS IN", ">OUT", ">99% WITHIN", ">MEMORY"];

    fn cells(&self) -> Vec<String> {
        let status = self.status;
        vec![
            self.topic.to_owned(),
            status.view.as_ref().map_or_else(|| status.on.to_string(), |view| format!("{}: {view}", status.on)),
            status.version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
            attachments::trouble(status).unwrap_or_else(|| "runs".to_owned()),
            thousands(status.batches),
            thousands(status.failures),
            thousands(status.records_in),
            thousands(status.records_out),
            attachments::within(status.work.batch_times.as_ref(), 99),
            human_bytes(status.work.memory_bytes_peak),
        ]
    }
}

/// To the second; a module of a broker that did not note it has no time.
fn deployed(at_ms: i64) -> String {
    match Timestamp::from_millisecond(at_ms) {
        Ok(at) if at_ms > 0 => at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::message::{AttachPoint, AttachmentWork, BatchTimes, DerivedPartition, DerivedStatus, TimeBucket};

    #[test]
    fn versions_are_told_with_the_current_one_and_where_each_runs() {
        let at =
            |topic: &str, pinned| AttachedModule { topic: topic.to_owned(), on: AttachPoint::Produce, view: None, pinned, status: None };
        let version = |number, attached| ModuleVersion {
            version: number,
            sha256: "0123456789abcdef".to_owned(),
            size_bytes: 2048,
            world: "transform".to_owned(),
            stateful: number == 2,
            deployed_at_ms: 1_790_000_000_000 * i64::from(number - 1),
            attached,
            unavailable: (number == 1).then(|| "its file is gone".to_owned()),
        };
        let module = ModuleInfo {
            name: "m".to_owned(),
            version: 2,
            sha256: "0123456789abcdef".to_owned(),
            versions: vec![version(1, vec![at("a", true)]), version(2, vec![at("t", false)])],
            ..ModuleInfo::default()
        };
        let words = words(&module);
        let lines: Vec<Vec<&str>> = words.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[2].join(" "), "attached a (on produce, stays version 1), t (on produce)");
        assert_eq!(lines[5].join(" "), "1 transform 2.0 KiB - 0123456789ab a");
        assert_eq!(lines[6].join(" "), "* 2 stateful-transform 2.0 KiB 2026-09-21 14:13:20 UTC 0123456789ab t");
        assert!(words.ends_with("\nversion 1 does not run: its file is gone\n"), "{words}");
    }

    #[test]
    fn each_place_says_how_the_module_is_doing_there() {
        let status = AttachmentStatus {
            version: Some(2),
            paused: Some("it trapped".to_owned()),
            batches: 1_200,
            failures: 3,
            records_in: 9,
            records_out: 8,
            work: AttachmentWork {
                memory_bytes_peak: 65_536,
                failures_by_kind: [("guest_trapped".to_owned(), 3)].into(),
                batch_times: Some(BatchTimes { batches: 1, sum_us: 70, buckets: vec![TimeBucket { le_us: 100, batches: 1 }] }),
                ..AttachmentWork::default()
            },
            ..AttachmentStatus::new("m", AttachPoint::Produce)
        };
        let at = AttachedModule { topic: "t".to_owned(), on: AttachPoint::Produce, view: None, pinned: false, status: Some(status) };
        let version = ModuleVersion { version: 2, attached: vec![at], ..ModuleVersion::default() };
        let words = words(&ModuleInfo { name: "m".to_owned(), version: 2, versions: vec![version], ..ModuleInfo::default() });
        let lines: Vec<Vec<&str>> = words.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[8].join(" "), "t produce 2 does not run 1,200 3 9 8 100 us 64.0 KiB");
        assert!(words.ends_with("\non t it has failed: guest_trapped on 3 batches\non t it does not run: it trapped\n"), "{words}");
    }

    #[test]
    fn where_it_derives_topics_it_says_how_far_it_is_on_each_partition() {
        let partition = |partition, position, lag, error: Option<&str>| DerivedPartition {
            partition,
            position,
            lag,
            state_bytes: 2_048,
            error: error.map(str::to_owned),
            ..DerivedPartition::default()
        };
        let partitions = vec![partition(0, 1_500, 0, None), partition(1, 20, 7, Some("no room"))];
        let derived = DerivedStatus { targets: vec!["x".to_owned(), "y".to_owned()], retries: 3, partitions, ..DerivedStatus::default() };
        let status = AttachmentStatus { derived: Some(derived), ..AttachmentStatus::new("m", AttachPoint::Derive) };
        let at = AttachedModule { topic: "t".to_owned(), on: AttachPoint::Derive, view: None, pinned: false, status: Some(status) };
        let version = ModuleVersion { version: 1, attached: vec![at], ..ModuleVersion::default() };
        let words = words(&ModuleInfo { name: "m".to_owned(), version: 1, versions: vec![version], ..ModuleInfo::default() });
        let lines: Vec<String> = words.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[2], "attached t (on derive into x, y)");
        assert!(lines.iter().any(|line| line.starts_with("t derive - 1 of 2 held up ")), "{words}");
        let from = lines.iter().position(|line| line == "t into x, y: no state, 3 retries").expect("it is told");
        assert_eq!(lines[from + 3..], ["0 1,500 0 2.0 KiB 0 0 B", "1 20 7 2.0 KiB 0 0 B", "partition 1 does not go on: no room"]);
    }
}
