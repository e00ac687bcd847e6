//! The half of the rotation that touches the world: [`TokenActor`] reads the two tokens, `cluster-info` and the target,
//! asks the API server with the tokens themselves, and carries out single writes.
//!
//! It decides nothing. What it reads becomes a [`View`] of ids and fingerprints; what is decided on comes back as a
//! [`Write`], which it sends with the versions of the objects that it read last.

mod act;
mod check;
mod snapshot;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bootstrap::{Answer as Said, Token, TokenId, TokenSecret, cluster_info, judge, secret, tokens};
pub use check::Check;
use client::access;
use client::clock::ServerClock;
use client::cluster_identity::{self, CaComparison, same_ca};
use client::error::Error;
use client::secret::Fingerprint;
use engine::lock::Fence;
use engine::phase::Phase;
use engine::protocol::{Actor, Draw, Run, Trouble};
use k8s_openapi::jiff::Timestamp;
use snapshot::{AtTarget, Snapshot};
use survey::Recipe;
use tokio::time::Instant;

use crate::delivery::{Target, content, file};
use crate::proof::REMEMBERED;
use crate::rotation::view::{Answer, Doubt, Id, Leg, Place, View};
use crate::rotation::write::Write;
use crate::rotation::{BootstrapToken, Timer, leg};
use crate::servers::{Heard, Servers, together};
use crate::side::Side;

/// What the user name of a bootstrap token begins with; its id follows.
pub const LOGIN: &str = "system:bootstrap:";
/// While the overlap runs nothing is taken away, and an answer may be this old.
const FRESH: Duration = Duration::from_secs(10);

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a new token lives; `None`: without end.
    pub ttl: Option<Duration>,
    /// How long both tokens work.
    pub overlap: Duration,
    /// How long the new token may take to be proven.
    pub timeout: Duration,
    /// Where it is delivered to.
    pub deliver: Option<Target>,
    /// The checks that do not count.
    pub forced: BTreeSet<Check>,
}

/// The actor for one token.
#[derive(Debug)]
pub struct TokenActor<'a> {
    side: &'a Side,
    servers: Servers,
    id: TokenId,
    options: Options,
    state: Mutex<State>,
}

/// What one look leaves for the next write, and for the next look.
#[derive(Debug, Default)]
struct State {
    snapshot: Option<Snapshot>,
    /// Every token that this process has drawn or read. One that no Secret holds any more can still be shown to be refused.
    known: BTreeMap<Fingerprint, Token>,
    /// What the Secret of the new token held last.
    last_new: Option<Token>,
    /// What a new token is made of: by the Secret of the old one while that is good, else by that of the new one.
    recipe: Option<Recipe>,
    /// The id of the new token, by the journal of the last look.
    new_id: Option<TokenId>,
    /// What was answered to a token while its Secret had this version.
    answered: BTreeMap<Fingerprint, Answered>,
    /// The lock of the target, where that is a file.
    lock: Option<file::Locked>,
    /// The token that should be refused by now and could not be asked about, in words.
    unproven: Option<String>,
    /// When the token that goes was first seen to be gone.
    gone_since: Option<Instant>,
    /// The Secret of the old token was seen to be gone after this run had begun to delete it.
    retired: bool,
    whose: Option<Whose>,
    /// What was heard about a token last, where the servers did not all say the same.
    dissent: BTreeMap<TokenId, String>,
    /// The way back was cut off.
    kept: bool,
    /// The target that was left behind.
    left: Option<Place>,
    may: bool,
}

/// What does not change while a command runs, unless somebody sees to it.
#[derive(Clone, Debug)]
struct Whose {
    at: Instant,
    /// The token that the command logs in with.
    login: Option<Id>,
    /// A server of another cluster.
    server: Option<String>,
    /// The certificate authority that the cluster publishes.
    authority: Option<String>,
}

#[derive(Debug)]
struct Answered {
    version: Option<String>,
    at: Instant,
    answer: Answer,
}

/// What the API servers said to the two tokens.
#[derive(Default)]
struct Answers {
    old: Answer,
    new: Answer,
}

