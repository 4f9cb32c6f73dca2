//! What can go wrong with a module: at its upload, at its start, in a call.

use std::time::Duration;

use millpond_protocol::error::ErrorCode;

/// Why a module was refused or a batch could not be processed. Texts that come from a guest are cut to a length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The upload is something else than a `.wasm` file.
    #[error("the upload is not a WebAssembly module: {found}")]
    NotWasm {
        /// What the first bytes look like.
        found: String,
    },
    /// The upload, or the component made from it, is larger than the limit.
    #[error("the module has {size_bytes} bytes, the limit is {limit_bytes}")]
    TooLarge {
        /// The size of the upload.
        size_bytes: usize,
        /// [`crate::MODULE_BYTES_MAX`].
        limit_bytes: usize,
    },
    /// The module's exports are none of the worlds, or have other signatures.
    #[error("the module is neither a transform nor a partitioner: {found}")]
    WrongWorld {
        /// Which exports were found and which were expected.
        found: String,
    },
    /// The module asks for more than is granted.
    #[error("the module imports `{name}`, which is not granted")]
    ImportDenied {
        /// The import, as the module names it.
        name: String,
    },
    /// The module is damaged, uses a feature that is off, or needs more than one instance may have.
    #[error("the module can't be compiled: {reason}")]
    Compile {
        /// What the compiler said.
        reason: String,
    },
    /// Compiling one function would take much more memory or time than its size lets expect.
    #[error("function {function} of core module {module} has {actual} {what}, the limit is {limit}")]
    FunctionTooComplex {
        /// The core module's place in the upload, counted from 0.
        module: u32,
        /// The function's index in its module, imported ones included.
        function: usize,
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        actual: u64,
        /// How much there may be.
        limit: u64,
    },
    /// A function's signature, or a block's, is too long.
    #[error("type {type_index} of core module {module} has {actual} parameters and results, the limit is {limit}")]
    SignatureTooLong {
        /// The core module's place in the upload, counted from 0.
        module: u32,
        /// The index of the type in its module.
        type_index: usize,
        /// How many there are.
        actual: u64,
        /// How many there may be.
        limit: u64,
    },
    /// Compiling the whole module would take too much memory or time.
    #[error("the module has {actual} {what} or more, the limit is {limit}")]
    CodeTooComplex {
        /// What there is too much of.
        what: &'static str,
        /// How much there is up to the function at which counting ended.
        actual: u64,
        /// How much there may be.
        limit: u64,
    },
    /// Limits or settings are outside their range.
    #[error("{reason}")]
    Settings {
        /// Which one, with both values.
        reason: String,
    },
    /// The guest's `init` returned an error.
    #[error("the module refused to start: {0}")]
    Init(String),
    /// The guest returned an error for a batch.
    #[error("the module failed: {message}")]
    Guest {
        /// The guest's own words.
        message: String,
        /// The record at fault, counted from 0 within the batch.
        record_index: Option<u32>,
    },
    /// The guest aborted, reached outside its memory or overflowed its stack.
    #[error("the module trapped: {reason}")]
    Trapped {
        /// The kind of trap and, if there was one, the last line that the guest logged as an error.
        reason: String,
        /// The guest's functions, innermost first, a line each.
        backtrace: String,
    },
    /// The guest ran longer than [`crate::Limits::time`].
    #[error("the module ran longer than {limit:?}")]
    TimedOut {
        /// The limit.
        limit: Duration,
        /// Where it was when its time was over: the guest's functions, innermost first, a line each.
        backtrace: String,
    },
    /// [`crate::Interrupt`] was raised: it is no failure of the module's, and nothing is known of the batch.
    #[error("the module was stopped in the middle of its work: it is being detached, or the broker stops")]
    Interrupted,
    /// The guest ended after growth of its memory beyond [`crate::Limits::memory_bytes`] had been refused.
    #[error("the module needs more memory than its {limit_bytes} bytes")]
    OutOfMemory {
        /// The limit.
        limit_bytes: usize,
        /// Where it gave up: the guest's functions, innermost first, a line each.
        backtrace: String,
    },
    /// The guest ended after growth of a table beyond [`crate::TABLE_ELEMENTS_MAX`] had been refused.
    #[error("the module needs a table of more than {limit_elements} elements")]
    TableFull {
        /// The limit.
        limit_elements: usize,
        /// Where it gave up: the guest's functions, innermost first, a line each.
        backtrace: String,
    },
    /// The guest returned more than [`crate::Limits::output_bytes`].
    #[error("the module returned more than {limit_bytes} bytes for one batch")]
    OutputTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// What the guest returned breaks the contract.
    #[error("the module broke the contract: {reason}")]
    OutputInvalid {
        /// How.
        reason: String,
    },
    /// All instances of the node are in use.
    #[error("all {limit} instances of modules are in use")]
    Busy {
        /// [`crate::INSTANCES_MAX`].
        limit: u32,
    },
    /// The WebAssembly engine can't be set up on this machine.
    #[error("the WebAssembly engine can't start: {reason}")]
    Engine {
        /// What it said.
        reason: String,
    },
}

