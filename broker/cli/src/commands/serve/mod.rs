//! `millpond serve`: the broker, from its start to its end.
//!
//! It promises that its URL appears on stdout, and in the file `url` of the data folder, only once clients can use it; and that after
//! SIGTERM or Ctrl-C every batch that has arrived is answered and on disk before the process ends with 0.

mod address;
mod admin;
mod open_files;
mod refusal;
mod settings;

use crate::{
    config::{Config, ConfigArgs, LogFormat, VerifyOnRead},
    failure::{Failure, Outcome},
    folders, logging,
};
use address::Announcement;
use admin::AdminDoor;
use clap::Args;
use millpond_engine::{Engine, EngineConfig, SystemClock};
use millpond_log::RealDisk;
use millpond_quic::{QuicServer, QuicSocket, TlsMaterial, load_or_create_tls};
use std::{
    future::pending,
    io::{self, Write},
    net::SocketAddr,
    process,
    sync::Arc,
    thread,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Arguments of `millpond serve`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Stop when standard input ends, too: a program that runs a broker through a pipe leaves none behind, however the program ends
    #[arg(long)]
    stop_with_stdin: bool,
}

/// Runs the broker until it is told to stop.
pub(crate) fn run(arguments: &ServeArgs) -> Outcome {
    let config = arguments.config.load()?.config;
    logging::start_broker(config.log.format, config.log.level)?;
    let runtime = super::runtime(super::broker_workers())?;
    let outcome = runtime.block_on(serve(&config, arguments.stop_with_stdin));
    runtime.shutdown_timeout(super::RUNTIME_END_TIMEOUT);
    outcome
}

async fn serve(config: &Config, stop_with_stdin: bool) -> Outcome {
    // From here on a signal waits until there is something to stop.
    let mut stop = StopSignals::listen(stop_with_stdin)?;
    // Before the data folder: a start that comes to nothing leaves none behind.
    let (admin, socket) = take_ports(config).await.map_err(|failure| refusal::of_ports(failure, &config.data_dir))?;
    if config.storage.verify_on_read == VerifyOnRead::Never {
        warn!(
            "storage.verify_on_read is `never`: batches are served from disk without comparing their checksums, so damage there reaches \
             consumers; `first` compares each batch once"
        );
    }
    let engine_config = EngineConfig { open_files_max: open_files::raise(), ..settings::engine(config) };
    let engine = Engine::open(engine_config, Arc::new(RealDisk), Arc::new(SystemClock)).await;
    let engine = engine.map_err(|error| refusal::of_engine(&error, &config.data_dir))?;
    // What a killed broker left there would send clients astray until the new one is written.
    address::clear(&config.data_dir);
    let outcome = match open_door(config, socket, &engine) {
        Ok((server, announcement)) => {
            admin.serving(&engine);
            let outcome = serve_until_stopped(&engine, server, announcement, &admin, config.log.format, &mut stop).await;
            info!("writing what is left to disk");
            tokio::select! {
                () = engine.shutdown() => {}
                name = stop.next() => end_at_once(name),
            }
            outcome
        }
        Err(failure) => {
            engine.shutdown().await;
            Err(failure)
        }
    };
    if outcome.is_ok() {
        info!("stopped");
    }
    outcome
}

/// Opens the admin door, and takes the port of the QUIC door.
async fn take_ports(config: &Config) -> Outcome<(AdminDoor, QuicSocket)> {
    let admin = AdminDoor::open(config.admin.listen).await?;
    let quic = settings::quic(config);
    let socket = QuicSocket::bind(quic.listen, quic.socket_buffer_bytes).map_err(|error| refusal::of_door(&error))?;
    Ok((admin, socket))
}

/// Everything up to the moment in which clients can be told where to go. The data folder is locked by now.
fn open_door(config: &Config, socket: QuicSocket, engine: &Arc<Engine>) -> Outcome<(QuicServer, Announcement)> {
    for advice in socket.advice() {
        warn!("{advice}");
    }
    let tls = match (&config.tls.cert, &config.tls.key) {
        (Some(cert), Some(key)) => TlsMaterial::from_pem_files(cert, key).map_err(|error| refusal::of_named_tls(&error))?,
        _ => load_or_create_tls(&config.data_dir.join("tls"), &config.tls.names).map_err(|error| refusal::of_door(&error))?,
    };
    let server =
        QuicServer::open(socket, settings::quic(config).limits, &tls, Arc::clone(engine)).map_err(|error| refusal::of_door(&error))?;
    warn_if_others_can_connect(server.local_addr());
    info!("nothing answers on the Kafka address {} yet: this version has no Kafka door", config.kafka.listen);
    let announcement = Announcement::new(server.local_addr(), &tls.fingerprint(), &config.data_dir, folders::state());
    Ok((server, announcement))
}

