//! In whose name things are told: the OpenTelemetry resource of this agent, and those of the owners of connections.

use std::sync::Arc;

use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};

use crate::config::Otlp as Settings;
use crate::owner::identity::Instance;
use crate::owner::{Directory, Identity};

/// Version of the semantic conventions that names and values follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Name of the instrumentation scope.
pub const SCOPE: &str = "synfin";

/// What is known without being told, then what the configuration says, which has read `OTEL_RESOURCE_ATTRIBUTES` and
/// `OTEL_SERVICE_NAME`: the later wins.
pub fn resource(settings: &Settings) -> Resource {
    let configured = settings.resource_attributes.iter();
    Resource::builder_empty()
        .with_schema_url(detected(), SCHEMA_URL)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(configured.map(|(key, value)| KeyValue::new(key.clone(), value.clone())))
        .with_attribute(KeyValue::new("service.name", settings.service_name.clone()))
        .build()
}

/// Owners of connections, and the resources in whose name theirs are told.
#[derive(Clone, Debug)]
pub struct Owners {
    /// Which cgroup is whose.
    pub directory: Directory,
    common: Arc<[KeyValue]>,
    /// What tells this host from others.
    host: Arc<str>,
}

impl Owners {
    /// Owners on the host of `agent`. What its resource says of host, cluster and deployment holds for them too; what it says of the
    /// agent itself, its process, container and pod, does not.
    pub fn new(directory: Directory, agent: &Resource) -> Self {
        let common = agent.iter().filter(|(key, _)| !is_of_agent(key.as_str()));
        let common = common.map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
        let value = |key| agent.get(&Key::from_static_str(key)).map(|value| value.to_string());
        let host = value("host.id").or_else(|| value("host.name")).unwrap_or_default().into();
        Self { directory, common, host }
    }

    /// The resource of an owner.
    pub fn resource_of(&self, identity: &Identity) -> Resource {
        let instance = match identity.instance() {
            Instance::Global(id) => id.to_owned(),
            Instance::Local(id) => format!("{}:{id}", self.host),
        };
        let restarts = identity.restarts().map(|count| KeyValue::new("k8s.container.restart_count", i64::from(count)));
        Resource::builder_empty()
            .with_schema_url(self.common.iter().cloned(), SCHEMA_URL)
            .with_attributes(identity.attributes().map(|(key, value)| KeyValue::new(key, value.to_owned())))
            .with_attributes(restarts)
            .with_attribute(KeyValue::new("service.instance.id", instance))
            .build()
    }
}

/// Whether an attribute of the agent's resource is about the agent, and not about where it runs.
fn is_of_agent(key: &str) -> bool {
    let is_below = |groups: &[&str]| groups.iter().any(|group| key.starts_with(group));
    is_below(&["container.", "process.", "service."])
        || is_below(&["k8s."]) && !is_below(&["k8s.cluster.", "k8s.node."])
}

fn detected() -> Vec<KeyValue> {
    let system = rustix::system::uname();
    let mut attributes = vec![
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance_id()),
        KeyValue::new("host.name", system.nodename().to_string_lossy().into_owned()),
        KeyValue::new("host.arch", architecture(std::env::consts::ARCH)),
        KeyValue::new("os.type", "linux"),
        KeyValue::new("os.version", system.release().to_string_lossy().into_owned()),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    // In a container this is the container's file, if there is one: a node's id comes from OTEL_RESOURCE_ATTRIBUTES.
    if let Ok(id) = std::fs::read_to_string("/etc/machine-id")
        && !id.trim().is_empty()
    {
        attributes.push(KeyValue::new("host.id", id.trim().to_owned()));
    }
    attributes
}

