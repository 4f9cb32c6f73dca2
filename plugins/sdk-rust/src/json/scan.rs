//! Passes over JSON text and notes where the fields of the outermost object lie.
//!
//! Accepted is what RFC 8259 calls an object, in UTF-8, and nothing else. Nesting is no recursion, so its depth is bounded by the length
//! of the text. The functions pass over what they are named after, from `at` to behind it, and give `None` if that is not there.
//! They take places and return places, rather than to keep one in a struct, because that leaves it in a register.

use super::quotes::{self, Careful, Plain, Way};
use super::{Place, Room};

/// Reads the bytes as one object; its fields are in the room then.
pub(super) fn object(bytes: &[u8], room: &mut Room) -> Option<Escapes> {
    if let Some(wide) = quotes::find(bytes, &mut room.quotes)
        && (plain::<0>(bytes, room) || plain::<1>(bytes, room))
    {
        // Outside of strings the grammar has no place for anything but ASCII.
        return (!wide || std::str::from_utf8(bytes).is_ok()).then_some(Escapes::None);
    }
    room.fields.clear();
    one_object(bytes, &mut Careful, &mut room.fields, &mut room.nesting)?;
    std::str::from_utf8(bytes).is_ok().then_some(Escapes::Perhaps)
}

fn plain<const BLANKS: usize>(bytes: &[u8], room: &mut Room) -> bool {
    room.fields.clear();
    one_object(bytes, &mut Plain::<BLANKS> { quotes: &room.quotes }, &mut room.fields, &mut room.nesting).is_some()
}

/// Whether names and strings may have escapes in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escapes {
    None,
    Perhaps,
}

/// One object and nothing behind it.
#[inline]
fn one_object<W: Way>(bytes: &[u8], way: &mut W, fields: &mut Vec<Place>, nesting: &mut Vec<u8>) -> Option<()> {
    let mut at = W::space(bytes, exactly(bytes, W::space(bytes, 0), b'{')?);
    if bytes.get(at) == Some(&b'}') {
        at += 1;
    } else {
        loop {
            let name_start = exactly(bytes, at, b'"')?;
            let behind = way.string(bytes, name_start)?;
            let start = W::gap(bytes, exactly(bytes, W::space(bytes, behind), b':')?)?;
            let end = match bytes.get(start)? {
                b'"' => way.string(bytes, start + 1)?,
                b'0'..=b'9' => number(bytes, start)?,
                b'{' | b'[' => nested(bytes, start, nesting)?,
                _ => scalar(bytes, start)?,
            };
            fields.push(Place::new(name_start..behind - 1, start..end)?);
            at = W::space(bytes, end);
            if bytes.get(at)? != &b',' {
                break at = exactly(bytes, at, b'}')?;
            }
            at = W::gap(bytes, at + 1)?;
        }
    }
    (W::space(bytes, at) == bytes.len()).then_some(())
}

/// An object or an array, with all that is in it.
fn nested(bytes: &[u8], mut at: usize, nesting: &mut Vec<u8>) -> Option<usize> {
    nesting.clear();
    loop {
        // Before a value.
        match bytes.get(at)? {
            b'"' => at = Careful.string(bytes, at + 1)?,
            open @ (b'{' | b'[') => {
                at = Careful::space(bytes, at + 1);
                if *bytes.get(at)? == closing(*open) {
                    at += 1;
                } else {
                    nesting.push(*open);
                    if *open == b'{' {
                        at = name(bytes, at)?;
                    }
                    continue;
                }
            }
            _ => at = scalar(bytes, at)?,
        }
        // Behind a value, which may be the last in what it is in.
        loop {
            let Some(open) = nesting.last() else { return Some(at) };
            if let Some(behind) = space_and(bytes, at, b',') {
                at = Careful::space(bytes, behind);
                if *open == b'{' {
                    at = name(bytes, at)?;
                }
                break;
            }
            at = space_and(bytes, at, closing(*open))?;
            nesting.pop();
        }
    }
}

/// A name, and the colon and the spaces behind it.
fn name(bytes: &[u8], at: usize) -> Option<usize> {
    let behind = Careful.string(bytes, exactly(bytes, at, b'"')?)?;
    Some(Careful::space(bytes, space_and(bytes, behind, b':')?))
}

/// A number, or one of the three words.
fn scalar(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'-' => number(bytes, at + 1),
        b'0'..=b'9' => number(bytes, at),
        b't' => word(bytes, at, b"true"),
        b'f' => word(bytes, at, b"false"),
        b'n' => word(bytes, at, b"null"),
        _ => None,
    }
}

/// A number, without its sign.
#[inline]
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let mut end = some_digits(bytes, at)?;
    if bytes[at] == b'0' && end > at + 1 {
        return None;
    }
    if bytes.get(end) == Some(&b'.') {
        end = some_digits(bytes, end + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let signed = matches!(bytes.get(end + 1), Some(b'+' | b'-'));
        end = some_digits(bytes, end + 1 + usize::from(signed))?;
    }
    Some(end)
}

#[inline]
fn some_digits(bytes: &[u8], start: usize) -> Option<usize> {
    // Eight in one go: how many digits a number has is hard to foresee.
    if let Some(eight) = bytes.get(start..).and_then(<[u8]>::first_chunk) {
        let others = no_digits(u64::from_le_bytes(*eight));
        if others != 0 {
            let count = (others.trailing_zeros() / 8) as usize;
            return (count > 0).then_some(start + count);
        }
    }
    many_digits(bytes, start)
}

#[inline(never)]
fn many_digits(bytes: &[u8], start: usize) -> Option<usize> {
    let mut end = start;
    while bytes.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    (end > start).then_some(end)
}

/// Marks the bytes that are no digit, each at its highest bit.
#[inline]
fn no_digits(word: u64) -> u64 {
    // Digits are 0 to 9 now; what is added takes everything larger over the highest bit, and never into the next byte.
    let moved = word ^ (EACH * 0x30);
    (((moved & !HIGH_BITS) + EACH * 0x76) | moved) & HIGH_BITS
}

fn word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes.get(at..)?.starts_with(word).then_some(at + word.len())
}

#[inline]
fn exactly(bytes: &[u8], at: usize, expected: u8) -> Option<usize> {
    (*bytes.get(at)? == expected).then_some(at + 1)
}

/// A byte with space before it, or none.
fn space_and(bytes: &[u8], at: usize, expected: u8) -> Option<usize> {
    exactly(bytes, Careful::space(bytes, at), expected)
}

fn closing(open: u8) -> u8 {
    if open == b'{' { b'}' } else { b']' }
}

/// One in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;

const HIGH_BITS: u64 = EACH * 0x80;
