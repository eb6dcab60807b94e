//! The minimum permissions of a parent credential, as manifests: a Role for each namespace, and a ClusterRole for
//! cluster-scoped objects. Without any of them a run fails. Pure.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    input::request::Params,
    k8s::{
        grant::{Grant, Place, RoleSource, Scope},
        name::{InstanceName, Namespace},
        object::Kind,
        object_names::Names,
    },
    rbac::Rule,
};

/// A Role or ClusterRole to print.
struct Needed {
    kind: Kind,
    namespace: Option<String>,
    rules: Vec<Rule>,
}

/// The token slots that a parent limited to names may use: a Secret that is created again has another name each time.
const SLOTS: u32 = 5;

/// The manifests for these params, as YAML; with a name limited to its objects.
pub(crate) fn render(params: &Params, name: Option<&InstanceName>) -> String {
    let Params { namespace, grants } = params;
    let names = name.map(|name| Names::of(name, namespace));
    written("", for_grants(namespace, grants, names.as_ref()), name, Some(namespace))
}

/// The manifest for any rules in one namespace, as YAML; with a name limited to its objects.
pub(crate) fn render_any(name: Option<&InstanceName>, namespace: Option<&Namespace>) -> String {
    written(ANY, vec![for_any(name, namespace)], name, namespace)
}

fn written(remark: &str, needed: Vec<Needed>, name: Option<&InstanceName>, home: Option<&Namespace>) -> String {
    let called = name.map_or_else(|| "k8s-token-parent".to_owned(), |name| format!("{name}-token-parent"));
    let mut text = HEAD.to_owned();
    text.push_str(remark);
    if name.is_some() {
        text.push_str(NAMED);
    }
    for Needed { kind, namespace, rules } in needed {
        let quoted = |text: &str| Value::from(text).to_string();
        // Outside the home namespace, the names of several instances would collide.
        let home = home.map(Namespace::as_str);
        let home = home.filter(|home| name.is_some() && namespace.as_deref() != Some(*home));
        let called = quoted(&home.map_or_else(|| called.clone(), |home| format!("{called}-{home}")));
        let kind_name = kind.as_str();
        let api = kind.api_version();
        let _ = writeln!(text, "---\napiVersion: {api}\nkind: {kind_name}\nmetadata:\n  name: {called}");
        if let Some(namespace) = namespace {
            let _ = writeln!(text, "  namespace: {}", quoted(&namespace));
        }
        text.push_str("rules:\n");
        for rule in &rules {
            text.push_str(&entry(rule));
        }
    }
    text
}

const HEAD: &str = "\
# The permissions that the parent credential of k8s-token needs. Bind each Role with a RoleBinding in its namespace, and
# a ClusterRole with a ClusterRoleBinding. The namespaces must exist; to create the one of the instance, the parent
# credential also needs get and create on namespaces.
";

const ANY: &str = "\
# For any rules, in the one namespace that this is applied to: escalate and bind let the parent credential grant
# permissions it does not hold. With --params, only the permissions for these params are printed.
";

const NAMED: &str = "\
# A replaced token Secret gets a numbered name; five names are covered.
";

/// A rule as a YAML list item; each field is a JSON list, which is valid YAML, so that no value can break out.
fn entry(rule: &Rule) -> String {
    let fields = [
        ("apiGroups", &rule.api_groups),
        ("resources", &rule.resources),
        ("resourceNames", &rule.resource_names),
        ("nonResourceURLs", &rule.non_resource_urls),
        ("verbs", &rule.verbs),
    ];
    let fields = fields.into_iter().filter(|(_, list)| !list.is_empty());
    let lines: Vec<String> = fields.map(|(field, list)| format!("{field}: {}", Value::from(list.as_slice()))).collect();
    format!("- {}\n", lines.join("\n  "))
}

