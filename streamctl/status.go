package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

const (
	// countTime is how long status counts the streams of a folder, and what they take of the disk.
	countTime = 2 * time.Second
	// readyTime is how long a server has to say whether it takes appends, for which it waits for those under way.
	readyTime = 5 * time.Second
)

// asked is what a command has found out of the server that is meant.
type asked struct {
	f       folder // dir is "" where that is none of this machine's
	s       server
	url     string
	answers bool
}

// ask finds the server out, and waits a little for one that may just be starting, or ending. Where one that can be
// known does not answer, it is no error.
func (c *call) ask(ctx context.Context) (a asked, err error) {
	var health streamhttp.Health
	a.f, health, a.url, err = c.served(ctx)
	if a.answers = err == nil && a.f.dir == ""; a.answers {
		a.s.Health = health
	} else if err == nil {
		a.s, a.answers, err = a.f.owner(ctx)
	}
	for deadline := time.Now().Add(proofTime); !a.answers && err == nil && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
		a.s, a.answers, err = a.f.owner(ctx)
	}
	if a.url == "" && a.answers {
		a.url = a.s.url()
	}
	return a, err
}

func serverStatus(ctx context.Context, c *call) error {
	if c.has("check") {
		return serverCheck(ctx, c)
	}
	a, err := c.ask(ctx)
	f, s := a.f, a.s
	switch {
	case errors.Is(err, errNotRunning):
		if c.has("json") {
			err = c.printJSON(map[string]bool{"running": false})
		} else {
			_, err = fmt.Fprintln(c.stdout, "Not running")
		}
		if f.dir != "" && f.hasCrashed() {
			fmt.Fprintf(c.stderr, "streamctl: the last server of %v did not end cleanly; it loses nothing by that\n", f)
			f.tellLog(f.logFile())
		}
		return outcome(toldError{errNotRunning}, err)
	case !a.answers && err == nil:
		f.tellLog(f.logOf(s.PID))
		err, _ := f.hung()
		return err
	case !a.answers:
		return err
	}
	if s.moved {
		tell(c.stderr, f.moved(s))
	}
	amounts := c.amounts(ctx, a)
	unready := c.unready(ctx, a)
	mismatch, mend := f.mismatch(s)
	if c.has("json") {
		status := map[string]any{
			"running": true, "pid": s.PID, "url": a.url, "version": s.Version, "dir": s.Dir,
			"storage": s.Storage, "startedAt": s.StartedAt, "args": s.Args,
			"streamctl": daemon.Version(), "ready": unready == "",
		}
		if unready != "" {
			status["unready"] = unready
		}
		if !s.Synced.IsZero() {
			status["synced"] = s.Synced
		}
		amounts.members(status)
		if len(s.Damaged) > 0 {
			status["damaged"] = s.Damaged
		}
		if len(s.Followers) > 0 {
			status["followers"] = s.Followers
		}
		return c.printJSON(status)
	}
	rows := [][2]string{{"url", a.url}, {"version", s.Version}, {"storage", s.Storage}}
	if f.dir != "" {
		rows = slices.Concat([][2]string{{"pid", strconv.Itoa(s.PID)}}, rows,
			[][2]string{{"dir", s.Dir}, {"log", f.logOf(s.PID)}})
	}
	rows = append(rows, [2]string{"uptime", time.Since(s.StartedAt).Round(time.Second).String()})
	if f.dir != "" {
		rows = append(rows, [2]string{"flags", strings.Join(slices.DeleteFunc(slices.Clone(s.Args),
			func(a string) bool { return strings.HasPrefix(a, "--dir=") }), " ")})
	}
	rows = append(rows, amounts.rows()...)
	if !s.Synced.IsZero() {
		rows = append(rows, [2]string{"synced", max(time.Since(s.Synced), 0).Round(time.Second).String() + " ago"})
	}
	if len(s.Damaged) > 0 {
		rows = append(rows, [2]string{"damaged", strings.Join(s.Damaged, " ")})
		defer tell(c.stderr, hintError{errors.New("streams are damaged and take no appends"), c.repairHint(s.Damaged[0])})
	}
	for _, f := range s.Followers {
		rows = append(rows, [2]string{"follower", f.String()})
	}
	if mismatch != "" {
		defer tell(c.stderr, hintError{errors.New(mismatch), mend})
	}
	if unready == "" {
		return c.table(append(rows, [2]string{"appends", "taken"}))
	}
	err = c.table(append(rows, [2]string{"appends", "refused: " + daemon.Message(errors.New(unready))}))
	c.stdout.Flush()
	if f.dir != "" {
		f.tellLog(f.logOf(s.PID))
	}
	return err
}

// hasCrashed tells whether the folder's last server has left what one that ends removes.
func (f folder) hasCrashed() bool {
	_, err := os.Lstat(filepath.Join(f.dir, daemon.PIDFile))
	return err == nil
}

