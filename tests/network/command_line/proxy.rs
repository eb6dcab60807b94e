//! Proxies: which way is taken is what kubectl would take, and what goes wrong on it has its name.

use std::process::Command;

use rstest::rstest;
use serde_json::json;
use testbed::{ControlPlane, InterceptingProxy, ProxyOptions, ProxyServer, RefusedPort, SilentServer, Verdict};

use crate::{
    desk::{Desk, admin, cluster, code, refusals},
    support::{Instance, Ran, binary},
};

/// An address that is in the server's certificate, is not of this machine, and is reached by proxy only.
const FAR: &str = "10.0.0.1:6443";
const PASSWORD: &str = "open-s3same";

fn port(server: &str) -> &str {
    server.rsplit(':').next().unwrap()
}

/// A kubeconfig for the server as it is called on the other side of a proxy.
fn far(cp: &ControlPlane, desk: &Desk) {
    let mut cluster = cluster(cp);
    cluster["server"] = json!(format!("https://{FAR}"));
    desk.kubeconfig("config", &cluster, &admin(cp));
}

fn silent_about(ran: &Ran, secret: &str) {
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
fn the_proxy_of_the_environment_leads_to_the_cluster(#[case] variable: &str, #[case] start: &str) {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "proxied");
    let options = ProxyOptions::default().way(FAR, cp.server());
    let options = if start.contains('@') { options.login("me", PASSWORD) } else { options };
    let proxy = ProxyServer::start(cp, options);
    far(cp, &desk);
    let ca = desk.put("ca.pem", cp.ca_pem());
    let url = format!("{start}{}", proxy.address());
    let set = |command: &mut Command| {
        command.env(variable, &url).env("SSL_CERT_FILE", &ca);
    };
    let mut command = desk.command("provision", &[]);
    set(command.arg("--kubeconfig").arg(desk.path("config")));
    let ran = Ran::of(&mut command).expect_code(0);
    let asked = proxy.asked();
    let wanted = format!("{} {FAR}", if start.starts_with("socks") { "SOCKS" } else { "CONNECT" });
    assert!(!asked.is_empty() && asked.iter().all(|asked| *asked == wanted), "{asked:?}");
    assert!(ran.stderr.contains(&format!("{} for https://{FAR}, from {variable}", proxy.address())), "{}", ran.stderr);
    assert!(ran.stderr.contains("(HTTP/2)"), "{}", ran.stderr);
    silent_about(&ran, PASSWORD);

    let mut kubectl = Command::new(cp.kubectl_path());
    set(kubectl.env_clear().arg("--kubeconfig").arg(desk.path("config")).args(["get", "--raw", "/version"]));
    let theirs = kubectl.output().unwrap();
    assert!(theirs.status.success(), "kubectl takes the same way: {}", String::from_utf8_lossy(&theirs.stderr));
    assert_eq!(proxy.asked().last(), Some(&wanted));
}

/// 0.0.0.0 is this machine, and yet no loopback address to Go: what NO_PROXY excepts gets there without DNS.
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
fn no_proxy_excepts_what_it_excepts_for_kubectl(#[case] list: &str, #[case] proxied: bool) {
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
fn the_proxy_of_the_kubeconfig_wins_and_nothing_is_excepted_from_it() {
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
    silent_about(&ran, PASSWORD);
    assert!(desk.kubectl(cp, "config", &[]).status.success());
}

#[test]
fn this_machine_is_never_asked_of_a_proxy() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "loopback");
    desk.kubeconfig("config", &cluster(cp), &admin(cp));
    let mut command = desk.command("plan", &[]);
    command.arg("--kubeconfig").arg(desk.path("config"));
    let ran = Ran::of(command.env("HTTPS_PROXY", RefusedPort.url())).expect_code(0);
    assert!(!ran.stderr.contains("proxy"), "{}", ran.stderr);
}

