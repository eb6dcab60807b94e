//! Validated names: of an instance, a namespace, a ClusterRole, a label. Parsed once, and valid wherever the server
//! checks them. Pure.

use std::fmt;

/// A namespace: DNS-1123 label, 1 to 63 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Namespace(String);

impl Namespace {
    /// Checks the name.
    ///
    /// # Errors
    /// What was expected, without the value.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() <= 63 && is_label(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a namespace must have 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both \
                 ends")
        }
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The instance's name: DNS-1123 subdomain, so that the names made from it are valid for a ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstanceName(String);

impl InstanceName {
    /// 253 characters of a Kubernetes name, less `-token-` and the ten digits of the largest generation.
    pub(crate) const MAX: usize = 253 - 17;

    /// Checks the name.
    ///
    /// # Errors
    /// What was expected, without the value.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the name is empty".to_owned());
        }
        let length = text.chars().count();
        if length > Self::MAX {
            return Err(format!("a name must have at most {} characters, and this one has {length}", Self::MAX));
        }
        if !text.split('.').all(is_label) {
            return Err(
                "a name must consist of lower-case letters, digits, hyphens and dots, with a letter or digit at \
                        both ends of each part"
                    .to_owned(),
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The maximum length of a name of most kinds.
pub(crate) const LONGEST: usize = 253;

/// The name of an existing ClusterRole: one segment of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClusterRoleName(String);

impl ClusterRoleName {
    /// Checks the name, as the server does (apimachinery, `IsValidPathSegmentName`).
    ///
    /// # Errors
    /// What was expected, without the value.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let bad = text.is_empty() || text == "." || text == ".." || text.contains(['/', '%']);
        if bad || text.chars().count() > LONGEST || text.chars().any(char::is_control) {
            Err("a ClusterRole's name must have 1 to 253 characters, without /, % and control characters")
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A tag as a label, or why the server would refuse it.
///
/// # Errors
/// A sentence without the value.
pub(crate) fn label(key: &str, value: &serde_json::Value) -> Result<String, &'static str> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_ok = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_label));
    if name.is_empty() || !prefix_ok || !is_label_text(name) {
        return Err("its key is not a valid label key");
    }
    // On a ClusterRole, `aggregate-to-view` would add the rules to the role `view`; on a Secret,
    // `legacy-token-invalid-since` would invalidate its token.
    if prefix == Some("rbac.authorization.k8s.io") || key.starts_with("kubernetes.io/legacy-token-") {
        return Err("Kubernetes gives its key a meaning, which would change what the credential may do");
    }
    let value = match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number.to_string(),
        serde_json::Value::Bool(flag) => flag.to_string(),
        _ => return Err("its value is not a string, a number or a boolean"),
    };
    if is_label_text(&value) {
        Ok(value)
    } else {
        Err("a label must have at most 63 letters, digits, dots, hyphens and underscores, with a letter or digit at \
             both ends")
    }
}

fn is_label_text(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && text.bytes().all(inner) && ends(bytes.first()) && ends(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_cannot_escape_their_path_segment() {
        for bad in ["", "../x", "a/b", "a?b", "a b", "A", "-a", "a-", "a..b", "a.", "\u{e4}", "a\n", &"a".repeat(237)] {
            assert!(InstanceName::parse(bad).is_err(), "{bad:?} passed as a name");
            assert!(Namespace::parse(bad).is_err(), "{bad:?} passed as a namespace");
        }
        assert!(Namespace::parse("a.b").is_err());
        assert!(Namespace::parse(&"a".repeat(64)).is_err());
        assert!(InstanceName::parse("ecomm-prod-api-abc1").is_ok());
        assert!(InstanceName::parse(&"a".repeat(236)).is_ok());
    }

    #[test]
    fn cluster_role_names_cannot_escape_their_path_segment() {
        for bad in ["", ".", "..", "a/b", "a%2fb", "a\nb", &"a".repeat(254)] {
            assert!(ClusterRoleName::parse(bad).is_err(), "{bad:?} passed");
        }
        for good in ["view", "system:aggregate-to-view", "My Role"] {
            assert!(ClusterRoleName::parse(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn invalid_tags_are_refused_as_labels() {
        assert_eq!(label("md-project", &json!("ecomm")).unwrap(), "ecomm");
        assert_eq!(label("example.com/count", &json!(3)).unwrap(), "3");
        assert_eq!(label("on", &json!(true)).unwrap(), "true");
        assert_eq!(label("empty", &json!("")).unwrap(), "");
        for (key, value) in [
            ("a b", json!("x")),
            ("a", json!("x y")),
            ("a", json!("me@example")),
            ("a", json!("x".repeat(64))),
            ("", json!("x")),
            ("a", json!(null)),
            ("a", json!({})),
            ("-a", json!("x")),
            ("A.b/c", json!("x")),
            ("a/b/c", json!("x")),
            ("/a", json!("x")),
            ("rbac.authorization.k8s.io/aggregate-to-view", json!(true)),
            ("kubernetes.io/legacy-token-invalid-since", json!("2020-01-01")),
        ] {
            assert!(label(key, &value).is_err(), "{key:?}: {value} passed");
        }
    }
}
