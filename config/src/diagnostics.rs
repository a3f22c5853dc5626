//! What is wrong with a file, where, and how it is printed.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use crate::Source;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used; somebody should look.
    Warning,
}

/// One finding.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// Where in the file, in bytes.
    pub span: Option<Range<usize>>,
    /// What is said at the place itself.
    pub label: Option<String>,
    /// What would mend it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without a place.
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), span: None, label: None, help: None }
    }

    /// A warning without a place.
    #[must_use]
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// At this place.
    #[must_use]
    pub fn at(mut self, span: &Range<usize>) -> Self {
        self.span = Some(span.clone());
        self
    }

    /// With this said at the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// With this advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Findings about one file.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    /// The file.
    pub source: Source,
    /// What was found, in the order of the file.
    pub found: Vec<Diagnostic>,
}

/// One finding as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct DiagnosticJson<'a> {
    severity: Severity,
    message: &'a str,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
}

impl Diagnostics {
    /// Findings about this file, put into its order.
    #[must_use]
    pub fn new(source: Source, mut found: Vec<Diagnostic>) -> Self {
        found.sort_by_key(|d| d.span.as_ref().map_or(0, |span| span.start));
        Self { source, found }
    }

    /// How many findings are errors, and how many warnings.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let errors = self.found.iter().filter(|d| d.severity == Severity::Error).count();
        (errors, self.found.len() - errors)
    }

    /// The findings as a compiler prints them: message, `file:line:column`, the line, and what to do.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let path = self.source.path.display().to_string();
        let text = without_keys(&self.source.text);
        let mut out = String::new();
        for diagnostic in &self.found {
            let level = match diagnostic.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
            };
            let title = level.primary_title(&diagnostic.message);
            let mut group = match &diagnostic.span {
                Some(span) => {
                    let end = span.end.min(self.source.text.len());
                    // A table's span is many lines: its first says where, and the rest only hides it.
                    let first_line = self.source.text[span.start..end].find('\n').map_or(end, |n| span.start + n);
                    let mut annotation = AnnotationKind::Primary.span(span.start..first_line);
                    if let Some(label) = &diagnostic.label {
                        annotation = annotation.label(label);
                    }
                    title.element(Snippet::source(&*text).path(&path).annotation(annotation))
                }
                None => Group::with_title(title),
            };
            if let Some(help) = &diagnostic.help {
                group = group.element(Level::HELP.message(help));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        out
    }

    /// The findings for `--json`.
    #[must_use]
    pub fn json(&self) -> Vec<DiagnosticJson<'_>> {
        let place = |d: &Diagnostic| d.span.as_ref().map(|span| position(&self.source.text, span.start));
        self.found
            .iter()
            .map(|d| DiagnosticJson {
                severity: d.severity,
                message: &d.message,
                file: self.source.path.display().to_string(),
                line: place(d).map(|(line, _)| line),
                column: place(d).map(|(_, column)| column),
                label: d.label.as_deref(),
                help: d.help.as_deref(),
            })
            .collect()
    }
}

impl std::fmt::Display for Diagnostics {
    /// One finding a line, for logs: `file:line:column: message`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, d) in self.found.iter().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{}", self.source.path.display())?;
            if let Some(span) = &d.span {
                let (line, column) = position(&self.source.text, span.start);
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {}", d.message)?;
            if let Some(label) = &d.label {
                write!(f, " ({label})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The text as it may be shown: the URL of a node may hold an API key. Every byte stays where it is.
fn without_keys(text: &str) -> String {
    let mut shown = text.to_owned().into_bytes();
    for (at, _) in text.match_indices("://") {
        let end = text[at..].find(['"', '\'', '\n']).map_or(text.len(), |n| at + n);
        // A name in a certificate, and no secret.
        if text[..at].ends_with("spiffe") {
            continue;
        }
        // From the path, or all of it where there is a user.
        let host = at + 3;
        let path = text[host..end].find(['/', '?']).map_or(end, |n| host + n + 1);
        let secret = if text[host..path].contains('@') { host } else { path };
        shown.get_mut(secret..end).into_iter().flatten().for_each(|byte| *byte = b'*');
    }
    String::from_utf8(shown).expect("whole characters are replaced by ASCII")
}

/// Line and column, from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_key_is_not_shown() {
        let shown = |text| without_keys(text);
        assert_eq!(shown("rpc = \"https://a.example/v2/k\u{e9}y\" # x"), "rpc = \"https://a.example/*******\" # x");
        assert_eq!(shown("['https://a?k=1', \"http://u:p@h/x\"]"), "['https://a?***', \"http://*******\"]");
        assert_eq!(shown("a = \"http://h\"\nb = 1"), "a = \"http://h\"\nb = 1");
        assert_eq!(shown("san = \"spiffe://prod/payments\""), "san = \"spiffe://prod/payments\"");
    }

    #[test]
    fn line_and_column_count_from_one() {
        assert_eq!(position("a\nbc\n", 0), (1, 1));
        assert_eq!(position("a\nbc\n", 3), (2, 2));
        assert_eq!(position("ä\nü", 3), (2, 1));
        assert_eq!(position("äb", 2), (1, 2));
    }
}
