//! The catalogue of risks: permissions that allow more than their names say, with what a holder could do, and what to
//! grant instead. docs/risks.md is made from it. Pure data.

use std::{collections::BTreeSet, ops::BitOr};

/// How serious a judgement of a rule is: for a risk, how much harm a holder could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Good to know.
    Info,
    /// Little.
    Low,
    /// Some, for single applications.
    Medium,
    /// Much, for everything in a namespace.
    High,
    /// A whole namespace or cluster.
    Critical,
}

impl Level {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// One higher; critical is the highest.
    pub(super) const fn raised(self) -> Self {
        match self {
            Self::Info => Self::Low,
            Self::Low => Self::Medium,
            Self::Medium => Self::High,
            Self::High | Self::Critical => Self::Critical,
        }
    }

    /// One lower; info is the lowest.
    pub(super) const fn lowered(self) -> Self {
        match self {
            Self::Critical => Self::High,
            Self::High => Self::Medium,
            Self::Medium => Self::Low,
            Self::Low | Self::Info => Self::Info,
        }
    }
}

/// A set of verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Verbs(u16);

impl Verbs {
    pub(super) const NONE: Self = Self(0);
    pub(super) const ALL: Self = Self(u16::MAX);
    pub(super) const GET: Self = Self(1);
    /// list and watch, which are about collections.
    pub(super) const LIST: Self = Self(0b110);
    pub(super) const CREATE: Self = Self(1 << 3);
    pub(super) const PATCH: Self = Self(1 << 5);
    pub(super) const DELETECOLLECTION: Self = Self(1 << 7);
    /// Every verb: only the wildcard has it.
    pub(super) const WILDCARD: Self = Self(1 << 13);

    /// The verbs in the order of their bits.
    const NAMES: [&str; 14] = [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "escalate",
        "bind",
        "impersonate",
        "approve",
        "sign",
        "*",
    ];

    /// The verb of this name, if the catalogue names it. `*` has all of them.
    pub(super) fn named(verb: &str) -> Self {
        match verb {
            "*" => Self(u16::MAX),
            _ => Self::NAMES.iter().position(|name| *name == verb).map_or(Self::NONE, |bit| Self(1 << bit)),
        }
    }

    /// Whether it has one of these verbs.
    pub(super) const fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    /// The verbs of both sets.
    pub(super) const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Without these verbs.
    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names of its verbs.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name)
    }
}

impl BitOr for Verbs {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

/// get, list, watch.
pub(super) const READ: Verbs = Verbs(0b111);
/// create, update, patch.
pub(super) const WRITE: Verbs = Verbs(0b11_1000);
/// update, patch.
pub(super) const CHANGE: Verbs = Verbs(0b11_0000);
/// delete, deletecollection.
const UPDATE: Verbs = Verbs(0b1_0000);
const REMOVE: Verbs = Verbs(0b1100_0000);
/// The verbs of an HTTP request that is passed on.
const PROXIED: Verbs = Verbs(0b111_1001);
/// get, create.
const CONNECT: Verbs = Verbs::GET.with(Verbs::CREATE);
const ESCALATE: Verbs = Verbs(1 << 8);
const BIND: Verbs = Verbs(1 << 9);
const IMPERSONATE: Verbs = Verbs(1 << 10);
const APPROVE: Verbs = Verbs(1 << 11);
const SIGN: Verbs = Verbs(1 << 12);

/// Where permissions on a resource have an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// In a Role and in a ClusterRole.
    Both,
    /// In a ClusterRole only: the resource is not in a namespace.
    Cluster,
    /// In both; in a Role only for the Namespace object of its own namespace.
    OwnNamespace,
}

/// Facts about a request that matter together with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts(u32);

impl Facts {
    pub(super) const NONE: Self = Self(0);
    pub(super) const READ_SECRETS: Self = Self(1);
    pub(super) const READ_NAMED_SECRETS: Self = Self(1 << 1);
    pub(super) const WRITE_SECRETS: Self = Self(1 << 2);
    pub(super) const CREATE_SECRETS: Self = Self(1 << 3);
    /// Creates a Secret by name with server-side apply, and reads that very Secret.
    pub(super) const CREATE_AND_READ_NAMED: Self = Self(1 << 4);
    pub(super) const CREATE_PODS: Self = Self(1 << 5);
    pub(super) const START_PODS: Self = Self(1 << 6);
    pub(super) const READ_LOGS: Self = Self(1 << 7);
    pub(super) const EXEC: Self = Self(1 << 8);
    pub(super) const WRITE_BINDINGS: Self = Self(1 << 9);
    pub(super) const BIND: Self = Self(1 << 10);
    pub(super) const EVERYTHING: Self = Self(1 << 11);
    pub(super) const CHANGE_NAMESPACE: Self = Self(1 << 12);
    pub(super) const CREATE_CSR: Self = Self(1 << 13);
    pub(super) const WRITE_APPROVAL: Self = Self(1 << 14);
    pub(super) const APPROVE: Self = Self(1 << 15);
    pub(super) const SIGN: Self = Self(1 << 16);
    pub(super) const WRITE_CSR_STATUS: Self = Self(1 << 17);
    pub(super) const DELETE_PODS: Self = Self(1 << 18);
    pub(super) const CHANGE_NODES: Self = Self(1 << 19);
    pub(super) const WRITE_SERVICE_ACCOUNTS: Self = Self(1 << 20);

