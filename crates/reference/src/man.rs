//! The man pages of a plugin, one for each command.

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::{Paragraph, paragraphs, subcommands};

/// The file name and the text of each page.
pub(crate) fn pages(root: &Command) -> Result<Vec<(String, String)>> {
    let mut root = root.clone().disable_help_subcommand(true);
    root.build();
    let source = format!("{} {}", root.get_name(), root.get_version().unwrap_or_default());
    let mut pages = vec![page(root.clone(), &source, None)?];
    for command in subcommands(&root) {
        // The page of the plugin lists them.
        let command = command.clone().mut_args(|flag| {
            let is_global = flag.is_global_set();
            flag.hide(is_global)
        });
        pages.push(page(command, &source, Some(root.get_name()))?);
    }
    Ok(pages)
}

/// `plugin`: the page that has the options of all commands.
fn page(command: Command, source: &str, plugin: Option<&str>) -> Result<(String, String)> {
    let mut more = Roff::default();
    if let Some(after) = command.get_after_help() {
        append(&mut more, &after.to_string());
    }
    if let Some(plugin) = plugin {
        more.control("SH", ["SEE ALSO"]);
        more.text([bold(plugin), roman("(1) lists the options of all commands.")]);
    }
    let has_subcommands = command.has_subcommands();
    let man = Man::new(command).source(source).manual("kubectl plugins");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_subcommands {
        man.render_subcommands_section(&mut page)?;
    }
    more.to_writer(&mut page)?;
    // Each part begins with the same definitions.
    let preamble = Roff::default().render();
    let text = preamble.clone() + &String::from_utf8(page)?.replace(&preamble, "");
    Ok((man.get_filename(), text))
}

/// Examples keep their lines.
fn append(page: &mut Roff, after_help: &str) {
    let mut section = String::new();
    for paragraph in paragraphs(after_help) {
        match paragraph {
            Paragraph::Prose(text) => {
                let title = text.strip_suffix(':').map(str::to_uppercase);
                let is_title = title.is_some();
                let title = title.unwrap_or_else(|| "NOTES".to_owned());
                if section != title {
                    page.control("SH", [title.as_str()]);
                } else if !is_title {
                    page.control("PP", []);
                }
                section = title;
                if !is_title {
                    page.text([roman(text)]);
                }
            }
            Paragraph::Code(text) => {
                page.control("nf", []);
                for line in text.split('\n') {
                    page.text([roman(line)]);
                }
                page.control("fi", []);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_command_s_own_flags_and_its_examples() {
        let global = clap::Arg::new("context")
            .long("context")
            .global(true)
            .help("The context to use");
        let rotate = Command::new("rotate")
            .about("Rotate a token")
            .arg(
                clap::Arg::new("all")
                    .long("all")
                    .action(clap::ArgAction::SetTrue)
                    .help("All of them"),
            )
            .after_help("Examples:\n  # One\n  kubectl demo rotate a\n\nIt can't be undone.\n\nIt can be resumed.");
        let root = Command::new("kubectl-demo")
            .bin_name("kubectl demo")
            .version("1.0")
            .arg(global);
        let nested = Command::new("server").subcommand(Command::new("restart").arg(clap::Arg::new("now").long("now")));
        let pages = pages(&root.subcommand(rotate).subcommand(nested)).unwrap();
        let files: Vec<&str> = pages.iter().map(|(file, _)| file.as_str()).collect();
        let expected = [
            "kubectl-demo.1",
            "kubectl-demo-rotate.1",
            "kubectl-demo-server.1",
            "kubectl-demo-server-restart.1",
        ];
        assert_eq!(files, expected);
        assert!(
            pages[3].1.contains(r"\-\-now") && !pages[3].1.contains("context"),
            "{}",
            pages[3].1
        );
        assert!(pages[0].1.contains(r"\-\-context"), "{}", pages[0].1);
        insta::assert_snapshot!(pages[1].1, @r#"
        .ie \n(.g .ds Aq \(aq
        .el .ds Aq '
        .TH kubectl-demo-rotate 1  "kubectl-demo 1.0" "kubectl plugins"
        .SH NAME
        kubectl\-demo\-rotate \- Rotate a token
        .SH SYNOPSIS
        \fBkubectl demo rotate\fR [\fB\-\-all\fR] [\fB\-h\fR|\fB\-\-help\fR] 
        .SH DESCRIPTION
        Rotate a token
        .SH OPTIONS
        .TP
        \fB\-\-all\fR
        All of them
        .TP
        \fB\-h\fR, \fB\-\-help\fR
        Print help
        .SH EXAMPLES
        .nf
        # One
        kubectl demo rotate a
        .fi
        .SH NOTES
        It can\*(Aqt be undone.
        .PP
        It can be resumed.
        .SH "SEE ALSO"
        \fBkubectl\-demo\fR(1) lists the options of all commands.
        "#);
    }
}
