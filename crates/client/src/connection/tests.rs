//! Where kube alone would decide otherwise than kubectl does: one test per row of difference.

use std::path::{Path, PathBuf};

use rstest::rstest;

use super::*;
use crate::error::Kind;

/// A hermetic home with kubeconfig files.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn environment(&self, files: &[&Path]) -> Environment {
        let list = std::env::join_paths(files).unwrap().into_string().unwrap();
        Environment::silent()
            .with_home(self.0.path())
            .with_variable("KUBECONFIG", &list)
    }
}

/// A kubeconfig with one context `name` on `https://name.example:6443`.
fn simple(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {name}\n\
         contexts:\n- name: {name}\n  context: {{cluster: {name}, user: {name}, namespace: ns-{name}}}\n\
         clusters:\n- name: {name}\n  cluster: {{server: 'https://{name}.example:6443'}}\n\
         users:\n- name: {name}\n  user: {{token: token-of-{name}}}\n"
    )
}

async fn header(connection: &Connection) -> Option<String> {
    let credential = connection.identity.credential().await.unwrap();
    credential.authorization.map(|value| value.to_str().unwrap().to_owned())
}

/// `--kubeconfig <(…)`. A command with two contexts loads the file twice.
#[cfg(unix)]
#[test]
fn a_pipe_is_read_once_for_all_connections() {
    let home = Home::new();
    let pipe = home.0.path().join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, simple("a")).unwrap()
    });
    let options = ConnectionOptions {
        kubeconfig: Some(pipe),
        ..ConnectionOptions::default()
    };
    for _ in 0..2 {
        let connection = options.load(&Environment::silent()).unwrap();
        assert_eq!(connection.context(), Some("a"));
    }
    writer.join().unwrap();
}

#[test]
fn a_missing_file_in_kubeconfig_is_skipped() {
    let home = Home::new();
    let good = home.file("good", simple("a"));
    let connection = ConnectionOptions::default()
        .load(&home.environment(&[Path::new("/missing"), &good]))
        .unwrap();
    assert_eq!(connection.server().as_str(), "https://a.example:6443/");
}

#[test]
fn a_missing_file_that_was_named_by_the_flag_is_an_error() {
    let error = ConnectionOptions {
        kubeconfig: Some("/missing".into()),
        ..ConnectionOptions::default()
    }
    .load(&Environment::silent())
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: cannot read kubeconfig /missing: no such file or directory"
    );
}

#[test]
fn an_empty_current_context_leaves_the_choice_to_the_next_file() {
    let home = Home::new();
    let first = home.file("first", "current-context: \"\"\n");
    let second = home.file("second", simple("b"));
    let connection = ConnectionOptions::default()
        .load(&home.environment(&[&first, &second]))
        .unwrap();
    assert_eq!(connection.context(), Some("b"));
}

#[test]
fn the_first_file_wins_where_two_have_a_name() {
    let home = Home::new();
    let first = home.file("first", simple("a"));
    let second = home.file(
        "second",
        simple("a").replace("a.example", "other.example") + "preferences: {}\n",
    );
    let connection = ConnectionOptions::default()
        .load(&home.environment(&[&first, &second, &first]))
        .unwrap();
    assert_eq!(connection.server().host_str(), Some("a.example"));
}

#[test]
fn an_empty_namespace_means_default() {
    let home = Home::new();
    let file = home.file("config", simple("a").replace("ns-a", "\"\""));
    assert_eq!(
        ConnectionOptions::default()
            .load(&home.environment(&[&file]))
            .unwrap()
            .namespace(),
        "default"
    );
}

#[test]
fn a_flag_that_is_given_but_empty_is_absent() {
    let home = Home::new();
    let file = home.file("config", simple("a"));
    let given = ConnectionOptions {
        context: Some(String::new()),
        cluster: Some(String::new()),
        user: Some(String::new()),
        namespace: Some(String::new()),
        server: Some(String::new()),
        token: Some(Secret::new("")),
        kubeconfig: Some("".into()),
        impersonate: Some(String::new()),
        ..ConnectionOptions::default()
    };
    let connection = given.load(&home.environment(&[&file])).unwrap();
    assert_eq!((connection.context(), connection.namespace()), (Some("a"), "ns-a"));
    assert!(connection.request_timeout.is_none());
}

#[tokio::test]
async fn duplicate_keys_are_accepted_and_the_last_one_counts() {
    let home = Home::new();
    let file = home.file(
        "config",
        simple("a").replace("token: token-of-a", "token: one, token: two"),
    );
    let connection = ConnectionOptions::default().load(&home.environment(&[&file])).unwrap();
    assert_eq!(header(&connection).await.as_deref(), Some("Bearer two"));
}

