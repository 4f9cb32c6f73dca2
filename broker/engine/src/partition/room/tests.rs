//! Who waits for room, how long, and what ends it. Time is the test's.

use crate::{
    error::{EngineError, StorageBound},
    partition::{Busy, Partition, Yielded, compaction::Occasion},
    produce::PendingAnswer,
    space::Granting,
    testing::{QUOTA, Site, VALUE_BYTES, answer, batch, hold, settle, until},
};
use futures_util::FutureExt;
use millpond_log::sim::Operation;
use millpond_protocol::{
    error::ErrorCode,
    message::{AlterTopic, Cleanup, Limit, OnFull, TopicConfig},
};
use parking_lot::Mutex;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};
use tokio::time::{Instant, advance};

fn is_waiting(partition: &Partition) -> bool {
    partition.queue.lock().wait.is_on
}

async fn waits(partition: &Partition) {
    until("the wait for room", || is_waiting(partition)).await;
}

fn is_pending(answer: &mut PendingAnswer) -> bool {
    answer.now_or_never().is_none()
}

#[track_caller]
fn assert_full(answer: &Result<(), EngineError>) {
    assert!(answer.as_ref().is_err_and(|error| error.code() == ErrorCode::StorageFull), "{answer:?}");
}

async fn full(site: &Site) -> Arc<Partition> {
    site.full_topic("t").await
}

async fn submit(site: &Site) -> PendingAnswer {
    site.submit("t", batch(0, VALUE_BYTES)).await
}

#[tokio::test(start_paused = true)]
async fn each_batch_has_its_own_patience_and_room_that_comes_a_moment_later_helps_whoever_still_waits() {
    let site = Site::new().await;
    let partition = full(&site).await;
    let room = hold(&site.engine.services.room);
    let (a, a_too) = (submit(&site).await, submit(&site).await);
    waits(&partition).await;
    advance(Duration::from_millis(500)).await;
    let mut b = submit(&site).await;
    advance(Duration::from_secs(1)).await;
    let mut c = submit(&site).await;
    advance(Duration::from_millis(499)).await;
    assert!(is_waiting(&partition) && is_pending(&mut b) && is_pending(&mut c));
    advance(Duration::from_millis(1)).await;
    assert_full(&answer(a).await);
    assert_full(&answer(a_too).await);
    waits(&partition).await;
    assert!(is_pending(&mut b) && is_pending(&mut c));
    advance(Duration::from_millis(500)).await;
    assert_full(&answer(b).await);
    waits(&partition).await;
    advance(Duration::from_millis(900)).await;
    assert!(is_pending(&mut c));
    drop(room);
    answer(c).await.expect("it has waited for 1.9 s");
    assert!(partition.size_bytes() <= QUOTA && partition.space.dropped().segments > 0);
    answer(submit(&site).await).await.expect("there is room now");
}

