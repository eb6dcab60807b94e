//! The adoption of an instance of version 1.0.0: reads the evidence, and transfers the ownership of Helm's fields. What is
//! decided of it is in `plan/adoption/`.

use std::cmp::Reverse;

use futures_util::future::join_all;

use crate::{
    cluster::{ApiError, ApiErrorKind, Cluster},
    diagnostics::{error::Failure, secret::Token},
    k8s::{
        helm_release::CHART,
        object::{Live, Reference},
        object_names::Names,
        ownership::Owner,
    },
    plan::{
        adoption::{
            evidence::{Evidence, is_evident},
            fields, release,
        },
        observed::{LiveGrant, Observed, Presence},
    },
    run::Run,
};

/// The evidence. Nothing is read where nothing can be there; `home` is what was found at the home namespace's own place.
///
/// # Errors
/// Any fault but a denial.
pub(crate) async fn observe(
    cluster: &Cluster<'_>,
    names: &Names,
    observed: &Observed,
    home: Option<&LiveGrant>,
    parent: Option<&Token>,
) -> Result<Evidence, ApiError> {
    let is_evident = is_evident(names, observed, home);
    // A release whose objects are deleted, or were never created, is known by its Secrets alone.
    let is_possible = observed.service_account.is_none() && observed.presence(names.namespace()) != Presence::Absent;
    if !(is_evident || is_possible) || !release::can_be_release(names.instance()) {
        return Ok(Evidence { is_there: is_evident, ..Evidence::default() });
    }
    match read_release(cluster, names, is_evident, parent).await {
        Ok((revisions, exposes_parent)) => {
            let is_there = is_evident || !revisions.is_empty();
            Ok(Evidence { is_there, revisions, exposes_parent, missing: Vec::new() })
        }
        Err(ApiError { kind: ApiErrorKind::Denied { missing, .. }, .. }) => {
            let missing = if is_evident { missing } else { Vec::new() }; // nothing says that there is a release
            Ok(Evidence { is_there: is_evident, revisions: Vec::new(), exposes_parent: true, missing })
        }
        Err(error) => Err(error),
    }
}

/// The Secrets of the release, and whether the parent credential is in one of them, as far as they can be read.
async fn read_release(
    cluster: &Cluster<'_>,
    names: &Names,
    is_evident: bool,
    parent: Option<&Token>,
) -> Result<(Vec<(Reference, Live)>, bool), ApiError> {
    let revisions = cluster.revisions(names.namespace(), names.instance()).await?;
    // The newest revision names the chart that the release has now: v10 comes before v9 in a list.
    let mut newest_first: Vec<_> = revisions.iter().map(|(secret, _)| secret).collect();
    newest_first.sort_by_key(|secret| Reverse(release::revision(&secret.name, names.instance())));
    let read = join_all(newest_first.into_iter().map(|secret| cluster.revision(secret, parent))).await;
    let is_ours = match read.first() {
        Some(Ok(Some(newest))) => is_evident || newest.chart == CHART,
        Some(Err(error)) if !error.is_denied() => return Err(error.clone()),
        _ => is_evident,
    };
    if !is_ours {
        return Ok((Vec::new(), false));
    }
    let exposes_parent = read.iter().any(|revision| !matches!(revision, Ok(Some(revision)) if !revision.exposes));
    Ok((revisions, exposes_parent))
}

/// Transfers the ownership of Helm's fields, object by object, without another change: what is not desired of them can
/// then be removed by an apply.
///
/// # Errors
/// The first failure.
pub(crate) async fn adopt_fields(run: &Run<'_>, observed: &mut Observed) -> Result<(), Failure> {
    let (request, names) = (run.request, &run.request.instance.names);
    let secret = names.token_secret(observed.slots.newest());
    let secret = (secret, observed.slots.current_mut().map(|slot| &mut slot.live));
    let identity = [(names.service_account(), observed.service_account.as_mut()), secret];
    let places = observed.places.iter_mut().flat_map(|(place, found)| {
        [(names.binding(place), found.binding.as_mut()), (names.role(&place.scope), found.role.as_mut())]
    });
    let objects = identity.into_iter().chain(places).filter_map(|(object, live)| Some((object, live?)));
    let taken =
        objects.filter(|(_, live)| request.instance.owner(live) == Owner::Original).filter_map(|(object, live)| {
            let fields = fields::transferred_fields(&live.managed_fields)?;
            Some(async move {
                *live = run.session.cluster.transfer_field_ownership(&object, live, fields).await?;
                Ok::<_, Failure>(())
            })
        });
    Failure::all(join_all(taken).await).map(drop)
}
