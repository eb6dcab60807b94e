//! Server certificates, and the CAs that they are verified against.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use testbed::{ControlPlane, Forged, FrontOptions, Key, Sign, Spec, TlsFront, extension};

use crate::{certificates::table::Row, desk::admin};

const EXPIRED: (&str, &str) = ("20200101000000Z", "20210101000000Z");
const FUTURE: (&str, &str) = ("20980101000000Z", "20991231235959Z");

/// A server to try.
struct Case<'a> {
    what: &'static str,
    chain: Vec<&'a Forged>,
    ca: String,
    host: &'static str,
    name: Option<&'static str>,
    refused: Option<(&'static str, &'static str)>,
    differs: Option<&'static str>,
}

impl<'a> Case<'a> {
    fn new(what: &'static str, chain: &[&'a Forged], ca: impl Into<String>) -> Self {
        let (chain, ca) = (chain.to_vec(), ca.into());
        Self { what, chain, ca, host: "127.0.0.1", name: None, refused: None, differs: None }
    }

    fn refused(mut self, code: &'static str, words: &'static str) -> Self {
        self.refused = Some((code, words));
        self
    }

    fn unlike_kubectl(mut self, reason: &'static str) -> Self {
        self.differs = Some(reason);
        self
    }

    /// `tls-server-name` in the kubeconfig.
    fn called(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    fn at(mut self, host: &'static str) -> Self {
        self.host = host;
        self
    }

    fn row(self, cp: &ControlPlane, system: bool) -> Row {
        let front = TlsFront::start(cp, &self.chain, FrontOptions::default());
        let mut cluster = json!({"server": front.server(self.host)});
        if !system {
            cluster["certificate-authority-data"] = json!(STANDARD.encode(&self.ca));
        }
        if let Some(name) = self.name {
            cluster["tls-server-name"] = Value::from(name);
        }
        Row {
            what: self.what,
            cluster,
            user: admin(cp),
            system: system.then_some(self.ca),
            refused: self.refused,
            differs: self.differs,
            front: Some(front),
        }
    }
}

fn server(issuer: &Forged, spec: &Spec) -> Forged {
    Forged::signed_by(issuer, spec, Key::p256())
}

/// A server with these names.
fn named(names: Vec<u8>) -> Spec {
    Spec::new("localhost").with(names)
}

