//! Snappy in the framing of xerial's snappy-java, which is what Kafka means by "snappy".
//!
//! ```text
//!  0                          8             12           16           20
//! +--------------------------+-------------+------------+------------+----------------------+------------+----
//! | 0x82 "SNAPPY" 0x00       | version     | compatible | length     | raw snappy block     | length     | ...
//! |                          | i32 = 1     | i32 = 1    | i32        | (length bytes)       | i32        |
//! +--------------------------+-------------+------------+------------+----------------------+------------+----
//! ```
//!
//! A raw block starts with its own uncompressed length. Bytes that do not start with the magic are taken as one raw block, as
//! Kafka's reader does (some clients write that).

use super::{Codec, CompressionError};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const FRAME_HEADER: [u8; 16] = *b"\x82SNAPPY\0\x00\x00\x00\x01\x00\x00\x00\x01";

/// Uncompressed bytes in each block that is written; snappy-java's default.
const BLOCK_BYTES: usize = 32 << 10;

/// The most that a byte of a raw block can become: three bytes say "copy 64 bytes".
const EXPANSION_MAX: usize = 22;

/// Appends `input` in xerial's framing.
pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    out.extend_from_slice(&FRAME_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    let mut block = vec![0; snap::raw::max_compress_len(input.len().min(BLOCK_BYTES))];
    for chunk in input.chunks(BLOCK_BYTES) {
        let length = encoder
            .compress(chunk, &mut block)
            .map_err(|error| CompressionError::Failed { codec: Codec::Snappy, reason: error.to_string() })?;
        let announced = u32::try_from(length).unwrap_or_else(|_| unreachable!("a block of 32 KiB stays far below 4 GiB"));
        out.extend_from_slice(&announced.to_be_bytes());
        out.extend_from_slice(&block[..length]);
    }
    Ok(())
}

/// Reads xerial's framing or one raw block.
pub(super) fn decompress(input: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut decoder = snap::raw::Decoder::new();
    let mut out = Vec::new();
    if !input.starts_with(&MAGIC) {
        append_block(&mut decoder, input, &mut out, limit_bytes)?;
        return Ok(out);
    }
    // The versions are not looked at, as in Kafka's reader: there has only ever been one.
    let mut rest = input.get(FRAME_HEADER.len()..).ok_or_else(|| malformed("the frame's header is cut off"))?;
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk().ok_or_else(|| malformed("a block's length is cut off"))?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| malformed("a block has a negative length"))?;
        let (block, behind) = behind.split_at_checked(length).ok_or_else(|| malformed("a block is cut off"))?;
        append_block(&mut decoder, block, &mut out, limit_bytes)?;
        rest = behind;
    }
    Ok(out)
}

fn append_block(decoder: &mut snap::raw::Decoder, block: &[u8], out: &mut Vec<u8>, limit_bytes: usize) -> Result<(), CompressionError> {
    let claimed = snap::raw::decompress_len(block).map_err(|error| malformed(&error.to_string()))?;
    if claimed > limit_bytes - out.len() {
        return Err(CompressionError::OverLimit { limit_bytes });
    }
    if claimed > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(malformed("a block claims more than its bytes can become"));
    }
    let start = out.len();
    out.resize(start + claimed, 0);
    let written = decoder.decompress(block, &mut out[start..]).map_err(|error| malformed(&error.to_string()))?;
    out.truncate(start + written);
    Ok(())
}

fn malformed(reason: &str) -> CompressionError {
    CompressionError::Malformed { codec: Codec::Snappy, reason: reason.to_owned() }
}
