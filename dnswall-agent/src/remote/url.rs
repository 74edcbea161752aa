//! Where a server is: takes what somebody wrote, gives a URL that may be asked, and shows it without what is secret in it.

use std::fmt;

use http::Uri;

use crate::digest::sha256;

/// Bytes of a URL.
pub const URL_BYTES_MAX: usize = 2_048;
/// Hexadecimal digits that files of it are called by.
const KEY_DIGITS: usize = 32;

/// `https://`, or `http://` to this host itself. Its `Display` and `Debug` leave out user, password and query.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    text: String,
    uri: Uri,
}

/// Why nobody may be asked there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadUrl {
    /// Plain http, and not to this host.
    Plain,
    /// Another protocol.
    Scheme,
    /// It has a `#` and what follows.
    Fragment,
    /// It is longer than [`URL_BYTES_MAX`].
    TooLong,
    /// It is no URL.
    Malformed,
}

impl BadUrl {
    /// Why, for a person.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Plain => "whoever is on the way could read and write what is sent",
            Self::Scheme => "it has to be https",
            Self::Fragment => "what follows `#` is never sent to a server",
            Self::TooLong => "a URL may have 2048 bytes",
            Self::Malformed => {
                "a URL has a host, perhaps a port, and neither blanks nor letters beyond ASCII"
            }
        }
    }

    /// What to write.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Plain => {
                "write https://; http:// is only for this host itself (localhost, 127.0.0.1, [::1])"
            }
            Self::Scheme => "write like \"https://server.example.net/path\"",
            Self::Fragment => "take it out",
            Self::TooLong => "write a shorter one",
            Self::Malformed => {
                "write like \"https://server.example.net/path\", other letters of a host as xn--…, elsewhere as %C3%BC"
            }
        }
    }
}

impl ServerUrl {
    /// Whether this is meant as a URL at all, and not as a path.
    pub fn is_meant(text: &str) -> bool {
        text.split_once("://").is_some_and(|(scheme, _)| !scheme.contains('/'))
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// Why nobody may be asked there.
    pub fn new(text: &str) -> Result<Self, BadUrl> {
        if text.len() > URL_BYTES_MAX {
            return Err(BadUrl::TooLong);
        }
        if text.contains('#') {
            return Err(BadUrl::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| BadUrl::Malformed)?;
        let url = Self { text: text.to_owned(), uri };
        match url.uri.scheme_str() {
            _ if url.host().is_empty() || !url.has_port_or_none() => Err(BadUrl::Malformed),
            Some("https") => Ok(url),
            Some("http") if url.is_here() => Ok(url),
            Some("http") => Err(BadUrl::Plain),
            _ => Err(BadUrl::Scheme),
        }
    }

    /// Whether what is behind the host is a port, where there is something.
    fn has_port_or_none(&self) -> bool {
        let behind = self.place().strip_prefix(self.uri.host().unwrap_or_default());
        behind == Some("") || self.uri.port_u16().is_some_and(|port| port > 0)
    }

    /// Host and port, without user and password.
    fn place(&self) -> &str {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        authority.rsplit_once('@').map_or(authority, |(_, place)| place)
    }

    /// The URL, whole: what is secret in it included.
    pub fn secret(&self) -> &str {
        &self.text
    }

    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// What follows a question mark: it may be a secret.
    pub fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    /// Whether it is this host itself.
    pub fn is_here(&self) -> bool {
        let host = self.host();
        let address = host.parse::<std::net::IpAddr>();
        host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
    }

    /// Whether there is a user in it, and perhaps a password.
    pub fn has_user(&self) -> bool {
        self.uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
    }

    /// Whether it is https.
    pub fn is_encrypted(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Where it is, without what may be secret in it: a path may be, as those of chat services' hooks are.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.uri.scheme_str().unwrap_or_default(), self.place())
    }

    /// Whether there is something behind a question mark.
    pub fn has_query(&self) -> bool {
        self.uri.query().is_some()
    }

    /// What its files are called: a part of the SHA-256 of it, hexadecimal.
    pub fn key(&self) -> String {
        let mut key = sha256(&self.text);
        key.truncate(KEY_DIGITS);
        key
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        write!(formatter, "{scheme}://{}{}", self.place(), self.uri.path())?;
        formatter.write_str(if self.uri.query().is_some() { "?…" } else { "" })
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ServerUrl({self})")
    }
}

/// A text with `*` for what is secret in the URLs in it, so that places in it stay what they are: logs show lines of policies.
pub fn without_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + 3);
        shown.push_str(before);
        let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>');
        let (url, behind) = behind.split_at(behind.find(ends).unwrap_or(behind.len()));
        let query = url.find('?').unwrap_or(url.len());
        let authority = url[..query].find('/').unwrap_or(query);
        let place = url[..authority].rfind('@').unwrap_or(0);
        shown.extend(std::iter::repeat_n('*', place));
        shown.push_str(&url[place..query]);
        if query < url.len() {
            shown.push('?');
            shown.extend(std::iter::repeat_n('*', url.len() - query - 1));
        }
        rest = behind;
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_fetched() {
        for fine in [
            "https://lists.example.net/malware.txt",
            "HTTPS://user:word@lists.example.net:8443/a?token=b",
            "http://127.0.0.1:8080/a",
            "http://[::1]/a",
            "https://[2001:db8::1]:8443",
            "http://localhost/a",
        ] {
            assert!(ServerUrl::is_meant(fine) && ServerUrl::new(fine).is_ok(), "{fine}");
        }
        for (wrong, why) in [
            ("http://lists.example.net/a", BadUrl::Plain),
            ("http://localhost.example.net/a", BadUrl::Plain),
            ("http://127.0.0.1@lists.example.net/a", BadUrl::Plain),
            ("ftp://lists.example.net/a", BadUrl::Scheme),
            ("https://lists.example.net/a#b", BadUrl::Fragment),
            ("https:///a", BadUrl::Malformed),
            ("https://lists.example.net/a b", BadUrl::Malformed),
            ("https://", BadUrl::Malformed),
            ("https://lists.example.net:99999/a", BadUrl::Malformed),
            ("https://lists.example.net:/a", BadUrl::Malformed),
            ("https://[2001:db8::1]:0/a", BadUrl::Malformed),
        ] {
            assert_eq!(ServerUrl::new(wrong), Err(why), "{wrong}");
        }
        assert_eq!(ServerUrl::new(&format!("https://a/{}", "b".repeat(2_048))), Err(BadUrl::TooLong));
        assert!(!ServerUrl::is_meant("/etc/a://b") && !ServerUrl::is_meant("etc/a"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let url = ServerUrl::new("https://user:word@lists.example.net:8443/a?token=b").unwrap();
        assert_eq!(url.to_string(), "https://lists.example.net:8443/a?…");
        assert_eq!(format!("{url:?}"), "ServerUrl(https://lists.example.net:8443/a?…)");
        assert_eq!(url.key().len(), KEY_DIGITS);
        let line = "source = \"https://u:p@a.example/x?t=ü1\" # and https://b.example/y?z";
        let shown = without_secrets(line);
        assert_eq!(shown, "source = \"https://***@a.example/x?*****\" # and https://b.example/y?*");
        assert_eq!(shown.len(), line.len());
        assert_eq!(without_secrets("to = [\"::1\"] # a@b?"), "to = [\"::1\"] # a@b?");
    }
}
