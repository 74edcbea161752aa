//! Takes an alert, gives one line for a person: when, what became of it, what, who, why, how often.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anstyle::{AnsiColor, Style};

use jiff::Timestamp;

use super::kind::Kind;
use super::{Alert, AlertFlow, AlertProcess, AlertTamper, icmp};
use crate::event::Outcome;
use crate::event::text::printable;

/// Columns that short lines are filled up to, so that the next part begins below the one above.
const WHAT_WIDTH: usize = 40;
const WHO_WIDTH: usize = 40;
/// `2026-03-01`, at the beginning of a time.
const DAY_CHARACTERS: usize = 10;

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const NAME: Style = AnsiColor::Cyan.on_default();
const DENIED: Style = AnsiColor::Red.on_default().bold();
const WOULD_DENY: Style = AnsiColor::Yellow.on_default();

/// One line, without its end.
pub fn line(alert: &Alert, colour: bool) -> String {
    let mut line = Line::new(colour);
    line.put(DIM, &format!("{}  ", time_of_day(alert.time)));
    match alert.verdict {
        Some(Outcome::Denied) => line.put(DENIED, "DENIED    "),
        Some(Outcome::WouldDeny) => line.put(WOULD_DENY, "would-deny"),
        None if alert.kind == Kind::Tamper => line.put(DENIED, "TAMPER    "),
        None if alert.kind == Kind::AlertsLost => line.put(DENIED, "LOST      "),
        None if alert.blocklist.is_some() => line.put(WOULD_DENY, "LIST      "),
        // Of which only the kernel's count is left.
        None => line.put(DENIED, "counted   "),
    }
    line.put(Style::new(), &format!("  {:<13}  ", alert.kind));
    line.restart();
    match (&alert.flow, &alert.tamper) {
        (Some(flow), _) => {
            what(&mut line, alert, flow);
            line.fill_to(WHAT_WIDTH);
            who(&mut line, alert);
            line.fill_to(WHO_WIDTH);
            line.put(DIM, &why(alert));
        }
        (None, Some(tamper)) => done(&mut line, alert, tamper),
        // A list, what was lost, or what many refusals of one workload have in common.
        (None, None) => match alert.own_words() {
            Some(words) => line.put(BOLD, &words),
            None => {
                line.fill_to(WHAT_WIDTH);
                who(&mut line, alert);
                line.fill_to(WHO_WIDTH);
                line.put(DIM, &why(alert));
            }
        },
    }
    if let Some(names) = &alert.names {
        let below = names.domain.as_ref().map_or(String::new(), |domain| format!(" below {domain}"));
        line.put(BOLD, &format!("  {} names{below}", names.distinct));
    }
    if let Some(limited) = &alert.limited {
        line.put(BOLD, &format!("  for {} alerts", limited.alerts));
    }
    if alert.lost.is_some() || alert.blocklist.is_some() {
        return line.text;
    }
    if let Some(selftest) = &alert.selftest {
        line.put(BOLD, &format!("  test {}", selftest.number));
        line.put(DIM, &format!(", {:.1} ms to the agent", selftest.latency_us as f64 / 1e3));
        return line.text;
    }
    if alert.first < alert.last {
        // It is told when its interval is over, below what happened since: its time is no mistake.
        line.put(BOLD, &format!("  repeated ×{}", alert.count));
        line.put(DIM, &format!(", first {}, last {}", first(alert), time_of_day(alert.last)));
    } else if alert.count > 1 {
        line.put(BOLD, &format!("  ×{}", alert.count));
    }
    line.text
}

/// A line under construction. Styles take no room, so columns are counted apart.
struct Line {
    text: String,
    colour: bool,
    column: usize,
}

impl Line {
    /// An empty one.
    const fn new(colour: bool) -> Self {
        Self { text: String::new(), colour, column: 0 }
    }

    /// The column starts anew.
    const fn restart(&mut self) {
        self.column = 0;
    }

    /// Adds a word.
    fn put(&mut self, style: Style, text: &str) {
        let style = if self.colour { style } else { Style::new() };
        // Events are clean already; an alert may come from elsewhere.
        let text = printable(text.as_bytes(), usize::MAX);
        let _ = write!(self.text, "{style}{text}{style:#}");
        self.column += text.chars().count();
    }

