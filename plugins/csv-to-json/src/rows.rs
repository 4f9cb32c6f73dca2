//! Rows of CSV, as RFC 4180 has them. A line may end with CR LF or with LF alone, the last one without.

use std::borrow::Cow;

/// A field of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    /// Without the quotes around it, and with one for two of them inside.
    pub(crate) text: Cow<'a, str>,
    pub(crate) is_quoted: bool,
}

/// The rows of a text, one after another.
pub(crate) struct Rows<'a> {
    rest: &'a str,
    delimiter: u8,
    /// The number of the line that the last row began on, from 1.
    line: usize,
    lines_read: usize,
}

/// What comes behind a field.
enum Behind {
    Field,
    Row,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(text: &'a str, delimiter: u8) -> Rows<'a> {
        Rows { rest: text, delimiter, line: 0, lines_read: 0 }
    }

    /// The line that the last row began on, from 1. A row has several if there are line ends within quotes.
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    /// The fields of the next row that is not an empty line; none at the end.
    pub(crate) fn next_row(&mut self) -> Result<Option<Vec<Field<'a>>>, String> {
        while let Some(rest) = self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n')) {
            self.rest = rest;
            self.lines_read += 1;
        }
        self.line = self.lines_read + 1;
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut fields = Vec::new();
        loop {
            let field = if self.rest.starts_with('"') { self.quoted() } else { self.plain() };
            let (field, behind) = field.map_err(|error| format!("line {}, field {}: {error}", self.line, fields.len() + 1))?;
            fields.push(field);
            if let Behind::Row = behind {
                return Ok(Some(fields));
            }
        }
    }

    fn plain(&mut self) -> Result<(Field<'a>, Behind), String> {
        let delimiter = self.delimiter;
        let end = self.rest.bytes().position(|byte| byte == delimiter || byte == b'\n').unwrap_or(self.rest.len());
        let (mut text, rest) = self.rest.split_at(end);
        // The end of the line is two characters, and of the last line it may be half of them.
        if !rest.starts_with(char::from(delimiter)) {
            text = text.strip_suffix('\r').unwrap_or(text);
        }
        if text.contains('"') {
            return Err("a quote is in a field that does not begin with one".to_owned());
        }
        self.rest = rest;
        let behind = self.behind()?;
        Ok((Field { text: Cow::Borrowed(text), is_quoted: false }, behind))
    }

    fn quoted(&mut self) -> Result<(Field<'a>, Behind), String> {
        let mut text = Cow::Borrowed("");
        self.rest = &self.rest[1..];
        loop {
            let (part, rest) = self.rest.split_once('"').ok_or("its quote has no end")?;
            self.lines_read += part.bytes().filter(|byte| *byte == b'\n').count();
            match &mut text {
                Cow::Borrowed("") => text = Cow::Borrowed(part),
                text => text.to_mut().push_str(part),
            }
            let Some(rest) = rest.strip_prefix('"') else {
                self.rest = rest;
                break;
            };
            text.to_mut().push('"');
            self.rest = rest;
        }
        let behind = self.behind()?;
        Ok((Field { text, is_quoted: true }, behind))
    }

    /// Passes over what is behind a field.
    fn behind(&mut self) -> Result<Behind, String> {
        if let Some(rest) = self.rest.strip_prefix(char::from(self.delimiter)) {
            self.rest = rest;
            return Ok(Behind::Field);
        }
        let line = self.rest.strip_prefix('\r').filter(|rest| rest.is_empty() || rest.starts_with('\n')).unwrap_or(self.rest);
        match line.strip_prefix('\n') {
            Some(rest) => {
                self.rest = rest;
                self.lines_read += 1;
            }
            None if line.is_empty() => self.rest = line,
            None => {
                let found = line.chars().next().unwrap_or_default();
                return Err(format!("behind its closing quote is {found:?}, and neither a delimiter nor the end of the line"));
            }
        }
        Ok(Behind::Row)
    }
}
