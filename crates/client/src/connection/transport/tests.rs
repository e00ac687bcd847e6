use std::any::Any;
use std::path::{Path, PathBuf};

use http::Request;
use http_body_util::BodyExt as _;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use rstest::rstest;

use super::*;
use crate::connection::fake::{Fake, Reply, ok, status};
use crate::connection::{Authority, Environment};
use crate::console::Console;
use crate::error::{Doing as _, Kind};
use crate::secret::Secret;

async fn ask(server: &Server, method: &str, path: &str) -> Result<String, Error> {
    let request = Request::builder().method(method).uri(path).body(Vec::new()).unwrap();
    Ok(server.client.request_text(request).await?)
}

async fn get(server: &Server) -> Result<String, Error> {
    ask(server, "GET", "/api").await
}

/// Records the warnings and the log.
#[derive(Debug, Default)]
struct Recorder {
    verbosity: u8,
    interactive: bool,
    warnings: std::sync::Mutex<Vec<String>>,
    log: std::sync::Mutex<Vec<String>>,
}

impl Console for Recorder {
    fn warn(&self, text: &str) {
        self.warnings.lock().unwrap().push(text.to_owned());
    }

    fn verbosity(&self) -> u8 {
        self.verbosity
    }

    fn log(&self, line: &str) {
        self.log.lock().unwrap().push(line.to_owned());
    }

    fn is_interactive(&self) -> bool {
        self.interactive
    }

    fn lend_terminal(&self) -> Box<dyn Any + Send> {
        Box::new(())
    }
}

fn recorded(verbosity: u8) -> (Environment, Arc<Recorder>) {
    let recorder = Arc::new(Recorder {
        verbosity,
        ..Recorder::default()
    });
    (Environment::empty(Arc::clone(&recorder) as Arc<dyn Console>), recorder)
}

#[tokio::test]
async fn a_read_is_repeated_while_the_server_is_busy() {
    let fake = Fake::tls(|_, before| if before < 2 { status(503) } else { ok("{}") }).await;
    assert_eq!(get(&fake.simple().connect().unwrap()).await.unwrap(), "{}");
    assert_eq!(fake.received().len(), 3);
}

