//! Reading a configuration file: every complaint names file, line, column, and what would be right.
//!
//! Owns: the diagnostics. Must never: fill in a value, or accept a key it does not know.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use resilver_host::Host;
use serde::de::DeserializeOwned;
use serde_yaml::Error as YamlError;

use crate::exit::{Code, Failure};

/// The longest configuration that is read. Real ones have a few kilobytes: a larger file is some other file.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// The largest share of a word that may differ for it to count as a misspelling: a third of its letters.
const MISSPELT_SHARE: usize = 3;

/// Reads and parses `path`.
///
/// # Errors
/// [`Code::Usage`] with position, cause and next step; nothing is half applied.
pub(crate) async fn load<T: DeserializeOwned>(host: &Host, path: &Path) -> Result<T, Failure> {
    let data = resilver_host::disk::read_file(&*host.disk, path, MAX_CONFIG_BYTES)
        .await
        .map_err(|error| unreadable(path, &error))?;
    let text = std::str::from_utf8(&data).map_err(|error| {
        let line = data[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        Failure::usage(format!("{}:{line}: not UTF-8 text", path.display())).next("save the file as UTF-8")
    })?;
    parse(path, text)
}

/// Parses configuration text; `path` is only for messages.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Failure> {
    let options = serde_yaml::options! { with_snippet: false };
    serde_yaml::from_str_with_options(text, options).map_err(|error| explain(path, text, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Code::Usage, format!("cannot read the configuration {}: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::NotFound => failure.next("name an existing file with --config FILE"),
        _ => failure,
    }
}

/// What is wrong, in terms of the file.
fn explain(path: &Path, text: &str, error: &YamlError) -> Failure {
    let error = error.without_snippet();
    let at = error.location().map(|location| (location.line() as usize, location.column() as usize));
    let (what, next) = match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown key `{field}`"), valid_names("keys", field, expected))
        }
        YamlError::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("unknown value `{variant}`"), valid_names("values", variant, expected))
        }
        YamlError::DuplicateMappingKey { key, .. } => {
            let what = key.as_ref().map_or("a key is given twice".to_owned(), |key| format!("duplicate key `{key}`"));
            (what, vec!["keep one of the two: which one would win is nobody's guess".to_owned()])
        }
        YamlError::SerdeMissingField { field, .. } => {
            (format!("missing key `{field}`"), vec![format!("add `{field}:`; see `resilver config schema`")])
        }
        YamlError::SerdeInvalidType { unexpected, expected, .. }
        | YamlError::SerdeInvalidValue { unexpected, expected, .. } => {
            (format!("{unexpected} where {expected} is expected"), vec!["see `resilver config schema`".to_owned()])
        }
        other => (plain(&other.to_string()), vec!["see `resilver config schema`".to_owned()]),
    };
    let mut message = match at {
        Some((line, column)) => format!("{}:{line}:{column}: {what}", path.display()),
        None => format!("{}: {what}", path.display()),
    };
    if let Some((line, column)) = at {
        message.push_str(&snippet(text, line, column));
    }
    next.into_iter().fold(Failure::usage(message), Failure::next)
}

/// The parser repeats the position at the end of its messages; ours stands in front.
fn plain(message: &str) -> String {
    let first = message.lines().next().unwrap_or(message);
    let first = first.split(" at line ").next().unwrap_or(first);
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

fn valid_names(kind: &str, got: &str, expected: &[&'static str]) -> Vec<String> {
    let mut next = Vec::new();
    if let Some(near) = nearest(got, expected) {
        next.push(format!("did you mean `{near}`?"));
    }
    next.push(format!("valid {kind} here: {}", expected.join(", ")));
    next
}

/// The line with a caret under the place.
fn snippet(text: &str, line: usize, column: usize) -> String {
    let Some(source) = line.checked_sub(1).and_then(|index| text.lines().nth(index)) else { return String::new() };
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    let mut out = String::new();
    let indent = " ".repeat(column.saturating_sub(1));
    // Writing into a String cannot fail.
    let _ = write!(out, "\n{margin} |\n{number} | {source}\n{margin} | {indent}^");
    out
}

/// The candidate `got` is a likely misspelling of.
pub(crate) fn nearest<'a>(got: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let limit = (got.chars().count().max(3)) / MISSPELT_SHARE;
    candidates
        .iter()
        .map(|candidate| (distance(&got.to_lowercase(), candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The folder relative paths of a configuration start from: that of the file itself.
pub(crate) fn base_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn complaint(text: &str) -> String {
        match parse::<Config>(Path::new("r.yaml"), text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn a_misspelt_key_names_its_place_and_the_right_name() {
        let text = complaint("profile: fast\nnoed:\n  name: n1\n");
        assert!(text.starts_with("error: r.yaml:2:1: unknown key `noed`"), "{text}");
        assert!(text.contains("did you mean `node`?"), "{text}");
        assert!(text.contains("2 | noed:\n  | ^"), "{text}");
    }

    #[test]
    fn a_nested_misspelt_key_names_the_keys_of_its_section() {
        let text = complaint("node:\n  name: n1\n  adress: 127.0.0.1:1\n");
        assert!(text.starts_with("error: r.yaml:3:3: unknown key `adress`"), "{text}");
        assert!(text.contains("did you mean `address`?") && text.contains("data_dir"), "{text}");
    }

    #[test]
    fn a_duplicate_key_names_its_second_place() {
        let text = complaint("profile: fast\nprofile: production\n");
        assert!(text.starts_with("error: r.yaml:2:1: duplicate key `profile`"), "{text}");
    }

    #[test]
    fn a_wrong_value_names_the_right_ones() {
        let text = complaint("profile: fsat\n");
        assert!(text.starts_with("error: r.yaml:1:10: unknown value `fsat`"), "{text}");
        assert!(text.contains("did you mean `fast`?") && text.contains("production"), "{text}");
    }

    #[test]
    fn swapped_letters_count_as_one_mistake() {
        assert_eq!(distance("noed", "node"), 1);
        assert_eq!(nearest("xyz", &["node", "agent"]), None);
    }
}
