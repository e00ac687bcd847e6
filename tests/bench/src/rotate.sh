#!/bin/sh
# The steps of `kubectl argocd-rancher rotate --all` with kubectl, curl and jq. Without an argument it rotates the tokens
# of all clusters of Argo CD, AT_ONCE at a time. The argument selects the Secret of one cluster.
set -eu

if [ $# = 0 ]; then
    kubectl get secrets -l argocd.argoproj.io/secret-type=cluster -o name | xargs -n 1 -P "$AT_ONCE" sh "$0"
    exit
fi

secret=$1
as() {
    bearer=$1
    shift
    curl --silent --show-error --cacert "$CA" --header "Authorization: Bearer $bearer" "$@"
}
field() { kubectl get "$secret" -o "jsonpath={.data.$1}" | base64 -d; }

server=$(field server)
cluster=${server##*/}
config=$(field config)
old=$(printf %s "$config" | jq -r .bearerToken)

# Mint.
asked=$(jq -nc --arg cluster "$cluster" '{type: "token", clusterId: $cluster, ttl: 7776000000, description: "for Argo CD"}')
new=$(as "$RANCHER" --fail --header 'Content-Type: application/json' --data "$asked" "$URL/v3/tokens" | jq -r .token)

# Prove: alone, through the proxy, and that it may look at everything.
as "$new" --fail --output /dev/null "$URL/v3/clusters/$cluster"
as "$new" --fail --output /dev/null "$server/version"
for verb in list watch; do
    review=$(jq -nc --arg verb "$verb" '{apiVersion: "authorization.k8s.io/v1", kind: "SelfSubjectAccessReview",
        spec: {resourceAttributes: {group: "*", resource: "*", verb: $verb}}}')
    as "$new" --fail --header 'Content-Type: application/json' --data "$review" \
        "$server/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" | jq -e .status.allowed >/dev/null
done

# Put it in place, and see after a while that nobody has put the old one back.
printf %s "$config" | jq -c --arg new "$new" '{stringData: {config: (.bearerToken = $new | tojson)}}' |
    kubectl patch "$secret" --type merge --patch-file /dev/stdin
sleep "$GRACE"
[ "$(field config | jq -r .bearerToken)" = "$new" ]

# Revoke the old one, and wait until it is refused.
as "$RANCHER" --fail --request DELETE "$URL/v3/tokens/${old%%:*}"
while [ "$(as "$old" --output /dev/null --write-out '%{http_code}' "$server/version")" = 200 ]; do
    sleep 0.5
done
