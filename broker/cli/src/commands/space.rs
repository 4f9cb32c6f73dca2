//! How much disk a topic may take, and what happens when that is used up: flags of `topic create` and `topic alter`, and what is shown of it.

use crate::{
    config::{self, ByteSize, UNLIMITED},
    output::{human_bytes, thousands},
};
use clap::Args;
use millpond_protocol::message::{Limit, OnFull, TopicInfo};

/// What a topic may take.
#[derive(Args, Debug)]
pub(crate) struct SpaceArgs {
    /// Bytes of records that the topic takes at most, all its partitions together, such as 1GiB, or `unlimited`; four of its largest
    /// batches or more
    #[arg(long, value_name = "SIZE", value_parser = parse_quota)]
    pub(crate) quota: Option<Limit>,
    /// What happens when the quota, the broker's or the disk is full: `reject` refuses batches until there is room, `drop-oldest` deletes
    /// the topic's oldest segments
    #[arg(long, value_name = "CHOICE")]
    pub(crate) on_full: Option<OnFull>,
}

/// The settings, in words.
pub(crate) fn settings(topic: &TopicInfo) -> [(&'static str, String); 2] {
    let quota = topic.config.quota_bytes.map_or_else(|| UNLIMITED.to_owned(), |bytes| ByteSize(bytes).to_string());
    [("quota", quota), ("on full", topic.config.on_full.to_string())]
}

/// What is used, and what was dropped, in words.
pub(crate) fn usage(topic: &TopicInfo) -> [(&'static str, String); 2] {
    let used = human_bytes(topic.used_bytes);
    // Rounded up, so that a quota without room does not look as if it had some.
    let percent = |quota: u64| (u128::from(topic.used_bytes) * 100).div_ceil(u128::from(quota.max(1)));
    let used = topic.config.quota_bytes.map_or_else(|| used.clone(), |quota| format!("{used}, {}% of the quota", percent(quota)));
    let dropped = &topic.dropped;
    let lost = match dropped.segments {
        0 => "nothing since the broker started".to_owned(),
        segments => format!(
            "{} in {} segments since the broker started, {} records",
            human_bytes(dropped.bytes),
            thousands(segments),
            thousands(dropped.records)
        ),
    };
    [("used", used), ("dropped", lost)]
}

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
    use millpond_protocol::message::{Dropped, TopicConfig};

    #[test]
    fn a_quota_is_a_size_within_bounds_or_unlimited() {
        assert_eq!(parse_quota("1GiB"), Ok(Limit::Of(1 << 30)));
        assert_eq!(parse_quota("unlimited"), Ok(Limit::Unlimited));
        for wrong in ["", "-1", "1KiB", "2000000TiB", "none"] {
            assert!(parse_quota(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_used_and_what_was_dropped_is_told() {
        let config = TopicConfig { quota_bytes: Some(1 << 20), on_full: OnFull::DropOldest, ..TopicConfig::default() };
        let dropped = Dropped { segments: 1_200, records: 34_000, bytes: 5 << 20 };
        let topic = TopicInfo { config, used_bytes: 943_718, dropped, ..TopicInfo::default() };
        assert_eq!(settings(&topic), [("quota", "1MiB".to_owned()), ("on full", "drop-oldest".to_owned())]);
        assert_eq!(
            usage(&topic).map(|(_, words)| words),
            ["921.6 KiB, 90% of the quota", "5.0 MiB in 1,200 segments since the broker started, 34,000 records"].map(str::to_owned)
        );
        let topic = TopicInfo::default();
        assert_eq!(settings(&topic).map(|(_, words)| words), ["unlimited".to_owned(), "reject".to_owned()]);
        assert_eq!(usage(&topic).map(|(_, words)| words), ["0 B", "nothing since the broker started"].map(str::to_owned));
    }
}
