//! Client certificates and keys in every format, tried at the API server itself.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use testbed::{ControlPlane, Forged, Key, Spec, extension};

use crate::{certificates::table::Row, desk::cluster};

/// A client certificate of an administrator.
fn administrator(cp: &ControlPlane, key: Key) -> Forged {
    let spec = Spec { groups: vec!["system:masters".to_owned()], ..Spec::new("alice") };
    Forged::signed_by(cp, &spec.with(extension::usages(&[extension::CLIENT])), key)
}

fn user(certificate: &str, key: &str) -> Value {
    json!({"client-certificate-data": STANDARD.encode(certificate), "client-key-data": STANDARD.encode(key)})
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub fn rows(cp: &ControlPlane) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut add = |what, user| {
        rows.push(Row { what, cluster: cluster(cp), user, system: None, refused: None, differs: None, front: None });
    };

    // Keys.
    for (what, key) in [
        ("RSA of 2048 bits, PKCS#8", Key::rsa(2048)),
        ("RSA of 2560 bits, PKCS#8", Key::rsa(2560)),
        ("RSA of 3072 bits, PKCS#8", Key::rsa(3072)),
        ("RSA of 4096 bits, PKCS#8", Key::rsa(4096)),
        ("ECDSA on P-256, PKCS#8", Key::p256()),
        ("ECDSA on P-384, PKCS#8", Key::p384()),
        ("ECDSA on P-521, PKCS#8", Key::p521()),
        ("Ed25519, PKCS#8", Key::ed25519()),
    ] {
        let it = administrator(cp, key);
        add(what, user(&it.pem(), &it.key.pem()));
    }
    for (what, key, with_public_key) in [
        ("RSA of 2048 bits, PKCS#1", Key::rsa(2048), true),
        ("RSA of 3072 bits, PKCS#1", Key::rsa(3072), true),
        ("ECDSA on P-256, SEC 1", Key::p256(), true),
        ("ECDSA on P-384, SEC 1", Key::p384(), true),
        ("ECDSA on P-521, SEC 1", Key::p521(), true),
        ("ECDSA on P-256, SEC 1 without the public key", Key::p256(), false),
        ("ECDSA on P-384, SEC 1 without the public key", Key::p384(), false),
    ] {
        let it = administrator(cp, key);
        add(what, user(&it.pem(), &it.key.traditional_pem(with_public_key)));
    }

    // Certificates.
    let masters = |version| Spec { version, groups: vec!["system:masters".to_owned()], ..Spec::new("alice") };
    for (what, version) in [
        ("certificate of X.509 version 1 (MicroK8s)", 1),
        ("certificate of X.509 version 2", 2),
        ("certificate without an extension", 3),
    ] {
        let it = Forged::signed_by(cp, &masters(version), Key::rsa(2048));
        add(what, user(&it.pem(), &it.key.pem()));
    }
    let strange = masters(3).with(extension::other("1.3.6.1.4.1.99999.2", false, &[5, 0]));
    let it = Forged::signed_by(cp, &strange, Key::p256());
    add("certificate with an unknown extension", user(&it.pem(), &it.key.pem()));

    // Files.
    let it = administrator(cp, Key::p256());
    let (certificate, key) = (it.pem(), it.key.traditional_pem(true));
    let both = format!("{certificate}{key}");
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    add("certificate and key in one file", user(&both, &both));
    add("the key first in it", user(&format!("{key}{certificate}"), &format!("{key}{certificate}")));
    add("certificate with its CA after it", user(&format!("{certificate}{}", cp.ca_pem()), &key));
    add("text around the blocks", user(&format!("Certificate:\n    Data:\n{certificate}"), &format!("Key\n{key}\n")));
    add("lines that end with CR LF", user(&certificate.replace('\n', "\r\n"), &key.replace('\n', "\r\n")));
    add("no line break at the end", user(certificate.trim_end(), key.trim_end()));
    add("`EC PARAMETERS` before the key", user(&certificate, &format!("{parameters}{key}")));
    add(
        "PKCS#8 that calls itself `RSA PRIVATE KEY`",
        user(&certificate, &it.key.pem().replace("PRIVATE", "RSA PRIVATE")),
    );
    add(
        "PKCS#8 that calls itself encrypted and is not",
        user(&certificate, &it.key.pem().replace("PRIVATE", "ENCRYPTED PRIVATE")),
    );
    add("SEC 1 that calls itself `PRIVATE KEY`", user(&certificate, &key.replace("EC PRIVATE", "PRIVATE")));

    // Refused.
    let mut refuse = |what, user, code, words, differs| {
        let refused = Some((code, words));
        rows.push(Row { what, cluster: cluster(cp), user, system: None, refused, differs, front: None });
    };
    let small = administrator(cp, Key::rsa(1024));
    refuse(
        "RSA of 1024 bits",
        user(&small.pem(), &small.key.pem()),
        "input-refused",
        "an RSA key of 1024 bits",
        Some("RSA below 2048 bits can be broken, and the cryptography used here does not do it"),
    );
    let chain = format!("{}{certificate}", cp.ca_pem());
    refuse(
        "certificate with its CA before it",
        user(&chain, &key),
        "input-refused",
        "belongs to another certificate",
        None,
    );
    let other = Key::p256().pem();
    refuse(
        "key of another certificate",
        user(&certificate, &other),
        "input-refused",
        "belongs to another certificate",
        None,
    );
    refuse(
        "key of another kind",
        user(&certificate, &Key::ed25519().pem()),
        "input-refused",
        "belongs to another certificate",
        None,
    );
    refuse("certificate and key swapped", user(&key, &certificate), "input-refused", "swapped", None);
    refuse("no certificate", user("hello", &key), "input-refused", "is not a certificate in PEM format", None);
    refuse("no key", user(&certificate, "hello"), "input-refused", "not a private key in PEM format", None);
    refuse(
        "a certificate in place of the key",
        user(&certificate, &certificate),
        "input-refused",
        "no private key",
        None,
    );
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMBMwCwYJKoZIhvcNAQUNBARoaWhp\n-----END ENCRYPTED PRIVATE KEY-----\n";
    refuse(
        "key encrypted with a passphrase, PKCS#8",
        user(&certificate, locked),
        "input-refused",
        "encrypted with a passphrase",
        None,
    );
    let head = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,000102030405060708090A0B0C0D0E0F\n\n";
    let locked = format!("{head}c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0\n-----END EC PRIVATE KEY-----\n");
    refuse(
        "key encrypted with a passphrase, the older form",
        user(&certificate, &locked),
        "input-refused",
        "encrypted with a passphrase",
        None,
    );
    let damaged = "-----BEGIN PRIVATE KEY-----\nMAUCAQAwAA==\n-----END PRIVATE KEY-----\n";
    refuse(
        "damaged key",
        user(&certificate, damaged),
        "input-refused",
        "cannot be used: the certificate has an ECDSA key on the curve P-256",
        None,
    );
    let junk = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    refuse("damaged certificate", user(junk, &key), "input-refused", "is not the DER of a certificate", None);
    let past = Spec { valid: ("20200101000000Z", "20210101000000Z"), ..masters(3) };
    let past = Forged::signed_by(cp, &past, Key::p256());
    refuse("certificate expired", user(&past.pem(), &past.key.pem()), "unauthorized", "401", None);
    let stranger = Forged::self_signed(&masters(3), Key::p256());
    refuse("certificate of another CA", user(&stranger.pem(), &stranger.key.pem()), "unauthorized", "401", None);
    let servers = Forged::signed_by(cp, &masters(3).with(extension::usages(&[extension::SERVER])), Key::p256());
    refuse("certificate for servers", user(&servers.pem(), &servers.key.pem()), "unauthorized", "401", None);
    rows
}
