//! What is known about the servers, as fingerprints and states. No secret and no time.

use std::collections::BTreeMap;

use node_access::{NodeState, PasswdFile, ServiceState, StateFile, TokenPlace};
use supervisor::node::{EtcdMember, StartConfiguration};
use supervisor::{SupervisorKind, TokenHash};

use crate::server_token::rotation::observed::{Clocks, Encryption};

/// What is known about the cluster.
#[derive(Clone, Debug)]
pub struct RecoveryFacts {
    pub supervisor: SupervisorKind,
    /// By the names of their Nodes, or of `--server-address`.
    pub servers: BTreeMap<String, ServerFacts>,
    /// Whether the members of etcd are the servers, all of them vote, and none joins. `None`: not known, as without an API server.
    pub members_are_servers: Option<bool>,
    pub encryption: Encryption,
    /// The tokens whose values are at hand, the ones to prefer first: the given new one, the given old one, those in the files of nodes
    /// that can be read. The values of `cred/passwd` and its backups are among them.
    pub at_hand: Vec<TokenHash>,
    /// The token that the datastore has for certain: the last PUT of this run was answered with 200, or a server has started with it
    /// and is ready, and no PUT was sent since.
    pub proven: Option<TokenHash>,
    /// The last round of this run, or of one whose record is known.
    pub last_round: Option<RoundFacts>,
    /// A PUT, an edit or a restart of another process may not have arrived yet.
    pub may_be_in_flight: bool,
    /// Snapshots can be taken: etcd, and an API server that answers.
    pub has_snapshots: bool,
    /// Of the servers that answer.
    pub clocks: Clocks,
}

/// What a round has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundFacts {
    pub value: TokenHash,
    pub end: RoundEnd,
}

/// How a round has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoundEnd {
    /// Each server has answered 200 at the first time, and none of them had the token in its files: the last one has the newest files.
    InOrder,
    /// Each server has answered 200, some of them later, or some had the token already
    /// ([`is_repeated`](super::plan::RecoveryRound::is_repeated)). Which files are the newest is not known.
    OutOfOrder,
    /// Some servers have not answered 200.
    Unfinished,
    /// The first server has answered 500, and nothing was sent to the others.
    FirstRejected(String),
    /// No server that was asked has answered 200, although each was asked twice.
    NoneAccepted,
}

/// What is known about one server.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    pub response: Response,
    /// It runs an API server and etcd.
    pub is_full: bool,
    pub member: EtcdMember,
    /// The token that it accepts as server: the one that it has loaded at its start. `None`: none of the given ones, or not known.
    pub loaded: Option<TokenHash>,
    /// The token of a snapshot that it has taken when nothing was in flight: that of its `server/token`.
    pub snapshot: Option<TokenHash>,
    /// A PUT of it was answered with 200 in this run, and no other was sent to this server since. On SQLite there are no snapshots.
    pub placed: Option<TokenHash>,
    /// What its last start has shown of its configuration.
    pub start: StartConfiguration,
    /// Its files and its service, with node access. Where the service is stopped by `--stop-command`, the caller sets
    /// `service.active` to `inactive`.
    pub node: Option<NodeState>,
    /// Its failed starts.
    pub starts: FailedStarts,
    /// It was started by [`StartOnce`](super::plan::RecoveryAction::StartOnce), so the service manager does not start it again.
    pub starts_once: bool,
    /// It was brought back with a configured token, and has not answered 200 to a PUT since: its `cred/passwd` can be newer than the
    /// datastore's, so a second start can be the trap. The number of its start in this run. A start
    /// without a configured token clears it.
    pub needs_save: Option<usize>,
}

/// What answers at the address of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// It is ready.
    Ready,
    /// It answers, and is not ready.
    NotReady,
    /// Nothing.
    None,
}

/// Whether a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Ready,
    /// It starts, or waits for other members of etcd.
    Starting,
    /// It has ended, or its service starts it again and again.
    Down,
    /// It does not answer. It may have ended, or only the way to it.
    NoResponse,
}

