# The state of the service and, where $want_log is set, the last lines of its log that report an error. Secrets are masked here.

# $line without the values of $known.
mask() {
    spaces=$IFS IFS=$nl
    # shellcheck disable=SC2086
    set -- $known
    IFS=$spaces
    for value; do
        [ "${#value}" -ge 4 ] || continue
        masked=
        while :; do
            case $line in
                *"$value"*) masked=$masked${line%%"$value"*}'<hidden>' && line=${line#*"$value"} ;;
                *) break ;;
            esac
        done
        line=$masked$line
    done
}

log() {
    if [ "$log_command" ]; then
        bounded sh -c "$log_command"
    elif [ "$manager" = systemd ]; then
        bounded journalctl -u "$unit.service" -n 200 -o cat --no-pager
    elif [ "$manager" = openrc ] && [ -r "$root/var/log/$unit.log" ]; then
        tail -n 200 "$root/var/log/$unit.log"
    fi 2>/dev/null | tail -n 200 | head -c 262144
}

service_state() {
    case $manager in
        systemd)
            active='' sub='' restarts='' result=''
            for line in $(bounded systemctl show -p ActiveState -p SubState -p NRestarts -p Result "$unit.service"); do
                case $line in
                    ActiveState=*) active=${line#*=} ;;
                    SubState=*) sub=${line#*=} ;;
                    NRestarts=*) restarts=${line#*=} ;;
                    Result=*) result=${line#*=} ;;
                esac
            done
            emit service systemd "$unit" "$active" "$sub" "$restarts" "$result"
            ;;
        openrc)
            bounded rc-service "$unit" status >/dev/null 2>&1
            case $? in
                0) active=active ;;
                3) active=inactive ;;
                32) active=failed ;;
                *) active= ;;
            esac
            emit service openrc "$unit" "$active" '' '' ''
            ;;
        *) emit service none '' '' '' '' '' ;;
    esac
}

last_errors() {
    one='' two='' three=''
    text=$(log)
    spaces=$IFS IFS=$nl
    # shellcheck disable=SC2086
    set -- $text
    IFS=$spaces
    for line; do
        case $line in
            *level=fatal* | *level=error* | *[Ff]atal* | *FATAL* | *Error:* | *panic:* | *Shutdown\ request*)
                one=$two two=$three three=$line
                ;;
        esac
    done
    for line in "$one" "$two" "$three"; do
        mask
        [ -z "$line" ] || emit log "$(printf '%.500s' "$line")"
    done
}

[ "$manager" ] || find_unit
service_state
[ -z "$want_log" ] || last_errors
