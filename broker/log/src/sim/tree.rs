//! Files and folders, each as it is and as a power cut would leave it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Range;
use std::path::{Component, Path};

use super::crash::SECTOR_BYTES;

/// Names an inode, for as long as the disk exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(usize);

#[derive(Debug)]
pub(super) struct Tree {
    /// Never shrinks: what was removed may come back in a crash.
    pub(super) inodes: Vec<Inode>,
}

#[derive(Debug)]
pub(super) enum Inode {
    File(File),
    Folder(Folder),
}

#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) live: Vec<u8>,
    /// The bytes that survive for certain.
    pub(super) durable: Vec<u8>,
    /// What was done since, in order.
    pub(super) changes: Vec<Change>,
    /// How far there is room on the disk, if that is more than the live bytes need.
    pub(super) allocated: u64,
    /// How often such changes were lost behind everybody's back.
    pub(super) lost_write_backs: u64,
    /// Whether live bytes have no change that could make them durable.
    pub(super) has_forgotten: bool,
    /// What can't be read.
    pub(super) unreadable: Vec<Range<u64>>,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { at: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Debug, Default)]
pub(super) struct Folder {
    pub(super) live: BTreeMap<OsString, Id>,
    pub(super) durable: BTreeMap<OsString, Id>,
    /// What was done since, in order; each change sets or removes names in one step.
    pub(super) changes: Vec<NameChange>,
    /// What a sync should have made durable that failed, in order: the system takes it for written.
    pub(super) forgotten: Vec<NameChange>,
}

/// How much of the disk is taken.
pub(super) struct Used {
    /// Live bytes of files.
    pub(super) bytes: u64,
    /// Files and folders, the root included.
    pub(super) names: u64,
}

/// Names that get or lose their inode together.
pub(super) type NameChange = Vec<(OsString, Option<Id>)>;

/// A renaming within one folder.
pub(super) struct Rename<'a> {
    folder: &'a Path,
    from: &'a OsStr,
    to: &'a OsStr,
}

impl<'a> Rename<'a> {
    pub(super) fn of(from: &'a Path, to: &'a Path) -> io::Result<Rename<'a>> {
        let ((folder, from), (other, to)) = (split(from)?, split(to)?);
        if folder == other { Ok(Rename { folder, from, to }) } else { Err(io::ErrorKind::CrossesDevices.into()) }
    }
}

impl Default for Tree {
    fn default() -> Tree {
        Tree { inodes: vec![Inode::Folder(Folder::default())] }
    }
}

