//! Policies, webhooks and quotas that refuse requests in a namespace, created and removed.

use serde_json::{Value, json};
use testbed::{ControlPlane, Intercepted, Persona, Verdict, eventually};

use crate::support::OBJECT;

const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";

/// The API group of a resource.
pub fn group(resource: &str) -> &'static str {
    if resource.starts_with("role") { "rbac.authorization.k8s.io" } else { "" }
}

/// The collection path of a resource.
pub fn collection(namespace: &str, resource: &str) -> String {
    match group(resource) {
        "" => format!("/api/v1/namespaces/{namespace}/{resource}"),
        group => format!("/apis/{group}/v1/namespaces/{namespace}/{resource}"),
    }
}

/// The path of the instance's object.
pub fn path(namespace: &str, resource: &str) -> String {
    format!("{}/{OBJECT}", collection(namespace, resource))
}

/// Whether a request changes the instance's object, dry runs included.
pub fn changes(request: &Intercepted, namespace: &str, resource: &str) -> bool {
    let at = request.path.split('?').next().unwrap_or_default();
    ["PATCH", "DELETE"].contains(&request.method.as_str()) && at == path(namespace, resource)
}

/// Objects of the admission API, deleted on drop.
#[derive(Default)]
pub struct Admission<'a> {
    cp: Option<&'a ControlPlane>,
    made: Vec<String>,
}

impl<'a> Admission<'a> {
    fn make(&mut self, cp: &'a ControlPlane, kind: &str, object: &Value) {
        let collection = format!("{REGISTRATION}/{kind}");
        cp.post(&collection, object);
        self.cp = Some(cp);
        self.made.push(format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap()));
    }

    /// A ValidatingAdmissionPolicy for this resource in this namespace, with its binding.
    pub fn policy(cp: &'a ControlPlane, namespace: &str, resource: &str, spec: &Value, actions: &Value) -> Self {
        let mut this = Self::default();
        let mutating = spec.get("mutations").is_some();
        let operations = if mutating { json!(["CREATE", "UPDATE"]) } else { json!(["CREATE", "UPDATE", "DELETE"]) };
        let mut policy = json!({"metadata": {"name": namespace}, "spec": spec});
        policy["spec"]["matchConstraints"] = json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "resourceRules": [{
                "apiGroups": [group(resource)], "apiVersions": ["v1"], "resources": [resource], "operations": operations,
            }],
        });
        let mut binding = json!({"metadata": {"name": namespace}, "spec": {"policyName": namespace}});
        if mutating {
            policy["spec"]["reinvocationPolicy"] = json!("Never");
        } else {
            binding["spec"]["validationActions"] = actions.clone();
        }
        let kind = if mutating { "mutatingadmissionpolicy" } else { "validatingadmissionpolicy" };
        this.make(cp, &format!("{kind}bindings"), &binding);
        this.make(cp, &kind.replace("policy", "policies"), &policy);
        this
    }

    /// A webhook for this resource in this namespace.
    pub fn webhook(cp: &'a ControlPlane, namespace: &str, resource: &str, kind: &str, url: &str, more: &Value) -> Self {
        let mut this = Self::default();
        let mut webhook = json!({
            "name": "no.example.com",
            "clientConfig": {"url": url, "caBundle": cp.ca_base64()},
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "rules": [{
                "apiGroups": [group(resource)], "apiVersions": ["v1"], "resources": [resource],
                "operations": ["CREATE", "UPDATE", "DELETE"],
            }],
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            webhook[key] = value.clone();
        }
        this.make(cp, kind, &json!({"metadata": {"name": namespace}, "webhooks": [webhook]}));
        this
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        for path in &self.made {
            self.cp.and_then(|cp| cp.delete(path));
        }
    }
}

/// Waits until a dry run is refused.
pub fn await_in_force(cp: &ControlPlane, parent: &Persona, namespace: &str, resource: &str, deleting: bool) {
    let probe = json!({"metadata": {"name": "probe", "namespace": namespace}, "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
    eventually("the denial is in force", || {
        let (method, path, body) = if deleting {
            ("DELETE", path(namespace, resource), None)
        } else {
            ("POST", collection(namespace, resource), Some(&probe))
        };
        let ask = || cp.request(method, &format!("{path}?dryRun=All"), Some(&parent.token), body).status;
        // A broken connection counts as a refusal, too.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(ask)).map_or(true, |status| status >= 300).then_some(())
    });
}

/// Waits until the audit log reports a dry run that failed the policy.
pub fn await_in_audit_log(cp: &ControlPlane, namespace: &str, resource: &str) {
    let probe = json!({"metadata": {"name": OBJECT, "namespace": namespace}});
    eventually("the policy is in force", || {
        let ask = || {
            let mark = cp.audit().mark();
            let token = Some(cp.admin().token.as_str());
            let collection = collection(namespace, resource);
            let _ = cp.request("POST", &format!("{collection}?dryRun=All"), token, Some(&probe));
            let events = cp.audit().since(mark).into_iter().filter(|event| event.uri.starts_with(&collection));
            let failure =
                |raw: &Value| raw["annotations"]["validation.policy.admission.k8s.io/validation_failure"].is_string();
            events.into_iter().any(|event| failure(&event.raw))
        };
        ask().then_some(())
    });
}

/// A response of the gateway in front of the server.
pub fn page(status: u16) -> Verdict {
    let headers = vec![("content-type", "text/html".to_owned())];
    Verdict::Reply(status, headers, "<!DOCTYPE html><html><h1>Access denied</h1></html>".to_owned())
}