    /// Whether it has one of these.
    pub(super) const fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    /// Those of both.
    #[must_use]
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A resource of an entry, with the verbs that are a risk on it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// API group; `""` is the core group.
    pub group: &'static str,
    /// Resource, with its subresource.
    pub resource: &'static str,
    /// Verbs that are a risk.
    pub verbs: Verbs,
    pub(super) within: Within,
    own_level: Option<Level>,
    pub(super) fact: Facts,
    /// Whether get is a risk on servers before 1.35 only, which did not ask for create when a client connects with GET.
    pub(super) get_before_1_35: bool,
}

impl Target {
    const fn new(group: &'static str, resource: &'static str, verbs: Verbs) -> Self {
        Self {
            group,
            resource,
            verbs,
            within: Within::Both,
            own_level: None,
            fact: Facts::NONE,
            get_before_1_35: false,
        }
    }

    /// Its own level, where it differs from the entry's.
    pub const fn level(&self) -> Option<Level> {
        self.own_level
    }

    const fn within(self, within: Within) -> Self {
        Self { within, ..self }
    }

    const fn with_level(self, level: Level) -> Self {
        Self { own_level: Some(level), ..self }
    }

    const fn fact(self, fact: Facts) -> Self {
        Self { fact, ..self }
    }

    const fn get_before_1_35(self) -> Self {
        Self { get_before_1_35: true, ..self }
    }
}

/// The part of a rule that a finding points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Resource,
    Verb,
}

/// How a rule is made narrower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Narrower {
    /// The same resource with these verbs, limited to one name.
    Named(Verbs),
    /// The same resource with these verbs only.
    Only(Verbs),
    /// The rule without these verbs.
    Without(Verbs),
    /// Some other resources of a group that a wildcard covers.
    Some(&'static str, &'static [&'static str], Verbs),
    /// The group that the resource belongs to, instead of all.
    OneGroup,
}

/// A risk that grows together with another permission.
#[derive(Clone, Copy, Debug)]
pub struct Together {
    pub(super) own: Facts,
    pub(super) other: Facts,
    /// The other permission, and what both allow.
    pub text: &'static str,
}

/// An entry of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its code, as in `risk-r03`.
    pub code: &'static str,
    /// Title on the page.
    pub title: &'static str,
    /// Resources with the verbs that are a risk; empty for an entry about wildcards.
    pub targets: &'static [Target],
    /// What else raises it, or limits when it is raised.
    pub when: &'static str,
    /// Level in a Role; none if it has no effect there.
    pub namespaced: Option<Level>,
    /// Level in a ClusterRole.
    pub cluster: Level,
    /// Level in kube-system, kube-public and kube-node-lease, where it differs.
    pub system: Option<Level>,
    /// Level in other cases, which `when` describes.
    pub otherwise: Option<Level>,
    /// Whether it is one lower where resourceNames limit update, patch or delete.
    pub lower_with_names: bool,
    /// What makes it one higher.
    pub together: &'static [Together],
    /// What a holder could do; `{place}` is replaced.
    pub consequence: &'static str,
    /// What to grant instead.
    pub instead: &'static str,
    pub(super) narrower: &'static [Narrower],
    pub(super) element: Element,
}

impl Entry {
    const fn new(code: &'static str, title: &'static str, level: Level) -> Self {
        Self {
            code,
            title,
            targets: &[],
            when: "",
            namespaced: Some(level),
            cluster: level,
            system: None,
            otherwise: None,
            lower_with_names: false,
            together: &[],
            consequence: "",
            instead: "",
            narrower: &[],
            element: Element::Resource,
        }
    }

    /// Every level that a finding of it may have.
    pub fn levels(&self) -> BTreeSet<Level> {
        let places = self.namespaced.into_iter().chain([self.cluster]).chain(self.system).chain(self.otherwise);
        let of_targets = self.targets.iter().filter_map(Target::level);
        let mut levels: BTreeSet<Level> = places.chain(of_targets).collect();
        if self.lower_with_names {
            levels = levels.iter().flat_map(|level| [*level, level.lowered()]).collect();
        }
        if !self.together.is_empty() {
            levels = levels.iter().flat_map(|level| [*level, level.raised()]).collect();
        }
        levels
    }

