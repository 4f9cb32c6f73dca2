//! One module with its versions.

use crate::{
    connection::ClientArgs,
    failure::Outcome,
    names,
    output::{OutputArgs, Row, human_bytes, pairs, short_sha256, table},
};
use clap::Args;
use jiff::Timestamp;
use millpond_protocol::message::{AttachedModule, ModuleInfo, ModuleVersion};
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
    format!("{} (on {}{view}{pinned})", at.topic, at.on)
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
        let topics: Vec<_> = version.attached.iter().map(|at| at.topic.as_str()).collect();
        vec![
            if version.version == self.current { format!("* {}", version.version) } else { version.version.to_string() },
            version.world.clone(),
            human_bytes(version.size_bytes),
            deployed(version.deployed_at_ms),
            short_sha256(&version.sha256),
            if topics.is_empty() { "-".to_owned() } else { topics.join(", ") },
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
    use millpond_protocol::message::AttachPoint;

    #[test]
    fn versions_are_told_with_the_current_one_and_where_each_runs() {
        let at = |topic: &str, pinned| AttachedModule { topic: topic.to_owned(), on: AttachPoint::Produce, view: None, pinned };
        let version = |number, attached| ModuleVersion {
            version: number,
            sha256: "0123456789abcdef".to_owned(),
            size_bytes: 2048,
            world: "transform".to_owned(),
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
        assert_eq!(lines[6].join(" "), "* 2 transform 2.0 KiB 2026-09-21 14:13:20 UTC 0123456789ab t");
        assert!(words.ends_with("\nversion 1 does not run: its file is gone\n"), "{words}");
    }
}
