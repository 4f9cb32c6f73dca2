//! What every part needs: the settings, a folder on a disk that is named, batches, and a place for the figures.

use std::error::Error;
use std::fs;
use std::io::{Stdout, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_log::{Log, LogConfig, RealDisk, RecoveryReport};
use millpond_protocol::batch::{Batch, BatchBuilder};
use millpond_protocol::compression::Codec;
use millpond_protocol::record::NewRecord;

use crate::figures::Series;
use crate::raw::noise;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// The folder that the files of a run are in, and what was found so far.
pub(crate) struct Bed {
    folder: tempfile::TempDir,
    quick: bool,
    out: Stdout,
    command: String,
    /// What must be shown, and whether it was.
    verdicts: Vec<(bool, String)>,
}

impl Bed {
    /// Makes the folder and says where it is.
    pub(crate) fn prepare(quick: bool, arguments: &str) -> Outcome<Bed> {
        let parent = match std::env::var_os(DIR) {
            Some(dir) => PathBuf::from(dir),
            None => build_folder()?,
        };
        let folder = tempfile::Builder::new().prefix("millpond-bench-").tempdir_in(&parent)?;
        let bed = Bed { folder, quick, out: std::io::stdout(), command: command(arguments), verdicts: Vec::new() };
        let path = bed.folder.path().to_path_buf();
        bed.say(&format!("the files are in {}, on {}", path.display(), file_system(&path)))?;
        bed.say("MB and GB are decimal; each figure is a median, with the smallest and the largest in brackets")?;
        Ok(bed)
    }

    /// Says what was shown and how to repeat it, and removes the files. Fails where something was not shown.
    pub(crate) fn finish(self) -> Outcome<()> {
        if !self.verdicts.is_empty() {
            self.say("\nWhat must be shown")?;
        }
        for (is_shown, verdict) in &self.verdicts {
            self.say(&format!("  {}  {verdict}", if *is_shown { "yes" } else { "NO " }))?;
        }
        self.say(&format!("\nTo repeat: {}", self.command))?;
        self.folder.close()?;
        let missed = self.verdicts.iter().filter(|(is_shown, _)| !is_shown).count();
        if missed > 0 { Err(format!("{missed} of {} were not shown", self.verdicts.len()).into()) } else { Ok(()) }
    }

    pub(crate) fn say(&self, line: &str) -> Outcome<()> {
        let mut out = self.out.lock();
        writeln!(out, "{}", line.trim_end())?;
        Ok(out.flush()?)
    }

    /// Notes whether the median reaches what it must.
    pub(crate) fn must_reach(&mut self, what: &str, figure: &Series, at_least: f64) {
        self.verdicts.push((figure.median() >= at_least, format!("{what}: at least {at_least:.2}, measured {figure:.2}")));
    }

    /// Notes whether the median stays below what it must.
    pub(crate) fn must_stay_below(&mut self, what: &str, figure: &Series, limit: f64) {
        self.verdicts.push((figure.median() < limit, format!("{what}: below {limit:.2}, measured {figure:.2}")));
    }

    /// The folder of this run.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path of that name. There is nothing yet, or something that this run has put there.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn remove(&self, name: &str) -> Outcome<()> {
        Ok(fs::remove_dir_all(self.path(name))?)
    }

    pub(crate) fn rounds(&self) -> Outcome<usize> {
        self.count("MILLPOND_BENCH_ROUNDS", 7, 3)
    }

    /// A setting that is a count.
    pub(crate) fn count(&self, variable: &str, default: usize, quick: usize) -> Outcome<usize> {
        Ok(self.counts(variable, &[default], &[quick])?[0])
    }

    /// A setting that is a list of counts, none of them 0.
    pub(crate) fn counts(&self, variable: &str, default: &[usize], quick: &[usize]) -> Outcome<Vec<usize>> {
        let Ok(text) = std::env::var(variable) else { return Ok(if self.quick { quick } else { default }.to_vec()) };
        let counts: Result<Vec<usize>, _> = text.split(',').map(|count| count.trim().parse()).collect();
        match counts {
            Ok(counts) if !counts.contains(&0) => Ok(counts),
            _ => Err(format!("{variable} is {text:?}: give a number above 0, or several separated by commas").into()),
        }
    }

    /// A log in the folder of that name.
    pub(crate) fn open(&self, name: &str, config: LogConfig) -> Outcome<(Log, RecoveryReport)> {
        Ok(Log::open(Arc::new(RealDisk), &self.path(name), config)?)
    }

    /// Writes a log of that many bytes, all of them durable. The timestamps rise by a millisecond with each record, from
    /// [`Batches::FIRST_TIMESTAMP_MS`] on.
    pub(crate) fn write_log(&self, name: &str, config: LogConfig, bytes: u64, batch_bytes: usize) -> Outcome<Log> {
        let (mut log, _) = self.open(name, config)?;
        let mut batches = Batches::new(batch_bytes);
        while log.size_bytes() < bytes {
            let run = (0..(1_usize << 20).div_ceil(batch_bytes)).map(|_| batches.next()).collect::<Outcome<Vec<_>>>()?;
            log.append(&run, 0)?;
        }
        if let Some(flush) = log.begin_flush() {
            let outcome = flush.run();
            log.end_flush(outcome)?;
        }
        Ok(log)
    }
}

