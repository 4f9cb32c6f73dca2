//! Where the strings of JSON text end, in two ways: one for most texts, and one for all.

/// How text is passed over.
pub(super) trait Way {
    /// From behind the opening quote to behind the closing one. `None` if there is no end, or this way does not find it.
    fn string(&mut self, bytes: &[u8], at: usize) -> Option<usize>;

    /// Behind the space that there is, if any.
    fn space(bytes: &[u8], at: usize) -> usize;

    /// The same behind a colon or a comma.
    fn gap(bytes: &[u8], at: usize) -> Option<usize>;
}

/// Byte by byte, with escapes checked and control characters refused.
pub(super) struct Careful;

impl Way for Careful {
    fn string(&mut self, bytes: &[u8], mut at: usize) -> Option<usize> {
        loop {
            match bytes.get(at)? {
                b'"' => return Some(at + 1),
                b'\\' => at = escape(bytes, at + 1)?,
                ..0x20 => return None,
                _ => at += 1,
            }
        }
    }

    fn space(bytes: &[u8], mut at: usize) -> usize {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
            at += 1;
        }
        at
    }

    fn gap(bytes: &[u8], at: usize) -> Option<usize> {
        Some(Self::space(bytes, at))
    }
}

/// What is behind a backslash.
fn escape(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => {
            let digits = bytes.get(at + 1..)?.first_chunk::<4>()?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(at + 5)
        }
        _ => None,
    }
}

/// For text without backslashes and control characters: there the quotes alone, taken in pairs, are the strings. Where they are is known
/// before the rest is looked at, so the processor does not have to wait for a string's end before it can go on behind it: this
/// is the idea of simdjson (Langdale and Lemire, 2019).
///
/// There is no space but for `BLANKS` behind each colon and comma: none in most of what programs write, one in what Python does. That
/// too is so that the next place is known without looking.
pub(super) struct Plain<'a, const BLANKS: usize> {
    /// The places of all quotes that are not taken yet.
    pub(super) quotes: &'a [u32],
}

impl<const BLANKS: usize> Way for Plain<'_, BLANKS> {
    #[inline]
    fn string(&mut self, _bytes: &[u8], at: usize) -> Option<usize> {
        if let [open, close, rest @ ..] = self.quotes
            && *open as usize + 1 == at
        {
            self.quotes = rest;
            return Some(*close as usize + 1);
        }
        // Before the opening quote are only those inside of nested values, which were passed over without this.
        let (quotes, behind) = skip_to(self.quotes, at)?;
        self.quotes = quotes;
        Some(behind)
    }

    #[inline]
    fn space(_bytes: &[u8], at: usize) -> usize {
        at
    }

    #[inline]
    fn gap(bytes: &[u8], at: usize) -> Option<usize> {
        match BLANKS {
            0 => Some(at),
            _ => (bytes.get(at) == Some(&b' ')).then_some(at + BLANKS),
        }
    }
}

#[inline(never)]
fn skip_to(quotes: &[u32], at: usize) -> Option<(&[u32], usize)> {
    let open = quotes.iter().position(|quote| *quote as usize + 1 == at)?;
    let (close, rest) = quotes.get(open + 1..)?.split_first()?;
    Some((rest, *close as usize + 1))
}

/// Finds all quotes, and says whether there is something else than ASCII. `None` if there is a backslash or a control character, or more
/// than is worth it.
pub(super) fn find(bytes: &[u8], places: &mut Vec<u32>) -> Option<bool> {
    places.clear();
    let mut wide = false;
    for at in (0..bytes.len()).step_by(BLOCK_BYTES) {
        let marks = block(bytes, at)?;
        wide |= marks.wide;
        let at = u32::try_from(at).ok()?;
        let count = places.len() + marks.quotes.count_ones() as usize;
        let mut quotes = marks.quotes;
        while quotes != 0 {
            // Eight in one go, whether there are as many or not.
            places.extend_from_slice(&std::array::from_fn::<_, 8, _>(|_| {
                let place = at + quotes.trailing_zeros();
                quotes &= quotes.wrapping_sub(1);
                place
            }));
        }
        places.truncate(count);
        if count > QUOTES_MAX {
            return None;
        }
    }
    Some(wide)
}

/// What there is in a block, if there is a block, and neither a backslash nor a control character in it.
#[inline]
fn block(bytes: &[u8], at: usize) -> Option<Marks> {
    let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
    if let Some(block) = rest.first_chunk() {
        return marks(block);
    }
    // The last block that is whole begins earlier.
    if let Some(block) = bytes.last_chunk() {
        return marks(block).map(|marks| Marks { quotes: marks.quotes >> (BLOCK_BYTES - rest.len()), ..marks });
    }
    let mut block = [b' '; BLOCK_BYTES];
    block[..rest.len()].copy_from_slice(rest);
    marks(&block)
}

struct Marks {
    /// A bit for each quote, the first byte's lowest.
    quotes: u64,
    wide: bool,
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[inline]
fn marks(block: &[u8; BLOCK_BYTES]) -> Option<Marks> {
    let (mut quotes, mut seen, mut refused) = (0, 0, 0);
    let (words, _) = block.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        seen |= word;
        let backslash = word ^ (EACH * 0x5c);
        refused |= (backslash.wrapping_sub(EACH) | word.wrapping_sub(EACH * 0x20)) & !word;
        let quote = word ^ (EACH * 0x22);
        // The highest bit of each byte that is a quote; multiplied so that these eight bits become neighbours.
        let found = !(((quote & !HIGH_BITS) + !HIGH_BITS) | quote) & HIGH_BITS;
        quotes |= ((found >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * index);
    }
    (refused & HIGH_BITS == 0).then_some(Marks { quotes, wide: seen & HIGH_BITS != 0 })
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline]
fn marks(block: &[u8; BLOCK_BYTES]) -> Option<Marks> {
    use std::arch::wasm32::{u8x16_bitmask, u8x16_eq, u8x16_lt, u8x16_splat, u64x2, v128_any_true, v128_or};
    let (mut quotes, mut seen, mut refused) = (0, u8x16_splat(0), u8x16_splat(0));
    let (words, _) = block.as_chunks::<8>();
    let (pairs, _) = words.as_chunks::<2>();
    for (index, [low, high]) in pairs.iter().enumerate() {
        let bytes = u64x2(u64::from_le_bytes(*low), u64::from_le_bytes(*high));
        seen = v128_or(seen, bytes);
        refused = v128_or(refused, v128_or(u8x16_eq(bytes, u8x16_splat(b'\\')), u8x16_lt(bytes, u8x16_splat(b' '))));
        quotes |= u64::from(u8x16_bitmask(u8x16_eq(bytes, u8x16_splat(b'"')))) << (16 * index);
    }
    (!v128_any_true(refused)).then_some(Marks { quotes, wide: u8x16_bitmask(seen) != 0 })
}

const BLOCK_BYTES: usize = 64;

/// Text with more is read without an index of them, which would be large.
const QUOTES_MAX: usize = 16 * 1024;

/// One in each byte.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
const EACH: u64 = 0x0101_0101_0101_0101;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
const HIGH_BITS: u64 = EACH * 0x80;
