//! An RSA-2048 signing key as PEM, because most clusters sign ServiceAccount tokens with RS256 and
//! nothing else in the tree can make such a key: ring only uses them, and the `rsa` crate carries an
//! open advisory. Good enough for a cluster that lives for minutes on loopback, and for nothing else.

use std::thread;

use num_bigint::BigUint;

use crate::{pki, random};

/// Length of each of the two primes.
const PRIME_BYTES: usize = 128;
/// Enough for random candidates of this size (FIPS 186-5, table B.1 asks for 5).
const ROUNDS: usize = 5;
const EXPONENT: u32 = 65_537;

/// A fresh key as a PKCS#1 PEM document.
#[must_use]
pub fn generate() -> String {
    let e = BigUint::from(EXPONENT);
    let one = BigUint::from(1_u8);
    loop {
        // The two searches take as long as everything else in here a thousand times over.
        let (p, q) = thread::scope(|scope| {
            let other = scope.spawn(prime);
            let p = prime();
            (p, other.join().unwrap_or_else(|_| prime()))
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
        return pki::pem("RSA PRIVATE KEY", &tagged(0x30, &body));
    }
}

/// A random prime with its two highest bits set, so that the product of two has all its bits.
fn prime() -> BigUint {
    let small: Vec<u32> = small_primes();
    loop {
        let mut start = BigUint::from_bytes_be(&random::bytes::<PRIME_BYTES>());
        for bit in [1023, 1022, 0] {
            start.set_bit(bit, true);
        }
        // Walk upwards from a random start; remainders are updated, not computed again.
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

/// Miller and Rabin's test with random bases.
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
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut out = vec![tag];
    match length {
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

    /// ring reads the key, which checks every field against every other.
    #[test]
    fn the_key_is_one_that_others_accept() {
        let start = std::time::Instant::now();
        let pem = generate();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap();
        let key = ring::signature::RsaKeyPair::from_der(&der).unwrap();
        assert_eq!(key.public().modulus_len(), 256);
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    }
}
