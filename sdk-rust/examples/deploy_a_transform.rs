//! Deploys a WebAssembly module, runs it on a topic, and watches it work.
//!
//! `cargo run --release --example deploy_a_transform -- millpond://localhost:9440?fp=sha256:... plugins/dist/drop-idle.wasm`
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use millpond::{AttachPoint, AttachTransform, Client, CreateTopic, DetachTransform, ModuleRef, ReadModuleLog, Record, Start};
use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(file)) = (arguments.next(), arguments.next()) else { return Err("usage: URL FILE.wasm".into()) };
    let client = Client::connect(&url).await?;
    let admin = client.admin();
    admin.ensure_topic(CreateTopic { name: "machines".to_owned(), partitions: 1, ..CreateTopic::default() }).await?;

    let deployed = admin.deploy_module("drop-idle", std::fs::read(file)?.into()).await?;
    println!("{} version {}, {}, {} bytes", deployed.name, deployed.version, deployed.world, deployed.size_bytes);
    admin.attach(AttachTransform::new("machines", ModuleRef::current("drop-idle"), AttachPoint::Produce)).await?;

    let producer = client.producer("machines").build().await?;
    for number in 0..8 {
        let idle = number % 2 == 1;
        let state = if idle { "idle" } else { "running" };
        let value = serde_json::json!({"device": format!("m{number}"), "state": state, "idle": idle});
        let place = producer.send(Record::new(value.to_string())).await?;
        println!("m{number} {}", if place.is_dropped() { "is left out" } else { "is kept" });
    }
    producer.close().await?;

    let mut consumer = client.consumer("machines").start(Start::Beginning).until_end(true).build().await?;
    let mut kept = 0;
    while consumer.next().await.transpose()?.is_some() {
        kept += 1;
    }
    let status = admin.detach(DetachTransform::new("machines", "drop-idle", AttachPoint::Produce)).await?;
    let (records_in, dropped) = status.map_or((0, 0), |status| (status.records_in, status.records_dropped));
    println!("{kept} records are kept; the module was given {records_in} and left out {dropped}");
    let log = admin.module_log(ReadModuleLog { module: "drop-idle".to_owned(), ..ReadModuleLog::default() }).await?;
    for line in log.lines {
        println!("{} {}", line.topic, line.message);
    }
    admin.delete_module(ModuleRef::current("drop-idle")).await?;
    client.close().await;
    Ok(())
}
