//! Partial and altered states of an instance, and the result of each action, on a real API server: one table. After a
//! plan nothing has changed. After a provision the token works, a second one writes nothing, and foreign objects are
//! reported and kept. After a decommission no object of the instance exists, and the previous token is rejected.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use testbed::{ControlPlane, Grant, InterceptingProxy, Options, Persona, Verdict, eventually, rule};

use crate::support::{Instance, NAME, OBJECT, Ran, paths, status, unusual_findings};

/// The number of cells that run at the same time: most of the time they wait for a token to be rejected.
const AT_ONCE: usize = 16;
const PREFIX: &str = "k8s-token.massdriver.cloud";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const HOLD: &str = "example.com/hold";

/// Indexes of [`paths`].
const ACCOUNT: usize = 0;
const ROLE: usize = 1;
const BINDING: usize = 2;
const SECRET: usize = 3;
const ALL: [usize; 4] = [ACCOUNT, ROLE, BINDING, SECRET];

/// The token after a provision.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    /// The previous token, which works.
    Same,
    /// Another token works, and the previous one is rejected.
    New,
    /// Nothing was changed. Without finalizers and foreign objects, a repeat succeeds.
    Blocked,
    /// Objects were changed. Without finalizers, a repeat succeeds.
    Repeat,
}
use Token::{Blocked, New, Repeat, Same};

