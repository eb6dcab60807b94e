//! Where the host of a URL is: on this machine, or inside a cluster. Pure.

use std::net::IpAddr;

/// Whether every machine reaches itself at this address: loopback, the unspecified address, which connects to loopback,
/// and the names of loopback (RFC 6761, section 6.3). An IPv6 address may be in brackets.
pub(crate) fn is_this_machine(host: &str) -> bool {
    let host = plain(host);
    let name = host.strip_suffix('.').unwrap_or(&host);
    if let Ok(address) = name.parse::<IpAddr>() {
        let address = address.to_canonical();
        return address.is_loopback() || address.is_unspecified();
    }
    name == "localhost" || name.ends_with(".localhost") || OTHER_NAMES.contains(&name)
}

/// Names of loopback that systems list in their hosts file.
const OTHER_NAMES: [&str; 4] = ["localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback"];

/// Names that Docker Desktop adds there for the host machine: its own cluster is at the first one.
const DOCKER_NAMES: [&str; 2] = ["kubernetes.docker.internal", "host.docker.internal"];

/// Whether this address means something else on another machine.
pub(crate) fn is_relative(host: &str) -> bool {
    let host = plain(host);
    is_this_machine(&host) || DOCKER_NAMES.contains(&host.strip_suffix('.').unwrap_or(&host))
}

/// Whether this name exists inside a cluster only: a single label, as of a Service in the same namespace, or a name in
/// the cluster's own domain.
pub(crate) fn is_inside_a_cluster(host: &str) -> bool {
    let host = plain(host);
    if !host.contains('.') {
        // Some resolvers take a number for an IPv4 address.
        let is_number = host.starts_with(|char: char| char.is_ascii_digit())
            && host.trim_start_matches("0x").bytes().all(|byte| byte.is_ascii_hexdigit());
        return !host.is_empty() && !host.contains(':') && !is_number;
    }
    let name = host.strip_suffix('.').unwrap_or(&host);
    [".svc", ".cluster.local"].iter().any(|domain| name.strip_suffix(domain).is_some_and(|rest| !rest.is_empty()))
}

/// The host in lower case, without brackets.
fn plain(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    fn loopback_and_unspecified_addresses_are_local(
        #[values(
            "127.0.0.1",
            "127.8.9.10",
            "0.0.0.0",
            "[::1]",
            "::1",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:0.0.0.0]",
            "localhost",
            "LocalHost",
            "localhost.",
            "kind.localhost",
            "ip6-localhost",
            "localhost.localdomain"
        )]
        host: &str,
    ) {
        assert!(is_this_machine(host) && is_relative(host), "{host}");
    }

    #[rstest]
    fn routable_addresses_are_not_local(
        #[values(
            "10.0.0.1",
            "128.0.0.1",
            "192.168.49.2",
            "[fd00::1]",
            "[::ffff:10.0.0.1]",
            "localhost.example.com",
            "notlocalhost",
            "127.0.0.1.example.com",
            "host.k3d.internal",
            "example.com"
        )]
        host: &str,
    ) {
        assert!(!is_this_machine(host) && !is_relative(host), "{host}");
    }

    #[test]
    fn docker_desktop_names_are_local_addresses() {
        for host in DOCKER_NAMES {
            assert!(is_relative(host) && !is_this_machine(host), "{host}");
        }
    }

    #[rstest]
    fn service_names_are_inside_a_cluster(
        #[values(
            "massdriver",
            "MASSDRIVER",
            "api.massdriver.svc",
            "api.massdriver.svc.",
            "api.md.svc.cluster.local",
            "m4",
            "4m"
        )]
        host: &str,
    ) {
        assert!(is_inside_a_cluster(host), "{host}");
    }

    #[rstest]
    fn public_names_and_addresses_are_outside_a_cluster(
        #[values(
            "api.massdriver.cloud",
            "massdriver.local",
            "svc.example.com",
            ".svc",
            ".cluster.local",
            "massdriver.",
            "10.0.0.1",
            "[fd00::1]",
            "167772161",
            "0x0a000001",
            "0xa",
            "example.svc.com",
            "notcluster.local",
            ""
        )]
        host: &str,
    ) {
        assert!(!is_inside_a_cluster(host), "{host}");
    }
}
