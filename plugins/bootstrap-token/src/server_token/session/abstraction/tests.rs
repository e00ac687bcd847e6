mod agents;

use k8s_openapi::jiff::Timestamp;
use node_access::{PasswdFile, ServerTokenFile, StateFile, TokenKey};
use rstest::rstest;
use supervisor::node::TokenSource;
use supervisor::{TokenHash, UnknownReason};

use super::*;
use crate::server_token::report::server::tests::server;
use crate::server_token::rotation::record::RoundRecord;

fn old() -> Fingerprint {
    Fingerprint::of("old")
}

fn new() -> Fingerprint {
    Fingerprint::of("new")
}

fn hash(token: &str) -> TokenHash {
    TokenHash::of(&client::secret::Secret::new(token))
}

fn unknown() -> ProbeResult {
    ProbeResult::Unknown(UnknownReason::Starting)
}

const YES: ProbeResult = ProbeResult::Accepted;
const NO: ProbeResult = ProbeResult::Rejected;

#[rstest]
#[case::old(&[(old(), YES), (new(), NO)], true, Login::Accepts(old()))]
#[case::new(&[(old(), NO), (new(), YES)], true, Login::Accepts(new()))]
#[case::starting_says_nothing(&[(old(), unknown()), (new(), unknown())], true, Login::Unknown)]
#[case::restarted_in_between(&[(old(), YES), (new(), YES)], true, Login::Unknown)]
#[case::old_is_not_proven_to_be_rejected(&[(old(), unknown()), (new(), YES)], true, Login::Unknown)]
#[case::neither(&[(old(), NO), (new(), NO)], true, Login::Another)]
#[case::it_may_accept_the_one_that_is_not_known(&[(old(), NO)], false, Login::Unknown)]
#[case::known_is_enough_where_it_is_accepted(&[(old(), YES)], false, Login::Accepts(old()))]
#[case::not_asked(&[], true, Login::Unknown)]
fn a_login_is_what_every_answer_says(
    #[case] results: &[(Fingerprint, ProbeResult)],
    #[case] all_known: bool,
    #[case] expected: Login,
) {
    assert_eq!(login(results, all_known), expected);
}

/// The clock of a server that answers at once, this many milliseconds ahead, in a second that began `into` milliseconds ago.
fn clock(ahead: i64, into: i64, round_trip: i64) -> ClockReading {
    let at = |millis| Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap();
    let date = (into + ahead).div_euclid(1000) * 1000;
    ClockReading::of(at(date), at(into), at(into + round_trip))
}

#[rstest]
#[case::one_server(&[("s1", clock(0, 0, 10))], Clocks::Close(None))]
#[case::same(&[("s1", clock(0, 100, 10)), ("s2", clock(0, 100, 10))], Clocks::Close(None))]
#[case::almost_a_second(
    &[("s1", clock(900, 500, 10).narrowed(clock(900, 50, 10))), ("s2", clock(0, 500, 10).narrowed(clock(0, 50, 10)))],
    Clocks::Close(Some("s1".to_owned())),
)]
#[case::five_seconds(&[("s1", clock(0, 100, 10)), ("s2", clock(5000, 100, 10))], Clocks::Skewed)]
#[case::behind(&[("s1", clock(-5000, 100, 10)), ("s2", clock(0, 100, 10))], Clocks::Skewed)]
#[case::slow_answers_show_nothing(&[("s1", clock(0, 0, 1500)), ("s2", clock(0, 0, 1500))], Clocks::Unknown)]
#[case::may_be_two_seconds(&[("s1", clock(1800, 300, 10)), ("s2", clock(0, 300, 10))], Clocks::Unknown)]
fn clocks_are_close_only_if_they_cannot_differ_by_two_seconds(
    #[case] clocks: &[(&str, ClockReading)],
    #[case] expected: Clocks,
) {
    let clocks: Vec<(String, ClockReading)> = clocks
        .iter()
        .map(|(name, clock)| ((*name).to_owned(), *clock))
        .collect();
    let clocks: Vec<(&String, ClockReading)> = clocks.iter().map(|(name, clock)| (name, *clock)).collect();
    assert_eq!(compare_clocks(&clocks), expected);
}

fn start(token: &[TokenSource]) -> StartConfiguration {
    StartConfiguration::Read {
        token: token.to_vec(),
        agent_token: Vec::new(),
        has_datastore_endpoint: false,
        has_server: false,
    }
}

