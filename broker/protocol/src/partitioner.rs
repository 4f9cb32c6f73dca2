//! Kafka's default placement of records that have a key, so that a key lands in the same partition whichever client wrote it.
//!
//! The hash is `MurmurHash2`, 32 bits, with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;

/// Kafka's hash of a key.
pub fn murmur2(key: &[u8]) -> u32 {
    // Kafka mixes in the length as a 32-bit integer; a key is never longer than a batch.
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        k ^= k >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ k.wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

/// The partition of a key: 0 to `partitions - 1`. A topic has at least one partition; 0 is taken as 1.
pub fn for_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::{for_key, murmur2};

    #[test]
    fn hashes_are_those_of_kafka() {
        // From Kafka's UtilsTest.testMurmur2.
        let vectors = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, expected) in vectors {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn a_key_lands_inside_the_topic() {
        for partitions in 1..=17 {
            for key in 0_u32..500 {
                assert!(for_key(&key.to_be_bytes(), partitions) < partitions);
            }
        }
        assert_eq!(for_key(b"21", 10), (0x7fff_ffff & (-973_932_308_i32).cast_unsigned()) % 10);
        assert_eq!(for_key(b"21", 0), 0, "no partitions are taken as one");
    }
}
