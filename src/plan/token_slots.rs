//! Token slots: the Secrets of one ServiceAccount that hold its token, numbered in the order of their creation, and the
//! decision which of them is used, created and deleted. Pure.
//!
//! A slot is used once in the life of a ServiceAccount: a Secret of the same name would bring back the same token, even
//! after its deletion. So a Secret that is missing or unusable is replaced by one in the next slot.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    credential::claims::{self, Account},
    diagnostics::secret::Token,
    k8s::{
        fetched::FetchedObject,
        object::{Live, TOKEN_SECRET},
        record::SlotNumbers,
    },
};

/// Label of a token Secret: the day of its last use, written by the API server (LegacyServiceAccountTokenTracking, in
/// every server that has SelfSubjectReview).
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// Label of a token Secret: since when its token is invalid, written by the legacy token cleaner.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Annotation of a token Secret: its ServiceAccount.
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
/// Annotation of a token Secret: uid of its ServiceAccount.
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// A slot with a Secret in it.
#[derive(Clone)]
pub(crate) struct Slot {
    /// Number of the slot; 1 is the first.
    pub(crate) number: u32,
    /// The Secret, without its data.
    pub(crate) live: Live,
    /// Whether the Secret belongs to the instance.
    pub(crate) is_own: bool,
    /// The token in it.
    pub(crate) token: Option<Token>,
    /// The CA certificates in it, in DER.
    pub(crate) cas: BTreeSet<Vec<u8>>,
    /// Why the Secret cannot hold a valid token any more; none when it holds one or waits for it.
    pub(crate) unusable: Option<Unusable>,
}

/// The reason why a token Secret is unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// JSON pointer to the field that makes it so.
    pub(crate) field: &'static str,
    /// The reason in words.
    pub(crate) why: String,
}

/// The slots of a ServiceAccount that were read.
#[derive(Clone, Default)]
pub(crate) struct TokenSlots {
    /// The numbers that the ServiceAccount records; none when it does not exist.
    recorded: Option<SlotNumbers>,
    /// In ascending order.
    slots: Vec<Slot>,
}

/// What a provision does with the slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotPlan {
    /// The numbers to record. The newest slot is the one whose token is delivered; its Secret may have to be created.
    pub(crate) numbers: SlotNumbers,
    /// Slots whose Secret is deleted before another one is created: only failed runs have tried them.
    pub(crate) superseded: Vec<u32>,
    /// Slots whose Secret is deleted after the new token is delivered.
    pub(crate) retired: Vec<u32>,
}

impl Slot {
    /// The Secret in a slot. `uid` is that of the ServiceAccount; none when there is no ServiceAccount.
    pub(crate) fn new(
        number: u32,
        secret: FetchedObject,
        is_own: bool,
        (namespace, account): (&str, &str),
        uid: Option<&str>,
    ) -> Self {
        // The content of a Secret that belongs to another party does not matter.
        let unusable = if is_own { why_unusable(&secret, namespace, account, uid) } else { None };
        Self { number, live: secret.live, is_own, token: secret.token, cas: secret.cas, unusable }
    }

    /// Whether the API server has accepted the token of this Secret at least once.
    fn was_used(&self) -> bool {
        self.live.labels.contains_key(LAST_USED)
    }

    const fn is_deletable(&self) -> bool {
        self.is_own && self.live.deleting.is_none()
    }
}

impl TokenSlots {
    /// The slots that were read, in any order.
    pub(crate) fn new(recorded: Option<SlotNumbers>, mut slots: Vec<Slot>) -> Self {
        slots.sort_by_key(|slot| slot.number);
        Self { recorded, slots }
    }

    /// The slots that have to be read: the newest, the one that it replaces, and the first, which had the token of
    /// version 1.0.0. In ascending order.
    pub(crate) fn numbers_to_read(recorded: SlotNumbers) -> BTreeSet<u32> {
        let SlotNumbers { newest, replaced } = recorded;
        let earlier = implied(newest).into_iter().chain(replaced).filter(|number| (1..newest).contains(number));
        earlier.chain([newest]).collect()
    }

    /// The newest slot that ever had a Secret, or 1.
    pub(crate) fn newest(&self) -> u32 {
        self.recorded.unwrap_or_default().newest
    }

