//! How nodes are reached, and what of them has to be true before anything is done there.

use std::sync::Arc;
use std::time::Duration;

use cli::ui::Ui;
use client::access::{self, Needed, Right};
use client::connection::Server;
use client::error::Error;
use node_access::{NodeAccess, NodeExec, NodePod, NodeRole, NodeShell, NodeState, NodeTarget, ServiceOptions};
use supervisor::Host;
use supervisor::node::ClusterNode;

use crate::cluster::MANAGER;
use crate::report::target::CLUSTER;
use crate::rights;

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

    /// The way to one node. `None`: by hand.
    ///
    /// # Errors
    /// If its Node has no usable InternalIP.
    pub(crate) fn to(
        &self,
        node: &ClusterNode,
        (ui, client): (&Ui, &kube::Client),
        service: &ServiceOptions,
        run: &str,
    ) -> Result<Option<(NodeAccess, NodeTarget)>, Error> {
        let is_server = node.supervisor().is_some();
        let service = ServiceOptions {
            role: if is_server { NodeRole::Server } else { NodeRole::Agent },
            // It is the name on servers.
            unit: service.unit.clone().filter(|_| is_server),
            ..service.clone()
        };
        let invalid = |why: String| Error::failed(format!("cannot reach node {}: {why}", node.name));
        let address = node.internal_ips.first();
        let address = address.ok_or_else(|| invalid("it has no InternalIP".to_owned()))?;
        let address: Host = address.parse().map_err(|error| invalid(format!("{error}")))?;
        let target = NodeTarget::new(&node.name, address).map_err(|error| invalid(error.to_string()))?;
        let access = self.access(ui, client, service, run, run);
        Ok(access.map(|access| (access, target)))
    }

    /// The permissions of a command that reaches nodes in this way.
    pub(crate) fn rights(&self, command: &str, has_snapshots: bool) -> Vec<Right> {
        let conditions: Vec<&str> = [(self.is_by_pod(), rights::VIA_POD), (has_snapshots, rights::WITH_ETCD)]
            .into_iter()
            .filter_map(|(holds, condition)| holds.then_some(condition))
            .collect();
        rights::TABLE.required(command, CLUSTER, &conditions, &[])
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

/// Reads a node. `None`: by hand.
pub(crate) async fn read(
    way: &NodeWay,
    node: &ClusterNode,
    with: (&Ui, &kube::Client),
    service: &ServiceOptions,
) -> Result<Option<NodeState>, Error> {
    let Some((access, target)) = way.to(node, with, service, NO_RUN)? else {
        return Ok(None);
    };
    let read = access.read(&target, false).await?;
    check_machine(&node.name, &node.machine_id, &read)?;
    Ok(Some(read))
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
