//! How a topic's partitions are, in words: a short one in the table of `topic describe`, and below it what each means and what to do.

use crate::output::{counted, human_bytes, thousands, wrapped};
use millpond_protocol::message::{CompactionStatus, KnownDamage, PartitionInfo, Refusing, TopicInfo};
use std::collections::BTreeMap;

/// The state of a partition in a word or two: the worst, and whether there is damage beside it.
pub(crate) fn word(partition: &PartitionInfo) -> String {
    let writing = match (&partition.failure, &partition.refusing) {
        (Some(_), _) if partition.unreadable => "unreadable",
        (Some(_), _) => "read-only: writing has failed",
        (None, Some(refusing)) => match refusing.bound.as_str() {
            "topic" => "refusing: topic quota reached",
            "node" => "refusing: broker quota reached",
            "disk" => "refusing: disk full",
            _ => "refusing: no room",
        },
        (None, None) => "",
    };
    match (writing, &partition.damage) {
        ("", None) if compaction_failure(partition).is_some() => "ok, compaction put off".to_owned(),
        ("", None) => "ok".to_owned(),
        ("", Some(damage)) => format!("damaged: {}", counted(damage.ranges, "range")),
        (writing, None) => writing.to_owned(),
        (writing, Some(_)) => format!("{writing}, damaged"),
    }
}

/// How a topic is, in a word or two: that of its partitions, and how many are not well.
pub(crate) fn of_topic(topic: &TopicInfo) -> String {
    let mut unwell = topic.partitions.iter().map(word).filter(|word| word != "ok");
    match (unwell.next(), unwell.count() + 1, topic.partitions.len()) {
        (None, ..) => "ok".to_owned(),
        (Some(word), 1, 1) => word,
        (Some(word), count, of) => format!("{count} of {of}: {word}"),
    }
}

/// What is wrong with which partitions, why, and what to do about it. Partitions with the same trouble are named together; nothing where
/// all is well.
pub(crate) fn notes(topic: &TopicInfo) -> String {
    let mut troubles: Vec<Trouble> = Vec::new();
    let mut known = BTreeMap::new();
    for partition in &topic.partitions {
        for (what, hint) in of_partition(&topic.name, partition) {
            let at = *known.entry((what.clone(), hint.clone())).or_insert(troubles.len());
            if at == troubles.len() {
                troubles.push(Trouble { partitions: Vec::new(), what, hint });
            }
            troubles[at].partitions.push(partition.partition);
        }
    }
    let more = troubles.len().saturating_sub(TROUBLES_SHOWN);
    let mut words: String = troubles.iter().take(TROUBLES_SHOWN).map(Trouble::words).collect();
    if more > 0 {
        words.push_str("\nand ");
        words.push_str(&more.to_string());
        words.push_str(" more; `-o json` has all of them\n");
    }
    words
}

/// How far compaction is, over all partitions; nothing where the topic is not compacted.
pub(crate) fn compaction(topic: &TopicInfo) -> Vec<(&'static str, String)> {
    let all = || topic.partitions.iter().filter_map(|partition| partition.compaction.as_ref());
    if all().next().is_none() {
        return Vec::new();
    }
    let sum = |of: fn(&CompactionStatus) -> u64| all().map(of).sum::<u64>();
    let (passes, failures) = (sum(|status| status.passes), sum(|status| status.failures));
    let passes = match passes {
        0 => "no pass".to_owned(),
        1 => "1 pass".to_owned(),
        _ => format!("{} passes", thousands(passes)),
    };
    let failures = if failures == 0 { String::new() } else { format!(", and {} that failed", thousands(failures)) };
    let last = all().filter_map(|status| status.seconds_since_pass).min();
    let last = last.map_or_else(String::new, |seconds| format!("; the last ended {} ago", time(seconds)));
    vec![
        ("compaction", format!("{passes}{failures} since the broker started{last}")),
        ("compacted away", human_bytes(sum(|status| status.bytes_removed))),
        ("not compacted", human_bytes(sum(|status| status.dirty_bytes))),
    ]
}

