//! One partition's way from the broker: a task that reads the frames of a stream, and opens another one when it is lost.
//!
//! A frame is put together in one buffer, its batches are checked against their checksums, and it is handed on. The channel behind
//! holds few frames: a consumer that does not read lets it fill up, the task stops reading, QUIC's flow control stops the broker.

use super::{OutOfRange, batch::ConsumedBatch};
use crate::{
    backoff::Backoff,
    client::Core,
    error::Error,
    stream::{self, Frame, FrameReader, ended, wire_error},
};
use bytes::{Buf, Bytes};
use millpond_protocol::{
    batch::{Batch, BatchError},
    error::ErrorCode,
    frame::Kind,
    message::{ConsumeOpened, OpenConsume, Position, Request, Response, Watermarks},
};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

/// The largest frame of batches that is read, in bytes of payload. A broker pushes about a megabyte at a time, or one batch.
const FRAME_BYTES_MAX: u32 = 128 << 20;

/// What a reader hands on.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) partition: u32,
    /// Which of the partition's readers this is from: those before a seek do not count.
    pub(crate) generation: u64,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    Batch(ConsumedBatch),
    /// The broker has sent everything below this high watermark.
    CaughtUp(i64),
    /// The offset to go on from was not there any more; it goes on from this one.
    Moved(i64),
    /// The reader has ended.
    Failed(Error),
}

/// What is read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) topic: Arc<str>,
    /// None is as the records are stored.
    pub(crate) view: Option<Arc<str>>,
    pub(crate) out_of_range: OutOfRange,
}

impl Source {
    /// Where to go on after this error, if there is such a place.
    fn place_after(&self, error: &Error) -> Option<Position> {
        match (error, self.out_of_range) {
            (Error::Broker(said), OutOfRange::Earliest) if said.code == ErrorCode::OffsetOutOfRange => Some(Position::Beginning),
            (Error::Broker(said), OutOfRange::Latest) if said.code == ErrorCode::OffsetOutOfRange => Some(Position::End),
            _ => None,
        }
    }
}

/// A partition that is being read.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) core: Arc<Core>,
    pub(crate) source: Source,
    pub(crate) partition: u32,
    pub(crate) generation: u64,
    pub(crate) watermarks: Arc<Mutex<Watermarks>>,
    pub(crate) out: mpsc::Sender<Event>,
    /// The offset of the next record that was not handed on.
    pub(crate) next: i64,
}

/// Opens a partition's stream: at most once after each loss of the connection, within the request timeout.
pub(crate) async fn open(core: &Core, source: &Source, partition: u32, from: Position) -> Result<(FrameReader, ConsumeOpened), Error> {
    let what = || format!("opening {}[{partition}] to consume", source.topic);
    let mut last = None;
    let opening = async {
        let mut backoff = Backoff::default();
        loop {
            match open_or_move(core, source, partition, from).await {
                Err(error) if error.retryable() => last = Some(Box::new(error)),
                outcome => return outcome,
            }
            sleep(backoff.next()).await;
        }
    };
    match timeout(core.request_timeout, opening).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::TimedOut {
            what: what(),
            after: core.request_timeout,
            maybe_done: false,
            last: last.or_else(|| core.link.last_error().map(Box::new)),
        }),
    }
}

/// As [`open_once`], from the place that the consumer was told for the case that `from` is out of range.
async fn open_or_move(core: &Core, source: &Source, partition: u32, from: Position) -> Result<(FrameReader, ConsumeOpened), Error> {
    let error = match open_once(core, source, partition, from).await {
        Err(error) => error,
        opened => return opened,
    };
    let Some(place) = source.place_after(&error) else { return Err(error) };
    tracing::warn!(topic = %source.topic, partition, %error, "an offset to read from is out of range; reading goes on at the {place:?}");
    open_once(core, source, partition, place).await
}

