//! The address of a door that need not be there.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, net::SocketAddr};

/// Where a door listens, if anywhere: `127.0.0.1:9640`, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Nowhere.
    Off,
    /// There; at a free port if it is 0.
    At(SocketAddr),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Off => f.write_str(OFF),
            Listen::At(address) => address.fmt(f),
        }
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Listen, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == OFF {
            return Ok(Listen::Off);
        }
        let wrong = |_| {
            de::Error::custom(format!("`{text}` is not an address: write an IP address and a port, such as 127.0.0.1:9640, or `{OFF}`"))
        };
        text.parse().map(Listen::At).map_err(wrong)
    }
}

/// What is written for no address.
const OFF: &str = "off";