impl PluginError {
    /// The code that crosses the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            PluginError::NotWasm { .. } | PluginError::Compile { .. } => ErrorCode::ModuleInvalid,
            PluginError::TooLarge { .. }
            | PluginError::FunctionTooComplex { .. }
            | PluginError::SignatureTooLong { .. }
            | PluginError::CodeTooComplex { .. } => ErrorCode::ModuleTooLarge,
            PluginError::WrongWorld { .. } => ErrorCode::ModuleWrongWorld,
            PluginError::ImportDenied { .. } => ErrorCode::ModuleImportDenied,
            PluginError::Settings { .. } => ErrorCode::InvalidConfig,
            PluginError::Init(_) | PluginError::Guest { .. } => ErrorCode::GuestFailed,
            PluginError::Trapped { .. } => ErrorCode::GuestTrapped,
            PluginError::TimedOut { .. } => ErrorCode::GuestTimedOut,
            PluginError::OutOfMemory { .. } | PluginError::TableFull { .. } => ErrorCode::GuestOutOfMemory,
            PluginError::OutputTooLarge { .. } | PluginError::OutputInvalid { .. } => ErrorCode::GuestOutputInvalid,
            PluginError::Busy { .. } => ErrorCode::Overloaded,
            PluginError::Interrupted => ErrorCode::ShuttingDown,
            PluginError::Engine { .. } => ErrorCode::Internal,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        // Every variant has one; that it may be none is for the errors around this one.
        let hint = match self {
            PluginError::NotWasm { .. } => {
                "upload the .wasm file that the guest's build makes: a component, or a core module for wasm32-unknown-unknown \
                 built with the guest SDK"
            }
            PluginError::TooLarge { .. } => "strip debug information from the module and optimise it for size",
            PluginError::FunctionTooComplex { .. } => {
                "build the guest with optimisation, which removes locals and branches; if code was generated, split the function"
            }
            PluginError::SignatureTooLong { .. } => "pass the values in memory, or in several calls",
            PluginError::CodeTooComplex { .. } => {
                "build the guest with optimisation for size, leave out libraries that it does not need, or make it two modules"
            }
            PluginError::WrongWorld { .. } => {
                "build the guest for the world `transform`, `partitioner` or `derive` of plugins/wit/plugin.wit"
            }
            PluginError::ImportDenied { name } if name.starts_with("wasi") => {
                "a guest has no files, clock, network or random numbers: build it for wasm32-unknown-unknown, not for wasip1 or wasip2; \
                 from Python or JavaScript with `--stub-wasi`, as `millpond transform build` does"
            }
            PluginError::ImportDenied { .. } => {
                "a guest may import `millpond:plugin/log@1.0.0` and `millpond:plugin/state@1.0.0`, and nothing else"
            }
            PluginError::Trapped { .. } => "the backtrace is in the broker's log; a test beside the guest's code can replay the record",
            PluginError::TimedOut { .. } => {
                "the backtrace in the module's log says where it was: look for a loop that doesn't end, or send smaller batches"
            }
            PluginError::Interrupted => {
                "nothing of the batch had an effect: send it again; what derives topics does it again if it is still attached at the next start"
            }
            PluginError::OutOfMemory { .. } => "send smaller batches, or keep less between them",
            PluginError::OutputTooLarge { .. } => "send smaller batches, or return less for each record",
            PluginError::OutputInvalid { .. } => "build the guest with the SDK for its language, it keeps to the contract",
            PluginError::Busy { .. } => "try again in a moment, or attach fewer modules",
            PluginError::Compile { .. } => {
                "build it anew for wasm32-unknown-unknown, without threads, 64-bit memory and relaxed SIMD; if this is how it was built, \
                 the file may have been damaged on its way"
            }
            PluginError::Settings { .. } => "stay within the limit, and try again",
            PluginError::Init(_) => {
                "give the module the settings that it asks for, each with `--param NAME=VALUE`; its documentation lists them"
            }
            PluginError::Guest { .. } => {
                "the module refused this record by its own rules: correct the record, or give the module other settings: `millpond transform alter`"
            }
            PluginError::TableFull { .. } => "build the guest so that its table of functions does not grow while it runs",
            PluginError::Engine { .. } => {
                "a host for modules needs address space, of which it reserves much, and a thread: look at `ulimit -v` and `ulimit -u`"
            }
        };
        Some(hint.to_owned())
    }

    /// The guest's functions at the moment at which it was ended, by itself or by the host, innermost first. None where it returned, or where it
    /// was the start of an instance that had no room.
    pub fn backtrace(&self) -> Option<&str> {
        match self {
            PluginError::Trapped { backtrace, .. }
            | PluginError::TimedOut { backtrace, .. }
            | PluginError::OutOfMemory { backtrace, .. }
            | PluginError::TableFull { backtrace, .. }
                if !backtrace.is_empty() =>
            {
                Some(backtrace)
            }
            _ => None,
        }
    }
}

