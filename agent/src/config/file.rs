//! The configuration file: YAML or TOML into settings, with every unknown key reported.

use std::fs;
use std::path::Path;

use serde_norway::{Mapping, Value};

use super::fields;
use super::problem::Problem;
use super::setting::{Origin, Setting};

/// Reads a file. What is readable comes back as settings even where other parts are wrong.
pub(super) fn read(path: &Path, settings: &mut Vec<Setting>, problems: &mut Vec<Problem>) {
    match parse(path) {
        Ok(Value::Null) => {} // an empty file
        Ok(Value::Mapping(root)) => Walk { path, settings, problems }.section("", &root),
        Ok(_) => problems.push(whole(path, "not a table of sections; see etc/synfin.example.yaml".to_owned())),
        Err(message) => problems.push(whole(path, message)),
    }
}

fn whole(path: &Path, message: String) -> Problem {
    Problem { field: String::new(), value: None, origin: Some(Origin::File(path.to_owned())), message }
}

/// Both formats become one kind of tree.
fn parse(path: &Path) -> Result<Value, String> {
    let extension = path.extension().unwrap_or_default();
    let is_yaml = extension == "yaml" || extension == "yml";
    if !is_yaml && extension != "toml" {
        return Err("the name must end in .yaml, .yml or .toml, which tells the format".to_owned());
    }
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    if is_yaml {
        serde_norway::from_str(&text).map_err(|error| format!("not valid YAML: {error}"))
    } else {
        let tree: toml::Table = toml::from_str(&text).map_err(|error| {
            // Its own words would quote the line, and with it perhaps a secret.
            let line =
                error.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|&byte| byte == b'\n').count());
            format!("not valid TOML: {} at line {line}", error.message())
        })?;
        serde_norway::to_value(tree).map_err(|error| format!("not usable: {error}"))
    }
}

struct Walk<'a> {
    path: &'a Path,
    settings: &'a mut Vec<Setting>,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn section(&mut self, section: &str, table: &Mapping) {
        for (key, value) in table {
            let key = match key {
                Value::String(key) => key.clone(),
                other => super::value::shown(other),
            };
            let path = if section.is_empty() { key } else { format!("{section}.{key}") };
            if let Some(field) = fields::find(&path) {
                // `field: null` or `field:` is the YAML way to say "not set".
                if !value.is_null() {
                    self.settings.push(Setting {
                        field: field.path,
                        value: value.clone(),
                        origin: Origin::File(self.path.to_owned()),
                    });
                }
                continue;
            }
            let known = fields::children(&path);
            match value {
                Value::Mapping(table) if !known.is_empty() => self.section(&path, table),
                Value::Null if !known.is_empty() => {}
                _ if !known.is_empty() => {
                    self.problem(&path, format!("is a section; put its fields below it: {}", known.join(", ")));
                }
                _ => {
                    self.problem(&path, format!("is unknown; known here: {}", fields::children(section).join(", ")));
                }
            }
        }
    }

    fn problem(&mut self, field: &str, message: String) {
        let origin = Some(Origin::File(self.path.to_owned()));
        self.problems.push(Problem { field: field.to_owned(), value: None, origin, message });
    }
}
