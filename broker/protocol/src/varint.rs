//! Zig-zag variable-length integers, as Kafka writes them inside records (KIP-98; the encoding is Protocol Buffers' `sint32` and
//! `sint64`).
//!
//! ```text
//! value     0    -1     1    -2   ...   63   -64    64
//! zig-zag   0     1     2     3   ...  126   127   128
//! bytes    00    01    02    03   ...   7e    7f  80 01     seven bits a byte, lowest first; the top bit says "more follows"
//! ```
//!
//! Reading takes what Kafka's own reader takes, zero padding included, but refuses more than 5 bytes for 32 bits or 10 bytes for
//! 64, and bits that do not fit.

/// The most bytes that a 32-bit integer takes.
pub const I32_BYTES_MAX: usize = 5;

/// The most bytes that a 64-bit integer takes.
pub const I64_BYTES_MAX: usize = 10;

const MORE: u8 = 0x80;

/// Reads an integer from the front and moves behind it. None when it is cut off or does not fit; the bytes are not moved then.
#[inline]
pub fn read_i32(bytes: &mut &[u8]) -> Option<i32> {
    // Almost every integer in a record is one or two bytes long.
    match **bytes {
        [first, ..] if first < MORE => {
            *bytes = &bytes[1..];
            Some(unzigzag_32(u32::from(first)))
        }
        [first, second, ..] if second < MORE => {
            *bytes = &bytes[2..];
            Some(unzigzag_32(u32::from(first & !MORE) | u32::from(second) << 7))
        }
        _ => {
            let mut rest = *bytes;
            let value = u32::try_from(read_long(&mut rest, I32_BYTES_MAX)?).ok()?;
            *bytes = rest;
            Some(unzigzag_32(value))
        }
    }
}

/// Reads an integer from the front and moves behind it. None when it is cut off or does not fit; the bytes are not moved then.
#[inline]
pub fn read_i64(bytes: &mut &[u8]) -> Option<i64> {
    match **bytes {
        [first, ..] if first < MORE => {
            *bytes = &bytes[1..];
            Some(unzigzag_64(u64::from(first)))
        }
        [first, second, ..] if second < MORE => {
            *bytes = &bytes[2..];
            Some(unzigzag_64(u64::from(first & !MORE) | u64::from(second) << 7))
        }
        _ => read_long(bytes, I64_BYTES_MAX).map(unzigzag_64),
    }
}

/// Appends an integer.
#[inline]
pub fn write_i32(out: &mut Vec<u8>, value: i32) {
    write_u64(out, u64::from(zigzag_32(value)));
}

/// Appends an integer.
#[inline]
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    write_u64(out, zigzag_64(value));
}

/// Bytes that [`write_i32`] appends: 1 to 5.
#[inline]
pub const fn len_i32(value: i32) -> usize {
    len_bits(u32::BITS - (zigzag_32(value) | 1).leading_zeros())
}

/// Bytes that [`write_i64`] appends: 1 to 10.
#[inline]
pub const fn len_i64(value: i64) -> usize {
    len_bits(u64::BITS - (zigzag_64(value) | 1).leading_zeros())
}

fn read_long(bytes: &mut &[u8], bytes_max: usize) -> Option<u64> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(bytes_max).enumerate() {
        let bits = u64::from(byte & !MORE);
        let shift = 7 * index;
        // Only the tenth byte, of which one bit fits, can lose bits here.
        if (bits << shift) >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte & MORE == 0 {
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

#[inline]
fn write_u64(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= u64::from(MORE) {
        out.push(rest.to_le_bytes()[0] | MORE);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

const fn len_bits(bits: u32) -> usize {
    bits.div_ceil(7) as usize
}

#[inline]
const fn zigzag_32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)).cast_unsigned()
}

#[inline]
const fn zigzag_64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[inline]
const fn unzigzag_32(value: u32) -> i32 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[inline]
const fn unzigzag_64(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_the_bytes_that_kafka_writes() {
        // From Kafka's ByteUtilsTest.
        let vectors: [(i32, &[u8]); 12] = [
            (0, &[0x00]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (-65, &[0x81, 0x01]),
            (8191, &[0xfe, 0x7f]),
            (-8192, &[0xff, 0x7f]),
            (8192, &[0x80, 0x80, 0x01]),
            (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ];
        for (value, expected) in vectors {
            let mut bytes = Vec::new();
            write_i32(&mut bytes, value);
            assert_eq!(bytes, expected, "{value}");
            assert_eq!(len_i32(value), expected.len(), "{value}");
            assert_eq!(read_i32(&mut &bytes[..]), Some(value));
            assert_eq!(read_i64(&mut &bytes[..]), Some(i64::from(value)));
        }
        for (value, last) in [(i64::MAX, 0xfe), (i64::MIN, 0xff)] {
            let mut bytes = Vec::new();
            write_i64(&mut bytes, value);
            assert_eq!(bytes, [last, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
            assert_eq!(len_i64(value), I64_BYTES_MAX);
            assert_eq!(read_i64(&mut &bytes[..]), Some(value));
        }
    }

    #[test]
    fn an_integer_that_is_cut_off_or_too_large_is_refused_and_the_bytes_stay() {
        let refused_32: [&[u8]; 5] = [
            &[],
            &[0x80],
            &[0x80, 0x80, 0x80],
            &[0xff, 0xff, 0xff, 0xff, 0x10],       // bit 33
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], // six bytes
        ];
        for bytes in refused_32 {
            let mut rest = bytes;
            assert_eq!(read_i32(&mut rest), None, "{bytes:x?}");
            assert_eq!(rest, bytes);
        }
        let mut too_large = [0xff_u8; 10];
        too_large[9] = 0x02;
        assert_eq!(read_i64(&mut &too_large[..]), None, "bit 65");
        assert_eq!(read_i64(&mut &[0xff_u8; 11][..]), None, "eleven bytes");
        assert_eq!(read_i64(&mut &[0x80_u8; 9][..]), None, "cut off");
    }

    #[test]
    fn zero_padding_is_read_as_kafka_reads_it() {
        let mut bytes: &[u8] = &[0x82, 0x80, 0x00, 0x07];
        assert_eq!(read_i32(&mut bytes), Some(1));
        assert_eq!(bytes, [0x07], "the reader moves behind the padding");
    }
}
