use super::*;
use std::{fmt::Debug, time::Duration};

/// CBOR, written out byte by byte in the helpers below: what each message is on the wire.
pub(super) fn text(value: &str) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("short");
    let head = if length < 24 { vec![0x60 | length] } else { vec![0x78, length] };
    [head, value.as_bytes().to_vec()].concat()
}

pub(super) fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let count = u8::try_from(entries.len()).expect("few");
    assert!(count < 24);
    let mut bytes = vec![0xa0 | count];
    for (name, value) in entries {
        bytes.extend(text(name));
        bytes.extend(value);
    }
    bytes
}

pub(super) fn array(items: &[Vec<u8>]) -> Vec<u8> {
    let count = u8::try_from(items.len()).expect("few");
    assert!(count < 24);
    [vec![0x80 | count], items.concat()].concat()
}

pub(super) const NULL: u8 = 0xf6;

pub(super) fn is_golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T, golden: &[u8]) {
    assert_eq!(encode(message), golden, "{message:?}");
    assert_eq!(&decode::<T>(golden).expect("golden bytes are read"), message);
}

#[test]
fn a_request_without_fields_is_its_name() {
    is_golden(&Request::BrokerInfo, b"\x6bbroker_info");
    is_golden(&Request::ListTopics, b"\x6blist_topics");
    is_golden(&Request::ListModules, b"\x6clist_modules");
}

#[test]
fn a_golden_request_in_plain_hex() {
    let golden: &[u8] = &[
        0xa1, // map of one
        0x6c, b'o', b'p', b'e', b'n', b'_', b'p', b'r', b'o', b'd', b'u', b'c', b'e', // 12 bytes of text
        0xa2, // map of two
        0x65, b't', b'o', b'p', b'i', b'c', 0x61, b't', // "topic": "t"
        0x69, b'p', b'a', b'r', b't', b'i', b't', b'i', b'o', b'n', 0x19, 0x01, 0x00, // "partition": 256
    ];
    is_golden(&Request::OpenProduce(OpenProduce { topic: "t".into(), partition: Some(256) }), golden);
}

#[test]
fn requests_that_open_streams_have_golden_bytes() {
    is_golden(
        &Request::OpenProduce(OpenProduce { topic: "readings".into(), partition: None }),
        &map(&[("open_produce", map(&[("topic", text("readings")), ("partition", vec![NULL])]))]),
    );
    let positions = [
        (Position::Beginning, text("beginning")),
        (Position::End, text("end")),
        (Position::Offset(500), map(&[("offset", vec![0x19, 0x01, 0xf4])])),
        (Position::Time(-1), map(&[("time", vec![0x20])])),
    ];
    for (position, bytes) in positions {
        is_golden(
            &Request::OpenConsume(OpenConsume { topic: "t".into(), partition: 2, from: position, view: None }),
            &map(&[("open_consume", map(&[("topic", text("t")), ("partition", vec![2]), ("from", bytes.clone())]))]),
        );
        is_golden(
            &Request::ListOffset(ListOffset { topic: "t".into(), partition: 2, at: position }),
            &map(&[("list_offset", map(&[("topic", text("t")), ("partition", vec![2]), ("at", bytes)]))]),
        );
    }
}

#[test]
fn requests_about_topics_have_golden_bytes() {
    let durability = Durability::Interval(Duration::from_millis(200));
    let config = TopicConfig { durability, segment_bytes: 1 << 20, max_batch_bytes: 65_536, ..TopicConfig::default() };
    is_golden(
        &Request::CreateTopic(CreateTopic { name: "t".into(), partitions: 3, config }),
        &map(&[(
            "create_topic",
            map(&[
                ("name", text("t")),
                ("partitions", vec![3]),
                (
                    "config",
                    map(&[
                        ("durability", text("interval:200ms")),
                        ("segment_bytes", vec![0x1a, 0x00, 0x10, 0x00, 0x00]),
                        ("max_batch_bytes", vec![0x1a, 0x00, 0x01, 0x00, 0x00]),
                        ("cleanup", text("delete")),
                        ("delete_retention_ms", vec![0x1a, 0x05, 0x26, 0x5c, 0x00]),
                        ("on_full", text("reject")),
                    ]),
                ),
            ]),
        )]),
    );
    is_golden(&Request::DeleteTopic(DeleteTopic { name: "t".into() }), &map(&[("delete_topic", map(&[("name", text("t"))]))]));
    is_golden(&Request::DescribeTopic(DescribeTopic { name: "t".into() }), &map(&[("describe_topic", map(&[("name", text("t"))]))]));
}

