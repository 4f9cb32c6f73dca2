//! The store against a model, on a disk that loses power at every change.

use super::*;
use millpond_log::sim::{Fault, Operation, Random, SimDisk};
use millpond_plugin::StateDraft;
use millpond_protocol::{batch::BatchBuilder, compression::Codec, record::NewRecord};

const DIR: &str = "/derived/1";

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).expect("it can be made");
    for folder in ["/", "/derived"] {
        disk.sync_dir(Path::new(folder)).expect("it is there");
    }
    Store::create(&disk, Path::new(DIR), 0, 5).expect("it can be made");
    disk
}

fn open(disk: &SimDisk) -> Result<Store, EngineError> {
    Store::open(Arc::new(disk.clone()), Path::new(DIR), 0)
}

/// A batch of some records for a partition of the first target.
fn output(store: &Store, partition: u32, records: u32, bytes: usize) -> Output {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder.push(&NewRecord { value: Some(&vec![7; bytes]), ..NewRecord::default() }).expect("it fits");
    }
    builder.set_producer(1, 0, store.next_sequence(0, partition));
    Output { target: 0, partition, batch: builder.finish(Codec::None).expect("it has records") }
}

/// What a store should hold: position, state, sequences; and how many outputs are pending.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    position: i64,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    sequences: BTreeMap<(u32, u32), i32>,
    pending: usize,
}

fn model(store: &Store) -> Model {
    Model {
        position: store.position,
        state: store.state.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect(),
        sequences: store.sequences.clone(),
        pending: store.pending.len(),
    }
}

fn round(store: &Store, random: &mut Random, bytes: usize) -> Commit {
    let outputs = (0..random.below(3)).map(|partition| {
        let records = u32::try_from(1 + random.below(3)).expect("small");
        output(store, u32::try_from(partition).expect("small"), records, bytes)
    });
    let outputs: Vec<_> = outputs.collect();
    let mut changes = Vec::new();
    for _ in 0..random.below(4) {
        let key = vec![u8::try_from(random.below(5)).expect("small")];
        changes.push((key, (random.below(3) > 0).then(|| random.next_u64().to_be_bytes().to_vec())));
    }
    Commit { position: store.position + 1 + i64::try_from(random.below(9)).expect("small"), changes, outputs }
}

#[test]
fn what_was_committed_is_there_after_any_crash_and_nothing_else_is() {
    for seed in 0..400 {
        let (disk, mut random) = (disk(), Random::new(seed));
        let mut store = open(&disk).expect("it opens");
        for _ in 0..6 {
            disk.cut_power_after(random.below(25));
            // What has an answer is sure; what was begun may be there or not, whole.
            let mut sure = model(&store);
            let maybe = loop {
                let next = round(&store, &mut random, 100);
                let after = store_after(&sure, &next);
                if store.commit(next).is_err() {
                    break after;
                }
                assert_eq!(model(&store), after, "seed {seed}");
                store.applied();
                sure = model(&store);
            };
            disk.crash(random.next_u64());
            store = open(&disk).expect("it opens after any crash");
            let found = model(&store);
            // The note that all was applied may be lost.
            let is = |model: &Model| Model { pending: 0, ..found.clone() } == Model { pending: 0, ..model.clone() };
            assert!(is(&sure) || is(&maybe), "seed {seed}: {found:?} is neither {sure:?} nor {maybe:?}");
            store.applied();
        }
    }
}

fn store_after(before: &Model, commit: &Commit) -> Model {
    let mut after = Model { position: commit.position, pending: commit.outputs.len(), ..before.clone() };
    for (key, value) in &commit.changes {
        match value {
            Some(value) => drop(after.state.insert(key.clone(), value.clone())),
            None => drop(after.state.remove(key)),
        }
    }
    for Output { target, partition, batch } in &commit.outputs {
        let header = BatchHeader::parse(batch).expect("a batch");
        after.sequences.insert((*target, *partition), sequence_after(header.last_sequence(), 1));
    }
    after
}

#[test]
fn a_journal_that_has_grown_begins_anew_behind_a_snapshot_and_crashes_there_cost_nothing() {
    for seed in 0..60 {
        let (disk, mut random) = (disk(), Random::new(seed));
        let mut store = open(&disk).expect("it opens");
        for _ in 0..random.below(6) {
            let outputs = vec![output(&store, 0, 1, 1 << 20)];
            store.commit(Commit { position: store.position + 1, changes: Vec::new(), outputs }).expect("it works");
            store.applied();
        }
        let sure = model(&store);
        disk.cut_power_after(random.below(12));
        let next = Commit { position: store.position + 1, changes: vec![(b"k".to_vec(), Some(b"v".to_vec()))], outputs: Vec::new() };
        let (maybe, is_sure) = (store_after(&sure, &next), store.commit(next).is_ok());
        disk.crash(seed);
        let found = Model { pending: 0, ..model(&open(&disk).expect("it opens")) };
        assert!(found == maybe || (!is_sure && found == sure), "seed {seed}: {found:?}");
    }
}

