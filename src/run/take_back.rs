//! decommission: the cluster and the platform at once, each whatever the other says; then the proof that the token is
//! dead. The namespace stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use super::{Run, compare::gone, copies, former, look::Sight, rights, take_over};
use crate::{
    backoff::RetryContext,
    budget::Budget,
    claims::Claims,
    cluster::{ApiError, ApiErrorKind, Cluster, authorizer_says},
    connection::Login,
    denial::{denied, needed, summary},
    error::{Code, Failure},
    finding::{self, Finding, Severity},
    name::Namespace,
    names::Names,
    object::{Kind, Live, Reference},
    observed::Presence,
    ownership::Owner,
    plan::{Action, Change},
    publish::{self, Publisher},
    rbac::Tuple,
    report::Report,
    request::{Platform, Request},
    secret::Token,
};

/// How long a deleted token may still work: the API server remembers a successful login for 10 s, without a flag to
/// change that. The rest is for a slow answer.
const MEMORY: Duration = Duration::from_secs(20);
/// Before the first question. An API server that has not heard of the deletion yet would log the token in once more,
/// and then remember that for 10 s.
const HEARSAY: Duration = Duration::from_millis(50);

/// Between the first two questions; then twice as long, up to a second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Takes the credential back; false when nothing of it was left.
///
/// # Errors
/// What could not be finished, the cluster's side first. The other side is finished all the same.
pub async fn decommission(
    request: &Request,
    platform: Option<&Platform>,
    budget: Budget,
    report: &Report,
) -> Result<bool, Failure> {
    let context = RetryContext { budget: budget.clone(), observer: report };
    let cluster = cluster_side(request, platform.is_some(), budget, report);
    let (cluster, platform) = tokio::join!(cluster, platform_side(platform, context, report));
    match (cluster, platform) {
        (Err(failure), Err(other)) => {
            let text = format!("the platform's record is not deleted either: {}", other.cause);
            report.finding(Finding::remark(finding::Code::PlatformRecord, text));
            Err(failure)
        }
        (Err(failure), Ok(_)) => Err(failure),
        (Ok(deleted), platform) => match platform {
            Ok(retracted) => Ok(deleted || retracted),
            Err(failure) => {
                let there = if failure.unsettled { "may still be there" } else { "is still there" };
                Err(failure.state(format!("the cluster is clean; the platform's record {there}")))
            }
        },
    }
}

async fn platform_side(
    platform: Option<&Platform>,
    context: RetryContext<'_>,
    report: &Report,
) -> Result<bool, Failure> {
    let Some(platform) = platform else { return Ok(false) };
    platform.clear_text().into_iter().for_each(|finding| report.finding(finding));
    let started = Instant::now();
    let publisher = Publisher::connect(platform, context.within(publish::TIME), None).await?;
    let found = publisher.retract().await?;
    let what = if found { "record deleted" } else { "no record left" };
    report.step("platform", &format!("{what} at {}", platform.address()), Some(started.elapsed()));
    Ok(found)
}

