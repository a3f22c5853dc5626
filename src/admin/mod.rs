//! `keygate reload`, `status`, `routes`, `certs`, `weights`: the running gateway, over its admin API; and the
//! signer, where the file has no gateway.

mod client;
mod signer;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::Value;

use crate::output::{self, Failed};
use client::Client;

/// Which gateway, and how to print what it says; the signer, where the file has no gateway.
#[derive(clap::Args)]
pub struct Target {
    /// The configuration file, which says where the gateway is administered.
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "keygate.toml")]
    config: PathBuf,
    /// Where the gateway is administered: unix:PATH or IP:PORT.
    #[arg(long, value_name = "ADDR")]
    admin: Option<keygate_config::Address>,
    /// A file with the token, when ADDR is on TCP.
    #[arg(long, value_name = "FILE", requires = "admin")]
    token_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
pub enum Weights {
    /// Show a route's live weights.
    Get {
        /// The route.
        route: String,
        #[command(flatten)]
        target: Target,
    },
    /// Set a route's live weights, one for each of its backends.
    Set {
        /// The route.
        route: String,
        /// Backends and their weights.
        #[arg(required = true, value_name = "UPSTREAM=WEIGHT", value_parser = weight)]
        weights: Vec<(String, u32)>,
        /// Only if the route still has this version, as `weights get --json` shows it.
        #[arg(long, value_name = "VERSION")]
        if_version: Option<String>,
        #[command(flatten)]
        target: Target,
    },
}

fn weight(text: &str) -> Result<(String, u32), String> {
    let (name, weight) = text.split_once('=').ok_or("expected UPSTREAM=WEIGHT")?;
    let weight = weight.parse().map_err(|_| format!("{weight:?} is not a weight"))?;
    Ok((name.to_owned(), weight))
}

impl Target {
    fn client(&self) -> Result<Client, Failed> {
        let (address, token_file) = match &self.admin {
            Some(address) => (address.clone(), self.token_file.clone()),
            None => {
                // The rest of the file may be broken: that is when one wants to ask.
                let admin = keygate_config::load_admin(&self.config).map_err(|found| {
                    output::diagnostics(&found);
                    Failed(Some("the file does not say where the gateway is: name it with --admin".into()))
                })?;
                (admin.listen.value, admin.token_file.map(|file| file.value))
            }
        };
        let token = token_file.map(|path| keygate_config::files::load_token(&path)).transpose()?;
        Ok(Client { part: "gateway", address, token })
    }

    /// The signer, if it is all that the file runs.
    fn signer(&self) -> Result<Option<signer::Running>, Failed> {
        if self.admin.is_some() {
            return Ok(None);
        }
        let listen = keygate_config::load_lone_signer(&self.config).map_err(|found| {
            output::diagnostics(&found);
            Failed(Some("the file does not say where it is administered: name a gateway with --admin".into()))
        })?;
        listen.map(|listen| signer::Running::at(&listen)).transpose()
    }

    fn get(&self, path: &str) -> Result<Value, Failed> {
        self.client()?.call("GET", path, None, None)
    }
}

pub fn reload(target: &Target) -> Result<(), Failed> {
    if let Some(signer) = target.signer()? {
        return signer.reload(target);
    }
    let reloaded = target.client()?.call("POST", "/v1/reload", None, None)?;
    if target.json {
        return output::json(&reloaded);
    }
    output::line(format!("reloaded: generation {}", reloaded["generation"]));
    print_notes(&reloaded["notes"]);
    Ok(())
}

fn print_notes(notes: &Value) {
    for note in notes.as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::line(format!("note: {note}"));
    }
}

