//! The Secrets in which Helm stores a release: how they are found, and what is read from them. Pure.

use std::io::Read as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use serde::Deserialize;

/// The longest name that Helm gives a release (chartutil, `maxReleaseNameLen`); as a label, a longer one could not even
/// be looked for.
const LONGEST_RELEASE: usize = 53;

/// True when Helm can have a release of this name.
pub(crate) const fn can_be_release(name: &str) -> bool {
    name.len() <= LONGEST_RELEASE
}

/// The labels by which Helm finds the Secrets that it keeps its releases in.
pub(crate) fn release_selector(release: &str) -> String {
    format!("owner=helm,name={release}")
}

/// The number of the revision of this very release that a Secret of this name holds, as in `sh.helm.release.v1.demo.v3`.
pub(crate) fn revision(secret: &str, release: &str) -> Option<u64> {
    let revision = secret.strip_prefix("sh.helm.release.v1.")?.strip_prefix(release)?;
    let number = revision.strip_prefix(".v")?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

/// The content of a revision, as far as it matters.
pub(crate) struct Revision {
    /// The name of its chart.
    pub(crate) chart: String,
    /// Whether it contains the current parent credential.
    pub(crate) exposes: bool,
}

/// Reads a revision, which Helm keeps as base64 of packed JSON; `parent` is the token that is looked for in it. None for
/// what is no revision.
pub(crate) fn read(revision: &[u8], parent: Option<&str>) -> Option<Revision> {
    #[derive(Deserialize)]
    struct Document {
        chart: Chart,
    }
    #[derive(Deserialize)]
    struct Chart {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: String,
    }

    let packed = STANDARD.decode(revision).ok()?;
    let mut document = String::new();
    GzDecoder::new(packed.as_slice()).take(UNPACKED).read_to_string(&mut document).ok()?;
    let Document { chart } = serde_json::from_str(&document).ok()?;
    // A plain search: no character of a token is escaped in JSON.
    Some(Revision { chart: chart.metadata.name, exposes: parent.is_some_and(|token| document.contains(token)) })
}

/// A Secret holds 1 MiB at most, and a chart that unpacks to more than this is not that of version 1.0.0, which has five short files.
const UNPACKED: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::helm_release::CHART;

    #[test]
    fn revision_secrets_are_matched_by_exact_release_name() {
        for (secret, is) in [
            ("sh.helm.release.v1.demo.v1", Some(1)),
            ("sh.helm.release.v1.demo.v12", Some(12)),
            ("sh.helm.release.v1.demo.v", None),
            ("sh.helm.release.v1.demo.vx", None),
            ("sh.helm.release.v1.demo.v+1", None),
            ("sh.helm.release.v1.demo.v1.v2", None),
            ("sh.helm.release.v1.demo-2.v1", None),
            ("sh.helm.release.v1.other.v1", None),
            ("demo.v1", None),
        ] {
            assert_eq!(revision(secret, "demo"), is, "{secret}");
        }
    }

    #[test]
    fn revision_yields_chart_and_token_exposure() {
        use std::io::Write as _;

        let packed = |text: &str| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(text.as_bytes()).unwrap();
            STANDARD.encode(packer.finish().unwrap())
        };
        let revision = packed(
            r#"{"name": "demo", "chart": {"metadata": {"name": "k8s-token", "version": "0.1.0"}}, "config": {"token": "eyJ.a.b"}}"#,
        );
        let told = |parent| read(revision.as_bytes(), parent).map(|told| (told.chart, told.exposes));
        assert_eq!(told(None), Some((CHART.to_owned(), false)));
        assert_eq!(told(Some("eyJ.a.b")), Some((CHART.to_owned(), true)));
        assert_eq!(told(Some("eyJ.a.c")), Some((CHART.to_owned(), false)));
        for other in [packed("{}"), packed("x"), "x".to_owned(), STANDARD.encode("x"), String::new()] {
            assert!(read(other.as_bytes(), None).is_none(), "{other}");
        }
    }
}
