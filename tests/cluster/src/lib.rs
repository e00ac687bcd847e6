//! A real Kubernetes for tests and for the demo: etcd, API server, controllers, scheduler and kubelet as plain
//! processes on 127.0.0.1, the fake Rancher, the fake supervisor, and a fault proxy.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use test_cluster::{TestEnvironment, TokenStorage};
//! let environment = TestEnvironment::shared().await?; // started once per process, ends with it
//! // Starts what it needs: a management and a downstream cluster.
//! let rancher = environment.rancher(TokenStorage::Secret).await?;
//! let cluster = rancher.register("berlin").await?;
//! println!("{} is connected", cluster.id);
//! # Ok(()) }
//! ```
//!
//! The programs are built by the first test that needs them, and kept in the user's cache directory ([`GoModule`]). All
//! processes end with the process that started them, however it ends ([`Component`]).
//!
//! Environment variables: `TEST_CLUSTER_KEEP` keeps the directory of the environment, with logs and kubeconfigs, and
//! prints its path. `KUBEBUILDER_ASSETS` names a directory whose etcd, kube-apiserver and kubectl replace ours.

mod another_writer;
mod argocd;
mod component;
mod control_plane;
mod environment;
mod fake_rancher;
mod fake_supervisor;
mod fault_proxy;
mod go_module;
mod hostile_server;
mod kubeconfig;
mod pki;
mod ports;
mod programs;
mod tunnel;

pub use another_writer::{AnotherWriter, Writing};
pub use argocd::{Application, ArgoCd, Connection, Content, GATE, Operation};
pub use component::Component;
pub use control_plane::{ControlPlane, Shape};
pub use environment::{TestEnvironment, TokenStorage};
pub use fake_rancher::{
    Backup, Call, FakeRancher, FakeRancherOptions, Interval, Registered, Registration, Report, Session, User, Without,
    built,
};
pub use fake_supervisor::{FakeSupervisor, FakeSupervisorOptions};
pub use fault_proxy::{Fault, FaultProxy, Moment, On, Outage, Planned, Request, Upstream};
pub use go_module::GoModule;
pub use hostile_server::{EVIL_NAME, HostileServer, Hostility};
pub use kubeconfig::{Identity, Kubeconfig};
pub use pki::{Authority, KeyPairPem};
pub use programs::{KREW, Programs, build_all};
pub use tunnel::Tunnel;
