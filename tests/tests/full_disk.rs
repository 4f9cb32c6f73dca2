//! A real broker on a small file system of its own, which fills up to the last byte.
//!
//! The file system is a tmpfs in a mount namespace: `unshare` makes both, a process holds them, and `/proc/PID/root` leads there. Where
//! the machine does not permit that, the test says so and gives the broker a small quota instead: then it is the quota that is full, and
//! what only a full disk can show is left to the simulated disk of the engine's tests.

use bytes::Bytes;
use millpond::{Client, Producer, Record, Start};
use millpond_protocol::message::{CreateTopic, OnFull, TopicConfig};
use millpond_tests::{Broker, Site, text};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A place with little room.
struct SmallDisk {
    /// Holds the namespace. None where a quota takes its place.
    holder: Option<Child>,
    root: PathBuf,
}

impl SmallDisk {
    fn new(site: &Site) -> SmallDisk {
        let mount_point = site.folder().join("small");
        fs::create_dir(&mount_point).expect("a folder");
        // In a user namespace of its own, which needs no rights where it is permitted at all; else with those of the superuser.
        for flags in ["-Urm", "-m"] {
            match mount(flags, &mount_point) {
                Ok(holder) => {
                    // What is mounted is seen by the holder, not by this process.
                    let inside = mount_point.strip_prefix("/").expect("an absolute path");
                    let root = Path::new("/proc").join(holder.id().to_string()).join("root").join(inside);
                    return SmallDisk { holder: Some(holder), root };
                }
                Err(why) => eprintln!("`unshare {flags}` can't mount a small file system here: {why}"),
            }
        }
        eprintln!("the broker gets a quota of {QUOTA} instead; what needs a full disk is not shown by this run");
        SmallDisk { holder: None, root: mount_point }
    }

    fn is_real(&self) -> bool {
        self.holder.is_some()
    }

    fn start(&self, site: &Site) -> Broker {
        let data_dir = self.root.join("data");
        let data_dir = data_dir.to_str().expect("text");
        let mut flags = vec!["--data-dir", data_dir, "--storage-reserve", "2MiB", "--set", "storage.retention_check_interval=20ms"];
        flags.extend(["--set", "max_batch_bytes=1MiB", "--set", "topic.max_batch_bytes=1MiB"]);
        if !self.is_real() {
            flags.extend(["--storage-quota", QUOTA]);
        }
        site.start_with(&flags)
    }

