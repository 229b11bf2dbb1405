// Package seal puts a checksum into a line of JSON, and finds by it whether the line is as it was.
//
// A record is a JSON object without its closing brace. Its line has one member more, the last one: the CRC-32C (RFC
// 3720, appendix B.4; the Castagnoli polynomial) of the record, in eight hex digits.
//
//	{"n":1,"crc32c":"fbd8009e"}
package seal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
)

const (
	before = `,"crc32c":"`
	after  = "\"}\n"

	// Len is what a line has beside its record.
	Len = len(before) + 8 + len(after)
)

var table = crc32.MakeTable(crc32.Castagnoli)

// ErrSum is of a line that is not as it was.
var ErrSum = errors.New("a line whose checksum is wrong")

// Append appends the line of a record to b.
func Append(b, record []byte) []byte {
	return append(sum(append(append(b, record...), before...), record), after...)
}

// End appends to b what follows the record that begins at from in it.
func End(b []byte, from int) []byte {
	record := b[from:]
	return append(sum(append(b, before...), record), after...)
}

// Open returns the record of a line, which has its end. The error is ErrSum where it has no checksum, too.
func Open(line []byte) ([]byte, error) {
	if !Sealed(line) {
		return nil, ErrSum
	}
	record := line[: len(line)-Len : len(line)-Len]
	var eight [8]byte
	if !bytes.Equal(line[len(record)+len(before):len(line)-len(after)], sum(eight[:0], record)) {
		return nil, ErrSum
	}
	return record, nil
}

// Sealed tells whether a line, which has its end, has a checksum.
func Sealed(line []byte) bool {
	n := len(line) - Len
	return n > 0 && string(line[n:n+len(before)]) == before && string(line[n+len(before)+8:]) == after
}

func sum(b, record []byte) []byte {
	var four [4]byte
	binary.BigEndian.PutUint32(four[:], crc32.Checksum(record, table))
	return hex.AppendEncode(b, four[:])
}
