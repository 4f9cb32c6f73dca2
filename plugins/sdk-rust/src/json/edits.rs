//! A value with some of its fields written anew, in one copy.

use std::ops::Range;

use super::{Field, KEPT_BYTES_MAX};

/// Notes what is to stand where, and writes the value with it. It goes from one record to the next, so that its buffers are used again.
///
/// ```
/// use millpond_guest::json::{self, Edits, Path};
///
/// let value = br#"{"a": {"b": [1, 2]}, "c": 3}"#;
/// let mut edits = Edits::default();
/// json::object(value)?.each(&"a.b[*]".parse::<Path>()?, |field| edits.replace(&field, |out| out.extend_from_slice(b"null")));
/// assert_eq!(edits.apply(value), Some(&br#"{"a": {"b": [null, null]}, "c": 3}"#[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Edits {
    noted: Vec<Edit>,
    /// What is to stand in all places, one after the other.
    text: Vec<u8>,
    edited: Vec<u8>,
}

#[derive(Debug)]
struct Edit {
    /// In the value.
    place: Range<usize>,
    /// In the text of the edits.
    text: Range<usize>,
}

impl Edits {
    /// Forgets what was noted.
    pub fn clear(&mut self) {
        if self.noted.capacity() * size_of::<Edit>() + self.text.capacity() + self.edited.capacity() > KEPT_BYTES_MAX {
            *self = Edits::default();
        }
        self.noted.clear();
        self.text.clear();
    }

    /// Notes that something else is to stand in the place of a field; `write` appends it, a string with its quotes.
    pub fn replace(&mut self, field: &Field<'_>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        write(&mut self.text);
        self.noted.push(Edit { place: field.range(), text: start..self.text.len() });
    }

    /// The value with all that was noted, and everything else as it was; `None` if nothing was noted. Of a field that was noted twice the
    /// first note counts, and of a field inside of a field the outer one.
    pub fn apply(&mut self, value: &[u8]) -> Option<&[u8]> {
        if self.noted.is_empty() {
            return None;
        }
        // Stable, so the first note of a place comes first.
        self.noted.sort_by_key(|edit| edit.place.start);
        self.edited.clear();
        let mut copied = 0;
        for edit in &self.noted {
            // What lies in a place that is written already is part of it.
            let Some(before) = value.get(copied..edit.place.start) else { continue };
            self.edited.extend_from_slice(before);
            self.edited.extend_from_slice(&self.text[edit.text.clone()]);
            copied = edit.place.end;
        }
        self.edited.extend_from_slice(value.get(copied..)?);
        Some(&self.edited)
    }
}
