//! How much disk a topic may take, and what happens when that is used up: flags of `topic create` and `topic alter`, and what is shown of it.

use crate::{
    config::{self, ByteSize, UNLIMITED},
    output::{counted, human_bytes, thousands},
};
use clap::Args;
use millpond_protocol::message::{Limit, OnFull, Refused, TopicInfo};

/// What a topic may take.
#[derive(Args, Debug)]
pub(crate) struct SpaceArgs {
    /// Bytes of records that the topic takes at most, all its partitions together, such as 1GiB, or `unlimited`; four of its largest
    /// batches or more
    #[arg(long, value_name = "SIZE", value_parser = parse_quota)]
    pub(crate) quota: Option<Limit>,
    /// What happens when the quota, the broker's or the disk is full: `reject` refuses batches until there is room, `drop-oldest` deletes
    /// the topic's oldest segments, also to make room for other topics where the broker's quota or the disk is full
    #[arg(long, value_name = "CHOICE")]
    pub(crate) on_full: Option<OnFull>,
}

/// The settings, in words.
pub(crate) fn settings(topic: &TopicInfo) -> [(&'static str, String); 2] {
    let quota = topic.config.quota_bytes.map_or_else(|| UNLIMITED.to_owned(), |bytes| ByteSize(bytes).to_string());
    [("quota", quota), ("on full", topic.config.on_full.to_string())]
}

/// What is used, and what was dropped and refused, in words; and the same of the broker where it has a limit.
pub(crate) fn usage(topic: &TopicInfo) -> Vec<(&'static str, String)> {
    let mut usage = vec![("used", used(topic.used_bytes, topic.config.quota_bytes))];
    if let Some(node) = &topic.node {
        let limited = node.quota_bytes.map(|quota| (used(node.used_bytes, Some(quota)), ByteSize(quota)));
        usage.extend(limited.map(|(used, quota)| ("broker used", format!("{used} of {quota}"))));
        let reserve = format!("{} are not free: no batch is taken until they are", ByteSize(node.reserve_bytes));
        usage.extend((!node.reserve_held).then_some(("reserve", reserve)));
    }
    let dropped = &topic.dropped;
    let lost = match dropped.segments {
        0 => NOTHING.to_owned(),
        segments => format!(
            "{} in {} since the broker started, {}",
            human_bytes(dropped.bytes),
            counted(segments, "segment"),
            counted(dropped.records, "record")
        ),
    };
    usage.extend([("dropped", lost), ("refused", refused(&topic.refused))]);
    usage
}

fn used(used_bytes: u64, quota_bytes: Option<u64>) -> String {
    let used = human_bytes(used_bytes);
    // Rounded up, so that a quota without room does not look as if it had some.
    let percent = |quota: u64| (u128::from(used_bytes) * 100).div_ceil(u128::from(quota.max(1)));
    quota_bytes.map_or_else(|| used.clone(), |quota| format!("{used}, {}% of the quota", percent(quota)))
}

fn refused(refused: &Refused) -> String {
    if refused.total() == 0 {
        return NOTHING.to_owned();
    }
    let bounds = [("topic quota", refused.topic), ("broker quota", refused.node), ("disk", refused.disk)];
    let bounds = bounds.iter().filter(|(_, batches)| *batches > 0).map(|(bound, batches)| format!("{bound} {}", thousands(*batches)));
    let noun = if refused.total() == 1 { "batch" } else { "batches" };
    format!("{} {noun} since the broker started: {}", thousands(refused.total()), bounds.collect::<Vec<_>>().join(", "))
}

const NOTHING: &str = "nothing since the broker started";

fn parse_quota(text: &str) -> Result<Limit, String> {
    if text == UNLIMITED {
        return Ok(Limit::Unlimited);
    }
    let size = text.parse::<ByteSize>().map_err(|error| format!("{error}, or `{UNLIMITED}`"))?;
    Ok(Limit::Of(size.within(&config::QUOTA_BYTES)?.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_protocol::message::{Dropped, NodeSpace, TopicConfig};

    #[test]
    fn a_quota_is_a_size_within_bounds_or_unlimited() {
        assert_eq!(parse_quota("1GiB"), Ok(Limit::Of(1 << 30)));
        assert_eq!(parse_quota("unlimited"), Ok(Limit::Unlimited));
        for wrong in ["", "-1", "1KiB", "2000000TiB", "none"] {
            assert!(parse_quota(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_used_dropped_and_refused_is_told() {
        let config = TopicConfig { quota_bytes: Some(1 << 20), on_full: OnFull::DropOldest, ..TopicConfig::default() };
        let dropped = Dropped { segments: 1_200, records: 34_000, bytes: 5 << 20 };
        let node = NodeSpace { used_bytes: 9 << 30, quota_bytes: Some(10 << 30), reserve_bytes: 8 << 20, reserve_held: false };
        let refused = Refused { topic: 1_000, node: 0, disk: 200 };
        let topic = TopicInfo { config, used_bytes: 943_718, dropped, refused, node: Some(node), ..TopicInfo::default() };
        assert_eq!(settings(&topic), [("quota", "1MiB".to_owned()), ("on full", "drop-oldest".to_owned())]);
        let expected = [
            ("used", "921.6 KiB, 90% of the quota"),
            ("broker used", "9.0 GiB, 90% of the quota of 10GiB"),
            ("reserve", "8MiB are not free: no batch is taken until they are"),
            ("dropped", "5.0 MiB in 1,200 segments since the broker started, 34,000 records"),
            ("refused", "1,200 batches since the broker started: topic quota 1,000, disk 200"),
        ];
        assert_eq!(usage(&topic), expected.map(|(name, words)| (name, words.to_owned())));
        let node = NodeSpace { quota_bytes: None, reserve_held: true, ..node };
        let topic = TopicInfo { node: Some(node), refused: Refused { node: 1, ..Refused::default() }, ..TopicInfo::default() };
        assert_eq!(settings(&topic).map(|(_, words)| words), ["unlimited".to_owned(), "reject".to_owned()]);
        let words: Vec<_> = usage(&topic).into_iter().map(|(_, words)| words).collect();
        assert_eq!(words, ["0 B", "nothing since the broker started", "1 batch since the broker started: broker quota 1"]);
    }
}
