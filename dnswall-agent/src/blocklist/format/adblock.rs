//! Adblock's rules, as far as they are about names: `||name^`, `@@||name^`, `|name^`, and hosts lines among them.

use super::{Entry, Meaning, Rubbish, hosts, name};

/// Reads a line.
pub fn read(line: &str, emit: &mut dyn FnMut(Entry<'_>)) -> Result<(), Rubbish> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('!') || (line.starts_with('[') && line.ends_with(']')) {
        return Ok(());
    }
    // Rules for the inside of pages.
    if ["##", "#@#", "#?#", "#$#", "#%#", "$$"].iter().any(|mark| line.contains(mark)) {
        return Err(Rubbish::Unsupported);
    }
    if line.starts_with('#') {
        return Ok(());
    }
    if line.starts_with(|c: char| c.is_ascii_digit() || c == ':') && line.contains([' ', '\t']) {
        return hosts::read(line, emit);
    }
    let (is_exception, rule) = match line.strip_prefix("@@") {
        Some(rule) => (true, rule),
        None => (false, line),
    };
    let (rule, modifiers) = rule.split_once('$').unwrap_or((rule, ""));
    // `important` decides between rules of the same list; exceptions of a name's own decide here. Every other modifier
    // narrows a rule to what is not known here.
    if !modifiers.is_empty() && modifiers.split(',').any(|modifier| modifier != "important") {
        return Err(Rubbish::Unsupported);
    }
    let (meaning, rest) = match (rule.strip_prefix("||"), rule.strip_prefix('|')) {
        (Some(rest), _) => (Meaning::Subtree, rest),
        (None, Some(rest)) => (Meaning::Exact, rest),
        (None, None) => (Meaning::Exact, rule),
    };
    let rest = rest.strip_suffix('|').unwrap_or(rest);
    let rest = rest.strip_suffix('^').unwrap_or(rest);
    let (meaning, rest) = match rest.strip_prefix("*.") {
        Some(rest) => (Meaning::Below, rest),
        None => (meaning, rest),
    };
    // Regular expressions, parts of names, addresses with a path.
    if rest.contains(['/', '*', '^', '|', ':']) {
        return Err(Rubbish::Unsupported);
    }
    emit(Entry { name: name(rest)?, meaning, is_exception });
    Ok(())
}
