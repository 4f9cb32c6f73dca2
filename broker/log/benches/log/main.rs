//! What a log costs beside what the disk itself can do: every figure stands next to the same bytes moved by plain system calls, measured
//! in the same run and in turns, so that what else the machine does meanwhile falls on both.
//!
//! ```text
//! make bench-log                                  everything, with the sizes below
//! make bench-log ARGS=--quick                     small files and few rounds
//! make bench-log ARGS="commit read"               some parts only
//! ```
//!
//! | part | what is measured | beside it |
//! |---|---|---|
//! | `append` | batches of 1 KiB, 64 KiB and 1 MiB into the page cache, by one thread | `pwritev` of the same buffers |
//! | `commit` | group commit with 1, 16, 64 and 256 writers | `pwrite` and `fdatasync` of as many bytes for each sync |
//! | `read` | sequential reads of a cold and of a warm log, with and without comparing checksums | `pread` of the same files |
//! | `seek` | reads at random offsets and times, cold and warm | `pread` at the same positions |
//! | `open` | opening after a kill, and after a clean stop: one large log, and many small ones | `pread` of what is scanned |
//! | `flush` | many files with unsynced bytes: one after the other, or on several threads | one `syncfs` for all |
//! | `compact` | one log whose keys come again and again, until nothing is dirty | reading the same twice and writing what stays |
//!
//! What must be shown is held against its figure at the end, when all parts have run; where one is missed, the program ends with an error.
//!
//! The settings, each an environment variable:
//!
//! | variable | default (`--quick`) | meaning |
//! |---|---|---|
//! | `MILLPOND_BENCH_DIR` | the build's folder | where the files go; they are removed afterwards |
//! | `MILLPOND_BENCH_ROUNDS` | 7 (3) | how often each figure is taken |
//! | `MILLPOND_BENCH_APPEND_MIB` | 1024 (128) | written in a round of `append` |
//! | `MILLPOND_BENCH_COMMIT_BATCH_BYTES` | 16384 | a batch of `commit` |
//! | `MILLPOND_BENCH_COMMIT_WRITERS` | 1,16,64,256 (1,64) | writers of `commit` |
//! | `MILLPOND_BENCH_COMMIT_MS` | 500 (300) | how long a round of `commit` goes on; there are twice as many |
//! | `MILLPOND_BENCH_READ_MIB` | 1024 (128) | the log of `read` and `seek` |
//! | `MILLPOND_BENCH_READ_BATCH_BYTES` | 16384 | a batch in it |
//! | `MILLPOND_BENCH_READ_CHUNK_BYTES` | 1048576 | asked for by one sequential read |
//! | `MILLPOND_BENCH_SEEKS` | 2000 (300) | random reads in a round |
//! | `MILLPOND_BENCH_SCAN_MIB` | 512 (64) | the segment that a recovery scans |
//! | `MILLPOND_BENCH_OPEN_MIB` | 5120 (256) | the large log that is opened |
//! | `MILLPOND_BENCH_OPEN_LOGS` | 1000 (50) | the small logs that are opened |
//! | `MILLPOND_BENCH_COMPACT_MIB` | 512 (64) | the log that is compacted |
//! | `MILLPOND_BENCH_COMPACT_KEYS` | 100000 (10000) | keys in it |
//! | `MILLPOND_BENCH_FLUSH_FILE_BYTES` | 65536 | unsynced in each file of `flush` |
//!
//! Where other work keeps all cores busy, a sync costs a slice of the scheduler (4 ms on many kernels) and not what the disk takes. Root
//! can run the program itself ahead of that work: `chrt -f 10 target/release/deps/log-<hash> commit`.
//!
//! A plain program and not one on a measuring framework: what counts here are ratios of two ways to do the same, taken in turns and with
//! a cache that is emptied in between, and a framework measures one function after the other until each is steady.

mod append;
mod bed;
mod commit;
mod compact;
mod figures;
mod flush;
mod open;
mod raw;
mod read;
mod seek;

use std::process::ExitCode;

use bed::{Bed, Outcome};

/// A part of the measurements. A new one is a line here.
type Part = (&'static str, fn(&mut Bed) -> Outcome<()>);

const PARTS: &[Part] = &[
    ("append", append::run),
    ("commit", commit::run),
    ("read", read::run),
    ("seek", seek::run),
    ("open", open::run),
    ("flush", flush::run),
    ("compact", compact::run),
];

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Outcome<()> {
    // Cargo passes `--bench` by itself.
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).filter(|argument| *argument != "--bench").collect();
    let (options, names): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|argument| argument.starts_with('-'));
    if let Some(unknown) = options.iter().find(|option| **option != "--quick") {
        return Err(format!("there is no option {unknown}; the only one is --quick").into());
    }
    if let Some(unknown) = names.iter().find(|name| PARTS.iter().all(|(part, _)| part != *name)) {
        let parts: Vec<_> = PARTS.iter().map(|(part, _)| *part).collect();
        return Err(format!("there is no part {unknown}; the parts are {}", parts.join(", ")).into());
    }
    let mut bed = Bed::prepare(!options.is_empty(), &arguments.join(" "))?;
    for (_, part) in PARTS.iter().filter(|(part, _)| names.is_empty() || names.contains(part)) {
        part(&mut bed)?;
    }
    bed.finish()
}
