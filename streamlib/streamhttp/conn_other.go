//go:build !linux

package streamhttp

import (
	"net"
	"time"
)

// awaitTaken gives the client's machine a second to take what was written to conn: how much that is cannot be asked
// everywhere.
func awaitTaken(_ *net.TCPConn, limit time.Duration) { time.Sleep(min(limit, time.Second)) }
