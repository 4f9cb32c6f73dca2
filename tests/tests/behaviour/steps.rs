//! What each step does.

use crate::values::{outcome, place, placed, records, shown, sorted, with_limits};
use millpond::{
    AlterTopic, AttachTransform, Client, Codec, Consumer, CreateTopic, DetachTransform, Error, ModuleRef, OutOfRange, Producer,
    ProducerBuilder, ReadModuleLog,
};
use millpond_tests::plugin;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// Does the steps of one case.
pub(crate) struct Runner {
    client: Client,
    /// By their own names, and by their topics where they have none.
    producers: HashMap<String, Result<Producer, ProducerBuilder>>,
    consumers: HashMap<String, Consumer>,
}

impl Runner {
    pub(crate) fn new(client: Client) -> Runner {
        Runner { client, producers: HashMap::new(), consumers: HashMap::new() }
    }

    pub(crate) async fn step(&mut self, step: &Value) -> Result<Value, Error> {
        let name = text(step, "do");
        if name.contains("module") || ["deploy", "attach", "detach", "rollback"].contains(&name) {
            return self.module_step(name, step).await;
        }
        match name {
            "producer" | "send" | "send_each" | "flush" => self.producer_step(name, step).await,
            "create_topic" | "alter_topic" | "delete_topic" | "describe_topic" | "delete_records" | "list_offset" => {
                self.topic_step(name, step).await
            }
            "close" => self.close(text(step, "what")).await,
            _ => self.consumer_step(name, step).await,
        }
    }

    async fn topic_step(&self, name: &str, step: &Value) -> Result<Value, Error> {
        let (admin, topic) = (self.client.admin(), text(step, "topic"));
        Ok(match name {
            "create_topic" => {
                let config = read(step.get("config").cloned().unwrap_or_else(|| json!({})));
                let partitions = number(step, "partitions").unwrap_or(1);
                json!(admin.create_topic(CreateTopic { name: topic.to_owned(), partitions, config }).await?)
            }
            "alter_topic" => {
                let mut change = with_limits(&step["config"]);
                change.insert("name".to_owned(), json!(topic));
                json!(admin.alter_topic(read::<AlterTopic>(Value::Object(change))).await?.config)
            }
            "delete_topic" => json!(admin.delete_topic(topic).await?),
            "describe_topic" => json!(admin.topic(topic).await?),
            "delete_records" => json!(admin.delete_records(topic, partition(step), place(&step["before"])).await?.log_start),
            _ => json!(admin.list_offset(topic, partition(step), place(&step["at"])).await?.offset),
        })
    }

    async fn producer_step(&mut self, name: &str, step: &Value) -> Result<Value, Error> {
        if name == "producer" {
            let builder = producer(self.client.producer(text(step, "topic")), &step["options"]);
            builder.check()?;
            self.producers.insert(text(step, "as").to_owned(), Err(builder));
            return Ok(Value::Null);
        }
        let producer = self.producer(step).await?;
        if name == "flush" {
            return producer.flush().await.map(|()| Value::Null);
        }
        // All of them are on their way before the first answer is waited for.
        let mut deliveries = Vec::new();
        for record in records(step) {
            deliveries.push(producer.enqueue(record).await);
        }
        let mut outcomes = Vec::new();
        for delivery in deliveries {
            outcomes.push(match delivery {
                Ok(delivery) => delivery.await,
                Err(error) => Err(error),
            });
        }
        if name == "send_each" {
            return Ok(outcomes.iter().map(outcome).collect());
        }
        outcomes.into_iter().map(|outcome| outcome.as_ref().map(placed).map_err(Clone::clone)).collect()
    }

    /// The producer that a step names, which is made when it is first used.
    async fn producer(&mut self, step: &Value) -> Result<&Producer, Error> {
        let name = step["producer"].as_str().unwrap_or_else(|| text(step, "topic"));
        let waiting = match self.producers.remove(name) {
            Some(Ok(made)) => Ok(made),
            Some(Err(builder)) => Err(builder),
            None => Err(self.client.producer(name)),
        };
        let made = match waiting {
            Ok(made) => made,
            Err(builder) => builder.build().await?,
        };
        let entry = self.producers.entry(name.to_owned()).insert_entry(Ok(made));
        Ok(entry.into_mut().as_ref().unwrap_or_else(|_| unreachable!("it was made")))
    }

    async fn consumer_step(&mut self, name: &str, step: &Value) -> Result<Value, Error> {
        if name == "consumer" {
            let consumer = self.open(step).await?;
            self.consumers.insert(text(step, "as").to_owned(), consumer);
            return Ok(Value::Null);
        }
        let consumer = self.consumers.get_mut(text(step, "consumer")).expect("the consumer was made");
        let partition = number(step, "partition");
        match name {
            "seek" => consumer.seek(partition, place(&step["to"])).await.map(|()| Value::Null),
            "pause" => consumer.pause(partition).map(|()| Value::Null),
            "resume" => consumer.resume(partition).await.map(|()| Value::Null),
            "position" => Ok(json!(partition.and_then(|partition| consumer.position(partition)))),
            "read_batches" => read_batches(consumer, number(step, "max_records").expect("`max_records` is a number")).await,
            _ => {
                // To the end where no number is named.
                let count = step["count"].as_u64().unwrap_or(u64::MAX);
                let mut seen = Vec::new();
                while (seen.len() as u64) < count
                    && let Some(record) = consumer.next().await
                {
                    seen.push(shown(&record?));
                }
                Ok(sorted(step, seen))
            }
        }
    }