/// A state, and the result of plan, provision and decommission: exit code, error code, finding codes, and after a bar
/// the changes: `+` create, `~` update, `!` replace, `-` delete, nothing if unchanged. `-2` is the second token Secret,
/// `@former` the previous namespace.
type State = (&'static str, fn(&mut Site), &'static str, (&'static str, Token), &'static str);

const GONE: &str = "0 | -Role -RoleBinding -Secret -ServiceAccount";

#[rustfmt::skip]
const STATES: &[State] = &[
    ("as it should be",                  |_| {},                          "0",                                            ("0", Same),                                          GONE),

    // Missing.
    ("ServiceAccount missing",           |s| { s.delete(ACCOUNT); s.await_gone(SECRET); },
                                                                          "0 | +Secret +ServiceAccount",                  ("0 | +Secret +ServiceAccount", New),                 "0 | -Role -RoleBinding"),
    ("Role missing",                     |s| s.delete(ROLE),              "0 | +Role",                                    ("0 | +Role", Same),                                  "0 | -RoleBinding -Secret -ServiceAccount"),
    ("RoleBinding missing",              |s| s.delete(BINDING),           "0 | +RoleBinding",                             ("0 | +RoleBinding", Same),                           "0 | -Role -Secret -ServiceAccount"),
    ("Secret missing",                   |s| s.delete(SECRET),            "0 | +Secret-2 ~ServiceAccount",                ("0 | +Secret-2 ~ServiceAccount", New),               "0 | -Role -RoleBinding -ServiceAccount"),
    ("all missing",                      |s| for one in ALL { s.delete(one); },
                                                                          "0 | +Role +RoleBinding +Secret +ServiceAccount", ("0 | +Role +RoleBinding +Secret +ServiceAccount", New), "0"),
    ("only the Secret is left",          |s| { s.add_finalizer(SECRET); for one in [ROLE, BINDING, ACCOUNT] { s.delete(one); } s.await_deletion_timestamp(SECRET); },
                                                                          "0 drift | +Role +RoleBinding +Secret-2 +ServiceAccount", ("0 drift | +Role +RoleBinding +Secret-2 +ServiceAccount", New), "75 being-deleted"),
    ("namespace missing",                |s| s.delete_namespace(),        "0 | +Namespace +Role +RoleBinding +Secret +ServiceAccount", ("0 | +Namespace +Role +RoleBinding +Secret +ServiceAccount", New), "0"),
    ("namespace terminating",            |s| { s.delete_namespace_held_by_finalizer(); for one in ALL { s.await_gone(one); } },
                                                                          "75 namespace-terminating | +Role +RoleBinding +Secret +ServiceAccount", ("75 namespace-terminating", Blocked), "0"),
    ("namespace terminating, with us",   |s| { for one in ALL { s.add_finalizer(one); } s.delete_namespace_held_by_finalizer(); for one in ALL { s.await_deletion_timestamp(one); } },
                                                                          "75 namespace-terminating being-deleted*3 drift | +Secret-2 ~ServiceAccount", ("75 namespace-terminating being-deleted*3", Blocked), "75 being-deleted*3"),

    // Foreign.
    ("ServiceAccount foreign",           |s| { s.replace_with_foreign(ACCOUNT); s.await_gone(SECRET); },
                                                                          "73 foreign-object | +Secret-2",                  ("73 foreign-object", Blocked),                       "0 foreign-object | -Role -RoleBinding"),
    ("Role foreign",                     |s| s.replace_with_foreign(ROLE),               "73 foreign-object",                            ("73 foreign-object", Blocked),                       "0 foreign-object | -RoleBinding -Secret -ServiceAccount"),
    ("RoleBinding foreign",              |s| s.replace_with_foreign(BINDING),            "73 foreign-object",                            ("73 foreign-object", Blocked),                       "0 foreign-object | -Role -Secret -ServiceAccount"),
    ("Secret foreign",                   |s| s.replace_with_foreign(SECRET),             "73 foreign-object",                            ("73 foreign-object", Blocked),                       "0 foreign-object | -Role -RoleBinding -ServiceAccount"),
    ("all foreign",                      |s| { for one in ALL { s.replace_with_foreign(one); } },
                                                                          "73 foreign-object*4",                          ("73 foreign-object*4", Blocked),                     "0 foreign-object*4"),
    ("our label removed",                |s| s.patch(ROLE, &json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}})),
                                                                          "73 foreign-object",                            ("73 foreign-object", Blocked),                       "0 foreign-object | -RoleBinding -Secret -ServiceAccount"),
    ("our annotations removed",          |s| s.annotate(BINDING, &[("name", Value::Null), ("namespace", Value::Null)]),
                                                                          "73 foreign-object",                            ("73 foreign-object", Blocked),                       "0 foreign-object | -Role -Secret -ServiceAccount"),
    ("label taken over",                 |s| s.patch(SECRET, &json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}})),
                                                                          "73 foreign-object",                            ("73 foreign-object", Blocked),                       "0 foreign-object | -Role -RoleBinding -ServiceAccount"),

    // Being deleted, and held by a finalizer.
    ("ServiceAccount being deleted",     |s| s.add_finalizer_and_delete(ACCOUNT),  "75 being-deleted",                             ("75 being-deleted", Blocked),                        "75 being-deleted | -Role -RoleBinding -Secret"),
    ("Role being deleted",               |s| s.add_finalizer_and_delete(ROLE),     "75 being-deleted",                             ("75 being-deleted", Blocked),                        "75 being-deleted | -RoleBinding -Secret"),
    ("RoleBinding being deleted",        |s| s.add_finalizer_and_delete(BINDING),  "75 being-deleted",                             ("75 being-deleted", Blocked),                        "75 being-deleted | -Role -Secret"),
    ("Secret being deleted",             |s| s.add_finalizer_and_delete(SECRET),   "0 drift | +Secret-2 ~ServiceAccount",          ("0 drift | +Secret-2 ~ServiceAccount", New),         "75 being-deleted | -Role -RoleBinding"),
    ("all being deleted",                |s| { for one in ALL { s.add_finalizer_and_delete(one); } },
                                                                          "75 being-deleted*3 drift | +Secret-2 ~ServiceAccount", ("75 being-deleted*3", Blocked),              "75 being-deleted*3"),
    ("all held, none deleted yet",       |s| { for one in ALL { s.add_finalizer(one); } },
                                                                          "0",                                            ("0", Same),                                          "75 being-deleted*3 | -Role -RoleBinding -Secret"),

    // Altered.
    ("Role widened",                     |s| s.patch(ROLE, &json!({"rules": [rule(&[""], &["pods", "secrets"], &["get", "list"])]})),
                                                                          "0 drift | ~Role",                              ("0 drift | ~Role", Same),                            GONE),
    ("Role emptied",                     |s| s.patch(ROLE, &json!({"rules": []})),
                                                                          "0 drift | ~Role",                              ("0 drift | ~Role", Same),                            GONE),
    ("a tag altered",                    |s| s.patch(ROLE, &json!({"metadata": {"labels": {"md-project": "theirs"}}})),
                                                                          "0 drift | ~Role",                              ("0 drift | ~Role", Same),                            GONE),
    ("a tag removed",                    |s| s.patch(BINDING, &json!({"metadata": {"labels": {"md-project": null}}})),
                                                                          "0 | ~RoleBinding",                             ("0 | ~RoleBinding", Same),                           GONE),
    ("another tag asked for",            |s| s.instance.params["md_metadata"]["default_tags"]["md-project"] = json!("other"),
                                                                          "0 | ~Role ~RoleBinding ~Secret ~ServiceAccount", ("0 | ~Role ~RoleBinding ~Secret ~ServiceAccount", Same), GONE),
    ("other rules asked for",            |s| s.instance.params["rules"] = json!([rule(&[""], &["pods", "events"], &["get", "list"])]),
                                                                          "0 | ~Role",                                    ("0 | ~Role", Same),                                  GONE),
    ("RoleBinding with one more subject", |s| s.patch(BINDING, &json!({"subjects": [s.subject(OBJECT), s.subject("default")]})),
                                                                          "0 drift | ~RoleBinding",                       ("0 drift | ~RoleBinding", Same),                     GONE),
    ("RoleBinding of another subject",   |s| s.patch(BINDING, &json!({"subjects": [s.subject("default")]})),
                                                                          "0 drift | ~RoleBinding",                       ("0 drift | ~RoleBinding", Same),                     GONE),
    ("RoleBinding without subjects",     |s| s.patch(BINDING, &json!({"subjects": []})),
                                                                          "0 drift | ~RoleBinding",                       ("0 drift | ~RoleBinding", Same),                     GONE),
    ("RoleBinding to another Role",      |s| s.recreate(BINDING, |binding| binding["roleRef"]["name"] = json!("other")),
                                                                          "0 drift | !RoleBinding",                       ("0 drift | !RoleBinding", Same),                     GONE),
    ("RoleBinding to a ClusterRole",     |s| s.recreate(BINDING, |binding| { binding["roleRef"]["kind"] = json!("ClusterRole"); binding["roleRef"]["name"] = json!("view"); }),
                                                                          "0 drift | !RoleBinding",                       ("0 drift | !RoleBinding", Same),                     GONE),
    ("RoleBinding to another Role, held", |s| { s.recreate(BINDING, |binding| binding["roleRef"]["name"] = json!("other")); s.add_finalizer(BINDING); },
                                                                          "0 drift | !RoleBinding",                       ("75 being-deleted drift", Repeat),                   "75 being-deleted | -Role -RoleBinding -Secret"),
    ("ServiceAccount with what others add", |s| s.patch(ACCOUNT, &json!({"automountServiceAccountToken": false, "imagePullSecrets": [{"name": "theirs"}], "metadata": {"annotations": {"theirs": "x"}}})),
                                                                          "0",                                            ("0", Same),                                          GONE),
    ("ServiceAccount of another instance", |s| s.annotate(ACCOUNT, &[("instance", json!("acme/other"))]),
                                                                          "0 drift | ~ServiceAccount",                    ("0 drift | ~ServiceAccount", Same),                  GONE),
    ("number of the Secret forgotten",   |s| { s.delete(SECRET); s.token = s.instance.token(); s.annotate(ACCOUNT, &[("token-generation", Value::Null)]); },
                                                                          "75 conflict | +Secret-2 ~ServiceAccount",      ("75 conflict | ~ServiceAccount", Repeat),            "0 | -Role -RoleBinding -Secret-2 -ServiceAccount"),

    // The Secret.
    ("Secret emptied",                   |s| { s.patch(SECRET, &json!({"data": null})); s.await_token(); },
                                                                          "0",                                            ("0", Same),                                          GONE),
    ("Secret of another type",           |s| s.recreate(SECRET, |secret| { secret["type"] = json!("Opaque"); secret["data"] = json!({}); }),
                                                                          "0 drift | +Secret-2 -Secret ~ServiceAccount",  ("0 drift | +Secret-2 -Secret ~ServiceAccount", New), GONE),
    ("Secret of another type, held",     |s| { s.recreate(SECRET, |secret| { secret["type"] = json!("Opaque"); secret["data"] = json!({}); }); s.add_finalizer(SECRET); },
                                                                          "0 drift | +Secret-2 -Secret ~ServiceAccount",  ("0 drift | +Secret-2 -Secret ~ServiceAccount", New), "75 being-deleted | -Role -RoleBinding -Secret"),
    ("Secret immutable",                 |s| s.patch(SECRET, &json!({"immutable": true})),
                                                                          "0",                                            ("0", Same),                                          GONE),
    ("Secret immutable, another tag",    |s| { s.patch(SECRET, &json!({"immutable": true})); s.instance.params["md_metadata"]["default_tags"]["md-project"] = json!("other"); },
                                                                          "0 | ~Role ~RoleBinding ~Secret ~ServiceAccount", ("0 | ~Role ~RoleBinding ~Secret ~ServiceAccount", Same), GONE),
    ("Secret immutable and empty",       |s| s.recreate(SECRET, |secret| { secret["immutable"] = json!(true); secret["data"] = json!({}); }),
                                                                          "0 drift | +Secret-2 -Secret ~ServiceAccount",  ("0 drift | +Secret-2 -Secret ~ServiceAccount", New), GONE),
    ("Secret pointed at nobody",         |s| { s.patch(SECRET, &token_annotations("nobody")); s.await_gone(SECRET); },
                                                                          "0 | +Secret-2 ~ServiceAccount",                ("0 | +Secret-2 ~ServiceAccount", New),               "0 | -Role -RoleBinding -ServiceAccount"),
    ("Secret with the uid of nobody",    |s| { s.patch(SECRET, &json!({"metadata": {"annotations": {"kubernetes.io/service-account.uid": "nobody"}}})); s.await_gone(SECRET); },
                                                                          "0 | +Secret-2 ~ServiceAccount",                ("0 | +Secret-2 ~ServiceAccount", New),               "0 | -Role -RoleBinding -ServiceAccount"),
    ("Secret pointed at nobody, held",   |s| { s.add_finalizer(SECRET); s.patch(SECRET, &token_annotations("nobody")); s.await_deletion_timestamp(SECRET); },
                                                                          "0 drift | +Secret-2 ~ServiceAccount",          ("0 drift | +Secret-2 ~ServiceAccount", New),         "75 being-deleted | -Role -RoleBinding"),
    ("Secret of another ServiceAccount", |s| { s.recreate(SECRET, |secret| { secret["metadata"]["annotations"]["kubernetes.io/service-account.name"] = json!("default"); secret["data"] = json!({}); }); s.await_token(); },
                                                                          "0 drift | +Secret-2 -Secret ~ServiceAccount",  ("0 drift | +Secret-2 -Secret ~ServiceAccount", New), GONE),
    ("ServiceAccount and Secret restored from a backup", |s| s.restore(),
                                                                          "0 drift*2 | +Secret-2 -Secret ~ServiceAccount", ("0 drift*2 | +Secret-2 -Secret ~ServiceAccount", New), GONE),
    ("token that is none",               |s| s.patch(SECRET, &token_data(b"nonsense")),
                                                                          "0 drift | +Secret-2 -Secret ~ServiceAccount",  ("0 drift | +Secret-2 -Secret ~ServiceAccount", New), GONE),
    ("token that is not even text",      |s| s.patch(SECRET, &token_data(&[0, 255])),
                                                                          "0 drift | +Secret-2 -Secret ~ServiceAccount",  ("0 drift | +Secret-2 -Secret ~ServiceAccount", New), GONE),
    ("token of somebody else",           |s| s.patch(SECRET, &token_data(cp().persona("planted", &[]).token.as_bytes())),
                                                                          "0 drift | +Secret-2 -Secret ~ServiceAccount",  ("0 drift | +Secret-2 -Secret ~ServiceAccount", New), GONE),
    ("token with a broken signature",    |s| { let mut broken = s.token.clone(); broken.truncate(broken.len() - 8); broken.push_str("AAAAAAAA"); s.patch(SECRET, &token_data(broken.as_bytes())); },
                                                                          "0",                                            ("0 drift | +Secret-2 -Secret ~ServiceAccount", New), GONE),
    ("token declared invalid",           |s| s.patch(SECRET, &json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}})),
                                                                          "0 drift | +Secret-2 -Secret ~ServiceAccount",  ("0 drift | +Secret-2 -Secret ~ServiceAccount", New), GONE),

    // The platform's record.
    ("record missing",                   |s| s.instance.platform.lose("token"), "0",                                      ("0", Same),                                          GONE),
    ("record of another field",          |s| s.instance.platform.rename_field("token", "other"), "0",                     ("0", Same),                                          GONE),
    ("record not deletable: 403",        |s| s.instance.platform.refuse_deletions(403), "0",                              ("0", Same),                                          "69 platform-refused | -Role -RoleBinding -Secret -ServiceAccount"),
    ("record not deletable: 409",        |s| s.instance.platform.refuse_deletions(409), "0",                              ("0", Same),                                          "69 platform-refused | -Role -RoleBinding -Secret -ServiceAccount"),
    ("record not deletable: 500",        |s| s.instance.platform.refuse_deletions(500), "0",                              ("0", Same),                                          "69 platform-refused | -Role -RoleBinding -Secret -ServiceAccount"),

    // A namespace that was changed outside the form.
    ("moved to another namespace",       |s| { let to = cp().namespace("moved"); s.move_to(&to); },
                                                                          "0 moved | +Role +RoleBinding +Secret +ServiceAccount -Role@former -RoleBinding@former -Secret@former -ServiceAccount@former", ("0 moved | +Role +RoleBinding +Secret +ServiceAccount -Role@former -RoleBinding@former -Secret@former -ServiceAccount@former", New), "0 moved | -Role@former -RoleBinding@former -Secret@former -ServiceAccount@former"),
    ("moved to a new namespace",         |s| { let to = cp().unused_namespace("moved"); s.move_to(&to); },
                                                                          "0 moved | +Namespace +Role +RoleBinding +Secret +ServiceAccount -Role@former -RoleBinding@former -Secret@former -ServiceAccount@former", ("0 moved | +Namespace +Role +RoleBinding +Secret +ServiceAccount -Role@former -RoleBinding@former -Secret@former -ServiceAccount@former", New), "0 moved | -Role@former -RoleBinding@former -Secret@former -ServiceAccount@former"),
    ("moved, half taken back",           |s| { s.delete(BINDING); let to = cp().namespace("moved"); s.move_to(&to); },
                                                                          "0 moved | +Role +RoleBinding +Secret +ServiceAccount -Role@former -Secret@former -ServiceAccount@former", ("0 moved | +Role +RoleBinding +Secret +ServiceAccount -Role@former -Secret@former -ServiceAccount@former", New), "0 moved | -Role@former -Secret@former -ServiceAccount@former"),
    ("moved, and held there",            |s| { s.add_finalizer(BINDING); let to = cp().namespace("moved"); s.move_to(&to); },
                                                                          "0 moved | +Role +RoleBinding +Secret +ServiceAccount -Role@former -RoleBinding@former -Secret@former -ServiceAccount@former", ("0 moved not-taken-back | +Role +RoleBinding +Secret +ServiceAccount -Role@former -RoleBinding@former -Secret@former", New), "75 being-deleted moved | -Role@former -RoleBinding@former -Secret@former"),
    ("moved to where others are",        |s| { let to = cp().namespace("moved"); s.move_to(&to); s.replace_with_foreign(ROLE); },
                                                                          "73 foreign-object moved | +RoleBinding +Secret +ServiceAccount -Role@former -RoleBinding@former -Secret@former -ServiceAccount@former", ("73 foreign-object", Blocked), "0 foreign-object moved | -Role@former -RoleBinding@former -Secret@former -ServiceAccount@former"),
];

