//! Takes cells, gives lines: columns side by side, as wide as what is in them or fitted to the width of a terminal. Every table of
//! the commands is laid out here.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::event::text::printable;

/// Between two columns.
const GAP: usize = 2;
/// Bytes of a cell that are shown.
const CELL_BYTES_MAX: usize = 1_024;

/// How a cell looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As everything does.
    #[default]
    Plain,
    /// Good.
    Good,
    /// Worth a look.
    Warn,
    /// Bad.
    Bad,
    /// Headings and names.
    Strong,
    /// What is only there for completeness.
    Faint,
}

/// One place in a table. Whatever it was made of, it controls no terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Of text that anybody may have chosen.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self { text: printable(text.as_ref().as_bytes(), CELL_BYTES_MAX), tone: Tone::Plain }
    }

    /// The same or, when there is nothing, a dash.
    pub fn of(text: Option<impl AsRef<str>>) -> Self {
        text.map_or_else(|| Self::new("-").tone(Tone::Faint), Self::new)
    }

    /// In this tone.
    #[must_use]
    pub fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    /// What is in it.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    right: bool,
    keeps_end: bool,
    /// How narrow it may be made, and its rank: the highest is needed least. One of no width is left out.
    shrinks: Option<(usize, u8)>,
}

impl Column {
    /// Text, never shortened.
    pub const fn text(title: &'static str) -> Self {
        Self { title, right: false, keeps_end: false, shrinks: None }
    }

    /// A number.
    pub const fn number(title: &'static str) -> Self {
        Self { right: true, ..Self::text(title) }
    }

    /// It may be made as narrow as `least`, and the narrower the higher its `rank`.
    #[must_use]
    pub const fn shrinks_to(self, least: usize, rank: u8) -> Self {
        Self { shrinks: Some((least, rank)), ..self }
    }

    /// It may be left out, the sooner the higher its `rank`.
    #[must_use]
    pub const fn may_go(self, rank: u8) -> Self {
        Self { shrinks: Some((0, rank)), ..self }
    }

    /// Its end says more than its beginning.
    #[must_use]
    pub const fn keeps_end(self) -> Self {
        Self { keeps_end: true, ..self }
    }
}

/// The columns of one table, and how wide they are.
#[derive(Clone, Debug)]
pub struct Columns {
    columns: Vec<Column>,
    /// What is in them.
    natural: Vec<usize>,
    /// What they get.
    widths: Vec<usize>,
    available: Option<usize>,
}

impl Columns {
    /// As wide as their headings; together no wider than `available`, as far as they may be shortened.
    pub fn new(columns: &[Column], available: Option<usize>) -> Self {
        let natural: Vec<usize> = columns.iter().map(|column| column.title.width()).collect();
        let mut new = Self { columns: columns.to_vec(), widths: natural.clone(), natural, available };
        new.fit();
        new
    }

    /// Makes room for these rows.
    pub fn grow<'r>(&mut self, rows: impl IntoIterator<Item = &'r [Cell]>) {
        for row in rows {
            for (natural, cell) in self.natural.iter_mut().zip(row) {
                *natural = (*natural).max(cell.text.width());
            }
        }
        self.fit();
    }

    /// Makes each at least this wide, for rows that are yet to come.
    pub fn grow_to(&mut self, least: &[usize]) {
        for (natural, least) in self.natural.iter_mut().zip(least) {
            *natural = (*natural).max(*least);
        }
        self.fit();
    }

    /// The headings as a row.
    pub fn heading(&self) -> Vec<Cell> {
        self.columns.iter().map(|column| Cell::new(column.title)).collect()
    }

    /// A row, shortened and padded: pieces that make one line. Nothing is behind the last one's text.
    pub fn pieces(&self, row: &[Cell]) -> Vec<(String, Tone)> {
        let is_shown = |at: usize| self.widths.get(at).is_some_and(|width| *width > 0) || at == 0;
        let last = (0..row.len()).rev().find(|at| is_shown(*at) && !row[*at].text.is_empty()).unwrap_or(0);
        let cells = row.iter().zip(&self.columns).zip(&self.widths).enumerate();
        let cells = cells.filter(|(at, _)| *at <= last && is_shown(*at));
        let pieces = cells.map(|(at, ((cell, column), width))| {
            let text = shorten(&cell.text, *width, column.keeps_end);
            let blank = " ".repeat(width.saturating_sub(text.width()));
            let gap = " ".repeat(GAP);
            let text = match (column.right, at == last) {
                (true, true) => format!("{blank}{text}"),
                (true, false) => format!("{blank}{text}{gap}"),
                (false, true) => text,
                (false, false) => format!("{text}{blank}{gap}"),
            };
            (text, cell.tone)
        });
        pieces.collect()
    }

    /// Shortens columns until all have room, each time the one that is wide and needed little.
    fn fit(&mut self) {
        self.widths.clone_from(&self.natural);
        let Some(available) = self.available else { return };
        let whole = |widths: &[usize]| {
            let shown = widths.iter().filter(|width| **width > 0).count();
            widths.iter().sum::<usize>() + GAP * shown.saturating_sub(1)
        };
        while whole(&self.widths) > available {
            let can = |(at, column): (usize, &Column)| {
                let (least, rank) = column.shrinks?;
                let width = self.widths[at];
                let weight = if least == 0 { GOES_BELOW } else { width } + RANK * usize::from(rank);
                (width > least).then_some((weight, at, least))
            };
            let Some((_, at, least)) = self.columns.iter().enumerate().filter_map(can).max() else { return };
            self.widths[at] = if least == 0 { 0 } else { self.widths[at] - 1 };
        }
    }
}

