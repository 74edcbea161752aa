//! One announced command: takes what to run, prints it, runs it, and says what failed.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Says what is about to happen, or what was found.
pub fn say(words: &str) {
    if io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        eprintln!("\x1b[1;36m==>\x1b[0m {words}");
    } else {
        eprintln!("==> {words}");
    }
}

/// Runs the command with this terminal's output and no input; an end that is not success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs the command with this terminal's output and no input, and gives back how it ended.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    say(&shown(command));
    command.stdin(Stdio::null()).status().with_context(|| format!("run `{}`", shown(command)))
}

/// The command as one would type it: the variables set for it, the program, the arguments.
pub fn shown(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value
            && name != "PATH"
        {
            // Writing to a String cannot fail.
            let _ = write!(line, "{}={} ", name.display(), quoted(&value.to_string_lossy()));
        }
    }
    line.push_str(&quoted(&command.get_program().to_string_lossy()));
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&quoted(&argument.to_string_lossy()));
    }
    line
}

/// The word as a shell would need it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let escaped = word.replace('\x1f', " ").replace('\'', r"'\''");
    format!("'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("cargo");
        command.args(["nextest", "run", "-E", "binary(e2e) & test(it's)"]).env("A", "x y");
        assert_eq!(shown(&command), r"A='x y' cargo nextest run -E 'binary(e2e) & test(it'\''s)'");
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = run(&mut Command::new("false")).expect_err("false fails");
        assert!(error.to_string().contains("`false` failed"), "{error}");
        let error = run(&mut Command::new("/does/not/exist")).expect_err("nothing there");
        assert!(format!("{error:#}").contains("run `/does/not/exist`"), "{error:#}");
    }
}
