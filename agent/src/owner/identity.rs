//! What a cgroup is, in OpenTelemetry's words: a container, a pod, or a service of systemd.
//!
//! Made of the cgroup's path, and for pods of the names of their logs. What is neither has no identity: its connections are the host's.
//!
//! **`service.name` of a container is left open.** In Kubernetes the conventions compute it from the pod's annotations and labels and the
//! name of its workload, which nothing on the node tells, and a collector's `k8sattributes` computes it only where it is absent. Outside
//! of Kubernetes a cgroup has the id of a container and no name. A service of systemd has the name that whoever runs it gave it.

use super::cgroup;
use super::names::{ContainerNames, Logs, PodNames};

/// Whom connections belong to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    container: Option<String>,
    pod: Option<Pod>,
    service: Option<Service>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Pod {
    uid: String,
    names: Option<PodNames>,
    container: Option<ContainerNames>,
}

/// A unit of systemd.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Service {
    /// Of a template's instance the template's: its instances are one service.
    name: String,
    /// Path of its cgroup: on one host no other has it.
    path: String,
}

impl Identity {
    /// What the path of a cgroup says.
    pub fn of(path: &str) -> Option<Self> {
        let container = cgroup::container(path);
        let pod = cgroup::pod(path).map(|uid| Pod { uid, names: None, container: None });
        let service = match (container, &pod) {
            (None, None) => cgroup::service(path),
            // What a container of Podman's is started by is that container's service; any other is the runtime's.
            (Some(id), None) => cgroup::service(path).filter(|(unit, _)| {
                path[unit.len()..]
                    .trim_start_matches('/')
                    .strip_prefix("libpod-payload-")
                    .is_some_and(|rest| rest.starts_with(id))
            }),
            (_, Some(_)) => None,
        };
        let service = service.map(|(path, unit)| Service {
            name: unit.split_once('@').map_or(unit, |(template, _)| template).to_owned(),
            path: path.to_owned(),
        });
        let identity = Self { container: container.map(str::to_owned), pod, service };
        (identity.container.is_some() || identity.pod.is_some() || identity.service.is_some()).then_some(identity)
    }

    /// Adds what logs tell. Answers whether they may tell more in a moment.
    pub(super) fn name(&mut self, logs: &Logs) -> bool {
        let Some(pod) = &mut self.pod else { return false };
        let Some((names, mut folders)) = logs.pod(&pod.uid) else { return logs.pods.exists() };
        pod.names = Some(names);
        let Some(id) = &self.container else { return false };
        if let Some(names) = logs.container(id, &pod.uid) {
            pod.container = Some(names);
        } else if pod.container.is_none() && folders.len() == 1 {
            // The folder of a container is there before its first process is: the only one is its own.
            pod.container = folders.pop().map(|container| ContainerNames { container, restarts: None });
        }
        pod.container.as_ref().is_none_or(|names| names.restarts.is_none())
    }

    /// Attributes of a resource that are strings, with the keys of the semantic conventions.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let pod = self.pod.as_ref();
        let names = pod.and_then(|pod| pod.names.as_ref());
        let container = pod.and_then(|pod| pod.container.as_ref());
        [
            ("container.id", self.container.as_deref()),
            ("k8s.container.name", container.map(|names| names.container.as_str())),
            ("k8s.namespace.name", names.map(|names| names.namespace.as_str())),
            ("k8s.pod.name", names.map(|names| names.pod.as_str())),
            ("k8s.pod.uid", pod.map(|pod| pod.uid.as_str())),
            ("service.name", self.service.as_ref().map(|service| service.name.as_str())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
    }

    /// `k8s.container.restart_count`, where it is certain.
    pub fn restarts(&self) -> Option<u32> {
        self.pod.as_ref()?.container.as_ref()?.restarts
    }

    /// What no other has, of this host or of any: `service.instance.id`.
    pub fn instance(&self) -> Instance<'_> {
        match self {
            Self { container: Some(id), .. } => Instance::Global(id),
            Self { pod: Some(pod), .. } => Instance::Global(&pod.uid),
            Self { service, .. } => Instance::Local(service.as_ref().map_or("/", |service| &service.path)),
        }
    }
}

