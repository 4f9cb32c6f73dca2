//! The promises of the log, each with the damage that would break it.

mod append;
mod crash;
mod damage;
mod faults;
mod harness;
mod index_files;
mod model;
mod real_disk;
mod time;
