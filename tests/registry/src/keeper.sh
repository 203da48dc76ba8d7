# Keeps one registry for a test: when standard input ends (the test has ended, however), ends the registry and removes its
# directory. Runs in a session of its own, so that a Ctrl-C meant for the test does not end the keeper before it has cleaned up.
# Arguments: the directory, the program `docker-registry`. What the registry says goes to standard error.
trap '' INT TERM HUP
"$2" serve "$1/config.yml" </dev/null >/dev/null &
pid=$!
# The test must be the only one that listens, so that it sees the end of what the registry says.
exec 2>/dev/null
read -r _
# A child that nobody has waited for keeps its id, so this meets nobody else.
kill -s KILL "$pid" 2>/dev/null
wait "$pid" 2>/dev/null
cd / && rm -rf "$1"
