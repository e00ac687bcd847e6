use super::*;

const PIPE: Terminal = Terminal {
    stdin: false,
    stdout: false,
    stderr: false,
    plain: false,
    utf8: true,
};
const SCREEN: Terminal = Terminal {
    stdin: true,
    stdout: true,
    stderr: true,
    plain: false,
    utf8: true,
};

fn ui(terminal: Terminal, input: &str) -> (Ui, Captured) {
    Ui::buffered(terminal, UiFlags::default(), input)
}

#[test]
fn data_goes_to_stdout_and_messages_to_stderr() {
    let (ui, captured) = ui(PIPE, "");
    ui.out("data");
    ui.status("message");
    ui.warn("care");
    ui.warn("care");
    ui.hint("try");
    assert_eq!(captured.out(), "data\n");
    assert_eq!(captured.err(), "message\nWarning: care\nhint: try\n");
}

#[test]
fn messages_cannot_control_the_terminal() {
    let (ui, captured) = ui(PIPE, "");
    ui.error(&Error::failed("bad \u{1b}[2J name"));
    assert_eq!(captured.err(), "error: bad ^[[2J name\n");
}

#[test]
fn a_message_is_one_line_without_credentials_and_data_cannot_control_the_terminal() {
    let (ui, captured) = ui(PIPE, "");
    ui.hint("`kubectl x a\nerror: forged`");
    ui.error(&Error::failed("cluster \"abcdef.0123456789abcdef\" not found"));
    ui.out("one\ntwo\u{1b}[2J");
    ui.write_out("one\ntwo\u{9b}2J\n");
    assert_eq!(
        captured.err(),
        "hint: `kubectl x a^Jerror: forged`\nerror: cluster \"<hidden>\" not found\n"
    );
    assert_eq!(captured.out(), "one^Jtwo^[[2J\none\ntwo\\u{9b}2J\n");
}

#[test]
fn colour_follows_the_terminal_and_the_flag() {
    for (terminal, choice, colored) in [
        (SCREEN, ColorChoice::Auto, true),
        (Terminal { plain: true, ..SCREEN }, ColorChoice::Auto, false),
        (PIPE, ColorChoice::Auto, false),
        (PIPE, ColorChoice::Always, true),
        (SCREEN, ColorChoice::Never, false),
    ] {
        let flags = UiFlags {
            color: choice,
            ..UiFlags::default()
        };
        let (ui, _) = Ui::buffered(terminal, flags, "");
        assert_eq!(ui.colored(Stream::Out), colored, "{terminal:?} {choice:?}");
    }
}

#[tokio::test]
async fn without_a_terminal_a_change_needs_yes() {
    let (ui, captured) = ui(PIPE, "y\n");
    let error = ui.confirm("", false).await.unwrap_err();
    assert_eq!(error.kind, client::error::Kind::Failed);
    assert!(error.hints[0].contains("--yes"), "{error:?}");
    assert!(ui.confirm("", true).await.unwrap());
    assert_eq!(captured.err(), "");
}

#[test]
fn in_a_pipe_each_change_of_a_step_is_one_line() {
    let (ui, captured) = ui(Terminal { utf8: false, ..PIPE }, "");
    let progress = ui.progress();
    let mut step = progress.start("place", "point the agent at the new Secret");
    step.waiting("1 of 2 pods");
    step.waiting("1 of 2 pods");
    step.waiting("2 of 2 pods");
    step.done("");
    progress.start("prove", "ask the server").failed("refused");
    drop(progress.start("retire", "remove the old token"));
    assert_eq!(
        captured.err(),
        "- place    point the agent at the new Secret\n  place    waiting: 1 of 2 pods\n  place    waiting: 2 of 2 pods\n\
         + place    point the agent at the new Secret\n- prove    ask the server\nx prove    ask the server: refused\n\
         - retire   remove the old token\n! retire   remove the old token\n"
    );
}

#[tokio::test]
async fn read_secret_drops_the_line_end_of_stdin() {
    assert_eq!(ui(PIPE, "abc\r\n").0.read_secret().await.unwrap().expose(), "abc");
    assert_eq!(
        ui(PIPE, "\n").0.read_secret().await.unwrap_err().kind,
        client::error::Kind::Usage
    );
}
