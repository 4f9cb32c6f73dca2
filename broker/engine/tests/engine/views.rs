//! Views: what consumers see who read a topic through modules.

use crate::{
    broker::{Broker, attachment, keyed_batch, records},
    guests,
};
use bytes::Bytes;
use futures_util::FutureExt;
use millpond_engine::{ConsumeStream, EngineError};
use millpond_protocol::{
    batch::{Batch, BatchBuilder},
    compression::Codec,
    error::ErrorCode,
    message::{AttachPoint, AttachTransform, DetachTransform, OnError, OpenConsume, Position},
    record::NewRecord,
};
use std::time::Duration;

fn on_fetch(view: &str, module: &str, mode: char) -> AttachTransform {
    AttachTransform { on: AttachPoint::Fetch, view: Some(view.to_owned()), ..attachment("t", module, mode) }
}

/// A topic of one partition with a view `v` in this mode.
async fn with_view(mode: char) -> Broker {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "sync").await;
    broker.engine.deploy_module("m", guests::transform()).await.expect("it can be deployed");
    broker.engine.attach(on_fetch("v", "m", mode)).await.expect("it can be attached");
    broker
}

async fn open(broker: &Broker, view: Option<&str>, from: Position) -> Result<ConsumeStream, EngineError> {
    let open = OpenConsume { topic: "t".to_owned(), partition: 0, from, view: view.map(str::to_owned) };
    Ok(broker.engine.open_consume(&open).await?.0)
}

/// Everything that a consumer of the view sees, and the bytes that it gets for it.
async fn seen(broker: &Broker, view: &str) -> (Vec<(i64, String)>, usize) {
    let end = broker.offset_at("t", 0, Position::End).await.expect("it is there").offset;
    let mut stream = open(broker, Some(view), Position::Beginning).await.expect("it opens");
    let (mut found, mut bytes) = (Vec::new(), 0);
    while stream.position() < end {
        let (_, batches) = stream.next(1 << 20).await.expect("it reads");
        bytes += batches.len();
        found.extend(records(batches));
    }
    (found, bytes)
}

fn pairs(expected: &[(i64, &str)]) -> Vec<(i64, String)> {
    expected.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_consumer_of_a_view_gets_what_its_module_keeps_at_its_offsets_and_others_get_all() {
    let broker = with_view('o').await;
    for values in [&["a", "b", "c"][..], &["d"], &["e", "f"]] {
        broker.produce("t", 0, values).await.expect("it is stored");
    }
    assert_eq!(seen(&broker, "v").await.0, pairs(&[(0, "a"), (2, "c"), (3, "d"), (4, "e")]));
    assert_eq!(broker.values("t", 0).await, ["a", "b", "c", "d", "e", "f"], "what is stored is as it came");
    let mut from_the_middle = open(&broker, Some("v"), Position::Offset(4)).await.expect("it opens");
    let (_, batches) = from_the_middle.next(1 << 20).await.expect("it reads");
    assert_eq!((records(batches), from_the_middle.position()), (pairs(&[(4, "e")]), 6));
    let status = &broker.engine.topic("t").expect("it is there").attachments[0];
    assert_eq!((status.view.as_deref(), status.records_in, status.records_dropped), (Some("v"), 8, 3), "each reader counts");
}

#[tokio::test]
async fn where_nothing_passes_a_consumer_makes_progress_for_next_to_no_bytes() {
    let broker = with_view('a').await;
    let value = "x".repeat(1_000);
    for _ in 0..50 {
        broker.produce("t", 0, &[value.as_str(); 10]).await.expect("it is stored");
    }
    let (found, bytes) = seen(&broker, "v").await;
    assert_eq!(found, []);
    assert!(bytes < 1_000, "{bytes} bytes for half a megabyte");
    // The last batch says how far it is.
    let mut stream = open(&broker, Some("v"), Position::Beginning).await.expect("it opens");
    while stream.position() < 500 {
        let (_, batches) = stream.next(1 << 20).await.expect("it reads");
        let batch = Batch::parse(batches).expect("one batch");
        batch.verify_crc().expect("it is sealed");
        assert_eq!((batch.header().record_count, batch.header().next_offset()), (0, stream.position()));
    }
    broker.produce("t", 0, &["y"]).await.expect("it is stored");
    let (watermarks, _) = stream.next(1 << 20).await.expect("it reads");
    assert_eq!((watermarks.high_watermark, stream.position()), (501, 501));
}

#[tokio::test]
async fn batches_that_hold_offsets_and_no_record_are_no_obstacle() {
    let broker = with_view('c').await;
    broker.engine.attach(attachment("t", "m", 'a')).await.expect("it can be attached");
    // The first batch of a producer that numbers its batches leaves its place, though nothing of it is left.
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { value: Some(b"dropped"), ..NewRecord::default() }).expect("it fits");
    builder.set_producer(7, 0, 0);
    let mut producer = broker.producer("t", Some(0));
    let numbered = builder.finish(Codec::None).expect("it has a record");
    broker.submit(&mut producer, numbered).await.await.expect("it is acknowledged");
    broker.engine.detach(crate::modules::detachment("t", "m")).await.expect("it is attached");
    broker.produce("t", 0, &["a"]).await.expect("it is stored");
    assert_eq!(seen(&broker, "v").await.0, pairs(&[(1, "A")]));
}

