//! The identity of a lock holder: one process, of one boot, of one host.
//!
//! A process on the same host can tell from it that the holder has exited. So it takes over the lock of a killed run at
//! once, without waiting for the lock to expire.

use std::fmt;
use std::str::FromStr;

/// A process, identified so that no later process has the same identity. It is the `holderIdentity` of the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HolderIdentity {
    host: String,
    boot: String,
    /// The namespace of the process id (pid_namespaces(7)); 0 if unknown.
    namespace: u64,
    pid: u32,
    /// Clock ticks after boot (field 22 of `/proc/<pid>/stat`, proc(5)); 0 if unknown.
    start: u64,
}

impl HolderIdentity {
    /// The identity of this process.
    pub(crate) fn of_this_process() -> Self {
        let pid = std::process::id();
        let start = match process_state(pid) {
            ProcessState::Running { start } => start,
            ProcessState::Exited | ProcessState::Unknown => 0,
        };
        Self {
            host: rustix::system::uname().nodename().to_string_lossy().replace('/', "-"),
            boot: boot_id().unwrap_or_else(|| UNKNOWN.to_owned()),
            namespace: pid_namespace().unwrap_or_default(),
            pid,
            start,
        }
    }

    /// Whether the process is known to have exited. It ran on this host, in this boot and in this process id namespace,
    /// and its process id is free or belongs to a process that started at another time.
    ///
    /// In every other case it may still be running. Host names are not unique (two laptops called `localhost`), so
    /// another boot may be another machine. Pods with `hostNetwork` share the name and the boot of their node, but not
    /// its process ids.
    pub(crate) fn has_exited(&self) -> bool {
        let here = Self::of_this_process();
        let same_place = (&self.host, &self.boot, self.namespace) == (&here.host, &here.boot, here.namespace);
        if !same_place || here.boot == UNKNOWN || here.namespace == 0 || self.start == 0 {
            return false;
        }
        match process_state(self.pid) {
            ProcessState::Running { start } => start != self.start,
            ProcessState::Exited => true,
            ProcessState::Unknown => false,
        }
    }

    /// Human-readable description: process id and host.
    pub(crate) fn describe(&self) -> String {
        format!("process {} on {}", self.pid, self.host)
    }
}

const UNKNOWN: &str = "unknown";

impl fmt::Display for HolderIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            boot,
            namespace,
            pid,
            start,
        } = self;
        write!(f, "{host}/{boot}/{namespace}/{pid}/{start}")
    }
}

/// A `holderIdentity` that another program wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ForeignHolder;

impl FromStr for HolderIdentity {
    type Err = ForeignHolder;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/');
        let mut part = || parts.next().filter(|part| !part.is_empty()).ok_or(ForeignHolder);
        let identity = Self {
            host: part()?.to_owned(),
            boot: part()?.to_owned(),
            namespace: part()?.parse().map_err(|_| ForeignHolder)?,
            pid: part()?.parse().map_err(|_| ForeignHolder)?,
            start: part()?.parse().map_err(|_| ForeignHolder)?,
        };
        if parts.next().is_some() {
            Err(ForeignHolder)
        } else {
            Ok(identity)
        }
    }
}

fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

fn pid_namespace() -> Option<u64> {
    let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let inode = link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

/// The state of the process that has a process id now.
enum ProcessState {
    Running {
        start: u64,
    },
    Exited,
    /// There is, or may be, such a process. Its start time is not readable.
    Unknown,
}

fn process_state(pid: u32) -> ProcessState {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        // `/proc` may hide the processes of other users (hidepid, proc(5)). kill(2) reports whether the process exists.
        let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        return match raw.map(rustix::process::test_kill_process) {
            Some(Err(rustix::io::Errno::SRCH)) => ProcessState::Exited,
            _ => ProcessState::Unknown,
        };
    };
    parse_stat(&stat).unwrap_or(ProcessState::Unknown)
}

/// Parses `/proc/<pid>/stat`. The second field is the command in parentheses, which may itself contain spaces and
/// parentheses.
fn parse_stat(stat: &str) -> Option<ProcessState> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    // A zombie has exited too.
    if matches!(fields.next()?, "Z" | "X") {
        return Some(ProcessState::Exited);
    }
    let start = fields.nth(18)?.parse().ok()?;
    Some(ProcessState::Running { start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_round_trips_through_text() {
        let here = HolderIdentity::of_this_process();
        assert_eq!(here.to_string().parse(), Ok(here));
    }

    #[test]
    fn an_exited_process_is_recognized() {
        let here = HolderIdentity::of_this_process();
        assert!(!here.has_exited());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(HolderIdentity { pid, ..here.clone() }.has_exited());
        assert!(
            HolderIdentity {
                start: here.start + 1,
                ..here.clone()
            }
            .has_exited(),
            "the process id was reused"
        );
    }

    #[test]
    fn a_zombie_has_exited() {
        let mut child = std::process::Command::new("true")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        let id = HolderIdentity {
            pid,
            ..HolderIdentity::of_this_process()
        };
        // Its output is closed when it exits. Then it is a zombie, or about to become one.
        std::io::Read::read_to_end(child.stdout.as_mut().unwrap(), &mut Vec::new()).unwrap();
        while !matches!(process_state(pid), ProcessState::Exited) {
            std::thread::yield_now();
        }
        assert!(id.has_exited());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_may_run_elsewhere_is_never_known_to_have_exited() {
        let free = HolderIdentity {
            pid: i32::MAX as u32,
            ..HolderIdentity::of_this_process()
        };
        assert!(free.has_exited());
        let elsewhere = [
            HolderIdentity {
                host: "elsewhere".into(),
                ..free.clone()
            },
            HolderIdentity {
                boot: "another boot, or another machine of the same name".into(),
                ..free.clone()
            },
            HolderIdentity {
                namespace: free.namespace + 1,
                ..free.clone()
            },
            HolderIdentity { start: 0, ..free },
        ];
        for identity in elsewhere {
            assert!(!identity.has_exited(), "{identity}");
        }
    }

    #[test]
    fn holders_of_other_programs_are_foreign() {
        for text in [
            "",
            "controller-7d9f_5c",
            "a/b/c/d",
            "a/b/1/2",
            "a/b/1/2/3/4",
            "a//1/2/3",
        ] {
            assert_eq!(text.parse::<HolderIdentity>(), Err(ForeignHolder), "{text:?}");
        }
    }
}
