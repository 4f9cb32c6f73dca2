//! What is measured, and for how long.

use super::samples::{Limits, Sample};
use clap::{ValueEnum, builder::PossibleValue};
use std::time::Duration;

/// One thing that Millpond is measured at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Case {
    /// Records of 1 KiB into a topic with durability `os`.
    Produce1kOs,
    /// The same with durability `sync`.
    Produce1kSync,
    /// Reading them back from the beginning.
    Consume1k,
    /// 64 writers on one partition with durability `sync`, each of which waits for its batch of 16 KiB before it hands over the next; without
    /// a network.
    GroupCommit,
    /// Records of 100 bytes (readings in JSON) into a topic with durability `os`.
    Produce100bOs,
    /// The same records, with a transform on the topic that leaves one of four out without looking into it.
    Produce100bFilter,
    /// The same records, with a transform on the topic that reads their JSON, leaves some out and masks a field in the others.
    Produce100bJson,
    /// One record of 1 KiB at a time: from `send` to its acknowledgement, durability `os`.
    AckLatencyOs,
    /// The same with durability `sync`.
    AckLatencySync,
    /// From `send` to the record in a consumer's hand, at a low and fixed rate, durability `os`.
    EndToEndOs,
    /// From the upload of a module that the broker does not know to the acknowledgement of a record that has passed it.
    Deploy,
    /// From the start of a broker that was stopped in order, with 5 GiB in one partition, to its first answer.
    Restart,
}

/// What a ratio has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    pub(super) fn is_reached(self, ratio: f64) -> bool {
        match self {
            Target::AtLeast(least) => ratio >= least,
            Target::AtMost(most) => ratio <= most,
        }
    }

    pub(super) const fn ratio(self) -> f64 {
        match self {
            Target::AtLeast(ratio) | Target::AtMost(ratio) => ratio,
        }
    }
}

/// What a result's ratio is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A share of the limit: 1 is all that the machine gives, more is better.
    Share,
    /// A multiple of the limit: 1 is all that the machine asks, less is better.
    Multiple,
}

impl Case {
    /// All, in the order in which they are shown.
    pub(super) const ALL: [Case; 12] = [
        Case::Produce1kOs,
        Case::Produce1kSync,
        Case::Consume1k,
        Case::GroupCommit,
        Case::Produce100bOs,
        Case::Produce100bFilter,
        Case::Produce100bJson,
        Case::AckLatencyOs,
        Case::AckLatencySync,
        Case::EndToEndOs,
        Case::Deploy,
        Case::Restart,
    ];

