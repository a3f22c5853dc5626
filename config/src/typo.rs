//! What serde says of a file, for who wrote the file.

/// Rust's words for what is expected, and those of the file.
const WORDS: [(&str, &str); 7] = [
    ("a sequence", "a list, as [...]"),
    ("a map", "a table"),
    ("u8", "a number from 0 to 255"),
    ("u16", "a number from 0 to 65535"),
    ("u32", "a number from 0 to 4294967295"),
    ("u64", "a number from 0"),
    ("usize", "a number from 0"),
];

/// The message, in the file's words.
pub(crate) fn plain(message: &str) -> String {
    let Some((before, expected)) = message.rsplit_once(", expected ") else { return message.to_owned() };
    match WORDS.iter().find(|(word, _)| *word == expected) {
        Some((_, word)) => format!("{before}, expected {word}"),
        None if expected.starts_with("struct ") => format!("{before}, expected a table"),
        None => message.to_owned(),
    }
}

/// What may have been meant by the name that nobody knows: serde quotes that first, and then all that it does know.
pub(crate) fn meant(message: &str) -> Option<String> {
    let quoted = message.strip_prefix("unknown field ").or_else(|| message.strip_prefix("unknown variant "))?;
    let mut names = quoted.split('`').skip(1).step_by(2);
    let wrong = names.next()?;
    let (distance, name) = names.map(|name| (distance(wrong, name), name)).min()?;
    (distance <= 1 + wrong.len() / 5).then(|| format!("did you mean `{name}`?"))
}

/// How many characters must be put in, taken out, replaced, or swapped with the next.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let other = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + other);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_what_was_meant() {
        let known = "expected one of `max_value`, `max_fee`, `chains`, `policies`";
        for (wrong, right) in [
            ("max_valu", Some("max_value")),
            ("polices", Some("policies")),
            ("chians", Some("chains")),
            ("max_feee", Some("max_fee")),
            ("Chains", Some("chains")),
            ("limit", None),
            ("x", None),
        ] {
            let found = meant(&format!("unknown field `{wrong}`, {known}"));
            assert_eq!(found, right.map(|right| format!("did you mean `{right}`?")), "{wrong}");
        }
        assert_eq!(meant("unknown field `perod`, expected `period` or `max`").unwrap(), "did you mean `period`?");
        assert_eq!(meant("unknown field `x`, there are no fields"), None);
        assert_eq!(meant("invalid type: string \"`a` `a`\", expected u8"), None);
    }

    #[test]
    fn types_are_named_as_the_file_has_them() {
        for (says, plainly) in [
            (
                "invalid type: string \"a\", expected a sequence",
                "invalid type: string \"a\", expected a list, as [...]",
            ),
            (
                "invalid value: integer `-1`, expected u32",
                "invalid value: integer `-1`, expected a number from 0 to 4294967295",
            ),
            ("invalid type: integer `1`, expected struct Signer", "invalid type: integer `1`, expected a table"),
            ("invalid type: integer `1`, expected a string", "invalid type: integer `1`, expected a string"),
            ("missing field `a`", "missing field `a`"),
        ] {
            assert_eq!(plain(says), plainly);
        }
    }
}
