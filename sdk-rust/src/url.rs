//! The address of a broker: `millpond://HOST:PORT?fp=sha256:HEX`.
//!
//! ```text
//! millpond://gateway.local:9440?fp=sha256:9f86d081884c7d65...
//!            '--- host ---' '+-' '-+----------------------'
//!                            |     whom to trust: fp=sha256:<64 hex digits>, or ca=<path of a PEM file>;
//!                            |     without either, the certificate authorities of the operating system
//!                            port, 9440 when it is left out
//! ```
//!
//! An IPv6 address stands in brackets, as in `millpond://[::1]:9440`. Anything that is not understood is refused, with words that say
//! what: a misspelt `fp` must not turn into a connection that trusts somebody else.

use crate::{error::Error, trust::Fingerprint, trust::Trust};
use std::{fmt, net::Ipv6Addr, path::PathBuf, str::FromStr};

/// The port when none is given.
pub const DEFAULT_PORT: u16 = 9440;

const SCHEME: &str = "millpond://";

/// Where a broker is, and whom to trust there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The UDP port.
    pub port: u16,
    /// Whose certificate is accepted.
    pub trust: Trust,
}

impl BrokerUrl {
    /// Host and port as a person writes them, an IPv6 address in brackets.
    pub fn address(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.address())?;
        match &self.trust {
            Trust::Fingerprint(fingerprint) => write!(f, "?fp={fingerprint}"),
            Trust::CaFile(path) => write!(f, "?ca={}", percent_encode(&path.to_string_lossy())),
            Trust::SystemRoots => Ok(()),
        }
    }
}

impl FromStr for BrokerUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<BrokerUrl, Error> {
        parse(url.trim()).map_err(|reason| Error::InvalidUrl { url: url.to_owned(), reason })
    }
}

fn parse(url: &str) -> Result<BrokerUrl, String> {
    let rest = match url.split_once("://") {
        Some(("millpond", rest)) => rest,
        Some((scheme, _)) => return Err(format!("it starts with {scheme}:// and not with {SCHEME}")),
        None => return Err(format!("it does not start with {SCHEME}")),
    };
    let (authority, query) = rest.split_once('?').map_or((rest, ""), |(authority, query)| (authority, query));
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if let Some(odd) = authority.find(['/', '@', '#']) {
        return Err(format!("only host and port stand behind {SCHEME}, and there is `{}`", &authority[odd..]));
    }
    let (host, port) = parse_authority(authority)?;
    Ok(BrokerUrl { host, port, trust: parse_query(query)? })
}

fn parse_authority(authority: &str) -> Result<(String, u16), String> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
        host.parse::<Ipv6Addr>().map_err(|_| format!("`{host}` is not an IPv6 address"))?;
        let port = match tail {
            "" => None,
            _ => Some(tail.strip_prefix(':').ok_or_else(|| format!("`{tail}` follows the IPv6 address"))?),
        };
        (host, port)
    } else if authority.matches(':').count() > 1 {
        return Err("an IPv6 address stands in brackets, as in [::1]:9440".to_owned());
    } else {
        authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
    };
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if let Some(odd) = host.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("the host contains {odd:?}"));
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => {
            port.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("`{port}` is not a port; it is a number from 1 to 65535"))?
        }
    };
    Ok((host.to_owned(), port))
}

fn parse_query(query: &str) -> Result<Trust, String> {
    let mut trust = Trust::SystemRoots;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let given = match name {
            "fp" => Trust::Fingerprint(value.parse::<Fingerprint>()?),
            "ca" if value.is_empty() => return Err("ca= needs the path of a PEM file".to_owned()),
            "ca" => Trust::CaFile(PathBuf::from(percent_decode(value)?)),
            _ => return Err(format!("`{name}` is not known; there are fp=sha256:<hex> and ca=<path>")),
        };
        if trust != Trust::SystemRoots {
            return Err("give either one fp= or one ca=".to_owned());
        }
        trust = given;
    }
    Ok(trust)
}

/// RFC 3986, section 2.1.
fn percent_decode(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` has a % that two hex digits do not follow, or is not UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
            let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
            bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn percent_encode(text: &str) -> String {
    use fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn reason(url: &str) -> String {
        match url.parse::<BrokerUrl>() {
            Err(Error::InvalidUrl { reason, .. }) => reason,
            other => panic!("{url} gave {other:?}"),
        }
    }

    #[test]
    fn host_and_port_are_read_in_all_their_spellings() {
        let cases = [
            ("millpond://localhost", "localhost", 9440),
            ("millpond://localhost/", "localhost", 9440),
            ("  millpond://gw.local:19440\n", "gw.local", 19440),
            ("millpond://10.0.0.7:1", "10.0.0.7", 1),
            ("millpond://[::1]", "::1", 9440),
            ("millpond://[fe80::1]:7", "fe80::1", 7),
        ];
        for (text, host, port) in cases {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!((url.host.as_str(), url.port, &url.trust), (host, port, &Trust::SystemRoots), "{text}");
        }
    }

    #[test]
    fn what_is_trusted_survives_the_round_trip() {
        for text in [
            format!("millpond://localhost:9440?fp=sha256:{HEX}"),
            "millpond://[::1]:9440?ca=/etc/mill%20pond/ca.pem".to_owned(),
            "millpond://gw:1".to_owned(),
        ] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
        }
        let url: BrokerUrl = "millpond://h?ca=a%20b/%C3%BC.pem".parse().unwrap();
        assert_eq!(url.trust, Trust::CaFile("a b/ü.pem".into()));
    }

    #[test]
    fn each_mistake_is_named() {
        let cases = [
            ("localhost:9440", "does not start with millpond://"),
            ("https://localhost", "starts with https://"),
            ("millpond://", "host is missing"),
            ("millpond://:9440", "host is missing"),
            ("millpond://h:0", "`0` is not a port"),
            ("millpond://h:99999", "`99999` is not a port"),
            ("millpond://h:", "`` is not a port"),
            ("millpond://::1:9440", "brackets"),
            ("millpond://[::1", "not closed"),
            ("millpond://[nonsense]", "not an IPv6 address"),
            ("millpond://[::1]x", "`x` follows"),
            ("millpond://h/topic", "`/topic`"),
            ("millpond://user@h", "`@h`"),
            ("millpond://a b", "contains ' '"),
            ("millpond://h?fingerprint=x", "`fingerprint` is not known"),
            ("millpond://h?fp=sha1:00", "sha256:"),
            ("millpond://h?fp=sha256:00", "64 hex digits"),
            ("millpond://h?ca=", "path of a PEM file"),
            ("millpond://h?ca=%zz", "two hex digits"),
        ];
        for (url, expected) in cases {
            assert!(reason(url).contains(expected), "{url}: {}", reason(url));
        }
        assert!(reason(&format!("millpond://h?fp=sha256:{HEX}&ca=x")).contains("either one"));
    }
}
