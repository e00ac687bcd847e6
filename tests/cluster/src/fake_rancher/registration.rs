//! The users and clusters of the fake Rancher.

use serde::Serialize;

/// A user of the fake Rancher.
#[derive(Clone, Serialize)]
pub struct User {
    /// The Rancher user id: `u-abcde`.
    pub name: String,
    /// The whole bearer value, `token-…:…`.
    pub token: String,
    /// Groups on both sides.
    pub groups: Vec<String>,
}

impl User {
    /// A user who may do everything on both sides.
    pub fn admin() -> Self {
        Self {
            name: "user-admin".into(),
            token: "token-admin:8xk2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz5bj7hd9lcf4mgsp6x".into(),
            groups: vec!["system:masters".into()],
        }
    }

    /// A user with only the permissions that a test grants to the group `viewers`.
    pub fn viewer() -> Self {
        Self {
            name: "u-viewer".into(),
            token: "token-viewer:5bj7hd9lcf4mgsp6x8xk2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz".into(),
            groups: vec!["viewers".into()],
        }
    }
}

/// A cluster to register. The default is a generic imported one as Rancher 2.13 and later deploy it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// The display name.
    pub display_name: String,
    /// The id, if the test needs a fixed one: `c-abcde`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `imported`, `k3s`, `rke2`, `eks`, `harvester`, `provisioned`, `local`.
    pub kind: String,
    /// The formula for the name of the downstream Secret: `sha256`, `md5`, `import`.
    pub name_pattern: String,
    /// The number of agents.
    pub replicas: u32,
    /// Start in the state at the end of an import, with one rollout instead of three.
    pub quick: bool,
    /// The control-plane machines of a provisioned cluster.
    pub machines: u32,
}

impl Registration {
    /// A generic imported cluster with this name.
    pub fn imported(display_name: &str) -> Self {
        Self {
            display_name: display_name.into(),
            id: None,
            kind: "imported".into(),
            name_pattern: "sha256".into(),
            replicas: 1,
            quick: false,
            machines: 1,
        }
    }

    /// The same, with a shortcut to the state at the end of an import.
    #[must_use]
    pub fn quick(mut self) -> Self {
        self.quick = true;
        self
    }

    /// The same with this number of agents.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// The same of another kind.
    #[must_use]
    pub fn kind(mut self, kind: &str) -> Self {
        kind.clone_into(&mut self.kind);
        self
    }

    /// The same, provisioned by Rancher with this number of control-plane machines.
    #[must_use]
    pub fn provisioned(self, machines: u32) -> Self {
        Self {
            machines,
            ..self.kind("provisioned")
        }
    }

    /// The same with another formula for the name of the downstream Secret.
    #[must_use]
    pub fn name_pattern(mut self, pattern: &str) -> Self {
        pattern.clone_into(&mut self.name_pattern);
        self
    }
}

/// A cluster that is registered and connected.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The id: `c-abcde`.
    pub id: String,
    /// The display name.
    pub display_name: String,
}

impl Registered {
    /// The namespace of the shared downstream API server that stands for `cattle-system` of this cluster.
    pub fn agent_namespace(&self) -> String {
        format!("cattle-system-{}", self.id)
    }
}
