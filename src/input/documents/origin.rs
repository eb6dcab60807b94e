//! Where the params come from: the source of each element, for the findings about it. Pure.

use serde_json::Value;

use crate::diagnostics::finding::Finding;

/// The origin of the params.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `params.json` of an instance in Massdriver's layout.
    Instance,
    /// A file of the command line, or standard input.
    File {
        /// Its name, as it was typed.
        name: String,
        /// Its format.
        format: Format,
        /// The kind of manifest that it is, if it is one.
        manifest: Option<RoleKind>,
    },
    /// Options of the command line: the option of each rule and of each ClusterRole.
    Options {
        /// The options of the entries of `rules`.
        rules: Vec<String>,
        /// The options of the entries of `cluster_roles`.
        cluster_roles: Vec<String>,
    },
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// The kind of a manifest that is taken as params.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleKind {
    /// `Role`
    Role,
    /// `ClusterRole`
    ClusterRole,
}

/// Words of the form in the messages of the schema, and those for a file or a command line, which have no lines.
const WORDS: [(&str, &str); 5] = [
    ("add one empty line", "list \"\""),
    ("an empty line", "\"\""),
    ("Two lines are the same. ", ""),
    ("Two entries are the same. ", ""),
    ("Remove the line to", "Leave resourceNames out to"),
];

impl Default for Origin {
    fn default() -> Self {
        Self::Options { rules: Vec::new(), cluster_roles: Vec::new() }
    }
}

impl Origin {
    /// The name of params.json in findings.
    pub(crate) const INSTANCE: &str = "params.json";

    /// A file that is not, or not yet known to be, a manifest.
    pub(crate) const fn file(name: String, format: Format) -> Self {
        Self::File { name, format, manifest: None }
    }

    /// The source of an element of the params.
    pub(crate) fn source(&self, pointer: &str) -> Option<String> {
        match self {
            Self::Instance => Some(Self::INSTANCE.to_owned()),
            Self::File { name, .. } => Some(name.clone()),
            Self::Options { rules, cluster_roles } => {
                let mut steps = pointer.split('/').skip(1);
                let options = match steps.next()? {
                    "rules" => rules,
                    "cluster_roles" => cluster_roles,
                    _ => return None,
                };
                match steps.next() {
                    Some(index) => options.get(index.parse::<usize>().ok()?).cloned(),
                    None => common(options),
                }
            }
        }
    }

    /// Sets the source of findings about the params, and the pointer of those about a manifest.
    pub(crate) fn attribute(&self, findings: &mut [Finding]) {
        for finding in findings.iter_mut().filter(|finding| finding.source.is_none()) {
            let Some(pointer) = &finding.pointer else { continue };
            finding.source = self.source(pointer);
            if pointer == "/namespace" && matches!(self, Self::File { manifest: Some(_), .. }) {
                finding.pointer = Some("/metadata/namespace".to_owned());
            }
        }
    }

