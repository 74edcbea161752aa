//! Takes keys and pictures, keeps what somebody looks at and how.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::history::{History, Seen};
use super::sheet::{Row, View};
use crate::control::api::Picture;

/// Characters of a filter.
const FILTER_MAX: usize = 64;

/// What somebody looks at.
#[derive(Debug)]
pub struct State {
    history: History,
    /// The last picture, or that which is held.
    pub seen: Seen,
    /// The latest, while another one is held.
    waiting: Option<Seen>,
    /// What is looked at.
    pub view: View,
    sorts: [Sort; View::ALL.len()],
    /// What rows must have in them.
    pub filter: String,
    /// A filter is being typed.
    pub is_typing: bool,
    /// The picture is held.
    pub is_paused: bool,
    /// The keys are shown.
    pub shows_help: bool,
    /// A row is shown whole.
    pub shows_row: bool,
    /// The row that is chosen, and where it was when it was last seen.
    chosen: Option<(String, usize)>,
    /// The first row on the screen, and how many rows there is room for.
    pub first: usize,
    /// See [`Self::first`].
    pub room: usize,
    /// Why there is no newer picture.
    pub gone: Option<String>,
}

/// How a view is sorted.
#[derive(Clone, Copy, Debug, Default)]
struct Sort {
    by: usize,
    reversed: bool,
}

/// What a key asks for beyond what is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// To end.
    Quit,
    /// To stop until it is continued.
    Suspend,
}

impl State {
    /// With the first picture.
    pub fn new(picture: Picture) -> Self {
        let mut history = History::default();
        let seen = history.see(picture);
        Self {
            history,
            seen,
            waiting: None,
            view: View::Workloads,
            sorts: Default::default(),
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            shows_help: false,
            shows_row: false,
            chosen: None,
            first: 0,
            room: 0,
            gone: None,
        }
    }

    /// Takes the next picture.
    pub fn see(&mut self, picture: Picture) {
        self.gone = None;
        let seen = self.history.see(picture);
        if self.is_paused {
            self.waiting = Some(seen);
        } else {
            self.seen = seen;
        }
    }

    /// There is none.
    pub fn miss(&mut self, why: String) {
        self.gone = Some(why);
    }

    /// The rows that are looked at.
    pub fn rows(&self) -> Vec<Row> {
        let Sort { by, reversed } = self.sorts[self.view as usize];
        self.view.rows(&self.seen, by, reversed, &self.filter)
    }

    /// The column they are sorted by, and whether from its other end.
    pub fn sort(&self) -> (usize, bool) {
        let Sort { by, reversed } = self.sorts[self.view as usize];
        (self.view.sorts()[by], reversed)
    }

    /// Where the chosen row is.
    pub fn chosen(&self, rows: &[Row]) -> usize {
        let Some((id, was)) = &self.chosen else { return 0 };
        let found = rows.iter().position(|row| row.id == *id);
        found.unwrap_or(*was).min(rows.len().saturating_sub(1))
    }

    /// Takes a key.
    pub fn press(&mut self, key: KeyEvent) -> Asked {
        if key.kind == KeyEventKind::Release {
            return Asked::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c' | 'd') => Asked::Quit,
                KeyCode::Char('z') => Asked::Suspend,
                _ => Asked::Nothing,
            };
        }
        if self.is_typing {
            self.write(key.code);
            return Asked::Nothing;
        }
        if (self.shows_help || self.shows_row) && key.code != KeyCode::Char('q') {
            (self.shows_help, self.shows_row) = (false, false);
            return Asked::Nothing;
        }
        match key.code {
            // What was filtered comes back first.
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Char('q') | KeyCode::Esc => return Asked::Quit,
            KeyCode::Char('?' | 'h') => self.shows_help = true,
            KeyCode::Char('p' | ' ') => self.pause(),
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('s') => {
                let sort = &mut self.sorts[self.view as usize];
                *sort = Sort { by: (sort.by + 1) % self.view.sorts().len(), reversed: false };
            }
            KeyCode::Char('r') => {
                let sort = &mut self.sorts[self.view as usize];
                sort.reversed = !sort.reversed;
            }
            KeyCode::Char(digit @ '1'..='4') => self.look_at(digit as usize - '1' as usize),
            KeyCode::Tab | KeyCode::Right => self.look_at(self.view as usize + 1),
            KeyCode::BackTab | KeyCode::Left => self.look_at(self.view as usize + View::ALL.len() - 1),
            KeyCode::Enter => self.shows_row = !self.rows().is_empty(),
            code => self.choose(code),
        }
        Asked::Nothing
    }

    fn look_at(&mut self, view: usize) {
        self.view = View::ALL[view % View::ALL.len()];
        (self.chosen, self.first) = (None, 0);
    }

    fn pause(&mut self) {
        self.is_paused = !self.is_paused;
        if !self.is_paused
            && let Some(seen) = self.waiting.take()
        {
            self.seen = seen;
        }
    }

    fn write(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(character)
                if !character.is_control() && self.filter.chars().count() < FILTER_MAX =>
            {
                self.filter.push(character);
            }
            _ => {}
        }
        (self.chosen, self.first) = (None, 0);
    }

    fn choose(&mut self, code: KeyCode) {
        let rows = self.rows();
        let (at, page) = (self.chosen(&rows), self.room.max(2) - 1);
        let last = rows.len().saturating_sub(1);
        let at = match code {
            KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => at + 1,
            KeyCode::PageUp => at.saturating_sub(page),
            KeyCode::PageDown => at + page,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => last,
            _ => return,
        }
        .min(last);
        self.chosen = rows.get(at).map(|row| (row.id.clone(), at));
    }
}
