//! TLS errors as messages: from rustls' errors and from the alerts of the peer. Pure.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::{diagnostics::text::sanitize, x509::Flaw};

/// The kind of a TLS failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No trusted CA signed the certificate.
    UnknownIssuer,
    /// The server requires a client certificate.
    WantsCertificate,
    /// Any other reason.
    Other,
}

/// A TLS failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Its kind.
    pub(crate) kind: Kind,
    /// The reason, on one line.
    pub(crate) cause: String,
    /// How to fix it.
    pub(crate) next: &'static str,
    alert: Option<AlertDescription>,
}

const HEALTH: &str = "check the server, or what terminates TLS in front of it, then run again";
const ADDRESS: &str = "check the address and the port of the server, and any proxy in front of it";
const SETTINGS: &str =
    "make the server, or what terminates TLS in front of it, offer TLS 1.2 or 1.3 with AES-GCM or ChaCha20";

impl Fault {
    /// Explains an error of rustls.
    pub(crate) fn of(error: &Error) -> Self {
        let other = |cause: String, next| Self { kind: Kind::Other, cause, next, alert: None };
        let tls = |cause: &str, next| other(format!("TLS failed: {cause}"), next);
        match error {
            Error::InvalidCertificate(CertificateError::Other(inner)) => match inner.0.downcast_ref::<Flaw>() {
                Some(flaw) => Self {
                    kind: match flaw {
                        Flaw::UnknownIssuer { .. } => Kind::UnknownIssuer,
                        Flaw::WrongHost { .. } | Flaw::Other { .. } => Kind::Other,
                    },
                    cause: flaw.to_string(),
                    next: flaw.next(),
                    alert: None,
                },
                None => tls("the server's certificate is not accepted", HEALTH),
            },
            Error::InvalidCertificate(_) => {
                tls("the server did not prove that it holds the key of its certificate", HEALTH)
            }
            Error::AlertReceived(alert) => Self::alert(*alert),
            Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
                tls("the server offers neither TLS 1.2 nor TLS 1.3", SETTINGS)
            }
            Error::PeerIncompatible(_) => {
                tls("the server and k8s-token have no cipher suite or key exchange in common", SETTINGS)
            }
            Error::InvalidMessage(_) => tls("the server does not speak TLS", ADDRESS),
            Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. } => tls("the server violates the TLS protocol", HEALTH),
            Error::DecryptError | Error::PeerSentOversizedRecord => tls("data from the server arrived damaged", HEALTH),
            Error::NoApplicationProtocol => tls("the server speaks neither HTTP/2 nor HTTP/1.1", ADDRESS),
            // The text of `x509/verify.rs`.
            Error::General(text) => other(format!("TLS failed: {}", sanitize(text, 200)), NO_CA),
            _ => tls("k8s-token cannot continue the handshake", HEALTH),
        }
    }

    /// Explains an alert of the peer.
    fn alert(alert: AlertDescription) -> Self {
        let (kind, why, next) = match alert {
            AlertDescription::CertificateRequired => return Self::wants_certificate(Some(alert)),
            AlertDescription::ProtocolVersion => (Kind::Other, "it requires another version of TLS", SETTINGS),
            AlertDescription::InsufficientSecurity => (Kind::Other, "it requires other cipher suites", SETTINGS),
            AlertDescription::UnrecognisedName => (Kind::Other, "it does not know this server name", ADDRESS),
            AlertDescription::NoApplicationProtocol => (Kind::Other, "it speaks neither HTTP/2 nor HTTP/1.1", ADDRESS),
            AlertDescription::InternalError => (Kind::Other, "it has an internal error", HEALTH),
            AlertDescription::HandshakeFailure => {
                (Kind::Other, "no version, cipher suite or certificate suits both sides", SETTINGS)
            }
            _ => (Kind::Other, "no other reason is given", HEALTH),
        };
        let cause = format!("TLS failed: the server sent the alert {}: {why}", name(alert));
        Self { kind, cause, next, alert: Some(alert) }
    }

    fn wants_certificate(alert: Option<AlertDescription>) -> Self {
        let cause = "the server's address only accepts clients with a client certificate (mutual TLS), and a login by \
                     token has none";
        Self {
            kind: Kind::WantsCertificate,
            cause: match alert {
                Some(alert) => format!("{cause} (alert {})", name(alert)),
                None => cause.to_owned(),
            },
            next: WITHOUT,
            alert,
        }
    }

    /// The failure of a connection that fails because no client certificate was sent.
    pub(crate) fn without_certificate() -> Self {
        Self::wants_certificate(None)
    }

    /// Whether a server sends this alert when it rejects a client certificate or requires one.
    pub(crate) fn is_about_certificates(&self) -> bool {
        self.alert.is_some_and(is_about_certificates)
    }

    /// The same failure, for a handshake in which the server requested a client certificate.
    #[must_use]
    pub(crate) fn when_asked(self, showed: bool) -> Self {
        let Some(alert) = self.alert.filter(|alert| is_about_certificates(*alert)) else { return self };
        if !showed {
            return Self::wants_certificate(Some(alert));
        }
        let why = match alert {
            AlertDescription::UnknownCA => "its CA is unknown to the server",
            AlertDescription::CertificateExpired => "it has expired",
            AlertDescription::CertificateRevoked => "it was revoked",
            _ => "no other reason is given",
        };
        Self {
            kind: Kind::Other,
            cause: format!("the server does not accept the client certificate (alert {}): {why}", name(alert)),
            next: "get a current client certificate for this server, then run again",
            alert: Some(alert),
        }
    }
}

