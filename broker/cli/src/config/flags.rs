//! The flags that set configuration keys, and where the rest is read from.

use super::{Config, Loaded, layers};
use crate::{
    failure::{Failure, Outcome},
    folders,
};
use clap::Args;
use std::path::PathBuf;

/// The flag of commands that only take defaults from the configuration.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct ConfigFileArgs {
    /// TOML file with the configuration
    #[arg(long, value_name = "PATH", env = "MILLPOND_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

/// Flags of every command that works with the configuration.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    file: ConfigFileArgs,

    /// Folder for topics, modules and certificates; made if it is not there
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,

    /// UDP address of the QUIC door, such as 0.0.0.0:9440; port 0 takes a free one. There is no authentication yet: whoever reaches it
    /// can read and write every topic and upload modules
    #[arg(long, value_name = "ADDR")]
    quic_listen: Option<String>,

    /// TCP address of the Kafka door, such as 127.0.0.1:9092
    #[arg(long, value_name = "ADDR")]
    kafka_listen: Option<String>,

    /// TCP address of the admin door (HTTP, for metrics and health), such as 127.0.0.1:9640; `off` leaves it shut
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,

    /// Memory for batches on connections and on their way to the log, such as 256MiB
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,

    /// Bytes of records that the broker keeps over all topics, such as 10GiB, or `unlimited`
    #[arg(long, value_name = "SIZE")]
    storage_quota: Option<String>,

    /// Disk space that is kept free for cleaning up when the disk is full, such as 8MiB; 0B for none
    #[arg(long, value_name = "SIZE")]
    storage_reserve: Option<String>,

    /// PEM file of the server's certificate and its chain; without it one is made in the data folder
    #[arg(long, value_name = "PATH")]
    tls_cert: Option<String>,

    /// PEM file of the certificate's private key
    #[arg(long, value_name = "PATH")]
    tls_key: Option<String>,

    /// How the log is written: pretty or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,

    /// What is logged: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// Any other key, as `millpond config show` lists them; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigFileArgs {
    /// Reads the file and the environment.
    pub(crate) fn load(&self) -> Outcome<Loaded> {
        self.load_with(Vec::new())
    }

    fn load_with(&self, flags: Vec<layers::Setting>) -> Outcome<Loaded> {
        let mut settings = match self.config.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => {
                let unreadable = |error: std::io::Error| {
                    Failure::usage(format!("can't read the configuration file {}", path.display()))
                        .because(&error)
                        .hint("--config or MILLPOND_CONFIG names it")
                };
                layers::from_file(path, &std::fs::read_to_string(path).map_err(unreadable)?)?
            }
            None => Vec::new(),
        };
        settings.extend(layers::from_environment(std::env::vars_os())?);
        settings.extend(flags);
        Loaded::from_layers(&Config::defaults(folders::data()), settings)
    }
}

impl ConfigArgs {
    /// Reads the file and the environment, and lays these flags over them.
    pub(crate) fn load(&self) -> Outcome<Loaded> {
        self.file.load_with(self.settings()?)
    }

    fn settings(&self) -> Outcome<Vec<layers::Setting>> {
        let flags = [
            ("--data-dir", "data_dir", &self.data_dir),
            ("--quic-listen", "quic.listen", &self.quic_listen),
            ("--kafka-listen", "kafka.listen", &self.kafka_listen),
            ("--admin-listen", "admin.listen", &self.admin_listen),
            ("--memory-limit", "memory_limit", &self.memory_limit),
            ("--storage-quota", "storage.quota", &self.storage_quota),
            ("--storage-reserve", "storage.reserve", &self.storage_reserve),
            ("--tls-cert", "tls.cert", &self.tls_cert),
            ("--tls-key", "tls.key", &self.tls_key),
            ("--log-format", "log.format", &self.log_format),
            ("--log-level", "log.level", &self.log_level),
        ];
        let mut settings = Vec::new();
        for pair in &self.set {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("`--set {pair}` has no value")).hint("write `--set KEY=VALUE`"))?;
            settings.push(layers::Setting::from_flag("--set", key, value)?);
        }
        for (flag, key, text) in flags {
            if let Some(text) = text {
                settings.push(layers::Setting::from_flag(flag, key, text)?);
            }
        }
        Ok(settings)
    }
}
