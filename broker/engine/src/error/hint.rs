//! What a person can do about an error. Each variant has an answer, and the compiler sees to it that a new one gets one.

use super::{EngineError, Purpose, place_of};
use millpond_log::{Damage, LogError, SequenceError, is_out_of_files};
use millpond_plugin::{PluginError, World};
use millpond_protocol::{batch::BatchError, error::ErrorCode, message::AttachPoint};
use std::{io, path::Path};

impl EngineError {
    /// What a person can do about it. Always there; an option as in the other errors.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            EngineError::Locked { .. } => "stop the other broker, or give this one a data folder of its own".to_owned(),
            EngineError::DataDir { path, source, .. } => of_data_dir(path, source),
            EngineError::Threads(_) => MORE_THREADS.to_owned(),
            EngineError::Plugins(source) => source.hint().unwrap_or_else(|| MORE_ADDRESSES.to_owned()),
            EngineError::CatalogueDamaged { path, .. } => format!("put back a copy of {} from a backup; {UNTOUCHED}", path.display()),
            EngineError::CatalogueTooNew { .. } => "start the newer broker again".to_owned(),
            EngineError::ShuttingDown => "try again when it is back".to_owned(),
            EngineError::PartitionStopped { .. } | EngineError::JobLost { .. } => SEE_LOG.to_owned(),

            EngineError::InvalidName { .. } => "take 1 to 249 characters from a-z A-Z 0-9 . _ -, not beginning with a dot".to_owned(),
            EngineError::InvalidPartitionCount { max, .. } => format!("ask for 1 to {max} partitions"),
            EngineError::TooMany { what, .. } => of_limit(what),
            EngineError::VersionsFull(_) => MORE_VERSIONS.to_owned(),
            EngineError::InvalidConfig { setting, .. } => of_setting(setting).to_owned(),
            EngineError::CompactedDropsOldest => COMPACTED_DROPS_OLDEST.to_owned(),
            EngineError::CompactedRetention(_) => COMPACTED_RETENTION.to_owned(),
            EngineError::TopicExists { .. } => "choose another name, or delete the topic first".to_owned(),
            EngineError::FolderInTheWay { path } => format!("move {} somewhere else, or delete it", path.display()),
            EngineError::TopicNotFound { nearest: Some(nearest), .. }
            | EngineError::ModuleNotFound { nearest: Some(nearest), .. }
            | EngineError::ViewNotFound { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
            EngineError::ViewNotFound { topic, view, nearest: None } => {
                format!("`millpond transform attach {topic} MODULE --on fetch --name {view}` makes it")
            }
            EngineError::TopicNotFound { name, nearest: None } => format!("`millpond topic create {name}` makes it"),
            EngineError::PartitionOutOfRange { partitions, purpose, .. } => of_partitions(*partitions, *purpose),
            EngineError::OffsetOutOfRange { start, end, purpose, .. } => of_offset((*start, *end), *purpose),

            EngineError::BatchTooLarge { topic, .. } => of_large_batch(topic),
            EngineError::TooManyRecords { limit, .. } => format!("send {limit} records in one batch at most"),
            EngineError::Batch(source) => of_batch(source).to_owned(),
            EngineError::BatchRefused { .. } => OTHER_CLIENT.to_owned(),
            EngineError::RecordWithoutKey { topic, .. } => of_no_key(topic),
            EngineError::Log { topic, partition, source } => of_log(topic, *partition, source),
            EngineError::LogNotOpened { path, .. } => of_unopened(path),
            EngineError::Sequence { source, .. } => of_sequence(source).to_owned(),
            EngineError::PartlyStored(source) | EngineError::NotFlushed(source) | EngineError::DeadLetter { source, .. } => {
                return source.hint();
            }
            EngineError::Full { topic, shortage, .. } => shortage.hint(topic),
            EngineError::PartitionLost { topic, path, .. } => of_lost(topic, path),

            EngineError::ModuleNotFound { name, nearest: None } => format!("`{}` uploads it", deploy(name)),
            EngineError::ModuleVersionNotFound { wanted, versions, .. } => of_versions(&wanted.name, versions),
            EngineError::NoVersionBefore { module, .. } => of_first_version(module),
            EngineError::VersionIsCurrent { module, .. } => of_current_version(module),
            EngineError::ModuleTooLarge { .. } => SMALLER_MODULE.to_owned(),
            EngineError::Module { module, source } => of_module(source, module),
            EngineError::Guest { topic, module, source, .. } => of_guest(source, topic, module),
            EngineError::SearchEnded { topic, module, .. } => format!("nothing of the batch is stored; {}", smaller(topic, module, "time")),
            EngineError::GuestOutput { topic, module, .. } => of_output(topic, module),
            EngineError::ModuleLost { module, .. } => format!("`{}` uploads it again", deploy(module)),
            EngineError::ModuleWrongWorld { found: World::Derive, .. } => {
                "a module that derives topics is attached with `--into TOPIC[,TOPIC...]`".to_owned()
            }
            EngineError::ModuleWrongWorld { found, .. } => format!("a {found} is attached with `--on {}`", place_of(*found)),
            EngineError::ModuleInUse { topics, module } => format!("`{}` frees it", detach_first(topics, module)),
            EngineError::ModulePaused { topic, module, reason, .. } => of_paused(topic, module, reason),
            EngineError::AttachRefused { hint, .. } => (*hint).to_owned(),
            EngineError::TopicDerived { topics, module, .. } => format!("`{} --on derive` first", detach_first(topics, module)),
            EngineError::DerivedDamaged { .. } | EngineError::DerivedDiverged { .. } => {
                "detach the module and attach it again from where its targets end: what it knew of its place and its state is lost"
                    .to_owned()
            }
            EngineError::TopicInUse { topics, module, .. } => of_letters(topics, module),
            EngineError::AttachmentExists { topic, module, on } => of_second(topic, module, *on),
            EngineError::PlaceTaken { topic, module, .. } => format!("`{}` makes room", detach(topic, module)),
            EngineError::AttachmentNotFound { topic, .. } => format!("`millpond topic describe {topic}` shows what is attached"),
        })
    }
}

