package tokens

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

const (
	lookEvery = 500 * time.Millisecond // at the file
	maxSize   = 16 << 20               // of the file, some hundred thousand tokens
)

// Options are how a File is used; the zero value is ready.
type Options struct {
	Key []byte       // signs sessions; nil is one of the process's own, with which sessions end
	Log *slog.Logger // for what is read again; nil discards
}

// A File says who may do what by the tokens of a file, as that is now.
type File struct {
	path   string
	key    []byte
	cookie string // the name of a session's
	log    *slog.Logger
	use    atomic.Pointer[table]
	end    context.CancelFunc
	done   sync.WaitGroup

	mu   sync.Mutex // held while the file is read; guards what follows
	text []byte     // what was read last
	said string     // the error that was logged of it
}

var _ streamhttp.Access = (*File)(nil)

// A table is what is in force.
type table struct {
	bySecret map[[sha256.Size]byte]*Token // by its digest
	byName   map[string]*Token
	replaced chan struct{}
}

// Open reads the file and watches it until Close. A bad file is an error, and so is one without any token.
func Open(path string, o Options) (*File, error) {
	f := &File{path: path, key: o.Key, log: o.Log}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if f.key == nil {
		f.key = []byte(rand.Text())
	}
	// A browser sends those of all ports.
	f.cookie = fmt.Sprintf("streams-session-%x", f.sign("cookie", 0, [sha256.Size]byte{})[:4])
	seen, err := f.load(nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.end = cancel
	f.done.Go(func() { f.watch(ctx, seen) })
	return f, nil
}

// Close ends the watching; what is in force stays so.
func (f *File) Close() error {
	f.end()
	f.done.Wait()
	return nil
}

// Len returns how many tokens are in force, expired ones among them.
func (f *File) Len() int { return len(f.use.Load().byName) }

// Reload reads the file now. Where it is bad the tokens that there were stay in force, and the error is logged.
func (f *File) Reload() error {
	_, err := f.load(nil)
	return err
}

// load puts the file in force, unless it does not look as before, where that is known. It returns what it looks like.
func (f *File) load(before os.FileInfo) (os.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text, info, err := read(f.path)
	if before != nil && !same(info, before) {
		return info, nil // it will be looked at again
	}
	now := f.use.Load()
	if err == nil && now != nil && f.said == "" && bytes.Equal(text, f.text) {
		return info, nil
	}
	tokens, err := parseFile(f.path, text, err)
	if err != nil {
		if now != nil && f.said != err.Error() {
			f.said = err.Error()
			f.log.Error("the tokens from before stay in force", "error", err)
		}
		return info, err
	}
	t := &table{map[[sha256.Size]byte]*Token{}, map[string]*Token{}, make(chan struct{})}
	for i := range tokens {
		t.bySecret[tokens[i].Digest], t.byName[tokens[i].Name] = &tokens[i], &tokens[i]
	}
	f.text, f.said = text, ""
	f.use.Store(t)
	if now != nil {
		close(now.replaced)
		f.log.Info("tokens read again", "file", f.path, "tokens", len(tokens))
	}
	return info, nil
}

// Read returns the tokens of a file as Open does, and watches nothing.
func Read(path string) ([]Token, error) {
	text, _, err := read(path)
	return parseFile(path, text, err)
}

func parseFile(path string, text []byte, err error) (tokens []Token, _ error) {
	if err == nil {
		tokens, err = Parse(text)
	}
	if err == nil && len(tokens) == 0 {
		err = errors.New("it has no token")
	}
	if err != nil {
		return nil, &os.PathError{Op: "tokens file", Path: path, Err: err}
	}
	return tokens, nil
}

// read returns a file that its owner alone can read.
func read(path string) ([]byte, os.FileInfo, error) {
	info, err := os.Stat(path) // before it is opened, for opening a pipe waits
	if err != nil {
		return nil, nil, bare(err)
	}
	if !info.Mode().IsRegular() {
		return nil, info, errNoFile
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, info, bare(err)
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return nil, nil, bare(err)
	}
	if err := checkMode(path, info); err != nil {
		return nil, info, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err == nil && len(text) > maxSize {
		err = fmt.Errorf("it is larger than %d bytes", maxSize)
	} else if err == nil && int64(len(text)) != info.Size() {
		err = errors.New("it changes while it is read")
	}
	return text, info, bare(err)
}

var errNoFile = errors.New("it is no regular file")

func checkMode(path string, info os.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("others may read or write it (mode %04o); chmod 600 %s", mode, path)
	}
	return nil
}

// bare is err without the path, which stands before it.
func bare(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// watch reads the file again once it has changed and then stayed as it is: an editor or a copy may take its time.
// What it looked like is not all there is to see while its time is not well past: it may be written again within the
// same tick of the clock.
func (f *File) watch(ctx context.Context, last os.FileInfo) {
	const tick = 2 * time.Second
	looked := time.Now()
	changed := false
	for next := time.NewTicker(lookEvery); ; {
		select {
		case <-next.C:
		case <-ctx.Done():
			next.Stop()
			return
		}
		info, err := os.Stat(f.path)
		if err != nil {
			info = nil
		}
		switch {
		case !same(info, last):
			last, looked, changed = info, time.Now(), true
		case changed, info != nil && looked.Sub(info.ModTime()) < tick:
			changed, looked = false, time.Now()
			_, _ = f.load(last) // which logs
		}
	}
}

func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.Mode() == b.Mode() && a.ModTime().Equal(b.ModTime())
}

var (
	errNone    = errors.New(`a token is needed: send "Authorization: Bearer" and the token in a header`)
	errTwo     = errors.New("there are two Authorization headers")
	errForm    = errors.New(`the Authorization header is not "Bearer" and a token`)
	errUnknown = errors.New("the token is not known here, or not any more")
	errSession = errors.New("the session has ended; POST /session with the token begins another")
)

// Grant is streamhttp.Access's.
func (f *File) Grant(r *http.Request) (streamhttp.Grant, error) {
	now := f.use.Load()
	if r.Header["Authorization"] != nil {
		t, err := now.bearer(r)
		if err != nil {
			return streamhttp.Grant{}, err
		}
		return now.grant(t, t.Expires), nil
	}
	return f.bySession(now, r)
}

func (t *table) grant(k *Token, until time.Time) streamhttp.Grant {
	return streamhttp.Grant{Name: k.Name, Right: k.Right, Prefixes: k.Prefixes, Until: until, Changed: t.replaced}
}

// bearer returns the token that r's header has.
func (t *table) bearer(r *http.Request) (*Token, error) {
	values := r.Header["Authorization"]
	if len(values) == 0 {
		return nil, errNone
	}
	scheme, secret, _ := strings.Cut(values[0], " ")
	secret = strings.Trim(secret, " ")
	switch {
	case len(values) > 1:
		return nil, errTwo
	case !strings.EqualFold(scheme, "Bearer") || secret == "":
		return nil, errForm
	}
	k := t.bySecret[sha256.Sum256([]byte(secret))]
	if k == nil {
		return nil, errUnknown
	}
	if k.ended() {
		return nil, fmt.Errorf("the token %q has expired", k.Name)
	}
	return k, nil
}

func (t *Token) ended() bool { return !t.Expires.IsZero() && !time.Now().Before(t.Expires) }

// Append adds t to the file, which it makes where there is none. Where the file is bad, or has a token of that name,
// it changes nothing. What other processes append at the same time stays.
func Append(path string, t Token) (err error) {
	if err := t.Check(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = &os.PathError{Op: "tokens file", Path: path, Err: bare(err)}
		}
	}()
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // a pipe would wait, or a device take it
		return errNoFile
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, file.Close()) }()
	if err := lock(file); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := checkMode(path, info); err != nil {
		return err
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	tokens, err := Parse(text)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(tokens, func(k Token) bool { return k.Name == t.Name }) {
		return fmt.Errorf("it has a token %q already", t.Name)
	}
	line := t.String() + "\n"
	switch n := len(text); {
	case n == 0:
		line = "# NAME SHA256 read|write|admin [prefix=P ...] [expires=TIME]\n" + line
	case text[n-1] != '\n':
		line = "\n" + line
	}
	if _, err = file.WriteString(line); err == nil {
		err = file.Sync()
	}
	if err != nil {
		_ = file.Truncate(int64(len(text))) // no half of a line
	}
	return err
}
