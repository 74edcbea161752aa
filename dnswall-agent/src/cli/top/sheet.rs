//! Takes a picture with its rates, gives the rows of each view, sorted and filtered.

use std::cmp::Ordering;

use jiff::Timestamp;

use super::history::Seen;
use crate::alert::text;
use crate::cli::columns::{Cell, Column, Tone};
use crate::cli::shown;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// By workload.
    Workloads,
    /// Who talks to whom.
    Connections,
    /// What was refused.
    Refused,
    /// Names that were asked for or refused.
    Names,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// The same in the next picture.
    pub id: String,
    /// One for each column.
    pub cells: Vec<Cell>,
    /// What it is sorted by, one for each of [`View::sorts`].
    keys: Vec<Key>,
    /// All that is known of it.
    pub whole: Vec<(&'static str, Cell)>,
}

/// What rows are sorted by.
#[derive(Clone, Debug)]
enum Key {
    /// The largest first; what is not known last.
    Number(Option<f64>),
    /// By the alphabet.
    Text(String),
}

impl View {
    /// In the order of their keys.
    pub const ALL: [Self; 4] = [Self::Workloads, Self::Connections, Self::Refused, Self::Names];

    /// Its name.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Workloads => "workloads",
            Self::Connections => "connections",
            Self::Refused => "refused",
            Self::Names => "names",
        }
    }

    /// Its columns.
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Workloads => &WORKLOADS,
            Self::Connections => &CONNECTIONS,
            Self::Refused => &REFUSED,
            Self::Names => &NAMES,
        }
    }

    /// The columns it can be sorted by, the usual one first.
    pub const fn sorts(self) -> &'static [usize] {
        match self {
            Self::Workloads => &[1, 2, 4, 5, 0],
            Self::Connections => &[0, 1, 4, 6],
            Self::Refused => &[0, 1, 2, 5, 8],
            Self::Names => &[2, 3, 0, 1, 4, 6],
        }
    }

    /// What stands where there are no rows.
    pub const fn empty(self) -> &'static str {
        match self {
            Self::Workloads => "nobody talks, and nothing was refused",
            Self::Connections => "no connection that began here runs now",
            Self::Refused => "nothing was refused",
            Self::Names => "no name was refused; the policy tells of others with `events` in [dns]",
        }
    }

    /// The rows that `filter` leaves, by the `sort`th of [`Self::sorts`].
    pub fn rows(self, seen: &Seen, sort: usize, reversed: bool, filter: &str) -> Vec<Row> {
        let mut rows = match self {
            Self::Workloads => workloads(seen),
            Self::Connections => connections(seen),
            Self::Refused => refused(seen),
            Self::Names => names(seen),
        };
        let filter = filter.to_lowercase();
        rows.retain(|row| row.has(&filter));
        rows.sort_by(|a, b| {
            let order = a.compare(b, sort);
            if reversed { order.reverse() } else { order }
        });
        rows
    }

    /// How many rows the picture has no room for.
    pub const fn left_out(self, seen: &Seen) -> usize {
        let left_out = &seen.picture.left_out;
        match self {
            Self::Workloads => left_out.workloads,
            Self::Connections => left_out.connections,
            Self::Refused => left_out.refused,
            Self::Names => left_out.names,
        }
    }
}

const WORKLOADS: [Column; 7] = [
    Column::text("workload").keeps_end().shrinks_to(16, 1),
    Column::number("refused/s"),
    Column::number("refused"),
    Column::number("flows"),
    Column::number("open"),
    Column::number("last"),
    Column::text("refused last").shrinks_to(12, 2),
];
const CONNECTIONS: [Column; 8] = [
    Column::number("open"),
    Column::text("workload").keeps_end().shrinks_to(14, 2),
    Column::number("pid").may_go(3),
    Column::text("process").keeps_end().shrinks_to(14, 3),
    Column::text("user").may_go(4),
    Column::text("proto"),
    Column::text("to").shrinks_to(18, 1),
    Column::text("note").may_go(5),
];
const REFUSED: [Column; 10] = [
    Column::number("/s"),
    Column::number("count"),
    Column::number("last"),
    Column::text("verdict"),
    Column::text("severity").may_go(5),
    Column::text("workload").keeps_end().shrinks_to(12, 2),
    Column::number("pid").may_go(4),
    Column::text("process").keeps_end().shrinks_to(10, 3),
    Column::text("to").shrinks_to(14, 1),
    Column::text("why").shrinks_to(7, 3),
];
const NAMES: [Column; 8] = [
    Column::text("name").keeps_end().shrinks_to(20, 1),
    Column::text("workload").keeps_end().shrinks_to(12, 2),
    Column::number("refused/s"),
    Column::number("refused"),
    Column::number("asked/s").may_go(5),
    Column::number("asked"),
    Column::number("last"),
    Column::text("why / answer").shrinks_to(7, 3),
];

