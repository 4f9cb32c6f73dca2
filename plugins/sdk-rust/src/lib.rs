//! Write modules that run inside the Millpond broker: transforms, which change records before they are stored, partitioners, which
//! place them, and modules that derive topics from others.
//!
//! A whole filter:
//!
//! ```
//! use millpond_guest::{Record, filter};
//!
//! fn has_value(record: &Record<'_>) -> bool {
//!     record.value().is_some()
//! }
//!
//! filter!(has_value);
//! ```
//!
//! A transform with settings:
//!
//! ```
//! use millpond_guest::{Output, Params, Record, Transform, transform};
//!
//! struct Cut {
//!     bytes_max: usize,
//! }
//!
//! impl Transform for Cut {
//!     fn new(params: &Params) -> Result<Cut, String> {
//!         Ok(Cut { bytes_max: params.parse("bytes_max", 1024)? })
//!     }
//!
//!     fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
//!         match record.value() {
//!             Some(value) if value.len() > self.bytes_max => out.emit(&record.with_value(&value[..self.bytes_max])),
//!             _ => out.keep(record),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! transform!(Cut);
//! ```
//!
//! A module that makes records of several topics from those of one, and remembers something ([`state`]):
//!
//! ```
//! use millpond_guest::{Derive, Outputs, Params, Record, Target, derive, state};
//!
//! /// Numbers the records of each key; every thousandth goes to the second topic.
//! struct Count;
//!
//! impl Derive for Count {
//!     fn new(_: &Params, targets: &[Target]) -> Result<Count, String> {
//!         if targets.len() == 2 { Ok(Count) } else { Err("name two topics".to_owned()) }
//!     }
//!
//!     fn derive(&mut self, record: &Record<'_>, out: &mut Outputs) -> Result<(), String> {
//!         let key = record.key().unwrap_or_default();
//!         let count = state::get_u64(key) + 1;
//!         state::put_u64(key, count)?;
//!         out.emit(usize::from(count % 1000 == 0), &record.with_value(count.to_string().as_bytes()));
//!         Ok(())
//!     }
//! }
//!
//! derive!(Count);
//! ```
//!
//! The crate has `crate-type = ["cdylib"]`, and is built by `cargo build --release --target wasm32-unknown-unknown`. `cargo test` tests it
//! on your machine, see [`testing`].
//!
//! # What a guest can rely on
//!
//! The broker has checked the records that it hands over. Each instance of a module sees its batches one after another, but there may be
//! several instances, and each may be replaced at any time by a fresh one: what a guest remembers between batches is a cache at most, but for
//! its [`state`].
//! There is no clock, no random number, no file and no network. Memory, time, output and log lines are limited.
//! A panic ends up in the broker's log and in the error that the producer gets.

mod bindings;
mod derive;
pub mod json;
pub mod log;
mod output;
mod params;
mod place;
mod record;
mod run;
pub mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod varint;

pub use bindings::{Batch, Failure, SourceBatch, Target};
pub use derive::{Derive, Outputs};
pub use output::Output;
pub use params::Params;
pub use place::partition_of;
pub use record::{Change, Headers, Record};
pub use run::{Partition, Transform};

/// The contract as it is: functions over the bytes of a batch. For guests that do without records, and for tests of the broker.
pub mod raw {
    pub use crate::bindings::{derive, partitioner, transform};
}

/// Exports a type that implements [`Transform`] as the module's transform. Once in a crate.
#[macro_export]
macro_rules! transform {
    ($guest:ty) => {
        const _: fn(&$crate::Params) -> ::core::result::Result<$guest, ::std::string::String> = <$guest as $crate::Transform>::new;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static GUEST: $crate::__private::Slot<$guest> = const { $crate::__private::Slot::new() };
            }

            struct Export;

            impl $crate::raw::transform::Guest for Export {
                fn init(params: $crate::__private::WireParams) -> ::core::result::Result<(), ::std::string::String> {
                    GUEST.with(|guest| guest.start(params, <$guest as $crate::Transform>::new))
                }

                fn transform(
                    batch: $crate::Batch,
                    records: ::std::vec::Vec<u8>,
                ) -> ::core::result::Result<::std::vec::Vec<u8>, $crate::Failure> {
                    GUEST.with(|guest| guest.call(|guest| $crate::__private::transform(guest, &batch, records)))
                }
            }

    $crate::raw::transform::export_transform!(Export with_types_in $crate::raw::transform);
        };
    };
}

