//! Real helm, built when the first test asks for it, and the release Secrets that it stores in a cluster.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::binaries;
use crate::control_plane::ControlPlane;
use crate::error::{Doing, Error, OrFail, fail};

/// One major version of helm.
#[derive(Debug)]
pub struct Helm {
    major: u8,
    program: PathBuf,
}

impl Helm {
    /// Helm 3. Panics if it is missing and cannot be built.
    #[track_caller]
    pub fn v3() -> &'static Self {
        static V3: OnceLock<Result<Helm, Error>> = OnceLock::new();
        Self::once(&V3, 3)
    }

    /// Helm 4. Panics if it is missing and cannot be built.
    #[track_caller]
    pub fn v4() -> &'static Self {
        static V4: OnceLock<Result<Helm, Error>> = OnceLock::new();
        Self::once(&V4, 4)
    }

    #[track_caller]
    fn once(cell: &'static OnceLock<Result<Self, Error>>, major: u8) -> &'static Self {
        match cell.get_or_init(|| Ok(Self { major, program: binaries::helm(major)? })) {
            Ok(helm) => helm,
            Err(cause) => fail(cause),
        }
    }

    /// The major version: 3 or 4.
    pub fn major(&self) -> u8 {
        self.major
    }

    /// The path of the program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Helm without the caller's environment; it writes its own files into `home`.
    pub fn command(&self, home: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("HOME", home).current_dir(home).stdin(Stdio::null());
        command
    }
}

/// One revision of a release, from its Secret.
#[derive(Clone, Debug)]
pub struct HelmRelease {
    /// Revision, counted from 1.
    pub revision: u64,
    /// `deployed`, `superseded`, `failed`, `pending-install`, `pending-upgrade`, ..., from the label.
    pub status: String,
    /// The name of the Secret.
    pub secret: Value,
    /// The release document: chart, values (all that helm was given), manifest.
    pub document: Value,
}

impl HelmRelease {
    /// All revisions of a release in a namespace, oldest first.
    #[track_caller]
    pub fn all(control_plane: &ControlPlane, namespace: &str, name: &str) -> Vec<Self> {
        let path = format!("/api/v1/namespaces/{namespace}/secrets?labelSelector=owner%3Dhelm%2Cname%3D{name}");
        let list = control_plane.get(&path).unwrap_or_default();
        let secrets = list["items"].as_array().into_iter().flatten();
        let mut releases: Vec<_> = secrets.map(|secret| Self::of(secret).or_fail("reading a release")).collect();
        releases.sort_by_key(|release| release.revision);
        releases
    }

    fn of(secret: &Value) -> Result<Self, Error> {
        let label = |name: &str| secret["metadata"]["labels"][name].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            revision: label("version").parse().doing("reading the label `version`")?,
            status: label("status"),
            document: serde_json::from_slice(&release_document(secret)?).doing("reading JSON")?,
            secret: secret.clone(),
        })
    }
}

/// The content of a release Secret: gzip in base64, inside the base64 of every Secret.
pub(crate) fn release_document(secret: &Value) -> Result<Vec<u8>, Error> {
    let encoded = STANDARD.decode(secret["data"]["release"].as_str().unwrap_or_default()).doing("decoding a Secret")?;
    let packed = STANDARD.decode(encoded).doing("decoding a release")?;
    let mut document = Vec::new();
    GzDecoder::new(packed.as_slice()).read_to_end(&mut document).doing("unpacking a release")?;
    Ok(document)
}
