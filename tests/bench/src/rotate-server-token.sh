#!/bin/sh
# The procedure "By hand" of docs/server-token.md with curl, kubectl and a command on the nodes, for servers whose token is configured
# nowhere. Arguments: NAME=ADDRESS of each server, in the order of the round. OLD and NEW are files with the passwords.
set -eu

# as FILE ADDRESS PATH [OPTION...]: a request with the token in that file, which is in no argument.
as() {
    file=$1 url=https://$2:6443$3
    shift 3
    printf 'user = "server:%s"\n' "$(cat "$file")" | curl --silent --show-error --cacert "$CA" --config - "$@" "$url"
}
code() { as "$1" "$2" /v1-k3s/token --output /dev/null --write-out '%{http_code}' || true; }
on() { sh -c "$(printf %s "$NODE_EXEC" | sed "s/{address}/$1/") sh -s"; }
ready() { kubectl --context "$1" get --raw /readyz >/dev/null 2>&1; }
# It may still answer 503 when the API server is ready.
serves_agents() {
    printf 'user = "node:%s"\n' "$(cat "$1")" |
        curl --silent --fail --cacert "$CA" --config - --output /dev/null "https://$2:6443/v1-k3s/readyz"
}
votes() {
    type='{.status.conditions[?(@.type=="EtcdIsVoter")].status}'
    [ "$(kubectl --context "$1" get node "$1" -o "jsonpath=$type")" = True ]
}
snapshot() {
    as "$1" "$3" /db/snapshot --fail --output /dev/null --json "{\"operation\": \"save\", \"name\": [\"$2\"]}"
}

# Every server is ready, votes, and accepts the old token; the encryption of Secrets is the same; no token is configured.
status=
for server; do
    name=${server%%=*} address=${server#*=}
    ready "$name" && votes "$name" && [ "$(code "$OLD" "$address")" = 405 ]
    now=$(as "$OLD" "$address" /v1-k3s/encrypt/status --fail)
    [ "${status:=$now}" = "$now" ]
    found=$(echo "systemctl show k3s --property ExecStart --value" | on "$address" | grep -ce '--token' || true)
    [ "$found" = 0 ]
done

for server; do snapshot "$OLD" before "${server#*=}"; done

# The round.
for server; do
    body="{\"newToken\": \"$(cat "$NEW")\"}"
    printf %s "$body" >"$NEW.json"
    as "$OLD" "${server#*=}" /v1-k3s/token --fail --request PUT --data-binary "@$NEW.json"
done
rm "$NEW.json"

# One restart at a time.
for server; do
    name=${server%%=*} address=${server#*=}
    echo "systemctl --no-block restart k3s" | on "$address"
    until [ "$(code "$NEW" "$address")" = 405 ] && ready "$name" && serves_agents "$NEW" "$address" && votes "$name"; do
        sleep 0.5
    done
    [ "$(code "$OLD" "$address")" = 401 ]
done

for server; do snapshot "$NEW" after "${server#*=}"; done
