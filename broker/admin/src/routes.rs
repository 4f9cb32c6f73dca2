//! Which path gives which answer.

use crate::{
    host::Names,
    metrics,
    request::{Head, Method},
    response::{Answer, Body, Code},
    status::{Phase, Status},
};
use millpond_protocol::message::TopicInfo;
use std::{fmt::Write, io};
use tokio::{io::AsyncWrite, sync::Semaphore};

/// The answers of a broker.
#[derive(Debug)]
pub(crate) struct Routes {
    status: Status,
    names: Names,
    scrapes: Semaphore,
}

impl Routes {
    /// Under these names, and with so many scrapes at the same time.
    pub(crate) fn new(status: Status, names: Names, scrapes_max: usize) -> Routes {
        Routes { status, names, scrapes: Semaphore::new(scrapes_max.clamp(1, Semaphore::MAX_PERMITS)) }
    }

    /// Answers one request.
    pub(crate) async fn respond<W: AsyncWrite + Unpin>(&self, head: &Head, out: &mut W) -> io::Result<()> {
        let answer = match head.path.as_str() {
            _ if !self.names.has(head.authority.as_deref()) => Answer::text(Code::Misdirected, OTHER_NAME),
            METRICS | LIVE | READY if head.method == Method::Other => {
                Answer::text(Code::MethodNotAllowed, "only GET and HEAD are answered")
            }
            METRICS => match self.scrapes.try_acquire() {
                Ok(_permit) => return self.scrape(head, out).await,
                Err(_) => Answer::text(Code::Unavailable, "other scrapes are still being answered; try again in a moment"),
            },
            LIVE => Answer::text(Code::Ok, "alive"),
            READY => readiness(&self.status.phase()).await?,
            _ => Answer::text(Code::NotFound, format!("not found; there are {METRICS}, {LIVE} and {READY}")),
        };
        answer.write(out, head.method != Method::Head).await
    }

    async fn scrape<W: AsyncWrite + Unpin>(&self, head: &Head, out: &mut W) -> io::Result<()> {
        match Body::begin(out, head, metrics::CONTENT_TYPE).await? {
            Some(body) => metrics::write(&self.status, body).await,
            None => Ok(()),
        }
    }
}

async fn readiness(phase: &Phase) -> io::Result<Answer> {
    Ok(match phase {
        Phase::Starting => Answer::text(Code::Unavailable, "starting"),
        Phase::Stopping(_) => Answer::text(Code::Unavailable, "stopping"),
        Phase::Serving(_) => {
            let topics = phase.topics().await?;
            Answer::text(Code::Ok, format!("ready{}{}", refusals(&topics), failures(&topics)))
        }
    })
}

/// How many partitions refuse batches for want of room, by what has none. Behind `ready`, since reads work and a broker that is taken out of
/// service gets no room by that.
fn refusals(topics: &[TopicInfo]) -> String {
    let partitions = || topics.iter().flat_map(|topic| &topic.partitions);
    let count =
        |bound: &str| partitions().filter(|partition| partition.refusing.as_ref().is_some_and(|refusing| refusing.bound == bound)).count();
    let all = partitions().count();
    let bounds = BOUNDS.iter().map(|(bound, words)| (count(bound), words)).filter(|(count, _)| *count > 0);
    let words: Vec<_> = bounds.map(|(count, words)| format!("{words}, {count} of {all} partitions")).collect();
    if words.is_empty() { String::new() } else { format!(" (writes refused: {})", words.join("; ")) }
}

/// A line for each partition that has stopped writing, the first [`FAILURES_SHOWN`] of them, each after a line break.
fn failures(topics: &[TopicInfo]) -> String {
    let partitions = topics.iter().flat_map(|topic| topic.partitions.iter().map(|partition| (&topic.name, partition)));
    let failed = partitions.filter_map(|(name, partition)| Some((name, partition.partition, partition.failure.as_ref()?)));
    let mut text = String::new();
    let mut count = 0_usize;
    for (name, partition, failure) in failed {
        count += 1;
        if count <= FAILURES_SHOWN {
            // Writing to a String does not fail. A cause may have line breaks of its own.
            let _ = write!(text, "\n{name}[{partition}] takes no records: {}", failure.replace(char::is_control, " "));
        }
    }
    if count > FAILURES_SHOWN {
        let _ = write!(text, "\nand {} more", count - FAILURES_SHOWN);
    }
    text
}

const OTHER_NAME: &str = "this door listens on a loopback address, and answers to `localhost` and to addresses such as 127.0.0.1 alone, so \
                          that no web page reads it under a name of its own: ask for one of those (a proxy sets Host), or let \
                          `admin.listen` be another address";

const METRICS: &str = "/metrics";
const LIVE: &str = "/health/live";
const READY: &str = "/health/ready";

/// What can have no room, as the engine names it, and in words.
const BOUNDS: [(&str, &str); 3] =
    [("disk", "the disk is full"), ("node", "the quota of the broker is used up"), ("topic", "the quota of a topic is used up")];

/// Partitions that `/health/ready` names. All of them are in the metrics.
const FAILURES_SHOWN: usize = 10;
