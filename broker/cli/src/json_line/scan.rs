//! Finds the parts of JSON that is known to be valid, and leaves their bytes as they are: numbers keep every digit and objects the
//! order of their fields, which no parsed form promises.

/// Name (with its quotes) and value of each field of an object; none if it is not an object.
pub(super) fn fields(json: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let inner = inside(json, b'{', b'}')?;
    let mut rest = inner.trim_ascii_start();
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (name, behind) = rest.split_at(value_length(rest));
        let behind = behind.trim_ascii_start().strip_prefix(b":").unwrap_or_default().trim_ascii_start();
        let (value, behind) = behind.split_at(value_length(behind));
        fields.push((name, value));
        rest = next(behind);
    }
    Some(fields)
}

/// The items of an array.
pub(super) fn items(json: &[u8]) -> Vec<&[u8]> {
    let mut rest = inside(json, b'[', b']').unwrap_or_default().trim_ascii_start();
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (value, behind) = rest.split_at(value_length(rest));
        items.push(value);
        rest = next(behind);
    }
    items
}

/// The same JSON without blanks between its parts.
pub(super) fn compact(json: &[u8]) -> Vec<u8> {
    let mut compact = Vec::with_capacity(json.len());
    let mut at = 0;
    while at < json.len() {
        if json[at] == b'"' {
            let end = at + string_length(&json[at..]);
            compact.extend_from_slice(&json[at..end]);
            at = end;
        } else {
            if !json[at].is_ascii_whitespace() {
                compact.push(json[at]);
            }
            at += 1;
        }
    }
    compact
}

fn inside(json: &[u8], open: u8, close: u8) -> Option<&[u8]> {
    json.trim_ascii().strip_prefix(&[open])?.strip_suffix(&[close])
}

fn next(behind: &[u8]) -> &[u8] {
    let behind = behind.trim_ascii_start();
    behind.strip_prefix(b",").unwrap_or(behind).trim_ascii_start()
}

/// Bytes of the value at the front, without blanks behind it. At least one where there are any, so that a walk always ends.
fn value_length(json: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'"' => {
                at += string_length(&json[at..]);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return at.max(1),
            _ => {}
        }
        at += 1;
    }
    at
}

/// Bytes of the string at the front, quotes included.
fn string_length(json: &[u8]) -> usize {
    let mut at = 1;
    while at < json.len() {
        match json[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    json.len()
}
