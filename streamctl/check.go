package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/iterate/durable-streams/streamlib/daemon"
)

const (
	leastFree  = 1 << 30 // bytes that a disk should have left
	leastInode = 1000    // and files
	leastFiles = 4096    // descriptors that a server should have: connections and streams share them
	mostDirty  = 4 << 30 // bytes that the page cache may hold back: a sync of the journal may have to wait for them
	mostAhead  = 5 * time.Second
)

// A finding is what server status --check says of one thing.
type finding struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Says string `json:"says"`
	Try  string `json:"try,omitempty"` // what to type where it is not ok
}

func ok(name, format string, args ...any) finding {
	return finding{Name: name, OK: true, Says: fmt.Sprintf(format, args...)}
}

func bad(name, try, format string, args ...any) finding {
	return finding{Name: name, Says: fmt.Sprintf(format, args...), Try: try}
}

// badly is what err says, with its hint.
func badly(name string, err error) finding {
	f := bad(name, "", "%s", daemon.Message(err))
	if hint, is := errors.AsType[hintError](err); is {
		f.Try = hint.try
	}
	return f
}

// serverCheck looks at what a server needs of its machine, also where none runs.
func serverCheck(ctx context.Context, c *call) error {
	a, err := c.ask(ctx)
	notRunning := errors.Is(err, errNotRunning)
	findings := c.server(ctx, a, err)
	if a.f.dir != "" {
		findings = slices.Concat(findings, []finding{a.f.rights(), a.f.lock(a, err), a.f.port(a), a.disk(), clock(a.f.dir),
			a.descriptors(), a.cache()})
	}
	isBad := func(f finding) bool { return !f.OK }
	if c.has("json") {
		err = c.printJSON(struct {
			OK     bool      `json:"ok"`
			Checks []finding `json:"checks"`
		}{!slices.ContainsFunc(findings, isBad), findings})
	} else {
		w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
		for _, f := range findings {
			word := map[bool]string{true: "ok", false: "not ok"}[f.OK]
			fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, word, f.Says)
			if f.Try != "" {
				fmt.Fprintf(w, "\tTry:\t%s\n", f.Try)
			}
		}
		err = w.Flush()
	}
	switch {
	case notRunning:
		return outcome(toldError{errNotRunning}, err)
	case slices.ContainsFunc(findings, isBad):
		return outcome(toldError{errors.New("not all is ok")}, err)
	}
	return err
}

// server looks at the server itself, and at its version.
func (c *call) server(ctx context.Context, a asked, err error) (findings []finding) {
	const name = "server"
	switch {
	case errors.Is(err, errNotRunning) && a.f.dir == "":
		findings = append(findings, badly(name, err))
	case errors.Is(err, errNotRunning):
		findings = append(findings, bad(name, a.f.command("server start"), "not running"))
	case err != nil && !a.answers:
		findings = append(findings, badly(name, err))
	case !a.answers:
		err, _ := a.f.hung()
		findings = append(findings, badly(name, err))
	case a.s.moved:
		findings = append(findings, badly(name, a.f.moved(a.s)))
	case len(a.s.Damaged) > 0:
		findings = append(findings, bad(name, c.repairHint(a.s.Damaged[0]),
			"it takes no appends to streams that are damaged: %s", strings.Join(a.s.Damaged, " ")))
	default:
		if why := c.unready(ctx, a); why != "" {
			findings = append(findings, bad(name, "", "it takes no appends: %s", daemon.Message(errors.New(why))))
		} else {
			findings = append(findings, ok(name, "it takes appends at %s", a.url))
		}
	}
	if !a.answers {
		return findings
	}
	if says, mend := a.f.mismatch(a.s); says != "" {
		return append(findings, bad("versions", mend, "%s", says))
	}
	return append(findings, ok("versions", "server and streamctl are of %s", a.s.Version))
}

// rights looks at who may do what with the folder.
func (f folder) rights() finding {
	const name = "folder"
	info, err := os.Stat(f.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ok(name, "%v is made by the first append", f)
	case err != nil:
		return badly(name, err)
	case !isOurs(info) && os.Geteuid() != 0: // whom it is not given to: it may be a service's
		return bad(name, "the same command as its user, or with sudo", "%v belongs to another user", f)
	case info.Mode().Perm()&0o077 != 0 && hasModes:
		return bad(name, "chmod -R go= "+daemon.ShellWord(f.dir), "%v is open to other users: its mode is %04o", f,
			info.Mode().Perm())
	}
	if err := mayWrite(f.dir); err != nil {
		return bad(name, "chmod u+rwx "+daemon.ShellWord(f.dir)+", or mount its file system to be written",
			"%v may not be written: %v", f, err)
	}
	if !hasModes {
		return ok(name, "%v is there; this system's files do not tell who may use it", f)
	}
	return ok(name, "%v is its user's alone", f)
}

// lock looks at who has the folder.
func (f folder) lock(a asked, err error) finding {
	const name = "lock"
	pid, known := f.holder()
	switch {
	case a.answers && err == nil:
		return ok(name, "the server with pid %d has it", a.s.PID)
	case a.answers: // through the folder's own socket
		return ok(name, "a server that cannot be seen from here has it")
	case errors.Is(err, errNotRunning):
		return ok(name, "it is free")
	case err != nil:
		return badly(name, err)
	case known && pid != 0:
		err, _ := f.hung()
		return badly(name, err)
	}
	return bad(name, f.command("server stop"), "a server that does not answer has it")
}

