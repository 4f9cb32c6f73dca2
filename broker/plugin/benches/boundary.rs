//! What the way to a guest and back costs: nanoseconds for each record, milliseconds for a deployment, mebibytes for the host.
//!
//! `cargo bench -p millpond-plugin --profile release`, after `plugins/build.sh`.

use std::collections::HashMap;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millpond_plugin::{ArtifactCache, BatchInfo, Limits, Module, Partitioner, PluginHost, Transform};

type Params = Vec<(String, String)>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    if let Some(artifact) = std::env::var_os(ARTIFACT) {
        return load_compiled(&mut out, &std::fs::read(artifact)?);
    }
    let before = Memory::now()?;
    let cache = Arc::new(Cache::default());
    let host = PluginHost::new(cache.clone())?;
    writeln!(out, "a host without modules          {}", Memory::now()? - before)?;
    let Ok(identity) = read("identity") else {
        writeln!(out, "plugins/dist/identity.wasm is missing: run plugins/build.sh")?;
        return Ok(());
    };
    let begin = Instant::now();
    let identity = host.load(&identity)?;
    writeln!(out, "the engine, and identity        {}   {:6.1} ms", Memory::now()? - before, millis(begin.elapsed()))?;
    let begin = Instant::now();
    let drop_idle = host.load(&read("drop-idle")?)?;
    writeln!(out, "drop-idle deployed              {}   {:6.1} ms", Memory::now()? - before, millis(begin.elapsed()))?;
    let begin = Instant::now();
    PluginHost::new(cache.clone())?.load(&read("drop-idle")?)?;
    writeln!(out, "  from the cache, new engine                               {:6.1} ms", millis(begin.elapsed()))?;
    let begin = Instant::now();
    host.load(&read("drop-idle")?)?;
    writeln!(out, "  from the cache, same engine                              {:6.1} ms", millis(begin.elapsed()))?;

    out.flush()?;
    in_another_process(&cache, drop_idle.sha256())?;

    let samples = ["filter-json", "convert-units", "mask"].map(|name| Ok::<_, Box<dyn Error>>(host.load(&read(name)?)?));
    let [filter_json, convert_units, mask] = samples;
    let modules = Modules { identity, drop_idle: drop_idle.clone(), filter_json: filter_json?, convert_units: convert_units?, mask: mask? };
    for shape in [Shape { records: 1000, value_bytes: 100 }, Shape { records: 100, value_bytes: 1000 }] {
        rows(&mut out, &host, &modules, shape)?;
    }
    starts(&mut out, &host, &drop_idle)?;
    languages(&mut out, &host)?;
    writeln!(out, "\nall of it                       {}", Memory::now()? - before)?;
    Ok(())
}

/// How many records a batch has, and how large their values are.
#[derive(Clone, Copy)]
struct Shape {
    records: u32,
    value_bytes: usize,
}

struct Modules {
    identity: Module,
    drop_idle: Module,
    filter_json: Module,
    convert_units: Module,
    mask: Module,
}

