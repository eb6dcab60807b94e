//! The take-over of an instance that the original bundle made with Helm: what tells of one, what becomes of it, and the
//! hand-over of Helm's fields. The objects stay, and with them the token; the Secrets in which Helm keeps its revisions
//! go, because they hold the parent credential.

use crate::{
    diagnostics::{
        finding::{self, Finding},
        secret::Token,
    },
    input::request::Request,
    k8s::{
        denial::lacks,
        helm_release::{self, TakeOver},
        name::Namespace,
        object::{Live, Reference},
        object_names::Names,
        ownership::Owner,
        record::AdoptionRecord,
    },
    plan::{
        observed::{Found, Observed},
        parent_access,
        snapshot::Sight,
    },
};

/// True when the release's Secrets have to be looked for: an object at home came from the original's chart without
/// doubt, or an earlier run has begun with the take-over and not finished it. The chart's Secret alone is no proof.
#[must_use]
pub fn is_evident(names: &Names, observed: &Observed, home: Option<&Found>) -> bool {
    let objects =
        observed.service_account.iter().chain(home.iter().flat_map(|found| found.role.iter().chain(&found.binding)));
    let original = |live: &Live| names.owner(live) == Owner::Original && helm_release::names_our_chart(live);
    objects.into_iter().any(original) || record(names, observed).is_some_and(|record| record.pending)
}

/// The record of an adoption, if the ServiceAccount belongs to the instance.
fn record(names: &Names, observed: &Observed) -> Option<AdoptionRecord> {
    let is_own = |live: &Live| names.owner(live) == Owner::Ours;
    let record = observed.record.adoption.clone().filter(|record| record.release == names.instance());
    record.filter(|_| observed.service_account.as_ref().is_some_and(is_own))
}

/// Works out what has to be done, and what is to be remembered.
#[must_use]
pub fn take_over(request: &Request, names: &Names, sight: &Sight) -> TakeOver {
    let observed = &sight.observed;
    let before = record(names, observed);
    let parent = request.connection.login.token().map(Token::fingerprint);
    if !sight.release_is_evident {
        // Remembered for as long as the credential is used that was to be read there, as far as anybody can tell.
        let record = before.filter(|record| record.exposed == parent);
        return TakeOver { record, ..TakeOver::default() };
    }
    let deletable = |object: &Reference| parent_access::undeletable(sight, std::slice::from_ref(object)).is_empty();
    let (revisions, left): (Vec<Reference>, Vec<Reference>) =
        observed.revisions.iter().map(|(object, _)| object.clone()).partition(deletable);
    let mut missing = sight.revisions_denied.clone();
    missing.extend(parent_access::undeletable(sight, &left));
    let stuck = (!missing.is_empty()).then(|| lacks(&missing));
    let release = request.instance.name.as_str().to_owned();
    let exposed = before.and_then(|record| record.exposed).or(parent.filter(|_| sight.parent_is_exposed));
    let record = AdoptionRecord { release, exposed, pending: stuck.is_some() };
    TakeOver { under_way: true, record: Some(record), revisions, stuck }
}

/// What there is to say of it.
#[must_use]
pub fn remarks(take_over: &TakeOver, request: &Request, observed: &Observed) -> Vec<Finding> {
    let mut remarks = Vec::new();
    if is_original(request, observed) {
        let text = format!(
            "version 1.0.0 of the bundle created this instance, as Helm release {}: its objects are adopted as they \
             are, including the token",
            request.instance.name
        );
        remarks
            .push(Finding::remark(finding::Code::Adopt, text).help("afterwards Helm no longer manages this instance"));
    }
    remarks.extend(exposed(take_over, &request.instance.namespace, observed));
    remarks.extend(take_over.stuck.as_deref().map(|why| release_left(request, why)));
    remarks
}

/// The parent credential that was to be read in the namespace.
fn exposed(take_over: &TakeOver, home: &Namespace, observed: &Observed) -> Option<Finding> {
    let record = take_over.record.as_ref()?;
    // Of a login without a token nothing can be said.
    let whose =
        if record.exposed.is_some() { "the connection's credential" } else { "a credential of this connection" };
    let text = match observed.revisions.len() {
        0 if take_over.under_way => {
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
#[must_use]
pub fn release_left(request: &Request, why: &str) -> Finding {
    let text = format!(
        "the Secrets of the Helm release {} in namespace {} cannot all be deleted: {why}",
        request.instance.name, request.instance.namespace
    );
    Finding::remark(finding::Code::ReleaseLeft, text)
        .help("fix this and run again: the release stays recorded until its Secrets are deleted")
}

/// That the parent credential was to be read, where an instance is taken back that the original bundle made.
pub fn exposure(request: &Request, names: &Names, sight: &Sight) -> Option<Finding> {
    exposed(&take_over(request, names, sight), names.namespace(), &sight.observed)
}

/// True when an object is there that the original bundle made.
fn is_original(request: &Request, observed: &Observed) -> bool {
    let places = observed.places.values().flat_map(|found| found.role.iter().chain(&found.binding));
    let identity = observed.service_account.iter().chain(observed.slots.current().map(|slot| &slot.live));
    identity.chain(places).any(|live| request.instance.owner(live) == Owner::Original)
}
