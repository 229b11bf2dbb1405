package main

import (
	"os"
	"syscall"
)

// Windows has no signals: Ctrl-C and Ctrl-Break are SIGINT, the end of the console, the session or the machine is
// SIGTERM, and nothing else ends streamd cleanly.

// portTaken is WSAEADDRINUSE.
const portTaken = syscall.Errno(10048)

func endAt(os.Signal) { os.Exit(1) }

// isJournal is false: there is none.
func isJournal(*os.File, string) bool { return false }

// maxConns is 1 << 20: handles are bounded by memory alone.
func maxConns() int { return 1 << 20 }
