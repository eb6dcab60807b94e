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

#[cfg(test)]
mod tests {
    use kube::config::AuthInfo;
    use rstest::rstest;

    use super::*;
    use crate::{
        endpoint::connection::{ClusterLogin, Credentials, KubeconfigUser},
        k8s::object::{Kind, Live},
        plan::{
            fixtures::{Case, HOME, live, original, place, review, slots},
            observed::LiveGrant,
        },
    };

    /// The fingerprint of the parent credential in the fixtures.
    fn parent() -> String {
        Token::parse("a-token").unwrap().fingerprint()
    }

    fn revisions(count: usize) -> Vec<(Reference, Live)> {
        let revision = |number| Reference::new(Kind::Secret, HOME, &format!("sh.helm.release.v1.demo.v{number}"));
        (1..=count).map(|number| (revision(number), Live::default())).collect()
    }

    /// The start of a run on an instance with a ServiceAccount that records this.
    fn start(recorded: Option<(&str, Option<&str>)>) -> (Request, Snapshot) {
        let (request, mut snapshot) = Case::new(&["home get"]).with(&[]).start();
        snapshot.observed.record.adoption = recorded.map(|(release, exposed)| AdoptionRecord {
            release: release.to_owned(),
            exposed: exposed.map(|exposed| if exposed == "parent" { parent() } else { exposed.to_owned() }),
            pending: true,
        });
        (request, snapshot)
    }

    /// Columns: recorded release and exposed credential, what the Secrets of Helm show (none if there are none), the
    /// credential that is recorded afterwards (none without a record).
    #[rstest]
    #[case::no_release(None, None, None)]
    #[case::release_is_gone(Some(("demo", Some("parent"))), None, Some("parent"))]
    #[case::connection_has_another_credential(Some(("demo", Some("other"))), None, None)]
    #[case::credential_was_not_a_token(Some(("demo", None)), None, None)]
    #[case::record_of_another_release(Some(("demo-2", Some("parent"))), None, None)]
    #[case::release_with_the_credential(None, Some(true), Some("parent"))]
    #[case::release_with_another_credential(None, Some(false), Some("unknown"))]
    #[case::earlier_record_wins(Some(("demo", Some("other"))), Some(true), Some("other"))]
    #[case::earlier_record_without_token(Some(("demo", None)), Some(true), Some("parent"))]
    fn exposed_credential_is_recorded(
        #[case] recorded: Option<(&str, Option<&str>)>,
        #[case] exposes_parent: Option<bool>,
        #[case] wanted: Option<&str>,
    ) {
        let (request, mut snapshot) = start(recorded);
        snapshot.adoption.is_there = exposes_parent.is_some();
        snapshot.adoption.exposes_parent = exposes_parent.unwrap_or(true);
        let adoption = decide(&request, &request.instance.names, &snapshot);
        assert_eq!(adoption.under_way, exposes_parent.is_some());
        let exposed = |record: &AdoptionRecord| match &record.exposed {
            Some(exposed) if *exposed == parent() => "parent".to_owned(),
            Some(exposed) => exposed.clone(),
            None => "unknown".to_owned(),
        };
        assert_eq!(adoption.record.as_ref().map(exposed).as_deref(), wanted);
        assert!(adoption.record.as_ref().is_none_or(|record| record.release == "demo"));
        assert!(adoption.record.is_none_or(|record| record.pending == exposes_parent.is_none()), "done in this run");
    }

    #[test]
    fn connection_without_token_keeps_its_record() {
        let (mut request, snapshot) = start(Some(("demo", None)));
        let login = KubeconfigUser { credentials: Credentials::default(), command: None, acting: AuthInfo::default() };
        request.connection.login = ClusterLogin::Kubeconfig(Box::new(login));
        assert!(decide(&request, &request.instance.names, &snapshot).record.is_some());
    }

