//! Payloads made shorter: a zlib stream (RFC 1950) around the same JSON.
//!
//! The first byte tells them apart: JSON begins with `{` (0x7B), zlib's stream with 0x78.

use miniz_oxide::deflate::compress_to_vec_zlib;

/// zlib's usual level: higher ones cost twice the time for a hundredth of the size.
const LEVEL: u8 = 6;

/// Deflates a payload; one that would not become shorter is returned as it is.
pub fn deflated(payload: Vec<u8>) -> Vec<u8> {
    let short = compress_to_vec_zlib(&payload, LEVEL);
    if short.len() < payload.len() { short } else { payload }
}

#[cfg(test)]
mod tests {
    use miniz_oxide::inflate::decompress_to_vec_zlib;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_payload_that_does_not_get_shorter_stays_json() {
        assert_eq!(deflated(b"{}".to_vec()), b"{}");
        let long = [b"{".as_slice(), &[b'a'; 500]].concat();
        let short = deflated(long.clone());
        assert!(short.len() < 30 && short.first() == Some(&0x78), "{short:?}");
        assert_eq!(decompress_to_vec_zlib(&short).unwrap(), long);
    }

    proptest! {
        #[test]
        fn what_was_deflated_comes_back(payload in prop::collection::vec(any::<u8>(), 0..3000)) {
            let payload = [b"{".to_vec(), payload].concat();
            let short = deflated(payload.clone());
            prop_assert!(short.len() <= payload.len());
            let back = match short.first() {
                Some(b'{') => short,
                _ => decompress_to_vec_zlib(&short).unwrap(),
            };
            prop_assert_eq!(back, payload);
        }
    }
}
