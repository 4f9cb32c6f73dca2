//! The admin door from outside: what a scraper, a probe and a stranger get.

#![forbid(unsafe_code)]

mod broker;
mod exposition;
mod limits;
mod metrics;
mod probes;
mod size;
