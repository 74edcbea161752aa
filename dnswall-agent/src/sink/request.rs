//! What all sinks over HTTP have in common: asks a server with the certificates and the secret as they are, and says what an
//! answer means for the alerts.

use super::Failure;
use super::Sent;
use super::halves::Answer;
use crate::remote::{Client, Reply, Server};

/// Characters of what a server says that are passed on.
const SAID_CHARACTERS_MAX: usize = 200;

/// Requests to one server.
#[derive(Debug)]
pub(super) struct Requests {
    server: Server,
    client: Option<Client>,
}

impl Requests {
    pub(super) fn to(server: Server) -> Self {
        Self { server, client: None }
    }

    /// Sends a body, over the connection of the last request if that still stands.
    pub(super) fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, Failure> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.server.client().map_err(Failure::of)?,
        };
        let reply = client.post(path, headers, body).map_err(Failure::of)?;
        // After anything else certificates and secret are read again: somebody may have mended them.
        if reply.status < 300 {
            self.client = Some(client);
        }
        Ok(reply)
    }
}

/// What an answer means whose body does not matter.
pub(super) fn judged(reply: &Reply, bytes: usize) -> Result<Answer, Failure> {
    match reply.status {
        200..=299 => Ok(Answer::Sent(Sent { bytes, rejected: Vec::new() })),
        400 | 413 | 422 => Ok(Answer::Refused(reply_words(reply))),
        _ => Err(later(reply)),
    }
}

/// It is to be tried again.
pub(super) fn later(reply: &Reply) -> Failure {
    Failure { after: reply.retry_after, ..Failure::of(reply_words(reply)) }
}

/// What the server said, for people. No secrets.
pub(super) fn reply_words(reply: &Reply) -> String {
    let status = reply.status;
    if (300..400).contains(&status) {
        return format!("the server redirects ({status}): write where it leads as `url`");
    }
    // Before it is cut: half of a secret is too much.
    let said = reply.hidden.out_of(&String::from_utf8_lossy(&reply.body));
    let said: String = said
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(SAID_CHARACTERS_MAX)
        .collect();
    match said.trim() {
        "" => format!("the server answers {status}"),
        said => format!("the server answers {status}: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::Hidden;

    fn reply(status: u16, body: &str) -> Reply {
        let hidden = Hidden::new(["open sesame"]);
        Reply { status, retry_after: None, body: body.as_bytes().to_vec(), hidden }
    }

    #[test]
    fn only_what_is_about_the_alerts_refuses_them() {
        for status in [200, 201, 202, 204] {
            let sent = Sent { bytes: 7, rejected: Vec::new() };
            assert_eq!(judged(&reply(status, ""), 7), Ok(Answer::Sent(sent)), "{status}");
        }
        for status in [400, 413, 422] {
            assert!(matches!(judged(&reply(status, ""), 7), Ok(Answer::Refused(_))), "{status}");
        }
        // A wrong address, secret or moment is no reason to give alerts up.
        for status in [301, 307, 401, 403, 404, 405, 408, 429, 500, 502, 503, 504] {
            assert!(judged(&reply(status, ""), 7).is_err(), "{status}");
        }
    }

    #[test]
    fn what_a_server_says_is_one_line_and_not_too_long() {
        assert_eq!(reply_words(&reply(503, "")), "the server answers 503");
        assert_eq!(reply_words(&reply(500, "a\r\nb\u{1b}[31m")), "the server answers 500: a  b [31m");
        assert!(reply_words(&reply(500, &"x".repeat(10_000))).len() < 300);
        assert!(reply_words(&reply(302, "moved")).contains("redirects (302)"));
        assert_eq!(reply_words(&reply(401, "no open sesame")), "the server answers 401: no *");
        let cut = format!("{}open sesame", "x".repeat(SAID_CHARACTERS_MAX - 4));
        assert!(!reply_words(&reply(401, &cut)).contains("open"));
    }
}
