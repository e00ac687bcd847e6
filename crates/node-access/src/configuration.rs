//! What a node is configured with: each place of a token, and which of them K3s obeys.

use serde::{Deserialize, Serialize};
use supervisor::TokenHash;

use crate::error::NodeProblem;
use crate::record::ResultRecord;

/// Where a token can be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaceKind {
    /// An argument of the service, in its unit or its OpenRC script.
    Args,
    /// `Environment=` of the unit.
    Unit,
    /// An environment file.
    Env,
    /// `config.yaml`, or a file in `config.yaml.d`.
    Yaml,
}

/// What is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKey {
    /// `token`.
    Token,
    /// `agent-token`.
    AgentToken,
    /// `token-file`.
    TokenFile,
    /// `agent-token-file`.
    AgentTokenFile,
}

impl TokenKey {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "token" => Self::Token,
            "agent-token" => Self::AgentToken,
            "token-file" => Self::TokenFile,
            "agent-token-file" => Self::AgentTokenFile,
            _ => return None,
        })
    }

    /// Whether it is about the token of agents.
    pub fn is_for_agents(self) -> bool {
        matches!(self, Self::AgentToken | Self::AgentTokenFile)
    }

    /// Whether its value is the path of a file.
    pub fn is_file(self) -> bool {
        matches!(self, Self::TokenFile | Self::AgentTokenFile)
    }
}

/// One place. It contains no secret, so it may be kept in a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenPlace {
    /// Where it is.
    pub kind: PlaceKind,
    /// The file; empty where it is not known.
    pub file: String,
    /// Its first line, from 1; 0 where it is not known.
    pub line: u32,
    /// The number of its lines.
    pub lines: u32,
    /// As it is written there: `token`, `t`, `K3S_TOKEN`.
    pub name: String,
    /// What it configures.
    pub key: TokenKey,
    /// The fingerprint of the password. `None`: not known.
    pub fingerprint: Option<TokenHash>,
    /// The user of the `K10` form.
    pub user: Option<String>,
    /// The SHA-256 of the file.
    pub sha256: String,
    /// The file that a `token-file` names.
    pub target: Option<String>,
    /// The SHA-256 of that file.
    pub target_sha256: String,
    /// Why it cannot be edited.
    pub blocker: Option<String>,
}

impl TokenPlace {
    fn of_record(record: &ResultRecord) -> Option<Self> {
        let kind = match record.text(0) {
            "args" => PlaceKind::Args,
            "unit" => PlaceKind::Unit,
            "env" => PlaceKind::Env,
            "yaml" => PlaceKind::Yaml,
            _ => return None,
        };
        let blocker = match record.text(6) {
            "plain" => None,
            "fixed" if kind == PlaceKind::Unit => Some("it is in Environment= of the unit".to_owned()),
            "fixed" => Some("it is not on a line of its own in the service's file".to_owned()),
            reason => Some(reason.to_owned()),
        };
        Some(Self {
            kind,
            file: record.text(1).to_owned(),
            line: record.number(2)?,
            lines: record.number(3)?,
            name: record.text(4).to_owned(),
            key: TokenKey::parse(record.text(5))?,
            fingerprint: record.number(7),
            user: record.some(8).filter(|user| user != "-"),
            sha256: record.text(9).to_owned(),
            target: record.some(10),
            target_sha256: record.text(11).to_owned(),
            blocker,
        })
    }

    /// What to do by hand where it cannot be edited.
    pub fn by_hand(&self, removes: bool) -> String {
        let verb = if removes { "remove" } else { "change" };
        let then = match self.kind {
            PlaceKind::Args | PlaceKind::Unit => ", and run systemctl daemon-reload",
            PlaceKind::Env | PlaceKind::Yaml => "",
        };
        format!("{verb} {} by hand{then}; then repeat the command", self.describe())
    }

    /// As in a sentence: `token in /etc/rancher/k3s/config.yaml, line 3`.
    pub fn describe(&self) -> String {
        let name = &self.name;
        match (self.file.as_str(), self.line) {
            ("", _) if self.kind == PlaceKind::Args => format!("--{name} in the arguments of the service"),
            ("", _) => format!("{name} in the unit of the service"),
            (file, 0) => format!("{name} in {file}"),
            (file, line) => format!("{name} in {file}, line {line}"),
        }
    }
}

/// The configuration of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// All places, in the order in which they are found: arguments, environment, `config.yaml`, `config.yaml.d`.
    pub places: Vec<TokenPlace>,
    /// The path of `config.yaml`.
    pub config_file: String,
    /// The data directory, such as `/var/lib/rancher/k3s`.
    pub data_dir: String,
    /// The file for a key that is configured nowhere, in `config.yaml.d`.
    pub drop_in: String,
    /// Its SHA-256. Empty: it does not exist.
    pub drop_in_sha256: String,
}

/// After the last line of every file.
const LAST_LINE: u32 = 1_000_000;

