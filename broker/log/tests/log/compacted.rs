//! Keyed records to compact, and a plain list to compare what is left with.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use millpond_log::sim::{Operation, Random, SimDisk};
use millpond_log::{Compacted, Compaction, CompactionPass, CompactionStep, Compactor, Cursor, Log, LogConfig, LogError, LogReader};
use millpond_protocol::batch::{Batch, BatchBuilder};
use millpond_protocol::compression::Codec;
use millpond_protocol::record::NewRecord;

use crate::harness::{DIR, batches, config, open, prepared_disk};

/// The clock of a machine that knows the time.
pub(crate) const NOON_MS: i64 = 1_790_000_000_000;

pub(crate) const DAY_MS: u64 = 86_400_000;

pub(crate) fn compaction(below: i64, wall_ms: i64) -> Compaction {
    Compaction { below, dirty_percent_min: 0, wall_ms, delete_retention_ms: DAY_MS }
}

/// A record as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) header: Option<Vec<u8>>,
    pub(crate) timestamp: i64,
}

pub(crate) fn row(key: &str, value: Option<&str>) -> Row {
    Row { key: Some(key.into()), value: value.map(Into::into), header: None, timestamp: 1_000 }
}

pub(crate) fn batch_of(rows: &[Row], codec: Codec) -> Batch {
    let mut builder = BatchBuilder::new();
    for row in rows {
        let headers: Vec<_> = row.header.iter().map(|header| ("h", Some(&header[..]))).collect();
        let record = NewRecord { timestamp: row.timestamp, key: row.key.as_deref(), value: row.value.as_deref(), headers: &headers };
        builder.push(&record).expect("a small record fits");
    }
    Batch::parse(builder.finish(codec).expect("records were pushed")).expect("the builder builds batches")
}

/// Some records of few keys, tombstones among them and now and then one without a key.
pub(crate) fn random_rows(random: &mut Random, keys: u64) -> Vec<Row> {
    let bytes = |random: &mut Random| (0..random.below(60)).map(|_| random.next_u64().to_le_bytes()[0]).collect::<Vec<u8>>();
    let row = |random: &mut Random| Row {
        key: (!random.percent(5)).then(|| random.below(keys).to_string().into_bytes()),
        value: (!random.percent(20)).then(|| bytes(random)),
        header: random.percent(20).then(|| bytes(random)),
        timestamp: 1_000 + random.below(5_000).cast_signed(),
    };
    (0..=random.below(5)).map(|_| row(random)).collect()
}

/// What is known of each record, by its offset.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) row: Row,
    /// When it was first behind the point up to which a pass looked, at the earliest; and for certain. By a clock that is believed.
    maybe_compacted_ms: Option<i64>,
    compacted_ms: Option<i64>,
    /// A pass has looked at it that ended so long after that.
    is_overdue: bool,
}

/// What a log may hold, and must.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) records: Vec<Known>,
    pub(crate) start: i64,
    /// Of what lies before this, nothing is left that has a later record before this.
    clean: i64,
    /// What lies from here on was never looked at.
    touched: i64,
    /// The latest time at which a pass was made.
    made_ms: i64,
    /// Offsets of batches with a flipped bit. What a pass finds no place for beside them it may leave.
    pub(crate) rotten: Vec<Range<i64>>,
}

impl Model {
    pub(crate) fn end(&self) -> i64 {
        i64::try_from(self.records.len()).expect("small")
    }

    pub(crate) fn append(&mut self, rows: &[Row]) {
        let known = |row: &Row| Known { row: row.clone(), maybe_compacted_ms: None, compacted_ms: None, is_overdue: false };
        self.records.extend(rows.iter().map(known));
    }

    /// The end of the log was lost.
    pub(crate) fn cut(&mut self, end: i64) {
        assert!(self.touched <= end, "what was compacted was durable");
        self.records.truncate(usize::try_from(end).expect("small"));
    }

