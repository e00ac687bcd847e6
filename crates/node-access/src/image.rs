//! Which image a pod on a node can use without a download: one that the node has, with `sh` and `nsenter`.

/// Names of repositories that have both, the smallest first.
const SUITABLE: [&str; 9] = [
    "mirrored-library-busybox",
    "busybox",
    "klipper-helm",
    "klipper-lb",
    "alpine",
    "harvester-upgrade",
    "rancher/shell",
    "rancher-agent",
    "system-agent-installer",
];

/// An image of `Node.status.images`, each with all its names.
pub(crate) fn choose(images: &[Vec<String>]) -> Option<&str> {
    SUITABLE.iter().find_map(|suitable| {
        let names = images.iter().flatten();
        let is_suitable = |name: &&String| {
            let repository = repository(name);
            let is_whole = repository
                .strip_suffix(suitable)
                .is_some_and(|before| before.is_empty() || before.ends_with('/'));
            // Without a tag the kubelet would look for `latest`.
            is_whole && name.len() > repository.len() && !name.contains("<none>")
        };
        // A digest is exact, but some runtimes have it only for images that they have pulled themselves.
        let mut suitable: Vec<&String> = names.filter(is_suitable).collect();
        suitable.sort_by_key(|name| name.contains('@'));
        suitable.first().map(|name| name.as_str())
    })
}

/// A name without tag and digest.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::choose;

    #[rstest]
    #[case(&["docker.io/rancher/klipper-helm:v0.9", "docker.io/rancher/mirrored-library-busybox:1.36"], Some("docker.io/rancher/mirrored-library-busybox:1.36"))]
    #[case(&["registry:5000/busybox@sha256:00", "registry:5000/busybox:1"], Some("registry:5000/busybox:1"))]
    #[case(&["busybox@sha256:00"], Some("busybox@sha256:00"))]
    #[case(&["docker.io/rancher/shell:v0.4"], Some("docker.io/rancher/shell:v0.4"))]
    #[case(&["notbusybox:1", "registry:5000/busybox", "docker.io/rancher/pause:3", "busybox:<none>"], None)]
    #[case(&[], None)]
    fn an_image_with_a_shell_is_chosen(#[case] names: &[&str], #[case] expected: Option<&str>) {
        let images: Vec<Vec<String>> = names.iter().map(|name| vec![(*name).to_owned()]).collect();
        assert_eq!(choose(&images), expected);
    }
}
