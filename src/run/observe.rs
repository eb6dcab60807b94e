//! The observation: reads the state of the cluster in two rounds of requests, each all at once. The first round reads what
//! the request names, the second what the ServiceAccount records beyond that. The result is a `plan/snapshot.rs`.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use crate::{
    cluster::{ApiError, ApiErrorKind, Cluster},
    credential::access_checks::Review,
    diagnostics::{error::Failure, secret::Token},
    k8s::{
        fetched::FetchedObject,
        grant::{Grant, Place, RoleSource, Scope},
        name::{ClusterRoleName, Namespace},
        object::{Kind, Live, Reference},
        object_names::Names,
        ownership::Owner,
        record::{AccountRecord, SlotNumbers},
    },
    plan::{
        adoption::evidence::Evidence,
        observed::{LiveGrant, Observed, Presence},
        snapshot::{ParentAccess, Snapshot},
        token_slots::{Slot, TokenSlots},
    },
    rbac::PermissionRecord,
    run::adopt,
};

/// Observes the objects of these names and at the places of these grants. Where something is to be `proved`, the server is
/// asked what a proof asks. `version` asks for the server's version.
///
/// # Errors
/// Any fault but a denial; denials are collected, so that all of them can be reported at once.
pub(crate) async fn observe(
    cluster: &Cluster<'_>,
    names: &Names,
    grants: &[Grant],
    parent: Option<&Token>,
    proved: bool,
    version: impl Future<Output = Result<String, ApiError>>,
) -> Result<Snapshot, ApiError> {
    let first = FirstRound::read(cluster, names, grants, proved, version).await?;
    let second = SecondRound::read(cluster, names, &first, parent).await;
    assemble(names, first, second)
}

/// What was read at once, because the request names it.
struct FirstRound {
    /// The ServiceAccount with its record, the places of the grants and the home namespace's own.
    observed: Observed,
    /// Whether the inventory in the record was understood completely.
    inventory_is_whole: bool,
    /// The answer for the Secret in the first token slot.
    first_slot: Result<Option<FetchedObject>, ApiError>,
    /// Scopes that were read.
    scopes: BTreeSet<Scope>,
    parent_access: ParentAccess,
    server_version: Option<String>,
    /// What the parent credential lacks to read what is asked for.
    denied: Vec<PermissionRecord>,
    /// Why no credential can be proved on this server.
    too_old: Option<ApiError>,
}

impl FirstRound {
    async fn read(
        cluster: &Cluster<'_>,
        names: &Names,
        grants: &[Grant],
        proved: bool,
        version: impl Future<Output = Result<String, ApiError>>,
    ) -> Result<Self, ApiError> {
        let home = names.home();
        let wanted: BTreeSet<&Place> = grants.iter().map(|grant| &grant.place).collect();
        let places: BTreeSet<&Place> = wanted.iter().copied().chain([&home]).collect();
        let scopes: BTreeSet<&Scope> = places.iter().map(|place| &place.scope).collect();
        let (account, first_slot) = (names.service_account(), names.token_secret(1));
        let identity = async { if proved { cluster.identity().await.err() } else { None } };
        let (unidentified, account, first_slot, version, surroundings, places) = tokio::join!(
            identity,
            cluster.get(&account),
            cluster.get(&first_slot),
            version,
            Surroundings::read(cluster, &scopes, wanted.iter().copied()),
            join_all(places.iter().map(|place| read_place(cluster, names, place))),
        );
        // A server that refuses the login may break the connection under the other requests: the login is the cause.
        let refused_login = {
            let first =
                [account.as_ref().err(), first_slot.as_ref().err(), version.as_ref().err(), unidentified.as_ref()];
            let first = first.into_iter().flatten().chain(surroundings.failures());
            let places = places.iter().filter_map(|place| place.as_ref().err());
            first.chain(places).find(|error| error.is_unauthorized()).cloned()
        };
        if let Some(error) = refused_login {
            return Err(error);
        }

        let mut denied = Vec::new();
        let service_account = tolerate(account, &mut denied)?.map(|seen| seen.live);
        let places = places.into_iter().collect::<Result<BTreeMap<Place, LiveGrant>, _>>()?;
        let wanted_places = places.iter().filter(|(place, _)| wanted.contains(place));
        denied.extend(wanted_places.flat_map(|(_, found)| found.denied.iter().cloned()));
        let mut observed = Observed { service_account, places, ..Observed::default() };
        let mut parent_access = ParentAccess::default();
        // The version is only reported: nothing depends on a cluster telling it.
        let server_version = version.ok();
        let mut too_old = unidentified.and_then(|error| too_old_for_proof(error, server_version.as_deref()));
        denied.extend(surroundings.settle(&mut observed, &mut parent_access, &mut too_old)?);
        let mut inventory_is_whole = true;
        if let Some(account) = &observed.service_account {
            (observed.record, inventory_is_whole) = AccountRecord::from_annotations(&account.annotations, &home);
        }
        let scopes = scopes.into_iter().cloned().collect();
        Ok(Self { observed, inventory_is_whole, first_slot, scopes, parent_access, server_version, denied, too_old })
    }
}

