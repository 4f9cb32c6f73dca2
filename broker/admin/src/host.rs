//! By which names a door on a loopback address may be called.
//!
//! It is for programs of this machine. A browser on it is one of them, and shows pages of strangers: such a page has a name that its owner
//! lets lead to 127.0.0.1 after it was loaded, and then reads what is there, for to the browser it is all one site (DNS rebinding). The
//! browser says by which name it has come, so a name that nobody outside can give away is asked for: `localhost`, what ends with it
//! (RFC 6761, section 6.3), or an address, which needs no name.
//!
//! A door on any other address is reached by names that it does not know, and looks at none.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Which names a door answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Any.
    Any,
    /// Those of this machine for itself, and addresses.
    Local,
}

impl Names {
    /// For a door that listens here.
    pub(crate) fn of(listening: SocketAddr) -> Names {
        if listening.ip().to_canonical().is_loopback() { Names::Local } else { Names::Any }
    }

    /// Whether a request for this authority, `HOST` or `HOST:PORT`, is answered. One that names none comes from no browser.
    pub(crate) fn has(self, authority: Option<&str>) -> bool {
        match (self, authority) {
            (Names::Any, _) | (_, None) => true,
            (Names::Local, Some(authority)) => is_local(authority),
        }
    }
}

fn is_local(authority: &str) -> bool {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, port)| address.parse::<Ipv6Addr>().is_ok() && is_port(port));
    }
    let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    is_port(port)
        && (host.parse::<IpAddr>().is_ok() || name == LOCALHOST || name.strip_suffix(LOCALHOST).is_some_and(|rest| rest.ends_with('.')))
}

/// Nothing, or a colon and digits.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

const LOCALHOST: &str = "localhost";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_on_loopback_answers_to_what_no_stranger_can_give_away() {
        let names = Names::of("127.0.0.1:9640".parse().expect("an address"));
        for own in ["localhost", "LocalHost:9640", "localhost.", "a.b.localhost:1", "127.0.0.1", "127.0.0.1:9640", "[::1]", "[::1]:9640"] {
            assert!(names.has(Some(own)), "{own}");
        }
        // A scraper that comes by a forwarded port may name the address that it has asked.
        assert!(names.has(Some("10.0.0.7:9640")) && names.has(None));
        for other in [
            "",
            ":9640",
            "evil.example",
            "evil.example:9640",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "127.1",
            "2130706433",
            "0x7f000001",
            "[::1",
            "[::1]evil.example",
            "[evil.example]",
            "localhost:evil.example",
            "::1",
            "user@localhost",
            "127.0.0.1:80@evil.example",
            "localhost evil.example",
            ".",
            "\u{fffd}",
        ] {
            assert!(!names.has(Some(other)), "{other}");
        }
    }

    #[test]
    fn only_loopback_is_looked_after() {
        for listening in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(Names::of(listening.parse().expect("an address")), Names::Local, "{listening}");
        }
        for listening in ["0.0.0.0:1", "[::]:1", "10.0.0.7:1"] {
            let names = Names::of(listening.parse().expect("an address"));
            assert!(names.has(Some("gateway.example:9640")), "{listening}");
        }
    }
}