/// The token in the files of a server, which its next start uses unless one is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileToken {
    Holds(TokenHash),
    /// `cred/passwd` has another one than `server/token`, or is malformed.
    PasswdDiffers(TokenHash),
    /// `server/token` is empty or missing.
    Empty,
    Unknown,
}

/// The token that a server is configured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfiguredToken {
    Nowhere,
    Holds(TokenHash),
    /// One is configured, and which is not known.
    Some,
    Unknown,
}

/// Why a start has failed, by the last line of the log that tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StartFailure {
    /// Its token does not open its own copy of the datastore. It has written nothing.
    OwnCopy,
    /// The datastore has another token. Its own copy is now that of the datastore.
    Save,
    /// The trap: these files are newer than those in the datastore.
    Newer(Vec<String>),
    /// It has no token.
    NoToken,
    /// Its join server has rejected its token, at its first start.
    NotAuthorized,
    /// It led, and etcd lost its quorum: it ends then, whatever its token is.
    NoQuorum,
    /// Anything else, with the line.
    Other(String),
}

/// A failed start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LastStart {
    /// The token that it used. `None`: it had none, or that is not known.
    pub with: Option<TokenHash>,
    pub failure: StartFailure,
}

/// What failed starts have shown. [`FailedStarts::add`] is called once for each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FailedStarts {
    pub last: Option<LastStart>,
    /// Tokens that do not help: its copy has another one, or, since the last failure to save, the datastore.
    pub rejected: Vec<TokenHash>,
    /// How many starts have failed to save although `server/token` had another token before than after: the datastore has got a new key
    /// without the files that belong to it.
    pub without_files: usize,
    pub count: usize,
}

impl StartFailure {
    /// From the last errors of the log.
    ///
    /// | line | failure |
    /// |---|---|
    /// | `FILES newer than datastore and could cause a cluster outage` | `Newer` |
    /// | `failed to save bootstrap data: bootstrap data already found and encrypted with different token` | `Save` |
    /// | `failed to reconcile with local datastore: bootstrap data …`, `… with temporary etcd: …` (1.33), `failed to bootstrap cluster data: …` (SQLite) | `OwnCopy` |
    /// | `failed to start cluster: bootstrap data …` | `NoToken` |
    /// | `failed to bootstrap cluster data: not authorized` | `NotAuthorized` |
    /// | `leaderelection lost for k3s` (k3s-io/k3s `pkg/server/server.go`; not seen) | `NoQuorum` |
    /// | anything else | `Other` |
    pub fn of_log(lines: &[String]) -> Option<Self> {
        const DIFFERENT: &str = "bootstrap data already found and encrypted with different token";
        let classify = |line: &String| {
            let has = |start: &str| line.contains(&format!("{start}: {DIFFERENT}"));
            if let Some((files, _)) = line.split_once(" newer than datastore and could cause a cluster outage") {
                Some(Self::Newer(newer_files(files)))
            } else if has("failed to save bootstrap data") {
                Some(Self::Save)
            } else if has("failed to start cluster") {
                Some(Self::NoToken)
            } else if line.contains(DIFFERENT) {
                Some(Self::OwnCopy)
            } else if line.contains("failed to bootstrap cluster data: not authorized") {
                Some(Self::NotAuthorized)
            } else if line.contains("leaderelection lost") {
                Some(Self::NoQuorum)
            } else {
                None
            }
        };
        let classified = lines.iter().rev().find_map(classify);
        classified.or_else(|| lines.last().cloned().map(Self::Other))
    }

    /// The trap names `cred/passwd` and no other file.
    pub fn names_only_passwd(&self) -> bool {
        matches!(self, Self::Newer(files) if files.len() == 1 && files[0].ends_with("/server/cred/passwd"))
    }
}

