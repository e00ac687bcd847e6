//! A running fake cluster, and the steps that the tests share.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http_body_util::BodyExt as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const OLD: &str = "old-0123456789abcdef";
pub(crate) const NEW: &str = "new-0123456789abcdef";
pub(crate) const OTHER: &str = "other-0123456789abcdef";
pub(crate) const TRAP: &str = "newer than datastore and could cause a cluster outage";
pub(crate) const STALE: &str = "failed to reconcile with local datastore: bootstrap data already found and encrypted with \
                                different token";
pub(crate) const SAVE: &str =
    "failed to save bootstrap data: bootstrap data already found and encrypted with different token";

pub(crate) struct Cluster {
    dir: TempDir,
    child: Child,
    control: kube::Client,
    prefix: String,
    port: u16,
}

/// Three servers that have no configured token.
pub(crate) fn unpinned() -> Value {
    servers("nowhere", 3)
}

/// Three servers with the token in `config.yaml`.
pub(crate) fn pinned() -> Value {
    servers("config", 3)
}

pub(crate) fn servers(pin: &str, count: usize) -> Value {
    let server = |n: usize| json!({"name": format!("s{n}"), "pin": pin});
    json!({"token": OLD, "servers": (1..=count).map(server).collect::<Vec<_>>()})
}

