//! What becomes of lists, by examples and against a reader that shares no code with them.

use super::*;
use crate::blocklist::bounds::Change;
use crate::blocklist::name::DomainName;
use crate::blocklist::{ListSource, Pattern};
use proptest::prelude::*;
use std::io::Write as _;
use std::path::PathBuf;

/// An index that goes with the test.
fn memory(_: Place) -> io::Result<File> {
    tempfile::tempfile()
}

fn list(
    name: &str,
    path: PathBuf,
    format: Option<Format>,
    action: ListAction,
    entries: std::ops::RangeInclusive<usize>,
) -> List {
    let source = ListSource::File(path);
    List { name: name.to_owned(), source, format, action, entries, change: Change::default() }
}

fn open(list: &List) -> io::Result<Option<File>> {
    match &list.source {
        ListSource::File(path) => File::open(path).map(Some),
        ListSource::Url { .. } => Ok(None),
    }
}

const KEY: u64 = 0x1234_5678_9abc_def1;

struct Made {
    lists: Lists,
    _directory: tempfile::TempDir,
}

impl Made {
    fn outcome(&self, text: &str) -> String {
        self.lists.check(&DomainName::new(text).unwrap()).unwrap().outcome
    }

    fn refuses(&self, text: &str) -> bool {
        self.outcome(text) == "denied"
    }
}

fn made(lists: &[(&str, ListAction)], good: &[&str]) -> Made {
    let directory = tempfile::tempdir().unwrap();
    let mut known_good = KnownGood::default();
    for text in good {
        known_good.add(KEY, &Pattern::new(text).unwrap());
    }
    let lists: Vec<List> = lists
        .iter()
        .enumerate()
        .map(|(at, (text, action))| {
            let path = directory.path().join(at.to_string());
            File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
            list(&at.to_string(), path, None, *action, 0..=NAMES_MAX)
        })
        .collect();
    let lists = build(&lists, known_good, KEY, &open, Before::default(), &memory).unwrap();
    Made { lists, _directory: directory }
}

#[test]
fn meanings_are_kept_apart() {
    let made = made(
        &[
            ("0.0.0.0 host.example\n", ListAction::Deny),
            ("||tree.example^\n", ListAction::Deny),
            ("$ORIGIN rpz.\n@ SOA a. b. 1 2 3 4 5\n*.below.example CNAME .\n", ListAction::Deny),
            ("told.example\n", ListAction::Alert),
        ],
        &[],
    );
    for (name, expected) in [
        ("host.example", true),
        ("a.host.example", false),
        ("tree.example", true),
        ("a.b.tree.example", true),
        ("xtree.example", false),
        ("below.example", false),
        ("a.below.example", true),
        ("told.example", false),
        ("example", false),
    ] {
        assert_eq!(made.refuses(name), expected, "{name}");
    }
}

#[test]
fn exceptions_of_a_list_are_its_own() {
    let one = "||evil.example^\n@@||good.evil.example^\n||bad.good.evil.example^\n||x.evil.example^\n@@||x.evil.example^";
    let made = made(&[(one, ListAction::Deny), ("||evil2.example^\n", ListAction::Deny)], &[]);
    assert!(made.refuses("evil.example") && made.refuses("a.evil.example"));
    assert!(!made.refuses("good.evil.example") && !made.refuses("a.good.evil.example"));
    assert!(!made.refuses("x.evil.example"));
    let both = self::made(&[(one, ListAction::Deny), ("evil.example\n", ListAction::Deny)], &[]);
    assert!(both.refuses("good.evil.example"), "another list refuses it");
}

#[test]
fn known_good_names_are_never_refused() {
    let made = made(
        &[("example\nwww.good.example\nbad.org\na.bad.org\n", ListAction::Deny)],
        &["good.example", "*.good.example", "bad.org", "*.fine.example"],
    );
    for (name, expected) in [
        ("good.example", false),
        ("www.good.example", false),
        ("other.example", true),
        ("bad.org", false),
        ("x.bad.org", true),
        ("a.bad.org", true),
        ("x.fine.example", false),
        ("fine.example", true),
    ] {
        assert_eq!(made.refuses(name), expected, "{name}");
    }
    assert_eq!(made.lists.accounts[0].protected, 1);
}

