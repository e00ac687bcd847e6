use http::{Request, Response};
use kube::client::Body;
use rstest::rstest;
use serde::Deserialize;

use super::*;

const MAPS: Resource = Resource::new("ConfigMap", "v1", "configmaps");

#[derive(Debug, Deserialize)]
struct Map {
    metadata: Metadata,
    data: String,
}

impl Item for Map {}

/// A server that answers, in this order, each with a code and a text, and tells what it was asked.
fn server(answers: Vec<(u16, String)>) -> (kube::Client, tokio::task::JoinHandle<Vec<String>>) {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for (code, text) in answers {
            let (request, answer) = handle.next_request().await.unwrap();
            asked.push(request.uri().to_string());
            let response = Response::builder().status(code).body(Body::from(text.into_bytes()));
            answer.send_response(response.unwrap());
        }
        asked
    });
    (kube::Client::new(service, "default"), asked)
}

fn page(name: &str, next: &str) -> String {
    json!({ "metadata": { "continue": next }, "items": [{ "metadata": { "name": name }, "data": "x" }] }).to_string()
}

fn status(code: u16, reason: &str, message: &str) -> String {
    json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message }).to_string()
}

async fn get_from(code: u16, text: &str) -> Result<Option<Map>> {
    let (client, _) = server(vec![(code, text.to_owned())]);
    get(&client, MAPS, Some("here"), "it").await
}

#[tokio::test]
async fn a_list_restarts_when_its_continue_token_has_expired() {
    let (client, asked) = server(vec![
        (200, page("old", "abc")),
        (410, status(410, "Expired", "too old")),
        (200, page("a", "def")),
        (200, page("b", "")),
    ]);
    let all: Vec<Map> = list_all(&client, MAPS, &ListOptions::default()).await.unwrap();
    let names: Vec<&str> = all.iter().map(|map| map.metadata.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(asked.await.unwrap()[3].ends_with("continue=def"));
}

/// A server that answers any number of requests, each with a code and a text.
fn tireless(mut answer: impl FnMut(usize, &str) -> (u16, String) + Send + 'static) -> kube::Client {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    tokio::spawn(async move {
        for nth in 0.. {
            let Some((request, send)) = handle.next_request().await else {
                break;
            };
            let (code, text) = answer(nth, request.uri().query().unwrap_or_default());
            let response = Response::builder().status(code).body(Body::from(text.into_bytes()));
            send.send_response(response.unwrap());
        }
    });
    kube::Client::new(service, "default")
}

async fn failure_of_list(client: &kube::Client) -> String {
    let failed = list_all::<Map>(client, MAPS, &ListOptions::default()).await;
    crate::error::Error::from(failed.unwrap_err()).to_string()
}

#[tokio::test]
async fn a_page_that_continues_with_itself_ends_the_list() {
    let client = tireless(|_, _| (200, page("a", "abc")));
    assert_eq!(
        failure_of_list(&client).await,
        "error: cannot list ConfigMaps: the list of the server does not end: a page continues with itself"
    );
}

#[tokio::test]
async fn a_list_with_too_many_pages_is_given_up() {
    let client = tireless(|nth, _| (200, page("a", &format!("page-{nth}"))));
    assert_eq!(
        failure_of_list(&client).await,
        "error: cannot list ConfigMaps: the list of the server does not end: it has more than 1000 pages"
    );
}

