//! Who is next on the threads of a pool. Pure.
//!
//! Jobs wait in lanes, each first come, first served. Lanes with something to do take turns, one job each:
//!
//! ```text
//!  lane 1   a b c d ─┐
//!  lane 2   e ───────┼──> a e f b g c d
//!  lane 3   f g ─────┘
//! ```
//!
//! While jobs come by two lanes, one lane has no more threads at a time than all but one: whatever its jobs do there, a job of another
//! lane meets a thread that this one can't have. Where all the work is of one lane, it has them all; and so it is where there is only one
//! thread, on which taking turns is all that can be done. A lane counts as in use until [`SHARE_JOBS`] jobs of others have ended without
//! one of its own. The lane that is there from the beginning has no such limit.

use std::{collections::VecDeque, mem};

/// Which lane. Its number is given out again when the lane is closed and its last job has ended.
pub(crate) type LaneId = usize;

/// The lanes of one pool.
pub(crate) struct Lanes<J> {
    queues: Vec<Waiting<J>>,
    /// Numbers to give out again.
    free: Vec<LaneId>,
    /// Lanes that may start a job, in turn, each once.
    ready: VecDeque<LaneId>,
    threads: usize,
    /// Lanes in use, but for the common one.
    sharers: usize,
    /// Jobs that have ended, of all lanes.
    ended: u64,
}

/// One lane.
struct Waiting<J> {
    jobs: VecDeque<J>,
    /// Jobs that have begun and not ended.
    running: usize,
    is_ready: bool,
    /// It is in use.
    is_sharer: bool,
    /// How many jobs had ended when one came by it or ended last.
    used_at: u64,
    is_closed: bool,
}

impl<J> Lanes<J> {
    /// The lane of all jobs that come by no other.
    pub(crate) const COMMON: LaneId = 0;

    /// The common lane alone, for so many threads.
    pub(crate) fn new(threads: usize) -> Lanes<J> {
        Lanes { queues: vec![Waiting::default()], free: Vec::new(), ready: VecDeque::new(), threads, sharers: 0, ended: 0 }
    }

    /// Adds a lane.
    pub(crate) fn open(&mut self) -> LaneId {
        self.free.pop().unwrap_or_else(|| {
            self.queues.push(Waiting::default());
            self.queues.len() - 1
        })
    }

    /// Takes no more jobs by this lane; those that wait still have their turns. True if lanes may have more threads now: all are to look.
    pub(crate) fn close(&mut self, lane: LaneId) -> bool {
        self.queues[lane].is_closed = true;
        self.free_if_done(lane)
    }

    /// Queues a job. True if a thread that has nothing to do may begin with one.
    pub(crate) fn push(&mut self, lane: LaneId, job: J) -> bool {
        let waiting = &mut self.queues[lane];
        waiting.jobs.push_back(job);
        waiting.used_at = self.ended;
        if lane != Self::COMMON && !mem::replace(&mut waiting.is_sharer, true) {
            self.sharers += 1;
        }
        self.make_ready(lane)
    }

    /// The job whose turn it is. [`Lanes::finish`] is owed for it.
    pub(crate) fn take(&mut self) -> Option<(LaneId, J)> {
        loop {
            let lane = self.ready.pop_front()?;
            let limit = self.limit(lane);
            let waiting = &mut self.queues[lane];
            waiting.is_ready = false;
            // The limit may have come down since. Then the end of one of its jobs makes it ready again.
            if waiting.running >= limit {
                continue;
            }
            if let Some(job) = waiting.jobs.pop_front() {
                waiting.running += 1;
                self.make_ready(lane);
                return Some((lane, job));
            }
        }
    }

    /// Whether a job waits that may begin.
    pub(crate) fn is_any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A job of this lane has ended. True if lanes may have more threads now: all are to look. Otherwise it is enough that the thread
    /// which ran the job looks for the next one.
    pub(crate) fn finish(&mut self, lane: LaneId) -> bool {
        self.ended += 1;
        let waiting = &mut self.queues[lane];
        waiting.running -= 1;
        waiting.used_at = self.ended;
        self.make_ready(lane);
        let is_raised = self.free_if_done(lane);
        // Each lane is looked at now and then, not at each job.
        if self.ended.is_multiple_of(SHARE_JOBS) { self.forget_unused() || is_raised } else { is_raised }
    }

