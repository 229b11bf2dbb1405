// Package streamhttp serves streams over HTTP and server-sent events, and has the client that speaks it: Layer 5.
package streamhttp
