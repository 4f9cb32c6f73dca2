//! The connection, and admin calls.

use crate::{
    consumer::Consumer,
    decoding::Decoding,
    encoding::Encoding,
    failure::exception,
    producer::Producer,
    wait::{Answer, Operation, block, block_on, start},
};
use bytes::Bytes;
use millpond_bridge::{ClientOptions, ConsumerOptions, Failure, ProducerOptions, admin, options::Options};
use pyo3::prelude::*;

/// A connection to a broker.
#[pyclass(frozen, module = "millpond._core")]
pub(crate) struct Client(millpond_bridge::Client);

impl Client {
    pub(crate) fn new(client: millpond_bridge::Client) -> Client {
        Client(client)
    }
}

/// Connects, on this thread.
#[pyfunction]
pub(crate) fn connect(py: Python<'_>, options: &str) -> PyResult<Client> {
    let options = read::<ClientOptions>(py, options)?;
    Ok(Client(block_on(py, millpond_bridge::Client::connect(options))?))
}

/// Connects, for a future of asyncio.
#[pyfunction]
pub(crate) fn connect_async(py: Python<'_>, future: &Bound<'_, PyAny>, options: &str) -> PyResult<Operation> {
    let options = read::<ClientOptions>(py, options)?;
    start(future, millpond_bridge::Client::connect(options), Answer::Client)
}

/// Settings from JSON, or what is wrong with them.
fn read<T: Options>(py: Python<'_>, json: &str) -> PyResult<T> {
    T::from_json(json).map_err(|failure| exception(py, &failure))
}

#[pymethods]
impl Client {
    /// The broker's address.
    #[getter]
    fn url(&self) -> String {
        self.0.url()
    }

    /// Whether the connection is up.
    #[getter]
    fn is_connected(&self) -> bool {
        self.0.is_connected()
    }

    /// QUIC's estimate of the round trip to the broker, in seconds; None while the connection is down.
    #[getter]
    fn round_trip(&self) -> Option<f64> {
        self.0.round_trip().map(|time| time.as_secs_f64())
    }

    /// An admin call, JSON in and out.
    #[pyo3(signature = (request, wasm=None))]
    fn admin(&self, py: Python<'_>, request: String, wasm: Option<&[u8]>) -> PyResult<String> {
        let (client, wasm) = (self.0.clone(), wasm.map(Bytes::copy_from_slice));
        block_on(py, async move { admin::call(&client, &request, wasm).await })
    }

    /// The same for a future of asyncio.
    #[pyo3(signature = (future, request, wasm=None))]
    fn admin_async(&self, future: &Bound<'_, PyAny>, request: String, wasm: Option<&[u8]>) -> PyResult<Operation> {
        let (client, wasm) = (self.0.clone(), wasm.map(Bytes::copy_from_slice));
        start(future, async move { admin::call(&client, &request, wasm).await }, Answer::Text)
    }

    /// A producer, opened with its first record.
    fn producer(&self, py: Python<'_>, topic: &str, options: &str, key: Option<Py<PyAny>>, value: Option<Py<PyAny>>) -> PyResult<Producer> {
        let options = read::<ProducerOptions>(py, options)?;
        let producer = millpond_bridge::Producer::new(&self.0, topic, options).map_err(|failure| exception(py, &failure))?;
        Producer::new(py, producer, Encoding { key, value })
    }

    /// A consumer, opened when it is first read.
    fn consumer(
        &self,
        py: Python<'_>,
        topic: &str,
        options: &str,
        key: Option<Py<PyAny>>,
        value: Option<Py<PyAny>>,
        on_decode_error: &str,
    ) -> PyResult<Consumer> {
        let options = read::<ConsumerOptions>(py, options)?;
        let consumer = millpond_bridge::Consumer::new(&self.0, topic, options).map_err(|failure| exception(py, &failure))?;
        Consumer::new(py, consumer, Decoding::new(key, value, on_decode_error))
    }

    /// Closes the connection.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if millpond_bridge::runtime::is_forked() {
            return Ok(());
        }
        let client = self.0.clone();
        block(py, async move { client.close().await })
    }

    /// The same for a future of asyncio.
    fn close_async(&self, future: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let client = self.0.clone();
        let close = async move {
            client.close().await;
            Ok::<(), Failure>(())
        };
        start(future, close, |()| Answer::Nothing)
    }
}
