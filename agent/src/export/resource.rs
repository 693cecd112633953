//! Who sends: the OpenTelemetry resource of this agent.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};

use crate::config::Otlp as Settings;

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

/// Placeholder until the room of owners is merged.
pub fn of_owner(host: &Resource, identity: &crate::owner::identity::Identity) -> Resource {
    let host = host.iter().filter(|(key, _)| key.as_str().starts_with("host.") || key.as_str().starts_with("os."));
    Resource::builder_empty()
        .with_schema_url(host.map(|(key, value)| KeyValue::new(key.clone(), value.clone())), SCHEMA_URL)
        .with_attributes(identity.attributes().map(|(key, value)| KeyValue::new(key, value.to_owned())))
        .build()
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
    use opentelemetry::Key;

    use super::*;

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
    fn each_start_has_a_uuid_of_its_own() {
        let id = instance_id();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&id.as_bytes()[19]));
        assert_ne!(id, instance_id());
    }
}
