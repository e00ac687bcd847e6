//! The control plane's binary: built once into the user's cache directory, and again only when its sources change.
//!
//! It is a Go module that depends on Kubernetes itself, so the first build downloads 850 MB of modules and compiles
//! them, which takes minutes. That is shown, never silent. Nothing ready-made is downloaded.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "controlplane-";
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../controlplane");

/// Without these Kubernetes calls itself v0.0.0-master. They go with `k8s.io/kubernetes` in go.mod.
const LINKER_FLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36";

/// Where the programs of the control plane are.
#[derive(Clone, Debug)]
pub struct Programs {
    controlplane: PathBuf,
    assets: Option<PathBuf>,
}

impl Programs {
    /// Finds the binary in the cache, or builds it, with progress on standard error. Blocks, for minutes the first
    /// time. Two processes that ask at once build it once.
    pub fn ensure() -> Result<Self> {
        let version = go_version()?;
        let cache = cache_dir()?;
        let dir = cache.join(format!("{PREFIX}{}", key(Path::new(MODULE), &version)?));
        let binary = dir.join("controlplane");
        if !binary.exists() {
            build_once(&dir, &binary, &version)?;
            forget_unused(&cache);
        }
        // What is in use is younger than what is forgotten.
        let _ = File::open(&binary).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(Self {
            controlplane: binary,
            assets: std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from),
        })
    }

    /// The multi-call binary, for its `private-network` and its components.
    pub fn controlplane(&self) -> &Path {
        &self.controlplane
    }

    /// Puts a `kubectl` into `dir`: the real one, under its own name, so that it finds plugins.
    pub fn link_kubectl(&self, dir: &Path) -> Result<PathBuf> {
        let link = dir.join("kubectl");
        let target = self.asset("kubectl").unwrap_or_else(|| self.controlplane.clone());
        std::os::unix::fs::symlink(&target, &link).with_context(|| format!("link {}", link.display()))?;
        Ok(link)
    }

    /// Puts a `kubeadm` into `dir`: the real one.
    pub fn link_kubeadm(&self, dir: &Path) -> Result<PathBuf> {
        let link = dir.join("kubeadm");
        std::os::unix::fs::symlink(&self.controlplane, &link).with_context(|| format!("link {}", link.display()))?;
        Ok(link)
    }

    /// The words that start a component in such a way that it ends when its standard input does.
    pub(crate) fn guarded(&self, component: &str) -> Vec<OsString> {
        let what = self
            .asset(component)
            .map_or_else(|| component.into(), PathBuf::into_os_string);
        vec![self.controlplane.clone().into(), "guard".into(), what]
    }

    fn asset(&self, name: &str) -> Option<PathBuf> {
        let path = self.assets.as_ref()?.join(name);
        matches!(name, "etcd" | "kube-apiserver" | "kubectl")
            .then_some(path)
            .filter(|path| path.exists())
    }
}

fn cache_dir() -> Result<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    Ok(base
        .context("neither XDG_CACHE_HOME nor HOME says where the cache is")?
        .join("kubectl-rotation"))
}

/// Removes binaries of older sources that nobody has used for a month; each is 160 MB.
fn forget_unused(cache: &Path) {
    let month = Duration::from_hours(30 * 24);
    for entry in std::fs::read_dir(cache).into_iter().flatten().flatten() {
        let used = std::fs::metadata(entry.path().join("controlplane")).and_then(|metadata| metadata.modified());
        let unused = used.is_ok_and(|used| used.elapsed().is_ok_and(|ago| ago > month));
        if unused && entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // Housekeeping may fail; the next build tries again.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn go(args: &[&str]) -> Command {
    let mut command = Command::new("go");
    command
        .args(args)
        .current_dir(MODULE)
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .stdin(Stdio::null());
    command
}

fn go_version() -> Result<String> {
    let out = go(&["env", "GOVERSION", "GOOS", "GOARCH"])
        .output()
        .context("run `go`: the test control plane is built from source, which needs Go 1.26 or newer")?;
    ensure!(
        out.status.success(),
        "`go env` failed: {}",
        String::from_utf8_lossy(&out.stderr).trim()
    );
    Ok(String::from_utf8(out.stdout)?
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" "))
}

