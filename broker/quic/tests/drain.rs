//! Stopping: what had arrived is answered, nobody waits for ever.

mod common;

use bytes::Bytes;
use common::{Broker, Frames, ask, batch, big_batch, client_endpoint, patiently};
use gate::Gate;
use millpond_protocol::{
    ALPN,
    message::{Durability, Position, Request, Response},
};
use millpond_quic::{QuicLimits, load_or_create_tls};
use quinn::{ConnectionError, TransportConfig, VarInt};
use std::{sync::Arc, time::Instant};

const BATCHES: i64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_in_flight_are_answered_before_the_connection_closes() {
    let gate = Gate::new();
    let broker = Broker::start_on(gate.disk(), QuicLimits::default()).await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Sync).await;
    let mut watcher = Frames::consume(&connection, "readings", Position::End).await;
    let mut producer = Frames::produce(&connection, "readings").await;

    gate.close();
    for _ in 0..BATCHES {
        producer.send_batch(&batch(&["in flight"])).await;
    }
    // Appended, but on no disk yet: all are in flight.
    while watcher.push().await.expect("watermarks").0.log_end < BATCHES {}
    broker.shutdown.cancel();
    // Half a batch that will never be whole holds nobody up.
    let _ = producer.send.write_all(&common::header(millpond_protocol::frame::Kind::Produce, 100)).await;
    assert_eq!(producer.stopped().await, Some(VarInt::from_u32(2)), "no more is taken");
    gate.open();

    for offset in 0..BATCHES {
        assert_eq!(producer.ack().await.expect("stored").base_offset, offset);
    }
    assert_eq!(producer.next().await, None);
    match patiently(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, VarInt::from_u32(2), "{close}"),
        other => panic!("a farewell, not {other:?}"),
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_comes_in_while_the_broker_drains() {
    let gate = Gate::new();
    let broker = Broker::start_on(gate.disk(), QuicLimits::default()).await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Sync).await;
    let mut producer = Frames::produce(&connection, "readings").await;
    gate.close();
    producer.send_batch(&batch(&["in flight"])).await;
    patiently(gate.somebody_waits()).await;
    broker.shutdown.cancel();
    assert_eq!(producer.stopped().await, Some(VarInt::from_u32(2)));
    let refused = patiently(broker.try_connect(ALPN, TransportConfig::default())).await;
    assert!(matches!(refused, Err(ConnectionError::ConnectionClosed(_))), "{refused:?}");
    gate.open();
    producer.ack().await.expect("stored");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_does_not_read_delays_the_end_by_a_second_at_most() {
    let broker = Broker::start().await;
    let connection = broker.connect().await;
    broker.create_topic(&connection, "readings", Durability::Os).await;
    let mut producer = Frames::produce(&connection, "readings").await;
    let batch: Bytes = big_batch(1 << 20);
    for _ in 0..8 {
        producer.send_batch(&batch).await;
        producer.ack().await.expect("stored");
    }
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(64 << 10));
    let lazy_connection = broker.connect_with(transport).await;
    let _lazy = Frames::consume(&lazy_connection, "readings", Position::Beginning).await;
    let mut idle = Frames::consume(&connection, "readings", Position::End).await;

    let start = Instant::now();
    broker.shutdown.cancel();
    while idle.next().await.is_some() {}
    broker.stop().await;
    assert!(start.elapsed().as_secs() < 8, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_identity_is_the_same_after_a_restart() {
    let broker = Broker::start().await;
    let tls_dir = broker.tls_dir();
    let config = broker.client_config(ALPN, TransportConfig::default());
    let engine = Arc::clone(&broker.engine);
    broker.shutdown.cancel();

    let tls = load_or_create_tls(&tls_dir, &[]).expect("the same files");
    let server = common::bind(&tls, QuicLimits::default(), &engine);
    let (address, shutdown) = (server.local_addr(), tokio_util::sync::CancellationToken::new());
    let running = tokio::spawn(server.run(shutdown.clone()));
    let connecting = client_endpoint().connect_with(config, address, "localhost").expect("an attempt");
    let connection = connecting.await.expect("a client that trusts the authority of before");
    assert!(matches!(ask(&connection, &Request::BrokerInfo).await, Ok(Response::BrokerInfo(_))));
    shutdown.cancel();
    patiently(running).await.expect("no panic");
    broker.stop().await;
}

/// A disk whose syncs can be held up.
mod gate {
    use millpond_log::{
        Disk, RealDisk,
        sim::{HookedDisk, Operation},
    };
    use std::sync::Arc;
    use tokio::sync::watch;

    #[derive(Clone, Debug)]
    pub(crate) struct Gate {
        is_open: watch::Sender<bool>,
        waiting: watch::Sender<usize>,
    }

    impl Gate {
        pub(crate) fn new() -> Gate {
            Gate { is_open: watch::Sender::new(true), waiting: watch::Sender::new(0) }
        }

        /// The real disk, with the gate in front of its syncs.
        pub(crate) fn disk(&self) -> Arc<dyn Disk> {
            let gate = self.clone();
            let pass = move |operation, _: &_| {
                if operation == Operation::Sync {
                    gate.pass();
                }
            };
            Arc::new(HookedDisk::new(Arc::new(RealDisk), pass))
        }

        pub(crate) fn open(&self) {
            self.is_open.send_replace(true);
        }

        pub(crate) fn close(&self) {
            self.is_open.send_replace(false);
        }

        pub(crate) async fn somebody_waits(&self) {
            self.waiting.subscribe().wait_for(|count| *count > 0).await.expect("the sender is here");
        }

        /// Called on a thread of the engine's flushers.
        fn pass(&self) {
            if !*self.is_open.borrow() {
                self.waiting.send_modify(|count| *count += 1);
                let mut is_open = self.is_open.subscribe();
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                runtime.block_on(is_open.wait_for(|is_open| *is_open)).expect("the sender is here");
            }
        }
    }
}
