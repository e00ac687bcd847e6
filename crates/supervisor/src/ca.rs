//! The CA of a cluster: read without trust, hashed as K3s does, and compared with a pin before anything secret is sent.
//!
//! `/cacerts` is public. Its hash is in every token of the `K10` form: of one certificate it is the SHA-256 of the bytes as served; of
//! several, that of the root (DER) that the first certificate chains to, so that the CA can be renewed under the same root (`hashCA`
//! in k3s-io/k3s `pkg/clientaccess/token.go`). The hash of a root says nothing about other certificates of the bundle, which K3s
//! nevertheless trusts: here only those are trusted that the root has signed.

use std::fmt;
use std::str::FromStr;

use client::cluster_identity::{CaComparison, same_ca};
use client::connection::certificates;
use client::request;
use client::secret::Secret;
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::distribution::SupervisorKind;
use crate::hex;
use crate::token::PREFIX;

/// The most certificates of a bundle.
const MOST: usize = 32;
const HASH_LENGTH: usize = 64;

/// The hash of a cluster's CA: 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct CaHash(String);

/// A text that is not the hash of a CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCaHash {
    /// Not 64 characters.
    #[error("the hash of the CA has {0} characters instead of {HASH_LENGTH}")]
    Length(usize),
    /// K3s compares the texts.
    #[error("the hash of the CA has upper-case digits, which K3s does not accept")]
    UpperCase,
    /// Something else.
    #[error("the hash of the CA is not hexadecimal")]
    NotHexadecimal,
}

impl CaHash {
    /// That of a bundle as it is served at `/cacerts`. `None`: not a bundle.
    pub fn of(pem: &str) -> Option<Self> {
        CaBundle::parse(pem.to_owned()).map(|bundle| bundle.hash())
    }

    /// The form of a token with which an agent or a server verifies the supervisor: `K10<hash>::<credential>`. The credential is a
    /// bootstrap token or `<user>:<password>`.
    pub fn join_token(&self, credential: &Secret) -> Secret {
        Secret::new(format!("{PREFIX}{self}::{}", credential.expose()))
    }
}

impl fmt::Display for CaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for CaHash {
    type Err = InvalidCaHash;

    fn from_str(text: &str) -> Result<Self, InvalidCaHash> {
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Err(InvalidCaHash::NotHexadecimal)
        } else if text.len() != HASH_LENGTH {
            Err(InvalidCaHash::Length(text.len()))
        } else if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Err(InvalidCaHash::UpperCase)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

/// By what the CA of a supervisor is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The hash, of a token in the `K10` form or of `--ca-hash`.
    Hash(CaHash),
    /// The CA of the kubeconfig, PEM.
    Kubeconfig(String),
}

/// There is no pin to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPin {
    /// None at all.
    #[error("the CA of the cluster cannot be verified: the token has no hash of it, and the kubeconfig has no CA")]
    Missing,
    /// Two hashes.
    #[error("the token is for a cluster whose CA has hash {token:.12}…, but --ca-hash is {flag:.12}…")]
    Different {
        /// The hash in the token.
        token: CaHash,
        /// The hash of `--ca-hash`.
        flag: CaHash,
    },
}

impl From<NoPin> for client::error::Error {
    fn from(error: NoPin) -> Self {
        let hint = match error {
            NoPin::Missing => {
                "pass --ca-hash HASH, the hexadecimal digits between K10 and :: in the file server/token of a server"
            }
            NoPin::Different { .. } => "use the token of this cluster, or leave out --ca-hash",
        };
        Self::usage(error.to_string()).hint(hint)
    }
}

impl Pin {
    /// The hash of `--ca-hash` or of the token, or else the CA of the kubeconfig
    /// ([`Connection::authority`](client::connection::Connection::authority)).
    pub fn choose(flag: Option<&CaHash>, token: Option<&CaHash>, kubeconfig: Option<&str>) -> Result<Self, NoPin> {
        match (flag, token) {
            (Some(flag), Some(token)) if flag != token => Err(NoPin::Different {
                token: token.clone(),
                flag: flag.clone(),
            }),
            (Some(hash), _) | (None, Some(hash)) => Ok(Self::Hash(hash.clone())),
            (None, None) => kubeconfig
                .map(|pem| Self::Kubeconfig(pem.to_owned()))
                .ok_or(NoPin::Missing),
        }
    }
}

