//! What is read from a node.

use client::secret::Secret;
use node_access::{NodeRole, PlaceKind, ServiceManager, ServiceOptions, TokenKey};
use rstest::rstest;
use supervisor::{SupervisorKind, TokenHash};

use crate::machine::{CONFIG, ENV, Machine, PASSWD, PASSWORD, TOKEN, UNIT, shells, target};

/// The fingerprint of a password; none of nothing.
fn hash(text: &str) -> Option<TokenHash> {
    let password = Secret::new(text);
    (!password.is_empty()).then(|| TokenHash::of(&password))
}

#[tokio::test]
async fn the_files_of_a_server_are_read_without_secrets() {
    for shell in shells() {
        read_a_server(&Machine::with_shell(shell)).await;
    }
}

async fn read_a_server(machine: &Machine) {
    let log = format!(
        "level=info msg=ok\nlevel=fatal msg=\"wrong token {PASSWORD}, really {PASSWORD}\"\n\u{1b}[31mError: no\n"
    );
    machine.write("/log", &log);
    machine.write("/var/lib/rancher/k3s/server/cred/encryption-config.json", "{}");
    let state = machine.read().await;
    let token = state.server_token.as_ref().unwrap();
    assert_eq!(
        (token.user.as_deref(), token.fingerprint),
        (Some("server"), hash(PASSWORD))
    );
    assert_eq!(token.sha256, machine.sha256(TOKEN));
    assert_eq!(state.passwd.len(), 1);
    assert_eq!(state.passwd[0].file.sha256, machine.sha256(PASSWD));
    let rows = [
        ("node".to_owned(), hash(PASSWORD)),
        ("server".to_owned(), hash(PASSWORD)),
    ];
    assert_eq!(state.passwd[0].rows, rows);
    assert_eq!(state.encryption.len(), 1);
    assert_eq!(state.machine_id.as_deref(), Some("0123"));
    assert_eq!(
        (
            state.service.manager,
            state.service.active.as_str(),
            state.service.restarts
        ),
        (ServiceManager::Systemd, "failed", Some(7))
    );
    assert_eq!(
        state.log,
        [
            "level=fatal msg=\"wrong token <hidden>, really <hidden>\"",
            "^[[31mError: no"
        ]
    );
    assert!(state.configuration.places.is_empty(), "{:?}", state.configuration);
    assert!(!format!("{state:?}").contains(PASSWORD));
}

#[rstest]
#[case::plain("token: hunter2-of-tests", "hunter2-of-tests", None)]
#[case::comment("token:   hunter2-of-tests   # mine", "hunter2-of-tests", None)]
#[case::double("\"token\" : \"hunter2 # x\" # mine", "hunter2 # x", None)]
#[case::single("token: '$(reboot) \\n \"'", "$(reboot) \\n \"", None)]
#[case::k10("token: K10ab::server:a:b", "a:b", None)]
#[case::short("t: hunter2-of-tests", "hunter2-of-tests", None)]
#[case::escape("token: \"a\\u0062c\"", "", Some("it contains escapes"))]
#[case::quote("token: 'it''s'", "", Some("it is not a value on one line"))]
#[case::lines("token: 'a", "", Some("it has several lines"))]
#[case::folded("token: hunter2\n  of-tests", "", Some("it has several lines"))]
#[case::block("token: |\n  hunter2", "", Some("it has several lines"))]
#[case::anchor("token: &a hunter2", "", Some("it is not a value on one line"))]
#[case::number("token: 0123456789", "", Some("YAML does not read it as text without quotes"))]
#[case::float("token: 12e5", "", Some("YAML does not read it as text without quotes"))]
#[case::null("token:", "", Some("it is not a value on one line"))]
#[case::plus("token+: hunter2", "", Some("its key ends with +"))]
#[case::json(
    "{\"token\": \"hunter2\"}",
    "",
    Some("the file is not a plain list of keys and values")
)]
#[case::merge(
    "a: &a\n  token: x\n<<: *a",
    "",
    Some("the file is not a plain list of keys and values")
)]
#[case::twice("token: a\ntoken: b", "a", Some("token occurs more than once"))]
#[tokio::test]
async fn a_token_in_yaml_is_found_or_the_reason_is_named(
    #[case] yaml: &str,
    #[case] value: &str,
    #[case] blocker: Option<&str>,
) {
    let machine = Machine::new();
    machine.write(
        CONFIG,
        &format!("# token: old\n---\nwrite-kubeconfig-mode: 644\ntls-san:\n  - token: x\n{yaml}\n"),
    );
    let state = machine.read().await;
    let place = &state.configuration.places[0];
    assert_eq!(place.blocker.as_deref(), blocker);
    assert_eq!(place.fingerprint, hash(value));
    assert_eq!(
        (place.kind, place.key, place.file.as_str()),
        (PlaceKind::Yaml, TokenKey::Token, CONFIG)
    );
}