fn token_annotations(name: &str) -> Value {
    json!({"metadata": {"annotations": {"kubernetes.io/service-account.name": name}}})
}

fn token_data(token: &[u8]) -> Value {
    json!({"data": {"token": STANDARD.encode(token)}})
}

/// A control plane of its own: each run searches the whole cluster for its instance name, and these tests create
/// hundreds.
fn cp() -> &'static ControlPlane {
    static OWN: LazyLock<ControlPlane> =
        LazyLock::new(|| ControlPlane::start(&Options::default()).expect("a control plane"));
    &OWN
}

/// A provisioned instance, and the changes of an administrator.
struct Site {
    instance: Instance,
    namespace: String,
    former: Option<String>,
    /// The token of that provision.
    token: String,
}

impl Site {
    fn new() -> Self {
        let namespace = cp().namespace("half");
        let instance = Instance::new(cp().admin(), &namespace);
        let token = instance.token();
        Self { instance, namespace, former: None, token }
    }

    fn path(&self, one: usize) -> String {
        paths(&self.namespace)[one].clone()
    }

    fn patch(&self, one: usize, change: &Value) {
        cp().merge_patch(&self.path(one), change);
    }

    fn annotate(&self, one: usize, annotations: &[(&str, Value)]) {
        let annotations: BTreeMap<String, &Value> =
            annotations.iter().map(|(key, value)| (format!("{PREFIX}/{key}"), value)).collect();
        self.patch(one, &json!({"metadata": {"annotations": annotations}}));
    }