async fn cluster_side(request: &Request, is_published: bool, budget: Budget, report: &Report) -> Result<bool, Failure> {
    let run = &Run::connect(request, budget, report).await?;
    let cluster = &run.session.cluster;
    let (sight, swept) =
        tokio::join!(run.look(cluster, false, cluster.version()), sweep(cluster, &request.instance.namespace));
    let sight = sight?;
    let (former, unseen) = match former::look(run, cluster, &sight).await {
        Ok(former) => (former, None),
        Err(failure) => (Vec::new(), Some(failure)), // what is at home goes all the same
    };
    let unsearched: Vec<Tuple> = sight.unsearched.iter().chain(&swept.unsearched).cloned().collect();
    if !unsearched.is_empty() {
        let text = format!(
            "not searched for what the ServiceAccount may have forgotten: the parent credential lacks {}",
            summary(&unsearched)
        );
        run.report.finding(Finding::remark(finding::Code::NotSearched, text));
    }
    for remark in gone(&sight.observed, |_| true).chain(take_over::exposure(request, &request.instance.names, &sight)) {
        run.report.finding(remark);
    }
    for home in &former {
        for remark in home.remarks(request, Severity::Info, "what is left there goes, too") {
            run.report.finding(remark);
        }
    }

    let failed = swept.failed.clone().map(Failure::from).or(unseen);
    let mut outcome = Outcome { failed, ..Outcome::default() };
    let known = former.iter().map(|home| &home.sight).chain([&sight]).all(|sight| sight.inventory_is_whole);
    if !(swept.unsearched.is_empty() || known) {
        outcome.missing.extend(swept.unsearched.iter().cloned()); // nothing else finds what it does not say
    }
    let homes = former.iter().map(|home| (&home.names, &home.sight));
    let homes: Vec<_> = [(&request.instance.names, &sight)].into_iter().chain(homes).collect();
    let mut there = Vec::new();
    for (names, sight) in &homes {
        let mut left = Left::of(names, sight, &swept.found);
        for (object, whose) in std::mem::take(&mut left.foreign) {
            let text = format!("{object} is left alone: {whose}");
            run.report.finding(Finding::remark(finding::Code::ForeignObject, text).severity(Severity::Info));
        }
        outcome.missing.append(&mut left.unseen);
        outcome.missing.extend(sight.revisions_denied.iter().cloned());
        clear(run, cluster, &left, &mut outcome).await;
        there.push((sight, left.ours.into_keys().chain(left.hidden).collect::<Vec<_>>()));
    }
    Failure::all(join_all(homes.iter().map(|(names, sight)| prove_all_dead(run, names, sight, &outcome))).await)?;
    if !outcome.missing.is_empty() {
        outcome.missing.extend(there.iter().flat_map(|(sight, objects)| rights::undeletable(sight, objects)));
    }
    let account = request.instance.names.service_account();
    let gone = outcome.deleted.contains(&account) || !there.iter().any(|(_, objects)| objects.contains(&account));
    for (object, why) in &outcome.copies_left {
        run.report.finding(copies::left(&request.instance.names, object, why, gone));
    }
    let copied = !outcome.copies_left.is_empty();
    let found = outcome.judge(request)?;
    if !(found || copied || is_published) {
        run.report.finding(nothing_found(request, &sight));
    }
    Ok(found)
}

/// A decommission by hand that found nothing: a repeat, or a name that was mistyped. The platform knows what it has
/// deployed: there it is a repeat.
fn nothing_found(request: &Request, sight: &Sight) -> Finding {
    let (home, connection) = (&request.instance.namespace, &request.connection);
    let context = connection.context.as_ref().map(|context| format!(" (context {context})")).unwrap_or_default();
    let namespace = match sight.observed.presence(home) {
        Presence::Absent => ", and the namespace is not there either",
        Presence::Active | Presence::Terminating | Presence::Unknown => "",
    };
    let text = format!(
        "no object of the instance {} is in namespace {home}, or known elsewhere, on {}{context}{namespace}",
        request.instance.name,
        connection.server.as_str()
    );
    Finding::remark(finding::Code::NothingFound, text)
        .help("if it was not decommissioned before, check the name, the namespace and the cluster")
}

/// What became of the objects of an instance.
#[derive(Default)]
pub struct Outcome {
    /// Those that were there and whose deletion is asked for now.
    deleted: Vec<Reference>,
    /// Those of them that finalizers hold.
    pub held: Vec<Failure>,
    /// What the parent lacks.
    pub missing: Vec<Tuple>,
    /// What an authorizer says of that.
    reasons: BTreeSet<String>,
    /// Why else something is still there.
    pub failed: Option<Failure>,
    /// Copies that others have made of our objects and that stay, each with the reason.
    copies_left: Vec<(Reference, String)>,
}

