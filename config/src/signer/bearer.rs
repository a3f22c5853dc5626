//! Bearer tokens of callers, of which only SHA-256 is kept.

use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use sha2::{Digest, Sha256};

/// Fewer characters are no token.
const SHORTEST: usize = 16;
/// Fewer are warned of: 32 hex digits are 128 bits, if they are random.
const SHORT: usize = 32;
/// Before a token's hash in a file.
const PREFIX: &str = "sha256:";

/// SHA-256 of a bearer token. Nothing prints it: it is enough to guess a token by, where that is not random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenHash(pub [u8; 32]);

/// The tokens of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// One, or two while the caller goes over from one to the next.
    pub hashes: Vec<TokenHash>,
    /// A token there is so short that it is worth a warning. That of a hash is not known.
    pub short: bool,
}

impl TokenHash {
    /// Of this token.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// From 64 hex digits.
    fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        alloy_primitives::hex::decode_to_slice(text, &mut bytes).ok().filter(|()| text.len() == 64)?;
        Some(Self(bytes))
    }

    /// Of what is given as a token: at least 16 visible ASCII characters, and no spaces but around them.
    ///
    /// # Errors
    /// What a token is; never what was given.
    pub fn of_line(line: &str) -> Result<Self, &'static str> {
        let token = line.trim();
        if token.len() < SHORTEST || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("a token is at least 16 visible ASCII characters");
        }
        Ok(Self::of(token.as_bytes()))
    }

    /// As a line of a token's file.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{PREFIX}{}", alloy_primitives::hex::encode(self.0))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // What is there instead may be the token itself, and is not repeated.
        Self::from_hex(&String::deserialize(deserializer)?).ok_or_else(|| {
            de::Error::custom(
                "expected the 64 hex digits of a token's SHA-256: what `keygate signer hash-token` prints behind \"sha256:\"",
            )
        })
    }
}

impl JsonSchema for TokenHash {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TokenHash".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{64}$" })
    }
}

/// Reads a caller's tokens: one or two lines, each a token or `sha256:` and 64 hex digits.
///
/// # Errors
/// One line that names the file; never its content.
pub fn load_tokens(path: &Path) -> Result<Tokens, String> {
    let text = crate::files::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&String::from_utf8_lossy(&text)).map_err(|why| format!("{}: {why}", path.display()))
}

fn parse(text: &str) -> Result<Tokens, &'static str> {
    let mut tokens = Tokens { hashes: Vec::new(), short: false };
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let hash = match line.strip_prefix(PREFIX) {
            Some(digits) => TokenHash::from_hex(digits).ok_or("expected 64 hex digits behind \"sha256:\"")?,
            None => {
                tokens.short |= line.len() < SHORT;
                TokenHash::of_line(line)?
            }
        };
        if !tokens.hashes.contains(&hash) {
            tokens.hashes.push(hash);
        }
    }
    match tokens.hashes.len() {
        0 => Err("a token is at least 16 visible ASCII characters"),
        1 | 2 => Ok(tokens),
        _ => Err("more than two tokens: there is the current one, and the next"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn one_or_two_lines_plain_or_hashed() {
        let one = TokenHash::of(ONE.as_bytes());
        let two = TokenHash::of(b"another-token-of-32-characters-..");
        for text in [ONE.to_owned(), format!("  {ONE}\r\n\n"), one.line(), format!("{}\n{ONE}\n", one.line())] {
            assert_eq!(parse(&text), Ok(Tokens { hashes: vec![one], short: false }), "{text}");
        }
        let both = parse(&format!("{ONE}\n{}", two.line())).unwrap();
        assert_eq!(both.hashes, [one, two]);
        assert!(parse("0123456789abcdef\n").unwrap().short);
        assert!(!format!("{both:?}").contains("[48"), "{both:?}");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let three = format!("{ONE}a\n{ONE}b\n{ONE}c\n");
        for text in ["", "\n", "short", "0123456789 abcdef", "sha256:", "sha256:0x00", &format!("sha256:{ONE}"), &three]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        // A prefix that a hex decoder would forgive.
        assert!(parse(&format!("sha256:0x{}", &TokenHash::of(b"").line()[9..])).is_err());
    }
}
