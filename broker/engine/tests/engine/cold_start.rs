//! A start with many modules: what was compiled before is not compiled again, and what is damaged is, and said.

use crate::{
    broker::{Broker, attachment},
    guests, said,
};
use bytes::Bytes;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// So many modules, each attached to a topic of its own.
const MODULES: u8 = 50;

/// The same guest in another file: a custom section stands behind it.
fn variant(number: u8) -> Bytes {
    let mut wasm = guests::transform().to_vec();
    wasm.extend_from_slice(&[0, 3, 1, b'n', number]);
    wasm.into()
}

fn cached(broker: &Broker) -> Vec<PathBuf> {
    let entries = fs::read_dir(broker.dir.path().join("modules").join("cache")).expect("it is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it is there").path()).collect();
    files.sort();
    files
}

fn flip(path: &Path) {
    let mut artifact = fs::read(path).expect("it reads");
    let middle = artifact.len() / 2;
    artifact[middle] ^= 1;
    fs::write(path, artifact).expect("it can be written");
}

#[tokio::test]
async fn a_start_with_fifty_modules_in_the_cache_compiles_none_and_a_damaged_one_anew() {
    const WORDS: &str = "a compiled module is damaged";
    said::listen();
    let (broker, _) = Broker::simulated().await;
    for number in 0..MODULES {
        let (topic, module) = (format!("t{number}"), format!("m{number}"));
        broker.topic(&topic, 1, "os").await;
        broker.engine.deploy_module(&module, variant(number)).await.expect("it can be deployed");
        broker.engine.attach(attachment(&topic, &module, 'o')).await.expect("it can be attached");
    }
    assert_eq!((broker.engine.usage().module_compilations, cached(&broker).len()), (u64::from(MODULES), usize::from(MODULES)));

    let broker = broker.restart().await;
    assert_eq!(broker.engine.usage().module_compilations, 0);
    for number in 0..MODULES {
        let topic = format!("t{number}");
        broker.produce(&topic, 0, &["a", "b", "c"]).await.expect("its module runs");
        assert_eq!(broker.values(&topic, 0).await, ["a", "c"]);
    }
    assert_eq!(broker.engine.usage().module_compilations, 0, "nor is anything compiled when it is needed");

    let damaged = cached(&broker).swap_remove(17);
    flip(&damaged);
    let broker = broker.restart().await;
    assert_eq!(broker.engine.usage().module_compilations, 1);
    let key = damaged.file_stem().and_then(|stem| stem.to_str()).expect("a key");
    assert_eq!(said::warnings(WORDS).iter().filter(|line| line["key"] == key).count(), 1);
    fs::remove_file(&damaged).expect("it was written anew");
    let broker = broker.restart().await;
    assert_eq!(broker.engine.usage().module_compilations, 1, "nor is one that is gone a loss");
    let broker = broker.restart().await;
    assert_eq!((broker.engine.usage().module_compilations, cached(&broker).len()), (0, usize::from(MODULES)));
    assert_eq!(said::warnings(WORDS).iter().filter(|line| line["key"] == key).count(), 1, "what is not there is not damaged");
    broker.produce("t17", 0, &["d"]).await.expect("its module runs");
}
