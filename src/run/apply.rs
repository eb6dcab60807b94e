//! From what is there to what is wanted, so that at no moment a right is missing that stays, and none is there that
//! nobody asked for: first everything that widens; then, when the new state is proved, everything that shrinks.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use crate::{
    cluster::{ApiError, ApiErrorKind, Cluster},
    diagnostics::{
        error::{Code, Failure},
        finding::{self, Finding},
    },
    k8s::{
        denial::{denied, lacks, needed},
        grant::{Place, Scope},
        inventory::Inventory,
        name::Namespace,
        object::{Live, Manifest, Reference},
        record::AccountRecord,
    },
    plan::{
        adoption::release_left,
        desired::{self, Desired, Granted},
        diff::{Action, Change, Plan, change, going},
        observed::Presence,
        preflight::{not_cleared, trials},
        snapshot::Sight,
    },
    rbac::{Widening, widening},
    run::{
        Run,
        plan::{disowned, tried},
    },
};

/// What is worked on.
pub struct Converge<'a> {
    /// The run.
    pub run: &'a Run<'a>,
    /// The cluster, as the parent credential.
    pub cluster: &'a Cluster<'a>,
    /// What was there.
    pub sight: &'a Sight,
    /// What is wanted.
    pub desired: &'a Desired,
    /// What differs.
    pub plan: &'a Plan,
}

/// What is there when all that widens is done.
pub struct Widened<'a> {
    /// The ServiceAccount.
    pub service_account: Live,
    /// The places that it remembers.
    inventory: Inventory,
    /// The Roles that still have to shrink, as they are now.
    shrinking: Vec<(&'a Manifest, Live)>,
}

/// How far a Role has come.
enum Step<'a> {
    /// It is as it should be.
    Done,
    /// It has all that is wanted, and something that is not.
    Shrinks(&'a Manifest, Box<Live>),
    /// It cannot have both: the parent credential may grant what is wanted, and not what is there.
    AtOnce(&'a Manifest, &'a Live),
}

/// Why an apply has no result.
enum ApplyError {
    /// The request failed.
    Api(ApiError),
    /// An admission policy removed what identifies the object as one of this instance.
    Disowned(Failure),
}

impl From<ApiError> for ApplyError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// Whether the union of old and new rules is what the server refuses.
const fn is_too_much(error: &ApiError) -> bool {
    error.is_refused() || matches!(error.kind, ApiErrorKind::NotGrantable(_))
}

impl<'a> Converge<'a> {
    /// Has the server try what would otherwise be found out half-way: whether a namespace is there that the parent
    /// may not look at, and whether the parent may do what it cannot list.
    ///
    /// # Errors
    /// What stands in the way; nothing was changed.
    pub async fn preflight(&self) -> Result<(), Failure> {
        let home = Scope::Namespace(self.run.request.instance.namespace.clone());
        let mut trials = trials(self.sight, self.desired, self.plan);
        trials.retain(|trial| self.is_uncertain(trial.place.map_or(&home, |place| &place.scope)));
        tried(self.run, self.cluster, self.sight, trials).await.map(drop)
    }

    fn is_uncertain(&self, scope: &Scope) -> bool {
        let presence = |namespace: &Namespace| self.sight.observed.presence(namespace);
        let told = self.sight.rights.complete(scope);
        match scope {
            // Whoever may not look at the home namespace finds out with the first write.
            Scope::Namespace(namespace) if *namespace == self.run.request.instance.namespace => {
                !told && presence(namespace) != Presence::Absent
            }
            Scope::Namespace(namespace) => !told || presence(namespace) == Presence::Unknown,
            Scope::Cluster => !told,
        }
    }

