//! What K3s and RKE2 add to Kubernetes, as a client sees it: the supervisor of each server, the server token, snapshots, and what Nodes
//! show about their servers. Each function reads or writes one server. In which order and why is not decided here.
//!
//! How it is used:
//!
//! 1. [`ServerToken::of_line`] parses a token, [`TokenValue`] is what may become one, [`node::list`] finds the servers, and
//!    [`ServerAddress`] or [`AddressOverride`] says where each is reached.
//! 2. [`Pin::choose`] says by what the CA is verified. [`Supervisor::connect`] reads `/cacerts` without trust, compares it, and keeps a
//!    TLS configuration that trusts nothing else. There is no other way to a [`Supervisor`], so no token leaves before the pin holds.
//! 3. [`Supervisor::probe`], [`Supervisor::probe_ready`], [`Supervisor::encryption`], [`Supervisor::clock`] and [`ready::api_ready`]
//!    read. [`Supervisor::put_token`] and [`Supervisor::save_snapshot`] write.
//!
//! Choices that callers have to know:
//!
//! - Each request has a connection of its own, without proxy, redirect or retry ([`Options`] has the limits). A caller that polls calls
//!   again. Servers count requests of nodes: call one after the other.
//! - Functions take the password to log in with, because each server accepts the one that it loaded at its own start. A
//!   [`ServerToken`] is not tied to a server.
//! - [`Supervisor::put_token`] takes a check of the lock (`Fence::is_open` of the engine) and calls it when the connection is open.
//! - [`PutResult`] is not a `Result`: each of its values means another next step, and none of them may be repeated blindly. On Linux
//!   the system gives up delivery after 10 s. After a timeout the connection is reset. If the process is killed, only the 10 s hold.
//! - [`ProbeResult::Accepted`] does not mean that the server is ready: a new value put on a starting server harms it.
//! - What is served by the Kubernetes API ([`node`], [`snapshot::list`], [`ready`]) uses the client of the kubeconfig, with its
//!   retries.
//!
//! "Seen on K3s 1.36.3" names the server on which a behaviour was observed. RKE2 shares the code, and was read, not run.

mod address;
pub mod ca;
mod clock;
mod distribution;
mod encryption;
mod error;
pub mod node;
mod probe;
mod put;
pub mod ready;
pub mod sealed;
pub mod snapshot;
mod supervisor;
mod tls;
pub mod token;
mod wire;

pub use address::{AddressOverride, Host, InvalidAddress, ServerAddress};
pub use ca::{CaBundle, CaHash, Pin};
pub use clock::ClockReading;
pub use distribution::{Distribution, SupervisorKind};
pub use encryption::{EncryptionBlocker, EncryptionStatus};
pub use error::{Error, Result};
pub use probe::{Credential, ProbeResult, UnknownReason};
pub use put::PutResult;
pub use supervisor::{Supervisor, read_ca};
pub use token::{InvalidToken, ServerToken, TokenHash, TokenUser, TokenValue};
pub use wire::Options;

/// Lower-case hexadecimal digits. In one buffer, which leaves no parts of a token behind.
fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
    let mut hex = String::with_capacity(bytes.len() * 2);
    hex.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    hex
}
