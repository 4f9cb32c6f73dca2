//! `millpond log verify`: what is wrong with the files. Of a data folder that is the catalogue, too, and the folders that it asks for.

use super::{
    rows::Rows,
    target::{Partition, Target},
};
use crate::{
    failure::{Failure, Outcome},
    output::{self, OutputArgs, Row, counted, human_bytes, thousands},
    progress::ByteProgress,
};
use clap::Args;
use millpond_engine::FolderFault;
use millpond_log::{
    RealDisk,
    inspect::{self, Fault, Verified, VerifyOptions, Watch, kept_log_of},
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Arguments of `millpond log verify`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// A data folder, a topic's or a partition's folder in it, or a .log, .index or .timeindex file
    path: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `millpond log verify`.
pub(super) fn run(arguments: &VerifyArgs) -> Outcome {
    let target = Target::of(&arguments.path)?;
    if let Some((file, _)) = target.file.as_ref().filter(|(file, _)| kept_log_of(file).is_some()) {
        let hint = "`millpond log dump` shows what is in it";
        return Err(Failure::usage(format!("{} is kept beside a log, and no part of it", file.display())).hint(hint));
    }
    let in_use = target.is_in_use();
    let segment = target.file.as_ref().map(|(_, base_offset)| *base_offset);
    let options = VerifyOptions { segment, in_use };
    let bytes_total = target.partitions.iter().map(Partition::log_bytes).sum();
    let mut report = Report {
        rows: Rows::new(arguments.output.format()),
        progress: ByteProgress::start(bytes_total),
        printed: Ok(()),
        partition: String::new(),
        faults: Faults::default(),
    };
    if let Some(data_folder) = &target.data_folder {
        let faults = millpond_engine::inspect(&RealDisk, data_folder, in_use);
        let faults = faults.map_err(|error| Failure::new(format!("can't look at {}", data_folder.display())).because(&error))?;
        faults.iter().try_for_each(|fault| report.folder_fault(fault))?;
    }
    let mut summary = Vec::new();
    for partition in &target.partitions {
        report.partition = partition.name();
        let verified = inspect::verify(&RealDisk, &partition.dir, options, &mut report);
        report.printed?;
        report.printed = Ok(());
        let verified = verified.map_err(|error| Failure::new(format!("can't look at {}", partition.name())).because(&error))?;
        let row = PartitionRow::new(partition, &verified);
        report.rows.object(&row)?;
        report.faults.in_logs += row.faults;
        report.faults.partitions += u64::from(row.faults > 0);
        summary.push(row);
    }
    report.progress.finish();
    if report.rows.is_table() {
        output::table(&summary).lines().try_for_each(|line| report.rows.line(line))?;
    }
    report.rows.finish()?;
    if in_use {
        output::note("A broker is using this data folder: what it stores meanwhile may not have been looked at.");
    }
    report.faults.outcome(target.file.as_ref().and_then(|(file, _)| file.parent()).unwrap_or(&arguments.path))
}

/// How many faults there are.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// Of the catalogue.
    in_catalogue: u64,
    /// Of the logs.
    in_logs: u64,
    /// Of those, faults that no start of the broker mends.
    lasting: u64,
    /// Partitions without a folder.
    lost: u64,
    /// Partitions with faults in their logs.
    partitions: u64,
}

impl Faults {
    /// Says how it went by the exit code. `folder` is what a repair is given.
    fn outcome(self, folder: &Path) -> Outcome {
        let Faults { in_catalogue, in_logs, lasting, lost, partitions } = self;
        let found = |faults, place: String| (faults > 0).then(|| format!("{} in {place}", counted(faults, "fault")));
        let found = [found(in_catalogue, "the catalogue".to_owned()), found(in_logs + lost, counted(partitions + lost, "partition"))];
        let found: Vec<_> = found.into_iter().flatten().collect();
        if found.is_empty() {
            return Ok(());
        }
        let hint = if lasting > 0 {
            let folder = folder.display();
            format!("`millpond log repair {folder} --drop-batch`, with the broker stopped, says what can be done before it does it")
        } else if in_catalogue + lost > 0 {
            "what to do is said with each of them".to_owned()
        } else {
            "nothing has to be done: the next start of the broker mends this".to_owned()
        };
        Err(Failure::new(found.join(" and ")).hint(hint))
    }
}

/// Prints faults as they are found.
struct Report {
    rows: Rows,
    progress: ByteProgress,
    /// What came of printing.
    printed: Outcome,
    partition: String,
    faults: Faults,
}

