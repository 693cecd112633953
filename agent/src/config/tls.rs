//! Files of TLS as the settings name them. [`super::credentials`] reads them.

use std::path::PathBuf;

use super::build::Reader;
use super::setting::Provenance;
use super::value::one;

/// A file in PEM, and where it was named.
#[derive(Clone, Debug)]
pub struct PemFile {
    /// Where it is.
    pub path: PathBuf,
    /// The setting that names it.
    pub(super) field: &'static str,
    /// Where that setting came from.
    pub(super) origin: Provenance,
}

impl PartialEq for PemFile {
    /// The same file is the same setting, whoever named it.
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for PemFile {}

/// What an https endpoint is verified by, and what it verifies the agent by. Each file is a setting of its own: a signal
/// may have its own certificate for the key of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities that are trusted, and no others; None: the system's.
    pub certificate: Option<PemFile>,
    /// The agent's own certificate, with the ones between it and its authority.
    pub client_certificate: Option<PemFile>,
    /// The private key of that.
    pub client_key: Option<PemFile>,
}

impl Tls {
    /// Names no file.
    pub(super) const NONE: Self = Self { certificate: None, client_certificate: None, client_key: None };

    pub(super) fn read(read: &mut Reader<'_>, section: &str) -> Self {
        let mut file = |name| {
            read.optional(&format!("{section}.{name}"), |setting| {
                let path = one(setting, |text| if text.is_empty() { Err(EMPTY) } else { Ok(PathBuf::from(text)) })?;
                Ok(PemFile { path, field: setting.field, origin: Provenance(Some(setting.origin.clone())) })
            })
        };
        Self {
            certificate: file("certificate"),
            client_certificate: file("client_certificate"),
            client_key: file("client_key"),
        }
    }

    /// These files, and the general ones for those that are not named.
    pub(super) fn or(&self, general: &Self) -> Self {
        let or = |own: &Option<PemFile>, general: &Option<PemFile>| own.as_ref().or(general.as_ref()).cloned();
        Self {
            certificate: or(&self.certificate, &general.certificate),
            client_certificate: or(&self.client_certificate, &general.client_certificate),
            client_key: or(&self.client_key, &general.client_key),
        }
    }

    /// Every file that is named.
    pub(super) fn files(&self) -> impl Iterator<Item = &PemFile> {
        [&self.certificate, &self.client_certificate, &self.client_key].into_iter().flatten()
    }
}

const EMPTY: &str = "empty; remove it or give the path of a file in PEM";