/// `… msg="…: /a/cred/passwd, /b`. What is no path is kept: it is not `cred/passwd`, so nothing is deleted.
fn newer_files(text: &str) -> Vec<String> {
    let last_word = |part: &str| part.rsplit([' ', '"', '=']).next().unwrap_or_default().to_owned();
    let mut files: Vec<String> = Vec::new();
    for part in text.rsplit(", ") {
        files.push(last_word(part));
        if part.contains([' ', '"']) {
            break;
        }
    }
    files.reverse();
    files
}

impl FailedStarts {
    /// After a start has failed. `file`: the token in `server/token` after it.
    ///
    /// | failure | what it shows |
    /// |---|---|
    /// | `OwnCopy` | the copy has another token than this one |
    /// | `Save`, and `server/token` is as before | the copy had this token; it is the datastore's now, which has another one |
    /// | `Save`, and `server/token` has changed | the same, for the token that is there now: it came from the datastore's own `cred/passwd` |
    /// | others | nothing about a token |
    pub fn add(&mut self, start: LastStart, file: Option<TokenHash>) {
        self.count += 1;
        match (&start.failure, start.with) {
            (StartFailure::OwnCopy, with) => {
                // The copy is from a time when the datastore had another key than that of the lost files.
                self.without_files = 0;
                self.rejected.extend(with.filter(|with| !self.rejected.contains(with)));
            }
            (StartFailure::Save, with) => {
                let is_changed = with.is_some() && file.is_some() && with != file;
                self.without_files = if is_changed { self.without_files + 1 } else { 0 };
                self.rejected = with.and(file.or(with)).into_iter().collect();
            }
            _ => {}
        }
        self.last = Some(start);
    }

    pub(super) fn failure(&self) -> Option<&StartFailure> {
        self.last.as_ref().map(|start| &start.failure)
    }
}

impl ServerFacts {
    /// Whether it runs.
    ///
    /// | response | service | presence |
    /// |---|---|---|
    /// | ready | any | ready |
    /// | not ready | any | starting |
    /// | none | not known | no response |
    /// | none | runs, stops, or starts for the first time | starting |
    /// | none | anything else | down |
    pub fn presence(&self) -> Presence {
        match (self.response, self.service()) {
            (Response::Ready, _) => Presence::Ready,
            (Response::NotReady, _) => Presence::Starting,
            (Response::None, None) => Presence::NoResponse,
            (Response::None, Some(service)) => {
                let is_first = service.restarts.unwrap_or(0) == 0 && service.sub != "auto-restart";
                match service.active.as_str() {
                    // A restart stops it first.
                    "active" | "reloading" | "deactivating" => Presence::Starting,
                    "activating" if is_first => Presence::Starting,
                    _ => Presence::Down,
                }
            }
        }
    }

    fn service(&self) -> Option<&ServiceState> {
        self.node.as_ref().map(|node| &node.service)
    }

    /// Nothing starts it again by itself.
    pub fn is_stopped(&self) -> bool {
        let ended = |service: &ServiceState| ["inactive", "failed"].contains(&service.active.as_str());
        self.service().is_some_and(ended)
    }

    /// What `server/token` and `cred/passwd` have: by the node, else by a snapshot or a PUT.
    pub fn file(&self) -> FileToken {
        let Some(node) = &self.node else {
            return self
                .snapshot
                .or(self.placed)
                .map_or(FileToken::Unknown, FileToken::Holds);
        };
        let Some(token) = node.server_token.as_ref().and_then(|file| file.fingerprint) else {
            return FileToken::Empty;
        };
        match self.passwd() {
            Some(Some(passwd)) if passwd == token => FileToken::Holds(token),
            // A start writes it again.
            None => FileToken::Holds(token),
            Some(_) => FileToken::PasswdDiffers(token),
        }
    }

    fn passwd_rows(&self) -> Option<&PasswdFile> {
        let mut files = self.node.as_ref()?.passwd.iter();
        files.find(|passwd| passwd.file.file.ends_with("/cred/passwd"))
    }