    async fn open(&self, step: &Value) -> Result<Consumer, Error> {
        let mut builder = self.client.consumer(text(step, "topic"));
        for (name, value) in step["options"].as_object().into_iter().flatten() {
            builder = match (name.as_str(), value) {
                ("start", value) => builder.start(place(value)),
                ("offsets", value) => builder.offsets(read::<BTreeMap<u32, i64>>(value.clone())),
                ("partitions", value) => builder.partitions(read::<Vec<u32>>(value.clone())),
                ("until_end", value) => builder.until_end(value == true),
                ("view", value) => builder.view(value.as_str().expect("a view is text")),
                ("on_out_of_range", value) => builder.on_out_of_range(match value.as_str() {
                    Some("earliest") => OutOfRange::Earliest,
                    Some("latest") => OutOfRange::Latest,
                    _ => OutOfRange::Error,
                }),
                (name, _) => panic!("a consumer has no setting `{name}`"),
            };
        }
        builder.build().await
    }

    async fn module_step(&self, name: &str, step: &Value) -> Result<Value, Error> {
        let (admin, module) = (self.client.admin(), text(step, "module"));
        let with = |fields: &[&str]| {
            let mut given: Map<String, Value> = step.as_object().expect("a step is an object").clone();
            given.retain(|name, _| fields.contains(&name.as_str()));
            given.entry("on").or_insert_with(|| json!("produce"));
            Value::Object(given)
        };
        Ok(match name {
            "deploy" => {
                let wasm = std::fs::read(plugin(text(step, "plugin"))).expect("the plugin is built");
                json!(admin.deploy_module(module, wasm.into()).await?)
            }
            "attach" => {
                let fields = ["topic", "module", "on", "view", "params", "limits", "on_error", "derive"];
                json!(admin.attach(read::<AttachTransform>(with(&fields))).await?)
            }
            "detach" => json!(admin.detach(read::<DetachTransform>(with(&["topic", "module", "on", "view"]))).await?),
            "rollback" => json!(admin.rollback_module(module, number(step, "to")).await?),
            "describe_module" => json!(admin.module(module).await?),
            "delete_module" => json!(admin.delete_module(module.parse::<ModuleRef>().expect("a version of a module")).await?),
            _ => {
                let topic = step["topic"].as_str().map(str::to_owned);
                json!(admin.module_log(ReadModuleLog { module: module.to_owned(), topic, ..ReadModuleLog::default() }).await?.lines)
            }
        })
    }

    async fn close(&mut self, what: &str) -> Result<Value, Error> {
        match self.producers.get(what) {
            _ if what == "client" => self.client.close().await,
            Some(Ok(producer)) => producer.close().await?,
            Some(Err(_)) => {}
            None => drop(self.consumers.remove(what)),
        }
        Ok(Value::Null)
    }
}

/// The numbers of records of batches of at most so many, to the end. This client's own batches are as they were pushed.
async fn read_batches(consumer: &mut Consumer, records_max: u32) -> Result<Value, Error> {
    let mut count = 0;
    while let Some(batch) = consumer.next_batch().await {
        for record in batch?.records() {
            record?;
            count += 1;
        }
    }
    let mut sizes = vec![records_max; usize::try_from(count / records_max).expect("few batches")];
    sizes.extend((count % records_max > 0).then_some(count % records_max));
    Ok(json!(sizes))
}

fn producer(mut builder: ProducerBuilder, options: &Value) -> ProducerBuilder {
    for (name, value) in options.as_object().into_iter().flatten() {
        let number = || value.as_u64().expect("a number");
        let size = || usize::try_from(number()).expect("a small number");
        builder = match name.as_str() {
            "compression" => builder.compression(match value.as_str() {
                Some("zstd") => Codec::Zstd,
                _ => panic!("{value} is no compression of a case"),
            }),
            "linger_ms" => builder.linger(Duration::from_millis(number())),
            "batch_bytes" => builder.batch_bytes(size()),
            "in_flight" => builder.in_flight(size()),
            "idempotence" => builder.idempotence(value == true),
            name => panic!("a producer has no setting `{name}`"),
        };
    }
    builder
}

fn read<T: DeserializeOwned>(given: Value) -> T {
    serde_json::from_value(given).expect("a field of the step has the wrong type")
}

fn text<'a>(step: &'a Value, name: &str) -> &'a str {
    step[name].as_str().unwrap_or_else(|| panic!("`{name}` is missing"))
}

fn number(step: &Value, name: &str) -> Option<u32> {
    step[name].as_u64().map(|number| u32::try_from(number).expect("a small number"))
}

fn partition(step: &Value) -> u32 {
    number(step, "partition").expect("`partition` is missing")
}
