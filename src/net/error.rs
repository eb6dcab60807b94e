//! Transport errors: why a connection could not be opened, or was lost before a response. Pure.

use std::{error::Error, fmt, io};

use crate::{
    diagnostics::{
        error::{Code, Failure},
        text::sanitize,
    },
    net::tls::{Fault, Kind},
};

/// Why there is no connection, or no response on it.
#[derive(Clone, Debug)]
pub(crate) enum TransportError {
    /// DNS does not know the host name.
    Dns,
    /// The connection was refused, or the host is unreachable.
    Refused(String),
    /// A deadline passed; names what was awaited.
    Timeout(&'static str),
    /// The TLS handshake or session failed.
    Tls(Fault),
    /// The login command (exec plugin) of a kubeconfig failed.
    Login {
        /// Why it failed.
        cause: String,
        /// The kubeconfig's `installHint`, when the command is not installed.
        hint: Option<String>,
    },
    /// The proxy is unusable, or required and missing.
    Proxy(String),
    /// The connection was closed.
    Lost(String),
}

/// Why a proxy is unusable. Contains its address, never its login.
#[derive(Debug)]
pub(crate) struct ProxyError(pub(crate) String);

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ProxyError {}

impl TransportError {
    /// The root cause in an error chain: the outer errors only say "client error".
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut layer = Some(error);
        let mut deepest = error.to_string();
        while let Some(current) = layer {
            if let Some(found) = Self::known(current) {
                return found;
            }
            deepest = current.to_string();
            // std::io::Error skips the error it wraps in source(), and TLS errors are wrapped in one.
            let inner = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            layer = match inner {
                Some(inner) => Some(inner),
                None => current.source(),
            };
        }
        Self::Lost(sanitize(&deepest, 200))
    }

    fn known(error: &(dyn Error + 'static)) -> Option<Self> {
        use io::ErrorKind;

        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(Self::Tls(Fault::of(error)));
        }
        if let Some(ProxyError(cause)) = error.downcast_ref::<ProxyError>() {
            return Some(Self::Proxy(cause.clone()));
        }
        if error.to_string().starts_with("dns error") {
            return Some(Self::Dns);
        }
        let error = error.downcast_ref::<io::Error>()?;
        if error.kind() == ErrorKind::UnexpectedEof {
            return Some(Self::Lost("the server closed the connection".to_owned()));
        }
        let error = Some(error).filter(|error| error.get_ref().is_none())?;
        Some(match error.kind() {
            ErrorKind::TimedOut => Self::Timeout("no connection"),
            ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                Self::Refused(error.kind().to_string())
            }
            kind => Self::Lost(kind.to_string()),
        })
    }

    /// The error code it is reported under.
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Dns => Code::Dns,
            Self::Refused(_) => Code::ConnectionFailed,
            Self::Timeout(_) => Code::Timeout,
            Self::Tls(fault) => match fault.kind {
                Kind::UnknownIssuer => Code::TlsUnknownIssuer,
                Kind::WantsCertificate => Code::ClientCertificateRequired,
                Kind::Other => Code::Tls,
            },
            Self::Login { .. } => Code::LoginFailed,
            Self::Proxy(_) => Code::Proxy,
            Self::Lost(_) => Code::ConnectionLost,
        }
    }

    /// The failure with the next step that fits this cause.
    pub(crate) fn advise(&self, failure: Failure) -> Failure {
        match self {
            Self::Login { hint: Some(hint), .. } => failure.next(format!(
                "install the login command, then run again; the kubeconfig says: {}",
                sanitize(hint, 300)
            )),
            Self::Tls(fault) => failure.next(fault.next),
            _ => failure,
        }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns => f.write_str("the host name of the server is unknown to DNS"),
            Self::Refused(cause) => write!(f, "cannot connect: {cause}"),
            Self::Timeout(what) => write!(f, "{what} within the time limit"),
            Self::Tls(fault) => f.write_str(&fault.cause),
            Self::Login { cause, .. } => write!(f, "the login of the kubeconfig failed: {cause}"),
            Self::Proxy(cause) => f.write_str(cause),
            Self::Lost(cause) => write!(f, "the connection broke: {cause}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn wrapped(inner: impl Error + Send + Sync + 'static) -> Box<dyn Error> {
        Box::new(io::Error::other(io::Error::other(inner)))
    }

    #[rstest]
    #[case::refused(io::Error::from(io::ErrorKind::ConnectionRefused), Code::ConnectionFailed)]
    #[case::no_route(io::Error::from(io::ErrorKind::NetworkUnreachable), Code::ConnectionFailed)]
    #[case::timed_out(io::Error::from(io::ErrorKind::TimedOut), Code::Timeout)]
    #[case::closed(io::Error::from(io::ErrorKind::UnexpectedEof), Code::ConnectionLost)]
    #[case::reset(io::Error::from(io::ErrorKind::ConnectionReset), Code::ConnectionLost)]
    #[case::proxy(ProxyError("the proxy p cannot be used".to_owned()), Code::Proxy)]
    #[case::tls(rustls::Error::DecryptError, Code::Tls)]
    #[case::dns(io::Error::other("dns error: no such host"), Code::Dns)]
    #[case::unknown(fmt::Error, Code::ConnectionLost)]
    fn root_cause_is_found_below_wrappers(#[case] error: impl Error + Send + Sync + 'static, #[case] code: Code) {
        assert_eq!(TransportError::of(&*wrapped(error)).code(), code);
    }

    #[test]
    fn install_hint_becomes_next_step() {
        let error =
            TransportError::Login { cause: "is not installed".to_owned(), hint: Some("brew\ninstall".to_owned()) };
        let failure = error.advise(Failure::new(error.code(), "x", error.to_string()));
        assert!(
            failure.next.starts_with("install the login command, then run again; the kubeconfig says: brew"),
            "{}",
            failure.next
        );
    }
}
