//! Batches through the Arrow C data interface (<https://arrow.apache.org/docs/format/CDataInterface.html>), as the two capsules of
//! `__arrow_c_array__` (the interface of Arrow by capsules). No Arrow library is needed to make them.
//!
//! ```text
//!  struct
//!   |-- partition  int32
//!   |-- offset     int64
//!   |-- timestamp  timestamp[ms, UTC]
//!   |-- key        large_binary, nullable
//!   |-- value      large_binary, nullable
//!   '-- headers    list<struct<name: utf8, value: large_binary, nullable>>
//! ```
//!
//! The structs below have the layout that the interface gives. Whoever takes a capsule's content sets its `release` to null and calls
//! it later; what nobody takes is released with the capsule.

#![expect(unsafe_code, reason = "the C data interface is pointers; each use says why it holds")]

use millpond_bridge::Records;
use pyo3::{prelude::*, types::PyCapsule};
use std::{
    ffi::{CStr, c_char, c_void},
    ptr::{null, null_mut},
};

#[repr(C)]
struct ArrowSchema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *mut *mut ArrowSchema,
    dictionary: *mut ArrowSchema,
    release: Option<unsafe extern "C" fn(*mut ArrowSchema)>,
    private_data: *mut c_void,
}

#[repr(C)]
struct ArrowArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *const *const c_void,
    children: *mut *mut ArrowArray,
    dictionary: *mut ArrowArray,
    release: Option<unsafe extern "C" fn(*mut ArrowArray)>,
    private_data: *mut c_void,
}

// SAFETY: both own all that they point at, and nothing of it is bound to a thread.
unsafe impl Send for ArrowSchema {}
// SAFETY: as above.
unsafe impl Send for ArrowArray {}

impl Drop for ArrowSchema {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: `release` is set only as long as the content was not taken, and is called once: it sets itself to null.
            unsafe { release(self) }
        }
    }
}

impl Drop for ArrowArray {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: as for the schema.
            unsafe { release(self) }
        }
    }
}

/// What a schema points at.
struct SchemaOwner {
    children: Vec<*mut ArrowSchema>,
}

/// What an array points at.
struct ArrayOwner {
    _buffers: Vec<Buffer>,
    pointers: Vec<*const c_void>,
    children: Vec<*mut ArrowArray>,
}

/// A buffer, aligned for what is in it.
enum Buffer {
    I64(Vec<i64>),
    I32(Vec<i32>),
    Bytes(Vec<u8>),
    /// A validity bitmap of which all bits are set.
    AllValid,
}

impl Buffer {
    fn pointer(&self) -> *const c_void {
        match self {
            Buffer::I64(items) => items.as_ptr().cast(),
            Buffer::I32(items) => items.as_ptr().cast(),
            Buffer::Bytes(items) => items.as_ptr().cast(),
            Buffer::AllValid => null(),
        }
    }
}

/// `ARROW_FLAG_NULLABLE`.
const NULLABLE: i64 = 2;

fn schema(format: &'static CStr, name: &'static CStr, flags: i64, children: Vec<ArrowSchema>) -> ArrowSchema {
    let children = children.into_iter().map(|child| Box::into_raw(Box::new(child))).collect();
    let owner = Box::into_raw(Box::new(SchemaOwner { children }));
    // SAFETY: it was made a line above, and lives until `release_schema`.
    let children = unsafe { &mut (*owner).children };
    ArrowSchema {
        format: format.as_ptr(),
        name: name.as_ptr(),
        metadata: null(),
        flags,
        n_children: count(children.len()),
        children: children.as_mut_ptr(),
        dictionary: null_mut(),
        release: Some(release_schema),
        private_data: owner.cast(),
    }
}

fn array(length: usize, null_count: i64, buffers: Vec<Buffer>, children: Vec<ArrowArray>) -> ArrowArray {
    let children = children.into_iter().map(|child| Box::into_raw(Box::new(child))).collect();
    let pointers = buffers.iter().map(Buffer::pointer).collect();
    let owner = Box::into_raw(Box::new(ArrayOwner { _buffers: buffers, pointers, children }));
    // SAFETY: it was made a line above, and lives until `release_array`.
    let ArrayOwner { pointers, children, .. } = unsafe { &mut *owner };
    ArrowArray {
        length: count(length),
        null_count,
        offset: 0,
        n_buffers: count(pointers.len()),
        n_children: count(children.len()),
        buffers: pointers.as_ptr(),
        children: children.as_mut_ptr(),
        dictionary: null_mut(),
        release: Some(release_array),
        private_data: owner.cast(),
    }
}

