//! Each condition of the stages on its own: what the next step is in one state, and what it is with one fact changed.

mod place;
mod plans;
mod prove;
mod survey;

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Blocker, Intent, Next, Rotation as _, decide};
use engine::run::RunId;
use kubectl_bootstrap_token::server_token::rotation::ServerToken;
use kubectl_bootstrap_token::server_token::rotation::observed::{
    Files, Login, Needs, Observed, Output, RoundResult, Server,
};
use kubectl_bootstrap_token::server_token::rotation::record::{Record, RoundRecord};

use crate::environment::{Model, Run, old};

type State = (Observed, Run);

fn new() -> Fingerprint {
    Fingerprint::of("new")
}

fn fresh() -> Fingerprint {
    Fingerprint::of("fresh")
}

/// Before a rotation.
fn start(servers: usize) -> Observed {
    Model {
        servers,
        ..Model::default()
    }
    .observed()
}

fn run(record: Record, direction: Direction) -> Run {
    Run {
        direction,
        ..Run::begin(RunId::placeholder(), record)
    }
}

/// The run has begun.
fn begun(servers: usize) -> State {
    let seen = start(servers);
    let record = ServerToken::survey(&seen).expect("a rotation that can begin");
    (seen, run(record, Direction::Forward))
}

/// Everything of *make* is done.
fn made(direction: Direction) -> State {
    let (mut seen, run) = begun(3);
    seen.snapshots.first = Some(Needs::Token(old()));
    hold(&mut seen, old());
    seen.output = Output::File {
        path: "FILE".to_owned(),
        holds: Some(new()),
    };
    let record = Record {
        new: vec![new()],
        ..run.record
    };
    seen.backup = Some(record.clone());
    (seen, self::run(record, direction))
}

fn round(before: Fingerprint, value: Fingerprint) -> RoundRecord {
    RoundRecord {
        before,
        value,
        order: ["s1", "s2", "s3"].map(str::to_owned).into(),
        mends: false,
        is_complete: false,
    }
}

fn set_round(seen: &mut Observed, round: RoundRecord) {
    seen.backup.as_mut().expect("it is there").round = Some(round);
}

/// A round from the other token to T was recorded, and not sent.
fn recorded(direction: Direction) -> State {
    let (mut seen, mut run) = made(direction);
    let (before, value) = if direction.is_rollback() {
        (new(), old())
    } else {
        (old(), new())
    };
    hold(&mut seen, before);
    set_round(&mut seen, round(before, value));
    seen.round = RoundResult::Recorded;
    run.record = seen.backup.clone().expect("it is there");
    run.phase = Phase::Place;
    (seen, run)
}

/// A round with T is complete.
fn placed(direction: Direction) -> State {
    let (mut seen, mut run) = recorded(direction);
    let round = seen
        .backup
        .as_mut()
        .and_then(|it| it.round.as_mut())
        .expect("it is there");
    round.is_complete = true;
    let value = round.value;
    seen.round = RoundResult::Complete;
    hold(&mut seen, value);
    if direction.is_rollback() {
        load(&mut seen, new());
    }
    run.record = seen.backup.clone().expect("it is there");
    (seen, run)
}

/// Every server has loaded T.
fn proven(direction: Direction) -> State {
    let (mut seen, run) = placed(direction);
    let target = if direction.is_rollback() { old() } else { new() };
    load(&mut seen, target);
    (seen, run)
}

fn hold(seen: &mut Observed, value: Fingerprint) {
    seen.servers.values_mut().for_each(|it| it.files = Files::Hold(value));
}

fn load(seen: &mut Observed, value: Fingerprint) {
    for server in seen.servers.values_mut() {
        server.accepts = Login::Accepts(value);
        server.as_node = Some(server.accepts);
    }
}

fn server<'a>(seen: &'a mut Observed, name: &str) -> &'a mut Server {
    seen.servers.get_mut(name).expect("it is there")
}

fn named(text: String) -> String {
    [(old(), "O"), (new(), "N"), (fresh(), "F")]
        .iter()
        .fold(text, |text, (token, name)| text.replace(&token.to_string(), name))
}

/// What comes next, with tokens by name. Of a refusal the hint too if it names `recover`.
fn next(state: &State) -> String {
    let decision = decide(&state.0, &state.1);
    named(match decision.next {
        Next::Step(Intent { step, .. }) => format!("{}: {step}", decision.phase),
        Next::Wait(wait) => format!("{}: wait for {}", decision.phase, wait.what),
        Next::Turn { to, reason } => format!("{}: {to}, {reason}", decision.phase),
        Next::Refuse(blockers) => refusal(&blockers),
        Next::Pause(blocker) => format!("stop: {}", blocker.reason),
        Next::Done => "done".to_owned(),
    })
}

fn refusal(blockers: &[Blocker]) -> String {
    let reasons: Vec<String> = blockers
        .iter()
        .map(|it| {
            let recover = if it.hint.starts_with("run `recover`") {
                " [recover]"
            } else {
                ""
            };
            let check = it.check.map(|check| format!(" [--force={check}]")).unwrap_or_default();
            format!("{}{check}{recover}", it.reason)
        })
        .collect();
    format!("refuse: {}", reasons.join("; "))
}

/// The next step with one fact changed.
#[track_caller]
fn with(state: &State, change: impl FnOnce(&mut Observed, &mut Run), expected: &str) {
    let mut state = state.clone();
    change(&mut state.0, &mut state.1);
    assert_eq!(next(&state), expected);
}

/// As [`with`], where only the beginning counts.
#[track_caller]
fn begins(state: &State, change: impl FnOnce(&mut Observed, &mut Run), expected: &str) {
    let mut state = state.clone();
    change(&mut state.0, &mut state.1);
    let next = next(&state);
    assert!(next.starts_with(expected), "{next}");
}
