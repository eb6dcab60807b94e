//! The end of the parent credential's own login: tokens of the TokenRequest API and client certificates that the API server
//! accepts, and when a plan or a provision reports that they expire soon.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rstest::rstest;
use serde_json::{Value, json};
use testbed::{ControlPlane, Forged, Grant, Key, Persona, Spec, extension};

use crate::desk::{Desk, cluster};
use crate::support::{Instance, Ran, token_of};

const CODE: &str = "parent-expires";
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// A parent whose token was issued for this long.
fn parent(cp: &ControlPlane, seconds: u64) -> Persona {
    let mut parent = cp.persona("brief", &[Grant::cluster_role("cluster-admin")]);
    let [_, _, namespace, name] = parent.user.split(':').collect::<Vec<_>>()[..] else { panic!("{}", parent.user) };
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
    let answer = cp.post(&path, &json!({"spec": {"expirationSeconds": seconds}}));
    answer["status"]["token"].as_str().unwrap().clone_into(&mut parent.token);
    parent
}

/// The severity of each finding about the login.
fn severities(ran: &Ran) -> Vec<String> {
    ran.findings(CODE).iter().map(|finding| finding["severity"].as_str().unwrap().to_owned()).collect()
}

/// Columns: the life of the token, the severity in a connection document, that in a kubeconfig.
#[rstest]
#[case::an_hour(HOUR, &["medium"], &["info"])]
#[case::six_days(6 * DAY, &["medium"], &["medium"])]
#[case::three_weeks(21 * DAY, &["low"], &["low"])]
#[case::two_months(60 * DAY, &[], &[])]
fn expiring_token_is_reported_by_plan_and_provision(
    #[case] life: u64,
    #[case] in_connection: &[&str],
    #[case] in_kubeconfig: &[&str],
) {
    let cp = ControlPlane::shared();
    let parent = parent(cp, life);
    let instance = Instance::new(&parent, &cp.namespace("expires"));
    for action in ["plan", "provision", "plan"] {
        let ran = instance.ask(action, &[]).expect_code(0);
        assert_eq!(severities(&ran), in_connection, "{action}");
        assert_eq!(ran.document()["outcome"], "ok");
    }
    assert_eq!(severities(&instance.ask("decommission", &[]).expect_code(0)), Vec::<String>::new());

    let desk = Desk::new(cp, "expires");
    desk.kubeconfig("config", &cluster(cp), &json!({"token": parent.token}));
    assert_eq!(severities(&desk.ask("plan", "config", &[]).expect_code(0)), in_kubeconfig);
}

#[test]
fn expiring_connection_is_reported_in_a_deployment() {
    let cp = ControlPlane::shared();
    let instance = Instance::new(&parent(cp, 2 * DAY), &cp.namespace("expires"));
    let ran = instance.act("provision").expect_code(0);
    let line = ran.stderr.lines().find(|line| line.contains("[parent-expires]")).unwrap();
    assert!(line.starts_with("medium"), "{line}");
    assert!(line.contains("the token of the parent credential in the connection expires at 20"), "{line}");
    assert!(line.contains("in 1 day: after that, a provision and a decommission fail with 401"), "{line}");
    assert!(ran.stderr.contains("put a new token into the connection before that"), "{}", ran.stderr);

    // The credential that was published does not depend on it.
    let token = token_of(&instance.platform.resource("token").unwrap());
    assert_eq!(crate::support::status(cp, &token, &format!("/api/v1/namespaces/{}/pods", instance.namespace)), 200);
}

/// A client certificate of an administrator that expires after this time.
fn user_with_certificate(cp: &ControlPlane, life: u64) -> Value {
    let ends = jiff::Timestamp::try_from(SystemTime::now() + Duration::from_secs(life)).unwrap();
    let ends = ends.strftime("%Y%m%d%H%M%SZ").to_string().leak();
    let spec =
        Spec { groups: vec!["system:masters".to_owned()], valid: ("20250101000000Z", ends), ..Spec::new("alice") };
    let client = Forged::signed_by(cp, &spec.with(extension::usages(&[extension::CLIENT])), Key::p256());
    json!({"client-certificate-data": client.base64(), "client-key-data": STANDARD.encode(client.key.pem())})
}

#[rstest]
#[case::three_days(3 * DAY, &["medium"])]
#[case::twenty_days(20 * DAY, &["low"])]
#[case::a_year(365 * DAY, &[])]
fn expiring_client_certificate_is_reported(#[case] life: u64, #[case] severities_expected: &[&str]) {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "expires");
    desk.kubeconfig("config", &cluster(cp), &user_with_certificate(cp, life));
    for action in ["plan", "provision"] {
        let ran = desk.ask(action, "config", &[]).expect_code(0);
        assert_eq!(severities(&ran), severities_expected, "{action}");
        for finding in ran.findings(CODE) {
            let text = finding["message"].as_str().unwrap();
            assert!(text.starts_with("the client certificate of the parent credential in the kubeconfig"), "{text}");
        }
    }
}

/// A login command prints a new credential for each run, and a token file is written anew before it expires.
#[test]
fn login_that_renews_itself_has_no_finding() {
    let cp = ControlPlane::shared();
    let desk = Desk::new(cp, "expires");
    let token = parent(cp, HOUR).token;
    let printed = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {"token": token}});
    let command = desk.script("login", &format!("echo '{printed}'"));
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": command, "interactiveMode": "Never"});
    desk.kubeconfig("exec", &cluster(cp), &json!({"exec": exec}));
    desk.kubeconfig("file", &cluster(cp), &json!({"tokenFile": desk.put("token", &token), "token": "unused"}));
    // kubectl uses the token where the file cannot be read.
    desk.kubeconfig("no-file", &cluster(cp), &json!({"tokenFile": desk.path("absent"), "token": token}));
    fs::metadata(desk.path("absent")).unwrap_err();
    for (kubeconfig, expected) in [("exec", 0), ("file", 0), ("no-file", 1)] {
        let ran = desk.ask("plan", kubeconfig, &[]).expect_code(0);
        assert_eq!(ran.findings(CODE).len(), expected, "{kubeconfig}");
    }
}
