//! The inputs that were kept, run one by one: for the tests of the crates, which include this module by its path.

use std::path::Path;
use std::{fs, panic};

/// Runs every input that is kept for a target.
pub(crate) fn replay(target: &str, run: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate lies in a folder of the repository");
    let folder = root.join("tests/fuzz/corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("an input").path()).collect();
    inputs.sort();
    assert!(inputs.len() > INPUTS_MIN, "{} holds {} inputs", folder.display(), inputs.len());
    for input in inputs {
        let data = fs::read(&input).expect("can be read");
        let outcome = panic::catch_unwind(|| run(&data));
        assert!(outcome.is_ok(), "`make fuzz TARGET={target} INPUT={}` runs it again", input.display());
    }
}

/// Fewer, and the corpus is not where it is looked for.
const INPUTS_MIN: usize = 10;
