package seal

import (
	"testing"

	"github.com/matryer/is"
)

func TestALineThatIsNotAsItWasIsSeen(t *testing.T) {
	is := is.New(t)
	record := []byte(`{"n":"€ 1"`)
	line := Append([]byte("before"), record)[len("before"):]
	is.Equal(string(End([]byte(`{"n":"€ 1"`), 0)), string(line))
	is.True(Sealed(line))
	got, err := Open(line)
	is.NoErr(err)
	is.Equal(string(got), string(record))
	is.Equal(cap(got), len(got)) // what is appended to it does not write over the line
	for i := range line {
		for bit := range 8 {
			line[i] ^= 1 << bit
			_, err := Open(line)
			is.Equal(err, ErrSum)
			line[i] ^= 1 << bit
		}
		_, err := Open(line[:i])
		is.Equal(err, ErrSum)
	}
	is.True(!Sealed([]byte("{\"n\":1}\n")))
}
