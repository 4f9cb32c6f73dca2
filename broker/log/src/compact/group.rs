//! Which segments are written anew, and which together: decided from sizes alone.
//!
//! Segments shrink, and files must not pile up; but every byte that is written wears the flash. So neighbours become one segment up to the
//! size of a segment, a segment in which nothing changes is written only where it is at most half of what it becomes a part of (so a byte
//! is written for that reason a few times in its life, not once for each pass), and all others are left alone.

use std::ops::Range;

use millpond_protocol::batch::HEADER_BYTES;

/// A closed segment, as it would be after the pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) base_offset: i64,
    /// One past its last offset.
    pub(super) end_offset: i64,
    pub(super) generation: u64,
    /// Bytes that it has.
    pub(super) bytes: u64,
    /// Bytes that are left of them, without the empty batches at both ends.
    pub(super) kept_bytes: u64,
    /// Whether it would begin, and end, with an empty batch, which it shares with an empty neighbour.
    pub(super) starts_empty: bool,
    pub(super) ends_empty: bool,
    pub(super) state: State,
    /// Whether its tombstones have to stay.
    pub(super) tombstones_stay: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing would change.
    Same,
    Changed,
    /// It can't be read as a whole, and is left alone.
    Damaged,
}

/// The groups of neighbours that are written anew, each as one segment, oldest first.
pub(super) fn plan(surveys: &[Survey], segment_bytes_max: u64) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut from = 0;
    while from < surveys.len() {
        let to = fitting(surveys, from, segment_bytes_max);
        let (group, next) = worthwhile(surveys, from..to);
        groups.extend(group);
        from = next;
    }
    groups
}

/// How far the segments from `from` on fit into one.
fn fitting(surveys: &[Survey], from: usize, segment_bytes_max: u64) -> usize {
    let first = &surveys[from];
    let (mut bytes, mut follows_empty) = (0, false);
    let fits = |survey: &&Survey| {
        bytes += survey.kept_bytes + EMPTY_BYTES * survey.empty_batches(follows_empty);
        follows_empty = survey.ends_empty;
        // A segment by itself may be as large as it is; see `tail::needs_segment` for the distance.
        let is_first = survey.base_offset == first.base_offset;
        let is_near = survey.end_offset - 1 - first.base_offset <= i64::from(i32::MAX);
        is_first || (survey.state != State::Damaged && first.state != State::Damaged && is_near && bytes <= segment_bytes_max)
    };
    from + surveys[from..].iter().take(GROUP_SEGMENTS_MAX).take_while(fits).count()
}

/// The first part of these segments that is worth writing, and where to go on.
fn worthwhile(surveys: &[Survey], range: Range<usize>) -> (Option<Range<usize>>, usize) {
    let group = &surveys[range.clone()];
    let bytes: u64 = group.iter().map(|survey| survey.kept_bytes).sum();
    let same = group.iter().enumerate().filter(|(_, survey)| survey.state == State::Same);
    match same.max_by_key(|(_, survey)| survey.kept_bytes) {
        // It would be written for little: it stays, and what is in front of it goes on its own.
        Some((at, largest)) if group.len() == 1 || largest.kept_bytes.saturating_mul(2) > bytes => match at {
            0 => (None, range.start + 1),
            _ => worthwhile(surveys, range.start..range.start + at),
        },
        _ if group[0].state == State::Damaged => (None, range.end),
        _ => (Some(range.clone()), range.end),
    }
}

impl Survey {
    /// The empty batches at its ends, but for one that the segment before it ends with.
    fn empty_batches(&self, follows_empty: bool) -> u64 {
        let is_one = self.kept_bytes == 0;
        u64::from(self.starts_empty && !follows_empty) + u64::from(self.ends_empty && !is_one)
    }
}

const EMPTY_BYTES: u64 = HEADER_BYTES as u64;

