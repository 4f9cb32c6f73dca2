//! What the fuzzers have found, replayed: the targets `batch` and `message` of `tests/fuzz`, on the corpora that are kept there.

#![forbid(unsafe_code)]

#[path = "../../../tests/fuzz/src/batch.rs"]
mod batch;
#[path = "../../../tests/fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../../tests/fuzz/src/message.rs"]
mod message;

#[test]
fn no_bytes_that_are_taken_for_a_batch_do_harm() {
    corpus::replay("batch", batch::run);
}

#[test]
fn no_bytes_that_are_taken_for_a_message_do_harm() {
    corpus::replay("message", message::run);
}
