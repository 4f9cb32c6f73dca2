//! The connection, and the requests about topics and modules.

use crate::{
    consumer::Consumer,
    producer::Producer,
    promise::{Cancel, error, promise},
};
use bytes::Bytes;
use millpond_bridge::{ClientOptions, ConsumerOptions, ProducerOptions, admin, options::Options};
use napi::{Env, bindgen_prelude::Object};
use napi_derive::napi;

/// A connection to a broker.
#[napi]
#[derive(Debug)]
pub struct Client(millpond_bridge::Client);

/// Connects; the options are JSON.
#[napi(ts_return_type = "Promise<Client>")]
pub fn connect<'env>(env: &'env Env, options: String, cancel: &Cancel) -> napi::Result<Object<'env>> {
    promise(env, Some(cancel), async move {
        let options = ClientOptions::from_json(&options)?;
        millpond_bridge::Client::connect(options).await.map(Client)
    })
}

#[napi]
impl Client {
    /// The address of the broker.
    #[napi(getter)]
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// Whether the connection is up at this moment.
    #[napi(getter)]
    pub fn is_connected(&self) -> bool {
        self.0.is_connected()
    }

    /// QUIC's estimate of the round trip, in milliseconds; null while the connection is down.
    #[napi(getter)]
    pub fn round_trip_ms(&self) -> Option<f64> {
        self.0.round_trip().map(|time| time.as_secs_f64() * 1_000.0)
    }

    /// A request as JSON, answered with JSON; a module's bytes are copied.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn admin<'env>(&self, env: &'env Env, request: String, wasm: Option<&[u8]>, cancel: &Cancel) -> napi::Result<Object<'env>> {
        let (client, wasm) = (self.0.clone(), wasm.map(Bytes::copy_from_slice));
        promise(env, Some(cancel), async move { admin::call(&client, &request, wasm).await })
    }

    /// A producer; the options are JSON, and wrong ones are refused at once.
    #[napi]
    pub fn producer(&self, topic: String, options: String) -> napi::Result<Producer> {
        let options = ProducerOptions::from_json(&options).map_err(|failure| error(&failure))?;
        Producer::new(&self.0, &topic, options).map_err(|failure| error(&failure))
    }

    /// A consumer; the options are JSON, and wrong ones are refused at once.
    #[napi]
    pub fn consumer(&self, topic: String, options: String) -> napi::Result<Consumer> {
        let options = ConsumerOptions::from_json(&options).map_err(|failure| error(&failure))?;
        Consumer::new(&self.0, &topic, options).map_err(|failure| error(&failure))
    }

    /// Closes the connection.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let client = self.0.clone();
        promise(env, None, async move {
            client.close().await;
            Ok(())
        })
    }
}
