//! The client against a broker in memory whose faults are scripted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod connect;
mod consume;
mod produce;
mod produce_faults;
mod produce_once;
mod produce_stop;
mod send;
mod support;
