# Changes one file: under a lock, only if its SHA-256 is $expected, beside it, synced and renamed. Mode, owner and label stay.

lock() {
    directory=$root/run
    [ -d "$directory" ] || directory=$root/var/run
    lock_file=$directory/kubectl-rotation.lock
    (: >>"$lock_file") 2>/dev/null || fail failed "the lock cannot be written" "${lock_file#"$root"}"
    tries=5
    if have flock; then
        exec 9>>"$lock_file"
        until flock -n 9; do try_again; done
    else
        # A killed script leaves the directory; its process does not exist any more.
        until mkdir "$lock_file.d" 2>/dev/null; do
            holder=$(cat "$lock_file.d/pid" 2>/dev/null)
            [ -n "$holder" ] && ! kill -0 "$holder" 2>/dev/null && rm -f "$lock_file.d/pid" && rmdir "$lock_file.d"
            try_again
        done
        echo $$ >"$lock_file.d/pid"
        trap 'rm -f "$lock_file.d/pid" && rmdir "$lock_file.d"' EXIT
    fi
}
try_again() {
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail locked "another run changes files on the node"
    sleep 1
}

synced() { sync "$1" 2>/dev/null || sync; }

# The file itself, where the path is a symbolic link: $real.
resolve() {
    real=$(readlink -f "$root$1") && [ -f "$real" ] || fail missing "it is not a file" "$1"
    backup=$real.$run.bak new=$real.$run.new
}

guard() { [ "$(digest <"$real")" = "$expected" ] || give_up changed "it has changed since it was read"; }

# Like `fail`, about $file, and leaves no half-written file.
give_up() {
    rm -f "$new"
    fail "$1" "$2" "$file"
}

# The first version that this run has found is kept until it is forgotten.
keep() {
    [ -e "$backup" ] && return
    rm -f "$new" && cp "$real" "$new" && chmod 600 "$new" && synced "$new" && mv -f "$new" "$backup" ||
        give_up failed "the backup cannot be written"
}

attributes() { stat -c '%u:%g:%a' "$1"; }

# Replaces the file by what the function $1 prints.
swap() {
    rm -f "$new" && cp -p "$real" "$new" || give_up failed "a file beside it cannot be written"
    "$1" >"$new" || give_up failed "a file beside it cannot be written"
    if have chcon && [ -e /sys/fs/selinux/enforce ]; then
        chcon --reference="$real" "$new" || give_up failed "the SELinux label cannot be copied"
    fi
    [ "$(attributes "$real")" = "$(attributes "$new")" ] || give_up failed "mode and owner cannot be copied"
    synced "$new"
    after=$(digest <"$new")
    guard
    mv -f "$new" "$real" || give_up failed "it cannot be replaced"
    synced "${real%/*}"
    emit edited "$file" "$after"
}

lock
