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
fn data_goes_to_stdout_and_talk_to_stderr() {
    let (ui, captured) = ui(PIPE, "");
    ui.out("data").unwrap();
    ui.status("talk");
    ui.warn("care");
    ui.warn("care");
    ui.hint("try");
    assert_eq!(captured.out(), "data\n");
    assert_eq!(captured.err(), "talk\nWarning: care\nhint: try\n");
}

#[test]
fn the_terminal_of_the_reader_is_not_steered_by_a_message() {
    let (ui, captured) = ui(PIPE, "");
    ui.error(&Error::failed("bad \u{1b}[2J name"));
    assert_eq!(captured.err(), "error: bad ^[[2J name\n");
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
async fn a_question_takes_a_whole_line_and_means_no_by_default() {
    for (input, expected) in [
        ("y\n", true),
        ("YES\n", true),
        ("\n", false),
        ("n\n", false),
        ("yo\n", false),
        ("", false),
    ] {
        let (ui, captured) = ui(SCREEN, input);
        assert_eq!(
            ui.confirm("2 tokens change.", false).await.unwrap(),
            expected,
            "{input:?}"
        );
        assert!(
            captured
                .err()
                .starts_with("2 tokens change.\nDo you want to continue? (y/N): ")
        );
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

#[tokio::test]
async fn ctrl_c_ends_a_question_that_nobody_answers() {
    struct Never;
    impl io::Read for Never {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            std::thread::park();
            Ok(0)
        }
    }
    let captured = Captured::default();
    let ui = Ui::new(
        Box::new(captured.out.clone()),
        Box::new(captured.err.clone()),
        Box::new(io::BufReader::new(Never)),
        SCREEN,
        UiFlags::default(),
    );
    ui.interrupt().cancel();
    let error = ui.confirm("", false).await.unwrap_err();
    assert_eq!(error.kind, client::error::Kind::Interrupted);
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

#[test]
fn a_secret_is_read_from_stdin_without_its_line_end() {
    assert_eq!(ui(PIPE, "abc\r\n").0.read_secret().unwrap().expose(), "abc");
    assert_eq!(
        ui(PIPE, "\n").0.read_secret().unwrap_err().kind,
        client::error::Kind::Usage
    );
}
