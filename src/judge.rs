//! One run up to the first packet, on documents that are given as bytes: the door by which property tests and the fuzz
//! target (`fuzz/`) come in. What it returns is what the program prints for such documents in a directory, and what it
//! would work with if it went on. Pure.

use std::{cell::RefCell, io::Write, rc::Rc};

use serde_json::Value;

use crate::{
    accept,
    artifact::Artifact,
    cli::{Action, Publishing},
    connection::Trust,
    desired::Desired,
    error::Exit,
    finish,
    inputs::{Document, Documents},
    observed::Observed,
    original::TakeOver,
    report::{Look, Report},
    request::{Request, Terms},
    secret::Token,
};

/// The documents of an instance; none where there is no such file.
#[derive(Clone, Copy, Default)]
pub struct Given<'a> {
    /// `params.json`
    pub params: &'a [u8],
    /// `dependencies.json`
    pub connection: &'a [u8],
    /// `config.json`
    pub config: Option<&'a [u8]>,
    /// `bundle/schema-params.json`
    pub params_schema: Option<&'a [u8]>,
    /// `bundle/schema-artifacts.json`
    pub artifacts_schema: Option<&'a [u8]>,
}

/// What came of it.
pub struct Verdict {
    /// 65 for a refusal, else 0.
    pub exit: Exit,
    /// The document of `--json`.
    pub stdout: String,
    /// The log.
    pub stderr: String,
    /// Every object as it would be applied; none after a refusal.
    pub objects: Vec<Value>,
    /// The artifact, with `the-new-token` in it; none after a refusal, and none of a decommission.
    pub artifact: Option<Value>,
}

/// The actions that there are.
pub const ACTIONS: [&str; 3] = ["plan", "provision", "decommission"];

/// Judges documents for an action; a word that is none counts as `plan`.
#[must_use]
pub fn judge(action: &str, given: &Given<'_>) -> Verdict {
    let actions = [Action::Plan, Action::Provision, Action::Decommission];
    let action = actions.into_iter().find(|known| known.as_str() == action).unwrap_or(Action::Plan);
    let document = |name: &str, content: Option<&[u8]>| {
        content.map_or_else(|| Document::absent(name), |content| Document::new(name, content))
    };
    let documents = Documents {
        params: document("params.json", Some(given.params)),
        dependencies: document("dependencies.json", Some(given.connection)),
        connections: document("connections.json", None),
        config: document("config.json", given.config),
        params_schema: document("bundle/schema-params.json", given.params_schema),
        artifacts_schema: document("bundle/schema-artifacts.json", given.artifacts_schema),
        bundle: document("bundle/massdriver.yaml", None),
    };
    let (out, log) = (Shared::default(), Shared::default());
    let report = Report::new(Box::new(out.clone()), Box::new(log.clone()), Look::default());
    report.begin(action.as_str());
    let terms = Terms { action, publish: Publishing::Never, timeout_seconds: None };
    let accepted = accept(documents.parse(action), &terms, &report);
    let (objects, artifact) = match &accepted {
        Ok((request, _)) if action == Action::Decommission => (objects(request), None),
        Ok((request, _)) => (objects(request), artifact(request)),
        Err(_) => (Vec::new(), None),
    };
    let exit = finish(&report, true, accepted.map(drop));
    Verdict { exit, stdout: out.text(), stderr: log.text(), objects, artifact }
}

fn objects(request: &Request) -> Vec<Value> {
    let nothing_there = Observed::default();
    let desired =
        Desired::new(request, &nothing_there, nothing_there.slots.decide(true), Vec::new(), TakeOver::default());
    let grants = desired.grants.into_iter().flat_map(|granted| granted.role.into_iter().chain([granted.binding]));
    let manifests = [desired.service_account, desired.secret].into_iter().chain(grants);
    manifests.map(|manifest| manifest.body).collect()
}

fn artifact(request: &Request) -> Option<Value> {
    let token = Token::parse("the-new-token").ok()?;
    let Trust::Given(ca) = &request.connection.ca else { return None };
    let artifact: Artifact = request.form.fill(&request.connection, ca.as_base64(), &token).ok()?;
    Some(artifact.document().clone())
}

#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.borrow()).into_owned()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
