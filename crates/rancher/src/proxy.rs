//! What Rancher says itself where a client expects a Kubernetes API server, on the way to a cluster's own.

use kube::core::Status;
use serde::Deserialize;

/// A refusal in Rancher's own form (seen on Rancher 2.15.0 and 2.12.0):
/// `{"Code":{"Code":"Forbidden","Status":403},"Message":"clusters.management.cattle.io \"c-…\" is forbidden: …"}`.
pub(crate) fn refusal(answer: &str) -> Option<Status> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Refusal {
        code: RefusalCode,
        message: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct RefusalCode {
        code: String,
    }
    let refusal: Refusal = serde_json::from_str(answer).ok()?;
    Some(Status::failure(&refusal.message, &refusal.code.code))
}
