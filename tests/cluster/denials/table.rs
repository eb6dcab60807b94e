//! The table of all refusals of an API server and their results, for the tests and docs/who-said-no.md.

use serde_json::{Value, json};
use testbed::{ControlPlane, Grant, Intercepted, Persona, Verdict, WebhookAnswer, rule};

use super::arrange::{self, Admission};

/// The result of one action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The error code, or `ok`.
    pub code: &'static str,
    /// How often the refused request is sent.
    pub asked: usize,
    /// The objects that exist afterwards, of four.
    pub left: &'static str,
}

const fn end(code: &'static str, asked: usize, left: &'static str) -> End {
    End { code, asked, left }
}

const NOTHING: &str = "";
const ALL: &str = "ServiceAccount, Role, RoleBinding, Secret";
const ACCOUNT: &str = "ServiceAccount";

/// Where and for which variant a refusal is arranged.
pub struct Scene<'a> {
    pub cp: &'a ControlPlane,
    pub namespace: &'a str,
    /// The resource whose changes are refused.
    pub on: &'static str,
    pub variant: usize,
}

/// The arrangement that refuses requests.
#[derive(Default)]
pub struct Denier<'a> {
    pub admission: Admission<'a>,
    /// A parent credential other than the administrator.
    pub parent: Option<Persona>,
    /// The behaviour of the gateway in front of the server.
    pub verdict: Option<Gateway>,
    /// Paths of objects to delete at the end.
    pub made: Vec<String>,
}

/// Decides about each request.
pub type Gateway = Box<dyn FnMut(&Intercepted) -> Verdict + Send>;

type Arrange = Box<dyn for<'a> Fn(&Scene<'a>) -> Denier<'a> + Send + Sync>;

/// One kind of refusal.
pub struct Row {
    /// The component that refuses, and how.
    pub who: &'static str,
    /// The resources whose changes are refused.
    pub on: &'static str,
    /// The number of variants, each arranged in another way.
    pub variants: usize,
    pub arrange: Arrange,
    pub plan: End,
    pub provision: End,
    pub decommission: End,
    /// Texts in the log of whichever action fails.
    pub says: &'static [&'static str],
}

fn row(who: &'static str, on: &'static str, arrange: Arrange) -> Row {
    let none = end("ok", 0, NOTHING);
    Row { who, on, variants: 1, arrange, plan: none, provision: none, decommission: none, says: &[] }
}

impl Row {
    fn ends(self, plan: End, provision: End, decommission: End, says: &'static [&'static str]) -> Self {
        Self { plan, provision, decommission, says, ..self }
    }

    /// A denial of changes to the ServiceAccount, which is created first and deleted last.
    fn denied(self, says: &'static [&'static str]) -> Self {
        self.ends(end("refused", 1, NOTHING), end("refused", 1, "Role"), end("refused", 1, ACCOUNT), says)
    }

    /// A temporary error of the server or of a component it calls: five attempts.
    fn fault(self, says: &'static [&'static str]) -> Self {
        self.ends(
            end("server-error", 5, NOTHING),
            end("server-error", 5, "Role"),
            end("server-error", 5, ACCOUNT),
            says,
        )
    }

    /// Whether the refusal only causes a warning: every action succeeds, and the log mentions it.
    pub fn only_warns(&self) -> bool {
        !self.says.is_empty() && [self.plan, self.provision, self.decommission].iter().all(|end| end.code == "ok")
    }

    fn variants(self, variants: usize) -> Self {
        Self { variants, ..self }
    }
}

/// Texts that belong to other refusals.
const IMITATIONS: [&str; 6] = [
    "tokens cannot be kept in a resource of this type",
    "exceeded quota: none",
    "attempting to grant RBAC permissions not currently held",
    "unable to create new content because it is being terminated",
    "User \"x\" cannot patch resource \"serviceaccounts\" in API group \"\" in the namespace \"a\"",
    "Unauthorized",
];

