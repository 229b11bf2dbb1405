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
		{"storage", "", "fs|memory", "keep events in the folder, or in memory until the server ends (fs)"},
		{"factory", "", "NAME", "what events must be like: plain, validated or agent (plain)"},
		{"sync", "", "always|none", "with none, a loss of power may take what was acknowledged (always)"},
		{"max-event", "", "BYTES", "refuse an event with more data than this (1048576)"},
		{"allow-host", "", "NAME", "answer requests for this host name too; may be repeated"},
		{"allow-origin", "", "URL", "let the pages of this origin read and write; may be repeated"},
		{"tokens", "", "FILE", "ask for a token of this file; see streamctl token create --help"},
		{"insecure-no-tls", "", "", "allow a --host that other machines reach, for a proxy encrypts"},
		{"insecure-no-auth", "", "", "allow a --host that other machines reach, without tokens"},
		{"exit-on-failure", "", "", "end with status 1 when the disk has failed to sync"},
	}
	Own = []Flag{
		{"port-fallback", "", "", "listen on a free port where the port is taken"},
		{"check", "", "", "say whether the other flags are right, and end"},
		{"version", "", "", "print the version"},
		{"help", "", "", "print this"},
	}
)
