//! The look: what is at every place of the request, what the parent credential may do there, and then what is at the
//! places that the ServiceAccount remembers. Two rounds of reads at most, each all at once.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use crate::{
    cluster::{ApiError, ApiErrorKind, Cluster},
    credential::access_checks::Review,
    diagnostics::{error::Failure, secret::Token},
    k8s::{
        fetched::FetchedObject,
        grant::{Authority, Grant, Place, Scope},
        helm_release,
        name::{ClusterRoleName, Namespace},
        object::{Kind, Live, Reference},
        object_names::Names,
        ownership::Owner,
        record::{AccountRecord, SlotNumbers},
    },
    plan::{
        adoption,
        observed::{Found, Observed, Presence},
        snapshot::{Rights, Sight},
        token_slots::{Slot, TokenSlots},
    },
    rbac::Tuple,
};

/// Which instance of the platform it is, by what the platform calls it and by its tags.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// What the ServiceAccount remembers of it.
    pub instance: &'a str,
    /// Labels of the objects.
    pub tags: &'a BTreeMap<String, String>,
}

/// Looks for the objects of these names and at the places of these grants; and in all other namespaces, where it is
/// known which instance of the platform it is. Where something is to be `proved`, the server is asked what a proof asks.
///
/// # Errors
/// Any fault but a denial; denials are collected, so that all of them can be told at once.
pub async fn look(
    cluster: &Cluster<'_>,
    names: &Names,
    grants: &[Grant],
    identity: Option<Identity<'_>>,
    parent: Option<&Token>,
    proved: bool,
    version: impl Future<Output = Result<String, ApiError>>,
) -> Result<Sight, ApiError> {
    let home = names.home();
    let wanted: BTreeSet<&Place> = grants.iter().map(|grant| &grant.place).collect();
    let scopes: BTreeSet<&Scope> = wanted.iter().map(|place| &place.scope).chain([&home.scope]).collect();
    let places: BTreeSet<&Place> = wanted.iter().copied().chain([&home]).collect();
    let first_slot = names.token_secret(1);
    let asked = async { if proved { cluster.identity().await.err() } else { None } };
    let (asked, accounts, secret, version, surroundings, places) = tokio::join!(
        asked,
        Accounts::look(cluster, names, identity),
        cluster.get(&first_slot),
        version,
        Surroundings::look(cluster, &scopes, wanted.iter().copied()),
        join_all(places.iter().map(|place| look_at(cluster, names, place))),
    );
    // A server that refuses the login may break the connection under the other requests: the login is the cause.
    let refused = {
        let first = [accounts.as_ref().err(), secret.as_ref().err(), version.as_ref().err(), asked.as_ref()];
        let first = first.into_iter().flatten().chain(surroundings.failures());
        let places = places.iter().filter_map(|place| place.as_ref().err());
        first.chain(places).find(|error| error.is_unauthorized()).cloned()
    };
    if let Some(failure) = refused {
        return Err(failure);
    }

    let mut denied = Vec::new();
    let Accounts { service_account, former_homes, unsearched } = accounts?;
    let service_account = tolerate(service_account, &mut denied)?;
    let mut places: BTreeMap<Place, Found> = places.into_iter().collect::<Result<_, _>>()?;
    let wanted_places = places.iter().filter(|(place, _)| wanted.contains(place));
    denied.extend(wanted_places.flat_map(|(_, found)| found.denied.iter().cloned()));
    let mut observed = Observed { service_account, ..Observed::default() };
    let mut rights = Rights::default();
    // Only told, never needed: a cluster that hides its version is none the worse.
    let server_version = version.ok();
    let mut too_old = asked.and_then(|failure| too_old_for_proof(failure, server_version.as_deref()));
    denied.extend(surroundings.settle(&mut observed, &mut rights, &mut too_old)?);
    let mut inventory_is_whole = true;
    if let Some(account) = &observed.service_account {
        (observed.record, inventory_is_whole) = AccountRecord::from_annotations(&account.annotations, &home);
    }

    let left: Vec<&Place> = observed.record.inventory.places().filter(|place| !places.contains_key(place)).collect();
    let unseen_scopes: BTreeSet<&Scope> =
        left.iter().map(|place| &place.scope).filter(|scope| !scopes.contains(scope)).collect();
    let evident = adoption::is_evident(names, &observed, places.get(&home));
    // A release whose objects are gone, or were never made, is known by its Secrets alone.
    let thinkable = observed.service_account.is_none() && observed.presence(names.namespace()) != Presence::Absent;
    let release = release(cluster, names, evident, thinkable, parent);
    let (slots, surroundings, more, release) = tokio::join!(
        read_slots(cluster, names, observed.record.slots, secret),
        Surroundings::look(cluster, &unseen_scopes, left.iter().copied()),
        join_all(left.iter().map(|place| look_at(cluster, names, place))),
        release,
    );
    let mut revisions_denied = Vec::new();
    let release = tolerate(release.map(Some), &mut revisions_denied)?;
    let parent_is_exposed = release.as_ref().is_none_or(|release| release.exposes);
    observed.revisions = release.map(|release| release.revisions).unwrap_or_default();
    let release_is_evident = evident || !observed.revisions.is_empty();
    if !release_is_evident {
        revisions_denied.clear(); // nothing says that there is one
    }
    // What a ClusterRole allows that is not asked for any more need not be known.
    surroundings.settle(&mut observed, &mut rights, &mut too_old)?;
    places.extend(more.into_iter().collect::<Result<Vec<_>, _>>()?);
    for (place, found) in &mut places {
        // Where the namespace is gone, so are the rights in it: nothing is left there to be denied.
        if let Scope::Namespace(namespace) = &place.scope
            && observed.presence(namespace) == Presence::Absent
        {
            found.denied.clear();
        }
    }
    observed.places = places;

    observed.slots = settle_slots(names, &observed, slots, &mut denied)?;
    Ok(Sight {
        observed,
        server_version,
        rights,
        denied,
        inventory_is_whole,
        release_is_evident,
        parent_is_exposed,
        revisions_denied,
        former_homes,
        unsearched,
        too_old: too_old.map(Failure::from),
    })
}

