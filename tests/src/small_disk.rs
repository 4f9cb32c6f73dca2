//! A small file system of its own, which fills up to the last byte.
//!
//! It is a tmpfs in a mount namespace: `unshare` makes both, a process holds them, and `/proc/PID/root` leads there. Where the machine does
//! not permit that, the broker gets a small quota instead: then it is the quota that is full, and what only a full disk can show is left to
//! the simulated disk of the engine's tests. Which of the two a run has had is said on stderr, past what captures the output of tests; with
//! `REQUIRE_TMPFS=1` in the environment the second is a failure; `make unit` sets it where the machine permits the first.

use crate::{Broker, Site, text};
use std::{
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The bytes of the file system.
pub const SMALL_DISK_BYTES: u64 = 12 << 20;

/// A place with little room.
#[derive(Debug)]
pub struct SmallDisk {
    /// Holds the namespace. None where a quota takes its place.
    holder: Option<Child>,
    root: PathBuf,
}

impl SmallDisk {
    /// Mounts it, under the folder of the site, and says on stderr whether that could be done.
    pub fn new(site: &Site) -> SmallDisk {
        let mount_point = site.folder().join("small");
        fs::create_dir(&mount_point).expect("a folder");
        let mut reasons = Vec::new();
        // In a user namespace of its own, which needs no rights where it is permitted at all; else with those of the superuser.
        for flags in ["-Urm", "-m"] {
            match mount(flags, &mount_point) {
                Ok(holder) => {
                    say(&format!("the small disk of this test is a file system of its own (unshare {flags}, tmpfs of {MOUNT_SIZE})"));
                    // What is mounted is seen by the holder, not by this process.
                    let inside = mount_point.strip_prefix("/").expect("an absolute path");
                    let root = Path::new("/proc").join(holder.id().to_string()).join("root").join(inside);
                    return SmallDisk { holder: Some(holder), root };
                }
                Err(why) => reasons.push(format!("\n  unshare {flags}: {}", why.trim())),
            }
        }
        let reasons = reasons.concat();
        let demanded = env::var_os(REQUIRE).is_some_and(|value| !value.is_empty() && value != "0");
        assert!(!demanded, "{REQUIRE} is set, and no small file system can be mounted:{reasons}");
        say(&format!(
            "NO SMALL FILE SYSTEM can be mounted: this test runs on a quota of {QUOTA}, and shows nothing of a full disk{reasons}"
        ));
        SmallDisk { holder: None, root: mount_point }
    }

    /// Whether it is a file system, and not a quota.
    pub fn is_real(&self) -> bool {
        self.holder.is_some()
    }

    /// Starts a broker that has its data there, and waits until it says that it is ready.
    pub fn start(&self, site: &Site) -> Broker {
        let data_dir = self.data_dir();
        let data_dir = data_dir.to_str().expect("text");
        let mut flags = vec!["--data-dir", data_dir, "--storage-reserve", "2MiB", "--set", "storage.retention_check_interval=20ms"];
        flags.extend(["--set", "max_batch_bytes=1MiB", "--set", "topic.max_batch_bytes=1MiB"]);
        if !self.is_real() {
            flags.extend(["--storage-quota", QUOTA]);
        }
        site.start_with(&flags)
    }

    /// The broker's data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Another user of the file system takes every byte that is left. Nothing happens where there is a quota instead.
    pub fn take_the_rest(&self) {
        if !self.is_real() {
            return;
        }
        let mut file = File::options().create(true).append(true).open(self.root.join(OTHER)).expect("a name is left");
        for size in [64 << 10, 4 << 10, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
    }

    /// The other user gives back what it has taken.
    pub fn give_back(&self) {
        match fs::remove_file(self.root.join(OTHER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("the other user's file can't be removed: {error}"),
            _ => {}
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// Mounts a tmpfs in a namespace that lives as long as the process.
fn mount(flags: &str, mount_point: &Path) -> Result<Child, String> {
    let script = format!("mount -t tmpfs -o size={MOUNT_SIZE},mode=0700 tmpfs \"$0\" && echo mounted && exec cat");
    let mut holder = Command::new("unshare")
        .args([flags, "sh", "-c", &script])
        .arg(mount_point)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut line = String::new();
    BufReader::new(holder.stdout.take().expect("it is piped")).read_line(&mut line).map_err(|error| error.to_string())?;
    if line.trim() == "mounted" {
        return Ok(holder);
    }
    let output = holder.wait_with_output().map_err(|error| error.to_string())?;
    Err(text(&output.stderr))
}

/// Not by a macro that prints: of a test that passes, nobody would see it.
fn say(words: &str) {
    // Nobody can be told that stderr is closed.
    let _ = writeln!(io::stderr().lock(), "small disk: {words}");
}

/// [`SMALL_DISK_BYTES`] as `mount` takes it.
const MOUNT_SIZE: &str = "12m";

/// What the broker gets in its place.
const QUOTA: &str = "10MiB";

/// Where another user of the file system keeps its bytes.
const OTHER: &str = "other";

/// Makes a failure of a run without a file system of its own. Brokers refuse what begins with `MILLPOND_` and is no key of theirs.
const REQUIRE: &str = "REQUIRE_TMPFS";
