//! Massdriver as the environment describes it: its URL, the login, and the possible ids of the published resource.
//! Pure.

use serde_json::Value;

use crate::{
    cli::Publishing,
    diagnostics::{
        finding::{self, Finding},
        secret::Token,
    },
    endpoint::{
        host,
        proxy::{Route, Variables},
    },
    env,
    input::documents::PlatformInput,
};

/// The field under which the bundle publishes.
pub(crate) const FIELD: &str = "token";
/// The default URL, if the environment sets none.
const DEFAULT_URL: &str = "https://api.massdriver.cloud";

/// The platform that a resource is published at.
pub(crate) struct Platform {
    /// Base URL; plain http only within one machine or cluster.
    pub(crate) url: http::Uri,
    /// The route to it: direct, or through a proxy.
    pub(crate) route: Route,
    /// User name of the login.
    pub(crate) deployment_id: String,
    /// Its password.
    pub(crate) token: Token,
    /// The possible ids of the resource, the newest convention first.
    pub(crate) resource_ids: Vec<String>,
    /// The type, for platforms that cannot infer it.
    pub(crate) resource_type: String,
}

impl Platform {
    /// Whether it is reached without TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.url.scheme() == Some(&http::uri::Scheme::HTTP)
    }

    /// The finding about a connection without TLS.
    pub(crate) fn clear_text(&self) -> Option<Finding> {
        let text = format!(
            "{} is http: the deployment's token and the credential are sent to {} unencrypted",
            env::URL,
            self.address()
        );
        let help = "use an https URL for Massdriver";
        self.is_plain().then(|| Finding::remark(finding::Code::ClearText, text).help(help))
    }

    /// The base URL without a trailing slash.
    pub(crate) fn address(&self) -> String {
        self.url.to_string().trim_end_matches('/').to_owned()
    }
}

/// Reads the platform from the environment; `name` is the instance's name prefix, `bundle` its `massdriver.yaml`. A
/// command line requires the URL, so that no one publishes at the hosted service by mistake.
///
/// # Errors
/// Every problem; missing variables have the code `environment-missing`.
pub(crate) fn parse(
    input: &PlatformInput,
    name: &str,
    publish: Publishing,
    bundle: Option<&Value>,
    proxies: &Variables,
) -> Result<Platform, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut required = |name: &str, value: &Option<String>| {
        if value.is_none() {
            let text = format!("{name} is not set: the result could not be published, so nothing was done");
            findings.push(Finding::refusal(finding::Code::EnvironmentMissing, text));
        }
        value.clone()
    };
    let deployment_id = required(env::DEPLOYMENT_ID, &input.deployment_id);
    let token = required(env::TOKEN, &input.token);
    let token = token.and_then(|token| match Token::parse(&token) {
        Ok(token) => Some(token),
        Err(problem) => {
            findings.push(Finding::refusal(finding::Code::Connection, format!("{} {problem}", env::TOKEN)));
            None
        }
    });
    if publish == Publishing::Asked && input.url.is_none() {
        let text = format!("{} is not set, but required by --publish", env::URL);
        findings.push(
            Finding::refusal(finding::Code::EnvironmentMissing, text)
                .help("the URL of the hosted service is https://api.massdriver.cloud"),
        );
    }
    let url = input.url.as_deref().unwrap_or(DEFAULT_URL).trim_end_matches('/').parse::<http::Uri>();
    // A URL with a user would be a secret, and the log contains the URL.
    let plain = |url: &http::Uri| url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    let url = url.ok().filter(|url| plain(url) && matches!(url.scheme_str(), Some("http" | "https")));
    if url.is_none() {
        let text = format!("{} is not the URL of Massdriver (expected https://host, without a user)", env::URL);
        findings.push(Finding::refusal(finding::Code::Connection, text));
    }
    let url = url.filter(|url| {
        let host = url.host().unwrap_or_default();
        let is_private = host::is_this_machine(host) || host::is_inside_a_cluster(host);
        let is_safe = url.scheme_str() == Some("https") || is_private;
        if !is_safe {
            let text = format!(
                "{} is http: the deployment's token and the credential would be sent over the network unencrypted",
                env::URL
            );
            let help = "use the https URL; http is only accepted for this machine and for names inside the cluster \
                        (.svc, .cluster.local, or without a dot)";
            findings.push(Finding::refusal(finding::Code::Connection, text).help(help));
        }
        is_safe
    });
    let route = url.as_ref().and_then(|url| match proxies.route_to(url) {
        Ok(route) => Some(route),
        Err(problem) => {
            findings.push(Finding::refusal(finding::Code::Connection, problem));
            None
        }
    });
    match (url, route, deployment_id, token) {
        (Some(url), Some(route), Some(deployment_id), Some(token)) if findings.is_empty() => Ok(Platform {
            url,
            route,
            deployment_id,
            token,
            resource_ids: resource_ids(input, name),
            resource_type: resource_type(bundle, input.organization_id.as_deref()),
        }),
        _ => Err(findings),
    }
}

