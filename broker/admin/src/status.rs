//! How far the broker is, as whoever starts and stops it tells.

use millpond_engine::Engine;
use millpond_protocol::message::TopicInfo;
use parking_lot::RwLock;
use std::{io, sync::Arc, time::SystemTime};
use tokio::task::spawn_blocking;

/// How far the broker is. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Status {
    phase: Arc<RwLock<Phase>>,
    started: SystemTime,
}

/// Where a broker is between its start and its end.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// The data folder is being opened.
    Starting,
    /// It takes requests.
    Serving(Arc<Engine>),
    /// It answers what has arrived, and takes nothing new.
    Stopping(Arc<Engine>),
}

impl Status {
    /// A broker that begins to start now.
    pub fn starting() -> Status {
        Status { phase: Arc::new(RwLock::new(Phase::Starting)), started: SystemTime::now() }
    }

    /// From now on the broker takes requests.
    pub fn serving(&self, engine: Arc<Engine>) {
        *self.phase.write() = Phase::Serving(engine);
    }

    /// From now on it takes no more of them. One that has never served is still starting.
    pub fn stopping(&self) {
        let mut phase = self.phase.write();
        if let Phase::Serving(engine) = &*phase {
            *phase = Phase::Stopping(Arc::clone(engine));
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.read().clone()
    }

    /// When the process began to start, by the machine's clock.
    pub(crate) fn started(&self) -> SystemTime {
        self.started
    }
}

impl Phase {
    /// Whether the broker takes requests.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self, Phase::Serving(_))
    }

    /// All topics as they are now; none of them while the broker starts.
    pub(crate) async fn topics(&self) -> io::Result<Vec<TopicInfo>> {
        let Some(engine) = self.engine().map(Arc::clone) else { return Ok(Vec::new()) };
        // A third of a microsecond for each partition, without a pause: too long for an async worker where there are thousands.
        Ok(spawn_blocking(move || engine.topics_with_counts()).await?)
    }

    /// What there is to look at, once there is something.
    pub(crate) fn engine(&self) -> Option<&Arc<Engine>> {
        match self {
            Phase::Starting => None,
            Phase::Serving(engine) | Phase::Stopping(engine) => Some(engine),
        }
    }
}
