//! The end of the parent credential's own login: a connection that nothing renews stops working on that day, for a
//! decommission, too. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::{
    credential::claims::Claims,
    diagnostics::{
        finding::{Code, Finding, Severity},
        secret::Token,
    },
    endpoint::connection::{ClusterLogin, Connection},
    x509::Certificate,
};

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Less than this is left for a deployment that no one has planned yet.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Enough to create another credential in time.
const LATER: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A login that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LoginEnd {
    /// As in `token`.
    what: &'static str,
    /// When it became valid, if it says so.
    begins: Option<Timestamp>,
    /// When it expires.
    ends: Timestamp,
}

impl LoginEnd {
    /// The end of the login; none for one that is renewed: a login command prints a new credential for each run, and a
    /// token file is written anew. Of a certificate and a token the one that ends first counts, because a proxy in front of
    /// the API server may require both; one that has ended already is not needed.
    fn of(connection: &Connection, now: Timestamp) -> Option<Self> {
        let (token, identity) = match &connection.login {
            ClusterLogin::Token(token) => (Some(token), None),
            ClusterLogin::Kubeconfig(user) => (user.credentials.token.as_ref(), user.credentials.identity.as_ref()),
        };
        let token = token.filter(|_| !connection.token_is_from_file).and_then(Self::of_token);
        let certificate = identity.and_then(|identity| Self::of_certificate(identity.cert.first()?));
        token.into_iter().chain(certificate).min_by_key(|login| (login.ends <= now, login.ends))
    }

    fn of_token(token: &Token) -> Option<Self> {
        let claims = Claims::of(token)?;
        Some(Self { what: "token", begins: claims.issued, ends: claims.expires? })
    }

    fn of_certificate(der: &[u8]) -> Option<Self> {
        let (begins, ends) = Certificate::parse(der).ok()?.validity();
        let time = |seconds| Timestamp::from_second(seconds).ok();
        Some(Self { what: "client certificate", begins: time(begins), ends: time(ends)? })
    }

    /// Whether it was issued for a day at most, as by `kubectl create token`.
    fn is_short_lived(&self) -> bool {
        self.begins.is_some_and(|begins| self.ends.duration_since(begins) <= DAY)
    }
}

/// The finding that the parent credential expires soon. A short-lived login in a kubeconfig is that of a person, who logs
/// in again before the next run; in a connection that is stored, nobody does.
pub(crate) fn parent_expires(connection: &Connection, now: Timestamp) -> Option<Finding> {
    let login = LoginEnd::of(connection, now)?;
    let left = login.ends.duration_since(now);
    let is_kubeconfig = connection.context.is_some();
    let severity = match left {
        left if left >= LATER => return None,
        _ if is_kubeconfig && login.is_short_lived() => Severity::Info,
        left if left < SOON => Severity::Medium,
        _ => Severity::Low,
    };
    let LoginEnd { what, ends, .. } = login;
    let place = if is_kubeconfig { "kubeconfig" } else { "connection" };
    // The server has accepted it: the clocks differ, or it allows some seconds more.
    let when = if left.is_positive() {
        format!("expires at {ends}, in {}", duration(left))
    } else {
        format!("expired at {ends} by the clock of this machine")
    };
    let text = format!(
        "the {what} of the parent credential in the {place} {when}: after that, a provision and a decommission fail with 401"
    );
    let help = if severity == Severity::Info {
        "log in again before the next run; the credential that was created does not depend on it".to_owned()
    } else {
        format!("put a new {what} into the {place} before that; the credential that was created does not depend on it")
    };
    Some(Finding::remark(Code::ParentExpires, text).severity(severity).help(help))
}