    /// Another user of the file system takes every byte that is left.
    fn take_the_rest(&self) {
        if !self.is_real() {
            return;
        }
        let mut file = File::options().create(true).append(true).open(self.root.join("other")).expect("a name is left");
        for size in [64 << 10, 4 << 10, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// Mounts a tmpfs in a namespace that lives as long as the process.
fn mount(flags: &str, mount_point: &Path) -> Result<Child, String> {
    let script = format!("mount -t tmpfs -o size={DISK},mode=0700 tmpfs \"$0\" && echo mounted && exec cat");
    let mut holder = Command::new("unshare")
        .args([flags, "sh", "-c", &script])
        .arg(mount_point)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut line = String::new();
    BufReader::new(holder.stdout.take().expect("it is piped")).read_line(&mut line).map_err(|error| error.to_string())?;
    if line.trim() == "mounted" {
        return Ok(holder);
    }
    let output = holder.wait_with_output().map_err(|error| error.to_string())?;
    Err(text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_read_stopped_started_and_cleaned_up_and_loses_nothing() {
    let site = Site::new();
    let disk = SmallDisk::new(&site);
    let mut broker = disk.start(&site);
    let mut client = Client::connect(broker.url()).await.expect("the broker is ready");
    for name in ["bulk", "keep"] {
        client.admin().create_topic(topic(name, OnFull::Reject)).await.expect("the name is free");
    }
    let keep = client.producer("keep").retry(false).build().await.expect("the topic is there");
    for number in 0..50 {
        produce(&keep, number).await.expect("there is room");
    }
    let bulk = client.producer("bulk").retry(false).build().await.expect("the topic is there");
    let taken = fill(&bulk).await;
    disk.take_the_rest();
    refuses(&bulk).await;
    // Its segment may have room that it has asked for ahead.
    let kept = top_up(&keep, 50).await;
    assert_eq!((read(&client, "bulk").await, read(&client, "keep").await), (numbers(taken), numbers(kept)), "reads go on");

    // In order, and killed; on a disk without a byte.
    for is_killed in [false, true] {
        if is_killed {
            broker.kill();
        } else {
            assert!(broker.stop().success(), "the broker stops cleanly");
        }
        disk.take_the_rest();
        broker = disk.start(&site);
        client = Client::connect(broker.url()).await.expect("the broker is ready");
        assert_eq!((read(&client, "bulk").await, read(&client, "keep").await), (numbers(taken), numbers(kept)));
        refuses(&client.producer("keep").retry(false).build().await.expect("the topic is there")).await;
    }

    // Whoever retries needs nothing but patience.
    let patient = client.producer("keep").build().await.expect("the topic is there");
    let delivery = patient.enqueue(record(kept)).await.expect("there is memory");
    broker.ok(&["topic", "delete", "bulk", "--yes"]);
    tokio::time::timeout(WAIT_MAX, delivery).await.expect("writing resumes by itself").expect("it is stored");
    assert_eq!(read(&client, "keep").await, numbers(kept + 1));
    let log = broker.log();
    assert!(log.contains("batches are refused until there is room"), "{log}");
    assert!(log.contains("there is room again"), "{log}");
    if disk.is_real() {
        assert!(log.contains("the reserve is there again"), "{log}");
    }
    assert!(broker.stop().success(), "the broker stops cleanly");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_drops_its_oldest_records_never_refuses_one() {
    let site = Site::new();
    let disk = SmallDisk::new(&site);
    let broker = disk.start(&site);
    let client = Client::connect(broker.url()).await.expect("the broker is ready");
    client.admin().create_topic(topic("camera", OnFull::DropOldest)).await.expect("the name is free");
    let camera = client.producer("camera").retry(false).build().await.expect("the topic is there");
    let total = 3 * DISK_BYTES / VALUE_BYTES;
    for number in 0..total {
        produce(&camera, number).await.unwrap_or_else(|error| panic!("record {number}: {error}\n{}", broker.log()));
    }
    let topic = client.admin().topic("camera").await.expect("it is there");
    assert!(topic.dropped.segments > 0 && topic.dropped.records >= total - DISK_BYTES / VALUE_BYTES, "{:?}", topic.dropped);
    let left = read(&client, "camera").await;
    assert_eq!(left, (topic.dropped.records..total).collect::<Vec<_>>(), "what is left is the end of it, without a gap");
    assert!(left.len() as u64 > total / 6, "no more went than had to: {} are left", left.len());
    let words = broker.ok(&["topic", "describe", "camera"]);
    assert!(words.contains("drop-oldest") && words.contains("segments since the broker started"), "{words}");
    assert!(broker.log().contains("the oldest records were dropped to make room"));
    assert!(broker.stop().success(), "the broker stops cleanly");
}

fn topic(name: &str, on_full: OnFull) -> CreateTopic {
    let config = TopicConfig { max_batch_bytes: 1 << 20, segment_bytes: 1 << 20, on_full, ..TopicConfig::default() };
    CreateTopic { name: name.into(), partitions: 1, config }
}

/// Its number, and bytes to fill the disk with.
fn record(number: u64) -> Record {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(usize::try_from(VALUE_BYTES).expect("small"), 7);
    Record { value: Some(Bytes::from(value)), ..Record::default() }
}

async fn produce(producer: &Producer, number: u64) -> Result<(), millpond::Error> {
    producer.enqueue(record(number)).await?.await.map(drop)
}

/// Produces until there is no room, and gives how many records were taken.
async fn fill(producer: &Producer) -> u64 {
    let taken = top_up(producer, 0).await;
    assert!(taken * VALUE_BYTES > DISK_BYTES / 2, "most of the disk is for records: {taken}");
    taken
}

/// Produces from this number on until there is no room, and gives the number that was not taken.
async fn top_up(producer: &Producer, first: u64) -> u64 {
    for number in first..10 * DISK_BYTES / VALUE_BYTES {
        if let Err(error) = produce(producer, number).await {
            assert_eq!(error.code(), "storage_full", "{error}");
            return number;
        }
    }
    panic!("the disk is never full");
}

async fn refuses(producer: &Producer) {
    let error = produce(producer, u64::MAX).await.expect_err("there is no room");
    assert_eq!(error.code(), "storage_full", "{error}");
    assert!(error.broker().is_some_and(|wire| wire.retryable && wire.hint.is_some()), "{error:?}");
}

/// The numbers of a topic's records, in order.
async fn read(client: &Client, topic: &str) -> Vec<u64> {
    let mut consumer = client.consumer(topic).start(Start::Beginning).until_end(true).build().await.expect("the topic is there");
    let mut found = Vec::new();
    while let Some(record) = consumer.next().await {
        let value = record.expect("the broker is up").value.expect("a value");
        found.push(u64::from_be_bytes(*value.first_chunk().expect("a number")));
    }
    found
}

fn numbers(count: u64) -> Vec<u64> {
    (0..count).collect()
}

/// The size of the file system, as `mount` takes it.
const DISK: &str = "12m";

const DISK_BYTES: u64 = 12 << 20;

/// What the broker gets in its place.
const QUOTA: &str = "10MiB";

const VALUE_BYTES: u64 = 8 << 10;

/// Longer than a slow machine takes, shorter than a person waits for a test.
const WAIT_MAX: Duration = Duration::from_mins(1);
