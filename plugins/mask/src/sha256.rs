//! HMAC (RFC 2104) with SHA-256 (FIPS 180-4). A guest is small and depends on nothing, and this is all it needs.

/// HMAC-SHA-256 with one key, which is taken in once.
#[derive(Clone)]
pub(crate) struct Hmac {
    inner: Sha256,
    outer: Sha256,
}

impl Hmac {
    pub(crate) fn new(key: &[u8]) -> Hmac {
        let mut block = [0; BLOCK_BYTES];
        if key.len() > BLOCK_BYTES {
            block[..DIGEST_BYTES].copy_from_slice(&Sha256::new().finish(key));
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let with = |pad: u8| {
            let mut hash = Sha256::new();
            hash.block(&block.map(|byte| byte ^ pad));
            hash
        };
        Hmac { inner: with(0x36), outer: with(0x5c) }
    }

    /// In hexadecimal digits, lower case.
    pub(crate) fn hex(&self, message: &[u8]) -> [u8; 2 * DIGEST_BYTES] {
        let digest = self.outer.clone().finish(&self.inner.clone().finish(message));
        let mut hex = [0; 2 * DIGEST_BYTES];
        for (digits, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(digest) {
            *digits = [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
        }
        hex
    }
}

impl std::fmt::Debug for Hmac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hmac") // the key is nobody's business
    }
}

/// A hash after some whole blocks.
#[derive(Clone)]
struct Sha256 {
    state: [u32; 8],
    blocks: u64,
}

impl Sha256 {
    fn new() -> Sha256 {
        Sha256 { state: START, blocks: 0 }
    }

    fn block(&mut self, block: &[u8; BLOCK_BYTES]) {
        let mut words = [0_u32; 64];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        for at in 16..64 {
            let (early, late) = (words[at - 15], words[at - 2]);
            let sigma0 = early.rotate_right(7) ^ early.rotate_right(18) ^ (early >> 3);
            let sigma1 = late.rotate_right(17) ^ late.rotate_right(19) ^ (late >> 10);
            words[at] = words[at - 16].wrapping_add(sigma0).wrapping_add(words[at - 7]).wrapping_add(sigma1);
        }
        let mut working = self.state;
        for (word, constant) in words.iter().zip(ROUNDS) {
            working = round(working, constant.wrapping_add(*word));
        }
        for (state, added) in self.state.iter_mut().zip(working) {
            *state = state.wrapping_add(added);
        }
        self.blocks += 1;
    }

    /// Takes in the rest of the message, and its length in bits.
    fn finish(mut self, message: &[u8]) -> [u8; DIGEST_BYTES] {
        let bits = (self.blocks * BLOCK_BYTES as u64 + message.len() as u64) * 8;
        let (blocks, rest) = message.as_chunks::<BLOCK_BYTES>();
        for block in blocks {
            self.block(block);
        }
        let mut last = [0; BLOCK_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        last[rest.len()] = 0x80;
        if rest.len() >= BLOCK_BYTES - 8 {
            self.block(&last);
            last = [0; BLOCK_BYTES];
        }
        last[BLOCK_BYTES - 8..].copy_from_slice(&bits.to_be_bytes());
        self.block(&last);
        let mut digest = [0; DIGEST_BYTES];
        for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        digest
    }
}

/// One round; the letters are those of the standard.
#[expect(clippy::many_single_char_names, reason = "see above")]
#[inline]
fn round([a, b, c, d, e, f, g, h]: [u32; 8], added: u32) -> [u32; 8] {
    let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
    let choice = (e & f) ^ (!e & g);
    let one = h.wrapping_add(sum1).wrapping_add(choice).wrapping_add(added);
    let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
    let majority = (a & b) ^ (a & c) ^ (b & c);
    [one.wrapping_add(sum0).wrapping_add(majority), a, b, c, d.wrapping_add(one), e, f, g]
}

const BLOCK_BYTES: usize = 64;

const DIGEST_BYTES: usize = 32;

const START: [u32; 8] = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

#[rustfmt::skip]
const ROUNDS: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

#[cfg(test)]
mod tests {
    use super::{Hmac, Sha256};

    #[test]
    fn the_hash_is_that_of_the_standard() {
        // The examples of FIPS 180-4, and lengths around those at which the padding takes another block.
        let sha256 = |message: &[u8]| Sha256::new().finish(message).map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        for (length, expected) in [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (55, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"),
            (56, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"),
            (63, "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34"),
            (64, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"),
            (119, "31eba51c313a5c08226adf18d4a359cfdfd8d2e816b13f4af952f7ea6584dcfb"),
            (120, "2f3d335432c70b580af0e8e1b3674a7c020d683aa5f73aaaedfdc55af904c21c"),
            (1000, "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3"),
        ] {
            assert_eq!(sha256(&vec![b'a'; length]), expected, "{length}");
        }
    }

    #[test]
    fn the_hmac_is_that_of_rfc_4231() {
        let hmac = |key: &[u8], message: &[u8]| String::from_utf8(Hmac::new(key).hex(message).to_vec()).expect("digits");
        let of_jefe = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hmac(b"Jefe", b"what do ya want for nothing?"), of_jefe);
        let of_a_long_key = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        assert_eq!(hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First"), of_a_long_key);
    }
}
