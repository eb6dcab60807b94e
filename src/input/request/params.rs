//! The params: namespace, grants, name and labels of an instance. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    diagnostics::{
        finding::{self, Finding, add_new},
        text::quote_key,
    },
    input::{
        documents::{CONFIG, Inputs, Origin, Strictness},
        request::{
            Parsed, grants,
            guardrails::{self, Guardrails},
            pointer, settle,
        },
    },
    k8s::{
        grant::{Grants, Place, RoleSource, Scope},
        inventory::Inventory,
        name::{self, InstanceName, Namespace},
    },
    schema::{self, Schema},
};

/// Validated params.
pub(crate) struct Params {
    /// The home namespace.
    pub(crate) namespace: Namespace,
    /// The grants of the credential.
    pub(crate) grants: Grants,
}

/// Params without a cluster; on the command line the name may be missing.
pub(crate) struct Checked {
    /// The instance, if it is named.
    pub(crate) name: Option<InstanceName>,
    /// The params.
    pub(crate) params: Params,
    /// Their guardrails.
    pub(crate) guardrails: Guardrails,
}

/// Parses params without a cluster, as those of a provision.
///
/// # Errors
/// All findings, at least one of which is blocking.
pub(crate) fn check(inputs: &Inputs, mut findings: Vec<Finding>) -> Parsed<Checked> {
    let params = parse(inputs, Strictness::Strict, &mut findings);
    let name = name_if_any(inputs, &mut findings);
    labels(inputs, &mut findings);
    let guardrails = guardrails::parse(inputs, &mut findings);
    settle(params.map(|params| Checked { name, params, guardrails }), findings)
}

/// The rules of the params as far as they can be read, even if the params are refused. Without a valid namespace they are
/// taken as rules for some namespace.
pub(crate) fn readable_grants(inputs: &Inputs) -> Grants {
    let namespace = inputs.namespace.as_deref().or_else(|| inputs.params.get("namespace").and_then(Value::as_str));
    let namespace = namespace.map(Scope::parse);
    let home = namespace.and_then(Result::ok).filter(|scope| *scope != Scope::Cluster);
    let home = home.map_or_else(|| Scope::parse("default"), Ok);
    home.map_or_else(
        |_| Grants::default(),
        |home| grants::parse(&inputs.params, &inputs.origin, &Place::new(home, RoleSource::Rules)).0,
    )
}

/// The name of the instance, if given.
pub(crate) fn name_if_any(inputs: &Inputs, findings: &mut Vec<Finding>) -> Option<InstanceName> {
    let is_named = inputs.name.is_some() || inputs.params.pointer("/md_metadata/name_prefix").is_some();
    if is_named && !inputs.params_unread { name(inputs, findings) } else { None }
}

/// A namespace that takes precedence over that of the params.
struct Overriding {
    namespace: Value,
    /// What sets it, in a message.
    text: &'static str,
    /// What sets it, as the source of a finding.
    source: &'static str,
}

impl Overriding {
    /// That of `config.json`, or `--namespace`; no command has both.
    fn of(inputs: &Inputs) -> Option<Self> {
        let option = inputs.namespace.clone().map(Value::String);
        let config = || inputs.config.get("namespace").filter(|value| !value.is_null()).cloned();
        match option {
            Some(namespace) => Some(Self { namespace, text: "--namespace", source: "--namespace" }),
            None => config().map(|namespace| Self { namespace, text: "namespace of config.json", source: CONFIG }),
        }
    }

    /// The finding that the params have another namespace.
    fn remark(&self, document: &Value) -> Option<Finding> {
        let (namespace, other) = (self.namespace.as_str()?, document.get("namespace")?.as_str()?);
        let text = format!("{} sets another namespace than the params, and is used", self.source);
        let finding = Finding::remark(finding::Code::NamespaceOverridden, text).at("/namespace");
        (namespace != other).then(|| finding.source(self.source.to_owned()))
    }
}

