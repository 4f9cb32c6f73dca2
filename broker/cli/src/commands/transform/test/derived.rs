//! What a module has that derives topics: where its records go, and what it keeps from batch to batch.
//!
//! ```text
//!            .-- draft of the state --.
//!  batch --->|        module          |---> whole: each record in its partition of its topic; the draft becomes the state
//!            '------------------------'---> failed: nothing of the batch is left, as in a broker
//! ```
//!
//! There is one partition of the source, 0. A record has the offset that it would have in topics that were empty before.
//!
//! Records of several topics stand in the order of the records that they were made of; those of one topic in the order in which the module
//! has returned them, which is that in which they are stored.

use super::{
    fate::{Output, Passed, owned},
    input::Prepared,
};
use crate::{config::ByteSize, names};
use clap::Args;
use millpond_plugin::{KeyValues, StateDraft, Target};
use millpond_protocol::{
    message::DeriveInto,
    partitioner,
    record::{RecordRef, iterate},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// A topic that is derived from the records, with the options of `attach`.
#[derive(Args, Debug)]
#[command(next_help_heading = "Derived topics")]
pub(super) struct DerivedArgs {
    /// The topics that the module writes to, by the keys of its records; with the number of their partitions, where it is not that of
    /// --partitions: alarms,readings:12
    #[arg(long, value_name = "TOPIC[:N][,TOPIC[:N]...]", value_delimiter = ',', value_parser = parse_into)]
    into: Vec<TargetArg>,
    /// What the module may keep from batch to batch, such as 1MiB; 16MiB at most [default: nothing]
    #[arg(long, value_name = "SIZE", requires = "into")]
    state_bytes: Option<ByteSize>,
}

/// A topic, and its partitions if they are given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TargetArg {
    topic: String,
    partitions: Option<u32>,
}

fn parse_into(text: &str) -> Result<TargetArg, String> {
    let Some((topic, partitions)) = text.split_once(':') else { return Ok(TargetArg { topic: names::parse(text)?, partitions: None }) };
    let count = partitions.parse().ok().filter(|count| (1..=PARTITIONS_MAX).contains(count));
    let wrong = || format!("`{partitions}` is no number of partitions: it is 1 to {PARTITIONS_MAX}");
    Ok(TargetArg { topic: names::parse(topic)?, partitions: Some(count.ok_or_else(wrong)?) })
}

/// See the module.
#[derive(Debug)]
pub(super) struct Derived {
    targets: Vec<Target>,
    topics: Vec<Arc<str>>,
    /// By target and partition, where a record has gone.
    next_offsets: BTreeMap<(usize, u32), i64>,
    next_source_offset: i64,
    state: Arc<KeyValues>,
    state_bytes_max: u64,
}

impl Derived {
    /// None where no topics are named. Those without a number of their own have `partitions`.
    pub(super) fn new(arguments: &DerivedArgs, partitions: u32) -> Option<Derived> {
        let DerivedArgs { into, state_bytes } = arguments;
        let target = |named: &TargetArg| Target { name: named.topic.clone(), partition_count: named.partitions.unwrap_or(partitions) };
        (!into.is_empty()).then(|| Derived {
            targets: into.iter().map(target).collect(),
            topics: into.iter().map(|named| Arc::from(named.topic.as_str())).collect(),
            next_offsets: BTreeMap::new(),
            next_source_offset: 0,
            state: Arc::default(),
            state_bytes_max: state_bytes.map_or(0, |size| size.0),
        })
    }

    /// What a broker would be asked for.
    pub(super) fn request(&self) -> DeriveInto {
        let names = self.targets.iter().map(|target| target.name.as_str());
        DeriveInto { state_bytes: self.state_bytes_max, ..DeriveInto::new(names) }
    }

    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The offset of the next batch.
    pub(super) fn source_offset(&self) -> i64 {
        self.next_source_offset
    }

    /// Records on which the module has failed have their offsets too.
    pub(super) fn pass_over(&mut self, records: usize) {
        self.next_source_offset += i64::try_from(records).unwrap_or(i64::MAX);
    }

    /// The state for one batch, if one was granted. It is let go with all that was changed if the batch fails.
    pub(super) fn draft(&self) -> Option<StateDraft> {
        (self.state_bytes_max > 0).then(|| StateDraft::new(Arc::clone(&self.state), self.state_bytes_max))
    }

    /// What is kept, and how many bytes it may have; none where none may be.
    pub(super) fn state(&self) -> Option<(&KeyValues, u64)> {
        (self.state_bytes_max > 0).then_some((&*self.state, self.state_bytes_max))
    }

    /// Takes what the module has returned for a batch, and what it has changed; or says why a broker would not.
    pub(super) fn take(&mut self, prepared: &Prepared, sections: &[(u32, Vec<u8>)], draft: Option<StateDraft>) -> Result<Passed, String> {
        let records = in_order(sections, self.targets.len())?;
        let mut passed = Passed::begin(prepared);
        passed.bytes_out = sections.iter().map(|(_, section)| section.len() as u64).sum();
        let before: Vec<_> = iterate(&prepared.section).map_while(Result::ok).collect();
        for (target, record) in records {
            let partitions = self.targets[target].partition_count;
            // As the broker places it; without a key it keeps the number of the source's partition.
            let partition = record.key.map_or(SOURCE_PARTITION % partitions, |key| partitioner::for_key(key, partitions));
            let next = self.next_offsets.entry((target, partition)).or_default();
            let owned = millpond::Record { partition: Some(partition), ..owned(&record, prepared.base_timestamp) };
            passed.push(&before, &record, Output { record: owned, topic: Some(Arc::clone(&self.topics[target])), offset: *next });
            *next += 1;
        }
        // The draft shares the state, so it goes first, lest all of it be copied.
        let changes = draft.map(StateDraft::into_changes).unwrap_or_default();
        let state = Arc::make_mut(&mut self.state);
        for change in changes {
            state.apply(change);
        }
        self.pass_over(prepared.records.len());
        Ok(passed)
    }
}