impl Tree {
    /// The live inode at a path. Relative paths begin at the root.
    pub(super) fn find(&self, path: &Path) -> io::Result<Id> {
        let mut id = Id(0);
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => name,
                Component::RootDir | Component::CurDir => continue,
                Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidFilename.into()),
            };
            let Inode::Folder(folder) = &self.inodes[id.0] else { return Err(io::ErrorKind::NotADirectory.into()) };
            id = *folder.live.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(id)
    }

    pub(super) fn file(&mut self, id: Id) -> io::Result<&mut File> {
        match &mut self.inodes[id.0] {
            Inode::File(file) => Ok(file),
            Inode::Folder(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn folder(&mut self, id: Id) -> io::Result<&mut Folder> {
        match &mut self.inodes[id.0] {
            Inode::Folder(folder) => Ok(folder),
            Inode::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Id> {
        self.create(path, Inode::File(File::default()))
    }

    pub(super) fn create_folders(&mut self, path: &Path) -> io::Result<()> {
        let above: Vec<&Path> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        for folder in above.into_iter().rev() {
            match self.find(folder) {
                Ok(id) => drop(self.folder(id)?),
                Err(_) => drop(self.create(folder, Inode::Folder(Folder::default()))?),
            }
        }
        Ok(())
    }

    fn create(&mut self, path: &Path, inode: Inode) -> io::Result<Id> {
        let (folder, name) = split(path)?;
        let folder = self.find(folder)?;
        let id = Id(self.inodes.len());
        self.folder(folder)?.change(vec![(name.to_os_string(), Some(id))]);
        self.inodes.push(inode);
        Ok(id)
    }

    pub(super) fn rename(&mut self, rename: &Rename<'_>) -> io::Result<()> {
        let id = self.find(&rename.folder.join(rename.from))?;
        let is_folder = |id: Id| matches!(self.inodes[id.0], Inode::Folder(_));
        if !is_folder(id) && self.find(&rename.folder.join(rename.to)).is_ok_and(is_folder) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let folder = self.find(rename.folder)?;
        self.folder(folder)?.change(vec![(rename.from.to_os_string(), None), (rename.to.to_os_string(), Some(id))]);
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let (folder, name) = split(path)?;
        let folder = self.find(folder)?;
        self.folder(folder)?.change(vec![(name.to_os_string(), None)]);
        Ok(())
    }

    /// Removes what is in a folder, name by name, then the folder.
    pub(super) fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        let id = self.find(path)?;
        let names: Vec<OsString> = self.folder(id)?.live.keys().cloned().collect();
        for name in names {
            let inner = path.join(name);
            let id = self.find(&inner)?;
            if self.folder(id).is_ok() { self.remove_folder(&inner)? } else { self.unlink(&inner)? }
        }
        self.unlink(path)
    }

    /// What is taken by all that has a name.
    pub(super) fn used(&self) -> Used {
        let mut used = Used { bytes: 0, names: 0 };
        let mut folders = vec![Id(0)];
        while let Some(id) = folders.pop() {
            used.names += 1;
            match &self.inodes[id.0] {
                Inode::Folder(folder) => folders.extend(folder.live.values()),
                Inode::File(file) => used.bytes += file.room_bytes(),
            }
        }
        used
    }
}

impl File {
    /// What it takes of the disk.
    pub(super) fn room_bytes(&self) -> u64 {
        self.allocated.max(self.live.len() as u64)
    }

    pub(super) fn write(&mut self, at: u64, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len() as u64;
        self.change(Change::Write { at, bytes });
        if self.has_forgotten {
            // The system writes whole sectors, and with this write what it has forgotten of them.
            self.changes.pop();
            let start = at / SECTOR_BYTES * SECTOR_BYTES;
            let end = end.next_multiple_of(SECTOR_BYTES).min(self.live.len() as u64);
            let of_live = |position: u64| usize::try_from(position).unwrap_or(self.live.len());
            self.changes.push(Change::Write { at: start, bytes: self.live[of_live(start)..of_live(end)].to_vec() });
        }
    }

    pub(super) fn change(&mut self, change: Change) {
        if matches!(change, Change::SetLen(_)) {
            self.allocated = 0;
        }
        change.apply(&mut self.live);
        self.changes.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.changes.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// What is live stays so, and never becomes durable.
    pub(super) fn forget_changes(&mut self) {
        self.has_forgotten |= !self.changes.is_empty();
        self.changes.clear();
    }
}

impl Change {
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => {
                let start = usize::try_from(*at).unwrap_or_else(|_| unreachable!("a simulated file fits into memory"));
                let end = start + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[start..end].copy_from_slice(bytes);
            }
            Change::SetLen(bytes) => {
                let bytes = usize::try_from(*bytes).unwrap_or_else(|_| unreachable!("a simulated file fits into memory"));
                content.resize(bytes, 0);
            }
        }
    }
}

impl Folder {
    pub(super) fn change(&mut self, change: NameChange) {
        apply_names(&change, &mut self.live);
        // The system writes the folder as it is then, and with this change what it has forgotten.
        self.changes.append(&mut self.forgotten);
        self.changes.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.changes.drain(..) {
            apply_names(&change, &mut self.durable);
        }
    }

    /// What is live stays so, and is not durable before the folder changes again and is synced.
    pub(super) fn forget_changes(&mut self) {
        self.forgotten.append(&mut self.changes);
    }
}

pub(super) fn apply_names(change: &NameChange, names: &mut BTreeMap<OsString, Id>) {
    for (name, id) in change {
        match id {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}

/// The folder and the name in it.
fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok((folder, name)),
        _ => Err(io::ErrorKind::InvalidFilename.into()),
    }
}
