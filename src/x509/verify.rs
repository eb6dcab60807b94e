//! Verification of a server certificate. Follows Go's crypto/x509 step by step (`Certificate.Verify`, `buildChains`,
//! `isValid`, `CheckSignatureFrom`, `checkChainForKeyUsage`), so that a server that kubectl trusts is trusted here, and
//! the other way round. Pure: time and cryptography are parameters.

use std::fmt;

use jiff::Timestamp;
use rustls::pki_types::SignatureVerificationAlgorithm;

use crate::{
    diagnostics::text::sanitize,
    x509::{ANY_USAGE, Certificate, SERVER, algorithm, host},
};

/// Number of signatures checked for one server (maxChainSignatureChecks).
const SIGNATURES: u8 = 100;

/// Why a server is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Unknown issuer: no trusted CA signed the certificate.
    UnknownIssuer {
        /// The issuer named in the certificate.
        issuer: String,
        /// Whether the CAs are from the system trust store.
        by_system: bool,
        /// Why the closest candidate was rejected.
        hint: Option<String>,
    },
    /// The certificate is not valid for the dialled host.
    WrongHost {
        /// The dialled host.
        host: String,
        /// The names that the certificate is valid for.
        names: String,
    },
    /// Any other reason.
    Other {
        /// The reason.
        cause: String,
        /// How to fix it.
        next: &'static str,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIssuer { issuer, by_system, hint } => {
                let who = match by_system {
                    true => "none of the system's CAs signed",
                    false => "the CA given for the server did not sign",
                };
                write!(f, "{who} the server's certificate, whose issuer is {issuer}")?;
                hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
            }
            Self::WrongHost { host, names } => {
                write!(f, "the server's certificate is not for the host {host}: {names}")
            }
            Self::Other { cause, .. } => f.write_str(cause),
        }
    }
}

impl std::error::Error for Flaw {}

impl Flaw {
    /// The next step, if it differs from the usual one.
    pub(crate) const fn next(&self) -> &'static str {
        match self {
            Self::UnknownIssuer { by_system: true, .. } => {
                "add the server's CA to the kubeconfig, or set SSL_CERT_FILE to a file with it, then run again"
            }
            Self::UnknownIssuer { .. } => {
                "set certificate-authority-data to the CA that signed the server's certificate, then run again"
            }
            Self::WrongHost { .. } => {
                "connect with a name that the certificate contains (a kubeconfig can set tls-server-name), or issue a \
                 certificate for this host"
            }
            Self::Other { next, .. } => next,
        }
    }
}

/// Everything that a server certificate is verified against.
pub(crate) struct Judge<'a> {
    /// The trusted CAs, in the given order.
    pub(crate) roots: &'a [Certificate<'a>],
    /// Whether they are from the system trust store.
    pub(crate) by_system: bool,
    /// The intermediate certificates that the server sent.
    pub(crate) intermediates: &'a [Certificate<'a>],
    /// The current time, in seconds of Unix time.
    pub(crate) now: i64,
    /// The supported signature algorithms.
    pub(crate) algorithms: &'a [&'static dyn SignatureVerificationAlgorithm],
}

/// The position of a certificate in a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Leaf,
    Intermediate,
    Root,
}

/// State of the search for a chain.
struct Search<'a> {
    left: u8,
    /// Why the first candidate was rejected.
    hint: Option<Flaw>,
    chain: Vec<&'a Certificate<'a>>,
}

impl<'a> Judge<'a> {
    /// Verifies the certificate of a server dialled by this name; returns the index of the CA that the chain ends with.
    pub(crate) fn judge(&self, leaf: &'a Certificate<'a>, host: &str) -> Result<usize, Flaw> {
        self.check(leaf, Role::Leaf, &[])?;
        if !host::matches(&leaf.extensions.names, host) {
            return Err(wrong_host(leaf, host));
        }
        if !self.is_usable(leaf) {
            let cause = format!("the server's certificate has {}, which is not supported", kind(leaf));
            return Err(Flaw::Other { cause, next: NEW_KEY });
        }
        let mut search = Search { left: SIGNATURES, hint: None, chain: vec![leaf] };
        if let Some(place) = self.roots.iter().position(|root| root.der == leaf.der) {
            return judge_chain(&search.chain).map(|()| place);
        }
        if let Some(place) = self.search(&mut search) {
            return Ok(place);
        }
        Err(search.hint.unwrap_or_else(|| self.unknown(leaf)))
    }