#[tokio::test]
async fn every_codec_is_seen_through_and_what_does_not_change_keeps_its_bytes() {
    let broker = with_view('c').await;
    broker.engine.attach(on_fetch("as-it-is", "m", 'i')).await.expect("it can be attached");
    let mut producer = broker.producer("t", Some(0));
    for codec in Codec::ALL {
        broker.submit(&mut producer, keyed_batch(&[(Some("k"), codec.name())], codec)).await.await.expect("it is stored");
    }
    let stored = broker.values("t", 0).await;
    let changed: Vec<String> = stored
        .iter()
        .map(|value| {
            let (start, last) = value.split_at(value.len() - 1);
            format!("{start}{}", char::from(last.as_bytes()[0] ^ 32))
        })
        .collect();
    assert_eq!(seen(&broker, "v").await.0.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), changed);
    let bytes = async |view: Option<&str>| -> Bytes {
        let mut stream = open(&broker, view, Position::Beginning).await.expect("it opens");
        stream.next(1 << 20).await.expect("it reads").1
    };
    assert_eq!(bytes(Some("as-it-is")).await, bytes(None).await);
}

#[tokio::test]
async fn modules_of_one_view_form_a_chain_and_each_view_is_for_itself_also_after_a_restart() {
    let broker = with_view('c').await;
    broker.engine.deploy_module("n", guests::transform()).await.expect("it can be deployed");
    broker.engine.attach(on_fetch("v", "n", 'o')).await.expect("it can be attached");
    broker.engine.attach(on_fetch("w", "n", 'o')).await.expect("the same module makes another view");
    let twice = broker.engine.attach(on_fetch("w", "n", 'o')).await.expect_err("it is there").code();
    assert_eq!(twice, ErrorCode::AttachmentExists);
    broker.produce("t", 0, &["a", "b"]).await.expect("it is stored");
    let broker = broker.restart().await;
    assert_eq!(seen(&broker, "v").await.0, pairs(&[(0, "A")]));
    assert_eq!(seen(&broker, "w").await.0, pairs(&[(0, "a")]));
    let detach = DetachTransform { view: Some("v".to_owned()), ..DetachTransform::new("t", "n", AttachPoint::Fetch) };
    broker.engine.detach(detach).await.expect("it is attached");
    assert_eq!(seen(&broker, "v").await.0, pairs(&[(0, "A"), (1, "B")]));
    assert_eq!(seen(&broker, "w").await.0, pairs(&[(0, "a")]));
}

#[tokio::test]
async fn several_records_for_one_have_no_offsets_in_a_view() {
    let broker = with_view('x').await;
    broker.produce("t", 0, &["a", "b"]).await.expect("it is stored");
    let mut stream = open(&broker, Some("v"), Position::Beginning).await.expect("it opens");
    let error = stream.next(1 << 20).await.expect_err("their offsets would not be true").to_wire();
    assert_eq!(error.code, ErrorCode::GuestOutputInvalid);
    assert!(error.message.contains("in a view each keeps its offset"), "{}", error.message);
    assert_eq!(stream.position(), 0, "it stays where it was");
}

#[tokio::test]
async fn a_record_on_which_the_module_fails_stops_the_view_or_is_left_out() {
    let broker = with_view('c').await;
    broker.engine.attach(AttachTransform { on_error: OnError::Skip, ..on_fetch("robust", "m", 'c') }).await.expect("it can be attached");
    broker.produce("t", 0, &["a", "b!"]).await.expect("it is stored");
    broker.produce("t", 0, &["c"]).await.expect("it is stored");
    let mut stream = open(&broker, Some("v"), Position::Beginning).await.expect("it opens");
    assert_eq!(stream.next(1 << 20).await.expect_err("it traps").code(), ErrorCode::GuestTrapped);
    assert_eq!(seen(&broker, "robust").await.0, pairs(&[(0, "A"), (2, "C")]));
}

#[tokio::test]
async fn what_is_in_front_of_a_batch_on_which_the_module_fails_is_given_first() {
    let broker = with_view('c').await;
    for values in [&["a"][..], &["b"], &["c!"], &["d"]] {
        broker.produce("t", 0, values).await.expect("it is stored");
    }
    let mut stream = open(&broker, Some("v"), Position::Beginning).await.expect("it opens");
    let (_, batches) = stream.next(1 << 20).await.expect("it reads");
    assert_eq!((records(batches), stream.position()), (pairs(&[(0, "A"), (1, "B")]), 2));
    for _ in 0..2 {
        assert_eq!(stream.next(1 << 20).await.expect_err("it traps").code(), ErrorCode::GuestTrapped);
        assert_eq!(stream.position(), 2, "it stays where it is");
    }
    let mut behind = open(&broker, Some("v"), Position::Offset(3)).await.expect("it opens");
    assert_eq!(records(behind.next(1 << 20).await.expect("it reads").1), pairs(&[(3, "D")]));
}

