package streamlib

import (
	"context"
	"errors"
	"sync"
	"time"
)

// hear makes a manager hear of what others append to the streams whose names begin with prefix, until the function that
// it returns is called: it follows them all, and looks for new ones.
func (m *Manager) hear(ctx context.Context, prefix string) (deaf func()) {
	others, shared := m.storage.(Shared)
	if !shared {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var hearing sync.WaitGroup
	followed := map[string]bool{}
	look := func(first bool) {
		names, err := others.List(ctx, prefix, "", 0)
		for _, name := range names {
			if err != nil || followed[name] || m.making(name) {
				continue
			}
			followed[name] = true
			m.mu.Lock()
			if m.streams[name] == nil && !first { // it is new: its events are from its first on
				m.options.shared.doubts.Store(name, Offset(0))
			}
			m.mu.Unlock()
			events := m.Stream(name).Subscribe(ctx, Now) // knows the tail when it returns
			hearing.Go(func() {
				for err := error(nil); ctx.Err() == nil && (err == nil || errors.Is(err, ErrDeleted)); {
					for _, err = range events {
					}
					if err == nil { // it was closed
						return
					}
					events = m.Stream(name).Subscribe(ctx, Now)
				}
			})
		}
	}
	look(true)
	hearing.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-time.After(hearTime):
				look(false)
			case <-ctx.Done():
			}
		}
	})
	return func() {
		cancel()
		hearing.Wait()
	}
}

// hearTime is how often new streams of others are looked for.
const hearTime = 2 * time.Second
