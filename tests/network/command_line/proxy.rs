//! Proxies: the same route as kubectl, and an error code for each failure.

use std::process::Command;

use rstest::rstest;
use serde_json::json;
use testbed::{ControlPlane, InterceptingProxy, ProxyOptions, ProxyServer, RefusedPort, SilentServer, Verdict};

use crate::{
    desk::{Desk, admin, cluster, code, refusals},
    support::{Instance, Ran, binary},
};

/// An address that is in the server's certificate, not on this machine, and reachable only by proxy.
const PROXIED: &str = "10.0.0.1:6443";
const PASSWORD: &str = "open-s3same";

fn port(server: &str) -> &str {
    server.rsplit(':').next().unwrap()
}

/// A kubeconfig with the server's address behind the proxy.
fn kubeconfig_behind_proxy(cp: &ControlPlane, desk: &Desk) {
    let mut cluster = cluster(cp);
    cluster["server"] = json!(format!("https://{PROXIED}"));
    desk.kubeconfig("config", &cluster, &admin(cp));
}

fn expect_no_secret(ran: &Ran, secret: &str) {
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(secret), "{}{}", ran.stdout, ran.stderr);
}

#[rstest]
#[case::as_a_host("HTTPS_PROXY", "")]
#[case::in_lower_case("https_proxy", "http://")]
#[case::over_tls("HTTPS_PROXY", "https://")]
#[case::socks("HTTPS_PROXY", "socks5://")]
#[case::with_a_login("HTTPS_PROXY", "http://me:open-s3same@")]
#[case::socks_with_a_login("HTTPS_PROXY", "socks5://me:open-s3same@")]
#[case::over_tls_with_a_login("HTTPS_PROXY", "https://me:open-s3same@")]
fn proxy_of_the_environment_is_used(#[case] variable: &str, #[case] start: &str) {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "proxied");
    let options = ProxyOptions::default().way(PROXIED, cp.server());
    let options = if start.contains('@') { options.login("me", PASSWORD) } else { options };
    let proxy = ProxyServer::start(cp, options);
    kubeconfig_behind_proxy(cp, &desk);
    let ca = desk.put("ca.pem", cp.ca_pem());
    let url = format!("{start}{}", proxy.address());
    let set = |command: &mut Command| {
        command.env(variable, &url).env("SSL_CERT_FILE", &ca);
    };
    let mut command = desk.command("provision", &[]);
    set(command.arg("--kubeconfig").arg(desk.path("config")));
    let ran = Ran::of(&mut command).expect_code(0);
    let asked = proxy.asked();
    let wanted = format!("{} {PROXIED}", if start.starts_with("socks") { "SOCKS" } else { "CONNECT" });
    assert!(!asked.is_empty() && asked.iter().all(|asked| *asked == wanted), "{asked:?}");
    assert!(
        ran.stderr.contains(&format!("{} for https://{PROXIED}, from {variable}", proxy.address())),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("(HTTP/2)"), "{}", ran.stderr);
    expect_no_secret(&ran, PASSWORD);

    let mut kubectl = Command::new(cp.kubectl_path());
    set(kubectl.env_clear().arg("--kubeconfig").arg(desk.path("config")).args(["get", "--raw", "/version"]));
    let theirs = kubectl.output().unwrap();
    assert!(theirs.status.success(), "kubectl uses the same route: {}", String::from_utf8_lossy(&theirs.stderr));
    assert_eq!(proxy.asked().last(), Some(&wanted));
}

