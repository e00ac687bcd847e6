//! The lifetime of a token, and the flags for it.
//!
//! `kubeadm token create --ttl -1h` creates a token that never expires, without a warning (Kubernetes 1.36.3). Here such a token
//! needs `--never-expires`, and a long lifetime needs `--allow-long`.

use std::time::Duration;

use client::duration;
use client::error::Error;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A longer lifetime needs `--allow-long`.
pub(crate) const LONG: Duration = Duration::from_hours(24);
/// The default of `create`.
pub(crate) const DEFAULT: Duration = Duration::from_hours(1);

#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct LifetimeFlags {
    /// Time until the token expires (15m, 12h, 1d); 1h for a new token
    #[arg(long, value_name = "DURATION", value_parser = ttl, allow_hyphen_values = true)]
    pub ttl: Option<Duration>,

    /// Allow a --ttl of more than 24h
    #[arg(long)]
    pub allow_long: bool,

    /// Create a token that is valid until it is revoked
    #[arg(long, conflicts_with_all = ["ttl", "allow_long"])]
    pub never_expires: bool,
}

impl LifetimeFlags {
    /// The checked lifetime. `None`: the token never expires.
    pub(crate) fn checked(&self, default: Option<Duration>) -> Result<Option<Duration>, Error> {
        if self.never_expires {
            return Ok(None);
        }
        let ttl = self
            .ttl
            .or(default)
            .ok_or_else(|| Error::usage("specify --ttl DURATION or --never-expires"))?;
        if ttl > LONG && !self.allow_long {
            let ttl = duration::format(ttl);
            return Err(Error::usage(format!(
                "--ttl {ttl} is more than 24h: anyone who has the token can add nodes for that long"
            ))
            .hint("to allow it, pass --allow-long"));
        }
        Ok(Some(ttl))
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    if text.trim_start().starts_with('-') {
        return Err("a lifetime cannot be negative; for a token that never expires, use --never-expires".to_owned());
    }
    match duration::parse(text) {
        Ok(ttl) if ttl.is_zero() => {
            Err("a lifetime cannot be zero; for a token that never expires, use --never-expires".to_owned())
        }
        Ok(ttl) if ttl < Duration::from_secs(1) => Err("a lifetime cannot be shorter than 1s".to_owned()),
        other => other.map_err(|error| error.to_string()),
    }
}

/// When a token with this lifetime expires.
pub(crate) fn expiry(now: Timestamp, ttl: Duration) -> Result<Timestamp, Error> {
    let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX);
    now.checked_add(ttl)
        .map_err(|_| Error::usage("the token would expire after the year 9999").hint("use --never-expires"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0")]
    #[case("0s")]
    #[case("-1h")]
    #[case("-0")]
    #[case("999ms")]
    #[case("tomorrow")]
    fn a_lifetime_of_less_than_a_second_is_rejected(#[case] text: &str) {
        assert!(ttl(text).is_err());
    }

    #[test]
    fn a_long_lifetime_needs_a_flag() {
        let flags = |hours, allow_long| LifetimeFlags {
            ttl: Some(Duration::from_hours(hours)),
            allow_long,
            never_expires: false,
        };
        assert_eq!(flags(24, false).checked(None).unwrap(), Some(LONG));
        assert!(flags(25, false).checked(None).is_err());
        assert_eq!(flags(25, true).checked(None).unwrap(), Some(Duration::from_hours(25)));
        assert_eq!(LifetimeFlags::default().checked(Some(DEFAULT)).unwrap(), Some(DEFAULT));
        assert!(LifetimeFlags::default().checked(None).is_err());
    }
}
