/// MurmurHash3 for 32 bits on x86, by Austin Appleby, of a text in pieces.
pub(super) fn murmur3(pieces: &[&str], seed: u32) -> u32 {
    joined(pieces, |bytes| hash(bytes, seed))
}

fn hash(bytes: &[u8], seed: u32) -> u32 {
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = seed;
    for block in blocks {
        hash = (hash ^ scramble(u32::from_le_bytes(*block)))
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0, |last, byte| (last << 8) | u32::from(*byte));
        hash ^= scramble(last);
    }
    // The algorithm counts bytes in 32 bits.
    hash ^= u32::try_from(bytes.len() & 0xffff_ffff).unwrap_or(u32::MAX);
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

fn scramble(block: u32) -> u32 {
    block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
}

/// Passes the pieces on as one, without an allocation if they are short.
pub(super) fn joined<T>(pieces: &[&str], with: impl FnOnce(&[u8]) -> T) -> T {
    let mut buffer = [0_u8; 256];
    let mut rest = &mut buffer[..];
    for piece in pieces {
        let Some((place, after)) = rest.split_at_mut_checked(piece.len()) else {
            return with(pieces.concat().as_bytes());
        };
        place.copy_from_slice(piece.as_bytes());
        rest = after;
    }
    let free = rest.len();
    with(buffer.get(..256 - free).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // From the reference implementation.
        for (text, seed, expected) in [
            ("", 0, 0),
            ("", 1, 0x514e_28b7),
            ("", 0xffff_ffff, 0x81f1_6f39),
            ("test", 0, 0xba6b_d213),
            ("test", 0x9747_b28c, 0x704b_81dc),
            ("Hello, world!", 0, 0xc036_3e43),
            ("The quick brown fox jumps over the lazy dog", 0, 0x2e4f_f723),
        ] {
            assert_eq!(hash(text.as_bytes(), seed), expected, "{text}");
        }
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        let long = "x".repeat(300);
        for pieces in [&["a", "", "bc"][..], &[&long, "y"], &[&"z".repeat(256)], &[]] {
            assert_eq!(murmur3(pieces, 7), hash(pieces.concat().as_bytes(), 7));
        }
    }
}
