package object

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// Options are what a Storage needs to know.
type Options struct {
	Bucket string
	Prefix string // of all objects' names, "" or such as "streams/", up to 128 bytes
	Region string // "" is us-east-1

	// Endpoint is the store's URL; "" is AWS's for the region. The bucket stands behind it, unless it has {bucket} in
	// it, as https://{bucket}.s3.example.com for a store that wants it in the host's name.
	Endpoint string

	Existing bool // fail where nothing is at the place, and write nothing there to open it

	Keys      func(context.Context) (Keys, error) // asked before each request
	Transport http.RoundTripper                   // nil is one of its own
	Now       func() time.Time                    // nil is time.Now
	Log       *slog.Logger                        // nil discards
	Patience  time.Duration                       // how long the store may take for what it is asked; 0 is 2.5 s
}

const (
	believe  = 10 * time.Minute // knowledge that is older is renewed before anything is done on it
	maxKnown = 16 << 10         // streams of which the tail is kept in mind
	maxBody  = 1 << 20          // bytes of a last object that are kept in mind
	maxHeld  = 32 << 20         // bytes that those of all streams may take together, with their keys and notes

	eventCost = 64 // bytes that an event takes beside its line, about

	pollFirst, pollLast = 250 * time.Millisecond, 2 * time.Second
)

// A Storage is a streamlib.Shared on a bucket.
type Storage struct {
	c      *client
	log    *slog.Logger
	closed atomic.Bool
	blocks blocks

	collects     bool // it may, by the trial
	endCollector context.CancelFunc
	collecting   sync.WaitGroup

	mu    sync.Mutex // guards what follows
	known map[string]*tail
	held  int // bytes
}

// Open returns the storage at a place of a bucket, after it has tried whether the store does what is relied on: the
// error is *FaultError where appends could be lost. Where it could not be relied on for removing anything, nothing is,
// and the log says so.
func Open(ctx context.Context, o Options) (*Storage, error) {
	s, err := place(o)
	if err != nil {
		return nil, err
	}
	begun, err := s.begun(ctx)
	lacks := ""
	if err == nil && !o.Existing {
		lacks, err = s.try(ctx)
	}
	if err == nil && !begun {
		err = s.begin(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open s3://%s/%s: %w", s.c.o.Bucket, s.c.o.Prefix, err), s.Close())
	}
	if o.Existing {
		return s, nil
	}
	if lacks != "" {
		s.log.Warn("what is needed no more stays in the bucket: the store cannot be relied on for removing it",
			"store", lacks)
		return s, nil
	}
	s.collects = true
	var collecting context.Context
	collecting, s.endCollector = context.WithCancel(context.WithoutCancel(ctx))
	s.collecting.Go(func() { s.collector(collecting) })
	return s, nil
}

const format = "durable-streams objects 1\n"

// begun tells whether the place has a format. It fails where that is another version's, or there is none and ought to
// be one.
func (s *Storage) begun(ctx context.Context) (bool, error) {
	r, err := s.c.get(ctx, s.c.o.Prefix+"format")
	switch {
	case err == errNone && s.c.o.Existing:
		return false, errors.New("there are no streams")
	case err == errNone:
		return false, nil
	case err == nil && string(r.body) != format:
		return false, fmt.Errorf("its format is %.40q, and this version knows %q", r.body, format)
	}
	return err == nil, err
}

// begin gives the place its format. Another may have done so meanwhile.
func (s *Storage) begin(ctx context.Context) error {
	_, err := s.c.put(ctx, s.c.o.Prefix+"format", []byte(format), ifAbsent)
	if err == errTaken {
		_, err = s.begun(ctx)
	}
	return err
}

// place is the storage before anything is asked of the store.
func place(o Options) (*Storage, error) {
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	asked := amazon
	o.Region = cmp.Or(o.Region, asked.region)
	asked.region = o.Region
	o.Patience = cmp.Or(o.Patience, 2500*time.Millisecond)
	if o.Bucket == "" || strings.ContainsAny(o.Bucket, "/?#@:") || len(o.Prefix) > 128 {
		return nil, fmt.Errorf("%w bucket %q or prefix %q", streamlib.ErrInvalid, o.Bucket, o.Prefix)
	}
	base, err := baseURL(o)
	if err != nil {
		return nil, err
	}
	if o.Prefix != "" && !strings.HasSuffix(o.Prefix, "/") {
		o.Prefix += "/"
	}
	s := &Storage{c: &client{o: o, base: base, http: o.Transport, keys: o.Keys, now: o.Now, spelling: asked},
		log: o.Log, endCollector: func() {}, blocks: blocks{64, 4}, known: map[string]*tail{}}
	if s.c.http == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = 256
		s.c.http = t
	}
	if s.c.now == nil {
		s.c.now = time.Now
	}
	return s, nil
}

