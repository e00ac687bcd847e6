//! The endpoints that check a registration token without authentication: `/v3/connect`, `/cacerts`, `/v3/import`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, Response};
use sha2::Sha512;

use crate::config::TokenStorage;
use crate::manifest::import_manifest;
use crate::server::{Body, Hangup, bearer, text};
use crate::world::World;

/// A tunnel request without an upgrade. The messages are those of `pkg/tunnelserver/mcmauthorizer/tunnel.go` and of
/// `github.com/rancher/remotedialer` (seen on Rancher 2.15.0 and 2.12.0).
pub(crate) fn connect<B>(world: &World, request: &Request<B>) -> Response<Body> {
    if let Some(token) = request.headers().get("x-api-tunnel-token") {
        let token = token.to_str().unwrap_or_default();
        return match world.index.tunnel(world.storage(), token) {
            // The authorizer then reads X-API-Tunnel-Params, and there are none.
            Some(_) => text(400, "unexpected end of JSON input"),
            None => text(400, "cluster not found"),
        };
    }
    let steve = bearer(request).and_then(|value| value.strip_prefix("stv-cluster-"));
    match steve.and_then(|token| world.index.steve(world.storage(), token)) {
        Some(cluster) => text(
            400,
            format!(
                "Error during upgrade for host [stv-cluster-{cluster}]: websocket: the client is not using the websocket \
             protocol: 'upgrade' token not found in 'Connection' header"
            ),
        ),
        None => text(401, "failed authentication"),
    }
}

/// The signature, which proves that the token is valid and that this is the right server.
fn signature(token: &str, nonce: &[u8], certificates: &[u8]) -> Option<String> {
    let mut mac = Hmac::<Sha512>::new_from_slice(token.as_bytes()).ok()?;
    for part in [nonce, &[0], certificates, &[0]] {
        mac.update(part);
    }
    Some(STANDARD.encode(mac.finalize().into_bytes()))
}

/// The CA certificates, signed if the caller names a valid token by its hash and sends a nonce
/// (`pkg/cacerts/handler.go`). With `status` storage, an invalid token indexes an empty list, which panics: the
/// connection is closed (seen on Rancher 2.12.0).
pub(crate) fn cacerts<B>(world: &World, request: &Request<B>) -> Result<Response<Body>, Hangup> {
    let certificates = match world.setting("cacerts") {
        text if text.trim().is_empty() => String::new(),
        text => format!("{}\n", text.trim_end_matches('\n')),
    };
    let mut response = text(200, certificates.clone());
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    let nonce = request.headers().get("x-cattle-nonce").map(http::HeaderValue::as_bytes);
    if let (Some(name), Some(nonce)) = (
        bearer(request).filter(|name| !name.is_empty()),
        nonce.filter(|n| !n.is_empty()),
    ) {
        match world.index.by_hash(world.storage(), name) {
            Some(token) => {
                let hash = signature(&token, nonce, certificates.as_bytes());
                if let Some(hash) = hash.and_then(|hash| hash.parse().ok()) {
                    response.headers_mut().insert("X-Cattle-Hash", hash);
                }
            }
            None if world.storage() == TokenStorage::Status => return Err(Hangup),
            None => {}
        }
    }
    Ok(response)
}

/// `/v3/import/<token>_<cluster>.yaml`. Seen on Rancher 2.12.0: a manifest for any token and any id. On 2.15.0 the
/// token must be valid for that cluster (`pkg/api/norman/customization/clusterregistrationtokens/import.go`).
pub(crate) fn import(world: &World, file: &str) -> Response<Body> {
    let Some((token, cluster)) = file.strip_suffix(".yaml").and_then(|name| name.split_once('_')) else {
        return text(404, "404 page not found\n");
    };
    let live = world
        .index
        .tunnel(world.storage(), token)
        .is_some_and(|owner| owner == cluster);
    if world.storage() == TokenStorage::Secret && !live {
        return text(400, "cluster not found or invalid token");
    }
    text(200, import_manifest(world, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_covers_nonce_and_certificates() {
        let one = signature("t", b"n", b"c").unwrap();
        assert_eq!(STANDARD.decode(&one).unwrap().len(), 64);
        assert_ne!(
            one,
            signature("t", b"nc", b"").unwrap(),
            "the zero bytes keep the parts apart"
        );
        assert_ne!(one, signature("u", b"n", b"c").unwrap());
    }
}
