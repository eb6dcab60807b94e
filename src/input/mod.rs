//! Input: documents are read, then parsed once into what each command needs. Nothing invalid exists past here.

pub mod documents;
pub mod request;