/// Something that is wrong, and with which partitions.
struct Trouble {
    partitions: Vec<u32>,
    what: String,
    hint: String,
}

impl Trouble {
    fn words(&self) -> String {
        let mut names: Vec<_> = self.partitions.iter().take(PARTITIONS_NAMED).map(u32::to_string).collect();
        if let Some(more) = self.partitions.len().checked_sub(PARTITIONS_NAMED).filter(|more| *more > 0) {
            names.push(format!("{more} more"));
        }
        let last = names.pop().unwrap_or_default();
        let subject = if names.is_empty() { format!("partition {last}") } else { format!("partitions {} and {last}", names.join(", ")) };
        let hint = if self.hint.is_empty() { String::new() } else { wrapped(&format!("  hint: {}", self.hint), "    ") };
        format!("\n{}{hint}", wrapped(&format!("{subject}: {}", self.what), "  "))
    }
}

/// What is wrong with one partition, the worst first, each with its hint.
fn of_partition(topic: &str, partition: &PartitionInfo) -> Vec<(String, String)> {
    let mut troubles = Vec::new();
    if let Some(failure) = &partition.failure {
        let what = if partition.unreadable { "it can't be read or written" } else { "nothing more is written, and reads go on" };
        troubles.push((format!("{what}: {failure}"), partition.failure_hint.clone().unwrap_or_default()));
    }
    troubles.extend(partition.refusing.as_ref().map(of_refusing));
    troubles.extend(partition.damage.as_ref().map(|damage| of_damage(topic, partition.partition, damage)));
    troubles.extend(compaction_failure(partition));
    troubles
}

fn of_refusing(refusing: &Refusing) -> (String, String) {
    let when = refusing.seconds_ago.map_or_else(|| "the next would be".to_owned(), |seconds| format!("the last {} ago", time(seconds)));
    (format!("batches are refused, {when}: {}", refusing.reason), refusing.hint.clone())
}

fn of_damage(topic: &str, partition: u32, damage: &KnownDamage) -> (String, String) {
    let (ranges, first) = (counted(damage.ranges, "damaged range"), thousands(damage.first_offset));
    let (verb, which) = if damage.ranges == 1 { ("is", "at") } else { ("are", "the first at") };
    let what = format!("{ranges} {verb} known, {which} offset {first}: reads of it fail, and all else is served");
    let hint = format!(
        "in the broker's data folder, `millpond log verify topics/{topic}/{partition}` shows all of it, and, with the broker stopped, \
         `millpond log repair topics/{topic}/{partition} --drop-batch` mends it and says first what is lost"
    );
    (what, hint)
}

fn compaction_failure(partition: &PartitionInfo) -> Option<(String, String)> {
    let status = partition.compaction.as_ref()?;
    let failure = status.failure.as_ref()?;
    let hint = match status.retry_seconds {
        Some(seconds) => format!("it is tried again by itself, in {} at the earliest", time(seconds)),
        None => "it is tried again when the broker starts the next time".to_owned(),
    };
    Some((format!("compaction has failed: {failure}"), hint))
}

/// A length of time, rounded down to a unit that says enough.
fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", thousands(seconds / 86_400)),
    }
}

/// Partitions that are named where many have the same trouble.
const PARTITIONS_NAMED: usize = 8;

