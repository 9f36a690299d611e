# Completion of onejob for bash. Candidates come from `onejob __complete`.
_onejob() {
    local line=${COMP_LINE:0:COMP_POINT} words cur prefix='' word candidate
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    cur=${words[${#words[@]}-1]}
    # Readline replaces only the part behind the last = or :.
    [[ $cur == *[=:]* ]] && prefix=${cur%"${cur##*[=:]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        case $candidate in
        :command*)
            local at=${candidate#:command } offset=0 separators
            for word in "${words[@]:0:at}"; do
                separators=${word//[^=:]/}
                offset=$((offset + 1 + 2 * ${#separators}))
            done
            if declare -F _command_offset >/dev/null; then
                _command_offset "$offset"
            elif ((${#words[@]} - 1 == at)); then
                COMPREPLY=($(compgen -c -- "$cur"))
            else
                COMPREPLY=($(compgen -f -- "$cur"))
            fi
            ;;
        :directories) COMPREPLY=($(compgen -d -- "$cur")) ;;
        *)
            COMPREPLY+=("${candidate#"$prefix"}")
            [[ $candidate == *= ]] && compopt -o nospace 2>/dev/null
            ;;
        esac
    done < <(command "${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
}
complete -F _onejob onejob
