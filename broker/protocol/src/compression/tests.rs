use super::*;

const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// Compressible, and longer than several blocks of snappy and lz4.
fn sample() -> Vec<u8> {
    (0..300_000_u32).map(|index| (index.wrapping_mul(index) / 977).to_le_bytes()[0]).collect()
}

#[test]
fn what_was_compressed_comes_back() {
    for codec in Codec::ALL {
        for input in [&b""[..], b"a", &sample()] {
            let compressed = compress(codec, input).expect("compresses");
            assert_eq!(decompress(codec, &compressed, input.len()).expect("fits exactly"), input, "{codec}");
        }
    }
}

#[test]
fn a_byte_over_the_limit_is_refused() {
    let input = sample();
    for codec in Codec::ALL {
        let compressed = compress(codec, &input).expect("compresses");
        for limit_bytes in [0, 1, 4096, input.len() - 1] {
            assert_eq!(decompress(codec, &compressed, limit_bytes), Err(CompressionError::OverLimit { limit_bytes }), "{codec}");
        }
    }
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let zeros = vec![0; 64 << 20];
    for codec in CODECS {
        let bomb = compress(codec, &zeros).expect("compresses");
        let limit_bytes = 100_000;
        assert_eq!(decompress(codec, &bomb, limit_bytes), Err(CompressionError::OverLimit { limit_bytes }), "{codec}");
    }
}

#[test]
fn every_codec_refuses_what_is_cut_off_or_not_its_own() {
    let input = sample();
    for codec in CODECS {
        let compressed = compress(codec, &input).expect("compresses");
        for bytes in [&compressed[..compressed.len() / 2], &b"\xff\xff\xff\xff\xff\xff\xff\xff not this codec at all"[..]] {
            match decompress(codec, bytes, 1 << 20) {
                Err(CompressionError::Malformed { codec: named, .. }) => assert_eq!(named, codec),
                other => panic!("{codec}: {:?}", other.map(|bytes| bytes.len())),
            }
        }
    }
}

#[test]
fn snappy_is_framed_as_kafkas_java_client_frames_it() {
    // From a batch that Kafka's Java client wrote, as the tests of the `kafka-protocol` crate have it.
    let framed = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x0f\x0d\x30\x18\x00\x00\x00\x01\x0csdfdsf\x00";
    let plain = b"\x18\x00\x00\x00\x01\x0csdfdsf\x00";
    assert_eq!(compress(Codec::Snappy, plain).expect("compresses"), framed);
    assert_eq!(decompress(Codec::Snappy, framed, 100).expect("valid"), plain);
}

#[test]
fn snappy_without_framing_is_read_too() {
    let input = sample();
    let raw = snap::raw::Encoder::new().compress_vec(&input).expect("compresses");
    assert_eq!(decompress(Codec::Snappy, &raw, input.len()).expect("valid"), input);
    assert_eq!(decompress(Codec::Snappy, &raw, 100), Err(CompressionError::OverLimit { limit_bytes: 100 }));
}

#[test]
fn a_length_that_snappy_bytes_only_claim_is_not_allocated() {
    let claims_four_gibibytes = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x61];
    assert_eq!(decompress(Codec::Snappy, &claims_four_gibibytes, 1 << 20), Err(CompressionError::OverLimit { limit_bytes: 1 << 20 }));
    for limit_bytes in [usize::MAX, 1 << 40] {
        let result = decompress(Codec::Snappy, &claims_four_gibibytes, limit_bytes);
        assert!(matches!(result, Err(CompressionError::Malformed { codec: Codec::Snappy, .. })));
    }
}

#[test]
fn a_snappy_block_with_a_wrong_length_is_refused() {
    let good = compress(Codec::Snappy, b"hello").expect("compresses");
    for length in [-1_i32, i32::MIN, i32::MAX, 8] {
        let mut bytes = good.clone();
        bytes[16..20].copy_from_slice(&length.to_be_bytes());
        assert!(matches!(decompress(Codec::Snappy, &bytes, 100), Err(CompressionError::Malformed { .. })), "{length}");
    }
    assert!(decompress(Codec::Snappy, &good[..12], 100).is_err(), "the frame's header is cut off");
    assert!(decompress(Codec::Snappy, &good[..18], 100).is_err(), "a block's length is cut off");
}