fn policy(reason: &'static str) -> Arrange {
    Box::new(move |scene| {
        let message = format!("{} (the rules of this house)", IMITATIONS[scene.variant]);
        let spec = json!({"validations": [{"expression": "false", "message": message, "reason": reason}]});
        Denier {
            admission: Admission::policy(scene.cp, scene.namespace, scene.on, &spec, &json!(["Deny"])),
            ..Denier::default()
        }
    })
}

fn policy_of(spec: Value, actions: Value) -> Arrange {
    Box::new(move |scene| Denier {
        admission: Admission::policy(scene.cp, scene.namespace, scene.on, &spec, &actions),
        ..Denier::default()
    })
}

const VALIDATING: &str = "validatingwebhookconfigurations";
const MUTATING: &str = "mutatingwebhookconfigurations";

fn webhook(kind: &'static str, more: Value, answers: Vec<WebhookAnswer>) -> Arrange {
    Box::new(move |scene| {
        let url = super::answering(scene.namespace, answers[scene.variant].clone());
        Denier {
            admission: Admission::webhook(scene.cp, scene.namespace, scene.on, kind, &url, &more),
            ..Denier::default()
        }
    })
}

/// Denials by a webhook, each with this `status`.
fn denials(statuses: &[Value]) -> Vec<WebhookAnswer> {
    statuses.iter().map(WebhookAnswer::denial).collect()
}

fn house_rules(code: u16, reason: &str) -> Value {
    json!({"code": code, "reason": reason, "message": "the rules of this house"})
}

fn gateway(verdicts: Vec<Verdict>) -> Arrange {
    Box::new(move |scene| {
        let (verdict, namespace, on) = (verdicts[scene.variant].clone(), scene.namespace.to_owned(), scene.on);
        let decide = move |request: &Intercepted| {
            if arrange::changes(request, &namespace, on) { verdict.clone() } else { Verdict::Forward }
        };
        Denier { verdict: Some(Box::new(decide)), ..Denier::default() }
    })
}

fn parent(rules: fn() -> Vec<Value>) -> Arrange {
    Box::new(move |scene| {
        let grants = [Grant::in_namespace(scene.namespace, &rules())];
        Denier { parent: Some(scene.cp.persona("parent", &grants)), ..Denier::default() }
    })
}

const OWN: [&str; 4] = ["get", "create", "patch", "delete"];

fn own(verbs: &[&str]) -> Vec<Value> {
    let rbac = rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &OWN);
    vec![rule(&[""], &["secrets"], &OWN), rbac, rule(&[""], &["serviceaccounts"], verbs)]
}

fn quota(counted: bool) -> Arrange {
    Box::new(move |scene| {
        let hard = json!({format!("count/{}", scene.on): "0"});
        let quotas = format!("/api/v1/namespaces/{}/resourcequotas", scene.namespace);
        scene.cp.post(&quotas, &json!({"metadata": {"name": "none"}, "spec": {"hard": hard}}));
        let made = format!("{quotas}/none");
        let status = if counted { json!({"hard": hard, "used": hard}) } else { json!({"hard": hard}) };
        scene.cp.merge_patch(&format!("{made}/status"), &json!({"status": status}));
        Denier { made: vec![made], ..Denier::default() }
    })
}

/// A concurrent client that always writes first.
fn racer() -> Arrange {
    Box::new(|scene| {
        let (namespace, on) = (scene.namespace.to_owned(), scene.on);
        let decide = move |request: &Intercepted| {
            if arrange::changes(request, &namespace, on) {
                let cp = super::control_plane();
                cp.delete(&arrange::path(&namespace, on));
                let object = json!({"metadata": {"name": crate::support::OBJECT}});
                cp.post(&arrange::collection(&namespace, on), &object);
            }
            Verdict::Forward
        };
        Denier { verdict: Some(Box::new(decide)), ..Denier::default() }
    })
}