/// By what an owner is told from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instance<'a> {
    /// No other in the world has it.
    Global(&'a str),
    /// No other on this host has it.
    Local(&'a str),
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const OTHER: &str = "ffff456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "0a1b2c3d-0001-4fff-8abc-0123456789ab";

    fn told(identity: &Identity) -> Vec<(&'static str, String)> {
        identity.attributes().map(|(key, value)| (key, value.to_owned())).collect()
    }

    fn of(path: &str) -> Identity {
        Identity::of(path).unwrap_or_else(|| panic!("{path} names nothing"))
    }

    fn pod_path(id: &str) -> String {
        format!("/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{id}.scope", UID.replace('-', "_"))
    }

    #[test]
    fn a_path_says_what_a_cgroup_is() {
        let pod = |key: &'static str| (key, UID.to_owned());
        let container = || ("container.id", ID.to_owned());
        let service = |name: &str| ("service.name", name.to_owned());
        for (path, wanted) in [
            (pod_path(ID), vec![container(), pod("k8s.pod.uid")]),
            (format!("/kubepods/burstable/pod{UID}/{ID}"), vec![container(), pod("k8s.pod.uid")]),
            (format!("/kubepods/burstable/pod{UID}"), vec![pod("k8s.pod.uid")]),
            (format!("/system.slice/k3s.service/kubepods/pod{UID}/{ID}"), vec![container(), pod("k8s.pod.uid")]),
            (format!("/system.slice/docker-{ID}.scope"), vec![container()]),
            (format!("/docker/{ID}/system.slice/cron.service"), vec![container()]),
            (format!("/system.slice/containerd.service/default/{ID}"), vec![container()]),
            (format!("/system.slice/web.service/libpod-payload-{ID}"), vec![container(), service("web")]),
            ("/system.slice/nginx.service".to_owned(), vec![service("nginx")]),
            ("/system.slice/system-getty.slice/getty@tty1.service".to_owned(), vec![service("getty")]),
        ] {
            assert_eq!(told(&of(&path)), wanted, "{path}");
        }
        for path in
            ["/", "/init.scope", "/user.slice/user-0.slice/session-1.scope", "/kubepods.slice", "/machine.slice"]
        {
            assert_eq!(Identity::of(path), None, "{path}");
        }
    }

    #[test]
    fn cgroups_of_one_owner_are_one_and_instances_are_apart() {
        assert_eq!(of("/system.slice/nginx.service/a"), of("/system.slice/nginx.service/b"));
        let [a, b] = ["/x.slice/p@1.service", "/x.slice/p@2.service"].map(of);
        assert_eq!(told(&a), told(&b));
        assert_ne!(a, b);
        assert_eq!(a.instance(), Instance::Local("/x.slice/p@1.service"));
        assert_eq!(of(&pod_path(ID)).instance(), Instance::Global(ID));
        assert_eq!(of(&format!("/kubepods/pod{UID}")).instance(), Instance::Global(UID));
    }

    #[test]
    fn names_come_from_logs_and_only_where_they_are_certain() {
        let root = tempfile::tempdir().unwrap();
        let logs = Logs { pods: root.path().join("pods"), containers: root.path().join("containers") };
        let mut identity = of(&pod_path(ID));
        assert!(!identity.name(&logs), "there are no logs to wait for");
        fs::create_dir_all(&logs.pods).unwrap();
        assert!(identity.name(&logs), "they may still come");
        assert_eq!(told(&identity).len(), 2);

        let folder = logs.pods.join(format!("shop_web-0_{UID}"));
        fs::create_dir_all(folder.join("nginx")).unwrap();
        assert!(identity.name(&logs), "a link may still come");
        let named = told(&identity);
        for (key, value) in [("k8s.namespace.name", "shop"), ("k8s.pod.name", "web-0"), ("k8s.container.name", "nginx")]
        {
            assert!(named.contains(&(key, value.to_owned())), "{named:?}");
        }
        assert_eq!(identity.restarts(), None);

        // Of two containers a folder alone does not say which is which.
        fs::create_dir_all(folder.join("init")).unwrap();
        assert!(identity.name(&logs));
        assert_eq!(told(&identity), named, "it was certain");
        let mut other = of(&pod_path(OTHER));
        assert!(other.name(&logs));
        assert!(!told(&other).iter().any(|(key, _)| *key == "k8s.container.name"), "{other:?}");
        fs::create_dir_all(&logs.containers).unwrap();
        std::os::unix::fs::symlink(folder.join("init/3.log"), logs.containers.join(format!("x-{OTHER}.log"))).unwrap();
        assert!(!other.name(&logs), "all is known");
        assert!(told(&other).contains(&("k8s.container.name", "init".to_owned())), "{other:?}");
        assert_eq!(other.restarts(), Some(3));

        assert!(!of("/system.slice/nginx.service").name(&logs), "no pod, no logs");
    }
}
