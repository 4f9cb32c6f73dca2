//! `millpond log repair`: says what would be lost, asks, and mends.

use super::target::{Partition, Target};
use crate::{
    failure::{Failure, Outcome},
    output::{self, counted, human_bytes, thousands},
    progress::ByteProgress,
};
use clap::Args;
use millpond_engine::{DirLock, EngineError};
use millpond_log::{
    Disk, RealDisk,
    inspect::{self, Fault, Loss, RepairError, RepairMode, RepairPlan, VerifyOptions, Watch},
};
use std::{
    fmt::Write as _,
    io::{self, BufRead, IsTerminal},
    path::PathBuf,
    sync::Arc,
};

/// Arguments of `millpond log repair`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
pub(crate) struct RepairArgs {
    /// A data folder, or a topic's or a partition's folder in it
    path: PathBuf,
    #[command(flatten)]
    mode: ModeArgs,
    /// Do it without asking; where nobody can be asked, nothing is done without it
    #[arg(long, short = 'y')]
    yes: bool,
    /// The path is a copy that no broker uses: take no lock
    #[arg(long)]
    copy: bool,
}

#[derive(Args, Clone, Copy, Debug)]
#[group(multiple = false)]
struct ModeArgs {
    /// Cut out what is damaged: loses the records of the damaged batches and no others; an empty batch takes their offsets
    #[arg(long)]
    drop_batch: bool,
    /// End the log in front of the first damage: loses all records from there on, those that can still be read as well
    #[arg(long)]
    truncate: bool,
}

impl ModeArgs {
    /// There is no default: either loses something, and which is for the owner of the records to say.
    fn mode(self) -> Outcome<RepairMode> {
        match (self.drop_batch, self.truncate) {
            (true, _) => Ok(RepairMode::DropBatch),
            (_, true) => Ok(RepairMode::Truncate),
            _ => Err(Failure::usage("a repair has to be told what it may lose").hint(
                "`--drop-batch` loses the records of the damaged batches and no others; `--truncate` loses all records from the first damage \
                 on, those that can still be read as well. Either says first which offsets that are, asks, and keeps what it removes",
            )),
        }
    }
}

/// Runs `millpond log repair`.
pub(super) fn run(arguments: &RepairArgs) -> Outcome {
    let mode = arguments.mode.mode()?;
    let target = Target::of(&arguments.path)?;
    if let Some((file, _)) = &target.file {
        let folder = file.parent().unwrap_or(file).display();
        return Err(Failure::usage(format!("{} is a single file", file.display())).hint(format!("name its folder, {folder}")));
    }
    let _lock = take_lock(&target, arguments)?;
    let plans = plans(&target, mode)?;
    if plans.is_empty() {
        return output::print("nothing to repair\n");
    }
    let words: String = plans.iter().map(|(partition, plan)| describe(partition, plan)).collect();
    output::print(&words)?;
    let unopened = plans.iter().map(|(_, plan)| plan.unopened().len() as u64).sum();
    let plans: Vec<_> = plans.into_iter().filter(|(_, plan)| !plan.is_empty()).collect();
    if !plans.is_empty() {
        confirm(arguments, &plans)?;
    }
    for (partition, plan) in &plans {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        plan.apply(&disk).map_err(|error| {
            let failure = Failure::new(format!("{} could not be repaired", partition.name())).because(&error);
            failure.hint("what was not repaired is as it was: mend the cause, then repair again")
        })?;
        output::print(&left_over(partition)?)?;
    }
    if unopened == 0 {
        return Ok(());
    }
    let failure = Failure::new(format!("{} can't be opened, and nothing was changed there", counted(unopened, "segment file")));
    Err(failure.hint("check the disk; copy the data folder from it while the rest can be read, and leave these files out"))
}