// baseURL is the bucket's.
func baseURL(o Options) (*url.URL, error) {
	text := o.Endpoint
	if text == "" && strings.Contains(o.Bucket, ".") { // no certificate of AWS's has names of more than one part there
		text = "https://s3." + o.Region + "." + domain(o.Region)
	} else if text == "" {
		text = "https://{bucket}.s3." + o.Region + "." + domain(o.Region)
	}
	if !strings.Contains(text, "{bucket}") {
		text = strings.TrimRight(text, "/") + "/{bucket}"
	}
	base, err := url.Parse(strings.TrimRight(strings.ReplaceAll(text, "{bucket}", o.Bucket), "/"))
	switch {
	case err == nil && base.User != nil:
		return nil, fmt.Errorf("%w endpoint: keys do not belong in its URL", streamlib.ErrInvalid)
	case err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || base.RawQuery != "":
		return nil, fmt.Errorf("%w endpoint: it is a URL such as https://s3.example.com", streamlib.ErrInvalid)
	}
	return base, nil
}

// Close ends the use of the storage.
func (s *Storage) Close() error {
	s.closed.Store(true)
	s.endCollector()
	s.collecting.Wait()
	if t, ok := s.c.http.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
	return nil
}

// Damaged returns nothing: what is damaged is found by who reads it.
func (s *Storage) Damaged() []streamlib.Info { return nil }

func (s *Storage) dir(name string) string { return s.c.o.Prefix + "s/" + stem(name) + "/" }

func (s *Storage) key(name string, p position) string { return s.dir(name) + p.String() }

// mark is the object that tells that a generation may have ended: it is written before that.
func (s *Storage) mark(stem, gen string) string { return s.c.o.Prefix + "d/" + stem + "/" + gen }

// grave is the object that has the last change of a generation of which there is nothing else any more.
func (s *Storage) grave(stem, gen string) string { return s.c.o.Prefix + "g/" + stem + "/" + gen }

// Stat is one request where the stream's end is known, and two where it is not.
func (s *Storage) Stat(ctx context.Context, name string) (streamlib.Info, error) {
	if err := cmp.Or(streamlib.CheckName(name), context.Cause(ctx)); err != nil {
		return streamlib.Info{}, err
	}
	t, err := s.learn(ctx, name)
	if err != nil {
		return streamlib.Info{}, err
	}
	return t.info(name), nil
}

// Changed asks for the next object, at first after 250 ms, and where there is nothing new ever later up to 2 s.
func (s *Storage) Changed(ctx context.Context, name string) error {
	from := s.mind(name)
	for wait := pollFirst; ; wait = min(wait*5/4, pollLast) {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		was := s.mind(name)
		if from == nil || was == nil {
			return nil
		}
		if was.next != from.next { // by a commit of this storage, or somebody looked
			from, wait = was, pollFirst
			if was.known.IsZero() {
				return nil
			}
			continue
		}
		if now, err := s.learn(ctx, name); err == nil && now.next != from.next {
			return nil
		}
	}
}

var errClosed = fmt.Errorf("%w: the storage is closed", streamlib.ErrUnavailable)
