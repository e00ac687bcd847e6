//! How long a token lives, as it may be asked for.
//!
//! A token that never ends is a password of the cluster that nobody changes. `kubeadm token create --ttl -1h` makes one
//! without a word (seen on Kubernetes 1.36.3). Here it must be asked for by its name, and so must a long life.

use std::time::Duration;

use client::duration;
use client::error::Error;

/// More than this needs `--allow-long`.
pub(crate) const LONG: Duration = Duration::from_hours(24);
/// What `create` gives where nothing is asked for.
pub(crate) const DEFAULT: Duration = Duration::from_hours(1);

/// The flags about it.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct LifetimeFlags {
    /// How long from now, by the API server's clock (15m, 12h, 1d); a new token lives 1h where nothing is said
    #[arg(long, value_name = "DURATION", value_parser = ttl, allow_hyphen_values = true)]
    pub ttl: Option<Duration>,

    /// Allow more than 24 hours
    #[arg(long)]
    pub allow_long: bool,

    /// No end at all: the token works until somebody revokes it
    #[arg(long, conflicts_with_all = ["ttl", "allow_long"])]
    pub never_expires: bool,
}

impl LifetimeFlags {
    /// How long; `None`: without end. `default` is taken where nothing was asked for.
    pub(crate) fn wanted(&self, default: Option<Duration>) -> Result<Option<Duration>, Error> {
        if self.never_expires {
            return Ok(None);
        }
        let ttl = self
            .ttl
            .or(default)
            .ok_or_else(|| Error::usage("say how long: --ttl DURATION, or --never-expires"))?;
        if ttl > LONG && !self.allow_long {
            let long = duration::format(ttl);
            return Err(Error::usage(format!(
                "--ttl {long} is more than 24h, and whoever has the token can add nodes for that long"
            ))
            .hint("pass --allow-long if that is meant"));
        }
        Ok(Some(ttl))
    }
}

/// Reads a time to live: a duration of a second at least.
fn ttl(text: &str) -> Result<Duration, String> {
    if text.trim_start().starts_with('-') {
        return Err("a token cannot have ended before it begins; --never-expires makes one without end".to_owned());
    }
    match duration::parse(text) {
        Ok(ttl) if ttl.is_zero() => Err("0 is no time to live; --never-expires makes a token without end".to_owned()),
        Ok(ttl) if ttl < Duration::from_secs(1) => Err("the end of a token is kept in whole seconds".to_owned()),
        Ok(ttl) => Ok(ttl),
        Err(error) => Err(error.to_string()),
    }
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
    fn what_would_make_an_eternal_or_a_dead_token_is_refused(#[case] text: &str) {
        assert!(ttl(text).is_err());
    }

    #[test]
    fn a_long_life_must_be_asked_for() {
        let asked = |hours, allow_long| LifetimeFlags {
            ttl: Some(Duration::from_hours(hours)),
            allow_long,
            never_expires: false,
        };
        assert_eq!(asked(24, false).wanted(None).unwrap(), Some(LONG));
        assert!(asked(25, false).wanted(None).is_err());
        assert_eq!(asked(25, true).wanted(None).unwrap(), Some(Duration::from_hours(25)));
        assert_eq!(LifetimeFlags::default().wanted(Some(DEFAULT)).unwrap(), Some(DEFAULT));
        assert!(LifetimeFlags::default().wanted(None).is_err());
    }
}
