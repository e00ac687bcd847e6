# Reads the configuration, the files of the server, and the state of the service. Writes nothing.

one_line() { [ ! -r "$root$1" ] || head -n 1 "$root$1"; }
modified() { stat -Lc %Y "$root$1"; }

# One row of cred/passwd: password, user, id, groups. A record `row` per file and user.
passwd_rows() {
    while IFS= read -r line || [ "$line" ]; do
        case $line in
            \"*\",*) rest=${line#*\",} && value=${line#\"} && value=${value%%\",*} ;;
            # A password with a line break takes several lines.
            \"*) emit row "$1" '' '' && continue ;;
            *,*) rest=${line#*,} && value=${line%%,*} ;;
            *) continue ;;
        esac
        case $value in
            *\"*) emit row "$1" "${rest%%,*}" '' ;;
            *)
                # K3s before the fix of k3s-io/k3s#12982 could write the whole form here.
                split_token "$value"
                known=$known$value$nl$password$nl
                emit row "$1" "${rest%%,*}" "$(fingerprint "$value")"
                ;;
        esac
    done <"$root$1"
}

server_files() {
    file=$data/server/token
    if [ -e "$root$file" ]; then
        must_read "$file"
        trim "$(cat "$root$file")"
        known=$known$trimmed$nl
        print=
        split_token "$trimmed"
        [ -z "$password" ] || known=$known$password$nl print=$(fingerprint "$password")
        emit token "$(digest <"$root$file")" "$(modified "$file")" "$user" "$print"
    fi
    set +f
    for path in "$root$data"/server/cred/passwd*; do
        file=${path#"$root"}
        [ -f "$path" ] || continue
        must_read "$file"
        emit passwd "$file" "$(digest <"$path")" "$(modified "$file")"
        passwd_rows "$file"
    done
    set -f
    for file in encryption-config.json encryption-state.json; do
        file=$data/server/cred/$file
        [ ! -e "$root$file" ] || emit encryption "$file" "$(digest <"$root$file")" "$(modified "$file")"
    done
}

# The files of which the run has a backup.
backups() {
    # shellcheck disable=SC2086
    for file in ${fragment:-} ${dropins:-} $variable_files $targets "$config"; do
        real=$(readlink -f "$root$file" 2>/dev/null) || continue
        [ ! -e "$real.$run.bak" ] || emit backup "$file"
    done
    set +f
    for path in "$root$config.d"/*."$run.bak"; do
        file=${path#"$root"}
        [ ! -e "$path" ] || emit backup "${file%."$run.bak"}"
    done
    set -f
}

locate
server_files
backups
emit host "$(hostname 2>/dev/null || uname -n)" "$(one_line /etc/machine-id)"
