# $action: replace, restore, forget. `replace`: $count lines from line $from go; with a $secret, one is written in their place.

# The new line, as text after the last line end: of the same form as the old one, or as an installer writes it.
written() {
    case $kind in
        yaml)
            before=' ' after=
            if [ "$count" != 0 ]; then
                yaml_key "$old" || return 1
                name=${old%"$rest"} && name=${name%:}
                yaml_value "$rest"
            fi
            printf '%s:%s"%s"%s' "$name" "$before" "$secret" "$after"
            ;;
        env)
            export=
            case $old in *export\ *) export='export ' ;; esac
            printf "%s%s='%s'" "$export" "$name" "$secret"
            ;;
        args) printf "\t'--%s' \\\\\n\t'%s' \\\\" "$name" "$secret" ;;
        file) printf %s "$secret" ;;
    esac
}

edited() {
    end=
    case $(head -n 1 "$real") in *"$cr") end=$cr ;; esac
    old=$(head -n $((from + count - 1)) "$real" | tail -n 1)
    old=${old%"$cr"}
    if [ "$from" -gt 1 ] && [ -s "$real" ]; then
        head -n $((from - 1)) "$real" || return 1
        # The last line may have no end.
        [ "$(head -n $((from - 1)) "$real" | tail -c 1 | od -An -tx1 | tr -d ' ')" = 0a ] || echo || return 1
    fi
    if [ "$secret" ]; then
        written && printf '%s\n' "$end" || return 1
    fi
    tail -n +$((from + count)) "$real"
}

backed_up() { cat "$backup"; }

for file in $files; do
    case $action in
        forget)
            real=$(readlink -f "$root$file") || continue
            rm -f "$real.$run.bak" "$real.$run.new" || fail failed "the backup cannot be removed" "$file"
            # A file that a run has created, and that has nothing in it any more.
            case $file in */config.yaml.d/90-agent-token.yaml) [ -s "$real" ] || rm -f "$real" ;; esac
            ;;
        restore)
            resolve "$file"
            [ -e "$backup" ] || fail missing "there is no backup of this run" "$file"
            guard
            swap backed_up
            ;;
        *)
            # A file that is missing was read as one without a SHA-256.
            if [ ! -e "$root$file" ] && [ -z "$expected" ]; then
                mkdir -p "$root${file%/*}" && : >"$root$file" || fail failed "it cannot be created" "$file"
                expected=$(digest <"$root$file")
            fi
            resolve "$file"
            guard
            keep
            swap edited
            ;;
    esac
done
