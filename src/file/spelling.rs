//! Whether a path is spelt as a path, or as text for a shell or another program.
//!
//! Docker, systemd and cron hand a setting on as it is written: no shell expands `~/seen.db` or `$HOME/seen.db` on the
//! way. Taken literally, it names a folder `~` or `$HOME` wherever the program stands: a new store, to which each id is
//! new. What always holds: a path that passes is taken literally, and so is all that follows a component `.`, as in
//! `./~/seen.db` or `/data/./$old/seen.db`. Looks at the text alone, and knows nothing of files.
//!
//! A character that only *may* be meant for a shell passes: `a$b.db`, `~seen.db` and `100%.db` are file names.

use std::path::Path;

use super::shown;
use crate::error::{Error, ErrorKind, Result};

/// The schemes that are refused without `//` after them too. Other names with a colon are file names.
const SCHEMES: [&str; 12] = [
    "file",
    "sqlite",
    "sqlite3",
    "jdbc",
    "redis",
    "rediss",
    "valkey",
    "postgres",
    "postgresql",
    "mysql",
    "http",
    "https",
];

/// Refuses a path that was not expanded, is a URL, or has quotation marks or white space around it.
pub(super) fn refuse_unexpanded(path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    let Some(why) = problem(&text) else { return Ok(()) };
    Err(Error::new(
        ErrorKind::InvalidPath,
        format!("{}: {why}, or put ./ before it to mean it literally", shown(path)),
    ))
}

fn problem(text: &str) -> Option<String> {
    let mut components = text.split(is_separator);
    let first = components.clone().next()?;
    if first == "." {
        return None;
    }
    if let Some(scheme) = scheme(text) {
        let of_a_cluster =
            ["redis", "rediss", "valkey", "valkeys"].contains(&&*scheme.to_ascii_lowercase());
        let remedy = if of_a_cluster {
            "a store on a cluster is opened by the crate seen-cluster; or give"
        } else {
            "give"
        };
        return Some(format!(
            "URLs ({scheme}:) are not supported; {remedy} the plain path of a file"
        ));
    }
    if text.trim() != text {
        return Some("there is white space around the path; remove it".to_owned());
    }
    if let Some(mark) = ['"', '\''].into_iter().find(|mark| is_quoted(text, *mark)) {
        return Some(format!(
            "the quotation marks ({mark}) are taken for a part of the path; remove them"
        ));
    }
    let not_expanded = if text == "~" || (first.starts_with('~') && first != text) {
        first
    } else {
        components.by_ref().take_while(|component| *component != ".").find_map(variable)?
    };
    Some(format!("{not_expanded} was not expanded, which only a shell does; give the whole path"))
}

fn is_separator(character: char) -> bool {
    character == '/' || (cfg!(windows) && character == '\\')
}

/// Returns the scheme of a URL.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    let mut characters = scheme.chars();
    let is_one = characters.next()?.is_ascii_alphabetic()
        && characters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let is_known = SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme));
    (is_one && (is_known || rest.starts_with("//"))).then_some(scheme)
}

fn is_quoted(text: &str, mark: char) -> bool {
    text.len() > 1 && text.starts_with(mark) && text.ends_with(mark)
}

/// Returns what a shell would replace in this component of a path: `$NAME` and `%NAME%` at its start, `${` and `$(`
/// anywhere in it.
fn variable(component: &str) -> Option<&str> {
    if let Some(at) = component.find("${").or_else(|| component.find("$(")) {
        let end =
            component[at..].find(['}', ')']).map_or(component.len(), |length| at + length + 1);
        return Some(&component[at..end]);
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if component.starts_with('$') {
        // A dollar sign that was doubled for one program may still be doubled for the next.
        let name = component.trim_start_matches('$');
        let end = name.find(|c| !is_name(c)).unwrap_or(name.len());
        return (end > 0).then(|| &component[..component.len() - name.len() + end]);
    }
    let (name, _) = component.strip_prefix('%')?.split_once('%')?;
    let is_variable = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| is_name(c) || "()".contains(c));
    is_variable.then(|| &component[..name.len() + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_expanded_is_refused_and_told_with_the_way_to_mean_it() {
        for (path, told) in [
            ("~", "~ was not expanded"),
            ("~/s.db", "~ was not expanded"),
            ("~root/s.db", "~root was not expanded"),
            ("$HOME/s.db", "$HOME was not expanded"),
            ("${HOME}/s.db", "${HOME} was not expanded"),
            ("$$HOME/s.db", "$$HOME was not expanded"),
            ("/data/$USER/s.db", "$USER was not expanded"),
            ("/data/$1", "$1 was not expanded"),
            ("$env:APPDATA/s.db", "$env was not expanded"),
            ("/data/seen-${HOST:-x}.db", "${HOST:-x} was not expanded"),
            ("/data/seen-$(hostname).db", "$(hostname) was not expanded"),
            ("%APPDATA%/s.db", "%APPDATA% was not expanded"),
            ("%ProgramFiles(x86)%/s.db", "%ProgramFiles(x86)% was not expanded"),
            ("redis://host/", "(redis:)"),
            ("unheard-of://host/", "(unheard-of:)"),
            ("sqlite:s.db", "(sqlite:)"),
            ("sqlite:///data/s.db", "(sqlite:)"),
            ("redis://node1/seen", "seen-cluster"),
            ("FILE:s.db?mode=ro", "(FILE:)"),
            ("jdbc:sqlite:s.db", "(jdbc:)"),
            ("\"/data/s.db\"", "quotation marks"),
            ("'s.db'", "quotation marks"),
            ("/data/s.db\r", "white space"),
            (" /data/s.db", "white space"),
            ("\"~/s.db\"", "quotation marks"),
        ] {
            let error = refuse_unexpanded(Path::new(path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidPath);
            let message = error.to_string();
            let shown = shown(Path::new(path));
            assert!(message.starts_with(&format!("{shown}: ")), "{message}");
            assert!(message.contains(told), "{path}: {message}");
            assert!(message.ends_with("put ./ before it to mean it literally"), "{message}");
            refuse_unexpanded(Path::new(&format!("./{path}"))).unwrap();
        }
    }

    #[test]
    fn names_that_only_look_a_little_like_it_are_names() {
        for path in [
            "s.db",
            "/data/s.db",
            "../s.db",
            "a$b.db",
            "C$",
            "$",
            "$.db",
            "/data/~/s.db",
            "~s.db",
            "s.db~",
            "100%.db",
            "%20s%20.db",
            "%",
            "%%",
            "a:b.db",
            "C:/s.db",
            "12:30.db",
            "a b.db",
            "it's.db",
            "\"",
            "/data/http:/s.db",
            "/data/./$USER/s.db",
            "-s.db",
            "{x}.db",
            "*.db",
        ] {
            refuse_unexpanded(Path::new(path)).unwrap();
        }
    }
}
