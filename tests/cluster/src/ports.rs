//! Free TCP ports for servers that need a fixed port. They are below the range of outgoing connections, so that none is
//! taken between the check and the server's own bind.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
/// Set by `controlplane private-network` for the processes inside.
const PRIVATE_NETWORK: &str = "TEST_CLUSTER_PRIVATE_NETWORK";

/// Warns about ports that are reachable from outside, for programs without a flag to change that.
pub(crate) fn warn_if_open(which: &str) -> Result<()> {
    if std::env::var_os(PRIVATE_NETWORK).is_none() {
        let how = "run under `controlplane private-network` to avoid it";
        writeln!(std::io::stderr(), "warning: {which} open on all interfaces ({how})")?;
    }
    Ok(())
}

/// A port that is free on all interfaces. This process never returns it twice.
pub(crate) fn free() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Concurrent test processes start at different ports.
    let start = u16::try_from(u64::from(std::process::id()) * 97 % u64::from(COUNT))?;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(step)) % COUNT;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}
