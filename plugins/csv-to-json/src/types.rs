//! Types of columns, and how a field is written as one.

use std::str::FromStr;

use millpond_guest::json;

use crate::rows::{Field, Rows};

/// What the fields of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// What each looks like.
    Infer,
    String,
    Number,
    Bool,
}

/// Types by the names of columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Types {
    named: Vec<(String, Type)>,
    others: Type,
}

impl FromStr for Types {
    type Err = String;

    fn from_str(text: &str) -> Result<Types, String> {
        let mut types = Types { named: Vec::new(), others: Type::Infer };
        for field in Rows::new(text.trim(), b',').next_row()?.unwrap_or_default() {
            let (name, ty) =
                field.text.rsplit_once(':').ok_or_else(|| format!("`{}` is no name and type, as in `zip:string`", field.text))?;
            let ty = match ty.trim() {
                "infer" => Type::Infer,
                "string" => Type::String,
                "number" => Type::Number,
                "bool" => Type::Bool,
                other => return Err(format!("a type is `infer`, `string`, `number` or `bool`, and not `{other}`")),
            };
            match name.trim() {
                "*" => types.others = ty,
                name => types.named.push((name.to_owned(), ty)),
            }
        }
        Ok(types)
    }
}

impl Types {
    pub(crate) fn of(&self, name: &str) -> Type {
        self.named.iter().rev().find(|(found, _)| found == name).map_or(self.others, |(_, ty)| *ty)
    }

    /// Refuses names that no column has, so that a misspelt one is not silently without effect.
    pub(crate) fn expect_only(&self, columns: &[&str]) -> Result<(), String> {
        match self.named.iter().find(|(name, _)| !columns.contains(&name.as_str())) {
            Some((name, _)) => {
                Err(format!("the setting `types` names `{name}`, and there is no such column; there are: {}", columns.join(", ")))
            }
            None => Ok(()),
        }
    }
}

impl Type {
    /// Appends a field as JSON, or says what it is not.
    pub(crate) fn put(self, out: &mut Vec<u8>, field: &Field<'_>) -> Result<(), &'static str> {
        let text = field.text.trim();
        match self {
            Type::Infer if !field.is_quoted && is_number(text) => out.extend_from_slice(text.as_bytes()),
            Type::Infer if !field.is_quoted && is_word(text, "true") => out.extend_from_slice(b"true"),
            Type::Infer if !field.is_quoted && is_word(text, "false") => out.extend_from_slice(b"false"),
            Type::Infer | Type::String => json::put_string(out, &field.text),
            // As it is written, so that no digit gets lost.
            Type::Number if is_number(text) => out.extend_from_slice(text.as_bytes()),
            Type::Number => {
                let number = text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or("number")?;
                out.extend_from_slice(number.to_string().as_bytes());
            }
            Type::Bool if text == "1" || is_word(text, "true") => out.extend_from_slice(b"true"),
            Type::Bool if text == "0" || is_word(text, "false") => out.extend_from_slice(b"false"),
            Type::Bool => return Err("bool"),
        }
        Ok(())
    }
}

fn is_word(text: &str, word: &str) -> bool {
    text.eq_ignore_ascii_case(word)
}

/// Whether it is a number as JSON writes it: `007`, `+1` and `.5` are none.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits) && exponent.is_none_or(digits)
}
