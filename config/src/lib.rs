//! The keygate configuration file: its model, its validation and its diagnostics.
//!
//! [`load`] reads one TOML file and answers with a [`Config`] that is complete and consistent: every name that is
//! referred to exists, no two routes are ambiguous, every weight adds up. What is wrong comes back as
//! [`Diagnostics`], each with the place in the file, and [`Diagnostics::render`] prints them as a compiler does.
//!
//! What the file refers to on disk (certificates, keys, tokens) is looked at by [`files::check`].
//!
//! Unknown fields are errors; relative paths are relative to the file.

mod addresses;
mod claims;
pub mod diagnostics;
pub mod files;
mod forged;
mod function;
mod headers;
pub mod model;
mod overlap;
mod place;
mod signer;
mod typo;
pub mod units;
mod upstream_tls;
mod validate;

use std::path::{Path, PathBuf};

pub use addresses::overlap;
pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use forged::is_forged;
pub use function::{Function, Parameter, ParameterType, Signature};
pub use model::*;
pub use place::At;
pub use signer::*;
pub use upstream_tls::{TlsName, UpstreamTls};
pub use validate::{MAX_WEIGHT, MOST_BACKENDS};

/// A configuration file that was read and found consistent.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the file says; paths in it are absolute.
    pub config: Config,
    /// The file's text, for diagnostics that come later.
    pub source: Source,
    /// What is not wrong, but worth a look.
    pub warnings: Diagnostics,
}

/// A configuration file's name and text, which diagnostics quote.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where the text came from.
    pub path: PathBuf,
    /// The text.
    pub text: String,
}

/// Reads and validates the file at `path`.
///
/// # Errors
/// Everything found wrong, in the order of the file. A syntax error hides what is behind it.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    parse(read(path)?)
}

/// Reads only where the gateway is administered, so that it can be asked what is wrong with the rest of its file.
///
/// # Errors
/// When even that cannot be made out.
pub fn load_admin(path: &Path) -> Result<Admin, Diagnostics> {
    #[derive(serde::Deserialize)]
    struct OnlyAdmin {
        #[serde(default)]
        admin: Admin,
    }
    let source = read(path)?;
    match toml::from_str::<OnlyAdmin>(&source.text) {
        Ok(OnlyAdmin { mut admin }) => {
            admin.resolve_paths(&folder(path));
            Ok(admin)
        }
        Err(error) => Err(Diagnostics::new(source, vec![syntax(&error)])),
    }
}

/// Reads only where the signer listens, if it is all that the file runs; nothing, if there is a gateway, or no signer.
///
/// # Errors
/// As [`load_admin`].
pub fn load_lone_signer(path: &Path) -> Result<Option<Vec<SignerAddress>>, Diagnostics> {
    #[derive(serde::Deserialize)]
    struct OnlyParts {
        #[serde(default)]
        listeners: toml::Table,
        signer: Option<toml::Table>,
    }
    #[derive(serde::Deserialize)]
    struct OnlySigner {
        signer: OnlyListen,
    }
    #[derive(serde::Deserialize)]
    struct OnlyListen {
        listen: OneOrMany<At<SignerAddress>>,
    }
    let source = read(path)?;
    let listen = match toml::from_str::<OnlyParts>(&source.text) {
        Ok(parts) if parts.signer.is_none() || !parts.listeners.is_empty() => return Ok(None),
        Ok(_) => toml::from_str::<OnlySigner>(&source.text).map(|only| only.signer.listen),
        Err(error) => Err(error),
    };
    match listen {
        Ok(listen) => {
            let base = folder(path);
            Ok(Some(listen.as_slice().iter().map(|listen| listen.value.clone().resolved(&base)).collect()))
        }
        Err(error) => Err(Diagnostics::new(source, vec![syntax(&error)])),
    }
}

fn read(path: &Path) -> Result<Source, Diagnostics> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Source { path: path.to_owned(), text }),
        Err(error) => {
            let source = Source { path: path.to_owned(), text: String::new() };
            let what = Diagnostic::error(format!("cannot read {}: {error}", path.display()));
            Err(Diagnostics::new(source, vec![what]))
        }
    }
}

fn syntax(error: &toml::de::Error) -> Diagnostic {
    let mut what = Diagnostic::error(typo::plain(error.message()));
    what.span = error.span();
    what.help = typo::meant(error.message());
    what
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// What a file's relative paths are relative to.
fn folder(path: &Path) -> PathBuf {
    absolute(path).parent().map(Path::to_owned).unwrap_or_default()
}

/// Validates the text of a configuration file. `source.path` is what relative paths are relative to.
///
/// # Errors
/// As [`load`].
pub fn parse(source: Source) -> Result<Loaded, Diagnostics> {
    let mut config: Config = match toml::from_str(&source.text) {
        Ok(config) => config,
        Err(error) => return Err(Diagnostics::new(source, vec![syntax(&error)])),
    };
    config.resolve_paths(&folder(&source.path));
    let found = validate::validate(&config, &absolute(&source.path));
    if found.iter().any(|d| d.severity == Severity::Error) {
        return Err(Diagnostics::new(source, found));
    }
    let warnings = Diagnostics::new(source.clone(), found);
    Ok(Loaded { config, source, warnings })
}

/// The JSON Schema of the file, for editors.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}