/// A fault, for a program.
#[derive(Serialize)]
struct FaultRow<'a> {
    kind: &'static str,
    /// None where it is about the data folder.
    partition: Option<&'a str>,
    fault: &'static str,
    is_note: bool,
    file: &'a Path,
    position: Option<u64>,
    offset: Option<i64>,
    what: String,
    meaning: &'a str,
}

/// A partition, for a program and as a line of the table.
#[derive(Serialize)]
struct PartitionRow {
    kind: &'static str,
    partition: String,
    segments: u64,
    batches: u64,
    records: u64,
    bytes: u64,
    log_start: i64,
    log_end: i64,
    faults: u64,
    notes: u64,
}

impl PartitionRow {
    fn new(partition: &Partition, verified: &Verified) -> PartitionRow {
        let Verified { segments, batches, records, bytes, log_start, log_end, faults, notes } = *verified;
        let partition = partition.name();
        PartitionRow { kind: "partition", partition, segments, batches, records, bytes, log_start, log_end, faults, notes }
    }
}

impl Row for PartitionRow {
    const HEADINGS: &'static [&'static str] =
        &["PARTITION", ">SEGMENTS", ">BATCHES", ">RECORDS", ">SIZE", ">FIRST OFFSET", ">LOG END", ">FAULTS", ">NOTES"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.partition.clone(),
            thousands(self.segments),
            thousands(self.batches),
            thousands(self.records),
            human_bytes(self.bytes),
            thousands(self.log_start),
            thousands(self.log_end),
            thousands(self.faults),
            thousands(self.notes),
        ]
    }
}

impl Report {
    /// What a data folder has lost beside what is in its logs.
    fn folder_fault(&mut self, fault: &FolderFault) -> Outcome {
        self.progress.hide();
        let partition = match fault {
            FolderFault::PartitionLost { topic, partition, .. } => Some(format!("{topic}/{partition}")),
            _ => None,
        };
        match &partition {
            _ if fault.is_note() => {}
            Some(_) => self.faults.lost += 1,
            None => self.faults.in_catalogue += 1,
        }
        self.print(&FaultRow {
            kind: "fault",
            partition: partition.as_deref(),
            fault: fault.name(),
            is_note: fault.is_note(),
            file: fault.path(),
            position: None,
            offset: None,
            what: fault.to_string(),
            meaning: &fault.meaning(),
        })
    }

    fn print(&mut self, fault: &FaultRow<'_>) -> Outcome {
        let place = [
            fault.position.map(|position| format!(", byte {}", thousands(position))),
            fault.offset.map(|offset| format!(", offset {}", thousands(offset))),
        ];
        let place: String = place.into_iter().flatten().collect();
        let level = if fault.is_note { "note" } else { "FAULT" };
        self.rows.line(&format!("{level:<5}  {}{place}", fault.file.display()))?;
        self.rows.line(&format!("       {}", fault.what))?;
        self.rows.line(&format!("       {}", fault.meaning))?;
        self.rows.line("")?;
        self.rows.object(fault)?;
        // A person at a terminal waits for it.
        self.rows.flush()
    }
}

impl Watch for Report {
    fn fault(&mut self, fault: &Fault) {
        if self.printed.is_ok() {
            self.progress.hide();
            self.faults.lasting += u64::from(!fault.kind.is_note() && !fault.kind.is_mended_by_start());
            let partition = self.partition.clone();
            self.printed = self.print(&FaultRow {
                kind: "fault",
                partition: Some(&partition),
                fault: fault.kind.name(),
                is_note: fault.kind.is_note(),
                file: &fault.path,
                position: fault.position,
                offset: fault.offset,
                what: fault.kind.to_string(),
                meaning: fault.kind.meaning(),
            });
        }
    }

    fn progress(&mut self, bytes: u64) {
        self.progress.add(bytes);
    }
}

const EXAMPLES: &str = "\
Reads every batch: its checksum, its length, its offsets and its records; holds the indexes against the batches, as Kafka's sanity \
check does and further; looks at the recovery point and for files that don't belong there. Of a data folder it reads the catalogue, and \
looks for the folder of each partition that this names. It changes nothing, takes little memory, and may run beside the broker. Ends with \
1 if there are faults; notes are no faults.

With `-o jsonl` a fault is a line {\"kind\":\"fault\",…} and a partition {\"kind\":\"partition\",…}; with `-o json` all of them are \
one array.

Examples:
  millpond log verify /var/lib/millpond
  millpond log verify ./data/topics/readings/0
  millpond log verify ./data -o jsonl | grep '\"is_note\":false'";
