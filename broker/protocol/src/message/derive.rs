//! Derived topics: what a module makes of one topic's records in others, as it is asked for and how it is doing.

use super::request::Position;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the records of a module on [`AttachPoint::Derive`](super::AttachPoint::Derive) go, and how it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeriveInto {
    /// The topics, in the order by which the module knows them. They are there already.
    pub targets: Vec<String>,
    /// Where in each partition of the source it begins.
    pub start: Position,
    /// The offsets at which it begins in these partitions instead.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub offsets: BTreeMap<u32, i64>,
    /// Bytes of state that it may keep for each partition of the source; 0 is none.
    pub state_bytes: u64,
    /// How often it is tried again on a batch on which it failed for want of time or room; none is the broker's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

impl DeriveInto {
    /// From the beginning, without state.
    pub fn new(targets: impl IntoIterator<Item = impl Into<String>>) -> DeriveInto {
        DeriveInto { targets: targets.into_iter().map(Into::into).collect(), ..DeriveInto::default() }
    }
}

/// How a derived topic is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DerivedStatus {
    /// The topics that it writes to.
    pub targets: Vec<String>,
    /// Bytes of state that it may keep for each partition; 0 is none.
    pub state_bytes_max: u64,
    /// How often it is tried again on a batch on which it failed for want of time or room.
    pub retries: u32,
    /// What its files may come to for each partition, in bytes: they are beside what a quota counts. 0 of an older broker.
    #[serde(skip_serializing_if = "is_zero")]
    pub file_bytes_max: u64,
    /// One for each partition of the source, in order.
    pub partitions: Vec<DerivedPartition>,
}

/// What a module has made, that is on the disk and not in its targets: because these take nothing at this moment, or for a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Undelivered {
    /// So many batches.
    pub batches: u64,
    /// They were made of records before this offset, which the module is not given again.
    pub committed: i64,
}

/// How it is doing on one partition of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DerivedPartition {
    /// Which.
    pub partition: u32,
    /// All records before this offset have had their effect, and none from it on. [`DerivedPartition::UNKNOWN`] until the broker has read
    /// it, after its start.
    pub position: i64,
    /// What was made of records behind the position and is not in the targets yet. None where there is nothing, as nearly always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undelivered: Option<Undelivered>,
    /// Offsets from there to the last one that consumers can see.
    pub lag: u64,
    /// What the state counts, in bytes.
    pub state_bytes: u64,
    /// Entries of the state.
    pub state_entries: u64,
    /// What its files have at this moment, in bytes: the state, and a journal of what was written last. 0 of an older broker.
    #[serde(skip_serializing_if = "is_zero")]
    pub file_bytes: u64,
    /// Offsets that were passed over because they were gone, or damaged, before the module saw them; since the broker started.
    #[serde(skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// What keeps it from going on at this moment. None where nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl DerivedPartition {
    /// A position that is not known yet.
    pub const UNKNOWN: i64 = -1;
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::super::tests::{array, is_golden, map, text};
    use super::*;

    #[test]
    fn what_is_asked_of_a_derived_topic_has_golden_bytes() {
        let plain = DeriveInto::new(["a", "b"]);
        let fields = [("targets", array(&[text("a"), text("b")])), ("start", text("beginning")), ("state_bytes", vec![0])];
        is_golden(&plain, &map(&fields));
        let more = DeriveInto { start: Position::Offset(7), state_bytes: 9, retries: Some(2), ..plain };
        let start = map(&[("offset", vec![7])]);
        let fields = [("targets", array(&[text("a"), text("b")])), ("start", start), ("state_bytes", vec![9]), ("retries", vec![2])];
        is_golden(&more, &map(&fields));
        let places = DeriveInto { offsets: BTreeMap::from([(3, 8)]), ..DeriveInto::new(["a"]) };
        let start = [("start", text("beginning")), ("offsets", [vec![0xa1, 3], vec![8]].concat()), ("state_bytes", vec![0])];
        is_golden(&places, &map(&[&[("targets", array(&[text("a")]))][..], &start].concat()));
    }

    #[test]
    fn how_it_is_doing_has_golden_bytes() {
        let partition =
            DerivedPartition { partition: 1, position: 2, lag: 3, state_bytes: 4, state_entries: 5, ..DerivedPartition::default() };
        let fields =
            [("partition", vec![1]), ("position", vec![2]), ("lag", vec![3]), ("state_bytes", vec![4]), ("state_entries", vec![5])];
        is_golden(&partition, &map(&fields));
        let held = DerivedPartition { undelivered: Some(Undelivered { batches: 2, committed: 9 }), ..partition.clone() };
        let undelivered = ("undelivered", map(&[("batches", vec![2]), ("committed", vec![9])]));
        is_golden(&held, &map(&[&fields[..2], &[undelivered], &fields[2..]].concat()));
        let stopped = DerivedPartition { file_bytes: 7, skipped: 6, error: Some("why".into()), ..partition };
        let stopped_bytes = map(&[&fields[..], &[("file_bytes", vec![7]), ("skipped", vec![6]), ("error", text("why"))]].concat());
        let status =
            DerivedStatus { targets: vec!["a".into()], state_bytes_max: 8, retries: 3, file_bytes_max: 0, partitions: vec![stopped] };
        let (first, last) = (
            [("targets", array(&[text("a")])), ("state_bytes_max", vec![8]), ("retries", vec![3])],
            [("partitions", array(&[stopped_bytes]))],
        );
        is_golden(&status, &map(&[&first[..], &last[..]].concat()));
        let bounded = DerivedStatus { file_bytes_max: 9, ..status };
        is_golden(&bounded, &map(&[&first[..], &[("file_bytes_max", vec![9])], &last[..]].concat()));
    }
}
