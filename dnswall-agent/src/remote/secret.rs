//! What this host is believed by: takes the name of a file or of a variable, gives the text in it. Read each time, so
//! that it may be changed while the agent runs; its name may be shown, the text never.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

/// Bytes of a secret.
const SECRET_BYTES_MAX: u64 = 16 * 1024;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// In a file, with or without an end of line.
    File(PathBuf),
    /// In a variable of the agent's environment.
    Environment(String),
}

impl Secret {
    /// The secret: one line of printable ASCII.
    ///
    /// # Errors
    /// Why there is none, for people; without it.
    pub fn read(&self) -> Result<String, String> {
        let (text, place) = match self {
            Self::File(path) => {
                let place = format!("the secret in {}", path.display());
                let mut text = String::new();
                File::open(path)
                    .and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text))
                    .map_err(|error| format!("read {place}: {error}"))?;
                (text, place)
            }
            Self::Environment(name) => {
                let place = format!("the secret in ${name}");
                (std::env::var(name).map_err(|_| format!("read {place}: it is not set"))?, place)
            }
        };
        let secret = text.trim();
        if secret.is_empty() || !secret.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(format!("{place} is not one line of printable ASCII"));
        }
        Ok(secret.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_read_and_nothing_of_it_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let secret = Secret::File(path.clone());
        assert!(secret.read().unwrap_err().contains("No such file"));
        std::fs::write(&path, "0f1e-token\n").unwrap();
        assert_eq!(secret.read().unwrap(), "0f1e-token");
        for wrong in ["", "\n", "hush\r\nHost: elsewhere", "h\u{fc}sh", "hush\0"] {
            std::fs::write(&path, wrong).unwrap();
            let error = secret.read().unwrap_err();
            assert!(
                error.ends_with("is not one line of printable ASCII") && !error.contains("hush"),
                "{error}"
            );
        }
        assert!(
            Secret::Environment("DNSWALL_NO_SUCH".to_owned())
                .read()
                .unwrap_err()
                .contains("$DNSWALL_NO_SUCH")
        );
        assert!(!Secret::Environment("PATH".to_owned()).read().unwrap().is_empty());
    }
}
