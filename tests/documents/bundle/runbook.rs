//! operator.md as operators see it, rendered by a Mustache engine with the context of each version of the platform.

use std::{collections::BTreeMap, fs};

use rstest::rstest;
use serde_json::{Value, json};

const SERVER: &str = "https://api.example.com:6443/k8s?a=1&b=2";

fn authentication() -> Value {
    json!({
        "cluster": { "server": SERVER, "certificate-authority-data": "Q0E=" },
        "user": { "token": "[SENSITIVE]" },
    })
}

/// Payloads of a kubernetes-cluster resource, in every format in use.
pub fn shapes() -> BTreeMap<&'static str, Value> {
    let aws =
        json!({ "arn": "arn:aws:eks:eu-west-1:123456789012:cluster/c", "oidc_issuer_url": "https://oidc.example.com" });
    let specs = json!({ "kubernetes": { "cloud": "aws", "version": "1.33" }, "aws": { "region": "eu-west-1" } });
    BTreeMap::from([
        ("flat", json!({ "authentication": authentication() })),
        ("flat with namespace", json!({ "authentication": authentication(), "namespace": "team-a" })),
        ("flat with cloud", json!({ "authentication": authentication(), "infrastructure": aws, "specs": specs })),
        ("legacy", json!({ "data": { "authentication": authentication() } })),
        (
            "legacy with cloud",
            json!({ "data": { "authentication": authentication(), "infrastructure": aws }, "specs": specs }),
        ),
    ])
}

/// Names in the context of the template: new, both, old, and old without the credential.
#[derive(Clone, Copy, Debug)]
enum Names {
    New,
    Both,
    Old,
    OldSpecsOnly,
}

fn context(names: Names, payload: &Value) -> Value {
    let mut context = json!({
        "id": "shop-prod-token",
        "params": {
            "namespace": "team-a",
            "rules": [
                { "apiGroups": ["", "apps"], "resources": ["pods", "*/scale"], "verbs": ["get", "list"] },
                { "apiGroups": ["*"], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": ["one", "two"] },
                { "apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"], "resourceNames": [] },
            ],
            "md_metadata": { "name_prefix": "shop-prod-token-x1y2", "default_tags": {} },
        },
    });
    let incoming = json!({ "kubernetes_cluster": payload });
    let outgoing = json!({ "token": payload });
    if matches!(names, Names::New | Names::Both) {
        context["dependencies"] = incoming.clone();
        context["resources"] = outgoing.clone();
    }
    if matches!(names, Names::Both | Names::Old) {
        context["connections"] = incoming;
        context["artifacts"] = outgoing;
    }
    if matches!(names, Names::OldSpecsOnly) {
        let specs = json!({ "specs": payload.get("specs").cloned().unwrap_or_else(|| json!({})) });
        context["connections"] = json!({ "kubernetes_cluster": specs });
        context["artifacts"] = json!({ "token": specs });
    }
    context
}

fn template() -> String {
    let text = fs::read_to_string("operator.md").expect("operator.md");
    let body = text.strip_prefix("---\ntemplating: mustache\n---\n").expect("the front matter turns templating on");
    body.to_owned()
}

fn render(context: &Value) -> String {
    let template = mustache::compile_str(&template()).expect("a valid template");
    template.render_to_string(context).expect("a rendered runbook")
}

/// Rendering errors: an empty value, or a tag that the engine did not understand.
fn unrendered_parts(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        let fence = line.starts_with("```");
        in_block ^= fence;
        let mut complain = |what: &str| found.push(format!("{what}: {line}"));
        if line.contains("{{") || line.contains("}}") {
            complain("leftover tag");
        }
        if line.contains("&#") || line.contains("&amp;") || line.contains("&quot;") {
            complain("escaped for HTML");
        }
        if line != line.trim_end() {
            complain("blank at the end");
        }
        if fence {
            continue;
        }
        let words = if in_block { line.trim_start() } else { line };
        if !in_block {
            // Every second part between backticks is code.
            let parts: Vec<&str> = line.split('`').collect();
            if parts.len().is_multiple_of(2) || parts.iter().skip(1).step_by(2).any(|code| code.trim().is_empty()) {
                complain("empty code");
            }
        }
        if [" .", " ,", ": .", "()", "--namespace  ", "account::", ":-token", " -token", "//-"]
            .iter()
            .any(|gap| words.contains(gap) && !(*gap == " ." && words.contains("--sort-by .lastTimestamp")))
            || words.ends_with("--namespace")
        {
            complain("gap");
        }
    }
    if in_block {
        found.push("a code block is not closed".to_owned());
    }
    if text.contains("\n\n\n") {
        found.push("two empty lines".to_owned());
    }
    found
}

