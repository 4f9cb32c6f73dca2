//! The bytes in which a commit, and a whole store, are written down. Pure.
//!
//! A journal is frames, one behind the other from its beginning; a snapshot is one frame. All integers are big-endian.
//!
//! ```text
//!   0       4         8          16        20       24
//!  +-------+---------+----------+---------+--------+------------------ ...
//!  | kind  | length  | number   | crc of  | crc of | body
//!  | u32   | of the  | u64      | the     | the 20 | (length bytes)
//!  |       | body    |          | body    | before |
//!  +-------+---------+----------+---------+--------+------------------ ...
//!
//!  kind "MDc1", a commit: position, changes of the state, outputs
//!    position i64 | changes u32 | { key length u16 | value length u32 (ffffffff: the key is gone) | key | value }
//!                 | outputs u32 | { target u32 | partition u32 | length u32 | a record batch as it is appended there }
//!  kind "MDa1", applied: no body. The targets hold, durably, what the commit of this number has for them.
//!  kind "MDs1", a snapshot: all that commits up to this number have made
//!    position i64 | sequences u32 | { target u32 | partition u32 | next sequence i32 }
//!                 | entries u32   | { key length u16 | value length u32 | key | value }
//! ```
//!
//! Both checksums are CRC-32C. Nothing of a frame is believed before them, and no count or length in it is believed after them without the bytes
//! being there: the parser takes any bytes.

use bytes::{Buf, Bytes};
use millpond_plugin::StateChange;
use millpond_protocol::batch::checksum;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Commit,
    Applied,
    Snapshot,
}

/// A frame whose checksums are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    pub(crate) body: Bytes,
}

/// What one round has made of some records, to be kept whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    /// All records before this offset of the source have had their effect.
    pub(crate) position: i64,
    pub(crate) changes: Vec<StateChange>,
    pub(crate) outputs: Vec<Output>,
}

/// A batch for a partition of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// Which of the attachment's targets; behind the last of them is the topic for dead letters.
    pub(crate) target: u32,
    pub(crate) partition: u32,
    /// With the number of its producer, as it is appended.
    pub(crate) batch: Bytes,
}

/// All that commits have made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) position: i64,
    /// For a target and a partition, the sequence with which the next batch begins.
    pub(crate) sequences: Vec<((u32, u32), i32)>,
    pub(crate) entries: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Kind {
    fn tag(self) -> [u8; 4] {
        *match self {
            Kind::Commit => b"MDc1",
            Kind::Applied => b"MDa1",
            Kind::Snapshot => b"MDs1",
        }
    }

    fn of(tag: [u8; 4]) -> Option<Kind> {
        [Kind::Commit, Kind::Applied, Kind::Snapshot].into_iter().find(|kind| kind.tag() == tag)
    }
}

impl Frame {
    /// The frame as bytes. None where the body has more than 4 GiB.
    pub(crate) fn encode(kind: Kind, number: u64, body: &[u8]) -> Option<Vec<u8>> {
        let length = u32::try_from(body.len()).ok()?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&kind.tag());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&checksum(body).to_be_bytes());
        bytes.extend_from_slice(&checksum(&bytes).to_be_bytes());
        bytes.extend_from_slice(body);
        Some(bytes)
    }

    /// The frame with which these bytes begin, and how many it takes; none if there is no whole and undamaged one.
    pub(crate) fn decode(bytes: &Bytes) -> Option<(Frame, usize)> {
        let (kind, number, length) = Frame::decode_header(bytes)?;
        let body = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(length)?)?;
        let crc = u32::from_be_bytes(*bytes[16..].first_chunk()?);
        (checksum(body) == crc).then(|| (Frame { kind, number, body: bytes.slice_ref(body) }, HEADER_BYTES + length))
    }

    /// Kind, number and length of the body, if the header is undamaged.
    pub(crate) fn decode_header(bytes: &[u8]) -> Option<(Kind, u64, usize)> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let kind = Kind::of(*header.first_chunk()?)?;
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let number = (u64::from(word(8)) << 32) | u64::from(word(12));
        (checksum(&header[..20]) == word(20)).then_some((kind, number, word(4) as usize))
    }
}

impl Commit {
    /// Whether only the position has changed.
    pub(crate) fn has_no_effect(&self) -> bool {
        self.changes.is_empty() && self.outputs.is_empty()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = self.position.to_be_bytes().to_vec();
        put_count(&mut body, self.changes.len());
        for (key, value) in &self.changes {
            put_entry(&mut body, key, value.as_deref());
        }
        put_count(&mut body, self.outputs.len());
        for Output { target, partition, batch } in &self.outputs {
            body.extend_from_slice(&target.to_be_bytes());
            body.extend_from_slice(&partition.to_be_bytes());
            put_count(&mut body, batch.len());
            body.extend_from_slice(batch);
        }
        body
    }

    pub(crate) fn decode(mut body: Bytes) -> Option<Commit> {
        let position = take_i64(&mut body)?;
        let mut changes = Vec::new();
        for _ in 0..take_u32(&mut body)? {
            changes.push(take_entry(&mut body)?);
        }
        let mut outputs = Vec::new();
        for _ in 0..take_u32(&mut body)? {
            let (target, partition) = (take_u32(&mut body)?, take_u32(&mut body)?);
            let length = take_u32(&mut body)? as usize;
            outputs.push(Output { target, partition, batch: take(&mut body, length)? });
        }
        body.is_empty().then_some(Commit { position, changes, outputs })
    }
}