    pub fn passwd_file(&self) -> Option<&StateFile> {
        self.passwd_rows().map(|passwd| &passwd.file)
    }

    /// The row of `server` in `cred/passwd`. `None`: no such file. `Some(None)`: a row is malformed or missing.
    pub fn passwd(&self) -> Option<Option<TokenHash>> {
        let passwd = self.passwd_rows()?;
        let row = passwd.rows.iter().find(|(user, _)| user == "server");
        let is_malformed = passwd.rows.iter().any(|(_, value)| value.is_none());
        Some(row.and_then(|(_, value)| *value).filter(|_| !is_malformed))
    }

    /// The tokens in `cred/passwd` and its backups.
    pub fn former(&self) -> impl Iterator<Item = TokenHash> {
        let files = self.node.iter().flat_map(|node| &node.passwd);
        let rows = files.flat_map(|passwd| &passwd.rows);
        rows.filter(|(user, _)| user == "server")
            .filter_map(|(_, value)| *value)
    }

    /// Whether agents have a token of their own there that is not the one in `cred/passwd`. Its next start writes that file again.
    fn lacks_agent_token(&self) -> bool {
        let place = self.node.as_ref().and_then(|node| node.configuration.effective(true));
        let configured = place.map_or_else(|| self.passwd().flatten(), |place| place.fingerprint);
        let row = self.passwd_row("node");
        row.is_some() && configured.is_some() && row != configured
    }

    /// The row of `node` in `cred/passwd`, where agents have a token of their own.
    fn agent_token(&self) -> Option<TokenHash> {
        self.passwd_row("node").filter(|row| self.passwd() != Some(Some(*row)))
    }

    fn passwd_row(&self, of: &str) -> Option<TokenHash> {
        self.passwd_rows()?.rows.iter().find(|(user, _)| user == of)?.1
    }

    /// The place of the configured token that its next start obeys.
    pub fn place(&self) -> Option<&TokenPlace> {
        self.node.as_ref()?.configuration.effective(false)
    }

    /// The configured token: by the node, else by what its last start has shown.
    pub fn configured(&self) -> ConfiguredToken {
        match (&self.node, &self.start) {
            (Some(_), _) => match self.place() {
                None => ConfiguredToken::Nowhere,
                Some(place) => place.fingerprint.map_or(ConfiguredToken::Some, ConfiguredToken::Holds),
            },
            (None, StartConfiguration::Read { token, .. }) if token.is_empty() => ConfiguredToken::Nowhere,
            // Its last start has loaded what was configured.
            (None, StartConfiguration::Read { .. }) => {
                self.loaded.map_or(ConfiguredToken::Some, ConfiguredToken::Holds)
            }
            (None, StartConfiguration::Unknown(_)) => ConfiguredToken::Unknown,
        }
    }

    /// The token of its next start, as far as it is known.
    pub fn next_token(&self) -> Option<TokenHash> {
        match (self.configured(), self.file()) {
            (ConfiguredToken::Holds(token), _)
            | (ConfiguredToken::Nowhere, FileToken::Holds(token) | FileToken::PasswdDiffers(token)) => Some(token),
            _ => None,
        }
    }

    /// The failed start that its log shows when it is read for the first time. Its configuration and its files may have been edited since,
    /// so it is not known with which token it was.
    pub fn start_of_log(&self) -> Option<LastStart> {
        let failure = StartFailure::of_log(&self.node.as_ref()?.log)?;
        Some(LastStart { with: None, failure })
    }
}

impl RecoveryFacts {
    pub(super) fn with(&self, presence: Presence) -> impl Iterator<Item = (&String, &ServerFacts)> {
        let mut servers = self.servers.iter();
        std::iter::from_fn(move || servers.find(|(_, server)| server.presence() == presence))
    }