    fn await_gone(&self, one: usize) {
        let path = self.path(one);
        eventually("the object is deleted", || cp().get(&path).is_none().then_some(()));
    }

    /// Waits for the token controller.
    fn await_token(&self) {
        let path = self.path(SECRET);
        eventually("the Secret contains a token", || cp().get(&path)?["data"]["token"].is_string().then_some(()));
    }

    fn await_deletion_timestamp(&self, one: usize) {
        let path = self.path(one);
        eventually("the object is being deleted", || {
            cp().get(&path).is_some_and(|object| object["metadata"]["deletionTimestamp"].is_string()).then_some(())
        });
    }

    fn delete(&self, one: usize) {
        cp().delete(&self.path(one));
        self.await_gone(one);
    }

    fn add_finalizer(&self, one: usize) {
        self.patch(one, &json!({"metadata": {"finalizers": [HOLD]}}));
    }

    fn add_finalizer_and_delete(&self, one: usize) {
        // The token controller may have deleted the Secret already, together with its ServiceAccount.
        self.add_finalizer(one);
        cp().delete(&self.path(one));
        self.await_deletion_timestamp(one);
    }

    /// Creates it again, with an alteration.
    fn recreate(&self, one: usize, alter: fn(&mut Value)) {
        let mut object = cp().get(&self.path(one)).unwrap();
        self.delete(one);
        self.make(one, without_server_fields(&mut object, alter));
    }

    fn make(&self, one: usize, object: &Value) {
        let path = self.path(one);
        cp().post(path.rsplit_once('/').unwrap().0, object);
    }