#[rstest]
#[case("tls-san:\n  token: x\n")]
#[case("node-name: token\nkubelet-arg: |\n  token: x\n")]
#[case("# {token}\n\n")]
#[case("")]
#[tokio::test]
async fn a_configuration_without_a_token_has_no_place(#[case] yaml: &str) {
    let machine = Machine::new();
    machine.write(CONFIG, yaml);
    assert_eq!(machine.read().await.configuration.places, []);
}

#[tokio::test]
async fn every_place_is_found_in_its_order() {
    let machine = Machine::new();
    machine.show(
        "/usr/local/bin/k3s server --token from-args --config=/etc/other.yaml",
        "K3S_AGENT_TOKEN=from-unit",
        ENV,
    );
    machine.write(
        UNIT,
        "[Service]\nExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--token' \\\n\t'from-args' \\\n\n",
    );
    machine.write(
        ENV,
        "A=b\r\nK3S_TOKEN='from env'\r\nK3S_TOKEN_FILE=/etc/token\r\nK3S_DATA_DIR=/data",
    );
    machine.write("/etc/token", "  from-file \r\n");
    machine.write("/etc/other.yaml", "\u{feff}token: from-yaml");
    machine.write("/etc/other.yaml.d/20.yml", "agent-token: 'from-drop-in'\n");
    machine.write("/etc/other.yaml.d/10.yaml", "data-dir: /elsewhere\n");
    machine.write("/etc/other.yaml.d/30.yaml.bak", "token: ignored\n");
    machine.write("/etc/rancher/k3s/config.yaml", "token: ignored\n");
    machine.write("/elsewhere/server/token", "bare");
    let state = machine.read().await;
    let configuration = &state.configuration;
    let found: Vec<_> = configuration
        .places
        .iter()
        .map(|place| (place.kind, place.key, place.line, place.lines, place.fingerprint))
        .collect();
    assert_eq!(
        found,
        [
            (PlaceKind::Args, TokenKey::Token, 4, 2, hash("from-args")),
            (PlaceKind::Unit, TokenKey::AgentToken, 0, 0, hash("from-unit")),
            (PlaceKind::Env, TokenKey::Token, 2, 1, hash("from env")),
            (PlaceKind::Env, TokenKey::TokenFile, 3, 1, hash("from-file")),
            (PlaceKind::Yaml, TokenKey::Token, 1, 1, hash("from-yaml")),
            (PlaceKind::Yaml, TokenKey::AgentToken, 1, 1, hash("from-drop-in")),
        ]
    );
    assert_eq!(configuration.effective(false).unwrap().key, TokenKey::TokenFile);
    assert_eq!(configuration.effective(true).unwrap().kind, PlaceKind::Yaml);
    assert_eq!(configuration.data_dir, "/elsewhere");
    assert_eq!(state.server_token.unwrap().fingerprint, hash("bare"));
    assert!(configuration.places[1].blocker.is_some());
}

#[rstest]
#[case("K3S_TOKEN=\"a b\"", true)]
#[case("export K3S_TOKEN=abc", true)]
#[case("K3S_TOKEN=a b", false)]
#[case("K3S_TOKEN=$(cat /etc/t)", false)]
#[case("K3S_TOKEN='it'\\''s'", false)]
#[case("K3S_TOKEN=abc\\\ndef", false)]
#[case("K3S_TOKEN=", false)]
#[tokio::test]
async fn a_variable_that_needs_a_shell_is_not_edited(#[case] line: &str, #[case] is_plain: bool) {
    let machine = Machine::new();
    machine.show("k3s server", "", ENV);
    machine.write(ENV, &format!("{line}\n"));
    let place = machine.read().await.configuration.places.remove(0);
    assert_eq!(
        (place.blocker.is_none(), place.fingerprint.is_some()),
        (is_plain, is_plain)
    );
}

#[tokio::test]
async fn openrc_is_read_like_systemd() {
    let machine = Machine::new();
    std::fs::remove_dir_all(machine.path("/run/systemd")).unwrap();
    machine.program("rc-service", "#!/bin/sh\nexit 32\n");
    machine.write(
        "/etc/init.d/k3s",
        "#!/sbin/openrc-run\ncommand_args=\"server \\\n\t'--token' \\\n\t'from-args' \\\n    >>/var/log/k3s.log 2>&1\"\n",
    );
    machine.write("/etc/rancher/k3s/k3s.env", "K3S_TOKEN='from-env'\n");
    machine.write("/var/log/k3s.log", "time=1 level=fatal msg=bad\n");
    let state = machine.read().await;
    assert_eq!(
        (state.service.manager, state.service.active.as_str()),
        (ServiceManager::OpenRc, "failed")
    );
    assert_eq!(state.log, ["time=1 level=fatal msg=bad"]);
    let places = state.configuration.places;
    assert_eq!(
        (places[0].line, places[0].blocker.as_deref(), places[0].fingerprint),
        (3, None, hash("from-args"))
    );
    assert_eq!(
        (places[1].kind, places[1].fingerprint),
        (PlaceKind::Env, hash("from-env"))
    );
}

