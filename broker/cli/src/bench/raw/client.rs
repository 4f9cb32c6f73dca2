//! The side that holds the watch.

use super::{Kind, PIECE_BYTES, PING_BYTES, PONG_BYTES, count, endpoint, preface, raw, transport};
use crate::bench::{
    BenchError,
    payload::Values,
    samples::{Latencies, Throughput},
};
use quinn::{ClientConfig, Connection, Endpoint, rustls::RootCertStore};
use rustls::pki_types::CertificateDer;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// Sent before anything is measured, as in Millpond's latency cases.
const WARM_UP_PINGS: usize = 64;

/// One connection to the peer, kept for all rounds: Millpond's client keeps its own as well.
#[derive(Debug)]
pub(in crate::bench) struct RawClient {
    connection: Connection,
    /// The connection's packets go through it.
    _endpoint: Endpoint,
}

impl RawClient {
    /// Connects to the peer whose line was `ADDRESS CERTIFICATE`, the certificate in hex.
    pub(in crate::bench) async fn connect(address_and_certificate: &str) -> Result<RawClient, BenchError> {
        let wrong = || raw(format!("`{address_and_certificate}` is not an address and a certificate"));
        let (address, certificate) = address_and_certificate.split_once(' ').ok_or_else(wrong)?;
        let address: SocketAddr = address.parse().map_err(|_| wrong())?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(unhex(certificate).ok_or_else(wrong)?)).map_err(raw)?;
        let mut config = ClientConfig::with_root_certificates(Arc::new(roots)).map_err(raw)?;
        config.transport_config(transport()?);
        let endpoint = endpoint(None)?;
        let connection = endpoint.connect_with(config, address, super::PEER_NAME).map_err(raw)?.await.map_err(raw)?;
        Ok(RawClient { connection, _endpoint: endpoint })
    }

    /// Sends for `duration`, then waits until the peer has counted all of it.
    pub(in crate::bench) async fn send(&self, values: &Values, duration: Duration) -> Result<Throughput, BenchError> {
        let (mut send, mut receive) = self.connection.open_bi().await.map_err(raw)?;
        send.write_all(&preface(Kind::Sink, 0)).await.map_err(raw)?;
        let started = Instant::now();
        let mut pieces = 0;
        while started.elapsed() < duration {
            send.write_chunk(values.piece(pieces, PIECE_BYTES)).await.map_err(raw)?;
            pieces += 1;
        }
        send.finish().map_err(raw)?;
        let mut counted = [0; size_of::<u64>()];
        receive.read_exact(&mut counted).await.map_err(raw)?;
        let elapsed = started.elapsed();
        let (counted, bytes) = (u64::from_be_bytes(counted), (pieces * PIECE_BYTES) as u64);
        if counted != bytes {
            return Err(raw(format!("{bytes} bytes were sent and {counted} came")));
        }
        Ok(Throughput { bytes, records: 0, elapsed })
    }

    /// Asks for `bytes` and reads them.
    pub(in crate::bench) async fn receive(&self, bytes: u64) -> Result<Throughput, BenchError> {
        let (mut send, mut receive) = self.connection.open_bi().await.map_err(raw)?;
        let started = Instant::now();
        send.write_all(&preface(Kind::Source, bytes)).await.map_err(raw)?;
        let received = count(&mut receive).await?;
        Ok(Throughput { bytes: received, records: 0, elapsed: started.elapsed() })
    }

    /// Sends 1 KiB and waits for 16 bytes, over and over on one open stream, as a producer does.
    pub(in crate::bench) async fn ping(&self, values: &Values, duration: Duration) -> Result<Latencies, BenchError> {
        let (mut send, mut receive) = self.connection.open_bi().await.map_err(raw)?;
        send.write_all(&preface(Kind::Echo, 0)).await.map_err(raw)?;
        let mut latencies = Latencies::default();
        let mut answer = [0; PONG_BYTES];
        let mut pings = 0;
        let mut started = Instant::now();
        while pings <= WARM_UP_PINGS || started.elapsed() < duration {
            if pings == WARM_UP_PINGS {
                (latencies, started) = (Latencies::default(), Instant::now());
            }
            let request = values.piece(pings, PING_BYTES);
            pings += 1;
            let begun = Instant::now();
            send.write_chunk(request).await.map_err(raw)?;
            receive.read_exact(&mut answer).await.map_err(raw)?;
            latencies.add(begun.elapsed());
        }
        send.finish().map_err(raw)?;
        Ok(latencies)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}