/// Keeps a broker from using the data folder meanwhile.
fn take_lock(target: &Target, arguments: &RepairArgs) -> Outcome<Option<DirLock>> {
    if arguments.copy {
        if target.is_in_use() {
            return Err(Failure::new("a broker is using this data folder, so it is not a copy").hint("stop the broker first"));
        }
        return Ok(None);
    }
    let Some(data_dir) = target.data_dir() else {
        let failure = Failure::usage(format!("{} does not lie in a broker's data folder", arguments.path.display()));
        return Err(failure.hint("name it as DATA/topics/TOPIC/PARTITION; if it is a copy that no broker uses, give --copy"));
    };
    DirLock::take(data_dir).map(Some).map_err(|error| {
        let failure = Failure::new("the data folder can't be locked").because(&error);
        match error {
            EngineError::Locked { .. } => failure.hint("stop the broker first: a log is repaired while nobody writes to it"),
            _ => error.hint().into_iter().fold(failure, Failure::hint),
        }
    })
}

/// What is to be done, for the partitions where something is.
fn plans(target: &Target, mode: RepairMode) -> Outcome<Vec<(&Partition, RepairPlan)>> {
    let mut progress = Quiet(ByteProgress::start(target.partitions.iter().map(Partition::log_bytes).sum()));
    let mut plans = Vec::new();
    for partition in &target.partitions {
        let plan = RepairPlan::new(&RealDisk, &partition.dir, mode, &mut progress).map_err(|error| {
            let failure = Failure::new(format!("{} can't be repaired this way", partition.name())).because(&error);
            failure.hint(hint(&error, mode))
        })?;
        if !plan.is_empty() || !plan.unopened().is_empty() {
            plans.push((partition, plan));
        }
    }
    progress.0.finish();
    Ok(plans)
}

/// What to do where this repair is not possible.
fn hint(error: &RepairError, mode: RepairMode) -> &'static str {
    match (error, mode) {
        (RepairError::Log(_), _) => "nothing was changed: check the disk, and that you may read and write the files, then repair again",
        (RepairError::TooWide { .. } | RepairError::TooManyDamages { .. }, RepairMode::DropBatch) => {
            "`--truncate` ends the log in front of the damage; `millpond log verify` shows all of it"
        }
        _ => "nothing was changed; `millpond log verify` shows all of the damage",
    }
}

/// Says what would be lost.
fn describe(partition: &Partition, plan: &RepairPlan) -> String {
    let mut words = format!("{}\n", partition.name());
    for unopened in plan.unopened() {
        let _ = writeln!(words, "  {}: can't be opened, and is left as it is: {}", unopened.path.display(), unopened.source);
    }
    for loss in plan.losses() {
        let _ = writeln!(words, "  {}, byte {}: {}", loss.path.display(), thousands(loss.position), lost(loss));
    }
    for mend in plan.mends() {
        let _ = writeln!(words, "  {}: {mend}", mend.path.display());
    }
    if plan.reindexed() > 0 {
        let segments = counted(plan.reindexed() as u64, "segment");
        let _ = writeln!(words, "  the indexes of {segments} are built again; nothing is lost");
    }
    if plan.losses().iter().any(|loss| loss.bytes > 0) {
        let _ = writeln!(words, "  what is removed is kept in the folder, in files that end with {}", plan.kept_suffix());
    }
    words
}

fn lost(loss: &Loss) -> String {
    if loss.mended {
        return "one byte of a header is given back; nothing is lost".to_owned();
    }
    let count = u64::try_from(loss.offsets.end - loss.offsets.start).unwrap_or(0);
    let sized = |bytes| if bytes < 1024 { counted(bytes, "byte") } else { human_bytes(bytes) };
    let (bytes, first, last) = (sized(loss.bytes), thousands(loss.offsets.start), thousands(loss.offsets.end - 1));
    let mut words = match count {
        0 if loss.unreadable_bytes > 0 => format!("{bytes} are removed, which may hold records from offset {first} on"),
        0 => format!("no offset is lost; {bytes} without one are removed"),
        // Whole records behind it, where the log is truncated, are still there.
        _ if loss.bytes == 0 => format!("offsets {first} to {last} are missing already, {} at most", counted(count, "record")),
        1 => format!("offset {first} is lost, {bytes}, one record at most"),
        _ => format!("offsets {first} to {last} are lost, {bytes}, {} at most", counted(count, "record")),
    };
    if loss.whole_records > 0 {
        let _ = write!(words, "; {} of them can still be read", thousands(loss.whole_records));
    }
    if loss.unreadable_bytes > 0 {
        let _ = write!(words, "; {} can't be read, and are zeros in what is kept", sized(loss.unreadable_bytes));
    }
    words
}

