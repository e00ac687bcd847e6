use cli::table::{Look, Table};

use super::*;

fn token(name: &str, value: Result<Secret, ValueError>) -> RegistrationToken {
    RegistrationToken {
        object: Observed {
            namespace: "c-x7k2p".into(),
            name: name.into(),
            uid: "u".into(),
            resource_version: "1".into(),
        },
        labels: [].into(),
        annotations: [].into(),
        created: "2026-11-20T09:00:00Z".parse().ok(),
        deleting: false,
        managed_by: None,
        value,
        secret: None,
        secret_name: Some(format!("crt-token-{name}")),
        status_expires_at: "2026-12-20T09:00:00Z".parse().ok(),
        status_grace_ends_at: None,
        problems: Vec::new(),
    }
}

fn rows(rotation: Option<&ClusterRotation>) -> Vec<Row> {
    let value = Secret::new("throw-away");
    let cluster = ClusterInputs {
        agent: AgentToken::Reported(value.fingerprint()),
        system: Some(value.fingerprint()),
        applied: Some(value.fingerprint()),
        ..ClusterInputs::default()
    };
    let name = ClusterName {
        id: "c-x7k2p".into(),
        display_name: Some("oslo".into()),
        kind: Some("imported".into()),
    };
    let now = "2026-11-22T09:00:00Z".parse().unwrap();
    let inputs = RowInputs {
        name: &name,
        cluster: &cluster,
        rotation,
        rotations_unknown: false,
        now,
    };
    vec![
        Row::of_token(&token("default-token", Err(ValueError::NoPermission)), true, &inputs),
        Row::of_token(&token("system", Ok(value)), false, &inputs),
    ]
}

fn table<T: Printable>(rows: impl IntoIterator<Item = T>, wide: bool) -> String {
    let mut table = Table::new(T::COLUMNS);
    for row in rows {
        table.row(row.cells());
    }
    table.render(Look {
        wide,
        no_headers: false,
    })
}

#[test]
fn the_table_has_one_line_for_each_token() {
    insta::assert_snapshot!(table(rows(None), false), @r"
    CLUSTER   ID        NAME            FINGERPRINT   AGE   EXPIRES   USED BY        STATE       LAST ROTATED
    oslo      c-x7k2p   default-token   <unknown>     2d    28d       <unknown>      <unknown>   <never>
    oslo      c-x7k2p   system          34a6910fab    2d    28d       agent,system   current     <never>
    ");
}

#[test]
fn every_column_has_a_cell() {
    for row in rows(None) {
        assert_eq!(row.cells().len(), Row::COLUMNS.len());
        let probed = Probed(row.with_acceptance(Accepted::Yes));
        assert_eq!(probed.cells().len(), Probed::COLUMNS.len());
    }
}

#[test]
fn a_rotation_that_was_rolled_back_is_marked() {
    let record = LeaseRecord {
        last_run: "2026-11-22T08:00:00Z".parse().ok(),
        last_result: Some("rolled back: no proof in time".into()),
        ..LeaseRecord::default()
    };
    let rotation = ClusterRotation::from(record);
    assert!(
        table(rows(Some(&rotation)), false).ends_with("current     60m (rolled back)\n"),
        "{}",
        table(rows(Some(&rotation)), false)
    );
}

#[test]
fn the_document_contains_no_value() {
    let text = serde_json::to_string(&rows(None)).unwrap();
    assert!(!text.contains("throw-away"), "{text}");
    assert!(text.contains(r#""usedBy":["agent","system"]"#), "{text}");
}
