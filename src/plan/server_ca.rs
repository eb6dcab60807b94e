//! The CA that pods in the cluster verify the server with, compared with that of the connection. Pure.

use std::collections::BTreeSet;

use crate::{
    diagnostics::{
        finding::{Code, Finding, Severity},
        secret::sha256,
    },
    endpoint::connection::{CaBundle, Connection, ServerTrust},
    x509::Certificate,
};

/// The most certificates that a sentence names.
const NAMED: usize = 3;

/// The finding that the certificates in `ca.crt` of the token Secret, which pods trust, are not those that the connection
/// trusts and that are published. Compared as sets: order, repetitions and the text of the PEM do not matter.
pub(crate) fn ca_differs(connection: &Connection, trusted: &CaBundle, of_pods: &BTreeSet<Vec<u8>>) -> Option<Finding> {
    let own: BTreeSet<&[u8]> = trusted.certificates().iter().map(Vec::as_slice).collect();
    let of_pods: BTreeSet<&[u8]> = of_pods.iter().map(Vec::as_slice).collect();
    let only_pods: BTreeSet<&[u8]> = of_pods.difference(&own).copied().collect();
    let only_own: BTreeSet<&[u8]> = own.difference(&of_pods).copied().collect();
    let has_common = only_own.len() < own.len();
    let is_system = matches!(connection.ca, ServerTrust::System);
    if of_pods.is_empty() || (only_pods.is_empty() && only_own.is_empty()) || (is_system && has_common) {
        return None;
    }
    let (severity, text, help) = match (has_common, is_by_design(connection)) {
        (false, by_design) => (
            if by_design { Severity::Info } else { Severity::Medium },
            format!(
                "pods in the cluster verify the API server with another CA, {}, than users of the credential, {}",
                named(&of_pods),
                named(&own)
            ),
            if by_design { BY_DESIGN } else { ANOTHER },
        ),
        // The server may change to such a CA at any time.
        (true, _) if !only_pods.is_empty() => (
            Severity::Low,
            format!(
                "pods in the cluster also trust the CA {}, which the connection does not contain",
                named(&only_pods)
            ),
            "if the cluster's CA is being replaced, add the new CA to the connection and deploy again, before the API \
             server gets a certificate of it",
        ),
        (true, _) => (
            Severity::Info,
            format!("the connection also trusts the CA {}, which pods in the cluster do not", named(&only_own)),
            "if it is a CA that the cluster no longer uses, remove it from the connection and deploy again",
        ),
    };
    Some(Finding::remark(Code::CaDiffers, text).severity(severity).help(help))
}

const BY_DESIGN: &str =
    "nothing to do: the server's address leads through a proxy or load balancer with a certificate of its own";
const ANOTHER: &str = "right if a proxy or load balancer with a certificate of its own is in front of the API server; if the \
                       cluster's CA was replaced, put the new CA into the connection and deploy again";

/// Whether the address is certainly not that of the API server itself: its certificate is of a public CA, or its URL has a
/// path, which an API server does not serve.
fn is_by_design(connection: &Connection) -> bool {
    matches!(connection.ca, ServerTrust::System) || !matches!(connection.server.uri().path(), "" | "/")
}

