//! Versions of a module: deployed, pinned, rolled back, deleted, over restarts.

use crate::{
    broker::{Broker, attachment},
    derive::into,
    derive_guests, guests,
};
use bytes::Bytes;
use millpond_engine::{EngineConfig, EngineError};
use millpond_log::{Disk, sim::SimDisk};
use millpond_protocol::{
    error::ErrorCode,
    message::{AttachTransform, ModuleInfo, ModuleRef, ReplacedModule, RollbackModule},
};
use std::{path::PathBuf, sync::Arc};

async fn deploy(broker: &Broker, wasm: Bytes) -> ModuleInfo {
    broker.engine.deploy_module("m", wasm).await.expect("it can be deployed")
}

async fn rollback(broker: &Broker, to: Option<u32>) -> Result<ModuleInfo, EngineError> {
    broker.engine.rollback_module(RollbackModule { name: "m".to_owned(), to }).await
}

/// A topic that follows the current version and one that stays version 1; version 2 is the current one.
async fn two_versions() -> (Broker, SimDisk) {
    let (broker, disk) = Broker::simulated().await;
    for topic in ["follows", "stays"] {
        broker.topic(topic, 1, "sync").await;
    }
    deploy(&broker, guests::transform()).await;
    broker.engine.attach(attachment("follows", "m", 'c')).await.expect("it can be attached");
    let pinned = AttachTransform { module: ModuleRef::version("m", 1), ..attachment("stays", "m", 'c') };
    broker.engine.attach(pinned).await.expect("it can be attached");
    deploy(&broker, guests::transform_again()).await;
    (broker, disk)
}

/// Which version runs on each of the two topics.
fn running(broker: &Broker) -> [(Option<u32>, bool); 2] {
    ["follows", "stays"].map(|topic| {
        let attachment = broker.engine.topic(topic).expect("it is there").attachments.remove(0);
        (attachment.version, attachment.pinned)
    })
}

fn file_of(broker: &Broker, sha256: &str) -> PathBuf {
    broker.dir.path().join(format!("modules/{sha256}.wasm"))
}

#[tokio::test]
async fn a_new_version_runs_where_none_was_named_and_a_rollback_takes_it_back() {
    let (mut broker, _) = two_versions().await;
    assert_eq!(running(&broker), [(Some(2), false), (Some(1), true)]);
    let info = broker.engine.module("m").expect("it is there");
    let places: Vec<_> = info.versions.iter().map(|version| (version.version, version.attached[0].topic.as_str())).collect();
    assert_eq!((info.version, places), (2, vec![(1, "stays"), (2, "follows")]));
    assert!(info.versions.iter().all(|version| version.deployed_at_ms == crate::broker::NOW_MS));
    let epoch = |broker: &Broker| broker.engine.topic("follows").expect("it is there").epoch;
    let before = epoch(&broker);

    let back = rollback(&broker, None).await.expect("there is one before");
    assert_eq!((back.version, &back.sha256), (1, &info.versions[0].sha256));
    let replaced = ReplacedModule { version: 2, sha256: info.versions[1].sha256.clone(), topics: vec!["follows".to_owned()] };
    assert_eq!((back.replaced, epoch(&broker)), (Some(replaced), before + 1));
    for _ in 0..2 {
        assert_eq!(running(&broker), [(Some(1), false), (Some(1), true)]);
        broker.produce("follows", 0, &["a"]).await.expect("it is stored");
        assert_eq!(rollback(&broker, None).await.expect_err("it is the first").code(), ErrorCode::ModuleNotFound);
        broker = broker.restart().await;
    }
    assert_eq!(broker.values("follows", 0).await, ["A", "A"]);
    let forward = rollback(&broker, Some(2)).await.expect("it is there");
    assert_eq!((forward.version, running(&broker)[0]), (2, (Some(2), false)));
    let cached = std::fs::read_dir(broker.dir.path().join("modules/cache")).expect("it is there").count();
    assert_eq!(cached, 2, "each was compiled once");
}

#[tokio::test]
async fn a_version_is_attached_by_its_number_and_by_its_hash() {
    let (broker, _) = two_versions().await;
    let sha256 = broker.engine.module("m").expect("it is there").versions[0].sha256.clone();
    broker.topic("t", 1, "os").await;
    let attach = async |module: &str| {
        let module = module.parse().expect("a version of a module");
        broker.engine.attach(AttachTransform { module, ..attachment("t", "m", 'c') }).await
    };
    let error = attach("m@3").await.expect_err("there are two").to_wire();
    assert_eq!(error.code, ErrorCode::ModuleNotFound);
    assert!(error.hint.is_some_and(|hint| hint.contains("there are the versions 1, 2")), "{}", error.message);
    attach("m@sha256:00000000").await.expect_err("no version has it");
    attach(&format!("m@sha256:{}", &sha256[..12])).await.expect("it is the first one");
    let attached = &broker.engine.topic("t").expect("it is there").attachments[0];
    assert_eq!((attached.version, attached.pinned, &attached.sha256), (Some(1), true, &sha256));
}

