# Where a token is configured. A `place` record has: kind, file, line, lines, name, key, state, fingerprint, user, SHA-256 of the file,
# target, SHA-256 of the target. `state` is `plain`, or why the place cannot be edited. The values go to $known, so that they can be masked in the log.

bom=$(printf '\357\273\277')
case $program in
    k3s) prefix=K3S ;;
    *) prefix=RKE2 ;;
esac
config=$config_file
flag_config='' env_config='' flag_data='' yaml_data='' env_data=''

# The key of a name of a flag, a YAML key or a variable: $key. Others: 1.
key_of() {
    case $1 in
        token | t | "${prefix}_TOKEN") key=token ;;
        agent-token | "${prefix}_AGENT_TOKEN") key=agent-token ;;
        token-file | "${prefix}_TOKEN_FILE") key=token-file ;;
        agent-token-file | "${prefix}_AGENT_TOKEN_FILE") key=agent-token-file ;;
        data-dir | d | "${prefix}_DATA_DIR") key=data-dir ;;
        config | c | "${prefix}_CONFIG_FILE") key=config ;;
        *) return 1 ;;
    esac
}

# kind, file, line, lines, name, value, state
place() {
    key_of "$5"
    case $1:$key in
        args:data-dir) flag_data=$6 && return ;;
        yaml:data-dir) yaml_data=$6 && return ;;
        *:data-dir) env_data=$6 && return ;;
        args:config) flag_config=$6 && return ;;
        yaml:config) return ;;
        *:config) env_config=$6 && return ;;
    esac
    print='' user=- target='' value=$6 sum='' target_sum=''
    case $key in
        *-file)
            target=$value value='' targets="$targets $target"
            if [ -e "$root$target" ]; then
                must_read "$target"
                target_sum=$(digest <"$root$target")
                trim "$(cat "$root$target")"
                value=$trimmed
            fi
            ;;
    esac
    if [ "$value" ] && { [ "$7" = plain ] || [ "$7" = fixed ]; }; then
        split_token "$value"
        print=$(fingerprint "$password")
        known=$known$value$nl$password$nl
    fi
    [ -z "$2" ] || sum=$(digest <"$root$2")
    emit place "$1" "$2" "$3" "$4" "$5" "$key" "$7" "$print" "$user" "$sum" "$target" "$target_sum"
}

# What follows the colon of a YAML key: $before (spaces), $value, $after (spaces and a comment), $state.
yaml_value() {
    state=plain value='' after=''
    before=${1%%[![:space:]]*}
    rest=${1#"$before"}
    case $rest in
        \'*)
            rest=${rest#\'}
            value=${rest%%\'*}
            after=${rest#*\'}
            [ "$rest" != "$value" ] || state="it has several lines"
            ;;
        \"*)
            rest=${rest#\"}
            value=${rest%%\"*}
            after=${rest#*\"}
            [ "$rest" != "$value" ] || state="it has several lines"
            case $value in *\\*) state="it contains escapes" ;; esac
            ;;
        '' | '#'* | '|'* | '>'* | '&'* | '*'* | '!'* | '{'* | '['* | '%'* | '@'* | '`'* | '?'* | '-')
            state="it is not a value on one line"
            ;;
        *)
            value=${rest%%[[:space:]]#*}
            trim "$value"
            value=$trimmed
            after=${rest#"$value"}
            case $value in
                *': '* | *:) state="it is not a text" ;;
                true | false | yes | no | on | off | null | '~' | 0[xo]*) state="YAML does not read it as text without quotes" ;;
                *[!0-9._+eE-]*) ;;
                *) state="YAML does not read it as text without quotes" ;;
            esac
            ;;
    esac
    [ "$state" = plain ] || return 0
    trim "$after"
    case $after:$trimmed in
        :* | [[:space:]]*: | [[:space:]]*:'#'*) ;;
        *) state="it is not a value on one line" ;;
    esac
}

# A line of YAML that begins with a key: $name, and $rest after the colon. Others: 1.
yaml_key() {
    case $1 in
        \"*\"*:*) name=${1#\"} && rest=${name#*\"} && name=${name%%\"*} ;;
        \'*\'*:*) name=${1#\'} && rest=${name#*\'} && name=${name%%\'*} ;;
        *:*) name=${1%%:*} && rest=:${1#*:} ;;
        *) return 1 ;;
    esac
    trim "$name" && name=$trimmed
    rest=${rest#"${rest%%[![:space:]]*}"}
    case $rest in
        : | :[[:space:]]*) rest=${rest#:} ;;
        *) return 1 ;;
    esac
    case $name in *\\*) return 1 ;; esac
}

