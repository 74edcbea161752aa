//! Takes what went wrong with a server, says it to a person.

use std::io;
use std::time::Duration;

/// Why there is no answer over HTTP. Errors that would show a URL do not.
pub fn http_words(error: &ureq::Error, left: Duration) -> String {
    match error {
        ureq::Error::Io(error) => io_words(error),
        ureq::Error::Timeout(ureq::Timeout::Global | ureq::Timeout::PerCall | ureq::Timeout::RecvBody) => {
            format!("it was not here within {} s", left.as_secs_f32().ceil())
        }
        ureq::Error::Timeout(_) => "the server keeps silent".to_owned(),
        ureq::Error::HostNotFound => "its host has no address".to_owned(),
        ureq::Error::RequireHttpsOnly(_) => "it redirects to where it would come without https".to_owned(),
        ureq::Error::TooManyRedirects => "it redirects too often, or without https".to_owned(),
        ureq::Error::BadUri(_) | ureq::Error::RedirectFailed => "it redirects to what is no URL".to_owned(),
        ureq::Error::Rustls(error) => format!("TLS: {error}"),
        ureq::Error::ConnectProxyFailed(_) => "the proxy does not connect".to_owned(),
        other => other.to_string(),
    }
}

/// The same of a connection.
pub fn io_words(error: &io::Error) -> String {
    if error.raw_os_error() == Some(libc::EPERM) {
        return "this host does not let the agent go there (EPERM): the policy needs a rule for dnswall.service and that \
                host"
            .to_owned();
    }
    let inner = error.get_ref();
    if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return format!("TLS: {tls}");
    }
    if let Some(wrapped) = inner.and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        return http_words(wrapped, Duration::ZERO);
    }
    let said = error.to_string();
    match said.strip_prefix("failed to lookup address information: ") {
        Some(why) => format!(
            "its host's name cannot be looked up: {why} (may dnswall.service ask the resolver? `dnswall events` has what \
             was refused)"
        ),
        None => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_is_named_when_it_refuses() {
        let said = http_words(&ureq::Error::Io(io::Error::from_raw_os_error(libc::EPERM)), Duration::ZERO);
        assert!(said.contains("EPERM") && said.contains("dnswall.service"), "{said}");
    }
}
