//! The results: as a table for a person, as JSON for a program.

use super::{
    plan::{Case, Meaning, Target},
    samples::{Limits, Sample, Samples},
};
use crate::{
    failure::Failure,
    output::{Row, table, thousands},
};
use serde::Serialize;

/// All results of a run: `{"limits":{…},"results":[…]}`, with null for what does not apply.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    limits: Limits,
    results: Vec<CaseResult>,
}

/// One case beside its limit.
#[derive(Debug, Serialize)]
struct CaseResult {
    #[serde(serialize_with = "as_name")]
    name: Case,
    mb_s: Option<f64>,
    records_s: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    limit: Option<f64>,
    ratio: Option<f64>,
    #[serde(serialize_with = "as_ratio")]
    target: Option<Target>,
    reached: Option<bool>,
}

impl Report {
    /// The medians of all rounds, for these cases.
    pub(super) fn new(samples: &Samples, cases: &[Case]) -> Report {
        let limits = samples.limits();
        let unfiltered = samples.case(Case::Produce100bOs);
        let results = cases.iter().map(|case| CaseResult::new(*case, &samples.case(*case), &limits, &unfiltered)).collect();
        Report { limits: limits.rounded(), results }
    }

    /// The targets that were missed, if any, as the failure of the command.
    pub(super) fn failure(&self) -> Option<Failure> {
        let missed = self.results.iter().filter(|result| result.reached == Some(false));
        let words = missed.filter_map(|result| {
            let (what, wanted) = (result.name.name(), described(result.target?));
            Some(format!("{what} is {:.2} of its limit, and {wanted} is the target", result.ratio?))
        });
        let words: Vec<_> = words.collect();
        let failure = Failure::new(format!("{} of {} targets were missed", words.len(), self.targets()));
        let failure = words.iter().fold(failure, |failure, words| failure.cause(words.clone()));
        (!words.is_empty()).then(|| failure.hint("a machine that is busy with other things misses them too; try again, without --quick"))
    }

    /// How many results there are that have a target.
    fn targets(&self) -> usize {
        self.results.iter().filter(|result| result.reached.is_some()).count()
    }

    /// For reading: the limits, the results, and what the ratios mean. `heading` says how it was measured.
    pub(super) fn words(&self, heading: &str) -> String {
        let (limits, results) = (table(&self.limits.rows()), table(&self.results));
        let faster_disk = self.limits.quinn_mb_s.zip(self.limits.seq_write_mb_s).filter(|(network, disk)| network < disk);
        let remark = faster_disk.map_or_else(String::new, |(network, disk)| {
            let (case, most) = (Case::Produce1kSync.name(), network / disk);
            format!("The disk is faster than QUIC here: {case} can reach {most:.2} of its limit at most.\n")
        });
        format!("{heading}\n\n{limits}\n{results}\n{LEGEND}{remark}")
    }
}

/// What a person has to know to read the ratios.
const LEGEND: &str = "\
share: how much of the limit Millpond reaches; 1.00 is all that the machine gives, more is better
times: how many times the limit Millpond takes, at the median; less is better
MB are 10^6 bytes of values. Each number is the median of the rounds. p50 and p99 of produce_* are acknowledgements under full load.
";

impl Row for CaseResult {
    const HEADINGS: &'static [&'static str] =
        &["CASE", ">MB/S", ">RECORDS/S", ">P50 us", ">P99 us", ">LIMIT", "OF", ">RATIO", "", "TARGET", ""];

    fn cells(&self) -> Vec<String> {
        let case = self.name;
        let (unit, meaning) = match case.meaning() {
            Meaning::Share if matches!(case, Case::Produce100bFilter | Case::Produce100bJson) => ("records/s", "share"),
            Meaning::Share => ("MB/s", "share"),
            Meaning::Multiple => ("us", "times"),
        };
        vec![
            case.name().to_owned(),
            shown(self.mb_s),
            shown(self.records_s),
            shown(self.p50_us),
            shown(self.p99_us),
            shown(self.limit),
            format!("{unit} {}", case.limit_name()),
            self.ratio.map_or_else(|| NOTHING.to_owned(), |ratio| format!("{ratio:.2}")),
            meaning.to_owned(),
            self.target.map_or_else(|| NOTHING.to_owned(), described),
            self.reached.map_or("", |reached| if reached { "yes" } else { "NO" }).to_owned(),
        ]
    }
}