/// Section 1 of the interface: nothing of a person's, but proxies are honoured, and logged.
#[test]
fn the_platform_mode_honours_proxies_on_both_ways() {
    let cp = ControlPlane::shared();
    let namespace = cp.namespace("bothways");
    let mut instance = Instance::new(cp.admin(), &namespace);
    instance.connection["authentication"]["cluster"]["server"] = json!(format!("https://{FAR}"));
    let platform = instance.platform.env().into_iter().find(|(name, _)| *name == "MASSDRIVER_URL").unwrap().1;
    let options = ProxyOptions::default().way(FAR, cp.server()).way("platform.svc", &platform).login("me", PASSWORD);
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
            format!("{address} for https://{FAR}, from HTTPS_PROXY"),
            format!("{address} for http://platform.svc, from HTTP_PROXY"),
        ] {
            assert!(ran.stderr.contains(&told), "{told} in {}", ran.stderr);
        }
        silent_about(&ran, PASSWORD);
        assert_eq!(instance.platform.resource("token").is_some(), action == "provision");
    }
    let asked = proxy.asked();
    assert!(asked.contains(&"POST http://platform.svc/v1/resources".to_owned()), "{asked:?}");
    assert!(asked.contains(&format!("CONNECT {FAR}")), "{asked:?}");
    // What NO_PROXY excepts is said too; straight ahead nobody is there.
    let far =
        std::mem::replace(&mut instance.connection["authentication"]["cluster"]["server"], json!("https://0.0.0.0:1"));
    let _ = instance.command("plan", &[]);
    let mut command = binary();
    command.current_dir(instance.directory.path()).envs(instance.platform.env()).env("HTTPS_PROXY", &url);
    let ran = Ran::of(command.env("MASSDRIVER_DEPLOYMENT_ACTION", "plan").env("NO_PROXY", "0.0.0.0")).expect_code(69);
    assert!(ran.stderr.contains("none for https://0.0.0.0:1, because of NO_PROXY"), "{}", ran.stderr);
    instance.connection["authentication"]["cluster"]["server"] = far;
    // A platform with TLS is reached by CONNECT; a double has none, and the handshake fails behind the proxy.
    let mut command = instance.command("provision", &["--publish"]);
    command.env("HTTPS_PROXY", &url).env("MASSDRIVER_URL", "https://platform.test");
    let ca = instance.path("ca.pem");
    std::fs::write(&ca, cp.ca_pem()).unwrap();
    Ran::of(command.env("SSL_CERT_FILE", ca)).expect_code(69);
    assert!(proxy.asked().contains(&"CONNECT platform.test:443".to_owned()), "{:?}", proxy.asked());
}

/// Old gateways behind proxies: HTTP/1.1 all the way, and answers that get lost on it.
#[rstest]
fn http_1_is_enough_behind_a_proxy_and_for_another_try(#[values("http", "https", "socks5")] scheme: &str) {
    let cp = ControlPlane::shared();
    let mut instance = Instance::new(cp.admin(), &cp.namespace("gateway"));
    let ca = instance.path("ca.pem");
    std::fs::write(&ca, cp.ca_pem()).unwrap();
    instance.connection["authentication"]["cluster"]["server"] = json!(format!("https://{FAR}"));
    for action in ["provision", "decommission"] {
        let gateway = InterceptingProxy::start(cp, |request| match request.number {
            2 => Verdict::Lose,
            4 => Verdict::Reply(503, Vec::new(), "no upstream".to_owned()),
            14 => Verdict::Drop,
            _ => Verdict::Forward,
        });
        let proxy = ProxyServer::start(cp, ProxyOptions::default().way(FAR, &gateway.server()).login("me", PASSWORD));
        let url = format!("{scheme}://me:{PASSWORD}@{}", proxy.address());
        let _ = instance.command(action, &[]); // writes the documents
        let mut command = binary();
        command.current_dir(instance.directory.path()).envs(instance.environment()).env("HTTPS_PROXY", url);
        command.env("NO_PROXY", "127.0.0.1,example.com").env("SSL_CERT_FILE", &ca);
        let ran = Ran::of(command.env("MASSDRIVER_DEPLOYMENT_ACTION", action)).expect_code(0);
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.contains("(HTTP/1.1)") && ran.stderr.contains("from HTTPS_PROXY"), "{}", ran.stderr);
        assert!(ran.stderr.matches("\nretry ").count() >= 3, "{}", ran.stderr);
        silent_about(&ran, PASSWORD);
        assert!(!proxy.asked().is_empty());
    }
}

#[test]
fn what_goes_wrong_at_a_proxy_is_said_without_its_login() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "wrong");
    far(cp, &desk);
    let silent = SilentServer::start();
    let wants = ProxyServer::start(cp, ProxyOptions::default().way(FAR, cp.server()).login("me", "another-one"));
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
        silent_about(&ran, PASSWORD);
    }
}

#[test]
fn what_is_no_proxy_is_refused_before_the_first_packet() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "noproxy");
    far(cp, &desk);
    for url in ["ftp://s3cret@proxy", "http://", "socks4://s3cret@proxy", "a s3cret"] {
        let mut command = desk.command("plan", &[]);
        command.arg("--kubeconfig").arg(desk.path("config")).env("https_proxy", url);
        let ran = Ran::of(&mut command).expect_code(65);
        assert!(refusals(&ran)[0].1.starts_with("https_proxy is not the URL of a proxy"), "{}", ran.stderr);
        silent_about(&ran, "s3cret");
    }
    // The platform's way counts where there is something to publish.
    let instance = Instance::new(cp.admin(), &desk.namespace);
    let mut command = instance.command("provision", &["--publish"]);
    command.env("MASSDRIVER_URL", "http://platform.svc").env("HTTP_PROXY", "ftp://s3cret@proxy");
    let ran = Ran::of(&mut command).expect_code(65);
    assert!(refusals(&ran)[0].1.starts_with("HTTP_PROXY is not the URL"), "{}", ran.stderr);
}
