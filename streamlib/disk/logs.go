package disk

import (
	"container/list"
	"errors"
	"io/fs"
	"sync"

	"github.com/iterate/durable-streams/streamlib"
)

// openLogs are the streams' open files: those that somebody has, and of the others those that were used last.
type openLogs struct {
	fs      fsys
	options Options
	open    func(*log) error                           // opens the stream's file
	sync    func(path string, sync func() error) error // syncs it, or fails the store

	// mu guards what follows, and what the logs say that it does. It is taken after a log's own, and never held while
	// the disk works.
	mu   sync.Mutex
	logs map[string]*log
	idle *list.List // of those that nobody has, the last used first
	// unsynced names the streams whose file was closed with bytes that were not synced.
	unsynced map[string]bool
}

// acquire returns the stream's log, open, for use until it is released.
func (o *openLogs) acquire(name string) (*log, error) {
	o.mu.Lock()
	l := o.logs[name]
	if l == nil {
		if err := streamlib.CheckName(name); err != nil {
			o.mu.Unlock()
			return nil, err
		}
		l = newLog(name)
		o.logs[name] = l
	}
	o.hold(l)
	o.mu.Unlock()
	l.opening.Do(func() {
		for l.err = o.open(l); outOfDescriptors(l.err) && o.evictOne(); l.err = o.open(l) {
		}
	})
	if l.err != nil {
		o.mu.Lock()
		o.forget(l)
		o.mu.Unlock()
		o.release(l)
		return nil, l.err
	}
	return l, nil
}

// hold counts one more user of the log. The caller holds mu.
func (o *openLogs) hold(l *log) {
	if l.refs++; l.place != nil {
		o.idle.Remove(l.place)
		l.place = nil
	}
}

// pin lets the log stay what it is until the next start.
func (o *openLogs) pin(l *log) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hold(l)
}

// discard forgets the log of a file that was removed.
func (o *openLogs) discard(l *log) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l.dirty = false
	delete(o.unsynced, l.name)
	o.forget(l)
}

// replace lets what finds the log find another from now on, which has bytes that are not synced.
func (o *openLogs) replace(l, by *log) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l.dirty = false
	o.forget(l)
	o.logs[by.name] = by
	by.dirty = true
	by.writes++
	by.place = o.idle.PushFront(by)
}

// forget makes the log one that nobody finds; who has it keeps it. The caller holds mu.
func (o *openLogs) forget(l *log) {
	if o.logs[l.name] != l {
		return
	}
	delete(o.logs, l.name)
	if l.dirty && !o.options.NoSync {
		o.unsynced[l.name] = true
	}
}

// release gives the log back. Of those that nobody has then, the ones that were not used for longest are closed where
// too many are open; readers that are stuck may take half of what may be open from the others, and no more.
func (o *openLogs) release(l *log) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.refs--; l.refs > 0 {
		return
	}
	if l.file == nil || l.corrupt != nil || l.readOnly {
		o.forget(l) // nothing to keep, or to be looked at again
	}
	if o.logs[l.name] != l {
		o.shut(l)
		return
	}
	l.place = o.idle.PushFront(l)
	for len(o.logs) > o.options.MaxOpen && o.idle.Len() > o.options.MaxOpen/2 {
		o.evict()
	}
}

// evictOne closes an idle log where more are open than should be. Else others have the descriptors, such as
// connections: they would take this one, too, and a stream that can be read could not.
func (o *openLogs) evictOne() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.logs) > o.options.MaxOpen && o.evict()
}

// evict closes the idle log that was not used for longest, and tells whether there is one. The caller holds mu.
func (o *openLogs) evict() bool {
	last := o.idle.Back()
	if last == nil {
		return false
	}
	l := o.idle.Remove(last).(*log)
	l.place = nil
	o.forget(l)
	o.shut(l)
	return true
}

// shut closes a log that nobody has and nobody finds.
func (o *openLogs) shut(l *log) {
	if l.file == nil {
		return
	}
	if err := l.file.close(); err != nil {
		o.options.Log.Error("close", "file", l.path, "error", err)
	}
}

// close forgets all logs. What a reader still has is closed when it is released.
func (o *openLogs) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.logs {
		o.forget(l)
		if l.refs == 0 {
			o.shut(l)
		}
	}
}

// wrote notes that the log has bytes that are not synced. It is called behind the write: a sync that began before
// must not take it back.
func (o *openLogs) wrote(l *log) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l.dirty = true
	l.writes++
}

// syncLog syncs the stream's file: what was written to it where it is open, and what was before it was closed, and
// tells whether it was.
func (o *openLogs) syncLog(name string) (closed bool, err error) {
	o.mu.Lock()
	l := o.logs[name]
	closed = o.unsynced[name]
	delete(o.unsynced, name)
	if l != nil {
		o.hold(l)
	}
	o.mu.Unlock()
	if l != nil {
		defer o.release(l)
		if err := o.syncFile(l); err != nil {
			return closed, err
		}
	}
	if closed {
		err = o.syncClosed(name)
	}
	return closed, err
}

// syncTogether syncs the streams' files with one sync of all that there is: what was written to them, and what was
// before they were closed. What is written, or closed, while it goes on is left to the next.
func (o *openLogs) syncTogether(names []string, syncAll func() error) error {
	o.mu.Lock()
	before := map[*log]int{}
	for _, name := range names {
		if l := o.logs[name]; l != nil && l.dirty {
			before[l] = l.writes
		}
		delete(o.unsynced, name)
	}
	o.mu.Unlock()
	if err := syncAll(); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for l, writes := range before {
		if l.writes == writes {
			l.dirty = false
		}
	}
	return nil
}

// syncFile makes durable what was written to the log so far. The caller has acquired it.
func (o *openLogs) syncFile(l *log) error {
	o.mu.Lock()
	dirty, writes := l.dirty, l.writes
	o.mu.Unlock()
	if !dirty {
		return nil
	}
	if err := o.sync(l.path, l.file.sync); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.writes == writes {
		l.dirty = false
	}
	return nil
}

// syncClosed syncs a file that was closed with bytes that were not. Who cannot open it now has the word of syncAll for
// them.
func (o *openLogs) syncClosed(name string) error {
	f, _, err := openAny(o.fs, path(name))
	for outOfDescriptors(err) && o.evictOne() {
		f, _, err = openAny(o.fs, path(name))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist): // it is deleted
		return nil
	case err != nil && syncAllTells:
		o.options.Log.Warn("a file was synced with all others, for it cannot be opened",
			"file", path(name), "error", err)
		return nil
	case err != nil:
		return err
	}
	return errors.Join(o.sync(path(name), f.sync), f.close())
}
