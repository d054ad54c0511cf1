//! The URL of a cluster: `redis://user:password@host1:6379,host2/namespace?min_replicas=1`.
//!
//! Owns what a URL may say, and its text without the secrets. What always holds: no error and no name shows a user's
//! password; an option that is not known is refused, so that a misspelled one is not ignored.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use seen_store::backend::error;
use seen_store::{Error, ErrorKind, Result};

use crate::keys::DEFAULT_NAMESPACE;
use crate::nodes::{Settings, Tls};

/// The port of a host without one.
const DEFAULT_PORT: u16 = 6_379;
/// The longest namespace, in bytes: it is part of each key.
const LONGEST_NAMESPACE: usize = 64;

/// What a URL says.
#[derive(Debug)]
pub(crate) struct ClusterUrl {
    pub(crate) settings: Settings,
    pub(crate) namespace: String,
    /// The URL without the user, the password and the options, for messages.
    pub(crate) name: String,
}

/// Returns whether a text is the URL of a cluster, not the path of a file.
///
/// Also of a misspelled one, so that its password is never taken for a part of a path.
pub fn is_cluster_url(text: &str) -> bool {
    let text = text.trim_start().to_ascii_lowercase();
    let scheme = text.split_once(":/").map_or("", |(scheme, _)| scheme);
    ["redis", "valkey"].iter().any(|name| scheme.starts_with(name))
}

impl ClusterUrl {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let is_encrypted = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => {
                return Err(invalid("it must begin with redis:// or, encrypted, rediss://"));
            }
        };
        if is_encrypted && !cfg!(feature = "tls") {
            return Err(invalid(
                "rediss:// needs the feature `tls` of seen-cluster, without which this program was built",
            ));
        }
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains('@') || options.contains('@') {
            return Err(invalid(
                "in a user or a password, `/` is written %2F and `?` is written %3F",
            ));
        }
        // The last @: a password may hold one.
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let seeds = hosts.split(',').map(host_and_port).collect::<Result<Vec<_>>>()?;
        let mut settings = Settings { min_replicas: 1, ..Settings::new(seeds) };
        if let Some(user) = user {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            settings.username = Some(decoded(name)?).filter(|name| !name.is_empty());
            settings.password = Some(decoded(password)?).filter(|it| !it.is_empty());
        }
        let mut tls = is_encrypted.then(Tls::default);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            set(&mut settings, tls.as_mut(), option)?;
        }
        settings.tls = tls;
        let namespace = match path.trim_end_matches('/') {
            "" => DEFAULT_NAMESPACE,
            namespace => namespace,
        };
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_number = namespace.bytes().all(|byte| byte.is_ascii_digit());
        if namespace.len() > LONGEST_NAMESPACE || !namespace.bytes().all(is_fine) || is_number {
            return Err(invalid(
                "after the hosts comes a namespace, of at most 64 letters, digits and any of `._-`, which begins each key; \
                 it is no number, for a cluster has no numbered databases",
            ));
        }
        let name = format!("{scheme}://{hosts}/{namespace}");
        Ok(Self { settings, namespace: namespace.to_owned(), name })
    }
}

fn set(settings: &mut Settings, tls: Option<&mut Tls>, option: &str) -> Result<()> {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    let duration = || {
        let ms = value.parse().ok().filter(|ms| (1..=3_600_000).contains(ms));
        let ms = ms
            .ok_or_else(|| invalid(&format!("{name} is a number of milliseconds, 1 to 3600000")))?;
        Ok(Duration::from_millis(ms))
    };
    match (name, tls) {
        ("min_replicas", _) => {
            settings.min_replicas =
                value.parse().ok().filter(|count| *count <= 100).ok_or_else(|| {
                    invalid(
                        "min_replicas is the number of replicas that must have a write, 0 to 100",
                    )
                })?;
        }
        ("timeout_ms", _) => settings.timeout = Some(duration()?),
        ("wait_timeout_ms", _) => settings.wait_timeout = duration()?,
        ("connect_timeout_ms", _) => settings.connect_timeout = duration()?,
        ("response_timeout_ms", _) => settings.response_timeout = duration()?,
        ("ca", Some(tls)) => {
            let path = PathBuf::from(decoded(value)?);
            let ca = std::fs::read(&path).map_err(|e| {
                let message =
                    format!("cannot read the certificates of the option ca, {}", path.display());
                error(ErrorKind::InvalidConfig, format!("{message}: {e}"), Some(Box::new(e)))
            })?;
            tls.ca = Some(ca);
        }
        ("ca", None) => return Err(invalid("ca is an option of rediss://")),
        _ => {
            return Err(invalid(
                "it has an option that is not known; there are min_replicas, timeout_ms, wait_timeout_ms, connect_timeout_ms, response_timeout_ms \
                 and, with rediss://, ca",
            ));
        }
    }
    Ok(())
}