#[rstest]
fn runbook_has_no_blanks_on_any_platform(
    #[values("flat", "flat with namespace", "flat with cloud", "legacy", "legacy with cloud")] shape: &str,
    #[values(Names::New, Names::Both, Names::Old, Names::OldSpecsOnly)] names: Names,
) {
    let text = render(&context(names, &shapes()[shape]));
    assert_eq!(unrendered_parts(&text), Vec::<String>::new(), "{text}");
    let knows_the_credential = !matches!(names, Names::OldSpecsOnly);
    assert_eq!(text.matches(SERVER).count(), usize::from(knows_the_credential), "the unescaped server URL, once");
    let knows_its_namespace = knows_the_credential && shape == "flat with namespace";
    assert_eq!(text.contains("set-context"), !knows_its_namespace, "only where the kubeconfig has no namespace");
    assert!(!text.contains("[SENSITIVE]"));
}

#[test]
fn runbook_has_no_blanks_before_the_first_deployment() {
    let mut before = context(Names::New, &shapes()["flat"]);
    before["resources"] = json!({});
    let text = render(&before);
    assert_eq!(unrendered_parts(&text), Vec::<String>::new(), "{text}");
}

/// Template engines differ in how they render a line that contains only a tag.
#[test]
fn no_template_tag_is_alone_on_its_line() {
    let alone: Vec<_> =
        template().lines().filter(|line| line.starts_with("{{") && line.ends_with("}}")).map(str::to_owned).collect();
    assert_eq!(alone, Vec::<String>::new());
}

#[test]
fn unrendered_parts_are_detected() {
    for bad in
        ["a `` b", "Server: .", "use {{x}} now", "in  , b", "kubectl --namespace", "https:&#x2F;&#x2F;a", "(see ())"]
    {
        assert!(!unrendered_parts(bad).is_empty(), "{bad}");
    }
    assert_eq!(unrendered_parts("The `\"\"` group: `a`, `b`."), Vec::<String>::new());
}

#[test]
fn runbook_lists_the_rules() {
    let text = render(&context(Names::New, &shapes()["flat"]));
    for line in [
        "- on `pods` `*/scale` in API group `\"\"` `\"apps\"`, verbs `get` `list`",
        "- on `configmaps` in API group `\"*\"`, verbs `get`, object `one`, object `two`",
        "- on `pods/log` in API group `\"\"`, verbs `get`",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn runbook_lists_namespaces_and_cluster_roles() {
    let mut scoped = context(Names::New, &shapes()["flat"]);
    // As written by hand, and as submitted by a form. A rule without resources must not render those of the platform.
    scoped["params"]["rules"] = json!([
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "namespaces": ["team-b", "team-c"] },
        { "nonResourceURLs": ["/metrics", "/apis/*"], "verbs": ["get"], "namespaces": ["*"] },
        { "apiGroups": [], "resources": [], "nonResourceURLs": ["*"], "verbs": ["get"], "namespaces": ["*"] },
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["list"], "namespaces": null, "nonResourceURLs": [] },
    ]);
    scoped["params"]["cluster_roles"] = json!([
        { "name": "view" },
        { "name": "system:node-reader", "namespaces": ["team-b", "team-c"] },
        { "name": "edit", "namespaces": null },
    ]);
    let text = render(&scoped);
    assert_eq!(unrendered_parts(&text), Vec::<String>::new(), "{text}");
    let list = [
        "- on `pods` in API group `\"\"`, verbs `get`, namespace `team-b`, namespace `team-c`",
        "- on URL `/metrics` URL `/apis/*`, verbs `get`, namespace `*`",
        "- on URL `*`, verbs `get`, namespace `*`",
        "- on `pods` in API group `\"\"`, verbs `list`",
        "- all that the ClusterRole `view` allows",
        "- all that the ClusterRole `system:node-reader` allows, namespace `team-b`, namespace `team-c`",
        "- all that the ClusterRole `edit` allows",
    ];
    assert!(text.contains(&format!("\n{}\n\n", list.join("\n"))), "{text}");
}

#[test]
fn runbook_of_cluster_roles_alone_has_no_blanks() {
    let mut context = context(Names::New, &shapes()["flat"]);
    for rules in [json!(null), json!([])] {
        context["params"]["rules"] = rules;
        context["params"]["cluster_roles"] = json!([{ "name": "view", "namespaces": ["*"] }]);
        let text = render(&context);
        assert_eq!(unrendered_parts(&text), Vec::<String>::new(), "{text}");
        assert!(text.contains("\n- all that the ClusterRole `view` allows, namespace `*`\n\n"), "{text}");
    }
}

/// The whole text, to be reviewed when it changes.
#[test]
fn runbook_of_a_legacy_instance_matches_snapshot() {
    insta::assert_snapshot!(render(&context(Names::New, &shapes()["legacy with cloud"])));
}
