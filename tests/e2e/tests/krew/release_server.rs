//! A project with releases: archives on a local web server, and an index in a git repository.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use anyhow::{Context as _, Result};
use release::archive::Compression;
use release::{Platform, Plugin, Release, archive};
use tempfile::TempDir;

use crate::home::KrewHome;

/// The archives are in `downloads`, which the web server serves. The index is in `index`.
pub(crate) struct ReleaseServer {
    dir: TempDir,
    downloads: String,
}

impl ReleaseServer {
    /// Starts it with an empty index. It serves until the process ends.
    pub(crate) fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::create_dir_all(dir.path().join("index/plugins"))?;
        let served = dir.path().join("downloads");
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let downloads = format!("http://{}", listener.local_addr()?);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // krew may close a connection.
                let _ = answer(&stream, &served);
            }
        });
        Ok(Self { dir, downloads })
    }

    /// A release with this version, and the URL of its downloads.
    pub(crate) fn release(&self, version: &str) -> Release {
        Release {
            version: version.to_owned(),
            downloads: self.downloads.clone(),
        }
    }

    /// Publishes a plugin's archive on the web server. Returns the file and its manifest.
    pub(crate) fn publish(&self, plugin: &Plugin, version: &str) -> Result<(PathBuf, String)> {
        let (release, platform) = (self.release(version), this_platform()?);
        let archive = packed(plugin)?;
        let dir = self.dir.path().join("downloads").join(version);
        fs::create_dir_all(&dir)?;
        let file = dir.join(release.archive(plugin, platform));
        fs::write(&file, &archive.bytes)?;
        let manifest = release.manifest(plugin, &[(platform, archive.sum.clone())])?;
        Ok((file, manifest))
    }

    /// Commits a manifest into the index. krew sees only committed files.
    pub(crate) fn commit(&self, home: &KrewHome, plugin: &Plugin, manifest: &str) -> Result<()> {
        let index = self.dir.path().join("index");
        fs::write(index.join("plugins").join(format!("{}.yaml", plugin.name)), manifest)?;
        let index = index.to_str().context("a path that is not UTF-8")?;
        for command in [
            ["init", "--quiet"].as_slice(),
            &["add", "--all"],
            &["commit", "--quiet", "--message", "Release"],
        ] {
            home.run("git", &[&["-C", index], command].concat())?.success()?;
        }
        Ok(())
    }

    /// The URL of the index, for `kubectl krew index add`.
    pub(crate) fn index(&self) -> String {
        format!("file://{}", self.dir.path().join("index").display())
    }
}

/// The platform of the programs that the tests use.
pub(crate) fn this_platform() -> Result<&'static Platform> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    Platform::of_target(&target).context("there is no release for this machine")
}

/// The archive of a plugin that this workspace has built for the tests.
struct Packed {
    bytes: Vec<u8>,
    sum: String,
}

/// Packs each plugin once for all tests, without compression, which would take most of the time.
fn packed(plugin: &Plugin) -> Result<&'static Packed> {
    static PACKED: LazyLock<Mutex<BTreeMap<&'static str, &'static Packed>>> = LazyLock::new(Mutex::default);
    let mut all = PACKED.lock().expect("no test panics while it packs");
    if let Some(packed) = all.get(plugin.name) {
        return Ok(packed);
    }
    let program = fs::read(test_cluster::built(&plugin.binary())?)?;
    let man_page = (format!("{}.1", plugin.binary()), b".TH".to_vec());
    let bytes = archive::pack(plugin, &program, &[man_page], Compression::none())?;
    let packed: &'static Packed = Box::leak(Box::new(Packed {
        sum: archive::sum(&bytes),
        bytes,
    }));
    all.insert(plugin.name, packed);
    Ok(packed)
}

/// Answers a download by HTTP.
fn answer(mut stream: &TcpStream, dir: &Path) -> Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().context("no request")??;
    let path = request.split(' ').nth(1).context("no path")?;
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (status, body) = match fs::read(dir.join(path.trim_start_matches('/'))) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    Ok(stream.write_all(&body)?)
}
