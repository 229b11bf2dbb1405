package main

import (
	"crypto/rand"
	"log/slog"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp/tokens"
)

// keyFile has the key that signs sessions, which live on when the server is started again.
const keyFile = "session.key"

// openTokens opens the tokens, and lets SIGHUP read them again, unless it comes of a terminal that closes.
func openTokens(o options, log *slog.Logger) (*tokens.File, error) {
	key, _, err := daemon.Read(o.dir, keyFile)
	if err != nil || len(key) < 26 {
		key = []byte(rand.Text() + rand.Text() + "\n")
		if err := replace(o.dir, keyFile, key); err != nil {
			log.Warn("sessions will end with this server", "error", err)
		}
	}
	file, err := tokens.Open(o.tokens, tokens.Options{Key: key, Log: log})
	if err != nil {
		return nil, err
	}
	reloads(func() { _ = file.Reload() }) // which logs
	return file, nil
}
