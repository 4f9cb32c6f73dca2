//! Kafka's variable-length integers: seven bits in a byte, the lowest first, signs folded in by zig-zag.
//!
//! ```text
//!  value   0    -1   1    -2   63   -64  64      300
//!  bytes   00   01   02   03   7e   7f   80 01   d8 04
//! ```

/// Takes a number from the front. `None` if the bytes end too early or the number has more than 64 bits.
pub(crate) fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    // Most numbers in a record have one byte or two: deltas, and lengths up to 63 and up to 8191.
    match **bytes {
        [first @ ..0x80, ref rest @ ..] => {
            *bytes = rest;
            Some(unfold(u64::from(first)))
        }
        [first, second @ ..0x80, ref rest @ ..] => {
            *bytes = rest;
            Some(unfold(u64::from(first & 0x7f) | u64::from(second) << 7))
        }
        _ => take_long(bytes),
    }
}

/// Takes a number of 32 bits from the front.
pub(crate) fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    i32::try_from(take_i64(bytes)?).ok()
}

/// Appends a number.
pub(crate) fn put_i64(out: &mut Vec<u8>, value: i64) {
    let mut folded = fold(value);
    while folded >= 0x80 {
        out.push(low_byte(folded) | 0x80);
        folded >>= 7;
    }
    out.push(low_byte(folded));
}

/// How many bytes [`put_i64`] appends.
pub(crate) fn len_i64(value: i64) -> usize {
    let bits = 64 - fold(value).leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

#[cold]
fn take_long(bytes: &mut &[u8]) -> Option<i64> {
    let mut folded = 0_u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        let group = u64::from(byte & 0x7f);
        if index == 9 && group > 1 {
            return None;
        }
        folded |= group << (7 * index);
        if byte < 0x80 {
            *bytes = &bytes[index + 1..];
            return Some(unfold(folded));
        }
    }
    None
}

fn fold(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unfold(folded: u64) -> i64 {
    (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed()
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

#[cfg(test)]
mod tests {
    use super::{len_i64, put_i64, take_i32, take_i64};

    #[test]
    fn numbers_survive_the_round_trip() {
        let mut samples = vec![i64::MIN, i64::MAX];
        samples.extend((0..63).flat_map(|shift| [(1_i64 << shift) - 1, 1 << shift, -(1 << shift)]));
        for value in samples {
            let mut out = Vec::new();
            put_i64(&mut out, value);
            assert_eq!(out.len(), len_i64(value), "{value}");
            let mut rest = &out[..];
            assert_eq!(take_i64(&mut rest), Some(value));
            assert!(rest.is_empty());
            assert_eq!(take_i64(&mut &out[..out.len() - 1]), None, "{value} cut short");
        }
    }

    #[test]
    fn the_bytes_are_kafkas() {
        for (value, bytes) in [(0, &[0][..]), (-1, &[1]), (1, &[2]), (-64, &[0x7f]), (64, &[0x80, 1]), (300, &[0xd8, 4])] {
            let mut out = Vec::new();
            put_i64(&mut out, value);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn what_is_too_long_is_no_number() {
        assert_eq!(take_i64(&mut &[0xff; 11][..]), None);
        assert_eq!(take_i64(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..]), None);
        assert_eq!(take_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), None);
    }
}
