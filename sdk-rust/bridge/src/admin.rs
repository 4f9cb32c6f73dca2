//! Every request about topics, modules and the broker as one call: JSON in, JSON out.
//!
//! ```text
//!  {"call": "create_topic", "name": "readings", "partitions": 2, "config": {"durability": "os"}, "timeout_ms": 5000}
//!                                         ──>   the topic, as {"name": "readings", "config": {...}, "partitions": [...], ...}
//! ```
//!
//! Names and fields are those of [`millpond::Admin`] and of the messages of the protocol; `timeout_ms` may stand in any call. What has no answer
//! is answered with `null`. Numbers of 64 bits are numbers, in full. A name that is not known is refused.

use crate::{
    client::Client,
    failure::Failure,
    options::{Place, check_names, ms},
};
use bytes::Bytes;
use millpond::{
    AlterTopic, AlterTransform, AttachLimits, AttachPoint, AttachTransform, Cleanup, CreateTopic, DetachTransform, Durability, Limit,
    ModuleLogPlace, ModuleRef, OnError, OnFull, ReadModuleLog, TopicConfig,
};
use millpond_protocol::message::DeriveInto;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// One of the requests.
#[derive(Debug, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
enum Call {
    BrokerInfo {},
    Topics {},
    Topic {
        name: String,
    },
    CreateTopic {
        name: String,
        partitions: u32,
        #[serde(default)]
        config: Map<String, Value>,
    },
    AlterTopic {
        name: String,
        config: TopicChange,
    },
    DeleteTopic {
        name: String,
    },
    ListOffset {
        topic: String,
        partition: u32,
        at: Place,
    },
    DeleteRecords {
        topic: String,
        partition: u32,
        before: Place,
    },
    /// With the module's bytes beside it.
    DeployModule {
        name: String,
    },
    Modules {},
    Module {
        name: String,
    },
    RollbackModule {
        name: String,
        #[serde(default)]
        to: Option<u32>,
    },
    DeleteModule {
        /// `NAME`, `NAME@3` or `NAME@sha256:HEX`.
        module: ModuleRef,
    },
    ModuleLog {
        module: String,
        #[serde(default)]
        topic: Option<String>,
        #[serde(default)]
        lines_max: u32,
        #[serde(default)]
        after: Vec<ModuleLogPlace>,
    },
    Attach(Box<Attach>),
    Detach {
        topic: String,
        module: String,
        on: AttachPoint,
        #[serde(default)]
        view: Option<String>,
        #[serde(default)]
        force: bool,
    },
    AlterAttachment(Box<Alter>),
}

/// Changes of how a module runs; what is not named stays as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alter {
    topic: String,
    module: ModuleRef,
    on: AttachPoint,
    #[serde(default)]
    view: Option<String>,
    #[serde(default)]
    follow_current: bool,
    #[serde(default)]
    params: BTreeMap<String, String>,
    #[serde(default)]
    remove_params: BTreeSet<String>,
    #[serde(default)]
    default_limits: bool,
    #[serde(default)]
    limits: Map<String, Value>,
    #[serde(default)]
    on_error: Option<OnError>,
    #[serde(default)]
    state_bytes: Option<u64>,
    #[serde(default)]
    retries: Option<u32>,
}