    /// Makes what is missing and widens what is too narrow. Each place is written down before anything is made there.
    ///
    /// The ServiceAccount comes before the Secret, because it remembers the Secret's number, and because the token
    /// controller deletes the Secret of a ServiceAccount that is not there; each Role comes before its binding,
    /// because the server looks at it when it judges the binding.
    ///
    /// # Errors
    /// The first failure; a repeat goes on from there.
    pub async fn widen(&self) -> Result<Widened<'a>, Failure> {
        let replaced = |granted: &&Granted| self.action(&granted.binding) == Some(Action::Replace);
        let (replaced, others): (Vec<&'a Granted>, Vec<&'a Granted>) = self.desired.grants.iter().partition(replaced);
        let inventory = self.ahead()?;
        let home = self.run.request.instance.names.home();
        let at_home = |granted: &&Granted| granted.place == home;
        let (ours, elsewhere): (Vec<&'a Granted>, Vec<&'a Granted>) = self.desired.grants.iter().partition(at_home);
        let first = async {
            self.make_namespace().await?;
            let live = self.sight.observed.service_account.as_ref();
            let record = AccountRecord {
                inventory: inventory.clone(),
                adoption: self.desired.take_over.record_on_the_way(),
                ..self.desired.record.clone()
            };
            let last = record == self.desired.record;
            let account = self.account(&record, live, last);
            // The home Role is looked for whatever is written down, but where other places are, it is one of them.
            let known = live.is_none() || self.sight.observed.record.inventory.contains(&home);
            if known && !self.desired.take_over.under_way {
                let (account, roles) = tokio::join!(account, self.roles(&ours));
                Failure::both(account, roles)
            } else {
                Ok((account.await?, self.roles(&ours).await?))
            }
        };
        let (service_account, mut steps) = first.await?;

