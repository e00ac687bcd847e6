//! The cluster of a token: Rancher's authorizer. It is asked only when a tunnel opens, and each replica of Rancher
//! responds from its own copy, which may lag.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::api::read;
use crate::config::TokenStorage;
use crate::store::Key;
use crate::token::{cacerts_name, fingerprint};

/// The entry of an object for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    token: String,
    /// Whose tunnel it opens.
    cluster: String,
    /// Whose steve tunnel it opens.
    steve: String,
}

/// The object that an entry comes from.
type Source = (TokenStorage, Key);

#[derive(Default)]
struct Replica {
    sources: HashMap<Source, Vec<Entry>>,
    tokens: HashMap<String, Vec<(Source, Entry)>>,
    by_hash: HashMap<String, String>,
}

impl Replica {
    fn set(&mut self, source: &Source, entries: Vec<Entry>) {
        for old in self.sources.remove(source).unwrap_or_default() {
            if let Some(holders) = self.tokens.get_mut(&old.token) {
                holders.retain(|(holder, _)| holder != source);
                if holders.is_empty() {
                    self.tokens.remove(&old.token);
                    self.by_hash.remove(&cacerts_name(&old.token));
                }
            }
        }
        for entry in &entries {
            self.by_hash.insert(cacerts_name(&entry.token), entry.token.clone());
            self.tokens
                .entry(entry.token.clone())
                .or_default()
                .push((source.clone(), entry.clone()));
        }
        if !entries.is_empty() {
            self.sources.insert(source.clone(), entries);
        }
    }

    /// The entry of an object with this token storage, or with any.
    fn find(&self, storage: Option<TokenStorage>, token: &str) -> Option<&Entry> {
        self.tokens
            .get(token)?
            .iter()
            .find(|((source, _), _)| storage.is_none_or(|storage| *source == storage))
            .map(|(_, entry)| entry)
    }
}

/// Valid tokens that are rejected.
#[derive(Default)]
struct Refusals {
    /// Everywhere, by fingerprint.
    everywhere: BTreeSet<String>,
    /// For the tunnels of a cluster: all but these.
    known: HashMap<String, HashSet<String>>,
}

/// The authorizer of all replicas.
pub(crate) struct Index {
    /// An up-to-date replica and a lagging one.
    replicas: [Mutex<Replica>; 2],
    queue: mpsc::UnboundedSender<(Instant, Source, Vec<Entry>)>,
    lag: Mutex<Duration>,
    turn: AtomicUsize,
    count: AtomicUsize,
    /// While tokens are moved from one storage to the other, both count.
    either: AtomicBool,
    refusals: Mutex<Refusals>,
    applied: mpsc::UnboundedSender<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Index {
    /// Starts the authorizer. The id of each cluster whose tokens have just changed in the lagging replica is sent to
    /// `applied`.
    pub(crate) fn start(lag: Duration, applied: mpsc::UnboundedSender<String>) -> Arc<Self> {
        let (queue, mut late) = mpsc::unbounded_channel::<(Instant, Source, Vec<Entry>)>();
        let index = Arc::new(Self {
            replicas: Default::default(),
            queue,
            lag: Mutex::new(lag),
            turn: AtomicUsize::new(0),
            count: AtomicUsize::new(1),
            either: AtomicBool::new(false),
            refusals: Mutex::default(),
            applied,
        });
        let this = Arc::downgrade(&index);
        tokio::spawn(async move {
            while let Some((at, source, entries)) = late.recv().await {
                tokio::time::sleep_until(at).await;
                let Some(index) = this.upgrade() else { return };
                index.apply(1, &source, entries);
            }
        });
        index
    }

    fn apply(&self, replica: usize, source: &Source, entries: Vec<Entry>) {
        lock(&self.replicas[replica]).set(source, entries);
        if replica == 1 {
            // The receiver is gone only when the process ends.
            let _ = self.applied.send(source.1.0.clone());
        }
    }

    fn change(&self, source: Source, entries: Vec<Entry>) {
        self.apply(0, &source, entries.clone());
        let lag = *lock(&self.lag);
        // The receiver exists as long as the index.
        let _ = self.queue.send((Instant::now() + lag, source, entries));
    }

    /// A registration token changed. With `status` storage, the tunnel is indexed by `spec.clusterName`
    /// (`pkg/api/steve/…/mcmauthorizer/tunnel.go`), the steve tunnel by namespace, **and there an empty token counts
    /// too** (`pkg/api/steve/proxy/auth.go`, 2.12.12; seen on Rancher 2.12.0: a blank token was accepted for
    /// `stv-cluster-`).
    pub(crate) fn crt(&self, key: Key, object: Option<&Value>) {
        let entries = object.map(|crt| {
            let token = read::text(crt, "/status/token").to_owned();
            let cluster = read::text(crt, "/spec/clusterName").to_owned();
            vec![Entry {
                cluster: if token.is_empty() { String::new() } else { cluster },
                token,
                steve: key.0.clone(),
            }]
        });
        self.change((TokenStorage::Status, key), entries.unwrap_or_default());
    }

    /// A Secret changed. With `secret` storage, name prefix and namespace decide, whether or not a token object exists
    /// (`pkg/controllers/dashboard/clusterregistrationtoken/token_secret.go`, 2.15.0).
    pub(crate) fn secret(&self, key: Key, object: Option<&Value>) {
        if !key.1.starts_with("crt-token-") {
            return;
        }
        let entries = object.map(|secret| {
            ["token", "previousToken"]
                .into_iter()
                .filter_map(|name| read::secret(secret, name))
                .filter(|token| !token.is_empty())
                .map(|token| Entry {
                    token,
                    cluster: key.0.clone(),
                    steve: key.0.clone(),
                })
                .collect()
        });
        self.change((TokenStorage::Secret, key), entries.unwrap_or_default());
    }

    fn source(&self, storage: TokenStorage) -> Option<TokenStorage> {
        (!self.either.load(Ordering::Relaxed)).then_some(storage)
    }

    /// From now on the objects of both token storages count, or only those of one.
    pub(crate) fn accept_either(&self, either: bool) {
        self.either.store(either, Ordering::Relaxed);
    }

    /// The replica that answers this request.
    fn replica(&self) -> std::sync::MutexGuard<'_, Replica> {
        let late = match self.count.load(Ordering::Relaxed) {
            1 => 1,
            _ => self.turn.fetch_add(1, Ordering::Relaxed) % 2,
        };
        lock(&self.replicas[late])
    }

