//! Views: the records of a topic as modules on fetch show them. Nothing is stored; each consumer's batches go through the modules when it reads.
//!
//! ```text
//!   log     | 0 1 2 3 | 4 5 6 | 7 8 | 9 10 11 |
//!   module    - 1 - 3   - - -   - -   9 -  11
//!   pushed  | . 1 . 3 |                | 9 . 11 |
//! ```
//!
//! A record keeps its offset, and a batch the range of its offsets, so a consumer of a view has the same positions as any other. A batch of
//! which nothing is left is not sent but for the last one of a push, without records, so that consumers make progress; and the broker
//! reads on for a while before it sends such a push.
//!
//! Modules run on the topic's lane of the plugin threads, one push at a time. A push ends early, before a batch, where the modules have taken
//! long, where they have made more of the batches than was asked for, and where they fail: what is in front of that is given first.

use crate::{error::EngineError, name, topic::Topic, transform::Records};
use bytes::{Bytes, BytesMut};
use millpond_protocol::batch::{Batch, rebuild};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// A view that a consumer reads.
#[derive(Clone, Debug)]
pub(crate) struct TopicView {
    topic: Arc<Topic>,
    name: Arc<str>,
}

/// Batches as a view has them.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) batches: Bytes,
    /// Whether there is a record in them.
    pub(crate) has_records: bool,
    /// It has ended before the batch that begins here; none at the end of what it was given.
    pub(crate) stopped_at: Option<i64>,
}

impl TopicView {
    /// The view of this name, which may go while it is read.
    pub(crate) fn open(topic: &Arc<Topic>, name: &str) -> Result<TopicView, EngineError> {
        let view = TopicView { topic: Arc::clone(topic), name: name.into() };
        view.is_there().map(|()| view)
    }

    /// Fails once it was detached.
    pub(crate) fn is_there(&self) -> Result<(), EngineError> {
        if self.topic.runtime().views.contains_key(&self.name) { Ok(()) } else { Err(self.not_found()) }
    }

    fn not_found(&self) -> EngineError {
        let runtime = self.topic.runtime();
        EngineError::ViewNotFound {
            topic: Arc::clone(&self.topic.name),
            view: name::cut(&self.name),
            nearest: name::nearest(&self.name, runtime.views.keys().map(AsRef::as_ref)),
        }
    }

    /// Sends batches of a partition, as they are stored, through the modules.
    pub(crate) async fn see(&self, partition: u32, batches: Bytes, limits: ViewLimits) -> Result<Seen, EngineError> {
        let runtime = self.topic.runtime();
        if !runtime.views.contains_key(&self.name) {
            return Err(self.not_found());
        }
        let (topic, view) = (Arc::clone(&self.topic.name), Arc::clone(&self.name));
        let job = move || {
            let chain = runtime.views.get(&view).map_or(&[][..], Vec::as_slice);
            see(&topic, partition, chain, batches, limits)
        };
        self.topic.plugin.run_if_awaited(job).await?
    }
}

/// What a batch, and a push, may have, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ViewLimits {
    /// The records of a batch, uncompressed.
    pub(crate) section_bytes_max: usize,
    /// A batch as a consumer gets it.
    pub(crate) batch_bytes_max: u32,
    /// A push that has so many ends.
    pub(crate) push_bytes_enough: usize,
}

/// Looks at one batch at least. Blocking.
fn see(
    topic: &Arc<str>,
    partition: u32,
    chain: &[Arc<crate::transform::Attachment>],
    mut batches: Bytes,
    limits: ViewLimits,
) -> Result<Seen, EngineError> {
    let mut seen = BytesMut::new();
    // Of the last batch, if nothing of it is left.
    let mut empty = None;
    let (mut has_records, mut stopped_at, mut is_first) = (false, None, true);
    let begun = Instant::now();
    while let Some(batch) = Batch::take_front(&mut batches)? {
        let here = batch.header().base_offset;
        if !is_first && (seen.len() >= limits.push_bytes_enough || begun.elapsed() >= TIME_ENOUGH) {
            stopped_at = Some(here);
            break;
        }
        match see_one(topic, partition, chain, &batch, limits) {
            Ok((batch, true)) => {
                has_records = true;
                empty = None;
                seen.extend_from_slice(&batch);
            }
            Ok((batch, false)) => empty = Some(batch),
            Err(error) if is_first => return Err(error),
            // It fails once more where it is the first, and then that is told.
            Err(_) => {
                stopped_at = Some(here);
                break;
            }
        }
        is_first = false;
    }
    seen.extend(empty);
    Ok(Seen { batches: seen.freeze(), has_records, stopped_at })
}

/// A batch as the view has it, and whether there is a record in it. Blocking.
fn see_one(
    topic: &Arc<str>,
    partition: u32,
    chain: &[Arc<crate::transform::Attachment>],
    batch: &Batch,
    limits: ViewLimits,
) -> Result<(Bytes, bool), EngineError> {
    let header = *batch.header();
    let mut records = Records::unpack(batch, limits.section_bytes_max)?;
    records.is_stored = true;
    records.pass_through(topic, Some(partition), chain, &header)?;
    match records.pack(topic, batch, limits.batch_bytes_max)? {
        Some(batch) => Ok((batch.bytes().clone(), true)),
        None => Ok((rebuild(&header, &[], &records.summary)?, false)),
    }
}

/// A push that has taken so long ends: others wait for the thread.
const TIME_ENOUGH: Duration = Duration::from_millis(50);
