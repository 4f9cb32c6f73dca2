//! Compares what a command printed with a file. `UPDATE_SNAPSHOTS=1` writes the files anew; look at the difference before you keep it.

use crate::place::text;
use std::{env, fs, path::Path, process::Output};

/// Exit code and both streams, as they are kept.
pub(crate) fn of(arguments: &[&str], output: &Output) -> String {
    let code = output.status.code().map_or("a signal".to_owned(), |code| code.to_string());
    let streams = [("stdout", &output.stdout), ("stderr", &output.stderr)];
    let shown = streams.iter().filter(|(_, bytes)| !bytes.is_empty());
    let shown: String = shown.flat_map(|(name, bytes)| [format!("--- {name}\n"), text(bytes)]).collect();
    format!("$ millpond {}\n{shown}--- exit {code}\n", arguments.join(" "))
}

/// Fails where `actual` differs from the file `snapshots/NAME.txt`.
pub(crate) fn check(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/snapshots").join(format!("{name}.txt"));
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, actual).expect("the snapshot can be written");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs; UPDATE_SNAPSHOTS=1 writes it anew.\n--- expected\n{expected}\n--- actual\n{actual}",
        path.display()
    );
}
