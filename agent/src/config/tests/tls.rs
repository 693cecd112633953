//! Files for https, and what is told of those that cannot be used.

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://h:4317");
const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const CLIENT_CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
const CLIENT_KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";

/// A certificate and its key, in PEM.
fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["agent".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// Files in a folder of their own.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes one and gives its path.
    fn put(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        std::fs::write(self.0.path().join(name), contents).unwrap();
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

/// What is said about these variables beside an https endpoint.
fn complaints(variables: &[(&str, &str)]) -> Vec<String> {
    let variables = [&[ENDPOINT], variables].concat();
    let errors = config(env(&variables)).otlp.credentials().expect_err("a file is wrong");
    errors.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn files_are_read_for_https_alone_and_a_signals_own_win() {
    let files = Files::new();
    let ((ca, _), (other_ca, _), (certificate, key)) = (pair(), pair(), pair());
    let ca_path = files.put("ca.pem", format!("Our authority, caf\u{e9}\n{ca}"));
    let other = files.put("other.pem", format!("{other_ca}{ca}"));
    let both = files.put("both.pem", format!("{key}{certificate}"));
    let variables = [
        ENDPOINT,
        (CERTIFICATE, ca_path.as_str()),
        (CLIENT_CERTIFICATE, &both),
        (CLIENT_KEY, &both),
        ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", &other),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://h:4317"),
        ("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "/nowhere.pem"),
    ];
    let Loaded { config, warnings, .. } = env(&variables).unwrap();
    let named = "otlp.logs.certificate has no effect: no endpoint that it is for begins with https://";
    assert_eq!(warnings, [named]);
    let [traces, metrics, logs] = config.otlp.credentials().unwrap();
    let lines = |text: &str| text.lines().flat_map(|line| [line, "\n"]).collect::<String>();
    assert_eq!(traces.roots, Some(lines(&ca)));
    assert_eq!(metrics.roots, Some(lines(&format!("{other_ca}{ca}"))));
    assert_eq!(traces.identity, Some((lines(&certificate), lines(&key))));
    assert_eq!(traces.identity, metrics.identity);
    assert!(logs.roots.is_none() && logs.identity.is_none());
    assert!(!format!("{traces:?}").contains("BEGIN"));

    let printed = config.to_yaml();
    assert!(printed.contains(&other) && !printed.contains("BEGIN"), "{printed}");
    let Loaded { config: again, warnings, .. } = yaml(&printed).unwrap();
    assert_eq!((again, warnings), (config, vec![named.to_owned()]));
}

#[test]
fn all_variables_and_fields_say_the_same() {
    for (section, variable) in [("traces", "TRACES_"), ("metrics", "METRICS_"), ("logs", "LOGS_")] {
        let variables = ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"]
            .map(|name| (format!("OTEL_EXPORTER_OTLP_{variable}{name}"), format!("/own/{name}")));
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let by_variables = config(env(&[&[ENDPOINT], &variables[..]].concat()));
        let by_file = config(yaml(&format!(
            "otlp: {{endpoint: 'https://h:4317', {section}: {{certificate: /own/CERTIFICATE, \
             client_certificate: /own/CLIENT_CERTIFICATE, client_key: /own/CLIENT_KEY}}}}"
        )));
        assert_eq!(by_variables, by_file);
        assert_ne!(by_file, config(env(&[ENDPOINT])));
    }
}

#[test]
fn without_https_nothing_is_read() {
    let files = [(CERTIFICATE, "/nowhere/ca.pem"), (CLIENT_KEY, "/nowhere/key.pem")];
    let off = env(&files).unwrap();
    assert!(off.config.otlp.credentials().is_ok() && off.warnings.is_empty());
    let plain = env(&[&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4317")], &files[..]].concat()).unwrap();
    assert!(plain.config.otlp.credentials().is_ok());
    assert_eq!(plain.warnings.len(), 2, "{:?}", plain.warnings);
}

#[test]
fn each_file_that_cannot_be_used_is_named_with_cause_and_fix() {
    let files = Files::new();
    let ((certificate, key), (_, other_key)) = (pair(), pair());
    let good = files.put("good.pem", &certificate);
    let good_key = files.put("good.key", &key);
    let ca = |path: &str| complaints(&[(CERTIFICATE, path)]).join("\n");
    let starts = |text: &str, path: &str, rest: &str| {
        let expected = format!("otlp.certificate = {path} (env {CERTIFICATE}): {rest}");
        assert!(text.starts_with(&expected), "{text}\n{expected}");
    };
    let missing = files.path("missing.pem");
    starts(&ca(&missing), &missing, "there is no such file; correct the path, or put the file there");
    let folder = files.path("");
    starts(&ca(&folder), &folder, "cannot be read: Is a directory");
    let empty = files.put("empty.pem", "");
    starts(&ca(&empty), &empty, "holds no certificate in PEM, a block that begins with -----BEGIN … CERTIFICATE-----");
    starts(&ca(&good_key), &good_key, "holds no certificate in PEM");
    let binary = files.put("binary.pem", [0x30, 0x82, 1, 2]);
    starts(&ca(&binary), &binary, "is binary (DER); convert it to PEM: `openssl x509`");
    let half: Vec<&str> = certificate.lines().take(4).collect();
    let half = files.put("half.pem", half.join("\n"));
    starts(&ca(&half), &half, "a certificate in it is damaged");
    let nonsense = files.put("nonsense.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    starts(&ca(&nonsense), &nonsense, "a certificate in it cannot be used (");
    let long = files.put("long.pem", vec![b' '; (4 << 20) + 1]);
    starts(&ca(&long), &long, "is longer than 4MiB");
    starts(&ca("/dev/zero"), "/dev/zero", "is longer than 4MiB");

    let pair =
        |certificate: &str, key: &str| complaints(&[(CLIENT_CERTIFICATE, certificate), (CLIENT_KEY, key)]).join("\n");
    let other = files.put("other.key", &other_key);
    let said = pair(&good, &other);
    let expected = format!(
        "otlp.client_certificate = {good} (env {CLIENT_CERTIFICATE}): is not the certificate of the key {other} \
         (otlp.client_key); name the pair that belongs together"
    );
    assert_eq!(said, expected);
    let key_says = |said: String, part: &str| {
        assert!(said.starts_with("otlp.client_key = ") && said.contains(part), "{said}");
    };
    key_says(pair(&good, &good), "holds no private key in PEM");
    let two = files.put("two.key", format!("{key}{other_key}"));
    key_says(pair(&good, &two), "holds several private keys");
    let locked = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let locked = files.put("locked.key", locked);
    key_says(pair(&good, &locked), "the key has a passphrase, and nobody is there to type it; `openssl pkey -in ");
    let odd = files.put("odd.key", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    key_says(pair(&good, &odd), "of no kind that TLS uses here");
    let damaged = files.put("damaged.key", "-----BEGIN PRIVATE KEY-----\ns3cret!\n-----END PRIVATE KEY-----\n");
    let said = pair(&good, &damaged);
    assert!(!said.contains("s3cret"), "{said}");
    key_says(said, "a private key in it is damaged");
    key_says(complaints(&[(CLIENT_KEY, &good_key)]).join("\n"), "its certificate is missing; name that too");
    let said = complaints(&[(CLIENT_CERTIFICATE, &good)]).join("\n");
    assert!(said.contains("its private key is missing; name that too, by otlp.client_key or OTEL_"), "{said}");
}

#[test]
fn everything_wrong_is_told_at_once_and_once() {
    let said = complaints(&[(CERTIFICATE, "/nowhere/ca.pem"), (CLIENT_KEY, "/nowhere/key.pem")]);
    assert_eq!(said.len(), 2, "{said:?}");
    let errors = config(env(&[ENDPOINT, (CERTIFICATE, "/nowhere/ca.pem")])).otlp.credentials().unwrap_err();
    assert_eq!(crate::exit::Exit::of(&errors.into()), crate::exit::Exit::Usage);
    let error = yaml("otlp: {certificate: ''}").unwrap_err().to_string();
    assert!(
        error.contains("otlp.certificate =  (file") && error.contains("empty; remove it or give the path"),
        "{error}"
    );
}

#[test]
fn insecure_is_for_grpc_without_a_scheme() {
    let endpoint = |variables: &[(&str, &str)]| config(env(variables)).otlp.traces.unwrap().endpoint;
    let general = |endpoint| ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    let insecure = |value| ("OTEL_EXPORTER_OTLP_INSECURE", value);
    for (text, plain, secure) in [
        ("h:4317", "http://h:4317", "https://h:4317"),
        ("h", "http://h:4317", "https://h:4317"),
        ("10.0.0.1:80", "http://10.0.0.1", "https://10.0.0.1:80"),
        ("::1", "http://[::1]:4317", "https://[::1]:4317"),
        ("http://h:1", "http://h:1", "http://h:1"),
        ("https://h:1", "https://h:1", "https://h:1"),
    ] {
        assert_eq!(endpoint(&[general(text), insecure("true")]), plain);
        assert_eq!(endpoint(&[general(text), insecure("false")]), secure);
    }
    let own = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "t:1"),
        ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false"),
        insecure("true"),
    ];
    assert_eq!(endpoint(&own), "https://t:1");
    assert_eq!(endpoint(&own[..1].iter().chain(&own[2..]).copied().collect::<Vec<_>>()), "http://t:1");
    let over_http = [general("h:4318"), insecure("true"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    let error = env(&over_http).unwrap_err().to_string();
    assert!(error.contains("has no scheme; write http://h:4318"), "{error}");
    let printed = config(env(&[general("h"), insecure("true")]));
    assert_eq!(config(yaml(&printed.to_yaml())), printed);
}
