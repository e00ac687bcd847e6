//! What a rotation that has not ended, or an earlier recovery, has left in the cluster: tokens, and the last round.

use cli::rotation::leases::LeasedRotation;
use client::error::{Doing as _, Error};
use engine::journal::Unreadable;
use engine::lock::LeaseRecord;
use supervisor::ServerToken as GivenServerToken;

use super::{RUN, Recoverer};
use crate::server_token::lease;
use crate::server_token::recovery::facts::{RoundEnd, RoundFacts};
use crate::server_token::rotation::ServerToken;
use crate::server_token::rotation::record::{Record, RoundRecord};
use crate::server_token::session::backup::{self, Backup, Content, tokens_of};
use crate::server_token::session::tokens::Tokens;

/// They were read.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// A rotation in progress.
    pub(super) rotation: Option<UnfinishedRotation>,
    /// Another rotation with the same Lease is in progress.
    pub(super) has_other: bool,
    /// Of a recovery.
    pub(super) own: Option<Backup>,
    /// The text in the Lease.
    pub(super) journal: Option<String>,
}

/// A rotation in progress.
#[derive(Debug)]
pub(super) struct UnfinishedRotation {
    pub(super) run: String,
    pub(super) record: Record,
    pub(super) backup: Option<Backup>,
}

impl Recoverer<'_> {
    /// Reads them once, when an API server answers for the first time.
    pub(super) async fn read_leftovers(&mut self) -> Result<(), Error> {
        let Some(server) = self.api.clone().filter(|_| self.leftovers.is_none()) else {
            return Ok(());
        };
        let name = lease::name();
        let record = name.lock::<ServerToken>(&server).read().await;
        let record = record.doing(format!("read {name}"))?;
        let mut other = None;
        let rotation = match LeasedRotation::<ServerToken>::from(record.clone()).journal {
            None => None,
            // It has servers restarted, and is resumed once they are up.
            Some(Err(Unreadable::OtherKind(kind))) => {
                other = self.options.commands.other(&kind).cloned();
                None
            }
            Some(Err(why)) => {
                self.ui.warn(format!("the rotation in progress is not known: {why}"));
                None
            }
            Some(Ok(journal)) => {
                let run = journal.run().id.to_string();
                let backup = backup::read(&server.client, &run).await?;
                let record = journal.run().record.clone();
                Some(UnfinishedRotation { run, record, backup })
            }
        };
        let own = backup::read(&server.client, RUN).await?;
        let of_rotation = rotation
            .as_ref()
            .and_then(|rotation| Some((rotation.run.clone(), rotation.backup.clone()?)));
        for (run, backup) in of_rotation
            .into_iter()
            .chain(own.clone().map(|own| (RUN.to_owned(), own)))
        {
            self.open_tokens(&run, &backup.content).await?;
            self.last_round = self.round_of(&backup.content.record).or(self.last_round.take());
        }
        let LeaseRecord { journal, .. } = record;
        if let Some(other) = &other {
            let (rotate, rollback) = (other.commands.rotate(), other.commands.rollback());
            self.ui.warn(format!(
                "{} is in progress: `{rotate}` resumes it, and `{rollback}` rolls it back. Both need the server token that it was \
                 begun with: keep that token",
                other.display
            ));
        }
        self.leftovers = Some(Leftovers {
            rotation,
            has_other: other.is_some(),
            own,
            journal,
        });
        Ok(())
    }

    /// Its tokens, if one of them is known.
    async fn open_tokens(&mut self, run: &str, content: &Content) -> Result<(), Error> {
        let Some(server) = &self.api else { return Ok(()) };
        let cluster = client::cluster_identity::uid(&server.client).await?;
        match content
            .clone()
            .opened(self.sealing_tokens(), cluster, run.to_owned())
            .await
        {
            Ok(opened) => {
                for (_, value) in opened.iter() {
                    if let Ok(token) = GivenServerToken::parse(value.password()) {
                        self.tokens.add(token);
                    }
                }
            }
            Err(error) => self.ui.warn(error.message),
        }
        Ok(())
    }

    fn sealing_tokens(&self) -> Tokens {
        let mut tokens = Tokens::default();
        for value in self.tokens.values() {
            tokens.insert(value);
        }
        tokens
    }

    /// The last round of a record, if its token is known.
    fn round_of(&self, record: &Record) -> Option<RoundFacts> {
        let round = record.round.as_ref()?;
        let end = if round.is_complete {
            RoundEnd::InOrder
        } else {
            RoundEnd::Unfinished
        };
        let value = self.tokens.hash_of(round.value)?;
        Some(RoundFacts { value, end })
    }

    /// Before a round, and after it: its token, sealed with what the servers accept, so that another operator who repeats a
    /// killed recovery has it.
    /// Without an API server or the lock there is no such record.
    pub(super) async fn record_round(
        &mut self,
        login: client::secret::Fingerprint,
        value: client::secret::Fingerprint,
        order: &[String],
        is_complete: bool,
    ) -> Result<(), Error> {
        let (Some(server), Some(_), Some(leftovers)) = (&self.api, &self.lock, &self.leftovers) else {
            return Ok(());
        };
        let before = leftovers.own.clone();
        let mut content = before.as_ref().map_or_else(
            || {
                Content::new(Record {
                    old: login,
                    new: Vec::new(),
                    is_given: false,
                    is_ended: false,
                    round: None,
                })
            },
            |backup| backup.content.clone(),
        );
        for token in [login, value] {
            if tokens_of(&content.record).all(|known| known != token) {
                content.record.new.push(token);
            }
        }
        content.record.round = Some(RoundRecord {
            before: login,
            value,
            order: order.to_vec(),
            mends: true,
            is_complete,
        });
        let cluster = client::cluster_identity::uid(&server.client).await?;
        let sealed = content.sealed(self.sealing_tokens(), cluster, RUN.to_owned());
        let content = sealed.await.map_err(in_words)?;
        let written = backup::write(&server.client, RUN, before.as_ref(), &content).await;
        let written = written.map_err(in_words)?;
        if let Some(leftovers) = &mut self.leftovers {
            leftovers.own = Some(written);
        }
        Ok(())
    }
}

pub(super) fn in_words(failure: engine::controller::Failure) -> Error {
    use engine::controller::Failure;
    match failure {
        Failure::Transient(error) | Failure::Permanent(error) => error,
        Failure::Conflict => {
            Error::failed("another process has changed the record of the recovery").hint("run the same command again")
        }
        Failure::LockLost => Error::failed("the lock was lost"),
    }
}
