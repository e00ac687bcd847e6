//! The faults that a test has requested of a server: a file that the control interface writes and the server reads.

use serde::{Deserialize, Serialize};

use crate::node::Node;
use crate::serve::Phase;

/// A moment in the handling of a PUT of a new token, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    /// `cred/passwd` is written.
    AfterPasswd,
    /// `server/token` is truncated but not written. It is not written atomically.
    InToken,
    /// `server/token` is written.
    AfterToken,
    /// The key of the datastore has moved. The server's own copy has both keys.
    AfterKey,
    /// Everything is saved, but not answered.
    AfterSave,
    /// The answer is sent, but the server's own copy lacks the last save.
    AfterAnswer,
}

/// The faults of one server. A kill and a delay apply to one PUT; the others stay until they are changed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Faults {
    /// The server kills itself at this moment of the next PUT.
    pub(crate) kill: Option<Step>,
    /// The next PUT is handled only after so many seconds (never scaled), even if its client has gone.
    pub(crate) delay: Option<f64>,
    /// The network of the node is cut: requests wait, and the server is no longer a working member of etcd.
    pub(crate) cut: bool,
    /// How many seconds the clock of the node is ahead.
    pub(crate) ahead: f64,
    /// A start does not get beyond this phase.
    pub(crate) hold: Option<Phase>,
    /// After its next exit the unit does not restart the server.
    pub(crate) stays_down: bool,
    /// It leads, so it ends when etcd has had no quorum for a while.
    pub(crate) leads: bool,
    /// A pod starts only after so many seconds.
    pub(crate) pod_delay: f64,
    /// A pod does not start, for this reason.
    pub(crate) pod_waits: Option<String>,
    /// A pod is evicted before it starts.
    pub(crate) pod_evicted: bool,
}

impl Faults {
    pub(crate) fn read(node: &Node) -> Self {
        let text = std::fs::read_to_string(node.run_dir().join("faults.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(crate) fn write(&self, node: &Node) -> anyhow::Result<()> {
        let file = node.run_dir().join("faults.json");
        let beside = file.with_extension("new");
        std::fs::write(&beside, serde_json::to_string(self)?)?;
        Ok(std::fs::rename(beside, file)?)
    }

    /// The kill that is planned for the next PUT, and the delay. They are removed.
    pub(crate) fn take(node: &Node) -> (Option<Step>, Option<f64>) {
        let mut faults = Self::read(node);
        let taken = (faults.kill.take(), faults.delay.take());
        if taken != (None, None) {
            // A full disk shows in the test itself.
            let _ = faults.write(node);
        }
        taken
    }
}