/// Cuts a text that came from outside to at most `limit_bytes`, at a character, and says so.
pub(crate) fn cut(mut text: String, limit_bytes: usize) -> String {
    if text.len() > limit_bytes {
        text.truncate(text.floor_char_boundary(limit_bytes));
        text.push('…');
    }
    text
}

/// The longest text of a guest or of the compiler that goes into an error.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1024;

/// The longest backtrace that goes into an error.
pub(crate) const BACKTRACE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::PluginError;
    use std::time::Duration;

    #[test]
    fn every_error_says_what_can_be_done() {
        let text = String::new;
        for error in [
            PluginError::NotWasm { found: text() },
            PluginError::TooLarge { size_bytes: 2, limit_bytes: 1 },
            PluginError::WrongWorld { found: text() },
            PluginError::ImportDenied { name: text() },
            PluginError::Compile { reason: text() },
            PluginError::FunctionTooComplex { module: 0, function: 0, what: "locals", actual: 2, limit: 1 },
            PluginError::SignatureTooLong { module: 0, type_index: 0, actual: 2, limit: 1 },
            PluginError::CodeTooComplex { what: "bytes of code", actual: 2, limit: 1 },
            PluginError::Settings { reason: text() },
            PluginError::Init(text()),
            PluginError::Guest { message: text(), record_index: None },
            PluginError::Trapped { reason: text(), backtrace: text() },
            PluginError::TimedOut { limit: Duration::ZERO, backtrace: text() },
            PluginError::OutOfMemory { limit_bytes: 0, backtrace: text() },
            PluginError::TableFull { limit_elements: 0, backtrace: text() },
            PluginError::OutputTooLarge { limit_bytes: 0 },
            PluginError::OutputInvalid { reason: text() },
            PluginError::Busy { limit: 0 },
            PluginError::Interrupted,
            PluginError::Engine { reason: text() },
        ] {
            assert!(error.hint().is_some_and(|hint| hint.len() > 20), "{error:?}");
        }
    }
}