/// Whether it may be done.
fn confirm(arguments: &RepairArgs, plans: &[(&Partition, RepairPlan)]) -> Outcome {
    if arguments.yes {
        return Ok(());
    }
    let refused = || Failure::new("nothing was changed");
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(refused().hint("read what would be lost, then give --yes"));
    }
    output::ask(format!("Repair {}? [y/N] ", counted(plans.len() as u64, "partition")));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::new("can't read the answer").because(&error))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(refused().hint("answer `y`, or give --yes")),
    }
}

/// Looks at a repaired partition once more.
fn left_over(partition: &Partition) -> Outcome<String> {
    let mut progress = Quiet(ByteProgress::start(partition.log_bytes()));
    let verified = inspect::verify(&RealDisk, &partition.dir, VerifyOptions::default(), &mut progress);
    progress.0.finish();
    let verified = verified.map_err(|error| Failure::new(format!("can't look at {}", partition.name())).because(&error))?;
    let name = partition.name();
    let range = format!("offsets {} to {}", thousands(verified.log_start), thousands(verified.log_end));
    if verified.faults == 0 {
        return Ok(format!("repaired {name}: {range}, no faults\n"));
    }
    let faults = counted(verified.faults, "fault");
    Ok(format!("repaired {name}: {range}, {faults} left that a repair does not concern; `millpond log verify` names them\n"))
}

/// Shows how far it is, and nothing else.
struct Quiet(ByteProgress);

impl Watch for Quiet {
    fn fault(&mut self, _: &Fault) {}

    fn progress(&mut self, bytes: u64) {
        self.0.add(bytes);
    }
}

/// As if one of the two were required; where neither is given, the words about it are ours.
const USAGE: &str = "millpond log repair [OPTIONS] <--drop-batch|--truncate> <PATH>";

const EXAMPLES: &str = "\
A torn end after a crash needs no repair: the start of the broker cuts it off. This is for damage further in front, which a broker \
never touches: reads that meet it fail. It first says what would be lost, then asks, and keeps what it removes beside the segments. A \
crash in the middle leaves each segment as it was or as it is to be.

Offsets never change. With `--drop-batch` those of a damaged batch stay empty, and everything behind it can be read; with `--truncate` \
producers go on with the first offset that was damaged, and consumers that have read further start over.

Examples:
  millpond log repair /var/lib/millpond --drop-batch
  millpond log repair ./data/topics/readings/0 --truncate --yes";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_said_in_offsets_records_and_bytes() {
        let of = |bytes, offsets, whole_records, mended, unreadable_bytes| {
            lost(&Loss { path: PathBuf::new(), position: 0, bytes, offsets, whole_records, mended, unreadable_bytes })
        };
        let loss = |bytes, offsets, whole_records, mended| of(bytes, offsets, whole_records, mended, 0);
        assert_eq!(loss(770, 6..7, 0, false), "offset 6 is lost, 770 bytes, one record at most");
        assert_eq!(
            loss(5_000, 6..5_006, 4_990, false),
            "offsets 6 to 5,005 are lost, 4.9 KiB, 5,000 records at most; 4,990 of them can still be read"
        );
        assert_eq!(loss(9, 6..6, 0, false), "no offset is lost; 9 bytes without one are removed");
        assert_eq!(loss(17, 6..6, 0, true), "one byte of a header is given back; nothing is lost");
        assert_eq!(loss(0, 640..1_280, 0, false), "offsets 640 to 1,279 are missing already, 640 records at most");
        assert_eq!(
            of(5_000, 6..106, 0, false, 4_096),
            "offsets 6 to 105 are lost, 4.9 KiB, 100 records at most; 4.0 KiB can't be read, and are zeros in what is kept"
        );
        assert_eq!(
            of(9_000, 6..6, 0, false, 9_000),
            "8.8 KiB are removed, which may hold records from offset 6 on; 8.8 KiB can't be read, and are zeros in what is kept"
        );
    }
}