    /// Lanes by which nothing comes any more leave their thread to the others. True if lanes may have more threads now.
    fn forget_unused(&mut self) -> bool {
        let before = self.sharers;
        for waiting in &mut self.queues {
            let is_unused = waiting.jobs.is_empty() && waiting.running == 0 && self.ended - waiting.used_at >= SHARE_JOBS;
            if waiting.is_sharer && is_unused {
                waiting.is_sharer = false;
                self.sharers -= 1;
            }
        }
        before > 1 && self.raise_last_sharer()
    }

    /// The one lane that is left may have all the threads again.
    fn raise_last_sharer(&mut self) -> bool {
        let is_raised = self.sharers == 1;
        if is_raised {
            for lane in 0..self.queues.len() {
                self.make_ready(lane);
            }
        }
        is_raised
    }

    /// Threads that a lane may have.
    fn limit(&self, lane: LaneId) -> usize {
        match lane {
            Self::COMMON => self.threads,
            _ if self.sharers <= 1 => self.threads,
            _ => (self.threads - 1).max(1),
        }
    }

    /// Gives a lane its place among the others if it has a job that may begin. True if it has.
    fn make_ready(&mut self, lane: LaneId) -> bool {
        let limit = self.limit(lane);
        let waiting = &mut self.queues[lane];
        if waiting.jobs.is_empty() || waiting.running >= limit {
            return false;
        }
        if !mem::replace(&mut waiting.is_ready, true) {
            self.ready.push_back(lane);
        }
        true
    }

    fn free_if_done(&mut self, lane: LaneId) -> bool {
        let waiting = &mut self.queues[lane];
        if !waiting.is_closed || waiting.running > 0 || !waiting.jobs.is_empty() {
            return false;
        }
        let was_sharer = mem::take(waiting).is_sharer;
        self.free.push(lane);
        if !was_sharer {
            return false;
        }
        self.sharers -= 1;
        self.raise_last_sharer()
    }
}

/// So many jobs of others end before a lane without any no longer counts as in use.
const SHARE_JOBS: u64 = 1_024;

