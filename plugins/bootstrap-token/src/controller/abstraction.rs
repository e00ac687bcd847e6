//! The abstraction: turns the objects, the probe results and the memory of this process into what the stages see. **Safety depends
//! on it as much as on the stages.** It has no I/O and no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use bootstrap::cluster_info::{ClusterInfo, Signature};
use bootstrap::{Expiration, ProbeResult, Token, TokenId, TokenSecret};
use client::cluster_identity::{CaComparison, same_ca};
use client::ownership::Writer;
use client::secret::{Fingerprint, Secret};
use engine::credential::{Acceptance, Validity};
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Blocker, Timer};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::cluster::MANAGER;
use crate::delivery::{self, DeliveryTarget, content, file, secret};
use crate::rotation::blockers;
use crate::rotation::observed::{Delivery, Id, Observed, SecretState, TokenState};
use crate::rotation::record::{Origin, Place};
use crate::servers::{ServerResult, combined};

use super::Run;

/// The annotation with the [`Origin`] of a token that a run has created.
pub(super) const ORIGIN: &str = "kubectl-rotation.github.io/bootstrap-token-rotation";

/// A token that expires sooner than this may expire while a write is in flight.
const EXPIRING: SignedDuration = SignedDuration::from_mins(5);
/// During the overlap nothing is revoked, so a probe result may be this old.
const FRESH: Duration = Duration::from_secs(10);

/// The objects of one observation, with the values and versions that steps need.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) old: Option<TokenSecret>,
    pub(super) new: Option<TokenSecret>,
    pub(super) info: Option<ClusterInfo>,
    pub(super) delivery: DeliverySnapshot,
}

/// The delivery as it was read.
#[derive(Debug, Default)]
pub(super) enum DeliverySnapshot {
    #[default]
    None,
    /// A file on another host.
    OtherHost,
    Missing(DeliveryTarget),
    Secret(secret::SecretKey, Box<secret::Revision>),
    File(std::path::PathBuf, file::Revision),
}

impl DeliverySnapshot {
    pub(super) fn content(&self) -> Option<&Secret> {
        match self {
            Self::Secret(_, version) => Some(&version.content),
            Self::File(_, version) => Some(&version.content),
            Self::None | Self::OtherHost | Self::Missing(_) => None,
        }
    }

    pub(super) fn token(&self) -> Option<Token> {
        content::token_in(self.content()?)
    }

    fn observed(&self, run: Option<&Run>, acceptance: Acceptance) -> Delivery {
        let holds = |content: &Secret, mark, writer: Option<&Writer>| Delivery::Holds {
            content: delivery::content_of(content),
            mark,
            acceptance,
            writer: writer.map(ToString::to_string),
        };
        match self {
            Self::None => Delivery::None,
            Self::OtherHost => Delivery::OtherHost,
            Self::Missing(_) => Delivery::Missing,
            Self::File(_, version) => holds(&version.content, None, None),
            Self::Secret(_, version) => {
                let mark = mark(&version.annotations, run);
                holds(&version.content, mark, version.writer.as_ref())
            }
        }
    }
}

/// What this process remembers between observations.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Every token that it has drawn or read. A token without a Secret can still be probed.
    pub(super) tokens: BTreeMap<Fingerprint, Token>,
    /// The last value in the Secret of the new token.
    pub(super) last_new: Option<Token>,
    /// The Secret of the old token was gone in an observation after this run had begun to revoke it.
    revoked: bool,
}

