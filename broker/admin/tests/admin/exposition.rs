//! A reader of Prometheus' text format that takes nothing but what the format allows, and nothing that its guidelines advise against. Of a
//! histogram it takes the three kinds of series, whose names begin with that of the family.

use std::collections::{BTreeMap, BTreeSet};

/// What a scrape said: the value of each series, by its name and labels; all as they were written.
pub(crate) struct Scrape {
    series: BTreeMap<String, String>,
}

#[derive(Default)]
struct Family {
    name: String,
    kind: String,
}

impl Family {
    /// Whether a sample of this name is one of it.
    fn has(&self, name: &str) -> bool {
        match self.kind.as_str() {
            "" => false,
            "histogram" => name.strip_prefix(&self.name).is_some_and(|end| matches!(end, "_bucket" | "_sum" | "_count")),
            _ => name == self.name,
        }
    }
}

impl Scrape {
    /// Reads it line by line, and fails on the first that is not right.
    pub(crate) fn read(text: &str) -> Scrape {
        assert!(text.ends_with('\n') && !text.contains('\r'), "each line ends with a line feed");
        let (mut series, mut seen, mut family) = (BTreeMap::new(), BTreeSet::new(), Family::default());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(is_name(name, ":") && !help.is_empty(), "{line}");
                unescape(help, false);
                assert!(seen.insert(name.to_owned()), "a family is in one place: {line}");
                family = Family { name: name.to_owned(), kind: String::new() };
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert!(name == family.name && family.kind.is_empty(), "the type comes once, behind the help: {line}");
                assert!(matches!(kind, "gauge" | "counter" | "histogram"), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                kind.clone_into(&mut family.kind);
            } else {
                let (name, text) = sample(line);
                let value: f64 = text.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
                assert!(name.split('{').next().is_some_and(|name| family.has(name)), "a sample of another family: {line}");
                assert!(value.is_finite() && (value >= 0.0 || family.kind == "gauge"), "{line}");
                assert!(series.insert(name.to_owned(), text.to_owned()).is_none(), "the same series twice: {line}");
            }
        }
        Scrape { series }
    }

    /// The value of a series; both are written as in the text.
    pub(crate) fn value(&self, series: &str) -> &str {
        self.series.get(series).unwrap_or_else(|| panic!("{series} is not among {:#?}", self.series.keys()))
    }

    pub(crate) fn has(&self, series: &str) -> bool {
        self.series.contains_key(series)
    }

    /// How many series a family has.
    pub(crate) fn count(&self, family: &str) -> usize {
        self.series.keys().filter(|name| name.split('{').next() == Some(family)).count()
    }
}

/// The name with its labels, and the value.
fn sample(line: &str) -> (&str, &str) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("no end of the labels: {line}"))),
        None => (series, ""),
    };
    assert!(is_name(name, ":"), "{line}");
    let (mut rest, mut names) = (labels, BTreeSet::new());
    while !rest.is_empty() {
        let (label, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("no value of a label: {line}"));
        assert!(is_name(label, "") && !label.starts_with("__") && names.insert(label), "{line}");
        let end = end_of_value(value).unwrap_or_else(|| panic!("no end of a label's value: {line}"));
        unescape(&value[..end], true);
        rest = match &value[end + 1..] {
            "" => "",
            more => more.strip_prefix(',').filter(|more| !more.is_empty()).unwrap_or_else(|| panic!("no comma: {line}")),
        };
    }
    (series, value)
}

/// Where the quote is that ends the value.
fn end_of_value(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, character)| {
        let ends = character == '"' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        ends.then_some(at)
    })
}

fn is_name(name: &str, more: &str) -> bool {
    let first = name.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_' || more.contains(first));
    first && name.chars().all(|other| other.is_ascii_alphanumeric() || other == '_' || more.contains(other))
}

/// Fails on a backslash that escapes nothing.
fn unescape(text: &str, quotes: bool) {
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\\' {
            let escaped = characters.next();
            assert!(matches!(escaped, Some('\\' | 'n')) || (quotes && escaped == Some('"')), "{text}");
        }
    }
}

#[test]
fn what_the_format_does_not_allow_is_found() {
    let family = "# HELP a b\n# TYPE a gauge\n";
    assert!(Scrape::read(&format!("{family}a{{b=\"}}\\\" \\n,\",c=\"\"}} 1\n")).has("a{b=\"}\\\" \\n,\",c=\"\"}"));
    for wrong in [
        "a 1\n",
        "# HELP a b\na 1\n",
        "# HELP a b\n# TYPE a gauge\na 1",
        "# HELP a b\n# TYPE a gauge\n\n",
        "# HELP a b\n# TYPE a gauge\nb 1\n",
        "# HELP a b\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a b\n# TYPE a gauge\na one\n",
        "# HELP a b\n# TYPE a gauge\na{b=\"c} 1\n",
        "# HELP a b\n# TYPE a gauge\na{b=\"c\\d\"} 1\n",
        "# HELP a b\n# TYPE a gauge\na{b=\"c\",} 1\n",
        "# HELP a b\n# TYPE a gauge\na{b=\"c\",b=\"d\"} 1\n",
        "# HELP a b\n# TYPE a counter\na 1\n",
        "# HELP a b\n# TYPE a histogram\na 1\n",
        "# HELP a b\n# TYPE a gauge\na 1\n# HELP c d\n# TYPE c gauge\n# HELP a b\n",
    ] {
        assert!(std::panic::catch_unwind(|| Scrape::read(wrong)).is_err(), "{wrong:?}");
    }
}
