//! Who and what a test asks the stand-in for: users and clusters.

use serde::Serialize;

/// A user of the stand-in's Rancher.
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
    /// One who may do everything, on both sides.
    pub fn admin() -> Self {
        Self {
            name: "user-admin".into(),
            token: "token-admin:8xk2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz5bj7hd9lcf4mgsp6x".into(),
            groups: vec!["system:masters".into()],
        }
    }

    /// One who may do nothing but what a test binds to the group `viewers`.
    pub fn viewer() -> Self {
        Self {
            name: "u-viewer".into(),
            token: "token-viewer:5bj7hd9lcf4mgsp6x8xk2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz".into(),
            groups: vec!["viewers".into()],
        }
    }
}

/// A cluster to be registered. The default is a generic imported one as Rancher 2.13 and later deploy it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// The name that people see.
    pub display_name: String,
    /// The id, if the test cares: `c-abcde`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `imported`, `k3s`, `rke2`, `eks`, `harvester`, `rke2-provisioned`, `local`.
    pub kind: String,
    /// How the downstream Secret is named: `sha256`, `md5`, `import`.
    pub name_pattern: String,
    /// How many agents run.
    pub replicas: u32,
    /// Begin in the state that an import ends in, with one roll-out instead of three.
    pub quick: bool,
}

impl Registration {
    /// A generic imported cluster of this name.
    pub fn imported(display_name: &str) -> Self {
        Self {
            display_name: display_name.into(),
            id: None,
            kind: "imported".into(),
            name_pattern: "sha256".into(),
            replicas: 1,
            quick: false,
        }
    }

    /// The same, by a short cut to the state that an import ends in.
    #[must_use]
    pub fn quick(mut self) -> Self {
        self.quick = true;
        self
    }

    /// The same with so many agents.
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

    /// The same with another rule for the downstream Secret's name.
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
    /// The name that people see.
    pub display_name: String,
}

impl Registered {
    /// The namespace in the shared downstream API server that this cluster's `cattle-system` really is.
    pub fn agent_namespace(&self) -> String {
        format!("cattle-system-{}", self.id)
    }
}
