//! Whether a node can join with a token: one result for each way of joining.
//!
//! A token that the API server accepts is not enough. The commonest failure of `kubeadm join` is "could not find a JWS signature in
//! the cluster-info ConfigMap" (kubernetes/kubernetes `cmd/kubeadm/app/discovery/token/token.go`, v1.36.3).

use bootstrap::cluster_info::{ClusterInfo, Signature};
use bootstrap::{ProbeResult, Token};
use serde::Serialize;
use supervisor::Distribution;

/// A way of joining.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinMethod {
    /// `kubeadm join`
    Kubeadm,
    /// TLS bootstrapping of the kubelet, with a bootstrap kubeconfig
    Kubelet,
    /// An agent of K3s or RKE2
    Agent,
}

impl JoinMethod {
    /// The ways that a distribution has.
    fn of(distribution: Distribution) -> &'static [Self] {
        if distribution.supervisor().is_some() {
            &[Self::Agent]
        } else {
            &[Self::Kubeadm, Self::Kubelet]
        }
    }

    fn name(self, distribution: Distribution) -> &'static str {
        match (self, distribution) {
            (Self::Kubeadm, _) => "kubeadm join",
            (Self::Kubelet, _) => "kubelet bootstrap",
            (Self::Agent, Distribution::Rke2) => "rke2 agent",
            (Self::Agent, _) => "k3s agent",
        }
    }
}

/// Whether the API server accepts the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Authentication {
    Accepted,
    Rejected,
    Unknown,
}

impl From<&ProbeResult> for Authentication {
    fn from(result: &ProbeResult) -> Self {
        match result {
            ProbeResult::Accepted { .. } => Self::Accepted,
            ProbeResult::Rejected => Self::Rejected,
            ProbeResult::Unknown(_) => Self::Unknown,
        }
    }
}

/// What `kubeadm join` finds in `cluster-info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// Signed with the token.
    Signed,
    /// There is no ConfigMap.
    Missing,
    Malformed(String),
    /// Not signed with the token. `others`: signed with another one.
    Unsigned {
        others: bool,
    },
    /// The signature is not that of the present content.
    Stale,
    /// Signed, but the certificate authority is not that of the kubeconfig in use.
    OtherAuthority,
    /// It cannot be read.
    Unknown(String),
}

impl Discovery {
    /// By the content of the ConfigMap. `same_authority`: compared with the kubeconfig in use.
    pub(crate) fn of(info: &ClusterInfo, token: &Token, same_authority: bool) -> Self {
        match info.signature(token) {
            Signature::Valid if same_authority => Self::Signed,
            Signature::Valid => Self::OtherAuthority,
            Signature::Stale => Self::Stale,
            Signature::Missing => Self::Unsigned {
                others: !info.signatures.is_empty(),
            },
        }
    }

    /// The signature. `None`: there is no `cluster-info`, or it cannot be read.
    pub(crate) fn signature(&self) -> Option<Signature> {
        match self {
            Self::Signed | Self::OtherAuthority => Some(Signature::Valid),
            Self::Unsigned { .. } => Some(Signature::Missing),
            Self::Stale => Some(Signature::Stale),
            Self::Missing | Self::Malformed(_) | Self::Unknown(_) => None,
        }
    }
}

/// What the results follow from.
#[derive(Clone, Debug)]
pub(crate) struct JoinInputs {
    pub distribution: Distribution,
    pub authentication: Authentication,
    /// The usage `signing`. `None`: the Secret was not read.
    pub signing: Option<bool>,
    pub discovery: Discovery,
    /// To request a certificate, and to get it approved; or why that is unknown.
    pub permissions: Result<[bool; 2], String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Possible {
    Yes,
    No,
    Unknown,
}

/// The result for one way of joining.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct JoinCheck {
    #[serde(skip)]
    pub kind: JoinMethod,
    method: &'static str,
    pub possible: Possible,
    /// Why it is not possible, or unknown; or what has to be done by hand.
    pub reasons: Vec<String>,
}

