//! Reading what a module has logged in all its places: the logs of its attachments as one.
//!
//! ```text
//!   t, produce    17:00:01   17:00:04            without a place:  backwards from the ends, the newest lines
//!   t, fetch          17:00:02   17:00:05        behind places:    forwards, from each place on
//!   u, produce   17:00:00   17:00:03   17:00:06
//! ```
//!
//! The line that is next is that of the earliest (or latest) time among those that are next in each log. So the lines of one log stay in
//! their order even where the clock was set, and an answer that is full ends at a place from which the next one goes on. Nothing is
//! copied before it is chosen, and each log is locked for one line at a time.

use crate::{
    engine::Engine,
    error::EngineError,
    meters::{Line, ModuleLog as Log},
    modules::Use,
};
use millpond_protocol::message::{MODULE_LOG_LINES_MAX, ModuleFailure, ModuleLog, ModuleLogLine, ModuleLogPlace, ReadModuleLog};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
};

impl Engine {
    /// What a module has logged, and how it failed: the newest lines, or those behind the places that an answer before has ended at. Lines
    /// are kept in memory, and only the last of each attachment; a module that is detached has none.
    ///
    /// # Errors
    ///
    /// [`EngineError::ModuleNotFound`], [`EngineError::TopicNotFound`].
    pub fn read_module_log(&self, request: &ReadModuleLog) -> Result<ModuleLog, EngineError> {
        self.find_module(&request.module)?;
        let uses = match &request.topic {
            Some(topic) => self.find_topic(topic)?.uses(&request.module),
            None => self.uses(&request.module),
        };
        let logs: Vec<&Log> = uses.iter().map(|one| &one.attachment.lasting.meters.log).collect();
        let lines_max = match request.lines_max {
            0 => MODULE_LOG_LINES_MAX,
            wanted => wanted.min(MODULE_LOG_LINES_MAX),
        };
        let room = Room { lines: lines_max as usize, bytes: BYTES_PER_ANSWER_MAX };
        let read = if request.after.is_empty() { newest(&logs, room) } else { behind(&logs, &request.after, room) };
        let lines = read.lines.iter().map(|(index, line)| written(&uses[*index], line)).collect();
        Ok(ModuleLog { lines, lines_lost: read.lines_lost, next: read.next })
    }
}

/// Lines of several logs, each with the index of its log.
#[derive(Debug, Default)]
struct Read {
    lines: Vec<(usize, Arc<Line>)>,
    lines_lost: u64,
    next: Vec<ModuleLogPlace>,
}

/// What an answer may still have.
#[derive(Clone, Copy, Debug)]
struct Room {
    lines: usize,
    bytes: usize,
}

impl Room {
    /// Takes room for a line; the first one always has it.
    fn take(&mut self, line: &Line, is_first: bool) -> bool {
        let has = self.lines > 0 && (is_first || self.bytes >= line.bytes());
        if has {
            (self.lines, self.bytes) = (self.lines - 1, self.bytes.saturating_sub(line.bytes()));
        }
        has
    }
}

/// The newest lines, the oldest of them first; the logs are read to where they end now.
fn newest(logs: &[&Log], mut room: Room) -> Read {
    let ends: Vec<u64> = logs.iter().map(|log| log.end()).collect();
    let mut heads: Vec<Option<Arc<Line>>> = logs.iter().zip(&ends).map(|(log, end)| log.before(*end)).collect();
    let mut order: BinaryHeap<(i64, usize)> = times(&heads).collect();
    let mut read = Read::default();
    while let Some((_, index)) = order.pop() {
        let Some(line) = heads[index].take() else { continue };
        if !room.take(&line, read.lines.is_empty()) {
            break;
        }
        heads[index] = logs[index].before(line.number);
        order.extend(heads[index].as_ref().map(|line| (line.at_ms, index)));
        read.lines.push((index, line));
    }
    read.lines.reverse();
    read.next = logs.iter().zip(ends).map(|(log, line)| ModuleLogPlace { log: log.id, line }).collect();
    read
}

/// The oldest lines behind these places. A log without one is read from its beginning.
fn behind(logs: &[&Log], places: &[ModuleLogPlace], mut room: Room) -> Read {
    let places: BTreeMap<u64, u64> = places.iter().map(|place| (place.log, place.line)).collect();
    let mut next: Vec<u64> = logs.iter().map(|log| places.get(&log.id).copied().unwrap_or(0)).collect();
    let mut heads: Vec<Option<Arc<Line>>> = logs.iter().zip(&next).map(|(log, number)| log.at_or_behind(*number)).collect();
    let mut order: BinaryHeap<Reverse<(i64, usize)>> = times(&heads).map(Reverse).collect();
    let mut read = Read::default();
    while let Some(Reverse((_, index))) = order.pop() {
        let Some(line) = heads[index].take() else { continue };
        if !room.take(&line, read.lines.is_empty()) {
            break;
        }
        read.lines_lost += line.number.saturating_sub(next[index]);
        next[index] = line.number + 1;
        heads[index] = logs[index].at_or_behind(next[index]);
        order.extend(heads[index].as_ref().map(|line| Reverse((line.at_ms, index))));
        read.lines.push((index, line));
    }
    read.next = logs.iter().zip(next).map(|(log, line)| ModuleLogPlace { log: log.id, line }).collect();
    read
}

fn times(heads: &[Option<Arc<Line>>]) -> impl Iterator<Item = (i64, usize)> {
    heads.iter().enumerate().filter_map(|(index, head)| head.as_ref().map(|line| (line.at_ms, index)))
}

