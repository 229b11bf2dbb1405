package object

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fake is a store that keeps what S3 promises: reads and lists are of the moment, a conditional PUT is decided at one
// moment, signatures are those of the request, and none is taken whose date is 15 minutes away. Or it is one that does
// as Google's XML API (see spelling), as that is documented, and as others measured it: nothing was tried there.
type fake struct {
	now func() time.Time
	// fault, where not nil, is asked before and after a request takes effect; what it returns takes the answer's place.
	fault func(r *http.Request, after bool) (*http.Response, error)

	patience time.Duration // that its storages have with it
	unsigned bool          // its signatures are taken as they are
	early    time.Duration // by which objects look older in lists
	google   bool          // it is Google's

	mu       sync.Mutex
	objects  map[string]stored
	keys     []string       // of them, sorted
	writes   int            // that there have been
	requests map[string]int // by method
}

// A clock goes where a test lets it. All methods may be called at once.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

type stored struct {
	body     []byte
	etag     string // or the generation, where it is Google's
	modified time.Time
}

var testKeys = Keys{ID: "AKIDEXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}

// open is Open without a trial and a collector.
func open(ctx context.Context, o Options) (*Storage, error) {
	s, err := place(o)
	if err != nil {
		return nil, err
	}
	begun, err := s.begun(ctx)
	if err == nil && !begun {
		err = s.begin(ctx)
	}
	return s, err
}

func newFake() *fake {
	return &fake{now: time.Now, objects: map[string]stored{}, requests: map[string]int{}}
}

func (f *fake) options() Options {
	return Options{Bucket: "bucket", Prefix: "streams/", Endpoint: "http://store.example", Transport: f, Now: f.now,
		Patience: f.patience, Keys: func(context.Context) (Keys, error) { return testKeys, nil }}
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	for _, after := range []bool{false, true} {
		var answer *http.Response
		if after {
			answer = f.do(r, body)
		}
		if f.fault != nil {
			if other, err := f.fault(r, after); other != nil || err != nil {
				return other, err
			}
		}
		if err := context.Cause(r.Context()); err != nil {
			return nil, err
		}
		if after {
			return answer, nil
		}
	}
	panic("unreachable")
}

func answer(status int, code string, body []byte) *http.Response {
	if code != "" {
		body = []byte("<Error><Code>" + code + "</Code></Error>")
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body))}
}

var errLost = errors.New("connection reset")

func (f *fake) do(r *http.Request, body []byte) *http.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	f.requests[r.Method]++
	reply := f.decide(r, body, now)
	reply.Header.Set("Date", now.UTC().Format(http.TimeFormat))
	return reply
}

