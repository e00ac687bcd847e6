//! Edits of files: what they change, what they keep, and when they are refused.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use client::error::Error as UserError;
use client::secret::Secret;
use node_access::{NodeProblem, TokenPlace};
use rstest::rstest;

use crate::machine::{CONFIG, ENV, Machine, PASSWD, PASSWORD, TOKEN, UNIT, shells, target};

const NEW: &str = "0123456789abcdef-new";

async fn place(machine: &Machine) -> TokenPlace {
    machine.read().await.configuration.places.remove(0)
}

/// The files beside a file that do not belong to K3s.
fn beside(machine: &Machine, path: &str) -> Vec<String> {
    let path = machine.path(path);
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".abcde.")).collect()
}

#[rstest]
#[case::middle(
    "a: b\ntoken: old # mine\nc: d\n",
    "a: b\nc: d\n",
    "a: b\ntoken: \"NEW\" # mine\nc: d\n"
)]
#[case::first("token:   'old'\nc: d\n", "c: d\n", "token:   \"NEW\"\nc: d\n")]
#[case::no_line_end("a: b\ntoken: old", "a: b\n", "a: b\ntoken: \"NEW\"\n")]
#[case::only("\"token\": old", "", "\"token\": \"NEW\"\n")]
#[case::windows(
    "a: b\r\ntoken: old\r\nc: d\r\n",
    "a: b\r\nc: d\r\n",
    "a: b\r\ntoken: \"NEW\"\r\nc: d\r\n"
)]
#[tokio::test]
async fn yaml_is_edited_and_restored_byte_for_byte(#[case] before: &str, #[case] removed: &str, #[case] set: &str) {
    for shell in shells() {
        edit_and_restore(&Machine::with_shell(shell), before, removed, set).await;
    }
}

async fn edit_and_restore(machine: &Machine, before: &str, removed: &str, set: &str) {
    let (access, node) = (machine.access(), target());
    machine.write(CONFIG, before);
    let found = place(machine).await;
    let edited = access.remove(&node, &found).await.unwrap();
    assert_eq!(machine.text(CONFIG), removed);
    assert_eq!(edited.sha256, machine.sha256(CONFIG));
    assert_eq!(beside(machine, CONFIG), ["config.yaml.abcde.bak"]);
    let mode = fs::metadata(machine.path(&format!("{CONFIG}.abcde.bak")))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);

    assert_eq!(machine.read().await.backups, [CONFIG]);

    access.restore(&node, &found, &edited.sha256).await.unwrap();
    assert_eq!(machine.text(CONFIG), before);

    access.set(&node, &found, &Secret::new(NEW), false).await.unwrap();
    assert_eq!(machine.text(CONFIG), set.replace("NEW", NEW));
    access.forget(&node, &[CONFIG]).await.unwrap();
    assert_eq!(beside(machine, CONFIG), Vec::<String>::new());
    assert_eq!(machine.read().await.backups, Vec::<String>::new());
}

#[tokio::test]
async fn a_removed_token_can_be_set_to_another_value() {
    let machine = Machine::new();
    machine.write(CONFIG, "a: b\ntoken: old");
    let mut found = place(&machine).await;
    found.sha256 = machine.access().remove(&target(), &found).await.unwrap().sha256;
    machine
        .access()
        .set(&target(), &found, &Secret::new(NEW), true)
        .await
        .unwrap();
    assert_eq!(machine.text(CONFIG), format!("a: b\ntoken: \"{NEW}\"\n"));
}

#[tokio::test]
async fn variables_and_arguments_are_edited() {
    let machine = Machine::new();
    machine.show("k3s server --token old --x", "", ENV);
    let unit = "ExecStart=k3s \\\n    server \\\n\t'--token' \\\n\t'old' \\\n\t'--x' \\\n\nRestart=always\n";
    machine.write(UNIT, unit);
    machine.write(ENV, "A=b\nexport K3S_TOKEN=\"old\"\n");
    let places = machine.read().await.configuration.places;
    let access = machine.access();
    for found in &places {
        access.set(&target(), found, &Secret::new(NEW), false).await.unwrap();
    }
    assert_eq!(machine.text(ENV), format!("A=b\nexport K3S_TOKEN='{NEW}'\n"));
    assert_eq!(machine.text(UNIT), unit.replace("'old'", &format!("'{NEW}'")));
    assert!(machine.calls().contains("systemctl daemon-reload"));
    assert_eq!(machine.read().await.backups, [UNIT, ENV]);
    machine.show(&format!("k3s server --token {NEW} --x"), "", ENV);
    let found = place(&machine).await;
    access.remove(&target(), &found).await.unwrap();
    assert_eq!(
        machine.text(UNIT),
        "ExecStart=k3s \\\n    server \\\n\t'--x' \\\n\nRestart=always\n"
    );
}

