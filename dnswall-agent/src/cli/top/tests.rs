//! What a screen of `top` shows, at several sizes, and what keys do.

use std::net::SocketAddr;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use uuid::Uuid;

use super::draw::{Paint, draw};
use super::history::History;
use super::sheet::View;
use super::state::{Asked, State};
use crate::alert::{Alert, AlertWorkload, sample};
use crate::control::api::{ConnectionSeen, Delivery, NameSeen, Picture, PolicyStatus, Totals, WorkloadSeen};

const HOSTILE: &str = "\x1b[2J\x1b]0;x\x07\u{202e}evil";

fn noon() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn after(secs: i64) -> Timestamp {
    noon() + jiff::SignedDuration::from_secs(secs)
}

fn unit(name: &str) -> AlertWorkload {
    AlertWorkload {
        cgroup: Some(format!("/system.slice/{name}")),
        unit: Some(name.to_owned()),
        slice: Some("system.slice".to_owned()),
        ..AlertWorkload::default()
    }
}

fn flow(id: u128, name: &str, to: &str, count: u64, last: i64) -> Alert {
    let to: SocketAddr = to.parse().unwrap();
    let mut alert = sample::alert();
    (alert.id, alert.workload, alert.count) = (Uuid::from_u128(id), unit(name), count);
    (alert.first, alert.last) = (noon(), after(last));
    let flow = alert.flow.as_mut().unwrap();
    (flow.destination, flow.destination_port) = (Some(to.ip()), Some(to.port()));
    if to.port() != 53 {
        (flow.protocol, alert.dns) = ("tcp".to_owned(), None);
        alert.kind = crate::alert::Kind::EgressDenied;
        alert.process.exe = Some("/usr/lib/postgresql/16/bin/postgres".to_owned());
    }
    alert
}

/// At that many seconds after noon, when web.service had been refused so often.
fn picture(secs: i64, flood: u64) -> Picture {
    let workload = |name: &str, connections, refused| WorkloadSeen {
        workload: unit(name),
        connections,
        refused,
        flows: u64::from(refused > 0),
        last: (refused > 0).then(|| after(secs - 1)),
        last_refused: (refused > 0).then(|| "tcp 203.0.113.9:443".to_owned()),
    };
    let talk = |name: &str, program: &str, pid, to: &str, connections| ConnectionSeen {
        workload: unit(name),
        program: Some(program.to_owned()),
        pid,
        processes: if pid.is_some() { 1 } else { 12 },
        user: Some("www-data".to_owned()),
        protocol: "tcp".to_owned(),
        destination: to.to_owned(),
        connections,
        opening: 0,
        older: u64::from(pid.is_none()),
    };
    let mut hostile = flow(3, HOSTILE, "[2001:db8::7]:443", 1, 1);
    hostile.process.exe = Some(HOSTILE.to_owned());
    Picture {
        time: after(secs),
        monotonic_ms: 1_000 * secs as u64,
        host: "web-1".to_owned(),
        version: "1.2.3".to_owned(),
        pid: 7,
        uptime_secs: 7_380,
        mode: "enforce".to_owned(),
        policy: PolicyStatus { name: "production".to_owned(), generation: 3, ..PolicyStatus::default() },
        stands: true,
        totals: Totals { allowed: 40 + secs as u64, denied: flood + 9, alerts: 4, ..Totals::default() },
        delivery: Delivery { sinks: 2, ..Delivery::default() },
        workloads: vec![
            workload("web.service", 12, flood),
            workload("orders.service", 3, 5),
            workload("idle.service", 1, 0),
        ],
        connections: vec![
            talk("web.service", "/usr/sbin/nginx", None, "10.0.3.7:5432", 12),
            talk("orders.service", "/usr/bin/python3.11", Some(4_321), "[2001:db8::5]:443", 3),
        ],
        refused: vec![
            flow(1, "web.service", "203.0.113.9:443", flood, secs),
            flow(2, "orders.service", "198.51.100.53:53", 5, 1),
            hostile,
        ],
        names: vec![
            NameSeen {
                workload: unit("orders.service"),
                name: "a-rather-long-name.exfiltration.example.com".to_owned(),
                asked: 0,
                refused: 5,
                last: after(1),
                rule: Some("blocklist.malware: example.com (line 17)".to_owned()),
                answer: None,
            },
            NameSeen {
                workload: unit("web.service"),
                name: HOSTILE.to_owned(),
                asked: 41,
                refused: 0,
                last: after(2),
                rule: None,
                answer: Some("NOERROR".to_owned()),
            },
        ],
        ..Picture::default()
    }
}

