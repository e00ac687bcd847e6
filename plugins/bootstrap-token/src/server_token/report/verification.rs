//! The document and the page of `server-token verify`.

use cli::ExitCode;
use cli::table::{Column, Look, Table};
use cli::ui::{Stream, Tone, Ui};
use client::secret::Fingerprint;
use serde::Serialize;

use super::server::names;
use crate::report::API_VERSION;
use crate::server_token::given_token::GivenToken;
use crate::server_token::probe::{Acceptance, Role};

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerTokenVerification {
    api_version: &'static str,
    kind: &'static str,
    /// `None`: the token is guessable.
    fingerprint: Option<Fingerprint>,
    /// By all servers: `yes`, `no`, `unknown`.
    accepted: &'static str,
    /// The roles in which all servers accept it.
    accepted_as: Vec<Role>,
    servers: Vec<VerifiedServer>,
    #[serde(skip)]
    pub hints: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VerifiedServer {
    name: String,
    address: Option<String>,
    accepted: &'static str,
    accepted_as: Vec<Role>,
    /// Why it is unknown, or what else it accepts.
    reason: Option<String>,
}

const COLUMNS: &[Column] = &[
    Column::new("NAME"),
    Column::new("ADDRESS"),
    Column::new("ACCEPTED"),
    Column::new("AS"),
    Column::new("REASON"),
];

/// The result of one server.
pub(crate) struct ServerResult {
    pub name: String,
    pub address: Option<String>,
    pub acceptance: Acceptance,
    /// It accepts the server token from agents, where another token was asked for.
    pub accepts_server_token: bool,
}

impl ServerTokenVerification {
    pub(crate) fn new(kind: &'static str, token: &GivenToken, results: Vec<ServerResult>) -> Self {
        let acceptances: Vec<&Acceptance> = results.iter().map(|result| &result.acceptance).collect();
        let all = Acceptance::of_servers(&acceptances);
        let mut hints: Vec<String> = acceptances.iter().flat_map(|one| one.hints().to_vec()).collect();
        hints.sort();
        hints.dedup();
        let server = |result: ServerResult| VerifiedServer {
            accepted: result.acceptance.word(),
            accepted_as: result.acceptance.roles().to_vec(),
            reason: match result.acceptance.reason() {
                None if result.accepts_server_token => Some("it accepts the server token from agents".to_owned()),
                reason => reason.map(str::to_owned),
            },
            name: result.name,
            address: result.address,
        };
        Self {
            api_version: API_VERSION,
            kind,
            fingerprint: token.fingerprint(),
            accepted: all.word(),
            accepted_as: all.roles().to_vec(),
            servers: results.into_iter().map(server).collect(),
            hints,
        }
    }

    /// 0 only if every server accepts it.
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.accepted == "yes" {
            ExitCode::Done
        } else {
            ExitCode::Failed
        }
    }

    /// The human-readable page.
    pub(crate) fn page(&self, ui: &Ui) -> String {
        let mut table = Table::new(COLUMNS);
        for server in &self.servers {
            table.row([
                server.name.as_str(),
                server.address.as_deref().unwrap_or("<unknown>"),
                server.accepted,
                &names(&server.accepted_as),
                server.reason.as_deref().unwrap_or("<none>"),
            ]);
        }
        let fingerprint = self.fingerprint.map_or_else(String::new, |print| format!(" ({print})"));
        let (tone, result) = match self.accepted {
            "yes" => (
                Tone::Good,
                format!("accepted by every server as {}", names(&self.accepted_as)),
            ),
            "no" => (Tone::Bad, "not accepted by every server".to_owned()),
            _ => (Tone::Caution, "unknown".to_owned()),
        };
        let result = ui.paint(Stream::Out, tone, &result);
        format!("{}\ntoken{fingerprint}: {result}\n", table.render(Look::default()))
    }
}

#[cfg(test)]
mod tests {
    use cli::ui::{Terminal, UiFlags};
    use client::error::Error;
    use client::secret::Secret;
    use serde_json::json;

    use super::*;

    fn verification(results: Vec<Acceptance>) -> ServerTokenVerification {
        let token = GivenToken::of_line(&Secret::new("0f1e2d3c4b5a69788796a5b4c3d2e1f0")).unwrap();
        let result = |(at, acceptance): (usize, Acceptance)| ServerResult {
            name: format!("s{}", at + 1),
            address: Some(format!("10.0.0.{}:6443", at + 1)),
            acceptance,
            accepts_server_token: false,
        };
        ServerTokenVerification::new(
            "ServerTokenVerification",
            &token,
            results.into_iter().enumerate().map(result).collect(),
        )
    }

    fn page(verification: &ServerTokenVerification) -> String {
        let (ui, _) = Ui::buffered(Terminal::default(), UiFlags::default(), "");
        verification.page(&ui)
    }

    #[test]
    fn only_a_token_that_every_server_accepts_exits_with_0() {
        let both = || Acceptance::Accepted(vec![Role::Server, Role::Agent]);
        let starting = || Acceptance::from(Error::failed("the server is starting").hint("wait"));
        let code = |results| verification(results).exit_code();
        assert_eq!(code(vec![both(), both()]), ExitCode::Done);
        assert_eq!(code(vec![both(), Acceptance::Rejected]), ExitCode::Failed);
        assert_eq!(code(vec![both(), starting()]), ExitCode::Failed);
        assert_eq!(code(Vec::new()), ExitCode::Failed);

        let mixed = verification(vec![both(), Acceptance::Rejected, starting(), starting()]);
        insta::assert_snapshot!(page(&mixed), @r"
        NAME   ADDRESS         ACCEPTED   AS              REASON
        s1     10.0.0.1:6443   yes        server, agent   <none>
        s2     10.0.0.2:6443   no         <none>          <none>
        s3     10.0.0.3:6443   unknown    <none>          the server is starting
        s4     10.0.0.4:6443   unknown    <none>          the server is starting

        token (a1bf4dc2c0): not accepted by every server
        ");
        assert_eq!(mixed.hints, ["wait"]);
    }

    #[test]
    fn the_document_has_the_documented_fields() {
        let document =
            serde_json::to_value(verification(vec![Acceptance::Accepted(vec![Role::BootstrapToken])])).unwrap();
        assert_eq!(
            (&document["accepted"], &document["acceptedAs"], &document["servers"][0]),
            (
                &json!("yes"),
                &json!(["bootstrap-token"]),
                &json!({
                    "name": "s1", "address": "10.0.0.1:6443", "accepted": "yes", "acceptedAs": ["bootstrap-token"], "reason": null,
                })
            )
        );
        let page = include_str!("../../../../../docs/output.md");
        let (_, section) = page.split_once("## ServerTokenVerification").unwrap();
        let section = section.split("\n## ").next().unwrap();
        let fields = document
            .as_object()
            .unwrap()
            .keys()
            .chain(document["servers"][0].as_object().unwrap().keys());
        for field in fields.filter(|field| !["apiVersion", "kind"].contains(&field.as_str())) {
            let is_documented = [format!("{field}`"), format!("`{field}[]")]
                .iter()
                .any(|text| section.contains(text));
            assert!(is_documented, "{field} is not documented");
        }
    }
}
