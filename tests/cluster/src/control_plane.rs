//! A Kubernetes control plane as a set of plain processes, which can be stopped and started separately.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::{Api, Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::Mutex;

use crate::component::{Component, Launch};
use crate::fault_proxy::FaultProxy;
use crate::kubeconfig::{Identity, Kubeconfig};
use crate::pki::{Authority, KeyPairPem, write_service_account_key};
use crate::ports;
use crate::programs::Programs;

/// Long enough for a busy machine. Nothing waits this long without an error.
const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(50);

/// The components of a control plane besides etcd, the API server and the controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// None. Deployments create pods, but no pod runs.
    WithoutNodes,
    /// The scheduler and one node. Its pods are Running at once, without containers.
    Full,
}

/// A control plane. Dropping it kills its processes; [`stop`](Self::stop) ends them in order.
pub struct ControlPlane {
    name: String,
    dir: PathBuf,
    programs: Programs,
    authority: Authority,
    admin: KeyPairPem,
    url: String,
    kubeconfig: PathBuf,
    etcd_url: String,
    apiserver_port: u16,
    // In the order in which they end: dependents first.
    others: Mutex<Vec<Component>>,
    controllers: Mutex<Option<Component>>,
    apiserver: Mutex<Option<Component>>,
    etcd: Mutex<Option<Component>>,
}

impl ControlPlane {
    /// Starts it in `dir`, and returns when it serves and, with [`Shape::Full`], its node is Ready.
    pub async fn start(programs: &Programs, dir: &Path, name: &str, shape: Shape) -> Result<Self> {
        let plane = Self::prepare(programs, dir, name)?;
        *plane.etcd.lock().await = Some(plane.launch_etcd()?);
        // The API server waits for etcd by itself.
        Box::pin(plane.start_apiserver()).await?;
        Box::pin(plane.start_controllers()).await?;
        if shape == Shape::Full {
            plane.add(plane.launch_scheduler()?).await;
            plane.add_node(&format!("{name}-node-1")).await?;
        }
        // Pods and many controllers need it, and only the controllers create it.
        plane
            .wait_for("the default service account", |client| {
                async move {
                    Ok(Api::<ServiceAccount>::namespaced(client, "default")
                        .get_opt("default")
                        .await?
                        .is_some())
                }
                .boxed()
            })
            .await?;
        Ok(plane)
    }