    /// As on the command line and in the results.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Case::Produce1kOs => "produce_1k_os",
            Case::Produce1kSync => "produce_1k_sync",
            Case::Consume1k => "consume_1k",
            Case::GroupCommit => "group_commit",
            Case::Produce100bOs => "produce_100b_os",
            Case::Produce100bFilter => "produce_100b_filter",
            Case::Produce100bJson => "produce_100b_json",
            Case::AckLatencyOs => "ack_latency_os",
            Case::AckLatencySync => "ack_latency_sync",
            Case::EndToEndOs => "end_to_end_os",
            Case::Deploy => "deploy",
            Case::Restart => "restart",
        }
    }

    /// What it is held against, in words.
    pub(super) const fn limit_name(self) -> &'static str {
        match self {
            Case::Produce1kOs | Case::Consume1k | Case::Produce100bOs => "raw quinn",
            Case::Produce1kSync => "sequential write",
            Case::GroupCommit => "flushed write",
            Case::Produce100bFilter | Case::Produce100bJson => "produce_100b_os",
            Case::AckLatencyOs | Case::EndToEndOs => "quinn ping",
            Case::AckLatencySync => "fdatasync + ping",
            Case::Deploy => "0.1 seconds",
            Case::Restart => "one second",
        }
    }

    pub(super) const fn meaning(self) -> Meaning {
        match self {
            Case::AckLatencyOs | Case::AckLatencySync | Case::EndToEndOs | Case::Deploy | Case::Restart => Meaning::Multiple,
            _ => Meaning::Share,
        }
    }

    /// The number of a sample that is held against the limit: MB/s, records a second through a transform, or the median latency.
    pub(super) const fn measured(self, sample: &Sample) -> Option<f64> {
        match self {
            Case::Produce100bFilter | Case::Produce100bJson => sample.records_s,
            Case::AckLatencyOs | Case::AckLatencySync | Case::EndToEndOs | Case::Deploy | Case::Restart => sample.p50_us,
            _ => sample.mb_s,
        }
    }

    /// The limit, in the unit of [`Case::measured`]. `unfiltered` is the result of `produce_100b_os`.
    pub(super) fn limit(self, limits: &Limits, unfiltered: &Sample) -> Option<f64> {
        match self {
            Case::Produce1kOs | Case::Consume1k | Case::Produce100bOs => limits.quinn_mb_s,
            Case::Produce1kSync => limits.seq_write_mb_s,
            Case::GroupCommit => limits.flushed_write_mb_s,
            Case::Produce100bFilter | Case::Produce100bJson => unfiltered.records_s,
            Case::AckLatencyOs | Case::EndToEndOs => limits.quinn_ping_p50_us,
            Case::AckLatencySync => Some(limits.fdatasync_p50_us? + limits.quinn_ping_p50_us?),
            Case::Deploy => Some(1e5),
            Case::Restart => Some(1e6),
        }
    }

    /// What the ratio has to be. Where the disk is faster than QUIC, producing on the disk has to reach what it has to without it.
    pub(super) fn target(self, limits: &Limits) -> Option<Target> {
        match self {
            Case::Produce1kOs | Case::Consume1k => Some(Target::AtLeast(NETWORK_SHARE_MIN)),
            Case::Produce1kSync => {
                let of_network = limits.quinn_mb_s.zip(limits.seq_write_mb_s).map(|(network, disk)| NETWORK_SHARE_MIN * network / disk);
                Some(Target::AtLeast(of_network.map_or(DISK_SHARE_MIN, |share| share.min(DISK_SHARE_MIN))))
            }
            Case::GroupCommit => Some(Target::AtLeast(0.9)),
            Case::Produce100bFilter => Some(Target::AtLeast(0.85)),
            Case::Produce100bJson => Some(Target::AtLeast(0.6)),
            Case::AckLatencyOs => Some(Target::AtMost(3.0)),
            Case::Deploy | Case::Restart => Some(Target::AtMost(1.0)),
            Case::Produce100bOs | Case::AckLatencySync | Case::EndToEndOs => None,
        }
    }
}

/// The share of raw QUIC's throughput that producing and consuming reach at least.
const NETWORK_SHARE_MIN: f64 = 0.6;

/// The share of the disk's that producing with a flush before each answer reaches.
const DISK_SHARE_MIN: f64 = 0.7;

impl ValueEnum for Case {
    fn value_variants<'a>() -> &'a [Case] {
        &Case::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// How often and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Each limit and each case is measured once in every round, next to each other.
    pub(super) rounds: usize,
    /// How long one throughput measurement produces.
    pub(super) throughput: Duration,
    /// How long one latency measurement goes on.
    pub(super) latency: Duration,
    /// Bytes of the topic that a broker is started again with.
    pub(super) restart_bytes: u64,
}

impl Plan {
    /// `--quick`: all of it in less than 40 seconds.
    pub(super) const QUICK: Plan =
        Plan { rounds: 3, throughput: Duration::from_millis(700), latency: Duration::from_millis(400), restart_bytes: 1 << 30 };

    /// About three minutes.
    pub(super) const FULL: Plan =
        Plan { rounds: 5, throughput: Duration::from_secs(3), latency: Duration::from_millis(1500), restart_bytes: 5 << 30 };

    /// With throughput measurements of this length.
    pub(super) fn with_seconds(self, seconds: f64) -> Plan {
        Plan { throughput: Duration::from_secs_f64(seconds), ..self }
    }
}