/// As in `"kubernetes" (sha256:0123456789ab)`: CAs that replace each other usually have one name.
fn named(certificates: &BTreeSet<&[u8]>) -> String {
    let name = |der: &&[u8]| {
        let subject = Certificate::parse(der).map_or_else(|_| "without a name".to_owned(), |it| it.subject());
        let digest: String = sha256(der).chars().take(12).collect();
        format!("{subject} (sha256:{digest})")
    };
    let mut names: Vec<String> = certificates.iter().take(NAMED).map(name).collect();
    if certificates.len() > NAMED {
        names.push(format!("{} more", certificates.len() - NAMED));
    }
    names.join(" and ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testbed::{Forged, Key, Spec};

    use super::*;
    use crate::{
        endpoint::connection::Server,
        k8s::fetched::FetchedObject,
        plan::fixtures::{Case, request},
    };

    /// Three certificates of one name, as CAs that replace each other have it, and others.
    fn authorities() -> Vec<Forged> {
        ["kubernetes", "kubernetes", "proxy", "a", "b", "c"]
            .map(|name| Forged::self_signed(&Spec::ca(name), Key::p256()))
            .into()
    }

    /// The bundle of these authorities: digits, and `#` for a comment.
    fn bundle(authorities: &[Forged], text: &str) -> String {
        let part = |char: char| match char.to_digit(10) {
            Some(number) => authorities[number as usize].pem(),
            None => "# a comment\n\n".to_owned(),
        };
        text.chars().map(part).collect()
    }

    fn finding(trust: &str, of_pods: &str, server: &str, is_system: bool) -> Option<Finding> {
        let authorities = authorities();
        let trusted = CaBundle::parse_pem(bundle(&authorities, trust).as_bytes()).unwrap();
        let ca = if is_system { ServerTrust::System } else { ServerTrust::Given(trusted.clone()) };
        let server = Server::parse(server).unwrap();
        let connection = Connection { server, ca, ..request(&Case::new(&[])).connection };
        let data = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            bundle(&authorities, of_pods).replace('\n', "\r\n"),
        );
        let secret = FetchedObject::of(&serde_json::json!({"data": {"ca.crt": data}}));
        ca_differs(&connection, &trusted, &secret.cas)
    }

    const SERVER: &str = "https://a.example.com:6443";

    /// Columns: the CAs of the connection, those of pods.
    #[rstest]
    #[case::same("0", "0", None)]
    #[case::other_text("01", "#1#0#1", None)]
    #[case::none_in_the_secret("0", "", None)]
    #[case::no_certificate_in_the_secret("0", "#", None)]
    #[case::another("0", "2", Some((Severity::Medium, "with another CA, \"proxy\" (sha256:")))]
    #[case::another_of_the_same_name("0", "1", Some((Severity::Medium, "with another CA, \"kubernetes\" (sha256:")))]
    #[case::replacement_begun("0", "01", Some((Severity::Low, "also trust the CA \"kubernetes\" (sha256:")))]
    #[case::replacement_prepared("01", "0", Some((Severity::Info, "the connection also trusts the CA \"kubernetes\"")))]
    #[case::one_in_common("02", "01", Some((Severity::Low, "also trust the CA \"kubernetes\"")))]
    #[case::many("0", "12345", Some((Severity::Medium, " and 2 more, than users of the credential, \"kubernetes\"")))]
    fn sets_of_certificates_are_compared(
        #[case] trust: &str,
        #[case] of_pods: &str,
        #[case] expected: Option<(Severity, &str)>,
    ) {
        let found = finding(trust, of_pods, SERVER, false);
        assert_eq!(found.as_ref().map(|it| it.severity), expected.map(|(severity, _)| severity));
        let (text, part) = (found.map(|it| it.message).unwrap_or_default(), expected.map_or("", |(_, part)| part));
        assert!(text.contains(part), "{text}");
    }

    #[rstest]
    #[case::public_ca(SERVER, true, "0", "1", Some(Severity::Info))]
    #[case::path_of_a_proxy("https://a.example.com/k8s/clusters/c-1", false, "0", "1", Some(Severity::Info))]
    #[case::slash_alone("https://a.example.com/", false, "0", "1", Some(Severity::Medium))]
    #[case::path_and_one_in_common("https://a.example.com/k8s", false, "0", "01", Some(Severity::Low))]
    #[case::system_ca_that_pods_trust_too(SERVER, true, "0", "01", None)]
    fn another_ca_is_by_design_behind_a_proxy(
        #[case] server: &str,
        #[case] is_system: bool,
        #[case] trust: &str,
        #[case] of_pods: &str,
        #[case] severity: Option<Severity>,
    ) {
        assert_eq!(finding(trust, of_pods, server, is_system).map(|it| it.severity), severity);
    }
}
