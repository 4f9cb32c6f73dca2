//! The broker without a network: topics, the way of a batch in and out, and the modules that run on it.
//!
//! Front doors (QUIC, Kafka) translate their protocols into calls of [`Engine`]; whatever one of them does to a topic is the same thing
//! seen through another. Nothing here knows a socket or a frame.
//!
//! # A batch's journey
//!
//! ```text
//!  ProduceStream::submit                                                       ConsumeStream::next
//!    check, modules, placing          partition (one writer)                     wait, read, keep the place
//!  ┌────────────────────────┐      ┌──────────────────────────┐               ┌───────────────────────────┐
//!  │ async task │ plugin    │ ───> │ queue │ turn   │ flush   │ ── published: │ async task │ I/O thread   │
//!  │            │ threads   │      │       │ I/O    │ flush   │  watermarks ─>│            │              │
//!  └────────────────────────┘ <─── │       │ thread │ threads │               └───────────────────────────┘
//!       Ack / Placements           └──────────────────────────┘
//! ```
//!
//! # The data folder
//!
//! ```text
//! DATA_DIR/
//!   lock                          flock of the broker that uses the folder
//!   reserve                       room for cleaning up on a full disk; no data
//!   catalogue.json                topics, settings, attachments, modules; replaced atomically
//!   catalogue.2.json              the same once more
//!   topics/
//!     NAME/PARTITION/             one log: segments and indexes with Kafka's names, see millpond_log
//!     .new-NAME/                    the empty folders of a topic until the catalogue names it
//!     .deleted-NAME-N/            a deleted topic until it is removed
//!   modules/
//!     SHA256.wasm                 an upload
//!     cache/KEY.cwasm             what it compiled to on this machine, for its owner alone; can be deleted
//!   derived/
//!     ID/PARTITION.snapshot       how far a derived topic is on a partition of its source, and its state
//!     ID/PARTITION.journal        what was committed since
//! ```
//!
//! What the catalogue names is what exists. The lock and the cache are on the machine's own file system, everything else behind
//! [`millpond_log::Disk`].
//!
//! # What it promises
//!
//! - An acknowledgement means what the topic's durability says, and nothing acknowledged is lost in a shutdown.
//! - Batches of one stream are stored in its order; a batch is stored whole or not at all.
//! - A module can't do more than fail its batch.
//! - Consumers see what lies below the high watermark: with `sync`, what is on disk.
//! - Memory is bounded: batches on their way in ([`EngineConfig::inflight_bytes_max`]), each queue
//!   ([`EngineConfig::partition_queue_bytes_max`]), one read for each consumer, unpacked records for each plugin thread.
//! - The bytes of batches stay within the quotas, and a full disk refuses what does not fit and nothing else: it can be read, deleted from,
//!   stopped and started, and takes batches again by itself once there is room.
//! - Every error names its cause and, where there is something to do, what: [`EngineError::to_wire`].
//!
//! # Map
//!
//! | module | holds |
//! |---|---|
//! | `engine` | [`Engine`]: the ways in, and the end |
//! | `startup`, `topics`, `alter`, `attachments`, `reattach` | opening the folder; making, deleting and changing topics; modules and where and how they run |
//! | `retention` | deleting the oldest records, by age, size and on request |
//! | `space`, `reserve` | quotas, the full disk, who makes room |
//! | `compaction` | keeping the latest record of each key |
//! | `produce`, `check`, `transform`, `route`, `dead_letters` | the way in: what is refused, the chain of modules, placing records, and those that a module failed on |
//! | `partition` | queue, turn, group commit, answers, what it says of itself |
//! | `consume`, `views` | the way out, as it is stored and through modules |
//! | `derive` | topics that modules make of others: each record has its effect once |
//! | `catalogue`, `data_dir`, `folders`, `modules`, `versions` | what is on disk beside the logs |
//! | `pool`, `lanes`, `services`, `inflight` | threads, who is next on them, what is shared, the memory budget |
//! | `usage` | how much of what is bounded is taken |
//! | `meters`, `module_logs` | what is measured of modules, and the end of what they logged |
//! | `inspect` | what a data folder has lost beside what is in its logs, for a tool: [`inspect()`] |
//! | `name`, `error`, `config`, `clock` | the vocabulary |

#![forbid(unsafe_code)]

mod alter;
mod attachments;
mod catalogue;
mod chain;
mod check;
mod clock;
mod compaction;
mod config;
mod consume;
mod data_dir;
mod dead_letters;
mod derive;
mod earlier;
mod engine;
mod error;
mod folders;
mod inflight;
mod inspect;
mod lanes;
mod meters;
mod module_logs;
mod modules;
mod name;
mod partition;
mod pool;
mod produce;
mod reattach;
mod reserve;
mod retention;
mod route;
mod services;
mod space;
mod startup;
#[cfg(test)]
mod testing;
mod topic;
mod topics;
mod transform;
mod usage;
mod versions;
mod views;

pub use attachments::check_attachment;
pub use clock::{Clock, SimClock, SystemClock};
pub use config::EngineConfig;
pub use consume::ConsumeStream;
pub use data_dir::DirLock;
pub use engine::Engine;
pub use error::{EngineError, FailedAt, Purpose, Shortage, StorageBound, VersionsFull};
pub use inflight::InflightPermit;
pub use inspect::{FolderFault, inspect};
pub use name::NameOf;
pub use produce::{Answer, PendingAnswer, ProduceStream};
pub use usage::Usage;
