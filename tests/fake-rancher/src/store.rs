//! The objects of the API servers, followed by watches. Every controller reads from here, and changes here wake it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt, pin_mut};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

/// Namespace ("" at cluster scope) and name.
pub(crate) type Key = (String, String);

/// An object was added, changed or deleted.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) old: Option<Arc<Value>>,
    pub(crate) new: Option<Arc<Value>>,
}

/// All objects of one kind.
pub(crate) struct Cache {
    objects: Mutex<BTreeMap<Key, Arc<Value>>>,
    version: watch::Sender<u64>,
    listeners: Mutex<Vec<mpsc::UnboundedSender<Change>>>,
    ready: watch::Sender<bool>,
}

impl Cache {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            objects: Mutex::default(),
            version: watch::Sender::new(0),
            listeners: Mutex::default(),
            ready: watch::Sender::new(false),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Arc<Value>>> {
        self.objects.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.lock().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All objects of a namespace, by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<Value>> {
        self.lock()
            .range((namespace.to_owned(), String::new())..)
            .take_while(|((ns, _), _)| ns == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Value>> {
        self.lock().values().cloned().collect()
    }

    /// All events from now on. Subscribe before the watch starts to get all.
    pub(crate) fn subscribe(&self) -> mpsc::UnboundedReceiver<Change> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.listeners
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(sender);
        receiver
    }

    /// Changes with every change.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Returns once the first list is complete.
    pub(crate) async fn ready(&self) {
        // The sender exists as long as the cache, so waiting cannot fail.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    fn put(&self, object: Value) {
        let key = key_of(&object);
        let new = Arc::new(object);
        let old = self.lock().insert(key.clone(), new.clone());
        // A watch that restarts lists everything again. That is not an event.
        if old
            .as_ref()
            .is_some_and(|old| old["metadata"]["resourceVersion"] == new["metadata"]["resourceVersion"])
        {
            return;
        }
        self.tell(&Change {
            key,
            old,
            new: Some(new),
        });
    }

    fn remove(&self, key: Key) {
        let old = self.lock().remove(&key);
        if old.is_some() {
            self.tell(&Change { key, old, new: None });
        }
    }

    fn tell(&self, change: &Change) {
        self.listeners
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .retain(|listener| listener.send(change.clone()).is_ok());
        self.version.send_modify(|version| *version += 1);
    }

    async fn follow(&self, events: impl Stream<Item = watcher::Result<Event<DynamicObject>>>) {
        pin_mut!(events);
        let mut seen: Option<Vec<Key>> = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => seen = Some(Vec::new()),
                Ok(Event::InitApply(object)) => {
                    let value = value_of(&object);
                    if let Some(seen) = &mut seen {
                        seen.push(key_of(&value));
                    }
                    self.put(value);
                }
                Ok(Event::InitDone) => {
                    let mut kept = seen.take().unwrap_or_default();
                    kept.sort();
                    let gone: Vec<Key> = self
                        .lock()
                        .keys()
                        .filter(|key| kept.binary_search(key).is_err())
                        .cloned()
                        .collect();
                    for key in gone {
                        self.remove(key);
                    }
                    self.ready.send_replace(true);
                }
                Ok(Event::Apply(object)) => self.put(value_of(&object)),
                Ok(Event::Delete(object)) => self.remove(key_of(&value_of(&object))),
                Err(error) => {
                    tracing::debug!(%error, "watch interrupted");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Keeps the cache in sync with the API server, forever.
    pub(crate) fn start(self: &Arc<Self>, client: Client, kind: &Kind, config: watcher::Config) {
        let api: Api<DynamicObject> = Api::all_with(client, &kind.resource());
        let cache = self.clone();
        tokio::spawn(async move { cache.follow(watcher::watcher(api, config)).await });
    }
}

/// A resource to follow.
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) name: &'static str,
    pub(crate) plural: &'static str,
}

impl Kind {
    fn resource(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, self.version, self.name), self.plural)
    }
}

fn value_of(object: &DynamicObject) -> Value {
    tracing::trace!(name = object.name_any(), "seen");
    serde_json::to_value(object).unwrap_or_default()
}

fn key_of(object: &Value) -> Key {
    let part = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (part("namespace"), part("name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn listing_again_is_not_an_event() {
        let cache = Cache::new();
        let mut changes = cache.subscribe();
        let object = json!({"metadata": {"namespace": "a", "name": "b", "resourceVersion": "1"}});
        cache.put(object.clone());
        cache.put(object);
        assert!(changes.try_recv().is_ok());
        assert!(changes.try_recv().is_err());
        cache.remove(("a".into(), "b".into()));
        assert!(changes.try_recv().unwrap().new.is_none());
    }
}