impl Outcome {
    /// True when nothing of ours is left.
    const fn is_complete(&self) -> bool {
        self.held.is_empty() && self.missing.is_empty() && self.failed.is_none()
    }

    /// True when there was something, and nothing of it is left.
    fn judge(mut self, request: &Request) -> Result<bool, Failure> {
        let account = request.instance.names.service_account();
        if let Some(failure) = self.failed {
            return Err(Failure { missing: self.missing, ..failure });
        }
        if !self.missing.is_empty() {
            self.missing.sort();
            self.missing.dedup();
            let mut failure = denied("deleting the objects", self.missing).next(format!(
                "have the listed permissions granted to the parent credential, then run again; {account}, if it is \
                 there, stays until then, because it remembers the places: where one is gone for good, delete it by hand"
            ));
            for reason in self.reasons {
                failure.cause = format!("{}; {reason}", failure.cause);
            }
            return Err(failure);
        }
        let findings = self.held.iter().map(|failure| {
            let object = failure.object.as_deref().unwrap_or_default();
            let text = format!("{object}: {}", failure.cause);
            Finding::remark(finding::Code::BeingDeleted, text)
        });
        let findings = findings.collect();
        match self.held.into_iter().next() {
            Some(failure) => Err(Failure { findings, ..failure }.state(
                "all that can go is gone, and no token is left; a repeat finishes when nothing is held any more",
            )),
            None => Ok(!self.deleted.is_empty()),
        }
    }
}

/// Deletes what is ours: bindings first, because that cuts access within milliseconds, while a deleted Secret counts
/// after up to 10 s. The ServiceAccount last, and only when all else is gone: it remembers the number of the newest
/// Secret, and every place. Whatever fails, the rest goes.
pub async fn clear(run: &Run<'_>, cluster: &Cluster<'_>, left: &Left, outcome: &mut Outcome) {
    for stage in [
        &[Kind::RoleBinding, Kind::ClusterRoleBinding][..],
        &[Kind::Secret],
        &[Kind::Role, Kind::ClusterRole],
        &[Kind::ServiceAccount],
    ] {
        if stage == [Kind::ServiceAccount] && !outcome.is_complete() {
            break; // what is left is found through it
        }
        let objects = left.ours.iter().chain(&left.copies).filter(|(object, _)| stage.contains(&object.kind));
        let answers = join_all(objects.map(async |(object, live)| {
            let started = Instant::now();
            let answer = cluster.delete(object, live).await;
            if answer.as_ref().err().is_none_or(is_held) {
                // Asking again for what was asked for already is no change.
                if live.deleting.is_none() {
                    run.report.wrote(Action::Delete, object);
                    run.report.change(&Change::delete(object.clone()), Some(started.elapsed()));
                }
            }
            (object.clone(), answer)
        }));
        for (object, answer) in answers.await {
            match answer {
                Ok(()) => outcome.deleted.push(object),
                Err(error) if left.copies.contains_key(&object) && is_kept_by_others(&error) => {
                    outcome.copies_left.push((object, Failure::from(error).cause));
                }
                Err(error) if is_held(&error) => {
                    outcome.deleted.push(object);
                    outcome.held.push(error.into());
                }
                Err(ApiError { kind: ApiErrorKind::Denied { mut missing, reason }, .. }) => {
                    outcome.missing.append(&mut missing);
                    if !reason.is_empty() {
                        outcome.reasons.insert(authorizer_says(&reason));
                    }
                }
                Err(error) => drop(outcome.failed.get_or_insert(error.into())),
            }
        }
    }
}

/// True where the copy of an object stays because others want it to: it is theirs to delete.
const fn is_kept_by_others(error: &ApiError) -> bool {
    is_held(error) || error.is_conflict() || error.is_denied() || error.is_refused()
}

/// Whether finalizers delay a deletion.
const fn is_held(error: &ApiError) -> bool {
    matches!(error.kind, ApiErrorKind::HeldByFinalizers(_))
}

