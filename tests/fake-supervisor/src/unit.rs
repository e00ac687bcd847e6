//! The unit of one node: it starts the server, and restarts it after any exit, as `Restart=always` requires.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

use crate::node::Node;
use crate::settings::Unit;

/// Seconds between an end and the next start.
const RESTART_SEC: f64 = 5.0;
/// Seconds after which a process is killed that does not end.
const STOP_LIMIT: f64 = 90.0;

/// systemd's names.
#[expect(clippy::enum_variant_names, reason = "they are systemd's")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Active {
    Inactive,
    Activating,
    Active,
    Deactivating,
    Failed,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnitState {
    pub(crate) active: Active,
    /// `running`, `auto-restart`, `dead`, …
    pub(crate) sub: &'static str,
    pub(crate) pid: Option<u32>,
    /// Starts so far.
    pub(crate) starts: u32,
    /// Of the last start: whether it became ready. `None` while that is open.
    pub(crate) succeeded: Option<bool>,
    /// Exits that were not requested.
    pub(crate) failures: u32,
    /// How often the unit has started it by itself since the last order to start it.
    pub(crate) restarts: u32,
}

enum Order {
    Start,
    Stop,
    Restart,
    Kill,
}

/// A handle of the unit.
pub(crate) struct UnitHandle {
    pub(crate) node: Node,
    /// What `daemon-reload` has read.
    loaded: Arc<Mutex<Unit>>,
    orders: mpsc::UnboundedSender<Order>,
    state: watch::Receiver<UnitState>,
}

impl UnitHandle {
    /// Loads the unit file. Nothing is started.
    pub(crate) fn load(node: &Node) -> Result<Self> {
        let (orders, receiver) = mpsc::unbounded_channel();
        let (active, sub) = if node.is_agent() {
            (Active::Active, "running")
        } else {
            (Active::Inactive, "dead")
        };
        let (state, watching) = watch::channel(UnitState {
            active,
            sub,
            pid: None,
            starts: 0,
            succeeded: None,
            failures: 0,
            restarts: 0,
        });
        let handle = Self {
            node: node.clone(),
            loaded: Arc::default(),
            orders,
            state: watching,
        };
        handle.reload()?;
        let runner = Runner {
            node: node.clone(),
            loaded: Arc::clone(&handle.loaded),
            state,
        };
        tokio::spawn(runner.run(receiver));
        Ok(handle)
    }

    /// `daemon-reload`.
    pub(crate) fn reload(&self) -> Result<()> {
        let unit = Unit::load(&self.node).with_context(|| format!("load {}", self.node.unit_file().display()))?;
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = unit;
        Ok(())
    }

