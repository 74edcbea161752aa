//! Takes what is looked at, gives a screen of any size.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::history::Seen;
use super::sheet::{Row, View, duration, per_second};
use super::state::State;
use crate::cli::columns::{Cell, Columns, Tone, shorten};
use crate::control::api::{Delivery, Picture, Totals};

/// Heights of the screen from which on there is room for less important things.
const HEAD_FROM: u16 = 12;
const VIEWS_FROM: u16 = 5;
const KEYS_FROM: u16 = 7;
/// A bar for each eighth.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Pictures in the line of bars.
const BARS_MAX: usize = 60;
/// What stands beside the title of a window.
const TITLE_REST: usize = "  (any key closes) ".len();
/// An alert that waits for so long is worth a look, in seconds.
const WAITS_LONG_SECS: f64 = 60.0;

/// How tones look here.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    /// Whether there are colours.
    pub colour: bool,
}

impl Paint {
    fn style(self, tone: Tone) -> Style {
        let colour = |colour| if self.colour { Style::new().fg(colour) } else { Style::new() };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Good => colour(Color::Green),
            Tone::Warn => colour(Color::Yellow),
            Tone::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
            Tone::Faint => colour(Color::DarkGray),
        }
    }

    fn span(self, tone: Tone, text: impl AsRef<str>) -> Span<'static> {
        // Through a cell: whatever it says, it controls no terminal.
        Span::styled(Cell::new(text).text().to_owned(), self.style(tone))
    }
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, state: &mut State, paint: Paint) {
    let area = frame.area();
    let head = head(state, area.width.into(), paint);
    let head_height = if area.height >= HEAD_FROM { head.len() as u16 } else { 1 };
    let heights = [
        head_height,
        u16::from(area.height >= VIEWS_FROM),
        // The table has the rest.
        0,
        u16::from(area.height >= KEYS_FROM),
    ];
    let constraints = heights.iter().enumerate().map(|(at, height)| match at {
        2 => Constraint::Min(0),
        _ => Constraint::Length(*height),
    });
    let [top, views, table, keys] = Layout::vertical(constraints.collect::<Vec<_>>()).areas(area);
    frame.render_widget(Paragraph::new(head), top);
    let rows = state.rows();
    frame.render_widget(self::views(state, rows.len(), paint), views);
    self::table(frame, table, state, &rows, paint);
    frame.render_widget(self::keys(state, paint), keys);
    if state.shows_help {
        popup(frame, "keys", &HELP.map(|(key, what)| (key, Cell::new(what))), paint);
    } else if let Some(row) = rows.get(state.chosen(&rows)).filter(|_| state.shows_row) {
        popup(frame, state.view.title(), &row.whole, paint);
    }
}

/// What somebody on call wants to know first.
fn head(state: &State, width: usize, paint: Paint) -> Vec<Line<'static>> {
    let Seen { picture, .. } = &state.seen;
    let mut lines = vec![identity(state, paint), speeds(&state.seen, width, paint), arrival(picture, paint)];
    lines.extend(trouble(picture, width).map(|(tone, trouble)| Line::from(paint.span(tone, trouble))));
    lines
}

fn identity(state: &State, paint: Paint) -> Line<'static> {
    let Picture { time, host, mode, policy, uptime_secs, version, .. } = &state.seen.picture;
    let mut spans = Vec::new();
    if let Some(why) = &state.gone {
        spans.push(paint.span(Tone::Bad, "AGENT GONE, trying again").reversed());
        spans.push(paint.span(Tone::Bad, format!("  {why}  last seen {time:.0}  ")));
    }
    if state.is_paused {
        spans.push(paint.span(Tone::Warn, "PAUSED").reversed());
        spans.push(Span::raw("  "));
    }
    spans.push(paint.span(Tone::Strong, host));
    spans.push(Span::raw("  "));
    spans.push(match mode.as_str() {
        "enforce" => paint.span(Tone::Good, "enforcing"),
        "audit" => paint.span(Tone::Warn, "audit: blocks nothing"),
        _ => paint.span(Tone::Bad, "no policy in the kernel: nothing is enforced"),
    });
    let policy = format!("  policy {} (generation {})", policy.name, policy.generation);
    spans.push(paint.span(Tone::Plain, policy));
    let up = format!("  {time:.0}  dnswall {version}, up {}", duration(*uptime_secs));
    spans.push(paint.span(Tone::Faint, up));
    Line::from(spans)
}

