//! The platforms of a release, by their names in Go, which krew uses, and in Rust.

/// An operating system and an architecture.
#[derive(Debug, PartialEq, Eq)]
pub struct Platform {
    /// GOOS.
    pub os: &'static str,
    /// GOARCH.
    pub arch: &'static str,
    /// The Rust target without the C library.
    triples: &'static [&'static str],
}

/// All platforms, in the order of the manifests. Windows is untested and not included.
pub const PLATFORMS: [Platform; 4] = [
    Platform {
        os: "linux",
        arch: "amd64",
        triples: &["x86_64-unknown-linux-musl", "x86_64-unknown-linux-gnu"],
    },
    Platform {
        os: "linux",
        arch: "arm64",
        triples: &["aarch64-unknown-linux-musl", "aarch64-unknown-linux-gnu"],
    },
    Platform {
        os: "darwin",
        arch: "amd64",
        triples: &["x86_64-apple-darwin"],
    },
    Platform {
        os: "darwin",
        arch: "arm64",
        triples: &["aarch64-apple-darwin"],
    },
];

impl Platform {
    /// The platform of a Rust target such as `x86_64-unknown-linux-musl`. `None` if there are no archives for it.
    pub fn of_target(target: &str) -> Option<&'static Self> {
        PLATFORMS.iter().find(|platform| platform.triples.contains(&target))
    }
}