/// A priority level without a free seat.
fn no_seat() -> Arrange {
    Box::new(|scene| {
        let persona = scene.cp.persona("seatless", &[Grant::cluster_role("cluster-admin")]);
        let (name, api) = (scene.namespace, "/apis/flowcontrol.apiserver.k8s.io/v1");
        let level = json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Reject"},
        }});
        let (user, account) = persona.user.rsplit_once(':').map(|(_, name)| (&persona.user, name)).unwrap();
        let namespace = user.split(':').nth(2).unwrap();
        let all =
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true});
        let schema = json!({
            "priorityLevelConfiguration": {"name": name}, "matchingPrecedence": 100,
            "rules": [{
                "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": account}}],
                "resourceRules": [all],
            }],
        });
        let made = [("prioritylevelconfigurations", level), ("flowschemas", schema)].map(|(kind, spec)| {
            scene.cp.post(&format!("{api}/{kind}"), &json!({"metadata": {"name": name}, "spec": spec}));
            format!("{api}/{kind}/{name}")
        });
        // A level with no shares still has one seat: this request occupies it.
        let url = super::answering(&format!("{name}-seat"), WebhookAnswer::Silence);
        let slow = json!({"timeoutSeconds": 30});
        let admission = Admission::webhook(scene.cp, name, "configmaps", VALIDATING, &url, &slow);
        let (path, token, kept) = (arrange::collection(name, "configmaps"), persona.token.clone(), made[1].clone());
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        std::thread::spawn(move || {
            let map = json!({"metadata": {"name": "slow"}});
            while std::time::Instant::now() < until && super::control_plane().get(&kept).is_some() {
                let _ = super::control_plane().request("POST", &path, Some(&token), Some(&map));
            }
        });
        testbed::eventually("the level has no seat", || {
            let path = arrange::collection(scene.namespace, "secrets");
            (scene.cp.request("GET", &path, Some(&persona.token), None).status == 429).then_some(())
        });
        Denier { admission, parent: Some(persona), made: made.into(), ..Denier::default() }
    })
}

/// A gateway that removes the Authorization header: the server answers an anonymous request.
fn loses_the_login() -> Arrange {
    Box::new(|scene| {
        let (namespace, on) = (scene.namespace.to_owned(), scene.on);
        let decide = move |request: &Intercepted| {
            if arrange::changes(request, &namespace, on) {
                let answer = super::control_plane().request(&request.method, &request.path, None, None);
                return Verdict::Answer(answer.status, answer.body);
            }
            Verdict::Forward
        };
        Denier { verdict: Some(Box::new(decide)), ..Denier::default() }
    })
}

