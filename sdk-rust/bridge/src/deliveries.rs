//! Answers, handed over many at a time: one wake-up of a language for all that came since the last one.

use crate::{
    failure::Failure,
    producer::{Outcome, Sending},
    runtime,
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;

/// Answers that are handed over together at most.
const HANDED_OVER_MAX: usize = 4_096;

/// Records that are taken to be watched at a time.
const TAKEN_MAX: usize = 1_024;

/// Waits for the answers of many records and hands them over, each with the token that it was watched under.
///
/// One task waits for all of them. It ends once this is dropped and the last answer was handed over.
#[derive(Debug)]
pub struct Collector<T> {
    queue: mpsc::UnboundedSender<(Sending, T)>,
}

impl<T: Send + 'static> Collector<T> {
    /// `sink` is called on a thread of the runtime, and must not wait.
    pub fn new(sink: impl Fn(Vec<(T, Outcome)>) + Send + 'static) -> Result<Collector<T>, Failure> {
        let (queue, watched) = mpsc::unbounded_channel();
        runtime::handle()?.spawn(collect(watched, sink));
        Ok(Collector { queue })
    }

    /// Hands over the answer when it is there. As many may be watched as are sent: the producer's buffer bounds them.
    pub fn watch(&self, sending: Sending, token: T) {
        // The task ends after this is dropped, and not before.
        let _ = self.queue.send((sending, token));
    }
}

async fn collect<T: Send + 'static>(mut watched: mpsc::UnboundedReceiver<(Sending, T)>, sink: impl Fn(Vec<(T, Outcome)>) + Send + 'static) {
    let mut waiting = FuturesUnordered::new();
    let mut taken = Vec::new();
    loop {
        tokio::select! {
            count = watched.recv_many(&mut taken, TAKEN_MAX) => {
                if count == 0 {
                    break;
                }
                waiting.extend(taken.drain(..).map(|(sending, token)| sending.map(|outcome| (token, outcome))));
            }
            Some(first) = waiting.next() => {
                let mut answered = vec![first];
                while answered.len() < HANDED_OVER_MAX && let Some(Some(next)) = waiting.next().now_or_never() {
                    answered.push(next);
                }
                sink(answered);
            }
        }
    }
    while let Some(answered) = waiting.next().await {
        sink(vec![answered]);
    }
}
