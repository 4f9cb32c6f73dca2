//! Frames: how messages follow each other on a QUIC stream.
//!
//! ```text
//!  0               4       5       6               8
//! +---------------+-------+-------+---------------+----------------
//! | length  u32   | kind  | flags | reserved  u16 | payload ...
//! |               | u8    | u8    | (zero)        | (length bytes)
//! +---------------+-------+-------+---------------+----------------
//! ```
//!
//! Integers are big-endian, as in the batches. `length` counts the payload alone. `flags` and `reserved` are sent as zero and
//! ignored when read, so that a later version can give them a meaning that an older peer may miss.
//!
//! A stream starts with one [`Kind::Request`] frame from the client. What follows depends on the request:
//!
//! | request | client then sends | broker answers with |
//! |---|---|---|
//! | any other | nothing | one `Response` or `Error` |
//! | `deploy_module` | `Body` frames, until `size_bytes` have come | one `Response` or `Error` |
//! | `open_produce` | `Produce` frames | one `Response`; then for each batch, in order, `Ack`, `Placements` or `Error` |
//! | `open_consume` | nothing | one `Response`; then `Batches` frames for as long as the stream is open |

use thiserror::Error;

/// Bytes of the header in front of every payload.
pub const HEADER_BYTES: usize = 8;

/// The largest payload of a [`Kind::Request`] frame, in bytes. Answers, batches and module bodies have limits of their own.
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The largest payload of a [`Kind::Response`] or [`Kind::Error`] frame, in bytes: room to describe some 100,000 partitions.
pub const RESPONSE_PAYLOAD_BYTES_MAX: usize = 1 << 24;

/// The largest payload of a [`Kind::Body`] frame, in bytes.
pub const BODY_PAYLOAD_BYTES_MAX: usize = 1 << 18;

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A [`crate::message::Request`] in CBOR.
    Request = 1,
    /// A [`crate::message::Response`] in CBOR.
    Response = 2,
    /// A [`crate::error::WireError`] in CBOR. On a produce stream it answers one batch.
    Error = 3,
    /// Some of the bytes that a request announced.
    Body = 4,
    /// One record batch, as it is.
    Produce = 16,
    /// A [`crate::message::Ack`].
    Ack = 17,
    /// A [`crate::message::Placements`]: the answer to a batch that the broker spread over partitions.
    Placements = 18,
    /// A [`crate::message::Watermarks`] and whole record batches behind it, as they are. Without batches it tells the watermarks alone.
    Batches = 32,
}

impl Kind {
    /// The kind with this number.
    pub const fn from_number(number: u8) -> Option<Kind> {
        Some(match number {
            1 => Kind::Request,
            2 => Kind::Response,
            3 => Kind::Error,
            4 => Kind::Body,
            16 => Kind::Produce,
            17 => Kind::Ack,
            18 => Kind::Placements,
            32 => Kind::Batches,
            _ => return None,
        })
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the payload is.
    pub kind: Kind,
    /// Bytes of payload behind the header.
    pub length: u32,
}

/// Why a frame's header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The peer speaks something else, or a newer version.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The header announces more than the reader takes.
    #[error("a frame of {length} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Bytes announced.
        length: u32,
        /// Bytes allowed.
        limit: u32,
    },
}

impl FrameHeader {
    /// The header as bytes.
    pub const fn encode(self) -> [u8; HEADER_BYTES] {
        let length = self.length.to_be_bytes();
        [length[0], length[1], length[2], length[3], self.kind as u8, 0, 0, 0]
    }

    /// Reads a header and holds its length against `limit_bytes`.
    pub fn decode(bytes: [u8; HEADER_BYTES], limit_bytes: u32) -> Result<FrameHeader, FrameError> {
        let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let kind = Kind::from_number(bytes[4]).ok_or(FrameError::UnknownKind(bytes[4]))?;
        if length > limit_bytes {
            return Err(FrameError::TooLarge { length, limit: limit_bytes });
        }
        Ok(FrameHeader { kind, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let header = FrameHeader { kind: Kind::Produce, length: 0x0102_0304 };
        assert_eq!(header.encode(), [1, 2, 3, 4, 16, 0, 0, 0], "golden bytes");
        assert_eq!(FrameHeader::decode(header.encode(), u32::MAX), Ok(header));
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_read() {
        let bytes = FrameHeader { kind: Kind::Body, length: u32::MAX }.encode();
        assert_eq!(FrameHeader::decode(bytes, 10), Err(FrameError::TooLarge { length: u32::MAX, limit: 10 }));
    }

    #[test]
    fn flags_and_reserved_bytes_are_ignored() {
        let mut bytes = FrameHeader { kind: Kind::Ack, length: 1 }.encode();
        bytes[5..8].fill(0xff);
        assert_eq!(FrameHeader::decode(bytes, 10), Ok(FrameHeader { kind: Kind::Ack, length: 1 }));
    }

    #[test]
    fn random_bytes_are_not_a_frame() {
        assert_eq!(FrameHeader::decode(*b"GET / HT", u32::MAX), Err(FrameError::UnknownKind(b'/')));
    }
}
