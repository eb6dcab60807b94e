//! A real control plane: etcd, kube-apiserver and kube-controller-manager on loopback, with RBAC, RS256 tokens and an
//! audit log, and the functions with which tests arrange and assert. Uses child processes, a temporary directory and
//! loopback.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::audit::{Audit, POLICY};
use crate::binaries::{Binaries, tail};
use crate::error::{Doing, Error, OrFail, fail};
use crate::helm::release_document;
use crate::persona::{Grant, Persona, Rights, kubeconfig};
use crate::pki::{self, Authority, ClientCertificate};
use crate::processes::{Component, Processes};
use crate::rest::{Client, Response};
use crate::rsa;
use crate::wait::{PATIENCE, poll};

/// The namespace of the personas' ServiceAccounts.
const PERSONAS: &str = "testbed-personas";
/// Attempts to start on a free port: another program can take it in between.
const PORT_TRIES: usize = 5;

/// Differences from the default control plane.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A folder `versions/k8s-<version>`, as `1.34`. Without it: `K8S_TOKEN_TESTBED_VERSION`, else the default.
    pub version: Option<String>,
    /// No token controller: token Secrets stay empty.
    pub no_token_controller: bool,
    /// ServiceAccount tokens are signed with EC P-256, whose signatures differ every time, instead of RSA.
    pub ec_key: bool,
    /// The limit of concurrent requests of the API server, for reads and writes each; further ones are answered with
    /// 429. The default is far above what tests need.
    pub requests_at_once: Option<u32>,
    /// The value of `--authorization-mode`. Default: `Node,RBAC`.
    pub authorization_mode: Option<String>,
    /// More arguments for kube-apiserver; they override those of the same name.
    pub api_server_arguments: Vec<String>,
    /// More arguments for kube-controller-manager.
    pub controller_arguments: Vec<String>,
}

/// A running control plane. It and its files are removed on drop, and when this process ends.
pub struct ControlPlane {
    // Dropped in this order: components, then the group and the directory.
    controllers: Mutex<Component>,
    api_server: Component,
    etcd: Mutex<Component>,
    processes: Processes,
    binaries: Binaries,
    authority: Authority,
    ca_pem: String,
    server: String,
    version: String,
    controller_arguments: Vec<String>,
    masters: Client,
    anybody: Client,
    audit: Audit,
    admin: Persona,
    counter: AtomicUsize,
    ready_after: Duration,
}

/// Files that are written before the first start.
struct Files {
    authority: Authority,
    ca_pem: String,
    masters: ClientCertificate,
    controllers: ClientCertificate,
}