    /// A pass is made at this time over what lies before `end`.
    pub(crate) fn attempt(&mut self, end: i64, wall_ms: i64) {
        self.touched = self.touched.max(end);
        if wall_ms > 1_735_689_600_000 {
            self.made_ms = self.made_ms.max(wall_ms);
            for known in &mut self.records[..usize::try_from(end).expect("small")] {
                // The clock may have been ahead the first time, and the pass not have come so far.
                known.maybe_compacted_ms = Some(known.maybe_compacted_ms.map_or(wall_ms, |then| then.min(wall_ms)));
            }
        }
    }

    /// It has come to its end.
    pub(crate) fn completed(&mut self, done: &Compacted, wall_ms: i64) {
        self.clean = self.clean.max(done.to);
        if wall_ms > 1_735_689_600_000 {
            for known in &mut self.records[..usize::try_from(done.to).expect("small")] {
                known.is_overdue |= known.compacted_ms.is_some_and(|then| wall_ms >= then + DAY_MS.cast_signed());
            }
            // A batch that lies on both sides of the end gets its horizon the next time. One may have got it by a pass that did not end, when
            // the clock was ahead.
            for known in &mut self.records[..usize::try_from((done.to - 10).max(0)).expect("small")] {
                known.compacted_ms.get_or_insert(self.made_ms);
            }
        }
    }

    /// Whether the record at an offset must be there (Some(true)), must not (Some(false)), or either.
    fn expected(&self, later: &BTreeMap<&[u8], Vec<i64>>, offset: i64) -> Option<bool> {
        let known = &self.records[usize::try_from(offset).expect("small")];
        let Some(key) = &known.row.key else { return Some(true) };
        let next = later[&key[..]].iter().copied().find(|other| *other > offset);
        if let Some(next) = next.filter(|next| *next < self.touched) {
            return if next < self.clean { Some(false) } else { None };
        }
        let day = DAY_MS.cast_signed();
        let may_go = known.row.value.is_none() && known.maybe_compacted_ms.is_some_and(|then| self.made_ms >= then + day);
        let must_go = known.row.value.is_none() && known.is_overdue;
        if must_go {
            Some(false)
        } else if may_go {
            None
        } else {
            Some(true)
        }
    }

    /// Compares all that can be read with what there must and may be.
    pub(crate) fn check(&self, reader: &LogReader) {
        assert_eq!((reader.log_start(), reader.log_end()), (self.start, self.end()), "the offsets of the log");
        let found = self.read_all(reader);
        let mut later: BTreeMap<&[u8], Vec<i64>> = BTreeMap::new();
        for (offset, known) in (0..).zip(&self.records) {
            if let Some(key) = &known.row.key {
                later.entry(key).or_default().push(offset);
            }
        }
        self.check_deleted(&later, &found);
        for offset in self.start..self.end() {
            if let Some(expected) = self.expected(&later, offset).filter(|expected| *expected || self.rotten.is_empty()) {
                if self.is_rotten(offset) {
                    continue;
                }
                let row = &self.records[usize::try_from(offset).expect("small")].row;
                assert_eq!(found.contains_key(&offset), expected, "offset {offset} of {:?}: {row:?}", (self.clean, self.touched));
            }
        }
    }

    /// All that can be read. What is damaged is stepped over, if it is known to be.
    fn read_all(&self, reader: &LogReader) -> BTreeMap<i64, Row> {
        let (mut cursor, mut found) = (Cursor::new(self.start), BTreeMap::new());
        loop {
            match self.read(reader, &mut cursor, 1 << 20, &mut found) {
                Ok(true) => {}
                Ok(false) => break,
                Err(LogError::Corrupt { .. }) if self.is_rotten(cursor.offset()) => {
                    let rotten = self.rotten.iter().find(|range| range.contains(&cursor.offset()));
                    cursor = Cursor::new(rotten.map_or(self.end(), |range| range.end));
                }
                Err(error) => panic!("everything can be read: {}", error.chain()),
            }
        }
        assert_eq!(cursor.offset(), self.end());
        found
    }