/// 0.0.0.0 is this machine, but no loopback address to Go: NO_PROXY applies, and no DNS is needed.
#[rstest]
#[case("", true)]
#[case("*", false)]
#[case("0.0.0.0", false)]
#[case("0.0.0.0/8", false)]
#[case("10.0.0.0/8, 0.0.0.0/32,", false)]
#[case("10.0.0.0/8,example.com", true)]
#[case("0.0.0.0:PORT", false)]
#[case("0.0.0.0:1", true)]
#[case(".0.0.0", true)]
fn no_proxy_is_matched_like_kubectl(#[case] list: &str, #[case] proxied: bool) {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "excepted");
    let near = format!("0.0.0.0:{}", port(cp.server()));
    let list = list.replace("PORT", port(cp.server()));
    let proxy = ProxyServer::start(cp, ProxyOptions::default().way(&near, cp.server()));
    let mut cluster = cluster(cp);
    cluster["server"] = json!(format!("https://{near}"));
    cluster["tls-server-name"] = json!("localhost");
    desk.kubeconfig("config", &cluster, &admin(cp));
    let set = |command: &mut Command| {
        command.env("HTTPS_PROXY", format!("http://{}", proxy.address())).env("no_proxy", &list);
    };
    let mut command = desk.command("plan", &[]);
    set(command.arg("--kubeconfig").arg(desk.path("config")));
    let ran = Ran::of(&mut command).expect_code(0);
    let ours = proxy.asked().len();
    assert_eq!(ours > 0, proxied, "{}", ran.stderr);
    assert_eq!(
        ran.stderr.contains(&format!("none for https://{near}, because of NO_PROXY")),
        !proxied,
        "{}",
        ran.stderr
    );

    let mut kubectl = Command::new(cp.kubectl_path());
    set(kubectl.env_clear().arg("--kubeconfig").arg(desk.path("config")).args(["get", "--raw", "/version"]));
    let theirs = kubectl.output().unwrap();
    assert!(theirs.status.success(), "{}", String::from_utf8_lossy(&theirs.stderr));
    assert_eq!(proxy.asked().len() > ours, proxied, "kubectl");
}

#[test]
fn proxy_of_the_kubeconfig_overrides_the_environment() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "proxyurl");
    let near = cp.server().trim_start_matches("https://");
    let proxy = ProxyServer::start(cp, ProxyOptions::default().way(near, cp.server()).login("me", PASSWORD));
    let mut cluster = cluster(cp);
    cluster["proxy-url"] = json!(format!("http://me:{PASSWORD}@{}", proxy.address()));
    desk.kubeconfig("config", &cluster, &admin(cp));
    let mut command = desk.command("provision", &[]);
    command.arg("--kubeconfig").arg(desk.path("config"));
    command.env("HTTPS_PROXY", RefusedPort.url()).env("NO_PROXY", "*");
    let ran = Ran::of(&mut command).expect_code(0);
    assert!(proxy.asked().contains(&format!("CONNECT {near}")), "{:?}", proxy.asked());
    assert!(ran.stderr.contains("from proxy-url"), "{}", ran.stderr);
    expect_no_secret(&ran, PASSWORD);
    assert!(desk.kubectl(cp, "config", &[]).status.success());
}

#[test]
fn loopback_is_never_proxied() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "loopback");
    desk.kubeconfig("config", &cluster(cp), &admin(cp));
    let mut command = desk.command("plan", &[]);
    command.arg("--kubeconfig").arg(desk.path("config"));
    let ran = Ran::of(command.env("HTTPS_PROXY", RefusedPort.url())).expect_code(0);
    assert!(!ran.stderr.contains("proxy"), "{}", ran.stderr);
}

