//! Help texts, as a person reads them, and what the exit codes promise.

use clap::CommandFactory;

use super::args::Arguments;

#[test]
fn the_arguments_hold_together() {
    Arguments::command().debug_assert();
}

// Every command's long help, so that a change of one is seen in review.
#[test]
fn help_texts() {
    let mut texts = Vec::new();
    collect(Arguments::command().term_width(100), "dnswall".to_owned(), &mut texts);
    insta::assert_snapshot!(texts.join("\n\n"));
}

fn collect(mut command: clap::Command, name: String, texts: &mut Vec<String>) {
    command = command.bin_name(&name);
    command.build();
    let help = command.render_long_help();
    texts.push(format!("$ {name} --help\n{help}"));
    let inner: Vec<clap::Command> =
        command.get_subcommands().filter(|c| c.get_name() != "help" && !c.is_hide_set()).cloned().collect();
    for inner in inner {
        let name = format!("{name} {}", inner.get_name());
        collect(inner.term_width(100), name, texts);
    }
}
