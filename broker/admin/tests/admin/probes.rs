//! Health, and what else is asked for.

use crate::broker::{Broker, Door, Reply};
use millpond_admin::AdminLimits;
use millpond_log::sim::{Fault, Operation};

#[tokio::test]
async fn ready_follows_the_broker_and_live_does_not() {
    let starting = Door::open(AdminLimits::default()).await;
    let broker = Broker::start().await;
    let mut seen = Vec::new();
    for (door, phase) in [(&starting, "starting"), (&broker.door, "ready"), (&broker.door, "stopping")] {
        if phase == "stopping" {
            broker.door.status.stopping();
            broker.engine.shutdown().await;
        }
        let (ready, live) = (door.get("/health/ready").await, door.get("/health/live").await);
        assert_eq!((live.code, live.body.as_str()), (200, "alive\n"));
        assert_eq!(ready.body, format!("{phase}\n"));
        seen.push(ready.code);
    }
    assert_eq!(seen, [503, 200, 503]);
    starting.status.stopping();
    assert_eq!(starting.get("/health/ready").await.body, "starting\n", "it has nothing to stop yet");
}

#[tokio::test]
async fn many_failed_partitions_are_named_up_to_a_number() {
    let broker = Broker::start().await;
    broker.topic("t", 13, "sync").await;
    for partition in 0..13 {
        broker.disk.fail(Operation::Write, 1, Fault::Device);
        broker.produce("t", partition, "a").await.expect_err("the disk failed");
    }
    let ready = broker.door.get("/health/ready").await;
    assert_eq!((ready.code, ready.body.lines().count()), (200, 12), "{}", ready.body);
    assert!(ready.body.contains("\nt[9] takes no records: ") && ready.body.ends_with("\nand 3 more\n"), "{}", ready.body);
}

#[tokio::test]
async fn a_broker_that_refuses_batches_for_want_of_room_is_ready_and_says_so() {
    let broker = Broker::with(|config| config.reserve_bytes = 0, AdminLimits::default()).await;
    broker.topic("t", 2, "sync").await;
    broker.topic("other", 1, "sync").await;
    let large = "x".repeat(100_000);
    broker.produce("t", 0, &large).await.expect("there is room");
    assert_eq!(broker.door.get("/health/ready").await.body, "ready\n");
    broker.disk.limit_bytes(Some(broker.disk.used_bytes()));
    broker.produce("t", 0, &large).await.expect_err("the disk is full");
    let ready = broker.door.get("/health/ready").await;
    assert_eq!((ready.code, ready.body.as_str()), (200, "ready (writes refused: the disk is full, 1 of 3 partitions)\n"));
    broker.disk.limit_bytes(None);
    broker.produce("t", 0, &large).await.expect("there is room again");
    assert_eq!(broker.door.get("/health/ready").await.body, "ready\n");
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_in_words() {
    let broker = Broker::start().await;
    for path in ["/", "/metrics/", "/Metrics", "//metrics", "/health", "/../metrics", "/metrics%00", "*"] {
        let reply = broker.door.get(path).await;
        assert_eq!((reply.code, reply.body.as_str()), (404, "not found; there are /metrics, /health/live and /health/ready\n"), "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"] {
        let reply = broker.door.request(method, "/metrics").await;
        assert_eq!(reply.code, 405, "{method}");
        assert!(reply.fields.contains("Allow: GET, HEAD"), "{}", reply.fields);
    }
    assert_eq!(broker.door.get("/metrics?name=millpond_ready").await.code, 200, "a query is not looked at");
}

#[tokio::test]
async fn head_gets_the_fields_and_no_body() {
    let broker = Broker::start().await;
    for path in ["/metrics", "/health/live", "/health/ready", "/nothing"] {
        let (get, head) = (broker.door.get(path).await, broker.door.request("HEAD", path).await);
        assert_eq!((get.code, &get.fields), (head.code, &head.fields), "{path}");
        let text = broker.door.exchange(format!("HEAD {path} HTTP/1.0\r\n\r\n").as_bytes()).await;
        assert!(text.ends_with("\r\n\r\n"), "{text}");
    }
}

#[tokio::test]
async fn http_1_0_gets_the_same_metrics_in_one_piece() {
    let broker = Broker::start().await;
    broker.topic("t", 100, "sync").await;
    let text = broker.door.exchange(b"GET /metrics HTTP/1.0\r\n\r\n").await;
    let reply = Reply::read(&text);
    assert!(!reply.fields.contains("chunked"), "{}", reply.fields);
    assert_eq!(reply.body, broker.door.get("/metrics").await.body);
}

#[tokio::test]
async fn a_web_page_reads_nothing_of_a_door_on_loopback_under_a_name_of_its_own() {
    let broker = Broker::start().await;
    broker.topic("secret-name", 1, "sync").await;
    for path in ["/metrics", "/health/live", "/health/ready", "/nothing"] {
        let reply = broker.door.get_as("evil.example:9640", path).await;
        assert_eq!(reply.code, 421, "{path}: {}", reply.body);
        assert!(!reply.body.contains("secret-name") && reply.body.contains("`localhost`") && reply.body.contains("`admin.listen`"));
    }
    let text = broker.door.exchange(b"GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(Reply::read(&text).code, 421, "a target that is a whole URL says whose it is");
    for host in ["localhost", "LOCALHOST:9640", "127.0.0.1", "[::1]:9640", "gateway.localhost"] {
        assert_eq!(broker.door.get_as(host, "/metrics").await.code, 200, "{host}");
    }
    assert_eq!(Reply::read(&broker.door.exchange(b"GET /metrics HTTP/1.0\r\n\r\n").await).code, 200, "one that says nothing is no browser");
    // Others reach it by names that it can't know.
    let mut everywhere = Door::open_at(([0, 0, 0, 0], 0).into(), AdminLimits::default()).await;
    everywhere.address.set_ip([127, 0, 0, 1].into());
    assert_eq!(everywhere.get_as("gateway.example:9640", "/health/live").await.code, 200);
}
