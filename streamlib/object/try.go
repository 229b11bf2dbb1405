package object

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// A FaultError is why a store cannot keep streams: it does not do what is relied on.
type FaultError struct {
	Fault string // a sentence about the store
}

func (e *FaultError) Error() string { return "this store cannot keep streams: " + e.Fault }

const racers = 16

// try tries with some thirty requests, below a name of its own, whether the store keeps its word. The error is
// *FaultError where appends could be lost. Where it is the collector alone that cannot rely on it, lacks tells why.
//
// A store that does not heed the conditions is tried once more, in Google's spelling. That is found by what it does and
// not by its host, so that it holds behind any name, and is never believed of a name alone.
func (s *Storage) try(ctx context.Context) (lacks string, err error) {
	t := trial{s: s}
	if lacks, err = t.run(ctx); err == nil || t.heeded {
		return lacks, err
	}
	_, faulty := errors.AsType[*FaultError](err)
	answer, refused := errors.AsType[*answerError](err)
	if !faulty && !(refused && (answer.http == http.StatusBadRequest || answer.http == http.StatusNotImplemented)) {
		return "", err
	}
	s.c.spelling = google
	lacks, second := (&trial{s: s}).run(ctx)
	_, faulty = errors.AsType[*FaultError](second)
	if _, refused = errors.AsType[*answerError](second); faulty || refused {
		return "", fmt.Errorf("%w (and asked in Google's spelling: %v)", err, second)
	}
	return lacks, second
}

// A trial is one in one spelling.
type trial struct {
	s       *Storage
	heeded  bool   // conditions that objects are not there
	at      string // of its objects
	written []string
}

func (t *trial) run(ctx context.Context) (lacks string, err error) {
	t.at = t.s.c.o.Prefix + "try/" + rand.Text() + "/"
	defer func() {
		removed := t.remove(ctx)
		if err == nil && lacks == "" {
			lacks = removed
		}
	}()
	etag, date, err := t.race(ctx)
	if t.heeded = err == nil; t.heeded {
		err = t.lists(ctx)
	}
	if err == nil {
		lacks, err = t.matches(ctx, etag)
	}
	if err == nil && lacks == "" {
		lacks, err = t.dates(ctx, date)
	}
	return lacks, err
}

// put sends a request until there is an answer that is more than a plea to wait.
func (t *trial) put(ctx context.Context, key, body, ifMatch string, at time.Time) (r reply, err error) {
	ctx, cancel := t.s.c.patient(ctx, "put")
	defer cancel()
	for wait := 20 * time.Millisecond; ; wait *= 2 {
		r, err = t.s.c.do(ctx, http.MethodPut, t.at+key, nil, []byte(body), ifMatch, at)
		if err == nil && !r.again() {
			return r, nil
		} else if err == nil {
			err = t.s.c.failed("put", r)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return r, fmt.Errorf("%w: %w", streamlib.ErrUnavailable, err)
		}
	}
}

// race lets several write one object on the condition that it is not there.
func (t *trial) race(ctx context.Context) (etag string, date time.Time, err error) {
	t.written = append(t.written, "b")
	absent := strings.Join(t.s.c.spelling.absent[:], ": ")
	replies, errs := make([]reply, racers), make([]error, racers)
	var racing sync.WaitGroup
	for i := range racers {
		racing.Go(func() {
			replies[i], errs[i] = t.s.c.do(ctx, http.MethodPut, t.at+"b", nil, fmt.Append(nil, i), ifAbsent, time.Time{})
		})
	}
	racing.Wait()
	won, winner, open := 0, "", false
	for i, r := range replies {
		switch {
		case errs[i] != nil:
			open, err = true, errs[i]
		case r.status < 300:
			won, winner = won+1, fmt.Sprint(i)
		case !r.taken() && !r.again():
			return "", date, t.s.c.failed("write with "+absent, r)
		case r.again() && !r.refused():
			open, err = true, t.s.c.failed("put", r)
		}
	}
	r, failed := t.s.c.get(ctx, t.at+"b")
	switch {
	case won > 1:
		return "", date, &FaultError{fmt.Sprintf("%d of %d writers of one object had %s fulfilled at once, "+
			"and all but one of them were lost", won, racers, absent)}
	case won == 0 && failed == errNone:
		if r, err = t.put(ctx, "b", "0", ifAbsent, time.Time{}); err != nil {
			return "", date, err
		} else if r.status >= 300 {
			return "", date, t.s.c.failed("write with "+absent, r)
		}
		winner = "0"
		r, failed = t.s.c.get(ctx, t.at+"b")
	}
	switch {
	case failed == errNone && open, failed != nil && failed != errNone:
		return "", date, errors.Join(failed, err)
	case failed == errNone || winner != "" && string(r.body) != winner:
		return "", date, &FaultError{"it did not show an object that it had just taken"}
	}
	if again, err := t.put(ctx, "b", "again", ifAbsent, time.Time{}); err != nil {
		return "", date, err
	} else if again.status < 300 {
		return "", date, &FaultError{"it wrote an object that was there, though " + absent + " forbade it"}
	}
	return r.etag, r.date, nil
}

