package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// numbered returns lines of a size with the numbers from first on.
func numbered(first, n, size int) (lines []line) {
	for i := range n {
		lines = append(lines, line{number: first + i, data: json.RawMessage(strings.Repeat("1", size))})
	}
	return lines
}

// numbers returns those of the lines that a queue gives at once, more of which may follow.
func numbers(t *testing.T, q *queue) (numbers []int) {
	t.Helper()
	numbers, err := taken(t, q)
	if err != nil {
		t.Fatal(err)
	}
	return numbers
}

// taken returns what take does, the lines by their numbers.
func taken(t *testing.T, q *queue) (numbers []int, err error) {
	lines, err := q.take(t.Context())
	for _, l := range lines {
		numbers = append(numbers, l.number)
	}
	return numbers, err
}

// TestLinesThatComeMeanwhileAreOneBatch: what is put while nobody takes is taken at once, up to a batch's size.
func TestLinesThatComeMeanwhileAreOneBatch(t *testing.T) {
	is := is.New(t)
	q := &queue{most: 8 << 20}
	is.True(q.put(t.Context(), numbered(1, 1, 1)...))
	is.Equal(numbers(t, q), []int{1}) // alone, for nothing else is there
	for i := range 3 {
		is.True(q.put(t.Context(), numbered(2+i, 1, 1)...))
	}
	is.Equal(numbers(t, q), []int{2, 3, 4})
	is.True(q.put(t.Context(), numbered(1, batchLines+1, 1)...))
	is.Equal(len(numbers(t, q)), batchLines)
	is.Equal(numbers(t, q), []int{batchLines + 1})
	is.True(q.put(t.Context(), numbered(1, 3, batchBytes/2)...))
	is.Equal(numbers(t, q), []int{1, 2})
	is.Equal(numbers(t, q), []int{3})
	is.True(q.put(t.Context(), numbered(1, 1, 2*batchBytes)...)) // which is a batch by itself
	is.Equal(numbers(t, q), []int{1})
}

// TestWholeInputIsOneBatch however long it is, and it is whole once it has ended.
func TestWholeInputIsOneBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		q := &queue{most: 1, whole: true}
		is.True(q.put(t.Context(), numbered(1, 2*batchLines, 1)...))
		time.AfterFunc(time.Minute, func() { q.close(io.EOF) })
		lines, err := taken(t, q)
		is.Equal(len(lines), 2*batchLines)
		is.Equal(err, io.EOF)
	})
}

// TestQueueWaits for lines to take, and for room to put more than it holds.
func TestQueueWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		q := &queue{most: 1000}
		put := func(lines []line, within time.Duration) bool {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			return q.put(ctx, lines...)
		}
		is.True(put(numbered(1, 1, 2000), 0)) // an empty one has room for all
		is.True(!put(numbered(2, 1, 1), time.Hour))
		time.AfterFunc(time.Minute, func() { is.Equal(numbers(t, q), []int{1}) })
		is.True(put(numbered(2, 1, 500), time.Hour))
		is.True(!put(numbered(3, 1, 500), time.Hour))
		is.Equal(numbers(t, q), []int{2}) // and what had no room is not there
		time.AfterFunc(time.Minute, func() { put(numbered(3, 1, 1), 0) })
		is.Equal(numbers(t, q), []int{3})
		time.AfterFunc(time.Minute, func() { q.close(io.EOF) })
		_, err := taken(t, q)
		is.Equal(err, io.EOF)
	})
}

// TestQueueGivesItsLastLinesWithItsEnd, and nothing any more to whoever was told to stop.
func TestQueueGivesItsLastLinesWithItsEnd(t *testing.T) {
	is := is.New(t)
	q := &queue{most: 1000}
	is.True(q.put(t.Context(), numbered(1, batchLines+1, 1)...))
	q.close(io.ErrUnexpectedEOF)
	stopped, stop := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	stop(why)
	_, err := q.take(stopped)
	is.Equal(err, why)
	is.Equal(len(numbers(t, q)), batchLines)
	for _, want := range [][]int{{batchLines + 1}, nil} { // and goes on telling it
		last, err := taken(t, q)
		is.Equal(last, want)
		is.Equal(err, io.ErrUnexpectedEOF)
	}
}
