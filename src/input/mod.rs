//! Input: documents are read, then parsed once into what each command needs. Nothing invalid exists past here.

pub(crate) mod documents;
pub(crate) mod request;
