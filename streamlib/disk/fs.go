package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/iterate/durable-streams/streamlib/internal/patience"
)

// fsys is the handful of operations on the data folder that the store is made of. Paths are relative to it: "format",
// "streams/orders.json". The crash tests have another implementation, in memory.
type fsys interface {
	// open opens a file with os.O_RDONLY, or os.O_RDWR to which os.O_CREATE, and with that os.O_EXCL or os.O_TRUNC,
	// may be added. With O_TRUNC what was there is not written into, but gone. A file that does not exist is
	// fs.ErrNotExist. What is no file, or a link that leads nowhere, is an error, and is not waited for.
	open(path string, flag int) (file, error)
	mkdir(path string) error            // no error where it exists
	rename(from, to string) error       // replaces to
	remove(path string) error           // fs.ErrNotExist where there is none
	names(dir string) ([]string, error) // in any order
	syncDir(dir string) error           // makes the folder's entries durable; "." is the data folder
	syncAll() error                     // makes all of it durable, or tells that some of it since openFS may not be
	syncsClosed() bool                  // syncAll keeps to that for files that are closed, as each one's sync would
	// reachable fails where a folder is no longer at its path: what is written now would be lost. It returns when a
	// name in the streams' folder last came or went, zero where that is not known or a later change might have the
	// same time.
	reachable() (changed time.Time, err error)
	same(path string, f file) (bool, error) // whether path leads to the open file
	close() error
}

// file is an open file. Its methods may be called at once.
type file interface {
	io.ReaderAt
	io.WriterAt
	size() (int64, error)
	truncate(size int64) error
	sync() error // data and size are durable when it returns nil
	close() error
}

// openSized opens a file to read what it has now.
func openSized(fsys fsys, path string) (f file, size int64, err error) {
	if f, err = fsys.open(path, os.O_RDONLY); err != nil {
		return nil, 0, err
	}
	if size, err = f.size(); err != nil {
		return nil, 0, errors.Join(err, f.close())
	}
	return f, size, nil
}

// readStart returns the first bytes of a file, and no more of them than most.
func readStart(fsys fsys, path string, most int64) ([]byte, error) {
	f, size, err := openSized(fsys, path)
	if err != nil {
		return nil, err
	}
	defer f.close()
	b := make([]byte, min(size, most))
	_, err = f.ReadAt(b, 0)
	return b, err
}

// writeWhole gives a file its name when it has its bytes, durably. The caller makes the name durable.
func writeWhole(fsys fsys, path string, b []byte) error {
	made := path + ".new"
	f, err := fsys.open(made, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err = errors.Join(err, f.sync(), f.close()); err != nil {
		return err
	}
	return fsys.rename(made, path)
}

// osFS is a folder of the operating system.
type osFS struct {
	dir  string
	root *os.Root       // nothing that is opened through it lies outside
	give func(*os.File) // gives what was made to who has the folder; nil where that is who makes it

	mu      sync.Mutex // guards folders
	folders map[string]*folder
}

// folder is one that stays open: so a sync of it cannot fail for want of a descriptor, and no other gets its inode.
type folder struct {
	*os.File
	info fs.FileInfo
	root *os.Root // the same folder
}

func openFS(dir string) (*osFS, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &osFS{dir: dir, root: root, give: giver(root), folders: map[string]*folder{}}, nil
}

func (o *osFS) folder(name string) (*folder, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := o.folders[name]; f != nil {
		return f, nil
	}
	f, info, err := o.openFolder(name)
	if err != nil {
		return nil, err
	}
	root, err := o.root.OpenRoot(name)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	o.folders[name] = &folder{f, info, root}
	return o.folders[name], nil
}

func (o *osFS) openFolder(name string) (*os.File, fs.FileInfo, error) {
	f, err := o.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		if info, e := o.root.Lstat(name); e == nil && info.Mode()&fs.ModeSymlink != 0 {
			err = fmt.Errorf("%w: %s is a link, and may not lead out of the folder; "+
				"where another disk is to have it, mount that disk there, "+
				"or put the whole folder on it", err, filepath.Join(o.dir, name))
		}
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("it is no folder")}
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

func (o *osFS) open(path string, flag int) (file, error) {
	new := flag&os.O_TRUNC != 0
	if new {
		flag = flag&^os.O_TRUNC | os.O_EXCL // what has its name may be a link to what is not ours, or a pipe
	}
	flag |= syscall.O_NONBLOCK // a pipe would wait for its other end
	f, err := o.openFile(path, flag)
	if new && errors.Is(err, fs.ErrExist) {
		if err = o.root.Remove(path); err == nil {
			f, err = o.openFile(path, flag)
		}
	}
	if err != nil {
		root, name := o.near(path)
		if info, e := root.Lstat(name); e == nil {
			err = inItsPlace(path, info.Mode(), err)
		}
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		if err == nil {
			err = inItsPlace(path, info.Mode(), nil)
		}
		return nil, errors.Join(err, f.Close())
	}
	return osFile{f}, nil
}

// near returns what opens the path with the fewest steps: of a stream's file, of which there may be many, the folder
// that is open. A link in that may lead to another folder of the data folder, which then has to open it.
func (o *osFS) near(path string) (root *os.Root, name string) {
	if name, ok := strings.CutPrefix(path, streamsDir+"/"); ok {
		if f, err := o.folder(streamsDir); err == nil {
			return f.root, name
		}
	}
	return o.root, path
}

// openFile opens a file, and gives one that it makes to who has the folder: only what nobody had before.
func (o *osFS) openFile(path string, flag int) (*os.File, error) {
	root, name := o.near(path)
	f, err := o.openIn(root, name, flag)
	if err != nil && root != o.root && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
		f, err = o.openIn(o.root, path, flag)
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		e.Path = path
	}
	return f, err
}

