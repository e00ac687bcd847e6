//! What is released, and in which form: the table of the plugins, their archives, and the manifests by which krew finds
//! them.
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

/// One version, and the place that its archives are downloaded from.
#[derive(Clone, Debug)]
pub struct Release {
    /// As a tag has it: `v0.1.0`.
    pub version: String,
    /// The URL below which each version has a directory with its archives.
    pub downloads: String,
}

impl Release {
    /// The version that this was built from, on GitHub.
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
