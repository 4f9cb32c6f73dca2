//! Batches on their way to JavaScript: one buffer, which is not copied, and one table.

use crate::promise::{Cancel, promise};
use bytes::Bytes;
use millpond_bridge::{ConsumerOptions, Failure, Place, Records};
use napi::{
    Env,
    bindgen_prelude::{ArrayBuffer, BigInt64Array, Int32Array, Object, ToNapiValue, i64n},
    sys,
};
use napi_derive::napi;
use std::time::Duration;

/// Reads one topic.
#[napi]
#[derive(Debug)]
pub struct Consumer(millpond_bridge::Consumer);

/// Records of one partition, as [`Records`] draws them.
#[napi(object, object_from_js = false)]
pub struct Chunk {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The owner of all keys, values and headers.
    #[napi(ts_type = "ArrayBuffer")]
    pub bytes: SharedBytes,
    /// Where keys, values and headers lie.
    pub ranges: Int32Array,
    /// The offsets.
    pub offsets: BigInt64Array,
    /// The timestamps, in milliseconds since 1970-01-01 UTC.
    pub timestamps_ms: BigInt64Array,
    /// The offset from which reading goes on behind these.
    #[napi(ts_type = "bigint")]
    pub next_offset: i64n,
}

/// How a partition is doing.
#[napi(object, object_from_js = false)]
pub struct PartitionState {
    /// Its number.
    pub partition: u32,
    /// The offset of the next record that is read.
    #[napi(ts_type = "bigint")]
    pub position: i64n,
    /// Whether it is paused.
    pub paused: bool,
    /// The first offset that is still there.
    #[napi(ts_type = "bigint")]
    pub log_start: i64n,
    /// One past the last offset that can be read.
    #[napi(ts_type = "bigint")]
    pub high_watermark: i64n,
}

/// Bytes that become an `ArrayBuffer` without a copy, and are held until that is collected.
pub struct SharedBytes(Bytes);

impl ToNapiValue for SharedBytes {
    #[expect(unsafe_code, reason = "Node-API has no safe way to lend memory")]
    unsafe fn to_napi_value(env: sys::napi_env, value: SharedBytes) -> napi::Result<sys::napi_value> {
        let SharedBytes(bytes) = value;
        let owner = Env::from_raw(env);
        if bytes.is_empty() {
            let empty = ArrayBuffer::from_data(&owner, Vec::new())?;
            // SAFETY: `env` is the one that this was called with.
            return unsafe { ToNapiValue::to_napi_value(env, empty) };
        }
        let (start, length) = (bytes.as_ptr().cast_mut(), bytes.len());
        // SAFETY: the memory is valid for as long as `bytes` is, which is dropped when the buffer is collected. Nobody on this side reads it any
        // more, so that a program which writes into its buffer changes nothing but that; and no two buffers have the same first byte, because
        // each batch is handed over once.
        let lent = unsafe { ArrayBuffer::from_external(&owner, start, length, bytes, |_, bytes| drop(bytes)) }?;
        // SAFETY: `env` is the one that this was called with.
        unsafe { ToNapiValue::to_napi_value(env, lent) }
    }
}

impl From<Records> for Chunk {
    fn from(records: Records) -> Chunk {
        let (topic, partition, next_offset) = (records.topic().to_string(), records.partition(), i64n(records.next_offset()));
        let bytes = SharedBytes(records.bytes().clone());
        let columns = records.into_columns();
        Chunk {
            topic,
            partition,
            bytes,
            ranges: Int32Array::new(columns.ranges),
            offsets: BigInt64Array::new(columns.offsets),
            timestamps_ms: BigInt64Array::new(columns.timestamps_ms),
            next_offset,
        }
    }
}

impl Consumer {
    pub(crate) fn new(client: &millpond_bridge::Client, topic: &str, options: ConsumerOptions) -> Result<Consumer, Failure> {
        millpond_bridge::Consumer::new(client, topic, options).map(Consumer)
    }
}

#[napi]
impl Consumer {
    /// Opens the partitions, where that was not done yet.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn open<'env>(&self, env: &'env Env, cancel: &Cancel) -> napi::Result<Object<'env>> {
        let consumer = self.0.clone();
        promise(env, Some(cancel), async move { consumer.open().await })
    }

    /// The next records; null once nothing will come any more. One call at a time. A call that is cancelled takes nothing.
    #[napi(ts_return_type = "Promise<Chunk | null>")]
    pub fn read<'env>(&self, env: &'env Env, cancel: &Cancel) -> napi::Result<Object<'env>> {
        let consumer = self.0.clone();
        promise(env, Some(cancel), async move {
            while consumer.ready(1, Duration::ZERO).await? {
                // Nothing waits between this and the end: it is not cancelled any more.
                if let Some(records) = consumer.take(usize::MAX)? {
                    return Ok(Some(Chunk::from(records)));
                }
            }
            Ok(None)
        })
    }

    /// Goes on from another place, which is JSON, in a partition or in all of them.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn seek<'env>(&self, env: &'env Env, partition: Option<u32>, place: String, cancel: &Cancel) -> napi::Result<Object<'env>> {
        let consumer = self.0.clone();
        let place = serde_json::from_str::<Place>(&place);
        promise(env, Some(cancel), async move {
            let place = place.map_err(|error| Failure::invalid(format!("the place to seek to cannot be understood: {error}")))?;
            consumer.seek(partition, place).await
        })
    }

    /// Hands out no more records of a partition, or of all.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn pause<'env>(&self, env: &'env Env, partition: Option<u32>) -> napi::Result<Object<'env>> {
        let consumer = self.0.clone();
        promise(env, None, async move { consumer.pause(partition).await })
    }

    /// Goes on with a partition, or with all that are paused.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn resume<'env>(&self, env: &'env Env, partition: Option<u32>, cancel: &Cancel) -> napi::Result<Object<'env>> {
        let consumer = self.0.clone();
        promise(env, Some(cancel), async move { consumer.resume(partition).await })
    }

    /// How the partitions are doing, in order.
    #[napi(ts_return_type = "Promise<Array<PartitionState>>")]
    pub fn partitions<'env>(&self, env: &'env Env, cancel: &Cancel) -> napi::Result<Object<'env>> {
        let consumer = self.0.clone();
        promise(env, Some(cancel), async move {
            let state = |state: millpond_bridge::PartitionState| PartitionState {
                partition: state.partition,
                position: i64n(state.position),
                paused: state.paused,
                log_start: i64n(state.log_start),
                high_watermark: i64n(state.high_watermark),
            };
            Ok(consumer.partitions().await?.into_iter().map(state).collect::<Vec<_>>())
        })
    }

    /// Ends it: a read that waits is rejected with the code `closed`.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let consumer = self.0.clone();
        promise(env, None, async move {
            consumer.close().await;
            Ok(())
        })
    }
}