    /// The consequence in a namespace, or in the whole cluster.
    pub fn consequence(&self, whole_cluster: bool) -> String {
        self.consequence.replace("{place}", if whole_cluster { "in the whole cluster" } else { "in the namespace" })
    }
}

/// Namespaces of the control plane and its add-ons.
pub(super) const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";
const GATEWAY: &str = "gateway.networking.k8s.io";

use Level::{Critical, High, Low, Medium};
use Narrower::{Named, OneGroup, Only, Without};
use Within::{Cluster, OwnNamespace};

const GET_BEFORE_1_35: &str =
    "`get` alone counts on servers before 1.35 and on unknown ones; later ones require `create`.";
const GET_BEFORE_1_35_FORWARD: &str =
    "`get` alone on `pods/portforward` counts on servers before 1.35 and on unknown ones; later ones require `create`.";

const fn target(group: &'static str, resource: &'static str, verbs: Verbs) -> Target {
    Target::new(group, resource, verbs)
}

/// A resource that runs pods.
const fn workload(group: &'static str, resource: &'static str) -> Target {
    Target::new(group, resource, WRITE).fact(Facts::START_PODS)
}

/// Resources that are no risk of their own, but together with another.
pub(super) const PARTS: &[Target] = &[
    target("", "pods", REMOVE).fact(Facts::DELETE_PODS),
    // Together with create: server-side apply.
    target("", "persistentvolumes", Verbs::PATCH).within(Cluster),
    target(CERTIFICATES, "certificatesigningrequests", Verbs::PATCH).within(Cluster),
    target(CERTIFICATES, "certificatesigningrequests", Verbs::CREATE).within(Cluster).fact(Facts::CREATE_CSR),
    target(CERTIFICATES, "certificatesigningrequests/status", CHANGE).within(Cluster).fact(Facts::WRITE_CSR_STATUS),
];

