package streamhttp

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/iterate/durable-streams/streamlib/budget"
)

// listAtOnce is how many names of a list are in memory.
const listAtOnce = 8 << 10

// detail is a stream in a list with details.
type detail struct {
	Name       string `json:"name"`
	First      string `json:"first,omitempty"`
	NextOffset string `json:"nextOffset,omitempty"`
	Size       int64  `json:"size,omitempty"`
	CreatedAt  string `json:"createdAt,omitempty"`
	UpdatedAt  string `json:"updatedAt,omitempty"`
	Closed     bool   `json:"closed,omitempty"`
	Life       int64  `json:"life,omitempty"`
	problem           // what is wrong with it, where that cannot be told otherwise instead of all but the name
}

// list answers with a page of streams, or with the live events of many. It goes along the names in steps, so that its
// memory does not grow with them.
func (h *handler) list(w http.ResponseWriter, r *http.Request, _ string) error {
	if accepts(r, sseType[0]) {
		return h.seated(h.followAll)(w, r, "")
	}
	q, err := parameters(r, "prefix", "after", "limit", "details")
	if err != nil {
		return err
	}
	limit, err := q.count("limit")
	if err != nil {
		return err
	}
	details, err := q.bool("details")
	if err != nil {
		return err
	}
	turn, room := budget.TakeTurn(h.inTurn(r.Context(), roomTime))
	if !room {
		return errReading
	}
	defer turn.End()
	l := listing{w: w, conn: connection(r)}
	l.text.WriteString(`{"streams":[`)
	var damaged []detail
	next := ""
	for count, after, more := 0, q.get("after"), true; more; {
		ask := listAtOnce + 1 // one more tells whether there is a next one
		if limit > 0 {
			ask = min(ask, limit-count+1)
		}
		names, err := h.names(r, q.get("prefix"), after, ask)
		if err == nil {
			if more = len(names) == ask; more {
				names = names[:ask-1]
				after = names[len(names)-1]
			}
			count += len(names)
			if more && count == limit {
				next, more = after, false
			}
			err = h.addStreams(&l, r, names, details, &damaged)
		}
		if err == nil && more && l.text.Len() >= chunk && l.flush() != nil {
			return nil // the client has gone
		}
		if err == nil && !turn.Next(r.Context()) {
			err = context.Cause(r.Context())
		}
		if err != nil && l.sent {
			h.logBreak(r, "list broken off", err)
			breakOff(l.conn)
		} else if err != nil {
			return err
		}
	}
	l.text.WriteByte(']')
	if next != "" {
		l.member("next", next)
	}
	if len(damaged) > 0 { // where the streams are names
		l.member("damaged", damaged)
	}
	l.text.WriteString("}\n")
	l.end()
	return nil
}

// addStreams adds streams by their names to the list. One that cannot be read does not hide the others.
func (h *handler) addStreams(l *listing, r *http.Request, names []string, details bool, damaged *[]detail) error {
	if !details {
		for _, name := range names {
			l.add(name)
		}
		for _, info := range h.streams.Damaged() {
			if _, ok := slices.BinarySearch(names, info.Name); ok {
				*damaged = append(*damaged, detail{Name: info.Name, problem: problemOf(info.Damage)})
			}
		}
		return nil
	}
	for _, name := range names {
		d, found := h.detail(r.Context(), name)
		if err := r.Context().Err(); err != nil {
			return err
		}
		if found { // else it was deleted meanwhile
			l.add(d)
		}
	}
	return nil
}

// A listing is an answer with a list, in chunks where it is long.
type listing struct {
	w     http.ResponseWriter
	conn  *net.TCPConn
	text  bytes.Buffer // that is to be sent
	begun bool         // it has a first stream
	sent  bool
}

func (l *listing) add(v any) {
	if l.begun {
		l.text.WriteByte(',')
	}
	l.begun = true
	l.write(v)
}

func (l *listing) member(name string, v any) {
	l.text.WriteString(`,"` + name + `":`)
	l.write(v)
}

func (l *listing) write(v any) {
	e := json.NewEncoder(&l.text)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // our own types
	}
	l.text.Truncate(l.text.Len() - 1) // the end of the line
}

func (l *listing) flush() error {
	if !l.sent {
		l.w.Header()["Content-Type"] = jsonType
		resetOnClose(l.conn, true)
		l.sent = true
	}
	_ = http.NewResponseController(l.w).SetWriteDeadline(time.Now().Add(writeTime))
	_, err := l.w.Write(l.text.Bytes())
	l.text.Reset()
	return err
}

// end sends what is left.
func (l *listing) end() {
	if !l.sent {
		l.w.Header()["Content-Type"] = jsonType
		l.w.Header()["Content-Length"] = []string{strconv.Itoa(l.text.Len())} // so that it is seen to be whole
		_, _ = l.w.Write(l.text.Bytes())                                      // the client may have gone
		return
	}
	if l.flush() == nil && http.NewResponseController(l.w).Flush() == nil {
		resetOnClose(l.conn, false)
	}
}

// detail is that of a stream; found is whether there is one.
func (h *handler) detail(ctx context.Context, name string) (d detail, found bool) {
	info, err := h.streams.Stream(name).Stat(ctx)
	d.Name = name
	switch {
	case ctx.Err() != nil:
	case err != nil:
		h.Log.Error("stream in a list", "stream", name, "error", err)
		_, d.problem = status(err)
	case !there(info) && info.Damage == nil:
		return d, false
	default:
		d = detail{name, firstText(info.First), info.Tail.String(), info.Size, timeText(info.CreatedAt),
			timeText(info.UpdatedAt), info.Closed, info.Life, problem{}}
		if info.Damage != nil {
			d.problem = problemOf(info.Damage)
		}
	}
	return d, true
}
