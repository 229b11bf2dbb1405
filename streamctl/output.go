package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// An output is stdout with a buffer, and what is below it.
type output struct {
	*bufio.Writer
	under io.Writer
}

// readerGone is a writer to stdout that names its errors.
type readerGone struct{ io.Writer }

func (w readerGone) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	return n, named(err)
}

func named(err error) error {
	switch {
	case isReaderGone(err):
		return errReaderGone
	case err != nil:
		return fmt.Errorf("write to stdout: %w", err)
	}
	return nil
}

// outcome is the error of a command whose output has one, too: neither hides the other. A reader that has gone is no
// error beside another one.
func outcome(err, output error) error {
	switch {
	case err == nil:
		return output
	case output == nil || output == errReaderGone || errors.Is(err, output):
		return err
	}
	if told, ok := errors.AsType[toldError](err); ok { // it was not
		err = told.error
	}
	return fmt.Errorf("%w; %w", err, output)
}

// untilReaderGone returns a context that ends with errReaderGone when stdout is a pipe that nobody reads any more, so
// that a command that waits for events need not wait for one to find out. What watches the pipe ends with the
// process.
func untilReaderGone(ctx context.Context, stdout io.Writer) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if f, ok := stdout.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
			fd := int(f.Fd()) // before the end of the process closes it
			go func() {
				if waitReaderGone(fd) {
					cancel(errReaderGone)
				}
			}()
		}
	}
	return ctx, cancel
}