fn speeds(seen: &Seen, width: usize, paint: Paint) -> Line<'static> {
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), per_second);
    let tone = |rate: Option<f64>, tone| if rate.unwrap_or(0.0) > 0.0 { tone } else { Tone::Plain };
    let mut spans = vec![
        Span::raw("refused "),
        paint.span(tone(seen.denied, Tone::Bad), format!("{}/s", rate(seen.denied))),
        Span::raw("  would refuse "),
        paint.span(tone(seen.would_deny, Tone::Warn), format!("{}/s", rate(seen.would_deny))),
        Span::raw("  new flows allowed "),
        paint.span(Tone::Plain, format!("{}/s", rate(seen.allowed))),
        Span::raw("  "),
    ];
    let most = seen.refused.iter().max().copied().unwrap_or(0);
    if most > 0 {
        spans.push(paint.span(Tone::Faint, format!("at most {}/s ", per_second(most as f64))));
        let used: usize = spans.iter().map(Span::width).sum();
        let room = width.saturating_sub(used).min(BARS_MAX).min(seen.refused.len());
        let bars = bars(&seen.refused[seen.refused.len() - room..], most);
        spans.push(paint.span(Tone::Bad, bars).not_bold());
    }
    Line::from(spans)
}

/// The largest is the highest.
fn bars(rates: &[u64], most: u64) -> String {
    let bar = |rate: &u64| {
        if *rate == 0 {
            return ' ';
        }
        let eighth = (rate * BARS.len() as u64).div_ceil(most).max(1) - 1;
        BARS[usize::try_from(eighth).unwrap_or(0).min(BARS.len() - 1)]
    };
    rates.iter().map(bar).collect()
}

fn arrival(picture: &Picture, paint: Paint) -> Line<'static> {
    let Delivery { sinks, failing, oldest_waiting_secs, lost, trouble: _ } = &picture.delivery;
    let Totals { events_lost, questions_lost, alerts, .. } = &picture.totals;
    let mut spans = vec![Span::raw(format!("alerts {alerts}  sinks "))];
    spans.push(match (sinks, failing.len()) {
        (0, _) => paint.span(Tone::Warn, "none"),
        (sinks, 0) => paint.span(Tone::Good, format!("{sinks} ok")),
        (sinks, _) => {
            paint.span(Tone::Bad, format!("{} of {sinks} FAIL: {}", failing.len(), failing.join(", ")))
        }
    });
    spans.push(match oldest_waiting_secs {
        // It takes a moment to arrive.
        None | Some(..1.0) => paint.span(Tone::Plain, "  nothing waits"),
        Some(secs) => {
            let tone = if *secs >= WAITS_LONG_SECS { Tone::Bad } else { Tone::Warn };
            paint.span(tone, format!("  oldest waits {}", duration(*secs as u64)))
        }
    });
    for (count, what) in
        [(lost, "alerts lost"), (events_lost, "events lost"), (questions_lost, "questions lost")]
    {
        let tone = if *count > 0 { Tone::Bad } else { Tone::Faint };
        if *count > 0 || what == "events lost" {
            spans.push(paint.span(tone, format!("  {what} {count}")));
        }
    }
    Line::from(spans)
}

/// The worst, how bad it is, and how much more there is.
fn trouble(picture: &Picture, width: usize) -> Option<(Tone, String)> {
    let mut all = Vec::new();
    if !picture.stands {
        all.push((Tone::Bad, "the wall does NOT do what the policy says".to_owned()));
    }
    all.extend(picture.delivery.trouble.iter().map(|trouble| (Tone::Bad, format!("spool: {trouble}"))));
    all.extend(picture.left_out.errors.iter().map(|error| (Tone::Bad, error.clone())));
    let warnings = picture.warnings.iter().filter(|warning| !warning.starts_with("spool: "));
    all.extend(warnings.map(|warning| (Tone::Warn, warning.clone())));
    let more = match all.len().saturating_sub(1) {
        0 => String::new(),
        more => format!(" (and {more} more: dnswall status)"),
    };
    let (tone, first) = all.into_iter().next()?;
    let room = width.saturating_sub(more.len());
    Some((tone, format!("{}{more}", shorten(Cell::new(first).text(), room, false))))
}

fn views(state: &State, shown: usize, paint: Paint) -> Line<'static> {
    let Picture { workloads, connections, refused, names, .. } = &state.seen.picture;
    let counts = [workloads.len(), connections.len(), refused.len(), names.len()];
    let mut spans = Vec::new();
    for ((number, view), count) in (1..).zip(View::ALL).zip(counts) {
        let is_shown = view == state.view;
        let count = if is_shown && !state.filter.is_empty() {
            format!("{shown} of {count}")
        } else {
            format!("{}{}", count, if view.left_out(&state.seen) > 0 { "+" } else { "" })
        };
        let tone = if is_shown { Tone::Strong } else { Tone::Plain };
        let span = paint.span(tone, format!(" {number} {} {count} ", view.title()));
        spans.push(if is_shown { span.reversed() } else { span });
    }
    Line::from(spans)
}

