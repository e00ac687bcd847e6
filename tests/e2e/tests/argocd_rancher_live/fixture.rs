//! A cluster in the fake Rancher, the real Argo CD, and changes of its token by hand.

use anyhow::{Context as _, Result};
use e2e::{Invocation, RancherFixture, Shell, until};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use test_cluster::{Application, ArgoCd, Call, Connection, Content, TestEnvironment, TokenStorage, User};

pub(crate) struct Fixture {
    pub(crate) base: RancherFixture,
    pub(crate) argo: &'static ArgoCd,
    pub(crate) secrets: Api<Secret>,
}

/// A Rancher API token.
pub(crate) struct Token {
    pub(crate) name: String,
    /// The whole bearer value.
    pub(crate) value: String,
}

/// An Application of Argo CD.
pub(crate) struct Deployed {
    pub(crate) application: String,
    /// The namespace in the cluster that it deploys to.
    pub(crate) namespace: String,
}

impl Fixture {
    pub(crate) async fn begin(name: &str) -> Result<Self> {
        let argo = async { TestEnvironment::shared().await?.argocd().await };
        let (base, argo) = tokio::try_join!(RancherFixture::begin(TokenStorage::Secret, name), argo)?;
        let client = base.management.client().await?;
        Ok(Self {
            secrets: Api::namespaced(client, argo.namespace()),
            base,
            argo,
        })
    }

    /// The same, after `add` of the cluster.
    pub(crate) async fn added(name: &str) -> Result<Self> {
        let fixture = Self::begin(name).await?;
        fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
        Ok(fixture)
    }

    /// The cluster's id.
    pub(crate) fn id(&self) -> &str {
        &self.base.cluster.id
    }

    /// The cluster's URL in the cluster Secret.
    pub(crate) fn server(&self) -> String {
        format!("{}/k8s/clusters/{}", self.base.rancher.url(), self.id())
    }

    /// `kubectl-argocd_rancher ARGS`, with the contexts of Argo CD and of Rancher.
    pub(crate) fn run(&self, args: &[&str]) -> Invocation {
        self.run_at(&self.base.shell, args)
    }

    /// The same in another shell.
    pub(crate) fn run_at(&self, shell: &Shell, args: &[&str]) -> Invocation {
        let argo = ["--context", "management", "--namespace", self.argo.namespace()];
        let rancher = ["--rancher-context", "rancher"];
        shell.argocd_rancher(args.iter().chain(&argo).chain(&rancher))
    }

    /// The Secret of the cluster.
    pub(crate) async fn secret(&self) -> Result<Secret> {
        secret_of(&self.secrets, &self.server()).await
    }

    /// The token that Argo CD has for the cluster now.
    pub(crate) async fn token_in_place(&self) -> Result<Token> {
        let config: Value = serde_json::from_str(&text(&self.secret().await?, "config")?)?;
        Token::of(&config["bearerToken"])
    }

    /// Issues a token for the cluster.
    pub(crate) async fn issue(&self) -> Result<Token> {
        let asked = json!({"type": "token", "clusterId": self.id(), "ttl": 3_600_000});
        let request = http::Request::post("/v3/tokens").body(serde_json::to_vec(&asked)?)?;
        let admin = self.base.rancher.client("", Some(&User::admin()))?;
        let minted: Value = admin.request(request).await?;
        Token::of(&minted["token"])
    }

    /// Revokes a token.
    pub(crate) async fn revoke(&self, token: &Token) -> Result<()> {
        let request = http::Request::delete(format!("/v3/tokens/{}", token.name)).body(Vec::new())?;
        let admin = self.base.rancher.client("", Some(&User::admin()))?;
        admin.request_text(request).await?;
        Ok(())
    }

    /// Writes a token into the Secret by a plain patch, and does not check the result.
    pub(crate) async fn swap(&self, token: &Token) -> Result<()> {
        let secret = self.secret().await?;
        let mut config: Value = serde_json::from_str(&text(&secret, "config")?)?;
        config["bearerToken"] = json!(token.value);
        let patch = json!({"stringData": {"config": config.to_string()}});
        let name = secret.metadata.name.unwrap_or_default();
        let patch = Patch::Merge(&patch);
        self.secrets.patch(&name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Whether a call of Argo CD's controller with this token was accepted since then.
    pub(crate) fn uses(&self, token: &Token, since: Timestamp) -> Result<bool> {
        let calls = self.controllers_calls(&[token], since)?;
        Ok(calls.iter().any(|call| !call.is_refused()))
    }

    /// The rejected calls of Argo CD's controller with one of these tokens since then.
    pub(crate) fn refused(&self, tokens: &[&Token], since: Timestamp) -> Result<Vec<Call>> {
        let mut calls = self.controllers_calls(tokens, since)?;
        calls.retain(Call::is_refused);
        Ok(calls)
    }

    /// The plugin calls with these tokens too.
    fn controllers_calls(&self, tokens: &[&Token], since: Timestamp) -> Result<Vec<Call>> {
        let names: Vec<&str> = tokens.iter().map(|token| token.name.as_str()).collect();
        let mut calls = self.base.rancher.calls_with(&names, since)?;
        calls.retain(|call| call.is_by("argocd-application-controller"));
        Ok(calls)
    }

    /// Creates an Application in a new namespace of the cluster, so that Argo CD uses the cluster.
    pub(crate) async fn deploy(&self, content: Content) -> Result<Deployed> {
        let application = format!("app-{}", self.id());
        let namespace = self.base.downstream.namespace(&application).await?;
        let server = self.server();
        let wanted = Application {
            name: &application,
            server: &server,
            namespace: &namespace,
            content,
        };
        self.argo.create_application(&wanted).await?;
        Ok(Deployed { application, namespace })
    }

    /// Waits until Argo CD shows this connection state of the cluster.
    pub(crate) async fn becomes(&self, status: &str) -> Result<Connection> {
        let server = self.server();
        let what = format!("Argo CD to show {status} for {server}");
        until(&what, async || {
            let seen = self.argo.connection(&server).await?;
            Ok(seen.filter(|seen| seen.status == status))
        })
        .await
    }
}

impl Token {
    fn of(value: &Value) -> Result<Self> {
        let value = value.as_str().context("no token")?;
        let (name, _) = value.split_once(':').context("no token of Rancher's")?;
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// The Secret of the cluster with this address.
pub(crate) async fn secret_of(secrets: &Api<Secret>, server: &str) -> Result<Secret> {
    let all = secrets.list(&ListParams::default()).await?.items;
    let ours = all
        .into_iter()
        .find(|secret| text(secret, "server").is_ok_and(|text| text == server));
    ours.with_context(|| format!("Argo CD has no Secret for {server}"))
}

/// A value of a Secret, as text.
pub(crate) fn text(secret: &Secret, key: &str) -> Result<String> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    let bytes = bytes.with_context(|| format!("no key {key}"))?;
    Ok(String::from_utf8(bytes.0.clone())?)
}