/// Segments that become one at most. All of them are open for a moment, beside those of the pool.
pub(super) const GROUP_SEGMENTS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a segment.
    type Left = (u64, State);

    /// A group, by its first segment and the one behind its last.
    type Group = (usize, usize);

    fn planned(surveys: &[Survey]) -> Vec<Group> {
        plan(surveys, 1_000).into_iter().map(|group| (group.start, group.end)).collect()
    }

    /// Segments of 100 offsets each, by what is left of them.
    fn surveys(segments: &[Left]) -> Vec<Survey> {
        let survey = |(number, (kept_bytes, state)): (i64, &(u64, State))| Survey {
            base_offset: number * 100,
            end_offset: (number + 1) * 100,
            generation: 0,
            bytes: 1_000,
            kept_bytes: *kept_bytes,
            starts_empty: *kept_bytes == 0,
            ends_empty: *kept_bytes == 0,
            state: *state,
            tombstones_stay: false,
        };
        (0..).zip(segments).map(survey).collect()
    }

    #[test]
    fn neighbours_become_one_up_to_the_size_of_a_segment() {
        use State::{Changed, Damaged, Same};
        let cases: &[(&[Left], &[Group])] = &[
            (&[], &[]),
            (&[(1_000, Same)], &[]),
            (&[(900, Changed)], &[(0, 1)]),
            (&[(400, Changed), (500, Changed), (200, Changed)], &[(0, 2), (2, 3)]),
            (&[(0, Changed), (0, Changed), (1_000, Same)], &[(0, 2)]),
            (&[(0, Changed), (0, Changed), (0, Changed), (939, Changed), (0, Changed)], &[(0, 4), (4, 5)]),
            (&[(800, Same), (100, Changed), (100, Changed)], &[(1, 3)]),
            (&[(100, Changed), (800, Same), (100, Changed)], &[(0, 1), (2, 3)]),
            (&[(200, Same), (10, Changed), (700, Same)], &[(1, 2)]),
            (&[(100, Same), (100, Same), (200, Same)], &[(0, 3)]),
            (&[(100, Same), (201, Same), (100, Same)], &[]),
            (&[(100, Same), (100, Same), (100, Damaged), (100, Same)], &[(0, 2)]),
            (&[(100, Changed), (100, Damaged), (100, Changed)], &[(0, 1), (2, 3)]),
            (&[(5_000, Changed), (100, Changed)], &[(0, 1), (1, 2)]),
        ];
        for (segments, expected) in cases {
            assert_eq!(planned(&surveys(segments)), *expected, "{segments:?}");
        }
    }

    #[test]
    fn every_changed_segment_is_written_once_and_no_damaged_one() {
        let mut random = crate::sim::Random::new(7);
        for _ in 0..2_000 {
            let mut segment = || {
                let state = [State::Same, State::Changed, State::Changed, State::Damaged];
                (random.below(900), state[usize::try_from(random.below(4)).unwrap_or(0)])
            };
            let segments: Vec<_> = (0..12).map(|_| segment()).collect();
            let surveys = surveys(&segments);
            let groups = plan(&surveys, 1_000);
            assert!(groups.windows(2).all(|pair| pair[0].end <= pair[1].start), "{groups:?}");
            for (number, survey) in surveys.iter().enumerate() {
                let written = groups.iter().any(|group| group.contains(&number));
                assert!(written || survey.state != State::Changed, "{number} of {segments:?}: {groups:?}");
                assert!(!written || survey.state != State::Damaged);
            }
            for group in groups {
                let bytes: u64 = surveys[group.clone()].iter().map(|survey| survey.kept_bytes).sum();
                assert!(group.len() == 1 || bytes <= 1_000);
            }
        }
    }

    #[test]
    fn no_group_reaches_further_than_an_index_entry_can_say() {
        let mut far = surveys(&[(100, State::Changed), (100, State::Changed)]);
        far[1].end_offset = i64::from(i32::MAX) + 2;
        assert_eq!(planned(&far), [(0, 1), (1, 2)]);
        far[1].end_offset -= 1;
        assert_eq!(planned(&far), [(0, 2)]);
    }
}