    fn prepare(programs: &Programs, dir: &Path, name: &str) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let authority = Authority::new(&format!("{name} CA"))?;
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let serving = authority.server("kube-apiserver", &names)?;
        for (file, text) in [
            ("ca.crt", authority.ca_pem()),
            ("ca.key", authority.key_pem()),
            ("apiserver.crt", &serving.certificate),
            ("apiserver.key", &serving.key),
        ] {
            std::fs::write(dir.join(file), text)?;
        }
        write_service_account_key(dir)?;
        let apiserver_port = ports::free()?;
        let url = format!("https://127.0.0.1:{apiserver_port}");
        let admin = authority.client("kubernetes-admin", Some("system:masters"))?;
        let kubeconfig = Kubeconfig::new()
            .context(name, &url, authority.ca_pem(), &Identity::Certificate(admin.clone()))
            .write(dir.join("admin.kubeconfig"))?;
        Ok(Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            programs: programs.clone(),
            authority,
            admin,
            url,
            kubeconfig,
            etcd_url: format!("http://127.0.0.1:{}", ports::free()?),
            apiserver_port,
            others: Mutex::default(),
            controllers: Mutex::default(),
            apiserver: Mutex::default(),
            etcd: Mutex::default(),
        })
    }

    /// `management-secret`, `downstream`. This is also the name of its context in the kubeconfig.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The API server's base URL, without a path.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A kubeconfig file of `system:masters`, by client certificate.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The authority that signs server and client certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The client certificate in [`kubeconfig`](Self::kubeconfig).
    pub fn admin(&self) -> &KeyPairPem {
        &self.admin
    }

    /// The directory of certificates, data and logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A client of `system:masters`. A client belongs to the runtime that created it, so every test creates its own.
    pub async fn client(&self) -> Result<Client> {
        crate::kubeconfig::client(&self.kubeconfig).await
    }

    /// A client with a bearer token, at the URL of one of the API servers. It does not retry.
    pub fn client_with_token(&self, url: &str, token: &str) -> Result<Client> {
        let mut config = Config::new(url.parse()?);
        config.root_cert = Some(vec![
            CertificateDer::from_pem_slice(self.authority.ca_pem().as_bytes())?.to_vec(),
        ]);
        config.default_retry = false;
        config.auth_info.token = Some(token.to_owned().into());
        Ok(Client::try_from(config)?)
    }

    /// Creates a namespace whose name begins with `prefix`, for one test.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let mut namespace = Namespace::default();
        namespace.metadata.generate_name = Some(format!("{prefix}-"));
        let made = Api::all(self.client().await?)
            .create(&kube::api::PostParams::default(), &namespace)
            .await?;
        made.metadata.name.context("the API server gave the namespace no name")
    }

    /// Stops the API server in order, but does not wait for open watches. etcd and the controllers keep running.
    pub async fn stop_apiserver(&self) {
        if let Some(apiserver) = self.apiserver.lock().await.take() {
            // It stops listening at once. Then it would wait a minute for open watches.
            apiserver.terminate(Duration::from_secs(1)).await;
        }
    }

    /// Kills the API server, like a crash.
    pub async fn kill_apiserver(&self) {
        if let Some(apiserver) = self.apiserver.lock().await.take() {
            apiserver.kill().await;
        }
    }

    /// Starts the API server again on the same port, and returns when it is ready.
    pub async fn start_apiserver(&self) -> Result<()> {
        {
            let mut apiserver = self.apiserver.lock().await;
            if apiserver.is_none() {
                *apiserver = Some(self.launch_apiserver("kube-apiserver", self.apiserver_port)?);
            }
        }
        self.wait_for("/readyz", |client| is_serving(client).boxed()).await
    }

    /// Stops and starts the API server.
    pub async fn restart_apiserver(&self) -> Result<()> {
        self.stop_apiserver().await;
        self.start_apiserver().await
    }

    /// Starts another API server over the same etcd, and returns its base URL when it is ready. It has its own caches.
    /// It ends when the component is dropped.
    pub async fn another_apiserver(&self, instance: &str) -> Result<(String, Component)> {
        let port = ports::free()?;
        let component = self.launch_apiserver(instance, port)?;
        let url = format!("https://127.0.0.1:{port}");
        let kubeconfig = Kubeconfig::read(&self.kubeconfig)?.moved(&self.url, &url, self.authority.ca_pem());
        let kubeconfig = kubeconfig.write(self.dir.join(format!("{instance}.kubeconfig")))?;
        let client = crate::kubeconfig::client(&kubeconfig).await?;
        let ready = async {
            while !is_serving(client.clone()).await.unwrap_or(false) {
                if component.ended().is_some() {
                    return Err(component.death());
                }
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, ready).await.context(url.clone())??;
        Ok((url, component))
    }

    /// Kills the controllers, including the bootstrap signer and the token cleaner.
    pub async fn stop_controllers(&self) {
        if let Some(controllers) = self.controllers.lock().await.take() {
            controllers.kill().await;
        }
    }

    /// Starts the controllers unless they run.
    pub async fn start_controllers(&self) -> Result<()> {
        self.start_controllers_with(|kubeconfig| kubeconfig).await
    }

    /// The same through a proxy in front of this API server.
    pub async fn start_controllers_behind(&self, proxy: &FaultProxy) -> Result<()> {
        self.start_controllers_with(|kubeconfig| proxy.redirect(kubeconfig))
            .await
    }

    async fn start_controllers_with(&self, way: impl FnOnce(Kubeconfig) -> Kubeconfig + Send) -> Result<()> {
        let mut controllers = self.controllers.lock().await;
        if controllers.is_none() {
            let identity = self.identity("system:kube-controller-manager", None)?;
            let kubeconfig = way(Kubeconfig::read(&identity)?).write(identity)?;
            *controllers = Some(self.launch_controller_manager(&kubeconfig)?);
        }
        Ok(())
    }

    /// Adds a node, and returns when it is Ready. Tests need a second one when the first has hundreds of pods.
    pub async fn add_node(&self, node: &str) -> Result<()> {
        self.add(self.launch_kubelet(node)?).await;
        let name = node.to_owned();
        self.wait_for(&format!("node {node} to be Ready"), move |client| {
            let name = name.clone();
            async move {
                Ok(Api::<Node>::all(client)
                    .get_opt(&name)
                    .await?
                    .is_some_and(|node| is_ready(&node)))
            }
            .boxed()
        })
        .await
    }

    /// Starts a node without a certificate. Its kubelet requests one with the token of this bootstrap kubeconfig, like
    /// a machine that joins. Whether it joins is for the test to check. It ends when the component is dropped.
    pub fn join_node(&self, node: &str, bootstrap: &Path) -> Result<Component> {
        let flags = [
            format!("--bootstrap-kubeconfig={}", bootstrap.display()),
            // The kubelet writes it when it has its certificate.
            format!("--kubeconfig={node}.kubeconfig"),
            format!("--cert-dir={node}-pki"),
            // From this level on, it logs why the API server rejects it.
            "--v=2".to_owned(),
        ];
        self.start_kubelet(node, flags)
    }

    /// The ids of its processes.
    pub async fn pids(&self) -> Vec<u32> {
        let (others, controllers, apiserver, etcd) = (
            self.others.lock().await,
            self.controllers.lock().await,
            self.apiserver.lock().await,
            self.etcd.lock().await,
        );
        etcd.iter()
            .chain(apiserver.iter())
            .chain(controllers.iter())
            .chain(others.iter())
            .map(Component::pid)
            .collect()
    }

    /// Resident memory of each of its processes, in MiB, by name.
    pub async fn memory(&self) -> Vec<(String, u64)> {
        let (others, controllers, apiserver, etcd) = (
            self.others.lock().await,
            self.controllers.lock().await,
            self.apiserver.lock().await,
            self.etcd.lock().await,
        );
        let all = etcd
            .iter()
            .chain(apiserver.iter())
            .chain(controllers.iter())
            .chain(others.iter());
        all.map(|component| (component.name().to_owned(), resident(component.pid())))
            .collect()
    }

    /// Ends all processes in order, so that none waits for another that has ended.
    pub async fn stop(&self) {
        for component in self.others.lock().await.drain(..) {
            component.end().await;
        }
        if let Some(controllers) = self.controllers.lock().await.take() {
            controllers.end().await;
        }
        self.stop_apiserver().await;
        if let Some(etcd) = self.etcd.lock().await.take() {
            etcd.end().await;
        }
    }

    /// Waits until `condition` holds. Fails at once when a process of this control plane ends.
    async fn wait_for(
        &self,
        what: &str,
        condition: impl Fn(Client) -> BoxFuture<'static, Result<bool>> + Send + Sync,
    ) -> Result<()> {
        let client = self.client().await?;
        let waiting = async {
            loop {
                let answer = condition(client.clone()).await;
                if matches!(answer, Ok(true)) {
                    return Ok(());
                }
                if let Some(death) = self.first_death().await {
                    return Err(death.context(format!("{}: waiting for {what}", self.name)));
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => bail!(
                "{}: {what} did not come within {PATIENCE:?}; logs are in {}",
                self.name,
                self.dir.display()
            ),
        }
    }

    async fn first_death(&self) -> Option<anyhow::Error> {
        let (others, controllers, apiserver, etcd) = (
            self.others.lock().await,
            self.controllers.lock().await,
            self.apiserver.lock().await,
            self.etcd.lock().await,
        );
        let mut all = etcd
            .iter()
            .chain(apiserver.iter())
            .chain(controllers.iter())
            .chain(others.iter());
        all.find(|component| component.ended().is_some()).map(Component::death)
    }

    async fn add(&self, component: Component) {
        self.others.lock().await.push(component);
    }

    fn launch(&self, component: &str, instance: &str, flags: impl IntoIterator<Item = String>) -> Result<Component> {
        let mut argv = self.programs.guarded(component);
        argv.extend(flags.into_iter().map(OsString::from));
        let log = self.dir.join(format!("{instance}.log"));
        Component::start(Launch {
            name: instance,
            argv,
            // Half as many garbage collections, which are a sixth of the API server's time, for half as much memory again.
            env: vec![("GOGC", "200".into())],
            dir: &self.dir,
            log,
        })
    }

    fn launch_etcd(&self) -> Result<Component> {
        let (client, peer) = (&self.etcd_url, format!("http://127.0.0.1:{}", ports::free()?));
        self.launch(
            "etcd",
            "etcd",
            [
                "--data-dir=etcd".to_owned(),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
                // The data need not survive a power failure.
                "--unsafe-no-fsync".to_owned(),
            ],
        )
    }

    fn launch_apiserver(&self, instance: &str, port: u16) -> Result<Component> {
        let fixed = [
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--allow-privileged",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--enable-bootstrap-token-auth=true",
            "--endpoint-reconciler-type=none",
            "--client-ca-file=ca.crt",
            "--tls-cert-file=apiserver.crt",
            "--tls-private-key-file=apiserver.key",
            "--service-account-key-file=sa.pub",
            "--service-account-signing-key-file=sa.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--cert-dir=.",
            // The names of nodes are in no DNS.
            "--kubelet-preferred-address-types=InternalIP",
        ];
        let flags = fixed.map(str::to_owned).into_iter();
        let own = [
            format!("--etcd-servers={}", self.etcd_url),
            format!("--secure-port={port}"),
        ];
        self.launch("kube-apiserver", instance, flags.chain(own))
    }

    fn launch_controller_manager(&self, kubeconfig: &Path) -> Result<Component> {
        let fixed = [
            "--cluster-signing-cert-file=ca.crt",
            "--cluster-signing-key-file=ca.key",
            "--root-ca-file=ca.crt",
            "--service-account-private-key-file=sa.key",
            "--use-service-account-credentials",
            "--controllers=*,bootstrap-signer-controller,token-cleaner-controller",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            // Many tests roll out in parallel. With the default of 20 requests a second they would wait for each other.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        ];
        let own = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--secure-port={}", ports::free()?),
        ];
        let flags = fixed.map(str::to_owned).into_iter();
        self.launch("kube-controller-manager", "kube-controller-manager", flags.chain(own))
    }

    fn launch_scheduler(&self) -> Result<Component> {
        let kubeconfig = self.identity("system:kube-scheduler", None)?;
        self.launch(
            "kube-scheduler",
            "kube-scheduler",
            [
                format!("--kubeconfig={}", kubeconfig.display()),
                "--leader-elect=false".to_owned(),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={}", ports::free()?),
                "--kube-api-qps=500".to_owned(),
                "--kube-api-burst=1000".to_owned(),
            ],
        )
    }

    fn launch_kubelet(&self, node: &str) -> Result<Component> {
        let kubeconfig = self.identity(&format!("system:node:{node}"), Some("system:nodes"))?;
        self.start_kubelet(node, [format!("--kubeconfig={}", kubeconfig.display())])
    }

    fn start_kubelet(&self, node: &str, identity: impl IntoIterator<Item = String>) -> Result<Component> {
        let (port, read_only) = (ports::free()?, ports::free()?);
        ports::warn_if_open(&format!("ports {port} and {read_only} of node {node} are"))?;
        let flags = [
            "--morph=kubelet".to_owned(),
            format!("--name={node}"),
            format!("--kubelet-port={port}"),
            format!("--kubelet-read-only-port={read_only}"),
            // The default connects to a real image service.
            "--use-host-image-service=false".to_owned(),
            "--max-pods=1000".to_owned(),
            "--kube-api-qps=200".to_owned(),
            "--kube-api-burst=400".to_owned(),
        ];
        let flags = flags.into_iter().chain(identity);
        self.launch("kubelet", &format!("kubelet-{node}"), flags)
    }

    /// A kubeconfig file for a component, under the user name that Kubernetes expects.
    fn identity(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let certificate = self.authority.client(user, group)?;
        Kubeconfig::new()
            .context(
                &self.name,
                &self.url,
                self.authority.ca_pem(),
                &Identity::Certificate(certificate),
            )
            .write(self.dir.join(format!("{}.kubeconfig", user.replace(':', "-"))))
    }
}

async fn is_serving(client: Client) -> Result<bool> {
    let question = http::Request::get("/readyz").body(Vec::new())?;
    Ok(client.request_text(question).await? == "ok")
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Resident memory in MiB; 0 for a process that has ended.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or_default()
        / 1024
}
