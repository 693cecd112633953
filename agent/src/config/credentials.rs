//! The files of TLS, read and tried out at start: what is wrong with them is told then, not by a handshake that fails.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::otlp::{Otlp, Signal};
use super::problem::{ConfigErrors, Problem};
use super::tls::{PemFile, Tls};

/// More than any bundle of authorities takes; whoever names a device does not fill the memory.
const LONGEST: u64 = 4 << 20;

/// What TLS to one endpoint takes, in PEM. All of it has been tried out.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The authorities that are trusted; None: the system's.
    pub roots: Option<String>,
    /// The agent's own certificate, with those between it and its authority, and the private key of it.
    pub identity: Option<(String, String)>,
}

// By hand, so that no key gets into a log.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { roots, identity } = self;
        let (own_roots, identity) = (roots.is_some(), identity.is_some());
        f.debug_struct("Credentials").field("own_roots", &own_roots).field("identity", &identity).finish()
    }
}

impl Otlp {
    /// The files of traces, metrics and logs, as they are now. Only those are read that a connection needs.
    ///
    /// # Errors
    /// Everything that is wrong with any of them, at once.
    pub fn credentials(&self) -> Result<[Credentials; 3], ConfigErrors> {
        let mut problems = Vec::new();
        let credentials = [&self.traces, &self.metrics, &self.logs].map(|signal| match signal {
            Some(Signal { endpoint, tls, .. }) if endpoint.starts_with("https:") => read(tls, &mut problems),
            Some(_) | None => Credentials::default(),
        });
        // Three signals may share a file.
        let mut told = Vec::new();
        problems.retain(|problem| {
            let new = !told.contains(problem);
            told.extend(new.then(|| problem.clone()));
            new
        });
        ConfigErrors::unless_empty(problems)?;
        Ok(credentials)
    }
}

fn read(tls: &Tls, problems: &mut Vec<Problem>) -> Credentials {
    let roots = tls.certificate.as_ref().map(|file| roots(file).map_err(|message| (file, message)));
    let identity = match (&tls.client_certificate, &tls.client_key) {
        (Some(certificate), Some(key)) => Some(identity(certificate, key)),
        (Some(alone), None) => Some(Err((alone, missing("private key", "client_key", "CLIENT_KEY")))),
        (None, Some(alone)) => Some(Err((alone, missing("certificate", "client_certificate", "CLIENT_CERTIFICATE")))),
        (None, None) => None,
    };
    let mut keep = |(file, message): (&PemFile, String)| problems.push(file.problem(message));
    Credentials {
        roots: roots.transpose().map_err(&mut keep).unwrap_or_default(),
        identity: identity.transpose().map_err(&mut keep).unwrap_or_default(),
    }
}

fn missing(what: &str, field: &str, variable: &str) -> String {
    format!("its {what} is missing; name that too, by otlp.{field} or OTEL_EXPORTER_OTLP_{variable}")
}

impl PemFile {
    fn problem(&self, message: String) -> Problem {
        Problem {
            field: self.field.to_owned(),
            value: Some(self.path.display().to_string()),
            origin: self.origin.0.clone(),
            message,
        }
    }

    /// Those blocks of it whose label ends so, as text, and their contents.
    fn blocks<T>(&self, label: &str, what: &str) -> Result<(String, Vec<T>), String>
    where
        T: PemObject,
    {
        let text = self.text()?;
        let blocks = sections(&text, label);
        let path = self.path.display();
        // Errors of the parser may quote what they stumbled over.
        let items: Vec<T> = T::pem_slice_iter(blocks.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_quotes| format!("a {what} in it is damaged; copy the file again, or ask for a new one"))?;
        if !items.is_empty() {
            return Ok((blocks, items));
        }
        Err(if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") && what == KEY {
            format!(
                "the key has a passphrase, and nobody is there to type it; `openssl pkey -in {path} -out NEW` takes it off"
            )
        } else {
            format!("holds no {what} in PEM, a block that begins with -----BEGIN … {label}-----")
        })
    }

    fn text(&self) -> Result<String, String> {
        let mut bytes = Vec::new();
        File::open(&self.path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes)).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                "there is no such file; correct the path, or put the file there".to_owned()
            } else {
                format!("cannot be read: {error}")
            }
        })?;
        if bytes.len() as u64 > LONGEST {
            return Err("is longer than 4MiB; no file of certificates is".to_owned());
        }
        if bytes.starts_with(&DER) {
            return Err(
                "is binary (DER); convert it to PEM: `openssl x509` or `openssl pkey` with -inform der".to_owned()
            );
        }
        // Remarks between the blocks may be in any encoding.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

const KEY: &str = "private key";
/// How every certificate and most keys begin in DER: a sequence of some hundred bytes.
const DER: [u8; 2] = [0x30, 0x82];

fn roots(file: &PemFile) -> Result<String, String> {
    let (text, certificates) = file.blocks::<CertificateDer<'static>>("CERTIFICATE", "certificate")?;
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate).map_err(|error| format!("a certificate in it cannot be used ({error})"))?;
    }
    Ok(text)
}

fn identity<'a>(certificate: &'a PemFile, key: &'a PemFile) -> Result<(String, String), (&'a PemFile, String)> {
    let chain = certificate.blocks::<CertificateDer<'static>>("CERTIFICATE", "certificate");
    let (chain, certificates) = chain.map_err(|message| (certificate, message))?;
    let secret = key.blocks::<PrivateKeyDer<'static>>("PRIVATE KEY", KEY);
    let (secret, mut keys) = secret.map_err(|message| (key, message))?;
    let [only] = &mut keys[..] else {
        return Err((key, "holds several private keys; leave one in it".to_owned()));
    };
    let signer = ring::default_provider().key_provider.load_private_key(only.clone_key()).map_err(|_no_detail| {
        (key, "the private key is of no kind that TLS uses here; use RSA, ECDSA P-256 or P-384, or Ed25519".to_owned())
    })?;
    CertifiedKey::new(certificates, signer).keys_match().map_err(|error| {
        let path = key.path.display();
        let message = match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("is not the certificate of the key {path} ({}); name the pair that belongs together", key.field)
            }
            error => format!("the certificate cannot be used ({error})"),
        };
        (certificate, message)
    })?;
    Ok((chain, secret))
}

/// The blocks of a PEM file whose label ends so, without the rest: certificate and key may be in one file.
fn sections(text: &str, label: &str) -> String {
    let mut wanted = false;
    let mut blocks = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(begun) = line.strip_prefix("-----BEGIN ") {
            let begun = begun.trim_end_matches('-');
            wanted = begun.ends_with(label) && !begun.starts_with("ENCRYPTED");
        }
        if wanted {
            blocks.push_str(line);
            blocks.push('\n');
        }
        wanted &= !line.starts_with("-----END ");
    }
    blocks
}