/// Every risk. The codes are promises: they never change, and none is used again.
pub const CATALOG: &[Entry] = &[
    Entry {
        when: "API group `*`, resource `*`, and the verb `*` or all of `get`, `list`, `watch`, `create`, `update`, \
               `patch`, `delete`; not limited by `resourceNames`.",
        consequence: "allows everything {place}: reading every Secret, starting pods, and granting to others what it \
                      holds itself",
        instead: "list the API groups, resources and verbs that are needed",
        narrower: &[Narrower::Some("apps", &["deployments"], Verbs(0b10_0111))],
        ..Entry::new("risk-r01", "Everything", Critical)
    },
    Entry {
        targets: &[
            target(RBAC, "roles", Verbs::WILDCARD),
            target(RBAC, "rolebindings", Verbs::WILDCARD),
            target(RBAC, "clusterroles", Verbs::WILDCARD).within(Cluster),
            target(RBAC, "clusterrolebindings", Verbs::WILDCARD).within(Cluster),
        ],
        consequence: "allows granting itself every permission {place}: the verb `*` includes escalate and bind",
        instead: "list the verbs",
        narrower: &[Only(READ)],
        element: Element::Verb,
        ..Entry::new("risk-r02", "Every verb on RBAC objects", Critical)
    },
    Entry {
        targets: &[target("", "secrets", READ).fact(Facts::READ_SECRETS)],
        when: "Not limited by `resourceNames`.",
        cluster: Critical,
        system: Some(Critical),
        together: &[Together {
            own: Facts::READ_SECRETS,
            other: Facts::WRITE_SECRETS,
            text: "with write access to Secrets, it can create and read a token of every ServiceAccount",
        }],
        consequence: "allows reading every Secret {place}, among them tokens of other ServiceAccounts; list and watch \
                      return the contents, too",
        instead: "name the Secrets that are needed",
        // With names, list and watch only work for clients that ask for one name.
        narrower: &[Named(Verbs::GET), Named(READ)],
        ..Entry::new("risk-r03", "Read Secrets", High)
    },
    Entry {
        targets: &[target("", "secrets", READ).fact(Facts::READ_NAMED_SECRETS)],
        when: "Limited by `resourceNames`. Not reported where `risk-r03` is.",
        together: &[
            Together {
                own: Facts::READ_NAMED_SECRETS,
                other: Facts::CREATE_SECRETS,
                text: "with create on Secrets, it can create a token of every ServiceAccount under such a name and read it",
            },
            Together {
                own: Facts::CREATE_AND_READ_NAMED,
                other: Facts::CREATE_AND_READ_NAMED,
                text: "with create and patch of the same Secret, it can create and read a token of every ServiceAccount",
            },
        ],
        consequence: "allows reading the contents of the named Secrets",
        instead: "mount the Secret in the pod that needs it, which takes no permission",
        ..Entry::new("risk-r04", "Read named Secrets", Medium)
    },
    Entry {
        targets: &[target("", "secrets", WRITE).fact(Facts::WRITE_SECRETS)],
        when: "With `resourceNames`, `create` alone has no effect; with `patch` of the same names it creates by \
               server-side apply.",
        cluster: Critical,
        system: Some(Critical),
        lower_with_names: true,
        together: &[
            Together {
                own: Facts::WRITE_SECRETS,
                other: Facts::READ_SECRETS,
                text: "with read access to Secrets, it can create and read a token of every ServiceAccount",
            },
            Together {
                own: Facts::CREATE_SECRETS,
                other: Facts::READ_NAMED_SECRETS,
                text: "with get on a Secret, it can create a token of every ServiceAccount under its name and read it",
            },
            Together {
                own: Facts::CREATE_AND_READ_NAMED,
                other: Facts::CREATE_AND_READ_NAMED,
                text: "with get on the same Secret, it can create and read a token of every ServiceAccount",
            },
        ],
        consequence: "allows overwriting credentials {place} that others use; create also makes token Secrets for every \
                      ServiceAccount",
        instead: "limit update and patch to the Secrets that are needed, by name",
        narrower: &[Named(CHANGE)],
        ..Entry::new("risk-r05", "Write Secrets", High)
    },
    Entry {
        targets: &[target("", "pods", Verbs::CREATE).fact(Facts::CREATE_PODS.and(Facts::START_PODS))],
        when: "The pod security level of the namespace is taken as unknown.",
        cluster: Critical,
        system: Some(Critical),
        together: &[
            Together {
                own: Facts::CREATE_PODS,
                other: Facts::READ_LOGS,
                text: "with get on pods/log, it can print every Secret to a log and read it",
            },
            Together {
                own: Facts::CREATE_PODS,
                other: Facts::EXEC,
                text: "with pods/exec, it has a shell with every Secret and every ServiceAccount",
            },
            Together {
                own: Facts::CREATE_PODS,
                other: Facts::CHANGE_NAMESPACE,
                text: "with update or patch of the Namespace, it can lift pod security and run privileged pods",
            },
        ],
        consequence: "allows starting pods with every ServiceAccount, Secret, ConfigMap and volume claim {place}; without \
                      pod security, also with access to the node",
        instead: "let an existing controller create the pods, and grant reading them",
        narrower: &[Only(READ)],
        ..Entry::new("risk-r06", "Create pods", High)
    },
    Entry {
        targets: &[
            workload("apps", "deployments"),
            workload("apps", "daemonsets"),
            workload("apps", "statefulsets"),
            workload("apps", "replicasets"),
            workload("", "replicationcontrollers"),
            workload("batch", "jobs"),
            workload("batch", "cronjobs"),
            workload("extensions", "deployments"),
            workload("extensions", "daemonsets"),
            workload("extensions", "replicasets"),
            workload("argoproj.io", "workflows"),
            workload("argoproj.io", "cronworkflows"),
            workload("tekton.dev", "taskruns"),
            workload("tekton.dev", "pipelineruns"),
            workload("serving.knative.dev", "services"),
            workload("kubevirt.io", "virtualmachines"),
        ],
        lower_with_names: true,
        together: &[Together {
            own: Facts::START_PODS,
            other: Facts::CHANGE_NAMESPACE,
            text: "with update or patch of the Namespace, it can lift pod security and run privileged pods",
        }],
        consequence: "allows the same as creating pods, through their controller: every ServiceAccount and Secret {place}",
        instead: "limit update and patch to the workloads that are deployed, by name",
        narrower: &[Named(CHANGE), Only(READ)],
        ..Entry::new("risk-r07", "Write workloads", High)
    },
    Entry {
        targets: &[target("", "pods", CHANGE)],
        lower_with_names: true,
        consequence: "allows replacing the image of running pods {place}, and so acting as their ServiceAccounts",
        instead: "change the workload that created the pod, by name; or limit it to named pods",
        narrower: &[Named(CHANGE), Only(READ)],
        ..Entry::new("risk-r08", "Change pods", High)
    },
    Entry {
        targets: &[target("", "pods/exec", CONNECT).get_before_1_35().fact(Facts::EXEC)],
        cluster: Critical,
        system: Some(Critical),
        together: &[Together {
            own: Facts::EXEC,
            other: Facts::CREATE_PODS,
            text: "with create on pods, it has a shell with every Secret and every ServiceAccount",
        }],
        when: GET_BEFORE_1_35,
        consequence: "allows running commands in every pod {place}, with its ServiceAccount and everything it mounts",
        instead: "read logs (pods/log); or allow exec in a namespace whose pods have no ServiceAccount token",
        ..Entry::new("risk-r09", "Execute in pods", High)
    },
    Entry {
        targets: &[target("", "pods/attach", CONNECT).get_before_1_35()],
        when: GET_BEFORE_1_35,
        consequence: "allows typing into the main process of every pod {place}, and so acting with its ServiceAccount",
        instead: "read logs (pods/log)",
        ..Entry::new("risk-r10", "Attach to pods", High)
    },
    Entry {
        targets: &[target("", "pods/ephemeralcontainers", CHANGE)],
        consequence: "allows adding a container to every running pod {place}, with its ServiceAccount and network",
        instead: "read logs (pods/log); or debug a copy of the pod in another namespace; or read ephemeral containers only",
        narrower: &[Only(Verbs::GET)],
        ..Entry::new("risk-r11", "Debug containers", High)
    },
    Entry {
        targets: &[
            target("", "pods/portforward", CONNECT).get_before_1_35(),
            target("", "pods/proxy", PROXIED),
            target("", "services/proxy", PROXIED),
        ],
        when: GET_BEFORE_1_35_FORWARD,
        consequence: "allows reaching every port of the pods {place} past network policies, also ports that trust \
                      localhost",
        instead: "expose the one port that is needed with a Service or an Ingress",
        ..Entry::new("risk-r12", "Reach ports of pods", Medium)
    },
    Entry {
        targets: &[target("", "nodes/proxy", PROXIED).within(Cluster)],
        namespaced: None,
        consequence: "allows running commands in every pod of every node through the kubelet; get is enough, and requests \
                      to the kubelet itself appear in no audit log and pass no admission",
        instead: "grant get on nodes/metrics, nodes/stats or nodes/log, which monitoring needs",
        ..Entry::new("risk-r13", "Kubelet API", Critical)
    },
    Entry {
        targets: &[target("", "serviceaccounts/token", Verbs::CREATE)],
        cluster: Critical,
        system: Some(Critical),
        consequence: "allows creating tokens of ServiceAccounts {place}, without a trace in any object",
        instead: "create a credential of its own for each user, with the permissions it needs",
        ..Entry::new("risk-r14", "Create ServiceAccount tokens", High)
    },
    Entry {
        targets: &[
            target("", "users", IMPERSONATE).within(Cluster),
            target("", "groups", IMPERSONATE).within(Cluster),
            target("", "serviceaccounts", IMPERSONATE),
            target(AUTHENTICATION, "uids", IMPERSONATE).within(Cluster),
            target(AUTHENTICATION, "userextras", IMPERSONATE).within(Cluster),
            target(AUTHENTICATION, "users", Verbs::WILDCARD).within(Cluster),
            target(AUTHENTICATION, "groups", Verbs::WILDCARD).within(Cluster),
            target(AUTHENTICATION, "nodes", Verbs::WILDCARD).within(Cluster),
            target(AUTHENTICATION, "serviceaccounts", Verbs::WILDCARD),
        ],
        when: "Also the verbs of constrained impersonation on every resource: `impersonate:MODE` and \
               `impersonate-on:MODE:VERB`.",
        consequence: "allows acting as other identities {place}, and with their permissions",
        instead: "create a credential with the permissions that are needed",
        element: Element::Verb,
        ..Entry::new("risk-r15", "Impersonate", Critical)
    },
    Entry {
        targets: &[target(RBAC, "roles", ESCALATE), target(RBAC, "clusterroles", ESCALATE).within(Cluster)],
        consequence: "allows writing permissions into Roles {place} that it does not hold itself",
        instead: "leave escalate out: without it, a Role can be given what its writer holds",
        narrower: &[Only(READ)],
        element: Element::Verb,
        ..Entry::new("risk-r16", "Escalate", Critical)
    },
    Entry {
        // A RoleBinding is checked in its namespace, also when it refers to a ClusterRole.
        targets: &[target(RBAC, "roles", BIND).fact(Facts::BIND), target(RBAC, "clusterroles", BIND).fact(Facts::BIND)],
        when: "On Roles and ClusterRoles; the verb has no effect on bindings. In a Role it allows binding a ClusterRole in \
               that namespace.",
        consequence: "allows binding Roles {place} with permissions that it does not hold itself, also to itself",
        instead: "leave bind out: without it, a Role can be bound by those who hold its permissions",
        narrower: &[Only(READ)],
        element: Element::Verb,
        ..Entry::new("risk-r17", "Bind", Critical)
    },
    Entry {
        targets: &[
            target(RBAC, "rolebindings", WRITE).fact(Facts::WRITE_BINDINGS),
            target(RBAC, "clusterrolebindings", WRITE).within(Cluster).fact(Facts::WRITE_BINDINGS),
        ],
        cluster: Critical,
        lower_with_names: true,
        together: &[
            Together {
                own: Facts::WRITE_BINDINGS,
                other: Facts::BIND,
                text: "with bind, it can bind every Role to itself",
            },
            Together {
                own: Facts::WRITE_BINDINGS,
                other: Facts::EVERYTHING,
                text: "with everything else, it can pass on full control",
            },
        ],
        consequence: "allows passing on its permissions {place} to others, without review",
        instead: "read bindings; or limit update and patch to one binding, by name",
        narrower: &[Only(READ), Named(CHANGE)],
        ..Entry::new("risk-r18", "Write bindings", High)
    },
    Entry {
        targets: &[target(RBAC, "roles", WRITE), target(RBAC, "clusterroles", WRITE).within(Cluster)],
        lower_with_names: true,
        consequence: "allows adding its own permissions {place} to Roles of others, without review",
        instead: "read Roles; or limit update and patch to one Role, by name",
        narrower: &[Only(READ), Named(CHANGE)],
        ..Entry::new("risk-r19", "Write Roles", High)
    },
    Entry {
        targets: &[
            target(CERTIFICATES, "certificatesigningrequests/approval", CHANGE)
                .within(Cluster)
                .fact(Facts::WRITE_APPROVAL),
            target(CERTIFICATES, "signers", APPROVE).within(Cluster).fact(Facts::APPROVE),
        ],
        when: "Creating a CertificateSigningRequest alone is none.",
        namespaced: None,
        together: &[
            Together {
                own: Facts::WRITE_APPROVAL,
                other: Facts::APPROVE,
                text: "with approve on signers, it can approve requests",
            },
            Together {
                own: Facts::APPROVE,
                other: Facts::WRITE_APPROVAL,
                text: "with write access to approvals, it can approve requests",
            },
            Together {
                own: Facts::WRITE_APPROVAL.and(Facts::APPROVE),
                other: Facts::CREATE_CSR,
                text: "with create on certificatesigningrequests, it can approve its own",
            },
        ],
        consequence: "is one of two permissions that approve client certificates for every user and group; these cannot be \
                      revoked",
        instead: "read certificatesigningrequests, and let a controller or a person approve them",
        narrower: &[Only(READ)],
        ..Entry::new("risk-r20", "Approve certificates", High)
    },
    Entry {
        targets: &[target(CERTIFICATES, "signers", SIGN).within(Cluster).fact(Facts::SIGN)],
        when: "Signers of `kubernetes.io` only.",
        namespaced: None,
        together: &[Together {
            own: Facts::SIGN,
            other: Facts::WRITE_CSR_STATUS,
            text: "with write access to certificatesigningrequests/status, it can issue them",
        }],
        consequence: "is one of two permissions that issue client certificates for every user and group",
        instead: "limit sign to a signer of your own domain, by resourceNames",
        ..Entry::new("risk-r21", "Sign certificates", High)
    },
    Entry {
        targets: &[
            target(ADMISSION, "validatingwebhookconfigurations", Verbs(0b1111_1000)).within(Cluster),
            target(ADMISSION, "mutatingwebhookconfigurations", Verbs(0b1111_1000)).within(Cluster),
            target(ADMISSION, "validatingadmissionpolicies", Verbs(0b1111_1000)).within(Cluster),
            target(ADMISSION, "validatingadmissionpolicybindings", Verbs(0b1111_1000)).within(Cluster),
            target(ADMISSION, "mutatingadmissionpolicies", Verbs(0b1111_1000)).within(Cluster),
            target(ADMISSION, "mutatingadmissionpolicybindings", Verbs(0b1111_1000)).within(Cluster),
        ],
        namespaced: None,
        lower_with_names: true,
        consequence: "allows reading and changing every object that is written in the cluster, Secrets included, or \
                      switching policies off",
        instead: "read them; or limit update and patch to one configuration, by name",
        narrower: &[Only(READ), Named(CHANGE)],
        ..Entry::new("risk-r22", "Write admission webhooks and policies", Critical)
    },
    Entry {
        targets: &[target("", "persistentvolumes", Verbs::CREATE).within(Cluster)],
        namespaced: None,
        consequence: "allows creating a volume of files of a node (hostPath), and so reading and changing them",
        instead: "create PersistentVolumeClaims with a StorageClass, and read volumes only",
        narrower: &[Only(READ)],
        ..Entry::new("risk-r23", "Create volumes", High)
    },
    Entry {
        // The server takes labels from a request for these subresources, too.
        targets: &[
            target("", "namespaces", CHANGE).within(OwnNamespace).fact(Facts::CHANGE_NAMESPACE),
            target("", "namespaces/status", CHANGE).within(OwnNamespace).fact(Facts::CHANGE_NAMESPACE),
            target("", "namespaces/finalize", UPDATE).within(OwnNamespace).fact(Facts::CHANGE_NAMESPACE),
        ],
        when: "In a Role it applies to the Namespace object of its own namespace.",
        lower_with_names: true,
        together: &[Together {
            own: Facts::CHANGE_NAMESPACE,
            other: Facts::START_PODS,
            text: "with create on pods or workloads, it can lift pod security and run privileged pods",
        }],
        consequence: "allows changing labels of a Namespace: its pod security level, and which network policies select it",
        instead: "read the Namespace only",
        narrower: &[Only(READ), Named(CHANGE)],
        ..Entry::new("risk-r24", "Change Namespaces", High)
    },
    Entry {
        targets: &[target("", "configmaps", CHANGE)],
        when: "Critical in `kube-system` only, and cluster-wide, which includes it.",
        cluster: Critical,
        lower_with_names: true,
        consequence: "allows changing configuration {place}; in kube-system that of DNS, kube-proxy and, on EKS, who is \
                      an administrator",
        instead: "limit update and patch to the ConfigMaps that are needed, by name",
        narrower: &[Named(CHANGE), Only(READ)],
        ..Entry::new("risk-r25", "Change ConfigMaps", Low)
    },
    Entry {
        targets: &[
            target("", "nodes", Verbs(0b1111_0000)).within(Cluster).fact(Facts::CHANGE_NODES),
            target("", "nodes/status", CHANGE).within(Cluster).fact(Facts::CHANGE_NODES),
        ],
        when: "`delete` on pods alone is none.",
        namespaced: None,
        together: &[Together {
            own: Facts::CHANGE_NODES,
            other: Facts::DELETE_PODS,
            text: "with delete on pods, it can move pods to a node of its choice at once",
        }],
        consequence: "allows steering pods, with their Secrets, to a node that an attacker controls",
        instead: "read nodes only",
        narrower: &[Only(READ)],
        ..Entry::new("risk-r26", "Change nodes", High)
    },
    Entry {
        targets: &[target("", "pods/status", CHANGE), target("", "services/status", CHANGE).with_level(Low)],
        lower_with_names: true,
        consequence: "allows redirecting traffic {place}, through labels of pods or external addresses of Services",
        instead: "leave the status to its controller, and read it only",
        narrower: &[Only(Verbs::GET), Named(CHANGE)],
        ..Entry::new("risk-r27", "Change status", Medium)
    },
    Entry {
        targets: &[
            target("", "services", WRITE),
            target("", "endpoints", WRITE),
            target("discovery.k8s.io", "endpointslices", WRITE),
            target("networking.k8s.io", "ingresses", WRITE),
            target("networking.k8s.io", "networkpolicies", WRITE),
            target("extensions", "ingresses", WRITE),
            target("extensions", "networkpolicies", WRITE),
            target(GATEWAY, "httproutes", WRITE),
            target(GATEWAY, "grpcroutes", WRITE),
            target(GATEWAY, "tcproutes", WRITE),
            target(GATEWAY, "tlsroutes", WRITE),
            target(GATEWAY, "udproutes", WRITE),
        ],
        lower_with_names: true,
        consequence: "allows redirecting, exposing or cutting off traffic {place}",
        instead: "limit update and patch to the objects that are deployed, by name",
        narrower: &[Named(CHANGE), Only(READ)],
        ..Entry::new("risk-r28", "Write Services and routes", Medium)
    },
    Entry {
        targets: &[target("", "events", REMOVE), target("events.k8s.io", "events", REMOVE)],
        consequence: "allows hiding traces: deleted events cannot be read again",
        instead: "read events only",
        narrower: &[Only(READ)],
        ..Entry::new("risk-r29", "Delete events", Medium)
    },
    Entry {
        targets: &[target("", "pods/log", Verbs::GET).fact(Facts::READ_LOGS)],
        together: &[Together {
            own: Facts::READ_LOGS,
            other: Facts::CREATE_PODS,
            text: "with create on pods, it can print every Secret to a log and read it",
        }],
        consequence: "allows reading whatever applications print {place}, which is sometimes a secret",
        instead: "limit it to namespaces whose applications print no secrets",
        ..Entry::new("risk-r30", "Read logs", Low)
    },
    Entry {
        targets: &[
            target("apiextensions.k8s.io", "customresourcedefinitions", WRITE).within(Cluster),
            target("apiregistration.k8s.io", "apiservices", WRITE).within(Cluster),
        ],
        namespaced: None,
        lower_with_names: true,
        consequence: "allows adding APIs to the cluster: an aggregated API server receives requests of other users",
        instead: "read them; or limit update and patch to the ones that are deployed, by name",
        narrower: &[Named(CHANGE), Only(READ)],
        ..Entry::new("risk-r31", "Write APIs", High)
    },
    Entry {
        targets: &[target("", "serviceaccounts", WRITE).fact(Facts::WRITE_SERVICE_ACCOUNTS)],
        when: "The cloud of the cluster is taken as unknown.",
        lower_with_names: true,
        together: &[Together {
            own: Facts::WRITE_SERVICE_ACCOUNTS,
            other: Facts::CREATE_PODS,
            text: "with create on pods, it can run a pod with a role of the cloud",
        }],
        consequence: "allows linking ServiceAccounts {place} to roles of the cloud, through annotations",
        instead: "limit update and patch to the ServiceAccounts that are deployed, by name",
        narrower: &[Named(CHANGE), Only(READ)],
        ..Entry::new("risk-r32", "Write ServiceAccounts", Medium)
    },
    Entry {
        targets: &[
            target("external-secrets.io", "secretstores", READ),
            target("external-secrets.io", "clustersecretstores", READ).within(Cluster),
            target("bitnami.com", "sealedsecrets", READ),
            target("argoproj.io", "applications", READ.with(WRITE)),
            target("kustomize.toolkit.fluxcd.io", "kustomizations", WRITE),
            target("helm.toolkit.fluxcd.io", "helmreleases", WRITE),
        ],
        consequence: "allows reading credentials in custom resources {place}, or letting a controller with more \
                      permissions act on its behalf",
        instead: "read such objects only where they contain no credential, and change them through the repository that \
                  the controller follows",
        narrower: &[Only(READ)],
        ..Entry::new("risk-r33", "Custom resources with credentials or power", High)
    },
    Entry {
        when: "API group `*` with resources that are listed.",
        consequence: "allows the same on resources of this name in every API group, also of those that are installed later",
        instead: "list the API groups",
        narrower: &[OneGroup],
        ..Entry::new("risk-r35", "Every API group", Medium)
    },
    Entry {
        when: "Resource `*` with any verb. High in the core group and in API group `*`, medium in others.",
        otherwise: Some(Medium),
        consequence: "allows the same on every resource of the API group, now and later, and on every subresource, such \
                      as exec, proxy and token",
        instead: "list the resources",
        narrower: &[
            Narrower::Some("", &["configmaps", "events", "pods", "services"], READ),
            Narrower::Some("apps", &["daemonsets", "deployments", "statefulsets"], READ),
            Narrower::Some("batch", &["cronjobs", "jobs"], READ),
            Narrower::Some("networking.k8s.io", &["ingresses", "networkpolicies"], READ),
        ],
        ..Entry::new("risk-r36", "Every resource of a group", High)
    },
    Entry {
        when: "`deletecollection`, listed or as part of `*`; not with `resourceNames`, with which it has no effect.",
        consequence: "allows deleting all objects of a kind {place} with one request",
        instead: "leave deletecollection out: delete removes one object at a time",
        narrower: &[Without(Verbs::DELETECOLLECTION.with(Verbs::WILDCARD)), Only(READ)],
        element: Element::Verb,
        ..Entry::new("risk-r37", "Delete all objects", Medium)
    },
];

