//! One name a line, with what is below it.

use super::{Entry, Meaning, Rubbish, name};

/// Reads a line: a name, perhaps behind `*.` or `.`, which lists of this kind write for the same, and a comment.
pub fn read(line: &str, emit: &mut dyn FnMut(Entry<'_>)) -> Result<(), Rubbish> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', '!', ';']) || line.starts_with("//") {
        return Ok(());
    }
    let (text, rest) = line.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((line, ""));
    let rest = rest.trim_start();
    if !rest.is_empty() && !rest.starts_with(['#', ';', '!']) {
        return Err(Rubbish::Unsupported);
    }
    if text.contains("://") || text.contains('/') {
        return Err(Rubbish::Unsupported);
    }
    let text = text.strip_prefix("*.").or_else(|| text.strip_prefix('.')).unwrap_or(text);
    emit(Entry { name: name(text)?, meaning: Meaning::Subtree, is_exception: false });
    Ok(())
}
