# $action: restart, start, start-once, end-once, stop, reload. $command replaces restart, start and stop. $delay: seconds before a restart.

# Hands a command over without waiting until the service is ready, and reports only a failure of its first seconds.
hand_over() {
    if have setsid; then set -- setsid "$@"; fi
    (
        trap '' HUP
        exec "$@"
    ) </dev/null >/dev/null 2>&1 9>&- &
    child=$!
    seconds=2
    while kill -0 "$child" 2>/dev/null; do
        [ "$seconds" -gt 0 ] || return 0
        seconds=$((seconds - 1))
        sleep 1
    done
    wait "$child"
}

# Until it is removed, systemd starts the service once, and not again if it fails.
start_once() {
    mkdir -p "${once%/*}" && printf '[Service]\nRestart=no\n' >"$once" || return 1
    bounded systemctl daemon-reload && bounded systemctl --no-block start "$unit.service"
}

problem=
refuse() { problem=$1 && return 98; }

# Its output goes to standard error, which is not part of the result.
perform() {
    case $manager:$action in
        *:restart | *:start | *:stop)
            if [ "$command" ]; then
                [ "$delay" = 0 ] || refuse "a pod that runs the command would end with the service" || return
                if [ "$action" = stop ]; then bounded sh -c "$command"; else hand_over sh -c "$command"; fi
                return
            fi
            ;;
    esac
    case $manager:$action in
        systemd:restart)
            if [ "$delay" = 0 ]; then
                bounded systemctl --no-block restart "$unit.service"
            elif have systemd-run; then
                bounded systemd-run --quiet --on-active="$delay" --timer-property=AccuracySec=100ms systemctl restart "$unit.service"
            else
                refuse "systemd-run is not installed, and the pod would end with the service"
            fi
            ;;
        systemd:start) bounded systemctl --no-block start "$unit.service" ;;
        systemd:start-once) start_once ;;
        systemd:end-once) [ ! -e "$once" ] || { rm -f "$once" && bounded systemctl daemon-reload; } ;;
        systemd:stop) bounded systemctl stop "$unit.service" ;;
        systemd:reload) bounded systemctl daemon-reload ;;
        openrc:restart | openrc:start)
            if [ "$delay" != 0 ]; then
                refuse "a pod that restarts the service with OpenRC would end with it"
                return
            fi
            hand_over rc-service "$unit" "$action"
            ;;
        openrc:stop) bounded rc-service "$unit" stop ;;
        *:reload | *:end-once) ;;
        *) refuse "the service is not known: neither systemd nor OpenRC has $units" ;;
    esac
}

find_unit
once=$root/run/systemd/system/$unit.service.d/90-kubectl-rotation.conf
perform >&2
code=$?
case $code in
    0) ;;
    98) fail refused "$problem" ;;
    124) fail timeout "the service manager does not return in time" ;;
    *) fail failed "$action of the service failed with exit code $code" ;;
esac