#[test]
fn exceptions_of_one_action_do_not_meet_the_other() {
    let excepted = "||evil.example^\n@@||good.evil.example^\n";
    let made = made(&[(excepted, ListAction::Deny), ("evil.example\n", ListAction::Alert)], &[]);
    assert_eq!(made.outcome("evil.example"), "denied");
    assert_eq!(made.outcome("good.evil.example"), "told");
    assert_eq!(made.outcome("a.good.evil.example"), "told");
    let made = self::made(&[("evil.example\n", ListAction::Deny), (excepted, ListAction::Alert)], &[]);
    assert_eq!(made.outcome("good.evil.example"), "denied");
}

#[test]
fn an_exception_for_a_name_alone_leaves_what_is_below() {
    let zone = "$ORIGIN rpz.\n@ SOA a. b. 1 2 3 4 5\nx.example CNAME .\n*.x.example CNAME .\nx.example CNAME rpz-passthru.\n";
    let made = made(&[(zone, ListAction::Deny), ("||y.example^\n@@|y.example^\n", ListAction::Deny)], &[]);
    assert_eq!((made.outcome("x.example"), made.refuses("a.x.example")), ("passes".to_owned(), true));
    assert_eq!((made.outcome("y.example"), made.refuses("a.y.example")), ("passes".to_owned(), true));
}

#[test]
fn an_entry_is_found_again_with_its_list_and_line() {
    let made = made(&[("a.example\nb.example\na.example\n???\n", ListAction::Deny)], &[]);
    let hash = DomainName::new("b.example").unwrap().suffixes(KEY).last().unwrap();
    let found = made.lists.exact.identify("x.y\\.z.b.example", hash).unwrap().unwrap();
    assert_eq!((found.entry.as_str(), found.line, found.meaning.as_str()), ("b.example", 2, "subtree"));
    assert_eq!(made.lists.exact.identify("c.example", hash).unwrap(), None);
    let account = &made.lists.accounts[0];
    assert_eq!((account.entries, account.repeated, account.lines), (2, 1, 4));
    let rubbish = RubbishAccount { why: "not-a-name".to_owned(), lines: 1, first_line: 4 };
    assert_eq!(account.rubbish, [rubbish]);
}

#[test]
fn a_list_that_cannot_be_used_is_left_out_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let list = |name: &str, path, entries| list(name, path, None, ListAction::Deny, entries);
    let lists = [
        list("short", path("short", "||short.example^\n@@||a.long.example^\n"), 2..=9),
        list("gone", directory.path().join("gone"), 0..=9),
        list("long", path("long", "long.example\n"), 1..=9),
    ];
    let lists = build(&lists, KnownGood::default(), KEY, &open, Before::default(), &memory).unwrap();
    let outcome = |name| lists.check(&DomainName::new(name).unwrap()).unwrap().outcome;
    assert_eq!(
        (outcome("short.example"), outcome("a.long.example")),
        ("passes".to_owned(), "denied".to_owned())
    );
    let troubles: Vec<bool> = lists.accounts.iter().map(|account| account.trouble.is_some()).collect();
    assert_eq!((troubles, lists.entries()), (vec![true, true, false], 1));
    let has_digest: Vec<bool> = lists.accounts.iter().map(|account| account.digest.is_some()).collect();
    assert_eq!(has_digest, [false, false, true]);
}

#[test]
fn exceptions_of_several_lists_add_up() {
    let one = "||evil.example^\n@@||a.b.evil.example^\n";
    let other = "||evil.example^\n@@||b.evil.example^\n";
    let made = made(&[(one, ListAction::Deny), (other, ListAction::Deny)], &[]);
    assert_eq!((made.outcome("a.b.evil.example").as_str(), made.refuses("b.evil.example")), ("passes", true));
}

#[test]
fn the_list_that_decides_is_named() {
    let excepted = "||evil.example^\n@@||good.evil.example^\n";
    let made = made(&[(excepted, ListAction::Deny), ("evil.example\n", ListAction::Alert)], &[]);
    let answer = made.lists.check(&DomainName::new("good.evil.example").unwrap()).unwrap();
    let by = answer.by.unwrap();
    assert_eq!((answer.outcome.as_str(), by.list.as_str(), by.action.as_str()), ("told", "1", "alert"));
}

