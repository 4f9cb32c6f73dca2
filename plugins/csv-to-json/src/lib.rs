//! Makes JSON objects of lines of CSV (RFC 4180), one record for each line.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `header` | `first-line` | the names of the columns, with commas between them; `first-line` takes them from the first line of each record |
//! | `delimiter` | `,` | what is between two fields: one character of ASCII, or `tab` |
//! | `types` | | types of columns by their names, `zip:string, temperature:number, ok:bool`; `*:string` is for all others |
//!
//! A column without a type gets the one that each field looks like: a number, `true` or `false`, else a text; in quotes it is a text. An empty field
//! without quotes is `null`. Key, headers and time of a record go to all that are made of it. Empty lines are passed over; a record
//! without any line is dropped. A record without a value is kept.
//!
//! A record fails if it is not UTF-8, if a quote is where none may be, if a line has more or fewer fields than there are names, and
//! if a field is not of the type that its column was given.

mod rows;
mod types;

use millpond_guest::{Output, Params, Record, Transform, json, transform};
use rows::{Field, Rows};
use types::{Type, Types};

/// The transform.
#[derive(Debug)]
pub struct CsvToJson {
    header: Header,
    delimiter: u8,
    types: Types,
    /// The object that is being written.
    object: Vec<u8>,
}

#[derive(Debug)]
enum Header {
    FirstLine,
    Given(Vec<Column>),
}

/// A column, ready to be written.
#[derive(Debug)]
struct Column {
    name: String,
    /// The name as a string of JSON, and the colon.
    json: Vec<u8>,
    ty: Type,
}

impl Transform for CsvToJson {
    fn new(params: &Params) -> Result<CsvToJson, String> {
        let [header, delimiter, types] = params.with_defaults([("header", "first-line"), ("delimiter", ","), ("types", "")])?;
        let delimiter = match delimiter.as_bytes() {
            b"tab" | b"\\t" => b'\t',
            [b'"' | b'\n' | b'\r'] => return Err("the setting `delimiter` can't be a quote or the end of a line".to_owned()),
            [one] if one.is_ascii() => *one,
            _ => return Err(format!("the setting `delimiter` is one character of ASCII, or `tab`, and not `{delimiter}`")),
        };
        let types: Types = types.parse().map_err(|error| format!("the setting `types` makes no sense: {error}"))?;
        let header = match header.as_str() {
            "first-line" => Header::FirstLine,
            names => {
                let wrong = |error| format!("the setting `header` makes no sense: {error}");
                let names = Rows::new(names, b',').next_row().map_err(wrong)?.unwrap_or_default();
                let columns = columns(&names, &types).map_err(wrong)?;
                types.expect_only(&columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>())?;
                Header::Given(columns)
            }
        };
        Ok(CsvToJson { header, delimiter, types, object: Vec::new() })
    }

    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
        let Some(value) = record.value() else {
            out.keep(record);
            return Ok(());
        };
        let text = std::str::from_utf8(value).map_err(|error| format!("the value is not UTF-8 from byte {} on", error.valid_up_to()))?;
        let mut rows = Rows::new(text.strip_prefix('\u{feff}').unwrap_or(text), self.delimiter);
        let from_value;
        let columns = match &self.header {
            Header::Given(columns) => columns,
            Header::FirstLine => {
                let Some(names) = rows.next_row()? else { return Ok(()) };
                from_value = columns(&names, &self.types)?;
                &from_value
            }
        };
        while let Some(fields) = rows.next_row()? {
            self.object.clear();
            put_object(&mut self.object, columns, &fields).map_err(|error| format!("line {}: {error}", rows.line()))?;
            out.emit(&record.with_value(&self.object));
        }
        Ok(())
    }
}

fn columns(names: &[Field<'_>], types: &Types) -> Result<Vec<Column>, String> {
    let mut columns: Vec<Column> = Vec::with_capacity(names.len());
    for (number, Field { text, .. }) in (1..).zip(names) {
        let name = text.trim();
        if name.is_empty() {
            return Err(format!("column {number} has no name"));
        }
        if columns.iter().any(|column| column.name == name) {
            return Err(format!("two columns have the name `{name}`"));
        }
        if columns.len() == COLUMNS_MAX {
            return Err(format!("there are more than {COLUMNS_MAX} columns"));
        }
        let mut json = Vec::with_capacity(name.len() + 3);
        json::put_string(&mut json, name);
        json.push(b':');
        columns.push(Column { name: name.to_owned(), json, ty: types.of(name) });
    }
    Ok(columns)
}

fn put_object(object: &mut Vec<u8>, columns: &[Column], fields: &[Field<'_>]) -> Result<(), String> {
    if fields.len() != columns.len() {
        return Err(format!("it has {} fields, and there are {} columns", fields.len(), columns.len()));
    }
    object.push(b'{');
    for (index, (column, field)) in columns.iter().zip(fields).enumerate() {
        if index > 0 {
            object.push(b',');
        }
        object.extend_from_slice(&column.json);
        if field.text.is_empty() && !field.is_quoted {
            object.extend_from_slice(b"null");
            continue;
        }
        column.ty.put(object, field).map_err(|what| format!("`{}` is no {what}: {}", column.name, shown(&field.text)))?;
    }
    object.push(b'}');
    Ok(())
}

fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]
}

/// The most columns: names are compared with each other.
const COLUMNS_MAX: usize = 1024;

/// How much of a field an error shows.
const SHOWN_BYTES_MAX: usize = 40;

transform!(CsvToJson);

#[cfg(test)]
mod tests;