    fn is_rotten(&self, offset: i64) -> bool {
        self.rotten.iter().any(|range| range.contains(&offset))
    }

    /// Where the last record of a key is a tombstone that went, none before it is there.
    fn check_deleted(&self, later: &BTreeMap<&[u8], Vec<i64>>, found: &BTreeMap<i64, Row>) {
        for (key, offsets) in later {
            let Some(last) = offsets.iter().rfind(|offset| **offset >= self.start) else { continue };
            if !found.contains_key(last) && !self.is_rotten(*last) {
                let risen = offsets.iter().find(|offset| found.contains_key(offset));
                assert!(risen.is_none(), "key {key:?}, deleted at {last}, rises again at {risen:?}");
            }
        }
    }

    /// Reads on by a cursor, and compares what comes with what was appended. False at the end.
    pub(crate) fn read(
        &self,
        reader: &LogReader,
        cursor: &mut Cursor,
        max_bytes: usize,
        found: &mut BTreeMap<i64, Row>,
    ) -> Result<bool, LogError> {
        let from = cursor.offset();
        let bytes = reader.read_next(cursor, max_bytes, i64::MAX)?;
        let mut next = None;
        for batch in batches(bytes) {
            batch.verify_crc().expect("no damage is served");
            let header = *batch.header();
            assert!(header.base_offset <= next.unwrap_or(from) && header.next_offset() > from);
            assert!(next.is_none_or(|next| next == header.base_offset), "the offsets have no gap between batches");
            next = Some(header.next_offset());
            for (offset, row) in rows_of(&batch) {
                assert_eq!(row, self.records[usize::try_from(offset).expect("small")].row, "the record at offset {offset}");
                if offset >= from {
                    found.insert(offset, row);
                }
            }
        }
        assert_eq!(next.unwrap_or(from), cursor.offset());
        Ok(next.is_some())
    }
}

pub(crate) fn rows_of(batch: &Batch) -> Vec<(i64, Row)> {
    let max_timestamp = batch.header().max_timestamp;
    let rows: Vec<_> = batch
        .records(1 << 20)
        .expect("it unpacks")
        .map(|record| record.expect("it reads"))
        .map(|record| {
            let header = record.headers.get("h").map(|header| header.to_vec());
            let (key, value) = (record.key.map(|key| key.to_vec()), record.value.map(|value| value.to_vec()));
            (record.offset, Row { key, value, header, timestamp: record.timestamp })
        })
        .collect();
    let largest = rows.iter().map(|(_, row)| row.timestamp).max();
    assert!(largest.is_none_or(|largest| largest == max_timestamp), "the header says the largest timestamp");
    rows
}

/// Goes on with a pass up to its end. Gives what was put in place on the way, too.
pub(crate) fn finish(compactor: &mut Compactor, pass: &mut CompactionPass) -> Result<(Compacted, Vec<Range<i64>>), LogError> {
    let mut replaced = Vec::new();
    loop {
        match compactor.step(pass)? {
            CompactionStep::More => {}
            CompactionStep::Replaced(segment) => replaced.push(segment.base_offset..segment.end_offset),
            CompactionStep::Done(done) => return Ok((done, replaced)),
        }
    }
}

pub(crate) const CONFIG: LogConfig = config(1_000, 200);

/// A log with its compactor, and what it should hold.
pub(crate) struct Compacting {
    pub(crate) disk: SimDisk,
    pub(crate) log: Log,
    pub(crate) compactor: Compactor,
    pub(crate) model: Model,
    pub(crate) now_ms: i64,
}

impl Compacting {
    pub(crate) fn new(config: LogConfig) -> Compacting {
        let disk = prepared_disk();
        let (log, _) = open(&disk, config);
        let compactor = log.compactor();
        Compacting { disk, log, compactor, model: Model::default(), now_ms: NOON_MS }
    }