#[test]
fn gzip_and_zstd_of_several_parts_are_read_to_the_end() {
    for codec in [Codec::Gzip, Codec::Zstd] {
        let parts = [compress(codec, b"one,").expect("compresses"), compress(codec, b"two").expect("compresses")].concat();
        assert_eq!(decompress(codec, &parts, 7).expect("valid"), b"one,two", "{codec}");
        assert_eq!(decompress(codec, &parts, 6), Err(CompressionError::OverLimit { limit_bytes: 6 }), "{codec}");
    }
}

#[test]
fn an_lz4_frame_without_its_end_is_refused() {
    let bytes = compress(Codec::Lz4, &sample()).expect("compresses");
    for missing in (1..100).chain((100..bytes.len()).step_by(997)) {
        let result = decompress(Codec::Lz4, &bytes[..bytes.len() - missing], 1 << 20);
        assert!(matches!(result, Err(CompressionError::Malformed { codec: Codec::Lz4, .. })), "{missing} bytes are missing");
    }
}

#[test]
fn bytes_behind_an_lz4_frame_are_refused() {
    let mut bytes = compress(Codec::Lz4, b"hello").expect("compresses");
    bytes.push(0);
    assert!(matches!(decompress(Codec::Lz4, &bytes, 100), Err(CompressionError::Malformed { codec: Codec::Lz4, .. })));
}

#[test]
fn lz4_is_written_as_kafkas_reader_wants_it() {
    let bytes = compress(Codec::Lz4, &sample()).expect("compresses");
    assert_eq!(bytes[..4], [0x04, 0x22, 0x4d, 0x18], "magic");
    assert_eq!(bytes[4], 0b0110_0000, "version 1, independent blocks, no checksums, no content size");
    assert_eq!(bytes[5], 0b0100_0000, "blocks of 64 KiB");
}

#[test]
fn lz4_with_linked_blocks_and_checksums_is_read() {
    let input = sample();
    let frame = lz4_flex::frame::FrameInfo::new()
        .block_mode(lz4_flex::frame::BlockMode::Linked)
        .block_size(lz4_flex::frame::BlockSize::Max256KB)
        .block_checksums(true)
        .content_checksum(true)
        .content_size(Some(input.len() as u64));
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, Vec::new());
    encoder.write_all(&input).expect("writes to memory");
    let bytes = encoder.finish().expect("writes to memory");
    assert_eq!(decompress(Codec::Lz4, &bytes, input.len()).expect("valid"), input);
}

#[test]
fn a_zstd_window_is_neither_allocated_nor_a_reason_to_refuse() {
    // What Kafka's clients write at level 22: a window of 128 MiB, the size not known beforehand.
    let input = sample();
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("a context");
    encoder.window_log(27).expect("a window that zstd knows");
    encoder.write_all(&input).expect("writes to memory");
    let bytes = encoder.finish().expect("writes to memory");
    assert_eq!(decompress(Codec::Zstd, &bytes, input.len()).expect("valid"), input);
}

#[test]
fn a_size_that_a_zstd_frame_only_claims_is_not_allocated() {
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd]; // magic
    bytes.push(0b1110_0000); // eight bytes of content size, one segment
    bytes.extend((1_u64 << 50).to_le_bytes());
    bytes.extend([0x03, 0x00, 0x00]); // the last block, of run length, empty
    bytes.push(0x61);
    assert!(decompress(Codec::Zstd, &bytes, usize::MAX).is_err());
    assert!(decompress(Codec::Zstd, &bytes, 1 << 20).is_err());
}

#[test]
fn a_codec_is_named_by_its_number_and_its_name() {
    for (number, codec) in (0_i16..).zip(Codec::ALL) {
        assert_eq!(codec as i16, number);
        assert_eq!(Codec::from_attributes(number | 0b0111_1000), Some(codec), "other bits are not the codec's");
        assert_eq!(codec.to_string().parse(), Ok(codec));
    }
    for unknown in 5..8 {
        assert_eq!(Codec::from_attributes(unknown), None);
    }
    let error = "brotli".parse::<Codec>().expect_err("Kafka does not have it");
    assert!(error.to_string().contains("zstd"), "{error}");
}
