//! Names of pods and containers without asking anybody: the kubelet has them in the names of its log files.
//!
//! `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/RESTARTS.log`, and `/var/log/containers/…-ID.log`, which is a link to the former. The
//! folders are made before the container is, the link when it has started.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Entries of a folder that are looked at, at most.
const LIMIT: usize = 65_536;

/// Where the kubelet keeps its logs.
#[derive(Clone, Debug)]
pub struct Logs {
    /// Folders by pod and container.
    pub pods: PathBuf,
    /// Links by container.
    pub containers: PathBuf,
}

/// What a pod is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PodNames {
    pub(super) namespace: String,
    pub(super) pod: String,
}

/// What a container is called in its pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ContainerNames {
    pub(super) container: String,
    /// How often it was started again, where that is certain.
    pub(super) restarts: Option<u32>,
}

impl Logs {
    /// The names of a pod, and the folders of its containers.
    pub(super) fn pod(&self, uid: &str) -> Option<(PodNames, Vec<String>)> {
        entries(&self.pods).find_map(|entry| {
            let names = pod_of(&entry, uid)?;
            let containers = entries(&self.pods.join(&entry)).filter(|name| is_name(name)).collect();
            Some((names, containers))
        })
    }

    /// The names of a container of this pod, by what its link leads to.
    pub(super) fn container(&self, id: &str, uid: &str) -> Option<ContainerNames> {
        let ending = format!("-{id}.log");
        let link = entries(&self.containers).find(|name| name.ends_with(&ending))?;
        let target = fs::read_link(self.containers.join(link)).ok()?;
        let folder = target.parent()?;
        pod_of(text(folder.parent()?.file_name())?, uid)?;
        let container = text(folder.file_name()).filter(|name| is_name(name))?.to_owned();
        let restarts = text(target.file_stem()).and_then(|number| number.parse().ok());
        Some(ContainerNames { container, restarts })
    }
}

/// `NAMESPACE_POD_UID`: none of the three can contain the `_`.
fn pod_of(folder: &str, uid: &str) -> Option<PodNames> {
    let (namespace, pod) = folder.strip_suffix(uid)?.strip_suffix('_')?.split_once('_')?;
    (is_name(namespace) && is_name(pod)).then(|| PodNames { namespace: namespace.to_owned(), pod: pod.to_owned() })
}

/// What Kubernetes allows: a DNS subdomain.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    (1..=253).contains(&text.len()) && text.bytes().all(allowed)
}

fn text(name: Option<&OsStr>) -> Option<&str> {
    name.and_then(OsStr::to_str)
}

/// Names in a folder; a folder that is not there is empty.
fn entries(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(LIMIT);
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0a1b2c3d-0001-4fff-8abc-0123456789ab";
    const OTHER: &str = "0a1b2c3d-0002-4fff-8abc-0123456789ab";

    /// Logs as a kubelet keeps them, with a link for each `(container, restarts, id)`.
    fn logs(containers: &[(&str, u32, &str)]) -> (tempfile::TempDir, Logs) {
        let root = tempfile::tempdir().unwrap();
        let logs = Logs { pods: root.path().join("pods"), containers: root.path().join("containers") };
        fs::create_dir_all(&logs.containers).unwrap();
        fs::create_dir_all(logs.pods.join(format!("kube-system_dns-7d4b_{OTHER}/dns"))).unwrap();
        for (container, restarts, id) in containers {
            let folder = logs.pods.join(format!("shop_web.v2-0_{UID}")).join(container);
            fs::create_dir_all(&folder).unwrap();
            let link = logs.containers.join(format!("web.v2-0_shop_{container}-{id}.log"));
            std::os::unix::fs::symlink(folder.join(format!("{restarts}.log")), link).unwrap();
        }
        (root, logs)
    }

    #[test]
    fn a_pod_has_its_names_in_the_name_of_its_folder() {
        let (_root, logs) = logs(&[("nginx", 0, "aa"), ("sidecar", 2, "bb")]);
        let (names, mut containers) = logs.pod(UID).unwrap();
        containers.sort();
        assert_eq!(names, PodNames { namespace: "shop".to_owned(), pod: "web.v2-0".to_owned() });
        assert_eq!(containers, ["nginx", "sidecar"]);
        assert_eq!(logs.pod("0a1b2c3d-0003-4fff-8abc-0123456789ab"), None);
        assert_eq!(logs.pod(&UID[1..]), None, "a part of a UID is none");
    }

    #[test]
    fn a_container_has_its_names_in_what_its_link_leads_to() {
        let (_root, logs) = logs(&[("nginx", 0, "aa"), ("sidecar", 2, "bb")]);
        let names = |container: &str, restarts| ContainerNames { container: container.to_owned(), restarts };
        assert_eq!(logs.container("bb", UID), Some(names("sidecar", Some(2))));
        assert_eq!(logs.container("aa", UID), Some(names("nginx", Some(0))));
        assert_eq!(logs.container("aa", OTHER), None, "a link of another pod");
        assert_eq!(logs.container("cc", UID), None);
    }

    #[test]
    fn what_no_kubelet_makes_names_nothing() {
        for folder in ["_web_UID", "shop__UID", "shop_UID", "shop_we_b_UID", "shop_We b_UID", "UID", "shop_web_UIDx"] {
            assert_eq!(pod_of(&folder.replace("UID", UID), UID), None, "{folder}");
        }
        let nowhere = Logs { pods: "/nonexistent".into(), containers: "/nonexistent".into() };
        assert_eq!((nowhere.pod(UID), nowhere.container("aa", UID)), (None, None));
    }
}