/// The records of all topics, each with the index of its topic.
fn in_order(sections: &[(u32, Vec<u8>)], targets: usize) -> Result<Vec<(usize, RecordRef<'_>)>, String> {
    let mut queues = vec![VecDeque::new(); targets];
    for (target, section) in sections {
        let records = iterate(section).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        // The host has checked that there is such a target.
        if let Some(queue) = queues.get_mut(*target as usize) {
            queue.extend(records);
        }
    }
    let mut records = Vec::new();
    let front = |(target, queue): (usize, &VecDeque<RecordRef<'_>>)| Some((queue.front()?.offset_delta, target));
    while let Some((_, target)) = queues.iter().enumerate().filter_map(front).min() {
        records.extend(queues[target].pop_front().map(|record| (target, record)));
    }
    Ok(records)
}

/// The most partitions of a topic, as in the broker.
const PARTITIONS_MAX: u32 = 10_000;

/// The only partition of the source.
pub(super) const SOURCE_PARTITION: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::transform::test::input::Numbered;
    use millpond::Record;
    use millpond_protocol::{batch::BatchBuilder, record::NewRecord};

    fn derived(into: &[&str], state_bytes: u64) -> Derived {
        let into = into.iter().map(|text| parse_into(text).expect("a topic")).collect();
        Derived::new(&DerivedArgs { into, state_bytes: Some(ByteSize(state_bytes)) }, 4).expect("there are topics")
    }

    fn prepared(records: usize) -> Prepared {
        let numbered = |line| Numbered { line, record: Record { value: Some("x".into()), ..Record::default() }, topic: None };
        Prepared::new(&(1..).take(records).map(numbered).collect::<Vec<_>>()).expect("a batch")
    }

    /// Records as a module returns them: key and offset delta.
    fn section(records: &[(&str, i32)]) -> Vec<u8> {
        let mut section = Vec::new();
        for (key, delta) in records {
            // A builder counts the deltas from 0, so each record is the last of its own batch.
            let mut builder = BatchBuilder::new();
            let record = NewRecord { timestamp: 0, key: Some(key.as_bytes()), value: None, headers: &[] };
            for _ in 0..=*delta {
                builder.push(&record).expect("it fits");
            }
            let batch = builder.finish(millpond_protocol::compression::Codec::None).expect("a batch");
            let whole = millpond_protocol::batch::Batch::parse(batch).expect("a batch").records_section(1 << 20).expect("small");
            section.extend_from_slice(iterate(&whole).last().expect("a record").expect("a record").encoded);
        }
        section
    }

    #[test]
    fn topics_may_say_how_many_partitions_they_have() {
        assert_eq!(parse_into("a"), Ok(TargetArg { topic: "a".to_owned(), partitions: None }));
        assert_eq!(parse_into("a:12"), Ok(TargetArg { topic: "a".to_owned(), partitions: Some(12) }));
        for wrong in ["", ":1", "a:", "a:0", "a:10001", "a:-1", "a:x", "a:1:1", "a b"] {
            assert!(parse_into(wrong).is_err(), "{wrong}");
        }
        let targets = derived(&["a:12", "b"], 0).targets;
        assert_eq!(targets.iter().map(|target| target.partition_count).collect::<Vec<_>>(), [12, 4]);
    }

    #[test]
    fn records_stand_in_the_order_of_their_sources_and_each_topic_keeps_its_own() {
        let mut derived = derived(&["a:1", "b:1"], 0);
        let sections = [(1, section(&[("p", 0), ("q", 2), ("r", 1)])), (0, section(&[("s", 1)])), (1, section(&[("t", 0)]))];
        let passed = derived.take(&prepared(3), &sections, None).expect("records");
        let shown = |output: &Output| {
            let key = String::from_utf8_lossy(output.record.key.as_deref().unwrap_or_default()).into_owned();
            format!("{key} {} {}", output.topic.as_deref().unwrap_or_default(), output.offset)
        };
        assert_eq!(passed.output.iter().map(shown).collect::<Vec<_>>(), ["p b 0", "s a 0", "q b 1", "r b 2", "t b 3"]);
        let passed = derived.take(&prepared(1), &[(1, section(&[("u", 0)]))], None).expect("records");
        assert_eq!((shown(&passed.output[0]), derived.source_offset()), ("u b 4".to_owned(), 4));
    }

    #[test]
    fn a_draft_becomes_the_state_and_what_is_not_taken_leaves_nothing() {
        let mut derived = derived(&["a"], 1 << 10);
        let draft = |derived: &Derived, key: &str| {
            let mut draft = derived.draft().expect("a state was granted");
            draft.put(key.into(), b"x".to_vec()).expect("there is room");
            Some(draft)
        };
        let kept = draft(&derived, "kept");
        derived.take(&prepared(1), &[], kept).expect("nothing is well formed");
        let let_go = draft(&derived, "gone");
        derived.take(&prepared(1), &[(0, b"no records".to_vec())], let_go).expect_err("they are none");
        let (state, limit) = derived.state().expect("a state was granted");
        assert_eq!((state.len(), state.get(b"kept"), limit), (1, Some(&b"x"[..]), 1 << 10));
        assert_eq!(derived.source_offset(), 1);
    }
}
