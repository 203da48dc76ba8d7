# Keeps one PostgreSQL server for a test: obeys lines on standard input, and when that ends (the test has ended, however)
# ends the server at once and removes its directory. Runs in a session of its own, so that a Ctrl-C meant for the test
# does not end the keeper before it has cleaned up.
# Arguments: the directory, the program `postgres`.
dir=$1
postgres=$2
pid=
latest=

start() {
	"$postgres" -D "$dir/data" >>"$dir/server.log" 2>&1 </dev/null &
	pid=$!
	latest=$pid
}

# A signal, and the end of the server. A child that nobody has waited for keeps its id, so this meets nobody else.
end() {
	[ -n "$pid" ] || return
	kill -s "$1" "$pid" 2>/dev/null
	wait "$pid" 2>/dev/null
	pid=
}

trap '' INT TERM HUP
while read -r order; do
	case $order in
	start)
		end KILL
		start
		;;
	stop) end INT ;;
	crash) end KILL ;;
	esac
	echo "$order $latest"
done
end QUIT
cd / && rm -rf "$dir"