fn for_grants(home: &Namespace, grants: &[Grant], names: Option<&Names>) -> Vec<Needed> {
    let home = Scope::Namespace(home.clone());
    let mut scopes = vec![&home];
    scopes.extend(grants.iter().map(|grant| &grant.place.scope).filter(|scope| **scope != home));
    scopes.dedup();
    let mut needed: Vec<Needed> = Vec::new();
    for scope in scopes {
        let here: Vec<&Grant> = grants.iter().filter(|grant| grant.place.scope == *scope).collect();
        let mut rules = Vec::new();
        if *scope == home {
            rules.extend(identity(names));
        }
        let (role, binding) = match scope {
            Scope::Namespace(_) => (Kind::Role, Kind::RoleBinding),
            Scope::Cluster => (Kind::ClusterRole, Kind::ClusterRoleBinding),
        };
        if here.iter().any(|grant| grant.place.has_role()) {
            rules.push(manage(role, names.map(|names| vec![names.role(scope).name])));
        }
        if !here.is_empty() {
            rules.push(manage(binding, names.map(|names| bindings(names, here.iter().map(|grant| &grant.place)))));
        }
        let bound = cluster_roles(here.iter().copied());
        if !bound.is_empty() {
            rules.push(rule(Kind::ClusterRole, &["bind"], Some(bound)));
        }
        rules.extend(here.iter().flat_map(|grant| grant.rules.iter().cloned()));
        needed.push(Needed { kind: role, namespace: scope.namespace().map(str::to_owned), rules });
    }
    // A ClusterRole has no namespace; if all of them may be read, these may.
    let read = cluster_roles(grants.iter());
    let whole = |rule: &Rule| rule.resource_names.is_empty() && rule.resources == [Kind::ClusterRole.resource()];
    if !read.is_empty() && !needed.iter().flat_map(|needed| &needed.rules).any(whole) {
        let get = rule(Kind::ClusterRole, &["get"], Some(read));
        match needed.iter_mut().find(|needed| needed.namespace.is_none()) {
            Some(needed) => needed.rules.push(get),
            None => needed.push(Needed { kind: Kind::ClusterRole, namespace: None, rules: vec![get] }),
        }
    }
    needed
}

/// For unknown rules in one namespace; the names of objects do not follow from it.
fn for_any(name: Option<&InstanceName>, namespace: Option<&Namespace>) -> Needed {
    let home = namespace.cloned().or_else(|| Namespace::parse("default").ok());
    let names = name.zip(home.as_ref()).map(|(name, home)| Names::of(name, home));
    let names = names.as_ref();
    let role = || names.map(|names| vec![names.object().to_owned()]);
    let mut rules = identity(names).to_vec();
    rules.push(manage(Kind::Role, role()));
    rules.push(manage(Kind::RoleBinding, names.map(|names| bindings(names, [&names.home()]))));
    rules.push(rule(Kind::Role, &["escalate", "bind"], role()));
    Needed { kind: Kind::Role, namespace: namespace.map(ToString::to_string), rules }
}

fn identity(names: Option<&Names>) -> [Rule; 2] {
    let secrets = |names: &Names| (1..=SLOTS).map(|slot| names.token_secret(slot).name).collect();
    [
        manage(Kind::ServiceAccount, names.map(|names| vec![names.object().to_owned()])),
        manage(Kind::Secret, names.map(secrets)),
    ]
}

/// The names of the bindings of these places.
fn bindings<'a>(names: &Names, places: impl IntoIterator<Item = &'a Place>) -> Vec<String> {
    places.into_iter().map(|place| names.binding(place).name).collect()
}

