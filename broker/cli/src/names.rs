//! What can be the name of a topic or of a module, by the broker's rule. A name that can't is refused before a broker is asked.

use millpond_protocol::message::{ModuleRef, ParseModuleRefError};

/// The name, or why it can't be one.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("it is empty".to_owned())
    } else if text.len() > LENGTH_MAX {
        Err(format!("it has {} characters, and {LENGTH_MAX} at most are allowed", text.chars().count()))
    } else if let Some(wrong) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Err(format!("it has the character {wrong:?}; allowed are a-z A-Z 0-9 . _ -"))
    } else if text.starts_with('.') {
        Err("it begins with a dot".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// The module and its version, or why it can't be one.
pub(crate) fn parse_module(text: &str) -> Result<ModuleRef, String> {
    let module: ModuleRef = text.parse().map_err(|error: ParseModuleRefError| error.to_string())?;
    parse(&module.name)?;
    Ok(module)
}

/// The name of a module where its versions make no difference, or why it can't be one.
pub(crate) fn parse_module_name(text: &str) -> Result<String, String> {
    match text.split_once('@') {
        Some((name, _)) if !name.is_empty() => {
            Err(format!("it names a version; give the name alone, `{name}`: a module is at one place once"))
        }
        _ => parse(text),
    }
}

/// As in Kafka.
const LENGTH_MAX: usize = 249;

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_engine::{Engine, EngineConfig, SystemClock};
    use millpond_log::RealDisk;
    use millpond_protocol::message::CreateTopic;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_name_is_taken_here_exactly_if_the_broker_takes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = EngineConfig::new(folder.path());
        let engine = Engine::open(config, Arc::new(RealDisk), Arc::new(SystemClock)).await.expect("a broker without a network");
        let names = ["a", "Readings_2.raw-1", &"x".repeat(249), "", ".", "..", ".a", "a/b", "a b", "größe", "a\0", &"x".repeat(250)];
        for name in names {
            let request = CreateTopic { name: name.to_owned(), partitions: 1, ..CreateTopic::default() };
            let by_broker = engine.create_topic(request).await;
            assert_eq!(parse(name).is_ok(), by_broker.is_ok(), "{name:?}: {:?} and {by_broker:?}", parse(name));
        }
        engine.shutdown().await;
    }
}