impl std::fmt::Display for JoinCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (method, reasons) = (self.method, self.reasons.join("; "));
        match (self.possible, reasons.is_empty()) {
            (Possible::Yes, true) => write!(f, "{method}: yes"),
            (Possible::Yes, false) => write!(f, "{method}: yes, but {reasons}"),
            (Possible::No, _) => write!(f, "{method}: no, because {reasons}"),
            (Possible::Unknown, _) => write!(f, "{method}: unknown, because {reasons}"),
        }
    }
}

/// The results, one for each way of joining that the distribution has.
pub(crate) fn checks(inputs: &JoinInputs) -> Vec<JoinCheck> {
    let methods = JoinMethod::of(inputs.distribution).iter();
    methods.map(|method| check(*method, inputs)).collect()
}

fn check(kind: JoinMethod, inputs: &JoinInputs) -> JoinCheck {
    let mut findings = Findings::default();
    match inputs.authentication {
        Authentication::Rejected => findings.no.push("the API server rejects the token".to_owned()),
        _ => findings.of_accepted(kind, inputs),
    }
    let (possible, reasons) = match findings {
        Findings { no, .. } if !no.is_empty() => (Possible::No, no),
        Findings { unknown, .. } if !unknown.is_empty() => (Possible::Unknown, unknown),
        Findings { by_hand, .. } => (Possible::Yes, by_hand),
    };
    JoinCheck {
        kind,
        method: kind.name(inputs.distribution),
        possible,
        reasons,
    }
}

#[derive(Default)]
struct Findings {
    no: Vec<String>,
    unknown: Vec<String>,
    by_hand: Vec<String>,
}

impl Findings {
    /// Of a token that the API server accepts, or may accept.
    fn of_accepted(&mut self, kind: JoinMethod, inputs: &JoinInputs) {
        if inputs.authentication == Authentication::Unknown {
            let reason = "it is not known whether the API server accepts the token";
            self.unknown.push(reason.to_owned());
        }
        if kind == JoinMethod::Kubeadm {
            self.discovery(inputs);
        }
        if kind != JoinMethod::Agent {
            self.permissions(&inputs.permissions);
        }
    }

    fn discovery(&mut self, inputs: &JoinInputs) {
        const SIGNER: &str = "check that bootstrap-signer-controller of kube-controller-manager runs";

        if inputs.signing == Some(false) {
            self.no.push("its usages do not include signing".to_owned());
            return;
        }
        let reason = match &inputs.discovery {
            Discovery::Signed => return,
            Discovery::Missing => "ConfigMap kube-public/cluster-info not found".to_owned(),
            Discovery::Malformed(reason) => reason.clone(),
            Discovery::Unsigned { others: true } => {
                "kube-public/cluster-info is signed with other tokens, but not with this one (the signer does not run, or has lost an \
                 update, and signs it after the next change of the token)"
                    .to_owned()
            }
            Discovery::Unsigned { others: false } => {
                format!("kube-public/cluster-info is not signed with any token ({SIGNER})")
            }
            Discovery::Stale => {
                format!("the signature in kube-public/cluster-info is not that of its present content ({SIGNER})")
            }
            Discovery::OtherAuthority => {
                let reason = "kube-public/cluster-info has another certificate authority than the kubeconfig in use";
                return self.unknown.push(reason.to_owned());
            }
            Discovery::Unknown(reason) => {
                return self.unknown.push(format!("cannot read kube-public/cluster-info: {reason}"));
            }
        };
        self.no.push(reason);
    }