#[tokio::test]
async fn a_version_is_deleted_once_it_runs_nowhere_and_its_bytes_go_with_the_last_of_them() {
    let (broker, disk) = two_versions().await;
    let delete = async |module: &str| broker.engine.delete_module(module.parse().expect("a version")).await;
    let hashes: Vec<_> = broker.engine.module("m").expect("it is there").versions.into_iter().map(|version| version.sha256).collect();
    let error = delete("m@1").await.expect_err("it runs on a topic").to_wire();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::ModuleInUse, "the module `m@1` is in use by stays"));
    assert!(error.hint.is_some_and(|hint| hint.contains("detach stays m`")));
    let error = delete("m").await.expect_err("it runs on two topics").to_string();
    assert_eq!(error, "the module `m` is in use by follows, stays");
    for topic in ["follows", "stays"] {
        broker.engine.detach(crate::modules::detachment(topic, "m")).await.expect("it is attached");
    }
    let error = delete("m@2").await.expect_err("it is the current one").to_wire();
    assert!(error.code == ErrorCode::ModuleInUse && error.hint.is_some_and(|hint| hint.contains("rollback m")), "{}", error.message);

    // The first bytes have another name too.
    broker.engine.deploy_module("other", guests::transform()).await.expect("it can be deployed");
    delete("m@1").await.expect("it is free");
    assert!(disk.exists(&file_of(&broker, &hashes[0])).expect("it can be asked"), "`other` is these bytes");
    delete("other").await.expect("it is free");
    assert!(!disk.exists(&file_of(&broker, &hashes[0])).expect("it can be asked"));
    assert_eq!(rollback(&broker, None).await.expect_err("nothing is left").code(), ErrorCode::ModuleNotFound);
    let again = deploy(&broker, guests::transform()).await;
    assert_eq!(again.version, 3, "a number is given once");
    delete("m").await.expect("it is free");
    assert_eq!(broker.engine.modules(), []);
    assert!(!disk.exists(&file_of(&broker, &hashes[1])).expect("it can be asked"));
}

#[tokio::test]
async fn an_old_version_whose_file_is_gone_can_not_be_gone_back_to_and_the_current_one_runs_on() {
    let (broker, disk) = two_versions().await;
    let sha256 = broker.engine.module("m").expect("it is there").versions[0].sha256.clone();
    broker.engine.detach(crate::modules::detachment("stays", "m")).await.expect("it is attached");
    let broker = broker.restart().await;
    disk.remove_file(&file_of(&broker, &sha256)).expect("it is there");
    let error = rollback(&broker, None).await.expect_err("its bytes are gone");
    assert!(matches!(error, EngineError::ModuleLost { .. }), "{error:?}");
    broker.produce("follows", 0, &["a"]).await.expect("it is stored");
    assert_eq!(broker.values("follows", 0).await, ["A"]);
}

#[tokio::test]
async fn a_version_that_a_topic_does_not_take_is_taken_by_none() {
    let (broker, _) = two_versions().await;
    broker.topic("last", 1, "os").await;
    let before = broker.engine.module("m").expect("it is there");
    let error = broker.engine.deploy_module("m", guests::partitioner()).await.expect_err("it runs as a transform");
    assert_eq!(error.code(), ErrorCode::ModuleInUse);
    assert_eq!(broker.engine.module("m").expect("it is there"), before);
    // A guest that refuses to start where it would run.
    let error = broker.engine.deploy_module("m", guests::that_does_not_start()).await.expect_err("it traps in its init");
    assert_eq!(error.code(), ErrorCode::GuestTrapped);
    assert_eq!((running(&broker), broker.engine.module("m").expect("it is there")), ([(Some(2), false), (Some(1), true)], before));
}

#[tokio::test]
async fn there_are_so_many_versions_and_no_more() {
    let change = |config: &mut EngineConfig| config.module_versions_max = 2;
    let broker = Broker::with(Arc::new(SimDisk::new()), change).await;
    deploy(&broker, guests::transform()).await;
    let first = broker.engine.module("m").expect("it is there").sha256;
    deploy(&broker, guests::transform_again()).await;
    assert!(deploy(&broker, guests::transform_again()).await.removed.is_empty(), "the very bytes of the current one");
    let third = deploy(&broker, guests::partitioner()).await;
    assert_eq!((third.version, third.removed), (3, vec![1]));
    let numbers =
        |broker: &Broker| broker.engine.module("m").expect("it is there").versions.iter().map(|one| one.version).collect::<Vec<_>>();
    assert_eq!((numbers(&broker), cached(&broker).len()), (vec![2, 3], 2));
    assert!(!broker.disk.exists(&file_of(&broker, &first)).expect("it can be asked"));
    assert!(cached(&broker).iter().all(|name| !name.starts_with(&first)));
    let broker = broker.restart().await;
    assert_eq!(numbers(&broker), [2, 3]);

    // Version 2 runs, and 3 is the one to go back to.
    broker.topic("stays", 1, "os").await;
    let pinned = AttachTransform { module: ModuleRef::version("m", 2), ..attachment("stays", "m", 'c') };
    broker.engine.attach(pinned).await.expect("it can be attached");
    let before = cached(&broker);
    let error = broker.engine.deploy_module("m", guests::transform()).await.expect_err("nothing can go").to_wire();
    let words =
        "the module `m` has 2 versions, as many as it may, and none can go: version 2 runs on stays, version 3 is the one to go back to";
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::InvalidConfig, words));
    assert!(error.hint.is_some_and(|hint| hint.contains("`plugin.max_module_versions`")));
    assert_eq!((numbers(&broker), cached(&broker)), (vec![2, 3], before), "nothing is left of what was refused");
}

