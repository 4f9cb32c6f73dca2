//! A promise for what runs on the bridge's runtime, and how it is cancelled.

use millpond_bridge::{Failure, FailureKind, runtime};
use napi::{
    Env, Status,
    bindgen_prelude::{Object, ToNapiValue},
};
use napi_derive::napi;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Ends the wait for a promise: it is rejected with the code `cancelled`, unless it is settled already.
#[napi]
#[derive(Debug, Default)]
pub struct Cancel(CancellationToken);

#[napi]
impl Cancel {
    /// One that nothing waits with yet.
    #[napi(constructor)]
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Cancels what was started with it, now and later.
    #[napi]
    pub fn cancel(&self) {
        self.0.cancel();
    }

    pub(crate) fn token(&self) -> CancellationToken {
        self.0.clone()
    }
}

impl Drop for Cancel {
    /// When its owner is gone, as with a worker thread that is ended, nobody waits any more: what waited lets go of its connection.
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Runs this on the runtime; the promise is settled with what comes of it. What is cancelled is dropped.
pub(crate) fn promise<'env, T: ToNapiValue + Send + 'static>(
    env: &'env Env,
    cancel: Option<&Cancel>,
    future: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> napi::Result<Object<'env>> {
    let cancelled = cancel.map(Cancel::token).unwrap_or_default();
    let runtime = runtime::handle().map_err(|failure| error(&failure))?;
    let (deferred, promise) = env.create_deferred()?;
    runtime.spawn(async move {
        let outcome = tokio::select! {
            biased;
            outcome = future => outcome,
            () = cancelled.cancelled() => Err(Failure::new(FailureKind::Internal, "cancelled", "it was cancelled")),
        };
        match outcome {
            Ok(value) => deferred.resolve(move |_| Ok(value)),
            Err(failure) => deferred.reject(error(&failure)),
        }
    });
    Ok(promise)
}

/// An error whose message is the failure as JSON; offsets are text there, because JavaScript would round them.
pub(crate) fn error(failure: &Failure) -> napi::Error {
    napi::Error::new(Status::GenericFailure, text(failure))
}

pub(crate) fn text(failure: &Failure) -> String {
    parts(failure).to_string()
}

fn parts(failure: &Failure) -> Value {
    let range = failure.range.map(|(first, end)| [first.to_string(), end.to_string()]);
    json!({
        "code": failure.code,
        "kind": failure.kind.name(),
        "message": failure.message,
        "hint": failure.hint,
        "retryable": failure.retryable,
        "maybe_done": failure.maybe_done,
        "range": range,
        "next_offset": failure.next_offset.map(|offset| offset.to_string()),
        "partition": failure.partition,
        "cause": failure.cause.as_ref().map(parts),
    })
}
