//! The writes of a provision: runs the waves of `plan/waves.rs`, one after the other, and all writes of a wave at the
//! same time.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use crate::{
    cluster::{ApiError, ApiErrorKind},
    diagnostics::{
        error::Failure,
        finding::{self, Finding},
    },
    k8s::{
        denial::{denied, lacks, needed},
        grant::{Place, Scope},
        name::Namespace,
        object::{Live, Manifest, Reference},
        record::AccountRecord,
    },
    plan::{
        adoption::decision::release_left,
        desired::{self, Desired},
        diff::{Change, ChangeKind, Plan, change, to_delete},
        observed::Presence,
        preflight::{dry_runs, not_cleared},
        snapshot::Snapshot,
        waves::{self, BeforeProof, Narrowing, Wave, Write},
    },
    run::{
        Run,
        plan::{dry_run_all, ownership_lost},
    },
};

/// The change from the observed to the desired state.
pub(crate) struct Apply<'a> {
    /// The run.
    pub(crate) run: &'a Run<'a>,
    /// The observed state.
    pub(crate) snapshot: &'a Snapshot,
    /// The desired state.
    pub(crate) desired: &'a Desired,
    /// The difference.
    pub(crate) plan: &'a Plan,
}

/// The state before the test: everything desired is granted. Removals are still to come, except of replaced bindings, and in
/// Roles whose union of rules was refused.
pub(crate) struct Widened<'a> {
    /// The ServiceAccount.
    pub(crate) service_account: Live,
    /// Its record.
    record: AccountRecord,
    /// The Roles that are narrowed after the proof.
    narrowings: Vec<Narrowing<'a>>,
}

