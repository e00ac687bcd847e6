//! The rounds of a recovery: PUTs of one token, each with what the server accepts now.

use client::error::{Error, Kind};
use client::secret::Secret;
use supervisor::{CaHash, Credential, ProbeResult, ServerToken, Supervisor, TokenHash, TokenValue};
use tokio::time::Instant;

use super::Recoverer;
use crate::server_token::put::{PutOutcome, put};
use crate::server_token::recovery::facts::{RecoveryFacts, RoundEnd, RoundFacts};
use crate::server_token::recovery::plan::{RecoveryRound, RoundValue};
use crate::server_token::session::tokens::with_hash;
use crate::server_token::session::{OutputTarget, output};

/// How often a round may begin with a PUT that is not sent.
const UNSENT: usize = 5;

/// How many rounds are enough: each one that is decided on ends the disorder, unless a server keeps rejecting its token.
const ROUNDS: usize = 20;

/// How the PUTs of one round have ended.
#[derive(Debug, Default)]
struct Progress {
    accepted: usize,
    /// One got no answer, or was not sent.
    is_open: bool,
    failed: Vec<String>,
    reasons: Vec<String>,
}

impl Recoverer<'_> {
    /// Sends the token to each server, and once more to those that have not carried it out.
    pub(super) async fn send_round(&mut self, round: &RecoveryRound, facts: &RecoveryFacts) -> Result<(), Error> {
        if self.sent.len() >= ROUNDS {
            let message = "servers keep rejecting the token that they are sent; their logs say why";
            return Err(Error::new(Kind::Pending, message).hint(self.again()));
        }
        let mut logins = Vec::new();
        for name in &round.servers {
            logins.push((name.clone(), self.login(name, facts)?));
        }
        let value = match round.value {
            RoundValue::Existing(value) => self.tokens.value(value)?,
            RoundValue::Fresh => self.fresh(facts)?,
        };
        let login = logins.first().map(|(_, (_, password))| password.fingerprint());
        let login = login.ok_or_else(|| Error::failed("a round has no server"))?;
        let token = value.password().fingerprint();
        self.record_round(login, token, &round.servers, false).await?;
        let (hash, began) = (value.hash(), Instant::now());
        self.sent.push(hash);
        let mut progress = Progress::default();
        // Until the end is known, nothing is.
        let before = self.last_round.take();
        self.last_round = Some(round_facts(hash, RoundEnd::Unfinished));
        for (name, (supervisor, password)) in &logins {
            let outcome = self.put(name, supervisor, password, &value, &mut progress).await;
            let is_unsent = matches!(outcome, PutOutcome::Unsent | PutOutcome::LockLost);
            if is_unsent && progress.accepted == 0 && progress.failed.len() == 1 {
                // Nothing has happened anywhere.
                self.last_round = before;
                return self.unsent(&progress);
            }
            if outcome == PutOutcome::Failed
                && round.ends_at_first_rejection
                && progress.accepted == 0
                && !progress.is_open
            {
                self.last_round = Some(round_facts(hash, RoundEnd::FirstRejected(name.clone())));
                self.show_reasons(&progress);
                return Ok(());
            }
        }
        if progress.failed.is_empty() {
            self.show(hash, &round.servers, began);
            let end = if round.is_repeated {
                RoundEnd::OutOfOrder
            } else {
                RoundEnd::InOrder
            };
            let is_complete = end == RoundEnd::InOrder;
            self.last_round = Some(round_facts(hash, end));
            return self.record_round(login, token, &round.servers, is_complete).await;
        }
        for name in std::mem::take(&mut progress.failed) {
            let (supervisor, before) = self.login(&name, facts)?;
            // It may have restarted since, with the token of the round.
            let is_new = supervisor.probe(Credential::Server(value.password())).await == ProbeResult::Accepted;
            let password = if is_new { value.password() } else { &before };
            self.put(&name, &supervisor, password, &value, &mut progress).await;
        }
        self.show_reasons(&progress);
        let end = if progress.failed.is_empty() {
            self.show(hash, &round.servers, began);
            RoundEnd::OutOfOrder
        } else if progress.accepted == 0 && !progress.is_open {
            RoundEnd::NoneAccepted
        } else {
            RoundEnd::Unfinished
        };
        self.last_round = Some(round_facts(hash, end));
        Ok(())
    }

    async fn put(
        &mut self,
        name: &str,
        supervisor: &Supervisor,
        password: &Secret,
        value: &TokenValue,
        progress: &mut Progress,
    ) -> PutOutcome {
        let (outcome, reason) = put(supervisor, password, value, self.may_send()).await;
        let (hash, is_accepted) = (value.hash(), outcome == PutOutcome::Accepted);
        if is_accepted {
            progress.accepted += 1;
            self.proven = Some(hash);
        } else {
            progress.failed.push(name.to_owned());
            progress.is_open |= outcome != PutOutcome::Failed;
            // The datastore may have another one now.
            self.proven = self.proven.filter(|proven| *proven == hash);
        }
        if outcome == PutOutcome::Unanswered {
            self.may_arrive();
        }
        progress.reasons.extend(reason);
        self.memory(name).put(hash, is_accepted);
        outcome
    }

    /// The round is decided again, a few times.
    fn unsent(&mut self, progress: &Progress) -> Result<(), Error> {
        self.unsent += 1;
        if self.unsent < UNSENT {
            return Ok(());
        }
        let reasons = progress.reasons.join("; ");
        Err(Error::new(Kind::Pending, format!("the token cannot be changed: {reasons}")).hint(self.again()))
    }

    fn show_reasons(&self, progress: &Progress) {
        for reason in &progress.reasons {
            self.ui.status(format!("A change of the token failed: {reason}"));
        }
    }

    fn show(&self, token: TokenHash, servers: &[String], began: Instant) {
        let seconds = began.elapsed().as_secs_f64();
        self.ui.status(format!(
            "{} accepted token {token} within {seconds:.2} s.",
            servers.join(", ")
        ));
    }

    /// A server, and the password that it accepts by this observation.
    pub(super) fn login(&self, name: &str, facts: &RecoveryFacts) -> Result<(Supervisor, Secret), Error> {
        let loaded = facts.servers.get(name).and_then(|server| server.loaded);
        let loaded = loaded.ok_or_else(|| {
            Error::failed(format!("server {name} accepts none of the known tokens"))
                .hint("pass the token that it was started with by --token-file")
        })?;
        Ok((self.supervisor(name)?, self.tokens.password(loaded)?))
    }

    /// A token that no server has. It is where the user wants it before any server gets it.
    fn fresh(&mut self, facts: &RecoveryFacts) -> Result<TokenValue, Error> {
        let given = self
            .options
            .given_new
            .as_ref()
            .filter(|new| !self.is_used(new.hash(), facts));
        let (value, is_given) = match given {
            Some(given) => (self.tokens.value(given.hash())?, true),
            None => (TokenValue::generate()?, false),
        };
        let text = with_hash(&value, supervisor::TokenUser::Server, self.ca_hash().as_ref());
        match &self.options.output {
            OutputTarget::File(path) if output::holds(path) != Some(value.password().fingerprint()) => {
                output::write(path, &text)?;
                self.ui
                    .status(format!("The new token {} is in {}.", value.hash(), path.display()));
            }
            OutputTarget::Print => self.ui.out(text.expose()),
            OutputTarget::Nowhere if !is_given => {
                return Err(
                    Error::new(Kind::Usage, "a new token is needed, and nothing says where it goes")
                        .hint("add --write-token FILE or --print-token"),
                );
            }
            OutputTarget::File(_) | OutputTarget::Nowhere => {}
        }
        let token = ServerToken::parse(value.password()).map_err(|error| Error::failed(error.to_string()))?;
        self.tokens.add(token);
        Ok(value)
    }

    /// A server has it, or had it in this run.
    fn is_used(&self, token: TokenHash, facts: &RecoveryFacts) -> bool {
        let has = |server: &crate::server_token::recovery::facts::ServerFacts| {
            server.loaded == Some(token)
                || server.next_token() == Some(token)
                || server.former().any(|former| former == token)
        };
        self.sent.contains(&token) || facts.servers.values().any(has)
    }

    pub(super) fn ca_hash(&self) -> Option<CaHash> {
        let served = self
            .supervisors
            .values()
            .next()
            .map(|supervisor| supervisor.ca_hash().clone());
        let given = || self.options.tokens.iter().find_map(|token| token.ca_hash.clone());
        served.or_else(given)
    }
}

fn round_facts(value: TokenHash, end: RoundEnd) -> RoundFacts {
    RoundFacts { value, end }
}
