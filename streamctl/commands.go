package main

// commands are all of streamctl's, in the order of its help. The variable is set in init, for help itself reads it.
var commands []command

func init() {
	commands = []command{
		{
			name: "stream append", usage: "-n NAME [-m TEXT | -e JSON | < LINES]", does: "append events to a stream",
			flags: "name message event key if-tail server token-file dir", run: streamAppend,
			manual: `
Appends an event and prints it once it is on the disk. Without -m and -e it appends the lines of its input as they
come; each line is one JSON value in UTF-8. A line that cannot be appended ends the command, and the message names it.
A lost connection is made again, and no line is appended twice. When the command ends early, as after Ctrl-C, it says
how much was appended. It goes on to the end of its input when nobody reads what it prints. With --key or --if-tail
all lines are one append: all of them are appended, or none.

  streamctl stream append -n orders -m "first order"
  streamctl stream append -n orders -e '{"type":"paid","amount":12.50}'
  tail -f app.log.ndjson | streamctl stream append -n log`,
		},
		{
			name: "stream subscribe", usage: "-n NAME [-o OFFSET | --last N] | --all [--prefix PREFIX]",
			does:  "print events as they come",
			flags: "name offset last type all prefix server token-file dir", many: "type", run: streamSubscribe,
			also: map[string]string{"offset": " (now)"},
			manual: `
Prints the events that are appended from now on, or those from an offset on and then what comes, until Ctrl-C. When
the server ends or the connection breaks it connects again and goes on, with no gap and no repeat. With --all it
prints the new events of every stream, also of those made later; events that are appended while the connection is lost
are left out then.

  streamctl stream subscribe -n orders -o -1
  streamctl stream subscribe --all --prefix user/`,
		},
		{
			name: "stream get", usage: "-n NAME [-o OFFSET] [-l N] | --last N", does: "print the events there are",
			flags: "name offset limit last type server token-file dir", many: "type", reads: true, run: streamGet,
			also: map[string]string{"offset": " (-1)", "limit": " (no limit)"},
			manual: `
Prints the events that a stream has now, from the first one unless told otherwise.

  streamctl stream get -n orders
  streamctl stream get -n orders --last 10 --type paid`,
		},
		{
			name: "stream wait", usage: "-n NAME [--type TYPE] [-o OFFSET] [--timeout 30s]",
			does:  "print the first event that matches, once there is one",
			flags: "name type offset timeout server token-file dir", many: "type", run: streamWait,
			also: map[string]string{"offset": " (-1)", "timeout": ": how long to wait for what is not there yet (30s)"},
			manual: `
Prints the first event of the stream that matches, as soon as there is one. The exit status is 1 when there is none in
time. With "--offset now" only events that are appended from now on count.

  streamctl stream wait -n builds --type done --timeout 10m`,
		},
		{
			name: "stream list", usage: "[--prefix PREFIX] [--details] [--json]", does: "print the streams' names",
			flags: "prefix details json server token-file dir", reads: true, run: streamList,
			manual: `
Prints the names of the streams in order, one a line. With --details it prints a table, and with --json a JSON object
a line.`,
		},
		{
			name: "stream delete", usage: "-n NAME", does: "delete a stream with its events",
			flags: "name server token-file dir", reads: true, run: streamDelete,
			manual: `
Deletes a stream with its events and ends its subscriptions. A later append begins again at offset 0. It is no error
when there is no such stream.`,
		},
		{
			name: "server run", usage: "[flags]", does: "run the folder's server in the foreground",
			flags: streamdFlags + " dir", many: "allow-host allow-origin", run: serverRun,
			manual: `
Runs streamd for the folder until Ctrl-C or SIGTERM. Its log goes to stderr.`,
		},
		{
			name: "server start", usage: "[flags]", does: "start the folder's server in the background",
			flags: streamdFlags + " dir json", many: "allow-host allow-origin", run: serverStart,
			manual: `
Starts streamd for the folder in the background and returns when it answers. When no port is given and 3000 is taken,
it takes a free one. It is an error when the folder has a server already. The server logs to daemon.log in the folder.
A server that is started by itself later, as after a crash, gets the same flags.`,
		},
		{
			name: "server stop", usage: "[--timeout 10s]", does: "end the folder's server",
			flags: "timeout server dir json", run: serverStop,
			also: map[string]string{"timeout": ": how long the server may take to end before it is killed (10s)"},
			manual: `
Ends the folder's server and returns when it has ended. A server that takes longer than the timeout is killed, which
loses nothing that was acknowledged. The exit status is 3 when no server runs. A server that is named by its URL must
run on this machine.`,
		},
		{
			name: "server restart", usage: "[flags]", does: "end the folder's server and start it again",
			flags: streamdFlags + " server dir json", many: "allow-host allow-origin", run: serverRestart,
			manual: `
Ends the folder's server and starts it again with the flags that it had, except for those that are given now. Wrong
flags leave the server running, and when the new one does not start, the former one is started again. When no server
runs, it starts one with the flags that the last one had.`,
		},
		{
			name: "server status", usage: "[--json]", does: "tell whether the folder's server runs, and where",
			flags: "server dir json", run: serverStatus,
			manual: `
Prints the server's pid, URL, version, folder, log file, uptime and flags, and which streams are damaged. When no
server runs it prints "Not running", and the exit status is 3. A server on another machine tells less of itself.`,
		},
		{
			name: "token create", usage: "NAME --can read|write|admin [--prefix PREFIX] [--expires 30d] [--file FILE]",
			does:  "make a token for a server's file of tokens",
			flags: "can prefix expires file json", many: "prefix", word: true, run: tokenCreate,
			manual: `
Makes a secret and prints it once; it is kept nowhere. With --file it adds the token's line to that file, which has
only the digest of the secret, and the server of the file knows the token within a second. Without --file it prints
the line, too.

A token that can read reads and lists, one that can write appends too, and one that can admin deletes too. The token
is for all streams or, with --prefix, which may be repeated, for those alone whose names begin so. NAME is what
messages call the token. A server asks for tokens when it is started with --tokens FILE. A command sends the token in
DURABLE_STREAMS_TOKEN, or in the file of --token-file. To take a token back, remove its line.

  streamctl token create ci --can write --prefix jobs/ --expires 30d --file tokens
  streamctl server start --tokens tokens`,
		},
		{
			name: "bench", usage: "[--conns N] [--streams N] [--subscribers N] [--duration 10s]",
			does:  "measure a server under load",
			flags: "conns streams size batch rate subscribers duration json server token-file dir", run: benchServer,
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
	}
}
