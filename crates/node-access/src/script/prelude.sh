# What every script shares. POSIX sh only: dash, the ash of busybox, and bash run it. Functions return in global variables.
#
# Variables that are set before: nonce, run, program, units, limit, and those of each script. A secret is only ever an argument of a
# builtin, or the standard input of a command.

set -uf
umask 077
LC_ALL=C
export LC_ALL
# A shell without login may lack these.
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Empty, but in tests, where it is a directory that holds the files of a node.
root=${KUBECTL_ROTATION_ROOT-}
cr=$(printf '\r')
nl='
'
quiet='' manager='' known=''

have() { command -v "$1" >/dev/null 2>&1; }

# A field of a record: `=text`, or `x` and hexadecimal digits.
field() {
    case $1 in
        *[!A-Za-z0-9._:/@+,-]*) printf ' x' && printf %s "$1" | od -An -v -tx1 | tr -d ' \n' ;;
        *) printf ' =%s' "$1" ;;
    esac
}

# A record of the result: its name and its fields.
emit() {
    case $quiet:$1 in 1:error | :*) ;; *) return 0 ;; esac
    record=@$nonce
    for part; do record=$record$(field "$part"); done
    printf '%s\n' "$record"
}

# Ends the script with an error: kind, sentence, file. Not for use in $(...).
fail() {
    emit error "$1" "$2" "${3-}"
    exit 1
}

# printf must not be a program of its own, whose arguments every user could read.
[ "$(command -v printf)" = printf ] || {
    echo "the shell of the node has no builtin printf" >&2
    exit 1
}
for tool in od tr cat cp mv rm sync readlink stat head tail; do
    have "$tool" || fail failed "$tool is not installed"
done

# Without root, what cannot be seen would be taken for missing.
[ "$root" ] || [ "$(id -u)" = 0 ] || fail failed "the commands do not run as root"

# The SHA-256 of standard input, in $(...).
if have sha256sum; then
    digest() { sha256sum | head -c 64; }
elif have openssl; then
    digest() { openssl dgst -sha256 -r | head -c 64; }
else
    fail failed "neither sha256sum nor openssl is installed"
fi
fingerprint() { printf %s "$1" | digest | head -c 12; }

now() { date +%s; }
deadline=$(($(now) + limit))
# Ends this script when the time is over, for what `bounded` does not cover. It ends within a second after the script.
(
    while [ "$(now)" -le "$deadline" ]; do sleep 1 && kill -0 $$ || exit; done
    kill $$
) </dev/null >/dev/null 2>&1 &

if have timeout && timeout 1 true 2>/dev/null; then has_timeout=1; else has_timeout=; fi

# Runs a command that may hang, for the rest of the time. 124: the time was over.
bounded() {
    left=$((deadline - $(now)))
    [ "$left" -gt 0 ] || left=1
    if [ "$has_timeout" ]; then
        timeout "$left" "$@" </dev/null
    else
        "$@" </dev/null &
        child=$!
        (
            while [ "$left" -gt 0 ]; do sleep 1 && kill -0 "$child" || exit; left=$((left - 1)); done
            kill "$child"
        ) >/dev/null 2>&1 &
        wait "$child"
    fi
    code=$?
    # SIGTERM, which the timeout of busybox reports as it is.
    [ "$code" -ne 143 ] || code=124
    return "$code"
}

# Without white space at the ends: $trimmed.
trim() {
    trimmed=$1
    while :; do
        case $trimmed in
            [[:space:]]*) trimmed=${trimmed#?} ;;
            *[[:space:]]) trimmed=${trimmed%?} ;;
            *) return 0 ;;
        esac
    done
}

# The part of a token that K3s compares: $password, and $user, which is `-` for a bare password.
split_token() {
    user=-
    password=$1
    case $1 in
        K10*::server:* | K10*::node:*)
            password=${1#K10*::}
            user=${password%%:*}
            password=${password#*:}
            ;;
        K10*::*) user=other password=${1#K10*::} ;;
    esac
}

# The only unit among the candidates: $manager is systemd, openrc or none. $must_exist: none is an error.
find_unit() {
    manager=none unit=
    found=
    for candidate in $units; do
        if [ -d "$root/run/systemd/system" ] && have systemctl; then
            case $(bounded systemctl show -p LoadState "$candidate.service") in
                LoadState=loaded) manager=systemd ;;
                *) continue ;;
            esac
        elif have rc-service && [ -e "$root/etc/init.d/$candidate" ]; then
            manager=openrc
        else
            continue
        fi
        unit=$candidate
        found=$found${found:+ and }$candidate
    done
    [ "$found" = "$unit" ] || fail refused "the services $found exist"
    [ "$found" ] || [ -z "$must_exist" ] || fail missing "there is no service $units"
}
