//! Answers to come to records that were handed over together, in runs: those that follow each other and share a batch have one wait.

use crate::{
    failure::Failure,
    producer::{Outcome, Sending},
};
use std::future::poll_fn;

/// What was handed over together and is not answered.
#[derive(Debug, Default)]
pub struct Runs(Vec<Run>);

#[derive(Debug)]
struct Run {
    /// The number of its first record in the hand-over.
    first: usize,
    count: u32,
    sent: Result<Sending, Failure>,
}

impl Runs {
    /// Puts a record behind the others.
    pub fn push(&mut self, index: usize, sent: Result<Sending, Failure>) {
        if let (Some(Run { first, count, sent: Ok(run) }), Ok(next)) = (self.0.last_mut(), &sent)
            && first.checked_add(*count as usize) == Some(index)
            && run.is_followed_by(next, *count)
        {
            *count += 1;
            return;
        }
        self.0.push(Run { first: index, count: 1, sent });
    }

    /// Takes out the answers that are there, each with the number of its record. That is no look at them: flush still tells an error.
    pub fn take_answered(&mut self, mut with: impl FnMut(usize, Outcome)) {
        self.0.retain_mut(|run| {
            let sending = match &mut run.sent {
                Ok(sending) => sending,
                Err(failure) => {
                    with(run.first, Err(failure.clone()));
                    return false;
                }
            };
            let Some(outcome) = sending.peek_behind(0) else { return true };
            with(run.first, outcome);
            for behind in 1..run.count {
                let outcome = sending.peek_behind(behind).unwrap_or_else(|| unreachable!("a batch is answered as a whole"));
                with(run.first + behind as usize, outcome);
            }
            false
        });
    }

    /// Whether all answers were taken out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for the first answer that was not taken out, and leaves it there.
    pub async fn answered(&mut self) {
        if let Some(Run { sent: Ok(first), .. }) = self.0.first_mut() {
            poll_fn(|context| first.poll_answered(context)).await;
        }
    }
}