impl ControlPlane {
    /// The control plane of this test binary, started on first use. Panics if it cannot start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<ControlPlane, Error>> = OnceLock::new();
        match SHARED.get_or_init(|| Self::start(&Options::default())) {
            Ok(control_plane) => control_plane,
            Err(cause) => fail(cause),
        }
    }

    /// A separate control plane.
    ///
    /// # Errors
    /// If there are no binaries and they cannot be built, or if a component does not start.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let binaries = Binaries::find_or_build(options.version.as_deref())?;
        let start = Instant::now();
        let processes = Processes::new()?;
        let mut etcd = start_etcd(&processes, &binaries)?;
        let files = Files::write(processes.directory(), options.ec_key)?;
        await_etcd(&mut etcd, &processes.directory().join("etcd.sock"))?;
        let (api_server, server, masters) = start_api_server(&processes, &binaries, &files, options)?;

        let ca = STANDARD.encode(&files.ca_pem);
        let identity = json!({
            "client-certificate-data": STANDARD.encode(&files.controllers.certificate),
            "client-key-data": STANDARD.encode(&files.controllers.key),
        });
        let controller_config = kubeconfig(&server, &ca, &identity).to_string();
        write(processes.directory(), "controllers.kubeconfig", &controller_config)?;
        let controller_arguments = controller_arguments(processes.directory(), options);
        let controllers =
            processes.start("kube-controller-manager", &binaries.controller_manager, &controller_arguments)?;

        let mut control_plane = Self {
            audit: Audit::new(processes.directory().join("audit.log")),
            anybody: Client::new(&server, &files.ca_pem, None)?,
            admin: Persona { user: String::new(), token: String::new(), server: server.clone(), ca },
            controllers: Mutex::new(controllers),
            api_server,
            etcd: Mutex::new(etcd),
            processes,
            binaries,
            authority: files.authority,
            ca_pem: files.ca_pem,
            server,
            version: String::new(),
            controller_arguments,
            masters,
            counter: AtomicUsize::new(1),
            ready_after: Duration::ZERO,
        };
        control_plane.settle(!options.no_token_controller)?;
        control_plane.ready_after = start.elapsed();
        Ok(control_plane)
    }

    /// Creates the first objects, and waits until the controllers work.
    fn settle(&mut self, token_controller: bool) -> Result<(), Error> {
        let version = self.expect("GET", "/version", None)?;
        let version = version["gitVersion"].as_str().unwrap_or_default();
        version.clone_into(&mut self.version);
        let namespace = json!({"metadata": {"name": PERSONAS}});
        self.expect("POST", "/api/v1/namespaces", Some(&namespace))?;
        self.admin = self.make_persona("admin", &[Grant::cluster_role("cluster-admin")])?;

        let account = format!("/api/v1/namespaces/{PERSONAS}/serviceaccounts/default");
        self.await_controllers("the first ServiceAccount", &account, "/metadata/uid")?;
        if !token_controller {
            return Ok(());
        }
        let secrets = format!("/api/v1/namespaces/{PERSONAS}/secrets");
        let canary = json!({
            "metadata": {"name": "canary", "annotations": {"kubernetes.io/service-account.name": "default"}},
            "type": "kubernetes.io/service-account-token",
        });
        self.expect("POST", &secrets, Some(&canary))?;
        let canary = format!("{secrets}/canary");
        self.await_controllers("the first token", &canary, "/data/token")?;
        self.expect("DELETE", &canary, None)?;
        Ok(())
    }

    fn await_controllers(&self, what: &str, path: &str, pointer: &str) -> Result<(), Error> {
        let found = poll(PATIENCE, || {
            self.controllers().check()?;
            let answer = self.masters.send("GET", path, None, None)?;
            Ok(answer.body.pointer(pointer).map(drop))
        })?;
        found.ok_or_else(|| self.controllers().late(what))
    }

    fn controllers(&self) -> MutexGuard<'_, Component> {
        self.controllers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn etcd(&self) -> MutexGuard<'_, Component> {
        self.etcd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `https://127.0.0.1:<port>`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The CA of the server's certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Base64 of the CA's PEM, as `certificate-authority-data` has it.
    pub fn ca_base64(&self) -> &str {
        &self.admin.ca
    }

    /// The version that the server reports, as `v1.37.2`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The duration of the start, without building binaries.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// A user bound to ClusterRole `cluster-admin`: all permissions, but by RBAC, unlike `system:masters`.
    pub fn admin(&self) -> &Persona {
        &self.admin
    }

    /// A name that is unique in this control plane.
    pub(crate) fn unique(&self, stem: &str) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{stem}-{number}")
    }

    /// A new namespace, with the objects that controllers create in it.
    pub fn namespace(&self, stem: &str) -> String {
        let name = self.unique(stem);
        self.post("/api/v1/namespaces", &json!({"metadata": {"name": name}}));
        // A test that compares two states must not see late objects. Limited, because the controllers may be frozen or
        // killed.
        for arrival in ["serviceaccounts/default", "configmaps/kube-root-ca.crt"] {
            let path = format!("/api/v1/namespaces/{name}/{arrival}");
            let _ = poll(Duration::from_secs(1), || Ok(self.get(&path)));
        }
        name
    }

    /// The name of a namespace that does not exist.
    pub fn unused_namespace(&self, stem: &str) -> String {
        self.unique(stem)
    }

    /// A new user with exactly these permissions (and those of every user: discovery and reviews of itself). Returns
    /// when the server's caches contain them.
    pub fn persona(&self, stem: &str, grants: &[Grant]) -> Persona {
        let name = self.unique(stem);
        self.make_persona(&name, grants).or_fail(format_args!("making persona {name}"))
    }

    fn make_persona(&self, name: &str, grants: &[Grant]) -> Result<Persona, Error> {
        let accounts = format!("/api/v1/namespaces/{PERSONAS}/serviceaccounts");
        let account = json!({"metadata": {"name": name}});
        self.expect("POST", &accounts, Some(&account))?;
        let ask = json!({"spec": {"expirationSeconds": 90 * 86400}});
        let answer = self.expect("POST", &format!("{accounts}/{name}/token"), Some(&ask))?;
        let token = answer["status"]["token"].as_str().unwrap_or_default();
        let persona = Persona {
            user: format!("system:serviceaccount:{PERSONAS}:{name}"),
            token: token.to_owned(),
            server: self.admin.server.clone(),
            ca: self.admin.ca.clone(),
        };
        for (number, grant) in grants.iter().enumerate() {
            self.grant(&persona, &format!("testbed-{name}-{number}"), name, grant)?;
        }
        Ok(persona)
    }

    fn grant(&self, persona: &Persona, name: &str, account: &str, grant: &Grant) -> Result<(), Error> {
        let api = "/apis/rbac.authorization.k8s.io/v1";
        let (base, kind) = match &grant.namespace {
            Some(namespace) => (format!("{api}/namespaces/{namespace}"), "Role"),
            None => (api.to_owned(), "ClusterRole"),
        };
        let plural = kind.to_lowercase();
        let (role_kind, role) = match &grant.rights {
            Rights::ClusterRole(existing) => ("ClusterRole", existing.as_str()),
            Rights::Rules(rules) => {
                let role = json!({"metadata": {"name": name}, "rules": rules});
                self.expect("POST", &format!("{base}/{plural}s"), Some(&role))?;
                (kind, name)
            }
        };
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
            "subjects": [{"kind": "ServiceAccount", "namespace": PERSONAS, "name": account}],
        });
        self.expect("POST", &format!("{base}/{plural}bindings"), Some(&binding))?;
        let stored = match &grant.rights {
            Rights::Rules(rules) => rules.clone(),
            Rights::ClusterRole(existing) => {
                // A server without RBAC does not create the default roles.
                let role = self.masters.send("GET", &format!("{api}/clusterroles/{existing}"), None, None)?;
                role.body["rules"].as_array().cloned().unwrap_or_default()
            }
        };
        self.await_right(persona, grant.namespace.as_deref(), &stored)
    }

    /// The server's RBAC authorizer uses a cache that is some milliseconds behind.
    fn await_right(&self, persona: &Persona, namespace: Option<&str>, rules: &[Value]) -> Result<(), Error> {
        let Some(rule) = rules.iter().find(|rule| rule["resources"].is_array()) else {
            return Ok(());
        };
        let first = |list: &str| rule[list][0].as_str().unwrap_or_default().to_owned();
        let (resource, subresource) = match first("resources").split_once('/') {
            Some((resource, sub)) => (resource.to_owned(), sub.to_owned()),
            None => (first("resources"), String::new()),
        };
        let question = json!({"spec": {
            "user": persona.user,
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{PERSONAS}"), "system:authenticated"],
            "resourceAttributes": {
                "namespace": namespace.unwrap_or_default(),
                "verb": first("verbs"),
                "group": first("apiGroups"),
                "resource": resource,
                "subresource": subresource,
                "name": first("resourceNames"),
            },
        }});
        let allowed = poll(PATIENCE, || {
            let answer = self.expect("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", Some(&question))?;
            Ok((answer["status"]["allowed"] == true).then_some(()))
        })?;
        allowed.ok_or_else(|| self.api_server.late(&format!("the granting of {rule} to {}", persona.user)))
    }

    /// A certificate for another server on loopback that clients take for this one.
    pub(crate) fn server_certificate(&self) -> Result<ClientCertificate, Error> {
        self.authority.server()
    }

    /// The cluster's CA for forged certificates: its own certificate, and its signing key.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A certificate for a user in at most two groups.
    pub fn client_certificate(&self, user: &str, groups: &[&str]) -> ClientCertificate {
        self.authority.client(user, groups).or_fail("making a client certificate")
    }

    /// The object at a path, `None` if there is none. As `system:masters`, like the following methods.
    #[track_caller]
    pub fn get(&self, path: &str) -> Option<Value> {
        let answer = self.masters.send("GET", path, None, None).or_fail("asking");
        match answer.status {
            200 => Some(answer.body),
            404 => None,
            status => fail(format_args!("GET {path}: {status} {}", answer.text)),
        }
    }

    /// Aggregated discovery of the core group and of all others: two lists of kind `APIGroupDiscoveryList`.
    #[track_caller]
    pub fn discovery(&self) -> [Value; 2] {
        const ACCEPTED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        ["/api", "/apis"].map(|path| {
            self.masters.send_accepting(ACCEPTED, "GET", path, None, None).or_fail("discovering resources").body
        })
    }

    /// Creates an object; returns what was stored.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Value {
        self.expect("POST", path, Some(body)).or_fail("creating")
    }

    /// Replaces an object; returns what was stored.
    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Value {
        self.expect("PUT", path, Some(body)).or_fail("replacing")
    }

    /// Changes an object by a JSON merge patch; returns what was stored.
    #[track_caller]
    pub fn merge_patch(&self, path: &str, body: &Value) -> Value {
        self.expect("PATCH", path, Some(body)).or_fail("patching")
    }

    /// Deletes an object; returns the response, `None` if there was none.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Option<Value> {
        let answer = self.masters.send("DELETE", path, None, None);
        let answer = answer.or_fail("deleting");
        match answer.status {
            200..300 => Some(answer.body),
            404 => None,
            status => fail(format_args!("DELETE {path}: {status} {}", answer.text)),
        }
    }

    /// Any request with any token (none: anonymous); every status is returned. For example to test whether an issued
    /// token still works.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, bearer_token: Option<&str>, body: Option<&Value>) -> Response {
        self.anybody.send(method, path, bearer_token, body).or_fail("asking")
    }

    fn expect(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let answer = self.masters.send(method, path, None, body)?;
        if (200..300).contains(&answer.status) {
            return Ok(answer.body);
        }
        let (status, text) = (answer.status, answer.text);
        Err(Error::new(format!("{method} {path}: {status} {text}")))
    }

    /// Runs the real kubectl with a kubeconfig, without the caller's environment.
    pub fn kubectl(&self, kubeconfig: &Path, arguments: &[&str]) -> Output {
        Command::new(self.kubectl_path())
            .args(arguments)
            .env_clear()
            .env("HOME", self.directory())
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .output()
            .or_fail("running kubectl")
    }

    /// The kubectl binary of the same release.
    pub fn kubectl_path(&self) -> &Path {
        &self.binaries.kubectl
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The temporary directory of this control plane.
    pub fn directory(&self) -> &Path {
        self.processes.directory()
    }

    /// The log of each component, by name.
    pub fn logs(&self) -> Vec<(&'static str, PathBuf)> {
        let controllers = self.controllers();
        let etcd = self.etcd();
        [&*etcd, &self.api_server, &controllers]
            .map(|component| (component.name(), component.log().to_owned()))
            .to_vec()
    }

    /// The process id of each component, by name.
    pub fn process_ids(&self) -> Vec<(&'static str, u32)> {
        let controllers = self.controllers();
        let etcd = self.etcd();
        [&*etcd, &self.api_server, &controllers].map(|component| (component.name(), component.id())).to_vec()
    }

    /// Stops etcd (SIGSTOP): the API server has no storage. This affects every test that shares this control plane.
    pub fn freeze_storage(&self) {
        self.etcd().signal("STOP").or_fail("freezing etcd");
    }

    /// Resumes etcd.
    pub fn thaw_storage(&self) {
        self.etcd().signal("CONT").or_fail("thawing etcd");
    }

    /// Stops the controllers (SIGSTOP). This affects every test that shares this control plane.
    pub fn freeze_controllers(&self) {
        self.controllers().signal("STOP").or_fail("freezing");
    }

    /// Resumes the controllers.
    pub fn thaw_controllers(&self) {
        self.controllers().signal("CONT").or_fail("thawing");
    }

    /// Kills the controllers.
    pub fn kill_controllers(&self) {
        self.controllers().kill();
    }

    /// Starts controllers again after [`Self::kill_controllers`].
    pub fn start_controllers(&self) {
        let mut controllers = self.controllers();
        controllers.kill();
        *controllers = self
            .processes
            .start("kube-controller-manager", &self.binaries.controller_manager, &self.controller_arguments)
            .or_fail("starting the controllers again");
    }

    /// Every object of every listable resource, as text: the JSON of the server, and in addition the decoded values of
    /// Secrets, with those of Helm releases unpacked. Other compressed or encoded content of a Secret stays as it is.
    pub fn dump_everything(&self) -> String {
        let mut dump = String::new();
        for (api, resource) in self.listable() {
            let path = format!("{api}/{resource}");
            // Some resources cannot be listed in spite of discovery (a 405 of an aggregated API, for example).
            let Some(list) = self.masters.send("GET", &path, None, None).ok() else {
                continue;
            };
            dump.push_str(&path);
            dump.push('\n');
            dump.push_str(&list.text);
            dump.push('\n');
            if resource == "secrets" {
                for secret in list.body["items"].as_array().into_iter().flatten() {
                    let values = secret["data"].as_object().into_iter().flat_map(serde_json::Map::values);
                    let values = values.map(|value| STANDARD.decode(value.as_str().unwrap_or_default()));
                    let release = (secret["type"] == "helm.sh/release.v1").then(|| release_document(secret).ok());
                    for value in values.flatten().chain(release.flatten()) {
                        dump.push_str(&String::from_utf8_lossy(&value));
                        dump.push('\n');
                    }
                }
            }
        }
        dump
    }

    /// Resources with the verb `list`, as (path of the API version, plural name).
    fn listable(&self) -> Vec<(String, String)> {
        let mut apis = vec!["/api/v1".to_owned()];
        let groups = self.get("/apis").unwrap_or_default();
        for group in groups["groups"].as_array().into_iter().flatten() {
            let version = group["preferredVersion"]["groupVersion"].as_str();
            apis.extend(version.map(|version| format!("/apis/{version}")));
        }
        let mut found = Vec::new();
        for api in apis {
            let resources = self.get(&api).unwrap_or_default();
            for resource in resources["resources"].as_array().into_iter().flatten() {
                let verbs = resource["verbs"].as_array().into_iter().flatten();
                if let Some(name) = resource["name"].as_str()
                    && verbs.into_iter().any(|verb| verb == "list")
                {
                    found.push((api.clone(), name.to_owned()));
                }
            }
        }
        found
    }
}

