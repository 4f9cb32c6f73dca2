//! Writes logs of every kind into a new folder, and beside each what Kafka's own dump tool is to say about it.
//!
//! `tests/kafka/check.py` runs this, runs the tool, and compares. The layout:
//!
//! ```text
//! small/                   the files of a log
//! small.stdout             what the tool is to print
//! small.gaps               the gaps that it is to name, one a line: "<file>: <offset> is followed by <offset>"
//! files                    every file that follows from Millpond alone, with its size and its checksum
//! ```

#[path = "../tests/log/kafka_samples.rs"]
mod samples;
#[path = "../tests/log/kafka_words.rs"]
mod words;

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use millpond_log::{Disk, RealDisk};

fn main() -> io::Result<()> {
    let root = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("name the folder to write to"))?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut files = String::new();
    for (name, write) in samples::SAMPLES {
        let dir = Path::new(&root).join(name);
        fs::create_dir_all(&dir)?;
        write(&disk, &dir);
        let (text, gaps) = words::in_kafkas_words(&*disk, &dir);
        fs::write(dir.with_extension("stdout"), text)?;
        fs::write(dir.with_extension("gaps"), gaps)?;
        if samples::is_ours_alone(name) {
            files.push_str(&words::file_list(&*disk, &dir));
        }
    }
    fs::write(Path::new(&root).join("files"), files)
}
