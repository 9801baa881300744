# forward COMMAND...: runs it and returns its exit code; SIGTERM and SIGHUP to the script that calls this reach it, while
# bash alone would end at once and leave it running. Sourced by run.sh and ablation.sh.
forward() {
    local child code again
    (trap - INT && exec "$@") <&0 &
    child=$!
    trap 'again=1; kill -TERM "$child"' TERM
    trap 'again=1; kill -HUP "$child"' HUP
    trap 'again=1' INT # Ctrl-C goes to the command as well
    while
        again= code=0
        wait "$child" || code=$?
        [ -n "$again" ]
    do :; done
    trap - TERM HUP INT
    return "$code"
}