async fn open_once(core: &Core, source: &Source, partition: u32, from: Position) -> Result<(FrameReader, ConsumeOpened), Error> {
    let connection = core.link.get().await?;
    let request = Request::OpenConsume(OpenConsume {
        topic: source.topic.as_ref().to_owned(),
        partition,
        from,
        view: source.view.as_deref().map(str::to_owned),
    });
    let (mut send, mut reader) = stream::request(&core.link, &connection, &request).await?;
    // There is nothing more to say; this fails only on a stream that the broker has stopped.
    let _ = send.finish();
    match reader.response().await? {
        Response::ConsumeOpened(opened) => Ok((reader, opened)),
        other => Err(Error::Protocol(format!("open_consume was answered with {other:?}"))),
    }
}

impl Reader {
    /// Reads until the consumer is gone or something happens that trying again does not mend.
    pub(crate) async fn run(mut self, first: FrameReader) {
        let mut stream = Some(first);
        let mut backoff = Backoff::default();
        loop {
            let error = match stream.take() {
                Some(open) => match self.read(open, &mut backoff).await {
                    Ok(()) => return,
                    Err(error) => error,
                },
                None => match open_or_move(&self.core, &self.source, self.partition, Position::Offset(self.next)).await {
                    Ok((open, opened)) => {
                        *self.watermarks.lock() = watermarks(&opened);
                        if opened.start_offset != self.next {
                            self.next = opened.start_offset;
                            self.hand_on(What::Moved(self.next)).await;
                        }
                        stream = Some(open);
                        continue;
                    }
                    Err(error) => error,
                },
            };
            if !error.retryable() && self.source.place_after(&error).is_none() {
                self.hand_on(What::Failed(error)).await;
                return;
            }
            tracing::debug!(topic = %self.source.topic, partition = self.partition, %error, "a stream to consume was lost");
            sleep(backoff.next()).await;
        }
    }

    /// Hands on the frames of one stream; ends well when nobody wants them any more.
    async fn read(&mut self, mut stream: FrameReader, backoff: &mut Backoff) -> Result<(), Error> {
        loop {
            let frame = stream.next(FRAME_BYTES_MAX).await?.ok_or_else(ended)?;
            backoff.reset();
            self.core.link.was_useful();
            let (watermarks, payload) = pushed(frame)?;
            *self.watermarks.lock() = watermarks;
            // While it catches up, and no longer.
            stream.reuse((!payload.is_empty()).then(|| self.core.spare.user()));
            if payload.is_empty() {
                if !self.hand_on(What::CaughtUp(watermarks.high_watermark)).await {
                    return Ok(());
                }
                continue;
            }
            let from = self.next;
            let (batches, fault) = unpack(payload.clone(), from);
            if let Some(last) = batches.last() {
                self.next = last.header().next_offset();
                let batch =
                    ConsumedBatch::new(Arc::clone(&self.source.topic), self.partition, watermarks, batches, from).with_push(payload);
                if !self.hand_on(What::Batch(batch)).await {
                    return Ok(());
                }
            }
            match fault {
                None => {}
                Some(Fault::Unreadable { offset, next_offset, cause }) => {
                    let (topic, partition) = (Arc::clone(&self.source.topic), self.partition);
                    return Err(Error::UnreadableBatch { topic, partition, offset, next_offset, cause });
                }
                Some(Fault::Backwards { offset, before }) => {
                    return Err(Error::Protocol(format!("a batch with offset {offset} came behind offset {before}")));
                }
            }
        }
    }

    /// False when nobody wants it any more.
    async fn hand_on(&self, what: What) -> bool {
        self.out.send(Event { partition: self.partition, generation: self.generation, what }).await.is_ok()
    }
}

/// The watermarks of a push and the batches behind them.
fn pushed(frame: Frame) -> Result<(Watermarks, Bytes), Error> {
    let Frame { kind, mut payload } = frame;
    match kind {
        Kind::Batches => {}
        Kind::Error => return Err(wire_error(&payload)),
        other => return Err(Error::Protocol(format!("a frame of kind {other:?} in place of batches"))),
    }
    let watermarks = Watermarks::decode_front(&payload).map_err(|error| Error::Protocol(format!("a push is {error}")))?;
    payload.advance(Watermarks::BYTES);
    Ok((watermarks, payload))
}

