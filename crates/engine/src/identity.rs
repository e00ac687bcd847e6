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
    /// The namespace in which the process id means this process (pid_namespaces(7)); 0 where that cannot be told.
    namespace: u64,
    pid: u32,
    /// Clock ticks after boot, as the kernel counts them (field 22 of `/proc/<pid>/stat`, proc(5)).
    start: u64,
}

impl Identity {
    /// This process.
    pub fn of_this_process() -> Self {
        let pid = std::process::id();
        let Process::Running { start } = look_at(pid) else {
            return Self::nameless(pid, 0);
        };
        Self::nameless(pid, start)
    }

    fn nameless(pid: u32, start: u64) -> Self {
        Self {
            host: rustix::system::uname().nodename().to_string_lossy().replace('/', "-"),
            boot: boot_id().unwrap_or_else(|| UNKNOWN.to_owned()),
            namespace: pid_namespace().unwrap_or_default(),
            pid,
            start,
        }
    }

    /// Whether that process is known to be gone: it ran in this boot of this host, where its process id means what it
    /// means to us, and the id is free or was given to another process since.
    ///
    /// Where that cannot be told it is not known to be gone. Host names are not unique (two laptops called `localhost`),
    /// so that another boot may be another machine; and pods that share the network of their node share its name and
    /// boot, but see different processes.
    pub fn is_known_to_be_gone(&self) -> bool {
        let here = Self::of_this_process();
        let same_place = (&self.host, &self.boot, self.namespace) == (&here.host, &here.boot, here.namespace);
        if !same_place || here.boot == UNKNOWN || here.namespace == 0 || self.start == 0 {
            return false;
        }
        match look_at(self.pid) {
            Process::Running { start } => start != self.start,
            Process::Gone => true,
            Process::Hidden => false,
        }
    }

    /// Where it runs, for people: host and process id.
    pub fn place(&self) -> String {
        format!("process {} on {}", self.pid, self.host)
    }
}

const UNKNOWN: &str = "unknown";

impl fmt::Display for Identity {
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
            namespace: part()?.parse().map_err(|_| Foreign)?,
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

fn pid_namespace() -> Option<u64> {
    let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let inode = link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

/// What a process id means now.
enum Process {
    Running {
        start: u64,
    },
    Gone,
    /// It exists, or may exist, and is not shown to us.
    Hidden,
}

fn look_at(pid: u32) -> Process {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        // `/proc` may hide the processes of other users (hidepid, proc(5)); whether there is one can be asked all the same.
        let asked = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let answer = asked.map(rustix::process::test_kill_process);
        return match answer {
            Some(Err(rustix::io::Errno::SRCH)) => Process::Gone,
            _ => Process::Hidden,
        };
    };
    running(&stat).unwrap_or(Process::Hidden)
}

/// The second field is the command in parentheses and may hold blanks and parentheses itself.
fn running(stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    // A zombie is gone too.
    if matches!(fields.next()?, "Z" | "X") {
        return Some(Process::Gone);
    }
    let start = fields.nth(18)?.parse().ok()?;
    Some(Process::Running { start })
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
    }

    #[test]
    fn a_process_that_has_ended_and_is_not_collected_yet_is_gone() {
        let mut child = std::process::Command::new("true")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        let id = Identity {
            pid,
            ..Identity::of_this_process()
        };
        // Its output ends when it does; then it is a zombie, or is about to be one.
        std::io::Read::read_to_end(child.stdout.as_mut().unwrap(), &mut Vec::new()).unwrap();
        while !matches!(look_at(pid), Process::Gone) {
            std::thread::yield_now();
        }
        assert!(id.is_known_to_be_gone());
        child.wait().unwrap();
    }

    #[test]
    fn where_the_process_id_may_mean_another_process_it_is_never_known_to_be_gone() {
        let free = Identity {
            pid: i32::MAX as u32,
            ..Identity::of_this_process()
        };
        assert!(free.is_known_to_be_gone());
        let elsewhere = [
            Identity {
                host: "elsewhere".into(),
                ..free.clone()
            },
            Identity {
                boot: "another machine of the same name, or before a restart".into(),
                ..free.clone()
            },
            Identity {
                namespace: free.namespace + 1,
                ..free.clone()
            },
            Identity { start: 0, ..free },
        ];
        for identity in elsewhere {
            assert!(!identity.is_known_to_be_gone(), "{identity}");
        }
    }

    #[test]
    fn other_holders_are_foreign() {
        for text in [
            "",
            "controller-7d9f_5c",
            "a/b/c/d",
            "a/b/1/2",
            "a/b/1/2/3/4",
            "a//1/2/3",
        ] {
            assert_eq!(text.parse::<Identity>(), Err(Foreign), "{text:?}");
        }
    }
}