fn workloads(seen: &Seen) -> Vec<Row> {
    let rows = seen.picture.workloads.iter().map(|it| {
        let rate = seen.workloads.get(&it.workload.cgroup).copied();
        let home = shown::workload(&it.workload).tone(Tone::Strong);
        let tone = if it.refused > 0 { Tone::Bad } else { Tone::Faint };
        Row {
            id: it.workload.cgroup.clone().unwrap_or_default(),
            keys: vec![
                Key::Number(rate),
                Key::Number(Some(it.refused as f64)),
                Key::Number(Some(it.connections as f64)),
                Key::Number(it.last.map(|last| last.as_millisecond() as f64)),
                Key::Text(home.text().to_lowercase()),
            ],
            whole: vec![
                ("workload", home.clone()),
                ("cgroup", Cell::of(it.workload.cgroup.as_deref())),
                ("slice", Cell::of(it.workload.slice.as_deref())),
                ("container", Cell::of(it.workload.container.as_deref())),
                ("refused", count(it.refused)),
                ("flows refused", count(it.flows)),
                ("connections open", count(it.connections)),
                ("refused last", Cell::of(it.last_refused.as_deref())),
                ("at", Cell::of(it.last.map(|last| format!("{last:.3}")))),
            ],
            cells: vec![
                home,
                speed(rate),
                count(it.refused).tone(tone),
                count(it.flows),
                count(it.connections),
                age(seen, it.last),
                Cell::of(it.last_refused.as_deref()),
            ],
        }
    });
    rows.collect()
}

fn connections(seen: &Seen) -> Vec<Row> {
    let rows = seen.picture.connections.iter().map(|it| {
        let home = shown::workload(&it.workload).tone(Tone::Strong);
        let process = Cell::of(it.program.as_deref());
        let pid = match (it.pid, it.processes) {
            (None, processes @ 2..) => Cell::new(format!("×{processes}")),
            (pid, _) => Cell::of(pid.map(|pid| pid.to_string())),
        };
        let mut notes = Vec::new();
        if it.opening > 0 {
            notes.push(format!("{} not answered", it.opening));
        }
        if it.older > 0 {
            notes.push(format!("{} older than the wall", it.older));
        }
        let note = Cell::new(notes.join(", ")).tone(Tone::Warn);
        Row {
            id: format!(
                "{:?} {:?} {:?} {} {}",
                it.workload.cgroup, it.program, it.user, it.protocol, it.destination
            ),
            keys: vec![
                Key::Number(Some(it.connections as f64)),
                Key::Text(home.text().to_lowercase()),
                Key::Text(it.user.clone().unwrap_or_default()),
                Key::Text(it.destination.clone()),
            ],
            whole: vec![
                ("workload", home.clone()),
                ("cgroup", Cell::of(it.workload.cgroup.as_deref())),
                ("container", Cell::of(it.workload.container.as_deref())),
                ("process", process.clone()),
                ("process id", pid.clone()),
                ("user", Cell::of(it.user.as_deref())),
                ("to", Cell::new(format!("{} {}", it.protocol, it.destination))),
                ("connections open", count(it.connections)),
                ("not answered yet", count(it.opening)),
                ("older than the wall", count(it.older)),
            ],
            cells: vec![
                count(it.connections),
                home,
                pid,
                process,
                Cell::of(it.user.as_deref()),
                Cell::new(&it.protocol),
                Cell::new(&it.destination),
                note,
            ],
        }
    });
    rows.collect()
}

fn refused(seen: &Seen) -> Vec<Row> {
    let rows = seen.picture.refused.iter().map(|alert| {
        let rate = seen.flows.get(&alert.id).copied();
        let home = shown::workload(&alert.workload).tone(Tone::Strong);
        let target = match &alert.dns {
            Some(dns) => Cell::new(format!("{} {}", dns.name, text::target(alert))),
            None => Cell::new(text::target(alert)),
        };
        Row {
            id: alert.id.to_string(),
            keys: vec![
                Key::Number(rate),
                Key::Number(Some(alert.count as f64)),
                Key::Number(Some(alert.last.as_millisecond() as f64)),
                Key::Text(home.text().to_lowercase()),
                Key::Text(target.text().to_lowercase()),
            ],
            whole: vec![
                ("workload", home.clone()),
                ("cgroup", Cell::of(alert.workload.cgroup.as_deref())),
                ("container", Cell::of(alert.workload.container.as_deref())),
                ("process", shown::process(&alert.process)),
                ("process id", shown::pid(&alert.process)),
                (
                    "user",
                    Cell::of(alert.process.user.clone().or(alert.process.uid.map(|uid| uid.to_string()))),
                ),
                ("to", Cell::new(text::target(alert))),
                ("name", shown::name(alert)),
                ("verdict", shown::verdict(alert)),
                ("severity", shown::severity(alert.severity)),
                ("kind", Cell::new(alert.kind.name())),
                ("why", shown::why(alert)),
                ("techniques", Cell::of((!alert.attack.is_empty()).then(|| alert.attack.join(" ")))),
                ("refused", count(alert.count)),
                ("first", Cell::new(format!("{:.3}", alert.first))),
                ("last", Cell::new(format!("{:.3}", alert.last))),
            ],
            cells: vec![
                speed(rate),
                count(alert.count),
                age(seen, Some(alert.last)),
                shown::verdict(alert),
                shown::severity(alert.severity),
                home,
                shown::pid(&alert.process),
                shown::process(&alert.process),
                target,
                shown::why(alert),
            ],
        }
    });
    rows.collect()
}