const NO_CA: &str = "add the server's CA to the connection, or set SSL_CERT_FILE to a file with it, then run again";
const WITHOUT: &str = "put the API server's own address into the connection, or make the proxy in front of it accept \
                       clients without a client certificate: users of the credential only have the token";

/// Alerts with which servers reject a client certificate or its absence: before TLS 1.3 no alert means only the latter.
const fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::HandshakeFailure
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired
    )
}

/// The name of an alert in the RFCs.
fn name(alert: AlertDescription) -> String {
    let name = match alert {
        AlertDescription::UnexpectedMessage => "unexpected_message",
        AlertDescription::BadRecordMac => "bad_record_mac",
        AlertDescription::HandshakeFailure => "handshake_failure",
        AlertDescription::NoCertificate => "no_certificate",
        AlertDescription::BadCertificate => "bad_certificate",
        AlertDescription::UnsupportedCertificate => "unsupported_certificate",
        AlertDescription::CertificateRevoked => "certificate_revoked",
        AlertDescription::CertificateExpired => "certificate_expired",
        AlertDescription::CertificateUnknown => "certificate_unknown",
        AlertDescription::IllegalParameter => "illegal_parameter",
        AlertDescription::UnknownCA => "unknown_ca",
        AlertDescription::AccessDenied => "access_denied",
        AlertDescription::DecodeError => "decode_error",
        AlertDescription::DecryptError => "decrypt_error",
        AlertDescription::ProtocolVersion => "protocol_version",
        AlertDescription::InsufficientSecurity => "insufficient_security",
        AlertDescription::InternalError => "internal_error",
        AlertDescription::UnrecognisedName => "unrecognized_name",
        AlertDescription::CertificateRequired => "certificate_required",
        AlertDescription::NoApplicationProtocol => "no_application_protocol",
        other => return u8::from(other).to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use AlertDescription::{
        BadCertificate, CertificateExpired, CertificateRequired, HandshakeFailure, ProtocolVersion, UnknownCA,
    };
    use rstest::rstest;

    /// Alerts that Go, OpenSSL (nginx, HAProxy) and BoringSSL (Envoy) send if the client certificate is missing.
    #[rstest]
    #[case::tls_1_3(CertificateRequired)]
    #[case::go_and_tls_1_2(BadCertificate)]
    #[case::openssl_and_tls_1_2(HandshakeFailure)]
    fn alert_after_certificate_request_concerns_the_client_certificate(#[case] alert: AlertDescription) {
        let fault = Fault::of(&Error::AlertReceived(alert));
        assert_eq!(fault.clone().when_asked(false).kind, Kind::WantsCertificate);
        let refused = fault.when_asked(true);
        assert!(refused.kind == Kind::Other && refused.cause.contains("does not accept the client certificate"));
    }

    #[rstest]
    #[case(UnknownCA, "its CA is unknown to the server")]
    #[case(CertificateExpired, "it has expired")]
    fn rejected_client_certificate_states_the_reason(#[case] alert: AlertDescription, #[case] why: &str) {
        let fault = Fault::of(&Error::AlertReceived(alert)).when_asked(true);
        assert!(fault.cause.ends_with(why), "{}", fault.cause);
    }

    #[test]
    fn unrelated_alert_is_not_a_certificate_failure() {
        let fault = Fault::of(&Error::AlertReceived(ProtocolVersion));
        assert_eq!(fault.clone().when_asked(false), fault);
        assert_eq!(
            fault.cause,
            "TLS failed: the server sent the alert protocol_version: it requires another version of TLS"
        );
    }

    #[test]
    fn tls_messages_contain_no_debug_output() {
        let errors = [
            Error::InvalidCertificate(CertificateError::BadSignature),
            Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
            Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
            Error::PeerMisbehaved(rustls::PeerMisbehaved::SelectedUnofferedCipherSuite),
            Error::HandshakeNotComplete,
        ];
        for error in errors {
            let fault = Fault::of(&error);
            assert!(fault.cause.starts_with("TLS failed: ") && !fault.next.is_empty());
            assert!(!fault.cause.contains(['(', '{']) && !fault.cause.contains("Invalid"), "{}", fault.cause);
        }
    }
}