#[rstest]
#[case(
    "users:\n- name: a\n  user: {token: hunter2hunter2, tokenFile: [}\n",
    "line 3, column "
)]
#[case("users:\n- name: a\n  user: {token: [hunter2hunter2]}\n", "users[0].user")]
#[case(
    "users:\n- name: a\n  user:\n    token: hunter2hunter2\n   bad: indent\n",
    "line 5, column "
)]
#[case("users: hunter2hunter2\n", "users is not valid")]
#[case("hunter2hunter2\n", "it is not a map")]
fn a_broken_kubeconfig_is_one_line_that_quotes_nothing(#[case] text: &str, #[case] place: &str) {
    let home = Home::new();
    let file = home.file("config", text);
    let error = ConnectionOptions::default()
        .load(&home.environment(&[&file]))
        .unwrap_err();
    let shown = format!("{error}{error:?}");
    assert!(
        !shown.contains("hunter2") && !error.to_string().contains('\n'),
        "{shown}"
    );
    assert!(
        error.to_string().starts_with("error: error loading config file"),
        "{error}"
    );
    assert!(error.to_string().contains(place), "{error}");
}

#[rstest]
#[case(b"\xef\xbb\xbf".to_vec(), |text: &str| text.as_bytes().to_vec())]
#[case(vec![0xff, 0xfe], |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect())]
#[case(vec![0xfe, 0xff], |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect())]
fn byte_order_marks_are_understood(#[case] mark: Vec<u8>, #[case] encode: fn(&str) -> Vec<u8>) {
    let home = Home::new();
    let file = home.file("config", [mark, encode(&simple("a"))].concat());
    assert_eq!(
        ConnectionOptions::default()
            .load(&home.environment(&[&file]))
            .unwrap()
            .context(),
        Some("a")
    );
}

#[test]
fn an_empty_file_is_an_empty_kubeconfig() {
    let home = Home::new();
    let empty = home.file("empty", " \n");
    let file = home.file("config", simple("a"));
    assert_eq!(
        ConnectionOptions::default()
            .load(&home.environment(&[&empty, &file]))
            .unwrap()
            .context(),
        Some("a")
    );
}

#[rstest]
#[case(|name: &str| ConnectionOptions { user: Some(name.into()), ..ConnectionOptions::default() }, "error: auth info \"stagin\" does not exist")]
#[case(|name: &str| ConnectionOptions { context: Some(name.into()), ..ConnectionOptions::default() }, "error: context \"stagin\" does not exist")]
#[case(|name: &str| ConnectionOptions { cluster: Some(name.into()), ..ConnectionOptions::default() }, "error: cluster \"stagin\" does not exist")]
fn an_unknown_name_is_rejected_with_a_suggestion(#[case] named: fn(&str) -> ConnectionOptions, #[case] words: &str) {
    let home = Home::new();
    let file = home.file("config", simple("staging"));
    let error = named("stagin").load(&home.environment(&[&file])).unwrap_err();
    assert_eq!(error.to_string(), words);
    assert_eq!(error.hints, ["did you mean \"staging\"?"]);
    let error = named("zzz").load(&home.environment(&[&file])).unwrap_err();
    assert_eq!(error.hints, ["the kubeconfig has: staging"]);
}

#[tokio::test]
async fn a_context_that_names_a_missing_user_is_anonymous() {
    let home = Home::new();
    let file = home.file("config", simple("a").replace("user: a,", "user: gone,"));
    let connection = ConnectionOptions::default().load(&home.environment(&[&file])).unwrap();
    assert_eq!(header(&connection).await, None);
}

#[test]
fn a_missing_current_context_is_reported() {
    let home = Home::new();
    let file = home.file(
        "config",
        simple("a").replace("current-context: a", "current-context: b"),
    );
    let error = ConnectionOptions::default()
        .load(&home.environment(&[&file]))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("context was not found for specified context: b"),
        "{error}"
    );
}

#[test]
fn paths_are_relative_to_their_kubeconfig() {
    let home = Home::new();
    home.file("one/ca.crt", "PEM of one");
    let file = home.file(
        "one/config",
        simple("a").replace("{server:", "{certificate-authority: ca.crt, server:"),
    );
    let other = home.file("two/config", simple("b"));
    let connection = ConnectionOptions {
        context: Some("a".into()),
        ..ConnectionOptions::default()
    }
    .load(&home.environment(&[&other, &file]))
    .unwrap();
    assert_eq!(connection.trust.authority.as_deref(), Some("PEM of one"));
}

#[tokio::test]
async fn the_token_flag_replaces_plugin_and_certificate() {
    let home = Home::new();
    let user = "{exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: /nonexistent}, client-certificate: /nonexistent, as: bob}";
    let file = home.file("config", simple("a").replace("{token: token-of-a}", user));
    let connection = ConnectionOptions {
        token: Some(Secret::new("given")),
        ..ConnectionOptions::default()
    }
    .load(&home.environment(&[&file]))
    .unwrap();
    assert_eq!(header(&connection).await.as_deref(), Some("Bearer given"));
    assert_eq!(connection.impersonate.user.as_deref(), Some("bob"));
}