fn table(frame: &mut Frame<'_>, area: Rect, state: &mut State, rows: &[Row], paint: Paint) {
    let (by, reversed) = state.sort();
    let mut columns = Columns::new(state.view.columns(), Some(area.width.into()));
    let mut heading = columns.heading();
    if let Some(cell) = heading.get_mut(by) {
        *cell = Cell::new(format!("{}{}", cell.text(), if reversed { "▲" } else { "▼" }));
    }
    columns.grow(rows.iter().map(|row| row.cells.as_slice()).chain([heading.as_slice()]));
    // One look for a whole row, or each cell its own.
    let line = |cells: &[Cell], whole: Option<Style>| {
        let pieces = columns.pieces(cells).into_iter();
        let style = |tone| whole.unwrap_or_else(|| paint.style(tone));
        let mut line: Line<'_> = pieces.map(|(text, tone)| Span::styled(text, style(tone))).collect();
        if let Some(whole) = whole {
            let rest = usize::from(area.width).saturating_sub(line.width());
            line.push_span(Span::styled(" ".repeat(rest), whole));
        }
        line
    };
    let room = usize::from(area.height.saturating_sub(1));
    let chosen = state.chosen(rows);
    state.room = room;
    state.first = state.first.min(chosen).max((chosen + 1).saturating_sub(room.max(1)));
    // Nothing below the last row while there are some above the first.
    state.first = state.first.min(rows.len().saturating_sub(room));
    let mut lines = vec![line(&heading, Some(Style::new().bold().underlined()))];
    for (at, row) in rows.iter().enumerate().skip(state.first).take(room) {
        lines.push(line(&row.cells, (at == chosen).then(|| Style::new().bold().reversed())));
    }
    let note = match (rows.len(), state.filter.is_empty(), state.view.left_out(&state.seen)) {
        (0, true, _) => Some(state.view.empty().to_owned()),
        (0, false, _) => Some("nothing has this in it".to_owned()),
        (_, true, left_out @ 1..) => Some(format!("and {left_out} more that there is no room for")),
        _ => None,
    };
    lines.extend(note.map(|note| Line::from(paint.span(Tone::Faint, note))));
    frame.render_widget(Paragraph::new(lines), area);
}

fn keys(state: &State, paint: Paint) -> Line<'static> {
    if state.is_typing {
        return Line::from(vec![
            paint.span(Tone::Strong, format!("/{}", state.filter)),
            Span::styled(" ", Style::new().add_modifier(Modifier::REVERSED)),
            paint.span(Tone::Faint, "  Enter keeps it, Esc clears it"),
        ]);
    }
    let mut spans = Vec::new();
    if !state.filter.is_empty() {
        spans.push(paint.span(Tone::Warn, format!("only with {:?}  ", state.filter)));
    }
    let (by, _) = state.sort();
    let sort = format!("sort ({})", state.view.columns()[by].title);
    for (key, what) in [
        ("Tab", "view"),
        ("s", sort.as_str()),
        ("r", "reverse"),
        ("/", "filter"),
        ("Enter", "row"),
        ("p", if state.is_paused { "go on" } else { "pause" }),
        ("?", "help"),
        ("q", "quit"),
    ] {
        spans.push(paint.span(Tone::Strong, key));
        spans.push(paint.span(Tone::Faint, format!(" {what}  ")));
    }
    Line::from(spans)
}

const HELP: [(&str, &str); 11] = [
    ("1 2 3 4", "workloads, connections, refused, names"),
    ("Tab Left Right", "the next view, the one before"),
    ("Up Down", "choose a row; PgUp, PgDn, Home, End go farther"),
    ("Enter", "show the row whole"),
    ("s", "sort by the next column"),
    ("r", "sort the other way round"),
    ("/", "only rows that have this in them; Esc: all of them"),
    ("p Space", "hold the picture, and go on"),
    ("q Esc Ctrl-C", "quit"),
    ("refused", "packets and attempts, those between two alerts included"),
    ("open", "connections that began here and run now"),
];

fn popup(frame: &mut Frame<'_>, title: &str, lines: &[(&'static str, Cell)], paint: Paint) {
    let area = frame.area();
    let widest = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let inside = usize::from(area.width.saturating_sub(4));
    let lines: Vec<Line<'_>> = lines
        .iter()
        .map(|(name, cell)| {
            let room = inside.saturating_sub(widest + 2);
            Line::from(vec![
                paint.span(Tone::Faint, format!("{name:widest$}  ")),
                paint.span(Tone::Plain, shorten(cell.text(), room, false)),
            ])
        })
        .collect();
    let width = lines.iter().map(Line::width).max().unwrap_or(0).max(title.len() + TITLE_REST) as u16 + 4;
    let (width, height) = (width.min(area.width), (lines.len() as u16 + 2).min(area.height));
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let block = Block::bordered()
        .title(format!(" {title} (any key closes) "))
        .padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(Paragraph::new(lines).block(block), place);
}
