package disk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// rotate leaves the journal to its checkpoint. The next commit begins another.
func (s *Store) rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = append(s.full, s.journal)
	s.journal, s.frames = nil, s.journal.sequence
	s.written.Store(0)
	s.work.Broadcast()
}

// checkpoints does what there is to do until the store is closed or has failed.
func (s *Store) checkpoints() {
	for {
		s.mu.Lock()
		for (len(s.full) == 0 || s.syncs > 0 || s.stalled) && s.broken == nil {
			s.work.Wait()
		}
		done := len(s.full) == 0 && s.broken != nil || s.failed || s.stalled
		s.mu.Unlock()
		if done {
			return
		}
		if !s.checkpoint() {
			s.stall()
		}
	}
}

// stall lets checkpoints wait a second: there was no room for one.
func (s *Store) stall() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stalled = true
	time.AfterFunc(time.Second, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stalled = false
		s.work.Broadcast()
	})
}

// checkpoint makes durable what the oldest full journal names, and removes it, after the one that is under way. It
// tells whether there may be more to do.
func (s *Store) checkpoint() bool {
	s.mu.Lock()
	for s.checkpointing {
		s.work.Wait()
	}
	if len(s.full) == 0 || s.failed {
		s.mu.Unlock()
		return false
	}
	j, waiting := s.full[0], len(s.full)-1
	s.checkpointing = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.checkpointing = false
		s.work.Broadcast()
	}()
	start := time.Now()
	if err := s.retire(j); err == errBusy {
		return true
	} else if _, ok := errors.AsType[later](err); ok {
		s.options.Log.Error("a journal stays until what it has can be written", "journal", j.path, "error", err)
		return false
	} else if err != nil {
		s.fail(fmt.Errorf("checkpoint %s: %w", j.path, err))
		return false
	}
	s.mu.Lock()
	s.full = s.full[1:]
	s.retired++
	s.mu.Unlock()
	level := slog.LevelDebug
	if waiting > 0 {
		level = slog.LevelWarn // the disk is slower than the appends
	}
	s.options.Log.Log(context.Background(), level, "checkpoint", "journal", j.path, "streams", len(j.names),
		"took", time.Since(start), "journals waiting", waiting)
	return true
}

// later is an error, such as of a full disk, behind which a checkpoint is tried again.
type later struct{ error }

func (s *Store) retire(j *journal) error {
	if err := s.writeStates(slices.Collect(maps.Keys(j.states))); err != nil {
		return later{err}
	}
	if err := s.writeDeletions(s.deletions.Load()); err != nil {
		return later{err}
	}
	if j.deletions > 0 && s.version.Load() > 1 {
		if err := s.sync(stateDir, func() error { return s.fs.syncDir(stateDir) }); err != nil {
			return err
		}
	}
	if s.options.NoSync {
		s.mu.Lock()
		closing := s.broken != nil
		s.mu.Unlock()
		if closing {
			if err := s.fs.syncAll(); err != nil {
				return err
			}
		}
	} else {
		if err := s.syncLogs(slices.Sorted(maps.Keys(j.names))); err != nil {
			return err
		}
		if err := s.syncStreams(); err != nil {
			return err
		}
	}
	if err := s.idleAndWell(); err != nil {
		return err
	}
	s.setRemoving(true)
	err := removeJournal(s.fs, j.path)
	if err != nil {
		s.fail(fmt.Errorf("checkpoint %s: %w", j.path, err))
	}
	s.setRemoving(false)
	return errors.Join(j.file.close(), err)
}

// manyFiles is how many files one syncfs(2) is cheaper than: 10,000 that a journal names take 3 s with a sync each, for
// each waits for the file system's own journal, and 0.1 s with one for all. It also waits for what others have written
// to that file system, so a few files are synced one by one. Tests make it small.
var manyFiles = 256

// syncLogs syncs the streams' files.
func (s *Store) syncLogs(names []string) error {
	syncAll := func() error { return s.sync(streamsDir, s.fs.syncAll) }
	if len(names) >= manyFiles && s.fs.syncsClosed() {
		return s.logs.syncTogether(names, syncAll)
	}
	anyClosed := false
	for _, name := range names {
		closed, err := s.logs.syncLog(name)
		if err != nil {
			return err
		}
		anyClosed = anyClosed || closed
	}
	if anyClosed && syncAllTells { // behind them: a file may be closed while the others are synced
		return syncAll()
	}
	return nil
}

// errBusy says that a checkpoint is to be tried again, when the sync that is under way has ended.
var errBusy = errors.New("a sync is under way")

// idleAndWell tells whether what was synced so far is durable.
func (s *Store) idleAndWell() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.failed:
		return errors.New("a sync failed")
	case s.syncs > 0:
		return errBusy
	}
	return nil
}

func (s *Store) setRemoving(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removing = on
	s.work.Broadcast()
}

// nameIsDurable tells whether the name of a new journal, whose folder was synced, is durable: not where the sync for
// the removal of an old one, at the same time or before, has failed.
func (s *Store) nameIsDurable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.removing {
		s.work.Wait()
	}
	if s.failed {
		return s.broken
	}
	return nil
}

// removeJournal removes one durably: its follower must never be gone before it.
func removeJournal(fsys fsys, path string) error {
	if err := fsys.remove(path); err != nil {
		return err
	}
	return fsys.syncDir(journalDir)
}
