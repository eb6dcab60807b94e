//! The environment variables of a run, and a snapshot of them: the only reader of the environment.

use std::collections::HashMap;

use secrecy::SecretString;

use crate::endpoint::proxy::Variables;

/// `plan`, `provision` or `decommission`.
pub(crate) const ACTION: &str = "MASSDRIVER_DEPLOYMENT_ACTION";
/// User name of the deployment token.
pub(crate) const DEPLOYMENT_ID: &str = "MASSDRIVER_DEPLOYMENT_ID";
/// The deployment token.
pub(crate) const TOKEN: &str = "MASSDRIVER_TOKEN";
/// Base URL of the platform's API.
pub(crate) const URL: &str = "MASSDRIVER_URL";
/// The instance, on platforms since 2026.
pub(crate) const INSTANCE_ID: &str = "MASSDRIVER_INSTANCE_ID";
/// The instance with its suffix, as older platforms name it.
pub(crate) const PACKAGE_NAME: &str = "MASSDRIVER_PACKAGE_NAME";
/// The organization's slug.
pub(crate) const ORGANIZATION_ID: &str = "MASSDRIVER_ORGANIZATION_ID";
/// The kubeconfigs of kubectl; read on the command line only.
pub(crate) const KUBECONFIG: &str = "KUBECONFIG";
/// The directory of the default kubeconfig; read on the command line only.
pub(crate) const HOME: &str = "HOME";
/// The API server for containers of a pod; read only to detect a pod.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";
/// The proxy for https, in Go's order of precedence.
const HTTPS_PROXY: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
/// The proxy for http.
const HTTP_PROXY: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
/// The servers that are reached without a proxy.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// Any value means a log without colours.
pub(crate) const NO_COLOR: &str = "NO_COLOR";
/// The type of the terminal; `dumb` has no capabilities.
pub(crate) const TERM: &str = "TERM";

/// A snapshot of these variables; an empty one counts as absent.
#[derive(Default)]
pub(crate) struct Environment(HashMap<&'static str, String>);

impl Environment {
    /// The variables of this process.
    pub(crate) fn read() -> Self {
        let platform = [ACTION, DEPLOYMENT_ID, TOKEN, URL, INSTANCE_ID, PACKAGE_NAME, ORGANIZATION_ID];
        let proxies = [HTTPS_PROXY, HTTP_PROXY, NO_PROXY].into_iter().flatten();
        let names = platform.into_iter().chain(proxies).chain([KUBECONFIG, HOME, SERVICE_HOST, NO_COLOR, TERM]);
        names.filter_map(|name| Some((name, std::env::var(name).ok()?))).collect()
    }

    /// The proxy variables, each from the first of its names that is set.
    pub(crate) fn proxies(&self) -> Variables {
        let first =
            |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, self.get(name)?.to_owned())));
        Variables { https: first(HTTPS_PROXY), http: first(HTTP_PROXY), no: first(NO_PROXY).map(|(_, list)| list) }
    }

    /// The platform's token as a secret.
    pub(crate) fn platform_token(&self) -> Option<SecretString> {
        self.get(TOKEN).map(SecretString::from)
    }

    /// Whether this runs in a container of a pod.
    pub(crate) fn is_in_a_pod(&self) -> bool {
        self.get(SERVICE_HOST).is_some()
    }

    /// A variable's value, if it is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl FromIterator<(&'static str, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'static str, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}
