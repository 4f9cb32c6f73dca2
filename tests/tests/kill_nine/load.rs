//! Producers that never give up, and what was acknowledged to them.

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesOrdered};
use millpond::{Error, Producer, Record, RecordPlace};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::{sync::Notify, task::JoinHandle};

/// A record: who sends it, and how many it has sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Sent {
    pub(crate) name: u32,
    pub(crate) number: u32,
}

/// Partition and offset.
pub(crate) type Place = (u32, i64);

/// What was acknowledged.
pub(crate) type Acknowledged = BTreeMap<Place, Sent>;

/// What the producers of a topic have done.
pub(crate) struct Load {
    record: fn(Sent) -> Record,
    stop: AtomicBool,
    sent: AtomicU32,
    retries: AtomicU64,
    acknowledged: Mutex<Acknowledged>,
    /// One for each acknowledgement.
    answers: AtomicUsize,
    answered: Notify,
}

/// A producer and the number of its next record.
pub(crate) type Writer = (u32, Producer, u32);

impl Load {
    /// Producers that send these records.
    pub(crate) fn new(record: fn(Sent) -> Record) -> Arc<Load> {
        Arc::new(Load {
            record,
            stop: AtomicBool::new(false),
            sent: AtomicU32::new(0),
            retries: AtomicU64::new(0),
            acknowledged: Mutex::default(),
            answers: AtomicUsize::new(0),
            answered: Notify::new(),
        })
    }

    /// Lets the producers run until they are stopped.
    pub(crate) fn run(self: &Arc<Load>, writers: Vec<Writer>) -> Running {
        self.stop.store(false, Ordering::Relaxed);
        let writers = writers.into_iter().map(|writer| tokio::spawn(Arc::clone(self).produce(writer))).collect();
        Running { load: Arc::clone(self), writers }
    }

    /// Sends numbered records until it is stopped, and until all are delivered.
    async fn produce(self: Arc<Load>, (name, producer, first): Writer) -> Writer {
        let mut deliveries = FuturesOrdered::new();
        let (mut number, retries_before) = (first, producer.stats().retries);
        loop {
            let stopped = self.stop.load(Ordering::Relaxed);
            if !stopped {
                let sent = Sent { name, number };
                let delivery = producer.enqueue((self.record)(sent)).await.expect("back-pressure waits, it does not fail");
                deliveries.push_back(async move { (sent, delivery.await) });
                self.sent.fetch_add(1, Ordering::Relaxed);
                number += 1;
            }
            let wait = stopped || deliveries.len() >= RECORDS_PER_PRODUCER_MAX;
            while let Some((sent, place)) = next_answer(&mut deliveries, wait).await {
                self.note(sent, place);
                if !stopped && deliveries.len() < RECORDS_PER_PRODUCER_MAX {
                    break;
                }
            }
            if stopped {
                self.retries.fetch_add(producer.stats().retries - retries_before, Ordering::Relaxed);
                return (name, producer, number);
            }
        }
    }

    fn note(&self, sent: Sent, place: Result<RecordPlace, Error>) {
        let place = place.expect("the producer reconnects and delivers");
        let other = self.acknowledged.lock().expect("no panic").insert((place.partition, place.offset), sent);
        assert_eq!(other, None, "two records were acknowledged at offset {} of partition {}", place.offset, place.partition);
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.answered.notify_one();
    }

    /// Waits until so many more are acknowledged.
    pub(crate) async fn acknowledge(&self, count: usize) {
        let until = self.answers.load(Ordering::Relaxed) + count;
        while self.answers.load(Ordering::Relaxed) < until {
            self.answered.notified().await;
        }
    }

    /// What was acknowledged and not taken yet.
    pub(crate) fn acknowledged(&self) -> &Mutex<Acknowledged> {
        &self.acknowledged
    }

    /// The record as it was sent.
    pub(crate) fn record(&self, sent: Sent) -> Record {
        (self.record)(sent)
    }

    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed) as usize
    }

    /// Batches that were sent once more, by producers that have been stopped.
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }
}

/// Producers at work.
pub(crate) struct Running {
    load: Arc<Load>,
    writers: Vec<JoinHandle<Writer>>,
}

impl Running {
    /// Stops them, and waits until all that they have sent is delivered.
    pub(crate) async fn stop(self) -> Vec<Writer> {
        self.load.stop.store(true, Ordering::Relaxed);
        let mut writers = Vec::new();
        for writer in self.writers {
            writers.push(writer.await.expect("everything is delivered"));
        }
        writers
    }
}

pub(crate) async fn next_answer<F: Future>(deliveries: &mut FuturesOrdered<F>, wait: bool) -> Option<F::Output> {
    if wait {
        return deliveries.next().await;
    }
    futures_util::FutureExt::now_or_never(deliveries.next()).flatten()
}

/// A value that says which record it is of, over and over for so many bytes.
pub(crate) fn value(sent: Sent, bytes: usize) -> Bytes {
    let mark = format!("{}:{};", sent.name, sent.number);
    Bytes::from(mark.bytes().cycle().take(bytes.max(mark.len())).collect::<Vec<_>>())
}

/// Which record a value is of. Whether all of it is as it was sent is told by comparing it.
pub(crate) fn sent_in(value: &[u8]) -> Sent {
    let text = std::str::from_utf8(value).expect("text");
    let (mark, _) = text.split_once(';').expect("a mark");
    let (name, number) = mark.split_once(':').expect("producer:number");
    Sent { name: name.parse().expect("a producer"), number: number.parse().expect("a number") }
}

/// How many records of one producer are in flight at most.
const RECORDS_PER_PRODUCER_MAX: usize = 60;
