//! The connection to a broker.

use crate::{
    failure::Failure,
    options::{ClientOptions, ms},
    runtime::{Kept, check_process},
};
use std::{sync::Arc, time::Duration};

/// A connection to a broker; cheap to clone. See [`millpond::Client`].
#[derive(Clone, Debug)]
pub struct Client(Arc<Kept<millpond::Client>>);

impl Client {
    /// Connects: one attempt, which fails with its error. Afterwards the client reconnects by itself.
    pub async fn connect(options: ClientOptions) -> Result<Client, Failure> {
        check_process()?;
        let mut builder = millpond::Client::builder();
        if let Some(url) = &options.url {
            builder = builder.url(url);
        }
        if let Some(path) = options.ca_file {
            builder = builder.ca_file(path);
        }
        if let Some(fingerprint) = &options.fingerprint {
            builder = builder.fingerprint(fingerprint);
        }
        if let Some(timeout) = options.connect_timeout_ms {
            builder = builder.connect_timeout(ms(timeout));
        }
        if let Some(timeout) = options.idle_timeout_ms {
            builder = builder.idle_timeout(ms(timeout));
        }
        if let Some(timeout) = options.request_timeout_ms {
            builder = builder.request_timeout(ms(timeout));
        }
        Ok(Client(Arc::new(Kept::new(builder.connect().await?))))
    }

    /// The client core's own client; fails in a forked child.
    pub fn core(&self) -> Result<&millpond::Client, Failure> {
        check_process()?;
        Ok(&self.0)
    }

    /// The address of the broker.
    pub fn url(&self) -> String {
        self.0.url().to_string()
    }

    /// Whether the connection is up at this moment. Nothing needs to be done when it is not.
    pub fn is_connected(&self) -> bool {
        check_process().is_ok() && self.0.is_connected()
    }

    /// QUIC's estimate of the round trip to the broker; none while the connection is down.
    pub fn round_trip(&self) -> Option<Duration> {
        check_process().ok().and_then(|()| self.0.round_trip())
    }

    /// Closes the connection, for all clones and all that was made from them. Close producers before. In a forked child it does nothing.
    pub async fn close(&self) {
        if check_process().is_ok() {
            self.0.close().await;
        }
    }
}