#[test]
fn a_worse_list_goes_on_as_it_was_and_the_others_do_not_wait() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let list = |name: &str| list(name, path(name), Some(Format::Adblock), ListAction::Deny, 1..=9);
    let lists = [list("one"), list("other")];
    let read = |before: Option<&Lists>| {
        build(&lists, KnownGood::default(), KEY, &open, Before { lists: before, accepted: &[] }, &memory)
            .unwrap()
    };
    std::fs::write(path("one"), "||one.example^\n@@||good.one.example^\n").unwrap();
    std::fs::write(path("other"), "||other.example^\n").unwrap();
    let first = read(None);
    let digest = crate::digest::sha256("||one.example^\n@@||good.one.example^\n");
    std::fs::write(path("one"), "").unwrap();
    std::fs::write(path("other"), "||new.example^\n").unwrap();
    let second = read(Some(&first));
    std::fs::remove_file(path("one")).unwrap();
    for lists in [second, read(Some(&read(Some(&first))))] {
        let outcome = |name| lists.check(&DomainName::new(name).unwrap()).unwrap().outcome;
        let names = ["one.example", "good.one.example", "other.example", "new.example"];
        assert_eq!(names.map(outcome), ["denied", "passes", "passes", "denied"]);
        assert!(lists.accounts[0].trouble.is_some() && lists.accounts[0].entries == 1);
        let told = |list: usize| lists.accounts[list].digest.as_deref();
        assert_eq!(told(0), Some(&*digest), "of what counts");
        assert_eq!(told(1), Some(&*crate::digest::sha256("||new.example^\n")));
        let hash = DomainName::new("one.example").unwrap().suffixes(KEY).last().unwrap();
        assert_eq!(lists.exact.identify("one.example", hash).unwrap().unwrap().digest, Some(digest.clone()));
    }
}

#[test]
fn the_digest_is_of_the_file_as_it_lies_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("packed");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all("packed.example\n".repeat(10_000).as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    std::fs::write(&path, &packed).unwrap();
    let lists = [list("packed", path, None, ListAction::Deny, 1..=9)];
    let lists = build(&lists, KnownGood::default(), KEY, &open, Before::default(), &memory).unwrap();
    let expected = crate::digest::hexadecimal(&<sha2::Sha256 as sha2::Digest>::digest(&packed));
    assert_eq!(lists.accounts[0].digest, Some(expected));
}

/// One line of a list, as its format means it.
#[derive(Clone, Debug)]
struct Rule {
    name: String,
    meaning: Meaning,
    is_exception: bool,
}

fn rules() -> impl Strategy<Value = (Format, Vec<Rule>)> {
    let name = proptest::collection::vec(prop::sample::select(vec!["a", "b"]), 0..4);
    let name = name.prop_map(|labels| [&labels[..], &["example"]].concat().join("."));
    let meaning = prop::sample::select(vec![Meaning::Exact, Meaning::Subtree, Meaning::Below]);
    let rule = (name, meaning, prop::bool::weighted(0.4));
    let rule = rule.prop_map(|(name, meaning, is_exception)| Rule { name, meaning, is_exception });
    let format = prop::sample::select(vec![Format::Adblock, Format::Rpz, Format::Dnsmasq]);
    (format, proptest::collection::vec(rule, 0..7))
}

/// A line of the format; `None` for what it has no words for.
fn written(format: Format, rule: &Rule) -> Option<String> {
    let Rule { name, meaning, is_exception } = rule;
    let mark = if *is_exception { "@@" } else { "" };
    let to = if *is_exception { "rpz-passthru." } else { "." };
    Some(match (format, meaning) {
        (Format::Adblock, Meaning::Exact) => format!("{mark}|{name}^"),
        (Format::Adblock, Meaning::Subtree) => format!("{mark}||{name}^"),
        (Format::Adblock, Meaning::Below) => format!("{mark}||*.{name}^"),
        (Format::Rpz, Meaning::Exact) => format!("{name} CNAME {to}"),
        (Format::Rpz, Meaning::Below) => format!("*.{name} CNAME {to}"),
        (Format::Dnsmasq, Meaning::Subtree) if *is_exception => format!("server=/{name}/#"),
        (Format::Dnsmasq, Meaning::Subtree) => format!("local=/{name}/"),
        (Format::Dnsmasq, Meaning::Below) if *is_exception => format!("server=/*.{name}/#"),
        (Format::Dnsmasq, Meaning::Below) => format!("address=/*.{name}/"),
        _ => return None,
    })
}