    /// Replaces it with a foreign object.
    fn replace_with_foreign(&self, one: usize) {
        if cp().get(&self.path(one)).is_some() {
            self.delete(one);
        }
        let mut object = json!({"metadata": {"name": OBJECT, "labels": {"app.kubernetes.io/managed-by": "somebody"}}});
        if one == BINDING {
            object["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "theirs"});
        }
        self.make(one, &object);
    }

    fn subject(&self, name: &str) -> Value {
        json!({"kind": "ServiceAccount", "name": name, "namespace": self.namespace})
    }

    /// Restores from a backup: a ServiceAccount with another uid, and a Secret with the token of the first one.
    fn restore(&self) {
        let [mut account, mut secret] = [ACCOUNT, SECRET].map(|one| cp().get(&self.path(one)).unwrap());
        self.delete(ACCOUNT);
        self.await_gone(SECRET);
        self.make(ACCOUNT, without_server_fields(&mut account, |_| {}));
        self.make(SECRET, without_server_fields(&mut secret, |_| {}));
    }

    fn delete_namespace(&self) {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        cp().delete(&path);
        eventually("the namespace is deleted", || cp().get(&path).is_none().then_some(()));
    }

    fn delete_namespace_held_by_finalizer(&self) {
        let config_maps = format!("/api/v1/namespaces/{}/configmaps", self.namespace);
        cp().post(&config_maps, &json!({"metadata": {"name": "held", "finalizers": [HOLD]}}));
        cp().delete(&format!("/api/v1/namespaces/{}", self.namespace));
    }

    /// Changes the namespace in the params.
    fn move_to(&mut self, namespace: &str) {
        self.instance.params["namespace"] = json!(namespace);
        self.instance.config["namespace"] = json!(namespace);
        self.former = Some(std::mem::replace(&mut self.namespace, namespace.to_owned()));
    }

    /// Removes all obstacles: finalizers, foreign objects, refusals of the platform.
    fn clear_obstacles(&self) {
        self.instance.platform.refuse_deletions(0);
        let free = json!({"metadata": {"finalizers": null}});
        let namespace = format!("/api/v1/namespaces/{}", self.namespace);
        for object in self.objects() {
            let marked = !object.content["metadata"]["deletionTimestamp"].is_null();
            if !object.content["metadata"]["finalizers"].is_null() {
                cp().merge_patch(&object.path, &free);
            }
            if !object.is_ours() {
                cp().delete(&object.path);
            }
            if marked || !object.is_ours() {
                eventually("the object is deleted", || cp().get(&object.path).is_none().then_some(()));
            }
        }
        if cp().get(&namespace).is_some_and(|found| found["status"]["phase"] == "Terminating") {
            cp().merge_patch(&format!("{namespace}/configmaps/held"), &free);
            eventually("the namespace is deleted", || cp().get(&namespace).is_none().then_some(()));
        }
    }

    /// Every object of these kinds in both namespaces, except those that every namespace has.
    fn objects(&self) -> Vec<Object> {
        let mut objects = Vec::new();
        for namespace in [Some(&self.namespace), self.former.as_ref()].into_iter().flatten() {
            for resource in ["serviceaccounts", "secrets", "roles", "rolebindings"] {
                let api = if resource.starts_with("role") { RBAC } else { "/api/v1" };
                let path = format!("{api}/namespaces/{namespace}/{resource}");
                for content in cp().get(&path).unwrap()["items"].as_array().unwrap() {
                    let name = content["metadata"]["name"].as_str().unwrap();
                    if name != "default" {
                        objects.push(Object { path: format!("{path}/{name}"), content: content.clone() });
                    }
                }
            }
        }
        objects
    }

    /// The state that a plan must not change.
    fn state(&self) -> BTreeMap<String, Value> {
        self.objects().into_iter().map(|object| (object.path.clone(), object.state())).collect()
    }

    fn act(&self, action: &str) -> Ran {
        let publish: &[&str] = if action == "plan" { &[] } else { &["--publish"] };
        self.instance.ask(action, publish)
    }

    /// The changes of a document in the notation of the table.
    fn changes(&self, document: &Value) -> String {
        let changes = document["changes"].as_array().unwrap().iter().filter_map(|change| {
            let sign = match change["action"].as_str().unwrap() {
                "create" => '+',
                "update" => '~',
                "replace" => '!',
                "delete" => '-',
                "unchanged" => return None,
                other => panic!("{other}"),
            };
            let number = change["name"].as_str().unwrap().strip_prefix(OBJECT).unwrap_or_default();
            let former = self.former.as_deref() == change["namespace"].as_str() && self.former.is_some();
            let place = if former { "@former" } else { "" };
            Some(format!("{sign}{}{number}{place}", change["kind"].as_str().unwrap()))
        });
        let mut changes: Vec<String> = changes.collect();
        changes.sort();
        changes.join(" ")
    }

    /// Compares a run with its cell.
    fn check(&self, action: &str, ran: &Ran, cell: &str) {
        let document = ran.document();
        let mut said = vec![ran.code.to_string()];
        let error = document["error"]["code"].as_str();
        said.extend(error.map(str::to_owned));
        let told = unusual_findings(&document);
        let mut findings: BTreeMap<&str, usize> = BTreeMap::new();
        for finding in &told {
            *findings.entry(finding["code"].as_str().unwrap()).or_default() += 1;
        }
        if let Some(known) = error {
            findings.entry(known).or_insert(1);
        }
        let times = |code: &str| match findings[code] {
            1 => code.to_owned(),
            more => format!("{code}*{more}"),
        };
        if let Some(error) = error {
            said[1] = times(error);
        }
        said.extend(findings.keys().filter(|code| Some(**code) != error).map(|code| times(code)));
        let mut said = said.join(" ");
        match self.changes(&document) {
            none if none.is_empty() => {}
            changes => said = format!("{said} | {changes}"),
        }
        assert_eq!(said, cell, "result of {action}, and the cell of the table:\n{}", ran.stderr);
    }

    /// The token has exactly the granted permissions.
    fn expect_working(&self, token: &str) {
        let namespace = format!("/api/v1/namespaces/{}", self.namespace);
        for (path, wanted) in [
            (format!("{namespace}/pods"), 200),
            (format!("{namespace}/secrets"), 403),
            ("/api/v1/namespaces/default/pods".to_owned(), 403),
        ] {
            assert_eq!(status(cp(), token, &path), wanted, "{path}");
        }
    }

    fn plan(&self, cell: &str) {
        let before = self.state();
        self.check("plan", &self.act("plan"), cell);
        expect_same(&self.state(), &before, "a plan changes nothing");
    }

    fn provision(&self, cell: &str, token: Token) {
        let before = self.state();
        let theirs = self.foreign_objects();
        self.check("provision", &self.act("provision"), cell);
        if !cell.contains('|') && token != Repeat {
            expect_same(&self.state(), &before, "nothing is written");
        }
        if matches!(token, Blocked | Repeat) {
            self.clear_obstacles();
        }
        if matches!(token, Blocked | Repeat) {
            self.act("provision").expect_code(0);
        } else {
            expect_same(&self.foreign_objects(), &theirs, "what is not ours stays");
        }
        let now = crate::support::token_of(&self.instance.platform.resource("token").unwrap());
        self.expect_working(&now);
        match token {
            Same => assert_eq!(now, self.token),
            New => assert_ne!(now, self.token),
            Blocked | Repeat => {}
        }
        if now != self.token {
            self.expect_rejected();
        }
        let settled = self.state();
        let again = self.act("provision").expect_code(0);
        assert_eq!(self.changes(&again.document()), "", "a second one has no changes\n{}", again.stderr);
        expect_same(&self.state(), &settled, "a second one writes nothing");
    }

    fn decommission(&self, cell: &str) {
        let theirs = self.foreign_objects();
        let ran = self.act("decommission");
        self.check("decommission", &ran, cell);
        expect_same(&self.foreign_objects(), &theirs, "what is not ours stays");
        self.expect_rejected();
        if ran.code != 0 {
            self.clear_obstacles();
            self.act("decommission").expect_code(0);
        }
        let left: Vec<String> = self.objects().into_iter().filter(Object::is_ours).map(|one| one.path).collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(self.instance.platform.resource("token"), None, "the platform's record is deleted");
        let again = self.act("decommission").expect_code(0);
        assert_eq!(self.changes(&again.document()), "");
    }

    /// The previous token is rejected; if its Secret was deleted before the run, the server's cache may accept it for a
    /// while.
    fn expect_rejected(&self) {
        eventually("the token is rejected", || (status(cp(), &self.token, "/api") == 401).then_some(()));
    }

    fn foreign_objects(&self) -> BTreeMap<String, Value> {
        // The token controller deletes a token Secret with its ServiceAccount, even a foreign one.
        let others = self.objects().into_iter().filter(|object| !object.is_ours() && !object.is_token_of_ours());
        others.map(|object| (object.path.clone(), object.state())).collect()
    }
}

/// Compares two states.
fn expect_same(now: &BTreeMap<String, Value>, before: &BTreeMap<String, Value>, what: &str) {
    let paths = now.keys().chain(before.keys()).filter(|path| now.get(*path) != before.get(*path));
    let changed: Vec<&String> = paths.collect();
    assert!(changed.is_empty(), "{what}: {changed:?}");
}

/// An object without the fields that the server sets.
fn without_server_fields(object: &mut Value, alter: fn(&mut Value)) -> &Value {
    let metadata = object["metadata"].as_object_mut().unwrap();
    for key in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        metadata.remove(key);
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubernetes.io/service-account.uid");
    }
    alter(object);
    object
}