/// Parses namespace and grants. `namespace` of `config.json`, or `--namespace`, takes precedence over that of the params.
pub(crate) fn parse(inputs: &Inputs, strictness: Strictness, findings: &mut Vec<Finding>) -> Option<Params> {
    if inputs.params_unread {
        return None;
    }
    let known = findings.len();
    let document = &inputs.params;
    let overriding = Overriding::of(inputs);
    let mut effective = document.clone();
    if let (Some(overriding), Some(params)) = (&overriding, effective.as_object_mut()) {
        params.insert("namespace".to_owned(), overriding.namespace.clone());
    }
    let mut problems = match strictness {
        Strictness::Strict => check_params(inputs, &effective),
        // A rule that can no longer be granted must not keep a token alive.
        Strictness::OnlyWhatLocatesTheInstance => check_namespace(&effective),
    };
    if let Some(Overriding { text, source, .. }) = overriding {
        for problem in problems.iter_mut().filter(|problem| problem.pointer.as_deref() == Some("/namespace")) {
            problem.message = format!("{text}: {}", problem.message);
            problem.source = Some(source.to_owned());
        }
    }
    explain(&inputs.origin, &effective, &mut problems);
    let is_sound = !problems.iter().any(|finding| finding.blocking);
    findings.append(&mut problems);
    findings.extend(overriding.and_then(|overriding| overriding.remark(document)));
    // The schema has validated its format.
    let namespace = Namespace::parse(effective.get("namespace").and_then(Value::as_str).unwrap_or_default());
    let namespace = namespace.ok().filter(|_| is_sound);
    let grants = namespace.as_ref().map(|namespace| grants_of(inputs, namespace, strictness, findings));
    inputs.origin.attribute(&mut findings[known..]);
    namespace.zip(grants).map(|(namespace, grants)| Params { namespace, grants })
}

/// What the schema says about a missing namespace.
const NO_NAMESPACE: &str = "the field `namespace` is missing (required)";

/// Words the problems that the schema finds for the origin of the params, and adds what it knows about them.
fn explain(origin: &Origin, document: &Value, problems: &mut [Finding]) {
    for problem in problems {
        let help = match problem.pointer.as_deref() {
            _ if problem.help.is_some() => problem.help.take().map(|help| origin.worded(help)),
            Some("") if problem.message == NO_NAMESPACE => origin.namespace_help().map(str::to_owned),
            Some(pointer) if !pointer.is_empty() && problem.message.ends_with("(type)") => {
                document.pointer(pointer).and_then(|value| origin.type_help(value)).map(str::to_owned)
            }
            _ => None,
        };
        problem.help = help;
    }
}

/// The grants, as far as the ServiceAccount can record their places.
fn grants_of(inputs: &Inputs, home: &Namespace, strictness: Strictness, findings: &mut Vec<Finding>) -> Grants {
    let home = Place::new(Scope::Namespace(home.clone()), RoleSource::Rules);
    let (grants, mut unread) = grants::parse(&inputs.params, &inputs.origin, &home);
    let inventory: Inventory = grants.iter().map(|grant| grant.place.clone()).collect();
    let length = inventory.text(&home).map_or(0, |text| text.len());
    let is_too_long = length > Inventory::LONGEST;
    match strictness {
        // These were never granted: the inventory lists what was.
        Strictness::OnlyWhatLocatesTheInstance if is_too_long => return Grants::default(),
        Strictness::OnlyWhatLocatesTheInstance => {}
        Strictness::Strict => {
            findings.append(&mut unread);
            if is_too_long {
                let text = format!(
                    "too many namespaces: their list takes {length} bytes, and the ServiceAccount has room for {}; use \
                     several instances, or `*`",
                    Inventory::LONGEST
                );
                findings.push(Finding::blocking(finding::Code::Schema, "", text));
            }
        }
    }
    grants
}