# What cannot be read is not the same as what does not exist.
must_read() { [ -r "$root$1" ] || fail failed "a file cannot be read" "$1"; }

scan_yaml() {
    number=0 pending='' odd='' seen=''
    must_read "$1"
    while IFS= read -r line || [ "$line" ]; do
        number=$((number + 1))
        line=${line%"$cr"}
        line=${line#"$bom"}
        trim "$line"
        case $trimmed in '' | '#'*) continue ;; esac
        case $line in
            # The value of the key before continues here.
            [[:space:]]* | - | '- '*)
                [ -z "$pending" ] || pending_state="it has several lines"
                continue
                ;;
        esac
        flush
        case $line in
            ---)
                odd=$odd$seen
                continue
                ;;
            '<<'* | '{'* | '['* | '?'* | '&'* | '*'* | '!'* | '%'*) odd=1 && continue ;;
        esac
        seen=1
        if ! yaml_key "$line"; then
            odd=1
        elif key_of "${name%+}"; then
            pending=${name%+} pending_line=$number
            yaml_value "$rest"
            [ "$name" = "$pending" ] || state="its key ends with +"
            pending_value=$value pending_state=$state
        fi
    done <"$root$1"
    flush
    [ -z "$odd" ] || case $(cat "$root$1") in
        *[tT][oO][kK][eE][nN]*) place yaml "$1" 0 0 token '' "the file is not a plain list of keys and values" ;;
    esac
}
flush() {
    [ -z "$pending" ] || place yaml "$file" "$pending_line" 1 "$pending" "$pending_value" "$pending_state"
    pending=
}

# The value of a variable: $value, $state.
env_value() {
    state=plain value=$1
    case $1 in
        \'*\') value=${1#\'} && value=${value%\'} ;;
        \"*\") value=${1#\"} && value=${value%\"} ;;
        *[[:space:]]*) state="it has white space without quotes" ;;
    esac
    case $value in
        *[\'\"\\\$\`]*) state="it contains quotes, escapes or variables" ;;
        '') state="it is empty" ;;
    esac
}

scan_env() {
    number=0 joined=
    must_read "$1"
    while IFS= read -r line || [ "$line" ]; do
        number=$((number + 1))
        trim "${line%"$cr"}"
        was_joined=$joined joined=
        case $trimmed in *\\) joined=1 ;; esac
        trimmed=${trimmed#export }
        case $trimmed in [A-Z]*=*) ;; *) continue ;; esac
        key_of "${trimmed%%=*}" || continue
        env_value "${trimmed#*=}"
        [ -z "$was_joined$joined" ] || state="it has several lines"
        place env "$1" "$number" 1 "${trimmed%%=*}" "$value" "$state"
    done <"$root$1"
}

# The arguments as installers write them: each on a line, in quotes, with a backslash at its end. Then the line, or the two, can go.
scan_lines() {
    number=0 name=
    while IFS= read -r line || [ "$line" ]; do
        number=$((number + 1))
        trim "$line"
        word=$trimmed
        case $word in *\\) trim "${word%\\}" && word=$trimmed && joined=1 ;; *) joined= ;; esac
        case $word in \'*\') word=${word#\'} && word=${word%\'} ;; esac
        if [ "$name" ]; then
            [ "$joined" ] && argument $((number - 1)) 2 "$word"
            name=
        fi
        case $word in
            -*=*)
                name=${word#-} && name=${name#-} && name=${name%%=*}
                [ "$joined" ] && key_of "$name" && argument "$number" 1 "${word#*=}"
                name=
                ;;
            -*)
                name=${word#-} && name=${name#-}
                { [ "$joined" ] && key_of "$name"; } || name=
                ;;
        esac
    done <"$root$1"
}
# line, lines, value: counts those of $wanted.
argument() {
    [ "$name" = "$wanted" ] || return 0
    matches=$((matches + 1)) at=$1 lines=$2 at_file=$file at_value=$3
}