const MORE_VERSIONS: &str = "detach what stays an old version, or raise the broker's `plugin.max_module_versions`";

fn of_limit(what: &str) -> String {
    match what {
        "modules" => "delete modules that are not needed, or raise the broker's `plugin.max_modules`".to_owned(),
        "modules on one topic" => "detach modules that are not needed, or raise the broker's `plugin.max_modules_per_topic`".to_owned(),
        "targets of one module" => "name fewer topics with `--into`".to_owned(),
        "topics that have taken the dead letters of one module" => "name one of those that it had before".to_owned(),
        "partitions that are derived into one topic" => "derive into another topic, or from topics with fewer partitions".to_owned(),
        _ => format!("delete {what} that are not needed"),
    }
}

fn of_letters(topics: &[String], module: &str) -> String {
    let topic = topics.first().map_or("TOPIC", String::as_str);
    let detach = detach_first(topics, module);
    format!("`{detach}` first, or give it another `--on-error`: `millpond transform alter {topic} {module} --on-error skip`")
}

fn of_second(topic: &str, module: &str, on: AttachPoint) -> String {
    let other = deploy(&format!("{module}-2"));
    let change = format!(
        "a module runs once at one place: `millpond transform alter {topic} {module} --on {on}` gives it other parameters or limits"
    );
    match on {
        AttachPoint::Partition => change,
        _ => format!("{change}, or deploy it under another name to run it there a second time: `{other}`"),
    }
}

/// Where the limit on open files is set.
const LIMIT: &str = "`LimitNOFILE=` of the broker's service, `ulimit -n` in the shell that starts it";

fn of_data_dir(path: &Path, source: &io::Error) -> String {
    let path = path.display();
    match source.kind() {
        _ if is_out_of_files(source) => format!("raise the limit on open files ({LIMIT})"),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            format!("{path}, or what it lies in, is a file where a folder is needed: move it away, or name another data folder")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("{path} lies on a file system that is mounted read-only: mount it for writing, or name another data folder")
        }
        io::ErrorKind::PermissionDenied => {
            format!("let the user that runs the broker write to {path} (`chown`), or name another data folder")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("free some space on the file system of {path}; nothing was changed")
        }
        _ => format!("check that {path} exists, that the user that runs the broker may write there, and that the disk works"),
    }
}