#[test]
fn damage_in_the_middle_is_said_and_a_torn_end_is_cut() {
    let disk = disk();
    let mut store = open(&disk).expect("it opens");
    let mut ends = Vec::new();
    for position in 6..10 {
        store.commit(Commit { position, changes: vec![(b"k".to_vec(), Some(vec![1; 50]))], outputs: Vec::new() }).expect("it works");
        ends.push(store.journal_bytes.expect("there is one"));
    }
    let journal = Path::new("/derived/1/0.journal");
    let whole = read_whole(&disk, journal, 1 << 20).expect("it reads").expect("it is there");
    for byte in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[byte] ^= 0x40;
        write_atomically(&disk, journal, &damaged).expect("it can be written");
        match open(&disk) {
            Err(EngineError::DerivedDamaged { path, reason }) => {
                assert!((byte as u64) < ends[2] && path == journal, "byte {byte}: {reason}");
            }
            Err(error) => panic!("{error:?}"),
            // The last commit can't be told from one that was not written whole.
            Ok(store) => assert!(byte as u64 >= ends[2] && store.position == 8, "byte {byte}: {}", store.position),
        }
    }
    for length in 0..whole.len() {
        write_atomically(&disk, journal, &whole[..length]).expect("it can be written");
        let expected = 5 + ends.iter().filter(|end| **end <= length as u64).count();
        assert_eq!(open(&disk).expect("it opens").position, i64::try_from(expected).expect("small"), "{length}");
    }
    write_atomically(&disk, &snapshot_path(Path::new(DIR), 0), b"MDs1").expect("it can be written");
    assert!(matches!(open(&disk), Err(EngineError::DerivedDamaged { .. })));
    disk.remove_file(&snapshot_path(Path::new(DIR), 0)).expect("it is there");
    let error = open(&disk).expect_err("it is lost");
    assert!(error.to_string().contains("it is not there") && error.hint().is_some(), "{error}");
}

#[test]
fn after_a_write_or_a_sync_that_failed_opening_it_again_finds_one_of_the_two() {
    for (operation, fault) in [(Operation::Write, Fault::NoSpace), (Operation::Sync, Fault::Device), (Operation::SyncDir, Fault::Device)] {
        for nth in 1..4 {
            let disk = disk();
            let mut store = open(&disk).expect("it opens");
            store.commit(Commit { position: 6, ..Commit::default() }).expect("it works");
            disk.fail(operation, nth, fault);
            let mut position = 6;
            for _ in 0..3 {
                let committed = store.commit(Commit { position: position + 1, ..Commit::default() });
                if committed.is_ok() {
                    position += 1;
                    continue;
                }
                store = open(&disk).expect("it opens again");
                assert!((position..=position + 1).contains(&store.position), "{operation:?} {nth}");
                position = store.position;
            }
            disk.crash(nth);
            assert_eq!(open(&disk).expect("it opens").position, position, "{operation:?} {nth}");
        }
    }
}

#[test]
fn the_files_never_come_to_more_than_their_bound_however_a_state_is_turned_over() {
    const STATE_BYTES: u64 = 1 << 20;
    const OUTPUT_BYTES: usize = 1 << 20;
    let disk = disk();
    let mut store = open(&disk).expect("it opens");
    let bound = file_bytes_max(STATE_BYTES, OUTPUT_BYTES as u64);
    let mut largest = 0;
    for round in 0..40_u32 {
        // All that was there is gone, and as much as fits is there under other keys, in entries of any size.
        let mut draft = StateDraft::new(Arc::clone(store.state()), STATE_BYTES);
        store.state().iter().for_each(|(key, _)| draft.delete(key.to_vec()));
        let value_bytes = [0, 100, 60_000][round as usize % 3];
        let put = |number: u32, draft: &mut StateDraft| draft.put([round, number].map(u32::to_be_bytes).concat(), vec![1; value_bytes]);
        let entries = (0..u32::MAX).take_while(|number| put(*number, &mut draft).is_ok()).count();
        assert!(entries > 10);
        let outputs = vec![output(&store, 0, 1, OUTPUT_BYTES - 1_000)];
        store.commit(Commit { position: store.position + 1, changes: draft.into_changes(), outputs }).expect("it works");
        store.applied();
        let on_disk: usize =
            ["0.snapshot", "0.journal"].map(|name| disk.bytes(&Path::new(DIR).join(name)).expect("it is there").len()).iter().sum();
        assert_eq!(store.file_bytes(), on_disk as u64);
        largest = largest.max(store.file_bytes());
        if round % 7 == 0 {
            store = open(&disk).expect("it opens");
            assert_eq!(store.file_bytes(), on_disk as u64);
        }
    }
    assert!(largest <= bound && largest > bound / 2, "{largest} of {bound}");
}
