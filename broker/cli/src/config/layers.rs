//! Where values come from, one over the other: defaults, the file, the environment, flags.
//!
//! Each value keeps where it came from, so that errors and `config show` can name it. A key that nobody knows is an error that
//! names the nearest one: a misspelt limit that is silently ignored would be found out when it is needed.

use super::{
    Config,
    keys::{self, Key, Shape},
};
use crate::failure::{Failure, Outcome};
use figment::{
    Figment, Metadata, Profile, Provider, Source,
    error::Kind,
    providers::Serialized,
    value::{Dict, Map, Value},
};
use serde::Serialize;
use std::{ffi::OsString, fmt, ops::Range, path::Path};
use toml::de::{DeTable, DeValue};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Origin {
    kind: &'static str,
    /// The file with the line, the variable or the flag; none for a default.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// One value from one place.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    key: &'static Key,
    value: Value,
    origin: Origin,
}

/// The configuration in force, and where each value came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The values.
    pub(crate) config: Config,
    layers: Figment,
}

impl Origin {
    const DEFAULT: &'static str = "default";
    const FILE: &'static str = "file";
    const ENVIRONMENT: &'static str = "environment";
    const FLAG: &'static str = "flag";

    fn new(kind: &'static str, name: impl Into<String>) -> Origin {
        Origin { kind, name: Some(name.into()) }
    }

    fn of(metadata: Option<&Metadata>) -> Origin {
        let default = Origin { kind: Origin::DEFAULT, name: None };
        let Some(Source::Custom(name)) = metadata.and_then(|metadata| metadata.source.as_ref()) else { return default };
        let known = [Origin::FILE, Origin::ENVIRONMENT, Origin::FLAG];
        let kind = known.into_iter().find(|kind| metadata.is_some_and(|metadata| metadata.name == *kind));
        kind.map_or(default, |kind| Origin::new(kind, name))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        self.name.iter().try_for_each(|name| write!(f, " {name}"))
    }
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        let metadata = Metadata::named(self.origin.kind);
        match &self.origin.name {
            Some(name) => metadata.source(Source::Custom(name.clone())),
            None => metadata,
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(self.key.name, self.value.clone());
        Ok(Profile::Default.collect(nested.into_dict().unwrap_or_default()))
    }
}

impl Setting {
    /// A value from a flag. `key` is one of [`keys::KEYS`].
    pub(crate) fn from_flag(flag: &str, key: &str, text: &str) -> Outcome<Setting> {
        let origin = Origin::new(Origin::FLAG, flag);
        let key = keys::find(key).ok_or_else(|| unknown_key(key, &origin.to_string(), str::to_owned))?;
        Setting::from_text(key, text, origin)
    }

    fn from_text(key: &'static Key, text: &str, origin: Origin) -> Outcome<Setting> {
        let value = match key.shape {
            Shape::Text => Value::from(text),
            Shape::Number => {
                let number = text.trim().parse::<u64>();
                Value::from(number.map_err(|_| bad_value(key.name, &origin, &format!("`{text}` is not a whole number")))?)
            }
            Shape::List => Value::from(text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect::<Vec<_>>()),
        };
        Ok(Setting { key, value, origin })
    }
}

impl Loaded {
    /// Lays the settings over the defaults, the later over the earlier ones, and checks every value.
    pub(crate) fn from_layers(defaults: &Config, settings: Vec<Setting>) -> Outcome<Loaded> {
        let defaults = Figment::from(Serialized::defaults(defaults));
        let layers = settings.into_iter().fold(defaults, |layers, setting| layers.merge(setting));
        let config: Config = layers.extract().map_err(|error| {
            let key = error.path.join(".");
            bad_value(&key, &Origin::of(error.metadata.as_ref()), &words(&error.kind))
        })?;
        let loaded = Loaded { config, layers };
        match loaded.config.check() {
            Ok(()) => Ok(loaded),
            Err(bad) => Err(bad_value(bad.key, &loaded.origin(bad.key), &bad.why)),
        }
    }

    /// Where the value of a key came from.
    pub(crate) fn origin(&self, key: &str) -> Origin {
        Origin::of(self.layers.find_metadata(key))
    }

    /// The value of a key; none where nothing is set.
    pub(crate) fn value(&self, key: &str) -> serde_json::Value {
        let value = self.layers.find_value(key).ok();
        value.and_then(|value| serde_json::to_value(value).ok()).unwrap_or_default()
    }
}

