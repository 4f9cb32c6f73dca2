//! A request head, from bytes (RFC 9112, sections 2 and 3). Only what decides about an answer is kept.

use httparse::{EMPTY_HEADER, Error, Request};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: Method,
    /// Without the query.
    pub(crate) path: String,
    /// Whether the peer speaks HTTP/1.1, not 1.0.
    pub(crate) is_http_11: bool,
    /// Whose path it is, as the client sees it: the authority of the target, or else of Host. None in HTTP/1.0, which needs none.
    pub(crate) authority: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Other,
}

/// Why there is no head in the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// Too many header fields.
    TooLarge,
    /// Not HTTP/1.0 or 1.1.
    Malformed(String),
}

/// Reads a head; none while its end has not arrived.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Head>, BadHead> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    let is_whole = request.parse(bytes).map_err(|error| match error {
        Error::TooManyHeaders => BadHead::TooLarge,
        other => BadHead::Malformed(other.to_string()),
    })?;
    // All three are there once the head is whole.
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else { return Ok(None) };
    if is_whole.is_partial() {
        return Ok(None);
    }
    let is_http_11 = version == 1;
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() || (is_http_11 && host.is_none()) {
        return Err(BadHead::Malformed("it has no Host, or several".to_owned()));
    }
    let host = host.map(|host| String::from_utf8_lossy(host.value).trim().to_owned());
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        _ => Method::Other,
    };
    let (authority, path) = parts_of(target);
    Ok(Some(Head { method, path: path.to_owned(), is_http_11, authority: authority.map(str::to_owned).or(host) }))
}

/// The authority and the path in a request's target. Only a whole URL has the former, and then it is the one that counts (RFC 9112,
/// section 3.2.2).
fn parts_of(target: &str) -> (Option<&str>, &str) {
    let (authority, path) = match target.split_once("://") {
        Some(("http" | "https", rest)) => {
            let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            (Some(authority), if path.starts_with('/') { path } else { "/" })
        }
        _ => (None, target),
    };
    (authority, path.split(['?', '#']).next().unwrap_or(path))
}

/// More fields than any monitoring tool or proxy sends.
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(text: &str) -> Head {
        parse(text.as_bytes()).expect("it is one").expect("it is whole")
    }

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text = "GET /metrics?name=a HTTP/1.1\r\nHost: 127.0.0.1:9640\r\nAccept: */*\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..end]), Ok(None), "the first {end} bytes");
        }
        let authority = Some("127.0.0.1:9640".to_owned());
        assert_eq!(head(text), Head { method: Method::Get, path: "/metrics".to_owned(), is_http_11: true, authority });
    }

    #[test]
    fn methods_versions_and_targets_are_told_apart() {
        for (text, method, path, is_http_11, authority) in [
            ("HEAD /health/live HTTP/1.0\r\n\r\n", Method::Head, "/health/live", false, None),
            ("HEAD /health/live HTTP/1.0\r\nHost: b\r\n\r\n", Method::Head, "/health/live", false, Some("b")),
            ("POST / HTTP/1.1\r\nhost:  a \r\n\r\n", Method::Other, "/", true, Some("a")),
            ("get / HTTP/1.1\r\nhost: a\r\n\r\n", Method::Other, "/", true, Some("a")),
            ("GET http://gateway:9640/metrics?a=b HTTP/1.1\r\nHost: a\r\n\r\n", Method::Get, "/metrics", true, Some("gateway:9640")),
            ("GET http://gateway HTTP/1.1\r\nHost: a\r\n\r\n", Method::Get, "/", true, Some("gateway")),
            ("GET http://gateway?a=/b HTTP/1.1\r\nHost: a\r\n\r\n", Method::Get, "/", true, Some("gateway")),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Method::Other, "*", true, Some("a")),
        ] {
            let authority = authority.map(str::to_owned);
            assert_eq!(head(text), Head { method, path: path.to_owned(), is_http_11, authority }, "{text}");
        }
    }

    #[test]
    fn what_is_no_http_1_is_refused() {
        for text in [
            "\x16\x03\x01\x02\x00\x01",
            "GET /metrics HTTP/2.0\r\n\r\n",
            "GET /metrics\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            assert!(matches!(parse(text.as_bytes()), Err(BadHead::Malformed(_))), "{text:?}");
        }
        let many = "a: b\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(parse(format!("GET / HTTP/1.0\r\n{many}\r\n").as_bytes()), Err(BadHead::TooLarge));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..512), text in "[A-Z]{0,4} [ -~]{0,40} HTTP/1.[01]\r\n[ -~\r\n]{0,200}") {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
        }
    }
}