    /// Two spaces at least, and the column starts anew.
    fn fill_to(&mut self, width: usize) {
        let spaces = width.saturating_sub(self.column) + 2;
        self.text.extend(std::iter::repeat_n(' ', spaces));
        self.restart();
    }
}

/// Hours to milliseconds, in UTC as everywhere in an alert.
fn time_of_day(time: Timestamp) -> String {
    let time = format!("{time:.3}");
    time.split_once('T').map_or(time.clone(), |(_, time)| time.to_owned())
}

/// With its day when that is not the day of the last.
fn first(alert: &Alert) -> String {
    let days = [alert.first, alert.last].map(|time| time.to_string().chars().take(DAY_CHARACTERS).collect());
    let [first_day, last_day]: [String; 2] = days;
    if first_day == last_day { time_of_day(alert.first) } else { format!("{:.3}", alert.first) }
}

fn done(line: &mut Line, alert: &Alert, tamper: &AlertTamper) {
    let AlertTamper { object, found, done, mended } = tamper;
    line.put(BOLD, &format!("{}: {object}", alert.reason));
    line.fill_to(WHAT_WIDTH);
    line.put(Style::new(), &format!("{found}; "));
    line.put(if *mended { DIM } else { BOLD }, done);
}

fn what(line: &mut Line, alert: &Alert, flow: &AlertFlow) {
    line.put(Style::new(), &format!("{} ", protocol(flow)));
    if alert.kind == Kind::IngressDns
        && let Some(source) = flow.source
    {
        line.put(BOLD, &source.to_string());
        line.put(Style::new(), " to ");
    }
    line.put(BOLD, &destination(alert, flow));
    if let Some(name) = flow.destination_name.as_deref().filter(|_| alert.dns.is_none()) {
        line.put(NAME, &format!(" ({name})"));
    }
    if let Some(dns) = &alert.dns {
        line.put(NAME, &format!(" {}", dns.name));
        line.put(Style::new(), &format!(" {}", dns.kind));
    }
}

/// The protocol, and the message of ICMP.
fn protocol(flow: &AlertFlow) -> String {
    match flow.icmp {
        Some(message) => format!("{} {}", flow.protocol, icmp::words(&flow.protocol, message)),
        None => flow.protocol.clone(),
    }
}

/// Address and port, or what there is instead.
fn destination(alert: &Alert, flow: &AlertFlow) -> String {
    match (flow.destination, flow.destination_port) {
        (Some(address), Some(port)) => SocketAddr::new(address, port).to_string(),
        (Some(address), None) => address.to_string(),
        (None, _) if matches!(alert.kind, Kind::SocketRaw | Kind::SocketUnjudged) => "socket".to_owned(),
        (None, _) if alert.kind == Kind::DeviceUnjudged => "opened".to_owned(),
        (None, _) => "to many destinations".to_owned(),
    }
}

/// Where it wanted to go, in one piece: protocol and destination; of tampering what was changed.
pub fn target(alert: &Alert) -> String {
    match (&alert.flow, &alert.tamper) {
        (Some(flow), _) => match (alert.kind, flow.source) {
            (Kind::IngressDns, Some(source)) => {
                format!("{} from {source} to {}", protocol(flow), destination(alert, flow))
            }
            _ => format!("{} {}", protocol(flow), destination(alert, flow)),
        },
        (None, Some(tamper)) => tamper.object.clone(),
        (None, None) => String::new(),
    }
}

fn who(line: &mut Line, alert: &Alert) {
    let process = &alert.process;
    line.put(BOLD, program(process).unwrap_or("unknown"));
    if let Some(pid) = process.pid {
        line.put(Style::new(), &format!("[{pid}]"));
    }
    match (&process.user, process.uid) {
        (Some(user), _) => line.put(Style::new(), &format!(" {user}")),
        (None, Some(uid)) => line.put(Style::new(), &format!(" uid {uid}")),
        (None, None) => {}
    }
    if let Some(home) = alert.workload.short_name() {
        line.put(NAME, &format!(" {home}"));
    }
}

/// The path of the program, or the name of its thread.
pub fn program(process: &AlertProcess) -> Option<&str> {
    process.exe.as_deref().or(process.comm.as_deref())
}

/// The entry of a list that the name was found by, and its line.
fn listed(alert: &Alert) -> Option<(&str, u32)> {
    let dns = alert.dns.as_ref()?;
    Some((dns.entry.as_deref()?, dns.line?))
}

