//! The broker's side of the streams.

use super::{
    sequences::{Sequences, Verdict},
    soon,
    state::{Answer, FakeTopic, OnBatch, OnPush, OnRequest, State, ack_of},
};
use bytes::{Bytes, BytesMut};
use millpond::{BrokerInfo, ErrorCode, ModuleInfo, OffsetFound, Watermarks, WireError};
use millpond_protocol::{
    batch::Batch,
    frame::{FrameHeader, HEADER_BYTES, Kind},
    message::{
        self, Ack, ConsumeOpened, OpenConsume, OpenProduce, PlacedRecord, Placements, ProduceOpened, RecordsDeleted, Request, Response,
    },
    partitioner,
};
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use std::sync::{Arc, atomic::Ordering};
use tokio::task::JoinSet;

const SHUTTING_DOWN: VarInt = VarInt::from_u32(2);

pub(super) async fn run(endpoint: Endpoint, state: Arc<State>) {
    // Sets, so that everything ends with the broker.
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let Ok(connection) = incoming.await else { return };
            state.connections.fetch_add(1, Ordering::SeqCst);
            let mut streams = JoinSet::new();
            while let Ok((send, receive)) = connection.accept_bi().await {
                streams.spawn(stream(connection.clone(), send, receive, Arc::clone(&state)));
            }
        });
    }
}

/// Ends early, and without a word, whenever the client is gone.
async fn stream(connection: Connection, send: SendStream, mut receive: RecvStream, state: Arc<State>) -> Option<()> {
    let (kind, payload) = read(&mut receive).await?;
    assert_eq!(kind, Kind::Request);
    match message::decode(&payload).unwrap() {
        Request::OpenProduce(open) => produce(&connection, send, receive, &state, &open).await,
        Request::OpenConsume(open) => consume(&connection, send, &state, &open).await,
        request => answer(&connection, send, receive, &state, request).await,
    }
}

async fn read(receive: &mut RecvStream) -> Option<(Kind, Bytes)> {
    let mut header = [0; HEADER_BYTES];
    receive.read_exact(&mut header).await.ok()?;
    let header = FrameHeader::decode(header, u32::MAX).unwrap();
    let mut payload = vec![0; header.length as usize];
    receive.read_exact(&mut payload).await.ok()?;
    Some((header.kind, payload.into()))
}

async fn write(send: &mut SendStream, kind: Kind, payload: &[u8]) -> Option<()> {
    let header = FrameHeader { kind, length: u32::try_from(payload.len()).unwrap() };
    send.write_all(&header.encode()).await.ok()?;
    send.write_all(payload).await.ok()
}

async fn respond(send: &mut SendStream, outcome: Result<Response, WireError>) -> Option<()> {
    match outcome {
        Ok(response) => write(send, Kind::Response, &message::encode(&response)).await,
        Err(error) => write(send, Kind::Error, &message::encode(&error)).await,
    }
}

fn lose(connection: &Connection) {
    connection.close(SHUTTING_DOWN, b"");
}

async fn answer(connection: &Connection, mut send: SendStream, mut receive: RecvStream, state: &State, request: Request) -> Option<()> {
    let script = state.on_request.lock().pop_front().unwrap_or(OnRequest::Answer);
    match script {
        OnRequest::Refuse(error) => return respond(&mut send, Err(error)).await,
        OnRequest::LoseBefore => {
            lose(connection);
            return None;
        }
        OnRequest::Hang => return std::future::pending().await,
        OnRequest::Answer | OnRequest::LoseAfter => {}
    }
    let outcome = act(&mut receive, state, request).await;
    if matches!(script, OnRequest::LoseAfter) {
        lose(connection);
        return None;
    }
    respond(&mut send, outcome?).await?;
    send.finish().ok()
}