/// What was read because the ServiceAccount records it, or because the first round makes it likely.
struct SecondRound {
    /// The answers for the Secrets in later token slots, by ascending number.
    later_slots: Vec<(u32, Result<Option<FetchedObject>, ApiError>)>,
    /// Around the places that only the record names.
    surroundings: Surroundings,
    /// Those places.
    places: Vec<Result<(Place, LiveGrant), ApiError>>,
    adoption: Result<Evidence, ApiError>,
}

impl SecondRound {
    async fn read(cluster: &Cluster<'_>, names: &Names, first: &FirstRound, parent: Option<&Token>) -> Self {
        let observed = &first.observed;
        let unread = |place: &&Place| !observed.places.contains_key(place);
        let left: Vec<&Place> = observed.record.inventory.places().filter(unread).collect();
        let scopes: BTreeSet<&Scope> =
            left.iter().map(|place| &place.scope).filter(|scope| !first.scopes.contains(scope)).collect();
        let home = observed.places.get(&names.home());
        let (later_slots, surroundings, places, adoption) = tokio::join!(
            read_later_slots(cluster, names, observed.record.slots),
            Surroundings::read(cluster, &scopes, left.iter().copied()),
            join_all(left.iter().map(|place| read_place(cluster, names, place))),
            adopt::observe(cluster, names, observed, home, parent),
        );
        Self { later_slots, surroundings, places, adoption }
    }
}

/// The snapshot of both rounds.
fn assemble(names: &Names, first: FirstRound, second: SecondRound) -> Result<Snapshot, ApiError> {
    let FirstRound { mut observed, mut parent_access, mut denied, mut too_old, .. } = first;
    let adoption = second.adoption?;
    // What a ClusterRole allows that is not asked for any more need not be known.
    second.surroundings.settle(&mut observed, &mut parent_access, &mut too_old)?;
    observed.places.extend(second.places.into_iter().collect::<Result<Vec<_>, _>>()?);
    let Observed { places, namespaces, .. } = &mut observed;
    for (place, found) in places {
        // In a namespace that is deleted nothing is left to be denied.
        if let Scope::Namespace(namespace) = &place.scope
            && namespaces.get(namespace) == Some(&Presence::Absent)
        {
            found.denied.clear();
        }
    }
    let slots = [(1, first.first_slot)].into_iter().chain(second.later_slots).collect();
    observed.slots = settle_slots(names, &observed, slots, &mut denied)?;
    Ok(Snapshot {
        observed,
        server_version: first.server_version,
        parent_access,
        denied,
        inventory_is_whole: first.inventory_is_whole,
        adoption,
        too_old: too_old.map(Failure::from),
    })
}

