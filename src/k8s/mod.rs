//! What Kubernetes and this program call things: names, objects, ownership, the record on the ServiceAccount. Pure.

pub(crate) mod denial;
pub(crate) mod fetched;
pub(crate) mod grant;
pub(crate) mod helm_release;
pub(crate) mod inventory;
pub(crate) mod name;
pub(crate) mod object;
pub(crate) mod object_names;
pub(crate) mod ownership;
pub(crate) mod record;
