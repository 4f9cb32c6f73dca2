//! A module is compiled once, and a damaged artifact is not run.

use std::sync::Arc;

use millpond_plugin::PluginHost;

use crate::support::{Cache, Guest, assert_well};

#[test]
fn a_module_is_compiled_once_for_all_starts_of_the_broker() {
    let cache = Arc::new(Cache::default());
    let upload = Guest::default().transform();
    let first = PluginHost::new(cache.clone()).expect("a host");
    first.load(&upload).expect("it loads");
    first.load(&upload).expect("it loads");
    assert_eq!(first.compilations(), 1);
    let second = PluginHost::new(cache.clone()).expect("a host");
    second.load(&upload).expect("it loads");
    assert_well(&second);
    assert_eq!(second.compilations(), 0);
    let (key, _) = cache.entries().pop().expect("an artifact");
    assert!(key.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'), "{key} can be a file name");
}

#[test]
fn a_damaged_artifact_is_compiled_again_and_replaced() {
    let cache = Arc::new(Cache::default());
    let upload = Guest::default().transform();
    PluginHost::new(cache.clone()).expect("a host").load(&upload).expect("it loads");
    let damages: [fn(&mut Vec<u8>); 4] = [
        Vec::clear,
        |artifact| artifact.truncate(artifact.len() - 1),
        |artifact| *artifact.last_mut().expect("a byte") ^= 1,
        |artifact| artifact[50] ^= 0x80,
    ];
    for damage in damages {
        cache.damage(damage);
        let host = PluginHost::new(cache.clone()).expect("a host");
        host.load(&upload).expect("it loads");
        assert_eq!(host.compilations(), 1);
        let after = PluginHost::new(cache.clone()).expect("a host");
        after.load(&upload).expect("it loads");
        assert_eq!(after.compilations(), 0, "the artifact was replaced");
    }
}

#[test]
fn a_refused_module_leaves_nothing_in_the_cache() {
    let cache = Arc::new(Cache::default());
    let host = PluginHost::new(cache.clone()).expect("a host");
    assert!(host.load(&wat::parse_str("(component)").expect("a component")).is_err());
    assert!(cache.entries().is_empty());
}