impl<'a> TokenActor<'a> {
    /// For the token with this id.
    pub fn new(side: &'a Side, servers: Servers, id: TokenId, options: Options) -> Self {
        Self {
            side,
            servers,
            id,
            options,
            state: Mutex::default(),
        }
    }

    /// The token that should be refused by now and could not be asked about: nobody knows its value any more, since another
    /// process revoked it and ended before it had asked.
    pub fn unproven(&self) -> Option<String> {
        self.state().unproven.clone()
    }

    /// Whether the way back was cut off, so that the new token stays.
    pub fn kept(&self) -> bool {
        self.state().kept
    }

    /// What each server said of a token that they did not agree on when they were asked last: a sentence for each token.
    pub fn dissent(&self) -> Vec<String> {
        let state = self.state();
        let sentence = |(id, said): (&TokenId, &String)| format!("bootstrap token {id}: {said}");
        state.dissent.iter().map(sentence).collect()
    }

    /// The new token, as its Secret had it last.
    pub fn new_token(&self) -> Option<Token> {
        self.state().last_new.clone()
    }

    /// The target that was left behind.
    pub fn left(&self) -> Option<Place> {
        self.state().left.clone()
    }

    /// Whether the target holds the new token, as far as it was read.
    pub fn is_delivered(&self) -> bool {
        let state = self.state();
        let held = state.snapshot.as_ref().and_then(|snapshot| snapshot.target.token());
        held.is_some() && held == state.last_new
    }

    /// The id of the token that is rotated.
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// Where the new token is delivered to, as it was asked for.
    pub fn target(&self) -> Option<&Target> {
        self.options.deliver.as_ref()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self, run: Option<&Run<BootstrapToken>>) -> Result<View, Trouble> {
        let asked = self.options.deliver.as_ref().map(Target::place);
        let place = asked.or_else(|| run?.notes.place.clone());
        let new_id = run.and_then(|run| run.notes.new.as_ref());
        let new_id = new_id.and_then(|new| new.id.0.parse::<TokenId>().ok());
        let snapshot = self.read(new_id.as_ref(), place.as_ref()).await?;
        let first = self.remember(&snapshot, new_id);
        let (login, another_cluster) = self.whose(&snapshot).await?;
        // No token is sent to another cluster.
        let answers = match another_cluster {
            None => self.answers(&snapshot, run, first).await?,
            Some(_) => Answers::default(),
        };
        let now = self.side.server.clock.now();
        let of_run = run.map(key);
        let of_run = of_run.as_deref();
        let target = self.answer_of_target(&snapshot, run, &answers);
        let mut view = View {
            obstacles: Vec::new(),
            id: Id(self.id.to_string()),
            old: snapshot.side(snapshot.old.as_ref(), of_run, answers.old, now),
            new: snapshot.side(snapshot.new.as_ref(), of_run, answers.new, now),
            target: snapshot.target.view(of_run, target),
            place,
            lost: self.options.forced.contains(&Check::Target),
            login,
            another_cluster: None,
        };
        view.another_cluster = another_cluster.map(|doubt| doubt.obstacle(&view.id, view.place.as_ref()));
        if run.is_none() {
            view.obstacles = survey::obstacles(&snapshot, &view, &self.options, now);
            self.check_rights(&snapshot).await.map_err(Trouble::Fatal)?;
        }
        let mut state = self.state();
        if run.is_some_and(|run| run.phase >= Phase::Retire) {
            state.retired |= view.old.token.is_none();
            view.old.returned = state.retired && view.old.token.is_some();
        }
        state.kept = run.is_some_and(|run| run.notes.kept);
        state.left = run.and_then(|run| run.notes.left.clone());
        if let Some(like) = recipe_of(&snapshot, &view, now) {
            state.recipe = Some(survey::recipe(like, self.options.ttl));
        }
        state.snapshot = Some(snapshot);
        drop(state);
        Ok(view)
    }

    async fn read(&self, new: Option<&TokenId>, place: Option<&Place>) -> Result<Snapshot, Error> {
        let client = self.side.client();
        let new = async {
            match new {
                Some(id) => tokens::get(client, id).await,
                None => Ok(None),
            }
        };
        let info = async {
            match cluster_info::read(client).await {
                Err(error) if error.is_forbidden() => Ok(None),
                // What makes no sense is signed with nothing that a node could go by.
                Err(bootstrap::Error::StrangeClusterInfo(_)) => Ok(None),
                other => other,
            }
        };
        let tokens = async { Ok(futures::try_join!(tokens::get(client, &self.id), new, info)?) };
        let ((old, new, info), target) = futures::try_join!(tokens, self.at(place))?;
        Ok(Snapshot { old, new, info, target })
    }

