//! What became of each line that was read, in the order of the input: what the broker answers, or why nothing was sent.

use crate::{
    failure::{Failure, Outcome},
    json_line::{write_number, write_text},
    output::thousands,
    progress::RecordProgress,
    stdout::{BLOCK_BYTES, StdoutWriter},
};
use millpond::{Delivery, Error, Fate, RecordPlace};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

/// What was done with a line of the input.
#[derive(Debug)]
pub(super) struct Sent {
    /// Counted from 1.
    pub(super) line: u64,
    /// Of key and value.
    pub(super) bytes: usize,
    /// Bytes of input up to about this record.
    pub(super) input_bytes: u64,
    /// The answer to come, or why nothing was sent.
    pub(super) delivery: Result<Delivery, Refusal>,
}

/// Why a line was not stored.
#[derive(Debug)]
pub(super) struct Refusal {
    /// A name that never changes its meaning.
    code: &'static str,
    failure: Failure,
}

impl Refusal {
    /// The line is not a record; `failure` says why.
    pub(super) fn not_a_record(failure: Failure) -> Refusal {
        Refusal { code: NOT_A_RECORD, failure }
    }

    /// The record at this line was refused, by the broker or by the client before it was sent.
    pub(super) fn of_record(line: u64, error: Error) -> Refusal {
        let code = error.code();
        let became = if error.maybe_done() { "is stored or not, nobody knows" } else { "could not be stored" };
        Refusal { code, failure: Failure::from(error).within(format!("line {line} {became}")) }
    }
}

/// Waits for the answers.
#[derive(Debug)]
pub(super) struct Answers {
    output: Option<StdoutWriter>,
    block: Vec<u8>,
    progress: RecordProgress,
    report: Report,
}

/// What was answered.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Records that were acknowledged.
    pub(super) records: u64,
    /// Bytes of their keys and values.
    pub(super) bytes: u64,
    failed: u64,
    /// Why the first line that was not stored was not.
    first_failed: Option<Failure>,
    /// Why the answers could not be printed.
    printing: Option<Failure>,
}

impl Report {
    /// Whether some record was not stored.
    pub(super) fn has_failed(&self) -> bool {
        self.first_failed.is_some()
    }

    /// An error if some record was not stored.
    pub(super) fn outcome(self) -> Outcome {
        match self.first_failed {
            Some(failure) if self.failed > 1 => Err(failure.and(&format!(", nor could {} after it", thousands(self.failed - 1)))),
            Some(failure) => Err(failure),
            None => self.printing.map_or(Ok(()), Err),
        }
    }
}

impl Answers {
    pub(super) fn new(output: Option<StdoutWriter>, progress: RecordProgress) -> Answers {
        Answers { output, block: Vec::new(), progress, report: Report::default() }
    }

    /// Waits until everything that was sent is answered. Cancels `refused` at the first record that is not stored: there is no use
    /// in reading on.
    pub(super) async fn run(mut self, mut sent: Receiver<Vec<Sent>>, refused: CancellationToken) -> Report {
        while let Some(batch) = sent.recv().await {
            for Sent { line, bytes, input_bytes, delivery } in batch {
                let answer = match delivery {
                    Ok(delivery) => self.answer(delivery).await.map_err(|error| Refusal::of_record(line, error)),
                    Err(refusal) => Err(refusal),
                };
                if self.output.is_some() {
                    write_answer(&mut self.block, line, &answer);
                    if self.block.len() >= BLOCK_BYTES {
                        self.print_block().await;
                    }
                }
                self.count(bytes, answer, &refused);
                self.progress.update(self.report.records, self.report.bytes, input_bytes);
            }
            if sent.is_empty() {
                self.print_block().await;
            }
        }
        self.print_block().await;
        self.close_output().await;
        self.progress.finish();
        self.report
    }

    async fn answer(&mut self, delivery: Delivery) -> Result<RecordPlace, Error> {
        if let Some(answer) = delivery.try_get() {
            return answer;
        }
        // Whoever reads the answers gets those that are there before the next is waited for.
        self.print_block().await;
        delivery.await
    }

    fn count(&mut self, bytes: usize, answer: Result<RecordPlace, Refusal>, refused: &CancellationToken) {
        match answer {
            Ok(_) => {
                self.report.records += 1;
                self.report.bytes += bytes as u64;
            }
            Err(refusal) => {
                self.report.failed += 1;
                self.report.first_failed.get_or_insert(refusal.failure);
                refused.cancel();
            }
        }
    }

    /// Storing goes on when nobody reads the answers any more.
    async fn print_block(&mut self) {
        if let Some(output) = &mut self.output
            && !output.write(&mut self.block).await
        {
            self.close_output().await;
        }
    }

    async fn close_output(&mut self) {
        if let Some(output) = self.output.take() {
            self.report.printing = output.finish().await.err().filter(|failure| !failure.is_reader_gone());
        }
    }
}

/// Appends the line for one record.
fn write_answer(out: &mut Vec<u8>, line: u64, answer: &Result<RecordPlace, Refusal>) {
    match answer {
        Ok(place) if place.is_dropped() => out.extend_from_slice(b"{\"partition\":null,\"offset\":null,\"dropped\":true}\n"),
        Ok(place) => {
            out.extend_from_slice(b"{\"partition\":");
            write_number(out, i64::from(place.partition));
            out.extend_from_slice(b",\"offset\":");
            write_number(out, place.offset);
            out.extend_from_slice(match place.fate {
                Fate::StoredUnlessDropped => b",\"maybe_dropped\":true}\n",
                Fate::Expanded => b",\"expanded\":true}\n",
                _ => b"}\n",
            });
        }
        Err(Refusal { code, failure }) => {
            out.extend_from_slice(b"{\"partition\":null,\"offset\":null,\"error\":");
            write_text(out, code);
            out.extend_from_slice(b",\"line\":");
            write_number(out, i64::try_from(line).unwrap_or(i64::MAX));
            out.extend_from_slice(b",\"message\":");
            write_text(out, &failure.to_string());
            out.extend_from_slice(b"}\n");
        }
    }
}

/// The code of a line that is not a record. Those of records are the codes of the client and of the broker.
const NOT_A_RECORD: &str = "not_a_record";
