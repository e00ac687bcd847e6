//! The CA of the cluster, as one certificate or as an intermediate with its root, and the servers' certificates.

use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::config::CaShape;
use crate::node::Node;
use crate::token::sha256_hex;

/// Signs the servers' certificates while the manager runs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// What `/cacerts` returns.
    pem: String,
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.use_authority_key_identifier_extension = true;
    params
}

impl Authority {
    pub(crate) fn new(shape: CaShape, program: &str) -> Result<Self> {
        let (params, key) = (ca(&format!("{program}-server-ca")), KeyPair::generate()?);
        let pem = match shape {
            CaShape::Single => params.self_signed(&key)?.pem(),
            CaShape::Bundle => {
                let (root, root_key) = (ca(&format!("{program}-root-ca")), KeyPair::generate()?);
                let root_pem = root.self_signed(&root_key)?.pem();
                let pem = params.signed_by(&key, &Issuer::new(root, root_key))?.pem();
                format!("{pem}{root_pem}")
            }
        };
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, pem })
    }

    /// Writes the CA for all servers.
    pub(crate) fn write(&self, cluster: &Path) -> Result<()> {
        Ok(std::fs::write(cluster.join("ca.pem"), &self.pem)?)
    }

    /// Writes `run/serving.crt` and `run/serving.key` of a server.
    pub(crate) fn write_server(&self, node: &Node) -> Result<()> {
        let names = vec![node.server.name.clone(), "kubernetes".into(), "localhost".into()];
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, node.program());
        params.subject_alt_names.push(SanType::IpAddress(node.server.address));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let dir = node.run_dir();
        std::fs::write(dir.join("serving.crt"), format!("{certificate}{}", self.pem))?;
        std::fs::write(dir.join("serving.key"), key.serialize_pem())?;
        Ok(())
    }
}

/// The hash in the K10 form: that of the file for a single certificate, that of the root for a bundle
/// (`pkg/clientaccess/token.go`).
pub(crate) fn ca_hash(pem: &str) -> Result<String> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    match certificates.as_slice() {
        [_] => Ok(sha256_hex(pem.as_bytes())),
        // The last one is the root to which the first one chains.
        [.., root] => Ok(sha256_hex(root)),
        [] => Err(anyhow::anyhow!("no certificate")),
    }
}

pub(crate) fn read_ca(cluster: &Path) -> Result<String> {
    let path = cluster.join("ca.pem");
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