/// API groups of resources that are often listed with API group `*`.
pub(super) const USUAL_GROUPS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "namespaces",
            "nodes",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
            "replicationcontrollers",
            "resourcequotas",
            "serviceaccounts",
            "services",
        ],
    ),
    ("apps", &["controllerrevisions", "daemonsets", "deployments", "replicasets", "statefulsets"]),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
    ("rbac.authorization.k8s.io", &["clusterrolebindings", "clusterroles", "rolebindings", "roles"]),
];

/// Resources that are not in a namespace: deletecollection has no effect on them in a Role.
pub(super) const CLUSTER_SCOPED: &[(&str, &[&str])] = &[
    ("", &["componentstatuses", "namespaces", "nodes", "persistentvolumes"]),
    (
        ADMISSION,
        &[
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
            "mutatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "validatingwebhookconfigurations",
        ],
    ),
    ("apiextensions.k8s.io", &["customresourcedefinitions"]),
    ("apiregistration.k8s.io", &["apiservices"]),
    (CERTIFICATES, &["certificatesigningrequests", "clustertrustbundles", "signers"]),
    ("flowcontrol.apiserver.k8s.io", &["flowschemas", "prioritylevelconfigurations"]),
    ("networking.k8s.io", &["ingressclasses", "ipaddresses", "servicecidrs"]),
    ("node.k8s.io", &["runtimeclasses"]),
    (RBAC, &["clusterrolebindings", "clusterroles"]),
    ("resource.k8s.io", &["deviceclasses", "devicetaintrules", "resourceslices"]),
    ("scheduling.k8s.io", &["priorityclasses"]),
    ("storage.k8s.io", &["csidrivers", "csinodes", "storageclasses", "volumeattachments", "volumeattributesclasses"]),
];