/// The slots that have a Secret, from the answers in ascending order. A parent credential that may not read the newest
/// Secret is denied; one that may not read an earlier Secret has not created it either.
fn settle_slots(
    names: &Names,
    observed: &Observed,
    read: Vec<(u32, Result<Option<FetchedObject>, ApiError>)>,
    denied: &mut Vec<Tuple>,
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

/// The ServiceAccount, and those of the same instance in former homes.
struct Accounts {
    service_account: Result<Option<Live>, ApiError>,
    former_homes: Vec<Namespace>,
    unsearched: Vec<Tuple>,
}

impl Accounts {
    async fn look(cluster: &Cluster<'_>, names: &Names, identity: Option<Identity<'_>>) -> Result<Self, ApiError> {
        let account = names.service_account();
        let namesakes = async {
            match identity {
                Some(_) => cluster.namesakes(Kind::ServiceAccount, names.object()).await,
                None => Ok(Vec::new()),
            }
        };
        let (service_account, namesakes) = tokio::join!(cluster.get(&account), namesakes);
        let mut unsearched = Vec::new();
        let service_account = match service_account {
            Err(error) if !error.is_denied() => return Err(error),
            service_account => service_account.map(|seen| seen.map(|seen| seen.live)),
        };
        let namesakes = tolerate(namesakes.map(Some), &mut unsearched)?.unwrap_or_default();
        let former_homes = namesakes.iter().filter_map(|(object, live)| former_home(names, identity?, object, live));
        Ok(Self { service_account, former_homes: former_homes.collect(), unsearched })
    }
}

/// The namespace of a ServiceAccount that is the same instance's in another home. A namesake that somebody else has made
/// there, or that was copied there, is another.
fn former_home(names: &Names, identity: Identity<'_>, object: &Reference, live: &Live) -> Option<Namespace> {
    let home = Namespace::parse(object.namespace.as_deref()?).ok()?;
    let there = names.in_home(&home);
    let same = match there.owner(live) {
        Owner::Ours => {
            let (record, _) = AccountRecord::from_annotations(&live.annotations, &there.home());
            record.instance.as_deref() == Some(identity.instance)
        }
        Owner::Original => helm_release::is_marked(live, identity.tags),
        Owner::Foreign(_) => false,
    };
    (same && home != *names.namespace()).then_some(home)
}

/// What is around the places: namespaces, what the parent may do in each scope, and the ClusterRoles that others keep.
struct Surroundings {
    reviews: Vec<(Scope, Result<Review, ApiError>)>,
    namespaces: Vec<(Namespace, Result<Presence, ApiError>)>,
    cluster_roles: Vec<(ClusterRoleName, Result<Option<FetchedObject>, ApiError>)>,
}

impl Surroundings {
    async fn look<'a>(
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
            .filter_map(|place| match &place.authority {
                Authority::ClusterRole(name) => Some(name),
                Authority::Rules => None,
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
        rights: &mut Rights,
        too_old: &mut Option<ApiError>,
    ) -> Result<Vec<Tuple>, ApiError> {
        for (scope, review) in self.reviews {
            let review = match review {
                Err(error) if matches!(error.kind, ApiErrorKind::ReviewUnsupported(_)) => {
                    too_old.get_or_insert(error);
                    Review::default()
                }
                other => allowed_to_ask(other)?,
            };
            rights.add(scope, review);
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

/// The Secrets of the original bundle's release, if it is one of this instance.
async fn release(
    cluster: &Cluster<'_>,
    names: &Names,
    evident: bool,
    thinkable: bool,
    parent: Option<&Token>,
) -> Result<Release, ApiError> {
    if !(evident || thinkable) || !helm_release::can_be_release(names.instance()) {
        return Ok(Release::default());
    }
    let revisions = cluster.revisions(names.namespace(), names.instance()).await?;
    // The newest one tells of which chart the release is now: v10 comes before v9 in a list.
    let mut numbered: Vec<_> = revisions.iter().map(|(secret, _)| secret).collect();
    numbered.sort_by_key(|secret| std::cmp::Reverse(helm_release::revision(&secret.name, names.instance())));
    let told = join_all(numbered.into_iter().map(|secret| cluster.revision(secret, parent))).await;
    let ours = match told.first() {
        Some(Ok(Some(newest))) => evident || newest.chart == helm_release::CHART,
        Some(Err(error)) if !error.is_denied() => return Err(error.clone()),
        _ => evident,
    };
    if !ours {
        return Ok(Release::default());
    }
    let exposes = told.iter().any(|told| !matches!(told, Ok(Some(told)) if !told.exposes));
    Ok(Release { revisions, exposes })
}

/// The original bundle's release.
#[derive(Default)]
struct Release {
    /// Its Secrets.
    revisions: Vec<(Reference, Live)>,
    /// Whether the parent credential stands in one of them, as far as they can be read.
    exposes: bool,
}

async fn look_at(cluster: &Cluster<'_>, names: &Names, place: &Place) -> Result<(Place, Found), ApiError> {
    let (role, binding) = (names.role(&place.scope), names.binding(place));
    let role = async { if place.has_role() { cluster.get(&role).await } else { Ok(None) } };
    let (role, binding) = tokio::join!(role, cluster.get(&binding));
    let mut denied = Vec::new();
    let mut live = |seen| tolerate(seen, &mut denied).map(|seen| seen.map(|seen: FetchedObject| seen.live));
    let (role, binding): (Option<Live>, Option<Live>) = (live(role)?, live(binding)?);
    Ok((place.clone(), Found { role, binding, denied }))
}

/// Reads the slots that may have a Secret, in ascending order; the first one was read already.
async fn read_slots(
    cluster: &Cluster<'_>,
    names: &Names,
    recorded: SlotNumbers,
    first: Result<Option<FetchedObject>, ApiError>,
) -> Vec<(u32, Result<Option<FetchedObject>, ApiError>)> {
    let others = TokenSlots::numbers_to_read(recorded).into_iter().filter(|number| *number > 1);
    let others = others.map(async |number| (number, cluster.get(&names.token_secret(number)).await));
    [(1, first)].into_iter().chain(join_all(others).await).collect()
}

/// Who may not ask what they may do is told by each denial.
fn allowed_to_ask(review: Result<Review, ApiError>) -> Result<Review, ApiError> {
    match review {
        Err(error) if error.is_denied() => Ok(Review::default()),
        other => other,
    }
}

/// Sets a denial aside and goes on.
fn tolerate<T>(result: Result<Option<T>, ApiError>, denied: &mut Vec<Tuple>) -> Result<Option<T>, ApiError> {
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
