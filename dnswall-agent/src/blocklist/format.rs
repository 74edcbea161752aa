//! Takes one line of a block list, gives the entries it makes.
//!
//! Formats say different things of the same name, and each keeps its own meaning: a hosts file names hosts, `||name^` a name
//! and what is below it, RPZ one or the other.

use std::net::IpAddr;

use super::name::{DomainName, NotAName};

mod adblock;
mod dnsmasq;
mod domains;
mod hosts;
mod rpz;

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A name in each line; it holds for what is below as well.
    Domains,
    /// `0.0.0.0 name name`, as in /etc/hosts; it holds for these names alone.
    Hosts,
    /// Adblock's `||name^` and `@@||name^`.
    Adblock,
    /// A zone file of response policies (RPZ).
    Rpz,
    /// `address=/name/`, `local=/name/` or `server=/name/` of dnsmasq.
    Dnsmasq,
}

impl Format {
    /// As a policy writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Domains => "domains",
            Self::Hosts => "hosts",
            Self::Adblock => "abp",
            Self::Rpz => "rpz",
            Self::Dnsmasq => "dnsmasq",
        }
    }

    /// Whether an exception holds for whatever its list has below it; else the longest name decides, as servers that read such
    /// files have it.
    pub const fn exceptions_win(self) -> bool {
        matches!(self, Self::Adblock)
    }

    /// Whether a list of this format may say which names it does not mean.
    pub const fn has_exceptions(self) -> bool {
        matches!(self, Self::Adblock | Self::Rpz | Self::Dnsmasq)
    }
}

impl Rubbish {
    /// As accounts of lists name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Name(NotAName::Empty) => "empty-label",
            Self::Name(NotAName::TooLong) => "too-long",
            Self::Name(NotAName::TooDeep) => "too-many-labels",
            Self::Name(NotAName::Character) => "not-a-name",
            Self::Name(NotAName::Address) => "address",
            Self::Unsupported => "unsupported",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Which names an entry holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Meaning {
    /// The name alone.
    Exact,
    /// The name and every name below it.
    Subtree,
    /// Every name below it, not the name itself.
    Below,
}

impl Meaning {
    /// Whether it holds for a name that it is all of (`is_whole`), or the end of.
    pub const fn holds(self, is_whole: bool) -> bool {
        match self {
            Self::Exact => is_whole,
            Self::Subtree => true,
            Self::Below => !is_whole,
        }
    }

    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Subtree => "subtree",
            Self::Below => "below",
        }
    }

    /// As the index writes it.
    pub const fn number(self) -> u8 {
        match self {
            Self::Exact => 1,
            Self::Subtree => 2,
            Self::Below => 3,
        }
    }

    /// The meaning with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Exact),
            2 => Some(Self::Subtree),
            3 => Some(Self::Below),
            _ => None,
        }
    }
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'l> {
    /// The name.
    pub name: DomainName<'l>,
    /// Which names it holds for.
    pub meaning: Meaning,
    /// An exception: these names are not refused by this list.
    pub is_exception: bool,
}

/// Why a line, or a part of it, makes no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rubbish {
    /// Nothing in it is a name.
    Name(NotAName),
    /// It says something that cannot be kept: a regular expression, a part of a name, a rule for browsers.
    Unsupported,
    /// It is longer than any line may be, or not text.
    Unreadable,
}

/// What a line gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Entries, or nothing at all: a comment, an empty line.
    Fine,
    /// Nothing that could be kept.
    Rubbish(Rubbish),
}

impl Line {
    /// Of what was looked at for a name.
    fn of(result: Result<(), Rubbish>) -> Self {
        match result {
            Ok(()) => Self::Fine,
            Err(rubbish) => Self::Rubbish(rubbish),
        }
    }
}

/// Reads a list's lines in one format.
pub struct Lines {
    format: Format,
    zone: rpz::Zone,
}

impl Lines {
    /// For a list that begins.
    pub fn new(format: Format) -> Self {
        Self { format, zone: rpz::Zone::default() }
    }