#[rstest]
#[case("ExecStart=k3s server --token old\n")]
#[case("ExecStart=k3s \\\n\t'--token' \\\n\t'old'\nRestart=always\n")]
#[case("ExecStart=k3s \\\n\t'--token' \\\n\t'other' \\\n\n")]
#[case("ExecStart=k3s \\\n\t'--token' \\\n\t'old' \\\n\t'--token' \\\n\t'old' \\\n\n")]
#[tokio::test]
async fn arguments_of_another_form_are_refused(#[case] unit: &str) {
    let machine = Machine::new();
    machine.show("k3s server --token old", "", "");
    machine.write(UNIT, unit);
    let found = place(&machine).await;
    let error = machine.access().remove(&target(), &found).await.unwrap_err();
    assert!(matches!(error.problem, NodeProblem::Blocked { .. }) && error.problem.is_harmless());
    assert_eq!(
        UserError::from(error).hints,
        [
            "remove --token in the arguments of the service by hand, and run systemctl daemon-reload; then repeat the command"
        ]
    );
    assert_eq!(machine.text(UNIT), unit);
}

#[tokio::test]
async fn the_file_behind_a_link_is_edited_with_its_mode_and_owner() {
    let machine = Machine::new();
    machine.write("/srv/real.yaml", "token: old\na: b\n");
    let real = machine.path("/srv/real.yaml");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    // Only root can give a file away.
    let owner =
        std::os::unix::fs::chown(&real, Some(1234), Some(1234)).map_or(fs::metadata(&real).unwrap().uid(), |()| 1234);
    symlink(&real, machine.path(CONFIG)).unwrap();
    let found = place(&machine).await;
    machine.access().remove(&target(), &found).await.unwrap();
    assert!(fs::symlink_metadata(machine.path(CONFIG)).unwrap().is_symlink());
    let metadata = fs::metadata(&real).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o7777, metadata.uid()), (0o640, owner));
    assert_eq!(machine.text("/srv/real.yaml"), "a: b\n");
    assert_eq!(beside(&machine, "/srv/real.yaml"), ["real.yaml.abcde.bak"]);
}