pub fn status(target: &Target) -> Result<(), Failed> {
    if let Some(signer) = target.signer()? {
        return signer.status(target);
    }
    let status = target.get("/v1/status")?;
    if target.json {
        return output::json(&status);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let draining = if status["draining"] == true { ", draining" } else { "" };
    output::line(format!(
        "keygate {}, pid {}, since {}, generation {}{draining}",
        text(&status["version"]),
        status["pid"],
        text(&status["started"]),
        status["generation"]
    ));
    output::line(format!("config: {}", text(&status["config"])));
    let last = &status["last_reload"];
    if last["ok"] == true {
        output::line(format!("last reload: {}, ok", text(&last["at"])));
        print_notes(&last["notes"]);
    } else if last.is_object() {
        output::line(format!("last reload: {}, NOT IN FORCE: {}", text(&last["at"]), text(&last["error"])));
    }
    output::line("");
    let listeners = status["listeners"].as_array().into_iter().flatten();
    let rows: Vec<_> = listeners
        .map(|listener| {
            let kind = match (&listener["tls"], &listener["redirect"]) {
                (Value::Bool(true), _) => "https",
                (_, Value::Bool(true)) => "http, redirects to https",
                _ => "http",
            };
            vec![text(&listener["name"]), text(&listener["address"]), kind.to_owned()]
        })
        .collect();
    output::table(&["LISTENER", "ADDRESS", "SPEAKS"], &rows);
    output::line("");
    print_routes(&status["routes"]);
    for difference in status["differences"].as_array().into_iter().flatten() {
        output::line(format!(
            "live differs from the file: route {}, {}: {} in the file, {} live",
            text(&difference["route"]),
            text(&difference["upstream"]),
            difference["file"],
            difference["live"]
        ));
    }
    Ok(())
}

pub fn routes(target: &Target) -> Result<(), Failed> {
    let routes = target.get("/v1/routes")?;
    if target.json {
        return output::json(&routes);
    }
    print_routes(&routes);
    Ok(())
}

fn print_routes(routes: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(" ");
    let rows: Vec<_> = routes
        .as_array()
        .into_iter()
        .flatten()
        .map(|route| {
            let hosts = list(&route["hosts"]);
            let hosts = if hosts.is_empty() { "any".to_owned() } else { hosts };
            vec![text(&route["name"]), hosts, text(&route["path"]), backends(route)]
        })
        .collect();
    output::table(&["ROUTE", "HOSTS", "PATH", "WEIGHTS"], &rows);
}

fn backends(route: &Value) -> String {
    let backends = route["backends"].as_array().into_iter().flatten();
    let shown: Vec<_> = backends
        .map(|backend| {
            let down = backend["servers"].as_array().into_iter().flatten().filter(|s| s["up"] == false).count();
            let down = if down > 0 { format!(" ({down} down)") } else { String::new() };
            format!("{}={}{down}", backend["upstream"].as_str().unwrap_or_default(), backend["weight"])
        })
        .collect();
    shown.join(" ")
}

pub fn certs(target: &Target) -> Result<(), Failed> {
    let certificates = target.get("/v1/certificates")?;
    if target.json {
        return output::json(&certificates);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows: Vec<_> = certificates
        .as_array()
        .into_iter()
        .flatten()
        .map(|certificate| {
            let names = certificate["names"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(" ");
            let default = if certificate["default"] == true { " (default)" } else { "" };
            vec![
                text(&certificate["listener"]),
                names + default,
                text(&certificate["not_after"]),
                format!("{} days", certificate["expires_in_days"]),
                text(&certificate["cert"]),
            ]
        })
        .collect();
    output::table(&["LISTENER", "NAMES", "EXPIRES", "IN", "FILE"], &rows);
    Ok(())
}

pub fn weights(weights: &Weights) -> Result<(), Failed> {
    let (route, target) = match weights {
        Weights::Get { route, target } => (target.get(&format!("/v1/routes/{}/weights", encode(route)))?, target),
        Weights::Set { route, weights, if_version, target } => {
            let mut wanted = BTreeMap::new();
            for (name, weight) in weights {
                if wanted.insert(name, weight).is_some() {
                    return Err(Failed(Some(format!("{name} is given twice"))));
                }
            }
            let body = serde_json::to_vec(&wanted)?;
            let path = format!("/v1/routes/{}/weights", encode(route));
            (target.client()?.call("PUT", &path, Some(body), if_version.as_deref())?, target)
        }
    };
    if target.json {
        return output::json(&route);
    }
    output::line(format!("{}: {}", route["name"].as_str().unwrap_or_default(), backends(&route)));
    Ok(())
}

/// A route's name as a path segment: names have no character that needs it, but a user may type anything.
fn encode(name: &str) -> String {
    name.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-_.".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}
