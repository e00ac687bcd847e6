//! `/v3/…`, the part of Rancher's own API that API tokens need: tokens, clusters, the caller, settings. Users see their
//! own objects.

use std::sync::Arc;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::read;
use crate::api_token::{ApiToken, MAX_TTL, TokenRequest, authenticate, is_session, name_of};
use crate::config::User;
use crate::proxy::{may_get, may_not_get};
use crate::server::{Body, bearer, json_answer, text};
use crate::world::World;

fn error(status: u16, code: &str, message: &str) -> Response<Body> {
    let body = json!({"baseType": "error", "type": "error", "status": status, "code": code, "message": message});
    json_answer(status, &body)
}

fn not_found() -> Response<Body> {
    error(404, "NotFound", "not found")
}

fn collection(items: &[Value]) -> Response<Body> {
    json_answer(200, &json!({"type": "collection", "data": items}))
}

/// Responds to a request. A token that is invalid, or not valid at this path, is rejected (seen on Rancher 2.15.0 and
/// 2.12.0: `status` is a string there).
pub(crate) async fn handle(world: &Arc<World>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.trim_matches('/').split('/').skip(1).collect();
    let scope = match words.as_slice() {
        ["cluster" | "clusters", id, ..] => Some(*id),
        _ => None,
    };
    let Some(user) = authenticate(world, &request, scope) else {
        let body = json!({"type": "error", "status": "401", "message": "Unauthorized 401: must authenticate"});
        return json_answer(401, &body);
    };
    match (request.method(), words.as_slice()) {
        (&Method::POST, ["tokens"]) => issue(world, &user, request).await,
        (&Method::GET, ["tokens"]) => {
            let shown: Vec<Value> = own(world, &user).iter().map(|token| shown(token, &request)).collect();
            collection(&shown)
        }
        (&Method::GET, ["tokens", name]) => {
            let own = own(world, &user);
            let found = own.iter().find(|token| token.name == *name);
            found.map_or_else(not_found, |token| json_answer(200, &shown(token, &request)))
        }
        (&Method::DELETE, ["tokens", name]) => delete(world, &user, name, &request),
        (&Method::GET, ["clusters"]) => clusters(world, &user).await,
        (&Method::GET, ["clusters", id]) => cluster(world, &user, id).await,
        (&Method::GET, ["users"]) => collection(&[json!({
            "type": "user", "id": user.name, "username": user.name, "enabled": true, "me": true,
        })]),
        (&Method::GET, ["settings", name]) => match world.settings.get("", name) {
            Some(setting) => json_answer(
                200,
                &json!({"type": "setting", "id": name, "value": setting["value"], "default": setting["default"]}),
            ),
            None => not_found(),
        },
        _ => not_found(),
    }
}

fn own(world: &World, user: &User) -> Vec<ApiToken> {
    world.tokens.of(&user.name)
}

fn shown<B>(token: &ApiToken, request: &Request<B>) -> Value {
    let current = bearer(request).and_then(name_of) == Some(token.name.as_str());
    token.shown(Timestamp::now(), current)
}

async fn issue(world: &Arc<World>, user: &User, request: Request<Incoming>) -> Response<Body> {
    let body = request
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let Some(asked) = body
        .ok()
        .and_then(|body| serde_json::from_slice::<TokenRequest>(&body).ok())
    else {
        return error(422, "InvalidBodyContent", "the body is no token");
    };
    let limit = world.setting(MAX_TTL).parse().unwrap_or_default();
    let token = world.tokens.issue(&user.name, &asked, limit);
    world.log.line(
        "token-issued",
        json!({"token": token.name, "user": user.name, "scope": token.cluster, "ttl": token.ttl}),
    );
    let mut shown = token.shown(token.created, false);
    shown["token"] = format!("{}:{}", token.name, token.key).into();
    json_answer(201, &shown)
}

/// 204, and invalid within 60 ms; again: 404. A session cannot delete itself here (400). (Seen on Rancher 2.15.0 and
/// 2.12.0.)
fn delete(world: &World, user: &User, name: &str, request: &Request<Incoming>) -> Response<Body> {
    let own = bearer(request).filter(|value| name_of(value) == Some(name));
    if own.is_some_and(|value| is_session(world, value)) {
        let message = "Cannot delete token for current session. Use logout instead";
        return error(400, "InvalidAction", message);
    }
    if !world.tokens.delete(&user.name, name) {
        return not_found();
    }
    world
        .log
        .line("token-deleted", json!({"token": name, "user": user.name}));
    text(204, "")
}

fn seen_cluster(cluster: &Value) -> Value {
    let connected = read::condition(cluster, "Connected") != "False";
    json!({
        "type": "cluster", "id": read::name(cluster), "name": read::text(cluster, "/spec/displayName"),
        "state": if connected { "active" } else { "unavailable" },
    })
}

async fn clusters(world: &World, user: &User) -> Response<Body> {
    let mut seen = Vec::new();
    for cluster in world.clusters.all() {
        if may_get(world, user, read::name(&cluster)).await {
            seen.push(seen_cluster(&cluster));
        }
    }
    collection(&seen)
}

/// The store behind it impersonates the user, and hands on what the API server says
/// (`store/proxy/error_wrapper.go` of github.com/rancher/norman).
async fn cluster(world: &World, user: &User, id: &str) -> Response<Body> {
    if !may_get(world, user, id).await {
        return error(403, "Forbidden", &may_not_get(id, &user.name));
    }
    match world.cluster(id) {
        Some(cluster) => json_answer(200, &seen_cluster(&cluster)),
        None => error(
            404,
            "NotFound",
            &format!("clusters.management.cattle.io \"{id}\" not found"),
        ),
    }
}