    /// All slots with a Secret, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// The slot of this number, if it has a Secret.
    pub(crate) fn get(&self, number: u32) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.number == number)
    }

    /// The newest slot, if it has a Secret, usable or not.
    pub(crate) fn current(&self) -> Option<&Slot> {
        self.get(self.newest())
    }

    /// The same, to be changed.
    pub(crate) fn current_mut(&mut self) -> Option<&mut Slot> {
        let newest = self.newest();
        self.slots.iter_mut().find(|slot| slot.number == newest)
    }

    /// The newest slot, if its Secret is usable.
    pub(crate) fn usable(&self) -> Option<&Slot> {
        self.current().filter(|slot| slot.unusable.is_none())
    }

    /// What a provision does with the slots. While the parent credential `sees_all`, a Secret that was not found is
    /// missing; otherwise nothing is known to be missing.
    pub(crate) fn decide(&self, sees_all: bool) -> SlotPlan {
        let newest = if sees_all { self.wanted() } else { self.newest() };
        let creates = newest != self.newest();
        let kept = self.kept();
        let replaced = if creates {
            kept.filter(|number| !implied(newest).contains(number))
        } else {
            // Stays until another Secret is created, so that a run that changes nothing writes nothing.
            self.recorded.and_then(|recorded| recorded.replaced)
        };
        let (superseded, retired) =
            self.obsolete().map(|slot| slot.number).partition(|number| creates && Some(*number) != kept);
        SlotPlan { numbers: SlotNumbers { newest, replaced }, superseded, retired }
    }

    /// The slot whose token is delivered: the newest if its Secret is usable or was never created, otherwise the next.
    fn wanted(&self) -> u32 {
        match (self.current(), self.recorded) {
            (Some(Slot { unusable: None, .. }), _) | (None, None) => self.newest(),
            (Some(_), _) | (None, Some(_)) => self.newest().saturating_add(1),
        }
    }

    /// The slot whose token may have been delivered last: it stays until the token of the next slot is proved. That is
    /// the one on record, or the lowest, because failed runs create Secrets in the newest slot only. A token that the
    /// server has never accepted was never proved, and so never delivered.
    fn kept(&self) -> Option<u32> {
        let earlier = || self.slots.iter().filter(|slot| slot.number < self.newest() && slot.is_deletable());
        let recorded = self.recorded.and_then(|recorded| recorded.replaced);
        let recorded = recorded.filter(|number| earlier().any(|slot| slot.number == *number));
        let current = self.current().filter(|slot| slot.is_deletable() && slot.was_used());
        recorded.or_else(|| earlier().next().or(current).map(|slot| slot.number))
    }

    /// The slots whose Secret has to be deleted: all but a usable newest one. One whose deletion was requested already
    /// needs no other request.
    fn obsolete(&self) -> impl Iterator<Item = &Slot> {
        let newest = self.newest();
        let obsolete = move |slot: &&Slot| slot.number < newest || slot.unusable.is_some();
        self.slots.iter().filter(obsolete).filter(|slot| slot.is_deletable())
    }
}

/// The slots in which a replaced Secret is looked for without a record of it: the first, and the one before the newest.
const fn implied(newest: u32) -> [u32; 2] {
    [1, newest.saturating_sub(1)]
}

