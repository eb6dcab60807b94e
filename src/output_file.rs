//! The file of `--output`: written atomically, and readable only by its owner. The only writer of files.

use std::{
    fs::{self, OpenOptions},
    io::{Error, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::{Builder, NamedTempFile};

/// A file that can be written.
pub(crate) struct OutputFile {
    target: PathBuf,
}

impl OutputFile {
    /// Checks that the file can be written, before any change to the cluster. Leaves nothing behind.
    pub(crate) fn prepare(target: &Path) -> Result<Self, Error> {
        // A symbolic link is kept, and its target replaced; a device or a pipe must not become a file.
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        if fs::symlink_metadata(&target).is_ok_and(|found| !found.is_file()) {
            return Err(Error::other("exists and is not a regular file (- means stdout)"));
        }
        let file = Self { target };
        file.draft()?.close()?;
        Ok(file)
    }

    /// Writes a draft in the same directory, and renames it to the target.
    ///
    /// # Errors
    /// Why not; no draft is left behind.
    pub(crate) fn commit(self, content: &str) -> Result<(), Error> {
        let mut draft = self.draft()?;
        draft.write_all(content.as_bytes())?;
        draft.as_file().sync_all()?;
        draft.persist(&self.target)?;
        Ok(())
    }

    /// A new file in the same directory, readable only by its owner. Its name is unpredictable: processes in containers
    /// on one volume may have the same process id.
    fn draft(&self) -> Result<NamedTempFile, Error> {
        let name = self.target.file_name().ok_or_else(|| Error::other("is not the path of a file"))?;
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let directory = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let create = |path: &Path| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        Builder::new().prefix(&prefix).make_in(directory.unwrap_or(Path::new(".")), create)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests look at what was written")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn concurrent_drafts_for_one_file_are_independent() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("artifact.json");
        let [one, other] = [0, 1].map(|_| OutputFile::prepare(&target).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left of the trial");
        let draft = one.draft().unwrap();
        OutputFile::prepare(&target).unwrap().commit("another").unwrap();
        assert!(draft.path().exists(), "another run leaves this draft alone");
        drop(draft);
        one.commit("one").unwrap();
        other.commit("other").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "other");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn unwritable_file_error_quotes_the_system() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent/artifact.json");
        let error = OutputFile::prepare(&absent).err().unwrap().to_string();
        assert!(error.contains("No such file or directory") && !error.contains("artifact"), "{error}");
        assert!(OutputFile::prepare(Path::new("/")).is_err());
        fs::create_dir(directory.path().join("directory")).unwrap();
        assert!(OutputFile::prepare(&directory.path().join("directory")).is_err());
    }
}