// port looks at whether a server can listen.
func (f folder) port(a asked) finding {
	const name = "port"
	if a.answers {
		return ok(name, "the server answers at %s", a.s.url())
	}
	given, err := f.kept()
	if errors.Is(err, fs.ErrPermission) {
		return badly(name, f.foreign(err))
	} else if err != nil {
		return badly(name, err)
	}
	port, fixed := "3000", len(given["port"]) > 0 && len(given["port-fallback"]) == 0
	if fixed {
		port = given["port"][0]
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	switch {
	case err == nil:
		l.Close()
		return ok(name, "%s is free", port)
	case fixed:
		return bad(name, f.command("server start")+" --port 0", "%s, which the last server had, cannot be had: %v", port, err)
	}
	return ok(name, "%s is taken, so a server takes a free one", port)
}

// onDisk tells whether the server's events are on the disk of its folder, or would be.
func (a asked) onDisk() bool { return !a.answers || a.s.Storage == "fs" }

// disk looks at how much room there is.
func (a asked) disk() finding {
	const name = "disk"
	at := a.f.dir
	for at != filepath.Dir(at) { // which may not be there yet
		if _, err := os.Stat(at); err == nil {
			break
		}
		at = filepath.Dir(at)
	}
	free, files, err := daemon.Free(at)
	try := "streamctl stream list --details, and streamctl stream trim for what is large; or server restart --retain"
	switch {
	case err != nil:
		return ok(name, "this system does not tell: %v", err)
	case !a.onDisk():
		return ok(name, "the events are elsewhere: --storage %s", a.s.Storage)
	case free < leastFree:
		return bad(name, try, "%s are free, and it should be %s", daemon.Bytes(free), daemon.Bytes(leastFree))
	case files >= 0 && files < leastInode:
		return bad(name, try, "%d more files can be made: the file system has no more inodes", files)
	}
	return ok(name, "%s are free", daemon.Bytes(free))
}

// clock looks at whether the machine's clock can be right: events get their times from it, and rules of retention and
// tokens with an end go by it.
func clock(dir string) finding {
	const name = "clock"
	now, try := time.Now(), "sudo timedatectl set-ntp true"
	if now.Year() < 2025 {
		return bad(name, try, "it says %s", now.Format(time.RFC3339))
	}
	for _, file := range []string{"streams", "journal", daemon.LogFile} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil {
			continue
		}
		if ahead := info.ModTime().Sub(now); ahead > mostAhead {
			return bad(name, try, "it was set back: %s was written %v from now", daemon.Word(filepath.Join(dir, file)),
				ahead.Round(time.Second))
		}
	}
	switch synchronized, err := isSynchronized(); {
	case err != nil:
		return ok(name, "it goes on from the files' times; this system does not tell whether it is right: %v", err)
	case !synchronized:
		return bad(name, try, "nothing sets it right: it is not synchronized")
	}
	return ok(name, "it is synchronized")
}

// descriptors looks at how many files and connections the server may have open.
func (a asked) descriptors() finding {
	const name = "descriptors"
	used, most, err := descriptorsOf(a.s.PID)
	try := "ulimit -n 65536, then " + a.f.command("server restart") + "; or LimitNOFILE=65536 in the service's unit"
	switch {
	case err != nil:
		return ok(name, "this system does not tell: %v", err)
	case most < leastFiles:
		return bad(name, try, "it may have %d, and it should be %d or more", most, leastFiles)
	case used > most/4*3:
		return bad(name, try, "%d of %d are in use", used, most)
	}
	return ok(name, "%d of %d are in use", used, most)
}

// cache looks at what stands between a write and the disk.
func (a asked) cache() finding {
	const name = "page cache"
	if !a.onDisk() {
		return ok(name, "the events are elsewhere: --storage %s", a.s.Storage)
	}
	m, err := mountOf(a.f.dir)
	if err != nil {
		return ok(name, "this system does not tell: %v", err)
	}
	switch {
	case slices.Contains([]string{"tmpfs", "ramfs"}, m.kind):
		return bad(name, "another --dir, on a disk", "%s is in memory (%s): a restart of the machine loses all events",
			daemon.Word(m.point), m.kind)
	case strings.HasPrefix(m.kind, "nfs"), slices.Contains([]string{"cifs", "smb3", "9p"}, m.kind):
		return bad(name, "another --dir, on a disk of this machine; streamd backup copies a folder",
			"%s is on another machine (%s), whose syncs and locks are not this one's", daemon.Word(m.point), m.kind)
	}
	for _, option := range m.options {
		if slices.Contains([]string{"nobarrier", "barrier=0", "volatile", "nosync"}, option) {
			return bad(name, "sudo mount -o remount,barrier "+daemon.ShellWord(m.point)+", and without it in /etc/fstab",
				"%s is mounted with %s, so a loss of power takes what was synced", daemon.Word(m.point), option)
		}
	}
	w, err := writeBackOf()
	switch {
	case err != nil:
		return ok(name, "%s on %s; this system does not tell the rest: %v", m.kind, daemon.Word(m.point), err)
	case w.every == 0:
		return bad(name, "sudo sysctl vm.dirty_writeback_centisecs=500", "nothing is written by itself: "+
			"vm.dirty_writeback_centisecs is 0")
	case w.most > mostDirty:
		return bad(name, "sudo sysctl vm.dirty_background_bytes="+strconv.Itoa(256<<20),
			"it may hold back %s before it begins to write, for which appends wait then", daemon.Bytes(w.most))
	}
	return ok(name, "%s on %s, writes begin at %s", m.kind, daemon.Word(m.point), daemon.Bytes(w.most))
}

// A mount is the file system that a folder is on.
type mount struct {
	point, kind string
	options     []string
}

// A writeBack is how the page cache is written to disks.
type writeBack struct {
	most  int64 // bytes that it has before it begins
	every int   // hundredths of a second between its looks for what is old, 0 is never
}
