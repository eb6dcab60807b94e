//! RSA keys of any size, and signatures with any hash: most clusters sign ServiceAccount tokens with RS256, and tests
//! need keys that current libraries do not generate. Sufficient only for a cluster on loopback that lives for minutes.

use std::thread;

use num_bigint::BigUint;

use crate::{pki, random};

/// Size of the key that signs tokens.
const BITS: usize = 2048;
/// Rounds that are enough for random candidates of this size (FIPS 186-5, table B.1 asks for 5).
const ROUNDS: usize = 5;
const EXPONENT: u32 = 65_537;

/// A key.
#[derive(Clone, Debug)]
pub(crate) struct RsaKey {
    modulus: BigUint,
    private_exponent: BigUint,
    /// PKCS#1, as DER.
    pub(crate) der: Vec<u8>,
}

/// A new key as a PKCS#1 PEM document.
pub fn generate() -> String {
    pki::pem("RSA PRIVATE KEY", &key(BITS).der)
}

/// A new key of this size, a multiple of 16.
pub(crate) fn key(bits: usize) -> RsaKey {
    let e = BigUint::from(EXPONENT);
    let one = BigUint::from(1_u8);
    loop {
        // The two searches take a thousand times as long as everything else here.
        let (p, q) = thread::scope(|scope| {
            let other = scope.spawn(|| prime(bits / 2));
            let p = prime(bits / 2);
            (p, other.join().unwrap_or_else(|_| prime(bits / 2)))
        });
        if p == q {
            continue;
        }
        let (p1, q1) = (&p - &one, &q - &one);
        let (Some(d), Some(q_inverse)) = (e.modinv(&(&p1 * &q1)), q.modinv(&p)) else {
            continue; // e divides p-1 or q-1
        };
        let (d_p, d_q) = (&d % &p1, &d % &q1);
        let zero = BigUint::ZERO;
        let fields = [&zero, &(&p * &q), &e, &d, &p, &q, &d_p, &d_q, &q_inverse];
        let body: Vec<u8> = fields.into_iter().flat_map(integer).collect();
        return RsaKey { modulus: &p * &q, private_exponent: d, der: tagged(0x30, &body) };
    }
}

impl RsaKey {
    /// The public half in PKCS#1.
    pub(crate) fn public(&self) -> Vec<u8> {
        tagged(0x30, &[integer(&self.modulus), integer(&BigUint::from(EXPONENT))].concat())
    }

    /// A PKCS#1 1.5 signature over a DigestInfo.
    pub(crate) fn sign(&self, digest_info: &[u8]) -> Vec<u8> {
        let length = usize::try_from(self.modulus.bits().div_ceil(8)).unwrap_or_default();
        let mut padded = vec![0xff; length - digest_info.len()];
        padded[..2].copy_from_slice(&[0, 1]);
        if let Some(last) = padded.last_mut() {
            *last = 0;
        }
        padded.extend_from_slice(digest_info);
        let signature = BigUint::from_bytes_be(&padded).modpow(&self.private_exponent, &self.modulus).to_bytes_be();
        [vec![0; length - signature.len()], signature].concat()
    }
}

/// A random prime with its two highest bits set, so that the product of two has all its bits.
fn prime(bits: usize) -> BigUint {
    let small: Vec<u32> = small_primes();
    loop {
        let bytes: Vec<u8> = (0..bits / 8).flat_map(|_| random::bytes::<1>()).collect();
        let mut start = BigUint::from_bytes_be(&bytes);
        for bit in [bits - 1, bits - 2, 0] {
            start.set_bit(u64::try_from(bit).unwrap_or_default(), true);
        }
        // Search upwards from a random start; remainders are updated, not computed again.
        let mut rests: Vec<u32> = small.iter().map(|p| rest(&start, *p)).collect();
        for step in 0..1000_u32 {
            if rests.iter().all(|rest| *rest != 0) {
                let candidate = &start + 2 * step;
                if is_probable_prime(&candidate) {
                    return candidate;
                }
            }
            for (rest, p) in rests.iter_mut().zip(&small) {
                *rest = (*rest + 2) % p;
            }
        }
    }
}

fn rest(n: &BigUint, p: u32) -> u32 {
    (n % p).to_u32_digits().first().copied().unwrap_or(0)
}

fn small_primes() -> Vec<u32> {
    let mut primes: Vec<u32> = Vec::new();
    for n in 3..4000 {
        if n % 2 == 1 && primes.iter().all(|p| n % p != 0) {
            primes.push(n);
        }
    }
    primes
}

/// The Miller-Rabin test with random bases.
fn is_probable_prime(n: &BigUint) -> bool {
    let one = BigUint::from(1_u8);
    let n1 = n - &one;
    let twos = n1.trailing_zeros().unwrap_or(0);
    let odd = &n1 >> twos;
    (0..ROUNDS).all(|_| {
        let base = BigUint::from_bytes_be(&random::bytes::<64>()) + 2_u8;
        let mut x = base.modpow(&odd, n);
        if x == one || x == n1 {
            return true;
        }
        for _ in 1..twos {
            x = &x * &x % n;
            if x == n1 {
                return true;
            }
        }
        false
    })
}

/// DER: INTEGER.
fn integer(n: &BigUint) -> Vec<u8> {
    let mut bytes = n.to_bytes_be();
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        bytes.insert(0, 0); // positive
    }
    tagged(2, &bytes)
}

/// DER: tag, length, value.
pub(crate) fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut out = vec![tag];
    match length {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// aws-lc reads the key, and checks its fields against each other.
    #[test]
    fn generated_key_is_accepted_by_aws_lc() {
        let start = std::time::Instant::now();
        let pem = generate();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap();
        let key = aws_lc_rs::signature::RsaKeyPair::from_der(&der).unwrap();
        assert_eq!(key.public_modulus_len(), 256);
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    }
}
