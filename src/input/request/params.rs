//! The params: namespace, grants, name and labels of an instance. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    diagnostics::{
        finding::{self, Finding, add_new},
        text::quote_key,
    },
    input::{
        documents::{Inputs, Strictness},
        request::{Parsed, grants, pointer, settle},
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
}

/// Parses params without a cluster, as those of a provision.
///
/// # Errors
/// All findings, at least one of which is blocking.
pub(crate) fn check(inputs: &Inputs, mut findings: Vec<Finding>) -> Parsed<Checked> {
    let params = parse(inputs, Strictness::Strict, &mut findings);
    let name = name_if_any(inputs, &mut findings);
    labels(&inputs.params, &mut findings);
    settle(params.map(|params| Checked { name, params }), findings)
}

/// The rules of the params as far as they can be read, even if the params are refused. Without a valid namespace they are
/// taken as rules for some namespace.
pub(crate) fn readable_grants(inputs: &Inputs) -> Grants {
    let namespace = inputs.params.get("namespace").and_then(Value::as_str).map(Scope::parse);
    let home = namespace.and_then(Result::ok).filter(|scope| *scope != Scope::Cluster);
    let home = home.map_or_else(|| Scope::parse("default"), Ok);
    home.map_or_else(
        |_| Grants::default(),
        |home| grants::parse(&inputs.params, &Place::new(home, RoleSource::Rules)).0,
    )
}

/// The name of the instance, if given.
pub(crate) fn name_if_any(inputs: &Inputs, findings: &mut Vec<Finding>) -> Option<InstanceName> {
    let is_named = inputs.name.is_some() || inputs.params.pointer("/md_metadata/name_prefix").is_some();
    if is_named && !is_unread(inputs, findings) { name(inputs, findings) } else { None }
}

/// Whether the params could not be read, which was reported.
pub(crate) fn is_unread(inputs: &Inputs, findings: &[Finding]) -> bool {
    inputs.params.is_null() && findings.iter().any(|finding| finding.blocking)
}

/// Parses namespace and grants. `namespace` of `config.json` takes precedence over that of the params.
pub(crate) fn parse(inputs: &Inputs, strictness: Strictness, findings: &mut Vec<Finding>) -> Option<Params> {
    if is_unread(inputs, findings) {
        return None;
    }
    let document = &inputs.params;
    let overriding = inputs.config.get("namespace").filter(|value| !value.is_null());
    let mut effective = document.clone();
    if let (Some(namespace), Some(params)) = (overriding, effective.as_object_mut()) {
        params.insert("namespace".to_owned(), namespace.clone());
    }
    let mut problems = match strictness {
        Strictness::Strict => check_params(inputs, &effective),
        // A rule that can no longer be granted must not keep a token alive.
        Strictness::OnlyWhatLocatesTheInstance => check_namespace(&effective),
    };
    if overriding.is_some() {
        for problem in problems.iter_mut().filter(|problem| problem.pointer.as_deref() == Some("/namespace")) {
            problem.message = format!("namespace of config.json: {}", problem.message);
        }
    }
    let is_sound = !problems.iter().any(|finding| finding.blocking);
    findings.append(&mut problems);
    if let (Some(Value::String(effective)), Some(Value::String(other))) = (overriding, document.get("namespace"))
        && effective != other
    {
        let text = "config.json sets another namespace than the params, and is used";
        findings.push(Finding::remark(finding::Code::NamespaceOverridden, text).at("/namespace"));
    }
    // The schema has validated its format.
    let namespace = Namespace::parse(effective.get("namespace").and_then(Value::as_str).unwrap_or_default());
    let namespace = namespace.ok().filter(|_| is_sound)?;
    let grants = grants_of(document, &namespace, strictness, findings);
    Some(Params { namespace, grants })
}

/// The grants, as far as the ServiceAccount can record their places.
fn grants_of(document: &Value, home: &Namespace, strictness: Strictness, findings: &mut Vec<Finding>) -> Grants {
    let home = Place::new(Scope::Namespace(home.clone()), RoleSource::Rules);
    let (grants, mut unread) = grants::parse(document, &home);
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
        _ => vec![Finding::blocking(finding::Code::Schema, "", "the field `namespace` is missing (required)")],
    }
}

/// Validates the params with the embedded schema, and with the bundle's own one if it differs: a schema that accepts
/// unknown fields of a rule must not widen a grant.
fn check_params(inputs: &Inputs, document: &Value) -> Vec<Finding> {
    let Some(params) = document.as_object() else {
        return vec![Finding::blocking(finding::Code::Schema, "", "the params must be of type object (type)")];
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
    let is_known = |key: &str| own.as_ref().is_ok_and(|schema| schema.has_property(key));
    // The platform adds the first, and its form the name of the selected preset.
    let platform = ["md_metadata", "__name"];
    for key in params.keys().filter(|key| !platform.contains(&key.as_str()) && !is_known(key)) {
        let text = format!("unknown param {}: it has no effect", quote_key(key));
        findings.push(Finding::remark(finding::Code::UnknownParam, text).at(pointer("", key)));
    }
    findings
}

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
            let text = "no name given: pass --name, or set name_prefix of md_metadata in the params";
            Finding::blocking(finding::Code::Name, at, text)
        }
    };
    findings.push(problem);
    None
}

/// The tags of the instance that can be labels.
pub(crate) fn labels(params: &Value, findings: &mut Vec<Finding>) -> BTreeMap<String, String> {
    let tags = params.pointer("/md_metadata/default_tags").filter(|tags| !tags.is_null());
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
    labels
}