    async fn at(&self, place: Option<&Place>) -> Result<AtTarget, Error> {
        let Some(place) = place else {
            return Ok(AtTarget::Nothing);
        };
        let target = Target::of(place).map_err(|error| Error::failed(error.to_string()).doing("read the journal"))?;
        Ok(match target {
            None => AtTarget::Unreachable,
            Some(Target::Secret(key)) => {
                let seen = key.read(self.side.client()).await;
                match seen? {
                    Some(seen) => AtTarget::Secret(key, Box::new(seen)),
                    None => AtTarget::Missing(Target::Secret(key)),
                }
            }
            Some(Target::File(path)) => {
                let seen = file::read(&path).map_err(|error| of_file(&path, &error))?;
                match seen {
                    Some(seen) => AtTarget::File(path, seen),
                    None => AtTarget::Missing(Target::File(path)),
                }
            }
        })
    }

    /// Keeps the tokens that were read. Says whether this is the first look.
    fn remember(&self, snapshot: &Snapshot, new_id: Option<TokenId>) -> bool {
        let mut state = self.state();
        for token in snapshot.tokens() {
            state.known.insert(token.fingerprint(), token);
        }
        if let Some(token) = snapshot.new.as_ref().and_then(|new| new.token.clone()) {
            state.last_new = Some(token);
        }
        state.new_id = new_id;
        state.snapshot.is_none()
    }

    /// Which token the command logs in with, and what belongs to another cluster.
    async fn whose(&self, snapshot: &Snapshot) -> Result<(Option<Id>, Option<Doubt>), Error> {
        let known = self.state().whose.clone().filter(|known| known.at.elapsed() < FRESH);
        let known = if let Some(known) = known {
            known
        } else {
            let client = self.side.client();
            let user = access::current_user(client).await?;
            let login = user.and_then(|user| Some(Id(user.strip_prefix(LOGIN)?.to_owned())));
            let server = self.servers.of_another_cluster(client).await?;
            let authority = cluster_identity::root_ca(client, secret::NAMESPACE)
                .await
                .ok()
                .flatten();
            let at = Instant::now();
            Whose {
                at,
                login,
                server,
                authority,
            }
        };
        self.state().whose = Some(known.clone());
        let of_target = || {
            let trusted = content::authority_in(snapshot.target.content()?)?;
            let ours = [known.authority.as_deref(), self.side.connection.authority()];
            let compared = ours.map(|ours| ours.map_or(CaComparison::Unknown, |ours| same_ca(&trusted, ours)));
            let is_other = compared.contains(&CaComparison::Different) && !compared.contains(&CaComparison::Same);
            (is_other && !self.options.forced.contains(&Check::Cluster)).then_some(Doubt::TargetOfAnotherCluster)
        };
        Ok((known.login, known.server.map(Doubt::AnotherServer).or_else(of_target)))
    }

    /// Asks with the tokens whose life or death matters now; in the first look with both, for the plan's sake.
    async fn answers(
        &self,
        snapshot: &Snapshot,
        run: Option<&Run<BootstrapToken>>,
        first: bool,
    ) -> Result<Answers, Error> {
        let Some(run) = run else {
            let old = snapshot.old.as_ref().and_then(|old| old.token.as_ref());
            let old = match old {
                Some(token) => self.ask_for_a_start(token).await?,
                None => Answer::Unasked,
            };
            return Ok(Answers {
                old,
                new: Answer::Unasked,
            });
        };
        let (old, new) = self.values(snapshot, run);
        let retired = run.phase >= Phase::Retire;
        let back = leg(run) == Leg::Back;
        let old = old.filter(|old| back || first || retired || !is_in(snapshot.old.as_ref(), old));
        let new = new.filter(|_| !back || first || retired || snapshot.new.is_none());
        let ask = async |token: Option<Token>, secret: Option<&TokenSecret>| {
            let version = secret.map(|secret| secret.resource_version.clone());
            match token {
                Some(token) => self.ask(&token, version, run).await,
                None => Ok(Answer::Unasked),
            }
        };
        let (old, new) = (ask(old, snapshot.old.as_ref()), ask(new, snapshot.new.as_ref()));
        let (old, new) = futures::try_join!(old, new)?;
        let mut answers = Answers { old, new };
        self.while_remembered(snapshot, run, &mut answers);
        Ok(answers)
    }