    pub(super) fn is_at_hand(&self, value: TokenHash) -> bool {
        self.at_hand.contains(&value)
    }

    /// Tokens in the files of ready servers that no ready server has loaded: a PUT has written them since.
    pub(super) fn written_since(&self) -> Vec<TokenHash> {
        let loaded = |value: TokenHash| {
            self.with(Presence::Ready)
                .any(|(_, server)| server.loaded == Some(value))
        };
        let mut written = self.file_tokens();
        written.retain(|value| !loaded(*value));
        written
    }

    /// The tokens in the files of ready servers, each once.
    pub(super) fn file_tokens(&self) -> Vec<TokenHash> {
        let mut tokens = Vec::new();
        for (_, server) in self.with(Presence::Ready) {
            if let FileToken::Holds(value) | FileToken::PasswdDiffers(value) = server.file()
                && !tokens.contains(&value)
            {
                tokens.push(value);
            }
        }
        tokens
    }

    /// Whether another server has a newer `cred/passwd` with another token: a PUT has changed the token since.
    pub(super) fn is_overtaken(&self, server: &ServerFacts) -> bool {
        let of = |server: &ServerFacts| Some((server.passwd_file()?.modified, server.passwd()??));
        let Some((modified, token)) = of(server) else {
            return false;
        };
        let is_newer = |(later, other): (i64, TokenHash)| later > modified && other != token;
        self.servers.values().filter_map(of).any(is_newer)
    }

    /// Whether the start with a configured token has written `cred/passwd`: then it is the newest. Where it is not, a PUT of it would
    /// have the datastore take it for the newest.
    pub(super) fn lacks_save(&self, server: &ServerFacts) -> bool {
        let modified = |server: &ServerFacts| server.passwd_file().map(|file| file.modified);
        server.needs_save.is_some() && self.servers.values().all(|other| modified(other) <= modified(server))
    }

    /// The token of the `cred/passwd` that was written last. `None`: not known without node access, while clocks differ, or where another
    /// one was written within a second.
    pub(super) fn newest_file(&self) -> Option<TokenHash> {
        let file = |server: &ServerFacts| Some((server.passwd_file()?.modified, server.passwd()??));
        let files: Option<Vec<_>> = self.servers.values().map(file).collect();
        let files = files.filter(|_| matches!(self.clocks, Clocks::Close(_)))?;
        let (last, token) = files.iter().copied().max_by_key(|(modified, _)| *modified)?;
        let is_only = files
            .iter()
            .all(|(modified, other)| *other == token || last - modified >= 2);
        is_only.then_some(token)
    }

    /// Whether no file `cred/passwd` can be newer than what the datastore has of another server and differ: all are the same byte for
    /// byte, or were written within a second. `None`: not known without node access.
    pub(super) fn passwd_files_agree(&self) -> Option<bool> {
        let files: Option<Vec<_>> = self.servers.values().map(ServerFacts::passwd_file).collect();
        let files = files?;
        let modified = || files.iter().map(|file| file.modified);
        let are_close = modified().max()? - modified().min()? < 2;
        Some(are_close || files.iter().all(|file| file.sha256 == files[0].sha256))
    }

    /// A server whose agent token was changed in its configuration alone, or is not that of the others: the next start but one is the
    /// trap. Not known without node access.
    pub(super) fn with_other_agent_token(&self) -> Option<&String> {
        let known = || {
            self.servers
                .iter()
                .filter(|(_, server)| server.passwd().flatten().is_some())
        };
        let first = known().next().map(|(_, server)| server.agent_token());
        let differs = |server: &ServerFacts| server.lacks_agent_token() || Some(server.agent_token()) != first;
        known().find(|(_, server)| differs(server)).map(|(name, _)| name)
    }

    /// Whether more than half of the servers are ready.
    pub(super) fn has_quorum(&self) -> bool {
        self.with(Presence::Ready).count() * 2 > self.servers.len()
    }
}
