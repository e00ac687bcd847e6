//! The platforms that a release may have archives for, by Go's names, which are krew's, and by Rust's.

/// An operating system on a kind of processor.
#[derive(Debug, PartialEq, Eq)]
pub struct Platform {
    /// As GOOS has it.
    pub os: &'static str,
    /// As GOARCH has it.
    pub arch: &'static str,
    /// What Rust calls it, whatever the C library.
    triples: &'static [&'static str],
}

/// All of them, in the order of the manifests. Windows is not among them: the plugins were never run there.
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
    /// The platform of a Rust target such as `x86_64-unknown-linux-musl`; nothing if there are no archives for it.
    pub fn of_target(target: &str) -> Option<&'static Self> {
        PLATFORMS.iter().find(|platform| platform.triples.contains(&target))
    }
}