fn matches(name: &str, meaning: Meaning, asked: &str) -> bool {
    let below = asked.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    match meaning {
        Meaning::Exact => asked == name,
        Meaning::Subtree => asked == name || below,
        Meaning::Below => below,
    }
}

/// Whether one list, alone, means a name.
fn means(format: Format, rules: &[Rule], asked: &str) -> bool {
    let matching: Vec<&Rule> = rules.iter().filter(|rule| matches(&rule.name, rule.meaning, asked)).collect();
    let longest = |is_exception| {
        let of_kind = matching.iter().filter(|rule| rule.is_exception == is_exception);
        of_kind.map(|rule| rule.name.len()).max()
    };
    match (longest(false), longest(true)) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(_), Some(_)) if format == Format::Adblock => false,
        (Some(entry), Some(exception)) => entry > exception,
    }
}

proptest! {
    #[test]
    fn lists_mean_together_what_each_means(
        lists in proptest::collection::vec((rules(), any::<bool>()), 1..4),
        good in proptest::collection::vec((0usize..16, any::<bool>()), 0..3),
    ) {
        // Only what can be written counts.
        let lists: Vec<(Format, Vec<Rule>, ListAction)> = lists
            .into_iter()
            .map(|((format, mut rules), tells)| {
                rules.retain(|rule| written(format, rule).is_some());
                (format, rules, if tells { ListAction::Alert } else { ListAction::Deny })
            })
            .collect();
        let names: Vec<String> = (0..4usize)
            .flat_map(|depth| (0..1usize << depth).map(move |bits| {
                let labels = (0..depth).map(|at| if bits >> at & 1 == 0 { "a" } else { "b" });
                labels.chain(["example"]).collect::<Vec<_>>().join(".")
            }))
            .collect();
        let directory = tempfile::tempdir().unwrap();
        let mut read = Vec::new();
        for (at, (format, rules, action)) in lists.iter().enumerate() {
            let path = directory.path().join(at.to_string());
            let lines: Vec<String> = rules.iter().filter_map(|rule| written(*format, rule)).collect();
            std::fs::write(&path, lines.join("\n")).unwrap();
            read.push(list(&at.to_string(), path, Some(*format), *action, 0..=NAMES_MAX));
        }
        let good: Vec<Pattern> = good
            .into_iter()
            .map(|(at, is_below)| Pattern { name: names[at % names.len()].clone(), is_below })
            .collect();
        let mut known_good = KnownGood::default();
        good.iter().for_each(|pattern| known_good.add(KEY, pattern));
                let built = build(&read, known_good, KEY, &open, Before::default(), &memory).unwrap();
        for asked in &names {
            let is_good = good.iter().any(|Pattern { name, is_below }| {
                matches(name, if *is_below { Meaning::Below } else { Meaning::Exact }, asked)
            });
            let meaning = |action| lists.iter().enumerate().filter(move |(_, list)| list.2 == action && !is_good && means(list.0, &list.1, asked)).map(|(at, _)| at.to_string()).collect::<Vec<_>>();
            let (denying, telling) = (meaning(ListAction::Deny), meaning(ListAction::Alert));
            let answer = built.check(&DomainName::new(asked).unwrap()).unwrap();
            let expected = if !denying.is_empty() { "denied" } else if !telling.is_empty() { "told" } else { "passes" };
            prop_assert_eq!(&answer.outcome, expected, "{} of {:?} and {:?}", asked, lists, good);
            if expected != "passes" {
                let by = answer.by.unwrap().list;
                prop_assert!(if denying.is_empty() { telling } else { denying }.contains(&by), "{} by {} of {:?}", asked, by, lists);
            }
        }
    }
}
