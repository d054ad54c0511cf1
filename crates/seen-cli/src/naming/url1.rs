//! The form `url1`: a URL as what it names.
//!
//! Owns which differences do not count. What always holds: neither the rules nor the list ever change, because stores
//! keep the ids that were made with them. Other rules or another list will be `url2`.

use std::borrow::Cow;

use url::Url;

/// Query parameters that tell where a reader came from, not what is read. Compared without regard to case.
const TRACKING: [&str; 47] = [
    "_ga",
    "_gl",
    "_hsenc",
    "_hsmi",
    "__hsfp",
    "__hssc",
    "__hstc",
    "dclid",
    "epik",
    "fbclid",
    "gad_campaignid",
    "gad_source",
    "gbraid",
    "gclid",
    "gclsrc",
    "hsctatracking",
    "igsh",
    "igshid",
    "irclickid",
    "li_fat_id",
    "mc_cid",
    "mc_eid",
    "mkt_tok",
    "ml_subscriber",
    "ml_subscriber_hash",
    "msclkid",
    "mtm_campaign",
    "mtm_cid",
    "mtm_content",
    "mtm_keyword",
    "mtm_medium",
    "mtm_source",
    "oly_anon_id",
    "oly_enc_id",
    "pk_campaign",
    "pk_kwd",
    "rb_clickid",
    "sccid",
    "srsltid",
    "ttclid",
    "twclid",
    "vero_conv",
    "vero_id",
    "wbraid",
    "wickedid",
    "yclid",
    "ysclid",
];

/// Returns what a URL names: https for http too, the host in lower case, no default port, no slashes at the end of the
/// path, no tracking parameters, and no fragment, except one that begins with `/` or `!`, which names a page. Any
/// other text is returned as it is.
pub(crate) fn normalized(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match str::from_utf8(&text).ok().and_then(normal_form) {
        Some(url) => Cow::Owned(url.into_bytes()),
        None => text,
    }
}

fn normal_form(text: &str) -> Option<String> {
    let begins_with =
        |scheme: &str| text.get(..scheme.len()).is_some_and(|it| it.eq_ignore_ascii_case(scheme));
    // The parser would take `http:x` for a URL, and ignore space and line breaks.
    let is_one = begins_with("http://") || begins_with("https://");
    if !is_one || text.bytes().any(|byte| byte <= b' ') {
        return None;
    }
    let url = Url::parse(text).ok()?;
    // The parser leaves out a port that is the default of the scheme.
    let mut form = "https://".to_owned();
    if !url.username().is_empty() || url.password().is_some() {
        form.push_str(url.username());
        if let Some(password) = url.password() {
            form.extend([":", password]);
        }
        form.push('@');
    }
    form.push_str(url.host_str()?);
    if let Some(port) = url.port() {
        form.extend([":", &port.to_string()]);
    }
    form.push_str(url.path().trim_end_matches('/'));
    let query = url.query().unwrap_or_default();
    let parameters: Vec<_> = query.split('&').filter(|it| !it.is_empty() && names(it)).collect();
    if !parameters.is_empty() {
        form.push('?');
        form.push_str(&parameters.join("&"));
    }
    if let Some(fragment) = url.fragment().filter(|it| it.starts_with(['/', '!'])) {
        form.extend(["#", fragment]);
    }
    Some(form)
}

/// Returns whether a parameter says what is named.
fn names(parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or_default().to_ascii_lowercase();
    !name.starts_with("utm_") && !TRACKING.contains(&&*name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> String {
        String::from_utf8(normalized(text.as_bytes().into()).into_owned()).unwrap()
    }

    #[test]
    fn what_names_one_thing_is_one_text() {
        for url in [
            "https://example.org/a",
            "http://example.org/a",
            "HTTPS://Example.ORG/a",
            "http://example.org:80/a",
            "https://example.org:443/a/",
            "https://example.org/a#top",
            "https://example.org/a?",
            "https://example.org/a?utm_source=x&UTM_Medium=y",
            "https://example.org/a/?fbclid=x#:~:text=b",
            "https://example.org/b/../a",
        ] {
            assert_eq!(form(url), "https://example.org/a", "{url}");
        }
        assert_eq!(form("http://example.org/"), form("https://example.org"));
        assert_eq!(form("https://b\u{fc}cher.example/"), "https://xn--bcher-kva.example");
    }

    #[test]
    fn what_may_name_another_thing_stays() {
        for url in [
            "https://example.org:8080/a",
            "https://example.org:80/a",
            "https://example.org/A",
            "https://example.org/a?id=1&page=2",
            "https://example.org/a?page=2&id=1",
            "https://example.org/a?ref=x",
            "https://example.org/#/item/17",
            "https://example.org/#!item",
            "https://www.example.org/a",
            "https://u:p@example.org/a",
            "https://example.org/%7Ea",
        ] {
            let expected = url.replace("/#", "#");
            assert_eq!(form(url), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_url_stays() {
        for text in [
            "",
            "17",
            "http:",
            "http://",
            "http:example.org/",
            "ftp://Example.org/",
            "tag:Example.org,2026:1",
            " http://Example.org/",
            "http://Example.org/a b/",
            "see http://Example.org/",
            "http://[::1",
            "\u{e9}http://",
        ] {
            assert_eq!(form(text), text);
        }
        assert_eq!(normalized(b"http://\xff/".into()).as_ref(), b"http://\xff/");
    }

    #[test]
    fn the_list_is_in_lower_case_and_names_none_twice() {
        assert!(TRACKING.iter().all(|name| *name == name.to_ascii_lowercase()));
        assert!(TRACKING.iter().enumerate().all(|(n, name)| !TRACKING[..n].contains(name)));
    }
}
