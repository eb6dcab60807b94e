//! The only writer of files: the artifact of `--output`, whole or not at all, and readable by nobody else.

use std::path::{Path, PathBuf};

/// A file that appears whole or not at all, readable by nobody else.
pub struct OutputFile {
    target: PathBuf,
    draft: PathBuf,
}

impl OutputFile {
    /// Proves that the file can be written, before anything is done that it is for.
    ///
    /// # Errors
    /// Why not.
    pub fn prepare(target: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;

        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().ok_or_else(|| std::io::Error::other("not the path of a file"))?);
        name.push(format!(".{}", std::process::id()));
        let draft = target.with_file_name(name);
        if target.is_dir() {
            return Err(std::io::Error::other("is a directory"));
        }
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        Ok(Self { target: target.to_owned(), draft })
    }

    /// Writes it.
    ///
    /// # Errors
    /// Why not; nothing is left then.
    #[expect(clippy::disallowed_methods, reason = "the one writer of files")]
    pub fn commit(self, content: &str) -> std::io::Result<()> {
        std::fs::write(&self.draft, content)?;
        std::fs::rename(&self.draft, &self.target)
    }
}

impl Drop for OutputFile {
    #[expect(clippy::disallowed_methods, reason = "takes back the draft of the one writer of files")]
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.draft);
    }
}