fn cluster_roles<'a>(grants: impl Iterator<Item = &'a Grant>) -> Vec<String> {
    let names = grants.filter_map(|grant| match &grant.place.role_source {
        RoleSource::ClusterRole(name) => Some(name.as_str().to_owned()),
        RoleSource::Rules => None,
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

/// All requests on objects of a kind. They are created by server-side apply, which contains the name: unlike that of
/// other clients, this `create` can be limited to names.
fn manage(kind: Kind, names: Option<Vec<String>>) -> Rule {
    rule(kind, &["get", "create", "patch", "delete"], names)
}

fn rule(kind: Kind, verbs: &[&str], names: Option<Vec<String>>) -> Rule {
    Rule {
        api_groups: vec![kind.group().to_owned()],
        resources: vec![kind.resource().to_owned()],
        verbs: verbs.iter().map(ToString::to_string).collect(),
        resource_names: names.unwrap_or_default(),
        ..Rule::default()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::plan::fixtures::{Case, namespace, request};

    /// A manifest without its head, one line for each rule: verbs and resources, with names after `:`.
    fn shown(text: &str) -> Vec<String> {
        let documents = text.split("---\n").skip(1);
        let field = |item: &str, field: &str| -> Vec<String> {
            let line = item.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{field}: ")));
            line.map(|list| serde_json::from_str(list).unwrap()).unwrap_or_default()
        };
        let mut lines = Vec::new();
        for document in documents {
            let (head, rules) = document.split_once("rules:\n").unwrap();
            lines.push(
                head.lines()
                    .skip(1)
                    .filter(|line| *line != "metadata:")
                    .map(|line| line.split(' ').next_back().unwrap())
                    .collect::<Vec<_>>()
                    .join(" "),
            );
            for item in rules.split("- ").skip(1) {
                let names = field(item, "resourceNames");
                let names = if names.is_empty() { String::new() } else { format!(": {}", names.join(",")) };
                lines.push(format!("{} {}{names}", field(item, "verbs").join(","), field(item, "resources").join(",")));
            }
        }
        lines
    }

    const ALL: &str = "get,create,patch,delete";

    fn identity() -> [String; 2] {
        ["serviceaccounts", "secrets"].map(|resource| format!("{ALL} {resource}"))
    }

    /// Columns: grants, lines for Roles and ClusterRoles: `+` before a resource is every request on it.
    #[rstest]
    #[case::nothing(&[], &["Role \"k8s-token-parent\" \"home\"", "="])]
    #[case::home(&["home get"], &["Role \"k8s-token-parent\" \"home\"", "=", "+roles", "+rolebindings", "get pods"])]
    #[case::elsewhere(&["b get"], &["Role \"k8s-token-parent\" \"home\"", "=", "Role \"k8s-token-parent\" \"b\"", "+roles", "+rolebindings", "get pods"])]
    #[case::whole_cluster(&["* get"], &["Role \"k8s-token-parent\" \"home\"", "=", "ClusterRole \"k8s-token-parent\"", "+clusterroles", "+clusterrolebindings", "get pods"])]
    #[case::cluster_role(&["home/view"], &["Role \"k8s-token-parent\" \"home\"", "=", "+rolebindings", "bind clusterroles: view", "ClusterRole \"k8s-token-parent\"", "get clusterroles: view"])]
    #[case::cluster_role_everywhere(&["*/view"], &["Role \"k8s-token-parent\" \"home\"", "=", "ClusterRole \"k8s-token-parent\"", "+clusterrolebindings", "bind clusterroles: view", "get clusterroles: view"])]
    #[case::cluster_role_beside_all(&["home/view", "* get"], &["Role \"k8s-token-parent\" \"home\"", "=", "+rolebindings", "bind clusterroles: view", "ClusterRole \"k8s-token-parent\"", "+clusterroles", "+clusterrolebindings", "get pods"])]
    fn permissions_follow_from_the_grants(#[case] grants: &[&'static str], #[case] lines: &[&str]) {
        let params = Params { namespace: namespace("home"), grants: request(&Case::new(grants)).grants };
        let wanted = lines.iter().flat_map(|line| match line.strip_prefix('+') {
            Some(resource) => vec![format!("{ALL} {resource}")],
            None if *line == "=" => identity().to_vec(),
            None => vec![(*line).to_owned()],
        });
        assert_eq!(shown(&render(&params, None)), wanted.collect::<Vec<_>>());
    }

    #[test]
    fn name_limits_permissions_to_its_objects() {
        let params =
            Params { namespace: namespace("home"), grants: request(&Case::new(&["home get", "b get"])).grants };
        let name = InstanceName::parse("demo").unwrap();
        let away = Names::of(&name, &params.namespace).role(&Scope::Namespace(namespace("b"))).name;
        let text = render(&params, Some(&name));
        let slots = "demo-token,demo-token-2,demo-token-3,demo-token-4,demo-token-5";
        assert_eq!(
            shown(&text),
            [
                "Role \"demo-token-parent\" \"home\"",
                &format!("{ALL} serviceaccounts: demo-token"),
                &format!("{ALL} secrets: {slots}"),
                &format!("{ALL} roles: demo-token"),
                &format!("{ALL} rolebindings: demo-token"),
                "get pods",
                "Role \"demo-token-parent-home\" \"b\"",
                &format!("{ALL} roles: {away}"),
                &format!("{ALL} rolebindings: {away}"),
                "get pods",
            ]
        );
        assert!(text.contains(NAMED) && !text.contains(ANY));
    }

    #[rstest]
    #[case::any_instance(None, "k8s-token-parent", "")]
    #[case::one_instance(Some("demo"), "demo-token-parent", ": demo-token")]
    fn unknown_rules_need_escalate_and_bind(#[case] name: Option<&str>, #[case] called: &str, #[case] limit: &str) {
        let name = name.map(|name| InstanceName::parse(name).unwrap());
        let text = render_any(name.as_ref(), None);
        let lines = shown(&text);
        assert_eq!(lines[0], format!("Role \"{called}\""), "applied to any namespace");
        assert_eq!(lines[lines.len() - 1], format!("escalate,bind roles{limit}"));
        assert!(text.contains(ANY));
        assert_eq!(text.contains(NAMED), name.is_some());
    }

    #[test]
    fn values_stay_inside_their_quotes() {
        let rule = Rule { resources: vec!["a\"]\n- verbs: [\"*".to_owned()], ..Rule::default() };
        assert_eq!(entry(&rule), "- resources: [\"a\\\"]\\n- verbs: [\\\"*\"]\n");
    }
}