/// All refusals.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn table() -> Vec<Row> {
    let says_house: &[&str] = &["denied request: ", "(the rules of this house)"];
    let says_webhook: &[&str] = &["admission webhook \"no.example.com\" denied the request"];
    let says_failed: &[&str] = &["the server cannot call the admission webhook no.example.com, which is required: "];
    let mut rows = Vec::new();

    rows.push(row("RBAC: the parent credential lacks a verb", "serviceaccounts", parent(|| own(&["get"]))).ends(
        end("missing-permission", 0, NOTHING),
        end("missing-permission", 0, NOTHING),
        end("missing-permission", 1, ACCOUNT),
        &["the parent credential lacks "],
    ));
    rows.push(
        row(
            "RBAC: the parent credential does not hold what it grants",
            "roles",
            parent(|| own(&OWN).into_iter().chain([rule(&[""], &["pods"], &["get"])]).collect()),
        )
        .ends(
            end("escalation", 0, NOTHING),
            end("escalation", 0, NOTHING),
            end("ok", 1, NOTHING),
            &["the parent credential may not grant permissions it does not hold: list pods in namespace "],
        ),
    );
    for reason in ["Invalid", "Forbidden", "RequestEntityTooLarge"] {
        let who = match reason {
            "Invalid" => "ValidatingAdmissionPolicy, reason Invalid (422), in any words",
            "Forbidden" => "ValidatingAdmissionPolicy, reason Forbidden (403), in any words",
            _ => "ValidatingAdmissionPolicy, reason RequestEntityTooLarge (413), in any words",
        };
        rows.push(row(who, "serviceaccounts", policy(reason)).variants(IMITATIONS.len()).denied(says_house));
    }
    let ends = |made: &'static str, kept: &'static str| {
        (end("refused", 1, NOTHING), end("refused", 1, made), end("refused", 1, kept))
    };
    for (who, on, (plan, provision, decommission)) in [
        ("ValidatingAdmissionPolicy on the Role", "roles", ends(ACCOUNT, "ServiceAccount, Role")),
        (
            "ValidatingAdmissionPolicy on the RoleBinding",
            "rolebindings",
            (
                end("ok", 0, NOTHING),
                end("refused", 1, "ServiceAccount, Role, Secret"),
                end("refused", 1, "ServiceAccount, RoleBinding"),
            ),
        ),
        (
            "ValidatingAdmissionPolicy on the Secret",
            "secrets",
            ends("ServiceAccount, Role, RoleBinding", "ServiceAccount, Secret"),
        ),
    ] {
        rows.push(row(who, on, policy("Forbidden")).ends(plan, provision, decommission, says_house));
    }
    let broken = json!({"validations": [{"expression": "object.metadata.labels['none'] == 'x'"}]});
    rows.push(
        row("ValidatingAdmissionPolicy that fails itself", "serviceaccounts", policy_of(broken, json!(["Deny"])))
            .denied(&["denied request: expression", "resulted in error"]),
    );
    let warns = json!({"validations": [{"expression": "false", "message": "the rules of this house"}]});
    rows.push(
        row(
            "ValidatingAdmissionPolicy that warns and writes into the audit log",
            "serviceaccounts",
            policy_of(warns, json!(["Warn", "Audit"])),
        )
        .ends(end("ok", 1, NOTHING), end("ok", 1, ALL), end("ok", 1, NOTHING), &["the rules of this house"]),
    );
    let patch = json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {
        "expression": "[JSONPatch{op: \"remove\", path: \"/metadata/labels/not-there\"}]"}}]});
    rows.push(
        row("MutatingAdmissionPolicy that cannot be carried out", "serviceaccounts", policy_of(patch, Value::Null))
            .ends(end("refused", 1, NOTHING), end("refused", 1, "Role"), end("ok", 1, NOTHING), &["denied request: "]),
    );

    let codes = [
        (400, "BadRequest"),
        (401, "Unauthorized"),
        (403, "Forbidden"),
        (404, "NotFound"),
        (409, "Conflict"),
        (409, "AlreadyExists"),
        (410, "Gone"),
        (413, "RequestEntityTooLarge"),
        (418, "Teapot"),
        (422, "Invalid"),
        (429, "TooManyRequests"),
        (451, ""),
        (500, "InternalError"),
        (501, ""),
        (502, ""),
        (503, "ServiceUnavailable"),
        (504, "Timeout"),
        (520, ""),
        (599, ""),
        (600, ""),
        (999, ""),
        (200, "Success"),
        (302, ""),
        (0, ""),
        (-1, ""),
    ];
    let statuses: Vec<Value> = codes
        .iter()
        .map(|(code, reason)| {
            json!({"code": code, "reason": reason, "status": "Denied", "message": "roles \"x\" not found",
                "details": {"retryAfterSeconds": -1, "causes": [{"reason": "NamespaceTerminating"}]}})
        })
        .collect();
    rows.push(
        row(
            "webhook that denies under any code, 401, 404, 409, 429, 503 and 999 among them",
            "serviceaccounts",
            webhook(VALIDATING, Value::Null, denials(&statuses)),
        )
        .variants(statuses.len())
        .denied(says_webhook),
    );
    let loud =
        json!({"code": 429, "reason": "TooManyRequests", "message": "again", "details": {"retryAfterSeconds": 120}});
    let disguised = IMITATIONS.map(|words| json!({"code": 403, "reason": "Forbidden", "message": words}));
    let plain: Vec<Value> = [json!({}), Value::Null, loud].into_iter().chain(disguised).collect();
    let count = plain.len();
    rows.push(
        row(
            "webhook that denies without a word, with Retry-After, or in another's words",
            "serviceaccounts",
            webhook(VALIDATING, Value::Null, denials(&plain)),
        )
        .variants(count)
        .denied(says_webhook),
    );
    rows.push(
        row(
            "mutating webhook that denies with 409",
            "serviceaccounts",
            webhook(MUTATING, Value::Null, denials(&[house_rules(409, "Conflict")])),
        )
        .denied(says_webhook),
    );
    rows.push(
        row(
            "webhook that denies with 404 on the Secret",
            "secrets",
            webhook(VALIDATING, Value::Null, denials(&[house_rules(404, "NotFound")])),
        )
        .ends(
            end("refused", 1, NOTHING),
            end("refused", 1, "ServiceAccount, Role, RoleBinding"),
            end("refused", 1, "ServiceAccount, Secret"),
            says_webhook,
        ),
    );
    rows.push(
        row(
            "webhook that denies under a code that HTTP does not have (the server breaks the connection)",
            "serviceaccounts",
            webhook(VALIDATING, Value::Null, denials(&[house_rules(1000, "")])),
        )
        .ends(
            end("connection-lost", 5, NOTHING),
            end("connection-lost", 5, "Role"),
            end("connection-lost", 5, ACCOUNT),
            &["(tried 5 times)"],
        ),
    );
    rows.push(
        row("webhook that is down", "serviceaccounts", {
            Box::new(|scene| Denier {
                admission: Admission::webhook(
                    scene.cp,
                    scene.namespace,
                    scene.on,
                    VALIDATING,
                    &format!("{}/x", testbed::RefusedPort.server()),
                    &Value::Null,
                ),
                ..Denier::default()
            })
        })
        .fault(says_failed),
    );
    rows.push(
        row(
            "webhook that answers too late",
            "serviceaccounts",
            webhook(VALIDATING, json!({"timeoutSeconds": 1}), vec![WebhookAnswer::Silence]),
        )
        .fault(says_failed),
    );
    let other = WebhookAnswer::Admission(json!({"uid": "another", "allowed": true}));
    let texts = [(200, "no"), (200, "<html>"), (500, "{}")];
    let nonsense: Vec<_> =
        texts.map(|(status, text)| WebhookAnswer::Reply(status, text.to_owned())).into_iter().chain([other]).collect();
    let count = nonsense.len();
    rows.push(
        row(
            "webhook that answers nonsense, a page, an error, or another question",
            "serviceaccounts",
            webhook(VALIDATING, Value::Null, nonsense),
        )
        .variants(count)
        .fault(says_failed),
    );
    rows.push(
        row("webhook that is down and may be passed over", "serviceaccounts", {
            Box::new(|scene| Denier {
                admission: Admission::webhook(
                    scene.cp,
                    scene.namespace,
                    scene.on,
                    VALIDATING,
                    &format!("{}/x", testbed::RefusedPort.server()),
                    &json!({"failurePolicy": "Ignore"}),
                ),
                ..Denier::default()
            })
        })
        .ends(end("ok", 1, NOTHING), end("ok", 1, ALL), end("ok", 1, NOTHING), &[]),
    );
    let dry = Verdict::refusal(400, "BadRequest", "admission webhook \"no.example.com\" does not support dry run");
    rows.push(
        row(
            "webhook that cannot be asked in a dry run",
            "serviceaccounts",
            Box::new(move |scene| {
                let (dry, namespace, on) = (dry.clone(), scene.namespace.to_owned(), scene.on);
                let decide = move |request: &Intercepted| {
                    let tried = arrange::changes(request, &namespace, on) && request.path.contains("dryRun=All");
                    if tried { dry.clone() } else { Verdict::Forward }
                };
                Denier { verdict: Some(Box::new(decide)), ..Denier::default() }
            }),
        )
        .ends(end("ok", 1, NOTHING), end("ok", 1, ALL), end("ok", 1, NOTHING), &[]),
    );

    let owner = json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
        "[JSONPatch{op: \"add\", path: \"/metadata/ownerReferences\", value: [Object.metadata.ownerReferences{ \
          apiVersion: \"v1\", kind: \"Pod\", name: \"x\", uid: \"1\", blockOwnerDeletion: true}]}]"}}]});
    rows.push(
        row(
            "OwnerReferencesPermissionEnforcement, of an owner that a policy adds",
            "serviceaccounts",
            Box::new(move |scene| {
                let mut rules = own(&OWN);
                rules.push(rule(&[""], &["pods"], &["get", "list"]));
                Denier {
                    admission: Admission::policy(scene.cp, scene.namespace, scene.on, &owner, &Value::Null),
                    parent: Some(scene.cp.persona("parent", &[Grant::in_namespace(scene.namespace, &rules)])),
                    ..Denier::default()
                }
            }),
        )
        .ends(
            end("refused", 1, NOTHING),
            end("refused", 1, "Role"),
            end("ok", 1, NOTHING),
            &["403: serviceaccounts \"", "cannot set blockOwnerDeletion"],
        ),
    );
    for (who, on, made) in [
        ("ResourceQuota, none left for a ServiceAccount", "serviceaccounts", "Role"),
        ("ResourceQuota, none left for a Secret", "secrets", "ServiceAccount, Role, RoleBinding"),
        ("ResourceQuota, none left for a Role", "roles.rbac.authorization.k8s.io", ACCOUNT),
    ] {
        rows.push(row(who, on, quota(true)).ends(
            end("quota", 1, NOTHING),
            end("quota", 1, made),
            end("ok", 1, NOTHING),
            &["exceeded quota: none"],
        ));
    }
    rows.push(row("ResourceQuota whose use is not counted yet", "serviceaccounts", quota(false)).ends(
        end("quota", 1, NOTHING),
        end("quota", 1, "Role"),
        end("ok", 1, NOTHING),
        &["status unknown for quota: none"],
    ));
    rows.push(
        row(
            "NamespaceLifecycle: the namespace is being deleted",
            "serviceaccounts",
            Box::new(|scene| {
                let stuck = json!({"metadata": {"name": "stuck", "finalizers": ["example.com/stuck"]}});
                let maps = format!("/api/v1/namespaces/{}/configmaps", scene.namespace);
                scene.cp.post(&maps, &stuck);
                scene.cp.delete(&format!("/api/v1/namespaces/{}", scene.namespace));
                Denier::default()
            }),
        )
        .ends(
            end("namespace-terminating", 0, NOTHING),
            end("namespace-terminating", 0, NOTHING),
            end("ok", 1, NOTHING),
            &["is being deleted"],
        ),
    );
    rows.push(row("another client that replaces the object at the same time", "serviceaccounts", racer()).ends(
        end("conflict", 1, ACCOUNT),
        end("conflict", 1, "ServiceAccount, Role"),
        end("conflict", 1, ACCOUNT),
        &["the object was changed or created at the same time"],
    ));
    rows.push(row("priority and fairness: no seat for the parent credential", "serviceaccounts", no_seat()).ends(
        end("server-error", 0, NOTHING),
        end("server-error", 0, NOTHING),
        end("server-error", 0, ALL),
        &["429: the server is overloaded", "(tried 5 times)"],
    ));

    rows.push(row("gateway that takes the login off (`system:anonymous`)", "serviceaccounts", loses_the_login()).ends(
        end("unauthorized", 1, NOTHING),
        end("unauthorized", 1, "Role"),
        end("unauthorized", 1, ACCOUNT),
        &["anonymous"],
    ));
    let login = vec![arrange::page(401), Verdict::refusal(401, "Unauthorized", "Unauthorized")];
    rows.push(row("gateway that answers 401", "serviceaccounts", gateway(login)).variants(2).ends(
        end("unauthorized", 1, NOTHING),
        end("unauthorized", 1, "Role"),
        end("unauthorized", 1, ACCOUNT),
        &["401: the cluster does not accept the credential"],
    ));
    let envoy =
        Verdict::Answer(403, json!({"code": 403, "message": "RBAC: access denied, user cannot patch resource x"}));
    let redirect = Verdict::Reply(302, vec![("location", "https://login.example.com".to_owned())], String::new());
    let pages = vec![
        arrange::page(403),
        envoy,
        arrange::page(404),
        redirect,
        Verdict::Answer(409, json!({})),
        arrange::page(407),
    ];
    let count = pages.len();
    rows.push(
        row(
            "gateway that answers with a page, a JSON document of its own, or a redirect",
            "serviceaccounts",
            gateway(pages),
        )
        .variants(count)
        .ends(
            end("not-kubernetes", 1, NOTHING),
            end("not-kubernetes", 1, "Role"),
            end("not-kubernetes", 1, ACCOUNT),
            &["the response is not from a Kubernetes API server"],
        ),
    );
    let away = vec![
        arrange::page(502),
        Verdict::Answer(503, json!({"message": "no healthy upstream"})),
        Verdict::Reply(504, Vec::new(), "upstream request timeout".to_owned()),
    ];
    rows.push(
        row("gateway without a server behind it", "serviceaccounts", gateway(away))
            .variants(3)
            .fault(&["(tried 5 times)"]),
    );
    let limited = Verdict::Reply(429, vec![("retry-after", "1".to_owned())], "rate limit of this gateway".to_owned());
    rows.push(
        row("gateway with a rate limit", "serviceaccounts", gateway(vec![limited]))
            .fault(&["429: the server is overloaded: rate limit of this gateway"]),
    );
    rows.extend(rows_with_own_control_plane());
    rows
}