    /// A token that is gone may be let in for as long as an API server may remember it, whoever refuses it by now: there may
    /// be servers that were not asked, and nobody can ask with a value that nobody knows any more.
    fn while_remembered(&self, snapshot: &Snapshot, run: &Run<BootstrapToken>, answers: &mut Answers) {
        let (gone, answer) = match leg(run) {
            Leg::Forward => (!snapshot.old_holds(run.notes.old.value), &mut answers.old),
            Leg::Back => (snapshot.new.is_none() && run.phase >= Phase::Retire, &mut answers.new),
            Leg::Stay => return,
        };
        let mut state = self.state();
        if !gone {
            state.gone_since = None;
            return;
        }
        let since = *state.gone_since.get_or_insert_with(Instant::now);
        if since.elapsed() < REMEMBERED {
            *answer = Answer::Mixed;
        }
    }

    /// Which values to ask with: of the old token the one that is rotated, whatever its Secret holds by now; of the new one
    /// that of its Secret, or the last that it had.
    fn values(&self, snapshot: &Snapshot, run: &Run<BootstrapToken>) -> (Option<Token>, Option<Token>) {
        let mut state = self.state();
        let (old, drawn) = (run.notes.old.value, run.notes.new.as_ref());
        let is_new = |token: &Token| drawn.is_some_and(|new| new.id.0 == token.id.as_str());
        let new = snapshot.new.as_ref().and_then(|new| new.token.clone());
        let new = new.or_else(|| state.last_new.clone().filter(is_new));
        let new = new.or_else(|| snapshot.target.token().filter(is_new));
        let new = new.or_else(|| state.known.get(&drawn?.value).cloned());
        let known = state.known.get(&old).cloned();
        let gone = snapshot.old.as_ref().is_none_or(|secret| secret.token.is_none());
        state.unproven = match leg(run) {
            Leg::Forward => (known.is_none() && gone).then(|| old.to_string()),
            Leg::Back if run.phase >= Phase::Retire && new.is_none() => {
                Some(drawn.map_or_else(|| "the new token".to_owned(), |new| new.value.to_string()))
            }
            Leg::Back | Leg::Stay => None,
        };
        (known, new)
    }

    /// Before a rotation a server that does not answer, or not about the token, is told from one that refuses it.
    async fn ask_for_a_start(&self, token: &Token) -> Result<Answer, Error> {
        let heard = self.servers.look(token).await?;
        let unknown = heard.iter().find_map(|heard| match &heard.answer {
            Said::Unknown(why) => Some((&heard.server, why)),
            _ => None,
        });
        match unknown {
            Some((server, why)) => Err(Error::failed(format!(
                "whether {server} accepts bootstrap token {} is not known: {why}",
                token.id
            ))
            .hint("the address must lead to the API server itself: a proxy that logs in by itself passes no token on")),
            None => Ok(self.sum(&token.id, &heard)),
        }
    }

    async fn ask(&self, token: &Token, version: Option<String>, run: &Run<BootstrapToken>) -> Result<Answer, Error> {
        let value = token.fingerprint();
        if run.running(Timer::Overlap) && version.is_some() {
            let state = self.state();
            let before = state.answered.get(&value).filter(|before| before.version == version);
            if let Some(before) = before.filter(|before| before.at.elapsed() < FRESH) {
                return Ok(before.answer);
            }
        }
        let answer = self.sum(&token.id, &self.servers.look(token).await?);
        let at = Instant::now();
        let answered = Answered { version, at, answer };
        if answer == Answer::Accepted {
            self.state().answered.insert(value, answered);
        } else {
            self.state().answered.remove(&value);
        }
        Ok(answer)
    }