impl Snapshot {
    pub(crate) fn encode<'a>(
        position: i64,
        sequences: impl ExactSizeIterator<Item = ((u32, u32), i32)>,
        (entries, count): (impl Iterator<Item = (&'a [u8], &'a [u8])>, usize),
    ) -> Vec<u8> {
        let mut body = position.to_be_bytes().to_vec();
        put_count(&mut body, sequences.len());
        for ((target, partition), next) in sequences {
            body.extend_from_slice(&target.to_be_bytes());
            body.extend_from_slice(&partition.to_be_bytes());
            body.extend_from_slice(&next.to_be_bytes());
        }
        put_count(&mut body, count);
        entries.for_each(|(key, value)| put_entry(&mut body, key, Some(value)));
        body
    }

    pub(crate) fn decode(mut body: Bytes) -> Option<Snapshot> {
        let position = take_i64(&mut body)?;
        let mut sequences = Vec::new();
        for _ in 0..take_u32(&mut body)? {
            let place = (take_u32(&mut body)?, take_u32(&mut body)?);
            sequences.push((place, take_u32(&mut body)?.cast_signed()));
        }
        let mut entries = Vec::new();
        for _ in 0..take_u32(&mut body)? {
            let (key, value) = take_entry(&mut body)?;
            entries.push((key, value?));
        }
        body.is_empty().then_some(Snapshot { position, sequences, entries })
    }
}

/// A frame has 4 GiB at most, and so has everything in it: [`Frame::encode`] refuses what is larger.
fn put_count(body: &mut Vec<u8>, count: usize) {
    body.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

/// A key has 1 KiB at most.
fn put_entry(body: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    body.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    let length = value.map_or(GONE, |value| u32::try_from(value.len()).unwrap_or(GONE - 1));
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(key);
    body.extend_from_slice(value.unwrap_or_default());
}

fn take_entry(body: &mut Bytes) -> Option<StateChange> {
    let key_length = body.try_get_u16().ok()?;
    let value_length = take_u32(body)?;
    let key = take(body, usize::from(key_length))?.to_vec();
    let value = if value_length == GONE { None } else { Some(take(body, value_length as usize)?.to_vec()) };
    Some((key, value))
}

fn take(body: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= body.len()).then(|| body.split_to(length))
}

fn take_u32(body: &mut Bytes) -> Option<u32> {
    body.try_get_u32().ok()
}

fn take_i64(body: &mut Bytes) -> Option<i64> {
    body.try_get_i64().ok()
}

/// Before the body of a frame.
pub(crate) const HEADER_BYTES: usize = 24;

/// In the place of a value's length: there is none.
const GONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_log::sim::Random;

    fn commit() -> Commit {
        let output = |target, partition, batch: &'static [u8]| Output { target, partition, batch: Bytes::from_static(batch) };
        Commit {
            position: 7,
            changes: vec![(b"a".to_vec(), Some(b"1".to_vec())), (b"".to_vec(), None), (vec![9; 300], Some(Vec::new()))],
            outputs: vec![output(0, 3, b"batch"), output(1, 0, b"")],
        }
    }

    fn snapshot_body() -> Vec<u8> {
        let entries: [(&[u8], &[u8]); 2] = [(b"a", b"1"), (b"b", b"")];
        Snapshot::encode(-1, [((0, 1), 5), ((2, 0), i32::MAX)].into_iter(), (entries.into_iter(), 2))
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = Bytes::from(Frame::encode(Kind::Commit, 4_711, &commit().encode()).expect("it fits"));
        let (frame, length) = Frame::decode(&bytes).expect("it is whole");
        assert_eq!((frame.kind, frame.number, length), (Kind::Commit, 4_711, bytes.len()));
        assert_eq!(Commit::decode(frame.body), Some(commit()));
        let snapshot = Snapshot::decode(snapshot_body().into()).expect("it is whole");
        assert_eq!(snapshot.sequences, [((0, 1), 5), ((2, 0), i32::MAX)]);
        assert_eq!(snapshot.entries, [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), Vec::new())]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = Frame::encode(Kind::Commit, 1, &commit().encode()).expect("it fits");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::decode(&flipped.into()), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(Frame::decode(&bytes[..length].to_vec().into()), None, "{length} bytes");
        }
    }

    /// Bodies whose checksums are right may say anything.
    #[test]
    fn random_bytes_are_read_without_a_panic_and_without_believing_a_length() {
        let mut random = Random::new(3);
        let bodies = [commit().encode(), snapshot_body()];
        for round in 0..20_000_usize {
            let mut body = bodies[round % 2].clone();
            for _ in 0..=random.below(4) {
                let at = usize::try_from(random.below(body.len() as u64)).expect("small");
                body[at] = u8::try_from(random.below(256)).expect("a byte");
            }
            body.truncate(usize::try_from(random.below(body.len() as u64 + 1)).expect("small"));
            let _ = (Commit::decode(body.clone().into()), Snapshot::decode(body.clone().into()), Frame::decode(&body.into()));
        }
        let mut liar = 7_i64.to_be_bytes().to_vec();
        liar.extend_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!((Commit::decode(liar.clone().into()), Snapshot::decode(liar.into())), (None, None));
    }
}
