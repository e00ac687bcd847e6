//! One server as a process: the times of a start, and what it holds in memory until its end.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use crate::client::Client;
use crate::datastore::{DIFFERENT_TOKEN, Datastore};
use crate::faults::Faults;
use crate::files::ServerFiles;
use crate::journal::Journal;
use crate::node::Node;
use crate::passwd::Passwd;
use crate::settings::Settings;
use crate::start::{Prepared, Start, save_failed};
use crate::token::normalize;
use crate::{encryption, http_server, kubernetes, pki, upstream};

/// How far a server is. What a client sees is 503, then 401/500, then 401/200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Nothing listens.
    Down,
    /// 503 for every path and password.
    Unavailable,
    /// Logins are checked, so the probe of a token is answered. A PUT writes files and fails.
    Login,
    /// The datastore is reachable, so a PUT succeeds.
    Etcd,
    /// `/readyz` is 200.
    Api,
    /// The routes of agents and the status of secrets-encryption are 200 too.
    Ready,
}

/// Seconds after the start of the process at which a phase begins, on a real server. A restart takes 8 s with the stop.
const UNAVAILABLE: f64 = 1.0;
const LOGIN: f64 = 2.5;
const ETCD: f64 = 4.2;
const API: f64 = 7.0;
const READY: f64 = 7.5;
const STOP: f64 = 1.0;
/// Seconds without a quorum until a leader ends: the controller manager renews its Lease within 10 s (not seen; the text is that of
/// `pkg/server/server.go`).
const LEADS: f64 = 10.0;

/// A running server.
pub(crate) struct Server {
    pub(crate) node: Node,
    pub(crate) settings: Settings,
    pub(crate) files: ServerFiles,
    pub(crate) journal: Journal,
    pub(crate) requests: Journal,
    pub(crate) ca_pem: String,
    pub(crate) ca_hash: String,
    pub(crate) upstream: Option<Client>,
    pub(crate) kube: Option<kube::Client>,
    phase: watch::Sender<Phase>,
    token: Mutex<String>,
    logins: Mutex<Passwd>,
    accepted_tokens: Mutex<BTreeMap<String, Instant>>,
    syncs: AtomicBool,
    exits_after_reply: AtomicBool,
    started: Instant,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The token in memory, which a PUT changes.
    pub(crate) fn token(&self) -> MutexGuard<'_, String> {
        locked(&self.token)
    }

    /// The logins, which nothing changes before the next start.
    pub(crate) fn logins(&self) -> Passwd {
        locked(&self.logins).clone()
    }

    /// Accepted bootstrap tokens.
    pub(crate) fn accepted_tokens(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        locked(&self.accepted_tokens)
    }

    /// Its own copy of the datastore no longer follows.
    pub(crate) fn stop_sync(&self) {
        self.syncs.store(false, Ordering::SeqCst);
    }

    /// When the process has started, in seconds since the epoch by the clock of the node. The starts of a test are as far apart as those of
    /// real servers.
    pub(crate) fn started_at(&self) -> f64 {
        let since = self.node.now() - self.started.elapsed();
        let seconds = since
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        seconds / self.node.config.timing.scale
    }

    /// Plans its end after the response to the current request is sent.
    pub(crate) fn exit_after_reply(&self) {
        self.exits_after_reply.store(true, Ordering::SeqCst);
    }

    pub(crate) fn exits_after_reply(&self) -> bool {
        self.exits_after_reply.load(Ordering::SeqCst)
    }

    /// Enters a phase, and says so to the manager and to the tests.
    fn enter(&self, phase: Phase) -> Result<()> {
        self.phase.send_replace(phase);
        let logins = self.logins();
        let fingerprint = |user: &str| logins.password(user).map(crate::token::hash12);
        let state = json!({"phase": phase, "live": {"server": fingerprint("server"), "node": fingerprint("node")}});
        let file = self.node.run_dir().join("state.json");
        let beside = file.with_extension("new");
        std::fs::write(&beside, state.to_string())?;
        std::fs::rename(beside, file)?;
        if phase == Phase::Api {
            let mut stdout = std::io::stdout().lock();
            writeln!(stdout, "ready")?;
            stdout.flush()?;
        }
        Ok(())
    }

    /// Sleeps until so many seconds of a real server after the start.
    async fn until(&self, seconds: f64) {
        while self.node.faults().hold == Some(self.phase()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let moment = self.started + self.node.config.timing.scaled(seconds);
        tokio::time::sleep_until(moment.into()).await;
    }

    /// Starts, and serves forever. Returns the code of a start that fails.
    async fn start_and_serve(self: &Arc<Self>) -> Result<ExitCode> {
        let start = Start {
            node: &self.node,
            settings: &self.settings,
            files: &self.files,
            journal: &self.journal,
            ca_pem: &self.ca_pem,
            ca_hash: &self.ca_hash,
        };
        let prepared = match start.prepare().await? {
            Ok(prepared) => prepared,
            Err(fatal) => {
                self.until(fatal.after).await;
                if fatal.panic {
                    self.journal.raw(&fatal.message);
                    return Ok(ExitCode::from(2));
                }
                self.journal.line("fatal", &fatal.message);
                return Ok(ExitCode::FAILURE);
            }
        };
        let Prepared {
            token,
            logins,
            exits_after,
        } = prepared;
        *locked(&self.logins) = logins;
        token.clone_into(&mut self.token());
        self.until(UNAVAILABLE).await;
        http_server::serve(Arc::clone(self), self.node.port()).await?;
        if self.node.api_port() != self.node.port() {
            http_server::serve(Arc::clone(self), self.node.api_port()).await?;
        }
        self.enter(Phase::Unavailable)?;
        // From here on it is a working member of etcd.
        let (store, copy) = (Datastore::of(&self.node), self.files.own_copy());
        let _working = store.declare_working(&self.node)?;
        if !self.settings.disable_etcd && !self.node.is_sqlite() {
            store.join(&self.node, &copy)?;
            store.sync(&copy, || true)?;
        }
        self.until(LOGIN).await;
        self.enter(Phase::Login)?;
        while !self.node.is_sqlite() && !store.has_quorum(&self.node.all()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        encryption::publish(&self.node, &self.files)?;
        self.until(ETCD).await;
        self.enter(Phase::Etcd)?;
        self.new_node_object().await;
        if !self.settings.disable_etcd && !self.save(&store, &token)? {
            self.until(exits_after).await;
            self.journal.line("fatal", &save_failed());
            return Ok(ExitCode::FAILURE);
        }
        if !encryption::can_read_secrets(&self.files, &store.read()) {
            let text = "no matching key was found for the provided AES transformer";
            self.journal.line("error", text);
            return std::future::pending().await;
        }
        self.until(API).await;
        // Before the unit is active, so that a test that waits for the unit finds the Node of this start.
        self.node_object(true).await;
        self.enter(Phase::Api)?;
        self.until(READY).await;
        self.enter(Phase::Ready)?;
        self.keep(&store, &copy).await
    }

    /// `Save` without `override`: the key must be there, and only the first start of a cluster creates it.
    fn save(&self, store: &Datastore, token: &str) -> Result<bool> {
        let files = self.files.bundle();
        let saved = store.change(&self.node.all(), None, |contents| match normalize(token) {
            Ok(password) if contents.open(password).is_some() => Ok(false),
            Ok(_) if contents.bootstrap.is_empty() => contents.save(token, files).map(|()| true),
            _ => Err(DIFFERENT_TOKEN),
        })?;
        if saved == Ok(false) {
            self.journal.line("info", "Bootstrap key already exists");
        }
        Ok(saved.is_ok())
    }

    /// Follows the datastore after a cut of the network, and renews the Lease of the Node. Ends as a leader does without a quorum.
    async fn keep(&self, store: &Datastore, copy: &Path) -> Result<ExitCode> {
        let (mut renewed, mut led) = (Instant::now(), Instant::now());
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let Faults { cut, leads, .. } = self.node.faults();
            if !leads || self.node.is_sqlite() || store.has_quorum(&self.node.all()) {
                led = Instant::now();
            } else if led.elapsed() > self.node.config.timing.scaled(LEADS) {
                let text = format!("leaderelection lost for {}", self.node.program());
                self.journal.line("fatal", &text);
                return Ok(ExitCode::FAILURE);
            }
            if !cut && !self.settings.disable_etcd && !self.node.is_sqlite() {
                store.sync(copy, || self.syncs.load(Ordering::SeqCst))?;
            }
            if !cut && renewed.elapsed() > kubernetes::RENEWED {
                renewed = Instant::now();
                if let Some(client) = &self.kube {
                    self.noted(kubernetes::renew(client, &self.node).await);
                }
            }
        }
    }

    /// Creates the Node of a server that has just joined, which is not Ready yet.
    async fn new_node_object(&self) {
        let Some(client) = &self.kube else { return };
        match kubernetes::exists(client, &self.node.server.name).await {
            Ok(true) => {}
            Ok(false) => self.node_object(false).await,
            Err(error) => self.noted(Err(error)),
        }
    }

    async fn node_object(&self, ready: bool) {
        if let Some(client) = &self.kube {
            let voter = !self.settings.disable_etcd && !self.node.is_sqlite();
            self.noted(kubernetes::write_server(client, &self.node, &self.settings, ready, voter).await);
        }
    }

    fn noted(&self, result: Result<()>) {
        if let Err(error) = result {
            self.journal.line("error", &format!("write the Node: {error:#}"));
        }
    }
}