fn off() -> EncryptionStatus {
    EncryptionStatus {
        stage: String::new(),
        active_key: String::new(),
        enable: None,
        hash_match: false,
        hash_error: String::new(),
        inactive_keys: None,
    }
}

fn reading() -> ServerReading {
    ServerReading {
        as_server: vec![(old(), YES), (new(), NO)],
        as_node: vec![(old(), YES), (new(), NO)],
        readiness: Some(Ok(())),
        encryption: Some(Ok(off())),
        clock: Some(clock(0, 100, 10)),
        ca_hash: Some("a".repeat(64).parse().unwrap()),
        problem: None,
    }
}

/// Three servers, and everything about them that a test can change.
struct World {
    rotates: RotatedToken,
    nodes: Vec<ClusterNode>,
    readings: BTreeMap<String, ServerReading>,
    node_states: BTreeMap<String, NodeState>,
    snapshots: Vec<SnapshotFile>,
    backup: Option<Record>,
    options: Options,
    memory: Memory,
    has_arrived: bool,
}

impl World {
    fn new() -> Self {
        let names = ["s1", "s2", "s3"];
        Self {
            rotates: RotatedToken::Server,
            nodes: names.map(|name| server(name, &[])).into(),
            readings: names.map(|name| (name.to_owned(), reading())).into(),
            node_states: BTreeMap::new(),
            snapshots: Vec::new(),
            backup: None,
            options: Options::default(),
            memory: Memory {
                is_own: true,
                ..Memory::default()
            },
            has_arrived: false,
        }
    }

    fn reading(&mut self, name: &str) -> &mut ServerReading {
        self.readings.get_mut(name).unwrap()
    }

    fn observed(&self) -> Observed {
        Inputs {
            rotates: self.rotates,
            run: Some("bcdfg"),
            kind: SupervisorKind::K3s,
            given: old(),
            given_new: None,
            nodes: &self.nodes,
            readings: &self.readings,
            node_states: &self.node_states,
            snapshots: &self.snapshots,
            backup: self.backup.as_ref(),
            of_run: &BTreeSet::new(),
            configuration_backups: &BTreeSet::new(),
            has_arrived: self.has_arrived,
            all_known: true,
            is_harvester: false,
            options: &self.options,
            output: &Output::Nowhere,
            memory: &self.memory,
        }
        .observed()
    }
}

/// Three servers that agree.
pub(crate) fn observed() -> Observed {
    World::new().observed()
}

#[test]
fn three_servers_that_agree_are_up_and_safe() {
    let seen = World::new().observed();
    assert!(seen.servers.values().all(|server| server.is_up(Datastore::Etcd)));
    assert_eq!(seen.cluster.datastore, Datastore::Etcd);
    assert_eq!((seen.encryption, seen.members), (Encryption::Safe, Members::Same));
    assert_eq!(seen.cluster.can_change_token, Some(true));
    assert!(!seen.may_be_in_flight && !seen.cluster.is_ca_rotating);
}

#[rstest]
#[case::not_read(|world: &mut World| { world.readings.remove("s2"); })]
#[case::not_ready(|world: &mut World| world.reading("s2").readiness = Some(Err("etcd".to_owned())))]
#[case::readiness_not_asked(|world: &mut World| world.reading("s2").readiness = None)]
#[case::node_not_ready_but_answers(|world: &mut World| world.nodes[1].is_ready = Some(false))]
#[case::node_unknown(|world: &mut World| world.nodes[1].is_ready = None)]
#[case::starting(|world: &mut World| world.reading("s2").as_server[0].1 = unknown())]
fn a_server_is_up_only_if_everything_says_so(#[case] change: fn(&mut World)) {
    let mut world = World::new();
    change(&mut world);
    assert!(!world.observed().servers["s2"].is_up(Datastore::Etcd));
}

