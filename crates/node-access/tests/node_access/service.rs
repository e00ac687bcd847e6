//! What is done with the service.

use std::time::{Duration, Instant};

use node_access::{NodeProblem, ServiceAction};
use rstest::rstest;

use crate::machine::{Machine, target};

#[rstest]
#[case(ServiceAction::Restart, "systemctl --no-block restart k3s.service")]
#[case(ServiceAction::Start, "systemctl --no-block start k3s.service")]
#[case(ServiceAction::Stop, "systemctl stop k3s.service")]
#[case(ServiceAction::Reload, "systemctl daemon-reload")]
#[tokio::test]
async fn systemd_is_called_without_waiting(#[case] action: ServiceAction, #[case] expected: &str) {
    let machine = Machine::new();
    machine.access().service(&target(), action).await.unwrap();
    assert_eq!(machine.calls().lines().last(), Some(expected));
}

#[tokio::test]
async fn a_server_is_started_once() {
    let machine = Machine::new();
    let access = machine.access();
    access.service(&target(), ServiceAction::StartOnce).await.unwrap();
    let drop_in = "/run/systemd/system/k3s.service.d/90-kubectl-rotation.conf";
    assert_eq!(machine.text(drop_in), "[Service]\nRestart=no\n");
    assert!(
        machine
            .calls()
            .ends_with("systemctl daemon-reload\nsystemctl --no-block start k3s.service\n")
    );
    access.service(&target(), ServiceAction::EndOnce).await.unwrap();
    assert!(!machine.path(drop_in).exists());
    assert!(machine.calls().ends_with("systemctl daemon-reload\n"));
}

#[tokio::test]
async fn a_command_of_the_user_is_handed_over() {
    let mut machine = Machine::new();
    machine.options.restart_command = Some(
        "echo it\\'s \"$0\" >>$KUBECTL_ROTATION_ROOT/calls; sleep 6; echo done >>$KUBECTL_ROTATION_ROOT/calls".into(),
    );
    let start = Instant::now();
    machine
        .access()
        .service(&target(), ServiceAction::Restart)
        .await
        .unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "it does not wait for the command"
    );
    let wait = async {
        while !machine.calls().ends_with("done\n") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // The end of the script does not end it.
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
    assert!(machine.calls().contains("it's sh\n"), "{}", machine.calls());

    machine.options.restart_command = Some("exit 7".into());
    let error = machine
        .access()
        .service(&target(), ServiceAction::Restart)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot restart the service on node s1 (--node-exec): restart of the service failed with exit code 7"
    );
}

#[tokio::test]
async fn openrc_and_an_unknown_service() {
    let machine = Machine::new();
    std::fs::remove_dir_all(machine.path("/run/systemd")).unwrap();
    let error = machine
        .access()
        .service(&target(), ServiceAction::Restart)
        .await
        .unwrap_err();
    assert!(matches!(error.problem, NodeProblem::Refused(_)), "{error}");
    machine.program(
        "rc-service",
        "#!/bin/sh\necho \"rc-service $*\" >>\"$KUBECTL_ROTATION_ROOT/calls\"\n",
    );
    machine.write("/etc/init.d/k3s", "");
    machine
        .access()
        .service(&target(), ServiceAction::Restart)
        .await
        .unwrap();
    assert_eq!(machine.calls(), "rc-service k3s restart\n");
}

#[rstest]
#[case::timeout(true)]
#[case::no_timeout(false)]
#[tokio::test]
async fn a_service_manager_that_hangs_is_ended_on_the_node(#[case] has_timeout: bool) {
    let mut machine = Machine::new();
    machine.timeout = Duration::from_secs(4);
    if !has_timeout {
        machine.program("timeout", "#!/bin/sh\nexit 1\n");
    }
    machine.options.stop_command = Some("echo $$ >$KUBECTL_ROTATION_ROOT/pid; exec sleep 60".into());
    let error = machine
        .access()
        .service(&target(), ServiceAction::Stop)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("the service manager does not return in time"),
        "{error}"
    );
    let pid = machine.text("/pid");
    assert!(
        !std::path::Path::new(&format!("/proc/{}", pid.trim())).exists(),
        "it still runs"
    );
}