/// What a supervisor serves at `/cacerts`. Not verified.
#[derive(Clone, Debug)]
pub struct CaBundle {
    pem: String,
    certificates: Vec<Vec<u8>>,
}

impl CaBundle {
    /// Parses PEM. `None`: not a bundle of certificates, or too many.
    pub(crate) fn parse(pem: String) -> Option<Self> {
        let certificates = certificates(&pem).ok().filter(|all| all.len() <= MOST)?;
        let is_whole = |der: &Vec<u8>| X509Certificate::from_der(der).is_ok_and(|(rest, _)| rest.is_empty());
        certificates.iter().all(is_whole).then_some(Self { pem, certificates })
    }

    /// The hash as K3s computes it.
    pub fn hash(&self) -> CaHash {
        CaHash(hex(&match self.root() {
            Some(root) => Sha256::digest(&self.certificates[root]),
            None => Sha256::digest(&self.pem),
        }))
    }

    /// Whose CA it is, by the name of a CA that the server has created itself: `k3s-server-ca@1754000000`
    /// (`createSigningCertKey` in k3s-io/k3s `pkg/daemons/control/deps/deps.go`). `None`: the user has supplied the CA.
    pub fn kind(&self) -> Option<SupervisorKind> {
        let certificates = self.parsed();
        let is_of = |kind: &SupervisorKind| {
            let prefix = format!("{}-server-ca", kind.program());
            let mut names = certificates.iter().flat_map(|one| one.subject().iter_common_name());
            names.any(|name| name.as_str().is_ok_and(|name| name.starts_with(&prefix)))
        };
        [SupervisorKind::K3s, SupervisorKind::Rke2].into_iter().find(is_of)
    }

    /// The certificates that may be trusted, if the pin is met. `None`: it is not.
    pub(crate) fn trusted(&self, pin: &Pin) -> Option<Vec<CertificateDer<'static>>> {
        let is_met = match pin {
            Pin::Hash(hash) => *hash == self.hash(),
            Pin::Kubeconfig(pem) => same_ca(pem, &self.pem) == CaComparison::Same,
        };
        let trusted = match (pin, self.root()) {
            (Pin::Hash(_), Some(root)) => self.signed_by(root),
            // The pin covers every certificate.
            _ => (0..self.certificates.len()).collect(),
        };
        let der = |at: usize| CertificateDer::from(self.certificates[at].clone());
        is_met.then(|| trusted.into_iter().map(der).collect())
    }

    fn parsed(&self) -> Vec<X509Certificate<'_>> {
        let parsed = self.certificates.iter().map(|der| X509Certificate::from_der(der));
        parsed.filter_map(|parsed| Some(parsed.ok()?.1)).collect()
    }

    /// The root that the first certificate chains to. `None`: there is only one certificate, or no such root. Go's verification, which
    /// K3s uses, tries roots before intermediates.
    fn root(&self) -> Option<usize> {
        let certificates = self.parsed();
        // A certificate is visited once, so that a bundle of cross-signed ones costs no more than its square.
        let mut unvisited: Vec<usize> = (1..certificates.len()).collect();
        let mut reached = vec![0];
        if !certificates[0].validity().is_valid() {
            return None;
        }
        while let Some(at) = reached.pop() {
            let (parents, others): (Vec<usize>, Vec<usize>) = unvisited
                .iter()
                .partition(|parent| has_issued(&certificates[**parent], &certificates[at]));
            if let Some(root) = parents.iter().find(|parent| is_root(&certificates[**parent])) {
                return Some(*root);
            }
            unvisited = others;
            reached.extend(parents.into_iter().rev());
        }
        None
    }

    /// The root and every CA that it has signed, directly or through another.
    fn signed_by(&self, root: usize) -> Vec<usize> {
        let certificates = self.parsed();
        let mut signed = vec![root];
        let mut at = 0;
        while at < signed.len() {
            let issuer = &certificates[signed[at]];
            let fresh = (0..certificates.len()).filter(|other| {
                !signed.contains(other) && certificates[*other].is_ca() && has_issued(issuer, &certificates[*other])
            });
            let fresh: Vec<usize> = fresh.collect();
            signed.extend(fresh);
            at += 1;
        }
        signed
    }
}

