//! Records that lie about themselves, each well formed but for its lie, and one that is only large.
//!
//! ```text
//!  lie-offset   an offset delta of 2^31 - 1
//!  lie-order    offset deltas of 1 and then 0
//!  lie-time     a timestamp delta of 2^63 - 1
//!  lie-length   a value of 2^31 - 1 bytes, of which four are there
//!  lie-headers  2^31 - 1 headers, of which none is there
//! ```

/// The lie of a mode, if it is one.
pub(crate) fn told(mode: &str) -> Option<Vec<u8>> {
    let honest = Claims { timestamp_delta: 0, offset_delta: 0, value_bytes: VALUE_BYTES, headers: 0 };
    let largest = i64::from(i32::MAX);
    Some(match mode {
        "lie-offset" => Claims { offset_delta: largest, ..honest }.encode(),
        "lie-order" => [Claims { offset_delta: 1, ..honest }.encode(), honest.encode()].concat(),
        "lie-time" => Claims { timestamp_delta: i64::MAX, ..honest }.encode(),
        "lie-length" => Claims { value_bytes: largest, ..honest }.encode(),
        "lie-headers" => Claims { headers: largest, ..honest }.encode(),
        _ => return None,
    })
}

/// An honest record of 7 MiB, made in as little time as can be.
pub(crate) fn swollen() -> Vec<u8> {
    const VALUE_BYTES: usize = 7 << 20;
    let length = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
    let mut front = vec![0];
    for number in [0, 0, -1, length(VALUE_BYTES)] {
        put(&mut front, number);
    }
    let mut record = Vec::with_capacity(VALUE_BYTES + 32);
    put(&mut record, length(front.len() + VALUE_BYTES + 1));
    record.extend_from_slice(&front);
    record.resize(record.len() + VALUE_BYTES, b'x');
    put(&mut record, 0);
    record
}

/// What a record says of itself.
#[derive(Clone, Copy)]
struct Claims {
    timestamp_delta: i64,
    offset_delta: i64,
    value_bytes: i64,
    headers: i64,
}

impl Claims {
    /// Length, attributes, timestamp delta, offset delta, no key, the value, headers.
    fn encode(self) -> Vec<u8> {
        let mut body = vec![0];
        for number in [self.timestamp_delta, self.offset_delta, -1, self.value_bytes] {
            put(&mut body, number);
        }
        body.extend_from_slice(VALUE);
        put(&mut body, self.headers);
        let mut record = Vec::new();
        put(&mut record, i64::try_from(body.len()).unwrap_or(i64::MAX));
        record.extend_from_slice(&body);
        record
    }
}

/// A number as the records have it: zigzag, seven bits in a byte.
fn put(out: &mut Vec<u8>, number: i64) {
    let mut folded = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while folded > 0x7f {
        out.push(folded.to_le_bytes()[0] | 0x80);
        folded >>= 7;
    }
    out.push(folded.to_le_bytes()[0]);
}

const VALUE: &[u8] = b"lies";

const VALUE_BYTES: i64 = 4;
