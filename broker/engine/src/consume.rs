//! The way of batches out: from a position, whole and as they are stored, and then as they come.
//!
//! A consumer sees what lies below the high watermark. It keeps its place in the files between two reads, so reading on costs no
//! search. At the end it waits for the partition's watermarks to move; nothing polls, but for the consumer of a view, which looks once a
//! second whether the view is still there.

use crate::{
    error::{EngineError, Purpose},
    partition::{Partition, Phase, View},
    services::Services,
    views::{TopicView, ViewLimits},
};
use bytes::Bytes;
use millpond_log::{Cursor, LogError};
use millpond_protocol::message::{ConsumeOpened, OffsetFound, Position, Watermarks};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

/// An endless stream of batches out of one partition.
#[derive(Debug)]
pub struct ConsumeStream {
    services: Arc<Services>,
    partition: Arc<Partition>,
    state: watch::Receiver<View>,
    /// What it is read through; none is as it is stored.
    view: Option<TopicView>,
    cursor: Cursor,
    /// What the consumer has been told.
    told: Watermarks,
    told_at: Instant,
}

impl ConsumeStream {
    pub(crate) async fn open(
        services: &Arc<Services>,
        partition: &Arc<Partition>,
        from: Position,
        view: Option<TopicView>,
    ) -> Result<(ConsumeStream, ConsumeOpened), EngineError> {
        let state = partition.subscribe();
        let start_offset = resolve(services, partition, from, Purpose::Read).await?.offset;
        let told = partition.watermarks();
        let stream = ConsumeStream {
            services: Arc::clone(services),
            partition: Arc::clone(partition),
            state,
            view,
            cursor: Cursor::new(start_offset),
            told,
            told_at: Instant::now(),
        };
        let opened = ConsumeOpened { start_offset, log_start: told.log_start, high_watermark: told.high_watermark, log_end: told.log_end };
        Ok((stream, opened))
    }

    /// The offset that the next batches begin with, or hold.
    pub fn position(&self) -> i64 {
        self.cursor.offset()
    }

    /// Waits until there is something to say: whole batches, `max_bytes` of them or one that is larger, with how far the partition
    /// reaches; or no batches, where only that has changed. What is said without batches comes ten times a second at most.
    ///
    /// The first batch may begin before [`ConsumeStream::position`]. A future that is dropped loses nothing.
    ///
    /// # Errors
    ///
    /// [`EngineError::TopicNotFound`] once the topic is deleted, [`EngineError::ViewNotFound`] once the view is, [`EngineError::ShuttingDown`] at the end of what is there while the
    /// broker stops, [`EngineError::OffsetOutOfRange`] if the position is not in the log any more, [`EngineError::Log`].
    pub async fn next(&mut self, max_bytes: usize) -> Result<(Watermarks, Bytes), EngineError> {
        loop {
            let View { watermarks, phase } = *self.state.borrow_and_update();
            if phase == Phase::Deleted {
                return Err(EngineError::TopicNotFound { name: self.partition.topic().as_ref().to_owned(), nearest: None });
            }
            self.view.as_ref().map_or(Ok(()), TopicView::is_there)?;
            if self.position() < watermarks.high_watermark {
                match self.read_view(max_bytes, watermarks.high_watermark).await? {
                    Some(batches) => return Ok((self.tell(watermarks), batches)),
                    None => continue,
                }
            }
            if phase == Phase::Closed {
                return Err(EngineError::ShuttingDown);
            }
            let quiet_until = self.told_at + WATERMARKS_INTERVAL;
            if watermarks == self.told {
                self.changed().await?;
            } else if Instant::now() >= quiet_until {
                return Ok((self.tell(watermarks), Bytes::new()));
            } else {
                // A write moves the log end first and the high watermark a moment later: most often batches come before this is over.
                let _ = timeout_at(quiet_until, self.state.changed()).await;
            }
        }
    }

    /// Waits for something to happen; of a view, at most for as long as nobody looks whether it is there.
    async fn changed(&mut self) -> Result<(), EngineError> {
        let limit = if self.view.is_some() { VIEW_LOOK } else { Duration::MAX };
        match timeout(limit, self.state.changed()).await {
            // The sender lives in the partition, which this stream keeps.
            Ok(changed) => changed.map_err(|_| EngineError::ShuttingDown),
            Err(_) => Ok(()),
        }
    }