#[tokio::test]
async fn the_server_flag_alone_keeps_the_users_credentials() {
    let home = Home::new();
    let file = home.file("config", simple("a"));
    let connection = ConnectionOptions {
        server: Some("https://other:1".into()),
        ..ConnectionOptions::default()
    }
    .load(&home.environment(&[&file]))
    .unwrap();
    assert_eq!(connection.server().as_str(), "https://other:1/");
    assert_eq!(header(&connection).await.as_deref(), Some("Bearer token-of-a"));
}

#[tokio::test]
async fn plain_http_gets_no_credentials() {
    let home = Home::new();
    let file = home.file("config", simple("a").replace("https://", "http://"));
    let connection = ConnectionOptions::default().load(&home.environment(&[&file])).unwrap();
    assert_eq!(header(&connection).await, None);
}

#[tokio::test]
async fn a_token_file_is_read_when_it_is_needed() {
    let home = Home::new();
    let file = home.file("config", simple("a").replace("token: token-of-a", "tokenFile: token"));
    let connection = ConnectionOptions::default().load(&home.environment(&[&file])).unwrap();
    assert_eq!(connection.identity.credential().await.unwrap_err().kind, Kind::Failed);
    home.file("token", "fresh\n");
    assert_eq!(header(&connection).await.as_deref(), Some("Bearer fresh"));
}

#[tokio::test]
async fn in_a_pod_the_service_account_is_used_when_nothing_is_configured() {
    let home = Home::new();
    home.file("sa/token", "mounted");
    home.file("sa/ca.crt", "PEM");
    home.file("sa/namespace", "rotation\n");
    let environment = Environment::silent()
        .with_variable("KUBERNETES_SERVICE_HOST", "fd00::1")
        .with_variable("KUBERNETES_SERVICE_PORT", "443")
        .with_service_account(&home.0.path().join("sa"));
    let connection = ConnectionOptions::default().load(&environment).unwrap();
    assert_eq!(connection.server().as_str(), "https://[fd00::1]/");
    assert_eq!(
        (connection.namespace(), header(&connection).await.as_deref()),
        ("rotation", Some("Bearer mounted"))
    );
    assert_eq!(
        connection.trust.authority_file.as_deref(),
        Some(&*home.0.path().join("sa/ca.crt"))
    );
    let named = environment.clone().with_variable("POD_NAMESPACE", "pod");
    assert_eq!(ConnectionOptions::default().load(&named).unwrap().namespace(), "pod");
    let file = home.file("config", simple("a"));
    let configured = environment.with_variable("KUBECONFIG", file.to_str().unwrap());
    assert_eq!(
        ConnectionOptions::default().load(&configured).unwrap().context(),
        Some("a")
    );
}

#[test]
fn nothing_configured_is_localhost_8080() {
    let connection = ConnectionOptions::default().load(&Environment::silent()).unwrap();
    assert_eq!(connection.server().as_str(), "http://localhost:8080/");
    assert!(connection.is_default);
}

#[test]
fn a_cluster_without_a_server_is_reported() {
    let home = Home::new();
    let file = home.file(
        "config",
        simple("a").replace("server:", "proxy-url: 'http://p', other:"),
    );
    let error = ConnectionOptions::default()
        .load(&home.environment(&[&file]))
        .unwrap_err();
    assert!(
        error.to_string().ends_with("no server found for cluster \"a\""),
        "{error}"
    );
}

#[test]
fn a_request_timeout_of_zero_is_none() {
    for (seconds, expected) in [(30, Some(30)), (0, None)] {
        let options = ConnectionOptions {
            request_timeout: Duration::from_secs(seconds),
            ..ConnectionOptions::default()
        };
        let connection = options.load(&Environment::silent()).unwrap();
        assert_eq!(
            connection.request_timeout,
            expected.map(Duration::from_secs),
            "{seconds}"
        );
    }
}

#[test]
fn impersonation_needs_a_user() {
    let home = Home::new();
    let file = home.file("config", simple("a"));
    let environment = home.environment(&[&file]);
    let connection = ConnectionOptions {
        impersonate: Some("bob".into()),
        impersonate_groups: vec!["a".into(), "b".into()],
        impersonate_extra: vec!["k=1".into(), "k=2".into()],
        ..ConnectionOptions::default()
    }
    .load(&environment)
    .unwrap();
    assert_eq!(connection.impersonate.groups, ["a", "b"]);
    assert_eq!(
        connection.impersonate.extra,
        [("k".to_owned(), vec!["1".to_owned(), "2".to_owned()])]
    );
    let without_user = ConnectionOptions {
        impersonate_groups: vec!["a".into()],
        ..ConnectionOptions::default()
    };
    assert!(without_user.load(&environment).is_err());
    assert_eq!(
        ConnectionOptions {
            impersonate: Some("bob".into()),
            impersonate_extra: vec!["k".into()],
            ..ConnectionOptions::default()
        }
        .load(&environment)
        .unwrap_err()
        .kind,
        Kind::Usage
    );
}