#[rstest]
#[case::unasked(|world: &mut World| world.reading("s2").encryption = None, Encryption::Unknown)]
#[case::starting(|world: &mut World| world.reading("s2").encryption = Some(Err("500".to_owned())), Encryption::Unknown)]
#[case::not_read(|world: &mut World| { world.readings.remove("s2"); }, Encryption::Unknown)]
#[case::differs_although_one_is_unasked(
    |world: &mut World| {
        world.reading("s1").encryption = None;
        world.reading("s2").encryption = Some(Ok(EncryptionStatus { stage: "prepare".to_owned(), active_key: "k".to_owned(), ..off() }));
    },
    Encryption::Unsafe("secrets-encryption is in stage \"prepare\" on server s2".to_owned()),
)]
fn the_encryption_is_safe_only_if_every_server_says_so(#[case] change: fn(&mut World), #[case] expected: Encryption) {
    let mut world = World::new();
    change(&mut world);
    assert_eq!(world.observed().encryption, expected);
}

#[test]
fn a_learner_joins_unless_the_run_has_already_given_it_a_token() {
    let mut world = World::new();
    world.nodes[2].etcd_member = EtcdMember::NotVoter;
    let seen = world.observed();
    assert_eq!(seen.joining, BTreeSet::from(["s3".to_owned()]));
    assert_eq!((seen.servers.len(), seen.members), (2, Members::Same));
    world.backup = Some(Record {
        old: old(),
        new: vec![new()],
        is_given: false,
        is_ended: false,
        round: Some(RoundRecord {
            before: old(),
            value: new(),
            order: ["s1", "s2", "s3"].map(str::to_owned).into(),
            mends: false,
            is_complete: true,
        }),
    });
    let seen = world.observed();
    assert!(seen.joining.is_empty() && seen.servers.len() == 3);
    assert_eq!(seen.members, Members::Differ);
}

#[test]
fn an_unknown_member_is_not_a_difference() {
    let mut world = World::new();
    world.nodes[2].etcd_member = EtcdMember::Unknown;
    assert_eq!(world.observed().members, Members::Unknown);
}

#[test]
fn another_process_and_a_write_without_an_answer_leave_writes_in_flight() {
    let mut world = World::new();
    world.memory.is_own = false;
    assert!(world.observed().may_be_in_flight);
    world.memory = Memory {
        is_own: true,
        is_unanswered: true,
        ..Memory::default()
    };
    assert!(world.observed().may_be_in_flight);
}

#[test]
fn servers_with_different_cas_wait_for_restarts() {
    let mut world = World::new();
    world.reading("s2").ca_hash = Some("b".repeat(64).parse().unwrap());
    assert!(world.observed().cluster.is_ca_rotating);
}

#[rstest]
#[case::old(&["v1.24.17+k3s1", "v1.36.3+k3s1", "v1.36.3+k3s1"], Some(false))]
#[case::not_a_version(&["", "v1.36.3+k3s1", "v1.36.3+k3s1"], None)]
fn every_version_has_to_have_the_endpoint(#[case] versions: &[&str], #[case] expected: Option<bool>) {
    let mut world = World::new();
    for (node, version) in world.nodes.iter_mut().zip(versions) {
        (*version).clone_into(&mut node.version);
    }
    assert_eq!(world.observed().cluster.can_change_token, expected);
}

#[test]
fn without_node_access_the_last_start_shows_the_configuration() {
    let mut world = World::new();
    world.nodes[0].start = start(&[TokenSource::FlagOrConfig]);
    world.nodes[1].start = StartConfiguration::Unknown("the node does not show its arguments");
    let configured = |world: &World| {
        world
            .observed()
            .servers
            .values()
            .map(|server| server.configured)
            .collect::<Vec<_>>()
    };
    let expected = [Configured::Token(None), Configured::Unknown, Configured::Nowhere];
    assert_eq!(configured(&world), expected);
    // What the last start has shown is no proof for the next one where the node could be read, and was not.
    world.options.has_node_access = true;
    let expected = [Configured::Token(None), Configured::Unknown, Configured::Unknown];
    assert_eq!(configured(&world), expected);
}

fn state(token: &str, row: Option<&str>) -> NodeState {
    let file = |path: &str| StateFile {
        file: path.to_owned(),
        sha256: String::new(),
        modified: 0,
    };
    let rows = row.map(|row| ("server".to_owned(), Some(hash(row))));
    let backup = ("server".to_owned(), Some(hash("another")));
    NodeState {
        server_token: Some(ServerTokenFile {
            sha256: String::new(),
            modified: 0,
            user: Some("server".to_owned()),
            fingerprint: (!token.is_empty()).then(|| hash(token)),
        }),
        passwd: vec![
            PasswdFile {
                file: file("/var/lib/rancher/k3s/server/cred/passwd.bcdfg.bak"),
                rows: vec![backup],
            },
            PasswdFile {
                file: file("/var/lib/rancher/k3s/server/cred/passwd"),
                rows: rows.into_iter().collect(),
            },
        ],
        ..NodeState::default()
    }
}

