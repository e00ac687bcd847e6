//! Who holds a lock: one process of one boot of one host.
//!
//! The identity lets a process of the same host see that a holder is dead, so that a run that was killed can be taken
//! over at once and need not be watched for the whole duration of the lock.

use std::fmt;
use std::str::FromStr;

/// A process, named so that no later process can be mistaken for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    host: String,
    boot: String,
    pid: u32,
    /// Clock ticks after boot, as the kernel counts them (field 22 of `/proc/<pid>/stat`, proc(5)).
    start: u64,
}

impl Identity {
    /// This process.
    pub fn of_this_process() -> Self {
        let pid = std::process::id();
        Self {
            host: rustix::system::uname().nodename().to_string_lossy().replace('/', "-"),
            boot: boot_id().unwrap_or_else(|| "unknown".to_owned()),
            pid,
            start: start_time(pid).unwrap_or_default(),
        }
    }

    /// Whether that process is known to be gone: it ran on this host, in this boot, and its process id is free or was
    /// given to another process since. Where that cannot be told (another host, a system without `/proc`) it is not
    /// known to be gone.
    pub fn is_known_to_be_gone(&self) -> bool {
        let here = Self::of_this_process();
        if self.host != here.host || here.boot == "unknown" || self.start == 0 {
            return false;
        }
        self.boot != here.boot || start_time(self.pid) != Some(self.start)
    }

    /// Where it runs, for people: host and process id.
    pub fn place(&self) -> String {
        format!("process {} on {}", self.pid, self.host)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.host, self.boot, self.pid, self.start)
    }
}

/// A holder that this program did not write.
#[derive(Debug, PartialEq, Eq)]
pub struct Foreign;

impl FromStr for Identity {
    type Err = Foreign;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/');
        let mut part = || parts.next().filter(|part| !part.is_empty()).ok_or(Foreign);
        let identity = Self {
            host: part()?.to_owned(),
            boot: part()?.to_owned(),
            pid: part()?.parse().map_err(|_| Foreign)?,
            start: part()?.parse().map_err(|_| Foreign)?,
        };
        if parts.next().is_some() {
            Err(Foreign)
        } else {
            Ok(identity)
        }
    }
}

fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may hold blanks and parentheses itself; a zombie is gone too.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_writes() {
        let here = Identity::of_this_process();
        assert_eq!(here.to_string().parse(), Ok(here));
    }

    #[test]
    fn a_living_process_is_not_gone_and_a_dead_one_is() {
        let here = Identity::of_this_process();
        assert!(!here.is_known_to_be_gone());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(Identity { pid, ..here.clone() }.is_known_to_be_gone());
        assert!(
            Identity {
                start: here.start + 1,
                ..here.clone()
            }
            .is_known_to_be_gone(),
            "the pid was given away"
        );
        assert!(
            Identity {
                boot: "another".into(),
                ..here
            }
            .is_known_to_be_gone()
        );
    }

    #[test]
    fn a_process_of_another_host_is_never_known_to_be_gone() {
        let there = Identity {
            host: "elsewhere".into(),
            pid: 0,
            ..Identity::of_this_process()
        };
        assert!(!there.is_known_to_be_gone());
    }

    #[test]
    fn other_holders_are_foreign() {
        for text in ["", "controller-7d9f_5c", "a/b/c/d", "a/b/1/2/3", "a//1/2"] {
            assert_eq!(text.parse::<Identity>(), Err(Foreign), "{text:?}");
        }
    }
}
