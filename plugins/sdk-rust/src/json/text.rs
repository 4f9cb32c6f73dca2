//! Strings of JSON: what is between the quotes, and the text that it means.

use std::borrow::Cow;

use super::scan::Escapes;

/// What is between the quotes of a string that the scanner found well formed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted<'a> {
    pub(super) written: &'a [u8],
    pub(super) escapes: Escapes,
}

impl<'a> Quoted<'a> {
    /// Whether it means this text.
    #[inline]
    pub(super) fn is(self, text: &str) -> bool {
        if self.escapes == Escapes::None { same(self.written, text.as_bytes()) } else { self.means(text) }
    }

    #[inline(never)]
    fn means(self, text: &str) -> bool {
        self.resolve().is_some_and(|meant| meant == text)
    }

    /// The text that it means. `None` for half a surrogate pair.
    pub(super) fn resolve(self) -> Option<Cow<'a, str>> {
        let written = std::str::from_utf8(self.written).ok()?;
        if !written.contains('\\') {
            return Some(Cow::Borrowed(written));
        }
        let mut text = String::with_capacity(written.len());
        let mut rest = written;
        while let Some((before, escape)) = rest.split_once('\\') {
            text.push_str(before);
            let mut chars = escape.chars();
            text.push(match chars.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let (found, behind) = surrogates(chars.as_str())?;
                    chars = behind.chars();
                    found
                }
                other => other,
            });
            rest = chars.as_str();
        }
        text.push_str(rest);
        Some(Cow::Owned(text))
    }
}

/// Whether they are equal. In a guest this is several times as fast for short strings as `==`, which calls a function.
#[inline]
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    match (one.first_chunk::<4>(), one.last_chunk::<4>(), other.first_chunk::<4>(), other.last_chunk::<4>()) {
        (Some(head), Some(tail), Some(other_head), Some(other_tail)) => {
            head == other_head && tail == other_tail && (one.len() <= 8 || one == other)
        }
        _ => one.iter().eq(other),
    }
}

/// The character of one `\u`, or of two that belong together, and what is behind.
fn surrogates(escape: &str) -> Option<(char, &str)> {
    let (first, behind) = code_unit(escape)?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first)?, behind));
    }
    let (second, behind) = code_unit(behind.strip_prefix("\\u")?)?;
    let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x10000 + ((first - 0xd800) << 10) + low)?, behind))
}

fn code_unit(escape: &str) -> Option<(u32, &str)> {
    let (digits, behind) = escape.split_at_checked(4)?;
    Some((u32::from_str_radix(digits, 16).ok()?, behind))
}

/// Appends a text as a string of JSON, with its quotes.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            quote @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', quote]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (control >> 4), HEX[usize::from(control & 15)]]),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

const HEX: &[u8; 16] = b"0123456789abcdef";