fn names(seen: &Seen) -> Vec<Row> {
    let rows = seen.picture.names.iter().map(|it| {
        let rates = seen.names.get(&(it.workload.cgroup.clone(), it.name.clone())).copied();
        let (asked, refused) = (rates.map(|it| it.0), rates.map(|it| it.1));
        let (name, home) = (Cell::new(&it.name).tone(Tone::Strong), shown::workload(&it.workload));
        let note = match (&it.rule, &it.answer) {
            (Some(rule), _) => Cell::new(rule),
            (None, answer) => Cell::of(answer.as_deref()).tone(Tone::Faint),
        };
        let tone = if it.refused > 0 { Tone::Bad } else { Tone::Faint };
        Row {
            id: format!("{:?} {}", it.workload.cgroup, it.name),
            keys: vec![
                Key::Number(refused),
                Key::Number(Some(it.refused as f64)),
                Key::Text(it.name.to_lowercase()),
                Key::Text(home.text().to_lowercase()),
                Key::Number(asked),
                Key::Number(Some(it.last.as_millisecond() as f64)),
            ],
            whole: vec![
                ("name", name.clone()),
                ("workload", home.clone()),
                ("cgroup", Cell::of(it.workload.cgroup.as_deref())),
                ("container", Cell::of(it.workload.container.as_deref())),
                ("refused", count(it.refused)),
                ("asked", count(it.asked)),
                ("why", Cell::of(it.rule.as_deref())),
                ("last answer", Cell::of(it.answer.as_deref())),
                ("last", Cell::new(format!("{:.3}", it.last))),
            ],
            cells: vec![
                name,
                home,
                speed(refused),
                count(it.refused).tone(tone),
                speed(asked),
                count(it.asked),
                age(seen, Some(it.last)),
                note,
            ],
        }
    });
    rows.collect()
}

impl Row {
    fn has(&self, filter: &str) -> bool {
        let cells = self.cells.iter().chain(self.whole.iter().map(|(_, cell)| cell));
        filter.is_empty() || cells.into_iter().any(|cell| cell.text().to_lowercase().contains(filter))
    }

    /// By one key, then by the others in their order.
    fn compare(&self, other: &Self, first: usize) -> Ordering {
        let by = |at: usize| match (self.keys.get(at), other.keys.get(at)) {
            (Some(Key::Number(a)), Some(Key::Number(b))) => b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0)),
            (Some(Key::Text(a)), Some(Key::Text(b))) => a.cmp(b),
            _ => Ordering::Equal,
        };
        let rest = (0..self.keys.len()).map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal);
        by(first).then(rest).then_with(|| self.id.cmp(&other.id))
    }
}

fn count(count: u64) -> Cell {
    let cell = Cell::new(count.to_string());
    if count == 0 { cell.tone(Tone::Faint) } else { cell }
}

fn speed(rate: Option<f64>) -> Cell {
    match rate {
        None => Cell::of(None::<&str>),
        Some(0.0) => Cell::new("0").tone(Tone::Faint),
        Some(rate) => Cell::new(per_second(rate)).tone(Tone::Bad),
    }
}

/// A rate in few characters.
pub fn per_second(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate if rate < 9_999.5 => format!("{rate:.0}"),
        rate if rate < 999_950.0 => format!("{:.1}k", rate / 1e3),
        rate => format!("{:.1}M", rate / 1e6),
    }
}

/// How long ago.
fn age(seen: &Seen, then: Option<Timestamp>) -> Cell {
    let Some(then) = then else { return Cell::of(None::<&str>) };
    Cell::new(duration(seen.picture.time.duration_since(then).as_secs().max(0).unsigned_abs()))
}

/// A time in few characters.
pub fn duration(secs: u64) -> String {
    match secs {
        0 => "now".to_owned(),
        1..60 => format!("{secs} s"),
        60..3_600 => format!("{} min", secs / 60),
        3_600..86_400 => format!("{} h", secs / 3_600),
        _ => format!("{} d", secs / 86_400),
    }
}
