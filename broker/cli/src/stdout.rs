//! Much output, written by a thread of its own.
//!
//! A pipe whose reader is slow blocks the writer for as long as it likes. Were that one of the runtime's few workers, the connection
//! to the broker would stand still with it, and in the end be closed as dead.

use crate::failure::{Failure, Outcome};
use std::{
    future::pending,
    io::{self, Write},
    os::fd::AsFd,
    thread::{self, JoinHandle},
};
use tokio::{
    io::Interest,
    net::unix::pipe,
    sync::mpsc::{Receiver, Sender, channel},
};

/// Waits until nobody reads stdout any more, as `head` after its last line. Without it that would show only with the next write, and
/// a consumer that waits for records would wait in vain. Waits for ever where stdout is not a pipe.
pub(crate) async fn reader_gone() {
    // A handle of its own, as it is closed in the end. A file can't be watched, and has no reader that could go.
    let watched = io::stdout().as_fd().try_clone_to_owned().and_then(pipe::Sender::from_owned_fd_unchecked);
    let gone = match &watched {
        Ok(stdout) => stdout.ready(Interest::ERROR).await.is_ok(),
        Err(_) => false,
    };
    if !gone {
        pending::<()>().await;
    }
}

/// Where a block of output is handed over once it has this many bytes; earlier when there is nothing more to come at the moment.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;

/// Blocks that may wait for the reader of stdout. Who wants to write more waits too.
const BLOCKS_WAITING_MAX: usize = 4;

/// The way to stdout.
#[derive(Debug)]
pub(crate) struct StdoutWriter {
    full: Sender<Vec<u8>>,
    /// Buffers that were written come back for their memory.
    empty: Receiver<Vec<u8>>,
    thread: JoinHandle<io::Result<()>>,
}

impl StdoutWriter {
    /// Starts the thread.
    pub(crate) fn start() -> Outcome<StdoutWriter> {
        let (full, mut to_write) = channel::<Vec<u8>>(BLOCKS_WAITING_MAX);
        let (written, empty) = channel(BLOCKS_WAITING_MAX);
        let write_all = move || {
            let mut stdout = io::stdout().lock();
            while let Some(mut block) = to_write.blocking_recv() {
                stdout.write_all(&block)?;
                stdout.flush()?;
                block.clear();
                // One buffer more or less to allocate does not matter.
                let _ = written.try_send(block);
            }
            Ok(())
        };
        let thread = thread::Builder::new().name("stdout".to_owned()).spawn(write_all);
        let thread = thread.map_err(|error| Failure::new("can't start a thread").because(&error))?;
        Ok(StdoutWriter { full, empty, thread })
    }

    /// Hands over what is in `block`, which is empty afterwards. Waits while stdout's reader is slow; false when there is no
    /// reader any more, and [`StdoutWriter::finish`] says why.
    pub(crate) async fn write(&mut self, block: &mut Vec<u8>) -> bool {
        if block.is_empty() {
            return !self.full.is_closed();
        }
        let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4));
        self.full.send(std::mem::replace(block, next)).await.is_ok()
    }

    /// Waits until everything is written, and tells what came of it.
    pub(crate) async fn finish(self) -> Outcome {
        let StdoutWriter { full, empty: _, thread } = self;
        drop(full);
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        match joined {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(Failure::writing_stdout(&error)),
            Ok(Err(_)) | Err(_) => Err(Failure::new("the thread that writes to stdout has failed")),
        }
    }
}
