//! The expected state after a step.

use engine::credential::{Acceptance, Validity};
use engine::run::{Draw, Run};

use super::BootstrapToken;
use super::observed::{Content, Delivery, Id, Observed, SecretState, TokenState};
use super::record::{Origin, Record, TokenRef};
use super::step::{Step, Which};

/// The record that is journaled before a step is sent.
///
/// The id is drawn as a mark, which no Secret may have. Its value is drawn next.
pub(super) fn intend(step: &Step, run: &Run<BootstrapToken>, draw: &mut dyn Draw) -> Record {
    let mut record = run.record.clone();
    match step {
        Step::Create { id, .. } => {
            let id = id.clone().unwrap_or_else(|| Id(draw.mark()));
            let value = draw.credential();
            record.new = Some(TokenRef { id, value });
        }
        Step::Deliver { which, .. } => {
            record.delivered |= *which == Which::New;
            record.last_delivered = Some(*which);
        }
        Step::Abandon { .. } => record.abandoned = record.place.take(),
        _ => {}
    }
    record
}

/// The state directly after a step.
pub(super) fn predict(seen: &mut Observed, run: &Run<BootstrapToken>, step: &Step) {
    let mark = Some(run.direction);
    match step {
        Step::Create { .. } => {
            let secret = run.record.new.as_ref().map(|new| SecretState {
                value: Some(new.value),
                validity: Validity::Valid,
                mark,
                origin: Some(Origin::from(&run.record)),
            });
            seen.new = TokenState {
                secret,
                acceptance: Acceptance::Rejected,
                ..TokenState::default()
            };
        }
        Step::Repair { .. } => {
            if let Some(secret) = &mut seen.new.secret {
                secret.mark = mark;
                secret.validity = Validity::Valid;
                secret.origin = Some(Origin::from(&run.record));
            }
        }
        Step::FenceToken { .. } => {
            if let Some(secret) = &mut seen.new.secret {
                secret.mark = mark;
            }
        }
        Step::TriggerSigner { .. } => {}
        Step::Abandon { .. } => (seen.delivery, seen.place) = (Delivery::None, None),
        Step::Deliver { which, id, value, .. } => {
            let token = seen.token(*which);
            let acceptance = if token.holds(*value) {
                token.acceptance.clone()
            } else {
                Acceptance::Rejected
            };
            let writer = match &mut seen.delivery {
                Delivery::Holds { writer, .. } => writer.take(),
                _ => None,
            };
            seen.delivery = Delivery::Holds {
                content: Content {
                    id: Some(id.clone()),
                    value: *value,
                },
                mark,
                acceptance,
                writer,
            };
        }
        Step::FenceDelivery { .. } => {
            if let Delivery::Holds { mark: present, .. } = &mut seen.delivery {
                *present = mark;
            }
        }
        Step::DeleteEmpty { .. } => seen.new.secret = None,
        Step::Revoke { which, .. } => {
            let token = seen.token_mut(*which);
            token.secret = None;
            token.returned = false;
        }
    }
}

/// The state once the API servers and the signer have processed all changes.
pub(super) fn settle(seen: &mut Observed) {
    let signer_works = seen.old.signed;
    for token in [&mut seen.old, &mut seen.new] {
        let valid = |secret: &SecretState| secret.validity != Validity::Invalid;
        token.acceptance = match &token.secret {
            Some(secret) if valid(secret) => Acceptance::Accepted,
            None if token.acceptance == Acceptance::NotAsked => Acceptance::NotAsked,
            _ => Acceptance::Rejected,
        };
        token.signed = signer_works && token.secret.is_some();
    }
    if let Delivery::Holds {
        content, acceptance, ..
    } = &mut seen.delivery
        && let Some(token) = [&seen.old, &seen.new]
            .into_iter()
            .find(|token| token.holds(content.value))
    {
        *acceptance = token.acceptance.clone();
    }
}