#[rstest]
#[case::same(state("old", Some("old")), Files::Hold(old()))]
#[case::killed_in_a_put(state("", Some("new")), Files::Damaged)]
#[case::differ(state("old", Some("new")), Files::Damaged)]
#[case::no_row(state("old", None), Files::Damaged)]
#[case::no_token(NodeState { server_token: None, ..state("old", Some("old")) }, Files::Damaged)]
fn both_files_of_a_server_have_to_agree(#[case] state: NodeState, #[case] expected: Files) {
    let mut world = World::new();
    world.memory.files.insert("s1".to_owned(), Files::Hold(new()));
    world.node_states.insert("s1".to_owned(), state);
    assert_eq!(world.observed().servers["s1"].files, expected);
}

#[test]
fn files_that_a_write_in_flight_may_change_are_unknown() {
    let mut world = World::new();
    world.node_states.insert("s1".to_owned(), state("old", Some("old")));
    world.memory.files.insert("s2".to_owned(), Files::Hold(old()));
    world.memory.is_own = false;
    let files = |world: &World| {
        world
            .observed()
            .servers
            .into_values()
            .map(|server| server.files)
            .collect::<Vec<_>>()
    };
    assert_eq!(files(&world), [Files::Unknown, Files::Unknown, Files::Unknown]);
    world.has_arrived = true;
    assert_eq!(files(&world), [Files::Hold(old()), Files::Hold(old()), Files::Unknown]);
}

#[test]
fn what_a_node_configures_is_what_k3s_obeys() {
    let place = |token: &str, kind, key| TokenPlace {
        kind,
        file: "/etc/rancher/k3s/config.yaml".to_owned(),
        line: 1,
        lines: 1,
        name: "token".to_owned(),
        key,
        fingerprint: Some(hash(token)),
        user: None,
        sha256: String::new(),
        target: None,
        target_sha256: String::new(),
        blocker: None,
    };
    let mut world = World::new();
    let mut state = state("old", Some("old"));
    state.configuration.places = vec![
        place("new", PlaceKind::Env, TokenKey::Token),
        place("old", PlaceKind::Yaml, TokenKey::Token),
    ];
    world.node_states.insert("s1".to_owned(), state.clone());
    assert_eq!(
        world.observed().servers["s1"].configured,
        Configured::Token(Some(old()))
    );
    // That of agents is not a token of servers, and agents do not accept the server token then.
    state.configuration.places = vec![place("agent", PlaceKind::Yaml, TokenKey::AgentToken)];
    world.node_states.insert("s1".to_owned(), state);
    let server = &world.observed().servers["s1"];
    assert_eq!((server.configured, server.as_node), (Configured::Nowhere, None));
}

fn snapshot(server: &str, name: &str, token: Option<&str>, created: &str) -> SnapshotFile {
    SnapshotFile {
        object: name.to_owned(),
        name: format!("{name}-{server}-1"),
        node: server.to_owned(),
        is_ready: true,
        created: created.parse().ok(),
        location: String::new(),
        size: None,
        error: None,
        token_hash: token.map(hash),
    }
}

#[test]
fn snapshots_count_once_every_server_has_one_of_this_run() {
    let first = snapshot_name("bcdfg", SnapshotKind::First);
    let needs = |files: &[SnapshotFile]| {
        let mut world = World::new();
        world.snapshots = files.to_vec();
        world.observed().snapshots.first
    };
    let all = ["s1", "s2", "s3"].map(|server| snapshot(server, &first, Some("old"), "2026-01-01T00:00:00Z"));
    assert_eq!(needs(&all), Some(Needs::Token(old())));
    assert_eq!(needs(&all[..2]), None);
    let of_another_run = snapshot("s3", &snapshot_name("bcdfh", SnapshotKind::First), Some("old"), "");
    assert_eq!(needs(&[all[0].clone(), all[1].clone(), of_another_run]), None);
    let not_ready = SnapshotFile {
        is_ready: false,
        ..all[2].clone()
    };
    assert_eq!(needs(&[all[0].clone(), all[1].clone(), not_ready]), None);
    for other in [Some("new"), None] {
        let other = snapshot("s3", &first, other, "2026-01-02T00:00:00Z");
        // The newest one of a server counts.
        let files = [all[0].clone(), all[1].clone(), all[2].clone(), other];
        assert_eq!(needs(&files), Some(Needs::Unknown));
    }
}

