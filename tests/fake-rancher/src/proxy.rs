//! The routes to an API server: through Rancher and an agent's tunnel (`/k8s/clusters/<id>`), to Rancher's own cluster
//! (`/k8s/clusters/local`, the bare host), and, for tests, to a downstream cluster without a tunnel (`/direct/<id>`).

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::json;

use crate::api::{Api, paths};
use crate::api_token::authenticate;
use crate::clusters::is_hosted;
use crate::config::{TokenStorage, User};
use crate::filter::Filter;
use crate::identity::{Outward, View};
use crate::joining::is_machine;
use crate::server::{Body, json_answer, text};
use crate::sessions::{Session, Tunnel};
use crate::world::{World, agent_namespace};

/// The target of a request.
struct Target<'a> {
    api: &'a Api,
    /// The rest of the path with its query.
    uri: String,
    /// The registered cluster that the client sees.
    view: Option<Arc<View>>,
    /// The tunnel that carries the call.
    session: Option<Arc<Session>>,
    user: Option<User>,
}

/// All paths that are not Rancher's own.
pub(crate) async fn handle(world: &Arc<World>, request: Request<Incoming>) -> Response<Body> {
    let uri = request
        .uri()
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str)
        .to_owned();
    if let Some(rest) = uri.strip_prefix("/direct/") {
        let (id, uri) = split(rest);
        return direct(world, &id, uri, request).await;
    }
    match uri.strip_prefix("/k8s/clusters/").map(split) {
        Some((id, uri)) if id != "local" => downstream(world, &id, uri, request).await,
        Some((_, uri)) => local(world, uri, Some("local"), request).await,
        None => local(world, uri, None, request).await,
    }
}

/// `<id>/<rest>` → id and `/<rest>`.
fn split(rest: &str) -> (String, String) {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (id, uri) = rest.split_at(end);
    let uri = if uri.starts_with('/') {
        uri.to_owned()
    } else {
        format!("/{uri}")
    };
    (id.to_owned(), uri)
}

/// An error as Rancher's proxy writes it: JSON in an answer that says it is text (seen on Rancher 2.15.0 and 2.12.0).
fn refusal(status: u16, code: &str, message: &str) -> Response<Body> {
    let message = json!(message);
    let body =
        format!(r#"{{"Code":{{"Code":"{code}","Status":{status}}},"Message":{message},"Cause":null,"FieldName":""}}"#);
    text(status, body)
}

fn forbidden(id: &str, user: &str) -> Response<Body> {
    refusal(403, "Forbidden", &may_not_get(id, user))
}

/// The message of the API server for a cluster that the user may not see.
pub(crate) fn may_not_get(id: &str, user: &str) -> String {
    format!(
        "clusters.management.cattle.io \"{id}\" is forbidden: User \"{user}\" cannot get resource \"clusters\" in API group \
         \"management.cattle.io\" at the cluster scope"
    )
}

/// As Go writes it for a GET.
fn redirect(to: &str) -> Response<Body> {
    let mut response = text(307, format!("<a href=\"{to}\">Temporary Redirect</a>.\n\n"));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/html; charset=utf-8"),
    );
    if let Ok(to) = to.parse() {
        headers.insert(header::LOCATION, to);
    }
    response
}

fn unauthorized_status() -> Response<Body> {
    json_answer(
        401,
        &json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "Unauthorized",
            "reason": "Unauthorized", "code": 401,
        }),
    )
}

/// Whether this user may see the cluster. The real RBAC of the management cluster decides, as in Rancher.
pub(crate) async fn may_get(world: &World, user: &User, id: &str) -> bool {
    if user.groups.iter().any(|group| group == "system:masters") {
        return true;
    }
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": user.name, "groups": groups(user),
            "resourceAttributes": {"group": "management.cattle.io", "resource": "clusters", "verb": "get", "name": id},
        },
    });
    let answer = world
        .management
        .create("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)
        .await;
    answer.is_ok_and(|answer| answer["status"]["allowed"] == true)
}