/// In platform mode the environment of a user is ignored, except for proxies, which are logged.
#[test]
fn platform_mode_uses_proxies_for_cluster_and_platform() {
    let cp = ControlPlane::shared();
    let namespace = cp.namespace("bothways");
    let mut instance = Instance::new(cp.admin(), &namespace);
    instance.connection["authentication"]["cluster"]["server"] = json!(format!("https://{PROXIED}"));
    let platform = instance.platform.env().into_iter().find(|(name, _)| *name == "MASSDRIVER_URL").unwrap().1;
    let options =
        ProxyOptions::default().way(PROXIED, cp.server()).way("platform.svc", &platform).login("me", PASSWORD);
    let proxy = ProxyServer::start(cp, options);
    let url = format!("http://me:{PASSWORD}@{}", proxy.address());
    for action in ["provision", "decommission"] {
        let _ = instance.command(action, &[]); // writes the documents
        let mut command = binary();
        command.current_dir(instance.directory.path()).envs(instance.platform.env());
        command.env("MASSDRIVER_URL", "http://platform.svc").env("MASSDRIVER_DEPLOYMENT_ACTION", action);
        let ran = Ran::of(command.env("HTTPS_PROXY", &url).env("HTTP_PROXY", &url)).expect_code(0);
        let address = format!("http://{}", proxy.address());
        for told in [
            format!("{address} for https://{PROXIED}, from HTTPS_PROXY"),
            format!("{address} for http://platform.svc, from HTTP_PROXY"),
        ] {
            assert!(ran.stderr.contains(&told), "{told} in {}", ran.stderr);
        }
        expect_no_secret(&ran, PASSWORD);
        assert_eq!(instance.platform.resource("token").is_some(), action == "provision");
    }
    let asked = proxy.asked();
    assert!(asked.contains(&"POST http://platform.svc/v1/resources".to_owned()), "{asked:?}");
    assert!(asked.contains(&format!("CONNECT {PROXIED}")), "{asked:?}");
    // An exception of NO_PROXY is logged, too; no server listens at the direct address.
    let far =
        std::mem::replace(&mut instance.connection["authentication"]["cluster"]["server"], json!("https://0.0.0.0:1"));
    let _ = instance.command("plan", &[]);
    let mut command = binary();
    command.current_dir(instance.directory.path()).envs(instance.platform.env()).env("HTTPS_PROXY", &url);
    let ran = Ran::of(command.env("MASSDRIVER_DEPLOYMENT_ACTION", "plan").env("NO_PROXY", "0.0.0.0")).expect_code(69);
    assert!(ran.stderr.contains("none for https://0.0.0.0:1, because of NO_PROXY"), "{}", ran.stderr);
    instance.connection["authentication"]["cluster"]["server"] = far;
    // A platform with TLS is reached by CONNECT; the fake platform has none, so the handshake fails behind the proxy.
    let mut command = instance.command("provision", &["--publish"]);
    command.env("HTTPS_PROXY", &url).env("MASSDRIVER_URL", "https://platform.test");
    let ca = instance.path("ca.pem");
    std::fs::write(&ca, cp.ca_pem()).unwrap();
    Ran::of(command.env("SSL_CERT_FILE", ca)).expect_code(69);
    assert!(proxy.asked().contains(&"CONNECT platform.test:443".to_owned()), "{:?}", proxy.asked());
}

/// Old gateways behind proxies: HTTP/1.1 everywhere, and lost responses.
#[rstest]
fn http1_behind_a_proxy_works_with_retries(#[values("http", "https", "socks5")] scheme: &str) {
    let cp = ControlPlane::shared();
    let mut instance = Instance::new(cp.admin(), &cp.namespace("gateway"));
    let ca = instance.path("ca.pem");
    std::fs::write(&ca, cp.ca_pem()).unwrap();
    instance.connection["authentication"]["cluster"]["server"] = json!(format!("https://{PROXIED}"));
    for action in ["provision", "decommission"] {
        let gateway = InterceptingProxy::start(cp, |request| match request.number {
            2 => Verdict::Lose,
            4 => Verdict::Reply(503, Vec::new(), "no upstream".to_owned()),
            14 => Verdict::Drop,
            _ => Verdict::Forward,
        });
        let proxy =
            ProxyServer::start(cp, ProxyOptions::default().way(PROXIED, &gateway.server()).login("me", PASSWORD));
        let url = format!("{scheme}://me:{PASSWORD}@{}", proxy.address());
        let _ = instance.command(action, &[]); // writes the documents
        let mut command = binary();
        command.current_dir(instance.directory.path()).envs(instance.environment()).env("HTTPS_PROXY", url);
        command.env("NO_PROXY", "127.0.0.1,example.com").env("SSL_CERT_FILE", &ca);
        let ran = Ran::of(command.env("MASSDRIVER_DEPLOYMENT_ACTION", action)).expect_code(0);
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.contains("(HTTP/1.1)") && ran.stderr.contains("from HTTPS_PROXY"), "{}", ran.stderr);
        assert!(ran.stderr.matches("\nretry ").count() >= 3, "{}", ran.stderr);
        expect_no_secret(&ran, PASSWORD);
        assert!(!proxy.asked().is_empty());
    }
}