#[test]
fn limits_and_cleanup_have_golden_bytes_and_a_limit_is_left_out_where_there_is_none() {
    let config = TopicConfig { retention_ms: Some(86_400_000), retention_bytes: Some(1 << 30), ..TopicConfig::default() };
    is_golden(
        &config,
        &map(&[
            ("durability", text("sync")),
            ("segment_bytes", vec![0x1a, 0x10, 0x00, 0x00, 0x00]),
            ("max_batch_bytes", vec![0x1a, 0x00, 0x40, 0x00, 0x00]),
            ("retention_ms", vec![0x1a, 0x05, 0x26, 0x5c, 0x00]),
            ("retention_bytes", vec![0x1a, 0x40, 0x00, 0x00, 0x00]),
            ("cleanup", text("delete")),
            ("delete_retention_ms", vec![0x1a, 0x05, 0x26, 0x5c, 0x00]),
            ("on_full", text("reject")),
        ]),
    );
    let config = TopicConfig {
        cleanup: Cleanup::Compact,
        delete_retention_ms: 7,
        quota_bytes: Some(8),
        on_full: OnFull::DropOldest,
        ..TopicConfig::default()
    };
    is_golden(
        &config,
        &map(&[
            ("durability", text("sync")),
            ("segment_bytes", vec![0x1a, 0x10, 0x00, 0x00, 0x00]),
            ("max_batch_bytes", vec![0x1a, 0x00, 0x40, 0x00, 0x00]),
            ("cleanup", text("compact")),
            ("delete_retention_ms", vec![7]),
            ("quota_bytes", vec![8]),
            ("on_full", text("drop-oldest")),
        ]),
    );
    assert_eq!(decode::<TopicConfig>(&map(&[])).expect("an older peer says nothing of it"), TopicConfig::default());
}

#[test]
fn a_change_of_a_topic_has_golden_bytes_and_leaves_alone_what_it_does_not_name() {
    let nothing = AlterTopic { name: "t".into(), ..AlterTopic::default() };
    is_golden(&Request::AlterTopic(nothing.clone()), &map(&[("alter_topic", map(&[("name", text("t"))]))]));
    let everything = AlterTopic {
        durability: Some(Durability::Os),
        max_batch_bytes: Some(5),
        retention_ms: Some(Limit::Of(7)),
        retention_bytes: Some(Limit::Unlimited),
        cleanup: Some(Cleanup::CompactDelete),
        delete_retention_ms: Some(9),
        quota_bytes: Some(Limit::Of(11)),
        on_full: Some(OnFull::DropOldest),
        ..nothing.clone()
    };
    is_golden(
        &Request::AlterTopic(everything.clone()),
        &map(&[(
            "alter_topic",
            map(&[
                ("name", text("t")),
                ("durability", text("os")),
                ("max_batch_bytes", vec![5]),
                ("retention_ms", map(&[("of", vec![7])])),
                ("retention_bytes", text("unlimited")),
                ("cleanup", text("compact,delete")),
                ("delete_retention_ms", vec![9]),
                ("quota_bytes", map(&[("of", vec![11])])),
                ("on_full", text("drop-oldest")),
            ]),
        )]),
    );
    let before = TopicConfig { retention_ms: Some(1), retention_bytes: Some(2), segment_bytes: 3, ..TopicConfig::default() };
    assert!(nothing.is_empty() && !everything.is_empty());
    assert_eq!(nothing.applied_to(&before), before);
    let after = TopicConfig {
        durability: Durability::Os,
        segment_bytes: 3,
        max_batch_bytes: 5,
        retention_ms: Some(7),
        retention_bytes: None,
        cleanup: Cleanup::CompactDelete,
        delete_retention_ms: 9,
        quota_bytes: Some(11),
        on_full: OnFull::DropOldest,
    };
    assert_eq!(everything.applied_to(&before), after);
}

#[test]
fn deleting_records_has_golden_bytes() {
    is_golden(
        &Request::DeleteRecords(DeleteRecords { topic: "t".into(), partition: 2, before: Position::Offset(500) }),
        &map(&[(
            "delete_records",
            map(&[("topic", text("t")), ("partition", vec![2]), ("before", map(&[("offset", vec![0x19, 0x01, 0xf4])]))]),
        )]),
    );
    is_golden(
        &Response::RecordsDeleted(RecordsDeleted { log_start: 500 }),
        &map(&[("records_deleted", map(&[("log_start", vec![0x19, 0x01, 0xf4])]))]),
    );
}

