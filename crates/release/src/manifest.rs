//! The krew manifest of a plugin: the URL and the checksum of each archive (krew v0.5.0, pkg/index/types.go).
//!
//! It lists only platforms whose archive has been built, since the checksum of any other archive is unknown. Before the
//! first release it lists one platform with a checksum of zeros.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_saphyr::LitString;

use crate::{PLATFORMS, Platform, Plugin, Release, archive};

/// The checksum before there is an archive. krew rejects any download with it.
const NO_ARCHIVE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Unknown fields are errors, to find misspelt ones. krew ignores them.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    version: String,
    homepage: String,
    short_description: String,
    description: LitString,
    caveats: LitString,
    platforms: Vec<Download>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Download {
    selector: Selector,
    uri: String,
    sha256: String,
    bin: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    match_labels: BTreeMap<String, String>,
}

impl Selector {
    fn of(platform: &Platform) -> Self {
        let labels = [("arch", platform.arch), ("os", platform.os)];
        Self {
            match_labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }
    }
}

impl Release {
    /// The manifest of a plugin for the platforms with a checksum. krew requires at least one platform.
    pub fn manifest(&self, plugin: &Plugin, sums: &[(&Platform, String)]) -> Result<String> {
        let none = [(&PLATFORMS[0], NO_ARCHIVE.to_owned())];
        let sums = if sums.is_empty() { &none } else { sums };
        let platforms = sums.iter().map(|(platform, sum)| Download {
            selector: Selector::of(platform),
            uri: self.uri(plugin, platform),
            sha256: sum.clone(),
            bin: plugin.binary(),
        });
        let manifest = Manifest {
            api_version: "krew.googlecontainertools.github.com/v1alpha2".to_owned(),
            kind: "Plugin".to_owned(),
            metadata: Metadata {
                name: plugin.name.to_owned(),
            },
            spec: Spec {
                version: self.version.clone(),
                homepage: plugin.homepage(),
                short_description: plugin.short_description.to_owned(),
                description: LitString(plugin.description.to_owned()),
                caveats: LitString(plugin.caveats()),
                platforms: platforms.collect(),
            },
        };
        // An address stays on one line, however long it is.
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        let yaml = serde_saphyr::to_string_with_options(&manifest, options)?;
        Ok(format!("# Written by `cargo xtask dist --manifests`.\n{yaml}"))
    }

    /// The checksums of a plugin's archives. Those of platforms without an archive in the directory `archives` are
    /// taken from the manifest `before`, if it has the same version.
    pub fn sums(
        &self,
        plugin: &Plugin,
        archives: Option<&Path>,
        before: Option<&str>,
    ) -> Result<Vec<(&'static Platform, String)>> {
        let before: Option<Manifest> = before
            .map(serde_saphyr::from_str)
            .transpose()
            .context("read the manifest that is there")?;
        let before = before.filter(|manifest| manifest.spec.version == self.version);
        let mut sums = Vec::new();
        for platform in &PLATFORMS {
            let file = archives.map(|dir| dir.join(self.archive(plugin, platform)));
            let built = file.filter(|file| file.is_file());
            let sum = match (built, &before) {
                (Some(file), _) => Some(archive::sum(
                    &std::fs::read(&file).with_context(|| format!("read {}", file.display()))?,
                )),
                (None, Some(before)) => before.sum_of(platform),
                (None, None) => None,
            };
            sums.extend(sum.map(|sum| (platform, sum)));
        }
        Ok(sums)
    }
}

impl Manifest {
    fn sum_of(&self, platform: &Platform) -> Option<String> {
        let wanted = Selector::of(platform).match_labels;
        let mut downloads = self.spec.platforms.iter();
        let found = downloads.find(|download| download.selector.match_labels == wanted)?;
        Some(found.sha256.clone()).filter(|sum| sum != NO_ARCHIVE)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;
    use crate::PLUGINS;

    fn release(version: &str) -> Release {
        Release {
            version: version.to_owned(),
            ..Release::current()
        }
    }

    /// Everything but the sums, which only a build can know, is written again and compared.
    #[test]
    fn the_manifests_in_krew_are_what_the_table_says() {
        let index = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../krew/plugins");
        let files = fs::read_dir(&index)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let expected = PLUGINS.iter().map(|plugin| format!("{}.yaml", plugin.name));
        assert_eq!(
            files.collect::<BTreeSet<_>>(),
            expected.collect(),
            "the files in krew/plugins"
        );
        for plugin in PLUGINS {
            let there = fs::read_to_string(index.join(format!("{}.yaml", plugin.name))).unwrap();
            let release = Release::current();
            let sums = release.sums(plugin, None, Some(&there)).unwrap();
            let expected = release.manifest(plugin, &sums).unwrap();
            assert_eq!(there, expected, "stale: run `cargo xtask dist --manifests`");
        }
    }

    #[test]
    fn sums_of_archives_built_elsewhere_stay_and_those_of_another_version_go() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (release("v1.0.0"), release("v1.0.1"));
        let plugin = &PLUGINS[0];
        let [amd64, arm64] = [&PLATFORMS[0], &PLATFORMS[1]];
        let elsewhere = [(amd64, "0".repeat(64)), (arm64, "1".repeat(64))];
        let before = old.manifest(plugin, &elsewhere).unwrap();
        for release in [&old, &new] {
            fs::write(dir.path().join(release.archive(plugin, amd64)), "an archive").unwrap();
        }
        let here = (amd64, archive::sum(b"an archive"));
        let [_, there] = elsewhere;
        assert_eq!(
            old.sums(plugin, Some(dir.path()), Some(&before)).unwrap(),
            [here.clone(), there]
        );
        assert_eq!(new.sums(plugin, Some(dir.path()), Some(&before)).unwrap(), [here]);
    }

    #[test]
    fn before_the_first_archive_the_checksum_is_zero() {
        let release = release("v1.0.0");
        let manifest = release.manifest(&PLUGINS[0], &[]).unwrap();
        assert!(manifest.contains(NO_ARCHIVE), "{manifest}");
        assert_eq!(release.sums(&PLUGINS[0], None, Some(&manifest)).unwrap(), []);
    }

    #[test]
    fn a_misspelt_field_is_found() {
        let text = release("v1.0.0")
            .manifest(&PLUGINS[0], &[(&PLATFORMS[0], "0".repeat(64))])
            .unwrap();
        let misspelt = text.replace("caveats:", "caveat:");
        assert!(release("v1.0.0").sums(&PLUGINS[0], None, Some(&misspelt)).is_err());
    }
}