/// The params that a decommission needs.
fn check_namespace(document: &Value) -> Vec<Finding> {
    let understood: Value = serde_json::from_str(schema::PARAMS).unwrap_or_default();
    let form = understood.pointer("/properties/namespace").cloned().unwrap_or_default();
    match (document.get("namespace"), Schema::new(form)) {
        (Some(namespace), Ok(form)) => form.check("/namespace", namespace),
        _ => vec![Finding::blocking(finding::Code::Schema, "", NO_NAMESPACE)],
    }
}

/// Validates the params with the embedded schema, and with the bundle's own one if it differs: a schema that accepts
/// unknown fields of a rule must not widen a grant.
fn check_params(inputs: &Inputs, document: &Value) -> Vec<Finding> {
    let Some(params) = document.as_object() else {
        let text = "the params must be of type object (type)";
        return vec![Finding::blocking(finding::Code::Schema, "", text).help(NAME_PARAMS)];
    };
    let own = serde_json::from_str(schema::PARAMS).map_err(|_| "not JSON".to_owned());
    let own = own.and_then(|schema| Schema::for_object(schema, params));
    let bundles = inputs.params_schema.clone().map(Schema::new);
    let mut findings: Vec<Finding> = Vec::new();
    for (source, schema) in [("the embedded ", Some(&own)), ("bundle/", bundles.as_ref())] {
        match schema {
            None => {}
            Some(Ok(schema)) => add_new(&mut findings, schema.check("", document)),
            Some(Err(problem)) => {
                findings
                    .push(Finding::refusal(finding::Code::Schema, format!("{source}schema-params.json is {problem}")));
            }
        }
    }
    // The ClusterRoles that are wrong can be the ones that are wanted: then no rule is missing.
    let is_at_roles = |finding: &Finding| finding.pointer.as_ref().is_some_and(|it| it.starts_with("/cluster_roles"));
    if findings.iter().any(is_at_roles) {
        findings.retain(|finding| finding.message != "the field `rules` is missing (required)");
    }
    // The platform adds the first, and its form the name of the selected preset.
    let is_known = |key: &str| {
        ["md_metadata", "__name"].contains(&key) || own.as_ref().is_ok_and(|schema| schema.has_property(key))
    };
    if !params.is_empty() && !params.keys().any(|key| is_known(key)) {
        let text = "this is not a params document: it has none of the fields of params";
        findings.insert(0, Finding::blocking(finding::Code::Schema, "", text).help(NAME_PARAMS));
        return findings;
    }
    for key in params.keys().filter(|key| !is_known(key)) {
        let text = format!("unknown param {}: it has no effect", quote_key(key));
        findings.push(Finding::remark(finding::Code::UnknownParam, text).at(pointer("", key)));
    }
    findings
}

/// `--name` and `--namespace` without params.
///
/// # Errors
/// All findings, each of which is blocking.
pub(crate) fn identity(inputs: &Inputs) -> Result<(Option<InstanceName>, Option<Namespace>), Vec<Finding>> {
    let mut findings = Vec::new();
    let found = (name_if_any(inputs, &mut findings), namespace_option(inputs, &mut findings));
    if findings.is_empty() { Ok(found) } else { Err(findings) }
}

/// `--namespace` without params.
pub(crate) fn namespace_option(inputs: &Inputs, findings: &mut Vec<Finding>) -> Option<Namespace> {
    let namespace = Namespace::parse(inputs.namespace.as_deref()?);
    let refused = |problem| {
        let finding = Finding::blocking(finding::Code::Schema, "/namespace", format!("--namespace: {problem}"));
        findings.push(finding.source("--namespace".to_owned()));
    };
    namespace.map_err(refused).ok()
}

/// The help about another document in the place of params.
const NAME_PARAMS: &str = "give a document with params: an object with namespace, and with rules or cluster_roles";

