//! Where secrets go: both tokens are planted, and every process on the node records its arguments and its environment.

use std::collections::BTreeSet;

use client::secret::Secret;
use node_access::ServiceAction;

use crate::machine::{CONFIG, ENV, Machine, PASSWD, PASSWORD, TOKEN, shells, target, which};

const NEW: &str = "next-token-of-tests";
/// One that is only in `cred/passwd`.
const LOGIN: &str = "login-of-tests";

const PROGRAMS: [&str; 24] = [
    "od",
    "tr",
    "cat",
    "cp",
    "mv",
    "rm",
    "sync",
    "readlink",
    "stat",
    "head",
    "tail",
    "sha256sum",
    "date",
    "sleep",
    "id",
    "chmod",
    "hostname",
    "flock",
    "timeout",
    "mkdir",
    "rmdir",
    "setsid",
    "uname",
    "chcon",
];

#[tokio::test]
async fn no_token_is_in_an_argument_an_environment_a_message_or_another_file() {
    // The programs are the system's, so that they can be recorded.
    for shell in shells().filter(|shell| *shell != "busybox") {
        find_leaks(&Machine::with_shell(shell)).await;
    }
}

async fn find_leaks(machine: &Machine) {
    let root = machine.root().display().to_string();
    let record = |program: &str| -> Option<String> {
        let path = which(program)?;
        let (tr, cat) = (which("tr")?, which("cat")?);
        Some(format!(
            "#!/bin/sh\n{{ {tr} '\\0' ' ' </proc/$$/cmdline; echo; {cat} /proc/$$/environ; echo; }} >>{root}/recorded\nexec {} \"$@\"\n",
            path.display(),
            tr = tr.display(),
            cat = cat.display()
        ))
    };
    for program in PROGRAMS {
        if let Some(text) = record(program) {
            machine.program(program, &text);
        }
    }
    // A login may have exported variables with the names of ours: here each word of the scripts.
    let scripts = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/script")).unwrap();
    let texts: String = scripts
        .map(|script| std::fs::read_to_string(script.unwrap().path()).unwrap())
        .collect();
    let words = texts.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    let names: BTreeSet<&str> = words.filter(|word| !word.is_empty()).collect();
    assert!(names.contains("secret") && names.contains("known"));
    let exports = names
        .iter()
        .map(|name| format!("export {name}=x\n"))
        .collect::<Vec<_>>()
        .concat();
    let login = std::fs::read_to_string(machine.path("/bin/login")).unwrap();
    machine.program("login", &login.replacen("shift", &format!("{exports}shift"), 1));

    machine.show(
        &format!("k3s server --token {PASSWORD}"),
        &format!("K3S_AGENT_TOKEN={PASSWORD}"),
        ENV,
    );
    machine.write(
        CONFIG,
        &format!("token: {PASSWORD} # {PASSWORD}\nagent-token: 'x{PASSWORD}'\n"),
    );
    machine.write(ENV, &format!("K3S_TOKEN='{PASSWORD}'\n"));
    machine.write(
        "/log",
        &format!("level=fatal msg={PASSWORD}\nlevel=fatal msg={LOGIN}\n"),
    );
    machine.write(PASSWD, &format!("{LOGIN},server,server,k3s:server\n"));
    let (access, node, new) = (machine.access(), target(), Secret::new(NEW));
    let state = machine.read().await;
    let mut messages = vec![format!("{state:?}")];
    let yaml = state
        .configuration
        .places
        .iter()
        .find(|place| place.file == CONFIG)
        .unwrap();
    let edited = access.set(&node, yaml, &new, false).await.unwrap();
    messages.push(format!("{:?}", access.remove(&node, yaml).await.unwrap_err()));
    messages.push(format!(
        "{:?}",
        access.restore(&node, yaml, &edited.sha256).await.unwrap()
    ));
    let written = access
        .write_token(&node, &machine.sha256(TOKEN), &new, None)
        .await
        .unwrap();
    messages.push(format!(
        "{:?}",
        access.write_token(&node, "0", &new, None).await.unwrap_err()
    ));
    messages.push(format!("{written:?} {:?}", access.read_token(&node).await.unwrap()));
    access.remove_passwd(&node, &machine.sha256(PASSWD)).await.unwrap();
    access.service(&node, ServiceAction::Stop).await.unwrap();
    access.forget(&node, &[CONFIG, TOKEN, PASSWD]).await.unwrap();

    let recorded = machine.text("/recorded");
    assert!(
        recorded.contains("sha256sum") && recorded.contains("KUBECTL_ROTATION_ROOT"),
        "nothing was recorded"
    );
    for (what, text) in [("a process", &recorded), ("a message", &messages.join("\n"))] {
        for token in [PASSWORD, NEW, LOGIN] {
            let line = text.lines().find(|line| line.contains(token));
            assert_eq!(line, None, "{what} has a token");
        }
    }
    let mut files = Vec::new();
    let mut directories = vec![machine.root().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else if std::fs::read(entry.path()).is_ok_and(|text| String::from_utf8_lossy(&text).contains(NEW)) {
                files.push(entry.path());
            }
        }
    }
    assert_eq!(files, [machine.path(TOKEN)]);
}
