//! The binary as a person and as a script meet it: what it prints on which stream, and how it ends.

#![forbid(unsafe_code)]

mod bad_input;
mod bench;
mod commands;
mod configuration;
mod damage;
mod derive;
#[path = "../../../engine/tests/engine/guests.rs"]
mod guests;
mod help;
mod lifecycle;
mod log;
mod metrics;
mod place;
mod project;
mod quick_start;
mod snapshot;
mod start;
mod transform;
mod transform_logs;
mod transform_test;
mod transform_test_derived;