/// Proves that the tokens of an instance are dead, as far as their Secrets are deleted now. A token of somebody else that
/// was put into one is none of ours: it is not used, not even to see whether it is alive.
///
/// # Errors
/// One that lives, or that could not be asked about.
pub async fn prove_all_dead(run: &Run<'_>, names: &Names, sight: &Sight, outcome: &Outcome) -> Result<(), Failure> {
    let is_own = |token: &&Token| {
        Claims::of(token).is_some_and(|claims| claims.is_of(names.namespace().as_str(), names.object()))
    };
    for slot in sight.observed.slots.iter() {
        if let Some(token) = slot.token.as_ref().filter(is_own)
            && outcome.deleted.contains(&names.token_secret(slot.number))
        {
            prove_dead(run, token).await.map_err(|failure| {
                failure
                    .state("its Secret is deleted; whether the token is dead is not proved, and a repeat cannot ask")
                    .next("use the old token by hand: it must be answered by 401")
            })?;
        }
    }
    Ok(())
}

/// What a search by label finds, of whatever instance, and what could not be searched.
#[derive(Default)]
struct Swept {
    found: Vec<(Reference, Live)>,
    /// What the parent lacks to search everywhere.
    unsearched: Vec<Tuple>,
    /// Why else a search failed: what is known goes all the same.
    failed: Option<ApiError>,
}

impl Swept {
    /// Takes an answer; true when it was a denial.
    fn take(&mut self, answer: Result<Vec<(Reference, Live)>, ApiError>) -> bool {
        match answer {
            Ok(found) => self.found.extend(found),
            Err(ApiError { kind: ApiErrorKind::Denied { mut missing, .. }, .. }) => {
                self.unsearched.append(&mut missing);
                return true;
            }
            Err(error) => drop(self.failed.get_or_insert(error)),
        }
        false
    }
}

/// Searches the whole cluster for what carries our label, as far as the parent credential may list; where it may not,
/// the home namespace.
async fn sweep(cluster: &Cluster<'_>, home: &Namespace) -> Swept {
    let everywhere =
        [Kind::RoleBinding, Kind::Role, Kind::ClusterRoleBinding, Kind::ClusterRole].map(|kind| (kind, None));
    let lists = everywhere.into_iter().chain([(Kind::Secret, Some(home))]);
    let answers = join_all(lists.map(async |(kind, namespace)| (kind, cluster.list(kind, namespace).await)));
    let (mut swept, mut again) = (Swept::default(), Vec::new());
    for (kind, answer) in answers.await {
        let denied = swept.take(answer);
        again.extend((denied && matches!(kind, Kind::RoleBinding | Kind::Role)).then_some(kind));
    }
    for answer in join_all(again.into_iter().map(|kind| cluster.list(kind, Some(home)))).await {
        swept.take(answer);
    }
    swept
}

/// What has to go, and what stands in the way.
#[derive(Default)]
pub struct Left {
    /// The objects of the instance.
    pub ours: BTreeMap<Reference, Live>,
    /// Copies that others have made of them.
    copies: BTreeMap<Reference, Live>,
    /// At one of our places, and somebody else's.
    foreign: Vec<(Reference, String)>,
    /// What may be there, and may not be looked at.
    hidden: Vec<Reference>,
    /// What the parent lacks to look at those.
    pub unseen: Vec<Tuple>,
}

impl Left {
    /// What is ours, but for that whose deletion was asked for before.
    pub fn not_yet_deleted(&self) -> impl Iterator<Item = &Reference> {
        self.ours.iter().filter(|(_, live)| live.deleting.is_none()).map(|(object, _)| object)
    }