    fn refused(&self, token: &str) -> bool {
        let refusals = lock(&self.refusals);
        !refusals.everywhere.is_empty() && refusals.everywhere.contains(&fingerprint(token))
    }

    /// The cluster whose tunnel the token opens.
    pub(crate) fn tunnel(&self, storage: TokenStorage, token: &str) -> Option<String> {
        if self.refused(token) {
            return None;
        }
        self.replica()
            .find(self.source(storage), token)
            .map(|entry| entry.cluster.clone())
            .filter(|cluster| !cluster.is_empty())
    }

    /// The cluster whose steve tunnel the token opens.
    pub(crate) fn steve(&self, storage: TokenStorage, token: &str) -> Option<String> {
        if self.refused(token) {
            return None;
        }
        self.replica()
            .find(self.source(storage), token)
            .map(|entry| entry.steve.clone())
    }

    /// The valid token that `/cacerts` was asked about by its hash.
    pub(crate) fn by_hash(&self, storage: TokenStorage, hash: &str) -> Option<String> {
        let replica = self.replica();
        let token = replica
            .by_hash
            .get(hash)
            .filter(|token| replica.find(self.source(storage), token).is_some())?
            .clone();
        drop(replica);
        (!self.refused(&token)).then_some(token)
    }

    /// Whether an agent of `cluster` with this token would be accepted by the lagging replica.
    pub(crate) fn admits(&self, storage: TokenStorage, cluster: &str, token: &str) -> bool {
        let found = lock(&self.replicas[1])
            .find(self.source(storage), token)
            .is_some_and(|entry| entry.cluster == cluster);
        found && !self.refused(token) && !self.refused_for_tunnels(cluster, token)
    }

    /// Fingerprints of all tokens that open tunnels of this cluster, in the lagging replica.
    pub(crate) fn accepted(&self, storage: TokenStorage, cluster: &str) -> BTreeSet<String> {
        let tokens: Vec<String> = lock(&self.replicas[1])
            .sources
            .iter()
            .filter(|((source, _), _)| *source == storage)
            .flat_map(|(_, entries)| entries)
            .filter(|entry| entry.cluster == cluster)
            .map(|entry| entry.token.clone())
            .collect();
        tokens
            .iter()
            .filter(|token| !self.refused(token))
            .map(|token| fingerprint(token))
            .collect()
    }

    pub(crate) fn refused_for_tunnels(&self, cluster: &str, token: &str) -> bool {
        lock(&self.refusals)
            .known
            .get(cluster)
            .is_some_and(|known| !known.contains(token))
    }

    pub(crate) fn set_lag(&self, lag: Duration) {
        *lock(&self.lag) = lag;
    }

