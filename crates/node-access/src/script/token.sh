# The files `server/token` and `cred/passwd`. $action: read, write, remove-passwd.

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
    write)
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
