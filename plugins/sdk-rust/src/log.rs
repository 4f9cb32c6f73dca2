//! Lines for the broker's log. The broker limits their length and number; in a native test they go to [`crate::testing::take_log`].
//!
//! ```
//! millpond_guest::log::info("ready");
//! ```

pub use crate::bindings::transform::millpond::plugin::log::Level;

/// A line that helps to find a mistake.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// A line about the ordinary course of things.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// A line about something that may be wrong.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// A line about something that is wrong. If the module traps afterwards, the error that the producer gets has this line.
pub fn error(message: &str) {
    write(Level::Error, message);
}

/// A line of any level.
pub fn write(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::transform::millpond::plugin::log::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::write_log(level, message);
}