// lists writes two more, and lists them.
func (t *trial) lists(ctx context.Context) error {
	for _, key := range []string{"c", "a/x"} {
		t.written = append(t.written, key)
		if r, err := t.put(ctx, key, "", ifAbsent, time.Time{}); err != nil {
			return err
		} else if r.status >= 300 {
			return t.s.c.failed("put", r)
		}
	}
	for _, test := range []struct {
		after, delimiter, want, fault string
		limit                         int
	}{
		{"", "", "a/x b c", "it does not list what it has, in the order of the names' bytes", 10},
		{"a/x", "", "b", "it does not begin a list behind start-after, or passes over max-keys", 1},
		{"", "/", "b c +a/", "it does not list what has a delimiter in it as it should", 10},
	} {
		after := test.after
		if after != "" {
			after = t.at + after
		}
		l, err := t.s.c.list(ctx, t.at, after, test.delimiter, test.limit)
		if err != nil {
			return err
		}
		var got []string
		for _, o := range l.Contents {
			got = append(got, strings.TrimPrefix(o.Key, t.at))
		}
		for _, p := range l.CommonPrefixes {
			got = append(got, "+"+strings.TrimPrefix(p.Prefix, t.at))
		}
		if strings.Join(got, " ") != test.want {
			return &FaultError{fmt.Sprintf("%s: %q, where it has %q", test.fault, got, test.want)}
		}
	}
	return nil
}

// matches writes on the condition that the object is still the same.
func (t *trial) matches(ctx context.Context, etag string) (lacks string, err error) {
	match := t.s.c.spelling.match
	for _, test := range []struct {
		key       string
		fulfilled bool
		lacks     string
	}{
		{"b", true, "it did not write an object that was the same, though " + match + " allowed it"},
		{"b", false, "it wrote an object that had changed, though " + match + " forbade it"},
		{"d", false, "it wrote an object that was gone, though " + match + " forbade it"},
	} {
		t.written = append(t.written, test.key)
		r, err := t.put(ctx, test.key, "matched", etag, time.Time{})
		if err != nil {
			return "", err
		}
		if (r.status < 300) != test.fulfilled {
			return test.lacks, nil
		}
	}
	return "", nil
}

// dates signs with other times than now: date is the store's.
func (t *trial) dates(ctx context.Context, date time.Time) (lacks string, err error) {
	if date.IsZero() {
		return "it does not tell the date", nil
	}
	t.written = append(t.written, "e")
	r, err := t.put(ctx, "e", "", ifAbsent, date.Add(-16*time.Minute))
	if err == nil && r.status < 300 {
		return "it took what was signed 16 minutes ago, and a writer that slept could write where something was collected",
			nil
	}
	if err == nil {
		r, err = t.put(ctx, "e", "", ifAbsent, date.Add(-9*time.Minute))
	}
	if err == nil && r.status >= 300 {
		return "", &FaultError{"it does not take what was signed 9 minutes ago, and each append would take a list more"}
	}
	return "", err
}

// remove removes what was written, and tells if that cannot be.
func (t *trial) remove(ctx context.Context) (lacks string) {
	for _, key := range t.written {
		if err := t.s.c.remove(ctx, t.at+key); err != nil {
			return "nothing can be removed: " + err.Error()
		}
	}
	if len(t.written) == 0 {
		return ""
	}
	if _, err := t.s.c.get(ctx, t.at+"b"); err == nil {
		return "it showed an object that it had just removed"
	}
	return ""
}