    /// Reads the next line, without its end; `emit` gets each entry.
    pub fn read(&mut self, line: &[u8], emit: &mut dyn FnMut(Entry<'_>)) -> Line {
        let Ok(line) = std::str::from_utf8(line) else {
            return Line::Rubbish(Rubbish::Unreadable);
        };
        // A file's first three bytes may be the mark of its encoding.
        let line = line.trim_start_matches('\u{feff}');
        Line::of(match self.format {
            Format::Domains => domains::read(line, emit),
            Format::Hosts => hosts::read(line, emit),
            Format::Adblock => adblock::read(line, emit),
            Format::Rpz => self.zone.read(line, emit),
            Format::Dnsmasq => dnsmasq::read(line, emit),
        })
    }
}

/// What a list begins with, to tell its format from.
#[derive(Default)]
pub struct Guess {
    domains: u32,
    adblock: u32,
    dnsmasq: u32,
    hosts: u32,
    rpz: u32,
}

impl Guess {
    /// Looks at a line.
    pub fn look(&mut self, line: &[u8]) {
        let Ok(line) = std::str::from_utf8(line) else { return };
        let line = line.trim_start_matches('\u{feff}').trim();
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        // A comment, whatever it says, and whatever the format is.
        if line.is_empty() || line.starts_with(['#', '!', ';']) {
            return;
        }
        if line.starts_with("||") || line.starts_with("@@") || line.starts_with("[Adblock") {
            self.adblock += 1;
        } else if ["address=/", "local=/", "server=/"].iter().any(|key| line.starts_with(key)) {
            self.dnsmasq += 1;
        } else if first.parse::<IpAddr>().is_ok() && first.len() < line.len() {
            self.hosts += 1;
        } else if line.starts_with("$TTL") || line.starts_with("$ORIGIN") || rpz::is_record(line) {
            self.rpz += 1;
        } else if domains::read(line, &mut |_| {}).is_ok() {
            self.domains += 1;
        }
    }