struct Object {
    path: String,
    content: Value,
}

impl Object {
    fn is_ours(&self) -> bool {
        let metadata = &self.content["metadata"];
        metadata["labels"]["app.kubernetes.io/managed-by"] == "k8s-token"
            && metadata["annotations"][format!("{PREFIX}/name")] == NAME
    }

    fn is_token_of_ours(&self) -> bool {
        self.content["metadata"]["annotations"]["kubernetes.io/service-account.name"] == OBJECT
    }

    /// The object without the API server's label for the last use of the token.
    fn state(&self) -> Value {
        let mut content = self.content.clone();
        if self.path.contains("/secrets/") {
            let metadata = content["metadata"].as_object_mut().unwrap();
            metadata.remove("resourceVersion");
            metadata.remove("managedFields");
            if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
                labels.remove("kubernetes.io/legacy-token-last-used");
            }
        }
        content
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// A name, and the work.
type Work<'a> = (String, Box<dyn Fn() + Sync + 'a>);

/// Runs all of this concurrently, up to the limit, and collects the failures.
fn all_at_once(work: &[Work<'_>]) {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(work.len()) {
            scope.spawn(|| {
                while let Some((name, one)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(one)) {
                        failures.lock().unwrap().push(format!("{name}: {}", message(&*panic)));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), work.len(), failures.join("\n\n"));
}

#[test]
fn every_state_ends_as_the_table_states() {
    let mut work: Vec<Work<'_>> = Vec::new();
    for (name, by, plan, (provision, token), decommission) in STATES {
        work.push((
            format!("{name}, decommission"),
            Box::new(|| {
                let mut site = Site::new();
                by(&mut site);
                site.decommission(decommission);
            }),
        ));
        work.push((
            format!("{name}, plan and provision"),
            Box::new(|| {
                let mut site = Site::new();
                by(&mut site);
                site.plan(plan);
                site.provision(provision, *token);
            }),
        ));
    }
    all_at_once(&work);
}

/// A parent with these verbs in these namespaces, which can read the granted permissions everywhere.
fn persona_in(stem: &str, namespaces: &[(&str, &[&str])], more: &[Value]) -> Persona {
    let grants = namespaces.iter().map(|(namespace, verbs)| {
        let rbac = rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], verbs);
        Grant::in_namespace(namespace, &[rule(&[""], &["serviceaccounts", "secrets"], verbs), rbac])
    });
    let everywhere = Grant::everywhere(&[&[rule(&[""], &["pods"], &["get", "list"])], more].concat());
    cp().persona(stem, &grants.chain([everywhere]).collect::<Vec<_>>())
}

const OWN: &[&str] = &["get", "create", "patch", "delete"];