#[test]
fn short_responses_have_golden_bytes() {
    is_golden(&Response::Done, &text("done"));
    is_golden(
        &Response::BrokerInfo(BrokerInfo { version: "0.1.0".into(), max_batch_bytes: 100, max_module_bytes: 24 }),
        &map(&[(
            "broker_info",
            map(&[("version", text("0.1.0")), ("max_batch_bytes", vec![0x18, 100]), ("max_module_bytes", vec![0x18, 24])]),
        )]),
    );
    is_golden(
        &Response::ProduceOpened(ProduceOpened { max_batch_bytes: 1, durability: Durability::Os, topic_epoch: 2, producer_id: None }),
        &map(&[("produce_opened", map(&[("max_batch_bytes", vec![1]), ("durability", text("os")), ("topic_epoch", vec![2])]))]),
    );
    is_golden(
        &Response::ConsumeOpened(ConsumeOpened { start_offset: 1, log_start: 2, high_watermark: 3, log_end: 4 }),
        &map(&[(
            "consume_opened",
            map(&[("start_offset", vec![1]), ("log_start", vec![2]), ("high_watermark", vec![3]), ("log_end", vec![4])]),
        )]),
    );
    is_golden(
        &Response::Offset(OffsetFound { offset: 7, timestamp: None }),
        &map(&[("offset", map(&[("offset", vec![7]), ("timestamp", vec![NULL])]))]),
    );
}

#[test]
fn an_error_has_golden_bytes() {
    use crate::error::{ErrorCode, WireError};
    let short = WireError::new(ErrorCode::Overloaded, "busy");
    is_golden(&short, &map(&[("code", vec![6]), ("retryable", vec![0xf5]), ("message", text("busy"))]));
    let mut full = WireError::new(ErrorCode::OffsetOutOfRange, "no").with_hint("ask");
    (full.range, full.next_offset) = (Some((1, -2)), Some(3));
    is_golden(
        &full,
        &map(&[
            ("code", vec![0x18, 40]),
            ("retryable", vec![0xf4]),
            ("message", text("no")),
            ("hint", text("ask")),
            ("range", array(&[vec![1], vec![0x21]])),
            ("next_offset", vec![3]),
        ]),
    );
    let partly = WireError { partly_stored: true, ..short };
    let golden = [("code", vec![6]), ("retryable", vec![0xf5]), ("message", text("busy")), ("partly_stored", vec![0xf5])];
    is_golden(&partly, &map(&golden));
    // A code from a newer broker keeps its number, and its retry flag is obeyed.
    let newer = map(&[("code", vec![0x19, 0xff, 0x00]), ("retryable", vec![0xf5])]);
    let error: WireError = decode(&newer).expect("readable");
    assert_eq!((error.code, error.retryable), (ErrorCode::Unrecognised(0xff00), true));
    assert_eq!(encode(&error.code), [0x19, 0xff, 0x00]);
}

#[test]
fn unknown_fields_are_ignored_and_missing_ones_take_their_default() {
    let newer = map(&[(
        "open_consume",
        map(&[("topic", text("t")), ("isolation", text("committed")), ("nested", map(&[("x", array(&[vec![1], vec![NULL]]))]))]),
    )]);
    let expected = Request::OpenConsume(OpenConsume { topic: "t".into(), partition: 0, ..OpenConsume::default() });
    assert_eq!(decode::<Request>(&newer).expect("readable"), expected);

    let older = map(&[("topic", map(&[("name", text("t")), ("config", map(&[]))]))]);
    let expected = Response::Topic(TopicInfo { name: "t".into(), ..TopicInfo::default() });
    assert_eq!(decode::<Response>(&older).expect("readable"), expected);

    let bare = map(&[("attach_transform", map(&[("topic", text("t")), ("module", text("m")), ("on", text("produce"))]))]);
    assert!(matches!(decode(&bare).expect("readable"), Request::AttachTransform(attach) if attach.params.is_empty()));
}

#[test]
fn a_request_from_a_newer_client_is_an_error_and_not_a_guess() {
    let unknown = map(&[("open_time_machine", map(&[]))]);
    let error = decode::<Request>(&unknown).expect_err("nobody knows it");
    assert!(error.to_string().contains("open_time_machine"), "{error}");
}

