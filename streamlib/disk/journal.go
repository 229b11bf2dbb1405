package disk

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"strconv"
	"strings"

	"github.com/iterate/durable-streams/streamlib"
)

const (
	journalSuffix = ".journal"

	// A frame begins with a line of fixed length: which journal, which frame of it, how many bytes of lines follow,
	// and the checksum of all that.
	frameHead = `{"generation":"`
	frameSeq  = `","sequence":"`
	frameLen  = `","length":"`
	headerLen = len(frameHead) + 16 + len(frameSeq) + 16 + len(frameLen) + 16 + sealLen + 1
	maxFrame  = 128 << 20
	reserve   = 4 << 10 // what appends leave of it, for deletions on a full disk
)

// growth is what a journal is extended by, written with zeros so that a later sync need not write where the file's
// blocks are. Tests make it small.
var growth int64 = 256 << 10

// journal is one file of frames. All but names is the committer's alone while it is the current one.
type journal struct {
	number    uint64 // its generation, and its file's name
	path      string
	file      file
	sequence  uint64           // of the next frame
	end       int64            // where it goes
	allocated int64            // up to here the file exists, with zeros behind end
	names     map[string]int64 // the streams in it, and how large their files are after it, -1 where they were deleted
	states    map[string]bool  // the stems of those in it whose state changed
	deletions int64            // how many the folder had seen after the last one in it, 0 where there is none

	// What reading it says.
	last     int64 // where the last frame is
	clean    bool  // nothing was written behind the last frame
	noSync   bool  // it was written without syncs
	rebooted bool  // and the machine was started again since
}

func journalPath(number uint64) string {
	return fmt.Sprintf("%s/%016d%s", journalDir, number, journalSuffix)
}

// journalNumber is the number in a journal's file name, 0 where it is none.
func journalNumber(name string) uint64 {
	digits, ok := strings.CutSuffix(name, journalSuffix)
	n, err := strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil || len(digits) != 16 {
		return 0
	}
	return n
}

// seal completes the header of a frame, for which room was left.
func (j *journal) seal(frame []byte) {
	h := fmt.Appendf(frame[:0], frameHead+"%016d"+frameSeq+"%016d"+frameLen+`%016d"`,
		j.number, j.sequence, len(frame)-headerLen)
	sum := crc32.Update(crc32.Checksum(h, castagnoli), castagnoli, frame[headerLen:])
	h = append(appendSum(append(h, beforeSum...), sum), afterSum...)
}

// write puts the frame at the end of the journal, not yet durable, and sees to it that room bytes of the file exist
// behind it. What is missing of these is written with zeros, a whole step of them where there is room for one and the
// frame is not as long as a step itself. Where it fails, undo is due.
func (j *journal) write(frame []byte, room int64) error {
	if _, err := j.file.WriteAt(frame, j.end); err != nil {
		return err
	}
	end := j.end + int64(len(frame))
	size := end + room
	if size <= j.allocated {
		return nil
	}
	step := size
	if int64(len(frame)) < growth {
		step = (size + growth - 1) / growth * growth
	}
	from := max(j.allocated, end)
	_, err := j.file.WriteAt(make([]byte, step-from), from)
	if err != nil && step > size {
		if err := j.file.truncate(from); err != nil {
			return err
		}
		step = size
		_, err = j.file.WriteAt(make([]byte, step-from), from)
	}
	if err == nil {
		j.allocated = step
	}
	return err
}

// undo takes the frame back that was written last: there are zeros again, so a later start takes it for no torn one.
// It needs no room on the disk.
func (j *journal) undo() error {
	if err := j.file.truncate(j.allocated); err != nil {
		return err
	}
	if _, err := j.file.WriteAt(make([]byte, j.allocated-j.end), j.end); err != nil {
		return err
	}
	return j.file.sync()
}

// secure writes the last frame again and syncs it. It may never have been durable: its sync failed, or had not ended
// when the process did.
func (j *journal) secure() error {
	frame := make([]byte, j.end-j.last)
	if _, err := j.file.ReadAt(frame, j.last); err != nil {
		return err
	}
	if _, err := j.file.WriteAt(frame, j.last); err != nil {
		return err
	}
	return j.file.sync()
}

// header is what a frame's first line says.
type header struct {
	generation, sequence uint64
	length               int64
	sum                  []byte
}