    fn permissions(&mut self, permissions: &Result<[bool; 2], String>) {
        match permissions {
            Ok([true, true]) => {}
            Ok([false, _]) => self.no.push("no binding allows it to request a certificate".to_owned()),
            Ok([true, false]) => self
                .by_hand
                .push("its certificates are not approved automatically (use `kubectl certificate approve`)".to_owned()),
            Err(reason) => self.unknown.push(format!(
                "its permission to request a certificate is not known: {reason}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn good() -> JoinInputs {
        JoinInputs {
            distribution: Distribution::Kubernetes,
            authentication: Authentication::Accepted,
            signing: Some(true),
            discovery: Discovery::Signed,
            permissions: Ok([true, true]),
        }
    }

    fn with(discovery: Discovery) -> JoinInputs {
        JoinInputs { discovery, ..good() }
    }

    #[rstest]
    #[case::good(good(), "kubeadm join: yes | kubelet bootstrap: yes")]
    #[case::no_usage_signing(
        JoinInputs { signing: Some(false), discovery: Discovery::Unsigned { others: true }, ..good() },
        "kubeadm join: no, because its usages do not include signing | kubelet bootstrap: yes"
    )]
    #[case::given_on_stdin(
        JoinInputs { signing: None, ..good() },
        "kubeadm join: yes | kubelet bootstrap: yes"
    )]
    #[case::no_cluster_info(
        with(Discovery::Missing),
        "kubeadm join: no, because ConfigMap kube-public/cluster-info not found | kubelet bootstrap: yes"
    )]
    #[case::no_signer(
        with(Discovery::Unsigned { others: false }),
        "kubeadm join: no, because kube-public/cluster-info is not signed with any token (check that bootstrap-signer-controller \
         of kube-controller-manager runs) | kubelet bootstrap: yes"
    )]
    #[case::lost_update(
        with(Discovery::Unsigned { others: true }),
        "kubeadm join: no, because kube-public/cluster-info is signed with other tokens, but not with this one (the signer does \
         not run, or has lost an update, and signs it after the next change of the token) | kubelet bootstrap: yes"
    )]
    #[case::stale(
        with(Discovery::Stale),
        "kubeadm join: no, because the signature in kube-public/cluster-info is not that of its present content (check that \
         bootstrap-signer-controller of kube-controller-manager runs) | kubelet bootstrap: yes"
    )]
    #[case::other_authority(
        with(Discovery::OtherAuthority),
        "kubeadm join: unknown, because kube-public/cluster-info has another certificate authority than the kubeconfig in use | \
         kubelet bootstrap: yes"
    )]
    #[case::unreadable(
        with(Discovery::Unknown("forbidden".into())),
        "kubeadm join: unknown, because cannot read kube-public/cluster-info: forbidden | kubelet bootstrap: yes"
    )]
    #[case::rejected(
        JoinInputs { authentication: Authentication::Rejected, ..good() },
        "kubeadm join: no, because the API server rejects the token | kubelet bootstrap: no, because the API server rejects the token"
    )]
    #[case::unbound(
        JoinInputs { permissions: Ok([false, false]), ..good() },
        "kubeadm join: no, because no binding allows it to request a certificate | \
         kubelet bootstrap: no, because no binding allows it to request a certificate"
    )]
    #[case::not_approved(
        JoinInputs { permissions: Ok([true, false]), ..with(Discovery::Missing) },
        "kubeadm join: no, because ConfigMap kube-public/cluster-info not found | kubelet bootstrap: yes, but its certificates are \
         not approved automatically (use `kubectl certificate approve`)"
    )]
    #[case::k3s_needs_neither_signer_nor_binding(
        JoinInputs { distribution: Distribution::K3s, permissions: Ok([false, false]), ..with(Discovery::Missing) },
        "k3s agent: yes"
    )]
    #[case::rke2(
        JoinInputs { distribution: Distribution::Rke2, authentication: Authentication::Unknown, ..good() },
        "rke2 agent: unknown, because it is not known whether the API server accepts the token"
    )]
    fn each_way_of_joining_has_a_result(#[case] inputs: JoinInputs, #[case] expected: &str) {
        let results: Vec<String> = checks(&inputs).iter().map(ToString::to_string).collect();
        assert_eq!(results.join(" | "), expected);
    }
}