impl Cluster {
    /// Starts it. A restart takes 0.1 s unless the configuration says something else.
    pub(crate) async fn start(mut config: Value) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let second = 1 + std::process::id() % 250;
        let prefix = format!("127.{second}.{}", NEXT.fetch_add(1, Ordering::Relaxed));
        if config["timing"].is_null() {
            config["timing"] = json!({"scale": 1.0 / 80.0});
        }
        for (n, server) in config["servers"].as_array_mut().unwrap().iter_mut().enumerate() {
            server["address"] = json!(format!("{prefix}.{}", n + 1));
        }
        let dir = tempfile::Builder::new().prefix("fake-supervisor-").tempdir().unwrap();
        std::fs::write(dir.path().join("cluster.json"), config.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_fake-supervisor"))
            .args(["manage", "--dir"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).map(|_| line)
        });
        let line = line.await.unwrap().unwrap();
        let Ok(Value::Object(ready)) = serde_json::from_str(&line) else {
            drop(child.stdin.take());
            panic!("the cluster did not start: {:?}", child.wait())
        };
        let mut plain = kube::Config::new(ready["url"].as_str().unwrap().parse().unwrap());
        plain.default_retry = false;
        Self {
            dir,
            child,
            control: kube::Client::try_from(plain).unwrap(),
            prefix,
            port: if config["distribution"] == "rke2" { 9345 } else { 6443 },
        }
    }

    pub(crate) fn ca_pem(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("ca.pem")).unwrap()
    }

    /// The address of `s1`, `s2`, …
    pub(crate) fn address(&self, server: &str) -> String {
        format!("{}.{}", self.prefix, &server[1..])
    }

    /// A file below `server/` of a K3s node.
    pub(crate) fn file(&self, server: &str, name: &str) -> PathBuf {
        self.root(server).join("var/lib/rancher/k3s/server").join(name)
    }

    pub(crate) fn root(&self, server: &str) -> PathBuf {
        self.dir.path().join("nodes").join(server)
    }

    /// The whole log of a server.
    pub(crate) fn log(&self, server: &str) -> String {
        std::fs::read_to_string(self.root(server).join("log/k3s.log")).unwrap()
    }

    /// Sends a request to a server, on a connection of its own. An error is a broken connection.
    pub(crate) async fn send(
        &self,
        server: &str,
        method: Method,
        path: &str,
        login: Option<(&str, &str)>,
        body: &str,
    ) -> Result<Response, String> {
        let mut config = kube::Config::new(
            format!("https://{}:{}", self.address(server), self.port)
                .parse()
                .unwrap(),
        );
        let roots = CertificateDer::pem_slice_iter(self.ca_pem().as_bytes())
            .map(|c| c.unwrap().to_vec())
            .collect();
        config.root_cert = Some(roots);
        config.default_retry = false;
        let client = kube::Client::try_from(config).unwrap();
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("user-agent", "mozilla");
        if let Some((user, password)) = login {
            let basic = STANDARD.encode(format!("{user}:{password}"));
            request = request.header("authorization", format!("Basic {basic}"));
        }
        let request = request
            .body(kube::client::Body::from(body.as_bytes().to_vec()))
            .unwrap();
        let response = client.send(request).await.map_err(|error| error.to_string())?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok(Response {
            status,
            headers,
            body: String::from_utf8(body.to_bytes().to_vec()).unwrap(),
        })
    }

    /// The status of a GET; 0 if there is no answer.
    pub(crate) async fn get(&self, server: &str, path: &str, login: Option<(&str, &str)>) -> u16 {
        let response = self.send(server, Method::GET, path, login, "").await;
        response.map_or(0, |response| response.status)
    }

    /// The probe of a server token: 405 accepted, 401 rejected.
    pub(crate) async fn probe(&self, server: &str, password: &str) -> u16 {
        self.get(server, "/v1-k3s/token", Some(("server", password))).await
    }

    /// The status of a PUT of a new token; 0 if there is no answer.
    pub(crate) async fn put(&self, server: &str, password: &str, new: &str) -> u16 {
        let body = json!({"newToken": new}).to_string();
        let response = self
            .send(server, Method::PUT, "/v1-k3s/token", Some(("server", password)), &body)
            .await;
        response.map_or(0, |response| response.status)
    }

    /// The same PUT on all three servers, which all must succeed.
    pub(crate) async fn round(&self, password: &str, new: &str) {
        for server in ["s1", "s2", "s3"] {
            assert_eq!(
                self.put(server, password, new).await,
                200,
                "{server}: {}",
                self.log(server)
            );
        }
    }

    pub(crate) async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let body = if method == Method::GET {
            String::new()
        } else {
            body.to_string()
        };
        let request = http::Request::builder().method(method).uri(path);
        let request = request.body(kube::client::Body::from(body.into_bytes())).unwrap();
        let response = self.control.send(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.control(Method::POST, path, body).await
    }

    pub(crate) async fn state(&self) -> Value {
        self.control(Method::GET, "/state", Value::Null).await
    }

    /// Stops and starts a server. Returns whether it became ready.
    pub(crate) async fn restart(&self, server: &str) -> bool {
        self.stop(server).await;
        self.run(server).await
    }

    pub(crate) async fn run(&self, server: &str) -> bool {
        self.post(&format!("/nodes/{server}/start"), json!({})).await["ready"] == true
    }

    pub(crate) async fn stop(&self, server: &str) {
        self.post(&format!("/nodes/{server}/stop"), json!({})).await;
    }

    /// A start that must fail with this line. The unit is stopped, so that it does not restart.
    pub(crate) async fn fails(&self, server: &str, line: &str) {
        self.stop(server).await;
        let before = self.log(server).len();
        assert!(!self.run(server).await, "{server} started: {}", self.log(server));
        self.stop(server).await;
        let log = &self.log(server)[before..];
        assert!(log.contains(line), "{server}: no {line:?} in {log}");
    }

    /// A restart that must succeed.
    pub(crate) async fn starts(&self, server: &str) {
        assert!(
            self.restart(server).await,
            "{server} did not start: {}",
            self.log(server)
        );
    }

    pub(crate) async fn pin(&self, server: &str, pin: &str, token: Option<&str>) {
        self.post(&format!("/nodes/{server}/pin"), json!({"pin": pin, "token": token}))
            .await;
    }

    pub(crate) async fn faults(&self, server: &str, faults: Value) {
        self.post(&format!("/nodes/{server}/faults"), faults).await;
    }

    /// Everything so far becomes a minute older.
    pub(crate) async fn a_minute_passes(&self) {
        self.post("/age", json!({"seconds": 60})).await;
    }

    /// A PUT that kills the server at this moment. The server does not come back by itself.
    pub(crate) async fn put_and_kill(&self, server: &str, step: &str) -> u16 {
        self.faults(server, json!({"kill": step, "staysDown": true})).await;
        let status = self.put(server, OLD, NEW).await;
        self.until(|state| state["servers"][server]["unit"]["active"] == "failed")
            .await;
        self.faults(server, json!({"staysDown": false})).await;
        self.a_minute_passes().await;
        status
    }

    /// Waits for a condition of the state.
    pub(crate) async fn until(&self, condition: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..600 {
            let state = self.state().await;
            if condition(&state) {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not within 12 s: {}", self.state().await)
    }

    /// Writes the password part of `server/token`, as an operator does on a server that does not start.
    pub(crate) fn write_token(&self, server: &str, password: &str) {
        std::fs::write(
            self.file(server, "token"),
            format!("K10{}::server:{password}\n", "0".repeat(64)),
        )
        .unwrap();
    }

    /// Runs a script on a node, and returns its exit code and standard output.
    pub(crate) async fn exec(&self, server: &str, script: &str) -> (i32, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fake-supervisor"));
        child.arg("node-exec").arg("--dir").arg(self.dir.path());
        child.args([format!("root@{}", self.address(server)).as_str(), "--", "sh", "-s"]);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // A command that cannot start reads nothing.
        let _ = child.stdin.take().unwrap().write_all(script.as_bytes());
        let output = tokio::task::spawn_blocking(move || child.wait_with_output());
        let output = output.await.unwrap().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It and its servers end when this is closed.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        // The servers end a moment later, and may still write.
        while self.dir.path().exists() && std::fs::remove_dir_all(self.dir.path()).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// An answer of a server.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

/// The fingerprint in the state: 12 digits of the SHA-256.
pub(crate) fn fingerprint(text: &str) -> String {
    sha256(text.as_bytes())[..12].to_owned()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap());
    sha2::Sha256::digest(bytes).iter().flat_map(digits).collect()
}