/// The rule; or why there is none.
pub fn why(alert: &Alert) -> String {
    match alert.rule.as_deref() {
        Some(rule) if alert.reason == "rule" => rule.to_owned(),
        Some(rule) if let Some((entry, line)) = listed(alert) => format!("{rule}: {entry} (line {line})"),
        Some(rule) if rule != "default" => format!("{} {rule}", alert.reason),
        _ => alert.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{AlertIcmp, sample};
    use crate::event::EventHook;

    fn flow(alert: &mut Alert) -> &mut AlertFlow {
        alert.flow.as_mut().unwrap()
    }

    fn alerts() -> Vec<Alert> {
        let question = sample::alert();
        let mut connect = sample::alert();
        (connect.kind, connect.dns, connect.count) = (Kind::EgressDenied, None, 1);
        connect.first = connect.last;
        connect.verdict = Some(Outcome::WouldDeny);
        flow(&mut connect).protocol = "tcp".to_owned();
        flow(&mut connect).destination = Some("2001:db8::7".parse().unwrap());
        flow(&mut connect).destination_port = Some(443);
        (connect.rule, connect.reason) = (Some("deny.instance metadata".to_owned()), "rule".to_owned());
        (connect.process.user, connect.process.exe) = (None, None);
        connect.workload.container = Some("0123456789abcdef".repeat(4));
        let mut ping = connect.clone();
        flow(&mut ping).protocol = "icmpv6".to_owned();
        (flow(&mut ping).destination_port, flow(&mut ping).icmp) =
            (None, Some(AlertIcmp { kind: 128, code: 0 }));
        ping.workload.container = None;
        let mut served = question.clone();
        (served.kind, flow(&mut served).hook, served.reason) =
            (Kind::IngressDns, EventHook::Ingress, "not-served".to_owned());
        let mut raw = ping.clone();
        (raw.kind, flow(&mut raw).destination, flow(&mut raw).icmp) = (Kind::SocketRaw, None, None);
        (raw.reason, raw.rule) = ("raw-socket".to_owned(), Some("default".to_owned()));
        let mut sum = connect.clone();
        (flow(&mut sum).destination, flow(&mut sum).destination_port, sum.count) = (None, None, 98_765);
        (sum.process.comm, sum.process.pid, sum.process.uid) = (None, None, None);
        (sum.workload.container, sum.workload.unit) = (None, None);
        (sum.reason, sum.rule) = ("no-rule".to_owned(), None);
        let mut yesterday = connect.clone();
        (yesterday.count, yesterday.first) = (2, "2026-02-28T23:59:59.5Z".parse().unwrap());
        let mut container = ping.clone();
        container.workload.container = Some("0123456789abcdef".repeat(4));
        container.workload.container_name = Some("shop-api".to_owned());
        let mut pod = container.clone();
        pod.workload.pod = Some(crate::alert::AlertPod {
            namespace: "shop".to_owned(),
            name: "api-7d9f-x2x".to_owned(),
            ..Default::default()
        });
        let mended = AlertTamper {
            object: "dw_egress".to_owned(),
            found: "link 17 is attached to nothing".to_owned(),
            done: "attached again as link 40".to_owned(),
            mended: true,
        };
        let tamper = |reason, tamper, count| {
            let tally = crate::alert::Tally { count, ..sample::tally() };
            Alert::of_tampering(reason, tamper, question.policy.clone(), "/", "web-1", tally)
        };
        let detached = tamper("link-detached", mended.clone(), 3);
        let hidden =
            AlertTamper { done: "nothing can be done from here".to_owned(), mended: false, ..mended };
        let mut hidden = tamper("cgroup-replaced", hidden, 1);
        hidden.last = hidden.first;
        vec![question, connect, ping, container, pod, served, raw, sum, yesterday, detached, hidden]
    }

    #[test]
    fn a_line_for_a_person() {
        let lines: Vec<String> = alerts().iter().map(|alert| line(alert, false)).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn colour_changes_no_column() {
        for alert in alerts() {
            let coloured = line(&alert, true);
            assert!(coloured.contains("\x1b["));
            assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), line(&alert, false));
        }
    }

    #[test]
    fn without_colour_there_is_no_escape() {
        assert!(alerts().iter().all(|alert| !line(alert, false).contains('\x1b')));
    }
}