    /// One replica (the lagging one), or two that respond in turn.
    pub(crate) fn set_replicas(&self, count: usize) {
        self.count.store(count.clamp(1, 2), Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self, fingerprint: &str) {
        lock(&self.refusals).everywhere.insert(fingerprint.to_owned());
    }

    /// From now on, tunnels of this cluster reject every token that does not exist yet. Probes accept it.
    pub(crate) fn refuse_new(&self, cluster: &str) {
        let known = lock(&self.replicas[0]).tokens.keys().cloned().collect();
        lock(&self.refusals).known.insert(cluster.to_owned(), known);
    }

    /// Removes every rejection of a fingerprint, or (`None`) all of them.
    pub(crate) fn admit(&self, fingerprint: Option<&str>) {
        let mut refusals = lock(&self.refusals);
        match fingerprint {
            Some(fingerprint) => {
                refusals.everywhere.remove(fingerprint);
            }
            None => *refusals = Refusals::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn index(lag: Duration) -> Arc<Index> {
        Index::start(lag, mpsc::unbounded_channel().0)
    }

    fn crt(token: &str) -> Value {
        json!({"spec": {"clusterName": "c-aaaaa"}, "status": {"token": token}})
    }

    fn key() -> Key {
        ("c-aaaaa".to_owned(), "system".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_replica_knows_a_token_only_after_its_lag() {
        let index = index(Duration::from_secs(2));
        index.crt(key(), Some(&crt("new")));
        assert_eq!(index.tunnel(TokenStorage::Status, "new"), None);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(index.tunnel(TokenStorage::Status, "new").as_deref(), Some("c-aaaaa"));
        assert_eq!(
            index.tunnel(TokenStorage::Secret, "new"),
            None,
            "with storage `secret` the status is never read"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn two_replicas_disagree_while_one_of_them_is_late() {
        let index = index(Duration::from_secs(2));
        index.set_replicas(2);
        index.crt(key(), Some(&crt("new")));
        let answers: Vec<bool> = (0..4)
            .map(|_| index.tunnel(TokenStorage::Status, "new").is_some())
            .collect();
        assert_eq!(answers.iter().filter(|live| **live).count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn tunnels_can_reject_new_tokens_that_probes_accept() {
        let index = index(Duration::ZERO);
        index.crt(key(), Some(&crt("old")));
        index.refuse_new("c-aaaaa");
        index.crt(("c-aaaaa".to_owned(), "other".to_owned()), Some(&crt("new")));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(index.tunnel(TokenStorage::Status, "new").is_some());
        assert!(!index.admits(TokenStorage::Status, "c-aaaaa", "new"));
        assert!(index.admits(TokenStorage::Status, "c-aaaaa", "old"));
        index.refuse(&fingerprint("old"));
        assert!(index.tunnel(TokenStorage::Status, "old").is_none());
        index.admit(None);
        assert!(index.tunnel(TokenStorage::Status, "old").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_blank_token_opens_the_steve_tunnel_with_status_storage_only() {
        let index = index(Duration::ZERO);
        index.crt(key(), Some(&crt("")));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(index.steve(TokenStorage::Status, "").as_deref(), Some("c-aaaaa"));
        assert_eq!(index.tunnel(TokenStorage::Status, ""), None);
    }

    #[tokio::test(start_paused = true)]
    async fn both_tokens_of_a_secret_are_valid_until_they_are_removed() {
        let index = index(Duration::ZERO);
        let key = ("c-aaaaa".to_owned(), "crt-token-orphan".to_owned());
        index.secret(
            key.clone(),
            Some(&json!({"data": {"token": read::encode("n"), "previousToken": read::encode("o")}})),
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(index.tunnel(TokenStorage::Secret, "o").as_deref(), Some("c-aaaaa"));
        assert_eq!(
            index.by_hash(TokenStorage::Secret, &cacerts_name("n")).as_deref(),
            Some("n")
        );
        index.secret(key, None);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(index.tunnel(TokenStorage::Secret, "n"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_held_by_two_objects_is_valid_until_both_are_deleted() {
        let index = index(Duration::ZERO);
        let temporary = ("c-aaaaa".to_owned(), "zz-crt-temporary-new".to_owned());
        index.crt(key(), Some(&crt("o")));
        index.crt(temporary.clone(), Some(&crt("o")));
        index.crt(key(), Some(&crt("n")));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(index.tunnel(TokenStorage::Status, "o").is_some());
        index.crt(temporary, None);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(index.tunnel(TokenStorage::Status, "o").is_none());
    }
}