    /// Columns: permissions in the home namespace (none if unknown), whether Secrets may be listed, revisions that are
    /// deleted, part of the reason why others are not.
    #[rstest]
    #[case::unknown(None, true, &[1, 2], None)]
    #[case::held(Some("delete secrets"), true, &[1, 2], None)]
    #[case::held_for_one(Some("delete secrets sh.helm.release.v1.demo.v2"), true, &[2], Some("demo.v1"))]
    #[case::not_held(Some("get secrets"), true, &[], Some("lacks delete secrets"))]
    #[case::not_listed(Some("delete secrets"), false, &[1, 2], Some("lacks list secrets"))]
    fn deletable_revisions_are_deleted(
        #[case] held: Option<&str>,
        #[case] is_listed: bool,
        #[case] deleted: &[usize],
        #[case] stuck: Option<&str>,
    ) {
        let (request, mut snapshot) = start(None);
        let all = revisions(2);
        let missing = [crate::k8s::denial::needed("list", &all[0].0)].into_iter().filter(|_| !is_listed).collect();
        snapshot.adoption = Evidence { is_there: true, revisions: all.clone(), exposes_parent: true, missing };
        if let Some(held) = held {
            snapshot.parent_access.add(place(HOME).scope, review(&[held]));
        }
        let adoption = decide(&request, &request.instance.names, &snapshot);
        assert_eq!(adoption.revisions, deleted.iter().map(|number| all[number - 1].0.clone()).collect::<Vec<_>>());
        assert_eq!(adoption.record.as_ref().map(|record| record.pending), Some(stuck.is_some()));
        assert_eq!(adoption.stuck.is_some(), stuck.is_some());
        assert!(adoption.stuck.as_deref().is_none_or(|why| why.contains(stuck.unwrap())), "{:?}", adoption.stuck);
        let codes: Vec<_> = remarks(&adoption, &request, &snapshot).iter().map(|finding| finding.code).collect();
        let left = stuck.map(|_| finding::Code::ReleaseLeft);
        assert_eq!(codes, [finding::Code::ParentExposed].into_iter().chain(left).collect::<Vec<_>>());
    }

    /// Columns: whether the release is there, revisions, whether the credential is known, beginning of the finding.
    #[rstest]
    #[case::one_revision(true, 1, true, Some("Helm keeps the connection's credential in 1 Secret of namespace home"))]
    #[case::two_revisions(
        true,
        2,
        false,
        Some("Helm keeps a credential of this connection in 2 Secrets of namespace home")
    )]
    #[case::deleted_before(true, 0, true, Some("Helm kept the connection's credential in namespace home"))]
    #[case::done(false, 0, true, Some("the connection still has the credential that Helm kept in namespace home"))]
    #[case::done_without_token(false, 0, false, None)]
    fn exposure_is_reported_until_replaced(
        #[case] under_way: bool,
        #[case] count: usize,
        #[case] is_known: bool,
        #[case] text: Option<&str>,
    ) {
        let record = AdoptionRecord { release: "demo".to_owned(), exposed: is_known.then(parent), pending: false };
        let adoption = Adoption { under_way, record: Some(record), ..Adoption::default() };
        let (request, mut snapshot) = start(None);
        snapshot.adoption.revisions = revisions(count);
        let found = remarks(&adoption, &request, &snapshot);
        assert_eq!(found.len(), usize::from(text.is_some()));
        assert!(found.iter().all(|it| it.message.starts_with(text.unwrap())), "{found:?}");
        assert!(remarks(&Adoption { record: None, ..adoption }, &request, &snapshot).is_empty());
    }

    #[rstest]
    #[case::account(|it: &mut Observed| it.service_account = Some(original()), true)]
    #[case::role(|it: &mut Observed| drop(it.places.insert(place(HOME), LiveGrant { role: Some(original()), ..LiveGrant::default() })), true)]
    #[case::binding(|it: &mut Observed| drop(it.places.insert(place(HOME), LiveGrant { binding: Some(original()), ..LiveGrant::default() })), true)]
    #[case::secret(|it: &mut Observed| it.slots = slots(1, &[(1, original(), None)]), true)]
    #[case::secret_of_an_earlier_slot(|it: &mut Observed| it.slots = slots(2, &[(1, original(), None)]), false)]
    #[case::adopted(|it: &mut Observed| it.service_account = Some(live(&[])), false)]
    fn adoption_is_announced_with_an_original_object(
        #[case] alter: impl FnOnce(&mut Observed),
        #[case] is_announced: bool,
    ) {
        let (request, mut snapshot) = Case::new(&["home get"]).start();
        alter(&mut snapshot.observed);
        let found = remarks(&Adoption::default(), &request, &snapshot);
        assert_eq!(found.iter().filter(|it| it.code == finding::Code::Adopt).count(), usize::from(is_announced));
    }
}