/// Two pictures, two seconds apart, with a flood in between.
fn state() -> State {
    let mut state = State::new(picture(2, 1_000));
    state.see(picture(4, 25_690));
    state
}

fn screen(state: &mut State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, Paint { colour: true })).unwrap();
    terminal.backend().to_string()
}

fn press(state: &mut State, keys: &str) -> Asked {
    let mut asked = Asked::Nothing;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            key => KeyCode::Char(key),
        };
        asked = state.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
    asked
}

/// The first columns of the rows that are shown.
fn rows(state: &State, column: usize) -> Vec<String> {
    state.rows().iter().map(|row| row.cells[column].text().to_owned()).collect()
}

#[test]
fn every_view_at_80x24() {
    let screens: Vec<String> = (1..=4)
        .map(|view| {
            let mut state = state();
            press(&mut state, &view.to_string());
            screen(&mut state, 80, 24)
        })
        .collect();
    insta::assert_snapshot!(screens.join("\n"));
}

#[test]
fn every_view_at_120x40() {
    let screens: Vec<String> = (1..=4)
        .map(|view| {
            let mut state = state();
            press(&mut state, &view.to_string());
            screen(&mut state, 120, 40)
        })
        .collect();
    insta::assert_snapshot!(screens.join("\n"));
}

#[test]
fn a_tiny_screen_has_rows_all_the_same() {
    let mut state = state();
    press(&mut state, "3");
    insta::assert_snapshot!(screen(&mut state, 30, 6));
    // No size is too small to be drawn, whatever is open.
    for keys in ["", "?", "\x1b\n", "\x1b/", "x"] {
        press(&mut state, keys);
        for (width, height) in [(1, 1), (2, 2), (5, 3), (200, 1), (1, 50), (79, 4), (10, 12)] {
            screen(&mut state, width, height);
        }
    }
}

#[test]
fn nothing_hostile_reaches_the_terminal() {
    for keys in ["1", "2", "3", "4", "3G\n"] {
        let mut state = state();
        press(&mut state, keys);
        let shown = screen(&mut state, 200, 40);
        assert!(shown.chars().all(|it| it == '\n' || !it.is_control() && it != '\u{202e}'), "{shown}");
    }
    let mut state = state();
    press(&mut state, "3");
    assert!(screen(&mut state, 200, 40).contains("\\x1b[2J"));
    let mut history = History::default();
    let shown = super::plain::text(&history.see(picture(2, 7)), None);
    let shown = anstream::adapter::strip_str(&shown).to_string();
    assert!(shown.chars().all(|it| it == '\n' || !it.is_control() && it != '\u{202e}'), "{shown}");
}

#[test]
fn rates_are_of_two_pictures_of_the_same_agent() {
    let mut history = History::default();
    let seen = history.see(picture(2, 1_000));
    assert_eq!((seen.denied, seen.flows.len()), (None, 0));
    let seen = history.see(picture(4, 25_690));
    assert_eq!((seen.denied, seen.allowed), (Some(12_345.0), Some(1.0)));
    assert_eq!(seen.flows[&Uuid::from_u128(1)], 12_345.0);
    assert_eq!(seen.workloads[&Some("/system.slice/web.service".to_owned())], 12_345.0);
    // A flow that is new began with nothing; one that was there before, and was not in the picture, is not known.
    let mut more = picture(6, 25_690);
    let (mut new, old) =
        (flow(8, "web.service", "203.0.113.1:1", 10, 6), flow(9, "web.service", "203.0.113.2:1", 10, 6));
    new.first = after(5);
    more.refused.extend([new, old]);
    let seen = history.see(more);
    assert_eq!(
        (seen.flows.get(&Uuid::from_u128(8)), seen.flows.get(&Uuid::from_u128(9))),
        (Some(&5.0), None)
    );
    // The same picture again has the same rates; another agent counts anew.
    let seen = history.see(picture(6, 25_690));
    assert_eq!((seen.denied, seen.flows.len()), (Some(0.0), 4));
    let seen = history.see(Picture { pid: 8, ..picture(8, 3) });
    assert_eq!(seen.denied, None);
    assert_eq!(history.see(Picture { pid: 8, ..picture(10, 13) }).denied, Some(5.0));
}

