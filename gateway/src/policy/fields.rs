//! Header lines, whatever lane they came by.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header lines of a message, as every lane shows them.
pub trait Fields {
    /// Names, in any case, and values, without white space around; in the order they came.
    fn each(&self) -> impl Iterator<Item = (&[u8], &[u8])>;

    /// The values of the lines of this name.
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named =
            move |(other, value): (&'a [u8], &'a [u8])| other.eq_ignore_ascii_case(name.as_bytes()).then_some(value);
        self.each().filter_map(named)
    }
}

impl Fields for HeaderMap {
    fn each(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.iter()
            .map(|(name, value): (&HeaderName, &HeaderValue)| (name.as_str().as_bytes(), value.as_bytes().trim_ascii()))
    }
}
