package daemon

import "fmt"

// A Flag is a flag of a program, as its help tells it.
type Flag struct {
	Name, Short string
	Value       string // what stands for its value, "" for a flag that is given or not
	Help        string // what it does, and in brackets what holds without it
}

// String returns how the flag is written: "-p, --port PORT".
func (f Flag) String() string {
	s := "    --" + f.Name
	if f.Short != "" {
		s = "-" + f.Short + ", --" + f.Name
	}
	if f.Value != "" {
		s += " " + f.Value
	}
	return s
}

// Line returns the flag's line in a help; more follows what it does.
func (f Flag) Line(more string) string { return fmt.Sprintf("  %-24s %s%s\n", f, f.Help, more) }

// Dir is the flag for the folder.
var Dir = Flag{"dir", "", "DIR", "the folder with the streams (.iterate)"}

// Flags are those of a server that streamctl takes for it too, and Own those that only streamd takes.
var (
	Flags = []Flag{
		{"port", "p", "PORT", "listen on this port; 0 takes a free one (3000)"},
		{"host", "", "HOST", "listen on this address (127.0.0.1)"},
		{"tls-cert", "", "FILE", "speak TLS with this certificate, read again when it changes"},
		{"tls-key", "", "FILE", "the certificate's key"},
		{"admin", "", "ADDR", "serve health, metrics and pprof there, such as 127.0.0.1:3001"},
		{"unix", "", "PATH", "listen on a socket there too, which is this user's alone"},
		{"storage", "", "fs|memory|URL", "keep events in the folder, in memory, or in s3://BUCKET/PREFIX (fs)"},
		{"s3-endpoint", "", "URL", "the store of s3://, may have {bucket} in it (AWS_ENDPOINT_URL, or AWS)"},
		{"mirror", "", "URL", "keep a copy of all streams in s3://BUCKET/PREFIX, a second behind"},
		{"factory", "", "NAME", "what events must be like: plain, validated or agent (plain)"},
		{"sync", "", "always|none", "with none, a loss of power may take what was acknowledged (always)"},
		{"max-event", "", "BYTES", "refuse an event with more data than this (1048576)"},
		{"memory", "", "BYTES", "bound what requests hold together, as 512M (half of the machine, at most 2GiB)"},
		{"retain", "", "RULE", "drop events over RULE, such as 'logs/*=7d,1GB'; may be repeated"},
		{"expire", "", "RULE", "delete streams that get no append for so long: 'tmp/*=30d'; may be repeated"},
		{"hooks", "", "FOLDER", "run its before-append and after-append around appends; see the README"},
		{"webhook", "", "RULE", "post new events, as '*=https://example.com/hook'; may be repeated"},
		{"webhook-allow-private", "", "", "let webhooks reach this machine and private networks"},
		{"allow-host", "", "NAME", "answer requests for this host name too; may be repeated"},
		{"allow-origin", "", "URL", "let the pages of this origin read and write; may be repeated"},
		{"tokens", "", "FILE", "ask for a token of this file; see streamctl token create --help"},
		{"insecure-no-tls", "", "", "allow a --host that other machines reach, for a proxy encrypts"},
		{"insecure-no-auth", "", "", "allow a --host that other machines reach, without tokens"},
		{"min-free", "", "SIZE", "refuse appends when the disk has less room left than this, such as 1GB"},
		{"max-conns", "", "N", "answer 503 on more connections than this (what descriptors allow)"},
		{"max-subscribers", "", "N", "answer 429 to more subscriptions than this (3 of 4 connections)"},
		{"max-streams", "", "N", "make no more streams than this (no limit)"},
		{"log-format", "", "text|json", "how the log's lines are written (text)"},
		{"log-level", "", "LEVEL", "log what is at least debug, info, warn or error (info)"},
		{"access-log", "", "", "log each request when it was answered"},
		{"exit-on-failure", "", "", "end with status 1 when the disk has failed to sync"},
	}
	Own = []Flag{
		{"port-fallback", "", "", "listen on a free port where the port is taken"},
		{"check", "", "", "say whether the other flags are right, and end"},
		{"version", "", "", "print the version"},
		{"help", "", "", "print this"},
	}
)

// Paths are the names of flags whose values are paths, which are to be absolute for a server: it has another folder.
var Paths = []string{"unix", "tls-cert", "tls-key", "tokens", "hooks"}
