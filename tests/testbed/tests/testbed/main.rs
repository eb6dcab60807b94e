//! The test control plane and the fake platform keep the promises that the other tests rely on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails a test")]

mod control_plane;
mod helm;
mod intercepting_proxy;
mod life;
mod network;
mod platform;
