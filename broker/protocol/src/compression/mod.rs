//! The four codecs of Kafka's batches: gzip, snappy, lz4, zstd.
//!
//! | codec | what is written | what is read |
//! |---|---|---|
//! | gzip | one member (RFC 1952), level 6 | one or more members |
//! | snappy | xerial framing (drawn in `snappy.rs`), as Kafka's Java client writes it | xerial framing or one raw block |
//! | lz4 | one frame, independent blocks of 64 KiB, no content checksum | one frame, any block size and checksums |
//! | zstd | one frame (RFC 8878), level 3 | one or more frames, any window size |
//!
//! # What it refuses
//!
//! Output over the caller's limit. Memory grows with what has really come out, never with a length that the input claims: the
//! buffer that is returned holds at most about twice the limit, lz4 keeps at most three of its blocks (of at most 4 MiB each)
//! beside it, and zstd needs no window because it writes straight into the buffer.

mod snappy;

use std::{
    fmt,
    io::{self, Read, Write},
    str::FromStr,
};
use thiserror::Error;

/// How the records of a batch are compressed. The numbers are those in the batch's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy blocks in xerial's framing.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// RFC 8878.
    Zstd = 4,
}

/// Why bytes could not be compressed or decompressed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompressionError {
    /// More would come out than the caller takes. Nothing of it is kept.
    #[error("the records are larger than {limit_bytes} bytes when decompressed")]
    OverLimit {
        /// Bytes that the caller takes.
        limit_bytes: usize,
    },
    /// The bytes are not what the codec writes.
    #[error("the records are not valid {codec}: {reason}")]
    Malformed {
        /// The codec that the batch names.
        codec: Codec,
        /// What is wrong with them, in the words of the codec's library.
        reason: String,
    },
    /// The codec's library failed while compressing.
    #[error("compressing with {codec} failed: {reason}")]
    Failed {
        /// The codec that was asked for.
        codec: Codec,
        /// In the words of the codec's library.
        reason: String,
    },
}

/// Why a codec's name was not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a compression: it is `none`, `gzip`, `snappy`, `lz4` or `zstd`")]
pub struct ParseCodecError(String);

impl Codec {
    /// Every codec, in the order of their numbers.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The codec that bits 0 to 2 of a batch's attributes name; none for the numbers 5 to 7, which no codec has.
    pub const fn from_attributes(attributes: i16) -> Option<Codec> {
        Some(match attributes & Codec::ATTRIBUTES_MASK {
            0 => Codec::None,
            1 => Codec::Gzip,
            2 => Codec::Snappy,
            3 => Codec::Lz4,
            4 => Codec::Zstd,
            _ => return None,
        })
    }

    /// The bits of a batch's attributes that hold the codec.
    pub const ATTRIBUTES_MASK: i16 = 0b111;

    /// The name on the command line and in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = ParseCodecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Codec::ALL.into_iter().find(|codec| codec.name() == text).ok_or_else(|| ParseCodecError(text.to_owned()))
    }
}

/// Compresses `input`.
pub fn compress(codec: Codec, input: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    compress_into(codec, input, &mut out)?;
    Ok(out)
}

/// Compresses `input` and appends it. After an error `out` may hold a part of it.
pub(crate) fn compress_into(codec: Codec, input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let failed = |error: &dyn fmt::Display| CompressionError::Failed { codec, reason: error.to_string() };
    match codec {
        Codec::None => out.extend_from_slice(input),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
            encoder.write_all(input).map_err(|error| failed(&error))?;
            encoder.finish().map_err(|error| failed(&error))?;
        }
        Codec::Snappy => snappy::compress(input, out)?,
        Codec::Lz4 => {
            // What Kafka's reader insists on: blocks that do not depend on each other.
            let frame = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Independent)
                .block_size(lz4_flex::frame::BlockSize::Max64KB);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, out);
            encoder.write_all(input).map_err(|error| failed(&error))?;
            encoder.finish().map_err(|error| failed(&error))?;
        }
        Codec::Zstd => zstd_compress(input, out).map_err(|error| failed(&error))?,
    }
    Ok(())
}

/// Decompresses `input` to at most `limit_bytes` bytes.
pub fn decompress(codec: Codec, input: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = match codec {
        Codec::None if input.len() > limit_bytes => return Err(CompressionError::OverLimit { limit_bytes }),
        Codec::None => input.to_vec(),
        Codec::Gzip => read_to_limit(codec, &mut flate2::read::MultiGzDecoder::new(input), input.len(), limit_bytes)?,
        Codec::Snappy => snappy::decompress(input, limit_bytes)?,
        Codec::Lz4 => lz4_decompress(input, limit_bytes)?,
        Codec::Zstd => zstd_decompress(input, limit_bytes)?,
    };
    // Records that are handed out keep the whole section alive, so what was only room is given back.
    out.shrink_to_fit();
    Ok(out)
}

