//! Producers that send again until they are answered, through lost answers, failed appends, kills and power cuts.

use millpond_log::sim::{Fault, Operation, Random, SimDisk};
use millpond_log::{Admission, Log, LogConfig, Now, SequenceError, SequenceOrder};
use millpond_protocol::batch::Batch;

use crate::harness::{batch, batches, config, prepared_disk, read_all, try_open};
use crate::numbers::numbered;
use crate::seeds;

/// A producer with several batches in flight. What was answered is durable; the rest it sends again, oldest first.
struct Producer {
    id: i64,
    /// The sequences of the next batch that is new.
    next: i32,
    /// The first sequences of the batches without an answer, and their records.
    in_flight: Vec<(i32, usize)>,
    /// Batches that were answered, by first sequence and base offset.
    answered: Vec<(i32, i64)>,
    /// Answers don't reach it any more, until it connects again.
    is_cut_off: bool,
}

impl Producer {
    fn new(id: i64) -> Producer {
        Producer { id, next: 0, in_flight: Vec::new(), answered: Vec::new(), is_cut_off: false }
    }

    /// Everything that is to be sent now: what has no answer, and new batches behind it.
    fn send(&mut self, random: &mut Random) -> Vec<(i32, Batch)> {
        self.is_cut_off = false;
        while self.in_flight.len() < 5 && random.percent(70) {
            let records = 1 + usize::try_from(random.below(4)).expect("small");
            self.in_flight.push((self.next, records));
            self.next += i32::try_from(records).expect("small");
        }
        let sent = |(base_sequence, records): &(i32, usize)| (*base_sequence, numbered(&batch(*records, 60), self.id, 0, *base_sequence));
        self.in_flight.iter().map(sent).collect()
    }
}

/// One run of batches of all producers, then a flush, then the answers, some of which are lost. None if the log failed.
fn serve(log: &mut Log, producers: &mut [Producer], random: &mut Random) -> Option<()> {
    let mut run = log.begin_run(Now { wall_ms: 0, monotonic_ms: 0 });
    let (mut admitted, mut answers) = (Vec::new(), Vec::new());
    for (number, producer) in producers.iter_mut().enumerate() {
        for (base_sequence, batch) in producer.send(random) {
            // What does not arrive leaves a gap, which the batches behind it must not jump.
            if random.percent(5) {
                producer.is_cut_off = true;
                continue;
            }
            // Now and then the network delivers one twice.
            for _ in 0..=u8::from(random.percent(10)) {
                match log.admit(&mut run, batch.header(), SequenceOrder::Next, false) {
                    Ok(Admission::Append { base_offset }) => {
                        admitted.push(batch.clone());
                        answers.push((number, base_sequence, base_offset));
                    }
                    Ok(Admission::Repeated(appended)) => answers.push((number, base_sequence, appended.base_offset)),
                    Ok(Admission::Skip) => panic!("there is something to store"),
                    Err(SequenceError::OutOfOrder { .. } | SequenceError::UnknownProducer { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    if random.percent(10) {
        log.roll().ok()?;
    }
    if !admitted.is_empty() && log.append(&admitted, 0).is_err() {
        return log.failure().is_none().then_some(());
    }
    log.settle_run(run);
    if let Some(flush) = log.begin_flush() {
        let outcome = flush.run();
        log.end_flush(outcome).ok()?;
    }
    // Answers come in order, until the connection is lost: so no batch is sent that is more than five ahead of one without an answer.
    for (number, base_sequence, base_offset) in answers {
        let producer = &mut producers[number];
        producer.is_cut_off |= random.percent(20);
        if producer.is_cut_off || !producer.in_flight.iter().any(|(other, _)| *other == base_sequence) {
            continue;
        }
        producer.in_flight.retain(|(other, _)| *other != base_sequence);
        producer.answered.push((base_sequence, base_offset));
    }
    Some(())
}

/// One life of the log. Says whether it ended well, so that the next one may come without a power cut: a system that has failed to flush
/// may show bytes that are not on the disk.
fn life(disk: &SimDisk, config: LogConfig, producers: &mut [Producer], random: &mut Random) -> bool {
    let Ok((mut log, _)) = try_open(disk, config) else { return false };
    for _ in 0..random.below(12) {
        if random.percent(15) {
            let operations = [Operation::Write, Operation::Create, Operation::Sync, Operation::SetLen];
            let operation = operations[usize::try_from(random.below(4)).expect("small")];
            let fault = if random.percent(70) { Fault::NoSpace } else { Fault::Device };
            disk.fail(operation, 1 + random.below(4), fault);
        }
        if serve(&mut log, producers, random).is_none() {
            return false;
        }
    }
    random.percent(70) || log.close().is_ok()
}

/// Every batch of each producer is there once, in its order, where it was answered to be.
fn check(log: &Log, producers: &[Producer]) {
    let stored = batches(read_all(&log.reader(), 0, 1 << 20).expect("reads").into());
    for producer in producers {
        let mut next = 0;
        for header in stored.iter().map(Batch::header).filter(|header| header.producer_id == producer.id) {
            assert_eq!(header.base_sequence, next, "producer {}", producer.id);
            next += header.last_offset_delta + 1;
        }
        assert_eq!(next, producer.next, "all of producer {} is there", producer.id);
        for (base_sequence, base_offset) in &producer.answered {
            let there = stored.iter().any(|batch| {
                let header = batch.header();
                (header.producer_id, header.base_sequence, header.base_offset) == (producer.id, *base_sequence, *base_offset)
            });
            assert!(there, "producer {} was told that {base_sequence} is at offset {base_offset}", producer.id);
        }
    }
}

fn replay(seed: u64) {
    let mut random = Random::new(seed);
    let config = config([1, 400, 3_000, 100_000][usize::try_from(random.below(4)).expect("small")], 300);
    let disk = prepared_disk();
    let mut producers: Vec<_> = (0..3).map(Producer::new).collect();
    for _ in 0..8 {
        if random.percent(60) {
            disk.cut_power_after(random.below(120));
        }
        let is_well = life(&disk, config, &mut producers, &mut random);
        // A kill, or a power cut, after which everything that was not flushed may be gone.
        if !is_well || !disk.is_powered() || random.percent(50) {
            disk.crash(random.next_u64());
        }
    }
    // At last on a disk that works, until all is answered.
    disk.crash(random.next_u64());
    let (mut log, _) = try_open(&disk, config).expect("the log opens");
    let mut rounds = 0;
    while rounds == 0 || producers.iter().any(|producer| !producer.in_flight.is_empty()) {
        serve(&mut log, &mut producers, &mut random).expect("nothing fails any more");
        rounds += 1;
        assert!(rounds < 2_000, "the producers get on");
    }
    check(&log, &producers);
}

#[test]
fn every_batch_is_stored_once_and_in_order_however_often_it_is_sent() {
    seeds::replay_each(500, replay);
}