impl Files {
    /// Keys, certificates and the audit policy, on disk because the components read files.
    fn write(directory: &Path, ec_key: bool) -> Result<Self, Error> {
        let signing_key = thread::spawn(move || if ec_key { pki::ec_key() } else { Ok(rsa::generate()) });
        let authority = Authority::new("testbed")?;
        let server = authority.server()?;
        let ca_pem = authority.pem();
        write(directory, "ca.crt", &ca_pem)?;
        write(directory, "apiserver.crt", &server.certificate)?;
        write(directory, "apiserver.key", &server.key)?;
        write(directory, "audit.yaml", POLICY)?;
        let masters = authority.client("testbed", &["system:masters"])?;
        let controllers = authority.client("system:kube-controller-manager", &[])?;
        let signing_key = signing_key.join().map_err(|_| Error::new("making the signing key failed"))??;
        write(directory, "sa.key", &signing_key)?;
        Ok(Self { authority, ca_pem, masters, controllers })
    }
}

fn write(directory: &Path, name: &str, text: &str) -> Result<(), Error> {
    let path = directory.join(name);
    fs::write(&path, text).doing(format_args!("writing {}", path.display()))
}

fn start_etcd(processes: &Processes, binaries: &Binaries) -> Result<Component, Error> {
    let directory = processes.directory().display();
    let arguments = [
        "--name=testbed".to_owned(),
        "--initial-cluster=testbed=http://127.0.0.1:0".to_owned(),
        "--initial-advertise-peer-urls=http://127.0.0.1:0".to_owned(),
        format!("--data-dir={directory}/etcd"),
        // A socket in the temporary directory needs no port that another program could take.
        format!("--listen-client-urls=unix://{directory}/etcd.sock"),
        "--advertise-client-urls=http://127.0.0.1:1".to_owned(), // required, but never contacted
        "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    processes.start("etcd", &binaries.etcd, &arguments)
}

fn await_etcd(etcd: &mut Component, socket: &Path) -> Result<(), Error> {
    let open = poll(PATIENCE, || {
        etcd.check()?;
        Ok(UnixStream::connect(socket).ok())
    })?;
    open.map(drop).ok_or_else(|| etcd.late("the opening of etcd's socket"))
}

fn start_api_server(
    processes: &Processes,
    binaries: &Binaries,
    files: &Files,
    options: &Options,
) -> Result<(Component, String, Client), Error> {
    let mut tries = PORT_TRIES;
    loop {
        tries -= 1;
        let port = free_port()?;
        let server = format!("https://127.0.0.1:{port}");
        let masters = Client::new(&server, &files.ca_pem, Some(&files.masters))?;
        let arguments = api_server_arguments(processes.directory(), port, options);
        let mut component = processes.start("kube-apiserver", &binaries.api_server, &arguments)?;
        match await_api_server(&mut component, &masters) {
            Ok(()) => return Ok((component, server, masters)),
            Err(_) if tries > 0 && tail(component.log()).contains("address already in use") => {}
            Err(cause) => return Err(cause),
        }
    }
}

fn await_api_server(component: &mut Component, client: &Client) -> Result<(), Error> {
    let ready = poll(PATIENCE, || {
        component.check()?;
        // Refused at first, then a list of checks.
        let answer = client.send("GET", "/readyz", None, None).ok();
        Ok(answer.filter(|answer| answer.text == "ok"))
    })?;
    ready.map(drop).ok_or_else(|| component.late("the answer \"ok\" on /readyz"))
}

fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").doing("looking for a free port")?;
    let address = listener.local_addr().doing("looking for a free port")?;
    Ok(address.port())
}

