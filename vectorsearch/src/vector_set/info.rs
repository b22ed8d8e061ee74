use inferkit_core::{ErrorKind, FromReply, Reply};

use super::Quantization;

/// What the server tells about a vector set: its shape and its size.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct VectorSetInfo {
    /// The number of documents.
    pub documents: u64,
    /// The number of dimensions that are kept.
    pub dimensions: usize,
    /// The number of dimensions before they are reduced, where they are.
    pub reduced_from: Option<usize>,
    /// How components are kept; `None` for a way that is not known here.
    pub quantization: Option<Quantization>,
    /// The number of edges per vector.
    pub m: usize,
}

impl FromReply for VectorSetInfo {
    fn from_reply(reply: Reply) -> inferkit_core::Result<Self> {
        let (mut documents, mut dimensions, mut m) = (None, None, None);
        let (mut reduced_from, mut quantization) = (None, None);
        for (name, value) in reply.into_pairs()? {
            match name.as_bytes() {
                Some(b"size") => documents = Some(u64::from_reply(value)?),
                Some(b"vector-dim") => dimensions = Some(usize::from_reply(value)?),
                Some(b"hnsw-m") => m = Some(usize::from_reply(value)?),
                Some(b"projection-input-dim") => {
                    reduced_from = Some(usize::from_reply(value)?).filter(|from| *from != 0);
                }
                Some(b"quant-type") => {
                    quantization = [Quantization::Q8, Quantization::None, Quantization::Binary]
                        .into_iter()
                        .find(|known| value.as_str() == Some(known.name()));
                }
                _ => {}
            }
        }
        match (documents, dimensions, m) {
            (Some(documents), Some(dimensions), Some(m)) => {
                Ok(Self { documents, dimensions, reduced_from, quantization, m })
            }
            _ => Err(inferkit_core::Error::new(
                ErrorKind::Reply,
                "expected size, vector-dim and hnsw-m in the reply of VINFO",
            )),
        }
    }
}