fn warn_if_others_can_connect(address: SocketAddr) {
    if !address.ip().to_canonical().is_loopback() {
        warn!(
            "there is no authentication yet: whoever reaches UDP {address} can read and write every topic and upload modules; let a \
             firewall choose who does, or listen on 127.0.0.1"
        );
    }
}

async fn serve_until_stopped(
    engine: &Engine,
    server: QuicServer,
    announcement: Announcement,
    admin: &AdminDoor,
    log: LogFormat,
    stop: &mut StopSignals,
) -> Outcome {
    let address = server.local_addr();
    let shutdown = CancellationToken::new();
    let mut serving = tokio::spawn(server.run(shutdown.clone()));
    let ready = announcement.publish(|write| engine.with_reserve(write)).map(|()| print_url(announcement.url()));
    let outcome = match ready {
        Ok(()) => {
            // A person reads it on stdout. Whatever collects a log of JSON may not see that.
            let url = (log == LogFormat::Json).then(|| announcement.url());
            info!(version = env!("CARGO_PKG_VERSION"), %address, url, metrics = admin.metrics_url(), "the broker is ready");
            tokio::select! {
                name = stop.next() => {
                    admin.stopping();
                    info!("{name}: answering what has arrived, then stopping; one more signal stops at once");
                    Ok(())
                }
                _ = &mut serving => {
                    error!("the QUIC door has closed by itself");
                    Err(Failure::new("the QUIC door has closed by itself").hint("the log has the cause"))
                }
            }
        }
        Err(failure) => Err(failure),
    };
    announcement.withdraw();
    shutdown.cancel();
    if !serving.is_finished() {
        tokio::select! {
            _ = &mut serving => {}
            name = stop.next() => end_at_once(name),
        }
    }
    outcome
}

/// The one line on stdout. Where it can't be written, as to a file on a full disk, that is no reason to stop: a start on a full disk works. A
/// supervisor that has closed stdout does not want it.
fn print_url(url: &str) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{url}").and_then(|()| stdout.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        warn!(%error, "the URL can't be written to stdout; the file `url` in the data folder has it");
    }
}

/// The signals that ask the broker to stop.
#[derive(Debug)]
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// Ends with standard input, where that counts. None once it has.
    stdin: Option<oneshot::Receiver<()>>,
}

impl StopSignals {
    fn listen(to_stdin: bool) -> Outcome<StopSignals> {
        let failed = |error| Failure::new("can't listen for signals").because(&error);
        Ok(StopSignals {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            stdin: to_stdin.then(end_of_stdin),
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            () = ended(&mut self.stdin) => {
                self.stdin = None;
                "standard input has ended"
            }
        }
    }
}

/// When there is nothing more to read. The thread is left alone at the end: nobody can call off what it waits for.
fn end_of_stdin() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        // An error is an end as well.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(sender);
    });
    receiver
}

async fn ended(stdin: &mut Option<oneshot::Receiver<()>>) {
    match stdin {
        Some(stdin) => drop(stdin.await),
        None => pending().await,
    }
}

/// Whoever asks twice does not want to wait. What was acknowledged as `sync` is on disk in any case.
fn end_at_once(name: &str) -> ! {
    error!("{name}: stopping at once, without waiting for what is under way");
    process::exit(1)
}

const EXAMPLES: &str = "\
Once clients can connect, the broker prints its URL on stdout and writes it to the file `url` in the data folder. Commands of \
the same user on the same machine find the broker without a URL while it listens on port 9440. When it listens on all addresses \
(0.0.0.0 or [::]), the URL has the machine's name; clients may use any other name or address of it.

SIGTERM or Ctrl-C stops it when all that has arrived is answered and on disk; a second one stops it at once, with exit code 1.

MILLPOND_LOG takes log filters, such as `debug` or `millpond_engine=trace,warn`.

Examples:
  millpond serve --data-dir ./data
  millpond serve --config /etc/millpond.toml --log-format json
  millpond serve --quic-listen 0.0.0.0:9440 --set tls.names=gateway.example,10.0.0.7";