#[tokio::test]
async fn a_service_that_is_named_has_to_exist() {
    let mut machine = Machine::new();
    machine.options.unit = Some("other.service".parse().unwrap());
    let error = machine.access().read(&target(), false).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the configuration on node s1 (--node-exec): there is no service other"
    );
}

#[tokio::test]
async fn a_password_with_a_line_break_is_a_malformed_row_without_the_password() {
    for shell in shells() {
        let machine = Machine::with_shell(shell);
        let row = |user: &str| format!("\"{PASSWORD}\n\",{user},{user},k3s:{user}\n");
        machine.write(PASSWD, &format!("{}{}", row("node"), row("server")));
        let state = machine.read().await;
        assert!(
            state.passwd[0].rows.iter().all(|(_, value)| value.is_none()),
            "{:?}",
            state.passwd
        );
        assert!(!format!("{state:?}").contains(PASSWORD));
    }
}

#[tokio::test]
async fn the_token_itself_is_returned_where_it_is_asked_for() {
    let machine = Machine::new();
    let hostile = "a'b\"c $(reboot) `x` \\ %s é";
    machine.write(TOKEN, &format!("{hostile}\n"));
    let (value, sha256) = machine.access().read_token(&target()).await.unwrap().unwrap();
    assert_eq!((value.expose(), sha256), (hostile, machine.sha256(TOKEN)));
    std::fs::remove_file(machine.path(TOKEN)).unwrap();
    assert_eq!(machine.access().read_token(&target()).await.unwrap(), None);
}

#[tokio::test]
async fn rke2_has_names_of_its_own() {
    let mut machine = Machine::new();
    machine.options = ServiceOptions::of(SupervisorKind::Rke2, NodeRole::Server);
    let systemctl = machine
        .text("/bin/systemctl")
        .replace("k3s.service", "rke2-server.service");
    machine.program("systemctl", &systemctl);
    machine.show("rke2 server", "", "/etc/default/rke2-server");
    machine.write("/etc/default/rke2-server", "K3S_TOKEN=ignored\nRKE2_TOKEN=from-env\n");
    machine.write("/etc/rancher/rke2/config.yaml", "agent-token: from-yaml\n");
    machine.write("/var/lib/rancher/rke2/server/token", "bare");
    let state = machine.read().await;
    let found: Vec<_> = state
        .configuration
        .places
        .iter()
        .map(|place| (place.line, place.fingerprint))
        .collect();
    assert_eq!(found, [(2, hash("from-env")), (1, hash("from-yaml"))]);
    assert_eq!(state.server_token.unwrap().fingerprint, hash("bare"));
    assert_eq!(state.service.unit, "rke2-server");
}

#[tokio::test]
async fn every_token_of_a_server_is_returned_where_it_is_asked_for() {
    let machine = Machine::new();
    machine.write(CONFIG, "token: configured\nagent-token: of-agents\n");
    machine.write(
        &format!("{PASSWD}.abcde.bak"),
        "former-of-nodes,node,node,k3s:agent\nformer,server,server,k3s:server\nbad\"row,server,x\n",
    );
    let read = machine.access().read_tokens(&target()).await.unwrap();
    let has = |token: &str| read.iter().any(|read| Some(read.hash()) == hash(token));
    assert!(has("configured") && has(PASSWORD) && has("former"), "{read:?}");
    // Which of them are of agents is in the state of the node.
    assert!(has("of-agents") && !has("former-of-nodes"), "{read:?}");
}

#[tokio::test]
async fn the_token_of_agents_is_what_the_last_start_has_written() {
    let machine = Machine::new();
    let read = async || {
        let value = machine.access().read_agent_token(&target()).await.unwrap();
        value.map(|value| value.expose().to_owned())
    };
    std::fs::remove_file(machine.path(PASSWD)).unwrap();
    assert_eq!(read().await, None);
    machine.write(
        PASSWD,
        "of-agents,node,node,k3s:agent\nof-servers,server,server,k3s:server\n",
    );
    assert_eq!(read().await.as_deref(), Some("of-agents"));
    machine.write(PASSWD, "\"with,comma\",node,node,k3s:agent\n");
    assert_eq!(read().await, None);
}
