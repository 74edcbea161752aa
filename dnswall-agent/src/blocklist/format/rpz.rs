//! A zone of response policies (draft-vixie-dnsop-dns-rpz): owners are names, what they own says what becomes of them.

use std::borrow::Cow;

use super::{Entry, Meaning, Rubbish, name};

/// Labels at the end of an owner that is no name: the policy looks at addresses or servers of answers.
const TRIGGERS: [&str; 4] = ["rpz-ip", "rpz-client-ip", "rpz-nsdname", "rpz-nsip"];

/// Where in a zone file a reader is.
#[derive(Default)]
pub struct Zone {
    /// What relative names are below, without the last dot; unknown where the file does not say.
    origin: Option<String>,
    /// The zone's own name.
    apex: Option<String>,
    /// The last owner, as it was written.
    owner: String,
    /// Inside a record of several lines.
    is_open: bool,
}

impl Zone {
    /// Reads a line.
    pub fn read(&mut self, line: &str, emit: &mut dyn FnMut(Entry<'_>)) -> Result<(), Rubbish> {
        let text = unquoted(line);
        let text = text.as_ref();
        let was_open = self.is_open;
        // Nothing but SOA is so long, and one that never ends must not hide the zone behind it.
        let is_lost = was_open && !line.starts_with([' ', '\t', ')']) && is_record(line);
        let (opens, closes) = (text.contains('('), text.contains(')'));
        self.is_open = ((was_open && !is_lost) || opens) && !closes;
        if (was_open && !is_lost) || text.trim().is_empty() {
            return Ok(());
        }
        let mut words = text.split_ascii_whitespace();
        if text.starts_with('$') {
            return match (words.next(), words.next()) {
                (Some("$ORIGIN"), Some(origin)) => {
                    self.origin = Some(self.absolute(origin));
                    Ok(())
                }
                (Some("$TTL"), _) => Ok(()),
                _ => Err(Rubbish::Unsupported),
            };
        }
        if !text.starts_with([' ', '\t']) {
            words.next().unwrap_or_default().clone_into(&mut self.owner);
        }
        let kind = words.find(|word| !is_class(word) && !is_ttl(word)).unwrap_or_default();
        let data = words.next().unwrap_or_default();
        let owner = self.absolute(&self.owner);
        match kind.to_ascii_uppercase().as_str() {
            "" => return Err(Rubbish::Unsupported),
            "SOA" => {
                // A file need not say its origin: servers take the zone's own name.
                self.origin.get_or_insert_with(|| owner.clone());
                self.apex = Some(owner);
                return Ok(());
            }
            "NS" => return Ok(()),
            _ => {}
        }
        self.policy(&owner, kind, data, emit)
    }

    fn policy(
        &self,
        owner: &str,
        kind: &str,
        data: &str,
        emit: &mut dyn FnMut(Entry<'_>),
    ) -> Result<(), Rubbish> {
        let owner = match self.apex.as_deref().filter(|apex| !apex.is_empty()) {
            Some(apex) => match strip_parent(owner, apex) {
                Some("") => return Ok(()),
                Some(owner) => owner,
                // Outside of the zone: a server would not load it.
                None => return Err(Rubbish::Unsupported),
            },
            None => owner,
        };
        if owner.rsplit('.').next().is_some_and(|last| TRIGGERS.contains(&last)) {
            return Err(Rubbish::Unsupported);
        }
        let (meaning, text) = match owner.strip_prefix("*.") {
            Some(rest) => (Meaning::Below, rest),
            None => (Meaning::Exact, owner),
        };
        let is_exception = kind.eq_ignore_ascii_case("CNAME")
            && match data.to_ascii_lowercase().as_str() {
                "rpz-passthru." => true,
                "rpz-tcp-only." => return Err(Rubbish::Unsupported),
                // As it was written before there was `rpz-passthru`.
                target => target.strip_suffix('.') == Some(text),
            };
        emit(Entry { name: name(text)?, meaning, is_exception });
        Ok(())
    }

    /// A name in full, without its last dot.
    fn absolute(&self, text: &str) -> String {
        let origin = self.origin.as_deref().unwrap_or_default();
        let name = match text.strip_suffix('.') {
            Some(name) => name.to_owned(),
            None if text == "@" => origin.to_owned(),
            None if origin.is_empty() => text.to_owned(),
            None => format!("{text}.{origin}"),
        };
        name.to_ascii_lowercase()
    }
}

/// Whether a line looks like a record of such a zone.
pub fn is_record(line: &str) -> bool {
    let mut words = line.split(';').next().unwrap_or_default().split_ascii_whitespace().skip(1);
    let kind = words.find(|word| !is_class(word) && !is_ttl(word)).unwrap_or_default();
    words.next().is_some() && ["CNAME", "SOA", "NS"].iter().any(|known| kind.eq_ignore_ascii_case(known))
}

/// Without a comment, and without what is in quotes.
fn unquoted(line: &str) -> Cow<'_, str> {
    if !line.contains('"') {
        return Cow::Borrowed(line.split(';').next().unwrap_or_default());
    }
    let mut is_quoted = false;
    let outside = line.chars().filter(|c| {
        is_quoted ^= *c == '"';
        !is_quoted && *c != '"'
    });
    let outside: String = outside.collect();
    Cow::Owned(outside.split(';').next().unwrap_or_default().to_owned())
}

fn is_class(word: &str) -> bool {
    ["IN", "CH", "HS"].iter().any(|class| word.eq_ignore_ascii_case(class))
}

fn is_ttl(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
        && word.bytes().all(|byte| byte.is_ascii_digit() || b"wdhmsWDHMS".contains(&byte))
}

/// What a name has before its parent's.
fn strip_parent<'n>(name: &'n str, parent: &str) -> Option<&'n str> {
    let rest = name.strip_suffix(parent)?;
    if rest.is_empty() { Some("") } else { rest.strip_suffix('.') }
}
