//! The first frame of a stream.

use crate::{
    frames::{FrameReader, ReadFrameError},
    window::ReceiveWindow,
};
use millpond_engine::Engine;
use millpond_protocol::{
    error::{ErrorCode, WireError},
    frame::{CONTROL_PAYLOAD_BYTES_MAX, Kind},
    message::{self, MessageError, Request},
};
use serde::{
    Deserialize,
    de::{IgnoredAny, IntoDeserializer, value::StrDeserializer},
};
use std::{collections::BTreeMap, fmt};

/// Why there is no request.
#[derive(Debug)]
pub(super) enum RequestError {
    /// To be told to the client.
    Refused(WireError),
    /// The broker stops, and the request had not come whole.
    ShuttingDown,
    /// The client is not there any more.
    Gone(ReadFrameError),
}

/// Requests are some hundred bytes. For a larger one memory is taken from the engine's budget, as for a batch: every stream of every
/// connection may bring one.
const SMALL_REQUEST_BYTES: usize = 4 << 10;

/// Reads the first frame. The client has opened the stream, so it should be under way.
pub(super) async fn read(reader: &mut FrameReader, engine: &Engine, window: &ReceiveWindow) -> Result<Request, RequestError> {
    let header = reader.expected_header(CONTROL_PAYLOAD_BYTES_MAX).await.map_err(told)?;
    if header.kind != Kind::Request {
        let message = format!("a stream starts with a Request frame, not with {:?}", header.kind);
        return Err(RequestError::Refused(WireError::new(ErrorCode::InvalidRequest, message)));
    }
    let length = header.length as usize;
    let room = if length > SMALL_REQUEST_BYTES {
        Some(window.obtain(length, engine.reserve_inflight(length)).await.map_err(RequestError::Refused)?)
    } else {
        None
    };
    let payload = reader.payload(length).await.map_err(told)?;
    let _memory = room.map(|(memory, busy)| {
        busy.done();
        memory
    });
    message::decode(&payload).map_err(|error| RequestError::Refused(undecodable(&payload, &error)))
}

fn told(error: ReadFrameError) -> RequestError {
    match error.to_wire() {
        Some(error) => RequestError::Refused(error),
        None => RequestError::Gone(error),
    }
}

/// A request that is well formed but has a name from the future is told apart from garbage: the client can act on it.
fn undecodable(payload: &[u8], error: &MessageError) -> WireError {
    match name_of(payload) {
        Some(name) if !is_known(&name) => {
            WireError::new(ErrorCode::UnsupportedRequest, format!("the broker does not know the request `{}`", front_of(&name)))
                .with_hint("the broker is older than the client: upgrade it, or use an older client")
        }
        _ => WireError::new(ErrorCode::InvalidRequest, format!("the request can't be read: {}", front_of(&error.to_string()))),
    }
}

/// What is repeated, to the client and to the log, of a text that the client chose.
const REPEATED_CHARS_MAX: usize = 200;

fn front_of(text: &str) -> String {
    text.chars().take(REPEATED_CHARS_MAX).collect()
}

/// A request is its name alone, or a map of one entry from its name to its fields.
fn name_of(payload: &[u8]) -> Option<String> {
    if let Ok(name) = message::decode::<String>(payload) {
        return Some(name);
    }
    #[expect(clippy::zero_sized_map_values, reason = "a set would read a sequence")]
    let map: BTreeMap<String, IgnoredAny> = message::decode(payload).ok()?;
    if map.len() == 1 { map.into_keys().next() } else { None }
}

/// Whether [`Request`] has a variant of this name, asked of its own deserializer.
fn is_known(name: &str) -> bool {
    let deserializer: StrDeserializer<'_, Probe> = name.into_deserializer();
    !matches!(Request::deserialize(deserializer), Err(Probe::UnknownVariant))
}

/// Why a bare name is not a request.
#[derive(Debug)]
enum Probe {
    UnknownVariant,
    /// The name is known, but fields belong to it.
    Other,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Probe {}

impl serde::de::Error for Probe {
    fn custom<T: fmt::Display>(_: T) -> Probe {
        Probe::Other
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Probe {
        Probe::UnknownVariant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(payload: &[u8]) -> WireError {
        let error = message::decode::<Request>(payload).expect_err("not a request");
        undecodable(payload, &error)
    }

    #[test]
    fn a_name_from_the_future_is_unsupported() {
        let error = refused(&message::encode(&BTreeMap::from([("fly", BTreeMap::from([("to", "the moon")]))])));
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::UnsupportedRequest, "the broker does not know the request `fly`"));
        assert_eq!(refused(&message::encode(&"fly")).code, ErrorCode::UnsupportedRequest);
    }

    #[test]
    fn a_known_name_with_wrong_fields_is_invalid() {
        for name in ["broker_info", "open_produce", "attach_transform"] {
            let error = refused(&message::encode(&BTreeMap::from([(name, 7)])));
            assert_eq!(error.code, ErrorCode::InvalidRequest, "{name}: {error}");
        }
    }

    #[test]
    fn garbage_is_invalid() {
        for garbage in [&b""[..], b"\xff\xff", b"GET / HTTP/1.1", b"\x9f\x9f\x9f\x9f", &[0x81; 4096]] {
            assert_eq!(refused(garbage).code, ErrorCode::InvalidRequest, "{garbage:?}");
        }
    }

    #[test]
    fn a_long_name_is_not_repeated_in_full() {
        for request in [message::encode(&"x".repeat(100_000)), message::encode(&BTreeMap::from([("broker_info", "x".repeat(100_000))]))] {
            let error = refused(&request);
            assert!(error.message.len() < 300, "{} bytes", error.message.len());
        }
    }
}
