//! What the broker answers, record by record, in the order of the input.

use crate::{
    failure::{Failure, Outcome},
    json_line::{write_number, write_text},
    progress::RecordProgress,
    stdout::{BLOCK_BYTES, StdoutWriter},
};
use millpond::{Delivery, Error, Fate, RecordPlace};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

/// A record that is on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) line: u64,
    /// Of key and value.
    pub(super) bytes: usize,
    /// Bytes of input up to about this record.
    pub(super) input_bytes: u64,
    pub(super) delivery: Delivery,
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
    /// The first line that was not stored, and why.
    first_failed: Option<(u64, Error)>,
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
        if let Some((line, error)) = self.first_failed {
            let what = match self.failed {
                1 => format!("line {line} could not be stored"),
                failed => format!("line {line} could not be stored, nor could {} after it", failed - 1),
            };
            return Err(Failure::from(error).within(what));
        }
        self.printing.map_or(Ok(()), Err)
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
                let answer = if let Some(answer) = delivery.try_get() {
                    answer
                } else {
                    // Whoever reads the answers gets those that are there before the next is waited for.
                    self.print_block().await;
                    delivery.await
                };
                self.count(line, bytes, &answer, &refused);
                if self.output.is_some() {
                    write_answer(&mut self.block, &answer);
                    if self.block.len() >= BLOCK_BYTES {
                        self.print_block().await;
                    }
                }
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

    fn count(&mut self, line: u64, bytes: usize, answer: &Result<RecordPlace, Error>, refused: &CancellationToken) {
        match answer {
            Ok(_) => {
                self.report.records += 1;
                self.report.bytes += bytes as u64;
            }
            Err(error) => {
                self.report.failed += 1;
                self.report.first_failed.get_or_insert_with(|| (line, error.clone()));
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
fn write_answer(out: &mut Vec<u8>, answer: &Result<RecordPlace, Error>) {
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
        Err(error) => {
            out.extend_from_slice(b"{\"partition\":null,\"offset\":null,\"error\":");
            write_text(out, error.code());
            out.extend_from_slice(b"}\n");
        }
    }
}
