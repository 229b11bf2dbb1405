package protocol

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// isNumber tells whether s is n as one writes it: without a sign or a zero in front.
func isNumber(s string, n int64) bool { return n >= 0 && s == strconv.FormatInt(n, 10) }

// wanted is a stream as a request wants it.
type wanted struct {
	note
	closed bool
	body   []byte
	from   string // what it is a fork of, as the request has it; "" is nothing
	offset *string
	sub    *string
}

func (h *Handler) wanted(w http.ResponseWriter, r *http.Request, name string) (want wanted, release func(), err error) {
	if want.body, release, err = h.body(w, r, name); err != nil {
		return want, release, err
	}
	var values [6]string
	var there [6]bool
	for i, header := range [...]string{"Content-Type", "Stream-TTL", "Stream-Expires-At", "Stream-Forked-From",
		"Stream-Fork-Offset", "Stream-Fork-Sub-Offset"} {
		if values[i], there[i], err = one(r, header); err != nil {
			return want, release, err
		}
	}
	want.Type, want.Expires, want.from, want.closed = values[0], values[2], values[3], closes(r)
	if there[1] {
		n, err := strconv.ParseInt(values[1], 10, 64)
		if err != nil || !isNumber(values[1], n) {
			return want, release, refuse(http.StatusBadRequest, "invalid Stream-TTL %q: it is a number of seconds", values[1])
		}
		want.TTL = &n
	}
	if there[2] {
		if _, err := time.Parse(time.RFC3339, want.Expires); err != nil {
			return want, release, refuse(http.StatusBadRequest, "invalid Stream-Expires-At %q: it is a time of RFC 3339",
				want.Expires)
		}
		if there[1] {
			return want, release, refuse(http.StatusBadRequest, "Stream-TTL and Stream-Expires-At contradict each other")
		}
	}
	if there[4] {
		want.offset = &values[4]
	}
	if there[5] {
		want.sub = &values[5]
	}
	if !there[3] && (there[4] || there[5]) || there[3] && want.from == "" {
		return want, release, refuse(http.StatusBadRequest, "a fork's offset is without Stream-Forked-From")
	}
	return want, release, nil
}

func (h *Handler) create(w http.ResponseWriter, r *http.Request, name string) (streamlib.Receipt, error) {
	want, release, err := h.wanted(w, r, name)
	defer release()
	if err != nil {
		return streamlib.Receipt{}, err
	}
	for range tries {
		receipt, err := h.make(w, r, name, want)
		if err != errAgain {
			return receipt, err
		}
	}
	return streamlib.Receipt{}, errBusy
}

// make answers a request for a stream, and makes it where there is none. Its error is errAgain where somebody else made
// it at the same time, or made the source another stream.
func (h *Handler) make(w http.ResponseWriter, r *http.Request, name string, want wanted) (streamlib.Receipt, error) {
	var none streamlib.Receipt
	info, there, err := h.look(r.Context(), name)
	switch {
	case err == errDeleted:
		return none, refuse(http.StatusConflict, "a stream of this name was deleted, and forks keep its data")
	case err != nil && err != errNone:
		return none, err
	}
	exists := err == nil
	var prefix []json.RawMessage
	var source streamlib.Info
	if want.from != "" {
		forked := &there
		if !exists || there.Fork == nil {
			forked = nil
		}
		if source, prefix, err = h.plan(r, &want, forked); err != nil {
			return none, err
		}
	}
	if want.Type == "" {
		want.Type = "application/octet-stream"
	}
	if exists {
		if !want.same(info, &there) {
			return none, refuse(http.StatusConflict, "there is a stream of this name with another configuration")
		}
		h.use(name, &there)
		created(w, r, info, &there, http.StatusOK)
		return none, nil
	}
	var data []json.RawMessage
	if len(want.body) > 0 {
		if data, err = values(want.body, want.json()); err != nil {
			return none, err
		}
	}
	want.ID = rand.Text()[:12]
	batch := streamlib.Batch{Data: append(prefix, data...), Close: want.closed,
		Decide: func(tail streamlib.Offset, state *streamlib.State) error {
			if tail > 0 || state.Closed || state.Note != "" {
				return errAgain
			}
			if want.Fork != nil {
				state.First = want.Fork.At
			}
			want.change()
			state.Note = want.text
			return nil
		}}
	receipt, err := h.put(r.Context(), name, want.note, source, batch)
	if errors.Is(err, errAgain) {
		return none, errAgain
	} else if err != nil {
		return none, err
	}
	if want.TTL != nil || want.Expires != "" {
		h.note(name)
	}
	info = streamlib.Info{Tail: receipt.Tail, State: streamlib.State{Closed: receipt.Closed}}
	created(w, r, info, &want.note, http.StatusCreated)
	return receipt, nil
}

// same tells whether a stream that is there is what is wanted.
func (want *wanted) same(info streamlib.Info, there *note) bool {
	same := strings.EqualFold(want.Type, there.Type) && info.Closed == want.closed && want.Expires == there.Expires &&
		(want.TTL == nil) == (there.TTL == nil) && (want.TTL == nil || *want.TTL == *there.TTL) &&
		(want.Fork == nil) == (there.Fork == nil)
	if same && want.Fork != nil {
		a, b := *want.Fork, *there.Fork
		a.At, b.At = 0, 0
		same = a == b
	}
	return same
}

func created(w http.ResponseWriter, r *http.Request, info streamlib.Info, n *note, code int) {
	scheme := "http"
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	w.Header().Set("Content-Type", n.Type)
	setTail(w.Header(), info)
	if code == http.StatusCreated {
		w.Header().Set("Location", scheme+"://"+r.Host+r.URL.EscapedPath())
	}
	w.WriteHeader(code)
}