/// Changes of a topic's settings; a limit is a number, or `"unlimited"`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TopicChange {
    durability: Option<Durability>,
    max_batch_bytes: Option<u32>,
    retention_ms: Option<Bound>,
    retention_bytes: Option<Bound>,
    cleanup: Option<Cleanup>,
    delete_retention_ms: Option<u64>,
    quota_bytes: Option<Bound>,
    on_full: Option<OnFull>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Bound {
    Of(u64),
    Named(Unlimited),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unlimited {
    Unlimited,
}

impl From<Bound> for Limit {
    fn from(bound: Bound) -> Limit {
        match bound {
            Bound::Of(value) => Limit::Of(value),
            Bound::Named(Unlimited::Unlimited) => Limit::Unlimited,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attach {
    topic: String,
    module: ModuleRef,
    on: AttachPoint,
    #[serde(default)]
    view: Option<String>,
    #[serde(default)]
    params: BTreeMap<String, String>,
    #[serde(default)]
    limits: Map<String, Value>,
    /// `reject`, `skip`, `dead-letter:TOPIC` or `stop`.
    #[serde(default)]
    on_error: Option<OnError>,
    #[serde(default)]
    derive: Option<Derive>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Derive {
    targets: Vec<String>,
    #[serde(default)]
    start: Option<Place>,
    /// By partition.
    #[serde(default)]
    offsets: BTreeMap<String, i64>,
    #[serde(default)]
    state_bytes: u64,
    #[serde(default)]
    retries: Option<u32>,
}

/// Names of a topic's settings.
const TOPIC_SETTINGS: &[&str] = &[
    "durability",
    "segment_bytes",
    "max_batch_bytes",
    "retention_ms",
    "retention_bytes",
    "cleanup",
    "delete_retention_ms",
    "quota_bytes",
    "on_full",
];

/// Names of a module's limits.
const LIMITS: &[&str] = &["memory_bytes", "time_ms", "output_bytes", "log_bytes_per_second"];

/// Does what a text asks for (drawn above); `wasm` are the bytes of a module to deploy.
pub async fn call(client: &Client, request: &str, wasm: Option<Bytes>) -> Result<String, Failure> {
    let mut admin = client.core()?.admin();
    let mut request: Map<String, Value> =
        serde_json::from_str(request).map_err(|error| Failure::invalid(format!("the request is not a JSON object: {error}")))?;
    if let Some(timeout) = request.remove("timeout_ms") {
        let timeout = timeout
            .as_u64()
            .ok_or_else(|| Failure::invalid(format!("`timeout_ms` cannot be {timeout}: it is a whole number of milliseconds")))?;
        admin = admin.with_timeout(ms(timeout));
    }
    let call = serde_json::from_value(Value::Object(request))
        .map_err(|error| Failure::invalid(format!("the request cannot be understood: {error}")))?;
    perform(&admin, call, wasm).await
}

async fn perform(admin: &millpond::Admin, call: Call, wasm: Option<Bytes>) -> Result<String, Failure> {
    match call {
        Call::BrokerInfo {} => json(&admin.broker_info().await?),
        Call::Topics {} => json(&admin.topics().await?),
        Call::Topic { name } => json(&admin.topic(&name).await?),
        Call::CreateTopic { name, partitions, config } => {
            let config = topic_config(config)?;
            json(&admin.create_topic(CreateTopic { name, partitions, config }).await?)
        }
        Call::AlterTopic { name, config } => json(&admin.alter_topic(config.of(name)).await?),
        Call::DeleteTopic { name } => json(&admin.delete_topic(&name).await?),
        Call::ListOffset { topic, partition, at } => json(&admin.list_offset(&topic, partition, at.into()).await?),
        Call::DeleteRecords { topic, partition, before } => json(&admin.delete_records(&topic, partition, before.into()).await?),
        Call::DeployModule { name } => {
            let wasm = wasm.ok_or_else(|| Failure::invalid("the bytes of the module are missing"))?;
            json(&admin.deploy_module(&name, wasm).await?)
        }
        Call::Modules {} => json(&admin.modules().await?),
        Call::Module { name } => json(&admin.module(&name).await?),
        Call::RollbackModule { name, to } => json(&admin.rollback_module(&name, to).await?),
        Call::DeleteModule { module } => json(&admin.delete_module(module).await?),
        Call::ModuleLog { module, topic, lines_max, after } => {
            json(&admin.module_log(ReadModuleLog { module, topic, lines_max, after }).await?)
        }
        Call::Attach(attach) => json(&admin.attach(attach.into_request()?).await?),
        Call::Detach { topic, module, on, view, force } => {
            json(&admin.detach(DetachTransform { view, force, ..DetachTransform::new(topic, module, on) }).await?)
        }
        Call::AlterAttachment(alter) => json(&admin.alter_attachment(alter.into_request()?).await?),
    }
}

impl TopicChange {
    fn of(self, name: String) -> AlterTopic {
        AlterTopic {
            name,
            durability: self.durability,
            max_batch_bytes: self.max_batch_bytes,
            retention_ms: self.retention_ms.map(Limit::from),
            retention_bytes: self.retention_bytes.map(Limit::from),
            cleanup: self.cleanup,
            delete_retention_ms: self.delete_retention_ms,
            quota_bytes: self.quota_bytes.map(Limit::from),
            on_full: self.on_full,
        }
    }
}

impl Attach {
    fn into_request(self) -> Result<AttachTransform, Failure> {
        let limits: AttachLimits = crate::options::read(self.limits, "a module's limits", LIMITS)?;
        let derive = self.derive.map(Derive::into_request).transpose()?;
        // Where nothing else can be, `stop` is what holds for a derived topic where nothing is said; the broker takes the default for that.
        let on_error = self.on_error.unwrap_or_default();
        let Attach { topic, module, on, view, params, .. } = self;
        Ok(AttachTransform { topic, module, on, view, params, limits, on_error, derive })
    }
}

impl Derive {
    fn into_request(self) -> Result<DeriveInto, Failure> {
        let Derive { targets, start, offsets, state_bytes, retries } = self;
        let offset = |(partition, offset): (String, i64)| match partition.parse() {
            Ok(number) => Ok((number, offset)),
            Err(_) => Err(Failure::invalid(format!("`{partition}` of `offsets` is no partition: it is a number"))),
        };
        let offsets = offsets.into_iter().map(offset).collect::<Result<_, _>>()?;
        Ok(DeriveInto { targets, start: start.unwrap_or(Place::Beginning).into(), offsets, state_bytes, retries })
    }
}

impl Alter {
    fn into_request(self) -> Result<AlterTransform, Failure> {
        let limits: AttachLimits = crate::options::read(self.limits, "a module's limits", LIMITS)?;
        Ok(AlterTransform {
            view: self.view,
            follow_current: self.follow_current,
            params: self.params,
            params_removed: self.remove_params,
            limits_reset: self.default_limits,
            limits,
            on_error: self.on_error,
            state_bytes: self.state_bytes,
            retries: self.retries,
            ..AlterTransform::new(self.topic, self.module, self.on)
        })
    }
}

fn topic_config(config: Map<String, Value>) -> Result<TopicConfig, Failure> {
    check_names(config.keys(), "a topic", TOPIC_SETTINGS)?;
    crate::options::read(config, "a topic", TOPIC_SETTINGS)
}

fn json<T: Serialize>(answer: &T) -> Result<String, Failure> {
    serde_json::to_string(answer)
        .map_err(|error| Failure::new(crate::FailureKind::Internal, "internal", format!("the answer is not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Call, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn calls_are_read_and_what_is_not_known_is_refused() {
        for call in [
            r#"{"call": "topics"}"#,
            r#"{"call": "create_topic", "name": "t", "partitions": 2}"#,
            r#"{"call": "alter_topic", "name": "t", "config": {"retention_ms": 5, "quota_bytes": "unlimited"}}"#,
            r#"{"call": "list_offset", "topic": "t", "partition": 0, "at": {"timestamp_ms": 5}}"#,
            r#"{"call": "delete_module", "module": "m@3"}"#,
            r#"{"call": "attach", "topic": "t", "module": "m", "on": "derive", "derive": {"targets": ["u"], "start": "end"}}"#,
            r#"{"call": "detach", "topic": "t", "module": "m", "on": "fetch", "view": "v"}"#,
            r#"{"call": "detach", "topic": "t", "module": "m", "on": "derive", "force": true}"#,
            r#"{"call": "alter_attachment", "topic": "t", "module": "m@3", "on": "derive", "params": {"a": "1"}, "remove_params": ["b"]}"#,
            r#"{"call": "attach", "topic": "t", "module": "m", "on": "derive", "derive": {"targets": ["u"], "offsets": {"3": 7}}}"#,
            r#"{"call": "module_log", "module": "m", "after": [{"log": 18446744073709551615, "line": 0}]}"#,
        ] {
            parse(call).unwrap_or_else(|error| panic!("{call}: {error}"));
        }
        for (call, expected) in [
            (r#"{"call": "topics", "name": "t"}"#, "unknown field `name`"),
            (r#"{"call": "fly"}"#, "unknown variant `fly`"),
            (r#"{"call": "topic"}"#, "missing field `name`"),
            (r#"{"call": "attach", "topic": "t", "module": "m@0", "on": "produce"}"#, "NAME@3"),
            (r#"{"call": "alter_topic", "name": "t", "config": {"segment_bytes": 5}}"#, "unknown field `segment_bytes`"),
        ] {
            let error = parse(call).unwrap_err();
            assert!(error.contains(expected), "{call}: {error}");
        }
    }

    #[test]
    fn settings_of_a_topic_and_limits_of_a_module_have_the_names_of_the_protocol() {
        let all = TopicConfig { retention_ms: Some(1), retention_bytes: Some(1), quota_bytes: Some(1), ..TopicConfig::default() };
        let names = |value: Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
        let listed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(names(serde_json::to_value(all).unwrap()), listed(TOPIC_SETTINGS));
        let all = AttachLimits { memory_bytes: Some(1), time_ms: Some(1), output_bytes: Some(1), log_bytes_per_second: Some(1) };
        assert_eq!(names(serde_json::to_value(all).unwrap()), listed(LIMITS));
        let config = |text: &str| topic_config(serde_json::from_str(text).unwrap());
        assert_eq!(config(r#"{"durability": "interval:5ms"}"#).unwrap().durability.to_string(), "interval:5ms");
        assert_eq!(config(r#"{"retention": 5}"#).unwrap_err().hint.as_deref(), Some("did you mean `retention_ms`?"));
        assert!(config(r#"{"on_full": "explode"}"#).unwrap_err().message.contains("`on_full` of a topic cannot be"));
    }
}