fn has_issued(issuer: &X509Certificate<'_>, certificate: &X509Certificate<'_>) -> bool {
    issuer.is_ca()
        && issuer.validity().is_valid()
        && issuer.subject() == certificate.issuer()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

/// It names no other key as its issuer's.
fn is_root(certificate: &X509Certificate<'_>) -> bool {
    let (mut authority, mut own) = (None, None);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(found) => authority = found.key_identifier.as_ref().map(|id| id.0),
            ParsedExtension::SubjectKeyIdentifier(found) => own = Some(found.0),
            _ => {}
        }
    }
    authority.is_none() || authority == own
}

/// What the server of a kubeconfig serves at `/cacerts`. `None`: it is not a supervisor, as on port 6443 of RKE2.
pub async fn served_by_api_server(client: &kube::Client) -> Option<String> {
    let pem = request::get_text(client, "CA certificates", "/cacerts").await.ok()?;
    certificates(&pem).is_ok().then_some(pem)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rstest::rstest;

    use super::*;

    struct Ca {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn params(name: &str, ca: bool) -> CertificateParams {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    fn root(name: &str) -> Ca {
        let (params, key) = (params(name, true), KeyPair::generate().unwrap());
        let pem = params.self_signed(&key).unwrap().pem();
        Ca {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn signed(name: &str, ca: bool, by: &Ca) -> Ca {
        let (params, key) = (params(name, ca), KeyPair::generate().unwrap());
        let pem = params.signed_by(&key, &by.issuer).unwrap().pem();
        Ca {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn bundle(parts: &[&Ca]) -> CaBundle {
        CaBundle::parse(parts.iter().map(|ca| ca.pem.as_str()).collect()).unwrap()
    }

    fn der_hash(ca: &Ca) -> String {
        hex(&Sha256::digest(&certificates(&ca.pem).unwrap()[0]))
    }

    /// How many certificates are trusted.
    fn trusted(bundle: &CaBundle, pin: &Pin) -> Option<usize> {
        bundle.trusted(pin).map(|all| all.len())
    }

    #[test]
    fn one_certificate_is_hashed_as_served() {
        let ca = root("k3s-server-ca");
        let served = bundle(&[&ca]);
        assert_eq!(served.hash().to_string(), hex(&Sha256::digest(&ca.pem)));
        let pin = Pin::Hash(served.hash());
        assert_eq!(trusted(&served, &pin), Some(1));
        let more = CaBundle::parse(format!("{}\n", ca.pem)).unwrap();
        assert_eq!(trusted(&more, &pin), None, "white space matters");
        assert_eq!(trusted(&bundle(&[&root("k3s-server-ca")]), &pin), None);
    }

    #[test]
    fn the_name_of_a_created_ca_tells_whose_it_is() {
        let kind = |name: &str| bundle(&[&root("root"), &root(name)]).kind();
        assert_eq!(kind("k3s-server-ca@1754000000"), Some(SupervisorKind::K3s));
        assert_eq!(kind("rke2-server-ca@1754000000"), Some(SupervisorKind::Rke2));
        assert_eq!(kind("corporate CA"), None);
    }

    #[test]
    fn a_bundle_is_hashed_by_the_root_of_its_first_certificate() {
        let root = root("root");
        let middle = signed("intermediate", true, &root);
        let ca = signed("k3s-server-ca", true, &middle);
        let served = bundle(&[&ca, &middle, &root]);
        assert_eq!(served.hash().to_string(), der_hash(&root));
        // Renewed under the same root.
        let renewed = bundle(&[&signed("k3s-server-ca", true, &root), &root]);
        assert_eq!(renewed.hash(), served.hash());
        assert_eq!(trusted(&served, &Pin::Hash(served.hash())), Some(3));
        // Without the root nothing chains, and K3s hashes the bytes.
        let rootless = bundle(&[&ca, &middle]);
        let text = format!("{}{}", ca.pem, middle.pem);
        assert_eq!(rootless.hash().to_string(), hex(&Sha256::digest(text)));
    }

    #[test]
    fn only_what_the_pinned_root_has_signed_is_trusted() {
        let (good, evil) = (root("root"), root("evil"));
        let ca = signed("k3s-server-ca", true, &good);
        let forged = root("k3s-server-ca");
        let leaf = signed("kubelet", false, &ca);
        let served = bundle(&[&ca, &good, &evil, &forged, &leaf]);
        assert_eq!(served.hash().to_string(), der_hash(&good));
        assert_eq!(trusted(&served, &Pin::Hash(served.hash())), Some(2));
    }

    #[test]
    fn a_forged_root_of_the_same_name_does_not_meet_the_pin() {
        let good = root("root");
        let pin = Pin::Hash(bundle(&[&signed("k3s-server-ca", true, &good), &good]).hash());
        let evil = root("root");
        let ca = signed("k3s-server-ca", true, &evil);
        for served in [bundle(&[&ca, &evil, &good]), bundle(&[&ca, &good, &evil])] {
            assert_eq!(served.hash().to_string(), der_hash(&evil));
            assert_eq!(trusted(&served, &pin), None);
        }
    }

    #[test]
    fn the_ca_of_the_kubeconfig_is_a_pin_only_if_it_is_the_same() {
        let (one, other) = (root("a"), root("b"));
        let pin = Pin::Kubeconfig(format!("\n{}", one.pem));
        assert_eq!(trusted(&bundle(&[&one]), &pin), Some(1));
        assert_eq!(trusted(&bundle(&[&other]), &pin), None);
        assert_eq!(trusted(&bundle(&[&one, &other]), &pin), None);
        assert_eq!(trusted(&bundle(&[&one]), &Pin::Kubeconfig(String::new())), None);
    }

    #[test]
    fn a_hash_comes_before_the_kubeconfig_and_two_must_agree() {
        let hash = |digit: &str| digit.repeat(64).parse::<CaHash>().unwrap();
        let (a, b) = (hash("a"), hash("b"));
        assert_eq!(Pin::choose(Some(&a), None, Some("PEM")), Ok(Pin::Hash(a.clone())));
        assert_eq!(Pin::choose(None, Some(&a), Some("PEM")), Ok(Pin::Hash(a.clone())));
        assert_eq!(Pin::choose(Some(&a), Some(&a), None), Ok(Pin::Hash(a.clone())));
        assert_eq!(
            Pin::choose(None, None, Some("PEM")),
            Ok(Pin::Kubeconfig("PEM".to_owned()))
        );
        assert!(matches!(
            Pin::choose(Some(&a), Some(&b), None),
            Err(NoPin::Different { .. })
        ));
        let error = client::error::Error::from(Pin::choose(None, None, None).unwrap_err());
        assert!(error.hints[0].contains("--ca-hash"), "{error:?}");
    }

    #[rstest]
    #[case("")]
    #[case("PEM")]
    #[case("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")]
    fn malformed_certificates_are_no_bundle(#[case] pem: &str) {
        assert!(CaHash::of(pem).is_none());
        let many = root("a").pem.repeat(MOST + 1);
        assert!(CaHash::of(&many).is_none());
    }

    #[test]
    fn a_join_token_begins_with_the_hash() {
        let hash: CaHash = "a".repeat(64).parse().unwrap();
        let token = hash.join_token(&Secret::new("abcdef.ghijklmnopqrstuv"));
        assert_eq!(
            token.expose(),
            format!("K10{}::abcdef.ghijklmnopqrstuv", "a".repeat(64))
        );
    }
}
