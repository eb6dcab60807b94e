//! The decision: what becomes of the release, what the ServiceAccount records of it, and which findings tell of it. Pure.

use crate::{
    diagnostics::{
        finding::{self, Finding},
        secret::Token,
    },
    input::request::Request,
    k8s::{
        denial::lacks, name::Namespace, object::Reference, object_names::Names, ownership::Owner,
        record::AdoptionRecord,
    },
    plan::{
        adoption::{
            evidence::{Evidence, record},
            outcome::Adoption,
        },
        observed::Observed,
        parent_access,
        snapshot::Snapshot,
    },
};

/// Works out what has to be done, and what is to be remembered.
pub(crate) fn decide(request: &Request, names: &Names, snapshot: &Snapshot) -> Adoption {
    let evidence = &snapshot.adoption;
    let before = record(names, &snapshot.observed);
    let parent = request.connection.login.token().map(Token::fingerprint);
    if !evidence.is_there {
        // Remembered for as long as the credential is used that was to be read there, as far as anybody can tell.
        let record = before.filter(|record| record.exposed == parent);
        return Adoption { record, ..Adoption::default() };
    }
    let deletable =
        |object: &Reference| parent_access::missing_delete(snapshot, std::slice::from_ref(object)).is_empty();
    let (revisions, left): (Vec<Reference>, Vec<Reference>) =
        evidence.revisions.iter().map(|(object, _)| object.clone()).partition(deletable);
    let mut missing = evidence.missing.clone();
    missing.extend(parent_access::missing_delete(snapshot, &left));
    let stuck = (!missing.is_empty()).then(|| lacks(&missing));
    let release = request.instance.name.as_str().to_owned();
    let exposed = before.and_then(|record| record.exposed).or(parent.filter(|_| evidence.exposes_parent));
    let record = AdoptionRecord { release, exposed, pending: stuck.is_some() };
    Adoption { under_way: true, record: Some(record), revisions, stuck }
}

/// What there is to say of it.
pub(crate) fn remarks(adoption: &Adoption, request: &Request, snapshot: &Snapshot) -> Vec<Finding> {
    let mut remarks = Vec::new();
    if is_original(request, &snapshot.observed) {
        let text = format!(
            "version 1.0.0 of the bundle created this instance, as Helm release {}: its objects are adopted as they \
             are, including the token",
            request.instance.name
        );
        remarks
            .push(Finding::remark(finding::Code::Adopt, text).help("afterwards Helm no longer manages this instance"));
    }
    remarks.extend(exposed(adoption, &request.instance.namespace, &snapshot.adoption));
    remarks.extend(adoption.stuck.as_deref().map(|why| release_left(request, why)));
    remarks
}

/// The parent credential that was to be read in the namespace.
fn exposed(adoption: &Adoption, home: &Namespace, evidence: &Evidence) -> Option<Finding> {
    let record = adoption.record.as_ref()?;
    // Of a login without a token nothing can be said.
    let whose =
        if record.exposed.is_some() { "the connection's credential" } else { "a credential of this connection" };
    let text = match evidence.revisions.len() {
        0 if adoption.under_way => {
            format!("Helm kept {whose} in namespace {home}, readable by everyone who may read Secrets there")
        }
        0 if record.exposed.is_none() => return None,
        0 => format!(
            "the connection still has the credential that Helm kept in namespace {home}, readable by everyone who may \
             read Secrets there"
        ),
        revisions => format!(
            "Helm keeps {whose} in {revisions} Secret{} of namespace {home}, readable by everyone who may read Secrets \
             there",
            if revisions == 1 { "" } else { "s" }
        ),
    };
    let help = match record.exposed {
        Some(_) => "create a new credential for the connection, and revoke the old one in the cluster",
        None => "revoke in the cluster each credential that the connection had before, if that has not been done",
    };
    Some(Finding::remark(finding::Code::ParentExposed, text).help(help))
}

/// Secrets of the release that stay, and why.
pub(crate) fn release_left(request: &Request, why: &str) -> Finding {
    let text = format!(
        "the Secrets of the Helm release {} in namespace {} cannot all be deleted: {why}",
        request.instance.name, request.instance.namespace
    );
    Finding::remark(finding::Code::ReleaseLeft, text)
        .help("fix this and run again: the release stays recorded until its Secrets are deleted")
}

/// The finding that the parent credential was readable, where an instance of version 1.0.0 is decommissioned.
pub(crate) fn exposure(request: &Request, names: &Names, snapshot: &Snapshot) -> Option<Finding> {
    exposed(&decide(request, names, snapshot), names.namespace(), &snapshot.adoption)
}

/// True when an object is there that the original bundle made.
fn is_original(request: &Request, observed: &Observed) -> bool {
    let places = observed.places.values().flat_map(|found| found.role.iter().chain(&found.binding));
    let identity = observed.service_account.iter().chain(observed.slots.current().map(|slot| &slot.live));
    identity.chain(places).any(|live| request.instance.owner(live) == Owner::Original)
}