/// A positive duration in words, rounded down: `6 days`, `1 hour`, `59 minutes`.
fn duration(left: SignedDuration) -> String {
    let minutes = left.as_secs() / 60;
    let (number, unit) = match minutes {
        0 => return "less than a minute".to_owned(),
        1..60 => (minutes, "minute"),
        60..1440 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use kube::config::AuthInfo;
    use rstest::rstest;
    use serde_json::{Value, json};
    use testbed::{Forged, Key, Spec};

    use super::*;
    use crate::{
        endpoint::{
            client_certificate,
            connection::{Credentials, KubeconfigUser},
        },
        plan::fixtures::{Case, request},
    };

    const NOW: i64 = 1_795_910_400; // 2026-11-29T00:00:00Z
    const HOUR: i64 = 3600;
    const DAYS: i64 = 24 * HOUR;

    fn token(claims: &Value) -> Token {
        Token::parse(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))).unwrap()
    }

    fn connection(login: ClusterLogin) -> Connection {
        Connection { login, ..request(&Case::new(&[])).connection }
    }

    fn with_token(claims: &Value) -> Connection {
        connection(ClusterLogin::Token(token(claims)))
    }

    fn of_kubeconfig(connection: Connection) -> Connection {
        Connection { context: Some("admin".to_owned()), ..connection }
    }

    fn judged(connection: &Connection) -> Option<Finding> {
        parent_expires(connection, Timestamp::from_second(NOW).unwrap())
    }

    /// A token that was issued and expires so many seconds from now, in a connection and in a kubeconfig.
    #[rstest]
    #[case::long_left(-DAYS, 30 * DAYS, None, None)]
    #[case::under_a_month(-DAYS, 30 * DAYS - 1, Some(Severity::Low), Some(Severity::Low))]
    #[case::a_week(-DAYS, 7 * DAYS, Some(Severity::Low), Some(Severity::Low))]
    #[case::under_a_week(-DAYS, 7 * DAYS - 1, Some(Severity::Medium), Some(Severity::Medium))]
    #[case::short_lived(0, HOUR, Some(Severity::Medium), Some(Severity::Info))]
    #[case::issued_for_a_day(-HOUR, 23 * HOUR, Some(Severity::Medium), Some(Severity::Info))]
    #[case::issued_for_more_than_a_day(-2 * HOUR, 23 * HOUR, Some(Severity::Medium), Some(Severity::Medium))]
    #[case::over(-30 * DAYS, -1, Some(Severity::Medium), Some(Severity::Medium))]
    fn severity_follows_the_time_left(
        #[case] issued: i64,
        #[case] left: i64,
        #[case] stored: Option<Severity>,
        #[case] own: Option<Severity>,
    ) {
        let connection = with_token(&json!({"iat": NOW + issued, "exp": NOW + left}));
        assert_eq!(judged(&connection).map(|finding| finding.severity), stored);
        assert_eq!(judged(&of_kubeconfig(connection)).map(|finding| finding.severity), own);
    }

    #[rstest]
    #[case::without_an_end(with_token(&json!({"iat": 1})))]
    #[case::opaque(connection(ClusterLogin::Token(Token::parse("opaque-token").unwrap())))]
    #[case::from_a_file(Connection { token_is_from_file: true, ..of_kubeconfig(with_token(&json!({"exp": NOW + 1}))) })]
    #[case::printed_by_a_command(of_kubeconfig(connection(kubeconfig(Credentials::default()))))]
    fn login_that_is_renewed_or_endless_has_no_finding(#[case] connection: Connection) {
        assert_eq!(judged(&connection), None);
    }

    fn kubeconfig(credentials: Credentials) -> ClusterLogin {
        ClusterLogin::Kubeconfig(Box::new(KubeconfigUser { credentials, command: None, acting: AuthInfo::default() }))
    }

    /// A certificate that is valid from 2026-11-01 to this time.
    fn certificate(ends: &'static str) -> Credentials {
        let spec = Spec { valid: ("20261101000000Z", ends), ..Spec::new("admin") };
        let forged = Forged::self_signed(&spec, Key::p256());
        let identity = client_certificate::identity(forged.pem().as_bytes(), forged.key.pem().as_bytes()).unwrap();
        Credentials { identity: Some(Arc::clone(&identity)), token: None }
    }

    /// Columns: the end of the certificate, the end of a token beside it in seconds from now, the finding.
    #[rstest]
    #[case::next_week("20261202000000Z", None, Some("client certificate medium"))]
    #[case::next_month("20261220000000Z", None, Some("client certificate low"))]
    #[case::next_year("20271101000000Z", None, None)]
    #[case::never("99991231235959Z", None, None)]
    #[case::token_ends_first("20261220000000Z", Some(2 * DAYS), Some("token medium"))]
    #[case::token_ends_later("20261220000000Z", Some(29 * DAYS), Some("client certificate low"))]
    #[case::token_has_ended("20261220000000Z", Some(-DAYS), Some("client certificate low"))]
    #[case::certificate_has_ended("20261120000000Z", Some(29 * DAYS), Some("token low"))]
    fn first_end_of_a_login_counts(
        #[case] ends: &'static str,
        #[case] token_left: Option<i64>,
        #[case] expected: Option<&str>,
    ) {
        let token = token_left.map(|left| token(&json!({"exp": NOW + left})));
        let login = kubeconfig(Credentials { token, ..certificate(ends) });
        let finding = judged(&of_kubeconfig(connection(login)));
        let found = finding.map(|it| {
            let what = it.message.strip_prefix("the ").unwrap().split(" of the parent").next().unwrap().to_owned();
            format!("{what} {}", it.severity.as_str())
        });
        assert_eq!(found.as_deref(), expected);
    }

    #[rstest]
    #[case::seconds(1, "less than a minute")]
    #[case::one_minute(60, "1 minute")]
    #[case::minutes(HOUR - 1, "59 minutes")]
    #[case::one_hour(HOUR, "1 hour")]
    #[case::hours(DAYS - 1, "23 hours")]
    #[case::one_day(DAYS, "1 day")]
    #[case::days(6 * DAYS + HOUR, "6 days")]
    fn time_left_is_rounded_down(#[case] seconds: i64, #[case] text: &str) {
        assert_eq!(duration(SignedDuration::from_secs(seconds)), text);
    }
}