// plan finds out where a fork begins, and what of a message it has as an event of its own. There is the fork where it
// was made before: it may outlive its source.
func (h *Handler) plan(r *http.Request, want *wanted, there *note) (info streamlib.Info, prefix []json.RawMessage,
	err error) {
	again := there != nil
	source := strings.TrimPrefix(want.from, "/")
	for _, mount := range [...]string{"v1/stream/", "v1/streams/"} {
		if rest, ok := strings.CutPrefix(source, mount); ok {
			source = rest
			break
		}
	}
	if h.config.Access != nil {
		g, err := h.config.Access.Grant(r)
		covered := err == nil && g.Right >= streamhttp.Read && len(g.Prefixes) == 0
		for _, p := range g.Prefixes {
			covered = covered || err == nil && g.Right >= streamhttp.Read && strings.HasPrefix(source, p)
		}
		if !covered {
			return info, nil, refuse(http.StatusForbidden, "this needs the right to read %q", source)
		}
	}
	if err := streamlib.CheckName(source); err != nil {
		return info, nil, err
	}
	info, n, err := h.look(r.Context(), source)
	switch {
	case again && err == errDeleted:
	case again && err == errNone:
		n = *there
	case err == errDeleted:
		return info, nil, refuse(http.StatusConflict, "the source was deleted")
	case err != nil:
		return info, nil, err
	}
	f := &fork{Source: source, At: info.Tail}
	if want.offset != nil {
		f.Offset = *want.offset
		if f.At, err = parseOffset(f.Offset); err != nil {
			return info, nil, err
		}
		if f.At = max(f.At, 0); f.At > info.Tail && !again {
			return info, nil, refuse(http.StatusBadRequest, "the source ends at %d", info.Tail)
		}
	}
	if want.sub != nil {
		k, err := strconv.Atoi(*want.sub)
		if err != nil || !isNumber(*want.sub, int64(k)) {
			return info, nil, refuse(http.StatusBadRequest, "invalid Stream-Fork-Sub-Offset %q", *want.sub)
		}
		if f.Sub = k; !again {
			if prefix, err = h.within(r.Context(), source, info, &n, f); err != nil {
				return info, nil, err
			}
		}
	}
	if want.Type == "" {
		want.Type = n.Type
	} else if mediaType(want.Type) != mediaType(n.Type) {
		return info, nil, refuse(http.StatusConflict, "the source is %s", n.Type)
	}
	if want.TTL == nil && want.Expires == "" {
		want.TTL, want.Expires = n.TTL, n.Expires
	}
	want.Fork = f
	return info, prefix, nil
}

// within moves a fork's point by its sub-offset: so many messages, or so many bytes of one.
func (h *Handler) within(ctx context.Context, source string, info streamlib.Info, n *note, f *fork) (
	prefix []json.RawMessage, err error) {
	switch k := f.Sub; {
	case k == 0:
	case f.At >= info.Tail || n.json() && k > int(info.Tail-f.At):
		return nil, refuse(http.StatusBadRequest, "there is no message so far behind the offset")
	case n.json():
		f.At += streamlib.Offset(k)
	default:
		events, err := h.events(ctx, source, n, f.At, f.At+1, 1)
		if err != nil {
			return nil, err
		}
		if len(events) == 0 {
			return nil, errAgain
		}
		message := decode(events[0].Data())
		if k > len(message) {
			return nil, refuse(http.StatusBadRequest, "the message has %d bytes", len(message))
		}
		prefix = []json.RawMessage{encode(message[:k])}
	}
	return prefix, nil
}

// put makes the stream. A fork is claimed of its source before it is made, and what a crash leaves is a claim of a fork
// that there is not, which is found out: see dead.
func (h *Handler) put(ctx context.Context, name string, want note, source streamlib.Info, batch streamlib.Batch) (
	streamlib.Receipt, error) {
	if want.Fork == nil {
		return h.streams.Stream(name).Append(ctx, batch)
	}
	h.mu.Lock()
	h.making[want.ID] = true
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.making, want.ID)
	}()
	was, begun := parseNote(source.Note), time.Now()
	_, err := h.change(ctx, source.Name, false, func(n *note, tail streamlib.Offset, state *streamlib.State) error {
		switch {
		case n.ID != was.ID || state.Life != source.Life || n.Deleted || tail < want.Fork.At:
			return errAgain
		}
		n.Forks = append(n.Forks, claim{name, want.ID, begun.Unix()})
		if b, _ := json.Marshal(n); len(b) > maxForks {
			return refuse(http.StatusInsufficientStorage, "the source has as many forks as it can have")
		}
		return nil
	})
	if err != nil {
		return streamlib.Receipt{}, err
	}
	h.note(source.Name)
	decide := batch.Decide
	batch.Decide = func(tail streamlib.Offset, state *streamlib.State) error {
		if time.Since(begun) > claimTime/2 { // others may have found out that it is not made
			return fmt.Errorf("%w: making the fork took too long", streamlib.ErrUnavailable)
		}
		return decide(tail, state)
	}
	receipt, err := h.streams.Stream(name).Append(ctx, batch)
	if err != nil {
		info, look := h.streams.Stream(name).Stat(context.WithoutCancel(ctx))
		if n := parseNote(info.Note); look == nil && n.ID != want.ID {
			err = errors.Join(err, h.release(context.WithoutCancel(ctx), source.Name, want.ID))
		}
	}
	return receipt, err
}
