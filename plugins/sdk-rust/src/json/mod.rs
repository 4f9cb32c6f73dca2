//! Looks at fields of JSON objects where they lie, and replaces them: no value is built, and nothing is allocated for each record.
//!
//! ```
//! use millpond_guest::json;
//!
//! let mut reading = json::object(br#"{"device": "pump-3", "host": "gw-7", "celsius": 21.5}"#)?;
//! assert!(reading.get("device").is_some_and(|device| device.is("pump-3")));
//! assert_eq!(reading.get("celsius").and_then(|celsius| celsius.number()), Some(21.5));
//! assert_eq!(reading.mask("host"), Some(&br#"{"device": "pump-3", "host": "***", "celsius": 21.5}"#[..]));
//! # Ok::<(), json::NotAnObject>(())
//! ```
//!
//! The bytes are held against the whole grammar of RFC 8259 before a field is shown, so a value that was cut short, or is followed by
//! something else, is no object. By their names the fields of the outermost object are found; a [`Path`] leads to those inside of them, and
//! [`Edits`] replaces several at once. The RFC allows a name to be there several times: [`Object::get`] gives the last, as most readers of
//! JSON do, [`Object::all`] gives all, and a replacement replaces all.

mod edits;
mod path;
mod quotes;
mod scan;
mod text;

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::ops::Range;

pub use edits::Edits;
pub use path::Path;
use scan::Escapes;
use text::Quoted;
pub use text::put_string;

/// Reads an object.
///
/// # Errors
///
/// [`NotAnObject`] if the bytes are anything else than one object from beginning to end.
pub fn object(value: &[u8]) -> Result<Object<'_>, NotAnObject> {
    let mut room = ROOM.take().unwrap_or_default();
    let escapes = scan::object(value, &mut room);
    // From here on the room goes back when the object is dropped, also if it is none.
    let object = Object { bytes: value, escapes: escapes.unwrap_or(Escapes::None), room: Some(room) };
    escapes.map(|_| object).ok_or(NotAnObject)
}

/// An object, and where its fields lie.
#[derive(Debug)]
pub struct Object<'a> {
    bytes: &'a [u8],
    escapes: Escapes,
    /// There until the object is dropped; then the next one gets it.
    room: Option<Box<Room>>,
}

impl<'a> Object<'a> {
    /// The field of this name; the last one, if there are several.
    pub fn get(&self, name: &str) -> Option<Field<'a>> {
        self.places(name).next_back().map(|place| self.field(place))
    }

    /// All fields of this name, in their order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = Field<'a>> {
        self.places(name).map(|place| self.field(place))
    }

    /// The object with another value for all fields of this name; `json` is how it is to be written, a string with its quotes. Everything
    /// else stays as it is, spaces too. `None` if there is no such field.
    pub fn replace(&mut self, name: &str, json: &str) -> Option<&[u8]> {
        let mut changed = std::mem::take(&mut self.room.as_mut()?.changed);
        changed.clear();
        let mut copied = 0;
        for place in self.places(name) {
            changed.extend_from_slice(&self.bytes[copied..place.value().start]);
            changed.extend_from_slice(json.as_bytes());
            copied = place.value().end;
        }
        if copied > 0 {
            changed.extend_from_slice(&self.bytes[copied..]);
        }
        let room = self.room.as_mut()?;
        room.changed = changed;
        (copied > 0).then_some(&room.changed)
    }

    /// The object with the text `***` for all fields of this name, whatever they were. `None` if there is no such field, or the name is
    /// empty: so a setting can say that nothing is to be masked.
    pub fn mask(&mut self, name: &str) -> Option<&[u8]> {
        if name.is_empty() { None } else { self.replace(name, MASK) }
    }

    fn places(&self, name: &str) -> impl DoubleEndedIterator<Item = &Place> {
        let places = self.room.as_ref().map_or(&[][..], |room| &room.fields);
        places.iter().filter(move |place| self.string_at(place.name()).is(name))
    }

    fn field(&self, place: &Place) -> Field<'a> {
        let Range { start, end } = place.value();
        Field { json: &self.bytes[start..end], start, escapes: self.escapes }
    }

    fn string_at(&self, place: Range<usize>) -> Quoted<'a> {
        Quoted { written: &self.bytes[place], escapes: self.escapes }
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        let spare = self.room.take().filter(|room| room.is_small());
        ROOM.set(spare);
    }
}