impl Memory {
    pub(super) fn note(&mut self, snapshot: &Snapshot, run: Option<&Run>) {
        let [old, new] = [&snapshot.old, &snapshot.new].map(|secret| secret.as_ref()?.token.clone());
        self.last_new = new.clone().or(self.last_new.take());
        for token in [old, new, snapshot.delivery.token()].into_iter().flatten() {
            self.tokens.insert(token.fingerprint(), token);
        }
        self.revoked |= snapshot.old.is_none() && run.is_some_and(|run| run.phase >= Phase::Retire);
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    pub(super) old: Option<Token>,
    pub(super) new: Option<Token>,
}

/// Of the old token, the value that is rotated, whatever its Secret holds now. Of the new token, the value in its Secret, or the last
/// one that it held.
pub(super) fn values(snapshot: &Snapshot, run: Option<&Run>, memory: &Memory) -> Values {
    let of = |secret: &Option<TokenSecret>| secret.as_ref()?.token.clone();
    let Some(run) = run else {
        let old = of(&snapshot.old);
        return Values { old, new: None };
    };
    let drawn = run.record.new.as_ref();
    let is_new = |token: &Token| drawn.is_some_and(|new| new.id.0 == token.id.as_str());
    let new = of(&snapshot.new)
        .or_else(|| memory.last_new.clone().filter(is_new))
        .or_else(|| snapshot.delivery.token().filter(is_new))
        .or_else(|| memory.tokens.get(&drawn?.value).cloned());
    let old = memory.tokens.get(&run.record.old.value).cloned();
    Values { old, new }
}

/// The tokens to probe with. The first observation of a process probes with both, for the plan.
pub(super) fn probes<'a>(values: &'a Values, snapshot: &Snapshot, run: &Run, is_first: bool) -> [Option<&'a Token>; 2] {
    let (back, revoked) = (run.direction.is_rollback(), run.phase >= Phase::Retire);
    let is_in_secret = |old: &Token| {
        snapshot
            .old
            .as_ref()
            .is_some_and(|secret| secret.token.as_ref() == Some(old))
    };
    let old = values.old.as_ref();
    let new = values.new.as_ref();
    [
        old.filter(|old| back || is_first || revoked || !is_in_secret(old)),
        new.filter(|_| !back || is_first || revoked || snapshot.new.is_none()),
    ]
}

/// The revoked token that cannot be probed, in words: its value is unknown, since the process that revoked it ended before it probed.
pub(super) fn unproven(values: &Values, snapshot: &Snapshot, run: &Run) -> Option<String> {
    let drawn = run.record.new.as_ref();
    let gone = snapshot.old.as_ref().is_none_or(|secret| secret.token.is_none());
    match run.direction {
        Direction::Forward => (values.old.is_none() && gone).then(|| run.record.old.value.to_string()),
        Direction::Rollback if run.phase >= Phase::Retire && values.new.is_none() => {
            Some(drawn.map_or_else(|| "the new token".to_owned(), |new| new.value.to_string()))
        }
        Direction::Rollback | Direction::RollForward => None,
    }
}

/// Whether a token that was accepted `age` ago, when its Secret had the version `then`, counts as accepted without another probe.
pub(super) fn is_fresh(run: &Run, then: &str, now: Option<&str>, age: Duration) -> bool {
    run.running(Timer::Quiet) && now == Some(then) && age < FRESH
}

/// The combined result of all API servers.
pub(super) fn acceptance(results: &[ServerResult]) -> Acceptance {
    match combined(results) {
        ProbeResult::Accepted { .. } => Acceptance::Accepted,
        ProbeResult::Rejected => Acceptance::Rejected,
        ProbeResult::Unknown(reason) => Acceptance::Unknown(reason),
    }
}

/// The results of the servers for each token on which they disagree.
pub(super) fn disagreements(seen: &Observed, run: Option<&Run>) -> Vec<String> {
    let new = run.and_then(|run| run.record.new.as_ref()).map(|new| &new.id);
    let tokens = [(Some(&seen.id), &seen.old), (new, &seen.new)];
    let reasons = tokens
        .into_iter()
        .filter_map(|(id, token)| Some((id?, token.acceptance.reason())));
    reasons
        .filter(|(_, reason)| !reason.is_empty())
        .map(|(id, reason)| format!("bootstrap token {id}: {reason}"))
        .collect()
}

/// The cluster of the objects and the login of the command. They normally do not change while a command runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    /// The id of the token that the command logs in with.
    pub(super) login: Option<Id>,
    /// A named server that belongs to another cluster.
    pub(super) foreign_server: Option<String>,
    /// The certificate authorities of this cluster: the published one, and the one in the kubeconfig.
    pub(super) authorities: Vec<String>,
}