impl Configuration {
    /// The place that K3s obeys. `None`: a server uses its own file `server/token`.
    ///
    /// A token file wins over each token; then the arguments (k3s-io/k3s `pkg/configfilearg`), `config.yaml.d`, `config.yaml` and the
    /// environment (seen on K3s 1.36.3).
    pub fn effective(&self, for_agents: bool) -> Option<&TokenPlace> {
        let rank = |place: &&TokenPlace| match (place.key.is_file(), place.kind) {
            (true, _) => 3,
            (_, PlaceKind::Args) => 2,
            (_, PlaceKind::Yaml) => 1,
            (_, PlaceKind::Env | PlaceKind::Unit) => 0,
        };
        // Of equal ones, the last: the later file of config.yaml.d.
        self.places
            .iter()
            .filter(|place| place.key.is_for_agents() == for_agents)
            .max_by_key(rank)
    }

    /// Where an agent token is written that is configured nowhere.
    pub fn new_agent_token(&self) -> TokenPlace {
        TokenPlace {
            kind: PlaceKind::Yaml,
            file: self.drop_in.clone(),
            line: LAST_LINE,
            lines: 0,
            name: "agent-token".to_owned(),
            key: TokenKey::AgentToken,
            fingerprint: None,
            user: None,
            sha256: self.drop_in_sha256.clone(),
            target: None,
            target_sha256: String::new(),
            blocker: None,
        }
    }

    pub(crate) fn of_records(records: &[ResultRecord]) -> Result<Self, NodeProblem> {
        let mut configuration = Self::default();
        for record in records {
            match record.name.as_str() {
                "place" => configuration
                    .places
                    .push(TokenPlace::of_record(record).ok_or(NodeProblem::Malformed)?),
                "configuration" => {
                    record.text(0).clone_into(&mut configuration.config_file);
                    record.text(1).clone_into(&mut configuration.data_dir);
                    record.text(2).clone_into(&mut configuration.drop_in);
                    record.text(3).clone_into(&mut configuration.drop_in_sha256);
                }
                _ => {}
            }
        }
        // Which of two K3s obeys depends on its version.
        let all: Vec<(String, TokenKey)> = configuration
            .places
            .iter()
            .map(|place| (place.file.clone(), place.key))
            .collect();
        for place in &mut configuration.places {
            let here = |other: &&(String, TokenKey)| other.0 == place.file && other.1 == place.key;
            if all.iter().filter(here).count() > 1 {
                place.blocker = Some(format!("{} occurs more than once", place.name));
            }
        }
        Ok(configuration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record;

    fn configuration(lines: &[&str]) -> Configuration {
        let lines: Vec<String> = lines
            .iter()
            .map(|line| {
                format!(
                    "@n =place {line}
"
                )
            })
            .collect();
        Configuration::of_records(&record::parse("n", (lines.concat() + "@n =end\n").as_bytes()).unwrap()).unwrap()
    }

    const ENV: &str = "=env =/e =1 =1 =K3S_TOKEN =token =plain =f52fbd32b2b3 =- =00 =";
    const CONFIG: &str = "=yaml =/c =1 =1 =token =token =plain =f52fbd32b2b3 =server =00 =";
    const DROP_IN: &str = "=yaml =/c.d/a.yaml =1 =1 =t =token =plain = =- =00 =";
    const FILE: &str = "=env =/e =2 =1 =K3S_TOKEN_FILE =token-file =plain = =- =00 =/t";
    const AGENT: &str = "=args = =0 =0 =agent-token =agent-token =fixed = =- = =";

    #[test]
    fn the_effective_place_is_the_one_of_k3s() {
        let effective = |lines: &[&str]| configuration(lines).effective(false).map(TokenPlace::describe);
        assert_eq!(effective(&[AGENT]), None);
        assert_eq!(effective(&[ENV]).unwrap(), "K3S_TOKEN in /e, line 1");
        assert_eq!(effective(&[ENV, CONFIG]).unwrap(), "token in /c, line 1");
        assert_eq!(effective(&[ENV, CONFIG, DROP_IN]).unwrap(), "t in /c.d/a.yaml, line 1");
        assert_eq!(effective(&[ENV, FILE, CONFIG]).unwrap(), "K3S_TOKEN_FILE in /e, line 2");
        let agents = configuration(&[ENV, AGENT]);
        let place = agents.effective(true).unwrap();
        assert_eq!(place.describe(), "--agent-token in the arguments of the service");
        assert!(place.blocker.is_some());
    }

    #[test]
    fn a_key_that_occurs_twice_cannot_be_edited() {
        let places = configuration(&[CONFIG, CONFIG, FILE]).places;
        let blockers: Vec<bool> = places.iter().map(|place| place.blocker.is_some()).collect();
        assert_eq!(blockers, [true, true, false]);
        let kept: TokenPlace = serde_json::from_value(serde_json::to_value(&places[0]).unwrap()).unwrap();
        assert_eq!(kept, places[0]);
    }
}