fn groups(user: &User) -> Vec<String> {
    let mut groups = user.groups.clone();
    groups.push("system:authenticated".to_owned());
    groups
}

async fn downstream(world: &Arc<World>, id: &str, uri: String, request: Request<Incoming>) -> Response<Body> {
    // An invalid token is rejected first, as unauthenticated (seen on Rancher 2.15.0 and 2.12.0).
    let Some(user) = authenticate(world, &request, Some(id)) else {
        return forbidden(id, "system:unauthenticated");
    };
    if world.cluster(id).is_none() && may_get(world, &user, id).await {
        return refusal(
            404,
            "NotFound",
            &format!("clusters.management.cattle.io \"{id}\" not found"),
        );
    }
    if !may_get(world, &user, id).await {
        return forbidden(id, &user.name);
    }
    // The API of the agent itself, through its other tunnel (`pkg/api/steve/proxy/proxy.go`, 2.15.0).
    if uri == "/v1" {
        let code = if world.sessions.oldest(Tunnel::Steve, id).is_some() {
            200
        } else {
            404
        };
        return json_answer(code, &json!({"type": "collection", "links": {}}));
    }
    // A hosted cluster is reached without an agent (seen on Rancher 2.15.0).
    let session = if is_hosted(world, id) {
        None
    } else if let Some(session) = tunnel(world, id).await {
        Some(session)
    } else {
        // Seen on Rancher 2.15.0 and 2.12.0, after a wait of 27 to 38 s.
        return text(500, "error trying to reach service: cluster agent disconnected");
    };
    // The cluster of the tunnel, whatever the token says.
    let home = session.as_ref().map_or(id, |session| &session.home);
    let Ok(view) = world.shared.view(home) else {
        return text(500, "no view of this cluster");
    };
    let target = Target {
        api: &world.downstream,
        uri,
        view: Some(view),
        session,
        user: Some(user),
    };
    forward(target, request).await
}

/// The oldest tunnel of a cluster; without one, a call waits for a while.
async fn tunnel(world: &World, id: &str) -> Option<Arc<Session>> {
    let mut changed = world.sessions.changed();
    let wait = async {
        loop {
            if let Some(session) = world.sessions.oldest(Tunnel::Agent, id) {
                return Some(session);
            }
            changed.changed().await.ok()?;
        }
    };
    tokio::time::timeout(world.timing().disconnected_wait, wait)
        .await
        .ok()
        .flatten()
}

/// Rancher's own cluster. Without permission to see `local`, nearly everything is 403 with an empty body
/// (`pkg/api/steve/disallow` and `pkg/api/steve/proxy/proxy.go`, 2.15.0; seen on 2.15.0 and 2.12.0).
async fn local(world: &Arc<World>, uri: String, scope: Option<&str>, request: Request<Incoming>) -> Response<Body> {
    let Some(user) = authenticate(world, &request, scope) else {
        return unauthorized_status();
    };
    if scope.is_some() && world.storage() == TokenStorage::Secret && request.method() == Method::GET {
        // Rancher's ServeMux redirects the two roots to the bare host, where a token scoped to `local` is not valid
        // (github.com/rancher/rancher pull request 54278; seen on Rancher 2.15.0, not on 2.12.0).
        for root in ["/api", "/apis"] {
            let rest = uri
                .strip_prefix(root)
                .filter(|rest| rest.is_empty() || rest.starts_with('?'));
            if let Some(query) = rest {
                return redirect(&format!("{root}/{query}"));
            }
        }
    }
    let open = ["/version", "/healthz", "/readyz", "/livez", "/api", "/apis", "/openapi"];
    let path = uri.split('?').next().unwrap_or_default().trim_end_matches('/');
    if !open.contains(&path) && !is_machine(&user) && !may_get(world, &user, "local").await {
        let mut response = text(403, "");
        response.headers_mut().remove(header::CONTENT_TYPE);
        return response;
    }
    forward(
        Target {
            api: &world.management,
            uri,
            view: None,
            session: None,
            user: Some(user),
        },
        request,
    )
    .await
}