async fn act(receive: &mut RecvStream, state: &State, request: Request) -> Option<Result<Response, WireError>> {
    let name = message_name(&request);
    let missing = |name: &str| WireError::new(ErrorCode::TopicNotFound, format!("there is no topic `{name}`")).with_hint("create it first");
    let outcome = match request {
        Request::BrokerInfo => Ok(Response::BrokerInfo(BrokerInfo { version: "fake".to_owned(), ..BrokerInfo::default() })),
        Request::ListTopics => Ok(Response::Topics(state.topics.lock().iter().map(|(name, topic)| topic.info(name)).collect())),
        Request::DescribeTopic(ask) => {
            state.topics.lock().get(&ask.name).map(|topic| Response::Topic(topic.info(&ask.name))).ok_or_else(|| missing(&ask.name))
        }
        Request::CreateTopic(create) => {
            let topic = super::FakeTopic::new(create.partitions as usize);
            let info = topic.info(&create.name);
            state.topics.lock().insert(create.name, topic);
            Ok(Response::Topic(info))
        }
        Request::DeleteTopic(ask) => state.topics.lock().remove(&ask.name).map(|_| Response::Done).ok_or_else(|| missing(&ask.name)),
        Request::ListOffset(ask) => match state.topics.lock().get(&ask.topic) {
            None => Err(missing(&ask.topic)),
            Some(topic) => {
                topic.resolve(ask.partition as usize, ask.at).map(|offset| Response::Offset(OffsetFound { offset, timestamp: None }))
            }
        },
        Request::AlterTopic(change) => match state.topics.lock().get_mut(&change.name) {
            None => Err(missing(&change.name)),
            Some(topic) => {
                topic.max_batch_bytes = change.max_batch_bytes.unwrap_or(topic.max_batch_bytes);
                topic.epoch += 1;
                Ok(Response::Topic(topic.info(&change.name)))
            }
        },
        Request::DeleteRecords(ask) => match state.topics.lock().get_mut(&ask.topic) {
            None => Err(missing(&ask.topic)),
            Some(topic) => topic.resolve(ask.partition as usize, ask.before).map(|log_start| {
                topic.log_start = log_start;
                Response::RecordsDeleted(RecordsDeleted { log_start })
            }),
        },
        Request::DeployModule(module) => {
            if module.size_bytes > state.max_module_bytes.load(Ordering::SeqCst) as u64 {
                receive.stop(VarInt::from_u32(0)).ok()?;
                return Some(Err(WireError::new(ErrorCode::ModuleTooLarge, "the module is too large")));
            }
            let mut body = BytesMut::new();
            while (body.len() as u64) < module.size_bytes {
                let (kind, part) = read(receive).await?;
                assert_eq!(kind, Kind::Body);
                body.extend_from_slice(&part);
            }
            let info = ModuleInfo { name: module.name, size_bytes: module.size_bytes, ..ModuleInfo::default() };
            state.modules.lock().push(body.freeze());
            Ok(Response::Module(info))
        }
        _ => Ok(Response::Done),
    };
    state.done.lock().push(name);
    Some(outcome)
}