/// The slots that have a Secret, from the answers in ascending order. A parent credential that may not read the newest
/// Secret is denied; one that may not read an earlier Secret has not created it either.
fn settle_slots(
    names: &Names,
    observed: &Observed,
    read: Vec<(u32, Result<Option<FetchedObject>, ApiError>)>,
    denied: &mut Vec<PermissionRecord>,
) -> Result<TokenSlots, ApiError> {
    let account = observed.service_account.as_ref();
    let identity = (names.namespace().as_str(), names.object());
    let mut slots = Vec::new();
    // The newest first: its failure comes before those of the others.
    for (number, secret) in read.into_iter().rev() {
        let mut unneeded = Vec::new();
        let is_newest = number == observed.record.slots.newest;
        if let Some(secret) = tolerate(secret, if is_newest { denied } else { &mut unneeded })? {
            let is_own = !matches!(names.owner(&secret.live), Owner::Foreign(_));
            slots.push(Slot::new(number, secret, is_own, identity, account.map(|account| account.uid.as_str())));
        }
    }
    Ok(TokenSlots::new(account.map(|_| observed.record.slots), slots))
}

/// What the answer to the parent's own question means for the proof. Servers before 1.28 let only their administrators
/// ask for what they do not have, so there a denial means the same as an absence. All else is for others to tell.
fn too_old_for_proof(error: ApiError, version: Option<&str>) -> Option<ApiError> {
    match (&error.kind, version) {
        (ApiErrorKind::ReviewUnsupported(_), _) => Some(error),
        (ApiErrorKind::Denied { .. }, Some(version)) if is_before_self_subject_review(version) => {
            let review = format!("SelfSubjectReview of authentication.k8s.io/v1 ({version})");
            Some(ApiError::review_unsupported(&error.request.doing, &review, &error.request.server))
        }
        _ => None,
    }
}

/// Whether a version like `v1.27.16-eks-1` is before 1.28.
pub(super) fn is_before_self_subject_review(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(|letter: char| !letter.is_ascii_digit());
    let mut number = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    matches!((number(), number()), (Some(major), Some(minor)) if (major, minor) < (1, 28))
}

/// What is around the places: namespaces, what the parent may do in each scope, and the ClusterRoles that others keep.
struct Surroundings {
    reviews: Vec<(Scope, Result<Review, ApiError>)>,
    namespaces: Vec<(Namespace, Result<Presence, ApiError>)>,
    cluster_roles: Vec<(ClusterRoleName, Result<Option<FetchedObject>, ApiError>)>,
}

