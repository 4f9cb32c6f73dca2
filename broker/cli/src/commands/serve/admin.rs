//! The admin door of `serve`: open from before the data folder is, so that a probe can tell a broker that starts from one that is not
//! there, until the process ends.

use super::refusal;
use crate::{config::Listen, failure::Outcome};
use millpond_admin::{AdminLimits, AdminServer, Status};
use millpond_engine::Engine;
use std::{net::SocketAddr, sync::Arc};
use tracing::warn;

/// The admin door, or that there is none.
#[derive(Debug)]
pub(super) struct AdminDoor {
    status: Status,
    address: Option<SocketAddr>,
}

impl AdminDoor {
    /// Opens it and serves at once. Needs a tokio runtime around it, and is there for as long as that is.
    pub(super) async fn open(listen: Listen) -> Outcome<AdminDoor> {
        let status = Status::starting();
        let Listen::At(listen) = listen else { return Ok(AdminDoor { status, address: None }) };
        let server = AdminServer::bind(listen, AdminLimits::default(), status.clone()).await;
        let server = server.map_err(|error| refusal::of_admin(&error))?;
        let address = server.local_addr();
        warn_if_others_can_connect(address);
        tokio::spawn(server.run());
        Ok(AdminDoor { status, address: Some(address) })
    }

    /// From now on the broker takes requests.
    pub(super) fn serving(&self, engine: &Arc<Engine>) {
        self.status.serving(Arc::clone(engine));
    }

    /// From now on it takes no more.
    pub(super) fn stopping(&self) {
        self.status.stopping();
    }

    /// Where the metrics are, for whoever reads the log.
    pub(super) fn metrics_url(&self) -> Option<String> {
        self.address.map(|address| format!("http://{address}/metrics"))
    }
}

fn warn_if_others_can_connect(address: SocketAddr) {
    if !address.ip().to_canonical().is_loopback() {
        warn!(
            "the admin door has no authentication and no encryption: whoever reaches TCP {address} can read the names of topics and \
             modules, how much is in them, how fast it grows, and why a partition fails; let a firewall choose who does, or set \
             `admin.listen` to 127.0.0.1:{}",
            address.port()
        );
    }
}