/// The value of `host.arch`, which spells two of them otherwise than Rust.
const fn architecture(rust: &'static str) -> &'static str {
    match rust.as_bytes() {
        b"x86_64" => "amd64",
        b"aarch64" => "arm64",
        _ => rust,
    }
}

/// A random UUID (version 4): a new one for each start, as the convention wants where nothing better is known.
fn instance_id() -> String {
    let mut bytes = RandomIdGenerator::default().new_trace_id().to_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::owner::Logs;

    fn value(resource: &Resource, key: &'static str) -> Option<String> {
        resource.get(&Key::from_static_str(key)).map(|value| value.to_string())
    }

    #[test]
    fn it_tells_service_host_and_system() {
        let resource = resource(&Settings::default());
        assert_eq!(resource.schema_url(), Some(SCHEMA_URL));
        assert_eq!(value(&resource, "service.name").as_deref(), Some("synfin"));
        assert_eq!(value(&resource, "service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(value(&resource, "os.type").as_deref(), Some("linux"));
        assert_eq!(value(&resource, "process.pid"), Some(std::process::id().to_string()));
        assert!(value(&resource, "host.name").is_some_and(|name| !name.is_empty()));
        assert_eq!(value(&resource, "telemetry.sdk.language").as_deref(), Some("rust"));
    }

    #[test]
    fn what_the_user_says_wins() {
        let settings = Settings {
            service_name: "edge".to_owned(),
            resource_attributes: [("host.name".to_owned(), "h".to_owned())].into(),
            ..Settings::default()
        };
        assert_eq!(value(&resource(&settings), "service.name").as_deref(), Some("edge"));
        assert_eq!(value(&resource(&settings), "host.name").as_deref(), Some("h"));
    }

    #[test]
    fn an_owner_has_the_host_of_the_agent_and_nothing_else_of_it() {
        const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        const UID: &str = "0a1b2c3d-0001-4fff-8abc-0123456789ab";
        let about = [
            ("deployment.environment.name", "production"),
            ("host.id", "h1"),
            ("k8s.cluster.name", "blue"),
            ("k8s.namespace.name", "monitoring"),
            ("k8s.node.name", "n1"),
            ("k8s.pod.name", "synfin-x"),
            ("k8s.pod.uid", "of the agent"),
            ("service.namespace", "monitoring"),
        ];
        let resource_attributes = about.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let agent = resource(&Settings { resource_attributes, ..Settings::default() });
        let logs = Logs { pods: "/nonexistent".into(), containers: "/nonexistent".into() };
        let owners = Owners::new(Directory::start(logs, Duration::ZERO).unwrap(), &agent);

        let container = owners.resource_of(&Identity::of(&format!("/kubepods/pod{UID}/{ID}")).unwrap());
        assert_eq!(container.schema_url(), Some(SCHEMA_URL));
        for (key, wanted) in [
            ("container.id", Some(ID)),
            ("deployment.environment.name", Some("production")),
            ("host.id", Some("h1")),
            ("k8s.cluster.name", Some("blue")),
            ("k8s.namespace.name", None),
            ("k8s.node.name", Some("n1")),
            ("k8s.pod.name", None),
            ("k8s.pod.uid", Some(UID)),
            ("os.type", Some("linux")),
            ("process.pid", None),
            ("service.instance.id", Some(ID)),
            ("service.name", None),
            ("service.namespace", None),
            ("service.version", None),
            ("telemetry.sdk.language", Some("rust")),
        ] {
            assert_eq!(value(&container, key).as_deref(), wanted, "{key}");
        }
        assert_eq!(value(&container, "host.name"), value(&agent, "host.name"));

        let service = owners.resource_of(&Identity::of("/system.slice/nginx.service/worker").unwrap());
        assert_eq!(value(&service, "service.name").as_deref(), Some("nginx"));
        assert_eq!(value(&service, "service.instance.id").as_deref(), Some("h1:/system.slice/nginx.service"));
    }

    #[test]
    fn each_start_has_a_uuid_of_its_own() {
        let id = instance_id();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&id.as_bytes()[19]));
        assert_ne!(id, instance_id());
    }
}