#[tokio::test]
async fn a_view_that_makes_much_of_little_is_pushed_in_many_pieces() {
    let (broker, _) = Broker::simulated().await;
    broker.topic("t", 1, "sync").await;
    broker.engine.deploy_module("m", guests::hostile()).await.expect("it can be deployed");
    let swell = AttachTransform { params: [("mode".to_owned(), "swell".to_owned())].into(), ..on_fetch("v", "m", 'i') };
    broker.engine.attach(swell).await.expect("it can be attached");
    for _ in 0..5 {
        broker.produce("t", 0, &["small"]).await.expect("it is stored");
    }
    // Each becomes 7 MiB.
    let mut stream = open(&broker, Some("v"), Position::Beginning).await.expect("it opens");
    for position in 1..=5 {
        let (_, batches) = stream.next(1 << 20).await.expect("it reads");
        assert_eq!((batches.len() >> 20, stream.position()), (7, position));
    }
}

#[tokio::test]
async fn a_view_that_is_not_there_or_goes_is_told() {
    let broker = with_view('i').await;
    broker.produce("t", 0, &["a"]).await.expect("it is stored");
    let error = open(&broker, Some("w"), Position::Beginning).await.expect_err("there is none").to_wire();
    assert_eq!((error.code, error.hint.as_deref()), (ErrorCode::ViewNotFound, Some("did you mean `v`?")));
    let error = open(&broker, Some("something else"), Position::Beginning).await.expect_err("there is none").to_wire();
    assert!(error.hint.is_some_and(|hint| hint.contains("--on fetch --name something else")));
    let mut stream = open(&broker, Some("v"), Position::Beginning).await.expect("it opens");
    let mut idle = open(&broker, Some("v"), Position::End).await.expect("it opens");
    let idle = tokio::spawn(async move { while idle.next(1 << 20).await.is_ok() {} });
    let detach = DetachTransform { view: Some("v".to_owned()), ..DetachTransform::new("t", "m", AttachPoint::Fetch) };
    broker.engine.detach(detach).await.expect("it is attached");
    assert_eq!(stream.next(1 << 20).await.expect_err("it is gone").code(), ErrorCode::ViewNotFound);
    tokio::time::timeout(Duration::from_secs(30), idle).await.expect("one that waits for records hears of it too").expect("no panic");

    let refused = async |request: AttachTransform| broker.engine.attach(request).await.expect_err("it makes no sense").to_wire();
    let nameless = refused(AttachTransform { view: None, ..on_fetch("v", "m", 'i') }).await;
    assert!(nameless.code == ErrorCode::InvalidConfig && nameless.hint.is_some_and(|hint| hint.contains("--name")), "{}", nameless.message);
    let named = refused(AttachTransform { on: AttachPoint::Produce, ..on_fetch("v", "m", 'i') }).await;
    assert_eq!(named.code, ErrorCode::InvalidConfig);
    assert_eq!(refused(on_fetch("a/b", "m", 'i')).await.code, ErrorCode::InvalidRequest);
    let letters = refused(AttachTransform { on_error: OnError::DeadLetter("dead".to_owned()), ..on_fetch("v", "m", 'i') }).await;
    assert!(letters.hint.is_some_and(|hint| hint.contains("--on-error skip")), "{}", letters.message);
    broker.engine.deploy_module("deal", guests::partitioner()).await.expect("it can be deployed");
    assert_eq!(refused(on_fetch("v", "deal", 'i')).await.code, ErrorCode::ModuleWrongWorld);
}

#[tokio::test]
async fn a_read_through_a_view_that_was_given_up_loses_nothing() {
    let broker = with_view('c').await;
    let mut stream = open(&broker, Some("v"), Position::Beginning).await.expect("it opens");
    let mut found = Vec::new();
    for round in 0..200 {
        broker.produce("t", 0, &[&format!("{round}x")]).await.expect("it is stored");
        // Given up after as many looks as the round has.
        let mut given_up = Box::pin(stream.next(1 << 20));
        let mut early = None;
        for _ in 0..round % 5 {
            early = (&mut given_up).now_or_never();
            if early.is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(given_up);
        if let Some(read) = early {
            found.extend(records(read.expect("it reads").1));
        }
    }
    while stream.position() < 200 {
        found.extend(records(stream.next(1 << 20).await.expect("it reads").1));
    }
    let expected: Vec<_> = (0..200).map(|round| (i64::from(round), format!("{round}X"))).collect();
    assert_eq!(found, expected);
}