    /// What to do about a missing namespace; none where `--namespace` does not exist.
    pub(crate) const fn namespace_help(&self) -> Option<&'static str> {
        match self {
            Self::Instance => None,
            Self::File { manifest: None, .. } => Some("set `namespace` in the params, or pass --namespace"),
            Self::File { manifest: Some(RoleKind::Role), .. } => {
                Some("set metadata.namespace of the Role, or pass --namespace")
            }
            Self::File { manifest: Some(RoleKind::ClusterRole), .. } => {
                Some("pass --namespace for the ServiceAccount: a ClusterRole is in no namespace")
            }
            Self::Options { .. } => Some("pass --namespace"),
        }
    }

    /// What to do about a missing name.
    pub(crate) const fn name_help(&self) -> &'static str {
        match self {
            Self::Instance | Self::File { manifest: None, .. } => {
                "pass --name, or set name_prefix of md_metadata in the params"
            }
            Self::File { manifest: Some(_), .. } => {
                "pass --name, because metadata.name is the name of the role, not of the instance"
            }
            Self::Options { .. } => "pass --name",
        }
    }

    /// A message of the schema, which is written for the form, in words that fit the origin.
    pub(crate) fn worded(&self, message: String) -> String {
        match self {
            Self::Instance => message,
            Self::File { .. } | Self::Options { .. } => {
                WORDS.iter().fold(message, |message, (form, words)| message.replace(form, words))
            }
        }
    }

    /// What to do about a value of the wrong type: YAML reads some unquoted words as other types.
    pub(crate) const fn type_help(&self, value: &Value) -> Option<&'static str> {
        match (self, value) {
            (Self::File { format: Format::Yaml, .. }, Value::Bool(_)) => Some(
                "put it in quotes if a string is meant: YAML reads an unquoted yes, no, on, off, y or n as a boolean",
            ),
            (Self::File { format: Format::Yaml, .. }, Value::Number(_)) => {
                Some("put it in quotes if a string is meant: YAML reads it as a number")
            }
            _ => None,
        }
    }
}

/// The source of a whole list: its option, without a number if it was given several times; none if there are others.
fn common(options: &[String]) -> Option<String> {
    let first = options.first()?;
    let option = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    if options.iter().all(|other| other == first) {
        return Some(first.clone());
    }
    Some(option(first)).filter(|first| options.iter().all(|other| option(other) == *first))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::diagnostics::finding::Code;

    fn options(rules: &[&str], cluster_roles: &[&str]) -> Origin {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Origin::Options { rules: owned(rules), cluster_roles: owned(cluster_roles) }
    }

    #[rstest]
    #[case::rule("/rules/2/verbs/0", Some("--allow 2"))]
    #[case::cluster_role("/cluster_roles/0", Some("--cluster-role 1"))]
    #[case::list_of_several("/rules", Some("--allow"))]
    #[case::list_of_one("/cluster_roles", Some("--cluster-role 1"))]
    #[case::beyond("/rules/3", None)]
    #[case::whole("", None)]
    fn pointer_leads_to_its_option(#[case] pointer: &str, #[case] source: Option<&str>) {
        let origin = options(&["--allow 1", "--allow 1", "--allow 2"], &["--cluster-role 1"]);
        assert_eq!(origin.source(pointer).as_deref(), source);
    }

    #[test]
    fn list_of_different_options_has_no_source() {
        assert_eq!(options(&["--allow 1", "--preset Admin"], &[]).source("/rules"), None);
    }

    #[test]
    fn words_of_the_form_occur_in_the_schema() {
        let none = options(&[], &[]);
        for (form, words) in WORDS {
            assert!(crate::schema::PARAMS.contains(form), "{form}");
            assert_eq!(none.worded(format!("{form}.")), format!("{words}."));
            assert_eq!(Origin::Instance.worded(form.to_owned()), form);
        }
    }

    #[test]
    fn findings_without_pointer_or_with_source_are_unchanged() {
        let own = Finding::blocking(Code::Schema, "/namespace", "").source("--namespace".to_owned());
        let mut findings = vec![
            Finding::refusal(Code::Schema, ""),
            own.clone(),
            Finding::blocking(Code::Schema, "/namespace", ""),
            Finding::blocking(Code::Schema, "/rules/0", ""),
        ];
        let manifest = Some(RoleKind::Role);
        Origin::File { name: "role.yaml".to_owned(), format: Format::Yaml, manifest }.attribute(&mut findings);
        let found: Vec<_> = findings.iter().map(|it| (it.pointer.as_deref(), it.source.as_deref())).collect();
        let expected = [
            (None, None),
            (Some("/namespace"), Some("--namespace")),
            (Some("/metadata/namespace"), Some("role.yaml")),
            (Some("/rules/0"), Some("role.yaml")),
        ];
        assert_eq!(found, expected);
    }
}