#[test]
fn a_snapshot_to_check_files_says_nothing_after_a_write() {
    let mut world = World::new();
    world.memory.files = ["s1", "s2", "s3"]
        .map(|name| (name.to_owned(), Files::Hold(old())))
        .into();
    let checking = snapshot_name("bcdfg", SnapshotKind::Checking);
    world.snapshots = vec![snapshot("s1", &checking, Some("old"), "")];
    assert_eq!(world.observed().all_hold(old()), Some(true));
    world.memory.forget_files();
    let seen = world.observed();
    assert_eq!((seen.all_hold(old()), seen.snapshots.has_checking), (None, true));
}

#[rstest]
#[case::still_up(&[], None, true)]
#[case::away(&["away"], None, true)]
#[case::away_and_back(&["away", "up"], None, false)]
#[case::too_short_to_be_seen(&["up"], Some(new()), false)]
fn a_restart_is_over_once_it_was_seen(
    #[case] looks: &[&str],
    #[case] accepts: Option<Fingerprint>,
    #[case] goes_on: bool,
) {
    let mut world = World::new();
    let restarting = Restarting {
        accepted: Login::Accepts(old()),
        was_configured: false,
        as_node: None,
        was_away: false,
        was_silent: false,
    };
    world.memory.restarting.insert("s2".to_owned(), restarting);
    let mut seen = world.observed();
    world.memory.follow_restarts(&mut seen, RotatedToken::Server);
    assert!(seen.servers["s2"].is_restarting);
    for look in looks {
        let mut world_of_look = World::new();
        match (*look, accepts) {
            ("away", _) => world_of_look.reading("s2").readiness = Some(Err("503".to_owned())),
            (_, Some(value)) if value == new() => {
                world_of_look.reading("s2").as_server = vec![(old(), NO), (new(), YES)];
            }
            _ => {}
        }
        seen = world_of_look.observed();
        world.memory.follow_restarts(&mut seen, RotatedToken::Server);
    }
    assert_eq!(seen.servers["s2"].is_restarting, goes_on);
    assert_eq!(world.memory.restarting.contains_key("s2"), goes_on);
}

#[test]
fn an_operator_who_has_removed_the_token_has_restarted_the_server() {
    let mut world = World::new();
    let restarting = Restarting {
        accepted: Login::Accepts(old()),
        was_configured: true,
        as_node: None,
        was_away: false,
        was_silent: false,
    };
    world.memory.restarting.insert("s2".to_owned(), restarting);
    world.nodes[1].start = start(&[TokenSource::Environment]);
    let mut seen = world.observed();
    world.memory.follow_restarts(&mut seen, RotatedToken::Server);
    assert!(seen.servers["s2"].is_restarting);
    world.nodes[1].start = start(&[]);
    let mut seen = world.observed();
    world.memory.follow_restarts(&mut seen, RotatedToken::Server);
    assert!(!seen.servers["s2"].is_restarting);
}

#[rstest]
#[case::etcd(true, false, 3, Datastore::Etcd)]
#[case::sqlite(false, false, 1, Datastore::Sqlite)]
#[case::a_database(false, true, 1, Datastore::External)]
#[case::several_without_etcd(false, false, 2, Datastore::External)]
fn the_datastore_follows_from_the_nodes(
    #[case] is_etcd: bool,
    #[case] has_datastore_endpoint: bool,
    #[case] count: usize,
    #[case] expected: Datastore,
) {
    let mut nodes: Vec<ClusterNode> = (0..count).map(|at| server(&format!("s{at}"), &[])).collect();
    for node in &mut nodes {
        node.is_etcd = is_etcd;
        if let StartConfiguration::Read {
            has_datastore_endpoint: endpoint,
            ..
        } = &mut node.start
        {
            *endpoint = has_datastore_endpoint;
        }
    }
    assert_eq!(datastore(&nodes), expected);
}
