//! What commands print, and how they fail.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::path::Path;

use keygate_config::{Diagnostics, Loaded};

/// A command that was refused or failed: why, unless it has been printed.
pub struct Failed(pub Option<String>);

impl<E: Display> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(Some(error.to_string()))
    }
}

/// Prints a line. A reader that is gone is no failure of the command.
pub fn line(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints JSON, indented.
pub fn json(value: &impl serde::Serialize) -> Result<(), Failed> {
    line(serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints rows under a heading, in columns as wide as they need to be.
pub fn table(heading: &[&str], rows: &[Vec<String>]) {
    let width = |n: usize| rows.iter().map(|row| row[n].chars().count()).chain([heading[n].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let row: String = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        line(row.trim_end());
    };
    print(&mut heading.iter().copied());
    for row in rows {
        print(&mut row.iter().map(String::as_str));
    }
}

/// Prints findings as a compiler does, to standard error.
pub fn diagnostics(diagnostics: &Diagnostics) {
    eprint!("{}", diagnostics.render(std::io::stderr().is_terminal()));
}

/// Reads the configuration; what is wrong with it is printed.
pub fn load(path: &Path) -> Result<Loaded, Failed> {
    keygate_config::load(path).map_err(|found| {
        diagnostics(&found);
        Failed(Some(format!("{} cannot be used", path.display())))
    })
}