#[test]
fn debug_output_has_no_credentials() {
    let home = Home::new();
    let file = home.file("config", simple("a"));
    let options = ConnectionOptions {
        token: Some(Secret::new("hunter2hunter2")),
        ..ConnectionOptions::default()
    };
    let connection = options.load(&home.environment(&[&file])).unwrap();
    let shown = format!("{options:?} {connection:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("token-of-a"), "{shown}");
}

#[tokio::test]
async fn a_derived_connection_keeps_the_identity_and_an_anonymous_one_has_none() {
    let home = Home::new();
    let file = home.file("config", simple("a"));
    let environment = home.environment(&[&file]);
    let connection = ConnectionOptions {
        tls_server_name: Some("x".into()),
        impersonate: Some("bob".into()),
        ..ConnectionOptions::default()
    }
    .load(&environment)
    .unwrap();
    let proxied = connection.at("https://a.example:6443/k8s/clusters/c-1".parse().unwrap());
    assert_eq!(header(&proxied).await.as_deref(), Some("Bearer token-of-a"));
    assert_eq!(proxied.trust.server_name.as_deref(), Some("x"));
    let elsewhere = connection.at("https://b.example".parse().unwrap());
    assert_eq!(elsewhere.trust.server_name, None);
    let public = connection.anonymous_at("https://a.example/cacerts".parse().unwrap(), Authority::Pem("PEM"));
    assert_eq!(header(&public).await, None);
    assert_eq!(
        (public.impersonate.user, public.trust.authority.as_deref()),
        (None, Some("PEM"))
    );
    // A server behind a public certificate is not asked for one of the cluster's own authority.
    let mut private = connection.clone();
    private.trust.authority = Some("OF THE CLUSTER".into());
    let authority = |given| {
        let url = "https://a.example".parse().unwrap();
        private.anonymous_at(url, given).trust.authority
    };
    assert_eq!(authority(Authority::Same).as_deref(), Some("OF THE CLUSTER"));
    assert_eq!(authority(Authority::Public), None);
}

#[test]
fn kuberc_can_forbid_a_credential_plugin() {
    let home = Home::new();
    let user = "{exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: login-helper}}";
    let file = home.file("config", simple("a").replace("{token: token-of-a}", user));
    let allowed = home.file("bin/login-helper", "");
    home.file("other/login-helper", "");
    let load = |directory: &str| {
        let path = home.0.path().join(directory);
        ConnectionOptions::default().load(&home.environment(&[&file]).with_variable("PATH", path.to_str().unwrap()))
    };
    assert!(load("bin").is_ok());
    home.file(".kube/kuberc", "kind: Preference\ncredentialPluginPolicy: DenyAll\n");
    assert_eq!(
        load("bin").unwrap_err().to_string(),
        "Unable to connect to the server: getting credentials: plugin \"login-helper\" not allowed: policy set to \"DenyAll\""
    );
    let list = |entry: &str| {
        home.file(
            ".kube/kuberc",
            format!("credentialPluginPolicy: Allowlist\ncredentialPluginAllowlist: [{entry}]\n"),
        );
    };
    list("{name: another}");
    assert!(load("bin").is_err());
    list("{name: login-helper}");
    assert!(load("bin").is_ok());
    list(&format!("{{command: {}}}", allowed.display()));
    assert!(load("bin").is_ok());
    assert!(
        load("other").is_err(),
        "a program of the same name elsewhere is another program"
    );
}

#[test]
fn only_the_insecure_flag_overrides_the_kubeconfigs_ca() {
    let home = Home::new();
    home.file("ca.crt", "PEM");
    let file = home.file(
        "config",
        simple("a").replace("{server:", "{certificate-authority: ca.crt, server:"),
    );
    let connection = ConnectionOptions {
        insecure_skip_tls_verify: Some(true),
        ..ConnectionOptions::default()
    }
    .load(&home.environment(&[&file]))
    .unwrap();
    assert!(connection.trust.insecure && connection.trust.authority.is_none());
    let both = "{certificate-authority: ca.crt, insecure-skip-tls-verify: true, server:";
    let file = home.file("both", simple("a").replace("{server:", both));
    assert!(ConnectionOptions::default().load(&home.environment(&[&file])).is_err());
}