# The words of the command, then the files in which they may stand.
scan_args() {
    files=$2
    name=
    for word in $1; do
        case $word in
            \'*\') word=${word#\'} && word=${word%\'} ;;
            \"*\") word=${word#\"} && word=${word%\"} ;;
        esac
        value=$word
        if [ -z "$name" ]; then
            case $word in -*) ;; *) continue ;; esac
            name=${word#-} && name=${name#-}
            case $name in *=*) value=${name#*=} && name=${name%%=*} ;; *) value= ;; esac
            key_of "$name" || name=
            [ "$value" ] || continue
        fi
        [ "$name" ] || continue
        find_argument
        name=
    done
}
find_argument() {
    wanted=$name argument_value=$value
    matches=0 at=0 lines=0 at_file='' at_value=''
    for file in $files; do
        [ ! -e "$root$file" ] || scan_lines "$file"
    done
    name=$wanted state="it is not on a line of its own in one of: $files"
    if [ "$matches" = 1 ] && [ "$at_value" = "$argument_value" ]; then state=plain; else at=0 at_file=''; fi
    case $argument_value in
        *[\'\"\\\$\`%]*) state="it contains quotes, escapes or variables" ;;
        *) [ "$state" = plain ] || state=fixed ;;
    esac
    place args "$at_file" "$at" "$lines" "$wanted" "$argument_value" "$state"
}

locate_systemd() {
    dropins='' fragment='' arguments='' variables='' variable_files=
    properties=$(bounded systemctl show -p FragmentPath -p DropInPaths -p ExecStart -p Environment -p EnvironmentFiles "$unit.service") ||
        fail failed "systemctl show does not succeed"
    # No here-document: some shells write it to a file, and the arguments may contain a token.
    spaces=$IFS IFS=$nl
    # shellcheck disable=SC2086
    set -- $properties
    IFS=$spaces
    for line; do
        case $line in
            FragmentPath=*) fragment=${line#*=} ;;
            DropInPaths=*) dropins=${line#*=} ;;
            EnvironmentFiles=*) line=${line#*=} && variable_files="$variable_files ${line% (*}" ;;
            Environment=*) variables=${line#*=} ;;
            ExecStart=*'argv[]='*) line=${line#*argv\[\]=} && arguments=${line%% ; ignore_errors=*} ;;
        esac
    done
    scan_args "$arguments" "$fragment $dropins"
    for word in $variables; do
        word=${word#\"} && word=${word%\"}
        if key_of "${word%%=*}"; then
            place unit '' 0 0 "${word%%=*}" "${word#*=}" fixed
        fi
    done
}

# The whole configuration, in the order in which it is found.
locate() {
    files='' variable_files='' targets=
    find_unit
    case $manager in
        systemd) locate_systemd ;;
        openrc)
            variable_files="/etc/rancher/$program/$program.env /etc/conf.d/$unit"
            script="$(cat "$root/etc/init.d/$unit")$nl$([ ! -r "$root/etc/conf.d/$unit" ] || cat "$root/etc/conf.d/$unit")"
            script=$(printf '%s\n' "$script" | tr '\\"' '  ')
            scan_args "$script" "/etc/init.d/$unit /etc/conf.d/$unit"
            ;;
        *)
            for file in $units; do
                variable_files="$variable_files /etc/systemd/system/$file.service.env /etc/default/$file /etc/sysconfig/$file"
            done
            variable_files="$variable_files /etc/rancher/$program/$program.env"
            ;;
    esac
    for file in $variable_files; do
        [ ! -e "$root$file" ] || scan_env "$file"
    done
    config=${config:-${flag_config:-${env_config:-/etc/rancher/$program/config.yaml}}}
    file=$config
    [ ! -e "$root$file" ] || scan_yaml "$file"
    set +f
    for path in "$root$config.d"/.* "$root$config.d"/*; do
        file=${path#"$root"}
        case $path in *.yaml | *.yml) [ ! -f "$path" ] || scan_yaml "$file" ;; esac
    done
    set -f
    data=${data_dir:-${flag_data:-${yaml_data:-${env_data:-/var/lib/rancher/$program}}}}
    # K3s obeys it after config.yaml. A key in it stands alone, whatever the form of config.yaml is.
    file=$config.d/90-agent-token.yaml sum=
    [ ! -e "$root$file" ] || { must_read "$file" && sum=$(digest <"$root$file"); }
    emit configuration "$config" "$data" "$file" "$sum"
}
