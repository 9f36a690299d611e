# Completion of onejob for fish. Candidates come from `onejob __complete`.
function __onejob_complete
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    set -l lines (command onejob __complete $words[2..] "$cur" 2>/dev/null)
    switch "$lines[1]"
        case ':command*'
            __fish_complete_subcommand --fcs-skip=(string replace ':command ' '' -- $lines[1])
        case ':directories'
            __fish_complete_directories "$cur"
        case '*'
            printf '%s\n' $lines
    end
end
complete -c onejob -f -a '(__onejob_complete)'