    pub(crate) fn loaded(&self) -> Unit {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn state(&self) -> UnitState {
        self.state.borrow().clone()
    }

    /// Starts it, unless it runs. With `wait`, returns when it is ready (true) or this start has failed (false).
    pub(crate) async fn start(&self, wait: bool) -> bool {
        let before = self.state();
        if before.active == Active::Active {
            return true;
        }
        let next = before.starts + u32::from(before.pid.is_none());
        self.order(Order::Start);
        !wait || self.outcome(next).await
    }

    pub(crate) async fn restart(&self, wait: bool) -> bool {
        let next = self.state().starts + 1;
        self.order(Order::Restart);
        !wait || self.outcome(next).await
    }

    pub(crate) async fn stop(&self, wait: bool) {
        self.order(Order::Stop);
        if wait {
            let stopped = |state: &UnitState| matches!(state.active, Active::Inactive | Active::Failed);
            let _ = self.state.clone().wait_for(stopped).await;
        }
    }

    /// Kills the process. The unit restarts it.
    pub(crate) fn kill(&self) {
        self.order(Order::Kill);
    }

    async fn outcome(&self, start: u32) -> bool {
        let decided = |state: &UnitState| state.starts > start || (state.starts == start && state.succeeded.is_some());
        let mut state = self.state.clone();
        state
            .wait_for(decided)
            .await
            .is_ok_and(|state| state.starts == start && state.succeeded == Some(true))
    }

    fn order(&self, order: Order) {
        // The runner exists as long as the manager.
        let _ = self.orders.send(order);
    }
}

struct Runner {
    node: Node,
    loaded: Arc<Mutex<Unit>>,
    state: watch::Sender<UnitState>,
}

/// Why a process has ended.
enum End {
    Stopped,
    Restart,
    Itself,
}

impl Runner {
    async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            match orders.recv().await {
                Some(Order::Start | Order::Restart) => self.state.send_modify(|state| state.restarts = 0),
                Some(Order::Stop) => {
                    self.set(Active::Inactive, "dead");
                    continue;
                }
                Some(Order::Kill) => continue,
                None => return,
            }
            if self.keep_running(&mut orders).await.is_none() {
                return;
            }
        }
    }

    /// Until it is stopped. `None` at the end of the manager.
    async fn keep_running(&self, orders: &mut mpsc::UnboundedReceiver<Order>) -> Option<()> {
        loop {
            let end = match self.spawn() {
                Ok(child) => self.supervise(child, orders).await?,
                Err(error) => {
                    self.note(&format!("Failed to start: {error:#}"));
                    self.state.send_modify(|state| state.succeeded = Some(false));
                    End::Itself
                }
            };
            match end {
                End::Restart => self.state.send_modify(|state| state.restarts = 0),
                End::Stopped => {
                    self.set(Active::Inactive, "dead");
                    return Some(());
                }
                End::Itself if self.node.faults().stays_down || self.starts_once() => {
                    self.set(Active::Failed, "failed");
                    return Some(());
                }
                End::Itself => {
                    self.set(Active::Activating, "auto-restart");
                    let pause = tokio::time::sleep(self.node.config.timing.scaled(RESTART_SEC));
                    tokio::pin!(pause);
                    loop {
                        tokio::select! {
                            () = &mut pause => {
                                self.state.send_modify(|state| state.restarts += 1);
                                break;
                            }
                            order = orders.recv() => match order? {
                                Order::Start | Order::Restart => {
                                    self.state.send_modify(|state| state.restarts = 0);
                                    break;
                                }
                                Order::Kill => {}
                                Order::Stop => {
                                    self.set(Active::Inactive, "dead");
                                    return Some(());
                                }
                            },
                        }
                    }
                }
            }
        }
    }

    fn starts_once(&self) -> bool {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).starts_once
    }

    fn spawn(&self) -> Result<Child> {
        self.state.send_modify(|state| {
            state.starts += 1;
            state.succeeded = None;
            state.active = Active::Activating;
            state.sub = "start";
        });
        let _ = std::fs::remove_file(self.node.run_dir().join("state.json"));
        let unit = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let program: PathBuf = std::env::current_exe()?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.node.log())?;
        let child = Command::new(program)
            .arg("serve")
            .arg("--dir")
            .arg(&self.node.cluster)
            .args(["--node", &self.node.server.name, "--"])
            .args(&unit.command[1..])
            .env_clear()
            .envs(unit.variables()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start the server")?;
        self.state.send_modify(|state| state.pid = child.id());
        Ok(child)
    }

    async fn supervise(&self, mut child: Child, orders: &mut mpsc::UnboundedReceiver<Order>) -> Option<End> {
        // The server ends when this is closed, which `wait` would do.
        let _leash = child.stdin.take();
        let mut lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        let mut wanted = None;
        loop {
            let line = async {
                match &mut lines {
                    Some(lines) => lines.next_line().await.ok().flatten(),
                    None => std::future::pending().await,
                }
            };
            let order = tokio::select! {
                status = child.wait() => {
                    self.ended(status.ok(), wanted.is_some());
                    return Some(wanted.unwrap_or(End::Itself));
                }
                line = line => {
                    match line {
                        Some(_) => {
                            self.set(Active::Active, "running");
                            self.state.send_modify(|state| state.succeeded = Some(true));
                        }
                        None => lines = None,
                    }
                    continue;
                }
                order = orders.recv() => order?,
            };
            match order {
                Order::Start => {}
                Order::Kill => signal(&child, Signal::KILL),
                Order::Stop | Order::Restart => {
                    wanted = Some(if matches!(order, Order::Stop) {
                        End::Stopped
                    } else {
                        End::Restart
                    });
                    self.set(Active::Deactivating, "stop-sigterm");
                    signal(&child, Signal::TERM);
                    let limit = self.node.config.timing.scaled(STOP_LIMIT);
                    if let Ok(status) = tokio::time::timeout(limit, child.wait()).await {
                        self.ended(status.ok(), true);
                        return wanted;
                    }
                    signal(&child, Signal::KILL);
                }
            }
        }
    }

    fn ended(&self, status: Option<ExitStatus>, wanted: bool) {
        let how = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
        self.note(&format!("Main process exited, {how}"));
        self.state.send_modify(|state| {
            state.pid = None;
            state.failures += u32::from(!wanted);
            state.succeeded.get_or_insert(false);
        });
        let _ = std::fs::remove_file(self.node.run_dir().join("state.json"));
    }

    fn set(&self, active: Active, sub: &'static str) {
        self.state.send_modify(|state| {
            state.active = active;
            state.sub = sub;
        });
    }

    /// A line of systemd in the log of the unit.
    fn note(&self, text: &str) {
        if let Ok(journal) = crate::journal::Journal::open(&self.node.log()) {
            journal.raw(&format!("systemd[1]: {}.service: {text}", self.node.unit()));
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    // The child is not reaped before its handle says so, so the id is still its own.
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        let _ = kill_process(pid, signal);
    }
}
