//! Whether the encryption of Secrets allows a round of changes of the token.
//!
//! Each change stores that server's own encryption configuration in the datastore. If servers differ, that overwrites the newer one:
//! the next start fails, and following its message loses the only copy of a key, and with it every Secret (seen on K3s 1.36.3).

use client::secret::Secret;
use serde::Deserialize;

use crate::error::Result;
use crate::supervisor::Supervisor;
use crate::token::TokenUser;
use crate::wire::Login;

/// What `GET /v1-k3s/encrypt/status` says. The first two fields are always there: an object without them is not this status.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct EncryptionStatus {
    /// The stage of a rotation of keys; empty if the encryption is off.
    pub stage: String,
    /// The key in use.
    #[serde(rename = "activekey")]
    pub active_key: String,
    /// Whether the encryption is on. Absent: off.
    pub enable: Option<bool>,
    /// Whether all servers have the same configuration.
    #[serde(rename = "hashmatch", default)]
    pub hash_match: bool,
    /// Why they do not.
    #[serde(rename = "hasherror", default)]
    pub hash_error: String,
    /// Keys that are not in use.
    #[serde(rename = "inactivekeys")]
    pub inactive_keys: Option<Vec<String>>,
}

/// Why a round is not safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncryptionBlocker {
    /// A rotation of keys is not complete.
    #[error("secrets-encryption is in stage {stage:?} on server {server}")]
    Stage {
        /// The server.
        server: String,
        /// Its stage.
        stage: String,
    },
    /// The server does not confirm that all have the same configuration.
    #[error("server {0} does not confirm that all servers have the same encryption configuration")]
    HashMismatch(String),
    /// A rotation of keys has left keys.
    #[error("server {0} has encryption keys that are not in use")]
    InactiveKeys(String),
    /// Two servers are not the same.
    #[error("the encryption of servers {0} and {1} differs")]
    Different(String, String),
    /// The encryption is neither off nor on.
    #[error("the encryption status of server {0} is not known")]
    Unknown(String),
    /// No server was asked.
    #[error("the encryption status of no server is known")]
    NoServer,
}

impl EncryptionStatus {
    /// Secrets are not encrypted, and no key exists.
    fn is_off(&self) -> bool {
        let Self {
            stage,
            active_key,
            enable,
            ..
        } = self;
        stage.is_empty() && active_key.is_empty() && *enable != Some(true) && !self.has_inactive_keys()
    }

    fn has_inactive_keys(&self) -> bool {
        self.inactive_keys.as_ref().is_some_and(|keys| !keys.is_empty())
    }

    fn check(&self, server: &str) -> Result<(), EncryptionBlocker> {
        let server = server.to_owned();
        if !self.hash_error.is_empty() {
            Err(EncryptionBlocker::HashMismatch(server))
        } else if self.is_off() {
            Ok(())
        } else if self.stage.is_empty() || self.active_key.is_empty() {
            Err(EncryptionBlocker::Unknown(server))
        } else if !["start", "reencrypt_finished"].contains(&self.stage.as_str()) {
            let stage = client::sanitize::line(&self.stage);
            Err(EncryptionBlocker::Stage { server, stage })
        } else if !self.hash_match {
            Err(EncryptionBlocker::HashMismatch(server))
        } else if self.has_inactive_keys() {
            Err(EncryptionBlocker::InactiveKeys(server))
        } else {
            Ok(())
        }
    }

    /// Whether a round is safe: off on all of these servers, or on all of them the same complete configuration.
    pub fn safe_for_round<'a>(servers: impl IntoIterator<Item = (&'a str, &'a Self)>) -> Result<(), EncryptionBlocker> {
        let mut first: Option<(&str, &Self)> = None;
        for (server, status) in servers {
            status.check(server)?;
            let (name, expected) = *first.get_or_insert((server, status));
            let same = |status: &Self| {
                (
                    status.stage.clone(),
                    status.active_key.clone(),
                    status.enable == Some(true),
                )
            };
            if same(status) != same(expected) {
                return Err(EncryptionBlocker::Different(name.to_owned(), server.to_owned()));
            }
        }
        first.map(|_| ()).ok_or(EncryptionBlocker::NoServer)
    }
}

impl Supervisor {
    /// The encryption status of the server. Shortly after its start the error is a 500.
    pub async fn encryption(&self, password: &Secret) -> Result<EncryptionStatus> {
        let login = Login::User(TokenUser::Server, password);
        self.get(self.kind().path("encrypt/status"), login).await?.json()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const OFF: &str = r#"{"stage":"","activekey":""}"#;
    const ON: &str = r#"{"stage":"start","activekey":"AES-CBC aescbckey","enable":true,"hashmatch":true}"#;
    const ROTATED: &str = r#"{"stage":"reencrypt_finished","activekey":"AES-CBC key2","enable":true,"hashmatch":true,"inactivekeys":null}"#;

    #[rstest]
    #[case(&[OFF], None)]
    #[case(&[OFF, OFF, OFF], None)]
    #[case(&[ON, ON], None)]
    #[case(&[ROTATED, ROTATED], None)]
    #[case(&[], Some("the encryption status of no server is known"))]
    #[case(&[OFF, ON], Some("the encryption of servers s1 and s2 differs"))]
    #[case(&[ON, ROTATED], Some("the encryption of servers s1 and s2 differs"))]
    #[case(
        &[ON, r#"{"stage":"start","activekey":"AES-CBC other","enable":true,"hashmatch":true}"#],
        Some("the encryption of servers s1 and s2 differs")
    )]
    #[case(
        &[ON, r#"{"stage":"start","activekey":"AES-CBC aescbckey","hashmatch":true}"#],
        Some("the encryption of servers s1 and s2 differs")
    )]
    #[case(
        &[r#"{"stage":"prepare","activekey":"AES-CBC a","enable":true,"hashmatch":true}"#],
        Some("secrets-encryption is in stage \"prepare\" on server s1")
    )]
    #[case(
        &[ON, r#"{"stage":"start","activekey":"AES-CBC aescbckey","enable":true}"#],
        Some("server s2 does not confirm that all servers have the same encryption configuration")
    )]
    #[case(
        &[r#"{"stage":"","activekey":"","hasherror":"hash does not match between s1 and s2"}"#],
        Some("server s1 does not confirm that all servers have the same encryption configuration")
    )]
    #[case(
        &[r#"{"stage":"start","activekey":"AES-CBC a","enable":true,"hashmatch":true,"inactivekeys":["AES-CBC b"]}"#],
        Some("server s1 has encryption keys that are not in use")
    )]
    #[case(&[r#"{"stage":"","activekey":"","inactivekeys":["b"]}"#], Some("the encryption status of server s1 is not known"))]
    #[case(&[r#"{"stage":"","activekey":"","enable":true}"#], Some("the encryption status of server s1 is not known"))]
    #[case(&[r#"{"stage":"start","activekey":"","enable":true,"hashmatch":true}"#], Some("the encryption status of server s1 is not known"))]
    fn a_round_needs_encryption_that_is_off_or_complete_and_the_same(
        #[case] servers: &[&str],
        #[case] blocker: Option<&str>,
    ) {
        let parse = |text: &&str| serde_json::from_str::<EncryptionStatus>(text).unwrap();
        let statuses: Vec<_> = servers.iter().map(parse).collect();
        let checked = EncryptionStatus::safe_for_round(["s1", "s2", "s3"].into_iter().zip(&statuses));
        assert_eq!(checked.err().map(|blocker| blocker.to_string()).as_deref(), blocker);
    }
}