/// The settings in a TOML file. `path` is for the messages.
pub(crate) fn from_file(path: &Path, text: &str) -> Outcome<Vec<Setting>> {
    let broken = |error: toml::de::Error| Failure::usage(format!("{} is not valid TOML", path.display())).because(&error);
    let positions = DeTable::parse(text).map_err(broken)?;
    let values: toml::Table = toml::from_str(text).map_err(broken)?;
    let place = |span: Range<usize>| {
        let line = text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
        Origin::new(Origin::FILE, format!("{}:{line}", path.display()))
    };
    let mut settings = Vec::new();
    collect(positions.get_ref(), &values, "", &place, &mut settings)?;
    Ok(settings)
}

/// Walks the same document twice side by side: with positions and with values.
fn collect(
    positions: &DeTable<'_>,
    values: &toml::Table,
    section: &str,
    place: &dyn Fn(Range<usize>) -> Origin,
    settings: &mut Vec<Setting>,
) -> Outcome {
    for (name, position) in positions {
        let path = if section.is_empty() { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
        let origin = place(name.span());
        let Some(value) = values.get(name.get_ref().as_ref()) else { continue };
        match (position.get_ref(), value) {
            (DeValue::Table(positions), toml::Value::Table(values)) if keys::is_section(&path) => {
                collect(positions, values, &path, place, settings)?;
            }
            _ if keys::is_section(&path) => return Err(bad_value(&path, &origin, &format!("it is a section: write [{path}]"))),
            (DeValue::Table(_), _) if keys::find(&path).is_none() => return Err(unknown_section(&path, &origin)),
            _ => {
                let key = keys::find(&path).ok_or_else(|| unknown_key(&path, &origin.to_string(), str::to_owned))?;
                let value = Value::serialize(value).map_err(|error| bad_value(key.name, &origin, &error.to_string()))?;
                settings.push(Setting { key, value, origin });
            }
        }
    }
    Ok(())
}

/// The settings in the environment. An empty variable counts as not set.
pub(crate) fn from_environment(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Outcome<Vec<Setting>> {
    let mut settings = Vec::new();
    for (variable, text) in variables {
        let Some(variable) = variable.to_str() else { continue };
        let Some(name) = variable.strip_prefix(keys::ENVIRONMENT_PREFIX) else { continue };
        if keys::RESERVED_VARIABLES.contains(&variable) || text.is_empty() {
            continue;
        }
        let origin = Origin::new(Origin::ENVIRONMENT, variable);
        let path = name.to_ascii_lowercase().replace("__", ".");
        let key = keys::find(&path).ok_or_else(|| unknown_variable(variable, &path))?;
        let text = text.to_str().ok_or_else(|| bad_value(key.name, &origin, "it is not UTF-8"))?;
        settings.push(Setting::from_text(key, text, origin)?);
    }
    Ok(settings)
}

fn unknown_key(name: &str, place: &str, shown: impl Fn(&str) -> String) -> Failure {
    let failure = Failure::usage(format!("unknown configuration key `{name}` ({place})"));
    match keys::nearest(name) {
        Some(key) => failure.hint(format!("did you mean `{}`? `millpond config show` prints every key", shown(key))),
        None => failure.hint("`millpond config show` prints every key"),
    }
}

fn unknown_section(name: &str, origin: &Origin) -> Failure {
    let failure = Failure::usage(format!("unknown configuration section [{name}] ({origin})"));
    match (keys::nearest_section(name), keys::nearest(name)) {
        (Some(section), _) => failure.hint(format!("did you mean [{section}]? `millpond config show` prints every key")),
        (None, Some(key)) => failure.hint(format!("did you mean the key `{key}`? `millpond config show` prints every key")),
        (None, None) => failure.hint("`millpond config show` prints every key"),
    }
}

fn unknown_variable(variable: &str, path: &str) -> Failure {
    let failure = Failure::usage(format!("the environment variable {variable} is not a configuration key"));
    // One underscore where two belong is the likeliest slip.
    match keys::nearest(path).or_else(|| keys::nearest(&path.replacen('_', ".", 1))) {
        Some(key) => failure.hint(format!("did you mean {}? `millpond config show` prints every key", keys::variable(key))),
        None => failure.hint("`millpond config show` prints every key; unset the variable if it belongs to something else"),
    }
}

fn bad_value(key: &str, origin: &Origin, why: &str) -> Failure {
    let about = keys::find(key).map(|key| format!("`{}` is {}", key.name, key.about));
    let failure = Failure::usage(format!("bad value for `{key}` ({origin}): {why}"));
    match about {
        Some(about) => failure.hint(about),
        None => failure,
    }
}

/// figment's words for its kinds, with the type names of Rust left out.
fn words(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.clone(),
        Kind::InvalidType(found, expected) => format!("found {found}, expected {expected}"),
        Kind::UnknownVariant(found, expected) => format!("`{found}` is not one of {}", expected.join(", ")),
        other => other.to_string(),
    }
}