// has tells whether a request has headers whose names begin so.
func has(r *http.Request, prefix string) bool {
	for name := range r.Header {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func (f *fake) decide(r *http.Request, body []byte, now time.Time) *http.Response {
	is, at := amazon, r.Header.Get("X-Amz-Date")
	if f.google && has(r, "X-Amz-") && has(r, "X-Goog-") {
		return answer(400, "ExcessHeaderValues", nil)
	} else if f.google && strings.HasPrefix(r.Header.Get("Authorization"), "GOOG4-HMAC-SHA256 ") {
		is, at = google, r.Header.Get("X-Goog-Date")
	}
	date, err := time.Parse(dateLayout, at)
	if err != nil {
		return answer(403, "AccessDenied", nil)
	}
	if !f.unsigned {
		again := r.Clone(r.Context())
		again.Header.Del("Authorization")
		signer{is, testKeys}.sign(again, hash(body), date)
		if again.Header.Get("Authorization") != r.Header.Get("Authorization") {
			return answer(403, "SignatureDoesNotMatch", nil)
		}
	}
	if age := now.Sub(date); age > 15*time.Minute || age < -15*time.Minute {
		return answer(403, "RequestTimeTooSkewed", nil)
	}
	key, ok := strings.CutPrefix(r.URL.Path, "/bucket/")
	if !ok {
		return answer(404, "NoSuchBucket", nil)
	}
	was, there := f.objects[key]
	switch {
	case r.Method == http.MethodGet && key == "":
		return f.list(r)
	case r.Method == http.MethodGet && !there:
		return answer(404, "NoSuchKey", nil)
	case r.Method == http.MethodGet:
		reply := answer(200, "", was.body)
		f.version(reply, was)
		return reply
	case r.Method == http.MethodDelete && f.google && !there:
		return answer(404, "NoSuchKey", nil)
	case r.Method == http.MethodDelete:
		delete(f.objects, key)
		if i, there := slices.BinarySearch(f.keys, key); there {
			f.keys = slices.Delete(f.keys, i, i+1)
		}
		return answer(204, "", nil)
	case f.google: // it passes over the conditions of the other spelling
		if want := r.Header.Get("X-Goog-If-Generation-Match"); want != "" {
			if _, err := strconv.ParseInt(want, 10, 64); err != nil {
				return answer(400, "InvalidArgument", nil)
			} else if want != cmp.Or(was.etag, "0") {
				return answer(412, "PreconditionFailed", nil)
			}
		}
	case r.Header.Get("If-Match") != "" && !there:
		return answer(404, "NoSuchKey", nil)
	case r.Header.Get("If-None-Match") == "*" && there,
		r.Header.Get("If-Match") != "" && r.Header.Get("If-Match") != was.etag:
		return answer(412, "PreconditionFailed", nil)
	}
	f.writes++
	o := stored{body, etag(body), now}
	if f.google {
		o.etag = strconv.Itoa(1_700_000_000_000_000 + f.writes)
	}
	f.objects[key] = o
	if i, there := slices.BinarySearch(f.keys, key); !there {
		f.keys = slices.Insert(f.keys, i, key)
	}
	reply := answer(200, "", nil)
	f.version(reply, o)
	return reply
}

func etag(body []byte) string { return `"` + hash(body)[:32] + `"` }

// version lets an answer tell which object it is of.
func (f *fake) version(reply *http.Response, o stored) {
	reply.Header.Set("Etag", etag(o.body))
	if f.google {
		reply.Header.Set("X-Goog-Generation", o.etag)
	}
}

func (f *fake) list(r *http.Request) *http.Response {
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("max-keys"))
	var out struct {
		XMLName  xml.Name `xml:"ListBucketResult"`
		Contents []struct {
			Key, ETag    string
			LastModified time.Time
			Size         int
		}
		CommonPrefixes []struct{ Prefix string }
		IsTruncated    bool
	}
	last := ""
	from, _ := slices.BinarySearch(f.keys, max(q.Get("prefix"), q.Get("start-after")))
	for _, key := range f.keys[from:] {
		rest, ok := strings.CutPrefix(key, q.Get("prefix"))
		if !ok {
			break
		}
		if key <= q.Get("start-after") {
			continue
		}
		common := ""
		if before, _, cut := strings.Cut(rest, q.Get("delimiter")); q.Get("delimiter") != "" && cut {
			common = q.Get("prefix") + before + q.Get("delimiter")
		}
		if common != "" && common == last {
			continue
		}
		if len(out.Contents)+len(out.CommonPrefixes) == limit {
			out.IsTruncated = true
			break
		}
		if last = common; common != "" {
			out.CommonPrefixes = append(out.CommonPrefixes, struct{ Prefix string }{common})
			continue
		}
		o := f.objects[key]
		out.Contents = append(out.Contents, struct {
			Key, ETag    string
			LastModified time.Time
			Size         int
		}{key, etag(o.body), o.modified.Add(-f.early), len(o.body)})
	}
	body, err := xml.Marshal(out)
	if err != nil {
		panic(fmt.Sprint(err))
	}
	return answer(200, "", body)
}