    /// The format that most lines speak for.
    pub fn format(&self) -> Format {
        // Of equals the last: names alone are in lists of every kind.
        let counts = [
            (self.domains, Format::Domains),
            (self.adblock, Format::Adblock),
            (self.dnsmasq, Format::Dnsmasq),
            (self.hosts, Format::Hosts),
            (self.rpz, Format::Rpz),
        ];
        match counts.into_iter().max_by_key(|(count, _)| *count) {
            Some((1.., format)) => format,
            _ => Format::Domains,
        }
    }
}

/// Whether an address stands for "nowhere": unspecified or loopback. Another one is where a name is to lead, and no list.
fn is_nowhere(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_loopback()
}

/// A name, or why there is none.
fn name(text: &str) -> Result<DomainName<'_>, Rubbish> {
    DomainName::new(text).map_err(Rubbish::Name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each entry as `name`, `.name` (subtree) or `*.name` (below), with `!` before an exception; `?` for rubbish.
    fn read(format: Format, text: &str) -> Vec<String> {
        let mut lines = Lines::new(format);
        let mut all = Vec::new();
        for line in text.lines() {
            let result = lines.read(line.as_bytes(), &mut |entry| {
                let mark = if entry.is_exception { "!" } else { "" };
                let meaning = match entry.meaning {
                    Meaning::Exact => "",
                    Meaning::Subtree => ".",
                    Meaning::Below => "*.",
                };
                all.push(format!("{mark}{meaning}{}", entry.name));
            });
            if result != Line::Fine {
                all.push("?".to_owned());
            }
        }
        all
    }

    fn check(format: Format, cases: &[(&str, &[&str])]) {
        for (text, expected) in cases {
            assert_eq!(read(format, text), *expected, "{format:?}: {text}");
        }
    }

    #[test]
    fn domains_hold_for_what_is_below() {
        check(
            Format::Domains,
            &[
                ("# comment\n! comment\n; comment\n\n", &[]),
                ("Evil.Example.COM", &[".evil.example.com"]),
                ("evil.example.", &[".evil.example"]),
                ("*.evil.example", &[".evil.example"]),
                (".evil.example", &[".evil.example"]),
                ("  evil.example   # why", &[".evil.example"]),
                ("\u{feff}evil.example", &[".evil.example"]),
                ("bücher.example", &[".xn--bcher-kva.example"]),
                ("_dmarc.a-b.example", &["._dmarc.a-b.example"]),
                ("https://evil.example/path", &["?"]),
                ("evil.example/path", &["?"]),
                ("1.2.3.4", &["?"]),
                ("a..b", &["?"]),
                ("evil.example other.example", &["?"]),
                ("<html>", &["?"]),
            ],
        );
    }

    #[test]
    fn hosts_hold_for_themselves() {
        check(
            Format::Hosts,
            &[
                ("127.0.0.1 localhost\n::1 ip6-localhost ip6-loopback\n0.0.0.0 0.0.0.0", &[]),
                ("0.0.0.0 a.example b.example # why", &["a.example", "b.example"]),
                ("127.0.0.1\ta.example", &["a.example"]),
                (":: a.example", &["a.example"]),
                ("fe80::1%lo0 localhost", &[]),
                ("192.0.2.7 intranet.example", &["?"]),
                ("a.example", &["?"]),
                ("0.0.0.0 a.example b..example", &["a.example", "?"]),
            ],
        );
    }

    #[test]
    fn adblock_rules_about_names_are_kept() {
        check(
            Format::Adblock,
            &[
                ("[Adblock Plus 2.0]\n! comment\n# comment", &[]),
                ("||evil.example^", &[".evil.example"]),
                ("||evil.example^|", &[".evil.example"]),
                ("||evil.example^$important", &[".evil.example"]),
                ("@@||good.evil.example^", &["!.good.evil.example"]),
                ("@@||good.example^$important", &["!.good.example"]),
                ("|evil.example^", &["evil.example"]),
                ("evil.example", &["evil.example"]),
                ("||*.evil.example^", &["*.evil.example"]),
                ("0.0.0.0 evil.example", &["evil.example"]),
                ("||evil.example^$third-party", &["?"]),
                ("||evil.example/path^", &["?"]),
                ("/ads[0-9]+/", &["?"]),
                ("||ads*.example^", &["?"]),
                ("example.com##.banner", &["?"]),
                ("||192.0.2.7^", &["?"]),
            ],
        );
    }

    #[test]
    fn rpz_owners_are_names_below_the_zone() {
        let zone = "$TTL 2h\n$ORIGIN rpz.local.\n@ SOA ns. host. (\n 1 ; serial\n 2 3 4 5 )\n  NS ns.\n";
        let cases: &[(&str, &[&str])] = &[
            ("evil.example CNAME .", &["evil.example"]),
            ("*.evil.example 60 IN CNAME .", &["*.evil.example"]),
            ("evil.example.rpz.local. IN CNAME *.", &["evil.example"]),
            ("good.example CNAME rpz-passthru.", &["!good.example"]),
            ("*.good.example CNAME rpz-passthru.", &["!*.good.example"]),
            ("good.example CNAME good.example.", &["!good.example"]),
            ("evil.example A 192.0.2.1\n      AAAA 2001:db8::1", &["evil.example", "evil.example"]),
            ("evil.example CNAME rpz-tcp-only.", &["?"]),
            ("32.7.2.0.192.rpz-ip CNAME .", &["?"]),
            ("ns.evil.example.rpz-nsdname CNAME .", &["?"]),
            ("evil.elsewhere. CNAME .", &["?"]),
            ("; comment\n", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(read(Format::Rpz, &format!("{zone}{text}")), *expected, "{text}");
        }
        let unsaid = "rpz.local. 60 IN SOA a. b. 1 2 3 4 5\nevil.example CNAME .\n";
        assert_eq!(read(Format::Rpz, unsaid), ["evil.example"]);
        let quoted = "@ SOA a. b. 1 2 3 4 5\nq.example TXT \"blocked :(\"\nevil.example CNAME .\n";
        assert_eq!(read(Format::Rpz, quoted), ["q.example", "evil.example"]);
        let endless = "@ SOA a. b. ( 1 2 3 4 5\nevil.example CNAME .\n";
        assert_eq!(read(Format::Rpz, endless), ["evil.example"]);
        let bare = "@ IN SOA a. b. 1 2 3 4 5\n@ NS a.\nevil.example CNAME .";
        assert_eq!(read(Format::Rpz, bare), ["evil.example"]);
    }

    #[test]
    fn dnsmasq_options_that_answer_themselves() {
        check(
            Format::Dnsmasq,
            &[
                ("# comment", &[]),
                ("address=/evil.example/", &[".evil.example"]),
                ("address=/evil.example/#", &[".evil.example"]),
                ("address=/a.example/b.example/0.0.0.0", &[".a.example", ".b.example"]),
                ("address=/evil.example/::", &[".evil.example"]),
                ("local=/evil.example/", &[".evil.example"]),
                ("server=/evil.example/", &[".evil.example"]),
                ("server=/good.example/#", &["!.good.example"]),
                ("address=/*.evil.example/", &["*.evil.example"]),
                ("address=/intranet.example/192.0.2.7", &["?"]),
                ("server=/corp.example/192.0.2.53", &["?"]),
                ("address=/#/", &["?"]),
                ("cache-size=1000", &["?"]),
                ("local=/evil.example/ # malware", &[".evil.example"]),
                ("server=/evil.example/ # c2", &[".evil.example"]),
                ("address=/evil.example/0.0.0.0 # see https://x/a", &[".evil.example"]),
                ("server=/good.example/# # not this", &["!.good.example"]),
            ],
        );
    }

    #[test]
    fn formats_are_told_from_their_lines() {
        for (text, format) in [
            ("# comment\nevil.example\n", Format::Domains),
            ("# comment\n0.0.0.0 evil.example\n", Format::Hosts),
            ("! comment\n||evil.example^\nplain.example\n", Format::Adblock),
            ("$TTL 1h\n@ SOA a. b. 1 2 3 4 5\nevil.example CNAME .\n", Format::Rpz),
            ("evil.example 60 IN CNAME .\n", Format::Rpz),
            ("address=/evil.example/\n", Format::Dnsmasq),
            ("127.0.0.1 localhost\nevil.example\nother.example\n", Format::Domains),
            ("# CNAME cloaking trackers\nevil.example\n", Format::Domains),
            ("", Format::Domains),
        ] {
            let mut guess = Guess::default();
            text.lines().for_each(|line| guess.look(line.as_bytes()));
            assert_eq!(guess.format(), format, "{text}");
        }
    }
}