        // Bindings to Roles that are made in this round have to wait for the next.
        let (late, early): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|granted| granted.role.is_some() && !at_home(granted));
        let (bindings, secret, roles) = tokio::join!(
            self.bindings(&early),
            self.make(&self.desired.secret, self.sight.observed.slots.usable().map(|slot| &slot.live)),
            self.roles(&elsewhere),
        );
        let (_, more) = Failure::both(Failure::both(bindings, secret), roles)?;
        steps.extend(more);
        self.bindings(&late).await?;

        self.replace(&replaced).await?;
        let mut shrinking = Vec::new();
        for step in steps {
            match step {
                Step::Done => {}
                Step::Shrinks(manifest, live) => shrinking.push((manifest, *live)),
                // Only now that all else is there: what it loses may be granted in another way by now.
                Step::AtOnce(manifest, live) => drop(self.make(manifest, Some(live)).await?),
            }
        }
        Ok(Widened { service_account, inventory, shrinking })
    }

    /// True when there is something to take away, or to be forgotten.
    #[must_use]
    pub fn will_shrink(&self, widened: &Widened<'_>) -> bool {
        self.going().next().is_some()
            || !widened.shrinking.is_empty()
            || self.desired.take_over.under_way
            || widened.inventory != self.desired.record.inventory
    }

    /// Takes away what is not wanted any more, now that the new state is proved: bindings first, because that cuts
    /// access within milliseconds. Returns the places of earlier requests that may not be cleared: each is reported,
    /// and remembered.
    ///
    /// # Errors
    /// The first failure of another kind.
    pub async fn shrink(&self, widened: Widened<'a>) -> Result<BTreeSet<Place>, Failure> {
        let request = self.run.request;
        let (bindings, roles): (Vec<_>, Vec<_>) =
            self.going().partition(|(place, reference, _)| *reference == request.instance.names.binding(place));
        let (cleared, shrunk, release) = tokio::join!(
            join_all(bindings.iter().map(|(place, reference, live)| self.clear(place, reference, live))),
            join_all(widened.shrinking.iter().map(|(manifest, live)| self.make(manifest, Some(live)))),
            join_all(self.revisions().map(|(reference, live)| self.remove(reference, live))),
        );
        let ((mut refused, _), release) =
            Failure::both(Failure::both(Failure::all(cleared), Failure::all(shrunk)), Failure::all(release))?;
        let cleared = join_all(roles.iter().map(|(place, reference, live)| self.clear(place, reference, live)));
        refused.extend(Failure::all(cleared.await)?);

        let mut kept = BTreeSet::new();
        for (place, why) in refused.into_iter().flatten() {
            if kept.insert(place.clone()) {
                self.run.report.finding(not_cleared(&place, &why));
            }
        }
        let mut record = self.desired.record.clone();
        if let (Some(adoption), Some(why)) = (&mut record.adoption, release.into_iter().flatten().next()) {
            adoption.pending = true;
            self.run.report.finding(release_left(request, &why));
        }
        record.inventory = self.desired.record.inventory.places().chain(&kept).cloned().collect();
        let moved = record.inventory != widened.inventory || record.inventory != self.desired.record.inventory;
        if moved || self.desired.take_over.under_way {
            self.account(&record, Some(&widened.service_account), true).await?;
        }
        Ok(kept)
    }

    /// Every place where the instance may have objects during this run: those that are wanted, and those that have to be
    /// cleared and are not empty.
    fn ahead(&self) -> Result<Inventory, Failure> {
        let request = self.run.request;
        let going = self.going().map(|(place, ..)| place.clone());
        let inventory: Inventory = self.desired.record.inventory.places().cloned().chain(going).collect();
        let length = inventory.text(&request.instance.names.home()).map_or(0, |text| text.len());
        if length <= Inventory::LONGEST_ON_THE_WAY {
            return Ok(inventory);
        }
        let cause = format!(
            "the list of places, with those that are still to be removed, takes {length} bytes, and the ServiceAccount \
             has room for {}",
            Inventory::LONGEST_ON_THE_WAY
        );
        Err(Failure::new(Code::Refused, "recording the list of places", cause)
            .on(request.instance.names.service_account().to_string())
            .next("provision with a shorter list of namespaces first, then with the complete one"))
    }

    async fn make_namespace(&self) -> Result<(), Failure> {
        let namespace = &self.run.request.instance.namespace;
        if self.sight.observed.presence(namespace) == Presence::Absent {
            let started = Instant::now();
            self.cluster.create_namespace(namespace).await?;
            let reference = Reference::namespace(namespace.as_str());
            self.record(&Change { action: Action::Create, reference, fields: Vec::new() }, started.elapsed());
        }
        Ok(())
    }

    /// Writes the ServiceAccount with this record, unless it is like that. Only the last time it is a change that counts.
    async fn account(&self, record: &AccountRecord, live: Option<&Live>, last: bool) -> Result<Live, Failure> {
        let manifest = desired::service_account(self.run.request, record);
        let started = Instant::now();
        let written = match live {
            Some(live) if change(&manifest, Some(live)).action == Action::Unchanged => None,
            live => Some(self.applied(&manifest, live).await?),
        };
        let before = self.sight.observed.service_account.as_ref();
        let whole = match (before, &written) {
            (Some(before), Some(made)) => as_done(change(&manifest, Some(before)), before, made),
            _ => change(&manifest, before),
        };
        match (last, &written) {
            (true, Some(_)) => self.record(&whole, started.elapsed()),
            (true, None) => self.run.report.change(&whole, None),
            (false, Some(_)) if whole.action == Action::Unchanged => {}
            (false, Some(_)) => {
                self.note(whole.action, &manifest.reference, "(interim: records what this run will touch)");
            }
            (false, None) => {}
        }
        Ok(written.or_else(|| live.cloned()).unwrap_or_default())
    }

    /// Makes the Roles of these grants, or widens them.
    async fn roles(&self, grants: &[&'a Granted]) -> Result<Vec<Step<'a>>, Failure> {
        let steps = grants.iter().filter_map(|granted| Some((*granted, granted.role.as_ref()?)));
        Failure::all(join_all(steps.map(|(granted, role)| self.role(granted, role))).await)
    }

    async fn role(&self, granted: &'a Granted, role: &'a Manifest) -> Result<Step<'a>, Failure> {
        let request = self.run.request;
        let live = self.sight.observed.role(&granted.place);
        let (Some(live), Some(Action::Update | Action::Adopt)) = (live, self.action(role)) else {
            return self.make(role, live).await.map(|_| Step::Done);
        };
        match widening(&live.rules(), request.grants.rules(&granted.place)) {
            Widening::Whole => self.make(role, Some(live)).await.map(|_| Step::Done),
            Widening::None => Ok(Step::Shrinks(role, Box::new(live.clone()))),
            Widening::Between(rules) => {
                let between = desired::role(request, &granted.place.scope, &rules);
                match self.apply(&between, Some(live)).await {
                    Ok(live) => {
                        self.note(Action::Update, &role.reference, "(interim: old and new rules together)");
                        Ok(Step::Shrinks(role, Box::new(live)))
                    }
                    // The parent may not grant the union, or it is larger than an object may be.
                    Err(ApplyError::Api(error)) if !is_too_much(&error) => Err(self.not_applied(&between, error)),
                    Err(_) => Ok(Step::AtOnce(role, live)),
                }
            }
        }
    }

    async fn bindings(&self, grants: &[&Granted]) -> Result<(), Failure> {
        let live = |granted: &Granted| self.sight.observed.binding(&granted.place);
        let made = join_all(grants.iter().map(|granted| self.make(&granted.binding, live(granted))));
        Failure::all(made.await).map(drop)
    }

    /// Replaces bindings whose roleRef was changed by hand, by deletion and creation because it is immutable. For that
    /// moment the ServiceAccount holds neither role. The role that it held instead is no part of the request.
    async fn replace(&self, replaced: &[&Granted]) -> Result<(), Failure> {
        let replace = async |granted: &Granted| {
            let reference = &granted.binding.reference;
            let Some(live) = self.sight.observed.binding(&granted.place) else { return Ok(()) };
            let started = Instant::now();
            self.cluster.delete(reference, live).await?;
            self.note(Action::Delete, reference, "(refers to another role, and is created again)");
            self.applied(&granted.binding, None).await?;
            if let Some(planned) = self.plan.change(reference) {
                self.record(planned, started.elapsed());
            }
            Ok(())
        };
        Failure::all(join_all(replaced.iter().map(|granted| replace(granted))).await).map(drop)
    }

    /// Brings one object to what is wanted.
    async fn make(&self, manifest: &Manifest, live: Option<&Live>) -> Result<Live, Failure> {
        let planned = self.plan.change(&manifest.reference).cloned().unwrap_or_else(|| change(manifest, live));
        if let (Action::Unchanged, Some(live)) = (planned.action, live) {
            self.run.report.change(&planned, None);
            return Ok(live.clone());
        }
        let started = Instant::now();
        let made = self.applied(manifest, live).await?;
        let done = match live {
            Some(live) => as_done(planned, live, &made),
            None => planned,
        };
        self.record(&done, started.elapsed());
        Ok(made)
    }

    /// Applies, and says so where the server keeps something else than it was given.
    async fn apply(&self, manifest: &Manifest, live: Option<&Live>) -> Result<Live, ApplyError> {
        let made = self.cluster.apply(manifest, live).await?;
        if !self.run.request.instance.owns(&made) {
            if live.is_none() {
                self.cluster.delete(&manifest.reference, &made).await?; // the uid says that it is this one
            }
            return Err(ApplyError::Disowned(disowned("applying", manifest, &made)));
        }
        let kept = change(manifest, Some(&made));
        if kept.action != Action::Unchanged {
            let fields = kept.fields.join(" ");
            let text = format!("{}: an admission policy changes {fields}", kept.reference);
            self.run.report.finding_once(
                Finding::remark(finding::Code::Overwritten, text)
                    .help("the policy's version is kept; exempt the object in the policy if that is not intended"),
            );
        }
        Ok(made)
    }

    async fn applied(&self, manifest: &Manifest, live: Option<&Live>) -> Result<Live, Failure> {
        self.apply(manifest, live).await.map_err(|error| match error {
            ApplyError::Api(error) => self.not_applied(manifest, error),
            ApplyError::Disowned(failure) => failure,
        })
    }

    fn going(&self) -> impl Iterator<Item = (&'a Place, Reference, &'a Live)> {
        going(self.run.request, self.desired, &self.sight.observed)
    }

    fn action(&self, manifest: &Manifest) -> Option<Action> {
        self.plan.change(&manifest.reference).map(|change| change.action)
    }

    fn record(&self, change: &Change, took: Duration) {
        if change.action != Action::Unchanged {
            self.run.report.wrote(change.action, &change.reference);
        }
        self.run.report.change(change, Some(took));
    }

    /// A write on the way, which the outcome does not show.
    fn note(&self, action: Action, reference: &Reference, how: &str) {
        self.run.report.wrote(action, reference);
        self.run.report.step(action.as_str(), &format!("{reference} {how}"), None);
    }

    /// The failure of an apply. A parent that may not get the home namespace finds out that it is absent with the first
    /// write there: the ServiceAccount, or the Role beside it.
    fn not_applied(&self, manifest: &Manifest, error: ApiError) -> Failure {
        let instance = &self.run.request.instance;
        let role = instance.names.role(&instance.names.home().scope);
        // Beside a ServiceAccount that is created, its failure speaks for both.
        let is_first = manifest.reference == instance.names.service_account()
            || (manifest.reference == role && self.sight.observed.service_account.is_some());
        if !(is_first && matches!(error.kind, ApiErrorKind::NamespaceAbsent)) {
            return error.into();
        }
        let failure = Failure::from(error);
        let namespace = &instance.namespace;
        if self.sight.observed.presence(namespace) != Presence::Unknown {
            return failure.next("find out what deletes the namespace, then run again");
        }
        let home = Reference::namespace(namespace.as_str());
        let lacking = denied(&failure.doing, vec![needed("get", &home), needed("create", &home)]);
        let cause = format!("the namespace does not exist, and {}", lacking.cause);
        Failure { cause, object: failure.object, ..lacking }
    }

    /// The Secrets of Helm that go.
    fn revisions(&self) -> impl Iterator<Item = &'a (Reference, Live)> {
        let going = &self.desired.take_over.revisions;
        self.sight.observed.revisions.iter().filter(|(reference, _)| going.contains(reference))
    }

    /// Deletes an object of an earlier request; its place and the reason when that is not to be.
    async fn clear(
        &self,
        place: &Place,
        reference: &Reference,
        live: &Live,
    ) -> Result<Option<(Place, String)>, Failure> {
        Ok(self.remove(reference, live).await?.map(|why| (place.clone(), why)))
    }

    /// Deletes an object that stands in nobody's way; the reason when that is not to be.
    async fn remove(&self, reference: &Reference, live: &Live) -> Result<Option<String>, Failure> {
        let started = Instant::now();
        match self.cluster.delete(reference, live).await {
            Ok(()) => {
                self.record(&Change::delete(reference.clone()), started.elapsed());
                Ok(None)
            }
            Err(ApiError { kind: ApiErrorKind::Denied { missing, .. }, .. }) => Ok(Some(lacks(&missing))),
            // An admission policy protects it, or a finalizer delays its deletion.
            Err(error) if error.is_refused() || matches!(error.kind, ApiErrorKind::HeldByFinalizers(_)) => {
                Ok(Some(Failure::from(error).cause))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What a change has come to: nothing, where an admission policy has undone it and the server has stored nothing.
fn as_done(change: Change, before: &Live, made: &Live) -> Change {
    if (&before.uid, &before.resource_version) == (&made.uid, &made.resource_version) {
        return Change { action: Action::Unchanged, fields: Vec::new(), ..change };
    }
    change
}