fn host_and_port(text: &str) -> Result<(String, u16)> {
    let bad_port = || {
        invalid(
            "after the colon of a host comes its port, a number from 1 to 65535; hosts are separated by commas, and an IPv6 \
             address stands in brackets",
        )
    };
    let port = |port: &str| port.parse().ok().filter(|port| *port > 0).ok_or_else(bad_port);
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) =
            rest.split_once(']').ok_or_else(|| invalid("an IPv6 address ends with `]`"))?;
        match after.strip_prefix(':') {
            Some(number) => (host, port(number)?),
            None if after.is_empty() => (host, DEFAULT_PORT),
            None => return Err(bad_port()),
        }
    } else {
        match text.split_once(':') {
            Some((host, number)) => (host, port(number)?),
            None => (text, DEFAULT_PORT),
        }
    };
    if host.is_empty() {
        return Err(invalid(
            "it names no host, or none between two commas; give one or more, as redis://host1:6379,host2:6379/",
        ));
    }
    Ok((host.to_owned(), port))
}

fn decoded(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| invalid("a %-escape in it is no UTF-8"))
}

/// An error that shows nothing of the URL but what the message quotes.
fn invalid(why: &str) -> Error {
    error(ErrorKind::InvalidConfig, format!("the URL of the cluster: {why}"), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_servers_user_namespace_and_options() {
        let url = "redis://bot:p%40ss@a:7000,b,[::1]:7002,[::2]/alerts?min_replicas=2&wait_timeout_ms=50&timeout_ms=7000";
        let ClusterUrl { settings, namespace, name } = ClusterUrl::parse(url).unwrap();
        let hosts: Vec<_> =
            settings.seeds.iter().map(|(host, port)| (host.as_str(), *port)).collect();
        assert_eq!(hosts, [("a", 7_000), ("b", 6_379), ("::1", 7_002), ("::2", 6_379)]);
        assert_eq!(
            (settings.username.as_deref(), settings.password.as_deref()),
            (Some("bot"), Some("p@ss"))
        );
        assert_eq!((settings.min_replicas, settings.wait_timeout), (2, Duration::from_millis(50)));
        assert_eq!(settings.timeout, Some(Duration::from_secs(7)));
        assert_eq!(
            (namespace.as_str(), name.as_str()),
            ("alerts", "redis://a:7000,b,[::1]:7002,[::2]/alerts")
        );
        assert!(settings.tls.is_none());
    }

    #[test]
    fn a_plain_url_has_the_defaults() {
        for url in ["redis://a", "redis://a/", "valkey://a", "redis://:secret@a"] {
            let parsed = ClusterUrl::parse(url).unwrap();
            assert_eq!(
                (parsed.namespace.as_str(), parsed.settings.min_replicas),
                ("seen", 1),
                "{url}"
            );
            assert_eq!(parsed.settings.username, None);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_no_secret_is_told() {
        for (url, told) in [
            ("http://bot:hunter2@a", "redis://"),
            ("redis://bot:hunter2@", "no host"),
            ("redis://bot:hunter2@a,,b", "no host"),
            ("redis://bot:hunter2@a:x", "port"),
            ("redis://bot:hunter2@a:0", "port"),
            ("redis://bot:hunter2@[::1", "]"),
            ("redis://bot:hunter2@a/0/1", "namespace"),
            ("redis://bot:hunter2@a/0", "numbered"),
            ("redis://bot:hunter2@a/a%20b", "namespace"),
            ("redis://bot:hunter2%FF@a", "UTF-8"),
            ("redis://bot:hun/ter2@a", "%2F"),
            ("redis://bot:hunter2?x@a", "%3F"),
            ("redis://bot:hunter2@a?min_replica=1", "min_replicas"),
            ("redis://bot:hunter2@a?min_replicas=-1", "0 to 100"),
            ("redis://bot:hunter2@a?wait_timeout_ms=0", "milliseconds"),
            ("redis://bot:hunter2@a?ca=/x", "rediss"),
        ] {
            let error = ClusterUrl::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            let text = format!("{error} {error:?}");
            assert!(text.contains(told) && !text.contains("hunter2"), "{url}: {text}");
        }
    }
}
