//! The open tunnels, and for each cluster the intervals without one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Each agent opens two (`cmd/agent/main.go` and `pkg/agent/steve`, 2.15.0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tunnel {
    /// Keyed by the cluster id; carries the proxy's calls.
    Agent,
    /// Keyed by `stv-cluster-<id>`. The condition `Connected` depends on it.
    Steve,
}

impl Tunnel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Steve => "steve",
        }
    }
}

/// One open tunnel.
pub(crate) struct Session {
    id: u64,
    pub(crate) tunnel: Tunnel,
    /// The cluster that the token belongs to.
    pub(crate) cluster: String,
    /// The registered cluster of the pod, which differs if a token was moved to another cluster.
    pub(crate) home: String,
    pub(crate) pod: String,
    pub(crate) fingerprint: String,
    pub(crate) since: Timestamp,
    closed: watch::Sender<bool>,
}

impl Session {
    /// Returns when the tunnel closes.
    pub(crate) async fn closed(&self) {
        // The sender is in `self`: waiting cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }
}

/// The things that a cluster can be without.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lack {
    /// No agent tunnel is open.
    Tunnel,
    /// No steve tunnel is open.
    Steve,
    /// No running agent holds, or is about to read, a valid token.
    ValidToken,
    /// An agent that started now, from the Secret that the Deployment names, would be rejected.
    RestartSafety,
}

impl Lack {
    fn name(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Steve => "steve",
            Self::ValidToken => "validToken",
            Self::RestartSafety => "restartSafety",
        }
    }
}

#[derive(Default)]
struct Track {
    /// Counted from here on: before, the cluster was being registered.
    armed: Option<Timestamp>,
    open: BTreeMap<Lack, Timestamp>,
    past: Vec<(Lack, Timestamp, Timestamp)>,
}

#[derive(Default)]
struct Inner {
    sessions: Vec<Arc<Session>>,
    tracks: BTreeMap<String, Track>,
}

/// All tunnels of all clusters.
pub(crate) struct Sessions {
    next: AtomicU64,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU64::new(1),
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes when a tunnel opens or closes.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn open(&self, tunnel: Tunnel, cluster: &str, home: &str, pod: &str, fingerprint: &str) -> Arc<Session> {
        let session = Arc::new(Session {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            tunnel,
            cluster: cluster.to_owned(),
            home: home.to_owned(),
            pod: pod.to_owned(),
            fingerprint: fingerprint.to_owned(),
            since: Timestamp::now(),
            closed: watch::Sender::new(false),
        });
        self.lock().sessions.push(session.clone());
        self.changed.send_modify(|version| *version += 1);
        session
    }

    pub(crate) fn close(&self, session: &Session) {
        self.lock().sessions.retain(|other| other.id != session.id);
        session.closed.send_replace(true);
        self.changed.send_modify(|version| *version += 1);
    }

    /// The tunnel that new calls take: the first in the list, so the oldest
    /// (`github.com/rancher/remotedialer` `session_manager.go`, `getDialer`).
    pub(crate) fn oldest(&self, tunnel: Tunnel, cluster: &str) -> Option<Arc<Session>> {
        self.lock()
            .sessions
            .iter()
            .find(|session| session.tunnel == tunnel && session.cluster == cluster)
            .cloned()
    }

    pub(crate) fn of(&self, cluster: &str) -> Vec<Arc<Session>> {
        self.lock()
            .sessions
            .iter()
            .filter(|session| session.cluster == cluster)
            .cloned()
            .collect()
    }

    /// Starts counting for a cluster that has just been registered.
    pub(crate) fn arm(&self, cluster: &str) {
        self.lock().tracks.entry(cluster.to_owned()).or_default().armed = Some(Timestamp::now());
    }

    /// Clears the intervals.
    pub(crate) fn reset(&self, cluster: &str) {
        if let Some(track) = self.lock().tracks.get_mut(cluster) {
            track.past.clear();
            track.armed = Some(Timestamp::now());
        }
    }

