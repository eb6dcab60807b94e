//! The least that a credential costs: its bare requests one after the other on one open connection, without a look at
//! what is there, without validation, proof or publishing. What a real program takes is measured against it.

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

/// Between two looks at the Secret; short, because a floor must not lie too high.
const PAUSE: Duration = Duration::from_millis(1);

/// A client that is logged in as one persona, with its connection open.
#[derive(Debug)]
pub struct Floor {
    client: Client,
    parent: String,
}

/// How one credential went.
#[derive(Clone, Copy, Debug)]
pub struct Lap {
    /// From the first request to the last answer.
    pub took: Duration,
    /// How many there were: 5 and three a namespace, and one more each time the token was not there yet, or not known
    /// yet.
    pub requests: u32,
}

impl Floor {
    /// A client of this control plane, as this persona.
    #[must_use]
    pub fn new(control_plane: &ControlPlane, parent: &Persona) -> Self {
        let client = Client::new(control_plane.server(), control_plane.ca_pem(), None).or_fail("making a client");
        Self { client, parent: parent.token.clone() }
    }

    /// Makes ServiceAccount and Secret at home, Role and RoleBinding in each of the namespaces, waits for the token,
    /// and asks with it who it is, what it may do in each of them, and whether it may do one thing.
    #[must_use]
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
        // A connection that was idle for long is opened again here, not on the clock.
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

    /// The token that the controller puts into a Secret, and how often that was looked for.
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

    /// Asks who the token is until the server knows it: it can be in the Secret some milliseconds before that. How
    /// often that was asked.
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
        fail("the server does not get to know the token")
    }

    fn send(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Value {
        let answer = self.client.send(method, path, Some(token), body).or_fail("asking");
        if !(200..300).contains(&answer.status) {
            fail(format_args!("{method} {path}: {} {}", answer.status, answer.text));
        }
        answer.body
    }
}
