//! Tests of the configuration as a whole, sources in, configuration or errors out.

mod errors;
mod otlp;
mod sources;
mod tls;

use std::path::PathBuf;

use super::*;

/// A configuration file of this text.
struct Scratch {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Self { _dir: dir, path }
    }
}

/// Loads from a file, variables and flags.
fn load(file: Option<&Scratch>, env: &[(&str, &str)], flags: Vec<Setting>) -> Result<Loaded, ConfigErrors> {
    let names = env.iter().map(|(name, _)| (*name).to_owned()).collect();
    let env = |name: &str| env.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
    Config::load(&Sources { file: file.map(|file| file.path.clone()), env: &env, names, flags })
}

fn yaml(text: &str) -> Result<Loaded, ConfigErrors> {
    load(Some(&Scratch::new("c.yaml", text)), &[], Vec::new())
}

fn env(variables: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    load(None, variables, Vec::new())
}

fn config(loaded: Result<Loaded, ConfigErrors>) -> Config {
    loaded.unwrap_or_else(|errors| panic!("{errors}")).config
}
