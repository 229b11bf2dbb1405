package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp/tokens"
)

// token returns the token to send, "" where there is none.
func (c *call) token() (string, error) {
	token, from := c.getenv("DURABLE_STREAMS_TOKEN"), "DURABLE_STREAMS_TOKEN"
	if c.has("token-file") {
		b, err := os.ReadFile(c.value("token-file"))
		if err != nil {
			return "", fmt.Errorf("--token-file: %w", err)
		}
		token, from = strings.TrimPrefix(string(b), "\ufeff"), daemon.Word(c.value("token-file"))
		if strings.TrimSpace(token) == "" {
			return "", fmt.Errorf("--token-file: %s is empty", from)
		}
	}
	token = strings.TrimSpace(token)
	if strings.ContainsFunc(token, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return "", fmt.Errorf("%s has more than a token: it is one word", from)
	}
	return token, nil
}

// tokenHint is what to type where the server wants another token than was sent.
func (c *call) tokenHint(name string) string {
	if c.has("token-file") || c.getenv("DURABLE_STREAMS_TOKEN") != "" {
		return "streamctl token create NAME --can read --file FILE, with the server's file of tokens, which makes " +
			"another token"
	}
	if name != "" {
		name = " -n " + daemon.ShellWord(name)
	}
	return "streamctl " + c.name + name + " --token-file FILE, where FILE has the token; or set " +
		"DURABLE_STREAMS_TOKEN to it"
}

// tokenCreate makes a token.
func tokenCreate(_ context.Context, c *call) error {
	if c.word == "" {
		return usageError{errors.New("token create: NAME is missing: whose token?"), "streamctl token create NAME --can read"}
	}
	t := tokens.Token{Name: c.word, Prefixes: c.given["prefix"]}
	var ok bool
	if t.Right, ok = tokens.ParseRight(c.value("can")); !ok {
		return c.usageErr("--can read, --can write or --can admin: what may it do?")
	}
	if c.has("expires") {
		var err error
		if t.Expires, err = expiry(c.value("expires"), time.Now()); err != nil {
			return c.usageErr("--expires %q: it takes a time to come, such as 30d, 12h or 2027-01-31T00:00:00Z",
				c.value("expires"))
		}
	}
	var secret string
	secret, t.Digest = tokens.New()
	if err := t.Check(); err != nil {
		return c.usageErr("%w", err)
	}
	file := c.value("file")
	if c.has("file") && file == "" {
		return c.usageErr("--file is empty")
	}
	if c.has("file") {
		if err := tokens.Append(file, t); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	switch {
	case c.has("json"):
		return c.printJSON(struct {
			Name   string `json:"name"`
			Secret string `json:"secret"`
			Line   string `json:"line"`
			File   string `json:"file,omitempty"`
		}{t.Name, secret, t.String(), file})
	case c.has("file"):
		_, err := fmt.Fprintln(c.stdout, secret)
		return err
	}
	return c.table([][2]string{{"secret", secret}, {"line", t.String()}})
}

// expiry returns the time that s says, from now on or by itself. Days have 24 hours.
func expiry(s string, now time.Time) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, s)
	if days, ok := strings.CutSuffix(s, "d"); ok && err != nil {
		var n int
		if n, err = strconv.Atoi(days); err == nil {
			at = now.UTC().AddDate(0, 0, n)
		}
	} else if err != nil {
		var d time.Duration
		d, err = time.ParseDuration(s)
		at = now.Add(d)
	}
	if err == nil && at.Before(now.Add(time.Second)) { // a file has seconds
		err = errors.New("it is over")
	}
	return at, err
}
