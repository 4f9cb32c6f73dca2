//! Memory, and how long batches take.

use crate::attacks::Attack;
use std::{collections::BTreeMap, time::Duration};

/// One line about an attack; sorts the times.
pub(crate) fn report(attack: &Attack, codes: &BTreeMap<String, usize>, latencies: &mut [Duration], grown: u64) -> String {
    latencies.sort_unstable();
    let millis = |share: usize| latencies[(latencies.len() - 1) * share / 1000].as_secs_f64() * 1e3;
    format!(
        "attack {attack}: {codes:?}; neighbour {} batches, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; memory +{} KiB of {} KiB",
        latencies.len(),
        millis(500),
        millis(990),
        millis(1000),
        grown >> 10,
        attack.growth_bytes_max() >> 10,
    )
}

/// Forgets the peak of this process's memory so far, where the kernel lets it, and gives the one from now on.
pub(crate) fn memory_bytes_peak_from_now() -> u64 {
    let _not_everywhere = std::fs::write("/proc/self/clear_refs", "5");
    memory_bytes_peak()
}

pub(crate) fn memory_bytes_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}