    /// Records what a cluster is without at this moment. Returns what began and what ended.
    pub(crate) fn note(&self, cluster: &str, lacks: &[Lack]) -> Vec<(&'static str, bool)> {
        let now = Timestamp::now();
        let mut inner = self.lock();
        let track = inner.tracks.entry(cluster.to_owned()).or_default();
        let mut changes = Vec::new();
        for lack in [Lack::Tunnel, Lack::Steve, Lack::ValidToken, Lack::RestartSafety] {
            match (lacks.contains(&lack), track.open.get(&lack).copied()) {
                (true, None) => {
                    track.open.insert(lack, now);
                    changes.push((lack.name(), true));
                }
                (false, Some(since)) => {
                    track.open.remove(&lack);
                    if let Some(armed) = track.armed.filter(|armed| now > *armed) {
                        track.past.push((lack, since.max(armed), now));
                    }
                    changes.push((lack.name(), false));
                }
                _ => {}
            }
        }
        changes
    }

    /// Tunnels and intervals of one cluster, for a test to assert on.
    pub(crate) fn report(&self, cluster: &str) -> Value {
        let now = Timestamp::now();
        let inner = self.lock();
        let sessions: Vec<Value> = inner
            .sessions
            .iter()
            .filter(|session| session.cluster == cluster)
            .map(|session| {
                json!({
                    "tunnel": session.tunnel.name(), "pod": session.pod, "fingerprint": session.fingerprint,
                    "since": format!("{:.3}", session.since), "home": session.home,
                })
            })
            .collect();
        let since = |tunnel: &str| {
            sessions
                .iter()
                .filter(|s| s["tunnel"] == tunnel)
                .map(|s| s["since"].clone())
                .min_by_key(ToString::to_string)
        };
        let mut without = json!({"tunnel": [], "steve": [], "validToken": [], "restartSafety": []});
        if let Some(track) = inner.tracks.get(cluster) {
            let open = track
                .open
                .iter()
                .filter_map(|(lack, since)| track.armed.map(|armed| (*lack, (*since).max(armed), now, true)));
            let past = track.past.iter().map(|(lack, from, to)| (*lack, *from, *to, false));
            for (lack, from, to, open) in past.chain(open) {
                if let Some(list) = without[lack.name()].as_array_mut() {
                    // It may have been armed after `now` was read.
                    let ms = (to.as_millisecond() - from.as_millisecond()).max(0);
                    list.push(json!({
                        "from": format!("{from:.3}"), "to": if open { Value::Null } else { format!("{to:.3}").into() }, "ms": ms,
                    }));
                }
            }
        }
        json!({
            "connectedSince": since("agent"), "steveSince": since("steve"),
            "sessions": sessions, "disconnected": without["tunnel"], "without": without,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_calls_take_the_oldest_tunnel() {
        let sessions = Sessions::new();
        let old = sessions.open(Tunnel::Agent, "c-a", "c-a", "old", "1");
        sessions.open(Tunnel::Agent, "c-a", "c-a", "new", "2");
        assert_eq!(sessions.oldest(Tunnel::Agent, "c-a").unwrap().pod, "old");
        sessions.close(&old);
        assert!(*old.closed.borrow());
        assert_eq!(sessions.oldest(Tunnel::Agent, "c-a").unwrap().pod, "new");
    }

    #[test]
    fn an_interval_is_counted_only_once_the_cluster_is_registered() {
        let sessions = Sessions::new();
        sessions.note("c-a", &[Lack::Tunnel]);
        sessions.note("c-a", &[]);
        assert_eq!(sessions.report("c-a")["disconnected"], json!([]));
        sessions.arm("c-a");
        std::thread::sleep(std::time::Duration::from_millis(2));
        sessions.note("c-a", &[Lack::Tunnel]);
        assert_eq!(sessions.report("c-a")["disconnected"][0]["to"], Value::Null);
        sessions.note("c-a", &[]);
        assert!(sessions.report("c-a")["disconnected"][0]["to"].is_string());
    }
}
