//! Producers that send again until they are answered, and what a log must answer.

use millpond_log::sim::Random;
use millpond_log::{Admission, Log, Now, SequenceError, SequenceOrder};
use millpond_protocol::batch::{Batch, BatchHeader};

use crate::crash::Known;
use crate::harness::Stored;
use crate::numbers::numbered;

/// Those of each partition that number their batches.
pub(super) const PRODUCERS: usize = 3;

/// A producer with several batches in flight. What was answered is durable; the rest it sends again, oldest first.
#[derive(Debug)]
pub(super) struct Producer {
    id: i64,
    epoch: i16,
    /// The sequence of the next record that is new.
    next: i32,
    in_flight: Vec<Sent>,
    /// Answers of an earlier connection don't reach it.
    connection: u64,
}

/// A batch without an answer.
#[derive(Debug)]
struct Sent {
    base_sequence: i32,
    batch: Batch,
    /// Where it was sent last.
    connection: Option<u64>,
}

/// An answer that waits until what it speaks of is durable.
#[derive(Debug)]
pub(super) struct Answer {
    producer: usize,
    connection: u64,
    base_sequence: i32,
    next_offset: i64,
}

impl Producer {
    pub(super) fn new(id: usize) -> Producer {
        Producer { id: i64::try_from(id).expect("small"), epoch: 0, next: 0, in_flight: Vec::new(), connection: 0 }
    }

    /// The connection is lost.
    pub(super) fn disconnect(&mut self) {
        self.connection += 1;
    }

    pub(super) fn has_all_answers(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// What is to be sent now: what was sent on another connection, and new batches behind it.
    fn send(&mut self, random: &mut Random, mut new_batch: impl FnMut(&mut Random) -> Batch, may_be_new: bool) -> Vec<(i32, Batch)> {
        while may_be_new && self.in_flight.len() < 5 && random.percent(60) {
            let batch = numbered(&new_batch(random), self.id, self.epoch, self.next);
            self.in_flight.push(Sent { base_sequence: self.next, connection: None, batch });
            let sent = self.in_flight.last().expect("one was pushed");
            self.next += sent.batch.header().last_offset_delta + 1;
        }
        let connection = Some(self.connection);
        let unsent = self.in_flight.iter_mut().filter(|sent| sent.connection != connection);
        unsent
            .map(|sent| (std::mem::replace(&mut sent.connection, connection), sent).1)
            .map(|sent| (sent.base_sequence, sent.batch.clone()))
            .collect()
    }

    /// What became of its batches can't be known any more: it begins anew, as the client does.
    fn begin_epoch(&mut self) {
        self.disconnect();
        self.in_flight.clear();
        (self.epoch, self.next) = (self.epoch + 1, 0);
    }

    /// Takes an answer.
    pub(super) fn take(&mut self, answer: &Answer) {
        if answer.connection == self.connection {
            self.in_flight.retain(|sent| sent.base_sequence != answer.base_sequence);
        }
    }
}

impl Answer {
    pub(super) fn producer(&self) -> usize {
        self.producer
    }

    pub(super) fn next_offset(&self) -> i64 {
        self.next_offset
    }
}

/// What came of one run.
#[derive(Default)]
pub(super) struct Run {
    /// To be appended.
    pub(super) batches: Vec<Batch>,
    pub(super) answers: Vec<Answer>,
}

/// How a producer's batches lie in the log.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    producer_id: i64,
    epoch: i16,
    base_sequence: i32,
    base: i64,
    next: i64,
}

impl Numbers {
    fn of(stored: &Stored) -> Numbers {
        let header = BatchHeader::parse(&stored.bytes).expect("a batch");
        Numbers::at(&header, stored.base)
    }

    fn at(header: &BatchHeader, base: i64) -> Numbers {
        let BatchHeader { producer_id, producer_epoch: epoch, base_sequence, last_offset_delta, .. } = *header;
        Numbers { producer_id, epoch, base_sequence, base, next: base + i64::from(last_offset_delta) + 1 }
    }

    fn is(&self, header: &BatchHeader) -> bool {
        self.is_of(header) && self.base_sequence == header.base_sequence
    }

    fn is_of(&self, header: &BatchHeader) -> bool {
        (self.producer_id, self.epoch) == (header.producer_id, header.producer_epoch)
    }

    fn next_sequence(&self) -> i64 {
        i64::from(self.base_sequence) + self.next - self.base
    }
}

