//! `kubectl apply` as Rancher runs it on a downstream cluster: client-side, against the annotation that holds what was
//! applied last. Fields that others set and Rancher never did survive; what Rancher set goes back to its own.

use serde_json::{Map, Value, json};

use crate::api::{Api, ApiError, ApiResult, MERGE, STRATEGIC};

/// The field manager of kubectl (`pkg/cmd/apply/apply.go` of k8s.io/kubectl, `FieldManagerClientSideApply`).
const MANAGER: &str = "kubectl-client-side-apply";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Lists that the API server merges by a key (`patchMergeKey` in `k8s.io/api` `core/v1/types.go`). All others are replaced.
fn merge_key(field: &str) -> Option<&'static str> {
    match field {
        "containers" | "initContainers" | "env" | "volumes" | "imagePullSecrets" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        _ => None,
    }
}

/// `object` with the annotation that the next apply starts from.
fn annotated(object: &Value) -> Value {
    let mut bare = object.clone();
    if bare["metadata"]["annotations"].is_null() {
        bare["metadata"]["annotations"] = json!({});
    }
    let mut object = bare.clone();
    object["metadata"]["annotations"][LAST_APPLIED] = format!("{bare}\n").into();
    object
}

/// The strategic merge patch of a three-way apply: every wanted field, and a deletion of every field that was applied
/// last and is no longer wanted. The live object need not be compared.
fn three_way(last: &Value, wanted: &Value) -> Value {
    merge(last, wanted)
}

fn merge(last: &Value, wanted: &Value) -> Value {
    let (Value::Object(last), Value::Object(wanted)) = (last, wanted) else {
        return wanted.clone();
    };
    let mut patch = Map::new();
    for (key, value) in wanted {
        let before = last.get(key).unwrap_or(&Value::Null);
        patch.insert(
            key.clone(),
            match (merge_key(key), before, value) {
                (Some(merge_key), Value::Array(before), Value::Array(value)) => merge_list(merge_key, before, value),
                _ => merge(before, value),
            },
        );
    }
    for key in last.keys().filter(|key| !wanted.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

fn merge_list(key: &str, last: &[Value], wanted: &[Value]) -> Value {
    let find = |list: &'_ [Value], item: &Value| list.iter().find(|other| other[key] == item[key]).cloned();
    let mut list: Vec<Value> = wanted
        .iter()
        .map(|item| merge(&find(last, item).unwrap_or(Value::Null), item))
        .collect();
    for gone in last.iter().filter(|item| find(wanted, item).is_none()) {
        list.push(json!({"$patch": "delete", key: gone[key]}));
    }
    Value::Array(list)
}

/// Applies one object. `collection` is where it is created, `path` where it is.
pub(crate) async fn apply(api: &Api, collection: &str, path: &str, object: &Value) -> ApiResult<()> {
    let wanted = annotated(object);
    let as_kubectl = |path: &str| format!("{path}?fieldManager={MANAGER}");
    let Some(live) = api.get(path).await? else {
        return match api.create(&as_kubectl(collection), &wanted).await {
            Err(ApiError::AlreadyExists) => Err(ApiError::Conflict),
            result => result.map(|_| ()),
        };
    };
    let last = live["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or("null");
    let mut last: Value = serde_json::from_str(last).unwrap_or(Value::Null);
    if let Some(annotations) = last.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let content = if object["apiVersion"] == "management.cattle.io/v3" {
        MERGE
    } else {
        STRATEGIC
    };
    let patch = three_way(&last, &wanted);
    api.patch(&as_kubectl(path), content, &patch).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(env: &Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": [{"name": "cluster-register", "env": env}]}}}})
    }

    #[test]
    fn only_applied_fields_are_reset() {
        let last = deployment(&json!([{"name": "CATTLE_CREDENTIAL_NAME", "value": "old"}]));
        let wanted = deployment(&json!([{"name": "CATTLE_CREDENTIAL_NAME", "value": "own"}]));
        let patch = three_way(&last, &wanted);
        assert_eq!(patch, wanted);
        assert!(patch["spec"].get("minReadySeconds").is_none());
    }

    #[test]
    fn a_removed_variable_is_deleted_by_name() {
        let last =
            deployment(&json!([{"name": "CATTLE_FEATURES", "value": "x"}, {"name": "CATTLE_SERVER", "value": "u"}]));
        let wanted = deployment(&json!([{"name": "CATTLE_SERVER", "value": "u"}]));
        let env = three_way(&last, &wanted)["spec"]["template"]["spec"]["containers"][0]["env"].clone();
        assert_eq!(
            env,
            json!([{"name": "CATTLE_SERVER", "value": "u"}, {"$patch": "delete", "name": "CATTLE_FEATURES"}])
        );
    }

    #[test]
    fn a_removed_field_is_set_to_null() {
        let patch = three_way(&json!({"data": {"a": "1", "b": "2"}}), &json!({"data": {"a": "1"}}));
        assert_eq!(patch, json!({"data": {"a": "1", "b": null}}));
    }

    #[test]
    fn the_annotation_holds_the_object_as_kubectl_writes_it() {
        let object = annotated(&json!({"metadata": {"name": "x"}}));
        let text = object["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
        assert_eq!(text, "{\"metadata\":{\"annotations\":{},\"name\":\"x\"}}\n");
    }
}