/// A column that is needed one rank less is made this much narrower.
const RANK: usize = 6;
/// Columns are left out when the others of their rank are this narrow.
const GOES_BELOW: usize = 16;

/// A text that is no wider than `width`: what is missing at its end or beginning is an ellipsis.
pub fn shorten(text: &str, width: usize, keeps_end: bool) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let Some(room) = width.checked_sub(1) else { return String::new() };
    let mut used = 0;
    let mut fits = |character: &char| {
        used += character.width().unwrap_or(0);
        used <= room
    };
    if keeps_end {
        let kept: Vec<char> = text.chars().rev().take_while(|character| fits(character)).collect();
        let kept: String = kept.into_iter().rev().collect();
        // Whole directories, where there are some.
        let whole = kept.find('/').map_or(kept.as_str(), |slash| &kept[slash..]);
        format!("…{whole}")
    } else {
        let kept: String = text.chars().take_while(|character| fits(character)).collect();
        format!("{kept}…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::text("time"),
        Column::number("count"),
        Column::text("process").keeps_end().shrinks_to(6, 2),
        Column::text("name").shrinks_to(8, 1),
    ];

    fn lines(available: Option<usize>, rows: &[[&str; 4]]) -> Vec<String> {
        let rows: Vec<Vec<Cell>> = rows.iter().map(|row| row.iter().map(Cell::new).collect()).collect();
        let mut columns = Columns::new(&COLUMNS, available);
        columns.grow(rows.iter().map(Vec::as_slice));
        let line = |row: &Vec<Cell>| columns.pieces(row).into_iter().map(|it| it.0).collect::<String>();
        std::iter::once(columns.heading()).chain(rows).map(|row| line(&row)).collect()
    }

    const ROWS: [[&str; 4]; 2] =
        [["12:00", "7", "/usr/bin/python3.11", "a.example.com"], ["12:00", "123456", "sh", ""]];

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        assert_eq!(
            lines(None, &ROWS),
            [
                "time    count  process              name",
                "12:00       7  /usr/bin/python3.11  a.example.com",
                "12:00  123456  sh",
            ]
        );
    }

    #[test]
    fn what_is_wide_and_needed_least_is_shortened_first() {
        assert_eq!(lines(Some(40), &ROWS)[1], "12:00       7  …ython3.11  a.example.com");
        assert_eq!(lines(Some(34), &ROWS)[1], "12:00       7  …n3.11  a.example.…");
        assert_eq!(lines(Some(32), &ROWS)[1], "12:00       7  …n3.11  a.exampl…");
        // No narrower than they may be.
        assert_eq!(lines(Some(3), &ROWS)[1], "12:00       7  …n3.11  a.examp…");
    }

    #[test]
    fn what_may_go_takes_its_gap_with_it() {
        let columns = [Column::text("a"), Column::text("long heading").may_go(1), Column::number("b")];
        let row = ["1", "2", "3"].map(Cell::new);
        let line = |available| {
            let columns = Columns::new(&columns, Some(available));
            columns.pieces(&row).into_iter().map(|it| it.0).collect::<String>()
        };
        assert_eq!((line(18).as_str(), line(17).as_str()), ("1  2             3", "1  3"));
    }

    #[test]
    fn wide_characters_take_their_room_and_are_not_cut_in_half() {
        assert_eq!(shorten("名名名", 6, false), "名名名");
        assert_eq!(shorten("名名名", 5, false), "名名…");
        assert_eq!(shorten("名名名", 4, true), "…名");
        assert_eq!(shorten("abc", 0, true), "");
        assert_eq!(shorten("/usr/local/bin/x", 12, true), "…/bin/x");
    }

    #[test]
    fn no_cell_controls_a_terminal() {
        assert_eq!(Cell::new("a\x1b[2J\u{202e}b").text(), "a\\x1b[2J\\u{202e}b");
    }
}
