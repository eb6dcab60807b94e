//! The offline part of a run, on documents given as bytes: the entry point of property tests and of the fuzz target
//! (`fuzz/`). It returns what the program prints for such documents in a directory, and the objects and rules that it
//! would apply. Also the judgement of rules alone, for the benchmark (`examples/instructions.sh`).

use std::{cell::RefCell, io::Write, rc::Rc};

use serde_json::{Value, json};

use crate::{
    cli::{Operation, Publishing},
    command::{announce, finish},
    diagnostics::{
        error::{Exit, Failure},
        secret::Token,
    },
    endpoint::connection::ServerTrust,
    input::{
        documents::{Document, Documents, Strictness, params_of},
        request::{self, Delivery, Provision, Request},
    },
    k8s::grant::Grants,
    plan::{adoption::outcome::Adoption, desired::Desired, judgement, observed::Observed},
    rbac::Catalog,
    report::{LogStyle, Report},
};

/// The documents of an instance; none for a missing file.
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

/// The result of an evaluation.
pub struct Evaluation {
    /// 65 for a refusal, else 0.
    pub exit: Exit,
    /// The document of `--json`.
    pub stdout: String,
    /// The log.
    pub stderr: String,
    /// Every object as it would be applied; none after a refusal.
    pub objects: Vec<Value>,
    /// Every requested rule, with the JSON pointer to it in the params; none after a refusal.
    pub requested: Vec<(String, Value)>,
    /// The published document, with `the-new-token` in it; none after a refusal, and none of a decommission.
    pub artifact: Option<Value>,
}

/// The number of findings about the rules of params, of all times that they are judged; each time as in `check`.
pub fn judge(params: &[u8], times: usize) -> usize {
    let absent = || Document::absent("absent");
    let documents = Documents {
        params: Document::new("params.json", params),
        dependencies: absent(),
        connections: absent(),
        config: absent(),
        params_schema: absent(),
        artifacts_schema: absent(),
        bundle: absent(),
    };
    let (inputs, _) = documents.parse(Strictness::Strict);
    let grants = request::readable_grants(&inputs);
    (0..times).map(|_| judgement::judge(&grants, &|_| None, Catalog::embedded(), None).findings.len()).sum()
}

/// The actions.
pub const ACTIONS: [&str; 3] = ["plan", "provision", "decommission"];

/// Evaluates the documents offline. Unknown actions are treated as `plan`.
pub fn evaluate(action: &str, given: &Given<'_>) -> Evaluation {
    let actions = [Operation::Plan, Operation::Provision, Operation::Decommission];
    let action = actions.into_iter().find(|known| known.as_str() == action).unwrap_or(Operation::Plan);
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
    let report = Report::new(Box::new(out.clone()), Box::new(log.clone()), LogStyle::default());
    report.begin(action.as_str());
    let accepted = if action == Operation::Decommission {
        accept_decommission(&documents, &report).map(|request| (request, None))
    } else {
        accept_provision(&documents, &report).map(|input| (input.request, Some(input.delivery)))
    };
    let (mut objects, mut artifact) = (Vec::new(), None);
    if let Ok((request, delivery)) = &accepted {
        objects = manifests(request);
        artifact = delivery.as_ref().and_then(|delivery| fill(request, delivery));
    }
    let requested = match &accepted {
        Ok((request, _)) => shown(&request.grants),
        Err(_) => Vec::new(),
    };
    let exit = finish(&report, true, accepted.map(drop));
    Evaluation { exit, stdout: out.text(), stderr: log.text(), objects, requested, artifact }
}

/// Validates params offline, as a file of the command line: JSON, YAML or a manifest.
pub fn check(params: &[u8]) -> Evaluation {
    let (out, log) = (Shared::default(), Shared::default());
    let report = Report::new(Box::new(out.clone()), Box::new(log.clone()), LogStyle::default());
    report.begin("check");
    let (inputs, findings) = params_of(&Document::new("stdin", params));
    let checked = request::check(&inputs, findings).map_err(Failure::input);
    let requested = checked.as_ref().map_or_else(|_| Vec::new(), |(checked, _)| shown(&checked.params.grants));
    let result = checked.map(|(_, remarks)| remarks.into_iter().for_each(|finding| report.finding(finding)));
    let exit = finish(&report, true, result);
    Evaluation { exit, stdout: out.text(), stderr: log.text(), objects: Vec::new(), requested, artifact: None }
}

fn shown(grants: &Grants) -> Vec<(String, Value)> {
    grants.requested().iter().map(|it| (it.pointer.clone(), json!(it.rule))).collect()
}

fn accept_provision(documents: &Documents, report: &Report) -> Result<Provision, Failure> {
    let (inputs, findings) = documents.parse(Strictness::Strict);
    let (input, remarks) = request::provision(&inputs, Publishing::Never, None, findings).map_err(Failure::input)?;
    let request = &input.request;
    announce(report, Some(&request.instance), &request.connection, None, input.timeout, remarks);
    Ok(input)
}

fn accept_decommission(documents: &Documents, report: &Report) -> Result<Request, Failure> {
    let (inputs, findings) = documents.parse(Strictness::OnlyWhatLocatesTheInstance);
    let (input, remarks) = request::decommission(&inputs, Publishing::Never, None, findings).map_err(Failure::input)?;
    let request = &input.request;
    announce(report, Some(&request.instance), &request.connection, None, input.timeout, remarks);
    Ok(input.request)
}

fn manifests(request: &Request) -> Vec<Value> {
    let nothing_there = Observed::default();
    let desired =
        Desired::new(request, &nothing_there, nothing_there.slots.decide(true), Vec::new(), Adoption::default());
    let grants = desired.grants.into_iter().flat_map(|granted| granted.role.into_iter().chain([granted.binding]));
    let manifests = [desired.service_account, desired.secret].into_iter().chain(grants);
    manifests.map(|manifest| manifest.body).collect()
}

fn fill(request: &Request, delivery: &Delivery) -> Option<Value> {
    let token = Token::parse("the-new-token").ok()?;
    let ServerTrust::Given(ca) = &request.connection.ca else { return None };
    let artifact = delivery.form.fill(&request.connection, ca.as_base64(), &token).ok()?;
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