/// The row of a refusal that `elsewhere.rs` arranges on a control plane of its own.
#[track_caller]
pub fn named(who: &str) -> Row {
    table().into_iter().find(|row| row.who == who).expect("a row of this name")
}

fn rows_with_own_control_plane() -> Vec<Row> {
    let row = |who| row(who, "serviceaccounts", Box::new(|_| Denier::default())).variants(0);
    vec![
        row(AUTHORIZER).ends(
            end("missing-permission", 1, NOTHING),
            end("missing-permission", 1, NOTHING),
            end("missing-permission", 1, ACCOUNT),
            &["ask the platform team"],
        ),
        row(NO_QUESTIONS).ends(end("ok", 1, NOTHING), end("ok", 2, ALL), end("ok", 1, NOTHING), &[]),
        row(IMPERSONATION).ends(
            end("missing-permission", 0, NOTHING),
            end("missing-permission", 0, NOTHING),
            end("missing-permission", 0, ALL),
            &["the parent credential lacks impersonate-on:user-info:get "],
        ),
        row(NO_STORAGE).ends(
            end("timeout", 0, NOTHING),
            end("timeout", 0, NOTHING),
            end("timeout", 0, ALL),
            &["no answer"],
        ),
    ]
}

pub const AUTHORIZER: &str = "another authorizer than RBAC, with a reason";
pub const NO_QUESTIONS: &str = "an authorizer that forbids to ask for rights, for the version, and to list";
pub const IMPERSONATION: &str = "RBAC: the user of the kubeconfig may not act `as` another";
pub const NO_STORAGE: &str = "etcd is away";