/// The value of a field, as it is written.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    /// UTF-8, as the object was.
    json: &'a [u8],
    start: usize,
    escapes: Escapes,
}

impl<'a> Field<'a> {
    /// As it is written, without the spaces around it: `"idle"` has its quotes.
    pub fn text(&self) -> &'a str {
        std::str::from_utf8(self.json).unwrap_or_default()
    }

    /// Where it is written, in bytes from the start of the value.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.json.len()
    }

    /// Its text if it is a string, with escapes resolved. `None` too for a string with half a surrogate pair, which is no text.
    pub fn string(&self) -> Option<Cow<'a, str>> {
        self.quoted()?.resolve()
    }

    /// Its value if it is a number; the nearest one that 64 bits can hold.
    pub fn number(&self) -> Option<f64> {
        match self.json.first()? {
            b'-' | b'0'..=b'9' => self.text().parse().ok(),
            _ => None,
        }
    }

    /// Whether it is a string.
    pub fn is_string(&self) -> bool {
        self.json.first() == Some(&b'"')
    }

    /// Whether it is this string, or a number, `true`, `false` or `null` that is written like this.
    pub fn is(&self, expected: &str) -> bool {
        match self.quoted() {
            Some(quoted) => quoted.is(expected),
            None => text::same(self.json, expected.as_bytes()),
        }
    }

    /// What is between the quotes of a string.
    fn quoted(&self) -> Option<Quoted<'a>> {
        match self.json {
            [b'"', written @ .., b'"'] => Some(Quoted { written, escapes: self.escapes }),
            _ => None,
        }
    }
}

/// The bytes are no JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnObject;

impl fmt::Display for NotAnObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a JSON object")
    }
}

impl std::error::Error for NotAnObject {}

/// Where a field lies, in bytes from the start of the object: its name without the quotes, and its value. A guest's memory ends at 4 GiB.
#[derive(Clone, Copy, Debug)]
struct Place {
    name: [u32; 2],
    value: [u32; 2],
}

impl Place {
    /// `None` if it lies too far behind the start.
    #[inline]
    fn new(name: Range<usize>, value: Range<usize>) -> Option<Place> {
        let near = |at: usize| u32::try_from(at).ok();
        Some(Place { name: [near(name.start)?, near(name.end)?], value: [near(value.start)?, near(value.end)?] })
    }

    fn name(&self) -> Range<usize> {
        self.name[0] as usize..self.name[1] as usize
    }

    fn value(&self) -> Range<usize> {
        self.value[0] as usize..self.value[1] as usize
    }
}

/// Buffers that go from one object to the next.
#[derive(Debug, Default)]
struct Room {
    fields: Vec<Place>,
    /// The brackets that are open while a value is passed over.
    nesting: Vec<u8>,
    /// Where the quotes are.
    quotes: Vec<u32>,
    /// What a replacement made.
    changed: Vec<u8>,
}

std::thread_local! {
    static ROOM: Cell<Option<Box<Room>>> = const { Cell::new(None) };
}

impl Room {
    fn is_small(&self) -> bool {
        let bytes = size_of::<Place>() * self.fields.capacity() + size_of::<u32>() * self.quotes.capacity();
        bytes + self.nesting.capacity() + self.changed.capacity() <= KEPT_BYTES_MAX
    }
}

/// How a masked value is written.
const MASK: &str = "\"***\"";

/// Buffers that one large record made larger than this are not kept for the next.
const KEPT_BYTES_MAX: usize = 256 * 1024;
