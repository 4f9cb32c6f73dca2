//! Bytes taken for what travels between a client and a broker.

use std::fmt::Debug;

use millpond_protocol::error::WireError;
use millpond_protocol::frame::FrameHeader;
use millpond_protocol::message::{self, Ack, Placements, Request, Response, Watermarks};

/// Takes the bytes for a frame's header, and for each kind of message.
pub(crate) fn run(data: &[u8]) {
    if let Some(header) = data.first_chunk()
        && let Ok(header) = FrameHeader::decode(*header, FRAME_BYTES_MAX)
    {
        assert!(header.length <= FRAME_BYTES_MAX);
        assert_eq!(FrameHeader::decode(header.encode(), FRAME_BYTES_MAX), Ok(header));
    }
    holds::<Request>(data);
    holds::<Response>(data);
    holds::<WireError>(data);
    if let Ok(ack) = Ack::decode(data) {
        assert_eq!(Ack::decode(&ack.encode()).ok(), Some(ack));
    }
    if let Ok(placements) = Placements::decode(data) {
        assert_eq!(Placements::decode(&placements.encode()).ok(), Some(placements));
    }
    if let Ok(watermarks) = Watermarks::decode_front(data) {
        assert_eq!(watermarks.encode()[..], data[..Watermarks::BYTES]);
    }
}

/// What was decoded is the same after it was encoded.
fn holds<T: serde::Serialize + serde::de::DeserializeOwned + Debug + PartialEq>(data: &[u8]) {
    if let Ok(found) = message::decode::<T>(data) {
        let again = message::decode::<T>(&message::encode(&found)).expect("what was encoded can be decoded");
        assert_eq!(again, found);
    }
}

const FRAME_BYTES_MAX: u32 = 1 << 20;
