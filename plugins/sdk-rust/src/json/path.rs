//! Ways to fields inside of fields: a part of `JSONPath` (RFC 9535).
//!
//! ```text
//!  state   $.state          a field of the outermost object; `$.` may be left out
//!  gps.lat $.gps["lat"]     a field of a field; a name with other characters than letters, digits, `_` and `-` goes into quotes
//!  tags[0]                  an item of an array, counted from 0
//!  users[*].email users.*   all items of an array, or all fields of an object
//! ```
//!
//! The text was held against the whole grammar when the object was read, so here values are passed over without a second look, and nothing is
//! allocated.

use std::fmt;
use std::str::FromStr;

use super::quotes::{Careful, Way};
use super::text::Quoted;
use super::{Field, Object};

/// A way to a field, or to several where it has `*` in it or a name is there more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// As it was written.
    text: String,
    /// The name in the outermost object.
    first: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
    Each,
}

impl Path {
    /// Takes a path from the start of a text, and gives what is behind it.
    ///
    /// # Errors
    ///
    /// Says what is missing, and where.
    pub fn take_front(text: &str) -> Result<(Path, &str), String> {
        let (first, mut rest) = match text.strip_prefix('$') {
            Some(rest) => match step(rest)? {
                Some((Step::Field(first), rest)) => (first, rest),
                _ => return Err(format!("a path begins with the name of a field, as in `$.state`, and `{}` does not", shown(text))),
            },
            None => name(text)?,
        };
        let mut steps = Vec::new();
        while let Some((step, behind)) = step(rest)? {
            if steps.len() == STEPS_MAX {
                return Err(format!("a path has at most {STEPS_MAX} steps behind the first, and `{}` has more", shown(text)));
            }
            steps.push(step);
            rest = behind;
        }
        let written = &text[..text.len() - rest.len()];
        Ok((Path { text: written.to_owned(), first, steps }, rest))
    }

