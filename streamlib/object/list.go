package object

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/iterate/durable-streams/streamlib"
)

// List asks for the names, for the marks of deletions among them, and for each stream that has one.
func (s *Storage) List(ctx context.Context, prefix, after string, limit int) (names []string, err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	short := func(e string) string { return e[:min(len(e), maxStem)] }
	root, marks := s.c.o.Prefix+"s/", s.c.o.Prefix+"d/"
	want := short(encode(prefix))
	start := ""
	if e := encode(after); after != "" && len(e) > maxStem {
		start = e[:maxStem]
	} else if after != "" {
		start = stem(after) + "/~"
	}
	last, cut := "", []string(nil) // names of the long ones with one beginning, which are sorted together
	flush := func() {
		slices.Sort(cut)
		names, cut = append(names, cut...), nil
	}
	for more := true; more && (limit <= 0 || len(names) < limit); {
		at := ""
		if start != "" {
			at = root + start
		}
		l, err := s.c.list(ctx, root+want, at, "/", 1000)
		if err != nil {
			return nil, err
		}
		if more = l.IsTruncated; len(l.CommonPrefixes) == 0 {
			break
		}
		stems := make([]string, len(l.CommonPrefixes))
		for i, p := range l.CommonPrefixes {
			stems[i] = strings.TrimSuffix(strings.TrimPrefix(p.Prefix, root), "/")
		}
		marked := map[string]bool{}
		for from, page := "", true; page; {
			m, err := s.c.list(ctx, marks+want, marks+from, "", 1000)
			if err != nil {
				return nil, err
			}
			page = m.IsTruncated
			for _, o := range m.Contents {
				from = strings.TrimPrefix(o.Key, marks)
				stem, _, _ := strings.Cut(from, "/")
				marked[stem] = true
			}
			page = page && from < stems[len(stems)-1]
		}
		for _, st := range stems {
			start = st + "/~"
			name, isCut, ok := unstem(st)
			if !ok {
				continue
			}
			if isCut {
				if name, err = s.cutName(ctx, st); err != nil {
					return nil, err
				}
			}
			if short(st) != last || len(st) <= maxStem {
				flush()
				last = short(st)
			}
			if !strings.HasPrefix(name, prefix) || name <= after {
				continue
			}
			if marked[st] {
				if t, err := s.learn(ctx, name); err != nil {
					return nil, err
				} else if !t.there {
					continue
				}
			}
			cut = append(cut, name)
		}
	}
	flush()
	if limit > 0 && len(names) > limit {
		names = names[:limit]
	}
	return names, nil
}

// cutName reads the name of a stream whose stem does not tell it.
func (s *Storage) cutName(ctx context.Context, stem string) (string, error) {
	for range 8 {
		dir := s.c.o.Prefix + "s/" + stem + "/"
		l, err := s.c.list(ctx, dir, "", "", 1)
		if err != nil || len(l.Contents) == 0 {
			return "", cmp.Or(err, errors.New("no object of "+stem))
		}
		r, err := s.c.get(ctx, l.Contents[0].Key)
		if err == errNone {
			continue
		} else if err != nil {
			return "", err
		}
		h, _, err := parse(l.Contents[0].Key, r.body)
		return h.Stream, err
	}
	return "", fmt.Errorf("%w: %s changes too fast", streamlib.ErrUnavailable, stem)
}