#[tokio::test(start_paused = true)]
async fn a_long_queue_takes_no_longer_to_be_refused_than_one_batch() {
    let site = Site::new().await;
    let partition = full(&site).await;
    let _room = hold(&site.engine.services.room);
    let begun = Instant::now();
    let mut answers = Vec::new();
    // Many times what is appended together.
    for _ in 0..3_000 {
        answers.push(site.submit("t", batch(0, 200)).await);
    }
    waits(&partition).await;
    advance(Duration::from_secs(2)).await;
    for pending in answers {
        assert_full(&answer(pending).await);
    }
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_behind_a_slow_disk_still_has_its_patience() {
    let site = Site::new().await;
    let partition = full(&site).await;
    let room = hold(&site.engine.services.room);
    let slow: Vec<_> = (0..site.engine.services.config.io_threads).map(|_| hold(&site.engine.services.io)).collect();
    let mut pending = submit(&site).await;
    advance(Duration::from_mins(1)).await;
    drop(slow);
    waits(&partition).await;
    assert!(is_pending(&mut pending), "it is only now that there is no room");
    drop(room);
    answer(pending).await.expect("room is made");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stops_keeps_nobody_waiting_for_room() {
    let site = Site::new().await;
    let partition = full(&site).await;
    let _room = hold(&site.engine.services.room);
    let begun = Instant::now();
    let waiting = [submit(&site).await, submit(&site).await];
    waits(&partition).await;
    let engine = Arc::clone(&site.engine);
    let stopping = tokio::spawn(async move { engine.shutdown().await });
    for pending in waiting {
        let error = answer(pending).await.expect_err("nobody makes room any more");
        assert!(matches!(error, EngineError::ShuttingDown), "{error:?}");
        let wire = error.to_wire();
        assert!(wire.retryable && wire.hint.is_some(), "{wire:?}");
    }
    until("the end", || stopping.is_finished()).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_goes_keeps_nobody_waiting_for_room() {
    let site = Site::new().await;
    let partition = full(&site).await;
    let _room = hold(&site.engine.services.room);
    let waiting = submit(&site).await;
    waits(&partition).await;
    let engine = Arc::clone(&site.engine);
    let deleting = tokio::spawn(async move { engine.delete_topic("t").await });
    assert_eq!(answer(waiting).await.expect_err("the topic is gone").code(), ErrorCode::TopicNotFound);
    until("the end", || deleting.is_finished()).await;
    deleting.await.expect("no panic").expect("it is deleted");
}

#[tokio::test(start_paused = true)]
async fn who_meets_another_deletion_waits_for_its_end_and_keeps_no_other_waiting() {
    let site = Site::new().await;
    let (partition, other) = (full(&site).await, site.full_topic("other").await);
    let deleting = partition.deleting.lock().await;
    let mut pending = submit(&site).await;
    waits(&partition).await;
    for _ in 0..20 {
        answer(site.submit("other", batch(0, VALUE_BYTES)).await).await.expect("room is made for others");
    }
    assert!(other.space.dropped().segments > 0);
    assert!(is_waiting(&partition) && is_pending(&mut pending), "it is not hopeless");
    // A second after the other it has another look.
    advance(Duration::from_secs(1)).await;
    waits(&partition).await;
    assert!(is_pending(&mut pending));
    drop(deleting);
    answer(pending).await.expect("room is made");
    assert!(partition.space.dropped().segments > 0);
}

/// Holds all threads that append, so that what is queued is one run.
fn hold_appends(site: &Site) -> Vec<mpsc::Sender<()>> {
    (0..site.engine.services.config.io_threads).map(|_| hold(&site.engine.services.io)).collect()
}

/// A broker with a quota of 100,000 bytes. Of them `keep`, which rejects, has seven tenths.
async fn nearly_full() -> Site {
    let site = Site::with(|config| config.quota_bytes = Some(100_000)).await;
    site.topic("keep", |_| {}).await;
    for _ in 0..7 {
        answer(site.submit("keep", batch(0, VALUE_BYTES)).await).await.expect("there is room");
    }
    site
}

/// Topics with one batch each, which drop their oldest records from now on, and were never asked to.
async fn yielding<const COUNT: usize>(site: &Site, names: [&str; COUNT]) -> [Arc<Partition>; COUNT] {
    for name in names {
        site.topic(name, |_| {}).await;
        answer(site.submit(name, batch(0, VALUE_BYTES)).await).await.expect("there is room");
    }
    let config = TopicConfig { on_full: OnFull::DropOldest, ..TopicConfig::default() };
    names.map(|name| {
        let topic = site.engine.find_topic(name).expect("it is there");
        topic.space().set(&config);
        Arc::clone(&topic.partitions[0])
    })
}

#[tokio::test(start_paused = true)]
async fn what_fits_is_taken_from_behind_a_batch_that_does_not() {
    let site = Site::new().await;
    let partition = site.topic("t", |config| config.quota_bytes = Some(QUOTA)).await;
    while partition.size_bytes() + 40_000 < QUOTA {
        answer(site.submit("t", batch(0, VALUE_BYTES)).await).await.expect("there is room");
    }
    let held = hold_appends(&site);
    let sizes = [50_000, VALUE_BYTES, 50_000, VALUE_BYTES, 60_000];
    let mut pending = Vec::new();
    for value_bytes in sizes {
        pending.push(site.submit("t", batch(0, value_bytes)).await);
    }
    drop(held);
    for (value_bytes, pending) in sizes.into_iter().zip(pending) {
        let outcome = answer(pending).await;
        if value_bytes == VALUE_BYTES { outcome.expect("it fits") } else { assert_full(&outcome) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_nobody_can_make_room_for_takes_no_smaller_one_down() {
    let site = nearly_full().await;
    let _camera = yielding(&site, ["camera"]).await;
    let held = hold_appends(&site);
    let (hopeless, small) = (site.submit("camera", batch(0, 40_000)).await, site.submit("camera", batch(0, 100)).await);
    drop(held);
    assert_full(&answer(hopeless).await);
    answer(small).await.expect("it fits");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_makes_nobody_hopeless_who_did_not_ask() {
    let site = nearly_full().await;
    let [camera] = yielding(&site, ["camera"]).await;
    let room = hold(&site.engine.services.room);
    let hopeless = site.submit("camera", batch(0, 40_000)).await;
    waits(&camera).await;
    advance(Duration::from_secs(1)).await;
    let mut other = site.submit("camera", batch(0, 25_000)).await;
    advance(Duration::from_secs(1)).await;
    assert_full(&answer(hopeless).await);
    waits(&camera).await;
    assert!(is_pending(&mut other));
    drop(room);
    answer(other).await.expect("what is there makes room for it");
    assert!(camera.space.dropped().segments > 0);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_busy_is_passed_over() {
    let site = nearly_full().await;
    let [a, b] = yielding(&site, ["a", "b"]).await;
    let _deleting = a.deleting.lock().await;
    let begun = Instant::now();
    answer(site.submit("a", batch(0, 15_000)).await).await.expect("the other one yields");
    assert_eq!((begun.elapsed(), a.space.dropped().segments, b.space.dropped().segments), (Duration::ZERO, 0, 1));
}

/// The exchange of segments that comes next waits for `held` to be dropped, once it is under way.
struct Exchange {
    gate: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
    is_under_way: Arc<AtomicBool>,
}

impl Exchange {
    fn before(&self) -> impl Fn(Operation, &Path) + Send + Sync + 'static {
        let (gate, is_under_way) = (Arc::clone(&self.gate), Arc::clone(&self.is_under_way));
        move |operation, path| {
            // The note of it goes last, while nobody else may change segments.
            if operation == Operation::Remove && path.ends_with("compaction") {
                let held = gate.lock().take();
                if let Some(held) = held {
                    is_under_way.store(true, Ordering::Release);
                    let _ = held.recv();
                }
            }
        }
    }

    /// Compacts the partition on the background thread, as far as that.
    async fn begin(&self, site: &Site, partition: &Arc<Partition>) -> mpsc::Sender<()> {
        let (held, gate) = mpsc::channel();
        *self.gate.lock() = Some(gate);
        let mut pass = partition.begin_compaction(0, Occasion::Look);
        assert!(pass.is_some(), "there is enough to do");
        let compacting = Arc::clone(partition);
        site.engine.services.background.spawn(move || {
            while let Some(next) = pass {
                pass = compacting.continue_compaction(next);
            }
        });
        until("the exchange", || self.is_under_way.load(Ordering::Acquire)).await;
        held
    }
}

#[tokio::test(start_paused = true)]
async fn an_exchange_of_segments_keeps_nobody_waiting_who_can_do_without_and_is_waited_for_by_no_thread() {
    let exchange = Exchange { gate: Arc::default(), is_under_way: Arc::default() };
    let site = Site::hooked(exchange.before(), |config| config.quota_bytes = Some(400_000)).await;
    let a = site.topic("a", |config| config.cleanup = Cleanup::CompactDelete).await;
    for number in 0..20 {
        answer(site.submit("a", batch(number % 3, VALUE_BYTES)).await).await.expect("there is room");
    }
    let held = exchange.begin(&site, &a).await;
    let b = site.topic("b", |_| {}).await;
    answer(site.submit("b", batch(0, VALUE_BYTES)).await).await.expect("there is room");
    site.topic("keep", |_| {}).await;
    while site.engine.services.space.level().used + 12_000 < 400_000 {
        answer(site.submit("keep", batch(0, VALUE_BYTES)).await).await.expect("there is room");
    }
    // Whatever was asked for on the way is answered: nobody can yield yet.
    pass(&site, Duration::ZERO).await;
    for (partition, cleanup) in [(&a, Cleanup::CompactDelete), (&b, Cleanup::Delete)] {
        partition.space.set(&TopicConfig { cleanup, on_full: OnFull::DropOldest, ..TopicConfig::default() });
    }
    let (dropped, begun) = (|| (a.space.dropped().segments, b.space.dropped().segments), Instant::now());
    answer(site.submit("a", batch(0, 15_000)).await).await.expect("the other one yields");
    assert_eq!((begun.elapsed(), dropped()), (Duration::ZERO, (0, 1)));

    let mut pending = site.submit("a", batch(0, 30_000)).await;
    waits(&a).await;
    for _ in 0..3 {
        pass(&site, Duration::from_millis(400)).await;
        // Once in a second it has another look, on a thread.
        waits(&a).await;
        assert!(is_pending(&mut pending), "it is not hopeless");
        assert!(a.is_free_of(Busy::Exchange).now_or_never().is_none(), "nobody asks over and over");
    }
    drop(held);
    answer(pending).await.expect("room is made");
    until("the end of the pass", || a.is_free_of(Busy::Exchange).now_or_never().is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn on_a_full_disk_one_segment_goes_where_it_makes_room_for_two() {
    let site = Site::new().await;
    let [a, b] = yielding(&site, ["a", "b"]).await;
    // A few segments each.
    for _ in 0..20 {
        for name in ["a", "b"] {
            answer(site.submit(name, batch(0, VALUE_BYTES)).await).await.expect("there is room");
        }
    }
    site.disk.limit_bytes(Some(site.disk.used_bytes()));
    let room = hold(&site.engine.services.room);
    let pending = [site.submit("a", batch(0, VALUE_BYTES)).await, site.submit("b", batch(0, VALUE_BYTES)).await];
    waits(&a).await;
    waits(&b).await;
    settle().await;
    drop(room);
    for pending in pending {
        answer(pending).await.expect("there is room");
    }
    assert_eq!(a.space.dropped().segments + b.space.dropped().segments, 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_deletion_does_not_keep_it_from_the_next_while_the_reserve_is_written() {
    let site = Site::with(|config| config.reserve_bytes = 10_000).await;
    let partition = full(&site).await;
    let deleting = partition.deleting.lock().await;
    let _pending = submit(&site).await;
    waits(&partition).await;
    settle().await;
    site.engine.services.room.run(|| ()).await.expect("no panic");
    settle().await;
    let _room = hold(&site.engine.services.room);
    let space = &site.engine.services.space;
    space.reserve.lose();
    assert!(!space.reserve.is_held());
    space.has_changed();
    settle().await;
    drop(deleting);
    until("the end of the wait", || partition.deleting.try_lock().is_ok()).await;
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_is_counted_as_dropped_is_gone_whatever_is_appended_meanwhile() {
    let site = Site::new().await;
    let partition = site.topic("t", |config| config.durability = "os".parse().expect("a durability")).await;
    let (is_over, dropping) = (Arc::new(AtomicBool::new(false)), Arc::clone(&partition));
    let until_over = Arc::clone(&is_over);
    let job = site.engine.services.room.run(move || {
        let reader = dropping.reader().expect("it is open");
        let first = || reader.segments()[0].base_offset;
        let (mut dropped, mut gone) = (0, 0);
        while !until_over.load(Ordering::Relaxed) {
            let before = first();
            if matches!(dropping.drop_oldest(), Yielded::Segment) {
                dropped += 1;
                gone += u64::from(first() > before);
            }
        }
        (dropped, gone)
    });
    for _ in 0..200 {
        let mut pending = Vec::new();
        for _ in 0..50 {
            pending.push(site.submit("t", batch(0, 100)).await);
        }
        for pending in pending {
            answer(pending).await.expect("there is room");
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let (dropped, gone) = job.await.expect("no panic");
    assert!(dropped > 0 && gone == dropped, "of {dropped} segments {gone} are gone");
    assert_eq!(partition.space.dropped().segments, gone);
}

/// A compacted topic without room for another batch, all of whose keys are distinct.
async fn full_of_keys(site: &Site) -> Arc<Partition> {
    let change = |config: &mut TopicConfig| (config.cleanup, config.quota_bytes) = (Cleanup::Compact, Some(QUOTA));
    let partition = site.topic("t", change).await;
    for key in 0.. {
        let next = batch(key, VALUE_BYTES);
        if partition.size_bytes() + next.len() as u64 > QUOTA {
            break;
        }
        answer(site.submit("t", next).await).await.expect("there is room");
    }
    partition
}

/// Lets this time pass, less than a request takes to ask again, and whoever makes room do what there is to do.
async fn pass(site: &Site, time: Duration) {
    // Not awaited: where nothing else is to be done, the clock would go on by itself while a busy machine lets the thread wait.
    let mut ran = Box::pin(site.engine.services.room.run(|| ()));
    until("the thread that makes room", || ran.as_mut().now_or_never().is_some()).await;
    settle().await;
    advance(time).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_compaction_finds_room_that_comes_by_other_means() {
    let site = Site::new().await;
    let partition = full_of_keys(&site).await;
    // As by a pass over another large partition.
    let _passing = hold(&site.engine.services.background);
    let pending = submit(&site).await;
    waits(&partition).await;
    pass(&site, Duration::from_millis(100)).await;
    let quota_bytes = Some(Limit::Of(2 * QUOTA));
    let larger = AlterTopic { name: "t".to_owned(), quota_bytes, ..AlterTopic::default() };
    site.engine.alter_topic(larger).await.expect("it can be changed");
    for _ in 0..9 {
        pass(&site, Duration::from_millis(100)).await;
    }
    answer(pending).await.expect("there is room, and it is a second before it would be refused");
}

#[tokio::test(start_paused = true)]
async fn wishes_do_not_pile_up_while_a_long_pass_is_under_way() {
    let site = Site::new().await;
    let partition = full_of_keys(&site).await;
    let _passing = hold(&site.engine.services.background);
    let space = &site.engine.services.space;
    let mut most = 0;
    for _ in 0..50 {
        let _pending = submit(&site).await;
        for _ in 0..5 {
            // Above the mark, with nobody who waits.
            partition.space.request_some(StorageBound::Topic);
            pass(&site, Duration::from_millis(500)).await;
        }
        most = most.max(space.wished());
    }
    assert!((1..=8).contains(&most), "{most}");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_compaction_that_nobody_makes_any_more() {
    let site = Site::new().await;
    full_of_keys(&site).await;
    let _passing = hold(&site.engine.services.background);
    let begun = Instant::now();
    drop(Granting::new(&site.engine.services.space));
    assert_full(&answer(submit(&site).await).await);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
