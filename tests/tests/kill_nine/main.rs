//! `kill -9` in the middle of producing, again and again: what was acknowledged is there, in order, once.
//!
//! Segments are as small as they can be, so that the kills also hit a segment that is closed and the next one that is begun, their index
//! files, and what the recovery leaves unread.
//!
//! | module | the broker is killed |
//! |---|---|
//! | `unrepeated` | 20 times, under a producer that sends nothing twice |
//! | `under_load` | 200 times, under producers that reconnect and retry, beside a topic that is compacted all the time |
//! | `derived` | 100 times, while a module with state derives two topics from one that producers write to |
//! | `small_disk` | 30 times, on a file system that fills up and is cleaned up |
//!
//! `load` produces and notes what is acknowledged; `seen` holds what is stored against that, `compacted` does so where only the latest
//! record of each key has to be left.

mod compacted;
mod derived;
mod load;
mod seen;
mod small_disk;
mod under_load;
mod unrepeated;

use millpond::{Client, CreateTopic, TopicConfig};
use std::time::Duration;

/// The smallest that the broker takes.
const SEGMENT_BYTES: u64 = 64 << 10;

/// A topic with segments of [`SEGMENT_BYTES`].
async fn create_topic(url: &str, name: &str, partitions: u32, config: TopicConfig) {
    let topic = CreateTopic { name: name.into(), partitions, config: TopicConfig { segment_bytes: SEGMENT_BYTES, ..config } };
    client(url).await.admin().create_topic(topic).await.expect("the name is free");
}

/// A client that soon finds out that the broker it knew is gone, also while it only waits for answers.
async fn client(url: &str) -> Client {
    Client::builder().url(url).idle_timeout(IDLE_TIMEOUT).connect().await.expect("the broker is ready")
}

/// The client asks for a sign of life four times in this time.
const IDLE_TIMEOUT: Duration = Duration::from_millis(200);