/// Why the rest of a push cannot be used.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// A batch is damaged; where it says at least how long it is, `next_offset` is behind it.
    Unreadable { offset: i64, next_offset: Option<i64>, cause: BatchError },
    /// A batch that lies before what was read already.
    Backwards { offset: i64, before: i64 },
}

/// The batches of a push, each checked against its checksum, up to the first that cannot be used. `next` is the offset that is expected.
fn unpack(mut payload: Bytes, mut next: i64) -> (Vec<Batch>, Option<Fault>) {
    let mut batches = Vec::new();
    loop {
        let batch = match Batch::take_front(&mut payload) {
            Ok(Some(batch)) => batch,
            Ok(None) => return (batches, None),
            Err(cause) => return (batches, Some(Fault::Unreadable { offset: next, next_offset: None, cause })),
        };
        let (offset, behind) = (batch.header().base_offset, batch.header().next_offset());
        if let Err(cause) = batch.verify_crc() {
            return (batches, Some(Fault::Unreadable { offset, next_offset: Some(behind), cause }));
        }
        if behind <= next {
            return (batches, Some(Fault::Backwards { offset, before: next }));
        }
        next = behind;
        batches.push(batch);
    }
}

/// What the answer to an opened stream says about how far the partition reaches.
pub(crate) fn watermarks(opened: &ConsumeOpened) -> Watermarks {
    Watermarks { log_start: opened.log_start, high_watermark: opened.high_watermark, log_end: opened.log_end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use millpond_protocol::{batch::BatchBuilder, compression::Codec, record::NewRecord};

    /// Batches of two records each, one behind the other.
    fn batches(count: i64) -> Vec<BytesMut> {
        let batch_at = |base_offset| {
            let mut builder = BatchBuilder::new();
            for _ in 0..2 {
                builder.push(&NewRecord { value: Some(b"x"), ..NewRecord::default() }).unwrap();
            }
            let batch = Batch::parse(builder.finish(Codec::None).unwrap()).unwrap();
            let mut bytes = BytesMut::from(&batch.bytes()[..]);
            bytes[..16].copy_from_slice(&batch.with_base_offset(base_offset, 0));
            bytes
        };
        (0..count).map(|number| batch_at(number * 2)).collect()
    }

    fn unpacked(parts: &[BytesMut], next: i64) -> (usize, Option<Fault>) {
        let (batches, fault) = unpack(parts.concat().into(), next);
        (batches.len(), fault)
    }

    #[test]
    fn what_comes_before_a_damaged_batch_is_kept() {
        let mut parts = batches(3);
        assert_eq!(unpacked(&parts, 0), (3, None));
        *parts[1].last_mut().unwrap() ^= 1;
        match unpacked(&parts, 0) {
            (1, Some(Fault::Unreadable { offset: 2, next_offset: Some(4), cause: BatchError::ChecksumMismatch { .. } })) => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_torn_batch_is_told_with_the_offset_that_was_expected() {
        let mut parts = batches(2);
        parts[1].truncate(70);
        match unpacked(&parts, 0) {
            (1, Some(Fault::Unreadable { offset: 2, next_offset: None, .. })) => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_batch_may_begin_before_the_offset_and_none_may_lie_before_it() {
        let parts = batches(2);
        assert_eq!(unpacked(&parts, 1), (2, None));
        assert_eq!(unpacked(&parts, 2), (0, Some(Fault::Backwards { offset: 0, before: 2 })));
    }

    #[test]
    fn a_push_that_is_none_is_refused() {
        let frame = |kind, payload: &'static [u8]| Frame { kind, payload: Bytes::from_static(payload) };
        assert_eq!(pushed(frame(Kind::Ack, b"")).unwrap_err().code(), "protocol_violation");
        assert_eq!(pushed(frame(Kind::Batches, b"short")).unwrap_err().code(), "protocol_violation");
        assert_eq!(pushed(frame(Kind::Error, b"no cbor")).unwrap_err().code(), "protocol_violation");
        assert!(pushed(frame(Kind::Batches, &[0; 24])).unwrap().1.is_empty());
    }
}