#[test]
fn grants_of_previous_namespace_elsewhere_are_deleted() {
    let elsewhere = cp().namespace("elsewhere");
    let pods = rule(&[""], &["pods"], &["get", "list"]);
    let mut there = pods.clone();
    there["namespaces"] = json!([elsewhere]);
    let mut site = Site::new();
    cp().delete(&site.path(SECRET)); // so that there is a second one
    site.instance.params["rules"] = json!([pods, there]);
    let old = site.instance.token();
    let roles = || {
        let list = cp().get(&format!("{RBAC}/namespaces/{elsewhere}/roles")).unwrap();
        let names = list["items"].as_array().unwrap().iter().map(|role| role["metadata"]["name"].clone());
        names.collect::<Vec<_>>()
    };
    let before = roles();
    assert_eq!(before.len(), 1);
    site.move_to(&cp().namespace("moved"));
    let document = site.act("provision").expect_code(0).document();
    let after = roles();
    assert_eq!(after.len(), 1, "the Role of the new home namespace");
    assert_ne!(after, before);
    let deleted = site.changes(&document);
    assert!(deleted.contains("-Secret-2@former") && deleted.contains("-Role@former"), "{deleted}");
    assert_eq!(status(cp(), &old, "/api"), 401, "the run has tested that the token is rejected");
    site.expect_working(&crate::support::token_of(&site.instance.platform.resource("token").unwrap()));

    site.act("decommission").expect_code(0);
    assert_eq!(roles().len(), 0);
}

#[test]
fn same_name_in_another_namespace_is_another_instance() {
    let site = Site::new();
    let (theirs, by_hand) = (Site::new(), cp().namespace("byhand"));
    let params = json!({"namespace": by_hand, "rules": site.instance.params["rules"]});
    let file = site.instance.directory.path().join("by-hand.json");
    std::fs::write(&file, params.to_string()).unwrap();
    let connection = site.instance.directory.path().join("connection.json");
    std::fs::write(&connection, cp().admin().connection().to_string()).unwrap();
    let run = |action: &str| {
        let mut command = crate::support::binary();
        command.args([action, "--json", "--name", NAME, "--params"]).arg(&file).arg("--connection").arg(&connection);
        // The environment of the platform's instance: a name given on the command line is not that instance.
        Ran::of(command.envs(site.instance.environment()))
    };
    let before = (site.state(), theirs.state());
    let document = run("provision").expect_code(0).document();
    assert!(unusual_findings(&document).is_empty(), "{document:#}");
    run("decommission").expect_code(0);
    assert_eq!((site.state(), theirs.state()), before);
    site.act("decommission").expect_code(0);
    assert_eq!(theirs.state(), before.1);
    theirs.expect_working(&theirs.token);
}

#[test]
fn run_without_platform_ids_keeps_the_instance_annotation() {
    let site = Site::new();
    let before = site.state();
    let mut command = site.instance.command("provision", &[]);
    command.env_remove("MASSDRIVER_ORGANIZATION_ID");
    Ran::of(&mut command).expect_code(0);
    expect_same(&site.state(), &before, "the annotation stays");
}

#[test]
fn missing_list_permission_does_not_fail_a_run() {
    let (former, home) = (cp().namespace("former"), cp().namespace("home"));
    let parent = persona_in("search", &[(&former, OWN), (&home, OWN)], &[]);
    let mut site = Site::new();
    site.instance = Instance::new(&parent, &former);
    site.instance.act("provision").expect_code(0);
    site.namespace.clone_from(&former);
    site.move_to(&home);
    let document = site.act("provision").expect_code(0).document();
    assert!(unusual_findings(&document).is_empty(), "unneeded permissions must not be reported: {document:#}");
    let document = site.act("decommission").expect_code(0).document();
    let findings = unusual_findings(&document);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0]["code"], "not-searched");
    assert!(findings[0]["message"].as_str().unwrap().contains("serviceaccounts"), "{findings:?}");
    assert!(cp().get(&paths(&former)[ACCOUNT]).is_some(), "it could not be found");
}

