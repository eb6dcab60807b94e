//! The claims of a ServiceAccount token, before a server has confirmed them. Pure.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::diagnostics::{
    error::{Code, Failure},
    secret::Token,
    text::sanitize,
};

/// The two forms in which Kubernetes issues tokens of a ServiceAccount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The long-lived token of a Secret, filled in by the token controller.
    Legacy,
    /// A token of the TokenRequest API: it expires, and is bound to its ServiceAccount and perhaps to another object.
    Bound,
}

/// The claims of one token. Any of them may be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    /// Form of the token.
    pub(crate) form: Form,
    /// As in `system:serviceaccount:team-a:demo-token`.
    pub(crate) subject: Option<String>,
    /// Namespace of the ServiceAccount.
    pub(crate) namespace: Option<String>,
    /// Name of the ServiceAccount.
    pub(crate) service_account: Option<String>,
    /// Uid of the ServiceAccount.
    pub(crate) uid: Option<String>,
    /// Name of the Secret that holds it or that it is bound to.
    pub(crate) secret: Option<String>,
    /// When it was issued, or became valid.
    pub(crate) issued: Option<Timestamp>,
    /// When it expires; none for a token without an end.
    pub(crate) expires: Option<Timestamp>,
}

/// The ServiceAccount that a token names completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account<'a> {
    /// Its namespace.
    pub(crate) namespace: &'a str,
    /// Its name.
    pub(crate) name: &'a str,
    /// Its uid: a ServiceAccount that was deleted and created again has another one.
    pub(crate) uid: &'a str,
}

impl Account<'_> {
    /// The name under which the server knows its tokens.
    pub(crate) fn username(&self) -> String {
        username(self.namespace, self.name)
    }
}

fn username(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

impl Claims {
    /// The claims of a token; none for a token that is not a JWT.
    pub(crate) fn of(token: &Token) -> Option<Self> {
        let claims = part(token, 1)?;
        let legacy = |claim: &str| claims.get(format!("kubernetes.io/serviceaccount/{claim}"));
        let is_legacy = ["namespace", "service-account.name"].into_iter().any(|claim| legacy(claim).is_some());
        let form = if is_legacy { Form::Legacy } else { Form::Bound };
        let claim = |name: &str, bound: &str| {
            let value = match form {
                Form::Legacy => legacy(name),
                Form::Bound => claims.pointer(&format!("/kubernetes.io/{bound}")),
            };
            value.and_then(Value::as_str).map(str::to_owned)
        };
        let time = |claim: &str| claims.get(claim).and_then(time);
        Some(Self {
            form,
            subject: claims.get("sub").and_then(Value::as_str).map(str::to_owned),
            namespace: claim("namespace", "namespace"),
            service_account: claim("service-account.name", "serviceaccount/name"),
            uid: claim("service-account.uid", "serviceaccount/uid"),
            secret: claim("secret.name", "secret/name"),
            issued: time("iat").or_else(|| time("nbf")),
            expires: time("exp"),
        })
    }

    /// The ServiceAccount; none when the token does not name one completely.
    pub(crate) fn account(&self) -> Option<Account<'_>> {
        Some(Account {
            namespace: self.namespace.as_deref()?,
            name: self.service_account.as_deref()?,
            uid: self.uid.as_deref()?,
        })
    }

    /// Whether the subject is this ServiceAccount, or an earlier one of the same name.
    pub(crate) fn is_of(&self, namespace: &str, name: &str) -> bool {
        self.subject.as_deref() == Some(&username(namespace, name))
    }
}

/// Compares the claims of a Secret's token with its expected ServiceAccount, before the token is sent anywhere.
pub(crate) fn check(token: &Token, expected: &Account<'_>) -> Result<(), Failure> {
    let refuse = |cause: String| Err(Failure::new(Code::WrongIdentity, "checking the claims of the token", cause));
    let Some(claims) = Claims::of(token) else {
        return refuse("the token does not belong to a ServiceAccount".to_owned());
    };
    if claims.form == Form::Bound && claims.account().is_some() {
        return refuse("the token is a bound token, not one that the token controller issued for a Secret".to_owned());
    }
    let rows = [
        ("namespace", &claims.namespace, expected.namespace),
        ("ServiceAccount", &claims.service_account, expected.name),
        ("uid of the ServiceAccount", &claims.uid, expected.uid),
        ("subject", &claims.subject, &expected.username()),
    ];
    for (what, has, wants) in rows {
        let has = has.as_deref().unwrap_or_default();
        if has != wants {
            return refuse(format!("the {what} in the token is `{}`, not `{wants}`", sanitize(has, 80)));
        }
    }
    Ok(())
}

/// The id of the key that signed a token, as servers publish it.
pub(crate) fn signing_key(token: &Token) -> Option<String> {
    part(token, 0)?.get("kid").and_then(Value::as_str).map(|key| sanitize(key, 80))
}

/// A `NumericDate`: seconds of Unix time, which may have a fraction.
fn time(claim: &Value) -> Option<Timestamp> {
    match claim.as_i64() {
        Some(seconds) => Timestamp::from_second(seconds).ok(),
        None => Timestamp::from_duration(SignedDuration::try_from_secs_f64(claim.as_f64()?).ok()?).ok(),
    }
}