fn message_name(request: &Request) -> String {
    format!("{request:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()
}

async fn produce(connection: &Connection, mut send: SendStream, mut receive: RecvStream, state: &State, open: &OpenProduce) -> Option<()> {
    let opened = state.topics.lock().get(&open.topic).map(|topic| ProduceOpened {
        max_batch_bytes: topic.max_batch_bytes,
        topic_epoch: topic.epoch,
        producer_id: Some(state.next_producer_id.fetch_add(1, Ordering::SeqCst)).filter(|id| *id >= 0),
        ..ProduceOpened::default()
    });
    let missing = || WireError::new(ErrorCode::TopicNotFound, format!("there is no topic `{}`", open.topic));
    let found = opened.is_some();
    respond(&mut send, opened.map(Response::ProduceOpened).ok_or_else(missing)).await?;
    if !found {
        return None;
    }
    state.opened.lock().push(open.partition);
    loop {
        let (kind, payload) = read(&mut receive).await?;
        assert_eq!(kind, Kind::Produce);
        let batch = Batch::parse(payload).unwrap();
        batch.verify_crc().unwrap();
        let script = state.on_batch.lock().pop_front().unwrap_or(OnBatch::Store);
        if matches!(script, OnBatch::StopFirst { .. }) {
            receive.stop(SHUTTING_DOWN).ok()?;
        }
        state.arrived.send_modify(|arrived| *arrived += 1);
        match script {
            OnBatch::Store => {}
            OnBatch::StopFirst { refuse, then_lose } => {
                soon(state.gate.acquire()).await.unwrap().forget();
                let (kind, answer) = refuse.map_or_else(|| store(state, open, &batch), |error| (Kind::Error, message::encode(&error)));
                write(&mut send, kind, &answer).await?;
                send.finish().ok()?;
                if then_lose && send.stopped().await.is_ok() {
                    lose(connection);
                }
                return None;
            }
            OnBatch::StoreWhenLetThrough => soon(state.gate.acquire()).await.unwrap().forget(),
            OnBatch::Refuse(error) => {
                write(&mut send, Kind::Error, &message::encode(&error)).await?;
                continue;
            }
            OnBatch::LoseBefore => {
                lose(connection);
                return None;
            }
            OnBatch::LoseAfter => {
                store(state, open, &batch);
                lose(connection);
                return None;
            }
            OnBatch::ResetStream => {
                let _ = send.reset(VarInt::from_u32(3));
                return None;
            }
            OnBatch::AnswerNonsense => {
                write(&mut send, Kind::Ack, b"nonsense").await?;
                continue;
            }
        }
        let (kind, answer) = store(state, open, &batch);
        write(&mut send, kind, &answer).await?;
    }
}

/// Stores a batch, unless its numbers say something else, and gives the answer to it.
fn store(state: &State, open: &OpenProduce, batch: &Batch) -> (Kind, Vec<u8>) {
    let answer = {
        let mut topics = state.topics.lock();
        let topic = topics.get_mut(&open.topic).unwrap();
        match topic.sequences.entry(open.partition).or_insert_with(Sequences::new).look_at(batch.header()) {
            Verdict::Refuse(code) => return (Kind::Error, message::encode(&WireError::new(code, "the numbers are wrong"))),
            Verdict::Again(Answer::Ack(ack)) => Answer::Ack(Ack { append_time_ms: -1, ..ack }),
            Verdict::Again(placements) => placements,
            Verdict::Append => {
                let answer = append(topic, open.partition, batch);
                topic.sequences.get_mut(&open.partition).unwrap().appended(batch.header(), answer.clone());
                answer
            }
        }
    };
    state.changed.send_modify(|changes| *changes += 1);
    match answer {
        Answer::Ack(ack) => (Kind::Ack, ack.encode().to_vec()),
        Answer::Placements(placements) => (Kind::Placements, placements.encode()),
    }
}

fn append(topic: &mut FakeTopic, partition: Option<u32>, batch: &Batch) -> Answer {
    if let Some(partition) = partition {
        topic.append(partition as usize, batch);
        let stored = topic.partitions[partition as usize].last().unwrap();
        return Answer::Ack(Ack { topic_epoch: topic.epoch, ..ack_of(stored) });
    }
    // Record by record, by key.
    let count = u32::try_from(topic.partitions.len()).unwrap();
    let mut records = Vec::new();
    for record in batch.records(1 << 30).unwrap() {
        let record = record.unwrap();
        let partition = partitioner::for_key(record.key.as_deref().unwrap_or_default(), count);
        records.push(PlacedRecord { partition, offset: topic.end(partition as usize) });
        topic.fill(partition as usize, &[record.value.unwrap()]);
    }
    let ack = Ack { base_offset: -1, last_offset: -1, topic_epoch: topic.epoch, ..ack_of(batch) };
    Answer::Placements(Placements { ack, records })
}

async fn consume(connection: &Connection, mut send: SendStream, state: &State, open: &OpenConsume) -> Option<()> {
    let partition = open.partition as usize;
    let mut changed = state.changed.subscribe();
    let (opened, mut next) = {
        let topics = state.topics.lock();
        let missing = || WireError::new(ErrorCode::TopicNotFound, format!("there is no topic `{}`", open.topic));
        let opened = topics.get(&open.topic).ok_or_else(missing).and_then(|topic| {
            let start_offset = topic.resolve(partition, open.from)?;
            let end = topic.end(partition);
            Ok(ConsumeOpened { start_offset, log_start: topic.log_start, high_watermark: end, log_end: end })
        });
        let next = opened.as_ref().map_or(0, |opened| opened.start_offset);
        (opened, next)
    };
    let failed = opened.is_err();
    respond(&mut send, opened.map(Response::ConsumeOpened)).await?;
    if failed {
        return None;
    }
    loop {
        let (watermarks, batch) = {
            let topics = state.topics.lock();
            let topic = topics.get(&open.topic)?;
            let end = topic.end(partition);
            let batch = topic.partitions[partition].iter().find(|batch| batch.header().next_offset() > next).cloned();
            (Watermarks { log_start: topic.log_start, high_watermark: end, log_end: end }, batch)
        };
        let Some(batch) = batch else {
            // Nothing more to send: how far the partition reaches is told alone.
            write(&mut send, Kind::Batches, &watermarks.encode()).await?;
            changed.changed().await.ok()?;
            continue;
        };
        next = batch.header().next_offset();
        let mut payload = watermarks.encode().to_vec();
        payload.extend_from_slice(batch.bytes());
        let script = state.on_push.lock().pop_front().unwrap_or(OnPush::Push);
        match script {
            OnPush::Push => {}
            OnPush::LoseInside => {
                let header = FrameHeader { kind: Kind::Batches, length: u32::try_from(payload.len()).unwrap() };
                send.write_all(&header.encode()).await.ok()?;
                send.write_all(&payload[..payload.len() / 2]).await.ok()?;
                lose(connection);
                return None;
            }
            OnPush::Corrupt => *payload.last_mut().unwrap() ^= 1,
            OnPush::Refuse(error) => {
                write(&mut send, Kind::Error, &message::encode(&error)).await?;
                return send.finish().ok();
            }
        }
        write(&mut send, Kind::Batches, &payload).await?;
        state.pushed_bytes.fetch_add(payload.len(), Ordering::SeqCst);
    }
}
