//! The supervisor of one server whose CA has been verified.

use std::fmt;
use std::sync::Arc;

use client::error::Error as UserError;
use rustls::ClientConfig;

use crate::address::ServerAddress;
use crate::ca::{CaBundle, CaHash, Pin};
use crate::distribution::SupervisorKind;
use crate::error::{Error, Result};
use crate::tls;
use crate::wire::{self, Call, Login, Options, Response};

/// The supervisor of one server. Nothing is kept open between requests.
#[derive(Clone)]
pub struct Supervisor {
    kind: SupervisorKind,
    address: ServerAddress,
    ca_hash: CaHash,
    tls: Arc<ClientConfig>,
    pub(crate) options: Options,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("kind", &self.kind)
            .field("address", &self.address.to_string())
            .finish_non_exhaustive()
    }
}

/// Reads the CA that a server serves, without verifying the server. To be shown, not to be trusted.
pub async fn read_ca(address: &ServerAddress, options: &Options) -> Result<CaBundle> {
    let call = Call::get("/cacerts".to_owned(), Login::Anonymous, options);
    let request = call.name();
    let tls = tls::unverified().map_err(|source| not_sent(address, source))?;
    let pem = wire::send(address, &tls, options, call).await?.text()?;
    CaBundle::parse(pem).ok_or_else(|| Error::Malformed {
        server: address.clone(),
        request,
    })
}

fn not_sent(address: &ServerAddress, source: UserError) -> Error {
    Error::NoResponse {
        server: address.clone(),
        sent: false,
        source: Box::new(source),
    }
}

impl Supervisor {
    /// Reads the CA of the server and compares it with the pin. Nothing secret is sent.
    ///
    /// # Errors
    /// If there is no response, or the CA is not the pinned one.
    pub async fn connect(kind: SupervisorKind, address: ServerAddress, pin: &Pin, options: Options) -> Result<Self> {
        let bundle = read_ca(&address, &options).await?;
        let ca_hash = bundle.hash();
        let Some(trusted) = bundle.trusted(pin) else {
            return Err(Error::other_ca(&address, ca_hash, pin));
        };
        let tls = tls::trusting(trusted).map_err(|source| not_sent(&address, source))?;
        Ok(Self {
            kind,
            address,
            ca_hash,
            tls,
            options,
        })
    }

    /// Where it is.
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// Whose it is.
    pub fn kind(&self) -> SupervisorKind {
        self.kind
    }

    /// The hash of its CA, for a token in the `K10` form.
    pub fn ca_hash(&self) -> &CaHash {
        &self.ca_hash
    }

    /// A read.
    pub(crate) async fn get(&self, path: String, login: Login<'_>) -> Result<Response> {
        self.send(Call::get(path, login, &self.options)).await
    }

    pub(crate) async fn send(&self, call: Call<'_>) -> Result<Response> {
        wire::send(&self.address, &self.tls, &self.options, call).await
    }
}
