# The files `server/token` and `cred/passwd`. $action: read, agent, values, write, remove-passwd.

# A K10 form keeps its hash; an empty file gets the one that is given.
new_token() {
    trim "$(cat "$real")"
    case $trimmed in K10*::server:*) head=${trimmed%%::*}::server: ;; *) head=$k10 ;; esac
    printf '%s%s\n' "$head" "$secret"
}

quiet=1
locate
quiet=
file=$data/server/token
case $action in
    read)
        if [ -e "$root$file" ]; then
            must_read "$file"
            trim "$(cat "$root$file")"
            emit value "$(digest <"$root$file")" "$trimmed"
        fi
        ;;
    agent)
        # What the server has loaded at its last start.
        file=$data/server/cred/passwd
        if [ -e "$root$file" ]; then
            must_read "$file"
            while IFS= read -r line || [ "$line" ]; do
                case $line in \"*) ;; *,node,*) emit value "${line%%,*}" ;; esac
            done <"$root$file"
        fi
        ;;
    values)
        # Of the places of a configuration, the passwords are there too.
        values=$known
        [ ! -e "$root$file" ] || { must_read "$file" && values=$values$nl$(cat "$root$file"); }
        set +f
        for path in "$root$data"/server/cred/passwd*; do
            [ -f "$path" ] || continue
            while IFS= read -r line || [ "$line" ]; do
                case $line in *,server,*) values=$values$nl${line%%,*} ;; esac
            done <"$path"
        done
        set -f
        spaces=$IFS IFS=$nl
        # shellcheck disable=SC2086
        set -- $values
        IFS=$spaces
        for value; do
            trim "$value"
            [ -z "$trimmed" ] || emit value "$trimmed"
        done
        ;;
    write)
        # A file that is missing was read as one without a SHA-256.
        if [ ! -e "$root$file" ] && [ -z "$expected" ]; then
            : >"$root$file" || fail failed "it cannot be created" "$file"
            expected=$(digest <"$root$file")
        fi
        resolve "$file"
        guard
        keep
        swap new_token
        ;;
    remove-passwd)
        file=$data/server/cred/passwd
        resolve "$file"
        guard
        keep
        rm -f "$real" || fail failed "it cannot be removed" "$file"
        synced "${real%/*}"
        emit removed "$file"
        ;;
esac