/// Troubles that are told in words.
const TROUBLES_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::message::Cleanup;

    fn refusing(bound: &str) -> Refusing {
        let (reason, hint) = ("the topic uses 511000 of the 524288 bytes of its quota".to_owned(), "delete records".to_owned());
        Refusing { bound: bound.to_owned(), reason, hint, seconds_ago: Some(3) }
    }

    fn damage(ranges: u64) -> KnownDamage {
        KnownDamage { ranges, first_offset: 4_711 }
    }

    #[test]
    fn the_worst_is_said_first_and_damage_beside_it() {
        let well = PartitionInfo::default();
        assert_eq!(word(&well), "ok");
        assert_eq!(word(&PartitionInfo { damage: Some(damage(1)), ..well.clone() }), "damaged: 1 range");
        for (bound, expected) in [
            ("topic", "refusing: topic quota reached"),
            ("node", "refusing: broker quota reached"),
            ("disk", "refusing: disk full"),
            ("newer", "refusing: no room"),
        ] {
            assert_eq!(word(&PartitionInfo { refusing: Some(refusing(bound)), ..well.clone() }), expected);
        }
        let failed = PartitionInfo { failure: Some("EIO".to_owned()), damage: Some(damage(2)), ..well };
        assert_eq!(word(&failed), "read-only: writing has failed, damaged");
        assert_eq!(word(&PartitionInfo { unreadable: true, damage: None, ..failed }), "unreadable");
    }

    #[test]
    fn partitions_with_the_same_trouble_are_named_together_in_lines_that_are_not_too_long() {
        let partition = |partition| PartitionInfo { partition, refusing: Some(refusing("topic")), ..PartitionInfo::default() };
        let mut topic = TopicInfo { name: "t".to_owned(), partitions: (0..12).map(partition).collect(), ..TopicInfo::default() };
        topic.partitions[1] = PartitionInfo { partition: 1, damage: Some(damage(2)), ..PartitionInfo::default() };
        let (failure, failure_hint) = (Some("EIO".to_owned()), Some("check the disk".to_owned()));
        topic.partitions[2] = PartitionInfo { partition: 2, failure, failure_hint, ..PartitionInfo::default() };
        let expected = "
partitions 0, 3, 4, 5, 6, 7, 8, 9 and 2 more: batches are refused, the last 3 s ago: the topic uses
  511000 of the 524288 bytes of its quota
  hint: delete records

partition 1: 2 damaged ranges are known, the first at offset 4,711: reads of it fail, and all else
  is served
  hint: in the broker's data folder, `millpond log verify topics/t/1` shows all of it, and, with the
    broker stopped, `millpond log repair topics/t/1 --drop-batch` mends it and says first what is
    lost

partition 2: nothing more is written, and reads go on: EIO
  hint: check the disk
";
        assert_eq!(notes(&topic), expected);
        topic.partitions.iter_mut().for_each(|partition| partition.failure = Some(partition.partition.to_string()));
        assert!(notes(&topic).ends_with("\nand 4 more; `-o json` has all of them\n"), "{}", notes(&topic));
        assert_eq!(notes(&TopicInfo::default()), "");
    }

    #[test]
    fn compaction_is_told_over_all_partitions_and_its_failure_for_each() {
        let mut topic = TopicInfo { partitions: vec![PartitionInfo::default(); 2], ..TopicInfo::default() };
        assert_eq!(compaction(&topic), []);
        let words = |topic: &TopicInfo| compaction(topic).into_iter().map(|(_, words)| words).collect::<Vec<_>>();
        topic.config.cleanup = Cleanup::Compact;
        topic.partitions[0].compaction = Some(CompactionStatus { dirty_bytes: 1 << 20, ..CompactionStatus::default() });
        assert_eq!(words(&topic), ["no pass since the broker started", "0 B", "1.0 MiB"]);
        topic.partitions[1].compaction = Some(CompactionStatus {
            passes: 3,
            failures: 1,
            bytes_removed: 5 << 20,
            seconds_since_pass: Some(200),
            failure: Some("no room".to_owned()),
            retry_seconds: Some(599),
            ..CompactionStatus::default()
        });
        let expected = ["3 passes, and 1 that failed since the broker started; the last ended 3 min ago", "5.0 MiB", "1.0 MiB"];
        assert_eq!(words(&topic), expected);
        assert_eq!(word(&topic.partitions[1]), "ok, compaction put off");
        topic.partitions[1].partition = 1;
        let expected = "\npartition 1: compaction has failed: no room\n  hint: it is tried again by itself, in 9 min at the earliest\n";
        assert_eq!(notes(&topic), expected);
    }

    #[test]
    fn a_time_is_told_in_the_unit_that_says_enough() {
        let told = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(time);
        assert_eq!(told, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"].map(str::to_owned));
    }
}
