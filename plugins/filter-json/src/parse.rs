//! Reads conditions; the grammar is in `condition.rs`. What is nested ends at a depth, so no condition overflows the stack.

use std::str::FromStr;

use millpond_guest::json::Path;

use crate::condition::{Condition, Literal, Side, Test};

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        if text.len() > CONDITION_BYTES_MAX {
            return Err(format!("it has {} bytes, the limit is {CONDITION_BYTES_MAX}", text.len()));
        }
        let mut parser = Parser { rest: text.trim(), depth: 0 };
        let condition = parser.any()?;
        if parser.rest.is_empty() { Ok(condition) } else { Err(parser.missing("`and`, `or` or the end")) }
    }
}

struct Parser<'a> {
    /// What is not read yet, without space before it.
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Condition, String> {
        let first = self.all()?;
        let mut conditions = vec![first];
        while self.word("or") {
            conditions.push(self.all()?);
        }
        Ok(one_or(conditions, Condition::Any))
    }

    fn all(&mut self) -> Result<Condition, String> {
        let first = self.one()?;
        let mut conditions = vec![first];
        while self.word("and") {
            conditions.push(self.one()?);
        }
        Ok(one_or(conditions, Condition::All))
    }

    fn one(&mut self) -> Result<Condition, String> {
        if self.word("not") {
            return self.deeper(|parser| parser.one().map(|condition| Condition::Not(Box::new(condition))));
        }
        if !self.symbol("(") {
            return self.test();
        }
        self.deeper(|parser| {
            let condition = parser.any()?;
            if parser.symbol(")") { Ok(condition) } else { Err(parser.missing("`)`")) }
        })
    }

    fn deeper(&mut self, inner: impl FnOnce(&mut Self) -> Result<Condition, String>) -> Result<Condition, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("parentheses and `not` are more than {DEPTH_MAX} deep within each other"));
        }
        let condition = inner(self)?;
        self.depth -= 1;
        Ok(condition)
    }

    fn test(&mut self) -> Result<Condition, String> {
        let (path, rest) = Path::take_front(self.rest)?;
        self.go_on(rest);
        if self.word("exists") {
            return Ok(Condition::Field(path, Test::Exists));
        }
        if self.word("contains") {
            let text = self.text()?.ok_or_else(|| self.missing("a text in quotes"))?;
            return Ok(Condition::Field(path, Test::Contains(text)));
        }
        if self.word("in") {
            return Ok(Condition::Field(path, Test::OneOf(self.list()?)));
        }
        if self.symbol("!=") {
            let equal = Condition::Field(path, Test::OneOf(vec![self.literal()?]));
            return Ok(Condition::Not(Box::new(equal)));
        }
        if self.symbol("==") || self.symbol("=") {
            return Ok(Condition::Field(path, Test::OneOf(vec![self.literal()?])));
        }
        let Some((symbol, side)) = SIDES.into_iter().find(|(symbol, _)| self.symbol(symbol)) else {
            return Err(format!("a comparison is missing after `{path}`: one of =, !=, <, <=, >, >=, in, contains, exists"));
        };
        match self.literal()? {
            Literal::Word(word) => Err(format!("`{symbol}` can't compare with `{word}`, only with a number or a text")),
            literal => Ok(Condition::Field(path, Test::Ordered(side, literal))),
        }
    }

    fn list(&mut self) -> Result<Vec<Literal>, String> {
        if !self.symbol("(") {
            return Err(self.missing("`(`"));
        }
        let mut literals = vec![self.literal()?];
        while !self.symbol(")") {
            if !self.symbol(",") {
                return Err(self.missing("`,` or `)`"));
            }
            literals.push(self.literal()?);
        }
        Ok(literals)
    }

    fn literal(&mut self) -> Result<Literal, String> {
        if let Some(text) = self.text()? {
            return Ok(Literal::Text(text));
        }
        if let Some(word) = ["true", "false", "null"].into_iter().find(|word| self.word(word)) {
            return Ok(Literal::Word(word));
        }
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        if !number.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
            return Err(self.missing("a number, a text in quotes, true, false or null"));
        }
        match number.parse::<f64>() {
            Ok(found) if found.is_finite() => {
                self.go_on(rest);
                Ok(Literal::Number(found))
            }
            _ => Err(format!("`{number}` is no number")),
        }
    }

    /// A text in quotes of either kind, which it can't have inside of it.
    fn text(&mut self) -> Result<Option<String>, String> {
        let Some(quote) = self.rest.chars().next().filter(|first| matches!(first, '"' | '\'')) else { return Ok(None) };
        let Some((text, rest)) = self.rest[1..].split_once(quote) else {
            return Err(format!("the text that begins with `{}` has no end", shown(self.rest)));
        };
        self.go_on(rest);
        Ok(Some(text.to_owned()))
    }

    /// A word in letters of either case, and not the start of a longer one.
    fn word(&mut self, word: &str) -> bool {
        let Some((found, rest)) = self.rest.split_at_checked(word.len()) else { return false };
        let is_it =
            found.eq_ignore_ascii_case(word) && !rest.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '['));
        if is_it {
            self.go_on(rest);
        }
        is_it
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(symbol) else { return false };
        self.go_on(rest);
        true
    }

    fn go_on(&mut self, rest: &'a str) {
        self.rest = rest.trim_start();
    }

    fn missing(&self, what: &str) -> String {
        match self.rest {
            "" => format!("{what} is missing at the end"),
            rest => format!("{what} is missing before `{}`", shown(rest)),
        }
    }
}

/// The only one, or all of them together.
fn one_or(mut conditions: Vec<Condition>, together: fn(Vec<Condition>) -> Condition) -> Condition {
    match conditions.pop() {
        Some(only) if conditions.is_empty() => only,
        last => {
            conditions.extend(last);
            together(conditions)
        }
    }
}

fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]
}

/// The longer symbols first.
const SIDES: [(&str, Side); 4] = [("<=", Side::LessOrEqual), (">=", Side::GreaterOrEqual), ("<", Side::Less), (">", Side::Greater)];

/// How deep parentheses and `not` may be within each other.
const DEPTH_MAX: usize = 32;

/// The longest condition.
const CONDITION_BYTES_MAX: usize = 4096;

/// How much of a condition an error shows.
const SHOWN_BYTES_MAX: usize = 40;
