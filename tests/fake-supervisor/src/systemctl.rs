//! `systemctl` for the one unit of a node.

use anyhow::Result;
use serde_json::{Value, json};

use crate::unit::{Active, UnitHandle};

struct Output {
    stdout: String,
    stderr: String,
    code: u8,
}

impl Output {
    fn ok(stdout: impl Into<String>) -> Self {
        Self {
            stdout: stdout.into(),
            stderr: String::new(),
            code: 0,
        }
    }

    fn failed(code: u8, stderr: impl Into<String>) -> Self {
        Self {
            stdout: String::new(),
            stderr: stderr.into(),
            code,
        }
    }
}

/// Runs it with these arguments.
pub(crate) async fn run(unit: &UnitHandle, arguments: &[String]) -> Result<Value> {
    let Output { stdout, stderr, code } = run_parsed(unit, arguments).await?;
    Ok(json!({"stdout": stdout, "stderr": stderr, "code": code}))
}

async fn run_parsed(unit: &UnitHandle, arguments: &[String]) -> Result<Output> {
    let (mut block, mut only_value, mut quiet) = (true, false, false);
    let (mut properties, mut words) = (Vec::new(), Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--no-block" => block = false,
            "--value" => only_value = true,
            "-q" | "--quiet" => quiet = true,
            "-p" | "--property" => properties.extend(rest.next()),
            option => match option.strip_prefix("--property=").or_else(|| option.strip_prefix("-p")) {
                Some(_) => properties.push(argument),
                None if option.starts_with('-') => {}
                None => words.push(option),
            },
        }
    }
    let name = unit.node.unit();
    let properties: Vec<&str> = properties
        .iter()
        .flat_map(|list| {
            list.trim_start_matches("--property=")
                .trim_start_matches("-p")
                .split(',')
        })
        .collect();
    let (Some(&verb), operands) = (words.first(), words.get(1..).unwrap_or_default()) else {
        return Ok(Output::failed(1, "no command given\n"));
    };
    if verb == "daemon-reload" {
        unit.reload()?;
        return Ok(Output::ok(""));
    }
    let found = operands
        .iter()
        .all(|operand| operand.trim_end_matches(".service") == name);
    if operands.is_empty() || !found {
        let operand = operands
            .first()
            .copied()
            .unwrap_or_default()
            .trim_end_matches(".service");
        return Ok(match verb {
            "show" => Output::ok(format!(
                "LoadState=not-found\nActiveState=inactive\nId={operand}.service\n"
            )),
            "is-active" => Output {
                code: 4,
                ..Output::ok("inactive\n")
            },
            _ => Output::failed(5, format!("Unit {operand}.service not found.\n")),
        });
    }
    let job_failed = || {
        let text = format!(
            "Job for {name}.service failed because the control process exited with error code.\n\
             See \"systemctl status {name}.service\" and \"journalctl -xeu {name}.service\" for details.\n"
        );
        Output::failed(1, text)
    };
    Ok(match verb {
        "start" if unit.start(block).await => Output::ok(""),
        "restart" if unit.restart(block).await => Output::ok(""),
        "start" | "restart" => job_failed(),
        "stop" => {
            unit.stop(block).await;
            Output::ok("")
        }
        "is-active" => {
            let active = unit.state().active;
            let text = if quiet {
                String::new()
            } else {
                format!("{}\n", word(active))
            };
            let code = if active == Active::Active { 0 } else { 3 };
            Output {
                code,
                ..Output::ok(text)
            }
        }
        "show" => Output::ok(show(unit, &properties, only_value)),
        "cat" => {
            let path = unit.node.unit_file();
            Output::ok(format!("# {}\n{}", path.display(), std::fs::read_to_string(&path)?))
        }
        verb => Output::failed(1, format!("Unknown command verb '{verb}'.\n")),
    })
}

fn word(active: Active) -> String {
    json!(active).as_str().unwrap_or_default().to_owned()
}

fn show(unit: &UnitHandle, properties: &[&str], only_value: bool) -> String {
    let (state, loaded) = (unit.state(), unit.loaded());
    let program = loaded.command.first().cloned().unwrap_or_default();
    let environment: Vec<String> = loaded
        .environment
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let files: Vec<String> = loaded
        .environment_files
        .iter()
        .map(|(path, optional)| {
            let ignore = if *optional { "yes" } else { "no" };
            format!("EnvironmentFiles={} (ignore_errors={ignore})", path.display())
        })
        .collect();
    let stale = crate::settings::Unit::load(&unit.node).is_ok_and(|file| file != loaded);
    let drop_ins: Vec<String> = unit
        .node
        .drop_ins()
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let mut lines = vec![
        format!("Id={}.service", unit.node.unit()),
        "LoadState=loaded".to_owned(),
        format!("ActiveState={}", word(state.active)),
        format!("SubState={}", state.sub),
        format!("MainPID={}", state.pid.unwrap_or(0)),
        format!("NRestarts={}", state.restarts),
        "Type=notify".to_owned(),
        format!("FragmentPath={}", unit.node.unit_file().display()),
        format!("DropInPaths={}", drop_ins.join(" ")),
        format!("NeedDaemonReload={}", if stale { "yes" } else { "no" }),
        format!("Environment={}", environment.join(" ")),
        format!(
            "ExecStart={{ path={program} ; argv[]={} ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid={} ; \
             code=(null) ; status=0/0 }}",
            loaded.command.join(" "),
            state.pid.unwrap_or(0)
        ),
    ];
    lines.extend(files);
    lines
        .iter()
        .filter(|line| {
            let name = line.split('=').next().unwrap_or_default();
            properties.is_empty() || properties.contains(&name)
        })
        .map(|line| match line.split_once('=') {
            Some((_, value)) if only_value => format!("{value}\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}