/// Batches of records of a hundred bytes that can't be compressed.
pub(crate) struct Batches {
    noise: Vec<u8>,
    builder: BatchBuilder,
    batch_bytes: usize,
    records: i64,
}

impl Batches {
    pub(crate) const FIRST_TIMESTAMP_MS: i64 = 1_700_000_000_000;

    pub(crate) fn new(batch_bytes: usize) -> Batches {
        Batches { noise: noise(NOISE_BYTES), builder: BatchBuilder::new(), batch_bytes, records: 0 }
    }

    /// The next batch: as many records as fit, and one at least.
    pub(crate) fn next(&mut self) -> Outcome<Batch> {
        loop {
            // A step that shares no factor with the length: no two blocks of a file are the same.
            let at = usize::try_from(self.records.unsigned_abs() * 7_919 % (NOISE_BYTES - VALUE_BYTES) as u64)?;
            let timestamp = Batches::FIRST_TIMESTAMP_MS + self.records;
            let record = NewRecord { timestamp, key: None, value: Some(&self.noise[at..at + VALUE_BYTES]), headers: &[] };
            if !self.builder.is_empty() && self.builder.size_with(&record) > self.batch_bytes {
                return Ok(Batch::parse(self.builder.finish(Codec::None)?)?);
            }
            self.builder.push(&record)?;
            self.records += 1;
        }
    }

    /// Batches of so many bytes together.
    pub(crate) fn of_bytes(batch_bytes: usize, total_bytes: usize) -> Outcome<Vec<Batch>> {
        let mut batches = Batches::new(batch_bytes);
        (0..total_bytes.div_ceil(batch_bytes)).map(|_| batches.next()).collect()
    }
}

/// The folder that the build goes to: on the disk that one works on, and not in memory as a folder for temporary files may be.
fn build_folder() -> Outcome<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.ancestors().nth(3).ok_or("the program is in no build folder; set MILLPOND_BENCH_DIR")?.to_path_buf())
}

/// The command that starts this run again.
fn command(arguments: &str) -> String {
    let mut settings: Vec<_> = std::env::vars().filter(|(name, _)| name.starts_with("MILLPOND_BENCH_")).collect();
    settings.sort();
    let settings: Vec<_> = settings.into_iter().map(|(name, value)| format!("{name}={value} ")).collect();
    let settings = settings.concat();
    format!("{settings}cargo bench -p millpond-log --profile release --bench log -- {arguments}").trim_end().to_owned()
}

/// Type and device of the file system that a folder is on, as far as the system tells.
fn file_system(folder: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    // ID PARENT MAJOR:MINOR ROOT MOUNT-POINT OPTIONS ... - TYPE SOURCE OPTIONS: the longest mount point wins, of two the later.
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let ours = fields.filter(|fields| fields.get(4).is_some_and(|mounted| folder.starts_with(mounted)));
    let Some(mount) = ours.max_by_key(|fields| fields[4].len()) else { return "a file system that is not told".to_owned() };
    let kind = mount.iter().position(|field| *field == "-").map_or(&[][..], |dash| &mount[dash + 1..]);
    let [kind, source, options, ..] = kind else { return "a file system that is not told".to_owned() };
    let mut words = vec![format!("{kind} ({options}), device {source}")];
    let device = PathBuf::from("/sys/dev/block").join(mount[2]);
    for (name, file) in [("rotational", "rotational"), ("write cache", "write_cache"), ("read-ahead KiB", "read_ahead_kb")] {
        // A partition has no queue of its own; its disk has.
        let value = ["queue", "../queue"].iter().find_map(|queue| fs::read_to_string(device.join(queue).join(file)).ok());
        if let Some(value) = value {
            words.push(format!("{name} {}", value.trim()));
        }
    }
    if ["tmpfs", "ramfs"].contains(kind) {
        words.push("which is memory: no figure here says anything of a disk".to_owned());
    }
    words.join(", ")
}

const DIR: &str = "MILLPOND_BENCH_DIR";

const VALUE_BYTES: usize = 100;

const NOISE_BYTES: usize = 1 << 20;