    /// Everything that is left of the instance of these names: what the look has seen, and what the search has found.
    pub fn of(names: &Names, sight: &Sight, found: &[(Reference, Live)]) -> Self {
        let observed = &sight.observed;
        let mut left = Self::default();
        let secrets = observed.slots.iter().map(|slot| (names.token_secret(slot.number), Some(&slot.live)));
        let newest = names.token_secret(observed.slots.newest());
        let hidden = observed.slots.current().is_none().then(|| (newest.clone(), None));
        let account = (names.service_account(), observed.service_account.as_ref());
        let mut objects: Vec<_> = secrets.chain(hidden).chain([account]).collect();
        let home = names.home();
        for (place, found) in &observed.places {
            objects.push((names.binding(place), found.binding.as_ref()));
            if place.has_role() {
                objects.push((names.role(&place.scope), found.role.as_ref()));
            }
            // Nothing was ever made at a place that only the params name. Without the ServiceAccount nobody knows.
            let lost = observed.service_account.is_none() && *place == home;
            if lost || observed.record.inventory.contains(place) {
                left.unseen.extend(found.denied.iter().cloned());
            }
        }
        let identity = [names.service_account(), newest];
        let unseen = identity.iter().map(|object| needed("get", object));
        left.unseen.extend(unseen.filter(|tuple| sight.denied.contains(tuple)));
        // The original bundle's Secret names no chart, so it is its ServiceAccount that tells.
        let account = observed.service_account.as_ref().map(|live| names.owner(live));
        let owner = |live: &Live| match (names.owner(live), &account) {
            (Owner::Original, Some(Owner::Foreign(whose))) => Owner::Foreign(whose.clone()),
            (owner, _) => owner,
        };
        for (object, live) in objects {
            match live.map(|live| (live, owner(live))) {
                Some((live, Owner::Ours | Owner::Original)) => drop(left.ours.insert(object, live.clone())),
                Some((_, Owner::Foreign(whose))) => left.foreign.push((object, whose)),
                None if left.unseen.contains(&needed("get", &object)) => left.hidden.push(object),
                None => {}
            }
        }
        left.ours.extend(observed.revisions.iter().cloned());
        for (object, live) in found {
            if names.owner(live) == Owner::Ours && !left.ours.contains_key(object) {
                let others = copies::is_copy(names, object, live);
                let list = if others { &mut left.copies } else { &mut left.ours };
                list.insert(object.clone(), live.clone());
            }
        }
        left
    }
}

/// Uses the token until the server refuses it.
async fn prove_dead(run: &Run<'_>, token: &Token) -> Result<(), Failure> {
    const DOING: &str = "proving that the token is dead";

    let started = Instant::now();
    let _waiting = run.report.waiting("waiting for the token to die");
    tokio::time::sleep(HEARSAY).await;
    let cluster = run.session.connect_as(&Login::Token(token.clone())).await?;
    let limit = run.session.budget.at_most(MEMORY);
    let (mut pause, mut accepted) = (FIRST_PAUSE, false);
    loop {
        // An old server, or a gateway, may not know the question: then any other tells a dead token by 401.
        let answer = match cluster.identity().await {
            Err(error) if error.is_denied() || matches!(error.kind, ApiErrorKind::ReviewUnsupported(_)) => {
                cluster.version().await.map(drop)
            }
            answer => answer.map(drop),
        };
        accepted |= answer.is_ok();
        match answer {
            Err(error) if error.is_unauthorized() => break,
            // The last question may be cut short by the end of the run.
            Err(error) if !error.is_timeout() || !accepted || started.elapsed() < limit => {
                return Err(error.into());
            }
            Ok(()) | Err(_) if started.elapsed() >= limit => {
                let cause = format!("the server still accepts it after {} s", started.elapsed().as_secs());
                return Err(Failure::new(Code::TokenStillAccepted, DOING, cause));
            }
            Ok(()) | Err(_) => {
                if pause == FIRST_PAUSE {
                    run.report.step("wait", "the server remembers tokens in use for up to 10 s", None);
                }
                tokio::time::sleep(pause.min(limit.saturating_sub(started.elapsed()))).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
    run.report.step("prove", "the token is refused with 401", Some(started.elapsed()));
    Ok(())
}