/// The id of the instance across clusters and namespaces: organization and instance, or package as it was called
/// before. None unless the environment contains both.
pub(crate) fn instance(input: &PlatformInput) -> Option<String> {
    let plain = |text: &&String| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        !text.is_empty() && text.len() <= 253 && text.bytes().all(legal)
    };
    let organization = input.organization_id.as_ref().filter(plain)?;
    let instance = input.instance_id.as_ref().or(input.package_name.as_ref()).filter(plain)?;
    Some(format!("{organization}/{instance}"))
}

/// `<instance>-token`, `<package>-token`, `<instance>.token`: the ids that the platform's own tools have used over
/// time. The name prefix is the package's name, for an environment that has neither.
fn resource_ids(input: &PlatformInput, name: &str) -> Vec<String> {
    let dash = |base: &str| format!("{base}-{FIELD}");
    let package = match (&input.instance_id, &input.package_name) {
        (None, None) => Some(name),
        (_, package) => package.as_deref(),
    };
    let dot = input.instance_id.as_ref().map(|instance| format!("{instance}.{FIELD}"));
    [input.instance_id.as_deref().map(dash), package.map(dash), dot].into_iter().flatten().collect()
}

/// The type that the bundle declares, in the new format or the old one, with the organization as its prefix.
fn resource_type(bundle: Option<&Value>, organization: Option<&str>) -> String {
    let at = |pointer: String| bundle?.pointer(&pointer)?.as_str();
    let declared = at(format!("/resources/{FIELD}/resource_type"))
        .or_else(|| at(format!("/artifacts/properties/{FIELD}/$ref")))
        .unwrap_or("kubernetes-cluster");
    let bare = declared.split('@').next().unwrap_or(declared);
    match organization {
        Some(organization) if !bare.contains('/') => format!("{organization}/{bare}"),
        _ => bare.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn instance_is_identified_by_organization_and_name() {
        let input = |organization: &str, instance: Option<&str>, package: Option<&str>| PlatformInput {
            organization_id: Some(organization.to_owned()),
            instance_id: instance.map(str::to_owned),
            package_name: package.map(str::to_owned),
            ..PlatformInput::default()
        };
        assert_eq!(instance(&input("acme", Some("a-b-c"), Some("a-b-c-x7k2"))).as_deref(), Some("acme/a-b-c"));
        assert_eq!(instance(&input("acme", None, Some("a-b-c-x7k2"))).as_deref(), Some("acme/a-b-c-x7k2"));
        for nobody in [input("acme", None, None), input("", Some("a"), None), input("acme", Some("a\nb"), None)] {
            assert_eq!(instance(&nobody), None);
        }
    }

    #[test]
    fn resource_type_gets_organization_and_loses_version() {
        let new = json!({"resources": {"token": {"resource_type": "kubernetes-cluster@~1"}}});
        let old = json!({"artifacts": {"properties": {"token": {"$ref": "acme/kubernetes-cluster"}}}});
        assert_eq!(resource_type(Some(&new), Some("acme")), "acme/kubernetes-cluster");
        assert_eq!(resource_type(Some(&old), Some("other")), "acme/kubernetes-cluster");
        assert_eq!(resource_type(None, None), "kubernetes-cluster");
    }

    /// A copy of it is not even parsed.
    #[test]
    fn embedded_bundle_declares_only_defaults() {
        let embedded: Value = serde_saphyr::from_str(crate::schema::BUNDLE).unwrap();
        for organization in [None, Some("acme")] {
            assert_eq!(resource_type(Some(&embedded), organization), resource_type(None, organization));
        }
    }
}
