//! The request for a server's aggregated discovery, and the limits of its answer. Pure.

use std::io::Read as _;

use flate2::read::GzDecoder;

/// The forms that are read: that since Kubernetes 1.30, and that since 1.27.
pub(super) const ACCEPTED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                                   application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
/// The longest answer that is read: that of a cluster with some ten thousand CustomResourceDefinitions.
pub(super) const LONGEST: usize = 8 << 20;
/// Why a discovery is missing that was not waited for.
pub(crate) const TOO_LATE: &str = "the server has not sent it in time";

/// The answer as it was before the server packed it, which it does from 128 KiB on. A packed one has a tenth of the
/// length, and comes before the other requests are done even from far away.
pub(super) fn unpacked(answer: Vec<u8>, is_packed: bool) -> Result<Vec<u8>, String> {
    if !is_packed {
        return Ok(answer);
    }
    let mut text = Vec::new();
    let limit = u64::try_from(LONGEST + 1).unwrap_or(u64::MAX);
    GzDecoder::new(answer.as_slice())
        .take(limit)
        .read_to_end(&mut text)
        .map_err(|_| "the answer is damaged".to_owned())?;
    if text.len() > LONGEST { Err(too_long()) } else { Ok(text) }
}

/// Why an answer is not read.
pub(super) fn too_long() -> String {
    format!("it is longer than {} MiB", LONGEST >> 20)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn packed_answer_is_unpacked_up_to_the_limit() {
        assert_eq!(unpacked(b"{}".to_vec(), false), Ok(b"{}".to_vec()));
        assert_eq!(unpacked(packed(b"{}"), true), Ok(b"{}".to_vec()));
        assert_eq!(unpacked(packed(&vec![b' '; LONGEST]), true).map(|text| text.len()), Ok(LONGEST));
        assert_eq!(unpacked(packed(&vec![b' '; LONGEST + 1]), true), Err("it is longer than 8 MiB".to_owned()));
        assert!(unpacked(b"{}".to_vec(), true).is_err());
        assert!(unpacked(packed(b"{}")[..12].to_vec(), true).is_err());
    }
}
