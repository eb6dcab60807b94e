//! The minimum duration of issuing a credential: its requests in sequence on one open connection, without reads,
//! validation, test of the token or publication. The program is measured against it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::error::{OrFail, fail};
use crate::persona::Persona;
use crate::rest::Client;
use crate::wait::PATIENCE;

/// Pause between two reads of the Secret; short, because a minimum must not be too high.
const PAUSE: Duration = Duration::from_millis(1);

/// A client with the token of one persona, and an open connection.
#[derive(Debug)]
pub struct Floor {
    client: Client,
    parent: String,
}

/// Measurement of one credential.
#[derive(Clone, Copy, Debug)]
pub struct Lap {
    /// From the first request to the last response.
    pub took: Duration,
    /// The number of requests: 5, three for each namespace, and one more each time the token did not exist yet, or was
    /// not accepted yet.
    pub requests: u32,
}

impl Floor {
    /// A client of this control plane with the token of this persona.
    pub fn new(control_plane: &ControlPlane, parent: &Persona) -> Self {
        let client = Client::new(control_plane.server(), control_plane.ca_pem(), None).or_fail("making a client");
        Self { client, parent: parent.token.clone() }
    }

    /// Creates ServiceAccount and Secret in the home namespace, Role and RoleBinding in each of the namespaces, waits
    /// for the token, and sends its reviews: identity, rules in each namespace, and one access review.
    pub fn credential(&self, home: &str, name: &str, namespaces: &[String], rules: &[Value]) -> Lap {
        let core = format!("/api/v1/namespaces/{home}");
        let account = json!({"metadata": {"name": name}});
        let role = json!({"metadata": {"name": name}, "rules": rules});
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "namespace": home, "name": name}],
        });
        let secret = json!({
            "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": name}},
            "type": "kubernetes.io/service-account-token",
        });
        // A connection that was idle for long is opened again here, before the measurement starts.
        self.send("GET", "/version", &self.parent, None);

        let start = Instant::now();
        self.send("POST", &format!("{core}/serviceaccounts"), &self.parent, Some(&account));
        let mut requests = 3;
        for namespace in namespaces {
            let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
            self.send("POST", &format!("{rbac}/roles"), &self.parent, Some(&role));
            self.send("POST", &format!("{rbac}/rolebindings"), &self.parent, Some(&binding));
            requests += 2;
        }
        self.send("POST", &format!("{core}/secrets"), &self.parent, Some(&secret));
        let (token, looks) = self.token(&format!("{core}/secrets/{name}"));
        let questions = self.identity(&token);
        let reviews = "/apis/authorization.k8s.io/v1";
        for namespace in namespaces {
            let what = json!({"spec": {"namespace": namespace}});
            self.send("POST", &format!("{reviews}/selfsubjectrulesreviews"), &token, Some(&what));
            requests += 1;
        }
        let whether = json!({"spec": {"resourceAttributes": {
            "namespace": namespaces[0],
            "verb": rules[0]["verbs"][0],
            "group": rules[0]["apiGroups"][0],
            "resource": rules[0]["resources"][0],
        }}});
        self.send("POST", &format!("{reviews}/selfsubjectaccessreviews"), &token, Some(&whether));
        Lap { took: start.elapsed(), requests: requests + looks + questions }
    }

    /// The token in a Secret, and the number of reads until the controller had written it.
    fn token(&self, secret: &str) -> (String, u32) {
        let start = Instant::now();
        let mut looks = 0;
        while start.elapsed() < PATIENCE {
            looks += 1;
            let found = self.send("GET", secret, &self.parent, None);
            if let Some(token) = found.pointer("/data/token").and_then(Value::as_str) {
                let token = STANDARD.decode(token).or_fail("decoding a token");
                return (String::from_utf8(token).or_fail("decoding a token"), looks);
            }
            sleep(PAUSE);
        }
        fail(format_args!("no token in {secret}"))
    }

    /// Reviews the identity of the token until the server accepts it, which can be some milliseconds after it is in the
    /// Secret. Returns the number of requests.
    fn identity(&self, token: &str) -> u32 {
        let start = Instant::now();
        let mut questions = 0;
        while start.elapsed() < PATIENCE {
            questions += 1;
            let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
            let answer = self.client.send("POST", path, Some(token), Some(&json!({}))).or_fail("asking");
            match answer.status {
                201 => return questions,
                401 => sleep(PAUSE),
                status => fail(format_args!("POST {path}: {status} {}", answer.text)),
            }
        }
        fail("the server does not accept the token")
    }

    fn send(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Value {
        let answer = self.client.send(method, path, Some(token), body).or_fail("asking");
        if !(200..300).contains(&answer.status) {
            fail(format_args!("{method} {path}: {} {}", answer.status, answer.text));
        }
        answer.body
    }
}