/// Why this Secret will never hold a valid token of the ServiceAccount; none when it does, or when the token controller
/// is going to fill it. `uid` is none when there is no ServiceAccount: a Secret of an earlier one is of no use to it.
fn why_unusable(secret: &FetchedObject, namespace: &str, account: &str, uid: Option<&str>) -> Option<Unusable> {
    const UID_FIELD: &str = "/metadata/annotations/kubernetes.io~1service-account.uid";
    const NAME_FIELD: &str = "/metadata/annotations/kubernetes.io~1service-account.name";

    let FetchedObject { live, token, has_token_data, .. } = secret;
    let because = |field, why: &str| Some(Unusable { field, why: why.to_owned() });
    if let Some(held) = live.held() {
        return because("/metadata/deletionTimestamp", &held);
    }
    if live.fields.get("type").is_some_and(|kind| kind != TOKEN_SECRET) {
        return because("/type", "it has another type, which cannot be changed");
    }
    let Some(uid) = uid else {
        return because(UID_FIELD, "its ServiceAccount no longer exists");
    };
    // The token controller deletes it for either, or has filled it for another ServiceAccount.
    if live.annotations.get(ACCOUNT_NAME).is_some_and(|name| name != account) {
        return because(NAME_FIELD, "it is for another ServiceAccount");
    }
    if live.annotations.get(ACCOUNT_UID).is_some_and(|of| of != uid) {
        return because(UID_FIELD, "it is for an earlier ServiceAccount of the same name");
    }
    if live.labels.contains_key(INVALID_SINCE) {
        return because(
            "/metadata/labels/kubernetes.io~1legacy-token-invalid-since",
            "Kubernetes marked its token as invalid",
        );
    }
    match token {
        Some(token) => {
            let refused = claims::check(token, &Account { namespace, name: account, uid }).err()?;
            because("/data/token", &format!("it contains a token that is not its own: {}", refused.cause))
        }
        None if *has_token_data => because("/data/token", "its data is not a token"),
        None if live.fields.get("immutable") == Some(&Value::Bool(true)) => {
            because("/immutable", "it is empty and immutable, so it never gets a token")
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use rstest::rstest;

    use super::*;

    /// A slot in the notation of the tables: a number, and behind it `u` for used, `x` for unusable, `f` for foreign and
    /// `d` for being deleted.
    fn slot(text: &str) -> Slot {
        let (number, flags) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
        let mut live = Live::default();
        if flags.contains('u') {
            live.labels.insert(LAST_USED.to_owned(), "2026-11-28".to_owned());
        }
        live.deleting = flags.contains('d').then(Vec::new);
        let unusable = flags.contains(['x', 'd']).then(|| Unusable { field: "/data/token", why: String::new() });
        Slot {
            number: number.parse().unwrap(),
            live,
            is_own: !flags.contains('f'),
            token: None,
            cas: BTreeSet::new(),
            unusable,
        }
    }

    fn slots(recorded: Option<(u32, Option<u32>)>, slots: &[&str]) -> TokenSlots {
        let recorded = recorded.map(|(newest, replaced)| SlotNumbers { newest, replaced });
        TokenSlots::new(recorded, slots.iter().map(|text| slot(text)).collect())
    }

    /// Record, Secrets -> wanted slot, record of the replaced one, superseded, retired.
    #[rstest]
    #[case::nothing_there(None, &[], 1, None, &[], &[])]
    #[case::account_lost(None, &["1ux"], 2, None, &[], &[1])]
    #[case::account_lost_before_use(None, &["1x"], 2, None, &[1], &[])]
    #[case::account_missing_and_foreign_secret(None, &["1f"], 1, None, &[], &[])]
    #[case::in_use(Some((1, None)), &["1u"], 1, None, &[], &[])]
    #[case::waiting_for_its_token(Some((1, None)), &["1"], 1, None, &[], &[])]
    #[case::deleted_by_hand(Some((1, None)), &[], 2, None, &[], &[])]
    #[case::later_deleted_by_hand(Some((7, None)), &[], 8, None, &[], &[])]
    #[case::foreign(Some((1, None)), &["1f"], 1, None, &[], &[])]
    #[case::foreign_in_an_earlier_slot(Some((3, None)), &["1f", "3u"], 3, None, &[], &[])]
    #[case::unusable_and_never_used(Some((1, None)), &["1x"], 2, None, &[1], &[])]
    #[case::unusable_after_use(Some((3, None)), &["3ux"], 4, None, &[], &[3])]
    #[case::unusable_and_being_deleted(Some((2, None)), &["2ud"], 3, None, &[], &[])]
    #[case::replaced_not_yet_retired(Some((2, None)), &["1u", "2u"], 2, None, &[], &[1])]
    #[case::replaced_being_deleted(Some((2, None)), &["1ud", "2u"], 2, None, &[], &[])]
    #[case::replaced_and_newest_deleted(Some((2, None)), &["1u"], 3, None, &[], &[1])]
    #[case::two_after_a_failed_run(Some((4, None)), &["3u", "4ux"], 5, Some(3), &[4], &[3])]
    #[case::two_after_two_failed_runs(Some((5, Some(3))), &["3u", "5ux"], 6, Some(3), &[5], &[3])]
    #[case::replaced_one_is_gone(Some((5, Some(3))), &["1u", "5ux"], 6, None, &[5], &[1])]
    #[case::lowest_is_kept(Some((4, None)), &["1u", "3u", "4ux"], 5, None, &[3, 4], &[1])]
    #[case::newest_deleted_by_hand(Some((5, Some(3))), &["3u", "4u"], 6, Some(3), &[4], &[3])]
    #[case::record_stays_while_nothing_is_created(Some((5, Some(2))), &["2u", "4u", "5u"], 5, Some(2), &[], &[2, 4])]
    #[case::counter_behind(Some((1, None)), &["1u", "2u"], 1, None, &[], &[])]
    #[case::counter_at_its_end(Some((u32::MAX, None)), &[], u32::MAX, None, &[], &[])]
    fn decision_follows_from_record_and_secrets(
        #[case] recorded: Option<(u32, Option<u32>)>,
        #[case] there: &[&str],
        #[case] newest: u32,
        #[case] replaced: Option<u32>,
        #[case] superseded: &[u32],
        #[case] retired: &[u32],
    ) {
        let wanted = SlotPlan {
            numbers: SlotNumbers { newest, replaced },
            superseded: superseded.to_vec(),
            retired: retired.to_vec(),
        };
        assert_eq!(slots(recorded, there).decide(true), wanted);
    }

    #[test]
    fn nothing_is_created_while_secrets_may_be_hidden() {
        let plan = slots(Some((4, Some(2))), &["2u"]).decide(false);
        assert_eq!(plan.numbers, SlotNumbers { newest: 4, replaced: Some(2) });
        assert_eq!((plan.superseded, plan.retired), (vec![], vec![2]));
    }

    #[rstest]
    #[case::first(1, None, &[1])]
    #[case::second(2, None, &[1, 2])]
    #[case::fifth(5, None, &[1, 4, 5])]
    #[case::recorded(5, Some(2), &[1, 2, 4, 5])]
    #[case::recorded_is_implied(5, Some(4), &[1, 4, 5])]
    #[case::recorded_is_garbled(5, Some(9), &[1, 4, 5])]
    fn at_most_four_slots_are_read(#[case] newest: u32, #[case] replaced: Option<u32>, #[case] read: &[u32]) {
        let numbers = TokenSlots::numbers_to_read(SlotNumbers { newest, replaced });
        assert_eq!(numbers.into_iter().collect::<Vec<_>>(), read);
    }

    #[test]
    fn current_slot_may_be_unusable() {
        let unusable = slots(Some((2, None)), &["2x", "1u"]);
        assert_eq!(unusable.current().map(|slot| slot.number), Some(2));
        assert!(unusable.usable().is_none());
        assert_eq!(unusable.iter().map(|slot| slot.number).collect::<Vec<_>>(), [1, 2]);
        assert!(slots(Some((2, None)), &["2"]).usable().is_some());
    }

    fn token(uid: &str) -> Token {
        let claims = serde_json::json!({
            "sub": "system:serviceaccount:a:demo-token",
            "kubernetes.io/serviceaccount/namespace": "a",
            "kubernetes.io/serviceaccount/service-account.name": "demo-token",
            "kubernetes.io/serviceaccount/service-account.uid": uid,
        });
        Token::parse(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))).unwrap()
    }

    fn filled(live: &mut FetchedObject) {
        live.token = Some(token("u"));
        live.has_token_data = true;
    }

    fn set(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    #[rstest]
    #[case::waiting(|_: &mut FetchedObject| {}, None)]
    #[case::filled(filled, None)]
    #[case::token_of_an_earlier_account(|it: &mut FetchedObject| it.token = Some(token("old")), Some("/data/token"))]
    #[case::no_token(|it: &mut FetchedObject| it.has_token_data = true, Some("/data/token"))]
    #[case::being_deleted(|it: &mut FetchedObject| it.live.deleting = Some(Vec::new()), Some("/metadata/deletionTimestamp"))]
    #[case::another_type(|it: &mut FetchedObject| drop(it.live.fields.insert("type".to_owned(), "Opaque".into())), Some("/type"))]
    #[case::immutable_and_empty(|it: &mut FetchedObject| drop(it.live.fields.insert("immutable".to_owned(), true.into())), Some("/immutable"))]
    #[case::immutable_and_filled(|it: &mut FetchedObject| { filled(it); it.live.fields.insert("immutable".to_owned(), true.into()); }, None)]
    #[case::another_account(|it: &mut FetchedObject| it.live.annotations = set(ACCOUNT_NAME, "other"), Some("/metadata/annotations/kubernetes.io~1service-account.name"))]
    #[case::an_earlier_account(|it: &mut FetchedObject| it.live.annotations = set(ACCOUNT_UID, "old"), Some("/metadata/annotations/kubernetes.io~1service-account.uid"))]
    #[case::declared_invalid(|it: &mut FetchedObject| it.live.labels = set(INVALID_SINCE, "2026-11-28"), Some("/metadata/labels/kubernetes.io~1legacy-token-invalid-since"))]
    fn unusable_secret_differs_from_a_waiting_one(
        #[case] alter: impl FnOnce(&mut FetchedObject),
        #[case] field: Option<&str>,
    ) {
        let fields = BTreeMap::from([("type".to_owned(), Value::from(TOKEN_SECRET))]);
        let live = Live { fields, ..Live::default() };
        let mut secret = FetchedObject { live, token: None, has_token_data: false, cas: BTreeSet::new() };
        alter(&mut secret);
        let why = |uid| why_unusable(&secret, "a", "demo-token", uid);
        assert_eq!(why(Some("u")).map(|unusable| unusable.field), field);
        assert!(why(None).is_some(), "without a ServiceAccount no Secret is usable");
        assert_eq!(Slot::new(1, secret, false, ("a", "demo-token"), Some("u")).unusable, None, "foreign");
    }
}
