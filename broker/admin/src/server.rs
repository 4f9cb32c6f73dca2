//! The door itself: it listens, and serves a bounded number of connections at a time.

use crate::{AdminError, Status, connection, host::Names, routes::Routes};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::sleep,
};
use tracing::{debug, error, warn};

/// What one peer, or all of them, can take of the broker.
#[derive(Clone, Debug)]
pub struct AdminLimits {
    /// Connections that are served at the same time. More of them wait in the system's queue for the socket, and cost nothing here.
    pub connections_max: usize,
    /// The largest request head, in bytes. A request's body is not read.
    pub head_bytes_max: usize,
    /// The time for a request head to arrive.
    pub head_timeout: Duration,
    /// The time for an answer to be taken.
    pub response_timeout: Duration,
    /// Scrapes of `/metrics` that are answered at the same time, for each holds what it saw of all topics. One more gets a 503.
    pub scrapes_max: usize,
}

impl Default for AdminLimits {
    fn default() -> AdminLimits {
        AdminLimits {
            connections_max: 16,
            head_bytes_max: 8 << 10,
            head_timeout: Duration::from_secs(5),
            // Prometheus gives up after as long, unless it is told otherwise (`scrape_timeout`).
            response_timeout: Duration::from_secs(10),
            scrapes_max: 4,
        }
    }
}

/// The admin door, bound and ready to run.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    local_address: SocketAddr,
    limits: AdminLimits,
    routes: Arc<Routes>,
}

impl AdminServer {
    /// The port of the door, unless it is told another one.
    pub const DEFAULT_PORT: u16 = 9640;

    /// Binds the socket. Clients can connect from now on, and are answered once [`AdminServer::run`] is called.
    ///
    /// # Errors
    ///
    /// The address can't be listened on.
    pub async fn bind(listen: SocketAddr, limits: AdminLimits, status: Status) -> Result<AdminServer, AdminError> {
        let failed = |source| AdminError::Bind { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let local_address = listener.local_addr().map_err(failed)?;
        let routes = Arc::new(Routes::new(status, Names::of(local_address), limits.scrapes_max));
        Ok(AdminServer { listener, local_address, limits, routes })
    }

    /// Where it listens: with the port that the system chose, if it was asked for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_address
    }

    /// Serves until the future is dropped, which closes every connection.
    pub async fn run(self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < self.limits.connections_max.max(1) => match accepted {
                    Ok((stream, peer)) => {
                        debug!(%peer, "a connection to the admin door");
                        connections.spawn(self.serve(stream));
                    }
                    Err(error) => pause_after(&error).await,
                },
                Some(ended) = connections.join_next() => report_panic(ended),
            }
        }
    }

    fn serve(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + use<> {
        let (limits, routes) = (self.limits.clone(), Arc::clone(&self.routes));
        async move {
            if let Err(error) = connection::serve(stream, &limits, &routes).await {
                debug!(%error, "a connection to the admin door has ended early");
            }
        }
    }
}

/// Mostly there is no descriptor left for the connection. It stays in the system's queue, so asking at once would only turn in circles.
async fn pause_after(error: &io::Error) {
    warn!(%error, "the admin door can't accept a connection at the moment");
    sleep(ACCEPT_PAUSE).await;
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a connection to the admin door was ended by a fault in the broker");
    }
}

/// Between two attempts to accept a connection, after one that failed.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
