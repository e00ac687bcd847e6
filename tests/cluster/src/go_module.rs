//! Programs from a Go module of this repository. They are built once into the user's cache directory, and again only
//! when the sources of the module change.
//!
//! The first build downloads the dependencies of the module and compiles them, with visible progress. No binaries are
//! downloaded.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

/// A module and its programs.
#[derive(Clone, Copy, Debug)]
pub struct GoModule {
    /// The prefix of its directories in the cache.
    pub name: &'static str,
    /// The directory of its go.mod.
    pub dir: &'static str,
    /// The name in progress messages.
    pub title: &'static str,
    /// The cost of the first build: `downloads …`.
    pub first_time: &'static str,
    /// Flags for Go's linker.
    pub linker_flags: &'static str,
    /// The packages to build. Each is a program.
    pub packages: &'static [&'static str],
    /// The resulting files.
    pub programs: &'static [&'static str],
}

impl GoModule {
    /// The directory in the cache with the programs. Builds them if necessary, with progress on standard error: this
    /// blocks for minutes the first time. Concurrent processes build them once.
    pub fn ensure(&self) -> Result<PathBuf> {
        let version = self.go_version()?;
        let cache = cache_dir()?;
        let dir = cache.join(format!("{}-{}", self.name, self.key(&version)?));
        if !self.is_built(&dir) {
            self.build_once(&dir, &version)?;
            self.forget_unused(&cache);
        }
        // Directories in use are newer than those that are removed.
        let _ = File::open(self.mark(&dir)).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(dir)
    }

    /// The sources of a dependency, in Go's own cache. Downloads them if they are missing. Blocks.
    pub fn source_of(&self, module: &str) -> Result<PathBuf> {
        let out = self
            .go(&["mod", "download", "-json", module])
            .output()
            .with_context(|| format!("run `go mod download {module}`"))?;
        let answer: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        let dir = answer["Dir"].as_str().with_context(|| {
            let complaint = String::from_utf8_lossy(&out.stderr);
            format!("`go mod download {module}` gave no directory: {answer} {complaint}")
        })?;
        Ok(dir.into())
    }

    fn is_built(&self, dir: &Path) -> bool {
        self.programs.iter().all(|program| dir.join(program).exists())
    }

    /// The file whose modification time is that of the last use.
    fn mark(&self, dir: &Path) -> PathBuf {
        dir.join(self.programs.first().unwrap_or(&""))
    }

    /// Removes programs from older sources that were unused for a month.
    fn forget_unused(&self, cache: &Path) {
        let month = Duration::from_hours(30 * 24);
        for entry in std::fs::read_dir(cache).into_iter().flatten().flatten() {
            let used = std::fs::metadata(self.mark(&entry.path())).and_then(|metadata| metadata.modified());
            let unused = used.is_ok_and(|used| used.elapsed().is_ok_and(|ago| ago > month));
            let prefix = format!("{}-", self.name);
            if unused && entry.file_name().to_string_lossy().starts_with(&prefix) {
                // This may fail. The next build tries again.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    fn go(&self, args: &[&str]) -> Command {
        let mut command = Command::new("go");
        command
            .args(args)
            .current_dir(self.dir)
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local")
            .stdin(Stdio::null());
        command
    }

    fn go_version(&self) -> Result<String> {
        let out = self
            .go(&["env", "GOVERSION", "GOOS", "GOARCH"])
            .output()
            .context("run `go`: what the tests run is built from source, which needs Go 1.26 or newer")?;
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

    /// The key of the cache: a hash of all sources.
    fn key(&self, version: &str) -> Result<String> {
        let mut sources = sources(Path::new(self.dir))?;
        sources.sort();
        let mut hash = Sha256::new();
        for part in [version, self.linker_flags] {
            hash.update(part);
            hash.update([0]);
        }
        for source in sources {
            let name = source.strip_prefix(self.dir).unwrap_or(&source);
            hash.update(name.as_os_str().as_encoded_bytes());
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

    fn build_once(&self, dir: &Path, version: &str) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        let lock = File::create(dir.join("lock"))?;
        if lock.try_lock().is_err() {
            writeln!(
                std::io::stderr(),
                "Another process builds {}; waiting for it.",
                self.title
            )?;
            lock.lock()?;
        }
        if self.is_built(dir) {
            return Ok(());
        }
        let mut err = std::io::stderr();
        writeln!(err, "Building {} by {version}.", self.title)?;
        writeln!(err, "The first time this {}; then it is kept in", self.first_time)?;
        writeln!(err, "{}", dir.display())?;
        let mut progress = Progress::new();
        let mut list = self.go(&["list", "-deps", "-f", "{{.Stale}}"]);
        list.args(self.packages);
        let packages = self.run(&mut progress, "finding out what is to be compiled", list)?;
        progress.total = packages.lines().filter(|line| *line == "true").count();
        // In another directory first, so that a program at its final path is complete.
        let unfinished = dir.join("unfinished");
        std::fs::create_dir_all(&unfinished)?;
        let mut build = self.go(&["build", "-v", "-ldflags", self.linker_flags, "-o"]);
        build.arg(&unfinished).args(self.packages);
        self.run(&mut progress, "compiling", build)?;
        for program in self.programs {
            std::fs::rename(unfinished.join(program), dir.join(program))
                .with_context(|| format!("{} does not come of {:?}", program, self.packages))?;
        }
        let _ = std::fs::remove_dir(&unfinished);
        progress.end("built");
        Ok(())
    }

    /// Runs a go command. Its standard error feeds the progress display. Returns its standard output.
    fn run(&self, progress: &mut Progress, doing: &'static str, mut command: Command) -> Result<String> {
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
                "building {} failed while {doing}:\n{}",
                self.title,
                complaints.join("\n")
            );
        }
        Ok(text)
    }
}

/// The Go files in this directory and below, and the files that select the modules.
fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(sources(&entry.path())?);
            continue;
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if (name.ends_with(".go") && !name.ends_with("_test.go")) || name == "go.mod" || name == "go.sum" {
            found.push(entry.path());
        }
    }
    Ok(found)
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

/// One updating line on a terminal, a plain line from time to time elsewhere.
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
        // A failure to show progress is ignored.
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
