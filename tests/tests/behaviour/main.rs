//! The cases that the clients of all languages pass, performed by the Rust client: `tests/behaviour/clients`, where the fields are explained.
//!
//! | module | holds |
//! |---|---|
//! | `steps` | what each step does, and what is seen |
//! | `values` | records, places and answers as the cases write them |

#![forbid(unsafe_code)]

mod steps;
mod values;

use millpond::Client;
use millpond_tests::Site;
use serde_json::Value;
use std::{fs, path::Path};
use steps::Runner;
use values::check;

/// Steps that there are, each with the fields that it may have beside `do`, `sees` and `fails`.
const FIELDS: &[(&str, &[&str])] = &[
    ("create_topic", &["topic", "partitions", "config"]),
    ("alter_topic", &["topic", "config"]),
    ("delete_topic", &["topic"]),
    ("describe_topic", &["topic"]),
    ("delete_records", &["topic", "partition", "before"]),
    ("list_offset", &["topic", "partition", "at"]),
    ("producer", &["as", "topic", "options"]),
    ("send", &["producer", "topic", "records"]),
    ("send_each", &["producer", "topic", "records"]),
    ("flush", &["producer", "topic"]),
    ("consumer", &["as", "topic", "options"]),
    ("read", &["consumer", "count", "sorted"]),
    ("read_to_end", &["consumer", "sorted"]),
    ("read_batches", &["consumer", "max_records"]),
    ("seek", &["consumer", "to", "partition"]),
    ("pause", &["consumer", "partition"]),
    ("resume", &["consumer", "partition"]),
    ("position", &["consumer", "partition"]),
    ("deploy", &["module", "plugin"]),
    ("attach", &["topic", "module", "on", "view", "params", "limits", "on_error", "derive"]),
    ("detach", &["topic", "module", "on", "view"]),
    ("rollback", &["module", "to"]),
    ("describe_module", &["module"]),
    ("delete_module", &["module"]),
    ("module_log", &["module", "topic"]),
    ("close", &["what"]),
];

#[tokio::test]
async fn every_case_is_passed() {
    let site = Site::new();
    let broker = site.start();
    let cases = cases();
    assert!(cases.len() > 15, "the cases are where they are looked for");
    let mut complaints = Vec::new();
    for (name, case) in &cases {
        let client = Client::connect(broker.url()).await.expect("the broker is there");
        if let Err(complaint) = perform(client, case).await {
            complaints.push(format!("{name}, {complaint}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Does the steps of one case; an error is what is not as it should be.
async fn perform(client: Client, case: &Value) -> Result<(), String> {
    let mut runner = Runner::new(client);
    let steps = case["steps"].as_array().ok_or("a case has steps")?;
    for (number, step) in steps.iter().enumerate() {
        let at = format!("step {} ({})", number + 1, step["do"]);
        check_fields(step).map_err(|complaint| format!("{at}: {complaint}"))?;
        match (runner.step(step).await, step.get("fails")) {
            (Ok(answer), None) => check(&answer, step.get("sees").unwrap_or(&Value::Null), &at)?,
            (Ok(_), Some(fails)) => return Err(format!("{at}: it must fail with {}", fails["code"])),
            (Err(error), None) => return Err(format!("{at}: {error}")),
            (Err(error), Some(fails)) if fails["code"] == error.code() => {}
            (Err(error), Some(fails)) => {
                return Err(format!("{at}: it must fail with {}, and not with {}: {error}", fails["code"], error.code()));
            }
        }
    }
    Ok(())
}

fn check_fields(step: &Value) -> Result<(), String> {
    let (_, fields) = FIELDS.iter().find(|(name, _)| step["do"] == *name).ok_or("there is no such step")?;
    let given = step.as_object().ok_or("a step is an object")?;
    let unknown = given.keys().find(|name| !["do", "sees", "fails"].contains(&name.as_str()) && !fields.contains(&name.as_str()));
    unknown.map_or(Ok(()), |name| Err(format!("it has no field {name}")))
}

fn cases() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("behaviour/clients");
    let entries = fs::read_dir(&folder).expect("the folder of the cases");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
    paths.sort();
    let parse = |path: &Path| serde_json::from_slice(&fs::read(path).expect("a case")).expect("a case is JSON");
    paths.iter().map(|path| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), parse(path))).collect()
}
