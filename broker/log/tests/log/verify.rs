//! Bytes that have changed on the disk, and reads that must not serve them.

use millpond_log::{LogConfig, LogError, VerifyOnRead};

use crate::harness::{Fixture, ROOMY, SMALL, batch, read_all};

/// A log that was closed in order and opened again, so that nobody has read it yet.
fn unread(config: LogConfig) -> Fixture {
    let mut fixture = Fixture::new(config);
    fixture.append(&[batch(2, 30), batch(1, 50), batch(3, 20), batch(1, 10)]);
    let (fixture, report) = fixture.close_and_reopen(0);
    assert!(report.clean_stop);
    fixture
}

/// Flips a bit of the second batch.
fn flip(fixture: &Fixture, bit: usize) {
    let path = fixture.segments()[0].clone();
    let start = fixture.model[0].bytes.len();
    fixture.disk.damage(&path, |bytes| bytes[start + bit / 8] ^= 1 << (bit % 8));
}

#[test]
fn no_flipped_bit_is_served() {
    let (start, length) = {
        let fixture = unread(ROOMY);
        (fixture.model[0].bytes.len() as u64, fixture.model[1].bytes.len())
    };
    for bit in 0..length * 8 {
        // The leader epoch is the broker's, and outside the checksum.
        if (12 * 8..16 * 8).contains(&bit) {
            continue;
        }
        let mut fixture = unread(ROOMY);
        flip(&fixture, bit);
        let reader = fixture.log.reader();
        match reader.read(2, 1 << 20, i64::MAX) {
            Err(LogError::Corrupt { path, position, offset, .. }) => {
                assert_eq!((&path, position, offset), (&fixture.segments()[0], start, 2));
            }
            other => panic!("bit {bit} was flipped, but {other:?}"),
        }
        // What lies before it is served, and no more than that; and not for having been asked again.
        for _ in 0..2 {
            assert_eq!(reader.read(0, 1 << 20, i64::MAX).expect("whole"), fixture.model[0].bytes);
            assert!(matches!(read_all(&reader, 0, 1 << 20), Err(LogError::Corrupt { position, .. }) if position == start));
        }
        // The log goes on.
        fixture.append(&[batch(1, 10)]);
        fixture.flush();
    }
}

#[test]
fn a_batch_is_compared_the_first_time_that_it_is_read_or_always_or_never() {
    let of = |verify_on_read| LogConfig { verify_on_read, ..ROOMY };
    // A value, so that nothing but the checksum tells.
    let bit = 100 * 8;
    let read = |fixture: &Fixture| fixture.log.reader().read(2, 1, i64::MAX);

    let fixture = unread(of(VerifyOnRead::First));
    read(&fixture).expect("whole");
    flip(&fixture, bit);
    assert_ne!(read(&fixture).expect("was compared before"), fixture.model[1].bytes);
    let mut fixture = fixture;
    fixture.reopen();
    assert!(matches!(read(&fixture), Err(LogError::Corrupt { .. })), "compared anew after the next opening");

    let fixture = unread(of(VerifyOnRead::Always));
    read(&fixture).expect("whole");
    flip(&fixture, bit);
    assert!(matches!(read(&fixture), Err(LogError::Corrupt { .. })));

    let fixture = unread(of(VerifyOnRead::Never));
    flip(&fixture, bit);
    assert_ne!(read(&fixture).expect("nobody looks"), fixture.model[1].bytes);
}

#[test]
fn what_this_process_has_appended_counts_as_compared_and_what_lies_before_it_does_not() {
    let mut fixture = unread(ROOMY);
    fixture.append(&[batch(1, 200)]);
    let path = fixture.segments()[0].clone();
    fixture.disk.damage(&path, |bytes| {
        let end = bytes.len();
        bytes[end - 1] ^= 1;
    });
    fixture.log.reader().read(fixture.end() - 1, 1, i64::MAX).expect("it was checked on its way in");
    flip(&fixture, 100 * 8);
    assert!(matches!(read_all(&fixture.log.reader(), 0, 1 << 20), Err(LogError::Corrupt { .. })));
}

#[test]
fn damage_in_a_closed_segment_is_met_by_reads_in_any_order() {
    for seed in 0..40 {
        let mut random = millpond_log::sim::Random::new(seed);
        let mut fixture = Fixture::new(SMALL);
        for _ in 0..40 {
            fixture.append(&[crate::harness::random_batch(&mut random, 0)]);
        }
        let (fixture, _) = fixture.close_and_reopen(seed);
        let segments = fixture.segments();
        let segment = &segments[usize::try_from(random.below(segments.len() as u64)).expect("small")];
        let base: i64 = segment.file_stem().and_then(|stem| stem.to_str()).and_then(|digits| digits.parse().ok()).expect("digits");
        // Some batch of the segment, behind its header.
        let mut position = 0;
        let of_segment: Vec<_> = fixture
            .model
            .iter()
            .filter(|stored| stored.base >= base)
            .map_while(|stored| {
                let at = position;
                position += stored.bytes.len();
                (position <= fixture.disk.bytes(segment).expect("a segment").len()).then_some((at, stored))
            })
            .collect();
        let (at, damaged) = of_segment[usize::try_from(random.below(of_segment.len() as u64)).expect("small")];
        let place = at + 61 + usize::try_from(random.below(damaged.bytes.len() as u64 - 61)).expect("small");
        fixture.disk.damage(segment, |bytes| bytes[place] ^= 0x10);

        let reader = fixture.log.reader();
        for _ in 0..200 {
            let wanted = &fixture.model[usize::try_from(random.below(fixture.model.len() as u64)).expect("small")];
            let max_bytes = usize::try_from(random.below(3_000)).expect("small");
            match reader.read(wanted.base, max_bytes, i64::MAX) {
                Ok(bytes) => {
                    let expected: Vec<u8> =
                        fixture.model.iter().filter(|stored| stored.base >= wanted.base).flat_map(|stored| stored.bytes.clone()).collect();
                    assert!(expected.starts_with(&bytes) && !bytes.is_empty(), "seed {seed}: a wrong byte was served");
                }
                Err(LogError::Corrupt { path, position, offset, .. }) => {
                    assert_eq!((&path, position, offset), (segment, at as u64, damaged.base), "seed {seed}");
                    assert_eq!(wanted.base, damaged.base);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}
