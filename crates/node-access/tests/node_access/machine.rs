//! A node in a directory: its files, and the programs that the scripts call. The scripts run for real.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use node_access::{NodeAccess, NodeExec, NodeRole, NodeState, NodeTarget, ServiceOptions};
use sha2::{Digest as _, Sha256};
use supervisor::SupervisorKind;
use tempfile::TempDir;

pub(crate) const CONFIG: &str = "/etc/rancher/k3s/config.yaml";
pub(crate) const UNIT: &str = "/etc/systemd/system/k3s.service";
pub(crate) const ENV: &str = "/etc/systemd/system/k3s.service.env";
pub(crate) const TOKEN: &str = "/var/lib/rancher/k3s/server/token";
pub(crate) const PASSWD: &str = "/var/lib/rancher/k3s/server/cred/passwd";
/// A password, and its fingerprint (`printf hunter2-of-tests | sha256sum`).
pub(crate) const PASSWORD: &str = "hunter2-of-tests";

/// `systemctl` of one service. It records how it was called, and shows what the test has written.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "systemctl $*" >>"$KUBECTL_ROTATION_ROOT/calls"
case "$*" in
    *LoadState*k3s.service) echo LoadState=loaded ;;
    *LoadState*) echo LoadState=not-found ;;
    *FragmentPath*) cat "$KUBECTL_ROTATION_ROOT/show" ;;
    *ActiveState*) printf 'ActiveState=failed\nSubState=auto-restart\nNRestarts=7\nResult=exit-code\n' ;;
esac
"#;

pub(crate) struct Machine {
    directory: TempDir,
    pub(crate) options: ServiceOptions,
    pub(crate) timeout: Duration,
}

impl Machine {
    /// With systemd, an empty configuration, and these scripts run by `shell`.
    pub(crate) fn with_shell(shell: &str) -> Self {
        let machine = Self {
            directory: tempfile::tempdir().unwrap(),
            options: ServiceOptions::of(SupervisorKind::K3s, NodeRole::Server),
            timeout: Duration::from_secs(20),
        };
        let root = machine.root();
        for directory in [
            "bin",
            "run/systemd/system",
            "etc/rancher/k3s/config.yaml.d",
            "etc/systemd/system",
        ] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let program = which(shell).unwrap_or_else(|| panic!("{shell} is not installed"));
        if shell == "busybox" {
            // With all its programs, in place of the system's.
            let install = Command::new(&program)
                .args(["--install", "-s"])
                .arg(root.join("bin"))
                .status();
            assert!(install.unwrap().success());
        }
        let _ = fs::remove_file(root.join("bin/sh"));
        symlink(program, root.join("bin/sh")).unwrap();
        machine.program("systemctl", SYSTEMCTL);
        machine.program("journalctl", "#!/bin/sh\ncat \"$KUBECTL_ROTATION_ROOT/log\"\n");
        let login = format!(
            "#!/bin/sh\nexport KUBECTL_ROTATION_ROOT='{0}' PATH='{0}/bin':\"$PATH\"\nshift\nexec \"$@\"\n",
            root.display()
        );
        machine.program("login", &login);
        machine.show("/usr/local/bin/k3s server", "", "");
        machine.write("/etc/machine-id", "0123\n");
        machine.write(TOKEN, &format!("K10{:064}::server:{PASSWORD}\n", 1));
        machine.write(
            PASSWD,
            &format!("{PASSWORD},node,node,k3s:agent\n{PASSWORD},server,server,k3s:server\n"),
        );
        machine
    }

    /// `TEST_SHELL=busybox` runs the tests with another shell; but those that replace a program, since busybox may run its own.
    pub(crate) fn new() -> Self {
        Self::with_shell(&std::env::var("TEST_SHELL").unwrap_or_else(|_| "sh".to_owned()))
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    pub(crate) fn sha256(&self, path: &str) -> String {
        let digest = Sha256::digest(fs::read(self.path(path)).unwrap());
        digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .concat()
    }

    pub(crate) fn program(&self, name: &str, text: &str) {
        let path = self.root().join("bin").join(name);
        let _ = fs::remove_file(&path);
        // Renamed: a file that is open for writing in a fork of another test cannot be executed.
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, &path).unwrap();
    }

    /// What `systemctl show` prints.
    pub(crate) fn show(&self, arguments: &str, environment: &str, file: &str) {
        let text = format!(
            "FragmentPath={UNIT}\nDropInPaths=\nExecStart={{ path=/usr/local/bin/k3s ; argv[]={arguments} ; ignore_errors=no ; pid=7 }}\n\
             Environment={environment}\nEnvironmentFiles={file} (ignore_errors=yes)\n"
        );
        self.write("/show", &text);
    }

    /// How `systemctl` and other recording programs were called.
    pub(crate) fn calls(&self) -> String {
        fs::read_to_string(self.root().join("calls")).unwrap_or_default()
    }

    pub(crate) fn access(&self) -> NodeAccess {
        let login = self.root().join("bin/login");
        self.access_by(&format!("{} {{node}}", login.display()))
    }

    pub(crate) fn access_by(&self, command: &str) -> NodeAccess {
        let exec = NodeExec::parse(command, self.timeout).unwrap();
        NodeAccess::new(Arc::new(exec), self.options.clone(), "abcde")
    }

    pub(crate) async fn read(&self) -> NodeState {
        self.access().read(&target(), true).await.unwrap()
    }
}

pub(crate) fn target() -> NodeTarget {
    NodeTarget::new("s1", "10.0.0.1".parse().unwrap()).unwrap()
}

/// The shells that are installed. Without a further one, `sh` alone is tested.
pub(crate) fn shells() -> impl Iterator<Item = &'static str> {
    ["sh", "dash", "bash", "busybox"]
        .into_iter()
        .filter(|shell| which(shell).is_some())
}

pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap();
    let mut found = path.split(':').map(|directory| Path::new(directory).join(program));
    found.find(|path| path.exists())
}
