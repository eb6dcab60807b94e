//! The only writer of files: the artifact of `--output`, whole or not at all, and readable by nobody else.

use std::{
    fs::{self, File, OpenOptions},
    io::{Error, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// A file that can be written.
pub struct OutputFile {
    target: PathBuf,
    draft: PathBuf,
}

impl OutputFile {
    /// Proves that the file can be written, before anything is done that it is for. Leaves nothing behind.
    ///
    /// # Errors
    /// Why not.
    pub fn prepare(target: &Path) -> Result<Self, Error> {
        // A link stays one, with its target replaced; a device or a pipe must not become a file.
        let target = &fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        if fs::symlink_metadata(target).is_ok_and(|found| !found.is_file()) {
            return Err(Error::other("exists and is not a regular file; - is standard output"));
        }
        let mut draft = std::ffi::OsString::from(".");
        draft.push(target.file_name().ok_or_else(|| Error::other("not the path of a file"))?);
        draft.push(format!(".{}", std::process::id()));
        let file = Self { draft: target.with_file_name(draft), target: target.to_owned() };
        file.open()?;
        file.discard();
        Ok(file)
    }

    /// Writes it beside its place and moves it there.
    ///
    /// # Errors
    /// Why not; nothing is left then.
    pub fn commit(self, content: &str) -> Result<(), Error> {
        let written = self.open().and_then(|mut draft| {
            draft.write_all(content.as_bytes())?;
            draft.sync_all()?;
            fs::rename(&self.draft, &self.target)
        });
        written.inspect_err(|_| self.discard())
    }

    fn open(&self) -> Result<File, Error> {
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.draft);
        create().or_else(|error| match error.kind() {
            // Of a process of the same number that was killed: in a container that is every one.
            ErrorKind::AlreadyExists => {
                self.discard();
                create()
            }
            _ => Err(error),
        })
    }

    #[expect(clippy::disallowed_methods, reason = "takes back its own draft")]
    fn discard(&self) {
        let _ = fs::remove_file(&self.draft);
    }
}
