//! What a power cut leaves.

use std::collections::BTreeSet;

use super::random::Random;
use super::tree::{Change, File, Folder, Inode, Tree, apply_names};

impl Tree {
    /// Keeps what is durable, and of the changes since then a part that `random` chooses.
    pub(super) fn crash(&mut self, random: &mut Random) {
        // One crash loses nearly everything, another nearly nothing: both find other faults than a coin for each change does.
        let survival_percent = [0, 15, 50, 85, 100][usize::try_from(random.below(5)).unwrap_or(0)];
        for inode in &mut self.inodes {
            match inode {
                Inode::File(file) => crash_file(file, survival_percent, random),
                Inode::Folder(folder) => crash_folder(folder, survival_percent, random),
            }
        }
    }
}

/// Each sector survives as one of its writes has left it, and a change of the length survives or not. A file may also be left with its new
/// length and zeros for the bytes that were lost.
fn crash_file(file: &mut File, survival_percent: u64, random: &mut Random) {
    let live_bytes = file.live.len();
    (file.allocated, file.has_forgotten) = (0, false);
    // What the system writes is the sector as it is then, with all writes before: one that is lost takes the later ones with it.
    let mut lost = BTreeSet::new();
    for change in std::mem::take(&mut file.changes) {
        for piece in pieces(&change) {
            let sector = if let Change::Write { at, .. } = &piece { Some(at / SECTOR_BYTES) } else { None };
            if !random.percent(survival_percent) {
                lost.extend(sector);
            } else if sector.is_none_or(|sector| !lost.contains(&sector)) {
                piece.apply(&mut file.durable);
            }
        }
    }
    if file.durable.len() < live_bytes && random.percent(LENGTH_WITHOUT_BYTES_PERCENT) {
        let grown_bytes = random.below((live_bytes - file.durable.len()) as u64 + 1);
        file.durable.resize(file.durable.len() + usize::try_from(grown_bytes).unwrap_or(0), 0);
    }
    file.live = file.durable.clone();
}

/// Each change of names survives or not, as a whole.
fn crash_folder(folder: &mut Folder, survival_percent: u64, random: &mut Random) {
    for change in std::mem::take(&mut folder.changes) {
        if random.percent(survival_percent) {
            apply_names(&change, &mut folder.durable);
        }
    }
    folder.forgotten.clear();
    folder.live = folder.durable.clone();
}

/// A change in the pieces that survive or not on their own: a write by sectors of the disk.
fn pieces(change: &Change) -> Vec<Change> {
    let Change::Write { at, bytes } = change else { return vec![change.clone()] };
    let mut pieces = Vec::new();
    let (mut at, mut rest) = (*at, bytes.as_slice());
    while !rest.is_empty() {
        let to_boundary = usize::try_from(SECTOR_BYTES - at % SECTOR_BYTES).unwrap_or(rest.len());
        let (piece, behind) = rest.split_at(to_boundary.min(rest.len()));
        pieces.push(Change::Write { at, bytes: piece.to_vec() });
        at += piece.len() as u64;
        rest = behind;
    }
    pieces
}

/// What a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;

/// How often a file that lost bytes keeps some of its length.
const LENGTH_WITHOUT_BYTES_PERCENT: u64 = 30;