fn api_server_arguments(directory: &Path, port: u16, options: &Options) -> Vec<String> {
    let directory = directory.display();
    let mut arguments = vec![
        format!("--etcd-servers=unix://{directory}/etcd.sock"),
        "--bind-address=127.0.0.1".to_owned(),
        // Without it a machine without a default route has no address to advertise; and the other reconcilers refuse an
        // advertised loopback address.
        "--advertise-address=127.0.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--secure-port={port}"),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        format!("--authorization-mode={}", options.authorization_mode.as_deref().unwrap_or("Node,RBAC")),
        format!("--client-ca-file={directory}/ca.crt"),
        format!("--tls-cert-file={directory}/apiserver.crt"),
        format!("--tls-private-key-file={directory}/apiserver.key"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={directory}/sa.key"),
        format!("--service-account-signing-key-file={directory}/sa.key"),
        format!("--audit-policy-file={directory}/audit.yaml"),
        format!("--audit-log-path={directory}/audit.log"),
        "--audit-log-mode=blocking".to_owned(), // written before the response is sent
        "--audit-log-maxsize=100000".to_owned(), // MB; an offset would be invalid after a rotation
        "--profiling=false".to_owned(),
    ];
    if let Some(most) = options.requests_at_once {
        // API priority and fairness would queue the requests instead.
        arguments.push("--enable-priority-and-fairness=false".to_owned());
        arguments.push(format!("--max-requests-inflight={most}"));
        arguments.push(format!("--max-mutating-requests-inflight={most}"));
    }
    arguments.extend(options.api_server_arguments.iter().cloned());
    arguments
}

fn controller_arguments(directory: &Path, options: &Options) -> Vec<String> {
    let directory = directory.display();
    // The names from before 1.28, which later releases accept, too.
    let mut controllers = "serviceaccount,namespace,root-ca-cert-publisher,clusterrole-aggregation,\
                           legacy-service-account-token-cleaner,garbagecollector"
        .to_owned();
    let mut arguments = vec![
        format!("--kubeconfig={directory}/controllers.kubeconfig"),
        "--use-service-account-credentials=true".to_owned(), // separate RBAC permissions for each controller, as in most clusters
        format!("--root-ca-file={directory}/ca.crt"),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--kube-api-qps=200".to_owned(), // with the default of 20, tests would wait for each other
        "--kube-api-burst=400".to_owned(),
    ];
    if !options.no_token_controller {
        // With this file, Kubernetes 1.36 and later start the token controller whatever the list says.
        controllers.push_str(",serviceaccount-token");
        arguments.push(format!("--service-account-private-key-file={directory}/sa.key"));
    }
    arguments.push(format!("--controllers={controllers}"));
    arguments.extend(options.controller_arguments.iter().cloned());
    arguments
}
