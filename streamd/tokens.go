package main

import (
	"crypto/rand"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"os"
	"strings"

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
	had := hasTerminal()
	reload := func() bool {
		if had && !hasTerminal() {
			return false
		}
		_ = file.Reload() // which logs
		return true
	}
	onHangup.Store(&reload)
	return file, nil
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

// hasSecret tells whether r comes from who may read the folder.
func hasSecret(r *http.Request, secret string) bool {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && subtle.ConstantTimeCompare([]byte(given), []byte(secret)) == 1
}
