//! Lines from stdin or a file, as records.
//!
//! A thread of its own reads: stdin can't be waited for otherwise. It reads what is there, at most [`READ_BYTES`] at once, so a line
//! that comes alone goes on alone, and the lines of a fast input go on by the thousand. Lines share the memory that they were read
//! into. What waits between this thread and the producer is bounded by the channel's length and [`CHUNK_RECORDS_MAX`].

use crate::{
    config::ByteSize,
    failure::{Failure, Outcome},
    json_line::{self, JsonLineError},
};
use bytes::{Bytes, BytesMut};
use millpond::Record;
use std::io::{self, ErrorKind, Read};
use tokio::sync::mpsc::Sender;

/// Records that are handed on together, at most.
pub(super) const CHUNK_RECORDS_MAX: usize = 4096;

/// Bytes that are asked for in one read.
const READ_BYTES: usize = 256 << 10;

/// Less room than this at the end of a buffer is not worth a read.
const READ_BYTES_MIN: usize = 16 << 10;

/// The longest line. No topic takes batches that are larger.
const LINE_BYTES_MAX: usize = 256 << 20;

/// How a line becomes a record.
#[derive(Clone, Debug)]
pub(super) enum LineFormat {
    /// The line is the value; before the separator, where there is one, stands the key.
    Text { key_separator: Option<Bytes> },
    /// The line is a JSON object.
    Jsonl,
}

/// A record and the line that it came from, counted from 1.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) line: u64,
    pub(super) record: Record,
}

/// Some records, in order.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) records: Vec<Numbered>,
    /// The line behind them, if it is not a record: the last one that is read.
    pub(super) not_a_record: Option<BadLine>,
    /// Bytes of input up to the end of the last of them.
    pub(super) input_bytes: u64,
}

/// A line that is not a record, counted from 1.
#[derive(Debug)]
pub(super) struct BadLine {
    pub(super) line: u64,
    /// Names the line and says what is wrong with it.
    pub(super) failure: Failure,
}

/// Why a line is not a record.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("the key separator is not in it")]
    NoSeparator,
    #[error("it is longer than {}", ByteSize(*.0 as u64))]
    TooLong(usize),
    #[error(transparent)]
    Json(#[from] JsonLineError),
}

impl LineFormat {
    /// None for a blank line between JSON objects.
    fn record(&self, line: Bytes) -> Result<Option<Record>, LineError> {
        match self {
            LineFormat::Text { key_separator: None } => Ok(Some(Record { value: Some(line), ..Record::default() })),
            LineFormat::Text { key_separator: Some(separator) } => {
                let at = memchr::memmem::find(&line, separator).ok_or(LineError::NoSeparator)?;
                let key = Some(line.slice(..at));
                let value = Some(line.slice(at + separator.len()..));
                Ok(Some(Record { key, value, ..Record::default() }))
            }
            LineFormat::Jsonl if line.trim_ascii().is_empty() => Ok(None),
            LineFormat::Jsonl => Ok(Some(json_line::read(&line)?)),
        }
    }

    fn explain(&self, line: u64, error: &LineError) -> BadLine {
        let failure = Failure::new(format!("line {line} is not a record")).because(error);
        let failure = match (self, error) {
            (_, LineError::TooLong(_)) => failure.hint("each line is one record; is the input text?"),
            (LineFormat::Text { .. }, _) => failure.hint("every line is KEY, the separator and VALUE"),
            (LineFormat::Jsonl, LineError::Json(JsonLineError::UnknownField(_) | JsonLineError::NoValue)) => failure.hint(
                "a line is {\"key\",\"value\",\"headers\",\"timestamp\",\"partition\"}, of which only the value is needed; \
                 leave out `-i jsonl` to store each line as it is",
            ),
            (LineFormat::Jsonl, _) => failure,
        };
        BadLine { line, failure }
    }
}

/// Reads to the end and hands on what comes, until nobody takes it any more. A line that is not a record is the last thing that
/// is handed on.
pub(super) fn read_all(input: impl Read, format: &LineFormat, out: &Sender<Outcome<Chunk>>) {
    let lines = Lines { input, line_bytes_max: LINE_BYTES_MAX, buffer: BytesMut::new(), scanned: 0, ended: false };
    hand_on_all(lines, format, out);
}

