//! How nodes are reached, and what of them has to be true before anything is done there.

use std::sync::Arc;
use std::time::Duration;

use cli::ui::Ui;
use client::access::{self, Needed};
use client::connection::Server;
use client::error::Error;
use node_access::{NodeAccess, NodeExec, NodePod, NodeShell, NodeState, ServiceOptions};

use crate::cluster::MANAGER;

/// The name of the run where there is none yet. It only reads.
pub(crate) const NO_RUN: &str = "survey";

/// How nodes are reached.
#[derive(Clone, Debug)]
pub(crate) enum NodeWay {
    ByHand,
    Exec(NodeExec),
    Pod { image: Option<String>, timeout: Duration },
}

impl NodeWay {
    /// The way to the nodes. `run`: a part of the names of backups. `pods`: of those of pods. `None`: by hand.
    pub(crate) fn access(
        &self,
        ui: &Ui,
        client: &kube::Client,
        service: ServiceOptions,
        run: &str,
        pods: &str,
    ) -> Option<NodeAccess> {
        let shell: Arc<dyn NodeShell> = match self {
            Self::ByHand => return None,
            Self::Exec(exec) => Arc::new(exec.clone()),
            Self::Pod { .. } => Arc::new(self.pods(ui, client, pods)?),
        };
        Some(NodeAccess::new(shell, service, run))
    }

    /// The pods of a run. The process does not end before they are deleted.
    pub(crate) fn pods(&self, ui: &Ui, client: &kube::Client, run: &str) -> Option<NodePod> {
        match self {
            Self::Pod { image, timeout } => {
                let (ui, image) = (ui.clone(), image.clone());
                let hold = move || ui.hold();
                Some(NodePod::new(client.clone(), run, image, *timeout, MANAGER, hold))
            }
            Self::ByHand | Self::Exec(_) => None,
        }
    }

    pub(crate) fn is_by_pod(&self) -> bool {
        matches!(self, Self::Pod { .. })
    }

    /// Before the first pod: its permissions are checked, and what killed processes have left is deleted.
    pub(crate) async fn prepare(&self, ui: &Ui, server: &Server, needed: Needed<'_>) -> Result<(), Error> {
        let Some(pods) = self.pods(ui, &server.client, NO_RUN) else {
            return Ok(());
        };
        access::require(&[needed]).await?;
        pods.clean_up(&server.clock, false).await
    }

    /// How long one script may take, until it is known what came of it.
    pub(crate) fn longest(&self) -> Duration {
        match self {
            Self::ByHand => Duration::from_secs(10),
            Self::Exec(exec) => exec.timeout() + Duration::from_secs(5),
            Self::Pod { timeout, .. } => NodePod::longest(*timeout),
        }
    }
}

/// A wrong address reaches another machine. `machine_id`: that of the Node; empty where it is not known.
pub(crate) fn check_machine(node: &str, machine_id: &str, read: &NodeState) -> Result<(), Error> {
    match &read.machine_id {
        Some(id) if !machine_id.is_empty() && id != machine_id => {
            let message = format!(
                "the machine at the address of node {node} is another one: {}",
                read.host
            );
            let hint =
                "compare its /etc/machine-id with status.nodeInfo.machineID of the Node, and correct --node-exec";
            Err(Error::failed(message).hint(hint))
        }
        _ => Ok(()),
    }
}