#[tokio::test]
async fn a_list_with_too_many_objects_is_given_up_but_not_one_of_200_000() {
    let items = vec![json!({ "metadata": {}, "data": "" }); 5000];
    let endless = json!(items).to_string();
    let client = tireless(move |nth, _| {
        let next = if nth == 39 {
            String::new()
        } else {
            format!("page-{nth}")
        };
        let text = format!(r#"{{"metadata":{{"continue":"{next}"}},"items":{endless}}}"#);
        (200, text)
    });
    let all = list_all::<Map>(&client, MAPS, &ListOptions::default()).await;
    assert_eq!(all.unwrap().len(), 200_000);
    // The same client continues with the 40th page, and does not end.
    assert_eq!(
        failure_of_list(&client).await,
        "error: cannot list ConfigMaps: the list of the server does not end: it has more than 250000 objects"
    );
}

#[rstest]
#[case::without_another("")]
#[case::with_another("def")]
#[tokio::test]
async fn a_list_whose_continue_tokens_always_expire_is_given_up(#[case] instead: &'static str) {
    let client = tireless(move |nth, query| {
        if !query.contains("continue=") {
            return (200, page("a", "abc"));
        }
        let mut expired: Value = serde_json::from_str(&status(410, "Expired", "too old")).unwrap();
        if !instead.is_empty() {
            expired["metadata"]["continue"] = json!(format!("{instead}{nth}"));
        }
        (410, expired.to_string())
    });
    assert_eq!(
        failure_of_list(&client).await,
        "Error from server (Expired): cannot list ConfigMaps: too old"
    );
}

#[tokio::test]
async fn a_malformed_object_fails_the_list_by_default() {
    let text = json!({ "items": [{ "metadata": { "name": "a" }, "data": ["hunter2"] }] }).to_string();
    let (client, _) = server(vec![(200, text)]);
    let error = list_all::<Map>(&client, MAPS, &ListOptions::default())
        .await
        .unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("could not list ConfigMaps: malformed response at line 1"));
    assert!(!said.contains("hunter2") && !format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_page_with_too_many_objects_is_refused() {
    #[derive(Debug, Deserialize)]
    struct Anything {}
    impl Item for Anything {
        fn unreadable(_: Metadata) -> Option<Self> {
            Some(Self {})
        }
    }
    for (count, fits) in [(5000, true), (5001, false)] {
        let text = format!(r#"{{"items":[{}0]}}"#, "{},".repeat(count - 1));
        let (client, _) = server(vec![(200, text)]);
        let all = list_all::<Anything>(&client, MAPS, &ListOptions::default()).await;
        assert_eq!(all.is_ok(), fits, "{count}");
    }
}

#[tokio::test]
async fn a_page_that_is_too_long_is_read_in_smaller_pages() {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let client = kube::Client::new(service, "default");
    let server = async {
        for limit in ["limit=500&", "limit=100&", "limit=20&", "limit=5&"] {
            let (request, answer) = handle.next_request().await.unwrap();
            assert!(format!("{}&", request.uri().query().unwrap()).contains(limit));
            answer.send_error(crate::error::too_many_tokens(1));
        }
        // The next pages are as small.
        for next in ["abc", ""] {
            let (request, answer) = handle.next_request().await.unwrap();
            assert!(format!("{}&", request.uri().query().unwrap()).contains("limit=1&"));
            answer.send_response(Response::new(Body::from(page("a", next).into_bytes())));
        }
    };
    let options = ListOptions::default();
    let (all, ()) = tokio::join!(list_all::<Map>(&client, MAPS, &options), server);
    assert_eq!(all.unwrap().len(), 2);
}

#[test]
fn a_malformed_object_keeps_its_names() {
    let salvaged = |object: &str| {
        let metadata = Metadata::salvage(object);
        (metadata.name, metadata.uid, metadata.labels.is_some())
    };
    let of = |name: &str, uid: &str, labels| (name.to_owned(), uid.to_owned(), labels);
    let whole = r#"{"data":7,"metadata":{"name":"a","uid":"b","labels":{}}}"#;
    assert_eq!(salvaged(whole), of("a", "b", true));
    let wrong_type = r#"{"metadata":{"name":"a","uid":7,"labels":[{"":0}]}}"#;
    assert_eq!(salvaged(wrong_type), of("a", "", false));
    for nothing in ["7", "{}", "[]", r#"{"metadata":null}"#, r#"{"metadata":[1]}"#] {
        assert_eq!(salvaged(nothing), of("", "", false), "{nothing}");
    }
}

#[tokio::test]
async fn a_missing_object_is_none() {
    assert!(get_from(404, "").await.unwrap().is_none());
    let found = get_from(200, r#"{"metadata":{"name":"it"},"data":"x"}"#)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.metadata.name.as_str(), found.data.as_str()), ("it", "x"));
}

#[tokio::test]
async fn metadata_is_read_without_the_object() {
    let text = json!({
        "kind": "PartialObjectMetadata",
        "metadata": {
            "name": "it",
            "resourceVersion": "7",
            "creationTimestamp": "2026-11-22T05:18:17Z",
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Foo", "name": "bar", "uid": "1", "controller": true }],
            "managedFields": [{ "manager": "kubectl", "operation": "Update" }],
        },
    });
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let client = kube::Client::new(service, "default");
    let answer = async {
        let (request, answer) = handle.next_request().await.unwrap();
        answer.send_response(Response::new(Body::from(text.to_string().into_bytes())));
        request
    };
    let (request, found) = tokio::join!(answer, get_metadata(&client, MAPS, Some("here"), "it"));
    let accept = request.headers()[http::header::ACCEPT].to_str().unwrap();
    assert!(accept.contains("as=PartialObjectMetadata;"), "{accept}");
    let whole = found.unwrap().unwrap();
    assert_eq!(
        whole.managed_fields.as_ref().unwrap()[0].manager.as_deref(),
        Some("kubectl")
    );
    let metadata = Metadata::from(whole);
    assert_eq!(
        (metadata.name.as_str(), metadata.resource_version.as_str()),
        ("it", "7")
    );
    assert_eq!(metadata.created().unwrap().to_string(), "2026-11-22T05:18:17Z");
    assert_eq!(metadata.owner_references.unwrap()[0].kind, "Foo");

    let (client, _) = server(vec![(404, String::new())]);
    assert!(get_metadata(&client, MAPS, None, "it").await.unwrap().is_none());
}

#[rstest]
#[case::refused(403, false)]
#[case::changed(409, false)]
#[case::ended_in_the_middle(500, true)]
#[case::a_proxy_gave_up(504, true)]
#[tokio::test]
async fn a_refusal_is_an_answer_and_a_failure_of_the_server_is_none(#[case] code: u16, #[case] unanswered: bool) {
    let error = get_from(code, &status(code, "", "no")).await.unwrap_err();
    assert_eq!(error.is_unanswered(), unanswered);
}

#[tokio::test]
async fn an_error_says_what_was_tried_on_which_object_and_on_which_side() {
    let refusal = status(403, "Forbidden", "no");
    let error = get_from(403, &refusal).await.unwrap_err();
    assert_eq!(
        error.on("the far side").to_string(),
        "Error from server (Forbidden): cannot read ConfigMap here/it on the far side: no"
    );
    let error = get_from(403, &refusal).await.unwrap_err().about("the map");
    let shown = crate::error::Error::from(error);
    assert_eq!(
        shown.to_string(),
        "Error from server (Forbidden): cannot read the map: no"
    );
}

#[tokio::test]
async fn an_answer_that_is_no_status_is_not_shown_but_may_be_understood() {
    let text = r#"{"sorry":"no tunnel, Bearer 0123456789012345678901234567890123456789"}"#;
    let error = get_from(502, text).await.unwrap_err();
    let seen = &error.status().unwrap().message;
    assert!(seen.contains("no tunnel") && !seen.contains("0123456789"), "{seen}");
    let understood = get_from(502, text).await.unwrap_err().read_by(|answer| {
        answer
            .contains("no tunnel")
            .then(|| kube::core::Status::failure("asleep", "Asleep"))
    });
    assert_eq!(understood.code(), Some(502));
    assert!(
        error
            .on("it")
            .to_string()
            .ends_with("the server responded with 502 Bad Gateway")
    );
    assert!(understood.on("it").to_string().ends_with("asleep"));
    // What the API server says is never read again.
    let said = get_from(500, &status(500, "InternalError", "no tunnel"))
        .await
        .unwrap_err();
    let same = said.read_by(|_| Some(kube::core::Status::failure("asleep", "Asleep")));
    assert_eq!(same.status().unwrap().message, "no tunnel");
}