/// The name of the instance: `--name`, else that of the params.
pub(crate) fn name(inputs: &Inputs, findings: &mut Vec<Finding>) -> Option<InstanceName> {
    let prefix = inputs.params.pointer("/md_metadata/name_prefix");
    let (text, place) = match (&inputs.name, prefix) {
        (Some(name), _) => (Some(name.as_str()), "--name"),
        (None, Some(prefix)) => (prefix.as_str(), "md_metadata.name_prefix"),
        (None, None) => (None, "md_metadata.name_prefix"),
    };
    let at = if inputs.name.is_some() { "" } else { "/md_metadata/name_prefix" };
    let problem = match text.map(InstanceName::parse) {
        Some(Ok(name)) => return Some(name),
        Some(Err(problem)) => Finding::blocking(finding::Code::Name, at, format!("{place}: {problem}")),
        None if prefix.is_some() => {
            Finding::blocking(finding::Code::Name, at, format!("{place} must be of type string"))
        }
        None if inputs.params.get("md_metadata").is_some_and(|metadata| !metadata.is_object()) => Finding::blocking(
            finding::Code::Name,
            "/md_metadata",
            "md_metadata must be of type object, because it contains the name",
        ),
        None => {
            // A missing field is reported at its own location.
            let at = if inputs.params.get("md_metadata").is_some() { "/md_metadata" } else { "" };
            let text = format!("no name given: {}", inputs.origin.name_help());
            Finding::blocking(finding::Code::Name, at, text)
        }
    };
    let mut problem = [problem.source(inputs.name.as_ref().map(|_| "--name".to_owned()))];
    inputs.origin.attribute(&mut problem);
    findings.extend(problem);
    None
}