#[tokio::test]
async fn a_constant_503_is_reported_after_five_attempts() {
    let fake = Fake::tls(|_, _| status(503)).await;
    let error = get(&fake.simple().connect().unwrap()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert_eq!(
        error.to_string(),
        "Error from server (ServiceUnavailable): ServiceUnavailable"
    );
    assert_eq!(fake.received().len(), 5);
}

#[tokio::test]
async fn a_create_is_never_sent_twice() {
    for reply in [
        || status(503),
        || status(429),
        || status(401),
        || Reply::Close,
        || Reply::Cut,
    ] {
        let fake = Fake::tls(move |_, _| reply()).await;
        let plugin = Plugin::new();
        let connection = fake.connection(&plugin.user(""), &Environment::silent(), |_| {});
        assert!(ask(&connection.connect().unwrap(), "POST", "/api").await.is_err());
        assert_eq!(fake.methods(), ["POST"]);
    }
}

#[tokio::test]
async fn idempotent_writes_are_repeated_when_the_connection_breaks() {
    for method in ["PUT", "PATCH", "DELETE", "GET"] {
        for reply in [|| Reply::Close, || Reply::Cut, || status(504)] {
            let fake = Fake::tls(move |_, before| if before == 0 { reply() } else { ok("done") }).await;
            assert_eq!(
                ask(&fake.simple().connect().unwrap(), method, "/api").await.unwrap(),
                "done"
            );
            assert_eq!(fake.methods(), [method, method]);
        }
    }
}

#[rstest]
#[case::access("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")]
#[case::local_access("/apis/authorization.k8s.io/v1/namespaces/a/localsubjectaccessreviews")]
#[case::subject("/apis/authentication.k8s.io/v1/selfsubjectreviews?")]
#[tokio::test]
async fn a_review_is_repeated_and_is_no_write(#[case] path: &str) {
    let fake = Fake::tls(|_, before| match before {
        0 => status(503),
        1 => status(500),
        2 => Reply::Close,
        _ => ok("done"),
    })
    .await;
    let server = fake.simple().connect().unwrap();
    assert_eq!(ask(&server, "POST", path).await.unwrap(), "done");
    assert_eq!(fake.methods(), ["POST"; 4]);
    let request = |path: &str| Request::post(path).body(()).unwrap();
    assert!(is_read(&request(path)));
    for path in [
        "/api/v1/namespaces/a/reviews",
        "/apis/reviews.example/v1/reviews",
        "/apis/authorization.k8s.io.example/v1/selfsubjectaccessreviews",
        "/apis/authentication.k8s.io/v1/namespaces/a/serviceaccounts/b/token",
    ] {
        assert!(!is_read(&request(path)), "{path}");
    }
}

#[tokio::test]
async fn an_internal_error_is_repeated_for_a_read_only() {
    for (method, attempts) in [("GET", 2), ("PATCH", 1), ("DELETE", 1)] {
        let fake = Fake::tls(|_, before| if before == 0 { status(500) } else { ok("done") }).await;
        let answer = ask(&fake.simple().connect().unwrap(), method, "/api").await;
        assert_eq!(answer.is_ok(), attempts == 2, "{method}");
        assert_eq!(fake.received().len(), attempts, "{method}");
    }
}

#[tokio::test]
async fn other_errors_are_not_repeated() {
    for code in [400, 403, 404, 409, 422, 501] {
        let fake = Fake::tls(move |_, _| status(code)).await;
        assert!(get(&fake.simple().connect().unwrap()).await.is_err());
        assert_eq!(fake.received().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn retry_after_is_obeyed_within_the_budget() {
    let fake = Fake::tls(|_, before| match before {
        0 => Reply::Answer(429, &[("retry-after", "1")], String::new()),
        _ => ok("done"),
    })
    .await;
    let began = Instant::now();
    get(&fake.simple().connect().unwrap()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    let fake = Fake::tls(|_, _| Reply::Answer(429, &[("retry-after", "60")], String::new())).await;
    let error = get(&fake.simple().connect().unwrap()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Error from server: the server responded with 429 Too Many Requests"
    );
    assert_eq!(fake.received().len(), 1);
}

#[tokio::test]
async fn a_pause_beyond_all_times_is_not_waited_for() {
    let fake = Fake::tls(|_, _| Reply::Answer(503, &[("retry-after", "18446744073709551615")], String::new())).await;
    let connection = fake.connection("{token: t}", &Environment::silent(), |flags| {
        flags.request_timeout = Duration::MAX;
    });
    let error = get(&connection.connect().unwrap()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
}

const TOO_LONG: &str = "error: the response of the server is longer than 4 MiB";

#[tokio::test]
async fn a_body_is_limited_after_decompression() {
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &vec![b' '; 5 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 1 << 16);
    let fake = Fake::tls(move |_, _| Reply::Gzip(bomb.clone())).await;
    let server = fake.simple().connect().unwrap();
    assert_eq!(get(&server).await.unwrap_err().to_string(), TOO_LONG);
    // A page of a list may be longer.
    assert_eq!(ask(&server, "GET", "/api?limit=500").await.unwrap().len(), 5 << 20);
}

#[tokio::test]
async fn a_body_that_would_grow_when_it_is_parsed_is_refused() {
    let maps = format!(r#"{{"items":[{}0]}}"#, r#"{"":0},"#.repeat(100_000));
    let text = format!(r#"{{"data":"{}"}}"#, "{},".repeat(100_000));
    let fake = Fake::tls(move |_, before| ok(if before == 0 { &maps } else { &text })).await;
    let server = fake.simple().connect().unwrap();
    assert_eq!(
        get(&server).await.unwrap_err().to_string(),
        "error: the response of the server has more than 100000 JSON tokens"
    );
    get(&server).await.unwrap();
}

#[tokio::test]
async fn a_body_without_end_is_refused() {
    let fake = Fake::tls(|_, _| Reply::Endless(200)).await;
    let server = fake.simple().connect().unwrap();
    assert_eq!(get(&server).await.unwrap_err().to_string(), TOO_LONG);
    let error = ask(&server, "GET", "/api?watch=true").await.unwrap_err();
    assert_eq!(error.to_string(), TOO_LONG, "an event without end");
    assert_eq!(fake.received().len(), 2, "neither is repeated");
}

#[tokio::test]
async fn an_error_with_a_body_without_end_keeps_its_status() {
    let fake = Fake::tls(|_, _| Reply::Endless(403)).await;
    let error = get(&fake.simple().connect().unwrap()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Forbidden);
}

#[tokio::test]
async fn a_credential_that_a_server_repeats_is_not_shown() {
    let body =
        r#"{"kind":"Status","status":"Failure","code":403,"reason":"Forbidden","message":"no: Bearer short-word"}"#;
    let headers: &[(&str, &str)] = &[("warning", "299 - \"short-word\""), ("x-echo", "short-word")];
    let fake = Fake::tls(move |_, _| Reply::Answer(403, headers, body.into())).await;
    let (environment, recorder) = recorded(9);
    let connection = fake.connection("{token: short-word}", &environment, |_| {});
    let error = get(&connection.connect().unwrap()).await.unwrap_err();
    assert_eq!(error.message, "no: Bearer <hidden>");
    let shown = [
        recorder.log.lock().unwrap().join("\n"),
        recorder.warnings.lock().unwrap().join("\n"),
    ];
    assert!(
        shown[0].contains("x-echo: <hidden>") && !shown.concat().contains("short-word"),
        "{shown:?}"
    );
}

#[tokio::test]
async fn a_watch_is_handed_on_as_it_arrives() {
    let fake = Fake::tls(|_, _| Reply::Stall).await;
    let server = fake.simple().connect().unwrap();
    let request = Request::get("/api/v1/pods?watch=true").body(Body::empty()).unwrap();
    let mut response = server.client.send(request).await.unwrap();
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "{\"half\":");
}

#[tokio::test]
async fn the_request_timeout_covers_headers_and_body() {
    for reply in [|| Reply::Hang, || Reply::Stall] {
        let fake = Fake::tls(move |_, _| reply()).await;
        for path in ["/api", "/api?watch=true"] {
            let connection = fake.connection("{token: t}", &Environment::silent(), |flags| {
                flags.request_timeout = Duration::from_millis(200);
            });
            let error = ask(&connection.connect().unwrap(), "GET", path).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "Unable to connect to the server: no response within 200ms (--request-timeout)"
            );
        }
    }
}

#[rstest]
#[case::before_the_response(|| Reply::Hang)]
#[case::in_the_body(|| Reply::Stall)]
#[tokio::test]
async fn a_connection_that_has_gone_silent_is_given_up(#[case] silent: fn() -> Reply) {
    let fake = Fake::tls(move |_, before| if before == 0 { ok("{}") } else { silent() }).await;
    let server = fake.simple().connect().unwrap();
    get(&server).await.unwrap();
    // From here on time jumps to the next deadline whenever everything waits.
    tokio::time::pause();
    let error = get(&server).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Unable to connect to the server: no complete response from the server within 1m30s"
    );
}

#[tokio::test]
async fn a_path_of_the_address_stands_before_every_request() {
    let fake = Fake::tls(|_, _| ok("{}")).await;
    let connection = fake.simple().at(fake.url.join("/k8s/clusters/c-1/").unwrap());
    get(&connection.connect().unwrap()).await.unwrap();
    assert_eq!(fake.received()[0].path, "/k8s/clusters/c-1/api");
}

#[tokio::test]
async fn requests_say_who_sends_them() {
    let fake = Fake::tls(|_, _| ok("{}")).await;
    let connection = fake.connection("{token: plain}", &Environment::silent(), |flags| {
        flags.impersonate = Some("bob".into());
        flags.impersonate_groups = vec!["g1".into(), "g2".into()];
    });
    get(&connection.connect().unwrap()).await.unwrap();
    let received = &fake.received()[0];
    assert_eq!(received.header("authorization"), "Bearer plain");
    assert!(
        received.header("user-agent").starts_with("kubectl-test/v0.0.0 ("),
        "{received:?}"
    );
    assert_eq!(received.header("impersonate-user"), "bob");
    assert_eq!(received.headers.get_all("impersonate-group").iter().count(), 2);
}

#[tokio::test]
async fn an_anonymous_request_has_no_credentials() {
    let fake = Fake::tls(|_, _| ok("{}")).await;
    let (certificate, key) = fake.client_certificate();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let user = format!(
        "{{client-certificate-data: {}, client-key-data: {}}}",
        encode(&certificate),
        encode(&key)
    );
    let connection = fake.connection(&user, &Environment::silent(), |flags| {
        flags.impersonate = Some("bob".into());
    });
    get(&connection.connect().unwrap()).await.unwrap();
    let public = connection.anonymous_at(fake.url.clone(), Authority::Pem(&fake.ca));
    get(&public.connect().unwrap()).await.unwrap();
    let received = fake.received();
    assert!(received[0].certified && received[0].headers.contains_key("impersonate-user"));
    assert!(!received[1].certified && !received[1].headers.contains_key("authorization"));
    assert!(!received[1].headers.contains_key("impersonate-user"));
}

#[tokio::test]
async fn a_connection_with_a_token_sends_only_the_token() {
    let fake = Fake::tls(|_, _| ok("{}")).await;
    let (certificate, key) = fake.client_certificate();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let (certificate, key) = (encode(&certificate), encode(&key));
    let user = format!("{{client-certificate-data: {certificate}, client-key-data: {key}}}");
    let connection = fake.connection(&user, &Environment::silent(), |flags| {
        flags.impersonate = Some("bob".into());
    });
    let with_token = connection.with_token(&Secret::new("abcdef.0123456789abcdef")).unwrap();
    get(&with_token.connect().unwrap()).await.unwrap();
    let received = &fake.received()[0];
    assert_eq!(received.headers["authorization"], "Bearer abcdef.0123456789abcdef");
    assert!(!received.certified && !received.headers.contains_key("impersonate-user"));
    let plain = Fake::plain(|_, _| ok("{}")).await;
    let token = Secret::new("abcdef.0123456789abcdef");
    let refusing = plain.connection("{}", &Environment::silent(), |_| {});
    assert!(refusing.require_tls().is_err() && refusing.with_token(&token).is_err());
    let allowing = plain.connection("{}", &Environment::silent(), |flags| flags.allow_plain_http = true);
    get(&allowing.with_token(&token).unwrap().connect().unwrap())
        .await
        .unwrap();
    get(&with_token.at(plain.url.clone()).connect().unwrap()).await.unwrap();
    let received = plain.received();
    assert_eq!(received.len(), 2, "what was refused is not sent");
    assert_eq!(received[0].headers["authorization"], "Bearer abcdef.0123456789abcdef");
    assert!(!received[1].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_plain_server_gets_no_credentials() {
    let fake = Fake::plain(|_, _| ok("{}")).await;
    let connection = fake.connection("{token: plain, as: bob}", &Environment::silent(), |_| {});
    get(&connection.connect().unwrap()).await.unwrap();
    let received = &fake.received()[0];
    assert!(!received.headers.contains_key("authorization") && !received.headers.contains_key("impersonate-user"));
}

#[tokio::test]
async fn warnings_of_the_server_are_shown() {
    let warning: &[(&str, &str)] = &[
        ("warning", "299 - \"v1 X is \\\"old\\\"\", 299 - \"second\""),
        ("warning", "199 - \"no\""),
    ];
    let fake = Fake::tls(move |_, _| Reply::Answer(200, warning, "{}".into())).await;
    let (environment, recorder) = recorded(0);
    let server = fake.connection("{token: t}", &environment, |_| {}).connect().unwrap();
    get(&server).await.unwrap();
    let shown = recorder.warnings.lock().unwrap();
    assert_eq!(*shown, ["v1 X is \"old\"", "second"]);
}

#[tokio::test]
async fn the_servers_clock_is_read_from_its_responses() {
    let fake = Fake::tls(|_, _| Reply::Answer(200, &[("date", "Fri, 01 Jan 2100 00:00:00 GMT")], "{}".into())).await;
    let server = fake.simple().connect().unwrap();
    get(&server).await.unwrap();
    let expected: Timestamp = "2100-01-01T00:00:00Z".parse().unwrap();
    assert!(server.clock.now().duration_since(expected).abs() < SignedDuration::from_secs(60));
}

#[tokio::test]
async fn the_request_log_shows_no_credential_at_any_level() {
    const TOKEN: &str = "dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87";
    let body = format!("{{\"token\":\"{TOKEN}\"}}");
    let fake = Fake::tls(move |_, _| Reply::Answer(200, &[("set-cookie", "session=hunter2")], body.clone())).await;
    let (environment, recorder) = recorded(9);
    let connection = fake.connection(&format!("{{token: {TOKEN}}}"), &environment, |_| {});
    ask(
        &connection.connect().unwrap(),
        "GET",
        &format!("/v3/import/{TOKEN}_c-1.yaml?token={TOKEN}"),
    )
    .await
    .unwrap();
    let log = recorder.log.lock().unwrap().join("\n");
    assert!(log.contains("/v3/import/<hidden>?token=<hidden> 200 OK in "), "{log}");
    assert!(
        log.contains("authorization: <masked>") && log.contains("set-cookie: <masked>"),
        "{log}"
    );
    assert!(!log.contains(TOKEN) && !log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn a_response_body_is_never_a_message() {
    let fake = Fake::tls(|_, before| match before {
        0 => Reply::Answer(400, &[], "<html>hunter2</html>".into()),
        1 => Reply::Answer(401, &[], "{\"type\":\"error\",\"message\":\"hunter2\"}".into()),
        _ => ok("{\"kind\":\"hunter2\",\"metadata\":\"hunter2\"}"),
    })
    .await;
    let server = fake.simple().connect().unwrap();
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::default_namespaced(server.client);
    let mut shown = Vec::new();
    for _ in 0..3 {
        let error = pods
            .get("x")
            .await
            .doing("read Pod x on the downstream cluster")
            .unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        shown.push(error.to_string());
    }
    assert_eq!(
        shown[0],
        "Error from server: cannot read Pod x on the downstream cluster: the server responded with 400 Bad Request"
    );
    assert_eq!(
        shown[1],
        "error: cannot read Pod x on the downstream cluster: You must be logged in to the server (Unauthorized)"
    );
    assert!(
        shown[2].ends_with("the response of the server does not have the expected fields (line 1, column 17)"),
        "{}",
        shown[2]
    );
}

#[tokio::test]
async fn a_refused_connection_is_reported_like_kubectl() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let fake = Fake::tls(|_, _| ok("{}")).await;
    let connection = fake.simple().at(format!("https://127.0.0.1:{port}").parse().unwrap());
    let error = get(&connection.connect().unwrap()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("The connection to the server 127.0.0.1:{port} was refused - did you specify the right host or port?")
    );
    assert!(error.kind.is_transient());
}

#[tokio::test]
async fn an_untrusted_certificate_is_reported_without_retries() {
    let fake = Fake::tls(|_, _| ok("{}")).await;
    let other = Fake::tls(|_, _| ok("{}")).await;
    let connection = fake.simple().anonymous_at(fake.url.clone(), Authority::Pem(&other.ca));
    let began = Instant::now();
    let error = get(&connection.connect().unwrap()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Unable to connect to the server: tls: the server's certificate is signed by an unknown authority"
    );
    assert!(began.elapsed() < Duration::from_millis(500));
    let insecure = fake.connection("{}", &Environment::silent(), |flags| {
        flags.insecure_skip_tls_verify = Some(true);
    });
    get(&insecure.connect().unwrap()).await.unwrap();
}

#[tokio::test]
async fn the_kubeconfigs_proxy_is_used_for_a_loopback_server_too() {
    let proxy = Fake::plain(|_, _| status(502)).await;
    let fake = Fake::tls(|_, _| ok("{}")).await;
    let environment = Environment::silent().with_variable("NO_PROXY", "*");
    let mut connection = fake.connection("{token: t}", &environment, |_| {});
    connection.proxy_url = Some(proxy.url.to_string());
    assert!(get(&connection.connect().unwrap()).await.is_err());
    assert_eq!(proxy.methods()[0], "CONNECT");
    assert!(!proxy.received()[0].headers.contains_key("authorization"));
    let environment = Environment::silent().with_variable("HTTPS_PROXY", proxy.url.as_str());
    get(&fake.connection("{token: t}", &environment, |_| {}).connect().unwrap())
        .await
        .unwrap();
}

/// A credential plugin: a shell script that records the input of each run.
struct Plugin {
    directory: tempfile::TempDir,
    script: PathBuf,
}

impl Plugin {
    /// Gives `token-1`, `token-2`, …
    fn new() -> Self {
        Self::printing("{\"token\":\"token-$n\"}")
    }

    /// Prints this status; `$n` is the number of the run.
    fn printing(status: &str) -> Self {
        let status = status.replace('"', "\\\"");
        Self::running(&format!(
            "echo \"{{\\\"apiVersion\\\":\\\"client.authentication.k8s.io/v1beta1\\\",\\\"kind\\\":\\\"ExecCredential\\\",\\\"status\\\":{status}}}\""
        ))
    }

    fn running(commands: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("plugin.sh");
        let runs = directory.path().join("runs");
        let runs = runs.display();
        let text = format!(
            "echo \"$KUBERNETES_EXEC_INFO\" >>'{runs}'\nn=0\nwhile read -r line; do n=$((n+1)); done <'{runs}'\n{commands}\n"
        );
        std::fs::write(&script, text).unwrap();
        Self { directory, script }
    }

    /// The kubeconfig's user, with more fields of `exec`.
    fn user(&self, more: &str) -> String {
        let script = self.script.display();
        format!(
            "{{exec: {{apiVersion: client.authentication.k8s.io/v1beta1, command: /bin/sh, args: ['{script}'], {more}}}}}"
        )
    }

    fn runs(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.directory.path().join("runs")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn a_credential_plugin_runs_once_and_only_when_it_is_needed() {
    let plugin = Plugin::new();
    let fake = Fake::tls(|_, _| ok("{}")).await;
    let connection = fake.connection(&plugin.user(""), &Environment::silent(), |_| {});
    let one = connection.connect().unwrap();
    let other = connection
        .at(fake.url.join("/k8s/clusters/c-1").unwrap())
        .connect()
        .unwrap();
    assert_eq!(plugin.runs().len(), 0);
    let (a, b, c) = tokio::join!(get(&one), get(&other), get(&one));
    a.and(b).and(c).unwrap();
    assert_eq!(plugin.runs().len(), 1);
    assert!(
        fake.received()
            .iter()
            .all(|received| received.header("authorization") == "Bearer token-1")
    );
}

#[tokio::test]
async fn a_rejected_credential_is_renewed_once() {
    let plugin = Plugin::new();
    let fake = Fake::tls(|received, _| {
        if received.header("authorization") == "Bearer token-1" {
            status(401)
        } else {
            ok("{}")
        }
    })
    .await;
    let server = fake
        .connection(&plugin.user(""), &Environment::silent(), |_| {})
        .connect()
        .unwrap();
    let (a, b) = tokio::join!(get(&server), get(&server));
    a.and(b).unwrap();
    assert_eq!(plugin.runs().len(), 2);
    let refusing = Fake::tls(|_, _| status(401)).await;
    let plugin = Plugin::new();
    let server = refusing
        .connection(&plugin.user(""), &Environment::silent(), |_| {})
        .connect()
        .unwrap();
    let error = get(&server).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: You must be logged in to the server (Unauthorized)"
    );
    assert_eq!((plugin.runs().len(), refusing.received().len()), (2, 2));
}

#[tokio::test]
async fn a_token_of_the_kubeconfig_is_not_tried_twice() {
    let fake = Fake::tls(|_, _| status(401)).await;
    assert_eq!(
        get(&fake.simple().connect().unwrap()).await.unwrap_err().kind,
        Kind::Unauthorized
    );
    assert_eq!(fake.received().len(), 1);
}

#[tokio::test]
async fn an_expired_credential_is_renewed_before_it_is_rejected() {
    for (expires, runs) in [("2020-01-01T00:00:00Z", 2), ("2999-01-01T00:00:00Z", 1)] {
        let plugin = Plugin::printing(&format!(
            "{{\"token\":\"token-$n\",\"expirationTimestamp\":\"{expires}\"}}"
        ));
        let fake = Fake::tls(|_, _| ok("{}")).await;
        let server = fake
            .connection(&plugin.user(""), &Environment::silent(), |_| {})
            .connect()
            .unwrap();
        get(&server).await.unwrap();
        get(&server).await.unwrap();
        assert_eq!(plugin.runs().len(), runs, "{expires}");
    }
}

#[tokio::test]
async fn a_plugin_may_give_a_client_certificate() {
    let fake = Fake::tls(|_, _| ok("{}")).await;
    let (certificate, key) = fake.client_certificate();
    let escape = |pem: &str| pem.replace('\n', "\\\\n");
    let status = format!(
        "{{\"clientCertificateData\":\"{}\",\"clientKeyData\":\"{}\"}}",
        escape(&certificate),
        escape(&key)
    );
    let plugin = Plugin::printing(&status.replace("\\\\n", "\\\\\\\\n"));
    let server = fake
        .connection(&plugin.user(""), &Environment::silent(), |_| {})
        .connect()
        .unwrap();
    get(&server).await.unwrap();
    assert!(fake.received()[0].certified);
}

#[tokio::test]
async fn a_plugin_learns_whether_it_may_prompt_the_user() {
    let terminal = |interactive| {
        Arc::new(Recorder {
            interactive,
            ..Recorder::default()
        })
    };
    for (mode, stdin, interactive) in [
        ("", false, Some(false)),
        ("interactiveMode: IfAvailable", false, Some(false)),
        ("interactiveMode: Never", true, Some(false)),
        ("interactiveMode: Always", false, None),
        ("", true, Some(true)),
        ("interactiveMode: Always", true, Some(true)),
    ] {
        let plugin = Plugin::new();
        let fake = Fake::tls(|_, _| ok("{}")).await;
        let connection = fake.connection(&plugin.user(mode), &Environment::empty(terminal(stdin)), |_| {});
        let outcome = get(&connection.connect().unwrap()).await;
        if let Some(interactive) = interactive {
            assert_eq!(plugin.runs()[0]["spec"]["interactive"], interactive, "{mode} {stdin}");
        } else {
            let error = outcome.unwrap_err().to_string();
            assert!(
                error.ends_with("cannot support interactive mode: standard input is not a terminal"),
                "{error}"
            );
            assert_eq!(plugin.runs().len(), 0);
        }
    }
}

#[tokio::test]
async fn a_plugin_with_provide_cluster_info_receives_the_cluster() {
    let plugin = Plugin::new();
    let fake = Fake::tls(|_, _| ok("{}")).await;
    let connection = fake.connection(&plugin.user("provideClusterInfo: true"), &Environment::silent(), |_| {});
    get(&connection.connect().unwrap()).await.unwrap();
    let cluster = &plugin.runs()[0]["spec"]["cluster"];
    assert_eq!(cluster["server"], fake.url.as_str().trim_end_matches('/'));
    assert!(cluster["certificate-authority-data"].is_string());
}

#[tokio::test]
async fn a_missing_plugin_is_reported_with_the_install_hint() {
    let user = "{exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: no-such-login, installHint: 'brew install no-such-login'}}";
    let fake = Fake::tls(|_, _| ok("{}")).await;
    let error = get(&fake.connection(user, &Environment::silent(), |_| {}).connect().unwrap())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Unable to connect to the server: getting credentials: exec: executable no-such-login not found"
    );
    assert_eq!(error.hints[1], "brew install no-such-login");
    assert_eq!(fake.received().len(), 0);
}

#[tokio::test]
async fn errors_do_not_contain_the_output_of_a_plugin() {
    let secret = "hunter2hunter2";
    for (commands, words) in [
        (format!("echo {secret}; exit 3"), "failed with exit code 3"),
        (format!("echo '{{token: {secret}'"), "did not print an ExecCredential"),
        (
            format!("echo 'apiVersion: other/v1\nkind: ExecCredential\nstatus: {{token: {secret}}}'"),
            "did not return an ExecCredential of",
        ),
    ] {
        let plugin = Plugin::running(&commands);
        let fake = Fake::tls(|_, _| ok("{}")).await;
        let user = plugin.user(&format!("env: [{{name: PASSWORD, value: {secret}}}]"));
        let error = get(&fake
            .connection(&user, &Environment::silent(), |_| {})
            .connect()
            .unwrap())
        .await
        .unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
    for status in ["{}", "{\"clientCertificateData\":\"x\"}", "null"] {
        let plugin = Plugin::printing(status);
        let fake = Fake::tls(|_, _| ok("{}")).await;
        let server = fake
            .connection(&plugin.user(""), &Environment::silent(), |_| {})
            .connect()
            .unwrap();
        assert_eq!(get(&server).await.unwrap_err().kind, Kind::Unauthorized, "{status}");
    }
}

#[test]
fn an_invalid_plugin_configuration_is_rejected_before_it_runs() {
    for (user, words) in [
        (
            "{exec: {apiVersion: client.authentication.k8s.io/v1, command: x}}",
            "interactiveMode must be specified",
        ),
        (
            "{exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: x}}",
            "invalid apiVersion",
        ),
        (
            "{exec: {apiVersion: client.authentication.k8s.io/v1beta1}}",
            "command must be specified",
        ),
        (
            "{auth-provider: {name: gcp}}",
            "no Auth Provider found for name \"gcp\"",
        ),
        ("{client-certificate-data: '!'}", "not base64-encoded PEM"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        let text = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'https://x'}}}}]\nusers: [{{name: u, user: {user}}}]\n"
        );
        std::fs::write(&file, text).unwrap();
        let options = crate::connection::ConnectionOptions {
            kubeconfig: Some(file),
            ..Default::default()
        };
        let error = options.load(&Environment::silent()).unwrap_err().to_string();
        assert!(error.contains(words), "{user}: {error}");
    }
    assert!(!Path::new("/nonexistent").exists());
}

#[test]
fn warning_headers_are_parsed() {
    assert_eq!(warnings("299 - \"a\""), ["a"]);
    assert_eq!(
        warnings("299 agent \"a, \\\"b\\\"\", 299 - \"c\" \"Sun, 01 Jan\""),
        ["a, \"b\"", "c"]
    );
    assert_eq!(warnings("110 - \"stale\""), Vec::<String>::new());
    assert_eq!(warnings("299 - \"open"), ["open"]);
    assert_eq!(warnings("nonsense"), Vec::<String>::new());
}