    /// What all of them say together. Where they do not agree, that is kept for whoever asks.
    fn sum(&self, id: &TokenId, heard: &[Heard]) -> Answer {
        let dissent = &mut self.state().dissent;
        dissent.remove(id);
        match together(heard) {
            Said::Accepted { .. } => Answer::Accepted,
            Said::Refused => Answer::Refused,
            Said::Unknown(said) => {
                dissent.insert(id.clone(), said);
                Answer::Mixed
            }
        }
    }

    /// What was read from the target was asked about already, if it is one of the two.
    fn answer_of_target(&self, snapshot: &Snapshot, run: Option<&Run<BootstrapToken>>, answers: &Answers) -> Answer {
        let Some(token) = snapshot.target.token() else {
            return Answer::Unasked;
        };
        let (old, new) = match run {
            Some(run) => self.values(snapshot, run),
            None => (snapshot.old.as_ref().and_then(|old| old.token.clone()), None),
        };
        if Some(&token) == old.as_ref() {
            answers.old
        } else if Some(&token) == new.as_ref() {
            answers.new
        } else {
            Answer::Unasked
        }
    }

    async fn check_rights(&self, snapshot: &Snapshot) -> Result<(), Error> {
        if self.state().may || snapshot.old.is_none() {
            return Ok(());
        }
        survey::rights(self.side, &self.id, snapshot).await?;
        self.state().may = true;
        Ok(())
    }
}

/// What a run marks its objects with, beside the leg: the run itself, and the token that it replaces.
fn key(run: &Run<BootstrapToken>) -> String {
    format!("{}.{}", run.notes.old.id, run.id)
}

/// The Secret that a new token is made like.
fn recipe_of<'a>(snapshot: &'a Snapshot, view: &View, now: Timestamp) -> Option<&'a TokenSecret> {
    let good = |secret: &&TokenSecret| judge::why_not(secret, now).is_empty();
    let own = || {
        snapshot
            .new
            .as_ref()
            .filter(|_| view.new.token.as_ref().is_some_and(|new| new.mark.is_some()))
    };
    snapshot.old.as_ref().filter(good).or_else(|| own().filter(good))
}

fn is_in(secret: Option<&TokenSecret>, token: &Token) -> bool {
    secret.is_some_and(|secret| secret.token.as_ref() == Some(token))
}

impl Actor for TokenActor<'_> {
    type Protocol = BootstrapToken;

    async fn observe(&self, run: Option<&Run<BootstrapToken>>) -> Result<View, Trouble> {
        Box::pin(self.look(run)).await
    }

    fn draw(&self) -> Box<dyn Draw + '_> {
        let state = self.state();
        let id = state.new_id.clone();
        Box::new(FromTheSystem { state, id })
    }

    async fn act(&self, write: &Write, run: &Run<BootstrapToken>, fence: &Fence) -> Result<(), Trouble> {
        Box::pin(self.write(write, run, fence)).await
    }

    fn lasts(&self, timer: Timer) -> Duration {
        match timer {
            Timer::Proof => self.options.timeout,
            Timer::Overlap => self.options.overlap,
            Timer::Touch => self.options.timeout / 4,
        }
    }

    fn clock(&self) -> ServerClock {
        self.side.server.clock.clone()
    }
}

/// Draws from the operating system, and keeps what it drew for the write.
struct FromTheSystem<'a> {
    state: MutexGuard<'a, State>,
    /// The id that the next value belongs to.
    id: Option<TokenId>,
}

impl Draw for FromTheSystem<'_> {
    fn credential(&mut self) -> Fingerprint {
        // Without randomness nothing is kept, and the write finds no value to send.
        let half = Token::generate().ok().map(|token| token.secret().clone());
        let token = self
            .id
            .clone()
            .zip(half)
            .and_then(|(id, half)| Token::new(id, half).ok());
        let Some(token) = token else {
            return Fingerprint::of("");
        };
        let value = token.fingerprint();
        self.state.known.insert(value, token);
        value
    }

    fn mark(&mut self) -> String {
        self.id = Token::generate().ok().map(|token| token.id);
        self.id.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

fn of_file(path: &std::path::Path, error: &std::io::Error) -> Error {
    Error::failed(format!("could not read or replace {}: {error}", path.display()))
}