#[tokio::test]
async fn a_file_that_has_changed_is_not_edited() {
    let machine = Machine::new();
    machine.write(CONFIG, "token: old\n");
    let found = place(&machine).await;
    machine.write(CONFIG, "token: theirs\n");
    let error = machine.access().remove(&target(), &found).await.unwrap_err();
    assert!(matches!(error.problem, NodeProblem::Changed { .. }) && error.problem.is_harmless());
    assert_eq!(machine.text(CONFIG), "token: theirs\n");
    assert_eq!(beside(&machine, CONFIG), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_that_changes_during_the_edit_is_not_replaced() {
    let machine = Machine::with_shell("sh");
    machine.write(CONFIG, "token: old\n");
    let found = place(&machine).await;
    // The new file is being written when another program replaces the old one.
    machine.program(
        "sync",
        "#!/bin/sh\ncase $1 in *.new) echo 'token: theirs' >\"$KUBECTL_ROTATION_ROOT/etc/rancher/k3s/config.yaml\" ;; esac\n",
    );
    let error = machine.access().remove(&target(), &found).await.unwrap_err();
    assert!(matches!(error.problem, NodeProblem::Changed { .. }), "{error}");
    assert_eq!(machine.text(CONFIG), "token: theirs\n");
    assert_eq!(beside(&machine, CONFIG), ["config.yaml.abcde.bak"]);
}

#[rstest]
#[case::before("exit 0")]
#[case::after("/bin/mv \"$@\"")]
#[tokio::test]
async fn a_kill_at_the_rename_leaves_one_whole_version(#[case] rename: &str) {
    let machine = Machine::with_shell("sh");
    machine.write(CONFIG, "token: old\na: b\n");
    let found = place(&machine).await;
    // The backup is renamed too, and is let through.
    let mv = format!("#!/bin/sh\ncase $3 in *.bak) exec /bin/mv \"$@\" ;; esac\nkill -9 $PPID\n{rename}\n");
    machine.program("mv", &mv);
    let error = machine.access().remove(&target(), &found).await.unwrap_err();
    assert!(!error.problem.is_harmless(), "{error}");
    fs::remove_file(machine.path("/bin/mv")).unwrap();

    // The same edit again does the rest; after the rename it finds a changed file, and its backup is the first version.
    let repeated = machine.access().remove(&target(), &found).await;
    if rename == "exit 0" {
        repeated.unwrap();
    } else {
        assert!(matches!(repeated.unwrap_err().problem, NodeProblem::Changed { .. }));
    }
    assert_eq!(machine.text(CONFIG), "a: b\n");
    assert_eq!(machine.text(&format!("{CONFIG}.abcde.bak")), "token: old\na: b\n");
    machine
        .access()
        .restore(&target(), &found, &machine.sha256(CONFIG))
        .await
        .unwrap();
    machine.access().forget(&target(), &[CONFIG]).await.unwrap();
    assert_eq!(machine.text(CONFIG), "token: old\na: b\n");
    assert_eq!(beside(&machine, CONFIG), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_system_that_cannot_be_written_is_an_error() {
    let machine = Machine::with_shell("sh");
    machine.write(CONFIG, "token: old\n");
    let found = place(&machine).await;
    machine.program("cp", "#!/bin/sh\necho 'Read-only file system' >&2\nexit 1\n");
    let error = machine.access().remove(&target(), &found).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot edit token in {CONFIG}, line 1 on node s1 (--node-exec): {CONFIG}: the backup cannot be written"
        )
    );
    assert_eq!(machine.text(CONFIG), "token: old\n");
}

#[rstest]
#[case::flock(true)]
#[case::directory(false)]
#[tokio::test]
async fn two_edits_do_not_run_at_once(#[case] has_flock: bool) {
    let machine = Machine::with_shell("sh");
    machine.write(CONFIG, "token: old\n");
    let found = place(&machine).await;
    let lock = machine.path("/run/kubectl-rotation.lock");
    let held = if has_flock {
        let file = fs::File::create(&lock).unwrap();
        file.lock().unwrap();
        Some(file)
    } else {
        without(&machine, "flock");
        fs::create_dir(lock.with_extension("lock.d")).unwrap();
        fs::write(
            lock.with_extension("lock.d").join("pid"),
            std::process::id().to_string(),
        )
        .unwrap();
        None
    };
    let error = machine.access().remove(&target(), &found).await.unwrap_err();
    assert!(matches!(error.problem, NodeProblem::Locked), "{error}");
    drop(held);
    if !has_flock {
        // That of a process that has ended is removed.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        fs::write(lock.with_extension("lock.d").join("pid"), child.id().to_string()).unwrap();
    }
    machine.access().remove(&target(), &found).await.unwrap();
    assert!(!lock.with_extension("lock.d").exists());
}

/// Hides a program from the scripts: their PATH has only links to the others.
fn without(machine: &Machine, hidden: &str) {
    let root = machine.root().display();
    for directory in ["/usr/bin", "/bin", "/usr/sbin", "/sbin"] {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let entry = entry.unwrap();
            let link = machine.root().join("bin").join(entry.file_name());
            if entry.file_name() != hidden && fs::symlink_metadata(&link).is_err() {
                symlink(entry.path(), link).unwrap();
            }
        }
    }
    // The prelude appends the usual directories.
    let prefix = "#!/bin/sh\nexport KUBECTL_ROTATION_ROOT=";
    let script = format!("{prefix}'{root}' PATH='{root}/bin'\nshift\nsed 's|^PATH=.*||' | \"$@\"\n");
    machine.program("login", &script);
}

#[rstest]
#[case("")]
#[case("-x")]
#[case("a b")]
#[case("a\"b")]
#[case("a$b")]
#[case("a%b")]
#[case("a\nb")]
#[tokio::test]
async fn a_value_that_needs_quotes_is_not_written(#[case] value: &str) {
    let machine = Machine::new();
    machine.write(CONFIG, "token: old\n");
    let found = place(&machine).await;
    let error = machine
        .access()
        .set(&target(), &found, &Secret::new(value), false)
        .await
        .unwrap_err();
    assert!(matches!(error.problem, NodeProblem::Refused(_)));
    assert_eq!(machine.text(CONFIG), "token: old\n");
}

#[tokio::test]
async fn a_token_file_is_written_and_its_line_is_removed() {
    let machine = Machine::new();
    machine.write(CONFIG, "token-file: /etc/token\n");
    machine.write("/etc/token", "old");
    let found = place(&machine).await;
    machine
        .access()
        .set(&target(), &found, &Secret::new(NEW), false)
        .await
        .unwrap();
    assert_eq!(machine.text("/etc/token"), format!("{NEW}\n"));
    machine.access().remove(&target(), &found).await.unwrap();
    assert_eq!(
        (machine.text(CONFIG).as_str(), machine.path("/etc/token").exists()),
        ("", true)
    );
}

#[tokio::test]
async fn server_token_keeps_its_hash_and_an_empty_one_gets_it() {
    let machine = Machine::new();
    let (access, node, new) = (machine.access(), target(), Secret::new(NEW));
    let before = machine.text(TOKEN);
    access
        .write_token(&node, &machine.sha256(TOKEN), &new, None)
        .await
        .unwrap();
    assert_eq!(machine.text(TOKEN), before.replace(PASSWORD, NEW));
    machine.write(TOKEN, "");
    let hash = "7cc358aa45100f42d57b76e9b235253bfc6fc830b3e45858d2bc473657aae3f7";
    let ca_hash = hash.parse().unwrap();
    let edited = access
        .write_token(&node, &machine.sha256(TOKEN), &new, Some(&ca_hash))
        .await
        .unwrap();
    assert_eq!(machine.text(TOKEN), format!("K10{hash}::server:{NEW}\n"));
    assert_eq!(edited.sha256, machine.sha256(TOKEN));
    assert_eq!(machine.text(&format!("{TOKEN}.abcde.bak")), before);
    // A start needs it, so a file that is missing is written too.
    std::fs::remove_file(machine.path(TOKEN)).unwrap();
    let error = access.write_token(&node, &edited.sha256, &new, None).await.unwrap_err();
    assert!(matches!(error.problem, NodeProblem::Missing(_)), "{error}");
    access.write_token(&node, "", &new, Some(&ca_hash)).await.unwrap();
    assert_eq!(machine.text(TOKEN), format!("K10{hash}::server:{NEW}\n"));
    let mode = std::fs::metadata(machine.path(TOKEN)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    // Where it is there again, it is another file than the one that was read.
    let error = access.write_token(&node, "", &new, None).await.unwrap_err();
    assert!(matches!(error.problem, NodeProblem::Changed { .. }), "{error}");
}

#[tokio::test]
async fn only_the_passwd_that_was_read_is_deleted() {
    let machine = Machine::new();
    let (access, node, read) = (machine.access(), target(), machine.sha256(PASSWD));
    let text = machine.text(PASSWD);
    machine.write(PASSWD, "x,node,node,k3s:agent\n");
    let error = access.remove_passwd(&node, &read).await.unwrap_err();
    assert!(matches!(error.problem, NodeProblem::Changed { .. }));
    machine.write(PASSWD, &text);
    access.remove_passwd(&node, &read).await.unwrap();
    assert!(!machine.path(PASSWD).exists() && machine.path(TOKEN).exists());
    assert_eq!(machine.text(&format!("{PASSWD}.abcde.bak")), text);
    // The backup is one of the candidates for the password.
    assert_eq!(machine.read().await.passwd[0].rows.len(), 2);
}

const DROP_IN: &str = "/etc/rancher/k3s/config.yaml.d/90-agent-token.yaml";

#[tokio::test]
async fn an_agent_token_that_is_configured_nowhere_gets_a_file_of_its_own() {
    for shell in shells() {
        let machine = Machine::with_shell(shell);
        fs::remove_dir(machine.path("/etc/rancher/k3s/config.yaml.d")).unwrap();
        let (access, node) = (machine.access(), target());
        let place = machine.read().await.configuration.new_agent_token();
        let edited = access.set(&node, &place, &Secret::new(NEW), false).await.unwrap();
        assert_eq!(edited.file, DROP_IN);
        assert_eq!(machine.text(DROP_IN), format!("agent-token: \"{NEW}\"\n"));
        let mode = fs::metadata(machine.path(DROP_IN)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);

        let read = machine.read().await;
        assert_eq!(read.backups, [DROP_IN]);
        let found = read.configuration.effective(true).unwrap().clone();
        assert_eq!((found.file.as_str(), found.line), (DROP_IN, 1));
        // A second run finds the file.
        access.restore(&node, &found, &edited.sha256).await.unwrap();
        assert_eq!(machine.text(DROP_IN), "");
        let place = machine.read().await.configuration.new_agent_token();
        access.set(&node, &place, &Secret::new(NEW), false).await.unwrap();
        let read = machine.read().await.configuration;
        access.remove(&node, read.effective(true).unwrap()).await.unwrap();
        access.forget(&node, &[DROP_IN]).await.unwrap();
        assert!(!machine.path(DROP_IN).exists(), "an empty file is left");
    }
}

#[tokio::test]
async fn the_backup_of_a_token_file_is_known() {
    let machine = Machine::new();
    machine.write(CONFIG, "agent-token-file: /etc/agent-token\n");
    machine.write("/etc/agent-token", "old\n");
    let found = place(&machine).await;
    let edited = machine
        .access()
        .set(&target(), &found, &Secret::new(NEW), false)
        .await
        .unwrap();
    assert_eq!(edited.file, "/etc/agent-token");
    assert_eq!(machine.read().await.backups, ["/etc/agent-token"]);
}