    pub(crate) fn append(&mut self, rows: &[Row], codec: Codec) {
        self.log.append(&[batch_of(rows, codec)], 0).expect("appends");
        self.model.append(rows);
    }

    /// Closes and flushes what there is, so that all of it can be compacted.
    pub(crate) fn settle(&mut self) {
        self.log.roll().expect("rolls");
        if let Some(flush) = self.log.begin_flush() {
            self.log.end_flush(flush.run()).expect("flushes");
        }
    }

    pub(crate) fn compact(&mut self) -> Option<Compacted> {
        let mut pass = self.compactor.begin(compaction(i64::MAX, self.now_ms)).expect("begins")?;
        self.model.attempt(self.model.end(), self.now_ms);
        let (done, _) = finish(&mut self.compactor, &mut pass).expect("compacts");
        self.model.completed(&done, self.now_ms);
        self.model.check(&self.log.reader());
        Some(done)
    }

    pub(crate) fn reopen(&mut self, config: LogConfig) {
        let (log, _) = open(&self.disk, config);
        self.compactor = log.compactor();
        self.log = log;
    }

    /// What can be read, by its offsets.
    pub(crate) fn rows(&self) -> Vec<(i64, Row)> {
        self.rows_from(self.log.log_start())
    }

    pub(crate) fn rows_from(&self, from: i64) -> Vec<(i64, Row)> {
        let mut cursor = Cursor::new(from);
        let mut rows = Vec::new();
        loop {
            let read = self.log.reader().read_next(&mut cursor, 1 << 20, i64::MAX).expect("reads");
            if read.is_empty() {
                return rows;
            }
            rows.extend(batches(read).iter().flat_map(rows_of));
        }
    }

    pub(crate) fn offsets(&self) -> Vec<i64> {
        self.rows().iter().map(|(offset, _)| *offset).collect()
    }
}

/// Some segments of keys that come again and again.
pub(crate) fn filled(rounds: usize) -> Compacting {
    let mut compacting = Compacting::new(CONFIG);
    for round in 0..rounds {
        for key in 0..6 {
            let codec = Codec::ALL[(round + key) % Codec::ALL.len()];
            let value = format!("{round} {}", "x".repeat(40));
            let tombstone = (round + key) % 7 == 0;
            let first = Row { timestamp: 1_000 + i64::try_from(round).expect("small"), ..row(&key.to_string(), Some(&value)) };
            let second = Row { value: (!tombstone).then(|| value.into()), ..row(&format!("{}", key + round % 3), None) };
            compacting.append(&[first, second], codec);
        }
    }
    compacting.settle();
    compacting
}

/// How often something was changed on the disk.
pub(crate) fn changes(disk: &SimDisk) -> u64 {
    let all =
        [Operation::Write, Operation::SetLen, Operation::Sync, Operation::SyncDir, Operation::Create, Operation::Rename, Operation::Remove];
    all.iter().map(|operation| disk.count(*operation)).sum()
}

/// What is wrong with the folder.
pub(crate) fn faults(disk: &SimDisk) -> Vec<String> {
    struct Count(Vec<String>);
    impl millpond_log::inspect::Watch for Count {
        fn fault(&mut self, fault: &millpond_log::inspect::Fault) {
            self.0.push(format!("{fault:?}"));
        }
        fn progress(&mut self, _: u64) {}
    }
    let mut count = Count(Vec::new());
    let options = millpond_log::inspect::VerifyOptions::default();
    millpond_log::inspect::verify(disk, Path::new(DIR), options, &mut count).expect("lists");
    count.0
}

/// Nobody listens.
pub(crate) struct Quiet;

impl millpond_log::inspect::Watch for Quiet {
    fn fault(&mut self, _: &millpond_log::inspect::Fault) {}
    fn progress(&mut self, _: u64) {}
}
