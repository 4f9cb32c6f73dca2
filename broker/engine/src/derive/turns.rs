//! Whose turn it is to have a round, so that what is in memory is bounded, and no source is in the way of another.
//!
//! ```text
//!   wait for records ──> flush ──> read ──> module ──> commit ──> apply
//!                        '── at the module ───────'               '
//!                        '── in progress ─────────────────────────'
//! ```
//!
//! At the module are as many rounds of all sources as there are threads for modules, and of one source all but one of them: whatever its
//! modules do, a round of another source meets a turn, and a thread, that this one can't have. Turns are given first come, first served, and
//! each source waits with no more rounds than it may have there: so with one thread, and where several sources are slow, they take turns.
//!
//! A round that is at its module for longer than a slice makes way for others, as its thread does ([`crate::pool`]), up to a bound: it stays one of
//! its source's.
//!
//! Once the module is done the turn is let go of: a disk that is slow, or a target that has no room, holds up its own attachment, of which
//! one round more is in progress than may be at the module.

use crate::pool::EXTRA_MAX;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the rounds of one attachment wait for.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    /// Rounds of the attachment that hold memory.
    in_progress: Arc<Semaphore>,
    /// Rounds of its source at modules.
    of_source: Arc<Semaphore>,
    of_all: Rounds,
}

/// Rounds of all sources at modules.
#[derive(Clone, Debug)]
pub(crate) struct Rounds {
    /// Those that are not there for long: as many as there are threads.
    at_module: Arc<Semaphore>,
    /// Those that have made way.
    held: Arc<Semaphore>,
}

/// A round may be had.
#[derive(Debug)]
pub(super) struct Turn {
    at_module: Option<AtModule>,
    _in_progress: OwnedSemaphorePermit,
}

/// Its place among those of its source, and among all.
#[derive(Debug)]
struct AtModule {
    _of_source: OwnedSemaphorePermit,
    of_all: OwnedSemaphorePermit,
    /// Where it finds the place of those that have made way, until it has.
    held: Option<Arc<Semaphore>>,
}

impl Rounds {
    /// Those of one broker, with so many threads for modules.
    pub(crate) fn new(threads: usize) -> Rounds {
        Rounds { at_module: Arc::new(Semaphore::new(threads.max(1))), held: Arc::new(Semaphore::new(EXTRA_MAX)) }
    }
}

/// What the rounds of one source share, with so many threads for modules.
pub(crate) fn rounds_of_source(threads: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(at_module_max(threads)))
}

impl Turns {
    /// Those of one more attachment.
    pub(super) fn new(of_all: &Rounds, of_source: &Arc<Semaphore>, threads: usize) -> Turns {
        let in_progress = Arc::new(Semaphore::new(at_module_max(threads) + 1));
        Turns { in_progress, of_source: Arc::clone(of_source), of_all: of_all.clone() }
    }

    /// Waits for a turn; without the module where all that is left to do is to apply what was committed. None is never given: the semaphores
    /// are not closed.
    pub(super) async fn take(self, with_module: bool) -> Option<Turn> {
        let in_progress = self.in_progress.acquire_owned().await.ok()?;
        let at_module = if with_module {
            let of_source = self.of_source.acquire_owned().await.ok()?;
            let of_all = self.of_all.at_module.acquire_owned().await.ok()?;
            Some(AtModule { _of_source: of_source, of_all, held: Some(self.of_all.held) })
        } else {
            None
        };
        Some(Turn { at_module, _in_progress: in_progress })
    }
}

impl Turn {
    /// The module takes long: its place among all is for another one. To be called again for as long as it does, for others may have all of those
    /// that make way.
    pub(super) fn make_way(&mut self) {
        if let Some(at_module) = &mut self.at_module
            && let Some(held) = at_module.held.take()
        {
            match Arc::clone(&held).try_acquire_owned() {
                Ok(permit) => at_module.of_all = permit,
                Err(_) => at_module.held = Some(held),
            }
        }
    }

    /// The module is done with the round.
    pub(super) fn leave_module(&mut self) {
        self.at_module = None;
    }
}

/// Rounds of one source at modules.
fn at_module_max(threads: usize) -> usize {
    threads.saturating_sub(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn turns(threads: usize, sources: usize) -> Vec<Turns> {
        let of_all = Rounds::new(threads);
        (0..sources).map(|_| Turns::new(&of_all, &rounds_of_source(threads), threads)).collect()
    }

    fn take(turns: &Turns, with_module: bool) -> Option<Turn> {
        turns.clone().take(with_module).now_or_never().flatten()
    }

    #[test]
    fn a_source_leaves_a_turn_to_the_others_and_a_round_behind_its_module_is_in_nobodys_way() {
        for threads in 1..5 {
            let turns = turns(threads, 2);
            let mut slow: Vec<_> = std::iter::from_fn(|| take(&turns[0], true)).collect();
            assert_eq!(slow.len(), at_module_max(threads), "{threads}");
            assert_eq!(take(&turns[1], true).is_some(), threads > 1, "{threads}");
            slow.iter_mut().for_each(Turn::leave_module);
            assert!(take(&turns[1], true).is_some(), "{threads}");
            let more: Vec<_> = std::iter::from_fn(|| take(&turns[0], true)).collect();
            assert_eq!(more.len(), 1, "{threads}: what is in progress is in memory");
            assert!(take(&turns[0], false).is_none(), "{threads}");
            drop(slow);
            assert!(take(&turns[0], false).is_some(), "{threads}");
        }
    }

    #[test]
    fn rounds_that_are_held_make_way_for_those_of_other_sources_and_for_so_many_only() {
        for threads in 1..4 {
            let turns = turns(threads, 1 + EXTRA_MAX + threads);
            let mut held = Vec::new();
            for turns in &turns[..EXTRA_MAX] {
                let mut turn = take(turns, true).expect("those before it have made way");
                turn.make_way();
                held.push(turn);
                assert_eq!(take(turns, true).is_some(), at_module_max(threads) > 1, "{threads}: it is still one of its source's");
            }
            let mut more: Vec<_> = turns[EXTRA_MAX..].iter().map_while(|turns| take(turns, true)).collect();
            assert_eq!(more.len(), threads);
            more.iter_mut().for_each(Turn::make_way);
            assert!(take(&turns[EXTRA_MAX + threads], true).is_none(), "{threads}: there is a bound");
            drop(held.pop());
            more[0].make_way();
            assert!(take(&turns[EXTRA_MAX + threads], true).is_some(), "{threads}");
        }
    }

    #[test]
    fn on_one_thread_sources_take_turns() {
        let turns = turns(1, 3);
        let mut first = take(&turns[0], true).expect("nobody has it");
        // Two more of the first source, and then one of each of the others.
        let mut waiting: Vec<_> = [0, 0, 1, 2].map(|source| (source, Box::pin(turns[source].clone().take(true)))).into();
        let mut seen = Vec::new();
        assert!(waiting.iter_mut().all(|(_, turn)| turn.now_or_never().is_none()));
        first.leave_module();
        drop(first);
        while !waiting.is_empty() {
            let next = waiting.iter_mut().enumerate().find_map(|(place, (_, turn))| turn.now_or_never().map(|turn| (place, turn)));
            let (place, _turn) = next.expect("one has it");
            seen.push(waiting.remove(place).0);
        }
        assert_eq!(seen, [1, 2, 0, 0], "the others were there before the first one's next round");
    }
}