    fn search(&self, search: &mut Search<'a>) -> Option<usize> {
        let child = *search.chain.last()?;
        for (place, root) in candidates(self.roots, child) {
            if self.is_parent(search, root, Role::Root) {
                search.chain.push(root);
                let judged = judge_chain(&search.chain);
                search.chain.pop();
                match judged {
                    Ok(()) => return Some(place),
                    Err(flaw) => search.hint = Some(flaw), // closer to a chain than earlier candidates
                }
            }
        }
        for (_, intermediate) in candidates(self.intermediates, child) {
            if self.is_parent(search, intermediate, Role::Intermediate) {
                search.chain.push(intermediate);
                let found = self.search(search);
                search.chain.pop();
                if found.is_some() {
                    return found;
                }
                search.hint.get_or_insert_with(|| self.unknown(intermediate));
            }
        }
        None
    }

    /// Whether this certificate signed the last one of the chain and was allowed to.
    fn is_parent(&self, search: &mut Search<'a>, parent: &'a Certificate<'a>, role: Role) -> bool {
        let Some(left) = search.left.checked_sub(1) else { return false };
        search.left = left;
        let is_in = |it: &Certificate<'_>| {
            let same_names = it.extensions.alternative_names == parent.extensions.alternative_names;
            it.subject == parent.subject && it.key_info == parent.key_info && same_names
        };
        if search.chain.iter().any(|it| is_in(it)) {
            return false;
        }
        let Some(child) = search.chain.last() else { return false };
        let judged = self.check_signature(child, parent, role).and_then(|()| self.check(parent, role, &search.chain));
        match judged {
            Ok(()) => true,
            Err(flaw) => {
                search.hint.get_or_insert(flaw);
                false
            }
        }
    }

    fn check(&self, it: &Certificate<'_>, role: Role, chain: &[&Certificate<'_>]) -> Result<(), Flaw> {
        let who = || who(it, role);
        if let Some(id) = it.extensions.unhandled.first() {
            let cause = format!("{} has the critical extension {id}, which is not supported", who());
            return Err(Flaw::Other { cause, next: "reissue the certificate without this extension, then run again" });
        }
        let (from, until) = it.valid;
        if self.now < from {
            let cause = format!("{} is not valid before {}; the local time is {}", who(), time(from), time(self.now));
            return Err(Flaw::Other { cause, next: "check the clocks on both sides, then run again" });
        }
        if self.now > until {
            let cause = format!("{} expired at {}; the local time is {}", who(), time(until), time(self.now));
            return Err(Flaw::Other { cause, next: "renew the certificate, then run again" });
        }
        let basic = it.extensions.basic;
        if role == Role::Intermediate && !basic.is_some_and(|basic| basic.ca) {
            return Err(no_ca(it, role));
        }
        if let Some(longest) = basic.and_then(|basic| basic.longest_path)
            && u32::try_from(chain.len().saturating_sub(1)).is_ok_and(|between| between > longest)
        {
            let cause = format!("{} allows at most {longest} CAs beneath it (pathlen), and there are more", who());
            return Err(Flaw::Other {
                cause,
                next: "reissue the server's certificate from a CA that may sign it, then run again",
            });
        }
        Ok(())
    }

    fn check_signature(&self, child: &Certificate<'_>, parent: &Certificate<'_>, role: Role) -> Result<(), Flaw> {
        let is_ca = match parent.extensions.basic {
            Some(basic) => basic.ca,
            None => parent.version < 3,
        };
        if !is_ca || parent.extensions.may_sign == Some(false) {
            return Err(no_ca(parent, role));
        }
        let mut fitting = self.algorithms.iter().filter(|algorithm| {
            algorithm.signature_alg_id().as_ref() == child.algorithm
                && algorithm.public_key_alg_id().as_ref() == parent.key_algorithm
        });
        let Some(fitting) = fitting.next().filter(|_| self.is_usable(parent)) else {
            let cause = format!(
                "the certificate {} is signed by {} with {}: {}, which is not accepted",
                child.subject(),
                parent.subject(),
                kind(parent),
                algorithm::signature(child.algorithm),
            );
            return Err(Flaw::Other { cause, next: NEW_SIGNATURE });
        };
        fitting.verify_signature(parent.key, child.signed, child.signature).map_err(|_| Flaw::UnknownIssuer {
            issuer: child.issuer(),
            by_system: self.by_system,
            hint: Some(
                "a CA of that name was given, but with another key: it was renewed, or belongs to another cluster"
                    .to_owned(),
            ),
        })
    }

    /// Whether the key of a certificate is supported for verifying.
    fn is_usable(&self, it: &Certificate<'_>) -> bool {
        let known = self.algorithms.iter().any(|known| known.public_key_alg_id().as_ref() == it.key_algorithm);
        known && algorithm::is_fit(it.key_algorithm, it.key)
    }

    /// The error if no trusted CA has the issuer's name.
    fn unknown(&self, it: &Certificate<'_>) -> Flaw {
        let hint = match self.roots {
            [] => None,
            [only] => Some(format!("the CA given is {}", only.subject())),
            [first, ..] => Some(format!("{} CAs are given, the first one is {}", self.roots.len(), first.subject())),
        };
        let is_self_signed = it.issuer == it.subject;
        let hint = match hint {
            Some(hint) if is_self_signed => Some(format!("it is self-signed, and {hint}")),
            hint => hint,
        };
        let hint = if self.by_system { is_self_signed.then(|| "it is self-signed".to_owned()) } else { hint };
        Flaw::UnknownIssuer { issuer: it.issuer(), by_system: self.by_system, hint }
    }
}

