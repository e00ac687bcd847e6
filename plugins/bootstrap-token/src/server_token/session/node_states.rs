//! The nodes as they were read last, and which of them are read again.
//!
//! Each read by a pod takes seconds, so a node is read again where its files can have changed: after an edit, a round, or a start of its
//! server; once nothing that was in flight can still arrive; and directly before a step that depends on them.

use std::collections::BTreeMap;
use std::time::Duration;

use node_access::NodeState;
use tokio::time::Instant;

/// By the names of Nodes.
#[derive(Default)]
pub(crate) struct NodeStates(BTreeMap<String, NodeRead>);

struct NodeRead {
    at: Instant,
    state: NodeState,
    /// Its server has been down since, and a start writes its files.
    is_stale: bool,
}

impl NodeStates {
    pub(crate) fn insert(&mut self, name: &str, state: NodeState) {
        let read = NodeRead {
            at: Instant::now(),
            state,
            is_stale: false,
        };
        self.0.insert(name.to_owned(), read);
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<NodeState> {
        self.0.remove(name).map(|read| read.state)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| exists(name));
    }

    pub(crate) fn get(&self, name: &str) -> Option<&NodeState> {
        self.0.get(name).map(|read| &read.state)
    }

    pub(crate) fn all(&self) -> BTreeMap<String, NodeState> {
        let states = self.0.iter();
        states.map(|(name, read)| (name.clone(), read.state.clone())).collect()
    }

    /// When `cred/passwd` of each node was written, in seconds since 1970. `None`: its server has been down since it was read, or it has
    /// none.
    pub(crate) fn passwd_times(&self) -> BTreeMap<String, Option<i64>> {
        let time = |read: &NodeRead| {
            let files = read.state.passwd.iter().filter(|_| !read.is_stale);
            let mut files = files.filter(|passwd| passwd.file.file.ends_with("/cred/passwd"));
            Some(files.next()?.file.modified)
        };
        self.0.iter().map(|(name, read)| (name.clone(), time(read))).collect()
    }

    /// The server of the node is down.
    pub(crate) fn is_down(&mut self, name: &str) {
        if let Some(read) = self.0.get_mut(name) {
            read.is_stale = true;
        }
    }

    /// Whether it was not read within this time, or its files can have changed since.
    pub(crate) fn is_due(&self, name: &str, fresh: Duration) -> bool {
        let read = self.0.get(name);
        read.is_none_or(|read| read.is_stale || read.at.elapsed() >= fresh)
    }

    /// The files of which each node has a backup of this run.
    pub(crate) fn backups(&self) -> Vec<(String, Vec<String>)> {
        let with_backups = self.0.iter().filter(|(_, read)| !read.state.backups.is_empty());
        with_backups
            .map(|(name, read)| (name.clone(), read.state.backups.clone()))
            .collect()
    }

    /// They were deleted.
    pub(crate) fn forget_backups(&mut self, name: &str) {
        if let Some(read) = self.0.get_mut(name) {
            read.state.backups.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_read_again_when_its_server_was_down_or_it_was_read_long_ago() {
        let fresh = Duration::from_mins(10);
        let mut states = NodeStates::default();
        assert!(states.is_due("s1", fresh));
        states.insert("s1", NodeState::default());
        tokio::time::advance(fresh / 2).await;
        assert!(!states.is_due("s1", fresh));
        states.is_down("s1");
        assert!(states.is_due("s1", fresh));
        assert!(
            states.get("s1").is_some(),
            "what was read is lost while the server is down"
        );
        states.insert("s1", NodeState::default());
        assert!(!states.is_due("s1", fresh));
        tokio::time::advance(fresh).await;
        assert!(states.is_due("s1", fresh));
    }

    #[test]
    fn backups_that_were_deleted_are_not_deleted_again() {
        let mut states = NodeStates::default();
        let backups = vec!["/etc/rancher/k3s/config.yaml".to_owned()];
        let read = NodeState {
            backups: backups.clone(),
            ..NodeState::default()
        };
        states.insert("s1", read);
        states.insert("s2", NodeState::default());
        assert_eq!(states.backups(), [("s1".to_owned(), backups)]);
        states.forget_backups("s1");
        assert!(states.backups().is_empty());
    }
}