impl Identity {
    /// The server or the delivery that belongs to another cluster. `forced`: the delivery may.
    pub(super) fn another_cluster(&self, snapshot: &Snapshot, place: Option<&Place>, forced: bool) -> Option<Blocker> {
        if let Some(server) = &self.foreign_server {
            return Some(blockers::another_server(server));
        }
        let trusted = content::authority_in(snapshot.delivery.content()?).filter(|_| !forced)?;
        let compared: Vec<_> = self.authorities.iter().map(|ours| same_ca(&trusted, ours)).collect();
        let differs = compared.contains(&CaComparison::Different) && !compared.contains(&CaComparison::Same);
        let at = place.map_or("the delivery", |place| &place.at);
        differs.then(|| blockers::delivery_of_another_cluster(at))
    }
}

/// The inputs of the abstraction.
pub(super) struct Observation<'a> {
    pub(super) id: &'a TokenId,
    pub(super) snapshot: &'a Snapshot,
    pub(super) run: Option<&'a Run>,
    pub(super) memory: &'a Memory,
    pub(super) values: &'a Values,
    /// Of the old and the new token.
    pub(super) acceptances: [Acceptance; 2],
    pub(super) place: Option<Place>,
    pub(super) lost: bool,
    pub(super) login: Option<Id>,
    pub(super) another_cluster: Option<Blocker>,
    /// The API server's time.
    pub(super) now: Timestamp,
}

impl Observation<'_> {
    pub(super) fn observed(self) -> Observed {
        let Snapshot {
            old,
            new,
            info,
            delivery,
            ..
        } = self.snapshot;
        let [old_acceptance, new_acceptance] = self.acceptances;
        // The delivery is not probed by itself: it normally holds one of the two tokens.
        let delivered = delivery.token();
        let delivery_acceptance = match &delivered {
            Some(_) if delivered == self.values.old => old_acceptance.clone(),
            Some(_) if delivered == self.values.new => new_acceptance.clone(),
            _ => Acceptance::NotAsked,
        };
        let token = |secret: &Option<TokenSecret>, acceptance| {
            token(secret.as_ref(), info.as_ref(), self.run, acceptance, self.now)
        };
        let revoked = self.memory.revoked && self.run.is_some_and(|run| run.phase >= Phase::Retire);
        Observed {
            blockers: Vec::new(),
            id: Id(self.id.to_string()),
            old: TokenState {
                returned: revoked && old.is_some(),
                ..token(old, old_acceptance)
            },
            new: token(new, new_acceptance),
            delivery: delivery.observed(self.run, delivery_acceptance),
            place: self.place,
            lost: self.lost,
            login: self.login,
            another_cluster: self.another_cluster,
        }
    }
}

fn token(
    secret: Option<&TokenSecret>,
    info: Option<&ClusterInfo>,
    run: Option<&Run>,
    acceptance: Acceptance,
    now: Timestamp,
) -> TokenState {
    let value = secret.and_then(|secret| secret.token.as_ref());
    let signed = value.zip(info);
    TokenState {
        secret: secret.map(|secret| SecretState {
            value: value.map(Token::fingerprint),
            validity: validity(secret, now),
            mark: mark(&secret.annotations, run),
            origin: origin(&secret.annotations),
        }),
        acceptance,
        signed: signed.is_some_and(|(token, info)| info.signature(token) == Signature::Valid),
        returned: false,
        writer: secret
            .and_then(|secret| secret.last_writer(MANAGER))
            .map(|writer| writer.to_string()),
    }
}

fn validity(secret: &TokenSecret, now: Timestamp) -> Validity {
    if !secret.flaws(now).is_empty() {
        return Validity::Invalid;
    }
    let soon = now.saturating_add(EXPIRING).unwrap_or(Timestamp::MAX);
    match secret.expiration {
        Expiration::At(end) if end <= soon => Validity::Expiring,
        _ => Validity::Valid,
    }
}

/// The key in the marks of a run: the id of the rotated token, and the run.
pub(super) fn run_key(run: &Run) -> String {
    format!("{}.{}", run.record.old.id, run.id)
}

fn mark(annotations: &BTreeMap<String, String>, run: Option<&Run>) -> Option<Direction> {
    let mark = annotations.get(engine::direction::ANNOTATION)?;
    Direction::in_mark(mark, &run_key(run?))
}