/// Ends the process at once, like kill -9.
pub(crate) fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

/// Runs one server. `arguments` are those of its unit, the environment is the unit's.
pub(crate) async fn run(dir: &Path, name: &str, arguments: &[String]) -> Result<ExitCode> {
    let node = Node::open(dir, name)?;
    let prefix = node.distribution().environment();
    let variables = std::env::vars().filter(|(key, _)| key.starts_with(prefix)).collect();
    let journal = Journal::open(&node.log())?;
    let settings = match Settings::read(&node, arguments, variables) {
        Ok(settings) => settings,
        Err(error) => {
            journal.line("fatal", &format!("Error: {error:#}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    let ca_pem = pki::read_ca(dir)?;
    let (upstream, kube) = upstream::connect(&node).await?.unzip();
    let server = Arc::new(Server {
        files: ServerFiles::new(&node, &settings.data_dir),
        journal,
        requests: Journal::open(&node.requests())?,
        ca_hash: pki::ca_hash(&ca_pem)?,
        ca_pem,
        upstream,
        kube,
        phase: watch::Sender::new(Phase::Down),
        token: Mutex::default(),
        logins: Mutex::default(),
        accepted_tokens: Mutex::default(),
        syncs: AtomicBool::new(true),
        exits_after_reply: AtomicBool::new(false),
        started: Instant::now(),
        settings,
        node,
    });
    tokio::select! {
        code = server.start_and_serve() => code,
        ended = crate::asked_to_end() => {
            if ended? {
                tokio::time::sleep(server.node.config.timing.scaled(STOP)).await;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