/// A line as it is told.
fn written(one: &Use, line: &Line) -> ModuleLogLine {
    let failure = line.failure.as_ref().map(|failure| ModuleFailure {
        code: failure.code.to_owned(),
        batch: failure.batch,
        backtrace: failure.backtrace.clone(),
        left_out: failure.left_out,
    });
    ModuleLogLine {
        at_ms: line.at_ms,
        level: line.said.level,
        topic: one.at.topic.clone(),
        partition: line.said.partition,
        on: one.at.on,
        view: one.at.view.clone(),
        version: line.said.version,
        message: line.said.message.clone(),
        failure,
    }
}

/// The most bytes of lines that one answer has: what is more comes with the next one.
const BYTES_PER_ANSWER_MAX: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meters::Said;
    use millpond_log::sim::Random;
    use millpond_protocol::message::LogLevel;
    use std::collections::BTreeSet;

    fn said(log: usize, number: u64, length: usize) -> Said {
        let message = format!("{log} {number} {}", "x".repeat(length));
        Said { level: LogLevel::Info, partition: None, version: 1, message }
    }

    fn words(read: &Read) -> Vec<String> {
        read.lines.iter().map(|(_, line)| line.said.message.trim_end().to_owned()).collect()
    }

    const WIDE: Room = Room { lines: 1_000, bytes: BYTES_PER_ANSWER_MAX };

    #[test]
    fn lines_of_several_logs_come_by_their_times_and_those_of_one_log_in_their_order() {
        let logs = [Log::default(), Log::default()];
        for (index, at_ms) in [(0, 10), (1, 20), (0, 5), (1, 30), (0, 25)] {
            let number = logs[index].end();
            logs[index].add(at_ms, said(index, number, 0));
        }
        let refs: Vec<_> = logs.iter().collect();
        let all = newest(&refs, WIDE);
        // The clock of the first log was set back between its lines.
        assert_eq!(words(&all), ["0 0", "0 1", "1 0", "0 2", "1 1"]);
        assert_eq!((words(&newest(&refs, Room { lines: 2, ..WIDE })), all.lines_lost), (vec!["0 2".to_owned(), "1 1".to_owned()], 0));
        let ends = [ModuleLogPlace { log: logs[0].id, line: 3 }, ModuleLogPlace { log: logs[1].id, line: 2 }];
        assert_eq!(all.next, ends);
        assert_eq!(behind(&refs, &ends, WIDE).lines.len(), 0);
        let from_the_middle = behind(&refs, &[ModuleLogPlace { line: 2, ..ends[0] }, ends[1]], WIDE);
        assert_eq!((words(&from_the_middle), from_the_middle.next), (vec!["0 2".to_owned()], ends.to_vec()));
        let one_is_new = behind(&refs, &[ends[0], ModuleLogPlace { log: 7, line: 7 }], WIDE);
        assert_eq!(words(&one_is_new), ["1 0", "1 1"]);
        // Places that no log has.
        let beyond = behind(&refs, &[ModuleLogPlace { line: u64::MAX, ..ends[0] }, ends[1]], WIDE);
        assert_eq!((beyond.lines.len(), beyond.lines_lost), (0, 0));
    }

    #[test]
    fn who_follows_gets_each_line_once_or_hears_that_it_is_lost() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut below = |bound: u64| usize::try_from(random.below(bound)).expect("small");
            let logs: Vec<Log> = (0..=below(4)).map(|_| Log::default()).collect();
            let refs: Vec<_> = logs.iter().collect();
            let (mut after, mut seen, mut lost, mut at_ms) = (Vec::new(), BTreeSet::new(), 0, 0);
            for round in 0..60 {
                for _ in 0..below(if round % 10 == 9 { 1_500 } else { 8 }) {
                    let index = below(logs.len() as u64);
                    at_ms += i64::try_from(below(5)).expect("small") - 1;
                    logs[index].add(at_ms, said(index, logs[index].end(), below(200)));
                }
                let room = Room { lines: 1 + below(300), bytes: below(20_000) };
                let read = if after.is_empty() { newest(&refs, room) } else { behind(&refs, &after, room) };
                if after.is_empty() {
                    // What came before does not count.
                    seen.extend((0..logs.len()).flat_map(|index| (0..read.next[index].line).map(move |number| (index, number))));
                } else {
                    for (index, line) in &read.lines {
                        assert!(seen.insert((*index, line.number)), "{seed}: {index} {} twice", line.number);
                    }
                }
                lost += read.lines_lost;
                after = read.next;
            }
            let rest = behind(&refs, &after, Room { lines: usize::MAX, bytes: usize::MAX });
            lost += rest.lines_lost;
            seen.extend(rest.lines.iter().map(|(index, line)| (*index, line.number)));
            let written: u64 = logs.iter().map(Log::end).sum();
            assert_eq!(seen.len() as u64 + lost, written, "{seed}");
        }
    }

    #[test]
    fn an_answer_is_bounded_by_bytes_but_has_one_line_at_least() {
        let log = Log::default();
        for number in 0..100 {
            log.add(number, said(0, number.cast_unsigned(), 400));
        }
        let few = newest(&[&log], Room { lines: 1_000, bytes: 5_000 });
        assert!((5..12).contains(&few.lines.len()), "{}", few.lines.len());
        assert_eq!(newest(&[&log], Room { lines: 1_000, bytes: 0 }).lines.len(), 1);
        let places = [ModuleLogPlace { log: log.id, line: 95 }];
        assert_eq!(behind(&[&log], &places, Room { lines: 1_000, bytes: 0 }).lines.len(), 1);
    }
}
