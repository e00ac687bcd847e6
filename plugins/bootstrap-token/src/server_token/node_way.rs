//! How nodes are reached, and what of them has to be true before anything is done there.

use std::sync::Arc;
use std::time::Duration;

use client::error::Error;
use node_access::{NodeAccess, NodeExec, NodePod, NodeShell, NodeState, ServiceOptions};

use crate::cluster::MANAGER;

/// How nodes are reached.
#[derive(Clone, Debug)]
pub(crate) enum NodeWay {
    ByHand,
    Exec(NodeExec),
    Pod { image: Option<String>, timeout: Duration },
}

impl NodeWay {
    /// The way to the nodes. `run`: a part of the names of backups and pods. `None`: by hand.
    pub(crate) fn access(&self, client: &kube::Client, service: ServiceOptions, run: &str) -> Option<NodeAccess> {
        let shell: Arc<dyn NodeShell> = match self {
            Self::ByHand => return None,
            Self::Exec(exec) => Arc::new(exec.clone()),
            Self::Pod { .. } => Arc::new(self.pods(client, run)?),
        };
        Some(NodeAccess::new(shell, service, run))
    }

    /// The pods of a run, to delete what a killed process has left.
    pub(crate) fn pods(&self, client: &kube::Client, run: &str) -> Option<NodePod> {
        match self {
            Self::Pod { image, timeout } => Some(NodePod::new(client.clone(), run, image.clone(), *timeout, MANAGER)),
            Self::ByHand | Self::Exec(_) => None,
        }
    }

    /// How long one script may take, until it is known what came of it.
    pub(crate) fn longest(&self) -> Duration {
        match self {
            Self::ByHand => Duration::from_secs(10),
            Self::Exec(exec) => exec.timeout() + Duration::from_secs(5),
            Self::Pod { timeout, .. } => *timeout + Duration::from_mins(2),
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