    /// Paths with commas between them, as settings have them; none of an empty text.
    ///
    /// ```
    /// # use millpond_guest::json::Path;
    /// let paths = Path::list(r#"name, contact.email, cars[*]["plate, front"]"#)?;
    /// assert_eq!(paths.len(), 3);
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Says what is wrong with the first that is none.
    pub fn list(text: &str) -> Result<Vec<Path>, String> {
        let mut paths = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (path, behind) = Path::take_front(rest)?;
            paths.push(path);
            let behind = behind.trim_start();
            rest = match behind.strip_prefix(',') {
                Some(behind) if !behind.trim().is_empty() => behind.trim_start(),
                Some(_) => return Err("there is no path behind the last comma".to_owned()),
                None if behind.is_empty() => behind,
                None => return Err(format!("a comma is missing before `{}`", shown(behind))),
            };
        }
        Ok(paths)
    }
}

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Path, String> {
        match Path::take_front(text.trim())? {
            (path, "") => Ok(path),
            (path, rest) => Err(format!("`{}` can't be behind `{path}`", shown(rest))),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'a> Object<'a> {
    /// The field that a path leads to; the last one, if there are several.
    pub fn at(&self, path: &Path) -> Option<Field<'a>> {
        if path.steps.is_empty() {
            return self.get(&path.first);
        }
        let mut last = None;
        self.each(path, |field| last = Some(field));
        last
    }

    /// Shows all fields that a path leads to, in their order.
    pub fn each(&self, path: &Path, mut visit: impl FnMut(Field<'a>)) {
        for field in self.all(&path.first) {
            descend(field, &path.steps, &mut visit);
        }
    }
}

/// Recursion ends with the steps, of which there are [`STEPS_MAX`] at most.
fn descend<'a>(field: Field<'a>, steps: &[Step], visit: &mut dyn FnMut(Field<'a>)) {
    let Some((step, steps)) = steps.split_first() else { return visit(field) };
    for (index, (name, value)) in Inside::of(field).enumerate() {
        let is_on_the_way = match (step, name) {
            (Step::Field(wanted), Some(name)) => name.is(wanted),
            (Step::Item(wanted), None) => *wanted == index,
            (Step::Each, _) => true,
            _ => false,
        };
        if is_on_the_way {
            descend(value, steps, visit);
        }
    }
}

/// The fields of an object with their names, or the items of an array; nothing for anything else.
struct Inside<'a> {
    whole: Field<'a>,
    at: usize,
    has_names: bool,
}

impl<'a> Inside<'a> {
    fn of(whole: Field<'a>) -> Inside<'a> {
        let (at, has_names) = match whole.json.first() {
            Some(b'{') => (1, true),
            Some(b'[') => (1, false),
            _ => (whole.json.len(), false),
        };
        Inside { whole, at, has_names }
    }
}

impl<'a> Iterator for Inside<'a> {
    type Item = (Option<Quoted<'a>>, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (bytes, escapes) = (self.whole.json, self.whole.escapes);
        let mut at = Careful::space(bytes, self.at);
        if bytes.get(at) == Some(&b',') {
            at = Careful::space(bytes, at + 1);
        }
        let mut name = None;
        if self.has_names {
            let end = if bytes.get(at)? == &b'"' { string_end(bytes, at + 1)? } else { return None };
            name = Some(Quoted { written: &bytes[at + 1..end - 1], escapes });
            let colon = Careful::space(bytes, end);
            at = Careful::space(bytes, colon + 1);
        }
        let end = value_end(bytes, at)?;
        self.at = end;
        Some((name, Field { json: &bytes[at..end], start: self.whole.start + at, escapes }))
    }
}

/// Behind the value that begins here. `None` where none does.
fn value_end(bytes: &[u8], start: usize) -> Option<usize> {
    match bytes.get(start)? {
        b'"' => string_end(bytes, start + 1),
        b'{' | b'[' => {
            let (mut at, mut depth) = (start, 0_usize);
            loop {
                match bytes.get(at)? {
                    b'"' => at = string_end(bytes, at + 1)? - 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth == 1 => return Some(at + 1),
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
            }
        }
        _ => {
            let length = bytes[start..].iter().position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t'));
            length.filter(|length| *length > 0).map(|length| start + length)
        }
    }
}

/// Behind the closing quote.
fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// `.name`, `.*`, `["name"]`, `[0]` or `[*]` at the start of a text, if there is one.
fn step(text: &str) -> Result<Option<(Step, &str)>, String> {
    if let Some(rest) = text.strip_prefix('.') {
        return match rest.strip_prefix('*') {
            Some(rest) => Ok(Some((Step::Each, rest))),
            None => name(rest).map(|(name, rest)| Some((Step::Field(name), rest))),
        };
    }
    let Some(rest) = text.strip_prefix('[') else { return Ok(None) };
    let no_end = || format!("`{}` is not closed by `]`", shown(text));
    if let Some(quote) = rest.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        let (name, rest) = rest[1..].split_once(quote).ok_or_else(no_end)?;
        return Ok(Some((Step::Field(name.to_owned()), rest.strip_prefix(']').ok_or_else(no_end)?)));
    }
    let (inside, rest) = rest.split_once(']').ok_or_else(no_end)?;
    match inside.trim() {
        "*" => Ok(Some((Step::Each, rest))),
        digits => match digits.parse() {
            Ok(index) => Ok(Some((Step::Item(index), rest))),
            Err(_) => Err(format!("between `[` and `]` is a number from 0 on, `*`, or a name in quotes, and not `{}`", shown(inside))),
        },
    }
}

/// A name without quotes at the start of a text.
fn name(text: &str) -> Result<(String, &str), String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).unwrap_or(text.len());
    match text.split_at(end) {
        ("", "") => Err("the name of a field is missing at the end".to_owned()),
        ("", rest) => Err(format!("the name of a field is missing before `{}`", shown(rest))),
        (name, rest) => Ok((name.to_owned(), rest)),
    }
}

/// The start of a text, for an error.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]
}

/// The most steps that a path has behind its first name.
const STEPS_MAX: usize = 16;

/// How much of a setting an error shows.
const SHOWN_BYTES_MAX: usize = 40;