fn of_log(topic: &str, partition: u32, source: &LogError) -> String {
    match source {
        LogError::Full { .. } => "free some space on the broker's disk; nothing was stored, and sending it again is safe".to_owned(),
        LogError::TooManyOpenFiles { .. } => format!(
            "sending it again is safe, and works once a file can be opened; if it keeps coming, raise the limit on open files ({LIMIT})"
        ),
        LogError::Corrupt { path, next_offset, reason, .. } => {
            let hint = of_damage(topic, partition, path, *next_offset);
            if matches!(reason, Damage::Unreadable(_)) { format!("check the disk, which may give it back later; {hint}") } else { hint }
        }
        LogError::Io { operation: "read", .. } => "check the disk; what could not be read at this moment may be read later".to_owned(),
        _ => "records are still served; see the broker's log for the cause, check the disk, then start the broker again".to_owned(),
    }
}

fn of_no_key(topic: &str) -> String {
    format!("give every record a key: the latest record of each is kept; `millpond topic alter {topic} --cleanup delete` ends that")
}

fn of_first_version(module: &str) -> String {
    format!(
        "`millpond transform describe {module}` shows the versions, and `millpond transform rollback {module} --to N` takes any of them"
    )
}

fn of_current_version(module: &str) -> String {
    format!(
        "make another one the current one first: `millpond transform rollback {module}`; `millpond transform delete {module}` deletes all \
         of them"
    )
}

fn of_paused(topic: &str, module: &str, reason: &str) -> String {
    let detach = detach(topic, module);
    format!("{reason}; sending it again is safe, and works once the module does: `millpond transform rollback {module}` or `{detach}`")
}

/// Of the topics that a module, or a version of it, is on.
fn detach_first(topics: &[String], module: &str) -> String {
    detach(topics.first().map_or("TOPIC", String::as_str), module.split('@').next().unwrap_or(module))
}

fn of_versions(module: &str, versions: &[u32]) -> String {
    let versions: Vec<_> = versions.iter().map(u32::to_string).collect();
    format!("there are the versions {}; `millpond transform describe {module}` shows them", versions.join(", "))
}

fn of_unopened(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "nothing there is changed until the log can be opened: see to the cause, then start the broker again; with the broker stopped, \
         `millpond log verify {dir}` looks at the files"
    )
}

fn of_sequence(source: &SequenceError) -> &'static str {
    match source {
        SequenceError::OutOfOrder { .. } => {
            "send the batches that were not acknowledged again, in their order; Millpond's clients do it by themselves"
        }
        SequenceError::OldEpoch { .. } => "another producer has taken over this producer id, so this one should end",
        SequenceError::UnknownProducer { .. } => {
            "begin a new epoch, numbered from 0; Millpond's clients do it by themselves where nothing can be stored twice by that"
        }
        SequenceError::InvalidProducer { .. } => OTHER_CLIENT,
        // Its variants can grow.
        _ => "the records may be stored already: compare before you send them again under other numbers",
    }
}

fn of_lost(topic: &str, path: &Path) -> String {
    let path = path.display();
    format!(
        "stop the broker, bring {path} back from a backup, and start it again; or give the topic up with `millpond topic delete {topic}`, \
         which removes its other partitions too"
    )
}

fn of_damage(topic: &str, partition: u32, path: &Path, next_offset: Option<i64>) -> String {
    let folder = path.parent().unwrap_or(path).display();
    let readable = match next_offset {
        Some(next) => format!(
            "records from offset {next} on can be read, `millpond consume {topic} --partition {partition} --from offset:{next}`, and so can \
             those before the damage"
        ),
        None => "records before and behind the damage can be read, from a later offset on".to_owned(),
    };
    format!(
        "{readable}; on the broker's machine `millpond log verify {folder}` shows what is damaged, and `millpond log repair`, with the broker \
         stopped, mends it: see its --help"
    )
}

fn of_batch(source: &BatchError) -> &'static str {
    match source.code() {
        ErrorCode::CorruptBatch => {
            "the bytes changed on their way or in the sender's memory; sending the records again is safe, nothing was stored"
        }
        ErrorCode::BatchTooLarge => "send fewer records in a batch: unpacked they take more memory than the broker gives to one",
        _ => OTHER_CLIENT,
    }
}

