//! The bytes of an answer (RFC 9112, section 4), and a body that is written while it is made.
//!
//! Every answer closes its connection. A body of unknown length goes in chunks to a peer that speaks HTTP/1.1, which then sees whether
//! it got all of it; to one that speaks 1.0 it ends where the connection does.

use crate::request::{Head, Method};
use bytes::Buf;
use std::{fmt::Write, io};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// The status of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Misdirected,
    HeadTooLarge,
    Unavailable,
}

/// A short answer in plain text.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    code: Code,
    text: String,
}

/// A body that is written as it is made, through a buffer of about [`CHUNK_BYTES`].
#[derive(Debug)]
pub(crate) struct Body<'a, W> {
    out: &'a mut W,
    buffer: String,
    is_chunked: bool,
}

impl Code {
    /// As the status line has it.
    const fn line(self) -> &'static str {
        match self {
            Code::Ok => "200 OK",
            Code::BadRequest => "400 Bad Request",
            Code::NotFound => "404 Not Found",
            Code::MethodNotAllowed => "405 Method Not Allowed",
            Code::RequestTimeout => "408 Request Timeout",
            Code::Misdirected => "421 Misdirected Request",
            Code::HeadTooLarge => "431 Request Header Fields Too Large",
            Code::Unavailable => "503 Service Unavailable",
        }
    }
}

impl Answer {
    /// An answer of these lines.
    pub(crate) fn text(code: Code, text: impl Into<String>) -> Answer {
        Answer { code, text: text.into() + "\n" }
    }

    /// Writes it; without its text in answer to HEAD.
    pub(crate) async fn write<W: AsyncWrite + Unpin>(&self, out: &mut W, with_body: bool) -> io::Result<()> {
        let allow = if self.code == Code::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
        let (line, length) = (self.code.line(), self.text.len());
        let mut bytes = format!("HTTP/1.1 {line}\r\nContent-Type: {PLAIN_TEXT}\r\nContent-Length: {length}\r\n{allow}{CLOSE}\r\n");
        if with_body {
            bytes.push_str(&self.text);
        }
        out.write_all(bytes.as_bytes()).await
    }
}

impl<'a, W: AsyncWrite + Unpin> Body<'a, W> {
    /// Begins an answer to `head` with status 200. None if only the header fields are asked for: they are all there is to it.
    pub(crate) async fn begin(out: &'a mut W, head: &Head, content_type: &str) -> io::Result<Option<Body<'a, W>>> {
        let coding = if head.is_http_11 { "Transfer-Encoding: chunked\r\n" } else { "" };
        let line = Code::Ok.line();
        let fields = format!("HTTP/1.1 {line}\r\nContent-Type: {content_type}\r\n{coding}{CLOSE}\r\n");
        out.write_all(fields.as_bytes()).await?;
        if head.method == Method::Head {
            return Ok(None);
        }
        Ok(Some(Body { out, buffer: String::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4), is_chunked: head.is_http_11 }))
    }

    /// Where more text goes. A line or two at a time, with [`Body::relieve`] between them.
    pub(crate) fn text(&mut self) -> &mut String {
        &mut self.buffer
    }

    /// Sends what is there if it has become much.
    pub(crate) async fn relieve(&mut self) -> io::Result<()> {
        if self.buffer.len() >= CHUNK_BYTES {
            self.send().await?;
            // The system may take megabytes at once. Others on this worker have their turn between two pieces.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Sends the rest, and says that it was the rest.
    pub(crate) async fn end(mut self) -> io::Result<()> {
        self.send().await?;
        if self.is_chunked { self.out.write_all(b"0\r\n\r\n").await } else { Ok(()) }
    }

    async fn send(&mut self) -> io::Result<()> {
        // An empty chunk would be the end.
        if self.buffer.is_empty() {
            return Ok(());
        }
        if self.is_chunked {
            let mut size = String::new();
            // Writing to a String does not fail.
            let _ = write!(size, "{:x}\r\n", self.buffer.len());
            let mut chunk = size.as_bytes().chain(self.buffer.as_bytes()).chain(&b"\r\n"[..]);
            self.out.write_all_buf(&mut chunk).await?;
        } else {
            self.out.write_all(self.buffer.as_bytes()).await?;
        }
        self.buffer.clear();
        Ok(())
    }
}

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

const CLOSE: &str = "Connection: close\r\n";

/// As much text is made before it is sent.
const CHUNK_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(method: Method, is_http_11: bool, lines: usize) -> String {
        let head = Head { method, path: "/".to_owned(), is_http_11, authority: None };
        let mut out = Vec::new();
        if let Some(mut body) = Body::begin(&mut out, &head, "text/plain").await.expect("a Vec takes it") {
            for _ in 0..lines {
                body.text().push_str("0123456789abcde\n");
                body.relieve().await.expect("a Vec takes it");
            }
            body.end().await.expect("a Vec takes it");
        }
        String::from_utf8(out).expect("text")
    }

    #[tokio::test]
    async fn a_long_body_goes_in_chunks_of_a_bounded_size() {
        let text = body(Method::Get, true, 2500).await;
        let (fields, chunks) = text.split_once("\r\n\r\n").expect("an empty line");
        assert!(fields.contains("Transfer-Encoding: chunked") && fields.contains("Connection: close"), "{fields}");
        let sizes: Vec<_> = chunks.split("\r\n").step_by(2).collect();
        assert_eq!(sizes, ["4000", "4000", "1c40", "0", ""].as_slice());
    }

    #[tokio::test]
    async fn a_peer_of_http_1_0_gets_no_chunks_and_head_no_body() {
        let text = body(Method::Get, false, 2500).await;
        let (fields, plain) = text.split_once("\r\n\r\n").expect("an empty line");
        assert!(!fields.contains("chunked") && plain.len() == 2500 * 16, "{fields}");
        assert!(body(Method::Head, true, 1).await.ends_with("\r\n\r\n"));
        assert!(body(Method::Get, true, 0).await.ends_with("\r\n\r\n0\r\n\r\n"));
    }
}
