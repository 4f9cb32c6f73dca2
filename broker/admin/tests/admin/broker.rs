//! A broker on a simulated disk with its admin door open, and a client made of a socket alone.

use millpond_admin::{AdminLimits, AdminServer, Status};
use millpond_engine::{Answer, Engine, EngineConfig, EngineError, SystemClock};
use millpond_log::sim::SimDisk;
use millpond_protocol::{
    batch::BatchBuilder,
    compression::Codec,
    message::{CreateTopic, OpenConsume, OpenProduce, Position, TopicConfig},
    record::NewRecord,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

/// No test needs as long as this; one that waits for something that never comes fails instead of hanging.
const PATIENCE: Duration = Duration::from_mins(1);

/// An open door. Shut when dropped.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) status: Status,
    running: JoinHandle<()>,
}

/// An engine whose folder is real, and whose disk is not.
pub(crate) struct Broker {
    pub(crate) engine: Arc<Engine>,
    pub(crate) disk: SimDisk,
    pub(crate) door: Door,
    dir: TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    /// The header fields, as they came.
    pub(crate) fields: String,
    pub(crate) body: String,
}

impl Door {
    /// The door of a broker that is still starting.
    pub(crate) async fn open(limits: AdminLimits) -> Door {
        Door::open_at(SocketAddr::from(([127, 0, 0, 1], 0)), limits).await
    }

    pub(crate) async fn open_at(listen: SocketAddr, limits: AdminLimits) -> Door {
        let status = Status::starting();
        let server = AdminServer::bind(listen, limits, status.clone()).await.expect("a free port");
        let address = server.local_addr();
        Door { address, status, running: tokio::spawn(server.run()) }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    /// Sends these bytes, and reads what comes until the door closes the connection.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.expect("it takes them");
        read_all(&mut stream).await
    }

    /// A request by HTTP/1.1.
    pub(crate) async fn request(&self, method: &str, path: &str) -> Reply {
        let text = self.exchange(format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address).as_bytes()).await;
        Reply::read(&text)
    }

    /// The same as somebody who calls the door by this name.
    pub(crate) async fn get_as(&self, host: &str, path: &str) -> Reply {
        Reply::read(&self.exchange(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.request("GET", path).await
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Broker {
    pub(crate) async fn start() -> Broker {
        Broker::with(|_| {}, AdminLimits::default()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut EngineConfig), limits: AdminLimits) -> Broker {
        let (dir, disk) = (tempfile::tempdir().expect("a folder"), SimDisk::new());
        let mut config = EngineConfig::new(dir.path());
        change(&mut config);
        let engine = Engine::open(config, Arc::new(disk.clone()), Arc::new(SystemClock)).await.expect("it opens");
        let door = Door::open(limits).await;
        door.status.serving(Arc::clone(&engine));
        Broker { engine, disk, door, dir }
    }

    pub(crate) async fn topic(&self, name: &str, partitions: u32, durability: &str) {
        let config = TopicConfig { durability: durability.parse().expect("a durability"), ..TopicConfig::default() };
        let topic = CreateTopic { name: name.to_owned(), partitions, config };
        self.engine.create_topic(topic).await.expect("it can be made");
    }

    /// One record into one partition.
    pub(crate) async fn produce(&self, topic: &str, partition: u32, value: &str) -> Result<Answer, EngineError> {
        self.produce_keyed(topic, partition, None, value).await
    }

    pub(crate) async fn produce_keyed(&self, topic: &str, partition: u32, key: Option<&str>, value: &str) -> Result<Answer, EngineError> {
        let mut builder = BatchBuilder::new();
        let record = NewRecord { timestamp: 1, key: key.map(str::as_bytes), value: Some(value.as_bytes()), headers: &[] };
        builder.push(&record).expect("it fits");
        let batch = builder.finish(Codec::None).expect("it has a record");
        let open = OpenProduce { topic: topic.to_owned(), partition: Some(partition) };
        let (mut stream, _) = self.engine.open_produce(&open).expect("it opens");
        let permit = self.engine.reserve_inflight(batch.len()).await;
        stream.submit(batch, permit).await.await
    }

    /// One read from an offset on.
    pub(crate) async fn read(&self, topic: &str, partition: u32, offset: i64) -> Result<(), EngineError> {
        let open = OpenConsume { topic: topic.to_owned(), partition, from: Position::Offset(offset), view: None };
        let (mut stream, _) = self.engine.open_consume(&open).await?;
        stream.next(1 << 20).await.map(drop)
    }

    /// Flips a bit in the segment that begins with this offset.
    pub(crate) fn damage(&self, topic: &str, partition: u32, base_offset: i64) {
        let segment = self.dir.path().join(format!("topics/{topic}/{partition}/{base_offset:020}.log"));
        self.disk.damage(&segment, |bytes| bytes[1_000] ^= 1);
    }
}

impl Reply {
    pub(crate) fn read(text: &str) -> Reply {
        let (fields, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let (line, fields) = fields.split_once("\r\n").expect("header fields");
        let code = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).expect("a status");
        // An answer to HEAD has the fields of a body that does not come.
        let is_chunked = fields.contains("Transfer-Encoding: chunked") && !body.is_empty();
        Reply { code, fields: fields.to_owned(), body: if is_chunked { joined(body) } else { body.to_owned() } }
    }
}

/// The chunks of a body, put together. One without its last chunk fails.
fn joined(mut chunks: &str) -> String {
    let mut whole = String::new();
    while !chunks.is_empty() {
        let (size, rest) = chunks.split_once("\r\n").expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size in hex");
        if size == 0 {
            assert_eq!(rest, "\r\n", "nothing comes after the last chunk");
            return whole;
        }
        whole.push_str(&rest[..size]);
        chunks = rest[size..].strip_prefix("\r\n").expect("the end of a chunk");
    }
    panic!("the answer was cut off");
}

pub(crate) async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("it comes in time").expect("the connection is closed in order");
    String::from_utf8(bytes).expect("text")
}
