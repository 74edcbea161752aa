//! Block lists: whatever a file holds, its lines are read to the end, in every format, and give names that are names or nothing.

use std::io::Cursor;

use dnswall_agent::blocklist::format::{Format, Guess, Lines};
use dnswall_agent::blocklist::name::DomainName;
use dnswall_agent::blocklist::source::{LINE_BYTES_MAX, Source};

const FORMATS: [Format; 5] = [Format::Domains, Format::Hosts, Format::Adblock, Format::Rpz, Format::Dnsmasq];

/// Reads the bytes as a list of each format.
pub fn check(data: &[u8]) {
    let mut guess = Guess::default();
    for format in FORMATS {
        // What begins like gzip and is none cannot be read, and that is said.
        let Ok(mut source) = Source::new(Cursor::new(data.to_vec())) else { return };
        let mut lines = Lines::new(format);
        let mut number = 0;
        while let Ok(Some(line)) = source.next_line() {
            assert_eq!(line.number, number + 1, "no line is left out");
            number = line.number;
            let Some(text) = line.text else { continue };
            assert!(text.len() <= LINE_BYTES_MAX && !text.contains(&b'\n'));
            guess.look(text);
            lines.read(text, &mut |entry| {
                let name = entry.name.as_str();
                assert!(name.len() <= 253 && !name.is_empty() && !name.ends_with('.'), "{name:?}");
                // Read again it is itself: nothing is left to be folded.
                assert_eq!(DomainName::new(name).map(|again| again.to_string()).as_deref(), Ok(name));
                assert_eq!(entry.name.suffixes(7).count(), name.split('.').count());
            });
        }
    }
    let _ = guess.format();
}
