#compdef onejob
# Completion of onejob for zsh. Candidates come from `onejob __complete`.
_onejob() {
    local line word description
    local -a candidates
    for line in "${(@f)$(command onejob __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
        :command*)
            local at=${line#:command }
            shift $at words
            (( CURRENT -= at ))
            _normal
            return
            ;;
        :directories)
            _path_files -/
            return
            ;;
        ?*)
            word=${line%%$'\t'*} description=
            [[ $line == *$'\t'* ]] && description=${line#*$'\t'}
            candidates+=("${word//:/\\:}${description:+:$description}")
            ;;
        esac
    done
    _describe -V onejob candidates
}
if [[ $funcstack[1] == _onejob ]]; then
    _onejob "$@"
else
    compdef _onejob onejob
fi
