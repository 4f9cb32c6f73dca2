//! Conditions on the fields of a JSON object.
//!
//! ```text
//!  condition = both { "or" both }
//!  both      = one { "and" one }
//!  one       = "not" one | "(" condition ")" | test
//!  test      = path ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) literal
//!            | path "in" "(" literal { "," literal } ")"
//!            | path "contains" text
//!            | path "exists"
//!  literal   = number | text | "true" | "false" | "null"
//!  text      = '"' characters '"' | "'" characters "'"
//!  path      = see millpond_guest::json::Path; `$.not` is a field of the name `not`
//! ```
//!
//! A comparison holds if it holds for any of the fields that its path leads to, so without such a field it does not; `a != b` means
//! `not a = b`, as in RFC 9535, so without such a field it does. A number is compared with numbers only, by value, and a text with texts, by
//! its code points: a field of another kind is never equal, less or greater. `contains` looks for a text in a text.

use std::cmp::Ordering;

use millpond_guest::json::{Field, Object, Path};

/// A condition, read and checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// All of them hold.
    All(Vec<Condition>),
    /// One of them holds, or several.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
    /// A field is there that passes the test.
    Field(Path, Test),
}

/// What is asked of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// That it is there.
    Exists,
    /// That it is one of these.
    OneOf(Vec<Literal>),
    /// That it lies on one side of this number or text, or is equal.
    Ordered(Side, Literal),
    /// That this text is part of it.
    Contains(String),
}

/// Where a field lies beside a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// `true`, `false` or `null`.
    Word(&'static str),
}

impl Condition {
    /// Whether it holds for an object. Nothing is allocated but for texts with escapes. The parser bounds how deep conditions nest.
    pub fn holds(&self, object: &Object<'_>) -> bool {
        match self {
            Condition::All(conditions) => conditions.iter().all(|condition| condition.holds(object)),
            Condition::Any(conditions) => conditions.iter().any(|condition| condition.holds(object)),
            Condition::Not(condition) => !condition.holds(object),
            Condition::Field(path, test) => {
                let mut passes = false;
                object.each(path, |field| passes = passes || test.passes(&field));
                passes
            }
        }
    }
}

impl Test {
    fn passes(&self, field: &Field<'_>) -> bool {
        match self {
            Test::Exists => true,
            Test::OneOf(literals) => literals.iter().any(|literal| literal.is(field)),
            Test::Ordered(side, literal) => literal.order(field).is_some_and(|order| side.has(order)),
            Test::Contains(text) => field.string().is_some_and(|found| found.contains(text)),
        }
    }
}

impl Side {
    fn has(self, order: Ordering) -> bool {
        match self {
            Side::Less => order.is_lt(),
            Side::LessOrEqual => order.is_le(),
            Side::Greater => order.is_gt(),
            Side::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Literal {
    fn is(&self, field: &Field<'_>) -> bool {
        match self {
            Literal::Number(_) => self.order(field) == Some(Ordering::Equal),
            Literal::Text(text) => field.is_string() && field.is(text),
            Literal::Word(word) => field.text() == *word,
        }
    }

    /// How a field lies beside it; none if they are of different kinds.
    fn order(&self, field: &Field<'_>) -> Option<Ordering> {
        match self {
            Literal::Number(number) => field.number()?.partial_cmp(number),
            Literal::Text(text) => Some(field.string()?.as_ref().cmp(text)),
            Literal::Word(_) => None,
        }
    }
}