/// As a user of that cluster reaches it: its own API server, no tunnel, no Rancher. RBAC of that cluster decides.
async fn direct(world: &Arc<World>, id: &str, uri: String, request: Request<Incoming>) -> Response<Body> {
    let Some(user) = authenticate(world, &request, None) else {
        return unauthorized_status();
    };
    if world
        .downstream
        .get(&paths::namespace(&agent_namespace(id)))
        .await
        .ok()
        .flatten()
        .is_none()
    {
        return text(404, "404 page not found\n");
    }
    let Ok(view) = world.shared.view(id) else {
        return text(500, "no view of this cluster");
    };
    forward(
        Target {
            api: &world.downstream,
            uri,
            view: Some(view),
            session: None,
            user: Some(user),
        },
        request,
    )
    .await
}

/// Headers that are forwarded to the API server. The caller's credentials are not; only JSON can be rewritten.
fn onward(headers: &HeaderMap, mapped: bool) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        let text = name.as_str();
        let dropped = matches!(
            text,
            "authorization" | "host" | "accept-encoding" | "content-length" | "connection" | "te"
        ) || text.starts_with("impersonate-")
            || text.starts_with("transfer-");
        if !dropped {
            kept.append(name.clone(), value.clone());
        }
    }
    if mapped && let Some(accept) = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()) {
        let json: Vec<&str> = accept
            .split(',')
            .map(str::trim)
            .filter(|kind| !kind.contains("protobuf"))
            .collect();
        let accept = if json.is_empty() {
            "application/json".to_owned()
        } else {
            json.join(",")
        };
        if let Ok(accept) = accept.parse() {
            kept.insert(header::ACCEPT, accept);
        }
    }
    kept
}

async fn forward(target: Target<'_>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return text(400, "cannot read the request's body");
    };
    let mut body = body.to_bytes().to_vec();
    let mut uri = target.uri;
    let view = target.view.filter(|_| holds_objects(&uri));
    if let Some(view) = &view {
        let content = parts
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if content.contains("protobuf") {
            return text(415, "the fake Rancher maps clusters in JSON only");
        }
        uri = view.uri_inward(&uri);
        body = view.body_inward(body);
    }
    let mut onward = onward(&parts.headers, view.is_some());
    if let Some(user) = &target.user
        && let Err(response) = impersonate(&mut onward, user)
    {
        return *response;
    }
    let Ok(mut request) = Request::builder()
        .method(parts.method.clone())
        .uri(&uri)
        .body(kube::client::Body::from(body))
    else {
        return text(400, "bad request");
    };
    *request.headers_mut() = onward;
    let cut = async {
        match &target.session {
            Some(session) => session.closed().await,
            None => std::future::pending().await,
        }
    };
    let answer = tokio::select! {
        answer = target.api.client.send(request) => answer,
        () = cut => return text(502, "error trying to reach service: tunnel disconnect"),
    };
    match answer {
        Ok(answer) => back(answer, view, target.session, &parts.method, &uri),
        Err(error) => text(502, format!("error trying to reach service: {error}")),
    }
}

/// Requests are made as the Rancher user, on both sides (`pkg/k8sproxy`, 2.15.0).
fn impersonate(headers: &mut HeaderMap, user: &User) -> Result<(), Box<Response<Body>>> {
    let bad = || Box::new(text(500, "a configured user has a name that no header can carry"));
    headers.insert("impersonate-user", user.name.parse().map_err(|_| bad())?);
    for group in groups(user) {
        headers.append("impersonate-group", group.parse().map_err(|_| bad())?);
    }
    Ok(())
}

