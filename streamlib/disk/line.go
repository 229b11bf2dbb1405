package disk

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"

	"github.com/iterate/durable-streams/streamlib"
)

// What storage adds to a record to make it a line.
const (
	beforeSum = `,"crc32c":"`
	afterSum  = "\"}\n"
	sealLen   = len(beforeSum) + 8 + len(afterSum)

	// maxLine is the longest line that can be: data of one batch, a name and a key with every byte escaped, and the
	// rest.
	maxLine = streamlib.MaxBatch + 2<<10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var firstMember = []byte(`{"offset":"`)

var (
	errUnended = errors.New("a line without its end")
	errSum     = errors.New("a line whose checksum is wrong")
	errForeign = errors.New("an event of another stream")
	errControl = errors.New("a control record that this version does not know")
)

// appendLine appends the line of a record that has no closing brace yet.
func appendLine(b, record []byte) []byte {
	b = append(append(b, record...), beforeSum...)
	b = appendSum(b, crc32.Checksum(record, castagnoli))
	return append(b, afterSum...)
}

// lineSum is the checksum of a whole line, by which it is known again.
func lineSum(line []byte) string { return string(appendSum(nil, crc32.Checksum(line, castagnoli))) }

func appendSum(b []byte, sum uint32) []byte {
	var four [4]byte
	binary.BigEndian.PutUint32(four[:], sum)
	return hex.AppendEncode(b, four[:])
}

// unseal returns the record of a line, which has its end.
func unseal(line []byte) ([]byte, error) {
	n := len(line) - sealLen
	if n <= 0 || line[len(line)-1] != '\n' {
		return nil, errUnended
	}
	sum, given := crc32.Checksum(line[:n], castagnoli), line[n+len(beforeSum):]
	if string(line[n:n+len(beforeSum)]) != beforeSum || string(given[8:]) != afterSum {
		return nil, errSum
	}
	var eight [8]byte
	if !bytes.Equal(given[:8], appendSum(eight[:0], sum)) {
		return nil, errSum
	}
	return line[:n:n], nil
}

// parseLine returns the event of a line of the stream whose quoted name is given.
func parseLine(line, quoted []byte) (streamlib.Event, error) {
	record, err := unseal(line)
	if err != nil {
		return streamlib.Event{}, err
	}
	if !bytes.HasPrefix(record, firstMember) {
		return streamlib.Event{}, errControl
	}
	if len(record) < nameAt || !bytes.HasPrefix(record[nameAt:], quoted) {
		return streamlib.Event{}, errForeign
	}
	return parseRecord(record)
}

// nameAt is where the quoted name begins in a record.
const nameAt = len(`{"offset":"0000000000000000","eventStreamId":`)

// quote is the name as it stands in a record.
func quote(name string) []byte {
	b := []byte{'"'}
	for i := range len(name) {
		if name[i] == '"' || name[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, name[i])
	}
	return append(b, '"')
}
