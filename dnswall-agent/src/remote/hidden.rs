//! What a server was told and nobody else is to read: takes the secrets, gives the server's words without them. Some servers
//! say what they did not like.

use std::fmt;

/// Bytes below which a part of a secret is none: words that everybody uses would be hidden with it.
const PART_BYTES_MIN: usize = 4;

/// Secrets. Its `Debug` shows none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hidden(Vec<String>);

impl Hidden {
    /// These, and their parts: the values of a query, the password behind a user's name.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Self {
        let is_end = |character: char| matches!(character, '&' | ';' | '=' | ':' | ' ');
        let mut all: Vec<String> = Vec::new();
        for secret in secrets {
            all.push(secret.to_owned());
            all.extend(secret.split(is_end).map(str::to_owned));
        }
        all.retain(|part| part.len() >= PART_BYTES_MIN);
        // A whole one before what is a part of it.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        all.dedup();
        Self(all)
    }

    /// The text with `*` for each of them.
    pub fn out_of(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "*"))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hidden({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_their_parts_are_left_out() {
        let hidden = Hidden::new(["Basic dXNlcjp4", "user:pass word", "key=sesame&v=1"]);
        for (said, shown) in [
            ("no \"Basic dXNlcjp4\" here", "no \"*\" here"),
            ("bad token dXNlcjp4.", "bad token *."),
            ("wrong: user:pass word", "wrong: *"),
            ("user may not", "* may not"),
            ("?key=sesame&v=1 or key sesame", "?* or key *"),
            ("v=1 is old", "v=1 is old"),
        ] {
            assert_eq!(hidden.out_of(said), shown);
        }
        assert_eq!(format!("{hidden:?}").find("sesame"), None);
        assert_eq!(Hidden::default().out_of("as it is"), "as it is");
    }
}