/// The response, with the names that the client knows, for as long as the tunnel is open.
fn back(
    answer: Response<kube::client::Body>,
    view: Option<Arc<View>>,
    session: Option<Arc<Session>>,
    method: &Method,
    uri: &str,
) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        parts.headers.remove(name);
    }
    let kind = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let everywhere = *method == Method::GET && kind.contains("json") && is_cluster_wide(uri);
    let changed = view.map(|view| {
        let filter = everywhere.then(|| Filter::new(&view.id, is_watch(uri)));
        (filter, view.outward())
    });
    let state = Flow {
        data: body.into_data_stream(),
        changed,
        session,
        done: false,
    };
    let stream = futures::stream::unfold(
        state,
        |mut flow| async move { flow.next().await.map(|item| (item, flow)) },
    );
    Response::from_parts(parts, BodyExt::boxed_unsync(StreamBody::new(stream)))
}

fn is_watch(uri: &str) -> bool {
    uri.contains("watch=true") || uri.contains("watch=1")
}

/// Whether the path leads to objects, which may contain a name. `/openapi/v2` does not, and clients read it in protobuf
/// only (`discovery/discovery_client.go` of k8s.io/client-go, 0.34.0).
fn holds_objects(uri: &str) -> bool {
    let path = uri.split('?').next().unwrap_or_default();
    path.starts_with("/api/") || path.starts_with("/apis/")
}

/// Whether the response has objects of several namespaces, or namespaces.
fn is_cluster_wide(uri: &str) -> bool {
    let path = uri.split('?').next().unwrap_or_default();
    holds_objects(path) && !path.contains("/namespaces/")
}

/// The body of a response.
struct Flow {
    data: http_body_util::BodyDataStream<kube::client::Body>,
    changed: Option<(Option<Filter>, Outward)>,
    session: Option<Arc<Session>>,
    done: bool,
}

impl Flow {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, std::io::Error>> {
        if self.done {
            return None;
        }
        loop {
            let closed = async {
                match &self.session {
                    Some(session) => session.closed().await,
                    None => std::future::pending().await,
                }
            };
            let chunk = tokio::select! {
                chunk = self.data.next() => chunk,
                () = closed => {
                    self.done = true;
                    return Some(Err(std::io::Error::other("tunnel disconnect")));
                }
            };
            let out = match chunk {
                Some(Ok(chunk)) => self.change(&chunk),
                Some(Err(error)) => {
                    self.done = true;
                    return Some(Err(std::io::Error::other(error)));
                }
                None => {
                    self.done = true;
                    self.rest()
                }
            };
            if !out.is_empty() {
                return Some(Ok(Frame::data(out)));
            }
            if self.done {
                return None;
            }
        }
    }

    fn change(&mut self, chunk: &Bytes) -> Bytes {
        match &mut self.changed {
            None => chunk.clone(),
            Some((None, outward)) => outward.push(chunk).into(),
            Some((Some(filter), outward)) => outward.push(&filter.push(chunk)).into(),
        }
    }

    fn rest(&mut self) -> Bytes {
        let Some((filter, outward)) = &mut self.changed else {
            return Bytes::new();
        };
        let mut out = filter
            .as_mut()
            .map(|filter| outward.push(&filter.finish()))
            .unwrap_or_default();
        out.extend(outward.finish());
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_into_cluster_id_and_rest() {
        assert_eq!(
            split("c-abcde/api/v1?x=y"),
            ("c-abcde".to_owned(), "/api/v1?x=y".to_owned())
        );
        assert_eq!(split("c-abcde"), ("c-abcde".to_owned(), "/".to_owned()));
    }

    #[test]
    fn bodies_without_objects_are_passed_on_unchanged() {
        assert!(holds_objects("/api/v1/namespaces/cattle-system/pods?watch=true"));
        assert!(holds_objects("/apis/apps/v1/deployments"));
        assert!(!holds_objects("/openapi/v2?timeout=32s"));
        assert!(!holds_objects("/version"));
        assert!(is_cluster_wide("/api/v1/pods") && !is_cluster_wide("/openapi/v2"));
    }

    #[test]
    fn the_callers_identity_is_not_forwarded() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer x".parse().unwrap());
        headers.insert("impersonate-user", "root".parse().unwrap());
        headers.insert(
            "accept",
            "application/vnd.kubernetes.protobuf,application/json".parse().unwrap(),
        );
        let kept = onward(&headers, true);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept["accept"], "application/json");
    }
}
