//! From documents to what each command needs: read, then parsed once. Nothing invalid exists past here.

pub mod documents;
pub mod request;
