//! Where the broker says that it can be reached.
//!
//! | place | for | holds |
//! |---|---|---|
//! | stdout, `DATA_DIR/url` | whoever sets up clients | the URL for clients on other machines, too |
//! | `STATE/broker-PORT.url`, mode 0600 | commands of the same user | the URL on this machine |
//!
//! Listening on all addresses (`0.0.0.0`, `[::]`) leaves open by which name clients see the machine. Then the first URL has the
//! machine's host name, if that resolves here, else the loopback address; the fingerprint holds under any name, so a person may put
//! another one in. The second URL has the loopback address.

use crate::{
    failure::{Failure, Outcome},
    folders,
};
use rustix::process::{Pid, test_kill_process};
use std::{
    fs::{self, DirBuilder},
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process,
};
use tempfile::NamedTempFile;

/// The broker's URLs and the files that tell them.
#[derive(Debug)]
pub(super) struct Announcement {
    url: String,
    local_url: String,
    in_data_dir: PathBuf,
    in_state: Option<PathBuf>,
}

impl Announcement {
    /// Decides on the URLs. Writes nothing yet.
    pub(super) fn new(listening: SocketAddr, fingerprint: &str, data_dir: &Path, state: Option<PathBuf>) -> Announcement {
        let port = listening.port();
        let url = |host: &str| format!("millpond://{host}:{port}?fp={fingerprint}");
        let local = host_of(loopback_for(listening.ip()));
        let host = if listening.ip().is_unspecified() { host_name(port).unwrap_or_else(|| local.clone()) } else { local.clone() };
        Announcement {
            url: url(&host),
            local_url: url(&local),
            in_data_dir: data_dir.join(URL_FILE),
            in_state: state.map(|state| folders::url_file(&state, port)),
        }
    }

    /// The URL for clients anywhere.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Writes the files, the one in the data folder by way of `on_a_full_disk`. The one in the state folder is a convenience, and its failure
    /// only a warning.
    pub(super) fn publish(&self, on_a_full_disk: impl FnOnce(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>) -> Outcome {
        on_a_full_disk(&mut || write_whole(&self.in_data_dir, &format!("{}\n", self.url)))
            .map_err(|error| Failure::new(format!("can't write {}", self.in_data_dir.display())).because(&error))?;
        if let Some(path) = &self.in_state {
            let written = path.parent().map_or(Ok(()), |state| {
                DirBuilder::new().recursive(true).mode(0o700).create(state)?;
                remove_those_left_behind(state);
                write_whole(path, &format!("{}\n{PROCESS}{}\n", self.local_url, process::id()))
            });
            if let Err(error) = written {
                tracing::warn!(path = %path.display(), %error, "clients on this machine need --url: its file could not be written");
            }
        }
        Ok(())
    }

    /// Takes the files away again, unless another broker has put its own there by now.
    pub(super) fn withdraw(&self) {
        let files = [(Some(&self.in_data_dir), &self.url), (self.in_state.as_ref(), &self.local_url)];
        for (path, url) in files {
            let Some(path) = path else { continue };
            let ours = fs::read_to_string(path).is_ok_and(|text| text.lines().next() == Some(url));
            if ours && let Err(error) = fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "the file with the broker's URL could not be removed");
            }
        }
    }
}

/// Takes away the URL of an earlier broker on the same data folder.
pub(super) fn clear(data_dir: &Path) {
    if let Err(error) = fs::remove_file(data_dir.join(URL_FILE))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the URL of an earlier broker could not be removed");
    }
}

/// Readable for this user alone, and never seen half written.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// A broker that was killed could not take its file away.
fn remove_those_left_behind(state: &Path) {
    for entry in fs::read_dir(state).into_iter().flatten().flatten() {
        let path = entry.path();
        let text = if path.extension().is_some_and(|extension| extension == "url") { fs::read_to_string(&path).ok() } else { None };
        let owner = text.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix(PROCESS)));
        let owner = owner.and_then(|number| number.parse().ok()).and_then(Pid::from_raw);
        if owner.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH)) {
            // Whoever starts at the same moment may have done it already.
            let _ = fs::remove_file(&path);
        }
    }
}

fn loopback_for(listening: IpAddr) -> IpAddr {
    match listening {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        given => given,
    }
}

fn host_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The machine's name, if it leads anywhere.
fn host_name(port: u16) -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname")).ok()?;
    let name = text.trim();
    let resolves = !name.is_empty() && (name, port).to_socket_addrs().is_ok_and(|mut found| found.next().is_some());
    resolves.then(|| name.to_owned())
}

/// In the data folder.
const URL_FILE: &str = "url";

/// What stands before the broker's process id in its file.
const PROCESS: &str = "pid ";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn announcement(listening: &str, folder: &Path) -> Announcement {
        Announcement::new(listening.parse().expect("an address"), "sha256:ab", folder, Some(folder.join("state")))
    }

    #[test]
    fn a_url_names_the_address_that_is_listened_on() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(announcement("127.0.0.1:9440", folder.path()).url(), "millpond://127.0.0.1:9440?fp=sha256:ab");
        assert_eq!(announcement("[::1]:9440", folder.path()).url(), "millpond://[::1]:9440?fp=sha256:ab");
    }

    #[test]
    fn listening_everywhere_is_announced_with_a_name_that_leads_somewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        for (listening, local) in [("0.0.0.0:9440", "millpond://127.0.0.1:9440"), ("[::]:9440", "millpond://[::1]:9440")] {
            let announcement = announcement(listening, folder.path());
            assert!(announcement.local_url.starts_with(local));
            assert!(!announcement.url.contains("//0.0.0.0") && !announcement.url.contains("//[::]"), "{}", announcement.url);
        }
    }

    #[test]
    fn files_appear_whole_and_go_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let announcement = announcement("127.0.0.1:9440", folder.path());
        announcement.publish(|write| write()).expect("written");
        assert_eq!(fs::read_to_string(folder.path().join("url")).expect("there"), format!("{}\n", announcement.url()));
        let state = folder.path().join("state").join("broker-9440.url");
        assert_eq!(fs::metadata(&state).expect("there").permissions().mode() & 0o777, 0o600);
        announcement.withdraw();
        assert!(!state.exists() && !folder.path().join("url").exists());
    }

    #[test]
    fn the_file_of_another_broker_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let announcement = announcement("127.0.0.1:9440", folder.path());
        announcement.publish(|write| write()).expect("written");
        let state = folder.path().join("state").join("broker-9440.url");
        fs::write(&state, "millpond://127.0.0.1:9440?fp=sha256:cd\n").expect("written");
        announcement.withdraw();
        assert!(state.exists());
    }

    #[test]
    fn what_a_killed_broker_left_behind_is_cleared_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut ended = process::Command::new("true").spawn().expect("a process");
        let pid = ended.id();
        ended.wait().expect("it ends");
        let state = folder.path().join("state");
        fs::create_dir(&state).expect("a folder");
        let (dead, alive) = (state.join("broker-1.url"), state.join("broker-2.url"));
        fs::write(&dead, format!("millpond://127.0.0.1:1\npid {pid}\n")).expect("written");
        fs::write(&alive, format!("millpond://127.0.0.1:2\npid {}\n", process::id())).expect("written");
        announcement("127.0.0.1:9440", folder.path()).publish(|write| write()).expect("written");
        assert!(!dead.exists() && alive.exists());
    }
}