impl<J> Default for Waiting<J> {
    fn default() -> Self {
        Waiting { jobs: VecDeque::new(), running: 0, is_ready: false, is_sharer: false, used_at: 0, is_closed: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Named = Lanes<&'static str>;

    fn push_all(lanes: &mut Named, lane: LaneId, jobs: &[&'static str]) {
        for job in jobs {
            lanes.push(lane, job);
        }
    }

    /// What so many threads that wait for something would begin now.
    fn begin(lanes: &mut Named, threads: usize) -> Vec<&'static str> {
        (0..threads).map_while(|_| lanes.take()).map(|(_, job)| job).collect()
    }

    #[test]
    fn lanes_take_turns_and_each_keeps_its_order() {
        let mut lanes = Named::new(1);
        let (one, two, three) = (lanes.open(), lanes.open(), lanes.open());
        push_all(&mut lanes, one, &["a", "b", "c", "d"]);
        push_all(&mut lanes, two, &["e"]);
        push_all(&mut lanes, three, &["f", "g"]);
        let mut order = String::new();
        while let Some((lane, job)) = lanes.take() {
            order += job;
            lanes.finish(lane);
        }
        assert_eq!(order, "aefbgcd");
    }

    #[test]
    fn a_lane_that_nothing_comes_by_any_more_leaves_its_thread_to_the_others() {
        let mut lanes = Named::new(2);
        let (one, two) = (lanes.open(), lanes.open());
        push_all(&mut lanes, two, &["seen once"]);
        assert_eq!(begin(&mut lanes, 2), ["seen once"]);
        lanes.finish(two);
        push_all(&mut lanes, one, &["runs", "waits"]);
        assert_eq!(begin(&mut lanes, 2), ["runs"], "the other thread is for the other lane");
        let mut raised_after = 0;
        for number in 1..=3 * SHARE_JOBS {
            lanes.push(one, "more");
            if lanes.finish(one) {
                raised_after = number;
                break;
            }
            assert_eq!(begin(&mut lanes, 2).len(), 1, "after {number}");
        }
        assert!((SHARE_JOBS..=2 * SHARE_JOBS).contains(&raised_after), "{raised_after}");
        assert_eq!(begin(&mut lanes, 2).len(), 2, "it has both");
        push_all(&mut lanes, two, &["back"]);
        lanes.finish(one);
        assert_eq!(begin(&mut lanes, 2), ["back"]);
    }

    #[test]
    fn one_lane_never_has_the_last_thread_once_there_is_another() {
        let mut lanes = Named::new(3);
        let (one, two) = (lanes.open(), lanes.open());
        push_all(&mut lanes, two, &["seen"]);
        assert_eq!(begin(&mut lanes, 3), ["seen"]);
        lanes.finish(two);
        push_all(&mut lanes, one, &["a", "b", "c", "d"]);
        assert_eq!(begin(&mut lanes, 3), ["a", "b"]);
        assert!(!lanes.push(one, "e"), "nobody has to wake up for it");
        assert!(lanes.push(two, "at once"));
        assert_eq!(begin(&mut lanes, 1), ["at once"]);
        lanes.finish(one);
        assert_eq!(begin(&mut lanes, 3), ["c"], "two of it run at any time");
        lanes.finish(two);
        assert_eq!(begin(&mut lanes, 3), [""; 0]);
    }

    #[test]
    fn a_lane_on_its_own_has_all_threads_and_gives_one_up_when_a_second_comes() {
        let mut lanes = Named::new(2);
        let (one, two) = (lanes.open(), lanes.open());
        push_all(&mut lanes, one, &["a", "b", "c", "d", "e"]);
        assert_eq!(begin(&mut lanes, 2), ["a", "b"]);
        push_all(&mut lanes, two, &["x"]);
        lanes.finish(one);
        assert_eq!(begin(&mut lanes, 1), ["x"]);
        lanes.finish(two);
        assert_eq!(begin(&mut lanes, 1), [""; 0]);
        // The second is gone for good: the first may go on with both, and whoever sleeps is told.
        assert!(lanes.close(two));
        assert_eq!(begin(&mut lanes, 1), ["c"]);
        lanes.finish(one);
        assert_eq!(begin(&mut lanes, 2), ["d"]);
    }

    #[test]
    fn the_common_lane_has_no_limit_and_takes_its_turn() {
        let mut lanes = Named::new(2);
        let (one, two) = (lanes.open(), lanes.open());
        push_all(&mut lanes, one, &["a", "b"]);
        push_all(&mut lanes, two, &["c"]);
        push_all(&mut lanes, Named::COMMON, &["x", "y"]);
        let mut order = String::new();
        while let Some((lane, job)) = lanes.take() {
            order += job;
            lanes.finish(lane);
        }
        assert_eq!(order, "acxby");
        push_all(&mut lanes, Named::COMMON, &["x", "y"]);
        assert_eq!(begin(&mut lanes, 2), ["x", "y"]);
    }

    #[test]
    fn a_closed_lane_runs_what_it_has_and_its_number_is_free_afterwards() {
        let mut lanes = Named::new(1);
        let one = lanes.open();
        push_all(&mut lanes, one, &["a", "b"]);
        assert_eq!(begin(&mut lanes, 1), ["a"]);
        lanes.close(one);
        let other = lanes.open();
        assert_ne!(other, one);
        lanes.finish(one);
        assert_eq!(begin(&mut lanes, 1), ["b"]);
        lanes.finish(one);
        assert_eq!(lanes.open(), one);
        for _ in 0..1000 {
            let lane = lanes.open();
            push_all(&mut lanes, lane, &["z"]);
            lanes.close(lane);
            let (taken, _) = lanes.take().expect("its job");
            lanes.finish(taken);
        }
        assert_eq!(lanes.queues.len(), 4, "the common one, two that are open, and one by one the others");
    }
}
