//! A Rust file as the rules see it: takes its text, gives its lines with comments and strings blanked, and which of
//! them are test code.

/// One line, ready to be searched for words.
pub struct Line {
    /// From 1.
    pub number: usize,
    /// The line without comments and without the inside of strings.
    pub code: String,
    /// Inside an item under `#[cfg(test)]`.
    pub test: bool,
}

/// What the scanner is inside of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Code,
    BlockComment(u32),
    Text,
    RawText(usize),
}

/// The lines of a Rust file.
pub fn lines(text: &str) -> Vec<Line> {
    let mut inside = Inside::Code;
    let mut test = TestItem::default();
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            let code = blank(line, &mut inside);
            let test = test.takes(&code);
            Line { number: index + 1, code, test }
        })
        .collect()
}

/// Whether `word` occurs in the code as a whole identifier.
pub fn has_word(code: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

/// The line with comments removed and strings emptied.
fn blank(line: &str, inside: &mut Inside) -> String {
    let mut code = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let mut taken = first.len_utf8();
        match *inside {
            Inside::BlockComment(depth) => {
                if rest.starts_with("*/") {
                    *inside = if depth == 1 { Inside::Code } else { Inside::BlockComment(depth - 1) };
                    taken = 2;
                } else if rest.starts_with("/*") {
                    *inside = Inside::BlockComment(depth + 1);
                    taken = 2;
                }
            }
            Inside::Text => match first {
                '\\' => taken += rest[1..].chars().next().map_or(0, char::len_utf8),
                '"' => *inside = Inside::Code,
                _ => {}
            },
            Inside::RawText(hashes) => {
                let end = format!("\"{}", "#".repeat(hashes));
                if rest.starts_with(&end) {
                    *inside = Inside::Code;
                    taken = end.len();
                }
            }
            Inside::Code => {
                if rest.starts_with("//") {
                    break;
                } else if rest.starts_with("/*") {
                    *inside = Inside::BlockComment(1);
                    taken = 2;
                } else if let Some(length) = raw_start(rest, &code) {
                    *inside = Inside::RawText(length - 2);
                    taken = length;
                } else if first == '"' {
                    *inside = Inside::Text;
                } else if let Some(length) = character_length(rest) {
                    taken = length;
                } else {
                    code.push(first);
                }
            }
        }
        rest = &rest[taken..];
    }
    code
}

/// The length of `r##"` at the start, if that is what it is.
fn raw_start(rest: &str, before: &str) -> Option<usize> {
    let part_of_word =
        before.chars().next_back().is_some_and(|c| c.is_alphanumeric() && c != 'b' && c != 'c');
    let hashes = rest.strip_prefix('r')?;
    let length = hashes.len() - hashes.trim_start_matches('#').len();
    (!part_of_word && hashes[length..].starts_with('"')).then_some(length + 2)
}

/// The length of a character literal at the start; a lifetime is none.
fn character_length(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    if first == '\\' {
        let escaped = 1 + inner[1..].chars().next()?.len_utf8();
        return inner[escaped..].find('\'').map(|end| 1 + escaped + end + 1);
    }
    inner[first.len_utf8()..].starts_with('\'').then_some(first.len_utf8() + 2)
}

/// Follows the braces of an item under `#[cfg(test)]`.
#[derive(Default)]
struct TestItem {
    announced: bool,
    depth: usize,
}

impl TestItem {
    /// Whether this line belongs to such an item.
    fn takes(&mut self, code: &str) -> bool {
        let was_inside = self.announced || self.depth > 0;
        if self.depth == 0 && (code.contains("#[cfg(test)]") || code.contains("#[cfg(all(test")) {
            self.announced = true;
        }
        if !self.announced && self.depth == 0 {
            return was_inside;
        }
        for character in code.chars() {
            match character {
                '{' => {
                    self.announced = false;
                    self.depth += 1;
                }
                '}' => self.depth = self.depth.saturating_sub(1),
                ';' if self.depth == 0 => self.announced = false,
                _ => {}
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        lines(text).into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        assert_eq!(code("let a = \"x // y\"; // unsafe"), ["let a = ; "]);
        assert_eq!(code("a /* b\nc */ d"), ["a ", " d"]);
        assert_eq!(code("a(\"one\ntwo \\\" three\") b"), ["a(", ") b"]);
        assert_eq!(code("r#\"unsafe \"quoted\" \"#; e"), ["; e"]);
        assert_eq!(code("let q = '\"'; let l: &'a str = f('\\'');"), ["let q = ; let l: &'a str = f();"]);
    }

    #[test]
    fn a_word_is_a_whole_identifier() {
        assert!(has_word("use clap::Parser;", "clap"));
        assert!(!has_word("let overclap_x = 1;", "clap"));
        assert!(!has_word("unsafe_op()", "unsafe"));
    }

    #[test]
    fn test_items_are_marked_from_attribute_to_brace() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {\n  }\n}\nfn c() {}\n#[cfg(test)]\nuse x;\nfn d() {}";
        let marked: Vec<_> = lines(text).iter().filter(|line| line.test).map(|line| line.number).collect();
        assert_eq!(marked, [2, 3, 4, 5, 6, 8, 9]);
    }
}
