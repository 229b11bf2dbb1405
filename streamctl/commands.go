package main

// commands are all of streamctl's, in the order of its help. The variable is set in init, for help itself reads it.
var commands []command

func init() {
	commands = []command{
		{
			name: "stream append", usage: "-n NAME [-m TEXT | -e JSON | [--text] < LINES] [--close]",
			does:  "append events to a stream",
			flags: "name message event text key if-tail close quiet json server cacert token-file dir", run: streamAppend,
			manual: `
Appends an event and prints it once it is on the disk. Without -m and -e it appends the lines of its input as they
come; each line is one JSON value in UTF-8, or with --text the text of a message, a blank one too. A line that cannot
be appended ends the command, and the message names it. In a text, bytes that are not UTF-8 become U+FFFD, and the
command says at the end how many they were. A lost connection is made again, and no line is appended twice. When the
command ends early, as after Ctrl-C, it says how much was appended. It goes on to the end of its input when nobody
reads what it prints. On a terminal many lines are not printed again, but with --json: one line says how many they were,
from which offset to which, and in how long. With --key or --if-tail all lines are one append: all of them are appended,
or none. With --close the stream is closed behind the last event, also where the input has no line at all, but not when the command ends
early.

  streamctl stream append -n orders -m "first order"
  streamctl stream append -n orders -e '{"type":"paid","amount":12.50}'
  tail -f app.log.ndjson | streamctl stream append -n log
  make 2>&1 | streamctl stream append -n build --text`,
		},
		{
			name: "stream subscribe", usage: "-n NAME [-o OFFSET | --since TIME | --last N] | --all [--prefix PREFIX]",
			does: "print events as they come",
			flags: "name offset since last type text data json pretty full cursor until-caught-up all prefix server cacert " +
				"token-file dir",
			many: "type",
			run:  streamSubscribe,
			also: map[string]string{"offset": " (now)", "text": "; other events are JSON"},
			manual: `
Prints the events that are appended from now on, or those from an offset on and then what comes, until Ctrl-C. When
the server ends or the connection breaks it connects again and goes on, with no gap and no repeat; where the first
connection fails it ends. Behind the last event of a stream that is closed it ends, with exit status 0. With
--until-caught-up it begins with the first event, unless told otherwise, and ends behind the last one that there is.

With --cursor it keeps in a file which event comes next, and goes on with that when it is run again, whatever ended
it, kill -9 too: it leaves nothing out, and may print the events of the last tenth of a second again. When there is no
file yet it begins with the first event, unless told otherwise. A file that is no cursor of the stream is an error.

With --all it prints the new events of every stream, also of those made later, and goes on when one is closed; events
that are appended while the connection is lost are left out then.

With --text it prints the text of messages, and with --data what was appended, each without offset and time. On a
terminal it prints a line for a person, of time, offset, type and what of the rest fits, with --full all of it; --json
makes that lines of JSON, as on a pipe. There nothing can move the cursor: control characters are printed as in JSON.
The environment's NO_COLOR and TERM=dumb take the colours away.

  streamctl stream subscribe -n orders -o -1
  streamctl stream subscribe -n orders --since 90m --until-caught-up
  streamctl stream subscribe -n orders --cursor orders.cursor --until-caught-up
  streamctl stream subscribe -n build -o -1 --text
  streamctl stream subscribe --all --prefix user/`,
		},
		{
			name: "stream get", usage: "-n NAME [-o OFFSET | --since TIME] [-l N] | --last N", does: "print the events there are",
			flags: "name offset since limit last type text data json pretty full server cacert token-file dir",
			many:  "type", reads: true,
			run:  streamGet,
			also: map[string]string{"offset": " (-1)", "limit": " (no limit)", "text": "; other events are JSON"},
			manual: `
Prints the events that a stream has now, from the first one unless told otherwise. With --text it prints the text of
messages, and with --data what was appended, each without offset and time. On a terminal it prints a line for a person,
and with --json lines of JSON, as on a pipe; see stream subscribe.

  streamctl stream get -n orders
  streamctl stream get -n orders --last 10 --type paid
  streamctl stream get -n orders --since 2026-01-31T09:00:00Z --limit 100`,
		},
		{
			name: "stream wait", usage: "-n NAME [--type TYPE] [-o OFFSET | --since TIME] [--timeout 30s]",
			does:  "print the first event that matches, once there is one",
			flags: "name type offset since text data json pretty full timeout server cacert token-file dir",
			many:  "type", run: streamWait,
			also: map[string]string{"offset": " (-1)", "text": "; other events are JSON",
				"timeout": ": how long to wait for what is not there yet (30s)"},
			manual: `
Prints the first event of the stream that matches, as soon as there is one. The exit status is 1 when there is none in
time, and at once when the stream is closed and has none. With "--offset now" only events that are appended from now
on count.

  streamctl stream wait -n builds --type done --timeout 10m`,
		},
		{
			name: "stream list", usage: "[--prefix PREFIX] [--details] [--json]", does: "print the streams",
			flags: "prefix details json pretty server cacert token-file dir", reads: true, run: streamList,
			manual: `
Prints the names of the streams in order, one a line; on a terminal, or with --pretty, a table with their events, sizes
and ages. With --details it prints a table of how many events they keep, the offset of the first of these, their sizes
and ages, and which are closed; with --json a JSON object a line.`,
		},
		{
			name: "stream close", usage: "-n NAME [--if-tail OFFSET]", does: "say that a stream has no more events",
			flags: "name if-tail server cacert token-file dir", run: streamClose,
			manual: `
Closes a stream behind its last event: a later append fails, and subscriptions end when they have printed all events.
It is no error when the stream is closed already. Nothing opens it again but to delete it. See also stream append
--close, which closes the stream in one with its last event.`,
		},
		{
			name: "stream trim", usage: "-n NAME --before OFFSET | --keep N", does: "drop the oldest events of a stream",
			flags: "name before keep json server cacert token-file dir", reads: true, run: streamTrim,
			manual: `
Drops the events before an offset, or all but the last N. The other events keep their offsets, no offset is given
again, and a closed stream stays closed. A reader that asks for what was dropped is told where the stream begins now.
On a terminal, and with --json, it says how many events went.

  streamctl stream trim -n log --keep 100000
  streamctl stream trim -n log --before 5000`,
		},
		{
			name: "stream delete", usage: "-n NAME", does: "delete a stream with its events",
			flags: "name server cacert token-file dir", reads: true, run: streamDelete,
			manual: `
Deletes a stream with its events and ends its subscriptions. A later append begins again at offset 0. It is no error
when there is no such stream.`,
		},
		{
			name: "export", usage: "[--prefix PREFIX | -n NAME] > FILE", does: "print streams exactly, for import",
			flags: "prefix name server cacert token-file dir", reads: true, run: exportStreams,
			manual: `
Prints all streams, or those that are meant, as lines of JSON: each stream's events with their offsets, times and keys,
and what else is known of the stream, as of one moment. With tokens it needs the right to admin. Where a stream cannot
be read to its end, the others are there all the same, and the exit status is 1. "go doc" of streamlib/transfer has the
form of the lines.

  streamctl export > streams.ndjson
  streamctl export --prefix jobs/ | gzip > jobs.ndjson.gz
  jq -c 'select(.offset) | .data' streams.ndjson`,
		},
		{
			name: "import", usage: "< FILE", does: "add what was exported",
			flags: "json server cacert token-file dir", run: importStreams,
			manual: `
Adds the streams of an export to those of the server, with the same offsets, times, keys and bytes, and prints how many
events were new. Of a stream that is there the events that both have are compared: where one differs, or the stream was
deleted and made again, it is an error, and nothing more is added to that stream. Nothing is ever taken away. An import
that was interrupted is done again with the same input, and adds what is missing; a stream is closed when it is whole.
With tokens it needs the right to admin.

  streamctl import < streams.ndjson
  streamctl export --server http://old:3000 | streamctl import --server http://new:3000`,
		},
		{
			name: "run", usage: "-n NAME -- COMMAND [ARGS]", does: "run a command and append what it prints",
			flags: "name server cacert token-file dir", args: true, run: runCommand,
			manual: `
Runs a command and passes on what it prints, at once and unchanged. Each line is appended, too, as a message from
stdout or stderr; the lines of one of them are in order, and those of both in the order in which they came out of two
pipes. When the command ends, an event says how and closes the stream, so each run has a stream of its own:

  {"type":"message","text":LINE,"from":"stdout"}
  {"type":"exit","code":N}

Its input and its signals are the command's: INT, TERM, HUP and QUIT are passed on. The exit status is the command's,
or 128 and the number of the signal that killed it, whose name is in the event's "signal". It is 127 where there is no
such command, and 126 where it cannot be run; then nothing is appended.

Whatever becomes of the server, the command goes on, and only an exit status of 0 becomes 1. Up to 8 MiB of output
wait in memory for the server. With more the command is held up, for 30 seconds in all; after that, lines for which
there is no room are left out, as are lines that are too long for an event. An event {"type":"lost","lines":N} stands
in their place. After the end of the command the server has 30 seconds for what it has not got yet. Output that other
processes hold open is read for one second more.

  streamctl run -n build -- make -j8
  streamctl run -n nightly -- sh -c 'pg_dump shop | gzip > shop.gz'`,
		},
		{
			name: "server run", usage: "[flags]", does: "run the folder's server in the foreground",
			flags: streamdFlags + " dir", many: "retain expire webhook allow-host allow-origin", run: serverRun,
			manual: `
Runs streamd for the folder until Ctrl-C or SIGTERM. Its log goes to stderr.`,
		},
		{
			name: "server start", usage: "[flags]", does: "start the folder's server in the background",
			flags: streamdFlags + " dir json", many: "retain expire webhook allow-host allow-origin", run: serverStart,
			manual: `
Starts streamd for the folder in the background and returns when it answers. When no port is given and 3000 is taken,
it takes a free one. It is an error when the folder has a server already. The server logs to daemon.log in the folder.
A server that is started by itself later, as after a crash, gets the same flags.`,
		},
		{
			name: "server stop", usage: "[--timeout 10s]", does: "end the folder's server",
			flags: "timeout server cacert dir json", run: serverStop,
			also: map[string]string{"timeout": ": how long the server may take to end before it is killed (10s)"},
			manual: `
Ends the folder's server and returns when it has ended. A server that takes longer than the timeout is killed, which
loses nothing that was acknowledged. The exit status is 3 when no server runs. A server tells which folder it has
through the folder's own socket alone: name it by --dir, or by --server unix:DIR/daemon.sock.`,
		},
		{
			name: "server restart", usage: "[flags]", does: "end the folder's server and start it again",
			flags: streamdFlags + " server cacert dir json",
			many:  "retain expire webhook allow-host allow-origin", run: serverRestart,
			manual: `
Ends the folder's server and starts it again with the flags that it had, except for those that are given now. Wrong
flags leave the server running, and when the new one does not start, the former one is started again. When no server
runs, it starts one with the flags that the last one had. A server that systemd has started is left to systemctl.`,
		},
		{
			name: "server status", usage: "[--check] [--json]",
			does:  "tell whether the folder's server runs, where, and how it does",
			flags: "check json server cacert token-file dir", run: serverStatus,
			manual: `
Prints the server's pid, URL, version, folder, log file, uptime and flags, how many streams it has and how much of the
disk, when it synced last, which streams are damaged, and whether it takes appends. Where it does not, or does not
answer, the last lines of its log follow, and where its version is another than streamctl's, what mends that. When no
server runs it prints "Not running", and the exit status is 3. A server that is named by an http URL tells less.

With --check it looks at the server, the versions, the folder's rights and lock, the port, the disk, the clock, the
descriptors and the page cache, and says of each that it is ok, or what to type. The exit status is 1 when something
is not ok, and 3 when no server runs.

  streamctl server status --check`,
		},
		{
			name: "service install", usage: "[--user] [--print] [flags]", does: "make the server a service of systemd",
			flags: serviceFlags + " dir user print", many: "retain expire webhook allow-host allow-origin",
			run:  serviceInstall,
			also: map[string]string{"dir": "; here the service's own, /var/lib/streamd", "unix": ": the service's"},
			manual: `
Writes two units for systemd 252 or later, streamd.socket and streamd.service, and says what to type next. Systemd
listens, and hands its socket to streamd: a restart refuses no connection. The service may write to its folder and to
nothing else; it is reloaded by SIGHUP, and started again when it fails, hangs, or the disk has failed to sync. A socket
of --unix is made by systemd, which replaces whatever socket stands there.

  streamctl service install --print
  sudo streamctl service install --port 3000 --retain '*=30d'
  streamctl service install --user`,
		},
		{
			name: "service uninstall", usage: "[--user] [--print]", does: "remove the service's units",
			flags: "user print", run: serviceUninstall,
			manual: `
Removes the units that install writes, and says what to type next. The streams stay.`,
		},
		{
			name: "service status", usage: "[--user]", does: "tell how the service does",
			flags: "user", run: serviceStatus,
			manual: `
Prints what systemd says of the service, and what that has said of itself last. The exit status is 3 where it is not
installed or does not run.`,
		},
		{
			name: "token create", usage: "NAME --can read|write|admin [--prefix PREFIX] [--expires 30d] [--file FILE]",
			does:  "make a token for a server's file of tokens",
			flags: "can prefix expires file json", many: "prefix", word: true, run: tokenCreate,
			manual: `
Makes a secret and prints it once; it is kept nowhere. With --file it adds the token's line to that file, which has
only the digest of the secret, and the server of the file knows the token within a second. Without --file it prints
the line, too.

A token that can read reads and lists, one that can write appends and closes too, and one that can admin trims,
deletes, exports and imports too. The token is for all streams or, with --prefix, which may be repeated, for those
alone whose names begin so. NAME is what messages call the token. A server asks for tokens when it is started with
--tokens FILE. A command sends the token in DURABLE_STREAMS_TOKEN, or in the file of --token-file. To take a token
back, remove its line.

  streamctl token create ci --can write --prefix jobs/ --expires 30d --file tokens
  streamctl server start --tokens tokens`,
		},
		{
			name: "bench", usage: "[--conns N] [--streams N] [--subscribers N] [--duration 10s]",
			does:  "measure a server under load",
			flags: "conns streams size batch rate subscribers duration json server cacert token-file dir", run: benchServer,
			manual: `
Appends as fast as the server acknowledges, or at a given rate, over connections with one request at a time each. It
prints the rate and the times: of an append from its request to the answer, and of a delivery from that request to the
moment in which a subscriber reads the event. Subscribers check that they get each acknowledged event once and in
order. The exit status is 1 when they do not, or when a request fails.

The streams are new ones, named bench-…, and are deleted at the end, also after Ctrl-C. The first tenth of the time,
but no more than a second, does not count. On the machine of the server this program takes a share of its speed.

  streamctl bench --conns 64 --streams 64
  streamctl bench --conns 1 --rate 100 --subscribers 1000`,
		},
		{
			name: "completion", usage: "bash|zsh|fish", does: "print what lets a shell complete commands and names",
			word: true, run: completion,
			manual: `
Prints a script for the shell, which completes commands, flags and the names of streams. Names come from the server
where that runs; none is started.

  eval "$(streamctl completion bash)"           # in ~/.bashrc
  streamctl completion zsh > "${fpath[1]}/_streamctl"
  streamctl completion fish > ~/.config/fish/completions/streamctl.fish`,
		},
		{
			name: "man", usage: "[streamctl|streamd]", does: "print a manual page",
			word: true, run: man,
			manual: `
Prints the manual page of streamctl or streamd for man(1), made of what --help says.

  streamctl man streamd | man -l -`,
		},
		{
			name: "version", does: "print the version", run: printVersion,
			manual: `
Prints the version, as --version does.`,
		},
	}
}
