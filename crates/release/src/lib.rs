//! A release: the table of the plugins, their archives, and their krew manifests.
//!
//! ```no_run
//! # fn example() -> anyhow::Result<()> {
//! use release::{PLATFORMS, PLUGINS, Release, archive};
//! let release = Release::current();
//! let (plugin, platform) = (&PLUGINS[0], &PLATFORMS[0]);
//! let bytes = archive::pack(plugin, &std::fs::read("kubectl-crt")?, &[], archive::Compression::best())?;
//! let manifest = release.manifest(plugin, &[(platform, archive::sum(&bytes))])?;
//! # Ok(()) }
//! ```

pub mod archive;
pub mod manifest;
mod platforms;
mod plugins;

pub use platforms::{PLATFORMS, Platform};
pub use plugins::{PLUGINS, Plugin};

/// A version, and the URL of its archives.
#[derive(Clone, Debug)]
pub struct Release {
    /// The tag: `v0.1.0`.
    pub version: String,
    /// The base URL. Each version has a directory with its archives under it.
    pub downloads: String,
}

impl Release {
    /// The current version on GitHub.
    pub fn current() -> Self {
        Self {
            version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
            downloads: concat!(env!("CARGO_PKG_REPOSITORY"), "/releases/download").to_owned(),
        }
    }

    /// The file name of an archive: `kubectl-crt_v0.1.0_linux_amd64.tar.gz`.
    pub fn archive(&self, plugin: &Plugin, platform: &Platform) -> String {
        let Platform { os, arch, .. } = platform;
        format!("{}_{}_{os}_{arch}.tar.gz", plugin.binary(), self.version)
    }

    /// Where it is downloaded from.
    pub fn uri(&self, plugin: &Plugin, platform: &Platform) -> String {
        format!("{}/{}/{}", self.downloads, self.version, self.archive(plugin, platform))
    }
}
