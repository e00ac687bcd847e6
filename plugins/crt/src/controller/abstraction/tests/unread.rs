//! Without permissions on the downstream cluster nothing of it is known, and nothing of it is guessed.

use super::*;

/// Rancher has applied O, and the agent cannot be looked at.
fn unread() -> Snapshot {
    Snapshot {
        deployment: Err(Unread::Forbidden(Error::failed("no"))),
        pods: Vec::new(),
        credentials: Vec::new(),
        stv: None,
        pushes: Some(Address::of(Some(URL), None)),
        ..snapshot_with(token_secret("O", None))
    }
}

#[test]
fn nothing_is_known_of_an_agent_that_cannot_be_read() {
    let seen = observed(&unread(), None);
    assert_eq!(seen.access, DownstreamAccess::None);
    assert_eq!((seen.deployed, seen.connected, seen.held), (None, None, false));
    assert!(seen.pods.is_empty() && seen.credentials.is_empty() && seen.leftovers.is_empty());
    // An address that is not known never counts as another one.
    assert_eq!(seen.pushes, None);
    // Any value may be in use.
    assert!(seen.is_in_use(print("X")));
    assert_eq!(observed(&snapshot(), None).access, DownstreamAccess::Full);
}

#[test]
fn the_token_that_rancher_applied_last_is_probed_instead_of_that_of_the_agent() {
    let mut snapshot = unread();
    let probed = |snapshot: &Snapshot| values_to_probe(&observed(snapshot, None), None, &BTreeMap::new()).0;
    assert_eq!(probed(&snapshot), prints(&["O"]));
    snapshot.cluster.applied_token = Some(print("A"));
    assert_eq!(probed(&snapshot), prints(&["A"]));
    snapshot.cluster.applied_token = None;
    assert_eq!(probed(&snapshot), prints(&["O"]), "that of `system`");
    // Where the agent can be read, Rancher's record says nothing of it.
    snapshot.deployment = Ok(deployment("O"));
    snapshot.deployment.as_mut().unwrap().volume_secret = None;
    assert_eq!(probed(&snapshot), [].into());
}

/// A run that began without permissions has recorded no name of the Secret with O. With permissions, the name follows from the formula.
#[test]
fn a_run_without_a_recorded_secret_finds_it_by_its_name() {
    let mut run = run();
    run.record.old_secret = String::new();
    for snapshot in [unread(), snapshot()] {
        let names = snapshot.names(Some(&run), URL);
        assert_eq!(names.of(print("O")), Some(credentials("O").object.name.as_str()));
    }
}
