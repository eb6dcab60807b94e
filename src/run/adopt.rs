//! The write of an adoption: fields that Helm owns become fields of this program.

use futures_util::future::join_all;

use crate::{
    cluster::Cluster,
    diagnostics::error::Failure,
    k8s::{helm_release, ownership::Owner},
    plan::observed::Observed,
    run::Run,
};

/// Makes Helm's fields ours, object by object, without a change to anything else: what is not wanted of them can then
/// be taken away by an apply.
///
/// # Errors
/// Why not.
pub async fn take_fields(run: &Run<'_>, cluster: &Cluster<'_>, observed: &mut Observed) -> Result<(), Failure> {
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
            let fields = helm_release::handed_over(&live.managed_fields)?;
            Some(async move {
                *live = cluster.hand_over(&object, live, fields).await?;
                Ok::<_, Failure>(())
            })
        });
    Failure::all(join_all(taken).await).map(drop)
}