/// Every CA and server of these rows; borrowed values must live until the servers are started.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn given(cp: &ControlPlane) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |case: Case<'_>| rows.push(case.row(cp, false));
    let ca = Forged::self_signed(&Spec::ca("CA"), Key::p256());
    let good = Spec::server();

    // Keys of servers.
    let keyed = |key: Key| Forged::signed_by(&ca, &good, key);
    for (what, key) in [
        ("server with RSA of 2048 bits", Key::rsa(2048)),
        ("server with RSA of 2560 bits", Key::rsa(2560)),
        ("server with RSA of 3072 bits", Key::rsa(3072)),
        ("server with RSA of 4096 bits", Key::rsa(4096)),
        ("server with ECDSA on P-256", Key::p256()),
        ("server with ECDSA on P-384", Key::p384()),
        ("server with ECDSA on P-521", Key::p521()),
        ("server with Ed25519", Key::ed25519()),
    ] {
        add(Case::new(what, &[&keyed(key)], ca.pem()));
    }

    // Keys and signatures of CAs.
    for (what, key, sign, refused, differs) in [
        ("CA with RSA of 2048 bits, SHA-256", Key::rsa(2048), Sign::Sha256, None, None),
        ("CA with RSA of 2048 bits, SHA-384", Key::rsa(2048), Sign::Sha384, None, None),
        ("CA with RSA of 2048 bits, SHA-512", Key::rsa(2048), Sign::Sha512, None, None),
        ("CA with RSA of 3072 bits, SHA-256", Key::rsa(3072), Sign::Sha256, None, None),
        ("CA with RSA of 2048 bits, SHA-1", Key::rsa(2048), Sign::Sha1, Some("SHA-1 with RSA"), None),
        (
            "CA with RSA of 1024 bits, SHA-256",
            Key::rsa(1024),
            Sign::Sha256,
            Some("an RSA key of 1024 bits"),
            Some("RSA below 2048 bits can be broken, and the cryptography used here does not do it"),
        ),
        ("CA with ECDSA on P-384", Key::p384(), Sign::Sha256, None, None),
        ("CA with ECDSA on P-521", Key::p521(), Sign::Sha256, None, None),
        ("CA with Ed25519", Key::ed25519(), Sign::Sha256, None, None),
    ] {
        let ca = Forged::self_signed(&Spec::ca("CA"), key);
        let leaf = server(&ca, &Spec { sign, ..good.clone() });
        let case = Case::new(what, &[&leaf], ca.pem());
        let case = refused.into_iter().fold(case, |case, words| case.refused("tls", words));
        add(differs.into_iter().fold(case, Case::unlike_kubectl));
    }

    // Versions.
    let old = |name| Spec { version: 1, ..Spec::new(name) };
    let old_ca = Forged::self_signed(&old("CA"), Key::p256());
    let old_middle = Forged::signed_by(&ca, &old("middle"), Key::p256());
    add(Case::new("CA of X.509 version 1", &[&server(&old_ca, &good)], old_ca.pem()));
    add(Case::new("intermediate CA of X.509 version 1", &[&server(&old_middle, &good), &old_middle], ca.pem())
        .refused("tls", "the intermediate CA \"middle\" may not sign certificates"));
    add(Case::new("server of X.509 version 1", &[&server(&ca, &old("127.0.0.1"))], ca.pem())
        .refused("tls", "no alternative names, and its common name \"127.0.0.1\" is ignored"));

    // Issuers.
    let own = Forged::self_signed(&Spec::ca("localhost").with(extension::names(&[], &[&[127, 0, 0, 1]])), Key::p256());
    add(Case::new("self-signed, a CA (`openssl req -x509`), given as the CA", &[&own], own.pem()));
    add(Case::new("self-signed, a CA, not given", &[&own], ca.pem()).refused("tls-unknown-issuer", "self-signed"));
    let own = Forged::self_signed(&good, Key::p256());
    add(Case::new("self-signed, no CA, given as the CA", &[&own], own.pem()));
    let own = Forged::self_signed(&named(extension::names(&[], &[&[127, 0, 0, 1]])), Key::p256());
    add(Case::new("self-signed, without basic constraints, given as the CA", &[&own], own.pem()));
    let own = Forged::self_signed(&Spec { valid: EXPIRED, ..good.clone() }, Key::p256());
    add(Case::new("self-signed, expired, given as the CA", &[&own], own.pem()).refused("tls", "expired at 2021-01-01"));
    let leaf = server(&ca, &good);
    add(Case::new("signed by a CA, itself given as the CA", &[&leaf], leaf.pem()));
    let mighty = server(&ca, &Spec::ca("localhost").with(extension::names(&[], &[&[127, 0, 0, 1]])));
    add(Case::new("signed by the CA given, and a CA itself", &[&mighty], ca.pem()));
    let other = Forged::self_signed(&Spec::ca("another CA"), Key::p256());
    add(Case::new("signed by another CA", &[&leaf], other.pem())
        .refused("tls-unknown-issuer", "whose issuer is \"CA\"; the CA given is \"another CA\""));
    let namesake = Forged::self_signed(&Spec::ca("CA"), Key::p256());
    add(Case::new("signed by a CA of the same name with another key", &[&leaf], namesake.pem())
        .refused("tls-unknown-issuer", "with another key"));
    add(Case::new("several CAs, the second one is it", &[&leaf], other.pem() + &ca.pem()));
    add(Case::new("several CAs of the same name, the second one is it", &[&leaf], namesake.pem() + &ca.pem()));
    add(Case::new("several CAs, none is it", &[&leaf], other.pem() + &namesake.pem())
        .refused("tls-unknown-issuer", "with another key"));

    // Intermediates.
    let middle = Forged::signed_by(&ca, &Spec::ca("middle"), Key::p256());
    let deep = server(&middle, &good);
    add(Case::new("intermediate CA sent", &[&deep, &middle], ca.pem()));
    add(Case::new("intermediate CA sent after others", &[&deep, &other, &ca, &middle], ca.pem()));
    add(Case::new("intermediate CA not sent", &[&deep], ca.pem())
        .refused("tls-unknown-issuer", "whose issuer is \"middle\"; the CA given is \"CA\""));
    add(Case::new("intermediate CA given as the CA", &[&deep], middle.pem()));
    let lower = Forged::signed_by(&middle, &Spec::ca("lower"), Key::p256());
    add(Case::new("two intermediate CAs", &[&server(&lower, &good), &lower, &middle], ca.pem()));
    let short = Forged::self_signed(
        &Spec::new("CA").with(extension::basic(true, Some(0))).with(extension::key_usage(true)),
        Key::p256(),
    );
    let beneath = Forged::signed_by(&short, &Spec::ca("middle"), Key::p256());
    add(Case::new("path length 0, no intermediate CA", &[&server(&short, &good)], short.pem()));
    add(Case::new("path length 0, an intermediate CA", &[&server(&beneath, &good), &beneath], short.pem())
        .refused("tls", "allows at most 0 CAs beneath it"));
    let twin = Key::p256();
    let root_twin = Forged::self_signed(&Spec::ca("twin"), twin.again());
    let crossed = Forged::signed_by(&other, &Spec::ca("twin"), twin);
    let leaf_twin = server(&root_twin, &good);
    add(Case::new("cross-signed, the new root is given", &[&leaf_twin, &crossed], root_twin.pem()));
    add(Case::new("cross-signed, the old root is given", &[&leaf_twin, &crossed], other.pem()));

    // Authority to sign.
    let no_ca = Forged::self_signed(&Spec::new("CA").with(extension::basic(false, None)), Key::p256());
    add(Case::new("CA that is none by its basic constraints", &[&server(&no_ca, &good)], no_ca.pem())
        .refused("tls", "the CA \"CA\" may not sign certificates"));
    let silent = Forged::self_signed(&Spec::new("CA"), Key::p256());
    add(Case::new("CA without basic constraints", &[&server(&silent, &good)], silent.pem())
        .refused("tls", "the CA \"CA\" may not sign certificates"));
    let weak = Spec::new("CA").with(extension::basic(true, None)).with(extension::key_usage(false));
    let weak = Forged::self_signed(&weak, Key::p256());
    add(Case::new("CA whose key usage is without keyCertSign", &[&server(&weak, &good)], weak.pem())
        .refused("tls", "the CA \"CA\" may not sign certificates"));

    // Extended key usage.
    let used = |ids: &[&str]| named(extension::names(&[], &[&[127, 0, 0, 1]])).with(extension::usages(ids));
    for (what, ids, refused) in [
        ("extended key usage serverAuth and clientAuth", &[extension::SERVER, extension::CLIENT][..], false),
        ("extended key usage any", &[extension::ANY], false),
        ("extended key usage clientAuth only", &[extension::CLIENT], true),
        ("extended key usage of one's own only", &["1.3.6.1.4.1.99999.1"], true),
    ] {
        let leaf = server(&ca, &used(ids));
        let case = Case::new(what, &[&leaf], ca.pem());
        add(if refused { case.refused("tls", "lacks serverAuth") } else { case });
    }
    let plain = server(&ca, &named(extension::names(&[], &[&[127, 0, 0, 1]])));
    add(Case::new("no extended key usage", &[&plain], ca.pem()));
    let clients = Forged::self_signed(&Spec::ca("CA").with(extension::usages(&[extension::CLIENT])), Key::p256());
    add(Case::new("CA with the extended key usage clientAuth only", &[&server(&clients, &good)], clients.pem())
        .refused("tls", "the CA \"CA\" is not for servers"));

    // Time.
    add(Case::new("server expired", &[&server(&ca, &Spec { valid: EXPIRED, ..good.clone() })], ca.pem())
        .refused("tls", "the server's certificate expired at 2021-01-01T00:00:00Z"));
    add(Case::new("server not yet valid", &[&server(&ca, &Spec { valid: FUTURE, ..good.clone() })], ca.pem())
        .refused("tls", "the server's certificate is not valid before 2098-01-01T00:00:00Z"));
    let past = Forged::self_signed(&Spec { valid: EXPIRED, ..Spec::ca("CA") }, Key::p256());
    add(Case::new("CA expired", &[&server(&past, &good)], past.pem()).refused("tls", "the CA \"CA\" expired at 2021"));
    let future = Forged::self_signed(&Spec { valid: FUTURE, ..Spec::ca("CA") }, Key::p256());
    add(Case::new("CA not yet valid", &[&server(&future, &good)], future.pem())
        .refused("tls", "the CA \"CA\" is not valid before"));
    let past = Forged::signed_by(&ca, &Spec { valid: EXPIRED, ..Spec::ca("middle") }, Key::p256());
    add(Case::new("intermediate CA expired", &[&server(&past, &good), &past], ca.pem())
        .refused("tls", "the intermediate CA \"middle\" expired"));

    // Names.
    let address = server(&ca, &named(extension::names(&["localhost"], &[])));
    add(Case::new("address dialled, only a DNS name in it", &[&address], ca.pem())
        .refused("tls", "not for the host 127.0.0.1: it is for localhost"));
    add(Case::new("DNS name dialled, and in it", &[&address], ca.pem()).at("localhost"));
    let only = server(&ca, &named(extension::names(&[], &[&[127, 0, 0, 1]])));
    add(Case::new("DNS name dialled, only an address in it", &[&only], ca.pem())
        .at("localhost")
        .refused("tls", "not for the host localhost: it is for 127.0.0.1"));
    let text = server(&ca, &named(extension::names(&["127.0.0.1"], &[])));
    add(Case::new("address written as a DNS name", &[&text], ca.pem()).refused("tls", "not for the host 127.0.0.1"));
    let common = server(&ca, &Spec::new("localhost").with(extension::basic(false, None)));
    add(Case::new("common name only", &[&common], ca.pem())
        .at("localhost")
        .refused("tls", "no alternative names, and its common name \"localhost\" is ignored"));
    let six: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let six = server(&ca, &named(extension::names(&[], &[six])));
    add(Case::new("IPv6 address as `tls-server-name`", &[&six], ca.pem()).called("::1"));
    for (what, pattern, name, fits) in [
        ("`tls-server-name` in it", "api.example.com", "api.example.com", true),
        ("`tls-server-name` not in it", "api.example.com", "web.example.com", false),
        ("upper and lower case", "API.example.com", "api.EXAMPLE.com", true),
        ("wildcard, one label", "*.example.com", "api.example.com", true),
        ("wildcard, two labels", "*.example.com", "a.api.example.com", false),
        ("wildcard, no label", "*.example.com", "example.com", false),
        ("wildcard in a part of a label", "a*.example.com", "api.example.com", false),
        ("wildcard in the second label", "api.*.com", "api.example.com", false),
        ("wildcard alone", "*", "localhost", false),
        ("underscore in a name", "api_1.example.com", "api_1.example.com", true),
    ] {
        let leaf = server(&ca, &named(extension::names(&[pattern], &[])));
        let case = Case::new(what, &[&leaf], ca.pem()).called(name);
        add(if fits { case } else { case.refused("tls", "is not for the host") });
    }

    // Name constraints.
    let loopback: &[u8] = &[127, 0, 0, 0, 255, 0, 0, 0];
    let ten: &[u8] = &[10, 0, 0, 0, 255, 0, 0, 0];
    let local: &[u8] = b"localhost";
    for (what, permitted, excluded, refused) in [
        ("name constraints that permit it", &[(0x82_u8, local), (0x87, loopback)][..], &[][..], None),
        (
            "name constraints that permit another domain",
            &[(0x82, &b"example.com"[..])],
            &[],
            Some("may not sign for localhost"),
        ),
        ("name constraints that permit other addresses", &[(0x87, ten)], &[], Some("may not sign for 127.0.0.1")),
        ("name constraints that exclude it", &[], &[(0x82, local)], Some("may not sign for localhost")),
        ("name constraints that exclude another domain", &[], &[(0x82, &b"example.com"[..])], None),
        (
            "name constraints of a kind that is not understood",
            &[(0xa4, &[0x30, 0][..])],
            &[],
            Some("critical extension 2.5.29.30"),
        ),
    ] {
        let spec = Spec::ca("CA").with(extension::constraints(permitted, excluded));
        let ca = Forged::self_signed(&spec, Key::p256());
        let leaf = server(&ca, &good);
        let case = Case::new(what, &[&leaf], ca.pem());
        add(refused.into_iter().fold(case, |case, words| case.refused("tls", words)));
    }

    // Unusual ones.
    let odd = |critical| good.clone().with(extension::other("1.3.6.1.4.1.99999.2", critical, &[5, 0]));
    add(Case::new("unknown extension", &[&server(&ca, &odd(false))], ca.pem()));
    add(Case::new("unknown critical extension", &[&server(&ca, &odd(true))], ca.pem())
        .refused("tls", "critical extension 1.3.6.1.4.1.99999.2"));
    let strange = Spec::ca("CA").with(extension::other("1.3.6.1.4.1.99999.2", true, &[5, 0]));
    let strange = Forged::self_signed(&strange, Key::p256());
    add(Case::new("CA with an unknown critical extension", &[&server(&strange, &good)], strange.pem())
        .refused("tls", "the CA \"CA\" has the critical extension"));
    let serial = |bytes: &[u8]| server(&ca, &Spec { serial: bytes.to_vec(), ..good.clone() });
    add(Case::new("serial number 0", &[&serial(&[0])], ca.pem()));
    add(Case::new("serial number of 30 bytes", &[&serial(&[1; 30])], ca.pem()));
    add(Case::new("negative serial number", &[&serial(&[0xff])], ca.pem()).refused("tls", "negative serial number"));
    let twice = good.clone().with(extension::names(&["localhost"], &[]));
    add(Case::new("an extension twice", &[&server(&ca, &twice)], ca.pem()).refused("tls", "an extension twice"));

    // The CA file.
    let junk = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    add(Case::new("CA beside one that cannot be read", &[&leaf], junk.to_owned() + &ca.pem()));
    add(Case::new("CA with text around it", &[&leaf], format!("subject=CN = CA\n{}\nend\n", ca.pem())));
    add(Case::new("CA with lines that end with CR LF", &[&leaf], ca.pem().replace('\n', "\r\n")));
    add(Case::new("CA that cannot be read", &[&leaf], junk).refused("input-refused", "no readable certificate"));
    rows
}

