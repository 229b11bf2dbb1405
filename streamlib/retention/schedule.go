package retention

import (
	"container/heap"
	"time"
)

// A schedule has names with a time each, of which it gives back those that are due. The zero value is empty.
type schedule struct {
	heap  dueHeap
	names map[string]*due
}

type due struct {
	name string
	at   int64 // in milliseconds, for there may be many
	i    int   // in the heap
}

// set gives the name its time, rounded up to a millisecond.
func (s *schedule) set(name string, at time.Time) {
	ms := at.Add(time.Millisecond - 1).UnixMilli()
	if d := s.names[name]; d != nil {
		if d.at != ms {
			d.at = ms
			heap.Fix(&s.heap, d.i)
		}
		return
	}
	if s.names == nil {
		s.names = map[string]*due{}
	}
	d := &due{name: name, at: ms}
	s.names[name] = d
	heap.Push(&s.heap, d)
}

func (s *schedule) remove(name string) {
	if d := s.names[name]; d != nil {
		heap.Remove(&s.heap, d.i)
		delete(s.names, name)
	}
}

func (s *schedule) has(name string) bool { return s.names[name] != nil }

// next takes out a name whose time has come.
func (s *schedule) next(now time.Time) (name string, ok bool) {
	if len(s.heap) == 0 || s.heap[0].at > now.UnixMilli() {
		return "", false
	}
	d := heap.Pop(&s.heap).(*due)
	delete(s.names, d.name)
	return d.name, true
}

type dueHeap []*due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int)      { h[i], h[j], h[i].i, h[j].i = h[j], h[i], j, i }

func (h *dueHeap) Push(d any) {
	d.(*due).i = len(*h)
	*h = append(*h, d.(*due))
}

func (h *dueHeap) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	return last
}