fn of_module(source: &PluginError, module: &str) -> String {
    // It has not come to a batch.
    match source {
        PluginError::OutOfMemory { .. } => return "let it have more: `--memory SIZE`".to_owned(),
        PluginError::TimedOut { .. } => return "let it have more: `--time TIME`, of which it may take 10 s to start".to_owned(),
        _ => {}
    }
    source.hint().unwrap_or_else(|| format!("mend it, then `{}` puts it in place", deploy(module)))
}

fn of_guest(source: &PluginError, topic: &str, module: &str) -> String {
    match source {
        PluginError::TimedOut { .. } => format!(
            "{}; where one record takes so long, `millpond transform logs {module}` says what it was at",
            smaller(topic, module, "time")
        ),
        PluginError::OutOfMemory { .. } => smaller(topic, module, "memory"),
        PluginError::OutputTooLarge { .. } => smaller(topic, module, "max-output"),
        PluginError::Trapped { .. } => {
            format!("`millpond transform logs {module}` has the backtrace; a test beside the guest's code can replay the record")
        }
        _ => of_module(source, module),
    }
}

/// Fewer records at once, or more of what they need.
fn smaller(topic: &str, module: &str, limit: &str) -> String {
    format!(
        "send smaller batches (`millpond produce {topic} --batch-bytes SIZE`), or give the module more: `millpond transform alter {topic} \
         {module} --{limit} VALUE`"
    )
}

fn of_output(topic: &str, module: &str) -> String {
    let (deploy, detach) = (deploy(module), detach(topic, module));
    format!("build it with the guest SDK, which keeps to the format, then `{deploy}`; `{detach}` lets batches pass without it")
}

fn of_setting(setting: &str) -> &'static str {
    match setting {
        "quota_bytes" => "choose a larger quota, four times `max_batch_bytes` or more, or smaller batches",
        "max_batch_bytes" => "choose another value for it, at most the broker's own `max_batch_bytes`",
        _ => "choose another value for it",
    }
}

fn of_partitions(count: u32, purpose: Purpose) -> String {
    let last = count.saturating_sub(1);
    match purpose {
        Purpose::Produce => format!("name a partition from 0 to {last}, or none to leave the choice to the partitioner"),
        Purpose::Read => format!("name a partition from 0 to {last}"),
        Purpose::DeleteRecords => format!("name a partition from 0 to {last}; records are deleted from one partition at a time"),
    }
}

fn of_offset((start, end): (i64, i64), purpose: Purpose) -> String {
    match purpose {
        Purpose::Produce | Purpose::Read => format!("read from the beginning, from the end, or from an offset between {start} and {end}"),
        Purpose::DeleteRecords => {
            format!(
                "give the first offset that is to stay, {end} at most, or `end` to delete all that is there; what no consumer sees yet stays"
            )
        }
    }
}

fn deploy(module: &str) -> String {
    format!("millpond transform deploy FILE.wasm --name {module}")
}

fn detach(topic: &str, module: &str) -> String {
    format!("millpond transform detach {topic} {module}")
}

const MORE_THREADS: &str = "let the broker have more threads (`TasksMax=` of its service, `ulimit -u` in the shell that starts it)";

const MORE_ADDRESSES: &str = "let the broker have more address space (`ulimit -v` in the shell that starts it)";

const UNTOUCHED: &str = "the records under topics/ are untouched, and the broker changes nothing until then";

const SEE_LOG: &str = "see the broker's log for the cause, and start the broker again";

fn of_large_batch(topic: &str) -> String {
    format!("send smaller batches, or let the topic take larger ones: `millpond topic alter {topic} --max-batch-bytes SIZE`")
}

const COMPACTED_DROPS_OLDEST: &str = "take `--on-full reject`, which refuses batches until there is room; or `--cleanup compact,delete`, which \
     lets old records go, the latest of their keys too";

const COMPACTED_RETENTION: &str = "take `--cleanup compact,delete`, which lets old records go, the latest of their keys too; or set no limit, which \
     `--retention unlimited --retention-bytes unlimited` says";

const SMALLER_MODULE: &str =
    "strip debug information from the module and optimise it for size, or raise the broker's `plugin.max_module_bytes`";

const OTHER_CLIENT: &str = "the client that sent it does not keep to Kafka's record batch format, version 2: take another, or a newer one";