fn rows(out: &mut impl Write, host: &PluginHost, modules: &Modules, shape: Shape) -> Result<(), Box<dyn Error>> {
    let Shape { records, value_bytes } = shape;
    let plain = section(shape, |number| format!("{number:0>value_bytes$}"));
    let readings = section(shape, |number| reading(number, value_bytes));
    writeln!(
        out,
        "\n{:<30} {:>10} {:>8} {:>10} {:>11}",
        format!("{records} x {value_bytes} B"),
        "bytes in",
        "out",
        "us/batch",
        "ns/record"
    )?;
    let Modules { identity, drop_idle, filter_json, convert_units, mask } = modules;
    transform(out, "identity", host, identity, &[], (&plain, records))?;
    transform(out, "filter, half stays", host, identity, &[("drop_every", "2")], (&plain, records))?;
    transform(out, "filter, nothing stays", host, identity, &[("drop_every", "1")], (&plain, records))?;
    let readings_of = (&readings[..], records);
    transform(out, "filter by a JSON field, half", host, filter_json, &[("where", r#"state != "idle""#)], readings_of)?;
    transform(out, "filter by two, and a number", host, filter_json, &[("where", r#"cpu > 50 and site = "north-4""#)], readings_of)?;
    transform(out, "map, a number converted", host, convert_units, &[("field", "cpu"), ("from", "C"), ("to", "F")], readings_of)?;
    transform(out, "map, a field masked", host, mask, &[("fields", "host")], readings_of)?;
    let hash = [("fields", "host"), ("how", "hash"), ("salt", "0123456789abcdef")];
    transform(out, "map, a field hashed", host, mask, &hash, readings_of)?;
    transform(out, "drop-idle, JSON", host, drop_idle, &[], readings_of)?;
    transform(out, "drop-idle, nothing masked", host, drop_idle, &[("mask", "")], readings_of)?;
    partition(out, host, readings_of)
}

/// A reading as JSON, of this size.
fn reading(number: u32, value_bytes: usize) -> String {
    let state = if number.is_multiple_of(2) { "idle" } else { "busy" };
    let (host, cpu) = (number % 7, number % 100);
    let reading = format!(r#"{{"device":"pump-{number}","host":"gw-{host}","cpu":{cpu}.5,"state":"{state}","site":"north-4","note":""#);
    let note = "x".repeat(value_bytes.saturating_sub(reading.len() + 2));
    format!("{reading}{note}\"}}")
}

/// What drop-idle costs a broker that starts anew and has compiled it before.
fn in_another_process(cache: &Cache, sha256: &str) -> Result<(), Box<dyn Error>> {
    let artifacts = cache.0.lock().unwrap_or_else(PoisonError::into_inner);
    let artifact = artifacts.iter().find(|(key, _)| key.starts_with(sha256)).map(|(_, artifact)| artifact);
    let path = std::env::temp_dir().join(format!("millpond-boundary-{}", std::process::id()));
    std::fs::write(&path, artifact.ok_or("no artifact")?)?;
    let status = std::process::Command::new(std::env::current_exe()?).env(ARTIFACT, &path).status();
    std::fs::remove_file(path)?;
    if status?.success() { Ok(()) } else { Err("the other process failed".into()) }
}

fn load_compiled(out: &mut impl Write, artifact: &[u8]) -> Result<(), Box<dyn Error>> {
    struct One(Vec<u8>);
    impl ArtifactCache for One {
        fn load(&self, _key: &str) -> Option<Vec<u8>> {
            Some(self.0.clone())
        }
        fn store(&self, _key: &str, _artifact: &[u8]) {}
    }
    let wasm = read("drop-idle")?;
    let before = Memory::now()?;
    let host = PluginHost::new(Arc::new(One(artifact.to_vec())))?;
    let begin = Instant::now();
    let module = host.load(&wasm)?;
    writeln!(out, "  from the cache, new process   {}   {:6.1} ms", Memory::now()? - before, millis(begin.elapsed()))?;
    let _transform = Transform::new(&host, &module, Limits::default(), &[])?;
    writeln!(out, "    with one instance           {}", Memory::now()? - before)?;
    Ok(())
}

fn transform(
    out: &mut impl Write,
    name: &str,
    host: &PluginHost,
    module: &Module,
    params: &[(&str, &str)],
    (section, record_count): (&[u8], u32),
) -> Result<(), Box<dyn Error>> {
    let params: Params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let transform = Transform::new(host, module, Limits::default(), &params)?;
    let batch = BatchInfo { topic: "telemetry", partition: Some(0), base_timestamp: 0, record_count };
    let output = transform.run(&batch, section)?;
    let best = measure(|| Ok(transform.run(&batch, section)?.len()))?;
    line(out, name, section.len(), output.len(), best, record_count)
}

fn partition(out: &mut impl Write, host: &PluginHost, (section, record_count): (&[u8], u32)) -> Result<(), Box<dyn Error>> {
    let partitioner = Partitioner::new(host, &host.load(&read("by-device")?)?, Limits::default(), &[])?;
    let batch = BatchInfo { topic: "telemetry", partition: None, base_timestamp: 0, record_count };
    let best = measure(|| Ok(partitioner.run(&batch, section, 12)?.len()))?;
    line(out, "by-device, JSON", section.len(), record_count as usize * 4, best, record_count)
}

fn line(out: &mut impl Write, name: &str, bytes_in: usize, bytes_out: usize, best: Duration, records: u32) -> Result<(), Box<dyn Error>> {
    let micros = best.as_secs_f64() * 1e6;
    writeln!(out, "{name:<30} {bytes_in:>10} {bytes_out:>8} {micros:>10.1} {:>11.1}", micros * 1e3 / f64::from(records))?;
    Ok(())
}

fn starts(out: &mut impl Write, host: &PluginHost, module: &Module) -> Result<(), Box<dyn Error>> {
    let best = measure(|| Ok(usize::from(Transform::new(host, module, Limits::default(), &[])?.module().world().to_string().is_empty())))?;
    writeln!(out, "\na fresh instance, started and dropped: {:.1} us", best.as_secs_f64() * 1e6)?;
    Ok(())
}

/// One module in each language that guests can be written in: what it is to deploy, to start and to run.
fn languages(out: &mut impl Write, host: &PluginHost) -> Result<(), Box<dyn Error>> {
    let shape = Shape { records: 1000, value_bytes: 100 };
    let readings = section(shape, |number| {
        let celsius = number % 100;
        format!(r#"{{"device":"pump-{number}","host":"gw-7","temperature":{celsius}.5,"state":"busy","seq":{number},"site":"north-4"}}"#)
    });
    let batch = BatchInfo { topic: "telemetry", partition: Some(0), base_timestamp: 0, record_count: shape.records };
    let params = [("limit".to_owned(), "50".to_owned())];
    writeln!(out, "\nhot, half stays     bytes   deploy ms   start us   ns/record   memory KiB")?;
    for name in ["hot", "hot-c", "hot-js", "hot-python"] {
        let Ok(wasm) = read(name) else { continue };
        let begin = Instant::now();
        let module = host.load(&wasm)?;
        let deploy = millis(begin.elapsed());
        let start = || Transform::new(host, &module, Limits::default(), &params);
        let transform = start()?;
        let started = rounds(50, || Ok(start()?.module().size_bytes()))?.as_secs_f64() * 1e6;
        let best = rounds(100, || Ok(transform.run(&batch, &readings)?.len()))?.as_secs_f64() * 1e9 / f64::from(shape.records);
        let memory = transform.memory_bytes_peak() / 1024;
        writeln!(out, "{name:<14} {:>10} {deploy:>11.0} {started:>10.0} {best:>11.0} {memory:>12}", wasm.len())?;
        out.flush()?;
    }
    Ok(())
}

/// The shortest of many rounds: other work on the machine only ever makes a round longer.
fn measure(round: impl FnMut() -> Result<usize, Box<dyn Error>>) -> Result<Duration, Box<dyn Error>> {
    rounds(2000, round)
}

fn rounds(count: u32, mut round: impl FnMut() -> Result<usize, Box<dyn Error>>) -> Result<Duration, Box<dyn Error>> {
    let mut best = Duration::MAX;
    for _ in 0..count {
        let begin = Instant::now();
        std::hint::black_box(round()?);
        best = best.min(begin.elapsed());
    }
    Ok(best)
}

fn read(name: &str) -> std::io::Result<Vec<u8>> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist").join(name).with_extension("wasm"))
}

/// Records with these values, a millisecond apart.
fn section(shape: Shape, value: impl Fn(u32) -> String) -> Vec<u8> {
    let mut section = Vec::new();
    for number in 0..shape.records {
        let value = value(number);
        let mut body = vec![0];
        put(&mut body, number.into());
        put(&mut body, number.into());
        put(&mut body, -1);
        put(&mut body, i64::try_from(value.len()).unwrap_or(i64::MAX));
        body.extend_from_slice(value.as_bytes());
        put(&mut body, 0);
        put(&mut section, i64::try_from(body.len()).unwrap_or(i64::MAX));
        section.extend_from_slice(&body);
    }
    section
}

fn put(out: &mut Vec<u8>, value: i64) {
    let mut folded = (value << 1) ^ (value >> 63);
    while folded > 0x7f {
        out.push(folded.to_le_bytes()[0] | 0x80);
        folded >>= 7;
    }
    out.push(folded.to_le_bytes()[0]);
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What the process holds, in KiB.
#[derive(Clone, Copy)]
struct Memory {
    resident: i64,
    address_space: i64,
}

impl Memory {
    fn now() -> std::io::Result<Memory> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
        };
        Ok(Memory { resident: field("VmRSS:"), address_space: field("VmSize:") })
    }
}

impl std::ops::Sub for Memory {
    type Output = Memory;

    fn sub(self, before: Memory) -> Memory {
        Memory { resident: self.resident - before.resident, address_space: self.address_space - before.address_space }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>7} KiB resident, {:>6} MiB reserved", self.resident, self.address_space / 1024)
    }
}

#[derive(Default)]
struct Cache(Mutex<HashMap<String, Vec<u8>>>);

impl ArtifactCache for Cache {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn store(&self, key: &str, artifact: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), artifact.to_vec());
    }
}

/// Set for the process that loads what another has compiled.
const ARTIFACT: &str = "MILLPOND_BOUNDARY_ARTIFACT";