/// The tags of the instance that can be labels.
pub(crate) fn labels(inputs: &Inputs, findings: &mut Vec<Finding>) -> BTreeMap<String, String> {
    let known = findings.len();
    let tags = inputs.params.pointer("/md_metadata/default_tags").filter(|tags| !tags.is_null());
    if tags.is_some_and(|tags| !tags.is_object()) {
        let text = "the tags are not used as labels: they are not an object";
        findings.push(Finding::remark(finding::Code::LabelDropped, text).at("/md_metadata/default_tags"));
    }
    let tags = tags.and_then(Value::as_object);
    let mut labels = BTreeMap::new();
    for (key, value) in tags.into_iter().flatten() {
        match name::label(key, value) {
            Ok(value) => {
                labels.insert(key.clone(), value);
            }
            Err(problem) => {
                let text = format!("the tag {} is not used as a label: {problem}", quote_key(key));
                let at = pointer("/md_metadata/default_tags", key);
                findings.push(Finding::remark(finding::Code::LabelDropped, text).at(at));
            }
        }
    }
    inputs.origin.attribute(&mut findings[known..]);
    labels
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::input::request::tests::{inputs, located};

    const STRICT: Strictness = Strictness::Strict;
    const LENIENT: Strictness = Strictness::OnlyWhatLocatesTheInstance;

    fn with_params(params: Value) -> Inputs {
        Inputs { params, ..Inputs::default() }
    }

    /// Columns: the params, the findings of a provision, those of a decommission.
    #[rstest]
    #[case::valid(json!({"namespace": "a", "cluster_roles": [{"name": "view"}]}), &[], &[])]
    #[case::fields_of_the_platform(json!({"namespace": "a", "cluster_roles": [{"name": "view"}], "md_metadata": {}, "__name": "Admin"}), &[], &[])]
    #[case::unknown_param(json!({"namespace": "a", "cluster_roles": [{"name": "view"}], "a/b": 1}), &[("unknown-param", "/a~1b")], &[])]
    #[case::list(json!([]), &[("schema", "")], &[("schema", "")])]
    #[case::no_namespace(json!({"cluster_roles": [{"name": "view"}]}), &[("schema", "")], &[("schema", "")])]
    #[case::invalid_namespace(json!({"namespace": "A", "cluster_roles": [{"name": "view"}]}), &[("schema", "/namespace")], &[("schema", "/namespace")])]
    #[case::namespace_of_another_type(json!({"namespace": 1, "cluster_roles": [{"name": "view"}]}), &[("schema", "/namespace")], &[("schema", "/namespace")])]
    #[case::invalid_role(json!({"namespace": "a", "cluster_roles": [{"name": "a/b"}]}), &[("schema", "/cluster_roles/0/name")], &[])]
    fn namespace_alone_is_required_to_decommission(
        #[case] params: Value,
        #[case] strict: &[(&str, &str)],
        #[case] lenient: &[(&str, &str)],
    ) {
        let inputs = with_params(params);
        for (strictness, expected) in [(STRICT, strict), (LENIENT, lenient)] {
            let mut findings = Vec::new();
            let params = parse(&inputs, strictness, &mut findings);
            assert_eq!(located(&findings), expected, "{findings:?}");
            assert_eq!(params.is_some(), findings.iter().all(|finding| !finding.blocking));
        }
    }

    /// Columns: `namespace` of config.json, the namespace, the findings.
    #[rstest]
    #[case::absent(json!({}), Some("home"), &[])]
    #[case::null(json!({"namespace": null}), Some("home"), &[])]
    #[case::same(json!({"namespace": "home"}), Some("home"), &[])]
    #[case::another(json!({"namespace": "other"}), Some("other"), &[("namespace-overridden", "/namespace")])]
    #[case::invalid(json!({"namespace": 1}), None, &[("schema", "/namespace")])]
    fn namespace_of_config_takes_precedence(
        #[case] config: Value,
        #[case] namespace: Option<&str>,
        #[case] expected: &[(&str, &str)],
    ) {
        let inputs = Inputs { config, ..inputs() };
        for strictness in [STRICT, LENIENT] {
            let mut findings = Vec::new();
            let params = parse(&inputs, strictness, &mut findings);
            assert_eq!(params.as_ref().map(|params| params.namespace.as_str()), namespace);
            assert_eq!(located(&findings), expected);
            let blocking = findings.iter().filter(|finding| finding.blocking);
            assert!(
                blocking.into_iter().all(|it| it.message.starts_with("namespace of config.json: ")),
                "{findings:?}"
            );
        }
    }

    #[test]
    fn bundle_schema_can_only_restrict() {
        let with_schema = |schema: Value, rules: Value| {
            let mut inputs = Inputs { params_schema: Some(schema), ..inputs() };
            inputs.params["rules"] = rules;
            let mut findings = Vec::new();
            parse(&inputs, STRICT, &mut findings);
            findings.into_iter().map(|finding| (finding.pointer, finding.message)).collect::<Vec<_>>()
        };
        let rule = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        assert_eq!(with_schema(json!({}), rule.clone()), []);
        assert_eq!(with_schema(json!({"properties": {"rules": {"maxItems": 0}}}), rule.clone()).len(), 1);
        let unknown = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "names": ["a"]}]);
        assert_eq!(with_schema(json!({}), unknown.clone()).len(), 1, "the embedded schema applies as well");
        let embedded: Value = serde_json::from_str(schema::PARAMS).unwrap();
        assert_eq!(with_schema(embedded, unknown).len(), 1, "the same problem is reported once");
        let invalid = with_schema(json!({"type": 1}), rule);
        assert!(
            invalid.len() == 1 && invalid[0].1.starts_with("bundle/schema-params.json is not a usable JSON Schema"),
            "{invalid:?}"
        );
    }

    /// Each of these namespaces takes 66 bytes of the inventory, which has room for 100 KiB.
    #[rstest]
    #[case::fits(1551, true)]
    #[case::too_long(1552, false)]
    fn inventory_limits_the_number_of_namespaces(#[case] count: usize, #[case] fits: bool) {
        let namespaces: Vec<String> = (0..count).map(|number| format!("{number:063}")).collect();
        let mut inputs = inputs();
        inputs.params["rules"][0]["namespaces"] = json!(namespaces);
        let mut findings = Vec::new();
        let grants = |strictness, findings: &mut Vec<_>| {
            parse(&inputs, strictness, findings).map(|params| params.grants.iter().count())
        };
        assert_eq!(grants(STRICT, &mut findings), Some(count));
        assert_eq!(findings.is_empty(), fits, "{findings:?}");
        assert!(findings.iter().all(|finding| finding.blocking && finding.message.starts_with("too many namespaces")));
        assert_eq!(
            grants(LENIENT, &mut Vec::new()),
            Some(if fits { count } else { 0 }),
            "such a list was never granted"
        );
    }

    /// Columns: `--name`, `md_metadata`, the name or the pointer to the problem.
    #[rstest]
    #[case::of_the_params(None, json!({"name_prefix": "a"}), Ok("a"))]
    #[case::of_the_command_line(Some("b"), json!({"name_prefix": "a"}), Ok("b"))]
    #[case::of_the_command_line_alone(Some("b"), json!(1), Ok("b"))]
    #[case::invalid_option(Some("B"), json!({"name_prefix": "a"}), Err(("", "--name: ")))]
    #[case::invalid(None, json!({"name_prefix": "A"}), Err(("/md_metadata/name_prefix", "md_metadata.name_prefix: ")))]
    #[case::no_string(None, json!({"name_prefix": 1}), Err(("/md_metadata/name_prefix", "md_metadata.name_prefix must be of type string")))]
    #[case::no_prefix(None, json!({}), Err(("/md_metadata", "no name given")))]
    #[case::no_object(None, json!("a"), Err(("/md_metadata", "md_metadata must be of type object")))]
    fn name_option_takes_precedence(
        #[case] option: Option<&str>,
        #[case] metadata: Value,
        #[case] expected: Result<&str, (&str, &str)>,
    ) {
        let inputs = Inputs { name: option.map(str::to_owned), ..with_params(json!({"md_metadata": metadata})) };
        let mut findings = Vec::new();
        let found = name(&inputs, &mut findings);
        assert_eq!(found.as_ref().map(InstanceName::as_str), expected.ok());
        assert_eq!(findings.len(), usize::from(expected.is_err()));
        if let Err((pointer, problem)) = expected {
            assert_eq!(located(&findings), [("name", pointer)]);
            assert!(findings[0].message.starts_with(problem), "{findings:?}");
        }
    }

    #[test]
    fn check_accepts_params_without_a_name() {
        let checked = |metadata: Value| {
            let mut inputs = inputs();
            inputs.params["md_metadata"] = metadata;
            check(&inputs, Vec::new()).map(|(checked, _)| checked.name.map(|name| name.as_str().to_owned()))
        };
        assert_eq!(checked(json!({"name_prefix": "a"})).unwrap().as_deref(), Some("a"));
        assert_eq!(checked(json!({})).unwrap(), None);
        assert_eq!(located(&checked(json!({"name_prefix": "A"})).unwrap_err()), [("name", "/md_metadata/name_prefix")]);
    }

    #[rstest]
    #[case::none(json!({}), &[], &[])]
    #[case::null(json!({"default_tags": null}), &[], &[])]
    #[case::list(json!({"default_tags": []}), &[], &["/md_metadata/default_tags"])]
    #[case::scalars(json!({"default_tags": {"a": "x", "b": 1, "c": true}}), &[("a", "x"), ("b", "1"), ("c", "true")], &[])]
    #[case::unfit(json!({"default_tags": {"a": "x y", "b/c/d": "x", "e": {}, "f": "x"}}), &[("f", "x")], &["/md_metadata/default_tags/a", "/md_metadata/default_tags/b~1c~1d", "/md_metadata/default_tags/e"])]
    fn tags_that_can_be_labels_are_used(
        #[case] metadata: Value,
        #[case] expected: &[(&str, &str)],
        #[case] dropped: &[&str],
    ) {
        let mut findings = Vec::new();
        let labels = labels(&with_params(json!({"md_metadata": metadata})), &mut findings);
        let labels: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(labels, expected);
        assert_eq!(located(&findings), dropped.iter().map(|at| ("label-dropped", *at)).collect::<Vec<_>>());
        assert!(findings.iter().all(|finding| !finding.blocking));
    }
}
