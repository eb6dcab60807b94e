//! A real Kubernetes control plane, real helm, and a fake of the platform's API, for tests and the quickstart. Not part
//! of the product.
//!
//! All functions are blocking, use only loopback, and panic on failure with a message that names the operation.

mod audit;
mod authorizer;
mod binaries;
mod control_plane;
mod dead_ends;
mod error;
mod floor;
mod forge;
mod helm;
mod helm_step;
mod intercepting_proxy;
mod original;
mod persona;
mod pki;
mod platform;
mod processes;
mod proxy_server;
mod random;
mod relay;
mod rest;
mod rsa;
mod tls_front;
mod wait;
mod webhook;

pub use audit::{Audit, AuditEvent, Mark};
pub use authorizer::authorizer;
pub use control_plane::{ControlPlane, Options};
pub use dead_ends::{RefusedPort, SilentServer};
pub use error::Error;
pub use floor::{Floor, Lap};
pub use forge::{Forged, Issuer, Key, Sign, Spec, extension};
pub use helm::{Helm, HelmRelease};
pub use helm_step::{HelmStep, evaluate_config};
pub use intercepting_proxy::{Intercepted, InterceptingProxy, Verdict};
pub use original::Original;
pub use persona::{Grant, Persona, rule};
pub use pki::{ClientCertificate, WrongCa};
pub use platform::{Era, Platform, Recorded};
pub use proxy_server::{ProxyOptions, ProxyServer};
pub use relay::{DistantServer, RoundTripGate};
pub use rest::Response;
pub use rsa::generate as rsa_key;
pub use tls_front::{FrontOptions, TlsFront};
pub use wait::eventually;
pub use webhook::{WebhookAnswer, WebhookServer};