/// `None`: there is none, or it cannot be read.
fn origin(annotations: &BTreeMap<String, String>) -> Option<Origin> {
    serde_json::from_str(annotations.get(ORIGIN)?).ok()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bootstrap::{NewToken, Usage};
    use engine::run::RunId;
    use rstest::rstest;

    use super::*;
    use crate::rotation::record::{Record, TokenRef};

    const OLD: &str = "abcdef.0123456789abcdez";
    const NEW: &str = "newnew.0123456789abcdez";
    /// The value of N before another writer has changed it.
    const DRAWN: &str = "newnew.zzzzzzzzzzzzzzzz";
    const FOREIGN: &str = "zzzzzz.0123456789abcdez";

    fn token(text: &str) -> Token {
        Token::parse(&Secret::new(text)).unwrap()
    }

    fn now() -> Timestamp {
        "2026-11-22T13:00:00Z".parse().unwrap()
    }

    fn secret(text: &str) -> TokenSecret {
        let new = NewToken {
            token: token(text),
            usages: vec![Usage::Authentication],
            groups: Vec::new(),
            expiration: None,
            description: String::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        };
        new.preview()
    }

    fn reference(text: &str) -> TokenRef {
        let token = token(text);
        TokenRef {
            id: Id(token.id.to_string()),
            value: token.fingerprint(),
        }
    }

    fn run(direction: Direction, phase: Phase) -> Run {
        let record = Record {
            old: reference(OLD),
            new: Some(reference(DRAWN)),
            place: None,
            abandoned: None,
            delivered: false,
            last_delivered: None,
        };
        let run = Run::begin(RunId::placeholder(), record);
        Run {
            direction,
            phase,
            ..run
        }
    }

    fn file(content: &str) -> DeliverySnapshot {
        let version = file::Revision {
            content: Secret::new(content),
            inode: (0, 0),
        };
        DeliverySnapshot::File("/token".into(), version)
    }

    /// The Secrets and the delivery, each of which may be missing.
    fn snapshot(old: Option<&str>, new: Option<&str>, delivery: Option<&str>) -> Snapshot {
        Snapshot {
            old: old.map(secret),
            new: new.map(secret),
            info: None,
            delivery: delivery.map(file).unwrap_or_default(),
        }
    }

    /// The memory of a process that has read and drawn these tokens.
    fn memory(tokens: &[&str], last_new: Option<&str>) -> Memory {
        let tokens = tokens.iter().copied().map(token);
        Memory {
            tokens: tokens.map(|token| (token.fingerprint(), token)).collect(),
            last_new: last_new.map(token),
            revoked: false,
        }
    }

    #[rstest]
    #[case::never(Expiration::Never, Validity::Valid)]
    #[case::after_more_than_five_minutes(Expiration::At("2026-11-22T13:05:01Z".parse().unwrap()), Validity::Valid)]
    #[case::after_five_minutes(Expiration::At("2026-11-22T13:05:00Z".parse().unwrap()), Validity::Expiring)]
    #[case::soon(Expiration::At("2026-11-22T13:00:01Z".parse().unwrap()), Validity::Expiring)]
    #[case::now(Expiration::At("2026-11-22T13:00:00Z".parse().unwrap()), Validity::Invalid)]
    #[case::before(Expiration::At("2026-11-22T12:59:59Z".parse().unwrap()), Validity::Invalid)]
    #[case::invalid(Expiration::Invalid, Validity::Invalid)]
    fn a_token_is_valid_by_its_expiration(#[case] expiration: Expiration, #[case] expected: Validity) {
        let secret = TokenSecret {
            expiration,
            ..secret(OLD)
        };
        assert_eq!(validity(&secret, now()), expected);
    }

    #[test]
    fn a_token_with_a_flaw_is_invalid() {
        let changes: [fn(&mut TokenSecret); 4] = [
            |secret| secret.deleting = true,
            |secret| secret.usages.clear(),
            |secret| secret.kind = "Opaque".to_owned(),
            |secret| secret.groups = vec!["system:masters".to_owned()],
        ];
        for change in changes {
            let mut secret = secret(OLD);
            change(&mut secret);
            assert_eq!(validity(&secret, now()), Validity::Invalid, "{secret:?}");
        }
    }

    #[rstest]
    #[case::own("abcdef.new/rollback", Some(Direction::Rollback))]
    #[case::of_another_run("abcdef.x7k2p/rollback", None)]
    #[case::of_a_run_for_another_token("zzzzzz.new/rollback", None)]
    #[case::of_an_unknown_direction("abcdef.new/back", None)]
    #[case::without_a_token("new/rollback", None)]
    fn a_mark_counts_only_if_it_names_the_run_and_the_token(#[case] text: &str, #[case] expected: Option<Direction>) {
        let run = run(Direction::Rollback, Phase::Make);
        let annotations = BTreeMap::from([(engine::direction::ANNOTATION.to_owned(), text.to_owned())]);
        assert_eq!(mark(&annotations, Some(&run)), expected);
        assert_eq!(mark(&annotations, None), None);
    }

    #[rstest]
    #[case::written_by_us(r#"{"old":{"id":"abcdef","value":"cba06b5736"}}"#, true)]
    #[case::malformed(r#"{"old":{"id":"abcdef"}}"#, false)]
    #[case::empty("", false)]
    fn an_origin_that_cannot_be_read_is_none(#[case] text: &str, #[case] is_one: bool) {
        let annotations = BTreeMap::from([(ORIGIN.to_owned(), text.to_owned())]);
        assert_eq!(origin(&annotations).is_some(), is_one);
    }

    #[rstest]
    #[case::recent(Some(false), Some("1"), 9, true)]
    #[case::too_old(Some(false), Some("1"), 10, false)]
    #[case::of_another_version(Some(false), Some("2"), 0, false)]
    #[case::the_secret_is_gone(Some(false), None, 0, false)]
    #[case::the_overlap_has_passed(Some(true), Some("1"), 0, false)]
    #[case::the_overlap_has_not_begun(None, Some("1"), 0, false)]
    fn an_earlier_result_counts_during_the_overlap_if_the_secret_is_unchanged(
        #[case] overlap: Option<bool>,
        #[case] version: Option<&str>,
        #[case] age: u64,
        #[case] expected: bool,
    ) {
        let mut run = run(Direction::Forward, Phase::Prove);
        run.timers.extend(overlap.map(|passed| (Timer::Quiet, passed)));
        assert_eq!(is_fresh(&run, "1", version, Duration::from_secs(age)), expected);
    }

    #[rstest]
    #[case::all_accept("yes yes", Acceptance::Accepted)]
    #[case::all_reject("no no", Acceptance::Rejected)]
    #[case::they_disagree("yes no", Acceptance::Unknown("s accepts it; s rejects it".to_owned()))]
    #[case::one_does_not_answer("yes ?", Acceptance::Unknown("s accepts it; s: unknown (no answer)".to_owned()))]
    #[case::one_does_not_answer_and_the_other_rejects("no ?", Acceptance::Unknown("s rejects it; s: unknown (no answer)".to_owned()))]
    #[case::none_answers("? ?", Acceptance::Unknown("s: unknown (no answer)".to_owned()))]
    #[case::none_was_probed("", Acceptance::Unknown(String::new()))]
    fn an_acceptance_is_the_result_of_all_servers(#[case] results: &str, #[case] expected: Acceptance) {
        let results = results.split_whitespace().map(|result| ServerResult {
            server: "s".to_owned(),
            result: match result {
                "yes" => ProbeResult::Accepted {
                    user: None,
                    groups: Vec::new(),
                },
                "no" => ProbeResult::Rejected,
                _ => ProbeResult::Unknown("no answer".to_owned()),
            },
        });
        assert_eq!(acceptance(&results.collect::<Vec<_>>()), expected);
    }

    #[rstest]
    #[case::of_its_secret(snapshot(None, Some(NEW), Some(DRAWN)), memory(&[DRAWN], Some(DRAWN)), Some(NEW))]
    #[case::that_it_had_last(snapshot(None, None, Some(DRAWN)), memory(&[DRAWN], Some(NEW)), Some(NEW))]
    #[case::in_the_delivery(snapshot(None, None, Some(NEW)), memory(&[DRAWN], Some(FOREIGN)), Some(NEW))]
    #[case::that_was_drawn(snapshot(None, None, Some(OLD)), memory(&[DRAWN], None), Some(DRAWN))]
    #[case::that_is_unknown(snapshot(None, None, Some(FOREIGN)), memory(&[OLD], Some(FOREIGN)), None)]
    fn the_new_token_is_probed_with_the_value(
        #[case] snapshot: Snapshot,
        #[case] memory: Memory,
        #[case] expected: Option<&str>,
    ) {
        let run = run(Direction::Forward, Phase::Make);
        assert_eq!(values(&snapshot, Some(&run), &memory).new, expected.map(token));
    }

    #[test]
    fn the_old_token_is_probed_with_the_journaled_value_whatever_its_secret_holds() {
        let run = run(Direction::Forward, Phase::Make);
        let other = "abcdef.zzzzzzzzzzzzzzzz";
        let read = snapshot(Some(other), None, None);
        assert_eq!(
            values(&read, Some(&run), &memory(&[OLD, other], None)).old,
            Some(token(OLD))
        );
        assert_eq!(values(&read, Some(&run), &memory(&[other], None)).old, None);
        assert_eq!(values(&read, None, &Memory::default()).old, Some(token(other)));
    }

    #[rstest]
    #[case::forward(Direction::Forward, Phase::Prove, false, snapshot(Some(OLD), Some(NEW), None), [false, true])]
    #[case::the_first_observation(Direction::Forward, Phase::Prove, true, snapshot(Some(OLD), Some(NEW), None), [true, true])]
    #[case::the_old_secret_is_gone(Direction::Forward, Phase::Prove, false, snapshot(None, Some(NEW), None), [true, true])]
    #[case::the_old_secret_has_changed(Direction::Forward, Phase::Prove, false, snapshot(Some(FOREIGN), Some(NEW), None), [true, true])]
    #[case::after_revoking(Direction::Forward, Phase::Retire, false, snapshot(Some(OLD), Some(NEW), None), [true, true])]
    #[case::rollback(Direction::Rollback, Phase::Prove, false, snapshot(Some(OLD), Some(NEW), None), [true, false])]
    #[case::the_new_secret_is_gone(Direction::Rollback, Phase::Prove, false, snapshot(Some(OLD), None, None), [true, true])]
    #[case::roll_forward(Direction::RollForward, Phase::Prove, false, snapshot(Some(OLD), Some(NEW), None), [false, true])]
    fn only_tokens_that_matter_are_probed(
        #[case] direction: Direction,
        #[case] phase: Phase,
        #[case] is_first: bool,
        #[case] snapshot: Snapshot,
        #[case] expected: [bool; 2],
    ) {
        let values = Values {
            old: Some(token(OLD)),
            new: Some(token(NEW)),
        };
        let probed = probes(&values, &snapshot, &run(direction, phase), is_first);
        assert_eq!(probed.map(|token| token.is_some()), expected);
    }

    #[rstest]
    #[case::forward_and_known(Direction::Forward, Phase::Retire, Some(OLD), None, None)]
    #[case::forward_and_unknown(Direction::Forward, Phase::Retire, None, None, Some(OLD))]
    #[case::rollback_and_known(Direction::Rollback, Phase::Retire, None, Some(NEW), None)]
    #[case::rollback_and_unknown(Direction::Rollback, Phase::Retire, None, None, Some(DRAWN))]
    #[case::rollback_before_revoking(Direction::Rollback, Phase::Make, None, None, None)]
    #[case::roll_forward(Direction::RollForward, Phase::Retire, None, None, None)]
    fn a_revoked_token_whose_value_is_unknown_is_unproven(
        #[case] direction: Direction,
        #[case] phase: Phase,
        #[case] old: Option<&str>,
        #[case] new: Option<&str>,
        #[case] expected: Option<&str>,
    ) {
        let values = Values {
            old: old.map(token),
            new: new.map(token),
        };
        let read = snapshot(None, None, None);
        let expected = expected.map(|text| token(text).fingerprint().to_string());
        assert_eq!(unproven(&values, &read, &run(direction, phase)), expected);
    }

    /// What is observed if O is accepted and N is rejected.
    fn observed(snapshot: &Snapshot, run: &Run, memory: &Memory) -> Observed {
        Observation {
            id: &"abcdef".parse().unwrap(),
            snapshot,
            run: Some(run),
            memory,
            values: &Values {
                old: Some(token(OLD)),
                new: Some(token(NEW)),
            },
            acceptances: [Acceptance::Accepted, Acceptance::Rejected],
            place: None,
            lost: false,
            login: None,
            another_cluster: None,
            now: now(),
        }
        .observed()
    }

    #[rstest]
    #[case::the_old_token(OLD, Acceptance::Accepted)]
    #[case::the_new_token(NEW, Acceptance::Rejected)]
    #[case::a_former_value_of_the_new_token(DRAWN, Acceptance::NotAsked)]
    #[case::another_token(FOREIGN, Acceptance::NotAsked)]
    #[case::no_token("a password", Acceptance::NotAsked)]
    fn a_delivery_has_the_acceptance_of_its_token(#[case] content: &str, #[case] expected: Acceptance) {
        let run = run(Direction::Forward, Phase::Place);
        let seen = observed(&snapshot(Some(OLD), Some(NEW), Some(content)), &run, &Memory::default());
        let Delivery::Holds { acceptance, mark, .. } = seen.delivery else {
            panic!("{seen:?}");
        };
        assert_eq!((acceptance, mark), (expected, None));
    }

    #[rstest]
    #[case::never_gone(Phase::Retire, &[Some(OLD)], false)]
    #[case::gone_after_it_was_revoked(Phase::Retire, &[Some(OLD), None, Some(OLD)], true)]
    #[case::gone(Phase::Retire, &[None], false)]
    #[case::gone_before(Phase::Prove, &[None, Some(OLD)], false)]
    fn an_old_token_has_returned_if_it_was_gone_before(
        #[case] phase: Phase,
        #[case] observations: &[Option<&str>],
        #[case] expected: bool,
    ) {
        let run = run(Direction::Forward, phase);
        let mut memory = Memory::default();
        let mut returned = false;
        for old in observations {
            let snapshot = snapshot(*old, Some(NEW), None);
            memory.note(&snapshot, Some(&run));
            returned = observed(&snapshot, &run, &memory).old.returned;
        }
        assert_eq!(returned, expected);
    }

    #[test]
    fn the_last_value_of_the_new_token_is_remembered_when_its_secret_is_gone() {
        let mut memory = Memory::default();
        memory.note(&snapshot(Some(OLD), Some(NEW), Some(FOREIGN)), None);
        memory.note(&snapshot(None, None, None), None);
        assert_eq!(memory.last_new, Some(token(NEW)));
        assert_eq!(memory.tokens.len(), 3);
    }

    fn ca() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new([])
            .unwrap()
            .self_signed(&key)
            .unwrap()
            .pem()
    }

    #[test]
    fn a_delivery_belongs_to_another_cluster_if_it_trusts_another_authority() {
        let (ours, other) = (ca(), ca());
        let place = Place {
            at: "file:/token".to_owned(),
            host: None,
        };
        let trusting = |ca: &str| {
            let data = STANDARD.encode(ca);
            file(&format!(
                "{{clusters: [{{name: c, cluster: {{certificate-authority-data: {data}}}}}], users: []}}"
            ))
        };
        let blocked = |delivery: DeliverySnapshot, authorities: &[&String], forced: bool| {
            let identity = Identity {
                authorities: authorities.iter().copied().cloned().collect(),
                ..Identity::default()
            };
            let snapshot = Snapshot {
                delivery,
                ..Snapshot::default()
            };
            identity.another_cluster(&snapshot, Some(&place), forced).is_some()
        };
        assert!(blocked(trusting(&other), &[&ours], false));
        assert!(!blocked(trusting(&other), &[&ours], true), "forced");
        assert!(!blocked(trusting(&other), &[], false), "our authority is unknown");
        assert!(!blocked(trusting(&ours), &[&ours], false));
        assert!(
            !blocked(trusting(&ours), &[&other, &ours], false),
            "one of ours is enough"
        );
        assert!(!blocked(file(OLD), &[&ours], false), "a bare token has no authority");
    }

    #[test]
    fn a_server_of_another_cluster_cannot_be_forced() {
        let identity = Identity {
            foreign_server: Some("https://10.0.0.1:6443".to_owned()),
            ..Identity::default()
        };
        assert!(identity.another_cluster(&Snapshot::default(), None, true).is_some());
    }
}
