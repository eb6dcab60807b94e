//! The options that say what is wanted: `--params`, or `--allow`, `--cluster-role` and `--preset`, each with
//! `--namespace`. Pure.

mod allow;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::{Args, builder::PossibleValuesParser};
use serde_json::{Value, json};

use crate::schema::PRESETS;

/// The arguments, of every command that takes params.
#[derive(Args)]
pub(crate) struct ParamsArgs {
    /// The params, as JSON or YAML: namespace, rules, cluster_roles; or a Role or ClusterRole; - for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["allow", "cluster_role", "preset"])]
    params: Option<PathBuf>,
    /// Namespace of the ServiceAccount and of the rules, instead of the one in the params
    #[arg(long, value_name = "NS")]
    namespace: Option<String>,
    /// These verbs on these resources, as in 'get,list pods,deployments.apps'; repeatable
    #[arg(long, value_name = "VERBS RESOURCES", requires = "namespace")]
    allow: Vec<String>,
    /// This existing ClusterRole in the namespace; repeatable
    #[arg(long, value_name = "NAME", requires = "namespace")]
    cluster_role: Vec<String>,
    /// The rules of this preset; repeatable
    #[arg(long, value_name = "NAME", requires = "namespace", value_parser = names_of_presets())]
    preset: Vec<String>,
}

/// The names of the presets, as values of an option or argument.
pub(crate) fn names_of_presets() -> PossibleValuesParser {
    PossibleValuesParser::new(PRESETS.iter().map(|(name, _)| name.as_str()))
}

/// A preset as params, or the names of all of them.
pub(crate) fn shown_preset(name: Option<&str>) -> String {
    let wanted = PRESETS.iter().filter(|(known, _)| name.is_none_or(|name| name == known));
    wanted.map(|(known, preset)| if name.is_some() { format!("{preset:#}\n") } else { format!("{known}\n") }).collect()
}

/// The source of the params, and their namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ParamsSource {
    /// The source of rules and ClusterRoles.
    pub(crate) content: ParamsContent,
    /// `--namespace`.
    pub(crate) namespace: Option<String>,
}

/// The source of rules and ClusterRoles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ParamsContent {
    /// No option says any.
    #[default]
    None,
    /// A file, `-` for stdin.
    File(PathBuf),
    /// The other options, as entries of `rules` and of `cluster_roles`.
    Options {
        /// `--allow`, then `--preset`.
        rules: Vec<Entry>,
        /// `--cluster-role`, then `--preset`.
        cluster_roles: Vec<Entry>,
    },
}

/// An entry of the params that an option says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The option: `--allow 1`, `--cluster-role 1`, `--preset Admin`.
    pub(crate) source: String,
    /// The entry, as it would be written in params.
    pub(crate) value: Value,
}

impl ParamsSource {
    /// Whether an option says rules or ClusterRoles, if only by a file.
    pub(crate) fn is_given(&self) -> bool {
        self.content != ParamsContent::None
    }

    /// Whether the params are read from standard input.
    pub(crate) fn is_stdin(&self) -> bool {
        matches!(&self.content, ParamsContent::File(path) if path == Path::new("-"))
    }

    /// Whether rules and ClusterRoles come from more than one option.
    pub(crate) fn is_mixed(&self) -> bool {
        let ParamsContent::Options { rules, cluster_roles } = &self.content else { return false };
        let sources: BTreeSet<&str> = rules.iter().chain(cluster_roles).map(|entry| entry.source.as_str()).collect();
        sources.len() > 1
    }
}

impl ParamsArgs {
    /// The source that the options say.
    ///
    /// # Errors
    /// What is wrong with the syntax of an option, with an example.
    pub(crate) fn source(self) -> Result<ParamsSource, String> {
        let Self { params, namespace, allow, cluster_role, preset } = self;
        let content = match params {
            Some(path) => ParamsContent::File(path),
            None if allow.is_empty() && cluster_role.is_empty() && preset.is_empty() => ParamsContent::None,
            None => options(&allow, &cluster_role, &preset)?,
        };
        Ok(ParamsSource { content, namespace })
    }
}

fn options(allow: &[String], names: &[String], presets: &[String]) -> Result<ParamsContent, String> {
    let (mut rules, mut cluster_roles) = (Vec::new(), Vec::new());
    for (number, text) in (1..).zip(allow) {
        let source = format!("--allow {number}");
        let parsed = allow::rules(text).map_err(|problem| format!("{source} {problem}"))?;
        rules.extend(parsed.into_iter().map(|value| Entry { source: source.clone(), value }));
    }
    for (number, name) in (1..).zip(names) {
        cluster_roles.push(Entry { source: format!("--cluster-role {number}"), value: json!({ "name": name }) });
    }
    for (name, preset) in presets.iter().flat_map(|wanted| PRESETS.iter().filter(move |(name, _)| name == wanted)) {
        for (key, list) in [("rules", &mut rules), ("cluster_roles", &mut cluster_roles)] {
            let entries = preset.get(key).and_then(Value::as_array).into_iter().flatten();
            list.extend(entries.map(|value| Entry { source: format!("--preset {name}"), value: value.clone() }));
        }
    }
    Ok(ParamsContent::Options { rules, cluster_roles })
}