fn hand_on_all<R: Read>(mut lines: Lines<R>, format: &LineFormat, out: &Sender<Outcome<Chunk>>) {
    let (mut line, mut input_bytes) = (0, 0);
    loop {
        let mut block = match lines.next_block() {
            Ok(Some(block)) => block,
            Ok(None) => return,
            Err(BlockError::TooLong) => {
                let not_a_record = Some(format.explain(line + 1, &LineError::TooLong(lines.line_bytes_max)));
                let _ = out.blocking_send(Ok(Chunk { not_a_record, input_bytes, ..Chunk::default() }));
                return;
            }
            Err(BlockError::Unreadable(failure)) => {
                let _ = out.blocking_send(Err(failure));
                return;
            }
        };
        while !block.is_empty() {
            let chunk = cut_chunk(&mut block, &mut line, &mut input_bytes, format);
            let (is_empty, is_last) = (chunk.records.is_empty(), chunk.not_a_record.is_some());
            let is_taken = (is_empty && !is_last) || out.blocking_send(Ok(chunk)).is_ok();
            if is_last || !is_taken {
                return;
            }
        }
    }
}

/// Takes lines from the front of `block`.
fn cut_chunk(block: &mut Bytes, line: &mut u64, input_bytes: &mut u64, format: &LineFormat) -> Chunk {
    let mut chunk = Chunk::default();
    let mut taken = 0;
    while taken < block.len() && chunk.records.len() < CHUNK_RECORDS_MAX {
        let rest = &block[taken..];
        // Only the last line of all can be without a line break.
        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let text = block.slice(taken..taken + length);
        taken += (length + 1).min(rest.len());
        *line += 1;
        match format.record(text) {
            Ok(Some(record)) => chunk.records.push(Numbered { line: *line, record }),
            Ok(None) => {}
            Err(error) => {
                chunk.not_a_record = Some(format.explain(*line, &error));
                break;
            }
        }
    }
    let _ = block.split_to(taken);
    *input_bytes += taken as u64;
    chunk.input_bytes = *input_bytes;
    chunk
}

/// Why there are no more lines.
enum BlockError {
    /// The line that follows is longer than it may be.
    TooLong,
    Unreadable(Failure),
}

/// Cuts what is read into blocks of whole lines.
struct Lines<R> {
    input: R,
    /// More than this, and it is not a line.
    line_bytes_max: usize,
    buffer: BytesMut,
    /// Bytes at the front of `buffer` that hold no line break.
    scanned: usize,
    ended: bool,
}

impl<R: Read> Lines<R> {
    /// One line or more, each with its line break, except perhaps the last of the input. None at the end.
    fn next_block(&mut self) -> Result<Option<Bytes>, BlockError> {
        while !self.ended {
            self.read_more().map_err(BlockError::Unreadable)?;
            if let Some(last) = memchr::memrchr(b'\n', &self.buffer[self.scanned..]) {
                let block = self.buffer.split_to(self.scanned + last + 1).freeze();
                self.scanned = self.buffer.len();
                return Ok(Some(block));
            }
            self.scanned = self.buffer.len();
            if self.scanned > self.line_bytes_max {
                return Err(BlockError::TooLong);
            }
        }
        Ok(Some(self.buffer.split().freeze()).filter(|rest| !rest.is_empty()))
    }