/// What a log has to say of its producers' batches.
struct Ledger {
    there: Vec<Numbers>,
    deleted: Vec<Numbers>,
    has_rotten: bool,
}

impl Ledger {
    fn of(known: &Known) -> Ledger {
        let numbers = |batches: &[Stored]| batches.iter().map(Numbers::of).collect();
        Ledger { there: numbers(&known.batches), deleted: numbers(&known.deleted), has_rotten: known.has_rotten }
    }

    /// Checks what the log says of a batch. Says whether its producer has to give up.
    fn judge(&mut self, header: &BatchHeader, said: Result<Admission, SequenceError>, is_rotten: impl Fn(i64) -> bool) -> bool {
        // The last one: what a flipped bit has hidden may have been stored again.
        let there = self.there.iter().rfind(|numbers| numbers.is(header)).copied();
        let deleted = self.deleted.iter().rfind(|numbers| numbers.is(header)).copied();
        let last = self.there.iter().rfind(|numbers| numbers.is_of(header));
        // Of what was deleted the log need not know, and of what is damaged it can't.
        let is_unknown = last.is_none() && self.deleted.iter().any(|numbers| numbers.producer_id == header.producer_id);
        let is_certain = !self.has_rotten && !is_unknown && deleted.is_none();
        let expected = last.map_or(0, Numbers::next_sequence);
        match said {
            Ok(Admission::Append { base_offset }) => {
                assert!(there.is_none_or(|numbers| is_rotten(numbers.base)), "{there:?} is to be stored twice");
                assert!(!is_certain || i64::from(header.base_sequence) == expected, "{expected} is missing before {header:?}");
                self.there.push(Numbers::at(header, base_offset));
            }
            Ok(Admission::Repeated(appended)) => {
                let first = there.or(deleted).expect("a repetition is of something");
                assert_eq!((appended.base_offset, appended.last_offset + 1), (first.base, first.next), "the offsets of the first time");
            }
            Ok(Admission::Skip) => panic!("there is something to store"),
            Err(error) => {
                assert!(!is_certain || there.is_none() && i64::from(header.base_sequence) > expected, "{error}, expected {expected}");
                return !is_certain;
            }
        }
        false
    }
}

/// Lets some producers send, and asks the log what is to be appended.
pub(super) fn admit(
    log: &mut Log,
    (producers, known): (&mut [Producer], &Known),
    now: Now,
    random: &mut Random,
    mut new_batch: impl FnMut(&mut Random) -> Batch,
    is_rotten: impl Fn(i64) -> bool,
    may_be_new: bool,
) -> (millpond_log::AppendRun, Run) {
    let (mut sequences, mut run, mut ledger) = (log.begin_run(now), Run::default(), Ledger::of(known));
    if may_be_new && random.percent(20) {
        let anonymous = new_batch(random);
        log.admit(&mut sequences, anonymous.header(), SequenceOrder::Next, false).expect("it has no numbers");
        run.batches.push(anonymous);
    }
    for (number, producer) in producers.iter_mut().enumerate() {
        if may_be_new && random.percent(40) {
            continue;
        }
        let connection = producer.connection;
        for (base_sequence, batch) in producer.send(random, &mut new_batch, may_be_new) {
            // What does not arrive leaves a gap, which the batches behind it must not jump.
            if random.percent(4) {
                producer.disconnect();
                continue;
            }
            // Now and then the network delivers one twice.
            for _ in 0..=u8::from(random.percent(8)) {
                let said = log.admit(&mut sequences, batch.header(), SequenceOrder::Next, false);
                let next_offset = match &said {
                    Ok(Admission::Append { base_offset }) => {
                        run.batches.push(batch.clone());
                        base_offset + i64::from(batch.header().last_offset_delta) + 1
                    }
                    Ok(Admission::Repeated(appended)) => appended.last_offset + 1,
                    _ => i64::MAX,
                };
                let has_lost_its_place = ledger.judge(batch.header(), said, &is_rotten);
                if has_lost_its_place && producer.connection == connection {
                    producer.begin_epoch();
                } else if next_offset == i64::MAX {
                    producer.disconnect();
                } else {
                    run.answers.push(Answer { producer: number, connection, base_sequence, next_offset });
                }
            }
            if producer.connection != connection && producer.in_flight.is_empty() {
                break;
            }
        }
    }
    (sequences, run)
}
