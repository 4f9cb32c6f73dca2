//! The client: one connection, and what is made from it.

use crate::{
    admin::Admin,
    connection::{Link, Timing},
    consumer::ConsumerBuilder,
    error::Error,
    producer::ProducerBuilder,
    spare::Spare,
    trust::Trust,
    url::BrokerUrl,
};
use parking_lot::Mutex;
use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

/// How long one attempt to connect may take, by default.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the broker may be silent before the connection counts as lost, by default.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a connection that carries nothing else shows that it is alive, by default.
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long a request may take, reconnecting and trying again included, by default.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to a broker. Cheap to clone: all clones, and all producers and consumers made from them, share one QUIC connection. Only a
/// consumer of very many partitions makes further ones.
///
/// The connection is made again by itself when it is lost. It ends with the last clone, producer and consumer, or with
/// [`Client::close`].
#[derive(Clone, Debug)]
pub struct Client {
    core: Arc<Core>,
}

/// What producers, consumers and requests need of a client.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) link: Link,
    pub(crate) request_timeout: Duration,
    /// Those that were made with [`Core::beside`] and are still in use.
    others: Mutex<Vec<Weak<Core>>>,
    /// What pushes were read into.
    pub(crate) spare: Arc<Spare>,
}

impl Core {
    pub(crate) fn new(link: Link, request_timeout: Duration) -> Core {
        Core { link, request_timeout, others: Mutex::default(), spare: Arc::default() }
    }

    /// One more connection to the same broker, made when it is first used. It ends with its last user, and when this one is closed.
    pub(crate) fn beside(&self) -> Result<Arc<Core>, Error> {
        let other = Arc::new(Core::new(self.link.another()?, self.request_timeout));
        let mut others = self.others.lock();
        others.retain(|other| other.strong_count() > 0);
        others.push(Arc::downgrade(&other));
        Ok(other)
    }

    async fn close(&self) {
        let others: Vec<Arc<Core>> = self.others.lock().iter().filter_map(Weak::upgrade).collect();
        let links = std::iter::once(&self.link).chain(others.iter().map(|other| &other.link));
        futures_util::future::join_all(links.map(Link::close)).await;
    }
}

impl Client {
    /// Connects to the broker at `url`, as in `millpond://localhost:9440?fp=sha256:...` (see [`BrokerUrl`]).
    ///
    /// Makes one attempt and fails with its error. Once connected, a client reconnects by itself.
    pub async fn connect(url: &str) -> Result<Client, Error> {
        Client::builder().url(url).connect().await
    }

    /// A client with other settings than the defaults.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Requests about topics, modules and the broker.
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.core))
    }

    /// A producer for a topic.
    pub fn producer(&self, topic: impl Into<Arc<str>>) -> ProducerBuilder {
        ProducerBuilder::new(Arc::clone(&self.core), topic.into())
    }

    /// A consumer of a topic.
    pub fn consumer(&self, topic: impl Into<Arc<str>>) -> ConsumerBuilder {
        ConsumerBuilder::new(Arc::clone(&self.core), topic.into())
    }

    /// Where the broker is.
    pub fn url(&self) -> &BrokerUrl {
        self.core.link.url()
    }

    /// Whether the connection is up at this moment. Nothing needs to be done when it is not.
    pub fn is_connected(&self) -> bool {
        self.core.link.live().is_some()
    }

    /// QUIC's estimate of the round trip to the broker; none while the connection is down.
    pub fn round_trip(&self) -> Option<Duration> {
        self.core.link.live().map(|connection| connection.rtt())
    }

    /// Closes the connection, for all clones of this client and all that was made from them: what they wait for fails with
    /// [`Error::Closed`]. Close producers before, so that their records are stored.
    pub async fn close(&self) {
        self.core.close().await;
    }
}

/// The settings of a client.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    url: Result<BrokerUrl, Error>,
    trust: Option<Result<Trust, Error>>,
    timing: Timing,
    request_timeout: Duration,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        ClientBuilder {
            url: "millpond://localhost".parse(),
            trust: None,
            timing: Timing { connect_timeout: DEFAULT_CONNECT_TIMEOUT, idle_timeout: DEFAULT_IDLE_TIMEOUT, keep_alive: DEFAULT_KEEP_ALIVE },
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
        }
    }
}

impl ClientBuilder {
    /// Where the broker is: `millpond://HOST:PORT`, by default `millpond://localhost:9440`. [`ClientBuilder::connect`] says
    /// what is wrong with it, if anything is.
    #[must_use]
    pub fn url(mut self, url: &str) -> Self {
        self.url = url.parse();
        self
    }

    /// Trusts the certificates that an authority in this PEM file signed, whatever the URL says.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust = Some(Ok(Trust::CaFile(path.into())));
        self
    }

    /// Trusts the one certificate with this fingerprint, `sha256:` and 64 hex digits, whatever the URL says.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: &str) -> Self {
        let wrong = |_| Error::InvalidSetting {
            setting: "fingerprint",
            value: format!("`{fingerprint}`"),
            reason: "it is sha256: and 64 hex digits",
        };
        self.trust = Some(fingerprint.parse().map(Trust::Fingerprint).map_err(wrong));
        self
    }

    /// How long one attempt to connect may take; [`DEFAULT_CONNECT_TIMEOUT`] when not set.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timing.connect_timeout = timeout;
        self
    }

    /// How long the broker may be silent before the connection counts as lost; [`DEFAULT_IDLE_TIMEOUT`] when not set. The broker has a
    /// limit of its own, and the shorter one holds. A sign of life is sent four times in that time, at the latest.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.timing.idle_timeout = timeout;
        self.timing.keep_alive = DEFAULT_KEEP_ALIVE.min(timeout / 4);
        self
    }

    /// How long a request may take, reconnecting and trying again included; [`DEFAULT_REQUEST_TIMEOUT`] when not set.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Connects. Makes one attempt and fails with its error.
    pub async fn connect(self) -> Result<Client, Error> {
        let mut url = self.url?;
        if let Some(trust) = self.trust {
            url.trust = trust?;
        }
        let core = Arc::new(Core::new(Link::new(url, self.timing)?, self.request_timeout));
        core.link.get().await?;
        Ok(Client { core })
    }
}