#[test]
fn proxy_errors_do_not_show_the_login() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "wrong");
    kubeconfig_behind_proxy(cp, &desk);
    let silent = SilentServer::start();
    let wants = ProxyServer::start(cp, ProxyOptions::default().way(PROXIED, cp.server()).login("me", "another-one"));
    let forbids = ProxyServer::start(cp, ProxyOptions { status: Some(403), ..ProxyOptions::default() });
    let lost = ProxyServer::start(cp, ProxyOptions::default());
    let (wants, forbids, lost) = (wants.address(), forbids.address(), lost.address());
    let silent = silent.url().replace("http://", "");
    for (url, cause) in [
        (format!("http://me:{PASSWORD}@127.0.0.1:1"), "the proxy http://127.0.0.1:1 cannot be used: cannot connect"),
        (format!("http://{wants}"), "requires a login (407)"),
        (format!("http://me:{PASSWORD}@{wants}"), "does not accept the user and password"),
        (format!("socks5://me:{PASSWORD}@{wants}"), "could not connect to the server: SOCKS error"),
        (format!("socks5://{wants}"), "could not connect to the server: SOCKS error"),
        (
            format!("socks5://me:{PASSWORD}@127.0.0.1:1"),
            "the proxy socks5://127.0.0.1:1 cannot be used: cannot connect",
        ),
        (format!("http://me:{PASSWORD}@{forbids}"), "its answer was 403"),
        (format!("http://{lost}"), "its answer was 502"),
        (format!("socks5://{lost}"), "could not connect to the server"),
        (format!("http://me:{PASSWORD}@{silent}"), "did not connect to the server within the time limit"),
        (format!("http://me:{PASSWORD}@proxy.invalid:3128"), "unknown to DNS"),
        (format!("https://me:{PASSWORD}@{wants}"), "the system has none"),
    ] {
        let mut command = desk.command("provision", &["--timeout", "2"]);
        command.arg("--kubeconfig").arg(desk.path("config"));
        command.env("SSL_CERT_FILE", "/dev/null").env("HTTPS_PROXY", &url);
        let ran = Ran::of(&mut command).expect_code(69);
        let error = ran.document()["error"].clone();
        assert!(error["cause"].as_str().unwrap().contains(cause), "{url}: {error}");
        let wanted = if url.starts_with("https") { "tls" } else { "proxy" };
        assert_eq!((code(&ran).as_str(), &error["exit"]), (wanted, &json!(69)), "{error}");
        assert!(ran.stderr.contains(url.rsplit('@').next().unwrap().split("://").last().unwrap()), "{}", ran.stderr);
        expect_no_secret(&ran, PASSWORD);
    }
}

#[test]
fn invalid_proxy_url_is_refused_before_connecting() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "noproxy");
    kubeconfig_behind_proxy(cp, &desk);
    for url in ["ftp://s3cret@proxy", "http://", "socks4://s3cret@proxy", "a s3cret"] {
        let mut command = desk.command("plan", &[]);
        command.arg("--kubeconfig").arg(desk.path("config")).env("https_proxy", url);
        let ran = Ran::of(&mut command).expect_code(65);
        assert!(refusals(&ran)[0].1.starts_with("https_proxy is not the URL of a proxy"), "{}", ran.stderr);
        expect_no_secret(&ran, "s3cret");
    }
    // The proxy for the platform counts if there is something to publish.
    let instance = Instance::new(cp.admin(), &desk.namespace);
    let mut command = instance.command("provision", &["--publish"]);
    command.env("MASSDRIVER_URL", "http://platform.svc").env("HTTP_PROXY", "ftp://s3cret@proxy");
    let ran = Ran::of(&mut command).expect_code(65);
    assert!(refusals(&ran)[0].1.starts_with("HTTP_PROXY is not the URL"), "{}", ran.stderr);
}
