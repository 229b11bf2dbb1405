package main

import (
	"os"
	"sync/atomic"
)

// onHangup is what SIGHUP does where it does not end the server: it tells whether that is so.
var onHangup atomic.Pointer[func() bool]

// reloads has SIGHUP do something, too, instead of ending the server. Where it comes of a terminal that closes it ends
// that all the same.
func reloads(do func()) {
	had, before := hasTerminal(), onHangup.Load()
	reload := func() bool {
		if had && !hasTerminal() || before != nil && !(*before)() {
			return false
		}
		do()
		return true
	}
	onHangup.Store(&reload)
}

// hasTerminal tells whether somebody sits before this process.
func hasTerminal() bool {
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	f.Close()
	return true
}