// tellLog tells the last lines of a server's log, where that is the folder's.
func (f folder) tellLog(path string) {
	const lines, most = 10, 16 << 10
	if path != f.logFile() {
		return
	}
	log, err := daemon.OpenPlain(path, os.O_RDONLY)
	if err != nil {
		return
	}
	defer log.Close()
	size, err := log.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return
	}
	b := make([]byte, min(size, most))
	n, err := log.ReadAt(b, size-int64(len(b)))
	if err != nil && err != io.EOF {
		return
	}
	last := bytes.Split(bytes.TrimRight(b[:n], "\n"), []byte("\n"))
	fmt.Fprintf(f.stderr, "streamctl: the last lines of %s:\n", daemon.Word(path))
	for _, line := range last[max(len(last)-lines, 0):] {
		fmt.Fprintln(f.stderr, " ", daemon.Message(errors.New(string(line))))
	}
}

// amounts are how much a server has; -1 is what is not known.
type amounts struct {
	streams, used, free int64
	more                bool // there are more streams than were counted
	partly              bool // more is used than was counted
}

// amounts finds them out, as far as it gets in a short time: there may be millions of streams.
func (c *call) amounts(ctx context.Context, a asked) amounts {
	n := amounts{streams: -1, used: -1, free: -1}
	ctx, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	client, err := c.clientOf(ctx, a)
	if err != nil {
		return n
	}
	for o := (streamhttp.ListOptions{Limit: 10_000}); ; {
		page, err := client.List(ctx, o)
		if err != nil {
			n.more = n.streams >= 0
			break
		}
		n.streams = max(n.streams, 0) + int64(len(page.Streams))
		if o.After = page.Next; o.After == "" {
			break
		}
	}
	if a.f.dir == "" || a.s.Storage != "fs" {
		return n
	}
	if free, _, err := daemon.Free(a.f.dir); err == nil {
		n.free = free
	}
	n.used, n.partly = a.f.used(ctx)
	return n
}

// used is how many bytes the files in the folder have, and whether there are more than could be counted.
func (f folder) used(ctx context.Context) (bytes int64, partly bool) {
	err := filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil || d.IsDir():
			partly = partly || err != nil && !errors.Is(err, fs.ErrNotExist)
			return nil
		}
		if info, err := d.Info(); err == nil { // else it has gone
			bytes += info.Size()
		}
		return nil
	})
	return bytes, partly || err != nil
}

func (n amounts) members(status map[string]any) {
	for name, value := range map[string]int64{"streams": n.streams, "diskUsed": n.used, "diskFree": n.free} {
		if value >= 0 {
			status[name] = value
		}
	}
	if n.more || n.partly {
		status["partly"] = true // there is more than that
	}
}

func (n amounts) rows() (rows [][2]string) {
	least := func(partly bool) string {
		if partly {
			return "more than "
		}
		return ""
	}
	if n.streams >= 0 {
		rows = append(rows, [2]string{"streams", least(n.more) + strconv.FormatInt(n.streams, 10)})
	}
	if n.used >= 0 {
		disk := least(n.partly) + daemon.Bytes(n.used) + " used"
		if n.free >= 0 {
			disk += ", " + daemon.Bytes(n.free) + " free"
		}
		rows = append(rows, [2]string{"disk", disk})
	}
	return rows
}

// clientOf returns a client of the server that was found.
func (c *call) clientOf(ctx context.Context, a asked) (*streamhttp.Client, error) {
	if a.f.dir == "" {
		return c.remote(a.url)
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	client, err := a.f.client(ctx, true)
	if client != nil {
		client.Token, client.Patience = token, answerTime
	}
	return client, err
}

// unready is why the server takes no appends, "" where it does or does not tell.
func (c *call) unready(ctx context.Context, a asked) string {
	client, err := c.clientOf(ctx, a)
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	err = client.Ready(ctx)
	answer, refused := errors.AsType[*streamhttp.Error](err)
	switch {
	case refused && answer.Status == http.StatusServiceUnavailable:
		return err.Error()
	case ctx.Err() != nil:
		return "it does not say whether it can, as where its disk hangs"
	}
	return ""
}

// mismatch says that a server is of another version than this program, and what mends it; "" where it is not.
func (f folder) mismatch(s server) (says, mend string) {
	if s.Version == daemon.Version() {
		return "", ""
	}
	var would string
	if path, err := streamd(); err == nil && f.dir != "" {
		out, _ := exec.Command(path, "--version").Output()
		would = strings.TrimSpace(strings.TrimPrefix(string(out), "streamd "))
	}
	says, mend = mending(s.Version, daemon.Version(), would)
	if f.dir == "" {
		return says, "the same version on both machines"
	} else if mend == "" {
		mend = f.restart(s)
	}
	return says, mend
}

// mending says how the versions of a server, of this program, and of the streamd that it would start differ, and what
// mends that, "" for a restart of the server.
func mending(server, own, would string) (says, mend string) {
	const both = "scripts/build, or an archive of a release, which have both programs of one version; keep them together"
	switch {
	case would == own:
		return fmt.Sprintf("the server is still of version %s, while streamd is %s now, as streamctl is", server, own), ""
	case would == server:
		return fmt.Sprintf("streamctl is of version %s, and streamd of %s", own, server), both
	case would == "":
		return fmt.Sprintf("streamctl is of version %s, and the server of %s", own, server), both
	}
	return fmt.Sprintf("streamctl is of version %s, streamd of %s, and the server of %s", own, would, server), both
}