#[test]
fn undeletable_previous_namespace_is_reported_without_blocking() {
    let (former, home) = (cp().namespace("former"), cp().namespace("home"));
    let list = [rule(&[""], &["serviceaccounts"], &["list"])];
    let parent = persona_in("former", &[(&former, &["get", "create", "patch"]), (&home, OWN)], &list);
    let mut site = Site::new();
    site.instance = Instance::new(&parent, &former);
    site.instance.act("provision").expect_code(0);
    site.namespace.clone_from(&former);
    site.move_to(&home);
    for action in ["plan", "provision", "provision"] {
        let document = site.act(action).expect_code(0).document();
        let findings = unusual_findings(&document);
        let codes: Vec<&str> = findings.iter().map(|one| one["code"].as_str().unwrap()).collect();
        assert_eq!(codes, ["moved", "not-taken-back"], "{action}");
        assert!(!site.changes(&document).contains("@former"), "{action} must not announce changes there");
    }
    site.expect_working(&crate::support::token_of(&site.instance.platform.resource("token").unwrap()));
    let document = site.act("decommission").expect_code(77).document();
    assert!(document["missing_permissions"].as_array().unwrap().iter().all(|one| one["namespace"] == json!(former)));
    assert_eq!(cp().get(&paths(&home)[SECRET]), None, "everything deletable is deleted");

    site.instance.connection = Instance::new(cp().admin(), &former).connection;
    site.act("decommission").expect_code(0);
    let left: Vec<String> = site.objects().into_iter().filter(Object::is_ours).map(|one| one.path).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn token_of_previous_namespace_is_redacted() {
    let mut site = Site::new();
    let account = format!("/namespaces/{}/serviceaccounts/{OBJECT}", site.namespace);
    let (echo, mut gone) = (format!("echo: {}", site.token), false);
    let proxy = InterceptingProxy::start(cp(), move |request| {
        gone |= request.method == "DELETE" && request.path.contains(&account);
        // The review that tests whether the token is rejected.
        let asked = gone && request.path.contains("/selfsubjectreviews");
        if asked { Verdict::refusal(400, "BadRequest", &echo) } else { Verdict::Forward }
    });
    let parent = cp().admin().with_server(&proxy.server());
    site.instance.connection = json!({"authentication": parent.connection()["authentication"]});
    site.move_to(&cp().namespace("moved"));
    let ran = site.act("provision").expect_code(1);
    let said = ran.stderr.clone() + &ran.stdout;
    assert!(said.contains("echo: [REDACTED]") && !said.contains("echo: eyJ"), "{said}");
}

#[test]
fn previous_namespace_with_unreadable_inventory_is_remembered() {
    let (former, home) = (cp().namespace("former"), cp().namespace("home"));
    let elsewhere = cp().namespace("elsewhere");
    let list = [rule(&[""], &["serviceaccounts"], &["list"])];
    let parent = persona_in("garbled", &[(&former, OWN), (&home, OWN), (&elsewhere, OWN)], &list);
    let mut site = Site::new();
    site.instance = Instance::new(&parent, &former);
    let mut there = rule(&[""], &["pods"], &["get", "list"]);
    there["namespaces"] = json!([elsewhere]);
    site.instance.params["rules"].as_array_mut().unwrap().push(there);
    let old = site.instance.token();
    site.namespace.clone_from(&former);
    site.annotate(ACCOUNT, &[("inventory", json!("garbled"))]);
    site.instance.params["rules"].as_array_mut().unwrap().pop();
    site.move_to(&home);
    let bindings =
        || cp().get(&format!("{RBAC}/namespaces/{elsewhere}/rolebindings")).unwrap()["items"].as_array().unwrap().len();
    let granted = bindings();
    let mut goes = "-Role@former -RoleBinding@former -Secret@former";
    for action in ["plan", "provision", "provision"] {
        let document = site.act(action).expect_code(0).document();
        let findings = unusual_findings(&document);
        let codes: Vec<&str> = findings.iter().map(|one| one["code"].as_str().unwrap()).collect();
        assert_eq!(codes, ["moved", "not-taken-back"], "{action}");
        assert!(findings[1]["message"].as_str().unwrap().contains("cannot be read"), "{findings:?}");
        let changes = site.changes(&document);
        assert!(changes.contains(goes) && !changes.contains("-ServiceAccount@former"), "{action}: {changes}");
        goes = if action == "plan" { goes } else { "" };
    }
    assert_eq!(status(cp(), &old, "/api"), 401, "its token is rejected");
    assert_eq!(bindings(), granted);

    // A parent that cannot search the whole cluster would leave the binding behind.
    site.act("decommission").expect_code(77);
    assert!(cp().get(&paths(&former)[ACCOUNT]).is_some());
    site.instance.connection = Instance::new(cp().admin(), &former).connection;
    site.act("decommission").expect_code(0);
    assert_eq!(bindings(), granted - 1);
    let left: Vec<String> = site.objects().into_iter().filter(Object::is_ours).map(|one| one.path).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn role_binding_held_by_finalizer_is_remembered() {
    let elsewhere = cp().namespace("elsewhere");
    let mut site = Site::new();
    site.instance.params["cluster_roles"] = json!([{"name": "view", "namespaces": [elsewhere]}]);
    let token = site.instance.token();
    let bindings = format!("{RBAC}/namespaces/{elsewhere}/rolebindings");
    let name = cp().get(&bindings).unwrap()["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let binding = format!("{bindings}/{name}");
    cp().merge_patch(&binding, &json!({"metadata": {"finalizers": [HOLD]}}));
    site.instance.params["cluster_roles"] = json!([]);
    let reading = format!("/api/v1/namespaces/{elsewhere}/pods");
    let mut settled = None;
    for _ in 0..2 {
        let document = site.act("provision").expect_code(0).document();
        let finding = &unusual_findings(&document)[0];
        assert_eq!(finding["code"], "not-taken-back", "{document:#}");
        assert!(finding["message"].as_str().unwrap().contains(HOLD), "{finding}");
        assert_eq!(status(cp(), &token, &reading), 200, "the binding still grants, as the finding says");
        let state = (site.state(), cp().get(&binding));
        assert_eq!(*settled.get_or_insert_with(|| state.clone()), state, "a second one writes nothing");
    }
    // The ServiceAccount is kept too: its inventory contains the namespace.
    let document = site.act("decommission").expect_code(75).document();
    assert_eq!(document["error"]["code"], "being-deleted");
    assert!(document["error"]["cause"].as_str().unwrap().contains(HOLD));
    assert_eq!(status(cp(), &token, "/api"), 401, "the token is rejected all the same");
    assert!(cp().get(&site.path(ACCOUNT)).is_some());
    cp().merge_patch(&binding, &json!({"metadata": {"finalizers": null}}));
    site.act("decommission").expect_code(0);
    assert_eq!(cp().get(&site.path(ACCOUNT)), None);
}

#[test]
fn drift_reports_fields_and_field_manager() {
    let site = Site::new();
    site.patch(BINDING, &json!({"subjects": [site.subject(OBJECT), site.subject("default")]}));
    let document = site.act("plan").document();
    let finding = &unusual_findings(&document)[0];
    assert_eq!((finding["code"].as_str(), finding["severity"].as_str()), (Some("drift"), Some("medium")));
    let message = finding["message"].as_str().unwrap();
    assert!(message.contains("/subjects/1") && message.contains("by testbed"), "{message}");
    site.patch(BINDING, &json!({"metadata": {"labels": {"md-project": "theirs"}}}));
    site.act("provision").expect_code(0);
    site.patch(ROLE, &json!({"metadata": {"labels": {"md-project": "theirs"}}}));
    assert_eq!(unusual_findings(&site.act("plan").document())[0]["severity"], "low", "no granting field");
}

#[test]
fn object_without_ownership_label_explains_how_to_restore() {
    let site = Site::new();
    let label = "app.kubernetes.io/managed-by";
    site.patch(ROLE, &json!({"metadata": {"labels": {label: null}}}));
    site.annotate(BINDING, &[("name", Value::Null)]);
    let said = site.act("provision").expect_code(73).stderr;
    for text in [label.to_owned(), "restore the value k8s-token".to_owned(), format!("{PREFIX}/name: {NAME}")] {
        assert!(said.contains(&text), "{text} in {said}");
    }
    site.patch(ROLE, &json!({"metadata": {"labels": {label: "k8s-token"}}}));
    site.annotate(BINDING, &[("name", json!(NAME))]);
    site.act("provision").expect_code(0);
}