impl Surroundings {
    async fn read<'a>(
        cluster: &Cluster<'_>,
        scopes: &BTreeSet<&'a Scope>,
        places: impl Iterator<Item = &'a Place>,
    ) -> Self {
        let reviews = scopes.iter().map(async |scope| ((*scope).clone(), cluster.rules(scope.namespace()).await));
        let namespaces = scopes.iter().filter_map(|scope| match scope {
            Scope::Namespace(namespace) => Some(namespace.clone()),
            Scope::Cluster => None,
        });
        let cluster_roles: BTreeSet<&ClusterRoleName> = places
            .filter_map(|place| match &place.role_source {
                RoleSource::ClusterRole(name) => Some(name),
                RoleSource::Rules => None,
            })
            .collect();
        let (reviews, namespaces, cluster_roles) = tokio::join!(
            join_all(reviews),
            join_all(namespaces.map(async |namespace| {
                let presence = cluster.presence(&namespace).await;
                (namespace, presence)
            })),
            join_all(cluster_roles.into_iter().map(async |name| {
                let reference = Reference::at_cluster(Kind::ClusterRole, name.as_str());
                (name.clone(), cluster.get(&reference).await)
            })),
        );
        Self { reviews, namespaces, cluster_roles }
    }

    fn failures(&self) -> impl Iterator<Item = &ApiError> {
        let namespaces = self.namespaces.iter().filter_map(|(_, seen)| seen.as_ref().err());
        let reviews = self.reviews.iter().filter_map(|(_, review)| review.as_ref().err());
        namespaces.chain(reviews).chain(self.cluster_roles.iter().filter_map(|(_, seen)| seen.as_ref().err()))
    }

    /// Hands over what was seen; what the parent lacks to look at the ClusterRoles. A server that cannot say what is
    /// allowed is `too_old` for a proof.
    fn settle(
        self,
        observed: &mut Observed,
        parent_access: &mut ParentAccess,
        too_old: &mut Option<ApiError>,
    ) -> Result<Vec<PermissionRecord>, ApiError> {
        for (scope, review) in self.reviews {
            let review = match review {
                Err(error) if matches!(error.kind, ApiErrorKind::ReviewUnsupported(_)) => {
                    too_old.get_or_insert(error);
                    Review::default()
                }
                other => allowed_to_ask(other)?,
            };
            parent_access.add(scope, review);
        }
        for (namespace, presence) in self.namespaces {
            observed.namespaces.insert(namespace, presence?);
        }
        let mut denied = Vec::new();
        for (name, seen) in self.cluster_roles {
            let mut unseen = Vec::new();
            let seen = tolerate(seen, &mut unseen)?;
            if unseen.is_empty() {
                observed.cluster_roles.entry(name).or_insert(seen.map(|seen| seen.live.rules()));
            }
            denied.append(&mut unseen);
        }
        Ok(denied)
    }
}

/// The objects at one place.
async fn read_place(cluster: &Cluster<'_>, names: &Names, place: &Place) -> Result<(Place, LiveGrant), ApiError> {
    let (role, binding) = (names.role(&place.scope), names.binding(place));
    let role = async { if place.has_role() { cluster.get(&role).await } else { Ok(None) } };
    let (role, binding) = tokio::join!(role, cluster.get(&binding));
    let mut denied = Vec::new();
    let mut live = |seen| tolerate(seen, &mut denied).map(|seen| seen.map(|seen: FetchedObject| seen.live));
    let (role, binding): (Option<Live>, Option<Live>) = (live(role)?, live(binding)?);
    Ok((place.clone(), LiveGrant { role, binding, denied }))
}

/// Reads the slots after the first that may have a Secret, in ascending order.
async fn read_later_slots(
    cluster: &Cluster<'_>,
    names: &Names,
    recorded: SlotNumbers,
) -> Vec<(u32, Result<Option<FetchedObject>, ApiError>)> {
    let later = TokenSlots::numbers_to_read(recorded).into_iter().filter(|number| *number > 1);
    join_all(later.map(async |number| (number, cluster.get(&names.token_secret(number)).await))).await
}

/// A parent that may not create the review has no known permissions: each request shows whether it is denied.
fn allowed_to_ask(review: Result<Review, ApiError>) -> Result<Review, ApiError> {
    match review {
        Err(error) if error.is_denied() => Ok(Review::default()),
        other => other,
    }
}

/// Collects a denial, so that it is reported with the others.
fn tolerate<T>(result: Result<Option<T>, ApiError>, denied: &mut Vec<PermissionRecord>) -> Result<Option<T>, ApiError> {
    match result {
        Err(ApiError { kind: ApiErrorKind::Denied { mut missing, .. }, .. }) => {
            denied.append(&mut missing);
            Ok(None)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("v1.27.16-eks-a1b2c3", true)]
    #[case("v1.24.3+k3s1", true)]
    #[case("v1.9.1", true)]
    #[case("v1.28.0", false)]
    #[case("v1.37.2", false)]
    #[case("v2.0.0", false)]
    #[case("", false)]
    #[case("unknown", false)]
    fn versions_before_self_subject_review_are_recognized(#[case] version: &str, #[case] before: bool) {
        assert_eq!(is_before_self_subject_review(version), before);
    }
}
