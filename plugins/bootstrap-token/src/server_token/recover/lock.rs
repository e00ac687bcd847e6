//! The lock: the Lease of the rotations, where an API server answers. Without one, nothing keeps a second process away, and that is said.

use std::sync::atomic::{AtomicBool, Ordering};

use client::connection::Server;
use client::error::{Doing as _, Error, Kind};
use engine::lock::{AcquireError, Fence};
use tokio::time::Instant;

use super::{RUN, Recoverer};
use crate::server_token::in_flight::in_flight;
use crate::server_token::lease;
use crate::server_token::recovery::plan::RecoveryAction;
use crate::server_token::rotation::ServerToken;

impl Recoverer<'_> {
    /// Takes the lock as soon as an API server answers, and says where there is none. Returns whether that has changed.
    pub(super) async fn hold_lock(&mut self) -> Result<bool, Error> {
        if let Some(lock) = &self.lock {
            if let Some(lost) = lock.lost() {
                return Err(Error::new(Kind::Held, lost.to_string()));
            }
            // It is renewed through one API server. While that is away, it is acquired again through the one that answers.
            let is_same = self.api.as_ref().map(|api| &api.url) == self.lock_url.as_ref();
            if lock.fence().is_open() || is_same {
                return Ok(false);
            }
        }
        if let Some(server) = self.api.clone() {
            match self.take_lock(&server).await {
                // It answers, and its etcd does not.
                Err(error) if error.kind.is_transient() => tracing::debug!(%error, "the lock cannot be taken yet"),
                taken => return taken.map(|()| true),
            }
        }
        if self.lock.is_some() || self.in_flight.is_some() {
            return Ok(false);
        }
        self.ui.warn(
            "no API server answers, so this recovery holds no lock: make sure that no other recovery or rotation is running",
        );
        self.wait_for_others();
        Ok(true)
    }

    async fn take_lock(&mut self, server: &Server) -> Result<(), Error> {
        let name = lease::name();
        let lock = name.lock::<ServerToken>(server);
        let before = lock.read().await.doing(format!("read {name}"))?;
        let is_own = before.is_of_this_process();
        let was_held = AtomicBool::new(before.holder.is_some() && !is_own);
        let on_wait = |holder: &str| {
            was_held.store(true, Ordering::Relaxed);
            self.ui.status(format!(
                "The lock of the server token is held by {holder}. Checking whether the holder still renews it."
            ));
        };
        let acquired = lock.acquire(is_own, on_wait).await;
        let (guard, record) = match acquired {
            Ok(acquired) => acquired,
            Err(AcquireError::Held(holder)) => {
                let message = format!("a rotation or a recovery of the server token is in progress, held by {holder}");
                let status = self.options.commands.status();
                return Err(Error::new(Kind::Held, message).hint(format!("`{status}` shows its progress")));
            }
            Err(AcquireError::Api(error)) => return Err(error).doing(format!("acquire the lock, {name}")),
        };
        let was_here = is_own && self.lock.is_some();
        (self.lock, self.lock_url) = (Some(guard), Some(server.url.clone()));
        if was_here {
            return Ok(());
        }
        if let Some(pods) = self.options.nodes.pods(self.ui, &server.client, RUN) {
            pods.clean_up(&server.clock, true).await?;
        }
        let is_taken_over = was_held.load(Ordering::Relaxed) || record.journal.is_some();
        if self
            .leftovers
            .as_ref()
            .is_some_and(|leftovers| leftovers.journal != record.journal)
        {
            self.leftovers = None;
        }
        let has_own = self.leftovers.as_ref().is_some_and(|leftovers| leftovers.own.is_some());
        if is_taken_over || has_own {
            self.wait_for_others();
        }
        Ok(())
    }

    /// A process that takes over waits for what another one has sent.
    fn wait_for_others(&mut self) {
        self.in_flight = Some(Instant::now() + in_flight());
    }

    /// Whether a PUT may be sent, asked directly before it.
    pub(super) fn may_send(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let fence = self.lock.as_ref().map(|lock| lock.fence().clone());
        move || fence.as_ref().is_none_or(Fence::is_open)
    }

    pub(super) fn has_lock_for(&self, action: &RecoveryAction) -> bool {
        match action {
            RecoveryAction::Round(_) => self.may_send()(),
            _ => self.may_act(),
        }
    }

    /// Whether something may be done on a node. While no API server answers, no other process can take the lock.
    fn may_act(&self) -> bool {
        let is_kept =
            |lock: &engine::lock::LockGuard| lock.lost().is_none() && (self.api.is_none() || lock.fence().is_open());
        self.lock.as_ref().is_none_or(is_kept)
    }
}