    fn read_more(&mut self) -> Outcome {
        let filled = self.buffer.len();
        if self.buffer.capacity() - filled < READ_BYTES_MIN {
            // Twice as much for a long line, so that the copies of what is there already stay few.
            self.buffer.reserve(READ_BYTES.max(filled));
        }
        self.buffer.resize(self.buffer.capacity().min(filled + READ_BYTES), 0);
        let read = loop {
            match self.input.read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        self.ended = matches!(read, Ok(0));
        read.map(drop).map_err(|error: io::Error| Failure::new("can't read the input").because(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{Receiver, channel};

    /// Gives at most `step` bytes at a time.
    struct Slowly<'a> {
        rest: &'a [u8],
        step: usize,
    }

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.step.min(self.rest.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.rest[..count]);
            self.rest = &self.rest[count..];
            Ok(count)
        }
    }

    type Seen = Vec<(u64, Option<Bytes>, Option<Bytes>)>;

    fn read(input: impl Read, format: &LineFormat) -> (Seen, u64, Option<Failure>) {
        let (out, chunks) = channel(1 << 16);
        read_all(input, format, &out);
        drop(out);
        collect(chunks)
    }

    fn collect(mut chunks: Receiver<Outcome<Chunk>>) -> (Seen, u64, Option<Failure>) {
        let (mut seen, mut bytes, mut problem) = (Vec::new(), 0, None);
        while let Some(chunk) = chunks.blocking_recv() {
            match chunk {
                Ok(chunk) => {
                    assert!(chunk.records.len() <= CHUNK_RECORDS_MAX);
                    bytes = chunk.input_bytes;
                    seen.extend(chunk.records.into_iter().map(|Numbered { line, record }| (line, record.key, record.value)));
                    assert!(problem.is_none(), "nothing is handed on behind a line that is not a record");
                    problem = chunk.not_a_record.map(|bad| bad.failure);
                }
                Err(failure) => panic!("the input can be read: {failure}"),
            }
        }
        (seen, bytes, problem)
    }

    const PLAIN: LineFormat = LineFormat::Text { key_separator: None };

    #[test]
    fn lines_are_the_same_however_the_input_is_cut() {
        let text = b"one\n\ntwo\r\n\xff\nlast";
        let expected: Vec<&[u8]> = vec![b"one", b"", b"two\r", b"\xff", b"last"];
        for step in [1, 2, 3, 5, 100] {
            let (seen, bytes, problem) = read(Slowly { rest: text, step }, &PLAIN);
            assert!(problem.is_none());
            assert_eq!(seen.iter().map(|(_, _, value)| value.as_deref().unwrap_or_default()).collect::<Vec<_>>(), expected, "step {step}");
            assert_eq!(seen.iter().map(|(line, ..)| *line).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
            assert_eq!(bytes, text.len() as u64);
        }
        assert_eq!(read(&b""[..], &PLAIN).0, Vec::new());
        assert_eq!(read(&b"\n"[..], &PLAIN).0.len(), 1);
    }

    #[test]
    fn a_line_may_be_longer_than_a_read() {
        let mut text = vec![b'x'; 3 * READ_BYTES];
        text.extend_from_slice(b"\nshort\n");
        let (seen, ..) = read(&text[..], &PLAIN);
        assert_eq!(seen.iter().map(|(_, _, value)| value.as_ref().map_or(0, Bytes::len)).collect::<Vec<_>>(), [3 * READ_BYTES, 5]);
    }

    #[test]
    fn a_line_without_end_is_not_a_record_and_is_named() {
        let input = (&b"short\n"[..]).chain(io::repeat(b'x'));
        let lines = Lines { input, line_bytes_max: 1 << 20, buffer: BytesMut::new(), scanned: 0, ended: false };
        let (out, chunks) = channel(1 << 16);
        hand_on_all(lines, &PLAIN, &out);
        drop(out);
        let (seen, _, problem) = collect(chunks);
        assert_eq!(seen.len(), 1);
        assert_eq!(problem.expect("it never ends").to_string(), "line 2 is not a record: it is longer than 1MiB");
    }

    #[test]
    fn many_lines_come_in_order_and_in_bounded_chunks() {
        let text = (1..=100_000).map(|number| number.to_string()).collect::<Vec<_>>().join("\n") + "\n";
        let (seen, bytes, _) = read(text.as_bytes(), &PLAIN);
        assert_eq!((seen.len(), bytes), (100_000, 588_895));
        assert!(seen.iter().all(|(line, key, value)| key.is_none() && value.as_deref() == Some(line.to_string().as_bytes())));
    }

    #[test]
    fn the_key_stands_before_the_first_separator() {
        let format = LineFormat::Text { key_separator: Some(Bytes::from_static(b"::")) };
        let (seen, _, problem) = read(&b"a::b::c\n::x\nnone\nlater::1\n"[..], &format);
        let some = |text: &'static [u8]| Some(Bytes::from_static(text));
        assert_eq!(seen, [(1, some(b"a"), some(b"b::c")), (2, some(b""), some(b"x"))]);
        assert_eq!(problem.expect("line 3 has none").to_string(), "line 3 is not a record: the key separator is not in it");
    }

    #[test]
    fn json_lines_keep_their_numbers_across_blank_ones() {
        let (seen, _, problem) = read(&b"{\"value\":\"a\"}\n\n  \n{\"value\":\"b\"}\n{\"valu\":1}\n"[..], &LineFormat::Jsonl);
        assert_eq!(seen.iter().map(|(line, ..)| *line).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(problem.expect("line 5 is wrong").to_string(), "line 5 is not a record: a record has no field `valu`");
    }
}