/// One limit, for reading.
#[derive(Serialize)]
struct LimitRow {
    what: &'static str,
    mb_s: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
}

impl Row for LimitRow {
    const HEADINGS: &'static [&'static str] = &["LIMIT OF THIS MACHINE", ">MB/S", ">P50 us", ">P99 us"];

    fn cells(&self) -> Vec<String> {
        vec![self.what.to_owned(), shown(self.mb_s), shown(self.p50_us), shown(self.p99_us)]
    }
}

impl CaseResult {
    fn new(case: Case, sample: &Sample, limits: &Limits, unfiltered: &Sample) -> CaseResult {
        let limit = case.limit(limits, unfiltered);
        let ratio = case.measured(sample).zip(limit).filter(|(_, limit)| *limit > 0.0).map(|(measured, limit)| measured / limit);
        let target = case.target(limits);
        CaseResult {
            name: case,
            mb_s: sample.mb_s.map(rounded),
            records_s: sample.records_s.map(rounded),
            p50_us: sample.p50_us.map(rounded),
            p99_us: sample.p99_us.map(rounded),
            limit: limit.map(rounded),
            ratio: ratio.map(rounded),
            target,
            reached: target.zip(ratio).map(|(target, ratio)| target.is_reached(ratio)),
        }
    }
}

impl Limits {
    fn rounded(self) -> Limits {
        Limits {
            quinn_mb_s: self.quinn_mb_s.map(rounded),
            seq_write_mb_s: self.seq_write_mb_s.map(rounded),
            flushed_write_mb_s: self.flushed_write_mb_s.map(rounded),
            fdatasync_p50_us: self.fdatasync_p50_us.map(rounded),
            fdatasync_p99_us: self.fdatasync_p99_us.map(rounded),
            quinn_ping_p50_us: self.quinn_ping_p50_us.map(rounded),
            quinn_ping_p99_us: self.quinn_ping_p99_us.map(rounded),
        }
    }

    fn rows(&self) -> [LimitRow; 5] {
        let throughput = |what, mb_s| LimitRow { what, mb_s, p50_us: None, p99_us: None };
        let latency = |what, p50_us, p99_us| LimitRow { what, mb_s: None, p50_us, p99_us };
        [
            throughput("raw quinn: one connection, two processes", self.quinn_mb_s),
            throughput("sequential write: 1 MiB each, one fdatasync at the end", self.seq_write_mb_s),
            throughput("flushed write: 512 KiB each, with an fdatasync", self.flushed_write_mb_s),
            latency("fdatasync: write 4 KiB and flush", self.fdatasync_p50_us, self.fdatasync_p99_us),
            latency("quinn ping: 1 KiB and 16 bytes back, on an open stream", self.quinn_ping_p50_us, self.quinn_ping_p99_us),
        ]
    }
}

/// A target, for reading.
fn described(target: Target) -> String {
    match target {
        Target::AtLeast(ratio) => format!("{ratio:.2} or more"),
        Target::AtMost(ratio) => format!("{ratio:.2} or less"),
    }
}

/// Three decimals are more than the noise leaves.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// A number for reading: one decimal for the small ones.
fn shown(value: Option<f64>) -> String {
    match value {
        None => NOTHING.to_owned(),
        Some(value) if value < 100.0 => format!("{value:.1}"),
        #[expect(clippy::cast_possible_truncation, reason = "far below 2^63")]
        Some(value) => thousands(value.round() as i64),
    }
}

/// Stands for a number that does not apply.
const NOTHING: &str = "-";

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn as_name<S: serde::Serializer>(case: &Case, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(case.name())
}

#[expect(clippy::ref_option, reason = "serde hands over a reference")]
fn as_ratio<S: serde::Serializer>(target: &Option<Target>, serializer: S) -> Result<S::Ok, S::Error> {
    target.map(|target| rounded(target.ratio())).serialize(serializer)
}