/// What decompressed records usually are in multiples of their compressed size; where the output buffer starts.
const EXPANSION_EXPECTED: usize = 6;

/// The smallest output buffer, in bytes.
const OUTPUT_BYTES_MIN: usize = 4096;

fn first_output_bytes(input_bytes: usize, limit_bytes: usize) -> usize {
    input_bytes.saturating_mul(EXPANSION_EXPECTED).max(OUTPUT_BYTES_MIN).min(limit_bytes)
}

fn read_to_limit(codec: Codec, decoder: &mut dyn Read, input_bytes: usize, limit_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::with_capacity(first_output_bytes(input_bytes, limit_bytes));
    // One byte more than allowed tells "exactly the limit" from "over it".
    decoder
        .take((limit_bytes as u64).saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|error| CompressionError::Malformed { codec, reason: error.to_string() })?;
    if out.len() > limit_bytes {
        return Err(CompressionError::OverLimit { limit_bytes });
    }
    Ok(out)
}

/// How an LZ4 frame starts. The legacy format and skippable frames, which the library would read too, are not Kafka's.
const LZ4_MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

fn lz4_decompress(input: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let malformed = |reason: &str| CompressionError::Malformed { codec: Codec::Lz4, reason: reason.to_owned() };
    if !input.starts_with(&LZ4_MAGIC) {
        return Err(malformed("it does not start like a frame"));
    }
    let mut decoder = lz4_flex::frame::FrameDecoder::new(Lz4Input { rest: input, ran_out: false });
    let out = read_to_limit(Codec::Lz4, &mut decoder, input.len(), limit_bytes)?;
    let input = decoder.into_inner();
    if input.ran_out {
        return Err(malformed("the frame is cut off"));
    }
    if !input.rest.is_empty() {
        return Err(malformed("bytes follow the frame"));
    }
    Ok(out)
}

/// The library takes a frame without its end mark for a whole one; Kafka's reader does not. So this notes whether the decoder ever
/// asked for more than there is, which it does not do for a whole frame.
struct Lz4Input<'a> {
    rest: &'a [u8],
    ran_out: bool,
}

impl Read for Lz4Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ran_out |= self.rest.is_empty() && !buffer.is_empty();
        self.rest.read(buffer)
    }
}

/// zstd's own default, a good trade between size and time.
const ZSTD_LEVEL: i32 = 3;

/// `ZSTD_error_dstSize_tooSmall`, as a function returns it. zstd keeps the numbers below 100 stable (`zstd_errors.h`).
const ZSTD_OUTPUT_TOO_SMALL: usize = 70_usize.wrapping_neg();

/// How much larger the next buffer is when one was too small.
const ZSTD_GROWTH: usize = 4;

fn zstd_compress(input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
    // With the size known the tables are no larger than it needs.
    encoder.set_pledged_src_size(Some(input.len() as u64))?;
    encoder.write_all(input)?;
    encoder.finish()?;
    Ok(())
}

/// In one call, without a window, so that a frame cannot ask for memory by the window size that it claims (up to 128 MiB, and more
/// than any batch for what Kafka's clients write at levels 20 and up). Where the buffer turns out too small it starts over with a
/// larger one; at a growth of four that costs at most a third more than the last round alone.
fn zstd_decompress(input: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut context = zstd::zstd_safe::DCtx::create();
    let mut capacity = first_output_bytes(input.len(), limit_bytes);
    loop {
        let mut out: Vec<u8> = Vec::with_capacity(capacity);
        // An allocator may give more than was asked for; the limit holds all the same.
        match context.decompress(&mut out, input) {
            Ok(_) if out.len() <= limit_bytes => return Ok(out),
            Ok(_) => return Err(CompressionError::OverLimit { limit_bytes }),
            Err(ZSTD_OUTPUT_TOO_SMALL) if capacity >= limit_bytes => return Err(CompressionError::OverLimit { limit_bytes }),
            Err(ZSTD_OUTPUT_TOO_SMALL) => capacity = capacity.saturating_mul(ZSTD_GROWTH).min(limit_bytes),
            Err(code) => {
                return Err(CompressionError::Malformed { codec: Codec::Zstd, reason: zstd::zstd_safe::get_error_name(code).to_owned() });
            }
        }
    }
}

#[cfg(test)]
mod tests;
