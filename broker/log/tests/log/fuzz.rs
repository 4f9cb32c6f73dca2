//! What the fuzzers have found, replayed: the targets `folder` and `model` of `tests/fuzz`, on the corpora that are kept there.

#[path = "../../../../tests/fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../../../tests/fuzz/src/folder.rs"]
mod folder;
#[path = "../../../../tests/fuzz/src/operations.rs"]
mod operations;

#[test]
fn no_bytes_in_a_folder_do_harm() {
    corpus::replay("folder", folder::run);
}

#[test]
fn the_operations_that_reach_furthest_leave_what_a_plain_list_would() {
    corpus::replay("model", operations::run);
}