/// The result of a write.
enum Written<'a> {
    /// The object is as desired, or deleted.
    Done,
    /// The ServiceAccount.
    Account(Live),
    /// The Role has old and new rules.
    Widened(Narrowing<'a>),
    /// The API server does not accept old and new rules together.
    UnionRefused(&'a Manifest, &'a Live),
    /// The object could not be deleted: its place (none for a Secret of Helm), and the reason.
    Kept(Option<&'a Place>, String),
}

/// Why an apply has no result.
enum ApplyError {
    /// The request failed.
    Api(ApiError),
    /// An admission policy removed what identifies the object as one of this instance.
    OwnershipLost(Failure),
}

impl From<ApiError> for ApplyError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// Whether the union of old and new rules is what the server refuses: the parent may not grant it, or the object is too
/// large.
const fn is_union_refused(error: &ApiError) -> bool {
    error.is_refused() || matches!(error.kind, ApiErrorKind::NotGrantable(_))
}

impl<'a> Apply<'a> {
    /// Dry-runs the changes that could otherwise fail half-way: in a namespace that the parent may not read, or where its
    /// permissions cannot be listed.
    ///
    /// # Errors
    /// What prevents a change; nothing was changed.
    pub(crate) async fn preflight(&self) -> Result<(), Failure> {
        let home = Scope::Namespace(self.run.request.instance.namespace.clone());
        let mut dry_runs = dry_runs(self.snapshot, self.desired, self.plan);
        dry_runs.retain(|dry_run| self.is_uncertain(dry_run.place.map_or(&home, |place| &place.scope)));
        dry_run_all(self.run, self.snapshot, dry_runs).await.map(drop)
    }

    fn is_uncertain(&self, scope: &Scope) -> bool {
        let presence = |namespace: &Namespace| self.snapshot.observed.presence(namespace);
        let is_exhaustive = self.snapshot.parent_access.is_exhaustive(scope);
        match scope {
            // In a home namespace that the parent may not read, the first write shows whether it exists.
            Scope::Namespace(namespace) if *namespace == self.run.request.instance.namespace => {
                !is_exhaustive && presence(namespace) != Presence::Absent
            }
            Scope::Namespace(namespace) => !is_exhaustive || presence(namespace) == Presence::Unknown,
            Scope::Cluster => !is_exhaustive,
        }
    }

    /// Runs the waves before the proof.
    ///
    /// # Errors
    /// The first failure; running again continues from there.
    pub(crate) async fn widen(&self) -> Result<Widened<'a>, Failure> {
        let (request, observed) = (self.run.request, &self.snapshot.observed);
        let record = waves::record_ahead(request, self.desired, observed)?;
        let mut service_account = Live::default();
        let BeforeProof { waves, mut narrowings } =
            waves::before_proof(request, self.snapshot, self.desired, self.plan);
        let mut refused_unions = Wave::new();
        for wave in waves {
            for written in self.write_all(wave, &record).await? {
                match written {
                    Written::Account(live) => service_account = live,
                    Written::Widened(narrowing) => narrowings.push(narrowing),
                    Written::UnionRefused(role, live) => refused_unions.push(Write::Apply(role, Some(live))),
                    Written::Done | Written::Kept(..) => {}
                }
            }
        }
        // Last, because what such a Role loses may be granted by another binding now.
        self.write_all(refused_unions, &record).await?;
        Ok(Widened { service_account, record, narrowings })
    }

    /// True when there is something to delete, to narrow, or to remove from the record.
    pub(crate) fn will_shrink(&self, widened: &Widened<'_>) -> bool {
        to_delete(self.run.request, self.desired, &self.snapshot.observed).next().is_some()
            || !widened.narrowings.is_empty()
            || self.desired.adoption.under_way
            || widened.record.inventory != self.desired.record.inventory
    }

    /// Runs the waves after the proof. Returns the places of earlier requests that cannot be cleared: each is reported,
    /// and stays in the record.
    ///
    /// # Errors
    /// The first failure of another kind.
    pub(crate) async fn shrink(&self, widened: Widened<'a>) -> Result<BTreeSet<Place>, Failure> {
        let request = self.run.request;
        let mut kept = BTreeSet::new();
        let mut revision_error: Option<String> = None;
        for wave in waves::after_proof(request, self.snapshot, self.desired, widened.narrowings) {
            for written in self.write_all(wave, &widened.record).await? {
                match written {
                    Written::Kept(Some(place), why) => {
                        if kept.insert(place.clone()) {
                            self.run.report.finding(not_cleared(place, &why));
                        }
                    }
                    Written::Kept(None, why) => drop(revision_error.get_or_insert(why)),
                    Written::Done | Written::Account(_) | Written::Widened(_) | Written::UnionRefused(..) => {}
                }
            }
        }

        let mut record = self.desired.record.clone();
        if let (Some(adoption), Some(why)) = (&mut record.adoption, revision_error) {
            adoption.pending = true;
            self.run.report.finding(release_left(request, &why));
        }
        record.inventory = self.desired.record.inventory.places().chain(&kept).cloned().collect();
        let inventory_changed =
            record.inventory != widened.record.inventory || record.inventory != self.desired.record.inventory;
        if inventory_changed || self.desired.adoption.under_way {
            self.account(&record, Some(&widened.service_account), true).await?;
        }
        Ok(kept)
    }

    /// Sends all writes of a wave at the same time.
    async fn write_all(&self, wave: Wave<'a>, record: &AccountRecord) -> Result<Vec<Written<'a>>, Failure> {
        Failure::all(join_all(wave.into_iter().map(|write| self.write(write, record))).await)
    }

    async fn write(&self, write: Write<'a>, record: &AccountRecord) -> Result<Written<'a>, Failure> {
        match write {
            Write::CreateNamespace(namespace) => self.create_namespace(namespace).await.map(|()| Written::Done),
            Write::Record => {
                let is_final = *record == self.desired.record;
                let live = self.snapshot.observed.service_account.as_ref();
                self.account(record, live, is_final).await.map(Written::Account)
            }
            Write::Apply(manifest, live) => self.apply_if_changed(manifest, live).await.map(|()| Written::Done),
            Write::Widen { union, role, live } => self.widen_role(&union, role, live).await,
            Write::Replace(binding, live) => self.replace(binding, live).await.map(|()| Written::Done),
            Write::Narrow(Narrowing { role, live }) => {
                self.apply_if_changed(role, Some(&live)).await.map(|()| Written::Done)
            }
            Write::Delete(place, reference, live) => self.delete(Some(place), &reference, live).await,
            Write::DeleteRevision(reference, live) => self.delete(None, reference, live).await,
        }
    }

    async fn create_namespace(&self, namespace: &Namespace) -> Result<(), Failure> {
        let started = Instant::now();
        self.run.session.cluster.create_namespace(namespace).await?;
        let reference = Reference::namespace(namespace.as_str());
        self.report_change(&Change { action: ChangeKind::Create, reference, fields: Vec::new() }, started.elapsed());
        Ok(())
    }

    /// Applies the ServiceAccount with this record, unless it has it. Only the final record is reported as a change.
    async fn account(&self, record: &AccountRecord, live: Option<&Live>, is_final: bool) -> Result<Live, Failure> {
        let manifest = desired::service_account(self.run.request, record);
        let started = Instant::now();
        let written = match live {
            Some(live) if change(&manifest, Some(live)).action == ChangeKind::Unchanged => None,
            live => Some(self.applied(&manifest, live).await?),
        };
        let before = self.snapshot.observed.service_account.as_ref();
        let whole = match (before, &written) {
            (Some(before), Some(made)) => actual_change(change(&manifest, Some(before)), before, made),
            _ => change(&manifest, before),
        };
        match (is_final, &written) {
            (true, Some(_)) => self.report_change(&whole, started.elapsed()),
            (true, None) => self.run.report.change(&whole, None),
            (false, Some(_)) if whole.action == ChangeKind::Unchanged => {}
            (false, Some(_)) => {
                self.report_interim(whole.action, &manifest.reference, "(interim: records what this run will touch)");
            }
            (false, None) => {}
        }
        Ok(written.or_else(|| live.cloned()).unwrap_or_default())
    }

    async fn widen_role(&self, union: &Manifest, role: &'a Manifest, live: &'a Live) -> Result<Written<'a>, Failure> {
        match self.apply(union, Some(live)).await {
            Ok(live) => {
                self.report_interim(ChangeKind::Update, &role.reference, "(interim: old and new rules together)");
                Ok(Written::Widened(Narrowing { role, live }))
            }
            Err(ApplyError::Api(error)) if !is_union_refused(&error) => Err(self.not_applied(union, error)),
            Err(_) => Ok(Written::UnionRefused(role, live)),
        }
    }

    /// Deletes and creates a binding, because roleRef is immutable. In between, the ServiceAccount has neither role; the
    /// earlier one was not requested.
    async fn replace(&self, binding: &Manifest, live: &Live) -> Result<(), Failure> {
        let started = Instant::now();
        self.run.session.cluster.delete(&binding.reference, live).await?;
        self.report_interim(ChangeKind::Delete, &binding.reference, "(refers to another role, and is created again)");
        self.applied(binding, None).await?;
        if let Some(planned) = self.plan.change(&binding.reference) {
            self.report_change(planned, started.elapsed());
        }
        Ok(())
    }

    /// Applies an object, unless it is as desired.
    async fn apply_if_changed(&self, manifest: &Manifest, live: Option<&Live>) -> Result<(), Failure> {
        let planned = self.plan.change(&manifest.reference).cloned().unwrap_or_else(|| change(manifest, live));
        if planned.action == ChangeKind::Unchanged && live.is_some() {
            self.run.report.change(&planned, None);
            return Ok(());
        }
        let started = Instant::now();
        let made = self.applied(manifest, live).await?;
        let done = match live {
            Some(live) => actual_change(planned, live, &made),
            None => planned,
        };
        self.report_change(&done, started.elapsed());
        Ok(())
    }

    /// Applies, and reports the fields that admission changed.
    async fn apply(&self, manifest: &Manifest, live: Option<&Live>) -> Result<Live, ApplyError> {
        let made = self.run.session.cluster.apply(manifest, live).await?;
        if !self.run.request.instance.owns(&made) {
            if live.is_none() {
                self.run.session.cluster.delete(&manifest.reference, &made).await?; // only the object just created: its uid is a precondition
            }
            return Err(ApplyError::OwnershipLost(ownership_lost("applying", manifest, &made)));
        }
        let kept = change(manifest, Some(&made));
        if kept.action != ChangeKind::Unchanged {
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
            ApplyError::OwnershipLost(failure) => failure,
        })
    }

    fn report_change(&self, change: &Change, took: Duration) {
        if change.action != ChangeKind::Unchanged {
            self.run.report.wrote(change.action, &change.reference);
        }
        self.run.report.change(change, Some(took));
    }

    /// Logs an interim write, which is no part of the plan.
    fn report_interim(&self, action: ChangeKind, reference: &Reference, how: &str) {
        self.run.report.wrote(action, reference);
        self.run.report.step(action.as_str(), &format!("{reference} {how}"), None);
    }

    /// The failure of an apply. A parent that may not get the home namespace finds out that it is absent with the first
    /// write there: the ServiceAccount, or the Role beside it.
    fn not_applied(&self, manifest: &Manifest, error: ApiError) -> Failure {
        let instance = &self.run.request.instance;
        let role = instance.names.role(&instance.names.home().scope);
        // If the ServiceAccount is created in the same wave, its failure is the one that is explained.
        let is_first = manifest.reference == instance.names.service_account()
            || (manifest.reference == role && self.snapshot.observed.service_account.is_some());
        if !(is_first && matches!(error.kind, ApiErrorKind::NamespaceAbsent)) {
            return error.into();
        }
        let failure = Failure::from(error);
        let namespace = &instance.namespace;
        if self.snapshot.observed.presence(namespace) != Presence::Unknown {
            return failure.next("find out what deletes the namespace, then run again");
        }
        let home = Reference::namespace(namespace.as_str());
        let lacking = denied(&failure.doing, vec![needed("get", &home), needed("create", &home)]);
        let cause = format!("the namespace does not exist, and {}", lacking.cause);
        Failure { cause, object: failure.object, ..lacking }
    }

    /// Deletes an object that is no longer desired. If that is denied or blocked, the object is kept.
    async fn delete(
        &self,
        place: Option<&'a Place>,
        reference: &Reference,
        live: &Live,
    ) -> Result<Written<'a>, Failure> {
        let started = Instant::now();
        match self.run.session.cluster.delete(reference, live).await {
            Ok(()) => {
                self.report_change(&Change::delete(reference.clone()), started.elapsed());
                Ok(Written::Done)
            }
            Err(ApiError { kind: ApiErrorKind::Denied { missing, .. }, .. }) => {
                Ok(Written::Kept(place, lacks(&missing)))
            }
            // An admission policy protects it, or a finalizer delays its deletion.
            Err(error) if error.is_refused() || matches!(error.kind, ApiErrorKind::HeldByFinalizers(_)) => {
                Ok(Written::Kept(place, Failure::from(error).cause))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The change that was made: unchanged if uid and resourceVersion are, because admission reverted it.
fn actual_change(change: Change, before: &Live, made: &Live) -> Change {
    if (&before.uid, &before.resource_version) == (&made.uid, &made.resource_version) {
        return Change { action: ChangeKind::Unchanged, fields: Vec::new(), ..change };
    }
    change
}