/// What modules compiled to, by name.
fn cached(broker: &Broker) -> Vec<String> {
    let files = std::fs::read_dir(broker.dir.path().join("modules/cache")).expect("it is there");
    let mut names: Vec<_> = files.map(|file| file.expect("it is there").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_a_module_compiled_to_goes_with_it_or_at_the_next_start() {
    let (broker, _) = two_versions().await;
    let hashes: Vec<_> = broker.engine.module("m").expect("it is there").versions.into_iter().map(|version| version.sha256).collect();
    let delete = async |broker: &Broker, module: &str| broker.engine.delete_module(module.parse().expect("a version")).await;
    broker.engine.detach(crate::modules::detachment("stays", "m")).await.expect("it is attached");
    delete(&broker, "m@1").await.expect("it is free");
    assert!(cached(&broker).iter().all(|name| name.starts_with(&hashes[1])), "{:?}", cached(&broker));
    let left = broker.dir.path().join(format!("modules/cache/{}-0.cwasm", hashes[0]));
    std::fs::write(&left, b"of another build").expect("it can be written");
    let broker = broker.restart().await;
    assert_eq!((left.exists(), cached(&broker).len(), broker.engine.usage().module_compilations), (false, 1, 0));
}

#[tokio::test]
async fn compiled_modules_have_so_many_bytes_but_for_what_the_next_start_needs() {
    // Less than any has.
    let broker = Broker::with(Arc::new(SimDisk::new()), |config| config.module_cache_bytes_max = 1).await;
    for topic in ["follows", "stays"] {
        broker.topic(topic, 1, "os").await;
    }
    deploy(&broker, guests::transform()).await;
    let pinned = AttachTransform { module: ModuleRef::version("m", 1), ..attachment("stays", "m", 'c') };
    broker.engine.attach(pinned).await.expect("it can be attached");
    deploy(&broker, guests::partitioner()).await;
    deploy(&broker, guests::transform_again()).await;
    broker.engine.deploy_module("other", guests::partitioner()).await.expect("it can be deployed");
    let module = broker.engine.module("m").expect("it is there");
    assert_eq!(cached(&broker).len(), 3, "version 2 gave way, and came again under another name");
    broker.engine.delete_module(ModuleRef::current("other")).await.expect("it is free");
    broker.engine.attach(attachment("follows", "m", 'c')).await.expect("it can be attached");
    let broker = broker.restart().await;
    assert_eq!(broker.engine.usage().module_compilations, 0);
    let needed = [&module.versions[0].sha256, &module.versions[2].sha256];
    assert!(needed.iter().all(|sha256| cached(&broker).iter().any(|name| name.starts_with(*sha256))), "{:?}", cached(&broker));
}

#[tokio::test]
async fn what_may_not_be_attached_so_does_not_take_the_place_of_what_is() {
    let (broker, _) = Broker::simulated().await;
    for topic in ["source", "a", "b"] {
        broker.topic(topic, 1, "sync").await;
    }
    deploy(&broker, derive_guests::counter(1)).await;
    let transform = deploy(&broker, derive_guests::stateful_transform()).await;
    assert_eq!((transform.world.as_str(), transform.stateful), ("transform", true));
    rollback(&broker, None).await.expect("it is there");
    broker.engine.attach(into("source", "m", &["a", "b"])).await.expect("it can be attached");
    let again = {
        // Another file, so that it would be a version of its own.
        let mut wasm = derive_guests::stateful_transform().to_vec();
        wasm.extend_from_slice(&[0, 2, 1, b'n']);
        Bytes::from(wasm)
    };
    let before = (broker.engine.module("m").expect("it is there").version, cached(&broker));
    let by_deploy = broker.engine.deploy_module("m", again).await.expect_err("it has one target");
    let by_rollback = rollback(&broker, Some(2)).await.expect_err("it has one target");
    for error in [by_deploy, by_rollback] {
        assert!(error.to_string().contains("a transform does not choose among topics; as it is attached to `source`"), "{error}");
    }
    let stateless = broker.engine.deploy_module("m", guests::transform()).await.expect_err("it has one target, and no state");
    assert_eq!(stateless.code(), ErrorCode::InvalidConfig);
    assert_eq!((broker.engine.module("m").expect("it is there").version, cached(&broker)), before);
    let broker = broker.restart().await;
    let info = broker.engine.module("m").expect("it is there");
    assert_eq!(
        info.versions.iter().map(|version| (version.world.as_str(), version.stateful)).collect::<Vec<_>>(),
        [("derive", true), ("transform", true)]
    );
}
