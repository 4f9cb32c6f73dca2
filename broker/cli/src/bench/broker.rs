//! The broker that is measured: a process of its own with the settings that everybody gets, on a folder that goes away.

use super::{BenchError, child::Child, modules::Modules, plan::Case};
use millpond::{AttachPoint, AttachTransform, Client, CreateTopic, Durability, ModuleRef, TopicConfig};
use std::{ffi::OsString, path::PathBuf};

/// A running broker and a client that is connected to it.
#[derive(Debug)]
pub(super) struct Broker {
    pub(super) client: Client,
    pub(super) modules: Modules,
    process: Child,
}

impl Broker {
    /// Starts `millpond serve` on `folder`, connects to it, and uploads the modules of the cases that run one on their topic.
    pub(super) async fn start(folder: PathBuf, modules: Modules) -> Result<Broker, BenchError> {
        let data = folder.join("data").into_os_string();
        let listen = ["--quic-listen", "127.0.0.1:0", "--admin-listen", "off"].map(OsString::from);
        let arguments = ["serve", "--data-dir"].map(OsString::from).into_iter().chain([data]).chain(listen).collect();
        let (process, url) = Child::start("broker", arguments, folder, find_url).await?;
        let client = Client::connect(&url).await?;
        for (case, module) in modules.iter().filter(|(case, _)| *case != Case::Deploy) {
            client.admin().deploy_module(case.name(), module.wasm.clone()).await?;
        }
        Ok(Broker { client, modules, process })
    }

    /// Asks it to stop, and waits until everything is on disk.
    pub(super) async fn stop(self) -> Result<(), BenchError> {
        self.client.close().await;
        self.process.stop().await
    }

    /// What it said last, and whether it still runs.
    pub(super) fn last_words(&mut self) -> String {
        self.process.last_words()
    }

    /// A new topic for one round of a case, called as the case.
    pub(super) async fn create_topic(&self, case: Case, durability: Durability, partitions: u32) -> Result<(), BenchError> {
        let config = TopicConfig { durability, ..TopicConfig::default() };
        let topic = CreateTopic { name: case.name().to_owned(), partitions, config };
        self.client.admin().create_topic(topic).await?;
        if let Some(module) = self.modules.of(case).filter(|_| case != Case::Deploy) {
            let topic = case.name().to_owned();
            let params = module.params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let attach = AttachTransform { params, ..AttachTransform::new(topic, ModuleRef::current(case.name()), AttachPoint::Produce) };
            self.client.admin().attach(attach).await?;
        }
        Ok(())
    }

    /// Deletes the topic, so that what it left in the page cache is not written during the next measurement.
    pub(super) async fn delete_topic(&self, case: Case) -> Result<(), BenchError> {
        self.client.admin().delete_topic(case.name()).await?;
        Ok(())
    }

    /// Records that came into the topic. Where a transform left records out, offsets tell less, so its own count is taken.
    pub(super) async fn records(&self, case: Case) -> Result<u64, BenchError> {
        let topic = self.client.admin().topic(case.name()).await?;
        Ok(match topic.attachments.first() {
            Some(transform) => transform.records_in,
            None => topic.partitions.iter().map(|partition| partition.high_watermark.unsigned_abs()).sum(),
        })
    }
}

fn find_url(line: &str) -> Option<String> {
    let at = line.find("millpond://")?;
    line[at..].split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_found_wherever_it_stands_in_the_line() {
        assert_eq!(
            find_url("ready: millpond://127.0.0.1:9440?fp=sha256:ab now"),
            Some("millpond://127.0.0.1:9440?fp=sha256:ab".to_owned())
        );
        assert_eq!(find_url("starting"), None);
    }
}