#[test]
fn keys_choose_sort_and_filter() {
    let mut state = state();
    assert_eq!(rows(&state, 0), ["web.service", "orders.service", "idle.service"]);
    press(&mut state, "r");
    assert_eq!(rows(&state, 0), ["idle.service", "orders.service", "web.service"]);
    // Sorted by one column after another, each from its usual end.
    press(&mut state, "ssss");
    assert_eq!(rows(&state, 0), ["idle.service", "orders.service", "web.service"]);
    press(&mut state, "\t");
    assert_eq!(state.view, View::Connections);
    assert_eq!(rows(&state, 0), ["12", "3"]);
    press(&mut state, "ss");
    press(&mut state, "1/ORDERS.S\n");
    assert_eq!(rows(&state, 0), ["orders.service"]);
    // What is filtered stays so in the other views; what is only in a row's details is found as well.
    press(&mut state, "3");
    assert_eq!(rows(&state, 1), ["5"]);
    press(&mut state, "/\x1b/203.0.113\n");
    assert_eq!(rows(&state, 1), ["25690"]);
    assert_eq!(press(&mut state, "\x1b"), Asked::Nothing);
    assert_eq!(rows(&state, 1).len(), 3);
    assert_eq!(press(&mut state, "\x1b"), Asked::Quit);
    assert_eq!(press(&mut state, "q"), Asked::Quit);
    let control = |code| KeyEvent::new(KeyCode::Char(code), KeyModifiers::CONTROL);
    press(&mut state, "/");
    assert_eq!(state.press(control('c')), Asked::Quit);
    assert_eq!(state.press(control('z')), Asked::Suspend);
}

#[test]
fn the_chosen_row_stays_chosen_wherever_it_goes() {
    let mut state = state();
    press(&mut state, "3↓");
    let id = |state: &State| state.rows()[state.chosen(&state.rows())].id.clone();
    let chosen = id(&state);
    press(&mut state, "r");
    assert_eq!(id(&state), chosen);
    press(&mut state, "\n");
    assert!(screen(&mut state, 100, 30).contains("techniques"));
    press(&mut state, "\n↑↑↑↑");
    assert_eq!(state.chosen(&state.rows()), 0);
}

#[test]
fn a_held_picture_stays_and_an_agent_that_is_gone_is_said() {
    let mut state = state();
    press(&mut state, "p");
    state.see(picture(6, 30_000));
    assert!(screen(&mut state, 100, 30).contains("PAUSED"));
    assert_eq!(rows(&state, 2)[0], "25690");
    press(&mut state, "p");
    assert_eq!(rows(&state, 2)[0], "30000");
    state.miss("No such file or directory".to_owned());
    let shown = screen(&mut state, 120, 30);
    assert!(
        shown.contains("AGENT GONE") && shown.contains("No such file") && shown.contains("web.service"),
        "{shown}"
    );
    state.see(Picture { pid: 8, ..picture(8, 3) });
    assert!(!screen(&mut state, 100, 30).contains("AGENT GONE"));
}

#[test]
fn what_somebody_on_call_wants_is_in_the_head() {
    let mut bad = picture(4, 10);
    bad.stands = false;
    bad.delivery = Delivery {
        sinks: 3,
        failing: vec!["siem".to_owned(), "kafka".to_owned()],
        oldest_waiting_secs: Some(312.0),
        lost: 3,
        trouble: Some("No space left on device".to_owned()),
    };
    bad.totals.events_lost = 17;
    let mut state = State::new(bad);
    let shown = screen(&mut state, 120, 24);
    for said in
        ["does NOT do", "2 of 3 FAIL: siem, kafka", "oldest waits 5 min", "events lost 17", "alerts lost 3"]
    {
        assert!(shown.contains(said), "{said}: {shown}");
    }
}