/// Rows without a CA in the kubeconfig.
pub fn system(cp: &ControlPlane) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |case: Case<'_>| rows.push(case.row(cp, true));
    let ca = Forged::self_signed(&Spec::ca("CA"), Key::p256());
    let other = Forged::self_signed(&Spec::ca("another CA"), Key::p256());
    let good = Spec::server();
    let leaf = server(&ca, &good);
    add(Case::new("CA among others", &[&leaf], other.pem() + &ca.pem()));
    let old = Forged::self_signed(&Spec { version: 1, ..Spec::new("CA") }, Key::p256());
    add(Case::new("CA of X.509 version 1", &[&server(&old, &good)], old.pem()));
    let own = Forged::self_signed(&Spec::ca("localhost").with(extension::names(&[], &[&[127, 0, 0, 1]])), Key::p256());
    add(Case::new("self-signed, a CA", &[&own], other.pem() + &own.pem()));
    add(Case::new("signed by a CA, itself among the CAs", &[&leaf], leaf.pem()));
    let large = Forged::self_signed(&Spec::ca("CA"), Key::p521());
    add(Case::new("CA with ECDSA on P-521", &[&server(&large, &good)], large.pem()));
    let past = Forged::self_signed(&Spec { valid: EXPIRED, ..Spec::ca("CA") }, Key::p256());
    add(Case::new("CA expired", &[&server(&past, &good)], past.pem()).refused("tls", "the CA \"CA\" expired"));
    add(Case::new("signed by another CA", &[&leaf], other.pem())
        .refused("tls-unknown-issuer", "none of the system's CAs signed the server's certificate"));
    rows
}