    /// Reads batches, and shows them through the view. None where nothing of them is left and there is no hurry to say how far it is.
    async fn read_view(&mut self, max_bytes: usize, end: i64) -> Result<Option<Bytes>, EngineError> {
        let Some(view) = self.view.clone() else { return self.read(max_bytes, end).await.map(Some) };
        let before = self.cursor.clone();
        let config = &self.services.config;
        let limits = ViewLimits {
            section_bytes_max: config.section_bytes_max,
            batch_bytes_max: config.max_batch_bytes,
            push_bytes_enough: max_bytes,
        };
        let batches = self.read(max_bytes, end).await?;
        // If this future is dropped here, the place is where it was.
        let after = std::mem::replace(&mut self.cursor, before);
        let seen = view.see(self.partition.number(), batches, limits).await?;
        self.cursor = seen.stopped_at.map_or(after, Cursor::new);
        let may_wait = self.position() < end && self.told_at.elapsed() < WATERMARKS_INTERVAL;
        Ok(if seen.has_records || !may_wait { Some(seen.batches) } else { None })
    }

    async fn read(&mut self, max_bytes: usize, end: i64) -> Result<Bytes, EngineError> {
        let reader = self.partition.reader()?.clone();
        let mut cursor = self.cursor.clone();
        let read = self.services.io.run(move || {
            let read = reader.read_next(&mut cursor, max_bytes, end);
            (read, cursor)
        });
        let (read, cursor) = read.await?;
        let batches = read.map_err(|error| read_error(&self.partition, error))?;
        if batches.is_empty() {
            // The high watermark lies between batches, so below it there is always a whole one. Without this a fault would spin.
            return Err(read_error(&self.partition, LogError::Failed { cause: format!("no batch was found below offset {end}") }));
        }
        self.cursor = cursor;
        Ok(batches)
    }

    fn tell(&mut self, watermarks: Watermarks) -> Watermarks {
        self.told = watermarks;
        self.told_at = Instant::now();
        watermarks
    }
}

/// Turns a position into an offset that can be read from, up to the high watermark.
pub(crate) async fn resolve(
    services: &Services,
    partition: &Arc<Partition>,
    at: Position,
    purpose: Purpose,
) -> Result<OffsetFound, EngineError> {
    let reader = partition.reader()?.clone();
    let Watermarks { log_start, high_watermark, .. } = partition.watermarks();
    match at {
        Position::Beginning => Ok(OffsetFound { offset: log_start, timestamp: None }),
        Position::End => Ok(OffsetFound { offset: high_watermark, timestamp: None }),
        Position::Offset(offset) if (log_start..=high_watermark).contains(&offset) => Ok(OffsetFound { offset, timestamp: None }),
        Position::Offset(requested) => Err(out_of_range(partition, requested, (log_start, high_watermark), purpose)),
        Position::Time(timestamp) => {
            let found = services.io.run(move || reader.find_time(timestamp, high_watermark)).await?;
            Ok(match found.map_err(|error| read_error(partition, error))? {
                Some((offset, timestamp)) => OffsetFound { offset, timestamp: Some(timestamp) },
                None => OffsetFound { offset: high_watermark, timestamp: None },
            })
        }
    }
}

fn read_error(partition: &Partition, error: LogError) -> EngineError {
    match error {
        LogError::OffsetOutOfRange { requested, start, end } => out_of_range(partition, requested, (start, end), Purpose::Read),
        error => {
            tracing::error!(topic = %partition.topic(), partition = partition.number(), error = error.chain(), "a read failed");
            EngineError::Log { topic: Arc::clone(partition.topic()), partition: partition.number(), source: Arc::new(error) }
        }
    }
}

fn out_of_range(partition: &Partition, requested: i64, (start, end): (i64, i64), purpose: Purpose) -> EngineError {
    EngineError::OffsetOutOfRange { topic: Arc::clone(partition.topic()), partition: partition.number(), requested, start, end, purpose }
}

/// How often the consumer of a view that has nothing to read looks whether the view is still there.
const VIEW_LOOK: Duration = Duration::from_secs(1);

/// How often a consumer that waits is told about watermarks alone.
const WATERMARKS_INTERVAL: Duration = Duration::from_millis(100);
