package main

// commands are all of streamctl's, in the order of its help. The variable is set in init, for help itself reads it.
var commands []command

func init() {
	commands = []command{
		{
			name: "stream append", usage: "-n NAME [-m TEXT | -e JSON | < LINES]", does: "append events to a stream",
			flags: "name message event key if-tail server token-file dir", run: streamAppend,
			manual: `
Appends an event and prints it once it is durable. Without -m and -e the lines of stdin are appended as they come, each one
JSON value in UTF-8; a line that cannot be appended ends it, and is named. A connection that is lost on the way is made again,
and no line is appended twice. Nobody need read what is printed. Where it ends early, Ctrl-C among the reasons, it says how
much was appended. With --key or --if-tail all lines are one append, all or nothing.

  streamctl stream append -n orders -m "first order"
  streamctl stream append -n orders -e '{"type":"paid","amount":12.50}'
  tail -f app.log.ndjson | streamctl stream append -n log`,
		},
		{
			name: "stream subscribe", usage: "-n NAME [-o OFFSET | --last N] | --all [--prefix PREFIX]", does: "print events as they come",
			flags: "name offset last type all prefix server token-file dir", many: "type", run: streamSubscribe,
			also: map[string]string{"offset": " (now)"},
			manual: `
Prints the events that are appended from now on, or those from an offset on and then what comes, until Ctrl-C. When the
server ends or the connection breaks it connects again and goes on, with no gap and no repeat. With --all it prints the new
events of every stream, those made later too; what is appended while there is no connection is then not among them.

  streamctl stream subscribe -n orders -o -1
  streamctl stream subscribe --all --prefix user/`,
		},
		{
			name: "stream get", usage: "-n NAME [-o OFFSET] [-l N] | --last N", does: "print the events there are",
			flags: "name offset limit last type server token-file dir", many: "type", reads: true, run: streamGet,
			also: map[string]string{"offset": " (-1)", "limit": " (no limit)"},
			manual: `
Prints a stream's events, from the first one unless said otherwise, and ends at the last one that there is now.

  streamctl stream get -n orders
  streamctl stream get -n orders --last 10 --type paid`,
		},
		{
			name: "stream wait", usage: "-n NAME [--type TYPE] [-o OFFSET] [--timeout 30s]", does: "print the first event there is, or wait for it",
			flags: "name type offset timeout server token-file dir", many: "type", run: streamWait,
			also: map[string]string{"offset": " (-1)", "timeout": ": how long to wait for what is not there yet (30s)"},
			manual: `
Prints the stream's first event that matches, at once or as soon as there is one, and ends. Ends with status 1 when there
is none in time. With "--offset now" only what is appended from now on counts.

  streamctl stream wait -n builds --type done --timeout 10m`,
		},
		{
			name: "stream list", usage: "[--prefix PREFIX] [--details] [--json]", does: "print the streams' names",
			flags: "prefix details json server token-file dir", reads: true, run: streamList,
			manual: `
Prints the names of the streams, one a line, in order; with --details a table. With --json one object a line.`,
		},
		{
			name: "stream delete", usage: "-n NAME", does: "delete a stream with its events",
			flags: "name server token-file dir", reads: true, run: streamDelete,
			manual: `
Deletes a stream. Its subscriptions end; a later append begins again at offset 0. It is no error where there is none.`,
		},
		{
			name: "server run", usage: "[flags]", does: "be the server, in the foreground",
			flags: streamdFlags + " dir", many: "allow-host allow-origin", run: serverRun,
			manual: `
Runs streamd for the folder in the place of this process, until Ctrl-C or SIGTERM.`,
		},
		{
			name: "server start", usage: "[flags]", does: "start the folder's server in the background",
			flags: streamdFlags + " dir json", many: "allow-host allow-origin", run: serverStart,
			manual: `
Starts streamd for the folder, detached from this terminal, and returns when it answers. Where no port is given and 3000 is
taken, it takes a free one. Where the folder has a server already, that is an error. The server logs to daemon.log in the folder.`,
		},
		{
			name: "server stop", usage: "[--timeout 10s]", does: "end the folder's server",
			flags: "timeout server dir json", run: serverStop,
			also: map[string]string{"timeout": ": how long the server may take to end before it is killed (10s)"},
			manual: `
Ends the folder's server and returns when it has ended: cleanly, or killed where that takes longer than the timeout. Exits with
status 3 where none runs. A server that is named by its URL must be one of this machine's.`,
		},
		{
			name: "server restart", usage: "[flags]", does: "end the folder's server and start it again",
			flags: streamdFlags + " server dir json", many: "allow-host allow-origin", run: serverRestart,
			manual: `
Ends the folder's server and starts it again, with the flags that it had except for those given now. Flags that streamd does not
take leave it as it is, and where it does not start it is started again as it was. Where none runs, starts one, with the flags
that the last one had.`,
		},
		{
			name: "server status", usage: "[--json]", does: "say whether and where the folder's server runs",
			flags: "server dir json", run: serverStatus,
			manual: `
Prints the server's pid, URL, version, folder, log file and uptime; or "Not running", and exits with status 3. One on another
machine tells less of itself.`,
		},
		{
			name: "token create", usage: "NAME --can read|write|admin [--prefix PREFIX] [--expires 30d] [--file FILE]",
			does:  "make a token for a server's file of tokens",
			flags: "can prefix expires file json", many: "prefix", word: true, run: tokenCreate,
			manual: `
Makes a secret and prints it, once: it is kept nowhere. With --file the line of the token is added to that file, which has only
the digest of the secret, and the server of the file takes it within a second; without, the line is printed below.

Read is reading, write is appending too, admin is deleting too. With --prefix, which may be repeated, the token is for the streams
alone whose names begin so. NAME is what messages call it. A server asks for tokens where it is started with --tokens FILE; a
command sends what is in DURABLE_STREAMS_TOKEN, or in the file of --token-file. To take a token back, remove its line.

  streamctl token create ci --can write --prefix jobs/ --expires 30d --file tokens
  streamctl server start --tokens tokens`,
		},
		{
			name: "bench", usage: "[--conns N] [--streams N] [--subscribers N] [--duration 10s]", does: "measure a server under load",
			flags: "conns streams size batch rate subscribers duration json server token-file dir", run: benchServer,
			manual: `
Appends as fast as the server acknowledges, or at a given rate, over connections with one request at a time each. Prints the
rate and the times: of an append from its request to the answer, of a delivery from that request to the read at a subscriber.
Subscribers check that they get each acknowledged event, once and in order; where they do not, or where a request fails, the
exit status is 1.

The streams are new ones, named bench-…, and are deleted at the end, also after Ctrl-C, which ends it early. The first tenth
of the time, at most a second, does not count. On the server's own machine this program takes its share of that.

  streamctl bench --conns 64 --streams 64
  streamctl bench --conns 1 --rate 100 --subscribers 1000`,
		},
	}
}
