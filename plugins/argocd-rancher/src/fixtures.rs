//! A cluster Secret and the tokens of a Rancher user, for unit tests.

use argocd::{ClusterConfig, ClusterSecret, ServerUrl};
use client::secret::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rancher::Observed;
use rancher::api_token::{ApiToken, Expiry};

/// The value of the token of this name.
pub(crate) fn value(name: &str) -> Secret {
    Secret::new(format!("{name}:dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87"))
}

/// The `config` with this token.
pub(crate) fn config(token: &str) -> String {
    let value = value(token);
    format!(
        r#"{{"bearerToken":"{}","tlsClientConfig":{{"insecure":false}}}}"#,
        value.expose()
    )
}

/// The version of an object in Argo CD's namespace.
pub(crate) fn object(name: &str) -> Observed {
    Observed {
        namespace: "argocd".into(),
        name: name.into(),
        uid: "u".into(),
        resource_version: "1".into(),
    }
}

/// A cluster Secret.
pub(crate) fn cluster(name: &str, config: &str, metadata: ObjectMeta) -> ClusterSecret {
    ClusterSecret {
        object: object(name),
        labels: [].into(),
        annotations: metadata.annotations.clone().unwrap_or_default(),
        created: None,
        deleting: false,
        immutable: false,
        name: name.into(),
        server: ServerUrl::new("https://r.example.com/k8s/clusters/c-abcde"),
        config: ClusterConfig::parse(&Secret::new(config)),
        namespaces: Vec::new(),
        cluster_resources: false,
        project: None,
        problems: Vec::new(),
        metadata,
    }
}

/// A valid token of user `u-me`.
pub(crate) fn api_token(name: &str, expiry: Expiry) -> ApiToken {
    ApiToken {
        name: name.parse().unwrap(),
        user: "u-me".into(),
        description: String::new(),
        cluster: None,
        expiry,
        expired: false,
        enabled: true,
        created: None,
        last_used: None,
        derived: true,
        current: false,
    }
}