#[test]
fn cbor_that_is_not_one_message_is_refused() {
    let good = encode(&Request::BrokerInfo);
    let cases: [(&str, Vec<u8>); 5] = [
        ("nothing", vec![]),
        ("cut off", good[..good.len() - 1].to_vec()),
        ("bytes behind it", [&good[..], &[0]].concat()),
        ("a text of 2^60 bytes", vec![0x7b, 0x10, 0, 0, 0, 0, 0, 0, 0]),
        ("a hundred levels", [vec![0x81; 100], vec![NULL]].concat()),
    ];
    for (name, bytes) in cases {
        assert!(matches!(decode::<Request>(&bytes), Err(MessageError::Malformed(_))), "{name}");
    }
}

fn ack(durability: Durability) -> Ack {
    Ack { base_offset: 1, last_offset: 0x0203, append_time_ms: -1, topic_epoch: 4, durability, records_dropped: 5 }
}

#[test]
fn an_acknowledgement_has_golden_bytes() {
    for (durability, number) in
        [(Durability::Sync, [0; 4]), (Durability::Os, [0xff; 4]), (Durability::Interval(Duration::from_millis(200)), [0, 0, 0, 200])]
    {
        let golden: Vec<u8> = [
            &[0, 0, 0, 0, 0, 0, 0, 1][..], // base offset
            &[0, 0, 0, 0, 0, 0, 2, 3],     // last offset
            &[0xff; 8],                    // append time
            &[0, 0, 0, 4],                 // topic epoch
            &number,                       // durability
            &[0, 0, 0, 5],                 // records dropped
        ]
        .concat();
        assert_eq!(ack(durability).encode(), golden[..]);
        assert_eq!(Ack::decode(&golden).expect("readable"), ack(durability));
    }
    for wrong in [0, Ack::BYTES - 1, Ack::BYTES + 1] {
        assert!(matches!(Ack::decode(&vec![0; wrong]), Err(MessageError::WrongLength { .. })));
    }
}

#[test]
fn placements_have_golden_bytes() {
    let placements = Placements {
        ack: ack(Durability::Sync),
        records: vec![PlacedRecord { partition: 2, offset: 0x0102_0304_0506_0708 }, PlacedRecord::DROPPED],
    };
    let golden = [
        &placements.ack.encode()[..],
        &[0, 0, 0, 2],                         // two records
        &[0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8], // partition 2
        &[0xff; 12],                           // left out
    ]
    .concat();
    assert_eq!(placements.encode(), golden);
    assert_eq!(Placements::decode(&golden).expect("readable"), placements);
    for length in 0..golden.len() {
        assert!(Placements::decode(&golden[..length]).is_err(), "cut off at {length}");
    }
    let mut claims_four_billion = golden.clone();
    claims_four_billion[36..40].fill(0xff);
    assert!(Placements::decode(&claims_four_billion).is_err());
    assert!(Placements::decode(&[&golden[..], &[0]].concat()).is_err(), "a byte behind them");
}

#[test]
fn watermarks_have_golden_bytes() {
    let watermarks = Watermarks { log_start: 1, high_watermark: 2, log_end: 0x0300 };
    let golden = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 3, 0];
    assert_eq!(watermarks.encode(), golden);
    assert_eq!(Watermarks::decode_front(&[&golden[..], b"batches"].concat()).expect("readable"), watermarks);
    assert!(Watermarks::decode_front(&golden[..23]).is_err());
}

#[test]
fn only_requests_that_can_be_repeated_are_idempotent() {
    for request in [
        Request::BrokerInfo,
        Request::OpenConsume(OpenConsume::default()),
        Request::ListTopics,
        Request::DescribeTopic(DescribeTopic::default()),
        Request::ListOffset(ListOffset::default()),
        Request::ListModules,
    ] {
        assert!(request.is_idempotent(), "{request:?}");
    }
    for request in [
        Request::OpenProduce(OpenProduce::default()),
        Request::CreateTopic(CreateTopic::default()),
        Request::DeleteTopic(DeleteTopic::default()),
        Request::DeployModule(DeployModule::default()),
        Request::DeleteModule(DeleteModule { module: ModuleRef::current("m") }),
        Request::AlterTopic(AlterTopic::default()),
        Request::DeleteRecords(DeleteRecords::default()),
    ] {
        assert!(!request.is_idempotent(), "{request:?}");
    }
}
