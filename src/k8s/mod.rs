//! What Kubernetes and this program call things: names, objects, ownership, the record on the ServiceAccount. Pure.

pub mod denial;
pub mod fetched;
pub mod grant;
pub mod helm_release;
pub mod inventory;
pub mod name;
pub mod object;
pub mod object_names;
pub mod ownership;
pub mod record;