unsafe extern "C" fn release_schema(schema: *mut ArrowSchema) {
    // SAFETY: the interface calls this once, with the struct that `schema` made, or a bitwise copy of it: `private_data` is the box from there.
    // A child that was taken has no `release` any more, and dropping it does nothing.
    unsafe {
        let owner = Box::from_raw((*schema).private_data.cast::<SchemaOwner>());
        for child in owner.children {
            drop(Box::from_raw(child));
        }
        (*schema).release = None;
    }
}

unsafe extern "C" fn release_array(array: *mut ArrowArray) {
    // SAFETY: as in `release_schema`.
    unsafe {
        let owner = Box::from_raw((*array).private_data.cast::<ArrayOwner>());
        for child in &owner.children {
            drop(Box::from_raw(*child));
        }
        (*array).release = None;
    }
}

/// The schema and the array of some records.
pub(crate) fn export(py: Python<'_>, parts: &[Records]) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
    let array = py.detach(|| batch_array(parts));
    let schema = PyCapsule::new_with_value(py, batch_schema(), c"arrow_schema")?;
    let array = PyCapsule::new_with_value(py, array, c"arrow_array")?;
    Ok((schema.into_any().unbind(), array.into_any().unbind()))
}

fn batch_schema() -> ArrowSchema {
    let entry = vec![schema(c"u", c"name", 0, Vec::new()), schema(c"Z", c"value", NULLABLE, Vec::new())];
    let columns = vec![
        schema(c"i", c"partition", 0, Vec::new()),
        schema(c"l", c"offset", 0, Vec::new()),
        schema(c"tsm:UTC", c"timestamp", 0, Vec::new()),
        schema(c"Z", c"key", NULLABLE, Vec::new()),
        schema(c"Z", c"value", NULLABLE, Vec::new()),
        schema(c"+l", c"headers", 0, vec![schema(c"+s", c"item", 0, entry)]),
    ];
    schema(c"+s", c"", 0, columns)
}

fn batch_array(parts: &[Records]) -> ArrowArray {
    let rows = parts.iter().map(Records::len).sum();
    let each = || parts.iter().flat_map(|records| (0..records.len()).map(move |index| (records, index)));
    let partitions = each().map(|(records, _)| i32::try_from(records.partition()).unwrap_or(i32::MAX)).collect();
    let offsets = parts.iter().flat_map(|records| records.offsets().iter().copied()).collect();
    let timestamps = parts.iter().flat_map(|records| records.timestamps_ms().iter().copied()).collect();
    let columns = vec![
        array(rows, 0, vec![Buffer::AllValid, Buffer::I32(partitions)], Vec::new()),
        array(rows, 0, vec![Buffer::AllValid, Buffer::I64(offsets)], Vec::new()),
        array(rows, 0, vec![Buffer::AllValid, Buffer::I64(timestamps)], Vec::new()),
        binary(each().map(|(records, index)| records.key(index))),
        binary(each().map(|(records, index)| records.value(index))),
        headers(each().map(|(records, index)| records.headers(index))),
    ];
    array(rows, 0, vec![Buffer::AllValid], columns)
}

/// A column of `large_binary`.
fn binary<'a>(items: impl Iterator<Item = Option<&'a [u8]>>) -> ArrowArray {
    let (mut ends, mut bytes, mut valid, mut nulls, mut length) = (vec![0_i64], Vec::new(), Vec::new(), 0, 0_usize);
    for item in items {
        if length.is_multiple_of(8) {
            valid.push(0_u8);
        }
        match item {
            Some(item) => {
                bytes.extend_from_slice(item);
                valid[length / 8] |= 1 << (length % 8);
            }
            None => nulls += 1,
        }
        ends.push(count(bytes.len()));
        length += 1;
    }
    let valid = if nulls == 0 { Buffer::AllValid } else { Buffer::Bytes(valid) };
    array(length, nulls, vec![valid, Buffer::I64(ends), Buffer::Bytes(bytes)], Vec::new())
}

/// The column of headers. A batch has far less than 2 GiB of them.
fn headers<'a>(rows: impl Iterator<Item = impl Iterator<Item = (&'a str, Option<&'a [u8]>)>>) -> ArrowArray {
    let (mut ends, mut names, mut name_ends, mut values) = (vec![0_i32], Vec::new(), vec![0_i32], Vec::new());
    for row in rows {
        for (name, value) in row {
            names.extend_from_slice(name.as_bytes());
            name_ends.push(i32::try_from(names.len()).unwrap_or(i32::MAX));
            values.push(value);
        }
        ends.push(i32::try_from(values.len()).unwrap_or(i32::MAX));
    }
    let (rows, entries) = (ends.len() - 1, values.len());
    let names = array(entries, 0, vec![Buffer::AllValid, Buffer::I32(name_ends), Buffer::Bytes(names)], Vec::new());
    let entry = array(entries, 0, vec![Buffer::AllValid], vec![names, binary(values.into_iter())]);
    array(rows, 0, vec![Buffer::AllValid, Buffer::I32(ends)], vec![entry])
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