/// The header (0) or the payload (1) of a JWT.
fn part(token: &Token, number: usize) -> Option<Value> {
    let part = token.expose().split('.').nth(number)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn token(payload: &Value) -> Token {
        Token::parse(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload.to_string()))).unwrap()
    }

    fn legacy() -> Value {
        json!({
            "iss": "kubernetes/serviceaccount",
            "sub": "system:serviceaccount:a:demo-token",
            "kubernetes.io/serviceaccount/namespace": "a",
            "kubernetes.io/serviceaccount/secret.name": "demo-token-2",
            "kubernetes.io/serviceaccount/service-account.name": "demo-token",
            "kubernetes.io/serviceaccount/service-account.uid": "u",
        })
    }

    fn bound() -> Value {
        json!({
            "sub": "system:serviceaccount:a:demo-token",
            "exp": 1_795_910_400,
            "kubernetes.io": {
                "namespace": "a",
                "secret": {"name": "demo-token-2", "uid": "s"},
                "serviceaccount": {"name": "demo-token", "uid": "u"},
            },
        })
    }

    #[test]
    fn legacy_and_bound_claims_are_read_alike() {
        let account = Account { namespace: "a", name: "demo-token", uid: "u" };
        for (payload, form, expires) in
            [(legacy(), Form::Legacy, None), (bound(), Form::Bound, Some("2026-11-29T00:00:00Z"))]
        {
            let claims = Claims::of(&token(&payload)).unwrap();
            assert_eq!(claims.form, form);
            assert_eq!(claims.account(), Some(account));
            assert_eq!(claims.secret.as_deref(), Some("demo-token-2"));
            assert_eq!(claims.expires.map(|end| end.to_string()).as_deref(), expires);
            assert_eq!(claims.issued, None);
            assert!(claims.is_of("a", "demo-token"));
            assert!(!claims.is_of("b", "demo-token") && !claims.is_of("a", "demo"));
        }
    }

    #[rstest]
    #[case::seconds(json!({"exp": 1_795_910_400, "iat": 1_795_906_800}), Some(1_795_910_400), Some(1_795_906_800))]
    #[case::fractions(json!({"exp": 1_795_910_400.75, "nbf": 1.5e9}), Some(1_795_910_400), Some(1_500_000_000))]
    #[case::both_beginnings(json!({"iat": 1, "nbf": 2}), None, Some(1))]
    #[case::no_number(json!({"exp": "1795910400", "iat": null}), None, None)]
    #[case::out_of_range(json!({"exp": i64::MAX, "iat": 1e300}), None, None)]
    fn times_are_seconds_of_unix_time(#[case] payload: Value, #[case] end: Option<i64>, #[case] start: Option<i64>) {
        let claims = Claims::of(&token(&payload)).unwrap();
        assert_eq!(claims.expires.map(Timestamp::as_second), end);
        assert_eq!(claims.issued.map(Timestamp::as_second), start);
    }

    #[rstest]
    #[case::opaque("abc")]
    #[case::two_dots("a.b.c")]
    #[case::not_json("e30.eHg.c2ln")]
    fn other_tokens_have_no_claims(#[case] raw: &str) {
        assert_eq!(Claims::of(&Token::parse(raw).unwrap()), None);
    }

    #[rstest]
    #[case::empty(json!({}))]
    #[case::list(json!([]))]
    #[case::of_a_person(json!({"sub": "alice"}))]
    #[case::no_uid(json!({"kubernetes.io/serviceaccount/namespace": "a", "kubernetes.io/serviceaccount/service-account.name": "x"}))]
    #[case::wrong_types(json!({"kubernetes.io": {"namespace": 1, "serviceaccount": []}}))]
    fn incomplete_claims_name_no_account(#[case] payload: Value) {
        assert_eq!(Claims::of(&token(&payload)).unwrap().account(), None);
    }

    #[rstest]
    #[case::same(legacy(), None)]
    #[case::earlier_account(
        with("service-account.uid", "old"),
        Some("uid of the ServiceAccount in the token is `old`, not `u`")
    )]
    #[case::another_account(
        with("service-account.name", "x"),
        Some("ServiceAccount in the token is `x`, not `demo-token`")
    )]
    #[case::another_namespace(with("namespace", "b"), Some("namespace in the token is `b`, not `a`"))]
    #[case::bound(bound(), Some("the token is a bound token"))]
    #[case::of_a_person(json!({"sub": "alice"}), Some("namespace in the token is ``, not `a`"))]
    fn only_own_legacy_token_passes(#[case] payload: Value, #[case] cause: Option<&str>) {
        let expected = Account { namespace: "a", name: "demo-token", uid: "u" };
        match (check(&token(&payload), &expected), cause) {
            (Ok(()), None) => {}
            (Err(failure), Some(cause)) => {
                assert_eq!(failure.code, Code::WrongIdentity);
                assert!(failure.cause.contains(cause), "{}", failure.cause);
            }
            (result, _) => panic!("{:?}", result.err().map(|failure| failure.cause)),
        }
    }

    fn with(claim: &str, value: &str) -> Value {
        let mut payload = legacy();
        payload[format!("kubernetes.io/serviceaccount/{claim}")] = json!(value);
        payload
    }

    #[test]
    fn signing_key_is_read_from_the_header() {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": "RS256", "kid": "k1"}).to_string());
        assert_eq!(signing_key(&Token::parse(&format!("{header}.e30.c2ln")).unwrap()).as_deref(), Some("k1"));
        assert_eq!(signing_key(&token(&json!({}))), None);
    }
}