/// Exports a function `fn(&Record<'_>) -> bool` as a transform that keeps the records for which it is true. Once in a crate.
#[macro_export]
macro_rules! filter {
    ($keep:path) => {
        struct MillpondFilter;

        impl $crate::Transform for MillpondFilter {
            fn new(params: &$crate::Params) -> ::core::result::Result<Self, ::std::string::String> {
                params.expect_only(&[])?;
                Ok(MillpondFilter)
            }

            fn transform(
                &mut self,
                record: &$crate::Record<'_>,
                out: &mut $crate::Output<'_>,
            ) -> ::core::result::Result<(), ::std::string::String> {
                if $keep(record) {
                    out.keep(record);
                }
                Ok(())
            }
        }

        $crate::transform!(MillpondFilter);
    };
}

/// Exports a type that implements [`Partition`] as the module's partitioner. Once in a crate.
#[macro_export]
macro_rules! partitioner {
    ($guest:ty) => {
        const _: fn(&$crate::Params) -> ::core::result::Result<$guest, ::std::string::String> = <$guest as $crate::Partition>::new;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static GUEST: $crate::__private::Slot<$guest> = const { $crate::__private::Slot::new() };
            }

            struct Export;

            impl $crate::raw::partitioner::Guest for Export {
                fn init(params: $crate::__private::WireParams) -> ::core::result::Result<(), ::std::string::String> {
                    GUEST.with(|guest| guest.start(params, <$guest as $crate::Partition>::new))
                }

                fn partition(
                    batch: $crate::Batch,
                    records: ::std::vec::Vec<u8>,
                    partition_count: u32,
                ) -> ::core::result::Result<::std::vec::Vec<u32>, $crate::Failure> {
                    GUEST.with(|guest| guest.call(|guest| $crate::__private::partition(guest, &batch, &records, partition_count)))
                }
            }

    $crate::raw::partitioner::export_partitioner!(Export with_types_in $crate::raw::partitioner);
        };
    };
}

/// Exports a type that implements [`Derive`] as a module that derives topics. Once in a crate.
#[macro_export]
macro_rules! derive {
    ($guest:ty) => {
        const _: fn(&$crate::Params, &[$crate::Target]) -> ::core::result::Result<$guest, ::std::string::String> =
            <$guest as $crate::Derive>::new;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static GUEST: $crate::__private::Slot<($guest, usize)> = const { $crate::__private::Slot::new() };
            }

            struct Export;

            impl $crate::raw::derive::Guest for Export {
                fn init(
                    params: $crate::__private::WireParams,
                    targets: ::std::vec::Vec<$crate::Target>,
                ) -> ::core::result::Result<(), ::std::string::String> {
                    let new = |params: &$crate::Params| Ok((<$guest as $crate::Derive>::new(params, &targets)?, targets.len()));
                    GUEST.with(|guest| guest.start(params, new))
                }

                fn derive(
                    batch: $crate::SourceBatch,
                    records: ::std::vec::Vec<u8>,
                ) -> ::core::result::Result<::std::vec::Vec<(u32, ::std::vec::Vec<u8>)>, $crate::Failure> {
                    GUEST.with(|guest| guest.call(|(guest, targets)| $crate::__private::derive(guest, *targets, &batch, &records)))
                }
            }

    $crate::raw::derive::export_derive!(Export with_types_in $crate::raw::derive);
        };
    };
}

/// What the macros expand to. No part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::WireParams;
    pub use crate::derive::derive;
    pub use crate::run::{Slot, partition, transform};
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeOfThePlugins;