/// The key of the cache: everything that the binary is made of.
fn key(module: &Path, version: &str) -> Result<String> {
    let mut sources: Vec<PathBuf> = std::fs::read_dir(module)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (name.ends_with(".go") && !name.ends_with("_test.go")) || name == "go.mod" || name == "go.sum"
        })
        .collect();
    sources.sort();
    let mut hash = Sha256::new();
    for part in [version, LINKER_FLAGS] {
        hash.update(part);
        hash.update([0]);
    }
    for source in sources {
        hash.update(source.file_name().unwrap_or_default().as_encoded_bytes());
        let bytes = std::fs::read(&source)?;
        hash.update(bytes.len().to_be_bytes());
        hash.update(bytes);
    }
    let digest = hash.finalize();
    Ok(digest
        .iter()
        .take(8)
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")))
}

fn build_once(dir: &Path, binary: &Path, version: &str) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let lock = File::create(dir.join("lock"))?;
    if lock.try_lock().is_err() {
        writeln!(
            std::io::stderr(),
            "Another process builds the test control plane; waiting for it."
        )?;
        lock.lock()?;
    }
    if binary.exists() {
        return Ok(());
    }
    let mut err = std::io::stderr();
    writeln!(
        err,
        "Building the test control plane (Kubernetes and etcd from source, {version})."
    )?;
    writeln!(
        err,
        "The first time this downloads 850 MB of Go modules and compiles for minutes; then it is kept in"
    )?;
    writeln!(err, "{}", dir.display())?;
    let mut progress = Progress::new();
    let packages = run(
        &mut progress,
        "finding out what is to be compiled",
        go(&["list", "-deps", "-f", "{{.Stale}}", "."]),
    )?;
    progress.total = packages.lines().filter(|line| *line == "true").count();
    // Under another name first: whoever sees the final name sees a whole file.
    let unfinished = dir.join("controlplane.unfinished");
    let mut build = go(&["build", "-v", "-ldflags", LINKER_FLAGS, "-o"]);
    build.arg(&unfinished).arg(".");
    run(&mut progress, "compiling", build)?;
    std::fs::rename(&unfinished, binary)?;
    progress.end("built");
    Ok(())
}

/// Runs a go command, feeds its standard error to the progress display, and gives back its standard output.
fn run(progress: &mut Progress, doing: &'static str, mut command: Command) -> Result<String> {
    progress.doing = doing;
    progress.show(true);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().context("no standard output")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let mut complaints = Vec::new();
    for line in BufReader::new(child.stderr.take().context("no standard error")?).lines() {
        let line = line?;
        if line.starts_with("go: downloading ") {
            progress.downloaded += 1;
        } else if line.contains([' ', ':']) {
            complaints.push(line);
        } else {
            progress.compiled += 1;
        }
        progress.show(false);
    }
    let text = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader of go's output failed"))??;
    if !child.wait()?.success() {
        progress.end("failed");
        bail!(
            "building the test control plane failed while {doing}:\n{}",
            complaints.join("\n")
        );
    }
    Ok(text)
}

/// One line that renews itself on a terminal; elsewhere a plain line now and then.
struct Progress {
    started: Instant,
    shown: Option<Instant>,
    terminal: bool,
    doing: &'static str,
    total: usize,
    compiled: usize,
    downloaded: usize,
}

impl Progress {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            started: Instant::now(),
            shown: None,
            terminal,
            doing: "",
            total: 0,
            compiled: 0,
            downloaded: 0,
        }
    }

    fn show(&mut self, now: bool) {
        let pause = Duration::from_millis(if self.terminal { 100 } else { 10_000 });
        if !now && self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let (before, after) = if self.terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        // Progress that cannot be shown is no reason to fail.
        let _ = write!(std::io::stderr(), "{before}  {}{after}", self.line());
    }

    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs();
        let mut parts = vec![format!("{}m{:02}s  {}", seconds / 60, seconds % 60, self.doing)];
        if self.downloaded > 0 {
            parts.push(format!("{} modules downloaded", self.downloaded));
        }
        if self.total > 0 {
            parts.push(format!(
                "{} of {} packages",
                self.compiled,
                self.total.max(self.compiled)
            ));
        }
        parts.join(", ")
    }

    fn end(&mut self, doing: &'static str) {
        (self.doing, self.total) = (doing, 0);
        self.show(true);
        if self.terminal {
            let _ = writeln!(std::io::stderr());
        }
    }
}