// parseHeader reads a header of b's first bytes; the checksum is not looked at. It is no regexp: a full journal can
// have 250,000 frames, and the start after a crash would take 0.3 s longer.
func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < headerLen {
		return h, false
	}
	number := func(before string) uint64 {
		if ok = ok && string(b[:len(before)]) == before; !ok {
			return 0
		}
		n, err := strconv.ParseUint(string(b[len(before):len(before)+16]), 10, 64)
		ok = err == nil
		b = b[len(before)+16:]
		return n
	}
	ok = true
	h.generation, h.sequence, h.length = number(frameHead), number(frameSeq), int64(number(frameLen))
	if !ok || string(b[:1+len(beforeSum)]) != `"`+beforeSum || string(b[1+len(beforeSum)+8:1+sealLen]) != afterSum {
		return h, false
	}
	h.sum = b[1+len(beforeSum) : 1+len(beforeSum)+8]
	return h, h.length <= maxFrame
}

// frameAt returns the lines of the frame at pos, nil where there is no whole one of this journal.
func (j *journal) frameAt(pos, size int64) (lines []byte, h header, err error) {
	if pos+int64(headerLen) > size {
		return nil, h, nil
	}
	head := make([]byte, headerLen)
	if _, err := j.file.ReadAt(head, pos); err != nil {
		return nil, h, err
	}
	h, ok := parseHeader(head)
	if !ok || h.generation != j.number || pos+int64(headerLen)+h.length > size {
		return nil, h, nil
	}
	lines = make([]byte, h.length)
	if _, err := j.file.ReadAt(lines, pos+int64(headerLen)); err != nil {
		return nil, h, err
	}
	sum := crc32.Update(crc32.Checksum(head[:headerLen-sealLen], castagnoli), castagnoli, lines)
	if !bytes.Equal(h.sum, appendSum(nil, sum)) {
		return nil, h, nil
	}
	return lines, h, nil
}

// walk calls use with the lines of each frame and their place, and sets end and sequence to what follows the last. A
// whole frame of this journal further on means that what lies between was damaged since: *streamlib.CorruptError.
func (j *journal) walk(use func(lines []byte, at int64) error) error {
	size, err := j.file.size()
	if err != nil {
		return err
	}
	j.allocated = size
	for {
		lines, h, err := j.frameAt(j.end, size)
		if err != nil {
			return err
		}
		if lines == nil || h.sequence != j.sequence {
			break
		}
		if err := use(lines, j.end+int64(headerLen)); err != nil {
			return err
		}
		j.last = j.end
		j.end += int64(headerLen) + int64(len(lines))
		j.sequence++
	}
	j.clean = true
	for s := (scanner{f: j.file, pos: j.end, size: size, chunk: 64 << 10}); s.pos < size; {
		begin := s.pos
		line, err := s.next()
		if err != nil {
			return err
		}
		rest := bytes.TrimLeft(line, "\x00")
		j.clean = j.clean && len(rest) == 0
		// It stands behind what is damaged; data may look like a header but for the line's end.
		i := bytes.LastIndex(rest, []byte(frameHead))
		if i < 0 {
			continue
		}
		begin += int64(len(line) - len(rest) + i)
		lines, h, err := j.frameAt(begin, size)
		if err != nil {
			return err
		}
		if lines != nil && h.sequence >= j.sequence {
			return &streamlib.CorruptError{File: j.path, Offset: j.end,
				Reason: fmt.Sprintf("frame %d is damaged, frame %d at byte %d is whole",
					j.sequence, h.sequence, begin)}
		}
	}
	return nil
}

// deletion and opening are the journal's own records.
type deletion struct {
	Delete string `json:"delete"`
	// First is the CRC-32C of the first line that goes, by which replay knows it again; "none", or "" for any.
	First string `json:"first,omitempty"`
	// Deletions are how many the folder has seen with this one; versions before the second format did not count.
	Deletions int64 `json:"deletions,omitempty"`
}

type opening struct {
	Journal  uint64 `json:"journal"`
	Previous uint64 `json:"previous"` // the journal before, 0 where that is gone
	Frames   uint64 `json:"frames"`   // in that one
	Sync     string `json:"sync"`     // always or none
	Boot     string `json:"boot"`     // the run of the operating system, where syncs are left out
}

// bootID names the run of the operating system, "" where nobody says: random(4).
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(b))
}