const NEW_KEY: &str =
    "reissue it with a supported key: RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519";
const NEW_SIGNATURE: &str = "reissue the certificate with a signature of SHA-256, SHA-384 or SHA-512, from a CA whose \
                             key is RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519";

/// Issuers by name, those with a matching key identifier first.
fn candidates<'a>(
    among: &'a [Certificate<'a>],
    child: &Certificate<'_>,
) -> impl Iterator<Item = (usize, &'a Certificate<'a>)> {
    let wanted = child.extensions.issuer_key_id;
    let rank = |it: &Certificate<'_>| match it.extensions.key_id {
        id if id == wanted => 0,
        id if id.is_empty() != wanted.is_empty() => 1,
        _ => 2,
    };
    let mut found: Vec<_> = among.iter().enumerate().filter(|(_, it)| it.subject == child.issuer).collect();
    found.sort_by_key(|(_, it)| rank(it));
    found.into_iter()
}

/// Checks on a whole chain, leaf first: usable for servers, and within the name constraints of each CA.
fn judge_chain(chain: &[&Certificate<'_>]) -> Result<(), Flaw> {
    let last = chain.len() - 1;
    let role = |place| match place {
        0 => Role::Leaf,
        place if place == last => Role::Root,
        _ => Role::Intermediate,
    };
    for (place, it) in chain.iter().enumerate() {
        let usages = &it.extensions.usages;
        if !usages.is_empty() && !usages.contains(&ANY_USAGE) && !usages.contains(&SERVER) {
            let cause = format!("{} is not for servers: its extended key usage lacks serverAuth", who(it, role(place)));
            return Err(Flaw::Other {
                cause,
                next: "reissue the certificate with the extended key usage serverAuth, then run again",
            });
        }
        let constraints = &it.extensions.constraints;
        if constraints.is_empty() {
            continue;
        }
        let names = chain[..place].iter().flat_map(|beneath| &beneath.extensions.names);
        if let Some(name) = names.into_iter().find(|name| !constraints.allow(name)) {
            let name = host::list_names(std::slice::from_ref(name)).unwrap_or_else(|| "a name".to_owned());
            let cause =
                format!("{} may not sign for {name}: its name constraints exclude that name", who(it, role(place)));
            return Err(Flaw::Other {
                cause,
                next: "reissue the server's certificate without this name, or from another CA",
            });
        }
    }
    Ok(())
}

fn wrong_host(leaf: &Certificate<'_>, host: &str) -> Flaw {
    let names = match host::list_names(&leaf.extensions.names) {
        Some(names) => format!("it is for {names}"),
        None => format!("it has no alternative names, and its common name {} is ignored", leaf.subject()),
    };
    Flaw::WrongHost { host: sanitize(host, 120), names }
}

fn no_ca(it: &Certificate<'_>, role: Role) -> Flaw {
    let cause = format!(
        "{} may not sign certificates: its basic constraints or its key usage do not mark it as a CA",
        who(it, role)
    );
    Flaw::Other {
        cause,
        next: "put the CA that signed the certificate, or the server's own certificate, into the connection, or \
               reissue the CA as one",
    }
}

fn who(it: &Certificate<'_>, role: Role) -> String {
    match role {
        Role::Leaf => "the server's certificate".to_owned(),
        Role::Intermediate => format!("the intermediate CA {}", it.subject()),
        Role::Root => format!("the CA {}", it.subject()),
    }
}

fn kind(it: &Certificate<'_>) -> String {
    algorithm::key(it.key_algorithm, it.key)
}

fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| "a time out of range".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use testbed::{Forged, Key, Spec, extension};

    /// A time at which the certificates of these tests are valid.
    const NOW: i64 = 1_800_000_000;

    fn judged(leaf: &[u8], sent: &[&[u8]], root: &[u8]) -> Result<usize, Flaw> {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
        let parse = |der| Certificate::parse(der).map_err(|_| Flaw::Other { cause: String::new(), next: "" });
        let (leaf, root) = (parse(leaf)?, [parse(root)?]);
        let sent = sent.iter().map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
        Judge { roots: &root, by_system: false, intermediates: &sent, now: NOW, algorithms }.judge(&leaf, "127.0.0.1")
    }

    /// Many CAs that have all signed each other must not keep the search busy.
    #[test]
    fn chain_search_with_cross_signed_cas_ends() {
        let root = Forged::self_signed(&Spec::ca("root"), Key::p256());
        let keys: Vec<Key> = (0..12).map(|_| Key::p256()).collect();
        let mesh: Vec<Forged> = keys
            .iter()
            .flat_map(|signer| {
                keys.iter().map(|key| {
                    Forged::signed_by(
                        &Forged::self_signed(&Spec::ca("mesh"), signer.again()),
                        &Spec::ca("mesh"),
                        key.again(),
                    )
                })
            })
            .collect();
        let leaf = Forged::signed_by(&mesh[0], &Spec::server(), Key::p256());
        let sent: Vec<&[u8]> = mesh.iter().map(|it| it.der.as_slice()).collect();
        assert!(matches!(judged(&leaf.der, &sent, &root.der), Err(Flaw::UnknownIssuer { .. })));
    }

    /// Chains that Go rejects although every signature is correct.
    #[rstest]
    #[case::key_id("2.5.29.14", true, &[4, 1, 1], false)]
    #[case::valid_key_id("2.5.29.14", false, &[4, 1, 1], true)]
    #[case::issuer_key_id("2.5.29.35", true, &[0x30, 3, 0x80, 1, 1], false)]
    #[case::a_policy_is_demanded("2.5.29.36", false, &[0x30, 3, 0x80, 1, 0], false)]
    #[case::a_policy_is_not_mapped("2.5.29.36", false, &[0x30, 3, 0x81, 1, 0], true)]
    #[case::invalid_boolean("2.5.29.19", true, &[0x30, 3, 1, 1, 1], false)]
    #[case::a_path_length_of_two_forms("2.5.29.19", true, &[0x30, 7, 1, 1, 0xff, 2, 2, 0, 1], false)]
    #[case::a_path_length("2.5.29.19", true, &[0x30, 6, 1, 1, 0xff, 2, 1, 1], true)]
    #[case::usage_filled_up_with_ones("2.5.29.15", true, &[3, 2, 3, 0x04], false)]
    fn ca_extensions_are_accepted_or_refused(
        #[case] id: &str,
        #[case] critical: bool,
        #[case] value: &[u8],
        #[case] taken: bool,
    ) {
        let mut ca = Spec::new("root").with(extension::other(id, critical, value));
        if id != "2.5.29.19" {
            ca = ca.with(extension::basic(true, None));
        }
        let root = Forged::self_signed(&ca, Key::p256());
        let leaf = Forged::signed_by(&root, &Spec::server(), Key::p256());
        assert_eq!(judged(&leaf.der, &[], &root.der).is_ok(), taken);
    }

    #[rstest]
    #[case::of_no_bytes(&[], false)]
    #[case::with_a_zero_too_many(&[0, 7], false)]
    #[case::of_one_byte(&[7], true)]
    fn serial_numbers_are_accepted_or_refused(#[case] serial: &[u8], #[case] taken: bool) {
        let root = Forged::self_signed(&Spec::ca("root"), Key::p256());
        let leaf = Forged::signed_by(&root, &Spec { serial: serial.to_vec(), ..Spec::server() }, Key::p256());
        assert_eq!(judged(&leaf.der, &[], &root.der).is_ok(), taken);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Changes one byte at a time: nothing panics, and no certificate that its CA did not sign is accepted.
        #[test]
        fn altered_certificate_is_not_trusted(at in any::<prop::sample::Index>(), bits in 1..=255_u8, whose in 0..2) {
            static CHAIN: std::sync::LazyLock<[Vec<u8>; 3]> = std::sync::LazyLock::new(|| {
                let root = Forged::self_signed(&Spec::ca("root"), Key::p256());
                let middle = Forged::signed_by(&root, &Spec::ca("middle"), Key::p256());
                let leaf = Forged::signed_by(&middle, &Spec::server(), Key::p256());
                [leaf.der, middle.der, root.der]
            });
            let [leaf, middle, root] = &*CHAIN;
            prop_assert_eq!(judged(leaf, &[middle], root), Ok(0));
            let (mut leaf, mut middle) = (leaf.clone(), middle.clone());
            let changed = if whose == 0 { &mut leaf } else { &mut middle };
            let at = at.index(changed.len());
            changed[at] ^= bits;
            prop_assert!(judged(&leaf, &[&middle], root).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_parsed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Certificate::parse(&bytes);
        }
    }
}
