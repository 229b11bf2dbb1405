//go:build linux

// Floors compares streamd with what the machine allows, and prints one table: each figure, the floor that was measured
// beside it by the same client, their ratio, and what is aimed at. It is run by scripts/bench as
//
//	floors BIN [PART ...]
//
// where BIN is a folder with streamd, streamctl, hello and floors itself. Data goes to a temporary folder beside
// them, which must be on a disk for the syncs to mean anything. All servers listen on loopback. The clients run on
// the same machine and are part of the load, for streamd and floors alike.
//
// The floors: "sync" is one thread that appends to a growing file and calls fdatasync. "bare" is net/http answering
// the same bytes to the same requests, storing nothing, and for subscribers a goroutine each that a closed channel
// wakes and that writes the same frames. "copy" is a file of the same events sent through net/http in user space.
//
// A part is one of its sections: disk, creating, appends, hot, keeping, batches, live, reading, starting, memory,
// listing, pressure, commands, and objects and collected, which are left out unless VERSITYGW names one.
//
// Beside it stands streamd with --storage memory, which shows what of the distance to bare is the disk's.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures, or is one of the servers that are measured.
func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "bare":
		return serve(ctx, (&bare{streams: map[string]*bareStream{}}).handler())
	case len(args) == 2 && args[0] == "host":
		return host(ctx, args[1])
	case len(args) >= 1:
		return measure(ctx, args[0], args[1:]...)
	}
	return errors.New("usage: floors BIN [PART ...]; see scripts/bench")
}