func (o *osFS) openIn(root *os.Root, name string, flag int) (f *os.File, err error) {
	err = patience.Open(func() error {
		f, err = o.openGiven(root, name, flag)
		return err
	})
	return f, err
}

func (o *osFS) openGiven(root *os.Root, name string, flag int) (*os.File, error) {
	if o.give == nil || flag&os.O_CREATE == 0 {
		return root.OpenFile(name, flag, 0o600)
	}
	f, err := root.OpenFile(name, flag|os.O_EXCL, 0o600)
	if err == nil {
		o.give(f)
	} else if flag&os.O_EXCL == 0 && errors.Is(err, fs.ErrExist) {
		return root.OpenFile(name, flag, 0o600)
	}
	return f, err
}

// inItsPlace is err of opening path, or says what stands there in the place of a file, and what to do about it.
func inItsPlace(path string, mode fs.FileMode, err error) error {
	what := ""
	switch {
	case errors.Is(err, fs.ErrExist): // none was to be there
		return err
	case mode.IsDir():
		what = "a folder is in its place: move that away"
	case mode&fs.ModeNamedPipe != 0:
		what = "a named pipe is in its place: move that away"
	case mode&(fs.ModeSocket|fs.ModeDevice|fs.ModeIrregular) != 0:
		what = "it is no file: move it away"
	case mode&fs.ModeSymlink == 0:
		return err
	case errors.Is(err, fs.ErrNotExist):
		what = "it is a link that leads nowhere: move it away"
	case strings.HasSuffix(err.Error(), "path escapes from parent"): // which package os does not name
		what = "it is a link that leads out of the folder: put a file in its place"
	default:
		return err
	}
	return &fs.PathError{Op: "open", Path: path, Err: errors.New(what)}
}

func (o *osFS) mkdir(path string) error {
	err := o.root.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil || o.give == nil {
		return err
	}
	f, err := o.root.Open(path)
	if err != nil {
		return err
	}
	if _, err := f.Readdirnames(1); err == io.EOF { // else another one has its name by now
		o.give(f)
	}
	return f.Close()
}

func (o *osFS) rename(from, to string) error {
	return patience.Replace(func() error { return o.root.Rename(from, to) })
}

// remove takes no descriptor, or what failed for want of one could not be taken back.
func (o *osFS) remove(name string) error {
	f, err := o.folder(filepath.Dir(name))
	if err != nil {
		return err
	}
	err = patience.Replace(func() error { return f.root.Remove(filepath.Base(name)) })
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		e.Path = name
	}
	return err
}

func (o *osFS) names(dir string) ([]string, error) {
	f, _, err := o.openFolder(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (o *osFS) syncDir(dir string) error {
	f, err := o.folder(dir)
	if err != nil {
		return err
	}
	return syncFolder(f.File)
}

func (o *osFS) reachable() (changed time.Time, err error) {
	for _, name := range [...]string{journalDir, streamsDir} {
		f, err := o.folder(name)
		if err != nil {
			return changed, err
		}
		path := filepath.Join(o.dir, name)
		now, err := os.Stat(path)
		if err != nil {
			return changed, err
		} else if !os.SameFile(now, f.info) {
			return changed, fmt.Errorf("folder %s is not the one that was opened", path)
		}
		changed = changeTime(now)
	}
	return distinct(changed, time.Now()), nil
}

// distinct returns changed, or zero where a change from now on could have the same time. Linux takes it from a clock
// that ticks every 10 ms or faster (Documentation/filesystems/multigrain-ts.rst), and some file systems keep seconds
// alone.
func distinct(changed, now time.Time) time.Time {
	if changed.Nanosecond() == 0 || now.Sub(changed) < 100*time.Millisecond {
		return time.Time{}
	}
	return changed
}

func (o *osFS) same(path string, f file) (bool, error) {
	there, err := o.root.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	open, err := f.(osFile).Stat()
	return err == nil && os.SameFile(there, open), err
}

func (o *osFS) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var err error
	for _, f := range o.folders {
		err = errors.Join(err, f.Close(), f.root.Close())
	}
	return errors.Join(err, o.root.Close())
}

type osFile struct{ *os.File }

func (f osFile) truncate(size int64) error { return f.Truncate(size) }
func (f osFile) close() error              { return f.Close() }

func (f osFile) size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
