//! By hand: what an operator does on a node, as text. The command prints it and waits until it sees from outside that it is done.

use supervisor::SupervisorKind;

/// An instruction for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The Node.
    pub node: String,
    /// What to do, one sentence each.
    pub steps: Vec<String>,
    /// Commands to run there as root, without a secret.
    pub commands: Vec<String>,
}

impl Instruction {
    fn new(node: &str, steps: &[String], commands: &[String]) -> Self {
        Self {
            node: node.to_owned(),
            steps: steps.to_vec(),
            commands: commands.to_vec(),
        }
    }

    /// Remove the configured token. Where it is configured is known only by flag or file, from outside.
    pub fn remove_token(node: &str, kind: SupervisorKind) -> Self {
        let (program, unit) = (kind.program(), kind.server_unit());
        let prefix = program.to_uppercase();
        Self::new(
            node,
            &[
                format!("remove `token:` and `token-file:` from /etc/rancher/{program}/config.yaml and config.yaml.d"),
                format!("remove {prefix}_TOKEN and {prefix}_TOKEN_FILE from the environment file of {unit}"),
                "remove --token and --token-file from the unit, then run systemctl daemon-reload".to_owned(),
            ],
            &[
                format!("grep -rlE '^(token|token-file):' /etc/rancher/{program}/"),
                format!("systemctl cat {unit} | grep -nE -- '--token|EnvironmentFile='"),
            ],
        )
    }

    /// Configure an agent token. `value`: which one, in words; without it the configured one is removed.
    pub fn configure_agent_token(node: &str, kind: SupervisorKind, value: Option<&str>) -> Self {
        let program = kind.program();
        let prefix = program.to_uppercase();
        let mut steps = Vec::new();
        if let Some(value) = value {
            steps.push(format!(
                "write {value} as `agent-token:` into /etc/rancher/{program}/config.yaml"
            ));
        } else {
            steps.push(format!(
                "remove `agent-token:` and `agent-token-file:` from /etc/rancher/{program}/config.yaml"
            ));
        }
        steps.push(format!(
            "remove any other agent token: in config.yaml.d, --agent-token, --agent-token-file, {prefix}_AGENT_TOKEN and {prefix}_AGENT_TOKEN_FILE"
        ));
        Self::new(
            node,
            &steps,
            &[format!("grep -rlE '^agent-token' /etc/rancher/{program}/")],
        )
    }

    /// Restart the service, without waiting.
    pub fn restart(node: &str, kind: SupervisorKind) -> Self {
        let unit = kind.server_unit();
        Self::new(
            node,
            &["restart the service".to_owned()],
            &[format!("systemctl --no-block restart {unit}")],
        )
    }

    /// Bring back a server that does not start.
    pub fn write_server_token(node: &str, kind: SupervisorKind, data_dir: &str) -> Self {
        let unit = kind.server_unit();
        Self::new(
            node,
            &[
                format!("stop {unit}"),
                format!("write the token as K10<hash>::server:<password> into {data_dir}/server/token, with mode 0600"),
                format!(
                    "if the log of the last start names only {data_dir}/server/cred/passwd, delete that file, and no other"
                ),
                format!("start {unit} once, and stop it if it fails"),
            ],
            &[
                format!("systemctl stop {unit}"),
                format!("journalctl -u {unit} -n 50 --no-pager"),
                format!("systemctl --no-block start {unit}"),
            ],
        )
    }
}
