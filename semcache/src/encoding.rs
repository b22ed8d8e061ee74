//! How long answers are packed.
//!
//! A packed response begins with 4 bytes: the version, the kind of packing, and two zeros.
//! The field `encoding` names the packing, so that what is not packed is the answer to the byte.

use std::borrow::Cow;

use bytes::Bytes;

use crate::{Error, Result};

#[cfg(feature = "zstd")]
const ZSTD: &[u8; 4] = &[1, 1, 0, 0];

/// The longest answer that is unpacked, whatever the packed bytes promise.
#[cfg(feature = "zstd")]
const LONGEST: usize = 256 * 1024 * 1024;

/// From how many bytes on answers are packed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Packing {
    #[cfg(feature = "zstd")]
    pub(crate) zstd_above: Option<usize>,
}

impl Packing {
    /// Returns the stored form of a response, and the name of its packing if there is one.
    pub(crate) fn encode(self, response: &[u8]) -> Result<(Cow<'_, [u8]>, Option<&'static str>)> {
        #[cfg(feature = "zstd")]
        if self.zstd_above.is_some_and(|limit| limit < response.len()) {
            let packed = zstd::bulk::compress(response, 3).map_err(|source| Error::Encoding {
                problem: "cannot be packed",
                source: Some(source),
            })?;
            if packed.len() + ZSTD.len() < response.len() {
                return Ok((Cow::Owned([&ZSTD[..], &packed].concat()), Some("zstd")));
            }
        }
        Ok((Cow::Borrowed(response), None))
    }
}

/// Returns the response, or nothing if the bytes are damaged.
pub(crate) fn decode(stored: Bytes, encoding: Option<&[u8]>) -> Result<Option<Bytes>> {
    match encoding {
        None => Ok(Some(stored)),
        #[cfg(feature = "zstd")]
        Some(b"zstd") => {
            let Some(packed) = stored.strip_prefix(ZSTD) else { return Ok(None) };
            let size = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
            let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(0).min(LONGEST);
            Ok(zstd::bulk::decompress(packed, size).ok().map(Bytes::from))
        }
        #[cfg(not(feature = "zstd"))]
        Some(b"zstd") => Err(Error::Encoding {
            problem: "is packed with zstd: build with the feature `zstd`",
            source: None,
        }),
        Some(_) => Err(Error::Encoding {
            problem: "is packed in a way that this release does not know: upgrade this service",
            source: None,
        }),
    }
}

#[cfg(all(test, feature = "zstd"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PACKING: Packing = Packing { zstd_above: Some(100) };

    #[test]
    fn long_text_is_packed_and_short_or_random_bytes_are_not() {
        let text = "plants turn light into sugar. ".repeat(100);
        let (packed, name) = PACKING.encode(text.as_bytes()).unwrap();
        assert_eq!(name, Some("zstd"));
        assert!(packed.len() < text.len() / 10 && packed.starts_with(&[1, 1, 0, 0]));
        let back = decode(packed.into_owned().into(), Some(b"zstd")).unwrap().unwrap();
        assert_eq!(back, text);
        assert_eq!(PACKING.encode(&[b'x'; 100]).unwrap().1, None);
        assert_eq!(Packing::default().encode(text.as_bytes()).unwrap().1, None);
    }

    proptest! {
        #[test]
        fn every_answer_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let (stored, name) = PACKING.encode(&bytes).unwrap();
            let back = decode(Bytes::copy_from_slice(&stored), name.map(str::as_bytes)).unwrap().unwrap();
            prop_assert_eq!(back, bytes);
        }

        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..60), whole in any::<bool>()) {
            if whole {
                bytes.splice(0..0, *ZSTD);
            }
            let _ = decode(bytes.into(), Some(b"zstd"));
        }
    }
}
