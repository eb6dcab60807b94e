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

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn environment(variables: &[(&'static str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    #[rstest]
    #[case::absent(&[], None)]
    #[case::empty(&[(URL, "")], None)]
    #[case::another(&[(TOKEN, "a")], None)]
    #[case::blank(&[(URL, " ")], Some(" "))]
    #[case::set(&[(URL, "a")], Some("a"))]
    fn empty_variable_counts_as_absent(#[case] variables: &[(&'static str, &str)], #[case] value: Option<&str>) {
        assert_eq!(environment(variables).get(URL), value);
    }

    /// Columns: the value of the upper-case name, that of the lower-case name, which of the two is used.
    #[rstest]
    #[case::none(None, None, None)]
    #[case::upper_case(Some("a"), None, Some(0))]
    #[case::lower_case(None, Some("b"), Some(1))]
    #[case::both(Some("a"), Some("b"), Some(0))]
    #[case::upper_case_is_empty(Some(""), Some("b"), Some(1))]
    #[case::both_are_empty(Some(""), Some(""), None)]
    fn upper_case_proxy_variable_takes_precedence(
        #[case] upper: Option<&str>,
        #[case] lower: Option<&str>,
        #[case] used: Option<usize>,
    ) {
        let (https_names, http_names) = (["HTTPS_PROXY", "https_proxy"], ["HTTP_PROXY", "http_proxy"]);
        let no_names = ["NO_PROXY", "no_proxy"];
        for names in [https_names, http_names, no_names] {
            let set: Vec<_> =
                names.into_iter().zip([upper, lower]).filter_map(|(name, it)| Some((name, it?))).collect();
            let Variables { https, http, no } = environment(&set).proxies();
            let expected = used.map(|used| (names[used], ["a", "b"][used].to_owned()));
            let only = |kind: [&str; 2]| expected.clone().filter(|_| names == kind);
            assert_eq!((https, http), (only(https_names), only(http_names)), "{names:?}");
            assert_eq!(no, only(no_names).map(|(_, list)| list), "{names:?}");
        }
    }

    #[rstest]
    #[case::absent(&[(URL, "10.0.0.1")], false)]
    #[case::empty(&[(SERVICE_HOST, "")], false)]
    #[case::set(&[(SERVICE_HOST, "10.0.0.1")], true)]
    fn pod_is_detected_by_service_host(#[case] variables: &[(&'static str, &str)], #[case] is_in_a_pod: bool) {
        assert_eq!(environment(variables).is_in_a_pod(), is_in_a_pod);
    }

    #[test]
    fn platform_token_is_that_of_its_variable() {
        let token = |variables: &[_]| environment(variables).platform_token().map(|it| it.expose_secret().to_owned());
        assert_eq!(token(&[(TOKEN, "a"), (DEPLOYMENT_ID, "b")]).as_deref(), Some("a"));
        assert_eq!(token(&[(TOKEN, ""), (DEPLOYMENT_ID, "b")]), None);
    }
}
